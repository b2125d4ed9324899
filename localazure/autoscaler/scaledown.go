package autoscaler

import (
	"fmt"
	"slices"
	"sort"
	"time"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"sigs.k8s.io/yaml"
)

// candidate is a node that could go.
type candidate struct {
	node  *corev1.Node
	group *Group
	use   float64
	pods  []*corev1.Pod // that need another place
	ready bool
}

// scaleDown finds the nodes that are not needed, and deletes those that have
// not been for long enough.
func (s *scaler) scaleDown(l *look, grown bool) error {
	candidates, err := s.candidates(l)
	if err != nil {
		return err
	}
	s.mu.Lock()
	going := map[string]int{} // nodes of a group that are on their way out
	busy := len(s.draining)
	for n := range s.draining {
		if g := l.groupOf[n]; g != nil {
			going[g.Name]++
		}
	}
	s.mu.Unlock()
	free := map[string]int{}
	for _, g := range l.groups {
		free[g.Name] = len(g.Instances) - going[g.Name] - g.Min
	}
	// One after the other is taken out of the world, so that not two of them are
	// each other's reason.
	unneeded := map[string]bool{}
	var due []candidate
	w := l.world
	for _, c := range candidates {
		name := c.node.Name
		if free[c.group.Name] <= 0 {
			continue
		}
		without := w.clone()
		without.remove(name)
		fits := true
		for _, p := range c.pods {
			q := p.DeepCopy()
			q.Spec.NodeName = ""
			if n, _ := s.sim.place(without, q, without.names); n == "" {
				fits = false
				break
			}
		}
		if !fits {
			continue
		}
		w = without
		free[c.group.Name]--
		unneeded[name] = true
		since, ok := s.unneeded[name]
		if !ok {
			since = l.now
			s.unneeded[name] = since
		}
		need := l.profile.UnneededTime
		if !c.ready {
			need = l.profile.UnreadyTime
		}
		if l.now.Sub(since) >= need {
			due = append(due, c)
		}
	}
	for name := range s.unneeded {
		if !unneeded[name] {
			delete(s.unneeded, name)
		}
	}
	s.scaleDownWords = "NoCandidates"
	if len(unneeded) > 0 {
		s.scaleDownWords = "CandidatesPresent"
	}
	if grown || busy > 0 || l.now.Sub(s.lastUp) < l.profile.DelayAfterAdd || l.now.Sub(s.lastDelete) < l.profile.DelayAfterDelete || l.now.Sub(s.lastFail) < l.profile.DelayAfterFailure {
		return nil
	}
	return s.delete(l, due)
}

// delete takes empty nodes away, several at once, or else begins to empty one.
func (s *scaler) delete(l *look, due []candidate) error {
	var empty []candidate
	for _, c := range due {
		if len(c.pods) == 0 && len(empty) < l.profile.MaxEmpty {
			empty = append(empty, c)
		}
	}
	if len(empty) > 0 {
		for _, c := range empty {
			if err := s.remove(l, c, "removing empty node"); err != nil {
				return err
			}
		}
		s.lastDelete = l.now
		return nil
	}
	if len(due) == 0 {
		return nil
	}
	c := due[0]
	if err := s.taint(c.node.Name, true); err != nil {
		return err
	}
	for _, p := range c.pods {
		s.tell(p, "ScaleDown", "deleting pod for node scale down")
	}
	s.mu.Lock()
	s.draining[c.node.Name] = true
	s.mu.Unlock()
	s.lastDelete = l.now
	// Pods may take minutes to end; pools can grow meanwhile.
	go func() {
		defer func() {
			s.mu.Lock()
			delete(s.draining, c.node.Name)
			s.mu.Unlock()
		}()
		err := s.evicted(c.node.Name, l.profile.TerminationTime)
		if err == nil {
			err = s.remove(l, c, "node removed by cluster autoscaler")
		}
		if err == nil || s.ctx.Err() != nil {
			return
		}
		s.log.Warn("node could not be removed", "node", c.node.Name, "error", err)
		s.event(corev1.ObjectReference{Kind: "Node", Name: c.node.Name, UID: c.node.UID, APIVersion: "v1"}, corev1.EventTypeWarning, "ScaleDownFailed", "failed to drain the node, aborting ScaleDown: "+err.Error())
		if err := s.taint(c.node.Name, false); err != nil {
			s.log.Warn("node stays tainted until the next start", "node", c.node.Name, "error", err)
		}
		s.mu.Lock()
		s.failed = true
		s.mu.Unlock()
	}()
	return nil
}

func (s *scaler) remove(l *look, c candidate, text string) error {
	if err := s.taint(c.node.Name, true); err != nil {
		return err
	}
	if err := s.cloud.Shrink(s.ctx, c.group.Name, []string{l.instance[c.node.Name].Name}, false); err != nil {
		// An operation on the pool, say: the node is looked at anew.
		if uerr := s.taint(c.node.Name, false); uerr != nil {
			s.log.Warn("node stays tainted until the next start", "node", c.node.Name, "error", uerr)
		}
		return fmt.Errorf("removing node %s: %w", c.node.Name, err)
	}
	s.log.Info("node goes", "pool", c.group.Name, "node", c.node.Name, "requested", c.use)
	s.event(corev1.ObjectReference{Kind: "Node", Name: c.node.Name, UID: c.node.UID, APIVersion: "v1"}, corev1.EventTypeNormal, "ScaleDown", text)
	return nil
}

// candidates are the nodes that may go if their pods fit elsewhere, emptiest
// first.
func (s *scaler) candidates(l *look) ([]candidate, error) {
	s.mu.Lock()
	if s.failed {
		s.failed, s.lastFail = false, l.now
	}
	draining := map[string]bool{}
	for n := range s.draining {
		draining[n] = true
	}
	s.mu.Unlock()
	budgets, err := s.factory.Policy().V1().PodDisruptionBudgets().Lister().List(labels.Everything())
	if err != nil {
		return nil, err
	}
	var out []candidate
	for name, n := range l.nodes {
		g := l.groupOf[name]
		if g == nil || g.Busy || n.DeletionTimestamp != nil || n.Spec.Unschedulable || draining[name] || hasTaint(n, toBeDeletedTaint) || n.Annotations[noScaleDown] == "true" {
			continue
		}
		c := candidate{node: n, group: g, ready: ready(n)}
		if !c.ready && l.now.Sub(l.instance[name].Since) < l.profile.ProvisionTime {
			continue // it is only coming
		}
		ok := true
		var cpuUsed, memUsed int64
		for _, p := range l.pods[name] {
			ds := ownedBy(p, "DaemonSet")
			if !ds || !l.profile.IgnoreDaemonSets {
				for _, k := range p.Spec.Containers {
					cpuUsed += k.Resources.Requests.Cpu().MilliValue()
					memUsed += k.Resources.Requests.Memory().Value()
				}
			}
			if ds || ownedBy(p, "Node") || p.DeletionTimestamp != nil {
				continue
			}
			ok = ok && l.profile.movable(p, budgets)
			c.pods = append(c.pods, p)
		}
		c.use = max(part(cpuUsed, n.Status.Allocatable.Cpu().MilliValue()), part(memUsed, n.Status.Allocatable.Memory().Value()))
		if !ok || c.ready && c.use >= l.profile.Threshold {
			continue
		}
		out = append(out, c)
	}
	sort.Slice(out, func(i, j int) bool {
		a, b := out[i], out[j]
		if (len(a.pods) == 0) != (len(b.pods) == 0) {
			return len(a.pods) == 0
		}
		if a.use != b.use {
			return a.use < b.use
		}
		return a.node.Name < b.node.Name
	})
	return out, nil
}

func ownedBy(p *corev1.Pod, kind string) bool {
	o := metav1.GetControllerOf(p)
	return o != nil && o.Kind == kind
}

// movable tells whether a pod lets its node go.
func (f Profile) movable(p *corev1.Pod, budgets []*policyv1.PodDisruptionBudget) bool {
	switch p.Annotations[safeToEvict] {
	case "true":
		return true
	case "false":
		return false
	}
	if metav1.GetControllerOf(p) == nil {
		return false // nobody would make it again
	}
	covered := false
	for _, b := range budgets {
		if b.Namespace != p.Namespace {
			continue
		}
		sel, err := metav1.LabelSelectorAsSelector(b.Spec.Selector)
		if err != nil || !sel.Matches(labels.Set(p.Labels)) {
			continue
		}
		covered = true
		if b.Status.DisruptionsAllowed < 1 {
			return false
		}
	}
	if f.SkipSystemPods && p.Namespace == metav1.NamespaceSystem && !covered {
		return false
	}
	local := func(v corev1.Volume) bool {
		return v.HostPath != nil || v.EmptyDir != nil && v.EmptyDir.Medium != corev1.StorageMediumMemory
	}
	return !f.SkipLocalStorage || !slices.ContainsFunc(p.Spec.Volumes, local)
}

// writeStatus writes what upstream's status ConfigMap says.
func (s *scaler) writeStatus(l *look) error {
	stamp := l.now.UTC().Format(time.RFC3339)
	counts := func(gs ...*Group) map[string]any {
		total, up, unready := 0, 0, 0
		for _, g := range gs {
			for _, in := range g.Instances {
				n := l.nodes[in.Node]
				switch {
				case n == nil:
				case ready(n):
					total, up = total+1, up+1
				default:
					total, unready = total+1, unready+1
				}
			}
		}
		return map[string]any{"registered": map[string]any{"total": total, "ready": up, "notStarted": unready}}
	}
	var all []*Group
	groups := []any{}
	for i := range l.groups {
		g := &l.groups[i]
		all = append(all, g)
		up := "NoActivity"
		switch {
		case l.now.Before(s.backoff[g.Name]):
			up = "Backoff"
		case l.upcoming[g.Name] > 0:
			up = "InProgress"
		}
		unneeded := 0
		for n := range s.unneeded {
			if l.groupOf[n] == g {
				unneeded++
			}
		}
		down := map[string]any{"status": "NoCandidates", "candidates": unneeded}
		if unneeded > 0 {
			down["status"] = "CandidatesPresent"
		}
		groups = append(groups, map[string]any{"name": g.ScaleSet,
			"health":  map[string]any{"status": "Healthy", "nodeCounts": counts(g), "cloudProviderTarget": len(g.Instances), "minSize": g.Min, "maxSize": g.Max, "lastProbeTime": stamp},
			"scaleUp": map[string]any{"status": up, "lastProbeTime": stamp}, "scaleDown": down})
	}
	text, err := yaml.Marshal(map[string]any{"time": l.now.UTC().String(), "autoscalerStatus": "Running", "nodeGroups": groups,
		"clusterWide": map[string]any{"health": map[string]any{"status": "Healthy", "nodeCounts": counts(all...), "lastProbeTime": stamp},
			"scaleUp":   map[string]any{"status": s.scaleUpStatus, "lastProbeTime": stamp},
			"scaleDown": map[string]any{"status": s.scaleDownWords, "candidates": len(s.unneeded), "lastProbeTime": stamp}}})
	if err != nil {
		return err
	}
	maps := s.client.CoreV1().ConfigMaps(metav1.NamespaceSystem)
	cm, err := maps.Get(s.ctx, statusConfigMap, metav1.GetOptions{})
	missing := apierrors.IsNotFound(err)
	if err != nil && !missing {
		return fmt.Errorf("reading the status: %w", err)
	}
	if missing {
		cm = &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: statusConfigMap, Namespace: metav1.NamespaceSystem}}
	}
	cm.Data = map[string]string{"status": string(text)}
	cm.Annotations = map[string]string{"cluster-autoscaler.kubernetes.io/last-updated": l.now.UTC().String()}
	if missing {
		_, err = maps.Create(s.ctx, cm, metav1.CreateOptions{})
	} else {
		_, err = maps.Update(s.ctx, cm, metav1.UpdateOptions{})
	}
	if err != nil {
		return fmt.Errorf("writing the status: %w", err)
	}
	return nil
}
