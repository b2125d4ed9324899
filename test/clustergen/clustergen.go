// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

// Package clustergen generates clusters from seeds for property tests and benchmarks.
// The same seed and options give the same objects. The clusters are small and have many
// constraints, so that constraints often interact.
package clustergen

import (
	"fmt"
	"math/rand/v2"
	"strconv"
	"time"

	"github.com/awslabs/operatorpkg/status"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	karpv1 "sigs.k8s.io/karpenter/pkg/apis/v1"
	"sigs.k8s.io/karpenter/pkg/cloudprovider"
	"sigs.k8s.io/karpenter/pkg/scheduling"

	"github.com/nap-aks/nap/snapshot"
)

// LabelCPU is a label of all instance types with the number of CPUs. It is registered as
// a well-known label, as providers do with theirs.
const LabelCPU = "size.nap.test/cpu"

// Driver is the CSI driver of the generated volumes.
const Driver = "disk.nap.test"

// Zones are the zones of the generated region.
var Zones = []string{"zone-1", "zone-2", "zone-3"}

func init() { karpv1.WellKnownLabels.Insert(LabelCPU) }

// Options limit what is generated. The zero value generates everything.
type Options struct {
	// Workloads is the maximum number of Deployments; 0 means 6.
	Workloads int
	// Replicas is the maximum number of pods of a Deployment; 0 means 8.
	Replicas int
	// Nodes is the maximum number of existing nodes; 0 means 5, negative none.
	Nodes int
	// Plain leaves out pod affinity, anti-affinity, spread, volumes and ports.
	Plain bool
}

// Generate returns the cluster of a seed.
func Generate(seed uint64, opt Options) *snapshot.Objects {
	if opt.Workloads == 0 {
		opt.Workloads = 6
	}
	if opt.Replicas == 0 {
		opt.Replicas = 8
	}
	if opt.Nodes == 0 {
		opt.Nodes = 5
	}
	g := &gen{Rand: rand.New(rand.NewPCG(seed, 0x6e6170)), opt: opt}
	g.o = &snapshot.Objects{Now: time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC), InstanceTypes: map[string][]*cloudprovider.InstanceType{}}
	g.namespaces()
	g.pools()
	g.daemons()
	g.nodes()
	g.storage()
	for i := range 1 + g.IntN(opt.Workloads) {
		g.workload(i)
	}
	return g.o
}

type gen struct {
	*rand.Rand
	opt  Options
	o    *snapshot.Objects
	uids int
}

// chance returns true with probability 1/n.
func (g *gen) chance(n int) bool { return g.IntN(n) == 0 }

// pick returns a random element.
func pick[T any](g *gen, list ...T) T { return list[g.IntN(len(list))] }

// subset returns a random subset with at least one element.
func (g *gen) subset(list []string) []string {
	var out []string
	for _, v := range list {
		if g.chance(2) {
			out = append(out, v)
		}
	}
	if len(out) == 0 {
		out = append(out, pick(g, list...))
	}
	return out
}

func (g *gen) uid() types.UID {
	g.uids++
	return types.UID(fmt.Sprintf("00000000-0000-0000-0000-%012d", g.uids))
}

func (g *gen) namespaces() {
	for _, n := range []string{"blue", "green", "kube-system"} {
		g.o.Namespaces = append(g.o.Namespaces, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: n, Labels: map[string]string{corev1.LabelMetadataName: n, "tone": n[:1]}}})
	}
}

// InstanceType returns an instance type. Prices are in USD per hour; a spot price of 0
// means no spot offerings.
func InstanceType(name string, cpu int, memoryGiB float64, gpus int, arch string, zones []string, onDemand, spot float64) *cloudprovider.InstanceType {
	it := &cloudprovider.InstanceType{
		Name: name,
		Requirements: scheduling.NewRequirements(
			scheduling.NewRequirement(corev1.LabelInstanceTypeStable, corev1.NodeSelectorOpIn, name),
			scheduling.NewRequirement(corev1.LabelArchStable, corev1.NodeSelectorOpIn, arch),
			scheduling.NewRequirement(corev1.LabelOSStable, corev1.NodeSelectorOpIn, "linux"),
			scheduling.NewRequirement(corev1.LabelTopologyRegion, corev1.NodeSelectorOpIn, "region"),
			scheduling.NewRequirement(corev1.LabelWindowsBuild, corev1.NodeSelectorOpDoesNotExist),
			scheduling.NewRequirement(LabelCPU, corev1.NodeSelectorOpIn, strconv.Itoa(cpu)),
		),
		Capacity: corev1.ResourceList{
			corev1.ResourceCPU:              *resource.NewQuantity(int64(cpu), resource.DecimalSI),
			corev1.ResourceMemory:           *resource.NewQuantity(int64(memoryGiB*(1<<30)), resource.BinarySI),
			corev1.ResourceEphemeralStorage: *resource.NewQuantity(100<<30, resource.BinarySI),
			corev1.ResourcePods:             *resource.NewQuantity(int64(8+8*cpu), resource.DecimalSI),
		},
		Overhead: &cloudprovider.InstanceTypeOverhead{KubeReserved: corev1.ResourceList{
			corev1.ResourceCPU:    *resource.NewMilliQuantity(int64(60+20*cpu), resource.DecimalSI),
			corev1.ResourceMemory: *resource.NewQuantity(int64(memoryGiB*(1<<30)/16), resource.BinarySI),
		}},
		VolumeAttachmentLimits: map[string]int{Driver: 1 + cpu},
	}
	if gpus > 0 {
		it.Capacity["nvidia.com/gpu"] = *resource.NewQuantity(int64(gpus), resource.DecimalSI)
	}
	types := []string{karpv1.CapacityTypeOnDemand}
	if spot > 0 {
		types = append(types, karpv1.CapacityTypeSpot)
	}
	it.Requirements.Add(
		scheduling.NewRequirement(corev1.LabelTopologyZone, corev1.NodeSelectorOpIn, zones...),
		scheduling.NewRequirement(karpv1.CapacityTypeLabelKey, corev1.NodeSelectorOpIn, types...),
	)
	for _, z := range zones {
		for _, ct := range types {
			price := onDemand
			if ct == karpv1.CapacityTypeSpot {
				price = spot
			}
			it.Offerings = append(it.Offerings, &cloudprovider.Offering{
				Requirements: scheduling.NewLabelRequirements(map[string]string{corev1.LabelTopologyZone: z, karpv1.CapacityTypeLabelKey: ct}),
				Price:        price, Available: true,
			})
		}
	}
	return it
}

// catalogue returns random instance types.
func (g *gen) catalogue() []*cloudprovider.InstanceType {
	var out []*cloudprovider.InstanceType
	for _, cpu := range []int{1, 2, 4, 8, 16} {
		for _, ratio := range []float64{2, 4, 8} {
			if g.chance(3) {
				continue
			}
			gpus := 0
			if cpu >= 4 && g.chance(5) {
				gpus = cpu / 4
			}
			price := float64(cpu)*0.04 + float64(cpu)*ratio*0.005 + float64(gpus)*0.8
			price = float64(int(price*(0.9+0.2*g.Float64())*10000)) / 10000
			spot := float64(int(price*(0.2+0.3*g.Float64())*10000)) / 10000
			if g.chance(4) {
				spot = 0
			}
			arch := karpv1.ArchitectureAmd64
			if g.chance(5) {
				arch = karpv1.ArchitectureArm64
			}
			it := InstanceType(fmt.Sprintf("m%d-%g-%s", cpu, ratio, arch), cpu, float64(cpu)*ratio, gpus, arch, g.subset(Zones), price, spot)
			for _, o := range it.Offerings {
				o.Available = !g.chance(12)
			}
			out = append(out, it)
		}
	}
	if len(out) == 0 {
		out = append(out, InstanceType("m4-4-amd64", 4, 16, 0, karpv1.ArchitectureAmd64, Zones, 0.2, 0.06))
	}
	// As in providers, the zones and capacity types of an instance type are those of
	// its available offerings.
	for _, it := range out {
		zones, types := map[string]bool{}, map[string]bool{}
		for _, o := range it.Offerings.Available() {
			zones[o.Zone()], types[o.CapacityType()] = true, true
		}
		it.Requirements[corev1.LabelTopologyZone] = scheduling.NewRequirement(corev1.LabelTopologyZone, corev1.NodeSelectorOpIn, keys(zones)...)
		it.Requirements[karpv1.CapacityTypeLabelKey] = scheduling.NewRequirement(karpv1.CapacityTypeLabelKey, corev1.NodeSelectorOpIn, keys(types)...)
	}
	return out
}

// keys returns the zones and capacity types in m, in a fixed order.
func keys(m map[string]bool) []string {
	var out []string
	for _, z := range append(append([]string{}, Zones...), karpv1.CapacityTypeOnDemand, karpv1.CapacityTypeSpot) {
		if m[z] {
			out = append(out, z)
		}
	}
	return out
}

// NodePool returns a ready NodePool without requirements.
func NodePool(name string) *karpv1.NodePool {
	np := &karpv1.NodePool{ObjectMeta: metav1.ObjectMeta{Name: name, UID: types.UID("pool-" + name), Generation: 1}}
	np.Spec.Template.Spec.NodeClassRef = &karpv1.NodeClassReference{Group: "karpenter.azure.com", Kind: "AKSNodeClass", Name: "default"}
	np.Spec.Template.Spec.Requirements = []karpv1.NodeSelectorRequirementWithMinValues{}
	for _, c := range []string{karpv1.ConditionTypeValidationSucceeded, karpv1.ConditionTypeNodeClassReady, status.ConditionReady} {
		np.Status.Conditions = append(np.Status.Conditions, status.Condition{Type: c, Status: metav1.ConditionTrue, ObservedGeneration: 1, Reason: c, LastTransitionTime: metav1.NewTime(time.Date(2026, 11, 24, 0, 0, 0, 0, time.UTC))})
	}
	return np
}

func require(key string, op corev1.NodeSelectorOperator, values ...string) karpv1.NodeSelectorRequirementWithMinValues {
	return karpv1.NodeSelectorRequirementWithMinValues{Key: key, Operator: op, Values: values}
}

func (g *gen) pools() {
	shared := g.catalogue()
	for i := range 1 + g.IntN(3) {
		np := NodePool(fmt.Sprintf("pool-%d", i))
		if g.chance(2) {
			w := int32(1 + g.IntN(20))
			np.Spec.Weight = &w
		}
		t := &np.Spec.Template
		if g.chance(3) {
			t.Spec.Taints = append(t.Spec.Taints, corev1.Taint{Key: "dedicated", Value: pick(g, "a", "b"), Effect: pick(g, corev1.TaintEffectNoSchedule, corev1.TaintEffectNoExecute, corev1.TaintEffectPreferNoSchedule)})
		}
		if g.chance(4) {
			t.Spec.StartupTaints = append(t.Spec.StartupTaints, corev1.Taint{Key: "starting", Effect: corev1.TaintEffectNoSchedule})
		}
		if g.chance(2) {
			t.Labels = map[string]string{"team": pick(g, "red", "yellow")}
		}
		add := func(r karpv1.NodeSelectorRequirementWithMinValues) {
			t.Spec.Requirements = append(t.Spec.Requirements, r)
		}
		if g.chance(2) {
			add(require(karpv1.CapacityTypeLabelKey, corev1.NodeSelectorOpIn, g.subset([]string{karpv1.CapacityTypeOnDemand, karpv1.CapacityTypeSpot})...))
		}
		if g.chance(3) {
			add(require(corev1.LabelTopologyZone, corev1.NodeSelectorOpIn, g.subset(Zones)...))
		}
		if g.chance(3) {
			add(require("tier", corev1.NodeSelectorOpIn, g.subset([]string{"gold", "silver", "tin"})...))
		}
		if g.chance(4) {
			add(require(corev1.LabelArchStable, corev1.NodeSelectorOpIn, karpv1.ArchitectureAmd64))
		}
		if g.chance(4) {
			add(require(LabelCPU, pick(g, corev1.NodeSelectorOpGt, corev1.NodeSelectorOpLt), pick(g, "1", "4", "8")))
		}
		if g.chance(5) {
			np.Spec.Limits = karpv1.Limits{corev1.ResourceCPU: *resource.NewQuantity(int64(4+g.IntN(40)), resource.DecimalSI)}
		}
		g.o.NodePools = append(g.o.NodePools, np)
		list := shared
		if g.chance(4) {
			list = g.catalogue()
		}
		g.o.InstanceTypes[np.Name] = list
	}
}

func (g *gen) daemons() {
	for i := range g.IntN(3) {
		d := &appsv1.DaemonSet{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("agent-%d", i), Namespace: "kube-system", UID: g.uid()}}
		d.Spec.Selector = &metav1.LabelSelector{MatchLabels: map[string]string{"agent": strconv.Itoa(i)}}
		d.Spec.Template.Labels = map[string]string{"agent": strconv.Itoa(i)}
		spec := &d.Spec.Template.Spec
		spec.Containers = []corev1.Container{container(int64(50+50*g.IntN(3)), int64(32+64*g.IntN(3)), 0)}
		if g.chance(2) {
			spec.Tolerations = []corev1.Toleration{{Operator: corev1.TolerationOpExists}}
		}
		if g.chance(3) {
			spec.NodeSelector = map[string]string{corev1.LabelArchStable: karpv1.ArchitectureAmd64}
		}
		g.o.DaemonSets = append(g.o.DaemonSets, d)
	}
}

func container(milliCPU, mib int64, gpus int) corev1.Container {
	c := corev1.Container{Name: "main", Image: "img", Resources: corev1.ResourceRequirements{Requests: corev1.ResourceList{
		corev1.ResourceCPU:    *resource.NewMilliQuantity(milliCPU, resource.DecimalSI),
		corev1.ResourceMemory: *resource.NewQuantity(mib<<20, resource.BinarySI),
	}}}
	if gpus > 0 {
		q := *resource.NewQuantity(int64(gpus), resource.DecimalSI)
		c.Resources.Requests["nvidia.com/gpu"] = q
		c.Resources.Limits = corev1.ResourceList{"nvidia.com/gpu": q}
	}
	return c
}

// nodes generates existing nodes: of NodePools, in several lifecycle stages, and of
// fixed pools.
func (g *gen) nodes() {
	if g.opt.Nodes < 0 {
		return
	}
	for i := range g.IntN(g.opt.Nodes + 1) {
		np := pick(g, g.o.NodePools...)
		it := pick(g, g.o.InstanceTypes[np.Name]...)
		offerings := it.Offerings.Available()
		if len(offerings) == 0 {
			continue
		}
		of := pick(g, offerings...)
		name := fmt.Sprintf("node-%d", i)
		labels := map[string]string{
			corev1.LabelHostname: name, corev1.LabelTopologyZone: of.Zone(), karpv1.CapacityTypeLabelKey: of.CapacityType(),
			corev1.LabelTopologyRegion: "region",
		}
		for _, key := range []string{corev1.LabelInstanceTypeStable, corev1.LabelArchStable, corev1.LabelOSStable, LabelCPU} {
			labels[key] = it.Requirements.Get(key).Any()
		}
		node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, UID: g.uid(), Labels: labels}, Spec: corev1.NodeSpec{ProviderID: "test://" + name}}
		node.Status.Capacity, node.Status.Allocatable = it.Capacity.DeepCopy(), it.Allocatable().DeepCopy()
		node.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}}
		if g.chance(4) { // a node of a fixed pool
			if g.chance(3) {
				node.Spec.Taints = append(node.Spec.Taints, corev1.Taint{Key: "dedicated", Value: "a", Effect: corev1.TaintEffectNoSchedule})
			}
			g.o.Nodes = append(g.o.Nodes, node)
			g.fill(node)
			continue
		}
		for k, v := range np.Spec.Template.Labels {
			labels[k] = v
		}
		for _, r := range np.Spec.Template.Spec.Requirements {
			if r.Key == "tier" {
				labels["tier"] = pick(g, r.Values...)
			}
		}
		labels[karpv1.NodePoolLabelKey] = np.Name
		nc := &karpv1.NodeClaim{ObjectMeta: metav1.ObjectMeta{Name: "claim-" + name, UID: g.uid(), Labels: map[string]string{}}}
		for k, v := range labels {
			nc.Labels[k] = v
		}
		delete(nc.Labels, corev1.LabelHostname)
		nc.Spec.NodeClassRef = np.Spec.Template.Spec.NodeClassRef
		nc.Spec.Taints, nc.Spec.StartupTaints = np.Spec.Template.Spec.Taints, np.Spec.Template.Spec.StartupTaints
		nc.Status.ProviderID = node.Spec.ProviderID
		nc.Status.Capacity, nc.Status.Allocatable = node.Status.Capacity, node.Status.Allocatable
		g.o.NodeClaims = append(g.o.NodeClaims, nc)
		switch g.IntN(5) {
		case 0: // in flight: launched, no node yet
			continue
		case 1: // registered, not initialized
			labels[karpv1.NodeRegisteredLabelKey] = "true"
			node.Spec.Taints = append(append([]corev1.Taint{}, nc.Spec.Taints...), nc.Spec.StartupTaints...)
			node.Spec.Taints = append(node.Spec.Taints, corev1.Taint{Key: corev1.TaintNodeNotReady, Effect: corev1.TaintEffectNoSchedule})
			g.o.Nodes = append(g.o.Nodes, node)
		default:
			labels[karpv1.NodeRegisteredLabelKey], labels[karpv1.NodeInitializedLabelKey] = "true", "true"
			node.Spec.Taints = nc.Spec.Taints
			g.o.Nodes = append(g.o.Nodes, node)
			g.fill(node)
			if g.chance(8) {
				g.o.Marked = append(g.o.Marked, node.Spec.ProviderID)
			}
		}
	}
}

// fill adds running pods to a node, within its allocatable resources.
func (g *gen) fill(node *corev1.Node) {
	free := node.Status.Allocatable.Cpu().MilliValue()
	mem := node.Status.Allocatable.Memory().Value()
	for _, d := range g.o.DaemonSets {
		req := d.Spec.Template.Spec.Containers[0].Resources.Requests
		if g.chance(2) || req.Cpu().MilliValue() > free || req.Memory().Value() > mem {
			continue
		}
		p := g.pod("kube-system", fmt.Sprintf("%s-%s", d.Name, node.Name), d.Spec.Template.Labels)
		p.Spec = *d.Spec.Template.Spec.DeepCopy()
		yes := true
		p.OwnerReferences = []metav1.OwnerReference{{APIVersion: "apps/v1", Kind: "DaemonSet", Name: d.Name, UID: d.UID, Controller: &yes}}
		g.run(p, node)
		free -= req.Cpu().MilliValue()
		mem -= req.Memory().Value()
	}
	for i := range g.IntN(5) {
		cpu, mib := int64(100*(1+g.IntN(10))), int64(128*(1+g.IntN(10)))
		if cpu > free || mib<<20 > mem {
			continue
		}
		app := pick(g, "app-0", "app-1", "app-2", "old")
		p := g.pod(pick(g, "blue", "green"), fmt.Sprintf("running-%s-%d", node.Name, i), map[string]string{"app": app, "noise": strconv.Itoa(i)})
		p.Spec.Containers = []corev1.Container{container(cpu, mib, 0)}
		if !g.opt.Plain && g.chance(6) {
			p.Spec.Affinity = &corev1.Affinity{PodAntiAffinity: &corev1.PodAntiAffinity{RequiredDuringSchedulingIgnoredDuringExecution: []corev1.PodAffinityTerm{g.term()}}}
		}
		if !g.opt.Plain && g.chance(8) {
			p.Spec.Containers[0].Ports = []corev1.ContainerPort{{ContainerPort: 80, HostPort: 8080, Protocol: corev1.ProtocolTCP}}
		}
		g.run(p, node)
		free -= cpu
		mem -= mib << 20
	}
}

func (g *gen) run(p *corev1.Pod, node *corev1.Node) {
	p.Spec.NodeName = node.Name
	p.Status = corev1.PodStatus{Phase: corev1.PodRunning, Conditions: []corev1.PodCondition{{Type: corev1.PodScheduled, Status: corev1.ConditionTrue}}}
	g.o.Pods = append(g.o.Pods, p)
}

func (g *gen) pod(ns, name string, labels map[string]string) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: ns, UID: g.uid(), Labels: labels, CreationTimestamp: metav1.NewTime(g.o.Now.Add(-time.Hour + time.Duration(g.uids)*time.Second))},
		Status: corev1.PodStatus{Phase: corev1.PodPending, Conditions: []corev1.PodCondition{
			{Type: corev1.PodScheduled, Status: corev1.ConditionFalse, Reason: corev1.PodReasonUnschedulable},
		}},
	}
}

func (g *gen) storage() {
	if g.opt.Plain {
		return
	}
	wait := storagev1.VolumeBindingWaitForFirstConsumer
	g.o.Classes = append(g.o.Classes,
		&storagev1.StorageClass{ObjectMeta: metav1.ObjectMeta{Name: "any"}, Provisioner: Driver, VolumeBindingMode: &wait},
		&storagev1.StorageClass{ObjectMeta: metav1.ObjectMeta{Name: "zoned"}, Provisioner: Driver, VolumeBindingMode: &wait, AllowedTopologies: []corev1.TopologySelectorTerm{
			{MatchLabelExpressions: []corev1.TopologySelectorLabelRequirement{{Key: corev1.LabelTopologyZone, Values: g.subset(Zones)}}},
		}},
	)
	for _, n := range g.o.Nodes {
		if g.chance(2) {
			count := int32(1 + g.IntN(6))
			g.o.CSINodes = append(g.o.CSINodes, &storagev1.CSINode{ObjectMeta: metav1.ObjectMeta{Name: n.Name}, Spec: storagev1.CSINodeSpec{Drivers: []storagev1.CSINodeDriver{
				{Name: Driver, NodeID: n.Name, Allocatable: &storagev1.VolumeNodeResources{Count: &count}},
			}}})
		}
	}
}

// term returns a pod affinity or anti-affinity term that selects one application.
func (g *gen) term() corev1.PodAffinityTerm {
	t := corev1.PodAffinityTerm{
		TopologyKey:   pick(g, corev1.LabelHostname, corev1.LabelTopologyZone, corev1.LabelHostname),
		LabelSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": pick(g, "app-0", "app-1", "app-2")}},
	}
	switch g.IntN(8) {
	case 0:
		t.Namespaces = []string{"blue", "green"}
	case 1:
		t.NamespaceSelector = &metav1.LabelSelector{MatchLabels: map[string]string{"tone": "g"}}
	case 2:
		t.NamespaceSelector = &metav1.LabelSelector{}
	}
	return t
}

// workload generates a Deployment with pending pods.
func (g *gen) workload(i int) {
	app, ns := fmt.Sprintf("app-%d", i), pick(g, "blue", "green")
	labels := map[string]string{"app": app}
	if g.chance(3) {
		labels["version"] = pick(g, "v1", "v2")
	}
	template := g.pod(ns, app, labels)
	gpus := 0
	if g.chance(10) {
		gpus = 1
	}
	template.Spec.Containers = []corev1.Container{container(int64(100*(1+g.IntN(30))), int64(128*(1+g.IntN(40))), gpus)}
	if g.chance(8) {
		init := container(int64(100*(1+g.IntN(40))), 64, 0)
		init.Name = "init"
		if g.chance(2) {
			always := corev1.ContainerRestartPolicyAlways
			init.RestartPolicy = &always
		}
		template.Spec.InitContainers = []corev1.Container{init}
	}
	if g.chance(12) {
		template.Spec.Overhead = corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("150m")}
	}
	if g.chance(12) {
		template.Spec.Resources = &corev1.ResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("3500m")}}
	}
	g.placement(&template.Spec)
	if !g.opt.Plain {
		g.topology(&template.Spec, app)
	}
	claims := ""
	if !g.opt.Plain && g.chance(8) {
		claims = pick(g, "any", "zoned", "bound")
	}
	yes := true
	owner := metav1.OwnerReference{APIVersion: "apps/v1", Kind: "ReplicaSet", Name: app, UID: g.uid(), Controller: &yes}
	for r := range 1 + g.IntN(g.opt.Replicas) {
		p := template.DeepCopy()
		p.Name, p.UID = fmt.Sprintf("%s-%d", app, r), g.uid()
		p.OwnerReferences = []metav1.OwnerReference{owner}
		if claims != "" {
			g.claim(p, claims)
		}
		g.o.Pods = append(g.o.Pods, p)
	}
}

// claim adds a volume claim to a pod: unbound, or bound to a volume in one zone.
func (g *gen) claim(p *corev1.Pod, class string) {
	name := "data-" + p.Name
	pvc := &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: p.Namespace, UID: g.uid()}}
	pvc.Status.Phase = corev1.ClaimPending
	pvc.Spec.AccessModes = []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce}
	if class == "bound" {
		vol := "pv-" + p.Name
		empty := "any"
		pvc.Spec.VolumeName, pvc.Spec.StorageClassName = vol, &empty
		pvc.Annotations = map[string]string{"pv.kubernetes.io/bind-completed": "yes"}
		pvc.Status.Phase = corev1.ClaimBound
		pv := &corev1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: vol, UID: g.uid()}}
		pv.Spec.StorageClassName = "any"
		pv.Spec.CSI = &corev1.CSIPersistentVolumeSource{Driver: Driver, VolumeHandle: vol}
		pv.Spec.ClaimRef = &corev1.ObjectReference{Namespace: p.Namespace, Name: name, UID: pvc.UID}
		pv.Spec.NodeAffinity = &corev1.VolumeNodeAffinity{Required: &corev1.NodeSelector{NodeSelectorTerms: []corev1.NodeSelectorTerm{
			{MatchExpressions: []corev1.NodeSelectorRequirement{{Key: corev1.LabelTopologyZone, Operator: corev1.NodeSelectorOpIn, Values: []string{pick(g, Zones...)}}}},
		}}}
		g.o.PVs = append(g.o.PVs, pv)
	} else {
		pvc.Spec.StorageClassName = &class
	}
	g.o.PVCs = append(g.o.PVCs, pvc)
	p.Spec.Volumes = append(p.Spec.Volumes, corev1.Volume{Name: "data", VolumeSource: corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: name}}})
}

// placement adds node selectors, affinity and tolerations.
func (g *gen) placement(s *corev1.PodSpec) {
	if g.chance(3) {
		s.Tolerations = append(s.Tolerations, pick(g,
			corev1.Toleration{Key: "dedicated", Operator: corev1.TolerationOpExists},
			corev1.Toleration{Key: "dedicated", Operator: corev1.TolerationOpEqual, Value: "a", Effect: corev1.TaintEffectNoSchedule},
			corev1.Toleration{Operator: corev1.TolerationOpExists},
		))
	}
	if g.chance(3) {
		s.NodeSelector = map[string]string{}
		switch g.IntN(5) {
		case 0:
			s.NodeSelector[corev1.LabelTopologyZone] = pick(g, Zones...)
		case 1:
			s.NodeSelector[karpv1.CapacityTypeLabelKey] = pick(g, karpv1.CapacityTypeOnDemand, karpv1.CapacityTypeSpot)
		case 2:
			s.NodeSelector[corev1.LabelArchStable] = pick(g, karpv1.ArchitectureAmd64, karpv1.ArchitectureArm64)
		case 3:
			s.NodeSelector["team"] = pick(g, "red", "yellow")
		case 4:
			s.NodeSelector["tier"] = pick(g, "gold", "silver")
		}
	}
	if g.chance(4) {
		a := &corev1.NodeAffinity{}
		if g.chance(2) {
			a.RequiredDuringSchedulingIgnoredDuringExecution = &corev1.NodeSelector{}
			for range 1 + g.IntN(2) {
				a.RequiredDuringSchedulingIgnoredDuringExecution.NodeSelectorTerms = append(a.RequiredDuringSchedulingIgnoredDuringExecution.NodeSelectorTerms, corev1.NodeSelectorTerm{MatchExpressions: g.expressions()})
			}
		}
		for range g.IntN(3) {
			a.PreferredDuringSchedulingIgnoredDuringExecution = append(a.PreferredDuringSchedulingIgnoredDuringExecution, corev1.PreferredSchedulingTerm{Weight: int32(1 + g.IntN(100)), Preference: corev1.NodeSelectorTerm{MatchExpressions: g.expressions()}})
		}
		s.Affinity = &corev1.Affinity{NodeAffinity: a}
	}
}

func (g *gen) expressions() []corev1.NodeSelectorRequirement {
	var out []corev1.NodeSelectorRequirement
	for range 1 + g.IntN(2) {
		switch g.IntN(6) {
		case 0:
			out = append(out, corev1.NodeSelectorRequirement{Key: corev1.LabelTopologyZone, Operator: pick(g, corev1.NodeSelectorOpIn, corev1.NodeSelectorOpNotIn), Values: g.subset(Zones)})
		case 1:
			out = append(out, corev1.NodeSelectorRequirement{Key: LabelCPU, Operator: pick(g, corev1.NodeSelectorOpGt, corev1.NodeSelectorOpLt), Values: []string{pick(g, "1", "3", "7")}})
		case 2:
			out = append(out, corev1.NodeSelectorRequirement{Key: "team", Operator: pick(g, corev1.NodeSelectorOpExists, corev1.NodeSelectorOpDoesNotExist)})
		case 3:
			out = append(out, corev1.NodeSelectorRequirement{Key: "tier", Operator: pick(g, corev1.NodeSelectorOpIn, corev1.NodeSelectorOpNotIn), Values: g.subset([]string{"gold", "silver"})})
		case 4:
			out = append(out, corev1.NodeSelectorRequirement{Key: karpv1.CapacityTypeLabelKey, Operator: corev1.NodeSelectorOpIn, Values: []string{pick(g, karpv1.CapacityTypeOnDemand, karpv1.CapacityTypeSpot)}})
		case 5:
			out = append(out, corev1.NodeSelectorRequirement{Key: corev1.LabelArchStable, Operator: corev1.NodeSelectorOpIn, Values: []string{karpv1.ArchitectureAmd64}})
		}
	}
	return out
}

// topology adds spread, pod affinity and host ports.
func (g *gen) topology(s *corev1.PodSpec, app string) {
	if g.chance(3) {
		for _, key := range g.subset([]string{corev1.LabelTopologyZone, corev1.LabelHostname, karpv1.CapacityTypeLabelKey})[:1] {
			c := corev1.TopologySpreadConstraint{
				MaxSkew: int32(1 + g.IntN(2)), TopologyKey: key, WhenUnsatisfiable: pick(g, corev1.DoNotSchedule, corev1.DoNotSchedule, corev1.ScheduleAnyway),
				LabelSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": app}},
			}
			if c.WhenUnsatisfiable == corev1.DoNotSchedule && key == corev1.LabelTopologyZone && g.chance(4) {
				n := int32(1 + g.IntN(3))
				c.MinDomains = &n
			}
			if g.chance(4) {
				p := pick(g, corev1.NodeInclusionPolicyHonor, corev1.NodeInclusionPolicyIgnore)
				c.NodeTaintsPolicy = &p
			}
			s.TopologySpreadConstraints = append(s.TopologySpreadConstraints, c)
		}
	}
	if g.chance(5) {
		t := g.term()
		if g.chance(2) {
			t.LabelSelector.MatchLabels["app"] = app
			t.Namespaces, t.NamespaceSelector = nil, nil
		}
		if s.Affinity == nil {
			s.Affinity = &corev1.Affinity{}
		}
		soft := corev1.WeightedPodAffinityTerm{Weight: int32(1 + g.IntN(100)), PodAffinityTerm: t}
		switch g.IntN(5) {
		case 0:
			s.Affinity.PodAffinity = &corev1.PodAffinity{RequiredDuringSchedulingIgnoredDuringExecution: []corev1.PodAffinityTerm{t}}
		case 1, 2:
			s.Affinity.PodAntiAffinity = &corev1.PodAntiAffinity{RequiredDuringSchedulingIgnoredDuringExecution: []corev1.PodAffinityTerm{t}}
		case 3:
			s.Affinity.PodAffinity = &corev1.PodAffinity{PreferredDuringSchedulingIgnoredDuringExecution: []corev1.WeightedPodAffinityTerm{soft}}
		case 4:
			s.Affinity.PodAntiAffinity = &corev1.PodAntiAffinity{PreferredDuringSchedulingIgnoredDuringExecution: []corev1.WeightedPodAffinityTerm{soft}}
		}
	}
	if g.chance(10) {
		s.Containers[0].Ports = []corev1.ContainerPort{{ContainerPort: 80, HostPort: pick(g, int32(8080), 9090), Protocol: corev1.ProtocolTCP}}
	}
}
