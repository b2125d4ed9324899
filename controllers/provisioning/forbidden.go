package provisioning

import (
	"context"
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/karpenter/pkg/controllers/state"
	"sigs.k8s.io/karpenter/pkg/scheduling"
)

// boundTo are the pods that run on a node. They are shared and must not be
// changed.
func (p *Provisioner) boundTo(ctx context.Context, node *state.StateNode) []*corev1.Pod {
	if node.Node == nil {
		return nil
	}
	list := &corev1.PodList{}
	if err := p.Kube.List(ctx, list, client.MatchingFields{"spec.nodeName": node.Node.Name}, client.UnsafeDisableDeepCopy); err != nil {
		log.FromContext(ctx).Error(err, "listing the pods of a node", "node", node.Node.Name)
		return nil
	}
	out := make([]*corev1.Pod, 0, len(list.Items))
	for i := range list.Items {
		if ph := list.Items[i].Status.Phase; ph != corev1.PodSucceeded && ph != corev1.PodFailed {
			out = append(out, &list.Items[i])
		}
	}
	return out
}

// forbidden tells whether what runs on a node keeps a pod off it, however much
// room there is: a host port that is in use, or a required anti-affinity between
// hosts, of either side. Terms that choose namespaces by their labels are left to
// the scheduler.
func forbidden(pod *corev1.Pod, node *state.StateNode, there []*corev1.Pod) bool {
	if ports := scheduling.GetHostPorts(pod); len(ports) > 0 && node.HostPortUsage().Conflicts(pod, ports) != nil {
		return true
	}
	return slices.ContainsFunc(there, func(other *corev1.Pod) bool { return keepsOff(pod, other) || keepsOff(other, pod) })
}

// keepsOff tells whether a must not share a host with b, as a sees it.
func keepsOff(a, b *corev1.Pod) bool {
	if a.Spec.Affinity == nil || a.Spec.Affinity.PodAntiAffinity == nil {
		return false
	}
	for _, t := range a.Spec.Affinity.PodAntiAffinity.RequiredDuringSchedulingIgnoredDuringExecution {
		if t.TopologyKey != corev1.LabelHostname {
			continue
		}
		every := t.NamespaceSelector != nil && len(t.NamespaceSelector.MatchLabels)+len(t.NamespaceSelector.MatchExpressions) == 0
		own := len(t.Namespaces) == 0 && t.NamespaceSelector == nil && a.Namespace == b.Namespace
		if !every && !own && !slices.Contains(t.Namespaces, b.Namespace) {
			continue
		}
		if s, err := metav1.LabelSelectorAsSelector(t.LabelSelector); err == nil && s.Matches(labels.Set(b.Labels)) {
			return true
		}
	}
	return false
}
