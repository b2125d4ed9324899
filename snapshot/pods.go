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
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/record"
	clocktesting "k8s.io/utils/clock/testing"
	karpv1 "sigs.k8s.io/karpenter/pkg/apis/v1"
	"sigs.k8s.io/karpenter/pkg/controllers/provisioning"
	"sigs.k8s.io/karpenter/pkg/events"
	"sigs.k8s.io/karpenter/pkg/utils/pdb"
	podutils "sigs.k8s.io/karpenter/pkg/utils/pod"

	"github.com/nap-aks/nap/engine"
)

// PodKey is how the engine's plans name a pod: namespace/name.
func PodKey(p *corev1.Pod) string { return p.Namespace + "/" + p.Name }

// podRecord is a pod with its class.
type podRecord struct {
	key         string
	pod         *corev1.Pod
	shape       *shape
	class       engine.ClassID
	keysVersion int
	created     int64 // Unix time
	toPlace     bool  // Karpenter would provision for it
	untried     bool  // no scheduler has looked at it yet
}

func newPodRecord(key string, p *corev1.Pod) *podRecord {
	return &podRecord{key: key, pod: p, created: p.CreationTimestamp.Unix(), toPlace: podutils.IsProvisionable(p), untried: Untried(p)}
}

// Untried tells whether a pod that may be scheduled has not been looked at by its
// scheduler yet: nothing says whether there is a place for it. Pods of DaemonSets
// and of nodes are never meant.
func Untried(p *corev1.Pod) bool {
	if p.Spec.NodeName != "" || p.Status.NominatedNodeName != "" || len(p.Spec.SchedulingGates) > 0 || podutils.IsTerminal(p) || podutils.IsTerminating(p) ||
		podutils.IsOwnedByDaemonSet(p) || podutils.IsOwnedByNode(p) {
		return false
	}
	return !slices.ContainsFunc(p.Status.Conditions, func(c corev1.PodCondition) bool { return c.Type == corev1.PodScheduled })
}

// sibling is what pods share that a scheduler cannot tell apart: when it has found
// no place for one, it finds none for the others either.
type sibling struct {
	owner     types.UID
	shape     *shape
	scheduler string
	priority  int32
}

// siblingOf returns false for a pod that nothing controls.
func siblingOf(r *podRecord) (sibling, bool) {
	o := metav1.GetControllerOfNoCopy(r.pod)
	if o == nil {
		return sibling{}, false
	}
	s := sibling{owner: o.UID, shape: r.shape, scheduler: r.pod.Spec.SchedulerName}
	if r.pod.Spec.Priority != nil {
		s.priority = *r.pod.Spec.Priority
	}
	return s, true
}

// siblingsOfRefused are pods that no scheduler has looked at, while it has found no
// place for others like them. A large scale-up is thus planned for as a whole: the
// scheduler takes its time to look at each of its pods.
func (c *Cache) siblingsOfRefused() map[string]bool {
	refused := map[sibling]bool{}
	some := false
	for _, r := range c.pending {
		some = some || r.untried
		if r.toPlace {
			if s, ok := siblingOf(r); ok {
				refused[s] = true
			}
		}
	}
	out := map[string]bool{}
	if !some || len(refused) == 0 {
		return out
	}
	for k, r := range c.pending {
		if r.untried {
			if s, ok := siblingOf(r); ok && refused[s] {
				out[k] = true
			}
		}
	}
	return out
}

func (c *Cache) upsertPod(p *corev1.Pod) {
	key := PodKey(p)
	if old, ok := c.pods[key]; ok {
		if old.pod.Spec.NodeName == p.Spec.NodeName && old.shape != nil && samePod(old.pod, p) {
			old.pod = p // nothing that a decision sees has changed
			return
		}
		c.detach(old)
	}
	r := newPodRecord(key, p)
	c.pods[key], c.fresh[key] = r, r
	if p.Spec.NodeName == "" {
		c.pending[key] = r
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
	c.touchNode(p.Spec.NodeName)
	if podutils.IsOwnedByDaemonSet(p) {
		c.daemonsOld = true
	}
}

// samePod tells whether nothing has changed that depends on the pod itself: its
// place, shape, labels, owners, phase and marks.
func samePod(a, b *corev1.Pod) bool {
	return a.UID == b.UID && podutils.IsTerminal(a) == podutils.IsTerminal(b) && podutils.IsTerminating(a) == podutils.IsTerminating(b) &&
		podutils.IsProvisionable(a) == podutils.IsProvisionable(b) && Untried(a) == Untried(b) &&
		string(appendShape(nil, a)) == string(appendShape(nil, b)) && reflect.DeepEqual(a.Labels, b.Labels) &&
		a.Annotations[karpv1.DoNotDisruptAnnotationKey] == b.Annotations[karpv1.DoNotDisruptAnnotationKey] &&
		reflect.DeepEqual(a.OwnerReferences, b.OwnerReferences)
}

func (c *Cache) detach(r *podRecord) {
	delete(c.pods, r.key)
	delete(c.pending, r.key)
	delete(c.fresh, r.key)
	if n := r.pod.Spec.NodeName; n != "" {
		delete(c.onNode[n], r.key)
		if len(c.onNode[n]) == 0 {
			delete(c.onNode, n)
		}
		c.touchNode(n)
		if podutils.IsOwnedByDaemonSet(r.pod) {
			c.daemonsOld = true
		}
	}
}

func (c *Cache) removePod(key string) {
	if r, ok := c.pods[key]; ok {
		c.detach(r)
	}
	c.assumed.forget(key)
}

// ownerName names the workload of a pod for people.
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

// leaving returns the pods that have to be placed because their node is being
// deleted, by key.
func (c *Cache) leaving(ctx context.Context, now time.Time) (map[string]*podRecord, error) {
	out := map[string]*podRecord{}
	var limits pdb.Limits
	clk := clocktesting.NewFakeClock(now)
	recorder := events.NewRecorder(discard{})
	for _, m := range c.machines {
		if m.old {
			m.going = m.deleting(c.marked)
		}
		if m.node == nil || !m.going || len(c.onNode[m.node.Name]) == 0 {
			continue
		}
		if limits == nil {
			var err error
			if limits, err = pdb.NewLimits(ctx, c.client); err != nil {
				return nil, fmt.Errorf("reading the disruption budgets: %w", err)
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

// waiting returns the pods to place, and fills in.Pods and in.Invalid.
func (c *Cache) waiting(ctx context.Context, leaving map[string]*podRecord, in *Input) []*podRecord {
	in.Pods = make(map[string]*corev1.Pod, len(c.pending)+len(leaving))
	out := make([]*podRecord, 0, len(c.pending)+len(leaving))
	validator := provisioning.NewProvisioner(c.client, events.NewRecorder(discard{}), nil, nil, clocktesting.NewFakeClock(in.Snapshot.Time), nil, nil)
	siblings := c.siblingsOfRefused()
	for k, r := range c.pending {
		if !r.toPlace && !siblings[k] {
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
			// A copy: Karpenter sorts the preferences of the pod in place.
			r.shape.invalid = validator.Validate(ctx, r.pod.DeepCopy())
			r.shape.validated = !claims
		}
		if err := cmp.Or(r.shape.invalid, r.shape.err); err != nil {
			in.Invalid[k] = err
			continue
		}
		out = append(out, r)
		in.Pods[k] = r.pod
	}
	for k, r := range leaving {
		if r.shape.err != nil {
			in.Invalid[k] = r.shape.err
			continue
		}
		out = append(out, r)
		in.Pods[k] = r.pod
	}
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

// groups puts pods into groups by class: older pods first within a group, which
// is the order in which they get what is scarce.
func (c *Cache) groups(list []*podRecord) []engine.PodGroup {
	byName := func(a, b *podRecord) int { return strings.Compare(a.key, b.key) }
	var unnumbered []*podRecord
	for _, r := range list {
		if r.keysVersion != c.shapes.keysVersion {
			unnumbered = append(unnumbered, r)
		}
	}
	slices.SortFunc(unnumbered, byName) // numbering in the order of the names
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
	keys := make([]string, len(list)) // of all groups
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

func (c *Cache) classOf(r *podRecord) engine.ClassID {
	if r.keysVersion != c.shapes.keysVersion {
		r.class = c.shapes.class(r.shape, r.pod.Labels, ownerName(r.pod))
		r.keysVersion = c.shapes.keysVersion
	}
	return r.class
}

type discard struct{}

func (discard) Event(runtime.Object, string, string, string) {}

func (discard) Eventf(runtime.Object, string, string, string, ...any) {}

func (discard) AnnotatedEventf(runtime.Object, map[string]string, string, string, string, ...any) {}

var _ record.EventRecorder = discard{}
