// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package snapshot

import (
	"encoding/binary"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// The functions of this file encode the fields of a pod that its class depends on, so
// that pods with the same encoding have the same shape. Lists and strings are preceded
// by their length, so that pods that differ have different encodings. This code runs
// for every change of a pod in a large cluster: it allocates nothing but the buffer.

func appendString(b []byte, s string) []byte {
	b = binary.AppendUvarint(b, uint64(len(s)))
	return append(b, s...)
}

func appendInt(b []byte, v int64) []byte { return binary.AppendVarint(b, v) }

func appendStrings(b []byte, list []string) []byte {
	b = appendInt(b, int64(len(list)))
	for _, s := range list {
		b = appendString(b, s)
	}
	return b
}

func appendMap(b []byte, m map[string]string) []byte {
	b = appendInt(b, int64(len(m)))
	var arr [16]string
	keys := arr[:0]
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	for _, k := range keys {
		b = appendString(appendString(b, k), m[k])
	}
	return b
}

func appendResources(b []byte, list corev1.ResourceList) []byte {
	b = appendInt(b, int64(len(list)))
	var arr [8]string
	keys := arr[:0]
	for k := range list {
		keys = append(keys, string(k))
	}
	slices.Sort(keys)
	for _, k := range keys {
		b = appendString(b, k)
		b = appendQuantity(b, list[corev1.ResourceName(k)])
	}
	return b
}

func appendQuantity(b []byte, q resource.Quantity) []byte {
	if v, ok := q.AsInt64(); ok {
		return appendInt(append(b, 0), v)
	}
	if m := q.MilliValue(); q.Cmp(*resource.NewMilliQuantity(m, resource.DecimalSI)) == 0 {
		return appendInt(append(b, 1), m)
	}
	return appendString(append(b, 2), q.String())
}

func appendBool(b []byte, v bool) []byte {
	if v {
		return append(b, 1)
	}
	return append(b, 0)
}

func appendContainer(b []byte, c *corev1.Container) []byte {
	b = appendResources(b, c.Resources.Requests)
	b = appendBool(b, c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways)
	ports := 0
	for i := range c.Ports {
		if c.Ports[i].HostPort != 0 {
			ports++
		}
	}
	b = appendInt(b, int64(ports))
	if ports > 0 {
		for i := range c.Ports {
			if p := &c.Ports[i]; p.HostPort != 0 {
				b = appendString(appendString(appendInt(b, int64(p.HostPort)), p.HostIP), string(p.Protocol))
			}
		}
	}
	return b
}

func appendRequirements(b []byte, list []corev1.NodeSelectorRequirement) []byte {
	b = appendInt(b, int64(len(list)))
	for i := range list {
		b = appendStrings(appendString(appendString(b, list[i].Key), string(list[i].Operator)), list[i].Values)
	}
	return b
}

func appendSelector(b []byte, s *metav1.LabelSelector) []byte {
	if s == nil {
		return append(b, 0)
	}
	b = appendMap(append(b, 1), s.MatchLabels)
	b = appendInt(b, int64(len(s.MatchExpressions)))
	for i := range s.MatchExpressions {
		e := &s.MatchExpressions[i]
		b = appendStrings(appendString(appendString(b, e.Key), string(e.Operator)), e.Values)
	}
	return b
}

func appendKeyValues(b []byte, keys []string, labels map[string]string) []byte {
	b = appendInt(b, int64(len(keys)))
	for _, k := range keys {
		v, ok := labels[k]
		b = appendString(appendBool(appendString(b, k), ok), v)
	}
	return b
}

func appendTerm(b []byte, t *corev1.PodAffinityTerm, weight int32, labels map[string]string) []byte {
	b = appendInt(b, int64(weight))
	b = appendString(b, t.TopologyKey)
	b = appendSelector(b, t.LabelSelector)
	b = appendStrings(b, t.Namespaces)
	b = appendSelector(b, t.NamespaceSelector)
	b = appendKeyValues(b, t.MatchLabelKeys, labels)
	return appendKeyValues(b, t.MismatchLabelKeys, labels)
}

// appendTermOfNode appends a term of a node affinity; of the requirements for fields
// only their number, unless they count.
func appendTermOfNode(b []byte, t *corev1.NodeSelectorTerm, fields bool) []byte {
	b = appendRequirements(b, t.MatchExpressions)
	if !fields {
		return appendInt(b, int64(len(t.MatchFields)))
	}
	return appendRequirements(b, t.MatchFields)
}

func appendAffinity(b []byte, p *corev1.Pod) []byte {
	a, labels := p.Spec.Affinity, p.Labels
	if a == nil {
		return append(b, 0)
	}
	b = append(b, 1)
	fields := readsFields(p)
	if n := a.NodeAffinity; n == nil {
		b = append(b, 0)
	} else {
		b = append(b, 1)
		if r := n.RequiredDuringSchedulingIgnoredDuringExecution; r == nil {
			b = appendInt(b, -1)
		} else {
			b = appendInt(b, int64(len(r.NodeSelectorTerms)))
			for i := range r.NodeSelectorTerms {
				b = appendTermOfNode(b, &r.NodeSelectorTerms[i], fields)
			}
		}
		b = appendInt(b, int64(len(n.PreferredDuringSchedulingIgnoredDuringExecution)))
		for i := range n.PreferredDuringSchedulingIgnoredDuringExecution {
			t := &n.PreferredDuringSchedulingIgnoredDuringExecution[i]
			b = appendTermOfNode(appendInt(b, int64(t.Weight)), &t.Preference, fields)
		}
	}
	if p := a.PodAffinity; p == nil {
		b = append(b, 0)
	} else {
		b = appendTerms(append(b, 1), p.RequiredDuringSchedulingIgnoredDuringExecution, p.PreferredDuringSchedulingIgnoredDuringExecution, labels)
	}
	if p := a.PodAntiAffinity; p == nil {
		b = append(b, 0)
	} else {
		b = appendTerms(append(b, 1), p.RequiredDuringSchedulingIgnoredDuringExecution, p.PreferredDuringSchedulingIgnoredDuringExecution, labels)
	}
	return b
}

func appendTerms(b []byte, required []corev1.PodAffinityTerm, preferred []corev1.WeightedPodAffinityTerm, labels map[string]string) []byte {
	b = appendInt(b, int64(len(required)))
	for i := range required {
		b = appendTerm(b, &required[i], 0, labels)
	}
	b = appendInt(b, int64(len(preferred)))
	for i := range preferred {
		b = appendTerm(b, &preferred[i].PodAffinityTerm, preferred[i].Weight, labels)
	}
	return b
}

// appendShape encodes all fields that the class of the pod depends on, labels excluded.
func appendShape(b []byte, p *corev1.Pod) []byte {
	spec := &p.Spec
	b = appendString(b, p.Namespace)
	if spec.Priority != nil {
		b = appendInt(b, int64(*spec.Priority))
	} else {
		b = appendInt(b, 0)
	}
	b = appendInt(b, int64(len(spec.Containers)))
	for i := range spec.Containers {
		b = appendContainer(b, &spec.Containers[i])
	}
	b = appendInt(b, int64(len(spec.InitContainers)))
	for i := range spec.InitContainers {
		b = appendContainer(b, &spec.InitContainers[i])
	}
	b = appendResources(b, spec.Overhead)
	if spec.Resources != nil {
		b = appendResources(append(b, 1), spec.Resources.Requests)
	} else {
		b = append(b, 0)
	}
	b = appendResizes(b, p)
	b = appendMap(b, spec.NodeSelector)
	b = appendAffinity(b, p)
	b = appendInt(b, int64(len(spec.Tolerations)))
	for i := range spec.Tolerations {
		t := &spec.Tolerations[i]
		b = appendString(appendString(appendString(appendString(b, t.Key), string(t.Operator)), t.Value), string(t.Effect))
	}
	b = appendInt(b, int64(len(spec.TopologySpreadConstraints)))
	for i := range spec.TopologySpreadConstraints {
		t := &spec.TopologySpreadConstraints[i]
		b = appendString(appendInt(appendString(b, t.TopologyKey), int64(t.MaxSkew)), string(t.WhenUnsatisfiable))
		if t.MinDomains != nil {
			b = appendInt(b, int64(*t.MinDomains))
		} else {
			b = appendInt(b, 0)
		}
		b = appendSelector(b, t.LabelSelector)
		b = appendKeyValues(b, t.MatchLabelKeys, p.Labels)
		b = appendPolicy(appendPolicy(b, t.NodeAffinityPolicy), t.NodeTaintsPolicy)
	}
	b = appendVolumes(b, p)
	b = appendInt(b, int64(len(spec.ResourceClaims)))
	return b
}

func appendPolicy(b []byte, p *corev1.NodeInclusionPolicy) []byte {
	if p == nil {
		return append(b, 0)
	}
	return appendString(append(b, 1), string(*p))
}

// appendVolumes encodes the volume claims, and the pod's name if there are any, because
// names of claims can depend on it. Pods whose claims have the same translation still
// share a class.
func appendVolumes(b []byte, p *corev1.Pod) []byte {
	n := 0
	for i := range p.Spec.Volumes {
		if v := &p.Spec.Volumes[i]; v.PersistentVolumeClaim != nil || v.Ephemeral != nil {
			n++
		}
	}
	b = appendInt(b, int64(n))
	if p.Status.Resources != nil {
		b = appendResources(appendResources(append(b, 2), p.Status.Resources.Requests), p.Status.AllocatedResources)
	}
	if n == 0 && p.Status.Resources == nil {
		return b
	}
	b = appendString(b, p.Name)
	for i := range p.Spec.Volumes {
		switch v := &p.Spec.Volumes[i]; {
		case v.PersistentVolumeClaim != nil:
			b = appendString(append(b, 1), v.PersistentVolumeClaim.ClaimName)
		case v.Ephemeral != nil:
			b = appendString(append(b, 2), v.Name)
		}
	}
	return b
}

// appendResizes encodes the effect of an in-place resize on the pod's requests.
func appendResizes(b []byte, p *corev1.Pod) []byte {
	lists := [2][]corev1.ContainerStatus{p.Status.ContainerStatuses, p.Status.InitContainerStatuses}
	n := 0
	for _, list := range lists {
		for i := range list {
			if list[i].Resources != nil || len(list[i].AllocatedResources) > 0 {
				n++
			}
		}
	}
	b = appendInt(b, int64(n))
	if n == 0 {
		return b
	}
	for _, list := range lists {
		for i := range list {
			s := &list[i]
			if s.Resources == nil && len(s.AllocatedResources) == 0 {
				continue
			}
			b = appendResources(appendString(b, s.Name), s.AllocatedResources)
			if s.Resources != nil {
				b = appendResources(b, s.Resources.Requests)
			}
		}
	}
	for i := range p.Spec.Containers {
		b = appendString(b, p.Spec.Containers[i].Name)
	}
	for i := range p.Spec.InitContainers {
		b = appendString(b, p.Spec.InitContainers[i].Name)
	}
	b = appendString(b, string(p.Status.Resize)) //nolint:staticcheck // older kubelets report it here
	for i := range p.Status.Conditions {
		if c := &p.Status.Conditions[i]; c.Type == corev1.PodResizePending {
			b = appendString(appendString(b, string(c.Status)), c.Reason)
		}
	}
	return b
}
