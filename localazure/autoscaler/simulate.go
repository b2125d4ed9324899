// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package autoscaler

import (
	"context"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	schedulingv1alpha3 "k8s.io/api/scheduling/v1alpha3"
	schedulingv1beta1 "k8s.io/api/scheduling/v1beta1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	storagelisters "k8s.io/client-go/listers/storage/v1"
	"k8s.io/klog/v2"
	fwk "k8s.io/kube-scheduler/framework"
	"k8s.io/kubernetes/pkg/scheduler/framework"
	"k8s.io/kubernetes/pkg/scheduler/framework/plugins/names"

	"github.com/nap-aks/nap/internal/kubefilter"
)

// simulator checks with the kube-scheduler's own plugins whether a pod can run on a
// node, in a hypothetical state of the cluster (a world), one at a time.
type simulator struct {
	ctx   context.Context
	fw    framework.Framework
	world *world
}

// filters are the plugins that can exclude a template node. Volume limits are left to
// the scheduler: a template node has no CSINode.
var filters = []string{
	names.NodeUnschedulable, names.NodeName, names.TaintToleration, names.NodeAffinity, names.NodePorts, names.NodeResourcesFit,
	names.VolumeRestrictions, names.VolumeBinding, names.VolumeZone, names.PodTopologySpread, names.InterPodAffinity,
}

func newSimulator(ctx context.Context, client kubernetes.Interface, factory informers.SharedInformerFactory) (*simulator, error) {
	ctx = klog.NewContext(ctx, klog.Logger{})
	s := &simulator{ctx: ctx, world: &world{byName: map[string]*framework.NodeInfo{}}}
	var err error
	s.fw, err = kubefilter.New(ctx, client, factory, s, csiNodes{factory.Storage().V1().CSINodes().Lister()}, filters)
	return s, err
}

type csiNodes struct{ l storagelisters.CSINodeLister }

func (c csiNodes) CSINodes() fwk.CSINodeLister { return c }

func (c csiNodes) List() ([]*storagev1.CSINode, error) { return c.l.List(labels.Everything()) }

func (c csiNodes) Get(name string) (*storagev1.CSINode, error) { return c.l.Get(name) }

// world is a set of nodes with their pods, real or hypothetical.
type world struct {
	names  []string // in the order in which place tries them
	byName map[string]*framework.NodeInfo
}

func newWorld() *world { return &world{byName: map[string]*framework.NodeInfo{}} }

func (w *world) add(n *corev1.Node, pods ...*corev1.Pod) {
	info := framework.NewNodeInfo(pods...)
	info.SetNode(n)
	w.names, w.byName[n.Name] = append(w.names, n.Name), info
}

func (w *world) remove(name string) {
	delete(w.byName, name)
	w.names = slices.DeleteFunc(slices.Clone(w.names), func(n string) bool { return n == name })
}

// clone returns a copy that can be changed independently.
func (w *world) clone() *world {
	c := &world{names: slices.Clone(w.names), byName: make(map[string]*framework.NodeInfo, len(w.byName))}
	for n, i := range w.byName {
		c.byName[n] = i.SnapshotConcrete()
	}
	return c
}

func (w *world) put(pod *corev1.Pod, node string) {
	p := pod.DeepCopy()
	p.Spec.NodeName = node
	w.byName[node].AddPod(p)
}

// NodeInfos implements fwk.SharedLister, from which the plugins read the cluster.
func (s *simulator) NodeInfos() fwk.NodeInfoLister { return s }

// StorageInfos implements fwk.SharedLister.
func (s *simulator) StorageInfos() fwk.StorageInfoLister { return s }

// PodGroupStates implements fwk.SharedLister.
func (s *simulator) PodGroupStates() fwk.PodGroupStateLister { return none[fwk.PodGroupState]{} }

// PodGroups implements fwk.SharedLister.
func (s *simulator) PodGroups() fwk.PodGroupLister { return none[*schedulingv1beta1.PodGroup]{} }

// CompositePodGroupStates implements fwk.SharedLister.
func (s *simulator) CompositePodGroupStates() fwk.CompositePodGroupStateLister {
	return none[fwk.CompositePodGroupState]{}
}

// CompositePodGroups implements fwk.SharedLister.
func (s *simulator) CompositePodGroups() fwk.CompositePodGroupLister {
	return none[*schedulingv1alpha3.CompositePodGroup]{}
}

// none is the lister of a kind of object that worlds do not contain.
type none[T any] struct{}

// Get returns an error that names the object.
func (none[T]) Get(namespace, name string) (T, error) {
	var zero T
	return zero, fmt.Errorf("pod group %s/%s is not part of the simulation", namespace, name)
}

// IsPVCUsedByPods implements fwk.StorageInfoLister.
func (s *simulator) IsPVCUsedByPods(key string) bool {
	for _, i := range s.world.byName {
		if i.PVCRefCounts[key] > 0 {
			return true
		}
	}
	return false
}

func (s *simulator) list(which func(*framework.NodeInfo) bool) ([]fwk.NodeInfo, error) {
	out := make([]fwk.NodeInfo, 0, len(s.world.names))
	for _, n := range s.world.names {
		if i := s.world.byName[n]; which(i) {
			out = append(out, i)
		}
	}
	return out, nil
}

// List implements fwk.NodeInfoLister.
func (s *simulator) List() ([]fwk.NodeInfo, error) {
	return s.list(func(*framework.NodeInfo) bool { return true })
}

// HavePodsWithAffinityList implements fwk.NodeInfoLister.
func (s *simulator) HavePodsWithAffinityList() ([]fwk.NodeInfo, error) {
	return s.list(func(i *framework.NodeInfo) bool { return len(i.PodsWithAffinity) > 0 })
}

// HavePodsWithRequiredAntiAffinityList implements fwk.NodeInfoLister.
func (s *simulator) HavePodsWithRequiredAntiAffinityList() ([]fwk.NodeInfo, error) {
	return s.list(func(i *framework.NodeInfo) bool { return len(i.PodsWithRequiredAntiAffinity) > 0 })
}

// HavePodsWithRequiredNonHostScopedAntiAffinityList implements fwk.NodeInfoLister.
func (s *simulator) HavePodsWithRequiredNonHostScopedAntiAffinityList() ([]fwk.NodeInfo, error) {
	return s.list(func(i *framework.NodeInfo) bool { return len(i.PodsWithRequiredNonHostScopedAntiAffinity) > 0 })
}

// Get implements fwk.NodeInfoLister.
func (s *simulator) Get(name string) (fwk.NodeInfo, error) {
	if i, ok := s.world.byName[name]; ok {
		return i, nil
	}
	return nil, fmt.Errorf("no node %s", name)
}

// place puts a pod on the first of the nodes on which it can run. If there is none it
// returns why the last of them was excluded.
func (s *simulator) place(w *world, pod *corev1.Pod, nodes []string) (node, why string) {
	s.world = w
	state := framework.NewCycleState()
	result, status, _ := s.fw.RunPreFilterPlugins(s.ctx, state, pod)
	if !status.IsSuccess() {
		return "", status.Message()
	}
	why = "there is no node"
	for _, n := range nodes {
		if result != nil && !result.AllNodes() && !result.NodeNames.Has(n) {
			why = "the pod can run on named nodes only"
			continue
		}
		status := s.fw.RunFilterPlugins(s.ctx, state, pod, w.byName[n])
		if status.IsSuccess() {
			w.put(pod, n)
			return n, ""
		}
		why = status.Message()
	}
	return "", why
}
