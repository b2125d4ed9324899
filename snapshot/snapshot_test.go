package snapshot_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"sort"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	karpv1 "sigs.k8s.io/karpenter/pkg/apis/v1"
	"sigs.k8s.io/karpenter/pkg/cloudprovider"

	"github.com/nap-aks/nap/engine"
	"github.com/nap-aks/nap/snapshot"
	"github.com/nap-aks/nap/test/clustergen"
)

// canonical rewrites a snapshot so that two that mean the same are equal:
// classes in the order of their content, unused ones dropped.
func canonical(t *testing.T, s *engine.Snapshot) string {
	t.Helper()
	// Labels that only selectors of classes long gone have looked at do not matter.
	looked := map[string]bool{}
	look := func(sel *engine.Selector) {
		for _, r := range sel.Requirements {
			looked[r.Key] = true
		}
	}
	each := func(id engine.ClassID) {
		c := s.Classes[id]
		for _, x := range c.Spread {
			look(x.Selector)
		}
		for _, x := range append(slices.Clone(c.PodAffinity), c.PodAntiAffinity...) {
			look(x.Selector)
		}
	}
	for _, g := range s.Pending {
		each(g.Class)
	}
	for _, n := range s.Nodes {
		for _, g := range n.Pods {
			each(g.Class)
		}
	}
	name := func(id engine.ClassID) string {
		c := s.Classes[id]
		c.Name = ""
		labels := map[string]string{}
		for k, v := range c.Labels {
			if looked[k] {
				labels[k] = v
			}
		}
		c.Labels = labels
		b, err := json.Marshal(c)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	groups := func(list []engine.PodGroup) []string {
		var out []string
		for _, g := range list {
			for _, p := range g.Pods {
				out = append(out, p+" "+name(g.Class))
			}
		}
		sort.Strings(out)
		return out
	}
	var nodes []any
	for _, n := range s.Nodes {
		pods := groups(n.Pods)
		var missing []string
		for _, d := range n.MissingDaemons {
			missing = append(missing, name(d))
		}
		n.Pods, n.MissingDaemons = nil, nil
		n.Taints = slices.Clone(n.Taints)
		nodes = append(nodes, []any{n, pods, missing})
	}
	var daemons []string
	for _, d := range s.Daemons {
		daemons = append(daemons, name(d))
	}
	b, err := json.MarshalIndent([]any{s.Time, groups(s.Pending), daemons, nodes, s.Pools, s.Catalogues, s.Quotas}, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func build(t *testing.T, o *snapshot.Objects) *snapshot.Input {
	t.Helper()
	in, err := snapshot.Build(o)
	if err != nil {
		t.Fatal(err)
	}
	return in
}

func diff(t *testing.T, what, a, b string) {
	t.Helper()
	if a == b {
		return
	}
	la, lb := bytes.Split([]byte(a), []byte("\n")), bytes.Split([]byte(b), []byte("\n"))
	for i := range la {
		if i >= len(lb) || !bytes.Equal(la[i], lb[i]) {
			other := ""
			if i < len(lb) {
				other = string(lb[i])
			}
			t.Fatalf("%s: line %d differs:\n  %s\n  %s", what, i, la[i], other)
		}
	}
	t.Fatalf("%s: the second is longer", what)
}

func TestFileRoundTripKeepsEveryDecision(t *testing.T) {
	for seed := range uint64(60) {
		o := clustergen.Generate(seed, clustergen.Options{})
		o.Assumed = map[string]string{}
		o.Quotas = quotas(int64(seed))
		var b bytes.Buffer
		if err := snapshot.Write(&b, o); err != nil {
			t.Fatal(err)
		}
		back, err := snapshot.Read(bytes.NewReader(b.Bytes()))
		if err != nil {
			t.Fatal(err)
		}
		diff(t, fmt.Sprintf("seed %d", seed), canonical(t, build(t, o).Snapshot), canonical(t, build(t, back).Snapshot))
		var again bytes.Buffer
		if err := snapshot.Write(&again, back); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(b.Bytes(), again.Bytes()) {
			t.Fatalf("seed %d: writing what was read gives another file", seed)
		}
	}
}

func TestReadRefusesWhatItDoesNotKnow(t *testing.T) {
	for name, text := range map[string]string{
		"not JSON": "hello", "another kind": `{"kind":"List","version":1}`, "a later version": `{"kind":"nap-snapshot","version":99}`,
		"a list that is not there": `{"kind":"nap-snapshot","version":1,"instanceTypesOf":{"p":3}}`,
	} {
		if _, err := snapshot.Read(bytes.NewReader([]byte(text))); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

// TestEventsInAnyOrderGiveTheSameInput feeds the objects of a cluster in random
// order, with detours (objects that come, change and go), and compares with the
// same cluster built at once.
func TestEventsInAnyOrderGiveTheSameInput(t *testing.T) {
	for seed := range uint64(60) {
		o := clustergen.Generate(seed, clustergen.Options{})
		want := canonical(t, build(t, o).Snapshot)
		r := rand.New(rand.NewPCG(seed, 1))
		c := snapshot.NewCache(o.Settings)
		var events []func() error
		o.Each(func(obj client.Object) { events = append(events, func() error { return c.Upsert(obj) }) })
		for pool, list := range o.InstanceTypes {
			events = append(events, func() error { c.SetInstanceTypes(pool, list); return nil })
		}
		events = append(events, func() error { c.SetMarked(o.Marked); return nil })
		other := clustergen.Generate(seed+1000, clustergen.Options{})
		r.Shuffle(len(events), func(i, j int) { events[i], events[j] = events[j], events[i] })
		detours := other.Pods
		for i, e := range events {
			if i < len(detours) { // a pod of another life under a name that may come up again
				if err := c.Upsert(detours[i]); err != nil {
					t.Fatal(err)
				}
				if i%5 == 0 {
					if _, err := c.Snapshot(o.Now); err != nil {
						t.Fatal(err)
					}
				}
				if err := c.Delete(detours[i]); err != nil {
					t.Fatal(err)
				}
			}
			if err := e(); err != nil {
				t.Fatal(err)
			}
		}
		// The detours may have removed pods of the same name.
		for _, p := range o.Pods {
			if err := c.Upsert(p); err != nil {
				t.Fatal(err)
			}
		}
		in, err := c.Snapshot(o.Now)
		if err != nil {
			t.Fatal(err)
		}
		diff(t, fmt.Sprintf("seed %d", seed), want, canonical(t, in.Snapshot))
		// And again without a change.
		in, err = c.Snapshot(o.Now)
		if err != nil {
			t.Fatal(err)
		}
		diff(t, fmt.Sprintf("seed %d, second time", seed), want, canonical(t, in.Snapshot))
	}
}

// TestWarmPlansAreThoseOfAColdStart changes a cluster step by step and compares
// the plan from the compiled cluster with one compiled anew.
func TestWarmPlansAreThoseOfAColdStart(t *testing.T) {
	for seed := range uint64(60) {
		o := clustergen.Generate(seed, clustergen.Options{})
		r := rand.New(rand.NewPCG(seed, 3))
		c, err := snapshot.Load(o)
		if err != nil {
			t.Fatal(err)
		}
		for step := range 6 {
			in, err := c.Snapshot(o.Now)
			if err != nil {
				t.Fatal(err)
			}
			warm, err := c.Place(in, in.Options)
			if err != nil {
				t.Fatalf("seed %d, step %d: %v", seed, step, err)
			}
			cold, err := engine.Place(in.Snapshot, in.Options)
			if err != nil {
				t.Fatalf("seed %d, step %d: %v", seed, step, err)
			}
			w, _ := json.MarshalIndent(warm, "", " ")
			k, _ := json.MarshalIndent(cold, "", " ")
			diff(t, fmt.Sprintf("seed %d, step %d", seed, step), string(k), string(w))
			if err := change(r, c, o, warm); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// change lets something happen in the cluster.
func change(r *rand.Rand, c *snapshot.Cache, o *snapshot.Objects, plan *engine.Plan) error {
	pods := map[string]*corev1.Pod{}
	for _, p := range o.Pods {
		pods[snapshot.PodKey(p)] = p
	}
	switch r.IntN(8) {
	case 6, 7: // the second time only an amount changes
		c.SetQuotas(quotas(int64(r.IntN(40))))
	case 0: // what was placed on nodes is bound
		for _, pl := range plan.Placements {
			for _, g := range pl.Pods {
				for _, k := range g.Pods {
					if pods[k] == nil {
						continue
					}
					p := pods[k].DeepCopy()
					p.Spec.NodeName, p.Status = pl.Node, corev1.PodStatus{Phase: corev1.PodRunning}
					if err := c.Upsert(p); err != nil {
						return err
					}
				}
			}
		}
	case 1:
		if len(o.Nodes) > 0 {
			return c.Delete(o.Nodes[r.IntN(len(o.Nodes))])
		}
	case 2:
		other := clustergen.Generate(r.Uint64(), clustergen.Options{})
		for _, p := range other.Pods {
			if p.Spec.NodeName == "" && len(p.Spec.Volumes) == 0 {
				p.Name = "more-" + p.Name
				if err := c.Upsert(p); err != nil {
					return err
				}
			}
		}
	case 3:
		np := o.NodePools[r.IntN(len(o.NodePools))].DeepCopy()
		np.Spec.Limits = karpv1.Limits{corev1.ResourceCPU: *resource.NewQuantity(int64(r.IntN(50)), resource.DecimalSI)}
		return c.Upsert(np)
	case 4:
		for _, n := range o.Nodes {
			if r.IntN(2) == 0 {
				c.SetMarked([]string{n.Spec.ProviderID})
			}
		}
	case 5:
		for _, p := range o.Pods {
			if r.IntN(4) == 0 {
				if err := c.Delete(p); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// quotas are those of two families, of which some is used.
func quotas(used int64) []snapshot.Quota {
	return []snapshot.Quota{
		{Name: "small", Title: "small sizes", Used: used, Limit: 48, CapacityTypes: []string{karpv1.CapacityTypeOnDemand}, Charges: map[string]int64{"m1-2-amd64": 1, "m2-4-amd64": 2, "m4-4-amd64": 4}},
		{Name: "spot", Used: used / 2, Limit: 32, CapacityTypes: []string{karpv1.CapacityTypeSpot}, Charges: map[string]int64{"m8-4-amd64": 8, "m16-4-amd64": 16}},
	}
}

func TestQuotasAreChargedWithMachinesInFlight(t *testing.T) {
	o := base()
	o.InstanceTypes["default"] = append(o.InstanceTypes["default"], clustergen.InstanceType("m8", 8, 32, 0, "amd64", clustergen.Zones, 0.4, 0))
	o.Quotas = []snapshot.Quota{
		{Name: "d", Used: 10, Limit: 30, CapacityTypes: []string{karpv1.CapacityTypeOnDemand}, Charges: map[string]int64{"m4": 4, "m8": 8}},
		{Name: "spot", Used: 1, Limit: 9, CapacityTypes: []string{karpv1.CapacityTypeSpot}, Charges: map[string]int64{"m4": 4}},
	}
	claim := func(name, capacityType, providerID string, types ...string) *karpv1.NodeClaim {
		nc := &karpv1.NodeClaim{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{karpv1.NodePoolLabelKey: "default"}}}
		nc.Status.ProviderID = providerID
		nc.Spec.Requirements = []karpv1.NodeSelectorRequirementWithMinValues{
			{Key: corev1.LabelInstanceTypeStable, Operator: corev1.NodeSelectorOpIn, Values: types},
			{Key: karpv1.CapacityTypeLabelKey, Operator: corev1.NodeSelectorOpIn, Values: []string{capacityType}},
		}
		return nc
	}
	o.NodeClaims = []*karpv1.NodeClaim{
		claim("decided", "on-demand", "", "m8"),          // 8 of d
		claim("either", "on-demand", "", "m8", "m4"),     // the cheaper comes first: 4 of d
		claim("spot", "spot", "", "m4"),                  // 4 of spot
		claim("launched", "on-demand", "test://x", "m8"), // the cloud counts it
	}
	s := build(t, o).Snapshot
	var left []int64
	for _, q := range s.Quotas {
		left = append(left, q.Remaining)
	}
	if want := []int64{30 - 10 - 8 - 4, 9 - 1 - 4}; !slices.Equal(left, want) {
		t.Errorf("%v is left of the quotas, want %v", left, want)
	}
	for _, it := range s.Catalogues[0].InstanceTypes {
		for _, of := range it.Offerings {
			want := []engine.QuotaCharge{{Quota: 0, Amount: map[string]int64{"m4": 4, "m8": 8}[it.Name]}}
			if of.CapacityType == karpv1.CapacityTypeSpot {
				want = []engine.QuotaCharge{{Quota: 1, Amount: 4}}
			}
			if !slices.Equal(of.Charges, want) {
				t.Errorf("%s/%s is charged %v, want %v", it.Name, of.CapacityType, of.Charges, want)
			}
		}
	}
}

func base() *snapshot.Objects {
	o := &snapshot.Objects{Now: time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)}
	np := clustergen.NodePool("default")
	o.NodePools = append(o.NodePools, np)
	o.InstanceTypes = map[string][]*cloudprovider.InstanceType{"default": {clustergen.InstanceType("m4", 4, 16, 0, "amd64", clustergen.Zones, 0.2, 0.05)}}
	return o
}

func pod(name string, mutate ...func(*corev1.Pod)) *corev1.Pod {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "default", Labels: map[string]string{"app": "web"}}}
	p.Spec.Containers = []corev1.Container{{Name: "main", Resources: corev1.ResourceRequirements{Requests: corev1.ResourceList{
		corev1.ResourceCPU: resource.MustParse("250m"), corev1.ResourceMemory: resource.MustParse("1Gi"),
	}}}}
	p.Status.Phase = corev1.PodPending
	p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodScheduled, Status: corev1.ConditionFalse, Reason: corev1.PodReasonUnschedulable}}
	for _, m := range mutate {
		m(p)
	}
	return p
}

func only(t *testing.T, p *corev1.Pod, extra ...client.Object) engine.PodClass {
	t.Helper()
	o := base()
	o.Pods = append(o.Pods, p)
	for _, e := range extra {
		if !o.Add(e) {
			t.Fatalf("%T is not known", e)
		}
	}
	in := build(t, o)
	if err := in.Invalid[snapshot.PodKey(p)]; err != nil {
		t.Fatalf("the pod is invalid: %v", err)
	}
	if len(in.Snapshot.Pending) != 1 {
		t.Fatalf("%d groups", len(in.Snapshot.Pending))
	}
	return in.Snapshot.Classes[in.Snapshot.Pending[0].Class]
}

func TestWhatAPodAsksIsTranslated(t *testing.T) {
	always := corev1.ContainerRestartPolicyAlways
	honor := corev1.NodeInclusionPolicyHonor
	three := int32(3)
	prio := int32(7)
	wait := storagev1.VolumeBindingWaitForFirstConsumer
	in := func(k string, v ...string) engine.Requirement {
		return engine.Requirement{Key: k, Operator: engine.In, Values: v}
	}
	sel := &metav1.LabelSelector{MatchLabels: map[string]string{"app": "web"}}
	for name, c := range map[string]struct {
		pod   func(*corev1.Pod)
		extra []client.Object
		want  func(*engine.PodClass)
	}{
		"nothing":  {func(*corev1.Pod) {}, nil, func(*engine.PodClass) {}},
		"priority": {func(p *corev1.Pod) { p.Spec.Priority = &prio }, nil, func(c *engine.PodClass) { c.Priority = 7 }},
		"init containers and sidecars": {func(p *corev1.Pod) {
			p.Spec.InitContainers = []corev1.Container{
				{Name: "s", RestartPolicy: &always, Resources: corev1.ResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("100m")}}},
				{Name: "i", Resources: corev1.ResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("2")}}},
			}
		}, nil, func(c *engine.PodClass) { c.Requests["cpu"] = 2100 }},
		"pod-level resources": {func(p *corev1.Pod) {
			p.Spec.Resources = &corev1.ResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("3")}}
		}, nil, func(c *engine.PodClass) { c.Requests["cpu"] = 3000 }},
		"overhead and extended resources": {func(p *corev1.Pod) {
			p.Spec.Overhead = corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("1Gi")}
			p.Spec.Containers[0].Resources.Requests["nvidia.com/gpu"] = resource.MustParse("2")
		}, nil, func(c *engine.PodClass) { c.Requests["memory"] = 2 << 30; c.Requests["nvidia.com/gpu"] = 2 }},
		"node selector by an old name": {func(p *corev1.Pod) {
			p.Spec.NodeSelector = map[string]string{"failure-domain.beta.kubernetes.io/zone": "z1", "disk": "ssd"}
		}, nil, func(c *engine.PodClass) {
			c.NodeSelector = []engine.Requirement{in("disk", "ssd"), in(engine.LabelZone, "z1")}
		}},
		"node affinity": {func(p *corev1.Pod) {
			p.Spec.Affinity = &corev1.Affinity{NodeAffinity: &corev1.NodeAffinity{
				RequiredDuringSchedulingIgnoredDuringExecution: &corev1.NodeSelector{NodeSelectorTerms: []corev1.NodeSelectorTerm{
					{MatchExpressions: []corev1.NodeSelectorRequirement{{Key: "a", Operator: corev1.NodeSelectorOpGt, Values: []string{"3"}}, {Key: "b", Operator: corev1.NodeSelectorOpExists}}},
					{MatchExpressions: []corev1.NodeSelectorRequirement{{Key: "c", Operator: corev1.NodeSelectorOpNotIn, Values: []string{"x"}}}},
				}},
				PreferredDuringSchedulingIgnoredDuringExecution: []corev1.PreferredSchedulingTerm{{Weight: 9, Preference: corev1.NodeSelectorTerm{MatchExpressions: []corev1.NodeSelectorRequirement{{Key: "d", Operator: corev1.NodeSelectorOpDoesNotExist}}}}},
			}}
		}, nil, func(c *engine.PodClass) {
			c.NodeAffinity = [][]engine.Requirement{
				{{Key: "a", Operator: engine.Gt, Values: []string{"3"}}, {Key: "b", Operator: engine.Exists}},
				{{Key: "c", Operator: engine.NotIn, Values: []string{"x"}}},
			}
			c.PreferredNodeAffinity = []engine.PreferredTerm{{Weight: 9, Requirements: []engine.Requirement{{Key: "d", Operator: engine.DoesNotExist}}}}
		}},
		"tolerations": {func(p *corev1.Pod) {
			p.Spec.Tolerations = []corev1.Toleration{{Key: "k", Operator: corev1.TolerationOpEqual, Value: "v", Effect: corev1.TaintEffectNoExecute}}
		}, nil, func(c *engine.PodClass) {
			c.Tolerations = []engine.Toleration{{Key: "k", Operator: "Equal", Value: "v", Effect: engine.NoExecute}}
		}},
		"spread": {func(p *corev1.Pod) {
			p.Labels["rev"] = "5"
			p.Spec.TopologySpreadConstraints = []corev1.TopologySpreadConstraint{{
				MaxSkew: 2, TopologyKey: corev1.LabelTopologyZone, WhenUnsatisfiable: corev1.ScheduleAnyway, LabelSelector: sel, MinDomains: &three,
				MatchLabelKeys: []string{"rev", "absent"}, NodeTaintsPolicy: &honor,
			}}
		}, nil, func(c *engine.PodClass) {
			c.Labels = map[string]string{"app": "web", "rev": "5"}
			c.Spread = []engine.SpreadConstraint{{Key: engine.LabelZone, MaxSkew: 2, MinDomains: 3, Soft: true, NodeTaintsPolicy: engine.Honor,
				Selector: &engine.Selector{Requirements: []engine.Requirement{in("app", "web"), in("rev", "5")}}}}
		}},
		"pod affinity": {func(p *corev1.Pod) {
			p.Spec.Affinity = &corev1.Affinity{
				PodAffinity: &corev1.PodAffinity{RequiredDuringSchedulingIgnoredDuringExecution: []corev1.PodAffinityTerm{
					{TopologyKey: "rack", LabelSelector: sel, NamespaceSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"tone": "dark"}}, Namespaces: []string{"zzz"}}}},
				PodAntiAffinity: &corev1.PodAntiAffinity{PreferredDuringSchedulingIgnoredDuringExecution: []corev1.WeightedPodAffinityTerm{
					{Weight: 4, PodAffinityTerm: corev1.PodAffinityTerm{TopologyKey: corev1.LabelHostname, LabelSelector: sel}}}},
			}
		}, []client.Object{
			&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "night", Labels: map[string]string{"tone": "dark"}}},
			&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "day"}},
		}, func(c *engine.PodClass) {
			s := &engine.Selector{Requirements: []engine.Requirement{in("app", "web")}}
			c.Labels = map[string]string{"app": "web"}
			c.PodAffinity = []engine.AffinityTerm{{Key: "rack", Selector: s, Namespaces: []string{"night", "zzz"}}}
			c.PodAntiAffinity = []engine.AffinityTerm{{Key: engine.LabelHostname, Selector: s, Namespaces: []string{"default"}, Weight: 4}}
		}},
		"host ports": {func(p *corev1.Pod) {
			p.Spec.Containers[0].Ports = []corev1.ContainerPort{{ContainerPort: 1}, {HostPort: 53, Protocol: corev1.ProtocolUDP, HostIP: "10.0.0.1"}}
		}, nil, func(c *engine.PodClass) { c.HostPorts = []engine.HostPort{{IP: "10.0.0.1", Port: 53, Protocol: "UDP"}} }},
		"resource claims": {func(p *corev1.Pod) {
			p.Spec.ResourceClaims = []corev1.PodResourceClaim{{Name: "gpu"}}
			p.Spec.Containers[0].Resources.Claims = []corev1.ResourceClaim{{Name: "gpu"}}
		},
			nil, func(c *engine.PodClass) { c.Unsupported = []string{"dynamic resource claims"} }},
		"a volume still to be made, in one of two places": {func(p *corev1.Pod) {
			p.Spec.Volumes = []corev1.Volume{{Name: "d", VolumeSource: corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "shared"}}}}
		}, []client.Object{
			&storagev1.StorageClass{ObjectMeta: metav1.ObjectMeta{Name: "sc"}, Provisioner: "driver", VolumeBindingMode: &wait, AllowedTopologies: []corev1.TopologySelectorTerm{
				{MatchLabelExpressions: []corev1.TopologySelectorLabelRequirement{{Key: corev1.LabelTopologyZone, Values: []string{"z2", "z1"}}}},
				{MatchLabelExpressions: []corev1.TopologySelectorLabelRequirement{{Key: "rack", Values: []string{"r"}}}},
			}},
			&corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Name: "shared", Namespace: "default"}, Spec: corev1.PersistentVolumeClaimSpec{StorageClassName: ptr("sc")}},
		}, func(c *engine.PodClass) {
			c.SharedVolumes = []engine.SharedVolume{{Driver: "driver", ID: "default/shared"}}
			c.VolumeTopology = []engine.VolumeTopology{{Terms: [][]engine.Requirement{{in(engine.LabelZone, "z1", "z2")}, {in("rack", "r")}}}}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			got := only(t, pod("p", c.pod), c.extra...)
			want := engine.PodClass{Name: "p", Namespace: "default", Requests: engine.Resources{"cpu": 250, "memory": 1 << 30}}
			c.want(&want)
			if !reflect.DeepEqual(got, want) {
				g, _ := json.MarshalIndent(got, "", " ")
				w, _ := json.MarshalIndent(want, "", " ")
				t.Errorf("got %s\nwant %s", g, w)
			}
		})
	}
}

func ptr[T any](v T) *T { return &v }

func TestPodsOfOneShapeAreOneClass(t *testing.T) {
	o := base()
	for i := range 100 {
		o.Pods = append(o.Pods, pod(fmt.Sprintf("p-%d", i), func(p *corev1.Pod) { p.Labels["index"] = fmt.Sprint(i); p.Labels["app"] = fmt.Sprint("app-", i%2) }))
	}
	if n := len(build(t, o).Snapshot.Pending); n != 1 {
		t.Errorf("%d classes although no selector looks at labels", n)
	}
	o.Pods = append(o.Pods, pod("looks", func(p *corev1.Pod) {
		p.Spec.Affinity = &corev1.Affinity{PodAntiAffinity: &corev1.PodAntiAffinity{RequiredDuringSchedulingIgnoredDuringExecution: []corev1.PodAffinityTerm{
			{TopologyKey: "rack", LabelSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "app-1"}}}}}}
	}))
	if n := len(build(t, o).Snapshot.Pending); n != 3 {
		t.Errorf("%d classes, want 3: the one that looks, and the two that it tells apart", n)
	}
}

func TestPodsOfAStatefulSetAreOneClassThoughEachHasAClaim(t *testing.T) {
	o := base()
	wait := storagev1.VolumeBindingWaitForFirstConsumer
	o.Classes = append(o.Classes, &storagev1.StorageClass{ObjectMeta: metav1.ObjectMeta{Name: "sc"}, Provisioner: "driver", VolumeBindingMode: &wait})
	for i := range 5 {
		name := fmt.Sprintf("db-%d", i)
		o.PVCs = append(o.PVCs, &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Name: "data-" + name, Namespace: "default"}, Spec: corev1.PersistentVolumeClaimSpec{StorageClassName: ptr("sc")}})
		o.Pods = append(o.Pods, pod(name, func(p *corev1.Pod) {
			p.Spec.Volumes = []corev1.Volume{{Name: "d", VolumeSource: corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "data-" + name}}}}
		}))
	}
	in := build(t, o)
	if len(in.Snapshot.Pending) != 1 || len(in.Snapshot.Pending[0].Pods) != 5 {
		t.Fatalf("groups: %+v, invalid: %v", in.Snapshot.Pending, in.Invalid)
	}
	if c := in.Snapshot.Classes[in.Snapshot.Pending[0].Class]; c.Volumes["driver"] != 1 {
		t.Errorf("volumes: %+v", c)
	}
}

func TestPodsThatCannotBePlannedSayWhy(t *testing.T) {
	o := base()
	o.Pods = []*corev1.Pod{
		pod("no-claim", func(p *corev1.Pod) {
			p.Spec.Volumes = []corev1.Volume{{Name: "d", VolumeSource: corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "missing"}}}}
		}),
		pod("not-for-us", func(p *corev1.Pod) {
			p.Spec.Affinity = &corev1.Affinity{NodeAffinity: &corev1.NodeAffinity{RequiredDuringSchedulingIgnoredDuringExecution: &corev1.NodeSelector{NodeSelectorTerms: []corev1.NodeSelectorTerm{
				{MatchExpressions: []corev1.NodeSelectorRequirement{{Key: karpv1.NodePoolLabelKey, Operator: corev1.NodeSelectorOpDoesNotExist}}}}}}}
		}),
		pod("fine"),
		pod("not-seen-yet", func(p *corev1.Pod) { p.Status.Conditions = nil }),
	}
	in := build(t, o)
	if len(in.Invalid) != 2 || in.Invalid["default/no-claim"] == nil || in.Invalid["default/not-for-us"] == nil {
		t.Errorf("invalid: %v", in.Invalid)
	}
	if len(in.Pods) != 1 || in.Pods["default/fine"] == nil {
		t.Errorf("pending: %v", in.Pods)
	}
}

func node(name string, mutate ...func(*corev1.Node)) *corev1.Node {
	n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{
		corev1.LabelHostname: name, karpv1.NodePoolLabelKey: "default", corev1.LabelInstanceTypeStable: "m4", corev1.LabelTopologyZone: "zone-1",
		karpv1.CapacityTypeLabelKey: "on-demand", karpv1.NodeRegisteredLabelKey: "true", karpv1.NodeInitializedLabelKey: "true",
	}}, Spec: corev1.NodeSpec{ProviderID: "id-" + name}}
	n.Status.Capacity = corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("4"), corev1.ResourceMemory: resource.MustParse("16Gi"), corev1.ResourcePods: resource.MustParse("40")}
	n.Status.Allocatable = n.Status.Capacity.DeepCopy()
	n.Status.Allocatable[corev1.ResourceCPU] = resource.MustParse("3860m")
	for _, m := range mutate {
		m(n)
	}
	return n
}

func claim(name, providerID string, mutate ...func(*karpv1.NodeClaim)) *karpv1.NodeClaim {
	nc := &karpv1.NodeClaim{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{karpv1.NodePoolLabelKey: "default"}}}
	nc.Spec.NodeClassRef = &karpv1.NodeClassReference{Group: "g", Kind: "K", Name: "n"}
	nc.Status.ProviderID = providerID
	for _, m := range mutate {
		m(nc)
	}
	return nc
}

func bound(to string) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		p.Spec.NodeName = to
		p.Status = corev1.PodStatus{Phase: corev1.PodRunning}
	}
}

func find(t *testing.T, s *engine.Snapshot, name string) engine.Node {
	t.Helper()
	for _, n := range s.Nodes {
		if n.Name == name {
			return n
		}
	}
	t.Fatalf("no node %s", name)
	return engine.Node{}
}

func podsOf(n engine.Node) []string {
	var out []string
	for _, g := range n.Pods {
		out = append(out, g.Pods...)
	}
	sort.Strings(out)
	return out
}

func TestNodesInEachStageOfLife(t *testing.T) {
	o := base()
	o.NodePools[0].Spec.Template.Spec.StartupTaints = []corev1.Taint{{Key: "boot", Effect: corev1.TaintEffectNoSchedule}}
	o.DaemonSets = []*appsv1.DaemonSet{{ObjectMeta: metav1.ObjectMeta{Name: "agent", Namespace: "kube-system", UID: "agent"}, Spec: appsv1.DaemonSetSpec{Template: corev1.PodTemplateSpec{Spec: pod("x").Spec}}}}
	o.Nodes = []*corev1.Node{
		node("ready"),
		node("starting", func(n *corev1.Node) {
			delete(n.Labels, karpv1.NodeInitializedLabelKey)
			n.Spec.Taints = []corev1.Taint{{Key: "boot", Effect: corev1.TaintEffectNoSchedule}, {Key: corev1.TaintNodeNotReady, Effect: corev1.TaintEffectNoSchedule}, {Key: "stays", Effect: corev1.TaintEffectNoSchedule}}
			n.Status.Allocatable[corev1.ResourceMemory] = resource.MustParse("0")
		}),
		node("leaving"),
		node("fixed", func(n *corev1.Node) { n.Labels = map[string]string{"agentpool": "system"}; n.Spec.Unschedulable = true }),
	}
	o.NodeClaims = []*karpv1.NodeClaim{
		claim("c-ready", "id-ready"),
		claim("c-starting", "id-starting", func(nc *karpv1.NodeClaim) {
			nc.Spec.StartupTaints = o.NodePools[0].Spec.Template.Spec.StartupTaints
			nc.Status.Allocatable = corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("15Gi")}
		}),
		claim("c-leaving", "id-leaving", func(nc *karpv1.NodeClaim) {
			nc.DeletionTimestamp = &metav1.Time{Time: o.Now}
			nc.Finalizers = []string{"f"}
		}),
		claim("c-undecided", "", func(nc *karpv1.NodeClaim) {
			nc.Spec.Requirements = []karpv1.NodeSelectorRequirementWithMinValues{{Key: corev1.LabelTopologyZone, Operator: corev1.NodeSelectorOpIn, Values: []string{"zone-1", "zone-2"}},
				{Key: karpv1.CapacityTypeLabelKey, Operator: corev1.NodeSelectorOpIn, Values: []string{"spot"}}}
		}),
	}
	yes := true
	o.Pods = []*corev1.Pod{
		pod("runs", bound("ready")), pod("ends", bound("ready"), func(p *corev1.Pod) { p.DeletionTimestamp = &metav1.Time{Time: o.Now} }),
		pod("done", bound("ready"), func(p *corev1.Pod) { p.Status.Phase = corev1.PodSucceeded }),
		pod("agent-1", bound("ready"), func(p *corev1.Pod) {
			p.OwnerReferences = []metav1.OwnerReference{{Kind: "DaemonSet", APIVersion: "apps/v1", Name: "agent", UID: "agent", Controller: &yes}}
		}),
		pod("moves", bound("leaving")), pod("waits"), pod("promised"),
	}
	o.Assumed = map[string]string{"default/promised": "c-undecided"}
	in := build(t, o)
	s := in.Snapshot

	ready := find(t, s, "ready")
	if !ready.Initialized || ready.NodePool != "default" || ready.PriceUSDPerHour != 0.2 || ready.Allocatable["cpu"] != 3860 || len(ready.MissingDaemons) != 0 {
		t.Errorf("ready: %+v", ready)
	}
	if got := podsOf(ready); !slices.Equal(got, []string{"default/agent-1", "default/ends", "default/runs"}) {
		t.Errorf("pods on ready: %v", got)
	}
	starting := find(t, s, "starting")
	if starting.Initialized || len(starting.Taints) != 1 || starting.Taints[0].Key != "stays" || starting.Allocatable["memory"] != 15<<30 || len(starting.MissingDaemons) != 1 {
		t.Errorf("starting: %+v", starting)
	}
	if l := find(t, s, "leaving"); l.Closed == "" || len(podsOf(l)) != 0 {
		t.Errorf("leaving: %+v", l)
	}
	if f := find(t, s, "fixed"); f.NodePool != "" || len(f.Taints) != 1 || f.Taints[0].Key != corev1.TaintNodeUnschedulable {
		t.Errorf("fixed: %+v", f)
	}
	u := find(t, s, "c-undecided")
	if u.Labels[engine.LabelCapacityType] != "spot" || u.Labels[engine.LabelInstanceType] != "m4" || len(u.Undecided) != 1 || u.Undecided[0].Key != engine.LabelZone || len(u.Undecided[0].Values) != 2 {
		t.Errorf("undecided: %+v", u)
	}
	if got := podsOf(u); !slices.Equal(got, []string{"default/promised"}) {
		t.Errorf("promised pods: %v", got)
	}
	var keys []string
	for k := range in.Pods {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	if !slices.Equal(keys, []string{"default/moves", "default/waits"}) {
		t.Errorf("pending: %v", keys)
	}
	if u := s.Pools[0].Usage; u["cpu"] != 12000 || u["nodes"] != 3 { // ready, starting, undecided
		t.Errorf("usage: %v", u)
	}
}

// karpenter#3176: objects that come and go within a moment, in any order, must
// not hold anything up or leave anything behind.
func TestWhatIsCreatedAndDeletedAtOnceLeavesNoTrace(t *testing.T) {
	o := base()
	o.Pods = append(o.Pods, pod("waiting"))
	c, err := snapshot.Load(o)
	if err != nil {
		t.Fatal(err)
	}
	plan := func() string {
		t.Helper()
		in, err := c.Snapshot(o.Now)
		if err != nil {
			t.Fatal(err)
		}
		p, err := c.Place(in, in.Options)
		if err != nil {
			t.Fatal(err)
		}
		b, err := json.MarshalIndent([]any{p, in.Snapshot.Nodes, in.Snapshot.Pools[0].Usage}, "", " ")
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	before := plan()
	labels := map[string]string{karpv1.NodePoolLabelKey: "default", corev1.LabelInstanceTypeStable: "m4", corev1.LabelTopologyZone: "zone-1", karpv1.CapacityTypeLabelKey: "spot"}
	claim := &karpv1.NodeClaim{ObjectMeta: metav1.ObjectMeta{Name: "short", Labels: labels}, Status: karpv1.NodeClaimStatus{ProviderID: "test://short"}}
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "short-node", Labels: labels}, Spec: corev1.NodeSpec{ProviderID: "test://short"}}
	bound := pod("bound", func(p *corev1.Pod) { p.Spec.NodeName = "short-node" })
	up := func(list ...client.Object) {
		for _, obj := range list {
			if err := c.Upsert(obj); err != nil {
				t.Fatal(err)
			}
		}
	}
	down := func(list ...client.Object) {
		for _, obj := range list {
			if err := c.Delete(obj); err != nil {
				t.Fatal(err)
			}
		}
	}
	for name, f := range map[string]func(){
		"a claim and its node":                 func() { up(claim, node); down(claim, node) },
		"seen by a pass":                       func() { up(claim, node, bound); plan(); down(node, claim, bound) },
		"the node outlives the claim":          func() { up(claim, node); down(claim); plan(); down(node) },
		"the claim outlives the node":          func() { up(claim, node); down(node); plan(); down(claim) },
		"a pod of a node never seen":           func() { up(bound); plan(); down(bound) },
		"a deletion of what was never created": func() { down(claim, node, bound) },
		"a promise to a claim that goes":       func() { up(claim); c.Assume("default/waiting", "short"); plan(); down(claim) },
	} {
		f()
		if after := plan(); after != before {
			t.Errorf("%s: the plan is another one afterwards:\n%s", name, after)
		}
	}
}

func TestPoolsSayWhyTheyCannotCreateMachines(t *testing.T) {
	o := base()
	static := clustergen.NodePool("static")
	static.Spec.Replicas = ptr(int64(3))
	unready := clustergen.NodePool("unready")
	unready.Status.Conditions = nil
	going := clustergen.NodePool("going")
	going.DeletionTimestamp = &metav1.Time{Time: o.Now}
	empty := clustergen.NodePool("empty")
	o.NodePools = append(o.NodePools, static, unready, going, empty)
	heavy := clustergen.NodePool("heavy")
	heavy.Spec.Weight = ptr(int32(50))
	heavy.Spec.Limits = karpv1.Limits{corev1.ResourceCPU: resource.MustParse("10"), "nodes": resource.MustParse("3")}
	heavy.Spec.Template.Spec.Requirements = []karpv1.NodeSelectorRequirementWithMinValues{{Key: corev1.LabelInstanceTypeStable, Operator: corev1.NodeSelectorOpExists, MinValues: ptr(2)}}
	o.NodePools = append(o.NodePools, heavy)
	for _, n := range []string{"static", "unready", "going", "heavy"} {
		o.InstanceTypes[n] = o.InstanceTypes["default"]
	}
	s := build(t, o).Snapshot
	blocked := map[string]string{}
	for _, p := range s.Pools {
		blocked[p.Name] = p.Blocked
	}
	for _, n := range []string{"static", "unready", "going", "empty"} {
		if blocked[n] == "" {
			t.Errorf("pool %s is not blocked", n)
		}
	}
	if p := s.Pools[0]; p.Name != "heavy" || p.Blocked != "" || p.Limits["cpu"] != 10000 || p.Limits["nodes"] != 3 || p.Requirements[0].MinValues != 2 {
		t.Errorf("heavy: %+v", p)
	}
	if len(s.Catalogues) != 2 {
		t.Errorf("%d catalogues, want the shared and the empty one", len(s.Catalogues))
	}
}

func TestCataloguesKeepOfferings(t *testing.T) {
	o := base()
	s := build(t, o).Snapshot
	it := s.Catalogues[0].InstanceTypes[0]
	if it.Name != "m4" || len(it.Offerings) != 6 || it.Capacity["cpu"] != 4000 || it.Allocatable["cpu"] != 3860 || it.VolumeLimits[clustergen.Driver] != 5 {
		t.Errorf("%+v", it)
	}
	for _, r := range it.Requirements {
		if r.Key == engine.LabelZone || r.Key == engine.LabelCapacityType {
			t.Errorf("%s belongs to offerings", r.Key)
		}
	}
	if of := it.Offerings[1]; of.Zone != "zone-1" || of.CapacityType != "spot" || of.PriceUSDPerHour != 0.05 || !of.Available {
		t.Errorf("%+v", of)
	}
}

func TestAnUnchangedCacheGivesSnapshotsCheaply(t *testing.T) {
	o := clustergen.Generate(7, clustergen.Options{Nodes: 5})
	c, err := snapshot.Load(o)
	if err != nil {
		t.Fatal(err)
	}
	first, err := c.Snapshot(o.Now)
	if err != nil {
		t.Fatal(err)
	}
	second, err := c.Snapshot(o.Now)
	if err != nil {
		t.Fatal(err)
	}
	for i := range first.Snapshot.Nodes {
		a, b := first.Snapshot.Nodes[i], second.Snapshot.Nodes[i]
		if a.Closed == "" && len(a.Labels) > 0 && reflect.ValueOf(a.Labels).Pointer() != reflect.ValueOf(b.Labels).Pointer() {
			t.Errorf("node %s was translated again without a change", a.Name)
		}
	}
}

func TestPodsLikeARefusedOneAreWaitingToo(t *testing.T) {
	owned := func(by string) func(*corev1.Pod) {
		return func(p *corev1.Pod) {
			yes := true
			p.OwnerReferences = []metav1.OwnerReference{{APIVersion: "apps/v1", Kind: "ReplicaSet", Name: by, UID: types.UID(by), Controller: &yes}}
		}
	}
	fresh := func(p *corev1.Pod) { p.Status.Conditions = nil }
	o := base()
	o.Pods = append(o.Pods,
		pod("refused", owned("web")),
		pod("alike", owned("web"), fresh),
		pod("of-another", owned("db"), fresh),
		pod("of-none", fresh),
		pod("larger", owned("web"), fresh, func(p *corev1.Pod) {
			p.Spec.Containers[0].Resources.Requests[corev1.ResourceCPU] = resource.MustParse("4")
		}),
		pod("of-another-scheduler", owned("web"), fresh, func(p *corev1.Pod) { p.Spec.SchedulerName = "mine" }),
		pod("more-important", owned("web"), fresh, func(p *corev1.Pod) { n := int32(9); p.Spec.Priority = &n }),
		pod("nominated", owned("web"), fresh, func(p *corev1.Pod) { p.Status.NominatedNodeName = "n" }),
		pod("gated", owned("web"), func(p *corev1.Pod) {
			p.Spec.SchedulingGates = []corev1.PodSchedulingGate{{Name: "g"}}
			p.Status.Conditions[0].Reason = corev1.PodReasonSchedulingGated
		}),
	)
	in := build(t, o)
	var got []string
	for key := range in.Pods {
		got = append(got, key)
	}
	slices.Sort(got)
	if want := []string{"default/alike", "default/refused"}; !slices.Equal(got, want) {
		t.Errorf("waiting are %v, want %v", got, want)
	}
}
