// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package snapshot

import (
	"cmp"
	"context"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/tools/record"
	clocktesting "k8s.io/utils/clock/testing"
	karpv1 "sigs.k8s.io/karpenter/pkg/apis/v1"
	"sigs.k8s.io/karpenter/pkg/controllers/provisioning"
	"sigs.k8s.io/karpenter/pkg/events"
	"sigs.k8s.io/karpenter/pkg/utils/pdb"
	podutils "sigs.k8s.io/karpenter/pkg/utils/pod"

	"github.com/nap-aks/nap/engine"
)

// PodKey returns the name of a pod in plans: namespace/name.
func PodKey(p *corev1.Pod) string { return p.Namespace + "/" + p.Name }

// podRecord is a pod with its class.
type podRecord struct {
	key           string
	pod           *corev1.Pod
	shape         *shape
	class         engine.ClassID
	keysVersion   int
	created       int64 // Unix time
	provisionable bool  // Karpenter would provision for it
	untried       bool  // no scheduler has looked at it yet
}

func newPodRecord(key string, p *corev1.Pod) *podRecord {
	return &podRecord{key: key, pod: p, created: p.CreationTimestamp.Unix(), provisionable: podutils.IsProvisionable(p), untried: Untried(p)}
}

// Untried reports whether a pod waits for the first attempt of its scheduler, so that
// it is not known whether the pod fits anywhere. Pods of DaemonSets and static pods
// are never reported.
func Untried(p *corev1.Pod) bool {
	if p.Spec.NodeName != "" || p.Status.NominatedNodeName != "" || len(p.Spec.SchedulingGates) > 0 || podutils.IsTerminal(p) || podutils.IsTerminating(p) ||
		podutils.IsOwnedByDaemonSet(p) || podutils.IsOwnedByNode(p) {
		return false
	}
	return !slices.ContainsFunc(p.Status.Conditions, func(c corev1.PodCondition) bool { return c.Type == corev1.PodScheduled })
}

// priorityOf returns the priority of a pod.
func priorityOf(p *corev1.Pod) int32 {
	if p.Spec.Priority == nil {
		return 0
	}
	return *p.Spec.Priority
}

// besidesRefused returns the untried pods that are planned for together with pods that
// their scheduler has refused. A scheduler tries its pods one by one, and those that it
// has not come to yet would take the room that a plan of the refused ones alone counts
// on. Machines are bought only for those that the room there is does not hold, because
// the engine knows all of it. A pod more important than every refused one may get its
// room by preemption, so it waits for the scheduler.
func (c *Cache) besidesRefused() map[string]bool {
	highest := map[string]int32{} // priority of refused pods, by scheduler
	some := false
	for _, r := range c.pending {
		some = some || r.untried
		if r.provisionable {
			by, p := r.pod.Spec.SchedulerName, priorityOf(r.pod)
			if h, ok := highest[by]; !ok || p > h {
				highest[by] = p
			}
		}
	}
	out := map[string]bool{}
	if !some {
		return out
	}
	for k, r := range c.pending {
		if h, ok := highest[r.pod.Spec.SchedulerName]; ok && r.untried && priorityOf(r.pod) <= h {
			out[k] = true
		}
	}
	return out
}

// Refuses reports whether pods are pending that the scheduler of a pod has refused, so
// that the pod is planned for before the scheduler has tried it.
func (c *Cache) Refuses(p *corev1.Pod) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.refused[p.Spec.SchedulerName] > 0
}

// setPending adds a pod to the pending ones.
func (c *Cache) setPending(r *podRecord) {
	c.pending[r.key] = r
	if r.provisionable {
		c.refused[r.pod.Spec.SchedulerName]++
	}
}

// dropPending removes a pod from the pending ones, if it is among them.
func (c *Cache) dropPending(key string) {
	r, ok := c.pending[key]
	if !ok {
		return
	}
	delete(c.pending, key)
	if by := r.pod.Spec.SchedulerName; r.provisionable {
		if c.refused[by]--; c.refused[by] <= 0 {
			delete(c.refused, by)
		}
	}
}

func (c *Cache) upsertPod(p *corev1.Pod) {
	key := PodKey(p)
	if old, ok := c.pods[key]; ok {
		if old.pod.Spec.NodeName == p.Spec.NodeName && old.shape != nil && samePod(old.pod, p) {
			old.pod = p // no decision depends on what has changed
			return
		}
		c.detach(old)
	}
	r := newPodRecord(key, p)
	c.pods[key], c.unshaped[key] = r, r
	c.index.add(r)
	if p.Spec.NodeName == "" {
		c.setPending(r)
		if podutils.IsTerminal(p) {
			c.assumed.forget(key)
		}
		return
	}
	c.assumed.forget(key)
	on, ok := c.onNode[p.Spec.NodeName]
	if !ok {
		on = map[string]*podRecord{}
		c.onNode[p.Spec.NodeName] = on
	}
	on[key] = r
	c.invalidateNode(p.Spec.NodeName)
	if podutils.IsOwnedByDaemonSet(p) {
		c.daemonsStale = true
	}
}

// samePod reports whether two versions of a pod, on the same node, are equal in
// everything that decisions depend on: shape, labels, owners, phase and annotations.
func samePod(a, b *corev1.Pod) bool {
	return a.UID == b.UID && podutils.IsTerminal(a) == podutils.IsTerminal(b) && podutils.IsTerminating(a) == podutils.IsTerminating(b) &&
		podutils.IsProvisionable(a) == podutils.IsProvisionable(b) && Untried(a) == Untried(b) &&
		string(appendShape(nil, a)) == string(appendShape(nil, b)) && reflect.DeepEqual(a.Labels, b.Labels) &&
		a.Annotations[karpv1.DoNotDisruptAnnotationKey] == b.Annotations[karpv1.DoNotDisruptAnnotationKey] &&
		reflect.DeepEqual(a.OwnerReferences, b.OwnerReferences)
}

// detach removes a pod from the indexes.
func (c *Cache) detach(r *podRecord) {
	delete(c.pods, r.key)
	c.index.remove(r)
	c.dropPending(r.key)
	delete(c.unshaped, r.key)
	if n := r.pod.Spec.NodeName; n != "" {
		delete(c.onNode[n], r.key)
		if len(c.onNode[n]) == 0 {
			delete(c.onNode, n)
		}
		c.invalidateNode(n)
		if podutils.IsOwnedByDaemonSet(r.pod) {
			c.daemonsStale = true
		}
	}
}

func (c *Cache) removePod(key string) {
	if r, ok := c.pods[key]; ok {
		c.detach(r)
	}
	c.assumed.forget(key)
}

// ownerName returns the name of the workload of a pod, for people.
func ownerName(p *corev1.Pod) string {
	o := metav1.GetControllerOfNoCopy(p)
	if o == nil {
		return p.Name
	}
	name := o.Name
	if o.Kind == "ReplicaSet" {
		if h := p.Labels[appsv1.DefaultDeploymentUniqueLabelKey]; h != "" {
			name = strings.TrimSuffix(name, "-"+h)
		}
	}
	return name
}

// reschedulable returns the pods, by key, that have to be placed because their node is
// being deleted.
func (c *Cache) reschedulable(ctx context.Context, now time.Time) (map[string]*podRecord, error) {
	out := map[string]*podRecord{}
	var limits pdb.Limits
	clk := clocktesting.NewFakeClock(now)
	recorder := events.NewRecorder(discard{})
	for _, m := range c.machines {
		if m.stale {
			m.terminating = m.deleting(c.marked)
		}
		if m.node == nil || !m.terminating || len(c.onNode[m.node.Name]) == 0 {
			continue
		}
		if limits == nil {
			var err error
			if limits, err = pdb.NewLimits(ctx, c.client); err != nil {
				return nil, fmt.Errorf("reading PodDisruptionBudgets: %w", err)
			}
		}
		for k, r := range c.onNode[m.node.Name] {
			if limits.IsCurrentlyReschedulable(r.pod, clk, recorder) {
				out[k] = r
			}
		}
	}
	return out, nil
}

// podsToPlace returns the pods that the plan has to place, and fills in.Pods and
// in.Invalid.
func (c *Cache) podsToPlace(ctx context.Context, moving map[string]*podRecord, in *Input) []*podRecord {
	in.Pods = make(map[string]*corev1.Pod, len(c.pending)+len(moving))
	out := make([]*podRecord, 0, len(c.pending)+len(moving))
	validator := provisioning.NewProvisioner(c.client, events.NewRecorder(discard{}), nil, nil, clocktesting.NewFakeClock(in.Snapshot.Time), nil, nil)
	besides := c.besidesRefused()
	for k, r := range c.pending {
		if !r.provisionable && !besides[k] || c.held[k] {
			continue
		}
		if as, ok := c.assumed.pods[k]; ok {
			if m := c.find(as.on); m != nil && !m.deleting(c.marked) {
				continue
			}
			c.assumed.forget(k)
		}
		claims := hasClaims(r.pod)
		if !r.shape.validated || claims {
			r.shape.invalid = validator.Validate(ctx, forValidation(r.pod))
			r.shape.validated = !claims
		}
		if err := cmp.Or(r.shape.invalid, r.shape.err); err != nil {
			in.Invalid[k] = err
			continue
		}
		out = append(out, r)
		in.Pods[k] = r.pod
	}
	for k, r := range moving {
		if r.shape.err != nil {
			in.Invalid[k] = r.shape.err
			continue
		}
		out = append(out, r)
		in.Pods[k] = r.pod
	}
	out = c.withoutContenders(ctx, out, moving, in)
	for _, p := range c.virtual {
		r := newPodRecord(PodKey(p), p)
		r.shape, r.keysVersion = c.shapes.of(ctx, p), -1
		if _, taken := in.Pods[r.key]; taken || r.shape.err != nil {
			continue
		}
		out = append(out, r)
		in.Pods[r.key] = p
	}
	return out
}

// forValidation returns a copy of a pod, because Karpenter sorts preferences in place,
// without requirements for fields of nodes, which Karpenter refuses and the engine
// honours.
func forValidation(p *corev1.Pod) *corev1.Pod {
	p = p.DeepCopy()
	if a := p.Spec.Affinity; a != nil && a.NodeAffinity != nil && a.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution != nil {
		terms := a.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution.NodeSelectorTerms
		for i := range terms {
			terms[i].MatchFields = nil
		}
	}
	return p
}

// groups sorts pods into groups by class. Within a group older pods come first and so
// get scarce capacity first.
func (c *Cache) groups(list []*podRecord) []engine.PodGroup {
	byName := func(a, b *podRecord) int { return strings.Compare(a.key, b.key) }
	var unnumbered []*podRecord
	for _, r := range list {
		if r.keysVersion != c.shapes.keysVersion {
			unnumbered = append(unnumbered, r)
		}
	}
	slices.SortFunc(unnumbered, byName) // number the classes in the order of the names
	for _, r := range unnumbered {
		c.classOf(r)
	}
	slices.SortFunc(list, func(a, b *podRecord) int {
		if a.class != b.class {
			return cmp.Compare(a.class, b.class)
		}
		if a.created != b.created {
			return cmp.Compare(a.created, b.created)
		}
		return byName(a, b)
	})
	var out []engine.PodGroup
	keys := make([]string, len(list)) // shared by all groups
	for start := 0; start < len(list); {
		end := start
		for ; end < len(list) && list[end].class == list[start].class; end++ {
			keys[end] = list[end].key
		}
		out = append(out, engine.PodGroup{Class: list[start].class, Pods: keys[start:end:end]})
		start = end
	}
	return out
}

// classOf returns the number of the class of a pod.
func (c *Cache) classOf(r *podRecord) engine.ClassID {
	if r.keysVersion != c.shapes.keysVersion {
		r.class = c.shapes.class(r.shape, r.pod.Labels, ownerName(r.pod), false)
		r.keysVersion = c.shapes.keysVersion
	}
	return r.class
}

// discard is an event recorder that drops all events.
type discard struct{}

func (discard) Event(runtime.Object, string, string, string) {}

func (discard) Eventf(runtime.Object, string, string, string, ...any) {}

func (discard) AnnotatedEventf(runtime.Object, map[string]string, string, string, string, ...any) {}

var _ record.EventRecorder = discard{}
