// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package provisioning

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"
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
	"sigs.k8s.io/karpenter/pkg/operator/injection"
	karpoptions "sigs.k8s.io/karpenter/pkg/operator/options"
	"sigs.k8s.io/karpenter/pkg/state/virtualpods"
	nodepoolutils "sigs.k8s.io/karpenter/pkg/utils/nodepool"

	"github.com/nap-aks/nap/engine"
	"github.com/nap-aks/nap/snapshot"
)

const (
	name = "provisioner"
	// passInterval is the longest time between two passes. Some changes come
	// without an event: offerings become available again, limits are raised.
	passInterval = 10 * time.Second
	// passIntervalAssumed is the same while pods are assumed, which can expire.
	passIntervalAssumed = time.Second
)

// Placer makes a plan for a snapshot; engine.Place is one.
type Placer func(*engine.Snapshot, engine.Options) (*engine.Plan, error)

// Config holds the dependencies and settings of a Provisioner.
type Config struct {
	Kube     client.Client
	Provider cloudprovider.CloudProvider
	Cluster  *state.Cluster
	Recorder events.Recorder
	Clock    clock.Clock
	// Place replaces the planner; nil means the engine, on the compiled cluster that
	// the snapshot cache keeps.
	Place Placer
	// Karpenter places the pods that the engine does not support.
	Karpenter *karpprovisioning.Provisioner
	// Informers feed the snapshot cache.
	Informers cache.Informers
	// Buffers holds the placeholder pods of CapacityBuffers. It is read only with
	// Karpenter's feature gate CapacityBuffer.
	Buffers *virtualpods.Cache
	// Nominate writes nominated nodes for the scheduler; see NominationVersion.
	Nominate bool
	// PricedPreferences gives up preferences of pods that cost too much.
	PricedPreferences bool
	// Quotas returns the quotas of the cloud and their use; nil if there are none.
	Quotas func() []snapshot.Quota
	// Decisions is the folder that keeps the snapshots of the latest passes, each to
	// be replayed with nap plan; "" keeps none.
	Decisions string
	// Observe is called with what each pass decided, and the NodeClaims by machine of the
	// plan, nil where one could not be created; nil: nobody looks. It must be quick and
	// keep nothing of the Input.
	Observe func(in *snapshot.Input, plan *engine.Plan, created []*karpv1.NodeClaim)
}

// Provisioner creates NodeClaims for pods that cannot be scheduled.
type Provisioner struct {
	Config
	cluster       *state.Cluster
	cache         *snapshot.Cache // the cluster, and which pods are assumed where
	batch         *batch
	defaultSpread bool
	features      karpoptions.FeatureGates
	nominations   *nominations
	breaker       *breaker
	purchases     *purchases

	// reported are the reasons of the last FailedScheduling events, by pod UID.
	reported map[types.UID]string
	// eventRate limits events about refused pods, whose number has no limit.
	eventRate flowcontrol.RateLimiter

	mu sync.Mutex
	// unconfirmed are NodeClaims whose creation was not answered.
	unconfirmed []*karpv1.NodeClaim
}

// New returns a provisioner. It takes batching, preferences and feature gates from
// Karpenter's options in the context.
func New(ctx context.Context, c Config) *Provisioner {
	o := karpoptions.FromContext(ctx)
	settings := snapshot.Settings{
		IgnorePreferences:   o.PreferencePolicy == karpoptions.PreferencePolicyIgnore,
		PricedPreferences:   c.PricedPreferences,
		MinValuesBestEffort: o.MinValuesPolicy == karpoptions.MinValuesPolicyBestEffort,
		ReservedCapacity:    o.FeatureGates.ReservedCapacity,
	}
	if o.SchedulerConfig != nil && o.SchedulerConfig.PodTopologySpread != nil {
		settings.DefaultSpread = o.SchedulerConfig.PodTopologySpread.DefaultConstraints
	}
	return &Provisioner{
		Config: c, cluster: c.Cluster,
		cache:         snapshot.NewCache(settings),
		batch:         newBatch(c.Clock, o.BatchIdleDuration, o.BatchMaxDuration),
		defaultSpread: len(settings.DefaultSpread) > 0,
		features:      o.FeatureGates,
		nominations:   newNominations(),
		breaker:       newBreaker(),
		purchases:     newPurchases(),
		reported:      map[types.UID]string{},
		eventRate:     flowcontrol.NewTokenBucketRateLimiter(50, 500),
	}
}

// Register adds the provisioner to the manager.
func (p *Provisioner) Register(_ context.Context, m manager.Manager) error { return m.Add(p) }

// NeedLeaderElection reports true: only one provisioner may act on a cluster.
func (p *Provisioner) NeedLeaderElection() bool { return true }

// Start watches the cluster and makes passes until the context ends. It logs the
// error of a pass; the next pass starts from the state of the cluster.
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
	if !p.hydrated(ctx) {
		return nil
	}
	for p.batch.wait(ctx, p.interval()) {
		if err := p.Pass(ctx); err != nil && ctx.Err() == nil {
			log.FromContext(ctx).Error(err, "provisioning failed")
		}
	}
	return nil
}

func (p *Provisioner) interval() time.Duration {
	if p.cache.AnyAssumed() {
		return passIntervalAssumed
	}
	return passInterval
}

func (p *Provisioner) plan(in *snapshot.Input, o engine.Options) (*engine.Plan, error) {
	place := p.cache.Place
	if p.Place != nil {
		place = func(in *snapshot.Input, o engine.Options) (*engine.Plan, error) { return p.Place(in.Snapshot, o) }
	}
	plan, err := place(in, o)
	if err == nil && p.Nominate {
		engine.EvenOut(in.Snapshot, plan)
	}
	return plan, err
}

// Pass makes one pass over the pending pods:
//
//  1. bring the view of the cluster up to date;
//  2. take back the places of pods that the scheduler does not bind, and give back
//     machines on their way that no pod needs any more; hold pods back whose places
//     keep failing;
//  3. plan;
//  4. create the plan's NodeClaims and assume its pods;
//  5. report the verdicts;
//  6. hand the pods that the engine does not support to Karpenter's scheduler.
func (p *Provisioner) Pass(ctx context.Context) error {
	defer measure("all", p.Clock)()
	if err := p.confirmCreated(ctx); err != nil {
		return err
	}
	if err := p.refresh(ctx); err != nil {
		return err
	}
	p.expireAssumed(ctx)
	p.giveBack(ctx)
	p.holdBack()

	end := measure("snapshot", p.Clock)
	in, err := p.cache.Snapshot(p.Clock.Now())
	end()
	if err != nil {
		return fmt.Errorf("taking a snapshot of the cluster: %w", err)
	}
	karpsched.IgnoredPodCount.Set(float64(len(in.Invalid)), nil)
	if len(in.Snapshot.Pending) == 0 && len(in.Invalid) == 0 {
		p.forgetReported(nil)
		karpsched.UnschedulablePodsCount.Set(0, map[string]string{karpsched.ControllerLabel: name})
		return p.updateBuffers(ctx, nil, nil)
	}

	if p.Decisions != "" {
		p.record(ctx, p.cache.Objects(in.Snapshot.Time))
	}
	options := in.Options
	options.SkipBound, options.Trace = true, engine.TraceRefused
	start := p.Clock.Now()
	pending := len(in.Pods)
	in, plan, revised, err := p.decide(ctx, in, options)
	if err != nil {
		return fmt.Errorf("placing %d pods: %w", pending, err)
	}
	took := p.Clock.Since(start)
	passSeconds.WithLabelValues("place").Observe(took.Seconds())
	karpsched.DurationSeconds.Observe(took.Seconds(), map[string]string{karpsched.ControllerLabel: name})
	if len(plan.Machines) > 0 {
		log.FromContext(ctx).Info("planned machines", "pods", len(in.Pods), "machines", len(plan.Machines), "costUSDPerHour", plan.CostUSDPerHour, "duration", took)
	}

	end = measure("act", p.Clock)
	defer end()
	created, err := p.execute(ctx, in, plan, revised)
	p.report(ctx, in, plan, created)
	if p.Observe != nil {
		p.Observe(in, plan, created)
	}
	err = errors.Join(err, p.updateBuffers(ctx, in, plan))
	if deferred := p.deferred(in, plan); len(deferred) > 0 {
		err = errors.Join(err, p.fallBack(ctx, deferred))
	}
	return err
}

// measure starts the clock of a part of a pass; the function that it returns stops
// it.
func measure(part string, c clock.Clock) func() {
	start := c.Now()
	return func() { passSeconds.WithLabelValues(part).Observe(c.Since(start).Seconds()) }
}

// refresh updates what no informer reports: instance types, quotas, placeholder
// pods and machines marked for disruption.
func (p *Provisioner) refresh(ctx context.Context) error {
	pools, err := nodepoolutils.ListManaged(ctx, p.Kube, p.Provider)
	if err != nil {
		return fmt.Errorf("listing NodePools: %w", err)
	}
	for _, pool := range pools {
		list, err := p.Provider.GetInstanceTypes(ctx, pool)
		if err != nil {
			if !cloudprovider.IsUnevaluatedNodePoolError(err) {
				log.FromContext(ctx).Error(err, "getting instance types failed, ignoring nodepool", "nodePool", pool.Name)
			}
			list = nil
		}
		p.cache.SetInstanceTypes(pool.Name, list)
	}
	if p.Quotas != nil {
		p.cache.SetQuotas(p.Quotas())
	}
	var marked []string
	for n := range p.cluster.Nodes() {
		if n.MarkedForDeletion() {
			marked = append(marked, n.ProviderID())
		}
	}
	slices.Sort(marked)
	p.cache.SetMarked(marked)
	if p.features.CapacityBuffer {
		p.cache.SetVirtualPods(p.Buffers.GetAll(ctx))
	}
	return nil
}
