package snapshot

import (
	"context"
	"slices"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/karpenter/pkg/utils/daemonset"

	"github.com/nap-aks/nap/engine"
)

// daemon is a DaemonSet with the class of its pods.
type daemon struct {
	uid   types.UID
	shape *shape
	class engine.ClassID
	pod   *corev1.Pod
}

// refreshDaemons makes the pods of the DaemonSets again when a DaemonSet or a
// pod of one has changed.
func (c *Cache) refreshDaemons(ctx context.Context) {
	if !c.daemonsOld {
		return
	}
	c.daemonsOld = false
	c.nodesOld = true
	newest := map[types.UID]*corev1.Pod{}
	for _, r := range c.pods {
		o := metav1.GetControllerOfNoCopy(r.pod)
		if o == nil || o.Kind != "DaemonSet" {
			continue
		}
		if have := newest[o.UID]; have == nil || newer(r.pod, have) {
			newest[o.UID] = r.pod
		}
	}
	keys := make([]types.NamespacedName, 0, len(c.daemons))
	for k := range c.daemons {
		keys = append(keys, k)
	}
	slices.SortFunc(keys, func(a, b types.NamespacedName) int {
		if a.Namespace != b.Namespace {
			return compare(a.Namespace, b.Namespace)
		}
		return compare(a.Name, b.Name)
	})
	c.daemonSets = c.daemonSets[:0]
	for _, k := range keys {
		d := c.daemons[k]
		p := daemonPod(d, newest[d.UID])
		c.daemonSets = append(c.daemonSets, daemon{uid: d.UID, pod: p, shape: c.shapes.of(ctx, p)})
	}
}

func compare(a, b string) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

func newer(a, b *corev1.Pod) bool {
	if !a.CreationTimestamp.Equal(&b.CreationTimestamp) {
		return b.CreationTimestamp.Before(&a.CreationTimestamp)
	}
	return a.Name < b.Name
}

// refreshDaemonClasses numbers the daemons' classes once all label keys are known.
func (c *Cache) refreshDaemonClasses() {
	ids := make([]engine.ClassID, 0, len(c.daemonSets))
	for i := range c.daemonSets {
		d := &c.daemonSets[i]
		d.class = c.shapes.class(d.shape, d.pod.Labels, d.pod.Name)
		ids = append(ids, d.class)
	}
	if !slices.Equal(ids, c.daemonID) {
		c.daemonID = ids
		c.nodesOld = true
		c.poolsAt++
	}
}

// daemonPod is the pod that a DaemonSet would put on a new node: like its newest
// pod, which shows what admission made of the template, or else by the template.
// Only what decides whether and how it takes room is kept.
func daemonPod(d *appsv1.DaemonSet, live *corev1.Pod) *corev1.Pod {
	p := live.DeepCopy()
	if p == nil {
		p = daemonset.PodForDaemonSet(d.DeepCopy())
	}
	p.Name, p.Namespace, p.Labels = d.Name, d.Namespace, d.Spec.Template.Labels
	p.Spec.NodeName = ""
	p.Status = corev1.PodStatus{}
	// The controller pins a daemon pod to its node by affinity; what decides is
	// the template's.
	var required *corev1.NodeSelector
	if a := d.Spec.Template.Spec.Affinity; a != nil && a.NodeAffinity != nil {
		required = a.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution
	}
	p.Spec.Affinity = nil
	if required != nil {
		p.Spec.Affinity = &corev1.Affinity{NodeAffinity: &corev1.NodeAffinity{RequiredDuringSchedulingIgnoredDuringExecution: required}}
	}
	p.Spec.TopologySpreadConstraints = nil
	p.Spec.Volumes = nil
	// A daemon goes where it is only preferred not to go.
	p.Spec.Tolerations = append(slices.Clone(p.Spec.Tolerations), corev1.Toleration{Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectPreferNoSchedule})
	return p
}
