// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package containerservice

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sort"
	"strconv"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/nap-aks/nap/localazure/arm/rp"
	"github.com/nap-aks/nap/localazure/intent"
)

const (
	// upgradeStatusLabel marks, with the value quarantined, a node that an upgrade
	// could not drain and left cordoned (undrainableNodeBehavior Cordon).
	upgradeStatusLabel = "kubernetes.azure.com/upgrade-status"
	quarantined        = "Quarantined"

	defaultDrainTimeout = 30 * time.Minute
)

// scaleSet returns the name of a pool's scale set.
func scaleSet(cluster *rp.Record, pool string) string {
	return "aks-" + pool + "-" + digits(cluster.UID, 8) + "-vmss"
}

// instanceNumber returns the number in the name of a scale set's instance; -1 if
// it has none.
func instanceNumber(name string) int {
	i := strings.LastIndex(name, "-vmss")
	if i < 0 {
		return -1
	}
	n, err := strconv.ParseInt(name[i+len("-vmss"):], 36, 64)
	if err != nil {
		return -1
	}
	return int(n)
}

// instance returns the intent of a scale set's instance.
func (p *Provider) instance(cluster, pool *rp.Record, n int) intent.MachineIntent {
	d, id := pool.Doc, pool.ParsedID()
	set := scaleSet(cluster, id.Name())
	name := set + fmt.Sprintf("%06s", strconv.FormatInt(int64(n), 36))
	ng := cluster.Doc.Str("properties", "nodeResourceGroup")
	maxPods, _ := d.Int("properties", "maxPods")
	disk, _ := d.Int("properties", "osDiskSizeGB")
	m := intent.MachineIntent{
		ClusterUID: cluster.UID, Pool: id.Name(), Name: name, NodeName: name,
		ProviderID: "azure:///subscriptions/" + id.Subscription + "/resourceGroups/" + strings.ToLower(ng) + "/providers/Microsoft.Compute/virtualMachineScaleSets/" + set + "/virtualMachines/" + strconv.Itoa(n),
		VMSize:     d.Str("properties", "vmSize"), Location: cluster.Doc.Str("location"), Spot: equal(d.Str("properties", "scaleSetPriority"), "Spot"), Mode: d.Str("properties", "mode"),
		Labels: map[string]string{}, Taints: append(d.Strings("properties", "nodeTaints"), d.Strings("properties", "nodeInitializationTaints")...), MaxPods: maxPods, OSDiskSizeGB: disk,
		OSSKU: d.Str("properties", "osSKU"), NodeImageVersion: d.Str("properties", "nodeImageVersion"), KubernetesVersion: d.Str("properties", "currentOrchestratorVersion"),
		NodeResourceGroup: ng, CreatedAt: p.env.Now().UTC(),
	}
	for k, v := range d.Map("properties", "nodeLabels") {
		if s, ok := v.(string); ok {
			m.Labels[k] = s
		}
	}
	if zones := d.Strings("properties", "availabilityZones"); len(zones) > 0 {
		m.Zone = zones[n%len(zones)]
	}
	if m.Spot {
		m.Taints = append(m.Taints, "kubernetes.azure.com/scalesetpriority=spot:NoSchedule")
	}
	return m
}

// addInstances writes the intents of n new instances, with unused numbers, if cmps
// hold.
func (p *Provider) addInstances(ctx context.Context, cluster, pool *rp.Record, have []intent.MachineIntent, n int, cmps ...clientv3.Cmp) error {
	kv := p.env.Store.KV
	next, _ := pool.Internal.Int("next")
	for _, m := range have {
		next = max(next, instanceNumber(m.Name)+1)
	}
	for n > 0 {
		chunk := min(n, 50)
		var ops []clientv3.Op
		var keys []string
		for i := 0; i < chunk; i++ {
			m := p.instance(cluster, pool, next+i)
			key := intent.MachineIntentKey(m.ClusterUID, m.Pool, m.Name)
			if err := p.quota.Reserve(ctx, key, m.Location, m.VMSize, m.Spot); err != nil {
				for _, k := range keys {
					p.quota.Release(k)
				}
				return err
			}
			keys = append(keys, key)
			ops = append(ops, rp.JSONOp(key, m))
		}
		next += chunk
		pool.Internal = pool.Internal.Clone()
		pool.Internal.Set(float64(next), "next")
		resp, err := kv.Txn(ctx).If(append(cmps, rp.Unchanged(pool), rp.Exists(cluster.ParsedID()))...).Then(append(ops, rp.PutOp(pool))...).Commit()
		if err != nil || !resp.Succeeded {
			for _, k := range keys {
				p.quota.Release(k)
			}
			if err != nil {
				return fmt.Errorf("adding nodes to pool %s: %w", pool.ID, err)
			}
			return nil // a conflict: the next step retries
		}
		fresh, err := p.env.Store.Get(ctx, pool.ParsedID())
		if err != nil || fresh == nil {
			return err
		}
		*pool = *fresh
		n -= chunk
	}
	return nil
}

// node is an instance of a pool's scale set: its intent and its status.
type node struct {
	intent.MachineIntent
	status intent.MachineStatus
	// up reports whether the node runs the image of its intent and is registered.
	up bool
	// outdated reports whether the intent's image is not the pool's.
	outdated bool
}

// drain returns the state of the drain in the intent; empty without one.
func (n *node) drain() intent.DrainState {
	switch {
	case n.Drain == nil:
		return ""
	case n.status.Drain == nil || !n.status.Drain.Since.Equal(n.Drain.Since):
		return intent.Draining
	}
	return n.status.Drain.State
}

func (n *node) quarantined() bool { return n.Labels[upgradeStatusLabel] == quarantined }

// progress is how far a pool has been reconciled.
type progress struct {
	done    bool
	waiting string // what is missing if not done
	// since is when the latest change in progress started, or must end.
	since time.Time
}

// scaling is one step of reconciling a pool.
type scaling struct {
	p             *Provider
	ctx           context.Context
	op            *rp.Operation
	cluster, pool *rp.Record
	name          string
	want          int
	nodes         []*node // by number
	gone          int     // instances that are being deleted
	since         time.Time
}

// look reads the state of a pool's instances.
func (p *Provider) look(ctx context.Context, op *rp.Operation, cluster, pool *rp.Record) (*scaling, error) {
	s := &scaling{p: p, ctx: ctx, op: op, cluster: cluster, pool: pool, name: pool.ParsedID().Name(), since: op.Start}
	s.want, _ = pool.Doc.Int("properties", "count")
	have, _, err := intent.List[intent.MachineIntent](ctx, p.env.Store.KV, intent.MachineIntentPrefix+cluster.UID+"/"+s.name+"/")
	if err != nil {
		return nil, err
	}
	sts, _, err := intent.List[intent.MachineStatus](ctx, p.env.Store.KV, intent.MachineStatusPrefix+cluster.UID+"/"+s.name+"/")
	if err != nil {
		return nil, err
	}
	status := map[string]intent.MachineStatus{}
	for _, st := range sts {
		status[st.Name] = st
	}
	sort.Slice(have, func(i, j int) bool { return instanceNumber(have[i].Name) < instanceNumber(have[j].Name) })
	image := p.instance(cluster, pool, 0).Image()
	for _, m := range have {
		st := status[m.Name]
		delete(status, m.Name)
		s.nodes = append(s.nodes, &node{MachineIntent: m, status: st, outdated: m.Image() != image,
			up: st.Phase == intent.MachineRunning && st.Image == m.Image() && st.Registered})
		for _, t := range []time.Time{m.CreatedAt, m.ReimagedAt} {
			s.active(t)
		}
		if m.Drain != nil && !s.nodes[len(s.nodes)-1].quarantined() {
			s.active(m.Drain.Since.Add(m.Drain.Timeout))
		}
	}
	s.gone = len(status)
	return s, nil
}

func (s *scaling) active(t time.Time) {
	if t.After(s.since) {
		s.since = t
	}
}

func (s *scaling) wait(format string, args ...any) (progress, error) {
	return progress{waiting: fmt.Sprintf(format, args...), since: s.since}, nil
}

// reconcilePool takes one step towards the instances that a pool asks for. Nodes
// are cordoned and drained before they are removed or reimaged; an upgrade adds
// surge nodes first. All state is in the intents and their statuses, so it can be
// interrupted at any point.
func (p *Provider) reconcilePool(ctx context.Context, op *rp.Operation, cluster, pool *rp.Record) (progress, error) {
	s, err := p.look(ctx, op, cluster, pool)
	if err != nil {
		return progress{}, err
	}
	if err := s.failures(); err != nil {
		return progress{}, err
	}
	if equal(cluster.Doc.Str("properties", "powerState", "code"), "Stopped") {
		// A stopped cluster loses its machines without a drain.
		if len(s.nodes) > 0 {
			if err := s.remove(s.nodes); err != nil {
				return progress{}, err
			}
		}
		if len(s.nodes)+s.gone > 0 {
			return s.wait("%d nodes of pool %s to be removed", len(s.nodes)+s.gone, s.name)
		}
		return progress{done: true}, nil
	}
	if equal(pool.Doc.Str("properties", "powerState", "code"), "Stopped") {
		s.want = 0
	}
	if changed, err := s.refresh(); err != nil || changed {
		return progress{waiting: "pool " + s.name, since: s.since}, err
	}
	if slices.ContainsFunc(s.nodes, func(n *node) bool { return n.outdated && !n.quarantined() }) {
		return s.upgrade()
	}
	return s.scale()
}

// failures removes an instance that could not be allocated, and returns why.
func (s *scaling) failures() error {
	for _, n := range s.nodes {
		if n.status.Phase == intent.MachineFailed {
			if err := s.remove([]*node{n}); err != nil {
				return err
			}
			return rp.Errorf(409, n.status.Code, "Instance '%s' of agent pool '%s' could not be created: %s", n.Name, s.name, n.status.Message).At(s.name)
		}
	}
	return nil
}

// refresh copies a pool's changed labels, taints and mode to its nodes, and drains
// again the nodes that an earlier operation quarantined. It reports whether a node
// changed.
func (s *scaling) refresh() (bool, error) {
	var changed []*node
	for _, n := range s.nodes {
		if n.quarantined() && n.Drain != nil && n.Drain.Since.Before(s.op.Start) {
			n.Labels = maps.Clone(n.Labels)
			delete(n.Labels, upgradeStatusLabel)
			n.Drain = s.newDrain(s.forced())
			changed = append(changed, n)
			continue
		}
		now := s.p.instance(s.cluster, s.pool, instanceNumber(n.Name))
		if n.quarantined() {
			now.Labels[upgradeStatusLabel] = quarantined
		}
		if !maps.Equal(now.Labels, n.Labels) || !slices.Equal(now.Taints, n.Taints) || now.Mode != n.Mode {
			n.Labels, n.Taints, n.Mode = now.Labels, now.Taints, now.Mode
			changed = append(changed, n)
		}
	}
	return len(changed) > 0, s.write(changed)
}

func (s *scaling) newDrain(ignorePDBs bool) *intent.Drain {
	timeout := defaultDrainTimeout
	if n, ok := s.pool.Doc.Int("properties", "upgradeSettings", "drainTimeoutInMinutes"); ok && n > 0 {
		timeout = time.Duration(n) * time.Minute
	}
	return &intent.Drain{Since: s.p.env.Now().UTC(), Timeout: timeout, IgnorePDBs: ignorePDBs}
}

// forced reports whether the operation is a forced upgrade, whose drains ignore
// PodDisruptionBudgets. It was decided when the operation started.
func (s *scaling) forced() bool { return s.op.Data.Bool(forcedKey) }

// counted returns the nodes that count: those not quarantined.
func (s *scaling) counted() []*node {
	return slices.DeleteFunc(slices.Clone(s.nodes), func(n *node) bool { return n.quarantined() })
}

// upgrade upgrades outdated nodes: it adds surge nodes, and drains and reimages as
// many old ones as the pool can spare.
func (s *scaling) upgrade() (progress, error) {
	settings := s.pool.Doc.Map("properties", "upgradeSettings")
	surge, unavailable := share(settings.Str("maxSurge"), s.want), share(settings.Str("maxUnavailable"), s.want)
	counted := s.counted()
	if surplus := len(counted) - s.want - surge; surplus > 0 {
		return s.shrink(counted, surplus)
	}
	var old, drained, blocked []*node
	draining, booting := 0, 0
	for _, n := range counted {
		switch {
		case !n.outdated:
			if !n.up {
				booting++
			}
			continue
		case n.Drain == nil:
			old = append(old, n)
			continue
		}
		switch n.drain() {
		case intent.Drained:
			drained = append(drained, n)
		case intent.DrainFailed:
			blocked = append(blocked, n)
		default:
			draining++
		}
	}
	soak, _ := settings.Int("nodeSoakDurationInMinutes")
	if len(drained) > 0 {
		now := s.p.env.Now().UTC()
		var ready []*node
		for _, n := range drained {
			over := n.status.Drain.At.Add(time.Duration(soak) * time.Minute)
			s.active(over)
			if now.Before(over) {
				continue
			}
			fresh := s.p.instance(s.cluster, s.pool, instanceNumber(n.Name))
			n.KubernetesVersion, n.NodeImageVersion = fresh.KubernetesVersion, fresh.NodeImageVersion
			n.ReimagedAt, n.Drain = now, nil
			ready = append(ready, n)
		}
		if len(ready) > 0 {
			if err := s.write(ready); err != nil {
				return progress{}, err
			}
			return s.wait("%d nodes of pool %s to be reimaged", len(ready), s.name)
		}
	}
	if len(blocked) > 0 {
		return s.undrainable(counted, blocked, draining+booting)
	}
	total := s.want + min(surge, len(old)+len(drained)+draining)
	if len(counted) < total {
		if err := s.add(total - len(counted)); err != nil {
			return progress{}, err
		}
		return s.wait("%d surge nodes of pool %s to boot", total-len(counted), s.name)
	}
	free := len(counted) - len(drained) - draining - booting - (s.want - unavailable)
	if s.want == 0 {
		free = len(old)
	}
	if free > 0 && len(old) > 0 {
		next := old[:min(free, len(old))]
		for _, n := range next {
			n.Drain = s.newDrain(s.forced())
		}
		if err := s.write(next); err != nil {
			return progress{}, err
		}
		draining += len(next)
	}
	return s.wait("pool %s: %d nodes to be upgraded, %d of them being drained, %d booting", s.name, len(old)+draining+len(drained), draining, booting)
}

// undrainable handles nodes whose drain failed, by the pool's
// undrainableNodeBehavior.
func (s *scaling) undrainable(counted, blocked []*node, busy int) (progress, error) {
	settings := s.pool.Doc.Map("properties", "upgradeSettings")
	if equal(settings.Str("undrainableNodeBehavior"), "Cordon") {
		limit := settings.Str("maxBlockedNodes")
		if limit == "" {
			limit = settings.Str("maxSurge")
		}
		if len(s.nodes)-len(counted)+len(blocked) <= max(1, share(limit, s.want)) {
			for _, n := range blocked {
				labels := map[string]string{upgradeStatusLabel: quarantined}
				maps.Copy(labels, n.Labels)
				n.Labels = labels
			}
			if err := s.write(blocked); err != nil {
				return progress{}, err
			}
			return s.wait("%d nodes of pool %s to be replaced", len(blocked), s.name)
		}
	}
	if busy > 0 { // drains and boots in progress finish first
		return s.wait("pool %s: %d nodes cannot be drained, %d others are under way", s.name, len(blocked), busy)
	}
	// Remove the surge nodes that can be drained.
	var fresh []*node
	for _, n := range counted {
		if !n.outdated && n.drain() != intent.DrainFailed {
			fresh = append(fresh, n)
		}
	}
	failedSurge := 0
	for _, n := range counted {
		if !n.outdated && n.drain() == intent.DrainFailed {
			failedSurge++
		}
	}
	if surplus := min(len(counted)-s.want-failedSurge, len(fresh)); surplus > 0 {
		return s.shrink(fresh, surplus)
	}
	return progress{}, s.drainError(blocked)
}

// drainError returns AKS's answer when nodes could not be drained.
func (s *scaling) drainError(blocked []*node) error {
	var why []string
	var details []rp.Error
	for _, n := range blocked {
		text := fmt.Sprintf("Drain of node '%s' did not finish within %s: %s.", n.NodeName, n.Drain.Timeout, n.status.Drain.Message)
		why = append(why, text)
		details = append(details, rp.Error{Code: "PodDrainFailure", Message: text, Target: n.NodeName})
	}
	e := rp.Errorf(409, "PodDrainFailure", "%s Agent pool '%s': %d of %d nodes could not be drained, usually because of a restrictive PodDisruptionBudget. Add capacity for the pods or relax the budget and repeat the request. See https://aka.ms/aks/debugdrainfailures",
		strings.Join(why, " "), s.name, len(blocked), len(s.nodes)).At(s.name)
	e.Details = details
	return e
}

// scale adds or removes nodes when none is outdated.
func (s *scaling) scale() (progress, error) {
	counted := s.counted()
	if surplus := len(counted) - s.want; surplus > 0 {
		return s.shrink(counted, surplus)
	}
	var left []*node
	for _, n := range counted {
		if n.Drain != nil { // it is needed again
			n.Drain = nil
			left = append(left, n)
		}
	}
	if err := s.write(left); err != nil {
		return progress{}, err
	}
	if missing := s.want - len(counted); missing > 0 {
		if err := s.add(missing); err != nil {
			return progress{}, err
		}
		return s.wait("%d nodes of pool %s to boot", missing, s.name)
	}
	booting := 0
	var kept []*node
	for _, n := range s.nodes {
		if n.quarantined() {
			kept = append(kept, n)
		} else if !n.up {
			booting++
		}
	}
	switch {
	case booting > 0:
		return s.wait("%d nodes of pool %s to boot", booting, s.name)
	case s.gone > 0:
		return s.wait("%d nodes of pool %s to be removed", s.gone, s.name)
	case len(kept) > 0:
		return progress{}, s.drainError(kept)
	}
	return progress{done: true}, nil
}

// shrink drains and removes surplus nodes.
func (s *scaling) shrink(from []*node, surplus int) (progress, error) {
	victims := pickVictims(from, surplus)
	var start, drained, failed []*node
	for _, n := range victims {
		switch n.drain() {
		case "":
			n.Drain = s.newDrain(s.forced())
			start = append(start, n)
		case intent.Drained:
			drained = append(drained, n)
		case intent.DrainFailed:
			failed = append(failed, n)
		}
	}
	return s.drainAndRemove(start, drained, failed, len(victims))
}

// drainAndRemove starts drains and removes the nodes that are drained. It fails
// once the drains of all nodes that have to go have failed; otherwise it waits
// for total nodes.
func (s *scaling) drainAndRemove(start, drained, failed []*node, total int) (progress, error) {
	if err := s.write(start); err != nil {
		return progress{}, err
	}
	if err := s.remove(drained); err != nil {
		return progress{}, err
	}
	if len(failed) > 0 && len(failed) == total {
		return progress{}, s.drainError(failed)
	}
	return s.wait("%d nodes of pool %s to be drained and removed", total, s.name)
}

// pickVictims returns the nodes that a scale set removes: first draining ones, then
// outdated ones, then the newest of the zone with the most nodes.
func pickVictims(from []*node, n int) []*node {
	left := slices.Clone(from)
	var out []*node
	for len(out) < n && len(left) > 0 {
		zones := map[string]int{}
		for _, x := range left {
			zones[x.Zone]++
		}
		rank := func(x *node) int {
			switch {
			case x.Drain != nil:
				return 0
			case x.outdated:
				return 1
			}
			return 2
		}
		best := 0
		for i, x := range left {
			b := left[best]
			switch {
			case rank(x) != rank(b):
				if rank(x) > rank(b) {
					continue
				}
			case zones[x.Zone] != zones[b.Zone]:
				if zones[x.Zone] < zones[b.Zone] {
					continue
				}
			case instanceNumber(x.Name) < instanceNumber(b.Name):
				continue
			}
			best = i
		}
		out = append(out, left[best])
		left = slices.Delete(left, best, best+1)
	}
	return out
}

func (s *scaling) add(n int) error {
	have := make([]intent.MachineIntent, len(s.nodes))
	for i := range s.nodes {
		have[i] = s.nodes[i].MachineIntent
	}
	return s.p.addInstances(s.ctx, s.cluster, s.pool, have, n)
}

// write updates the intents of nodes that still exist.
func (s *scaling) write(nodes []*node) error {
	return s.inChunks(nodes, func(m intent.MachineIntent, key string) clientv3.Op { return rp.JSONOp(key, m) })
}

func (s *scaling) remove(nodes []*node) error {
	return s.inChunks(nodes, func(_ intent.MachineIntent, key string) clientv3.Op { return clientv3.OpDelete(key) })
}

func (s *scaling) inChunks(nodes []*node, write func(intent.MachineIntent, string) clientv3.Op) error {
	for chunk := range slices.Chunk(nodes, 50) {
		var cmps []clientv3.Cmp
		var ops []clientv3.Op
		for _, n := range chunk {
			key := intent.MachineIntentKey(n.ClusterUID, n.Pool, n.Name)
			cmps = append(cmps, clientv3.Compare(clientv3.CreateRevision(key), ">", 0))
			ops = append(ops, write(n.MachineIntent, key))
		}
		// On a conflict the next step retries.
		if _, err := s.p.env.Store.KV.Txn(s.ctx).If(cmps...).Then(ops...).Commit(); err != nil {
			return fmt.Errorf("changing the nodes of pool %s: %w", s.pool.ID, err)
		}
	}
	return nil
}

// empty drains and removes all nodes of a pool that is being deleted.
func (s *scaling) empty(ignorePDBs bool) (progress, error) {
	var start, drained, failed []*node
	for _, n := range s.nodes {
		switch st := n.drain(); {
		case st == intent.Drained, n.status.Phase == intent.MachineFailed, n.status.Phase == intent.MachineBooting && n.status.Image == n.Image():
			drained = append(drained, n) // or it has never registered
		case st == "", n.quarantined() && n.Drain.Since.Before(s.op.Start), ignorePDBs && !n.Drain.IgnorePDBs:
			n.Drain = s.newDrain(ignorePDBs)
			start = append(start, n)
		case st == intent.DrainFailed:
			failed = append(failed, n)
		}
	}
	if len(s.nodes)+s.gone == 0 {
		return progress{done: true}, nil
	}
	if len(s.nodes) == 0 {
		return s.wait("%d nodes of pool %s to be removed", s.gone, s.name)
	}
	return s.drainAndRemove(start, drained, failed, len(s.nodes))
}

// settle cancels the drains of an operation that has ended, except on quarantined
// nodes. It returns the number of nodes that count.
func (s *scaling) settle() (int, error) {
	var left []*node
	counted := s.counted()
	for _, n := range counted {
		if n.Drain != nil {
			n.Drain = nil
			left = append(left, n)
		}
	}
	return len(counted), s.write(left)
}
