// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package snapshot

import (
	"cmp"
	"slices"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	storagev1 "k8s.io/api/storage/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	karpv1 "sigs.k8s.io/karpenter/pkg/apis/v1"
	"sigs.k8s.io/karpenter/pkg/cloudprovider"
)

// Objects is a cluster as lists of Kubernetes and Karpenter objects: everything that a
// scheduling decision depends on, and nothing else. A snapshot file holds it, and
// Karpenter's scheduler runs on it for comparison.
type Objects struct {
	// Now is the time of the snapshot. Decisions do not read a clock.
	Now time.Time

	Pods         []*corev1.Pod // all pods of the cluster, pending and bound
	Nodes        []*corev1.Node
	NodePools    []*karpv1.NodePool
	NodeClaims   []*karpv1.NodeClaim
	DaemonSets   []*appsv1.DaemonSet
	Namespaces   []*corev1.Namespace
	PDBs         []*policyv1.PodDisruptionBudget
	PVCs         []*corev1.PersistentVolumeClaim
	PVs          []*corev1.PersistentVolume
	Classes      []*storagev1.StorageClass
	CSINodes     []*storagev1.CSINode
	Services     []*corev1.Service // for default spread constraints
	ReplicaSets  []*appsv1.ReplicaSet
	StatefulSets []*appsv1.StatefulSet
	RCs          []*corev1.ReplicationController

	// VirtualPods are the placeholder pods of CapacityBuffers.
	VirtualPods []*corev1.Pod
	// Marked are the provider IDs of the nodes that a running disruption is about to
	// delete: their pods have to be placed, and their capacity does not count.
	Marked []string

	// Assumed are the pending pods that an earlier plan has placed: node or NodeClaim
	// name by pod key. They count there and are not placed again.
	Assumed map[string]string
	// Held are the keys of the pending pods that are not to be placed now.
	Held []string

	// InstanceTypes are the instance types by NodePool name, with NodeOverlays applied.
	InstanceTypes map[string][]*cloudprovider.InstanceType

	// Quotas are the quotas of the cloud and their use at Now.
	Quotas []Quota

	Settings Settings
}

// Settings are the options of Karpenter, and of nap, that affect decisions.
type Settings struct {
	IgnorePreferences bool `json:"ignorePreferences,omitempty"`
	// PricedPreferences gives up preferences that cost too much, see
	// engine.PreferencesPriced. IgnorePreferences comes first.
	PricedPreferences   bool                              `json:"pricedPreferences,omitempty"`
	MinValuesBestEffort bool                              `json:"minValuesBestEffort,omitempty"`
	ReservedCapacity    bool                              `json:"reservedCapacity,omitempty"`
	DefaultSpread       []corev1.TopologySpreadConstraint `json:"defaultSpread,omitempty"`
}

// Each calls f for every Kubernetes object.
func (o *Objects) Each(f func(client.Object)) {
	each(o.Pods, f)
	each(o.Nodes, f)
	each(o.NodePools, f)
	each(o.NodeClaims, f)
	each(o.DaemonSets, f)
	each(o.Namespaces, f)
	each(o.PDBs, f)
	each(o.PVCs, f)
	each(o.PVs, f)
	each(o.Classes, f)
	each(o.CSINodes, f)
	each(o.Services, f)
	each(o.ReplicaSets, f)
	each(o.StatefulSets, f)
	each(o.RCs, f)
}

func each[T client.Object](list []T, f func(client.Object)) {
	for _, o := range list {
		f(o)
	}
}

// Add adds an object to the list of its kind. It returns false for a kind that no
// decision depends on.
func (o *Objects) Add(obj client.Object) bool {
	switch t := obj.(type) {
	case *corev1.Pod:
		o.Pods = append(o.Pods, t)
	case *corev1.Node:
		o.Nodes = append(o.Nodes, t)
	case *karpv1.NodePool:
		o.NodePools = append(o.NodePools, t)
	case *karpv1.NodeClaim:
		o.NodeClaims = append(o.NodeClaims, t)
	case *appsv1.DaemonSet:
		o.DaemonSets = append(o.DaemonSets, t)
	case *corev1.Namespace:
		o.Namespaces = append(o.Namespaces, t)
	case *policyv1.PodDisruptionBudget:
		o.PDBs = append(o.PDBs, t)
	case *corev1.PersistentVolumeClaim:
		o.PVCs = append(o.PVCs, t)
	case *corev1.PersistentVolume:
		o.PVs = append(o.PVs, t)
	case *storagev1.StorageClass:
		o.Classes = append(o.Classes, t)
	case *storagev1.CSINode:
		o.CSINodes = append(o.CSINodes, t)
	case *corev1.Service:
		o.Services = append(o.Services, t)
	case *appsv1.ReplicaSet:
		o.ReplicaSets = append(o.ReplicaSets, t)
	case *appsv1.StatefulSet:
		o.StatefulSets = append(o.StatefulSets, t)
	case *corev1.ReplicationController:
		o.RCs = append(o.RCs, t)
	default:
		return false
	}
	return true
}

// sort sorts every list by name.
func (o *Objects) sort() {
	byName(o.Pods)
	byName(o.Nodes)
	byName(o.NodePools)
	byName(o.NodeClaims)
	byName(o.DaemonSets)
	byName(o.Namespaces)
	byName(o.PDBs)
	byName(o.PVCs)
	byName(o.PVs)
	byName(o.Classes)
	byName(o.CSINodes)
	byName(o.Services)
	byName(o.ReplicaSets)
	byName(o.StatefulSets)
	byName(o.RCs)
	slices.Sort(o.Marked)
}

func byName[T client.Object](list []T) {
	slices.SortStableFunc(list, func(a, b T) int {
		return cmp.Or(strings.Compare(a.GetNamespace(), b.GetNamespace()), strings.Compare(a.GetName(), b.GetName()))
	})
}
