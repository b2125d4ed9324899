// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package snapshot

import (
	"context"
	"maps"
	"reflect"
	"slices"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	karpv1 "sigs.k8s.io/karpenter/pkg/apis/v1"
	"sigs.k8s.io/karpenter/pkg/cloudprovider"
	"sigs.k8s.io/karpenter/pkg/scheduling"
)

// What an event makes stale is what was translated from the object, so that the next
// pass takes time for that and not for the cluster.

// podIndex finds pods by the objects that their translations depend on.
type podIndex struct {
	byClaim     map[types.NamespacedName]map[string]*podRecord // by PersistentVolumeClaim
	byDaemonSet map[types.UID]map[string]*podRecord
	// byNamespaces are the pods with a term that selects namespaces.
	byNamespaces map[string]*podRecord
}

func newPodIndex() podIndex {
	return podIndex{
		byClaim:     map[types.NamespacedName]map[string]*podRecord{},
		byDaemonSet: map[types.UID]map[string]*podRecord{}, byNamespaces: map[string]*podRecord{},
	}
}

func (x *podIndex) add(r *podRecord) {
	for _, k := range claimsOf(r.pod) {
		put(x.byClaim, k, r)
	}
	if uid, ok := daemonSetOf(r.pod); ok {
		put(x.byDaemonSet, uid, r)
	}
	if selectsNamespaces(r.pod) {
		x.byNamespaces[r.key] = r
	}
}

func (x *podIndex) remove(r *podRecord) {
	for _, k := range claimsOf(r.pod) {
		drop(x.byClaim, k, r)
	}
	if uid, ok := daemonSetOf(r.pod); ok {
		drop(x.byDaemonSet, uid, r)
	}
	delete(x.byNamespaces, r.key)
}

func put[K comparable](in map[K]map[string]*podRecord, k K, r *podRecord) {
	if in[k] == nil {
		in[k] = map[string]*podRecord{}
	}
	in[k][r.key] = r
}

func drop[K comparable](in map[K]map[string]*podRecord, k K, r *podRecord) {
	delete(in[k], r.key)
	if len(in[k]) == 0 {
		delete(in, k)
	}
}

// claimsOf returns the PersistentVolumeClaims of a pod.
func claimsOf(p *corev1.Pod) []types.NamespacedName {
	var out []types.NamespacedName
	for i := range p.Spec.Volumes {
		switch v := &p.Spec.Volumes[i]; {
		case v.PersistentVolumeClaim != nil:
			out = append(out, types.NamespacedName{Namespace: p.Namespace, Name: v.PersistentVolumeClaim.ClaimName})
		case v.Ephemeral != nil:
			out = append(out, types.NamespacedName{Namespace: p.Namespace, Name: p.Name + "-" + v.Name})
		}
	}
	return out
}

// daemonSetOf returns the UID of the DaemonSet of a pod.
func daemonSetOf(p *corev1.Pod) (types.UID, bool) {
	o := metav1.GetControllerOfNoCopy(p)
	if o == nil || o.Kind != "DaemonSet" {
		return "", false
	}
	return o.UID, true
}

// selectsNamespaces reports whether a term of the pod selects namespaces by labels.
func selectsNamespaces(p *corev1.Pod) bool {
	a := p.Spec.Affinity
	if a == nil {
		return false
	}
	required := func(t corev1.PodAffinityTerm) bool { return t.NamespaceSelector != nil }
	preferred := func(t corev1.WeightedPodAffinityTerm) bool { return t.PodAffinityTerm.NamespaceSelector != nil }
	return a.PodAffinity != nil && (slices.ContainsFunc(a.PodAffinity.RequiredDuringSchedulingIgnoredDuringExecution, required) ||
		slices.ContainsFunc(a.PodAffinity.PreferredDuringSchedulingIgnoredDuringExecution, preferred)) ||
		a.PodAntiAffinity != nil && (slices.ContainsFunc(a.PodAntiAffinity.RequiredDuringSchedulingIgnoredDuringExecution, required) ||
			slices.ContainsFunc(a.PodAntiAffinity.PreferredDuringSchedulingIgnoredDuringExecution, preferred))
}

// reshape makes the translation of pods stale, once the keys of their shapes are
// forgotten.
func (c *Cache) reshape(list map[string]*podRecord) {
	for k, r := range list {
		r.shape = nil
		c.unshaped[k] = r
		if n := r.pod.Spec.NodeName; n != "" {
			c.invalidateNode(n)
		}
		if as, ok := c.assumed.pods[k]; ok {
			c.invalidatePlace(as.on)
		}
	}
}

// claimChanged makes stale what depends on a PersistentVolumeClaim.
func (c *Cache) claimChanged(k types.NamespacedName) {
	c.shapes.forgetClaim(k)
	c.reshape(c.index.byClaim[k])
}

// volumeChanged makes stale what depends on a PersistentVolume: pods of its claim, and
// of claims that name it.
func (c *Cache) volumeChanged(versions ...*corev1.PersistentVolume) {
	for _, pv := range versions {
		if pv == nil {
			continue
		}
		if r := pv.Spec.ClaimRef; r != nil {
			c.claimChanged(types.NamespacedName{Namespace: r.Namespace, Name: r.Name})
			continue
		}
		for k := range c.shapes.byClaim {
			var pvc corev1.PersistentVolumeClaim
			if err := c.client.Get(context.Background(), k, &pvc); err == nil && pvc.Spec.VolumeName == pv.Name {
				c.claimChanged(k)
			}
		}
	}
}

// storageClassChanged makes stale what depends on a StorageClass.
func (c *Cache) storageClassChanged(old, now *storagev1.StorageClass) {
	if old != nil && now != nil && old.Provisioner == now.Provisioner && reflect.DeepEqual(old.VolumeBindingMode, now.VolumeBindingMode) &&
		reflect.DeepEqual(old.AllowedTopologies, now.AllowedTopologies) && maps.Equal(old.Annotations, now.Annotations) {
		return
	}
	for k := range c.shapes.byClaim {
		c.claimChanged(k)
	}
}

// namespaceChanged makes stale what depends on the labels of a namespace.
func (c *Cache) namespaceChanged(old, now *corev1.Namespace) {
	if old != nil && now != nil && maps.Equal(old.Labels, now.Labels) {
		return
	}
	c.shapes.forgetNamespaces()
	c.reshape(c.index.byNamespaces)
}

// stored returns the version of an object that the cache has, nil if there is none.
func stored[T any, P interface {
	*T
	client.Object
}](c *Cache, of P) P {
	have := P(new(T))
	if err := c.client.Get(context.Background(), client.ObjectKeyFromObject(of), have); err != nil {
		return nil
	}
	return have
}

// poolChanged makes stale what depends on a NodePool. Its status does not count, as
// long as it is ready.
func (c *Cache) poolChanged(old, now *karpv1.NodePool) {
	if old == nil || !reflect.DeepEqual(nodePool(old), nodePool(now)) {
		c.poolsStale = true
	}
}

// typesChanged makes the nodes of a NodePool stale whose instance type is among the
// changed ones or not decided.
func (c *Cache) typesChanged(pool string, changed map[string]bool) {
	for _, m := range c.machines {
		if m.out.NodePool == pool && (m.out.InstanceType == "" || changed[m.out.InstanceType]) {
			m.stale = true
		}
	}
}

// mergeTypes returns the list now with the elements of old where they are equal, and
// the names of the others. Overlays make new elements with the same content for every
// call.
func mergeTypes(old, now []*cloudprovider.InstanceType) ([]*cloudprovider.InstanceType, map[string]bool) {
	have := make(map[string]*cloudprovider.InstanceType, len(old))
	for _, it := range old {
		have[it.Name] = it
	}
	out := make([]*cloudprovider.InstanceType, len(now))
	changed := map[string]bool{}
	for i, it := range now {
		out[i] = it
		if o := have[it.Name]; o != nil && sameType(o, it) {
			out[i] = o
		} else {
			changed[it.Name] = true
		}
		delete(have, it.Name)
	}
	for name := range have {
		changed[name] = true
	}
	return out, changed
}

// sameType reports whether two instance types have the same translation.
func sameType(a, b *cloudprovider.InstanceType) bool {
	if a == b {
		return true
	}
	if !sameRequirements(a.Requirements, b.Requirements) || !sameAmounts(a.Capacity, b.Capacity) || !maps.Equal(a.VolumeAttachmentLimits, b.VolumeAttachmentLimits) ||
		!sameOverhead(a.Overhead, b.Overhead) || len(a.Offerings) != len(b.Offerings) || !reflect.DeepEqual(a.DynamicResources, b.DynamicResources) {
		return false
	}
	for i, x := range a.Offerings {
		y := b.Offerings[i]
		if x != y && (x.Price != y.Price || x.Available != y.Available || x.ReservationCapacity != y.ReservationCapacity ||
			!sameRequirements(x.Requirements, y.Requirements) || !sameAmounts(x.CapacityOverride, y.CapacityOverride) || !sameOverhead(x.OverheadOverride, y.OverheadOverride)) {
			return false
		}
	}
	return true
}

func sameOverhead(a, b *cloudprovider.InstanceTypeOverhead) bool {
	if a == b || a == nil || b == nil {
		return a == b
	}
	return sameAmounts(a.KubeReserved, b.KubeReserved) && sameAmounts(a.SystemReserved, b.SystemReserved) && sameAmounts(a.EvictionThreshold, b.EvictionThreshold)
}

func sameAmounts(a, b corev1.ResourceList) bool {
	if len(a) != len(b) || (a == nil) != (b == nil) {
		return false
	}
	for k, x := range a {
		y, ok := b[k]
		if !ok || x.Cmp(y) != 0 {
			return false
		}
	}
	return true
}

func sameRequirements(a, b scheduling.Requirements) bool {
	if reflect.ValueOf(a).UnsafePointer() == reflect.ValueOf(b).UnsafePointer() {
		return true
	}
	return maps.EqualFunc(a, b, func(x, y *scheduling.Requirement) bool { return x == y || reflect.DeepEqual(x, y) })
}
