// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package oracle

import (
	"context"
	"fmt"
	"slices"
	"sort"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/component-helpers/scheduling/corev1/nodeaffinity"
	"k8s.io/klog/v2"
	fwk "k8s.io/kube-scheduler/framework"
	internalcache "k8s.io/kubernetes/pkg/scheduler/backend/cache"
	"k8s.io/kubernetes/pkg/scheduler/framework"
	"k8s.io/kubernetes/pkg/scheduler/framework/plugins/names"
	karpv1 "sigs.k8s.io/karpenter/pkg/apis/v1"
	"sigs.k8s.io/karpenter/pkg/cloudprovider"
	"sigs.k8s.io/karpenter/pkg/controllers/state"
	"sigs.k8s.io/karpenter/pkg/scheduling"
	podutils "sigs.k8s.io/karpenter/pkg/utils/pod"

	"github.com/nap-aks/nap/engine"
	"github.com/nap-aks/nap/internal/kubefilter"
	"github.com/nap-aks/nap/snapshot"
)

// kube runs the Filter plugins of the kube-scheduler with the default configuration.
type kube struct {
	fw     framework.Framework
	client *fake.Clientset
	lister *lister
	csi    *csiNodes
	inform informers.SharedInformerFactory
}

// filters are the Filter plugins of the default profile that check what a plan
// decides.
var filters = []string{
	names.NodeUnschedulable, names.NodeName, names.TaintToleration, names.NodeAffinity, names.NodePorts, names.NodeResourcesFit,
	names.VolumeRestrictions, names.NodeVolumeLimits, names.VolumeBinding, names.VolumeZone, names.PodTopologySpread, names.InterPodAffinity,
}

// lister serves the current snapshot.
type lister struct{ *internalcache.Snapshot }

type csiNodes struct{ byName map[string]*storagev1.CSINode }

func (c *csiNodes) CSINodes() fwk.CSINodeLister { return c }

func (c *csiNodes) List() ([]*storagev1.CSINode, error) {
	var out []*storagev1.CSINode
	for _, n := range c.byName {
		out = append(out, n)
	}
	return out, nil
}

func (c *csiNodes) Get(name string) (*storagev1.CSINode, error) {
	if n, ok := c.byName[name]; ok {
		return n, nil
	}
	return nil, apierrors.NewNotFound(schema.GroupResource{Group: "storage.k8s.io", Resource: "csinodes"}, name)
}

// newKube starts the scheduler framework on a fake API server with the namespaces.
func newKube(t testing.TB, ctx context.Context, namespaces []*corev1.Namespace) *kube {
	t.Helper()
	ctx = klog.NewContext(ctx, klog.Logger{})
	k := &kube{client: fake.NewSimpleClientset(), lister: &lister{internalcache.NewEmptySnapshot()}, csi: &csiNodes{byName: map[string]*storagev1.CSINode{}}}
	for _, ns := range namespaces {
		if _, err := k.client.CoreV1().Namespaces().Create(ctx, ns.DeepCopy(), metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	k.inform = informers.NewSharedInformerFactory(k.client, 0)
	var err error
	if k.fw, err = kubefilter.New(ctx, k.client, k.inform, k.lister, k.csi, filters); err != nil {
		t.Fatal(err)
	}
	k.inform.Start(ctx.Done())
	k.inform.WaitForCacheSync(ctx.Done())
	return k
}

// cluster holds the nodes and pods after a plan is applied.
type cluster struct {
	nodes  []*corev1.Node
	pods   []*corev1.Pod // bound pods, including placed ones
	placed []*corev1.Pod // pods that the plan places
}

// machineLabels returns the labels of the node of a planned machine with one of its
// offerings.
func machineLabels(m *engine.Machine, of engine.RankedOffering, np *karpv1.NodePool, it *cloudprovider.InstanceType, name string) map[string]string {
	reqs := scheduling.NewNodeSelectorRequirementsWithMinValues(np.Spec.Template.Spec.Requirements...)
	reqs.Add(scheduling.NewLabelRequirements(np.Spec.Template.Labels).Values()...)
	for _, r := range m.Requirements {
		reqs.Add(scheduling.NewRequirement(r.Key, corev1.NodeSelectorOperator(r.Operator), slices.Clone(r.Values)...))
	}
	for _, o := range it.Offerings {
		if o.Zone() == of.Zone && o.CapacityType() == of.CapacityType {
			reqs.Add(o.Requirements.Values()...)
		}
	}
	reqs.Add(it.Requirements.Values()...)
	labels := map[string]string{}
	for key, r := range reqs {
		if r.Operator() == corev1.NodeSelectorOpIn {
			values := r.Values()
			sort.Strings(values)
			labels[key] = values[0]
		}
	}
	labels[corev1.LabelHostname] = name
	labels[corev1.LabelTopologyZone] = of.Zone
	labels[karpv1.CapacityTypeLabelKey] = of.CapacityType
	labels[corev1.LabelInstanceTypeStable] = it.Name
	labels[karpv1.NodePoolLabelKey] = np.Name
	labels[karpv1.NodeRegisteredLabelKey], labels[karpv1.NodeInitializedLabelKey] = "true", "true"
	return labels
}

// applyPlan returns the cluster after the plan, with the CSINodes. choose selects the
// offering of each machine.
func applyPlan(o *snapshot.Objects, in *snapshot.Input, p *engine.Plan, choose func(*engine.Machine) engine.RankedOffering) (*cluster, map[string]*storagev1.CSINode, error) {
	w := &cluster{}
	csi := map[string]*storagev1.CSINode{}
	for _, c := range o.CSINodes {
		csi[c.Name] = c
	}
	limits := func(node string, it *cloudprovider.InstanceType) {
		c := &storagev1.CSINode{ObjectMeta: metav1.ObjectMeta{Name: node}}
		for driver, n := range it.VolumeAttachmentLimits {
			count := int32(n)
			c.Spec.Drivers = append(c.Spec.Drivers, storagev1.CSINodeDriver{Name: driver, NodeID: node, Allocatable: &storagev1.VolumeNodeResources{Count: &count}})
		}
		csi[node] = c
	}
	for name, ref := range in.Nodes {
		s := &state.StateNode{Node: ref.Node, NodeClaim: ref.Claim.DeepCopy()}
		if ref.Claim == nil {
			s.NodeClaim = nil
		}
		n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{}}}
		for k, v := range s.Labels() {
			n.Labels[k] = v
		}
		if n.Labels[corev1.LabelHostname] == "" {
			n.Labels[corev1.LabelHostname] = name
		}
		n.Spec.Taints = s.Taints()
		n.Status.Allocatable, n.Status.Capacity = s.Allocatable(), s.Capacity()
		w.nodes = append(w.nodes, n)
		for _, d := range o.DaemonSets {
			if !hasDaemon(o, d, name) {
				w.addDaemonPod(d, n)
			}
		}
		if csi[name] == nil {
			for _, it := range o.InstanceTypes[n.Labels[karpv1.NodePoolLabelKey]] {
				if it.Name == n.Labels[corev1.LabelInstanceTypeStable] && ref.Claim != nil {
					limits(name, it)
				}
			}
		}
	}
	for _, pod := range o.Pods {
		if pod.Spec.NodeName != "" && !podutils.IsTerminal(pod) && in.Pods[snapshot.PodKey(pod)] == nil {
			w.pods = append(w.pods, pod)
		}
	}
	put := func(keys []string, node string) error {
		for _, k := range keys {
			pod := in.Pods[k]
			if pod == nil {
				return fmt.Errorf("the plan places pod %s, which is not pending", k)
			}
			pod = pod.DeepCopy()
			pod.Spec.NodeName = node
			w.pods = append(w.pods, pod)
			w.placed = append(w.placed, pod)
		}
		return nil
	}
	for _, pl := range p.Placements {
		for _, g := range pl.Pods {
			if err := put(g.Pods, pl.Node); err != nil {
				return nil, nil, err
			}
		}
	}
	for i := range p.Machines {
		m := &p.Machines[i]
		name := fmt.Sprintf("machine-%d", i)
		var np *karpv1.NodePool
		for _, c := range o.NodePools {
			if c.Name == m.NodePool {
				np = c
			}
		}
		of := choose(m)
		var it *cloudprovider.InstanceType
		for _, c := range o.InstanceTypes[m.NodePool] {
			if c.Name == of.InstanceType {
				it = c
			}
		}
		if np == nil || it == nil {
			return nil, nil, fmt.Errorf("machine %d has NodePool %q and instance type %q, which do not exist", i, m.NodePool, of.InstanceType)
		}
		n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: machineLabels(m, of, np, it, name)}}
		n.Spec.Taints = np.Spec.Template.Spec.Taints
		n.Status.Allocatable, n.Status.Capacity = it.Allocatable().DeepCopy(), it.Capacity
		w.nodes = append(w.nodes, n)
		limits(name, it)
		for _, d := range o.DaemonSets {
			w.addDaemonPod(d, n)
		}
		for _, g := range m.Pods {
			if err := put(g.Pods, name); err != nil {
				return nil, nil, err
			}
		}
	}
	return w, csi, nil
}

// addDaemonPod adds the pod that a DaemonSet runs on a node, if the node fits.
func (w *cluster) addDaemonPod(d *appsv1.DaemonSet, n *corev1.Node) {
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: d.Name + "-" + n.Name, Namespace: d.Namespace, Labels: d.Spec.Template.Labels}, Spec: *d.Spec.Template.Spec.DeepCopy()}
	pod.Spec.NodeName = n.Name
	fits, err := nodeaffinity.GetRequiredNodeAffinity(pod).Match(n)
	if err == nil && fits && scheduling.Taints(hard(n.Spec.Taints)).ToleratesPod(pod) == nil {
		w.pods = append(w.pods, pod)
	}
}

// hasDaemon reports whether a pod of the DaemonSet already runs on a node.
func hasDaemon(o *snapshot.Objects, d *appsv1.DaemonSet, node string) bool {
	return slices.ContainsFunc(o.Pods, func(p *corev1.Pod) bool {
		return p.Spec.NodeName == node && !podutils.IsTerminal(p) && metav1.IsControlledBy(p, d)
	})
}

// hard returns the taints without PreferNoSchedule.
func hard(taints []corev1.Taint) []corev1.Taint {
	var out []corev1.Taint
	for _, t := range taints {
		if t.Effect != corev1.TaintEffectPreferNoSchedule {
			out = append(out, t)
		}
	}
	return out
}

// check returns the reasons why the kube-scheduler rejects placed pods. With sample, it
// checks one pod per class and node.
func (k *kube) check(ctx context.Context, o *snapshot.Objects, w *cluster, csi map[string]*storagev1.CSINode, in *snapshot.Input, seed uint64, sample bool) []string {
	k.csi.byName = csi
	prefix := claimPrefix(seed)
	class := map[string]engine.ClassID{}
	for _, g := range in.Snapshot.Pending {
		for _, p := range g.Pods {
			class[p] = g.Class
		}
	}
	pods := make([]*corev1.Pod, len(w.pods))
	for i, p := range w.pods {
		pods[i] = renamed(p, prefix)
	}
	placed := map[string]bool{}
	for _, p := range w.placed {
		placed[snapshot.PodKey(p)] = true
	}
	type once struct {
		class engine.ClassID
		node  string
	}
	seen := map[once]bool{}
	var out []string
	for i, p := range pods {
		key := snapshot.PodKey(p)
		if !placed[key] {
			continue
		}
		at := once{class[key], p.Spec.NodeName}
		if sample && seen[at] {
			continue
		}
		seen[at] = true
		others := slices.Concat(pods[:i], pods[i+1:])
		k.lister.Snapshot = internalcache.NewSnapshot(others, w.nodes)
		try := p.DeepCopy()
		try.Spec.NodeName = ""
		why := k.fits(ctx, try, p.Spec.NodeName, len(o.PVCs) > 0)
		if why != "" {
			out = append(out, fmt.Sprintf("pod %s on %s: %s", key, p.Spec.NodeName, why))
		}
	}
	// A spread or an affinity depends on the pods that are bound before a pod. Pods
	// bound later may violate it. It is enough that all pods can be bound in some
	// order.
	byOrder := func(why string) bool {
		return strings.Contains(why, names.PodTopologySpread) || strings.Contains(why, "didn't match pod affinity rules")
	}
	if slices.ContainsFunc(out, byOrder) && k.canBindAll(ctx, w, pods, placed, len(o.PVCs) > 0) {
		out = slices.DeleteFunc(out, byOrder)
	}
	return out
}

// canBindAll reports whether the placed pods can be bound one by one, each to its node,
// in some order; see bindInTurn.
func (k *kube) canBindAll(ctx context.Context, w *cluster, pods []*corev1.Pod, placed map[string]bool, retryVolumes bool) bool {
	return len(k.bindInTurn(ctx, w, pods, placed, retryVolumes)) == 0
}

// unbindable returns the placed pods that cannot be bound in any order that
// bindInTurn tries.
func (k *kube) unbindable(ctx context.Context, o *snapshot.Objects, w *cluster, csi map[string]*storagev1.CSINode, seed uint64) []*corev1.Pod {
	k.csi.byName = csi
	pods := make([]*corev1.Pod, len(w.pods))
	for i, p := range w.pods {
		pods[i] = renamed(p, claimPrefix(seed))
	}
	placed := map[string]bool{}
	for _, p := range w.placed {
		placed[snapshot.PodKey(p)] = true
	}
	return k.bindInTurn(ctx, w, pods, placed, len(o.PVCs) > 0)
}

// bindInTurn binds the placed pods one by one and returns those that cannot be bound.
// It binds the first pod that passes the filters and starts again. Pods that depend on
// other pods go first. The others can wait: what rejects them (resources, taints,
// anti-affinity of another pod) does so in any order, and check has verified it with
// all pods bound. But if a spread counts such a pod and it is bound early, it takes
// the place of a pod with the spread, although the kube-scheduler accepts the same
// pods in the reverse order.
func (k *kube) bindInTurn(ctx context.Context, w *cluster, pods []*corev1.Pod, placed map[string]bool, retryVolumes bool) []*corev1.Pod {
	var bound, left []*corev1.Pod
	for _, p := range pods {
		if placed[snapshot.PodKey(p)] {
			left = append(left, p)
		} else {
			bound = append(bound, p)
		}
	}
	slices.SortStableFunc(left, func(a, b *corev1.Pod) int { return dependence(b) - dependence(a) })
	for len(left) > 0 {
		k.lister.Snapshot = internalcache.NewSnapshot(bound, w.nodes)
		next := slices.IndexFunc(left, func(p *corev1.Pod) bool {
			try := p.DeepCopy()
			try.Spec.NodeName = ""
			return k.fits(ctx, try, p.Spec.NodeName, retryVolumes) == ""
		})
		if next < 0 {
			return left
		}
		bound = append(bound, left[next])
		left = slices.Delete(left, next, next+1)
	}
	return nil
}

// dependence ranks pods by their constraints on other pods: first hard spread, then
// pod affinity.
func dependence(p *corev1.Pod) int {
	n := 0
	for _, t := range p.Spec.TopologySpreadConstraints {
		if t.WhenUnsatisfiable == corev1.DoNotSchedule {
			n += 2
		}
	}
	if a := p.Spec.Affinity; a != nil && a.PodAffinity != nil {
		n++
	}
	return n
}

// fits returns why the filters reject a pod on a node, or "". With retryVolumes it
// retries pods with volumes until the volume caches are up to date.
func (k *kube) fits(ctx context.Context, p *corev1.Pod, node string, retryVolumes bool) string {
	var why string
	for attempt := 0; ; attempt++ {
		why = k.tryOnce(ctx, p, node)
		if why == "" || !retryVolumes || len(p.Spec.Volumes) == 0 || attempt > 4 {
			return why
		}
		time.Sleep(20 * time.Millisecond) // the volume caches are updated by events
	}
}

// tryOnce runs the filters once.
func (k *kube) tryOnce(ctx context.Context, p *corev1.Pod, node string) string {
	cycle := framework.NewCycleState()
	result, status, _ := k.fw.RunPreFilterPlugins(ctx, cycle, p)
	if !status.IsSuccess() {
		return status.Plugin() + ": " + status.Message()
	}
	if result != nil && !result.AllNodes() && !result.NodeNames.Has(node) {
		return "a PreFilter plugin allows only other nodes"
	}
	info, err := k.lister.NodeInfos().Get(node)
	if err != nil {
		return "no such node"
	}
	if status := k.fw.RunFilterPlugins(ctx, cycle, p, info); !status.IsSuccess() {
		return status.Plugin() + ": " + status.Message()
	}
	return ""
}

// renamed returns the pod with the prefix in front of its claim names.
func renamed(p *corev1.Pod, prefix string) *corev1.Pod {
	if len(p.Spec.Volumes) == 0 {
		return p
	}
	p = p.DeepCopy()
	for i := range p.Spec.Volumes {
		if c := p.Spec.Volumes[i].PersistentVolumeClaim; c != nil {
			c.ClaimName = prefix + c.ClaimName
		}
	}
	return p
}

// claimPrefix makes the claim names of a seed unique.
func claimPrefix(seed uint64) string { return fmt.Sprintf("s%d-", seed) }

// storage creates the claims, volumes and storage classes of the cluster with the
// prefix, and returns a function that deletes them.
func (k *kube) storage(ctx context.Context, o *snapshot.Objects, prefix string) func() {
	if len(o.PVCs) == 0 {
		return func() {}
	}
	must := func(err error) {
		if err != nil {
			panic(fmt.Sprintf("the fake API server: %v", err))
		}
	}
	create, remove := metav1.CreateOptions{}, metav1.DeleteOptions{}
	for _, c := range o.Classes {
		c = c.DeepCopy()
		c.Name = prefix + c.Name
		_, err := k.client.StorageV1().StorageClasses().Create(ctx, c, create)
		must(err)
	}
	for _, v := range o.PVs {
		v = v.DeepCopy()
		v.Name, v.Spec.StorageClassName, v.Spec.ClaimRef.Name = prefix+v.Name, prefix+v.Spec.StorageClassName, prefix+v.Spec.ClaimRef.Name
		v.Status.Phase = corev1.VolumeBound
		_, err := k.client.CoreV1().PersistentVolumes().Create(ctx, v, create)
		must(err)
	}
	var last *corev1.PersistentVolumeClaim
	for _, c := range o.PVCs {
		c = c.DeepCopy()
		c.Name = prefix + c.Name
		if c.Spec.VolumeName != "" {
			c.Spec.VolumeName = prefix + c.Spec.VolumeName
		}
		class := prefix + *c.Spec.StorageClassName
		c.Spec.StorageClassName = &class
		c.Spec.Resources.Requests = corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Gi")}
		_, err := k.client.CoreV1().PersistentVolumeClaims(c.Namespace).Create(ctx, c, create)
		must(err)
		last = c
	}
	claims := k.inform.Core().V1().PersistentVolumeClaims().Lister()
	for range 1000 {
		if _, err := claims.PersistentVolumeClaims(last.Namespace).Get(last.Name); err == nil {
			break
		}
		time.Sleep(time.Millisecond)
	}
	return func() {
		for _, c := range o.Classes {
			must(k.client.StorageV1().StorageClasses().Delete(ctx, prefix+c.Name, remove))
		}
		for _, v := range o.PVs {
			must(k.client.CoreV1().PersistentVolumes().Delete(ctx, prefix+v.Name, remove))
		}
		for _, c := range o.PVCs {
			must(k.client.CoreV1().PersistentVolumeClaims(c.Namespace).Delete(ctx, prefix+c.Name, remove))
		}
	}
}
