package containerservice

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"sort"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/nap-aks/nap/localazure/arm/rp"
	"github.com/nap-aks/nap/localazure/intent"
)

const (
	// closedAnnotation and frozenAnnotation keep on a NodePool what it was like
	// before it was closed or frozen, as JSON, so that it can be put back by
	// whoever finds it, whatever has been restarted meanwhile.
	closedAnnotation = "node-auto-provisioning.local/before-disable"
	frozenAnnotation = "node-auto-provisioning.local/before-freeze"

	disableTaintKey = "karpenter.azure.com/disable"

	// stuckAfter is how long no node may go before disabling gives up, and
	// explainAfter before it is said why.
	stuckAfter   = 10 * time.Minute
	explainAfter = 20 * time.Second
)

var nodePools = schema.GroupVersionResource{Group: "karpenter.sh", Version: "v1", Resource: "nodepools"}

// EditNodePools implements Live: f changes a NodePool and says whether it did.
func (l liveCluster) EditNodePools(ctx context.Context, f func(map[string]any) (bool, error)) error {
	items, err := l.list(ctx, nodePools, "")
	if err != nil {
		return err
	}
	for i := range items {
		for {
			changed, err := f(items[i].Object)
			if err != nil || !changed {
				if err != nil {
					return err
				}
				break
			}
			_, err = l.c.Resource(nodePools).Update(ctx, &items[i], metav1.UpdateOptions{FieldManager: "arm"})
			if err == nil || apierrors.IsNotFound(err) {
				break
			}
			if !apierrors.IsConflict(err) {
				return fmt.Errorf("changing NodePool %s: %w", items[i].GetName(), err)
			}
			fresh, err := l.c.Resource(nodePools).Get(ctx, items[i].GetName(), metav1.GetOptions{})
			if apierrors.IsNotFound(err) {
				break
			}
			if err != nil {
				return fmt.Errorf("reading NodePool %s: %w", items[i].GetName(), err)
			}
			items[i] = *fresh
		}
	}
	return nil
}

func annotation(pool map[string]any, key string) string {
	s, _, _ := unstructured.NestedString(pool, "metadata", "annotations", key)
	return s
}

func annotate(pool map[string]any, key, value string) error {
	if value == "" {
		unstructured.RemoveNestedField(pool, "metadata", "annotations", key)
		if as, ok, err := unstructured.NestedMap(pool, "metadata", "annotations"); err == nil && ok && len(as) == 0 {
			unstructured.RemoveNestedField(pool, "metadata", "annotations")
		}
		return nil
	}
	return unstructured.SetNestedField(pool, value, "metadata", "annotations", key)
}

// remember notes fields of a NodePool in an annotation, as they are.
func remember(pool map[string]any, key string, paths ...[]string) error {
	before := map[string]any{}
	for _, p := range paths {
		if v, ok, err := unstructured.NestedFieldCopy(pool, p...); err == nil && ok {
			before[strings.Join(p, ".")] = v
		}
	}
	b, err := json.Marshal(before)
	if err != nil {
		return fmt.Errorf("noting what the NodePool is like: %w", err)
	}
	return annotate(pool, key, string(b))
}

// restore puts the fields back that remember noted.
func restore(pool map[string]any, key string, paths ...[]string) (bool, error) {
	text := annotation(pool, key)
	if text == "" {
		return false, nil
	}
	before := map[string]any{}
	if err := json.Unmarshal([]byte(text), &before); err != nil {
		return false, fmt.Errorf("the annotation %s is not readable: %w", key, err)
	}
	for _, p := range paths {
		v, ok := before[strings.Join(p, ".")]
		if !ok {
			unstructured.RemoveNestedField(pool, p...)
			continue
		}
		if err := unstructured.SetNestedField(pool, v, p...); err != nil {
			return false, fmt.Errorf("restoring %s: %w", strings.Join(p, "."), err)
		}
	}
	return true, annotate(pool, key, "")
}

var (
	limitsPath  = []string{"spec", "limits"}
	taintsPath  = []string{"spec", "template", "spec", "taints"}
	budgetsPath = []string{"spec", "disruption", "budgets"}
)

// closePool makes a NodePool buy nothing more and let its nodes be replaced by
// others: CPU limit 0, and the taint that makes its nodes drift.
func closePool(pool map[string]any) (bool, error) {
	if annotation(pool, closedAnnotation) != "" {
		return false, nil
	}
	if err := remember(pool, closedAnnotation, limitsPath, taintsPath); err != nil {
		return false, err
	}
	if err := unstructured.SetNestedField(pool, "0", append(limitsPath, "cpu")...); err != nil {
		return false, err
	}
	taints, _, err := unstructured.NestedSlice(pool, taintsPath...)
	if err != nil {
		return false, err
	}
	for _, t := range taints {
		if m, ok := t.(map[string]any); ok && m["key"] == disableTaintKey {
			return true, nil
		}
	}
	taints = append(taints, map[string]any{"key": disableTaintKey, "effect": "NoSchedule"})
	return true, unstructured.SetNestedSlice(pool, taints, taintsPath...)
}

// reopenPool undoes closePool.
func reopenPool(pool map[string]any) (bool, error) {
	return restore(pool, closedAnnotation, limitsPath, taintsPath)
}

// freezePool stops all voluntary change of a NodePool's nodes, or with all any
// new node as well.
func freezePool(all bool) func(map[string]any) (bool, error) {
	return func(pool map[string]any) (bool, error) {
		if annotation(pool, frozenAnnotation) == "" {
			if err := remember(pool, frozenAnnotation, limitsPath, budgetsPath); err != nil {
				return false, err
			}
		}
		if err := unstructured.SetNestedSlice(pool, []any{map[string]any{"nodes": "0"}}, budgetsPath...); err != nil {
			return false, err
		}
		if !all {
			return true, nil
		}
		return true, unstructured.SetNestedField(pool, "0", append(limitsPath, "cpu")...)
	}
}

func resumePool(pool map[string]any) (bool, error) {
	return restore(pool, frozenAnnotation, limitsPath, budgetsPath)
}

func (p *Provider) addMigration() {
	p.env.Engine.Register("DisableNodeProvisioning", rp.Kind{Step: p.stepDisable, Failed: p.clusterFailed})
	p.env.Engine.Register(migrateKind, rp.Kind{Step: p.stepMigrate, Failed: p.clusterFailed})
}

func (p *Provider) dial(ctx context.Context, uid string) (Live, error) {
	st, _, err := p.status(ctx, uid)
	if err != nil {
		return nil, err
	}
	live, err := p.Dial(st)
	if err != nil {
		return nil, rp.Conflict("OperationNotAllowed", "The cluster's API server cannot be reached: %v. Try again once the cluster is healthy.", err)
	}
	return live, nil
}

func (p *Provider) mustBeAuto(ctx context.Context, q *rp.Request) (*rp.Record, error) {
	r, err := p.cluster(ctx, q.ID)
	if err != nil {
		return nil, err
	}
	if mode(r.Doc) != modeAuto {
		return nil, rp.BadRequest("OperationNotAllowed", "%s of cluster '%s' is not Auto: there is nothing to %s.", modePath, q.ID.Name(), strings.TrimSuffix(q.Action, "nodeprovisioning")).At("properties.nodeProvisioningProfile.mode")
	}
	return r, nil
}

// disable begins what the documentation has people do by hand: no new nodes,
// existing ones drained under disruption budgets into pools of a fixed size,
// then mode Manual. The body may name such pools to create or to scale first:
//
//	{"fixedPools": [{"name": "…", "vmSize": "…", "count": 3}]}
func (p *Provider) disable(ctx context.Context, q *rp.Request) (*rp.Response, error) {
	r, err := p.mustBeAuto(ctx, q)
	if err != nil {
		return nil, err
	}
	id := r.ParsedID()
	c := &rp.Change{Env: p.env, Caller: q.Caller, ID: id, Type: q.Type, Rec: r, Doc: r.Doc, Lock: lockOf(id), Busy: busy, Op: &rp.Operation{Kind: "DisableNodeProvisioning", Verb: "Updating", Data: rp.Doc{}}}
	specs := q.Body.List("fixedPools")
	if fixed := q.Body.Map("fixedPool"); fixed != nil {
		specs = append([]any{map[string]any(fixed)}, specs...)
	}
	var pools []any
	seen := map[string]bool{}
	for i, x := range specs {
		spec, ok := x.(map[string]any)
		if !ok {
			return nil, rp.BadRequest("InvalidParameter", "fixedPools[%d] is not an object.", i).At("fixedPools")
		}
		pool, before, err := p.fixedPool(ctx, r, q.Caller, spec)
		if err != nil {
			return nil, err
		}
		name := pool.ParsedID().Name()
		if seen[name] {
			return nil, rp.BadRequest("InvalidParameter", "fixedPools names '%s' twice.", name).At("fixedPools")
		}
		seen[name] = true
		c.Cmps, c.Ops = append(c.Cmps, rp.Unchanged(pool)), append(c.Ops, rp.PutOp(pool))
		pools = append(pools, map[string]any{"name": name, "before": before})
	}
	c.Op.Data["pools"] = pools
	r.State, r.ETag, r.ChangedAt, r.ChangedBy = "Updating", rp.NewGUID(), p.env.Now().UTC(), q.Caller.ObjectID
	if err := p.env.StartOperation(ctx, c); err != nil {
		return nil, err
	}
	return &rp.Response{Status: http.StatusAccepted, Op: c.Op, WithLocation: true}, nil
}

// newPool is the count before of a pool that there was not.
const newPool = -1

// fixedPool makes the record of a pool that a disabled cluster's pods go to, and
// tells how many nodes it had, or newPool.
func (p *Provider) fixedPool(ctx context.Context, cluster *rp.Record, caller rp.Principal, spec rp.Doc) (*rp.Record, int, error) {
	id := cluster.ParsedID().Child("agentPools", spec.Str("name"))
	t := p.env.FindType(poolType)
	if !t.NameRule.MatchString(id.Name()) || id.Name() == intent.MachinesPool {
		return nil, 0, rp.BadRequest("InvalidParameter", "The name '%s' of a fixed pool is invalid. %s", id.Name(), t.NameHelp).At("fixedPools.name")
	}
	r, err := p.env.Store.Get(ctx, id)
	if err != nil {
		return nil, 0, err
	}
	before := newPool
	var old rp.Doc
	now := p.env.Now().UTC()
	if r == nil {
		r = &rp.Record{ID: id.String(), UID: rp.NewGUID(), CreatedAt: now, CreatedBy: caller.ObjectID, Internal: rp.Doc{}, Doc: rp.Doc{}}
	} else {
		old = r.Doc.Clone()
		before, _ = old.Int("properties", "count")
	}
	props := map[string]any{}
	for _, k := range []string{"vmSize", "count", "mode", "osSKU", "availabilityZones"} {
		if v, ok := spec.Lookup(k); ok {
			props[k] = v
		}
	}
	r.Doc = rp.MergePut(r.Doc, rp.Doc{"properties": props})
	if err := p.completePool(cluster.Doc, r.Doc, old, id.Name()); err != nil {
		return nil, 0, err
	}
	r.State, r.ETag, r.ChangedAt, r.ChangedBy = "Updating", rp.NewGUID(), now, caller.ObjectID
	return r, before, nil
}

func (p *Provider) stepDisable(ctx context.Context, op *rp.Operation) (rp.Step, error) {
	id := rp.MustParseID(op.Resource)
	r, err := p.env.Store.Target(ctx, op)
	if err != nil {
		return rp.Step{}, err
	}
	phase := op.Data.Str("phase")
	if op.Cancel && phase != phaseUndo {
		return giveUp(op, rp.ErrCanceled)
	}
	if phase == phaseManual {
		ok, err := p.ready(ctx, r.UID)
		if err != nil || !ok {
			return rp.Step{Watch: []string{intent.ClusterStatusKey(r.UID)}, After: 2 * time.Second}, err
		}
		cmps, ops, err := p.setState(ctx, r, rp.Succeeded)
		return rp.Step{Done: true, Cmps: cmps, Ops: ops, Result: rp.Doc{"nodeProvisioningMode": modeManual}}, err
	}
	live, err := p.dial(ctx, r.UID)
	if err != nil {
		return rp.Step{After: 2 * time.Second}, notYet(err, op, p.env)
	}
	callCtx, cancel := context.WithTimeout(ctx, liveTimeout)
	defer cancel()
	if phase == phaseUndo {
		return p.undoDisable(ctx, callCtx, op, r, live)
	}
	if phase == phaseStart {
		// The pools come first: pods need a place to go to.
		for _, x := range op.Data.List("pools") {
			name := rp.Doc(x.(map[string]any)).Str("name")
			pool, err := p.env.Store.Get(ctx, id.Child("agentPools", name))
			if err != nil {
				return rp.Step{}, err
			}
			if pool == nil {
				continue
			}
			at, err := p.reconcilePool(ctx, op, r, pool)
			if rp.IsError(err) {
				return giveUp(op, rp.AsError(err))
			}
			if err != nil {
				return rp.Step{}, err
			}
			if !at.done {
				same, save := p.progressed(op, "waiting for "+at.waiting)
				if save {
					return rp.Step{Save: true}, nil
				}
				if same > stuckAfter {
					return giveUp(op, rp.Conflict("OperationTimeout", "Gave up after %s of waiting for %s. Node auto-provisioning is on, as before.", stuckAfter, at.waiting))
				}
				return rp.Step{Watch: []string{intent.MachineStatusPrefix + r.UID + "/" + name + "/"}, After: 2 * time.Second}, nil
			}
		}
		if err := live.EditNodePools(callCtx, closePool); err != nil {
			return rp.Step{}, err
		}
		return next(op, phaseDrain, "no new nodes come; those that there are will be drained")
	}
	nodes, err := live.ProvisionedNodes(callCtx)
	if err != nil {
		return rp.Step{}, err
	}
	machines, err := p.env.Store.ViewList(ctx, machinesOf(id))
	if err != nil {
		return rp.Step{}, err
	}
	left := map[string]bool{}
	for _, n := range nodes {
		left[n] = true
	}
	for _, m := range machines {
		left[vmName(m)] = true
	}
	claims, err := live.NodeClaims(callCtx)
	if err != nil {
		return rp.Step{}, err
	}
	if len(left) == 0 && len(claims) > 0 {
		// Without the controller nobody would take their finalizers off.
		for _, c := range claims {
			left["NodeClaim "+c] = true
		}
	}
	if len(left) == 0 {
		return p.becomeManual(ctx, op, r, live, callCtx)
	}
	names := make([]string, 0, len(left))
	for n := range left {
		names = append(names, n)
	}
	sort.Strings(names)
	same, save := p.progressed(op, fmt.Sprintf("%d nodes left: %s", len(names), strings.Join(names, ", ")))
	if save {
		return rp.Step{Save: true}, nil
	}
	why := "their pods find no place elsewhere, or the NodePools' disruption budgets keep them"
	if same > explainAfter {
		held, err := live.Held(callCtx, nodes)
		if err != nil {
			return rp.Step{}, err
		}
		if len(held) > 0 {
			why = "kept by " + few(held)
		}
		if same <= stuckAfter && explained(op, why) {
			return rp.Step{Save: true}, nil
		}
	}
	if same > stuckAfter {
		return giveUp(op, refused(modePath+" cannot be Manual unless no Node has the label karpenter.sh/nodepool", fmt.Sprintf(
			"For %s no node has gone; left are %s: %s. Node auto-provisioning is on again, as before. Give the pods fixed pools that are large enough (fixedPools) and repeat the request.", stuckAfter, strings.Join(names, ", "), why)))
	}
	return rp.Step{Watch: []string{rp.ResourcePrefix + "microsoft.containerservice/"}, After: 2 * time.Second}, nil
}

// undoDisable puts everything back: mode Auto, the NodePools as they were, and
// the fixed pools, whose nodes are drained before they go.
func (p *Provider) undoDisable(ctx, callCtx context.Context, op *rp.Operation, r *rp.Record, live Live) (rp.Step, error) {
	if mode(r.Doc) != modeAuto {
		r.Doc.Set(modeAuto, "properties", "nodeProvisioningProfile", "mode")
		r.Internal.Drop("closedPools")
		c := &rp.Change{Env: p.env, ID: r.ParsedID(), Rec: r, Doc: r.Doc}
		if err := p.writeIntent(ctx, c); err != nil {
			return rp.Step{}, err
		}
		op.Data = op.Data.Clone()
		op.Data["progress"] = "mode Auto is put back"
		return rp.Step{Save: true, Cmps: append(c.Cmps, rp.Unchanged(r)), Ops: append([]clientv3.Op{rp.PutOp(r)}, c.Ops...)}, nil
	}
	ready, err := p.ready(ctx, r.UID)
	if err != nil {
		return rp.Step{}, err
	}
	if !ready {
		return p.waiting(op, "giving up: the controller of node auto-provisioning comes up again", []string{intent.ClusterStatusKey(r.UID)})
	}
	if err := live.EditNodePools(callCtx, reopenPool); err != nil {
		return rp.Step{}, fmt.Errorf("opening the NodePools again: %w", err)
	}
	wait, err := live.Waiting(callCtx, op.Start)
	if err != nil {
		return rp.Step{}, err
	}
	for _, x := range op.Data.List("pools") {
		d := rp.Doc(x.(map[string]any))
		before, _ := d.Int("before")
		pool, err := p.env.Store.Get(ctx, r.ParsedID().Child("agentPools", d.Str("name")))
		if err != nil {
			return rp.Step{}, err
		}
		if pool == nil {
			continue
		}
		watch := []string{intent.MachineStatusPrefix + r.UID + "/" + d.Str("name") + "/"}
		done, text, err := p.emptyPool(callCtx, op, r, pool, emptying{live: live, keep: max(0, before), wait: wait})
		if err != nil {
			return rp.Step{}, err
		}
		if !done {
			return p.waiting(op, "giving up: "+text, watch)
		}
		if before == newPool {
			return rp.Step{Save: true, Cmps: []clientv3.Cmp{rp.Unchanged(pool)}, Ops: []clientv3.Op{rp.DeleteOp(pool.ParsedID())}}, nil
		}
		if n, _ := pool.Doc.Int("properties", "count"); n != before {
			pool.Doc.Set(float64(before), "properties", "count")
			pool.ETag, pool.ChangedAt = rp.NewGUID(), p.env.Now().UTC()
			return rp.Step{Save: true, Cmps: []clientv3.Cmp{rp.Unchanged(pool)}, Ops: []clientv3.Op{rp.PutOp(pool)}}, nil
		}
		at, err := p.reconcilePool(ctx, op, r, pool)
		if err != nil && !rp.IsError(err) {
			return rp.Step{}, err
		}
		if err != nil {
			at.waiting = err.Error() // must not end what puts things back
		}
		if !at.done {
			return p.waiting(op, "giving up: waiting for "+at.waiting, watch)
		}
	}
	return rp.Step{}, gaveUp(op)
}

// notYet lets an operation wait for a cluster that cannot be reached, but not
// for ever.
func notYet(err error, op *rp.Operation, env *rp.Env) error {
	if env.Now().Sub(op.Start) < stuckAfter {
		return nil
	}
	return err
}

// reopen undoes, when the mode is Auto again, what disabling in one call did to
// the NodePools. Those closed by hand stay as they are.
func (p *Provider) reopen(ctx context.Context, r *rp.Record) error {
	live, err := p.dial(ctx, r.UID)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, liveTimeout)
	defer cancel()
	if err := live.EditNodePools(ctx, reopenPool); err != nil {
		return fmt.Errorf("opening the NodePools of %s again: %w", r.ID, err)
	}
	r.Internal.Drop("closedPools")
	return nil
}

// becomeManual switches the mode once no node is left.
func (p *Provider) becomeManual(ctx context.Context, op *rp.Operation, r *rp.Record, live Live, callCtx context.Context) (rp.Step, error) {
	open, err := live.OpenNodePools(callCtx)
	if err != nil {
		return rp.Step{}, err
	}
	if len(open) > 0 { // opened, or made, by somebody meanwhile
		if err := live.EditNodePools(callCtx, func(pool map[string]any) (bool, error) {
			if err := annotate(pool, closedAnnotation, ""); err != nil {
				return false, err
			}
			return closePool(pool)
		}); err != nil {
			return rp.Step{}, err
		}
		return rp.Step{After: time.Second}, nil
	}
	prev, ok, err := intent.Get[intent.ClusterIntent](ctx, p.env.Store.KV, intent.ClusterIntentKey(r.UID))
	if err != nil {
		return rp.Step{}, err
	}
	if !ok {
		return rp.Step{}, rp.NotFound(r.ParsedID())
	}
	r.Doc.Set(modeManual, "properties", "nodeProvisioningProfile", "mode")
	r.Internal.Set(true, "closedPools")
	c := &rp.Change{Env: p.env, ID: r.ParsedID(), Rec: r, Doc: r.Doc}
	ci := p.clusterIntent(r, &prev)
	p.withdrawController(c, &ci)
	op.Data = op.Data.Clone()
	op.Data["phase"], op.Data["progress"] = phaseManual, "no nodes left; the controller is being stopped"
	return rp.Step{Save: true, Cmps: append(c.Cmps, rp.Unchanged(r)), Ops: append([]clientv3.Op{rp.PutOp(r), rp.JSONOp(intent.ClusterIntentKey(r.UID), ci)}, c.Ops...)}, nil
}

// freeze stops voluntary change ({"scope": "Disruption"}, the default) or
// provisioning as well ({"scope": "All"}); resume undoes either.
func (p *Provider) freeze(ctx context.Context, q *rp.Request) (*rp.Response, error) {
	scope := q.Body.Str("scope")
	if scope == "" {
		scope = "Disruption"
	}
	if !equal(scope, "Disruption", "All") {
		return nil, rp.BadRequest("InvalidParameter", "The scope '%s' is none of Disruption, All.", scope).At("scope")
	}
	return p.editPools(ctx, q, freezePool(equal(scope, "All")))
}

func (p *Provider) resume(ctx context.Context, q *rp.Request) (*rp.Response, error) {
	return p.editPools(ctx, q, resumePool)
}

func (p *Provider) editPools(ctx context.Context, q *rp.Request, f func(map[string]any) (bool, error)) (*rp.Response, error) {
	r, err := p.mustBeAuto(ctx, q)
	if err != nil {
		return nil, err
	}
	if op, err := p.env.LockHolder(ctx, lockOf(r.ParsedID())); err != nil {
		return nil, err
	} else if op != nil {
		return nil, busy(op)
	}
	live, err := p.dial(ctx, r.UID)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, liveTimeout)
	defer cancel()
	names := []string{}
	err = live.EditNodePools(ctx, func(pool map[string]any) (bool, error) {
		changed, err := f(pool)
		if changed {
			n, _, _ := unstructured.NestedString(pool, "metadata", "name")
			names = append(names, n)
		}
		return changed, err
	})
	if err != nil {
		return nil, rp.Conflict("OperationNotAllowed", "The NodePools of cluster '%s' could not all be changed; %v were. Repeat the request: %v", q.ID.Name(), names, err)
	}
	return &rp.Response{Body: rp.Doc{"nodePools": names}}, nil
}
