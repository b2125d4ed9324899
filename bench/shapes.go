// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/csv"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	karpv1 "sigs.k8s.io/karpenter/pkg/apis/v1"
	"sigs.k8s.io/karpenter/pkg/cloudprovider"
	"sigs.k8s.io/karpenter/pkg/cloudprovider/fake"

	"github.com/nap-aks/nap/apis/v1beta1"
	"github.com/nap-aks/nap/azure/instancetype"
	"github.com/nap-aks/nap/catalog"
	"github.com/nap-aks/nap/snapshot"
	"github.com/nap-aks/nap/test/clustergen"
)

// shape is a cluster to measure on.
type shape struct {
	name   string
	what   string
	large  bool   // Karpenter takes minutes
	absent string // why it cannot be measured
	make   func() (*snapshot.Objects, error)
}

func shapes(trace string) []*shape {
	var out []*shape
	for _, n := range []int{1000, 5000, 10000, 20000} {
		out = append(out, &shape{
			name: fmt.Sprintf("mixed-%dk", n/1000), large: n > 5000,
			what: fmt.Sprintf("Karpenter's own mixed benchmark: %d pods, a fifth each plain, spread over zones, spread over hostnames, with affinity to a zone and with anti-affinity over hostnames; 400 instance types", n),
			make: func() (*snapshot.Objects, error) { return mixed(n), nil },
		})
	}
	out = append(out,
		&shape{name: "deployments-100k", large: true, what: "100,000 pods in 500 Deployments, all amd64 sizes of eastus, 3 zones, spot and on-demand", make: deployments},
		&shape{name: "starvation", what: "2,170 pending pods, most of them GPU pods that nothing can satisfy, on 1,060 nodes in 20 NodePools", make: starvation},
		&shape{name: "ten-on-5000", what: "10 pending pods on 5,000 nodes with 100,000 pods", make: tenPods},
	)
	for _, t := range []struct {
		name, what string
		families   []string
		gpus       bool
	}{
		{"openb-cpu-D", "the CPU-only tasks of the openb trace, all pending at once, on the D family (NAP's default NodePool), on-demand prices of eastus", []string{"D"}, false},
		{"openb-cpu-DEF", "the same on the D, E and F families", []string{"D", "E", "F"}, false},
		{"openb-cpu-all", "the same on all amd64 sizes without GPUs", nil, false},
		{"openb-gpu-all", "all tasks of the openb trace, a share of a GPU counted as a whole one, on all amd64 sizes", nil, true},
	} {
		s := &shape{name: t.name, what: t.what, large: t.gpus, make: func() (*snapshot.Objects, error) { return openb(trace, t.families, t.gpus) }}
		if trace == "" {
			s.absent = "needs the openb trace: give its directory with -trace"
		} else if _, err := os.Stat(filepath.Join(trace, traceFile)); errors.Is(err, fs.ErrNotExist) {
			s.absent = "no " + traceFile + " in " + trace
		}
		out = append(out, s)
	}
	const later = "the engine has no consolidation yet"
	return append(out,
		&shape{name: "consolidate-5000", what: "5,000 nodes with 100,000 pods after a scale-in by 40%", absent: later},
		&shape{name: "consolidate-700", what: "700 nodes in 20 NodePools with disruption budgets and spreads", absent: later},
	)
}

var now = time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)

// maker builds a cluster.
type maker struct {
	*rand.Rand
	o   *snapshot.Objects
	uid int
}

func newMaker(seed uint64) *maker {
	return &maker{Rand: rand.New(rand.NewPCG(seed, 42)), o: &snapshot.Objects{Now: now, InstanceTypes: map[string][]*cloudprovider.InstanceType{}}}
}

func (m *maker) pool(np *karpv1.NodePool, types []*cloudprovider.InstanceType) *karpv1.NodePool {
	m.o.NodePools = append(m.o.NodePools, np)
	m.o.InstanceTypes[np.Name] = types
	return np
}

func require(np *karpv1.NodePool, key string, op corev1.NodeSelectorOperator, values ...string) {
	np.Spec.Template.Spec.Requirements = append(np.Spec.Template.Spec.Requirements, karpv1.NodeSelectorRequirementWithMinValues{Key: key, Operator: op, Values: values})
}

func (m *maker) nextUID() types.UID {
	m.uid++
	return types.UID(fmt.Sprintf("00000000-0000-0000-0000-%012d", m.uid))
}

// pod adds a pending pod.
func (m *maker) pod(name string, labels map[string]string, milliCPU, mib int64) *corev1.Pod {
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "default", UID: m.nextUID(), Labels: labels, CreationTimestamp: metav1.NewTime(now.Add(-time.Minute))},
		Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "main", Resources: corev1.ResourceRequirements{Requests: corev1.ResourceList{
			corev1.ResourceCPU:    *resource.NewMilliQuantity(milliCPU, resource.DecimalSI),
			corev1.ResourceMemory: *resource.NewQuantity(mib<<20, resource.BinarySI),
		}}}}},
		Status: corev1.PodStatus{Phase: corev1.PodPending, Conditions: []corev1.PodCondition{{Type: corev1.PodScheduled, Status: corev1.ConditionFalse, Reason: corev1.PodReasonUnschedulable}}},
	}
	m.o.Pods = append(m.o.Pods, p)
	return p
}

func pick[T any](m *maker, list ...T) T { return list[m.IntN(len(list))] }

// mixed is Karpenter's benchmark of diverse pods: the same kinds of pods in the same
// proportions, with sizes and labels from the same lists.
func mixed(n int) *snapshot.Objects {
	m := newMaker(42)
	np := clustergen.NodePool("default")
	np.Spec.Limits = karpv1.Limits{corev1.ResourceCPU: resource.MustParse("10000000"), corev1.ResourceMemory: resource.MustParse("10000000Gi")}
	m.pool(np, fake.InstanceTypes(400))
	letters := []string{"a", "b", "c", "d", "e", "f", "g"}
	label := func(key string) map[string]string { return map[string]string{key: pick(m, letters...)} }
	next := func(labels map[string]string) *corev1.Pod {
		return m.pod(fmt.Sprintf("pod-%05d", len(m.o.Pods)), labels, pick[int64](m, 100, 250, 500, 1000, 1500), pick[int64](m, 100, 256, 512, 1024, 2048, 4096))
	}
	spread := func(key string) {
		p := next(label("my-label"))
		p.Spec.TopologySpreadConstraints = []corev1.TopologySpreadConstraint{{MaxSkew: 1, TopologyKey: key, WhenUnsatisfiable: corev1.DoNotSchedule, LabelSelector: &metav1.LabelSelector{MatchLabels: label("my-label")}}}
	}
	for range n / 5 {
		next(label("my-label"))
		spread(corev1.LabelTopologyZone)
		spread(corev1.LabelHostname)
		l := label("my-affinity")
		next(l).Spec.Affinity = &corev1.Affinity{PodAffinity: &corev1.PodAffinity{RequiredDuringSchedulingIgnoredDuringExecution: []corev1.PodAffinityTerm{{TopologyKey: corev1.LabelTopologyZone, LabelSelector: &metav1.LabelSelector{MatchLabels: l}}}}}
		nginx := map[string]string{"app": "nginx"}
		next(nginx).Spec.Affinity = &corev1.Affinity{PodAntiAffinity: &corev1.PodAntiAffinity{RequiredDuringSchedulingIgnoredDuringExecution: []corev1.PodAffinityTerm{{TopologyKey: corev1.LabelHostname, LabelSelector: &metav1.LabelSelector{MatchLabels: nginx}}}}}
	}
	return m.o
}

// azure returns the instance types of a region as the provider builds them.
func azure(region string) ([]*cloudprovider.InstanceType, error) {
	table, err := instancetype.NewTable(region, catalog.SKUs(region))
	if err != nil {
		return nil, err
	}
	prices := func(name string, spot bool) (float64, bool) {
		s, err := catalog.Lookup(region, name)
		if err != nil || !s.HasPrice {
			return 0, false
		}
		if spot {
			return s.SpotUSDPerHour, s.SpotUSDPerHour > 0
		}
		return s.OnDemandUSDPerHour, true
	}
	settings := instancetype.SettingsFor(&v1beta1.AKSNodeClass{}, instancetype.Cluster{
		NetworkPlugin: "azure", NetworkPluginMode: "overlay", NodeResourceGroup: "bench", VMMemoryOverheadPercent: instancetype.DefaultVMMemoryOverheadPercent,
	})
	return table.Build(settings, prices, nil), nil
}

// azurePool adds a NodePool with zonal amd64 sizes of the given families (none:
// all).
func (m *maker) azurePool(name string, types []*cloudprovider.InstanceType, families []string, capacity ...string) *karpv1.NodePool {
	np := clustergen.NodePool(name)
	require(np, corev1.LabelArchStable, corev1.NodeSelectorOpIn, karpv1.ArchitectureAmd64)
	require(np, v1beta1.LabelPlacementScope, corev1.NodeSelectorOpIn, v1beta1.PlacementZonal)
	require(np, karpv1.CapacityTypeLabelKey, corev1.NodeSelectorOpIn, capacity...)
	if len(families) > 0 {
		require(np, v1beta1.LabelSKUFamily, corev1.NodeSelectorOpIn, families...)
	}
	return m.pool(np, types)
}

func deployments() (*snapshot.Objects, error) {
	m := newMaker(7)
	its, err := azure("eastus")
	if err != nil {
		return nil, err
	}
	m.azurePool("default", its, nil, karpv1.CapacityTypeOnDemand, karpv1.CapacityTypeSpot)
	yes := true
	for d := range 500 {
		name := fmt.Sprintf("app-%03d", d)
		owner := []metav1.OwnerReference{{APIVersion: "apps/v1", Kind: "ReplicaSet", Name: name, UID: m.nextUID(), Controller: &yes}}
		labels := map[string]string{"app": name}
		cpu, mib := pick[int64](m, 50, 100, 250, 500, 1000, 2000, 4000), int64(0)
		mib = cpu * pick[int64](m, 1, 2, 4, 8) * 1024 / 1000
		zones := d%3 == 0
		onDemand := d%4 == 1
		for i := range 200 {
			p := m.pod(fmt.Sprintf("%s-%03d", name, i), labels, cpu, max(mib, 64))
			p.OwnerReferences = owner
			if zones {
				p.Spec.TopologySpreadConstraints = []corev1.TopologySpreadConstraint{{MaxSkew: 1, TopologyKey: corev1.LabelTopologyZone, WhenUnsatisfiable: corev1.DoNotSchedule, LabelSelector: &metav1.LabelSelector{MatchLabels: labels}}}
			}
			if onDemand {
				p.Spec.NodeSelector = map[string]string{karpv1.CapacityTypeLabelKey: karpv1.CapacityTypeOnDemand}
			}
		}
	}
	return m.o, nil
}

// node adds an initialized node of a pool, with its NodeClaim.
func (m *maker) node(name string, np *karpv1.NodePool, it *cloudprovider.InstanceType, zone, capacityType string) *corev1.Node {
	labels := map[string]string{}
	for key, r := range it.Requirements {
		if r.Operator() == corev1.NodeSelectorOpIn && r.Len() == 1 {
			labels[key] = r.Values()[0]
		}
	}
	for k, v := range np.Spec.Template.Labels {
		labels[k] = v
	}
	labels[corev1.LabelHostname], labels[corev1.LabelTopologyZone], labels[karpv1.CapacityTypeLabelKey] = name, zone, capacityType
	labels[karpv1.NodePoolLabelKey], labels[karpv1.NodeRegisteredLabelKey], labels[karpv1.NodeInitializedLabelKey] = np.Name, "true", "true"
	n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, UID: m.nextUID(), Labels: labels}, Spec: corev1.NodeSpec{ProviderID: "bench://" + name, Taints: np.Spec.Template.Spec.Taints}}
	n.Status.Capacity, n.Status.Allocatable = it.Capacity, it.Allocatable()
	nc := &karpv1.NodeClaim{ObjectMeta: metav1.ObjectMeta{Name: "claim-" + name, UID: m.nextUID(), Labels: labels}}
	nc.Spec.NodeClassRef = np.Spec.Template.Spec.NodeClassRef
	nc.Spec.Taints = np.Spec.Template.Spec.Taints
	nc.Status.ProviderID, nc.Status.Capacity, nc.Status.Allocatable = n.Spec.ProviderID, it.Capacity, it.Allocatable()
	m.o.Nodes = append(m.o.Nodes, n)
	m.o.NodeClaims = append(m.o.NodeClaims, nc)
	return n
}

func (m *maker) run(p *corev1.Pod, node string) {
	p.Spec.NodeName = node
	p.Status = corev1.PodStatus{Phase: corev1.PodRunning}
}

func find(types []*cloudprovider.InstanceType, name string) (*cloudprovider.InstanceType, error) {
	for _, it := range types {
		if it.Name == name {
			return it, nil
		}
	}
	return nil, fmt.Errorf("the catalogue has no size %s", name)
}

func starvation() (*snapshot.Objects, error) {
	m := newMaker(11)
	its, err := azure("eastus")
	if err != nil {
		return nil, err
	}
	it, err := find(its, "Standard_D8s_v5")
	if err != nil {
		return nil, err
	}
	var pools []*karpv1.NodePool
	for i := range 20 {
		np := m.azurePool(fmt.Sprintf("team-%02d", i), its, []string{"D", "E"}, karpv1.CapacityTypeOnDemand)
		np.Spec.Template.Labels = map[string]string{"team": fmt.Sprint(i)}
		if i%2 == 0 {
			np.Spec.Template.Spec.Taints = []corev1.Taint{{Key: "team", Value: fmt.Sprint(i), Effect: corev1.TaintEffectNoSchedule}}
		}
		pools = append(pools, np)
	}
	for i := range 1060 {
		np := pools[i%len(pools)]
		n := m.node(fmt.Sprintf("node-%04d", i), np, it, fmt.Sprintf("eastus-%d", 1+i%3), karpv1.CapacityTypeOnDemand)
		for j := range 7 {
			m.run(m.pod(fmt.Sprintf("run-%04d-%d", i, j), map[string]string{"app": fmt.Sprint("old-", i%40)}, 1000, 2048), n.Name)
		}
	}
	gpu := resource.MustParse("1")
	for i := range 1900 { // request GPUs that no pool has
		p := m.pod(fmt.Sprintf("gpu-%04d", i), map[string]string{"app": fmt.Sprint("train-", i%25)}, 4000, 16384)
		p.Spec.Containers[0].Resources.Requests["nvidia.com/gpu"] = gpu
		p.Spec.NodeSelector = map[string]string{"team": fmt.Sprint(i % 20)}
	}
	for i := range 270 { // small pods that can be placed
		p := m.pod(fmt.Sprintf("light-%03d", i), map[string]string{"app": fmt.Sprint("web-", i%15)}, 300, 512)
		p.Spec.NodeSelector = map[string]string{"team": fmt.Sprint(i % 20)}
		p.Spec.Tolerations = []corev1.Toleration{{Key: "team", Operator: corev1.TolerationOpExists}}
	}
	return m.o, nil
}

func tenPods() (*snapshot.Objects, error) {
	m := newMaker(13)
	its, err := azure("eastus")
	if err != nil {
		return nil, err
	}
	it, err := find(its, "Standard_D16s_v5")
	if err != nil {
		return nil, err
	}
	np := m.azurePool("default", its, []string{"D"}, karpv1.CapacityTypeOnDemand)
	for i := range 5000 {
		n := m.node(fmt.Sprintf("node-%04d", i), np, it, fmt.Sprintf("eastus-%d", 1+i%3), karpv1.CapacityTypeOnDemand)
		on := 20
		if i%250 == 0 {
			on = 12 // a few nodes have room for some of them
		}
		for j := range on {
			app := fmt.Sprint("app-", (i*7+j)%200)
			p := m.pod(fmt.Sprintf("run-%04d-%02d", i, j), map[string]string{"app": app}, 770, 2048)
			m.run(p, n.Name)
		}
	}
	for i := range 10 {
		m.pod(fmt.Sprintf("new-%d", i), map[string]string{"app": "new"}, 2000, 4096)
	}
	return m.o, nil
}

const traceFile = "openb_pod_list_default.csv"

// openb returns the tasks of the trace as pending pods: those without GPUs, or all,
// with whole GPUs.
func openb(dir string, families []string, gpus bool) (*snapshot.Objects, error) {
	m := newMaker(17)
	its, err := azure("eastus")
	if err != nil {
		return nil, err
	}
	kept := its[:0:0]
	for _, it := range its {
		g := it.Capacity["nvidia.com/gpu"]
		a := it.Capacity["amd.com/gpu"]
		if gpus || g.IsZero() && a.IsZero() {
			kept = append(kept, it)
		}
	}
	m.azurePool("default", kept, families, karpv1.CapacityTypeOnDemand)
	file, err := os.Open(filepath.Join(dir, traceFile))
	if err != nil {
		return nil, fmt.Errorf("opening the trace: %w", err)
	}
	defer file.Close()
	records, err := csv.NewReader(file).ReadAll()
	if err != nil {
		return nil, fmt.Errorf("reading the trace: %w", err)
	}
	at := map[string]int{}
	for i, name := range records[0] {
		at[name] = i
	}
	number := func(rec []string, col string) (int64, error) {
		v, err := strconv.ParseInt(rec[at[col]], 10, 64)
		if err != nil {
			return 0, fmt.Errorf("trace column %s: %q is not a number", col, rec[at[col]])
		}
		return v, nil
	}
	for _, rec := range records[1:] {
		cpu, err := number(rec, "cpu_milli")
		if err != nil {
			return nil, err
		}
		mib, err := number(rec, "memory_mib")
		if err != nil {
			return nil, err
		}
		n, err := number(rec, "num_gpu")
		if err != nil {
			return nil, err
		}
		if n > 0 && !gpus {
			continue
		}
		p := m.pod(rec[at["name"]], nil, cpu, mib)
		if n > 0 {
			p.Spec.Containers[0].Resources.Requests["nvidia.com/gpu"] = *resource.NewQuantity(n, resource.DecimalSI)
		}
	}
	return m.o, nil
}
