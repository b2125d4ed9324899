// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

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

// boundTo returns the pods bound to a node that have not ended. They are shared with
// the informer cache and must not be changed.
func (p *Provisioner) boundTo(ctx context.Context, node *state.StateNode) []*corev1.Pod {
	if node.Node == nil {
		return nil
	}
	list := &corev1.PodList{}
	if err := p.Kube.List(ctx, list, client.MatchingFields{"spec.nodeName": node.Node.Name}, client.UnsafeDisableDeepCopy); err != nil {
		log.FromContext(ctx).Error(err, "listing pods failed", "node", node.Node.Name)
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

// excluded reports whether pods bound to a node exclude a pod from it, however much
// capacity is free: by a host port in use, or by a required anti-affinity between
// hosts, of either pod. Anti-affinity terms that select namespaces by label are
// ignored here; the scheduler checks them.
func excluded(pod *corev1.Pod, node *state.StateNode, bound []*corev1.Pod) bool {
	if ports := scheduling.GetHostPorts(pod); len(ports) > 0 && node.HostPortUsage().Conflicts(pod, ports) != nil {
		return true
	}
	return slices.ContainsFunc(bound, func(other *corev1.Pod) bool { return repels(pod, other) || repels(other, pod) })
}

// repels reports whether the anti-affinity of pod a forbids pod b on its host.
func repels(a, b *corev1.Pod) bool {
	if a.Spec.Affinity == nil || a.Spec.Affinity.PodAntiAffinity == nil {
		return false
	}
	for _, t := range a.Spec.Affinity.PodAntiAffinity.RequiredDuringSchedulingIgnoredDuringExecution {
		if t.TopologyKey != corev1.LabelHostname {
			continue
		}
		all := t.NamespaceSelector != nil && len(t.NamespaceSelector.MatchLabels)+len(t.NamespaceSelector.MatchExpressions) == 0
		own := len(t.Namespaces) == 0 && t.NamespaceSelector == nil && a.Namespace == b.Namespace
		if !all && !own && !slices.Contains(t.Namespaces, b.Namespace) {
			continue
		}
		if s, err := metav1.LabelSelectorAsSelector(t.LabelSelector); err == nil && s.Matches(labels.Set(b.Labels)) {
			return true
		}
	}
	return false
}
