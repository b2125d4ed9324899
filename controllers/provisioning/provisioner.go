package provisioning

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/client-go/util/flowcontrol"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	karpv1 "sigs.k8s.io/karpenter/pkg/apis/v1"
	"sigs.k8s.io/karpenter/pkg/cloudprovider"
	karpprovisioning "sigs.k8s.io/karpenter/pkg/controllers/provisioning"
	karpsched "sigs.k8s.io/karpenter/pkg/controllers/provisioning/scheduling"
	"sigs.k8s.io/karpenter/pkg/controllers/state"
	"sigs.k8s.io/karpenter/pkg/events"
	"sigs.k8s.io/karpenter/pkg/metrics"
	"sigs.k8s.io/karpenter/pkg/operator/injection"
	karpoptions "sigs.k8s.io/karpenter/pkg/operator/options"
	"sigs.k8s.io/karpenter/pkg/state/virtualpods"
	nodepoolutils "sigs.k8s.io/karpenter/pkg/utils/nodepool"
	"sigs.k8s.io/karpenter/pkg/utils/resources"

	"github.com/nap-aks/nap/engine"
	"github.com/nap-aks/nap/snapshot"
)

const (
	name = "provisioner"
	// lookAgain is how often a pass is made although no event asked for one:
	// offerings come back, limits are freed, promises run out.
	lookAgain = 10 * time.Second
	// lookSoon is the same while pods have yet to arrive where they were
	// promised to run.
	lookSoon = time.Second
	// bindWait is how long a pod may stay pending although its promised node is
	// ready; then it is placed anew, on what room there is. A scheduler that is
	// not told of the plan puts pods where it likes, and the room may soon be
	// taken by another. One that is told keeps the room, but may have to wait for
	// nodes of other zones before a spread constraint lets it go on.
	bindWait          = 5 * time.Second
	bindWaitNominated = 20 * time.Second
	// bindWaitMost is the same while other pods do arrive where they were promised
	// to run: the scheduler is at work, and has not come to this one yet.
	bindWaitMost = 2 * time.Minute
	// roomWait is how long a pod may stay pending on a ready node that no longer
	// has room for it: others took it, so there is nothing to wait for.
	roomWait = time.Second
	// writers is how many NodeClaims are written at once.
	writers = 64
)

// Placer makes a plan of a snapshot; engine.Place is one.
type Placer func(*engine.Snapshot, engine.Options) (*engine.Plan, error)

// Config is what a Provisioner works with.
type Config struct {
	Kube     client.Client
	Provider cloudprovider.CloudProvider
	Cluster  *state.Cluster
	Recorder events.Recorder
	Clock    clock.Clock
	// Place overrides who plans; nil is the engine, on the mirror's warm, compiled
	// cluster.
	Place Placer
	// Karpenter is asked for pods that the engine does not compile.
	Karpenter *karpprovisioning.Provisioner
	// Informers feed the mirror of the cluster.
	Informers cache.Informers
	// Buffers are the placeholder pods of CapacityBuffers, read when Karpenter's
	// gate of that name is on.
	Buffers *virtualpods.Cache
	// Nominate tells the scheduler where pods are to go; see NominationVersion.
	Nominate bool
	// Quotas tells which quotas of the cloud there are and what is used of them;
	// nil when there are none.
	Quotas func() []snapshot.Quota
	// Decisions is a folder for snapshots of what passes decided on, the newest
	// ones; "" for none. Each can be replayed with nap plan.
	Decisions string
}

// Provisioner makes machines for pods that cannot be scheduled.
type Provisioner struct {
	Config
	cluster       *state.Cluster
	mirror        *snapshot.Cache
	batch         *batch
	defaultSpread bool
	features      karpoptions.FeatureGates

	// told are the reasons that pods were told last, by pod UID.
	told map[types.UID]string
	// since is when each promise was made, by pod key.
	since map[string]promise
	// displaced are pods that lost their promised place and have no other yet.
	displaced map[string]bool
	// eventRate limits events about refused pods: their number has no limit.
	eventRate flowcontrol.RateLimiter

	nominations *nominations

	mu   sync.Mutex
	last *engine.Plan
	// doubts are NodeClaims whose creation got no answer.
	doubts []*karpv1.NodeClaim
	// arrived is when a pod was bound last that was promised a place.
	arrived time.Time
	// refusedOwners are the workloads of which the scheduler has refused a pod since
	// the last pass.
	refusedOwners map[types.UID]bool
}

type promise struct {
	to    string
	made  time.Time
	ready time.Time // when the node was first seen ready for pods; zero before
	// others tells that not the engine chose the place.
	others bool
}

// New makes the provisioner; batching, preferences and gates come from
// Karpenter's options in the context.
func New(ctx context.Context, c Config) *Provisioner {
	o := karpoptions.FromContext(ctx)
	settings := snapshot.Settings{
		IgnorePreferences:   o.PreferencePolicy == karpoptions.PreferencePolicyIgnore,
		MinValuesBestEffort: o.MinValuesPolicy == karpoptions.MinValuesPolicyBestEffort,
		ReservedCapacity:    o.FeatureGates.ReservedCapacity,
	}
	if o.SchedulerConfig != nil && o.SchedulerConfig.PodTopologySpread != nil {
		settings.DefaultSpread = o.SchedulerConfig.PodTopologySpread.DefaultConstraints
	}
	return &Provisioner{
		Config: c, cluster: c.Cluster,
		mirror:        snapshot.NewCache(settings),
		batch:         newBatch(c.Clock, o.BatchIdleDuration, o.BatchMaxDuration),
		defaultSpread: len(settings.DefaultSpread) > 0,
		features:      o.FeatureGates,
		told:          map[types.UID]string{},
		since:         map[string]promise{},
		displaced:     map[string]bool{},
		nominations:   newNominations(),
		refusedOwners: map[types.UID]bool{},
		eventRate:     flowcontrol.NewTokenBucketRateLimiter(50, 500),
	}
}

// Register adds the provisioner to the manager; it runs on the leader.
func (p *Provisioner) Register(_ context.Context, m manager.Manager) error { return m.Add(p) }

// NeedLeaderElection says that only one provisioner may act.
func (p *Provisioner) NeedLeaderElection() bool { return true }

// Mirror is the cluster as the provisioner sees it, to be read only.
func (p *Provisioner) Mirror() *snapshot.Cache { return p.mirror }

// LastPlan is the plan of the last pass that had pods to place; nil before.
func (p *Provisioner) LastPlan() *engine.Plan {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.last
}

// Start follows the cluster and makes passes until the context ends. An error
// of one pass is logged: the next one starts from what is then true.
func (p *Provisioner) Start(ctx context.Context) error {
	ctx = injection.WithControllerName(ctx, name)
	ctx = log.IntoContext(ctx, log.FromContext(ctx).WithName(name))
	if err := p.feed(ctx, p.Informers); err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return err
	}
	if p.Nominate {
		go p.nominator(ctx)
	}
	for p.batch.wait(ctx, p.pause()) {
		if !p.cluster.Synced(ctx) {
			p.batch.trigger()
			continue
		}
		if err := p.Pass(ctx); err != nil && ctx.Err() == nil {
			log.FromContext(ctx).Error(err, "provisioning pass")
		}
	}
	return nil
}

func (p *Provisioner) pause() time.Duration {
	if len(p.since) > 0 {
		return lookSoon
	}
	return lookAgain
}

func (p *Provisioner) plan(in *snapshot.Input, o engine.Options) (*engine.Plan, error) {
	if p.Place != nil {
		return p.Place(in.Snapshot, o)
	}
	return p.mirror.Place(in, o)
}

// Pass makes one pass.
func (p *Provisioner) Pass(ctx context.Context) error {
	defer measure("all", p.Clock)()
	p.mu.Lock()
	clear(p.refusedOwners)
	p.mu.Unlock()
	if err := p.settleDoubts(ctx); err != nil {
		return err
	}
	if err := p.refresh(ctx); err != nil {
		return err
	}
	p.reviewPromises(ctx)

	end := measure("snapshot", p.Clock)
	in, err := p.mirror.Snapshot(p.Clock.Now())
	end()
	if err != nil {
		return fmt.Errorf("reading the cluster: %w", err)
	}
	karpsched.IgnoredPodCount.Set(float64(len(in.Invalid)), nil)
	if len(in.Snapshot.Pending) == 0 && len(in.Invalid) == 0 {
		p.forgetTold(nil)
		karpsched.UnschedulablePodsCount.Set(0, map[string]string{karpsched.ControllerLabel: name})
		return p.keepBuffers(ctx, nil, nil)
	}

	if p.Decisions != "" {
		p.record(ctx, p.mirror.Objects(in.Snapshot.Time))
	}
	options := in.Options
	options.SkipBound, options.Trace = true, engine.TraceRefused
	start := p.Clock.Now()
	pending := len(in.Pods)
	in, plan, err := p.decide(ctx, in, options)
	if err != nil {
		return fmt.Errorf("placing %d pods: %w", pending, err)
	}
	took := p.Clock.Since(start)
	passSeconds.WithLabelValues("place").Observe(took.Seconds())
	karpsched.DurationSeconds.Observe(took.Seconds(), map[string]string{karpsched.ControllerLabel: name})
	p.mu.Lock()
	p.last = plan
	p.mu.Unlock()
	if len(plan.Machines) > 0 {
		log.FromContext(ctx).Info("planned machines", "pods", len(in.Pods), "machines", len(plan.Machines), "costUSDPerHour", plan.CostUSDPerHour, "duration", took)
	}

	end = measure("act", p.Clock)
	defer end()
	created, err := p.carryOut(ctx, in, plan)
	p.tell(ctx, in, plan, created)
	err = errors.Join(err, p.keepBuffers(ctx, in, plan))
	if deferred := p.deferred(in, plan); len(deferred) > 0 {
		err = errors.Join(err, p.fallBack(ctx, deferred))
	}
	return err
}

func measure(part string, c clock.Clock) func() {
	start := c.Now()
	return func() { passSeconds.WithLabelValues(part).Observe(c.Since(start).Seconds()) }
}

// refresh tells the mirror what no informer does: instance types, quotas and
// machines marked for disruption.
func (p *Provisioner) refresh(ctx context.Context) error {
	pools, err := nodepoolutils.ListManaged(ctx, p.Kube, p.Provider)
	if err != nil {
		return fmt.Errorf("listing NodePools: %w", err)
	}
	for _, pool := range pools {
		list, err := p.Provider.GetInstanceTypes(ctx, pool)
		if err != nil {
			if !cloudprovider.IsUnevaluatedNodePoolError(err) {
				log.FromContext(ctx).Error(err, "no instance types, the NodePool is left out", "NodePool", pool.Name)
			}
			list = nil
		}
		p.mirror.SetInstanceTypes(pool.Name, list)
	}
	if p.Quotas != nil {
		p.mirror.SetQuotas(p.Quotas())
	}
	var marked []string
	for n := range p.cluster.Nodes() {
		if n.MarkedForDeletion() {
			marked = append(marked, n.ProviderID())
		}
	}
	slices.Sort(marked)
	p.mirror.SetMarked(marked)
	if p.features.CapacityBuffer {
		p.mirror.SetVirtualPods(p.Buffers.GetAll(ctx))
	}
	return nil
}

// carryOut creates the plan's NodeClaims and promises pods their places. It
// returns the claims by machine index; nil where one could not be created, in
// which case its pods stay pending and the next pass takes them up.
func (p *Provisioner) carryOut(ctx context.Context, in *snapshot.Input, plan *engine.Plan) ([]*karpv1.NodeClaim, error) {
	created := make([]*karpv1.NodeClaim, len(plan.Machines))
	errs := make([]error, len(plan.Machines))
	pools := map[string]*karpv1.NodePool{}
	for _, m := range plan.Machines {
		if _, ok := pools[m.NodePool]; ok {
			continue
		}
		pool := &karpv1.NodePool{}
		if err := p.Kube.Get(ctx, client.ObjectKey{Name: m.NodePool}, pool); err != nil {
			return created, fmt.Errorf("reading NodePool %s: %w", m.NodePool, err)
		}
		pools[m.NodePool] = pool
	}
	types := p.typesOf(ctx, pools)
	var wg sync.WaitGroup
	slots := make(chan struct{}, writers)
	for i := range plan.Machines {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			m := &plan.Machines[i]
			claim, err := claimFor(pools[m.NodePool], types[m.NodePool], m)
			if err == nil {
				err = p.create(ctx, claim)
			}
			if err != nil {
				errs[i] = fmt.Errorf("creating a NodeClaim of NodePool %s: %w", m.NodePool, err)
				return
			}
			created[i] = claim
		})
	}
	wg.Wait()
	now := p.Clock.Now()
	for i, claim := range created {
		if claim == nil {
			continue
		}
		m := &plan.Machines[i]
		// Both views learn of the claim now, not when the watch tells them: the
		// next pass and the next disruption must not miss it.
		if err := p.mirror.Upsert(claim); err != nil {
			errs[i] = err
		}
		p.cluster.UpdateNodeClaim(claim)
		p.promise(m.Pods, claim.Name, in, now)
		metrics.NodeClaimsCreatedTotal.Inc(map[string]string{
			metrics.ReasonLabel: metrics.ProvisionedReason, metrics.NodePoolLabel: m.NodePool,
			metrics.MinValuesRelaxedLabel: minValuesRelaxed(claim),
		})
		log.FromContext(ctx).Info("created nodeclaim", "NodeClaim", claim.Name, "NodePool", m.NodePool,
			"instance-type", m.Offerings[0].InstanceType, "alternatives", len(m.Offerings)-1, "requests", claim.Spec.Resources.Requests, "pods", count(m.Pods))
	}
	for _, placed := range plan.Placements {
		p.promise(placed.Pods, placed.Node, in, now)
		if id := providerID(in.Nodes[placed.Node]); id != "" && realPods(placed.Pods, in) {
			p.cluster.NominateNodeForPod(ctx, id)
		}
	}
	return created, errors.Join(errs...)
}

func (p *Provisioner) typesOf(ctx context.Context, pools map[string]*karpv1.NodePool) map[string]map[string]*cloudprovider.InstanceType {
	out := map[string]map[string]*cloudprovider.InstanceType{}
	for name, pool := range pools {
		list, err := p.Provider.GetInstanceTypes(ctx, pool)
		if err != nil {
			log.FromContext(ctx).Error(err, "reading instance types", "NodePool", name)
			continue
		}
		byName := make(map[string]*cloudprovider.InstanceType, len(list))
		for _, it := range list {
			byName[it.Name] = it
		}
		out[name] = byName
	}
	return out
}

func providerID(ref snapshot.NodeRef) string {
	switch {
	case ref.Node != nil && ref.Node.Spec.ProviderID != "":
		return ref.Node.Spec.ProviderID
	case ref.Claim != nil:
		return ref.Claim.Status.ProviderID
	}
	return ""
}

// promise keeps places for pods that are pending; those that still run on a
// node being emptied are replaced by their owners under other names.
func (p *Provisioner) promise(groups []engine.PodGroup, to string, in *snapshot.Input, now time.Time) {
	for _, g := range groups {
		for _, key := range g.Pods {
			p.promiseOne(in.Pods[key], to, now)
		}
	}
	p.nominations.signal()
}

func (p *Provisioner) promiseOne(pod *corev1.Pod, to string, now time.Time) {
	if pod == nil || pod.Spec.NodeName != "" || karpprovisioning.IsVirtualPod(pod) {
		return
	}
	key := snapshot.PodKey(pod)
	delete(p.displaced, key)
	p.mirror.Promise(key, to)
	p.since[key] = promise{to: to, made: now}
	if p.Nominate {
		p.nominations.want(key, to)
	}
}

// promiseForOthers keeps places that Karpenter's scheduler has chosen.
func (p *Provisioner) promiseForOthers(pods []*corev1.Pod, to string, now time.Time) {
	for _, pod := range pods {
		p.promiseOne(pod, to, now)
		if pr, ok := p.since[snapshot.PodKey(pod)]; ok {
			pr.others = true
			p.since[snapshot.PodKey(pod)] = pr
		}
	}
}

// reviewPromises takes back what is not being kept: the node is ready, yet the
// scheduler has not put the pod there.
func (p *Provisioner) reviewPromises(ctx context.Context) {
	clearing := map[string]string{}
	if p.Nominate {
		for _, key := range p.nominations.stale(p.Clock.Now()) {
			clearing[key] = ""
		}
		defer func() { p.patchAll(ctx, clearing) }()
	}
	if len(p.since) == 0 {
		return
	}
	now, patience := p.Clock.Now(), bindWait
	if p.Nominate {
		patience = bindWaitNominated
	}
	p.mu.Lock()
	arrived := p.arrived
	p.mu.Unlock()
	standing := p.mirror.Promises()
	awaited := map[string]bool{}
	for key := range p.since {
		awaited[standing[key]] = true
	}
	ready, expecting := map[string]*state.StateNode{}, []string{}
	for n := range p.cluster.Nodes() {
		if n.Node != nil && awaited[n.Node.Name] || n.NodeClaim != nil && awaited[n.NodeClaim.Name] {
			expecting = append(expecting, n.ProviderID())
		}
		if !n.Initialized() {
			continue
		}
		if n.Node != nil {
			ready[n.Node.Name] = n
		}
		if n.NodeClaim != nil {
			ready[n.NodeClaim.Name] = n
		}
	}
	// A node that pods are on their way to is not empty, however long the scheduler
	// takes.
	for _, id := range expecting {
		p.cluster.NominateNodeForPod(ctx, id)
	}
	crowded := p.crowdedOut(ctx, standing, ready, now)
	for key, pr := range p.since {
		to, ok := standing[key]
		switch {
		case !ok || to != pr.to:
			delete(p.since, key)
		case ready[pr.to] == nil:
		case pr.ready.IsZero():
			pr.ready = now
			p.since[key] = pr
		case crowded[key] || now.Sub(pr.ready) >= patience && (now.Sub(arrived) >= patience || now.Sub(pr.ready) >= bindWaitMost):
			p.mirror.Release(key)
			delete(p.since, key)
			p.displaced[key] = true
			if p.nominations.takeBack(key) {
				clearing[key] = ""
			}
			reason := "NotBound"
			if crowded[key] {
				reason = "RoomTaken"
			}
			promisesBroken.WithLabelValues(reason).Inc()
		}
	}
}

// crowdedOut are the pods whose promised node is ready for roomWait and has no
// place left for them: what is bound there keeps them off, or takes the room
// together with the promised pods before them in the order of their keys.
func (p *Provisioner) crowdedOut(ctx context.Context, standing map[string]string, ready map[string]*state.StateNode, now time.Time) map[string]bool {
	waiting := map[*state.StateNode][]string{}
	for key, pr := range p.since {
		node := ready[pr.to]
		if node != nil && standing[key] == pr.to && !pr.ready.IsZero() && now.Sub(pr.ready) >= roomWait {
			waiting[node] = append(waiting[node], key)
		}
	}
	out := map[string]bool{}
	for node, keys := range waiting {
		slices.Sort(keys)
		room, there := node.Available(), p.boundTo(ctx, node)
		for _, key := range keys {
			pod := p.podByKey(ctx, key)
			if pod == nil || pod.Spec.NodeName != "" {
				continue
			}
			if requests := resources.RequestsForPods(pod); !forbidden(pod, node, there) && resources.Fits(requests, room) {
				room = resources.Subtract(room, requests)
			} else {
				out[key] = true
			}
		}
	}
	return out
}

// realPods tells whether any of the pods is more than a buffer's placeholder.
// Only those hold back the disruption of a node: placeholders are placed anew
// in each pass and would hold it back for ever.
func realPods(groups []engine.PodGroup, in *snapshot.Input) bool {
	for _, g := range groups {
		for _, key := range g.Pods {
			if !karpprovisioning.IsVirtualPod(in.Pods[key]) {
				return true
			}
		}
	}
	return false
}

func count(groups []engine.PodGroup) int {
	n := 0
	for _, g := range groups {
		n += len(g.Pods)
	}
	return n
}

// deferred are the pods that the engine left to others.
func (p *Provisioner) deferred(in *snapshot.Input, plan *engine.Plan) []*corev1.Pod {
	var out []*corev1.Pod
	for _, v := range plan.Verdicts {
		if v.Outcome != engine.Deferred {
			continue
		}
		for _, feature := range in.Snapshot.Classes[v.Class].Unsupported {
			deferredTotal.WithLabelValues(feature).Add(float64(len(v.Pods)))
		}
		for _, key := range v.Pods {
			if pod := in.Pods[key]; pod != nil {
				out = append(out, pod.DeepCopy())
			}
		}
	}
	return out
}

// fallBack has Karpenter's scheduler place pods, creates its NodeClaims and
// promises the pods their places. Machines on which others have been promised a
// place are not offered to it: it knows nothing of promises.
func (p *Provisioner) fallBack(ctx context.Context, pods []*corev1.Pod) error {
	o := karpoptions.FromContext(ctx)
	taken := map[string]bool{}
	for _, to := range p.mirror.Promises() {
		taken[to] = true
	}
	nodes := slices.DeleteFunc(p.cluster.DeepCopyNodes().Active(), func(n *state.StateNode) bool {
		return n.Node != nil && taken[n.Node.Name] || n.NodeClaim != nil && taken[n.NodeClaim.Name]
	})
	opts := []karpsched.Options{
		karpsched.DisableReservedCapacityFallback,
		karpsched.NumConcurrentReconciles(int(math.Ceil(float64(o.CPURequests) / 1000))),
		karpsched.MinValuesPolicy(o.MinValuesPolicy),
	}
	if o.PreferencePolicy == karpoptions.PreferencePolicyIgnore {
		opts = append(opts, karpsched.IgnorePreferences)
	}
	s, err := p.Karpenter.NewScheduler(ctx, pods, nodes, sets.New[types.UID](), opts...)
	if errors.Is(err, karpprovisioning.ErrNodePoolsNotFound) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("handing %d pods to Karpenter's scheduler: %w", len(pods), err)
	}
	timed, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	results, err := s.Solve(timed, pods)
	if err != nil && !errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("Karpenter's scheduler on %d pods: %w", len(pods), err)
	}
	results = results.TruncateInstanceTypes(ctx, karpsched.MaxInstanceTypes)
	p.cluster.MarkPodSchedulingDecisions(ctx, results.PodErrors, results.NodePoolToPodMapping(), results.ExistingNodeToPodMapping())
	results.Record(ctx, p.Recorder, p.cluster)
	now := p.Clock.Now()
	defer p.nominations.signal()
	for _, n := range results.ExistingNodes {
		to := ""
		if n.Node != nil {
			to = n.Node.Name
		} else if n.NodeClaim != nil {
			to = n.NodeClaim.Name
		}
		p.promiseForOthers(n.Pods, to, now)
	}
	if len(results.NewNodeClaims) == 0 {
		return nil
	}
	names, err := p.Karpenter.CreateNodeClaims(ctx, results.NewNodeClaims, karpprovisioning.WithReason(metrics.ProvisionedReason), karpprovisioning.RecordPodNomination)
	if err != nil {
		err = fmt.Errorf("creating NodeClaims of Karpenter's scheduler: %w", err)
	}
	for i, name := range names {
		if name == "" {
			continue // not created: its pods are taken up by the next pass
		}
		// The mirror learns of the claim now, as of the engine's.
		claim := &karpv1.NodeClaim{}
		if p.Kube.Get(ctx, client.ObjectKey{Name: name}, claim) != nil {
			claim = results.NewNodeClaims[i].ToNodeClaim() // the watch is behind
			claim.Name = name
		}
		if e := p.mirror.Upsert(claim); e != nil {
			err = errors.Join(err, e)
		}
		p.promiseForOthers(results.NewNodeClaims[i].Pods, name, now)
	}
	return err
}
