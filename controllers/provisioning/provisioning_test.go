package provisioning

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/awslabs/operatorpkg/status"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/scheme"
	testingclock "k8s.io/utils/clock/testing"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"
	autoscalingv1beta1 "sigs.k8s.io/karpenter/pkg/apis/autoscaling/v1beta1"
	karpv1 "sigs.k8s.io/karpenter/pkg/apis/v1"
	"sigs.k8s.io/karpenter/pkg/cloudprovider"
	karpprovisioning "sigs.k8s.io/karpenter/pkg/controllers/provisioning"
	"sigs.k8s.io/karpenter/pkg/controllers/state"
	"sigs.k8s.io/karpenter/pkg/events"
	karpoptions "sigs.k8s.io/karpenter/pkg/operator/options"

	"github.com/nap-aks/nap/apis/v1beta1"
	"github.com/nap-aks/nap/azure/instancetype"
	"github.com/nap-aks/nap/catalog"
	"github.com/nap-aks/nap/engine"
	"github.com/nap-aks/nap/snapshot"
)

// sizes is a provider that only lists what it sells: D sizes of eastus.
type sizes struct {
	cloudprovider.CloudProvider
	list []*cloudprovider.InstanceType
}

func (s *sizes) GetInstanceTypes(context.Context, *karpv1.NodePool) ([]*cloudprovider.InstanceType, error) {
	return append([]*cloudprovider.InstanceType{}, s.list...), nil
}
func (s *sizes) GetSupportedNodeClasses() []status.Object {
	return []status.Object{&v1beta1.AKSNodeClass{}}
}
func (s *sizes) Name() string                                 { return "sizes" }
func (s *sizes) RepairPolicies() []cloudprovider.RepairPolicy { return nil }

// recorded keeps events. Karpenter's provisioner creates NodeClaims side by side.
type recorded struct {
	mu   sync.Mutex
	list []events.Event
}

func (r *recorded) Publish(e ...events.Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.list = append(r.list, e...)
}

func (r *recorded) about(pod, reason string) []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []string
	for _, e := range r.list {
		if o, ok := e.InvolvedObject.(client.Object); ok && o.GetName() == pod && e.Reason == reason {
			out = append(out, e.Message)
		}
	}
	return out
}

type world struct {
	t        *testing.T
	ctx      context.Context
	kube     client.Client
	clock    *testingclock.FakeClock
	events   *recorded
	provider *sizes
	cluster  *state.Cluster
	p        *Provisioner
	refuse   int // how many NodeClaim creations fail from now on
	// unanswered is how many are done and yet fail.
	unanswered int
}

func newWorld(t *testing.T, pools ...*karpv1.NodePool) *world {
	t.Helper()
	if err := v1beta1.AddToScheme(scheme.Scheme); err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, clock: testingclock.NewFakeClock(time.Now()), events: &recorded{}}
	w.ctx = karpoptions.ToContext(t.Context(), &karpoptions.Options{
		BatchIdleDuration: time.Second, BatchMaxDuration: 10 * time.Second, PreferencePolicy: karpoptions.PreferencePolicyRespect,
		MinValuesPolicy: karpoptions.MinValuesPolicyStrict, CPURequests: 1000, IgnoreDRARequests: true, FeatureGates: karpoptions.DefaultFeatureGates(),
	})
	class := func(f func(*karpv1.NodeClassReference) string) client.IndexerFunc {
		return func(o client.Object) []string {
			return []string{f(o.(*karpv1.NodePool).Spec.Template.Spec.NodeClassRef)}
		}
	}
	w.kube = fake.NewClientBuilder().WithScheme(scheme.Scheme).WithStatusSubresource(&autoscalingv1beta1.CapacityBuffer{}).
		WithIndex(&karpv1.NodePool{}, "spec.template.spec.nodeClassRef.group", class(func(r *karpv1.NodeClassReference) string { return r.Group })).
		WithIndex(&karpv1.NodePool{}, "spec.template.spec.nodeClassRef.kind", class(func(r *karpv1.NodeClassReference) string { return r.Kind })).
		WithIndex(&karpv1.NodePool{}, "spec.template.spec.nodeClassRef.name", class(func(r *karpv1.NodeClassReference) string { return r.Name })).
		WithIndex(&corev1.Pod{}, "spec.nodeName", func(o client.Object) []string { return []string{o.(*corev1.Pod).Spec.NodeName} }).
		WithInterceptorFuncs(interceptor.Funcs{Create: func(ctx context.Context, c client.WithWatch, obj client.Object, opts ...client.CreateOption) error {
			if claim, ok := obj.(*karpv1.NodeClaim); ok {
				if w.refuse > 0 {
					w.refuse--
					return fmt.Errorf("the API server is not well")
				}
				if claim.UID == "" {
					claim.UID = types.UID(claim.Name)
				}
				if w.unanswered > 0 {
					w.unanswered--
					if err := c.Create(ctx, obj, opts...); err != nil {
						return err
					}
					return fmt.Errorf("connection reset by peer")
				}
			}
			return c.Create(ctx, obj, opts...)
		}}).Build()
	table, err := instancetype.NewTable("eastus", catalog.SKUs("eastus"))
	if err != nil {
		t.Fatal(err)
	}
	s := instancetype.SettingsFor(&v1beta1.AKSNodeClass{}, instancetype.Cluster{NetworkPlugin: "azure", NetworkPluginMode: "overlay", NodeResourceGroup: "mc"})
	var list []*cloudprovider.InstanceType
	for _, it := range table.Build(s, func(size string, spot bool) (float64, bool) {
		z, err := catalog.Lookup("eastus", size)
		if err != nil || !z.HasPrice {
			return 0, false
		}
		if spot {
			return z.SpotUSDPerHour, z.SpotUSDPerHour > 0
		}
		return z.OnDemandUSDPerHour, true
	}, nil) {
		if it.Requirements.Get(v1beta1.LabelSKUFamily).Has("D") {
			list = append(list, it)
		}
	}
	w.provider = &sizes{list: list}
	w.cluster = state.NewCluster(w.clock, w.kube, w.provider)
	w.p = New(w.ctx, Config{
		Kube: w.kube, Provider: w.provider, Cluster: w.cluster, Recorder: w.events, Clock: w.clock,
		Karpenter: karpprovisioning.NewProvisioner(w.kube, w.events, w.provider, w.cluster, w.clock, nil, nil),
	})
	if len(pools) == 0 {
		pools = []*karpv1.NodePool{pool("default")}
	}
	for _, np := range pools {
		w.apply(np)
	}
	return w
}

func pool(name string) *karpv1.NodePool {
	in := func(key, value string) karpv1.NodeSelectorRequirementWithMinValues {
		return karpv1.NodeSelectorRequirementWithMinValues{Key: key, Operator: corev1.NodeSelectorOpIn, Values: []string{value}}
	}
	np := &karpv1.NodePool{ObjectMeta: metav1.ObjectMeta{Name: name, UID: types.UID(name)}}
	np.Spec.Template.Spec.NodeClassRef = &karpv1.NodeClassReference{Group: v1beta1.Group, Kind: "AKSNodeClass", Name: "default"}
	np.Spec.Template.Spec.Requirements = []karpv1.NodeSelectorRequirementWithMinValues{
		in(karpv1.CapacityTypeLabelKey, karpv1.CapacityTypeOnDemand), in(corev1.LabelArchStable, "amd64"), in(corev1.LabelOSStable, "linux"),
	}
	for _, c := range []string{karpv1.ConditionTypeNodeClassReady, karpv1.ConditionTypeValidationSucceeded} {
		np.StatusConditions().SetTrue(c)
	}
	np.StatusConditions().SetTrue(status.ConditionReady)
	return np
}

// apply puts an object into the API and the mirror, as the watch would.
func (w *world) apply(objects ...client.Object) {
	w.t.Helper()
	for _, o := range objects {
		copied := o.DeepCopyObject().(client.Object)
		copied.SetResourceVersion("")
		err := w.kube.Create(w.ctx, copied)
		if err != nil {
			if err = w.kube.Get(w.ctx, client.ObjectKeyFromObject(o), copied); err != nil {
				w.t.Fatal(err)
			}
			o.SetResourceVersion(copied.GetResourceVersion())
			if err = w.kube.Update(w.ctx, o); err != nil {
				w.t.Fatal(err)
			}
		}
		if err := w.p.cache.Upsert(o); err != nil {
			w.t.Fatal(err)
		}
		switch o := o.(type) {
		case *corev1.Node:
			if err := w.cluster.UpdateNode(w.ctx, o); err != nil {
				w.t.Fatal(err)
			}
		case *karpv1.NodeClaim:
			w.cluster.UpdateNodeClaim(o)
		case *corev1.Pod:
			if err := w.cluster.UpdatePod(w.ctx, o); err != nil {
				w.t.Fatal(err)
			}
		}
	}
}

func (w *world) pass() {
	w.t.Helper()
	if err := w.p.Pass(w.ctx); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) claims() []karpv1.NodeClaim {
	w.t.Helper()
	list := &karpv1.NodeClaimList{}
	if err := w.kube.List(w.ctx, list); err != nil {
		w.t.Fatal(err)
	}
	return list.Items
}

func pod(name, cpu string, edit ...func(*corev1.Pod)) *corev1.Pod {
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name, UID: types.UID(name)},
		Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Resources: corev1.ResourceRequirements{
			Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse(cpu), corev1.ResourceMemory: resource.MustParse("512Mi")}}}}},
		Status: corev1.PodStatus{Phase: corev1.PodPending, Conditions: []corev1.PodCondition{{Type: corev1.PodScheduled, Status: corev1.ConditionFalse, Reason: corev1.PodReasonUnschedulable}}},
	}
	for _, e := range edit {
		e(p)
	}
	return p
}

func pods(n int, cpu string) []client.Object {
	var out []client.Object
	for i := range n {
		out = append(out, pod(fmt.Sprintf("p-%03d", i), cpu))
	}
	return out
}

func TestPendingPodsGetMachinesThatHoldThem(t *testing.T) {
	w := newWorld(t)
	w.apply(pods(40, "900m")...)
	w.pass()
	claims := w.claims()
	if len(claims) == 0 {
		t.Fatal("no NodeClaim was created")
	}
	asked := resource.Quantity{}
	for _, c := range claims {
		asked.Add(c.Spec.Resources.Requests[corev1.ResourceCPU])
		if c.Labels[karpv1.NodePoolLabelKey] != "default" || c.Labels["karpenter.azure.com/aksnodeclass"] != "default" || len(c.OwnerReferences) != 1 || c.Annotations[karpv1.NodePoolHashAnnotationKey] == "" {
			t.Errorf("claim %s lacks the marks of its pool: labels %v, owners %v", c.Name, c.Labels, c.OwnerReferences)
		}
		keys := map[string][]string{}
		for _, r := range c.Spec.Requirements {
			keys[r.Key] = r.Values
		}
		if len(keys[corev1.LabelInstanceTypeStable]) < 2 || len(keys[corev1.LabelTopologyZone]) < 2 {
			t.Errorf("claim %s carries %d instance types and %d zones: too little to fall back on", c.Name, len(keys[corev1.LabelInstanceTypeStable]), len(keys[corev1.LabelTopologyZone]))
		}
		if len(keys[karpv1.CapacityTypeLabelKey]) != 1 || keys[karpv1.CapacityTypeLabelKey][0] != "on-demand" {
			t.Errorf("claim %s: capacity types %v, want on-demand", c.Name, keys[karpv1.CapacityTypeLabelKey])
		}
	}
	if asked.MilliValue() < 40*900 {
		t.Errorf("the claims ask for %s of cpu, the pods for 36", asked.String())
	}
	if n := len(w.events.about("p-000", events.Nominated)); n != 1 {
		t.Errorf("%d Nominated events for a pod, want 1", n)
	}
}

func TestAPromiseOutlivesThePass(t *testing.T) {
	w := newWorld(t)
	w.apply(pods(10, "900m")...)
	w.pass()
	before := len(w.claims())
	for range 3 {
		w.clock.Step(10 * time.Second)
		w.pass()
	}
	if after := len(w.claims()); after != before {
		t.Fatalf("%d NodeClaims for the same pods, %d after the first pass", after, before)
	}
	// One machine fails: its claim goes, and only its pods are placed again.
	victim := w.claims()[0]
	if err := w.kube.Delete(w.ctx, &victim); err != nil {
		t.Fatal(err)
	}
	if err := w.p.cache.Delete(&victim); err != nil {
		t.Fatal(err)
	}
	w.cluster.DeleteNodeClaim(victim.Name)
	w.pass()
	if after := len(w.claims()); after != before {
		t.Errorf("%d NodeClaims after one failed and was replaced, want %d", after, before)
	}
}

func TestAPromiseIsTakenBackWhenItsRoomIsGone(t *testing.T) {
	w := newWorld(t)
	w.apply(pod("stuck", "900m"))
	w.pass()
	claim := w.claims()[0].DeepCopy()
	// The machine comes up, ready and empty, but the scheduler does not bind.
	claim.Status.ProviderID, claim.Status.NodeName = "azure:///x", "n"
	claim.Labels[corev1.LabelInstanceTypeStable] = "Standard_D2s_v5"
	for _, c := range []string{karpv1.ConditionTypeLaunched, karpv1.ConditionTypeRegistered, karpv1.ConditionTypeInitialized} {
		claim.StatusConditions().SetTrue(c)
	}
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n", Labels: map[string]string{karpv1.NodeInitializedLabelKey: "true", karpv1.NodeRegisteredLabelKey: "true", karpv1.NodePoolLabelKey: "default", corev1.LabelArchStable: "arm64", corev1.LabelOSStable: "linux", karpv1.CapacityTypeLabelKey: "on-demand", corev1.LabelTopologyZone: "eastus-1", corev1.LabelHostname: "n"}}, Spec: corev1.NodeSpec{ProviderID: "azure:///x"}}
	node.Status.Allocatable = corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("100m"), corev1.ResourceMemory: resource.MustParse("8Gi"), corev1.ResourcePods: resource.MustParse("30")}
	node.Status.Capacity = node.Status.Allocatable
	w.apply(claim, node) // it turned out too small for the pod
	w.pass()
	w.clock.Step(crowdedTimeout / 2)
	w.pass()
	if n := len(w.claims()); n != 1 {
		t.Fatalf("%d NodeClaims while the promise stands, want 1", n)
	}
	w.clock.Step(crowdedTimeout)
	w.pass()
	if n := len(w.claims()); n != 2 {
		t.Errorf("%d NodeClaims although the node had no room for %s, want a second one", n, crowdedTimeout)
	}
}

func TestPodsOfAClaimThatCouldNotBeCreatedAreTakenUpAgain(t *testing.T) {
	w := newWorld(t)
	w.apply(pod("a", "900m"))
	w.refuse = 1
	if err := w.p.Pass(w.ctx); err == nil || !strings.Contains(err.Error(), "not well") {
		t.Fatalf("the pass should say what failed, got %v", err)
	}
	w.pass()
	if n := len(w.claims()); n != 1 {
		t.Errorf("%d NodeClaims, want 1 from the second pass", n)
	}
}

func TestAClaimWhoseCreationWasNotAnsweredIsNotBoughtTwice(t *testing.T) {
	w := newWorld(t)
	w.apply(pod("a", "900m"))
	w.unanswered = 1
	if err := w.p.Pass(w.ctx); err == nil || !strings.Contains(err.Error(), "connection reset") {
		t.Fatalf("the pass should say what failed, got %v", err)
	}
	// No watch has told of the claim yet.
	w.pass()
	claims := w.claims()
	if len(claims) != 1 {
		t.Fatalf("%d NodeClaims for one pod, want the one that was made", len(claims))
	}
	if to := w.p.cache.AssumedPods()["shop/a"]; to != claims[0].Name {
		t.Errorf("the pod is promised to %q, want %s", to, claims[0].Name)
	}
}

func TestEveryRefusedPodIsToldWhy(t *testing.T) {
	w := newWorld(t)
	for i := range 30 {
		w.apply(pod(fmt.Sprintf("huge-%02d", i), "4000"))
	}
	w.apply(pod("small", "100m"))
	w.pass()
	if n := len(w.claims()); n != 1 {
		t.Errorf("%d NodeClaims, want one for the small pod", n)
	}
	for i := range 30 {
		told := w.events.about(fmt.Sprintf("huge-%02d", i), events.FailedScheduling)
		if len(told) != 1 || !strings.Contains(told[0], "cpu") {
			t.Fatalf("pod huge-%02d was told %q; want once, and that it is the cpu", i, told)
		}
	}
	if told := w.events.about("small", events.FailedScheduling); len(told) != 0 {
		t.Errorf("the small pod was told %v", told)
	}
}

func TestQuotasHoldOverPassesAndAreTold(t *testing.T) {
	w := newWorld(t)
	charges := map[string]int64{}
	for _, it := range w.provider.list {
		charges[it.Name] = it.Capacity.Cpu().Value()
	}
	used := int64(92)
	w.p.Quotas = func() []snapshot.Quota {
		return []snapshot.Quota{{Name: "cores", Title: "Total Regional vCPUs", Used: used, Limit: 100, Charges: charges, Advice: "ask for more"}}
	}
	w.apply(pods(20, "900m")...)
	w.pass()
	first := len(w.claims())
	if first == 0 {
		t.Fatal("8 vCPUs are left, and no NodeClaim was created")
	}
	told := ""
	for i := range 20 {
		for _, e := range w.events.about(fmt.Sprintf("p-%03d", i), events.FailedScheduling) {
			told = e
		}
	}
	if !strings.Contains(told, "of quota cores (Total Regional vCPUs)") || !strings.Contains(told, "left of 100") || !strings.Contains(told, "ask for more") {
		t.Errorf("a refused pod was told %q: which quota, how much is left and what to do is missing", told)
	}
	// The machines are asked for and not yet counted by the cloud: they count here.
	w.clock.Step(10 * time.Second)
	w.pass()
	if n := len(w.claims()); n != first {
		t.Errorf("%d NodeClaims after a second pass, %d after the first: the quota was spent twice", n, first)
	}
	used = 84 // somebody else's machines have gone
	w.pass()
	if n := len(w.claims()); n <= first {
		t.Error("there is room in the quota again, and nobody used it")
	}
}

func TestNodePoolLimitsHoldOverPasses(t *testing.T) {
	np := pool("default")
	np.Spec.Limits = karpv1.Limits{corev1.ResourceCPU: resource.MustParse("8")}
	w := newWorld(t, np)
	for round := range 4 {
		for i := range 3 {
			w.apply(pod(fmt.Sprintf("r%d-%d", round, i), "1500m"))
		}
		w.pass()
		w.clock.Step(5 * time.Second)
	}
	byName := map[string]*cloudprovider.InstanceType{}
	for _, it := range w.provider.list {
		byName[it.Name] = it
	}
	total := int64(0)
	for _, c := range w.claims() {
		most := int64(0) // whichever type is launched
		for _, r := range c.Spec.Requirements {
			if r.Key == corev1.LabelInstanceTypeStable {
				for _, v := range r.Values {
					most = max(most, byName[v].Capacity.Cpu().Value())
				}
			}
		}
		total += most
	}
	if total > 8 || total == 0 {
		t.Errorf("the claims may become machines of %d cores; the limit is 8", total)
	}
}

func TestPodsOfNodesBeingDeletedArePlacedBeforeTheyGo(t *testing.T) {
	w := newWorld(t)
	claim := &karpv1.NodeClaim{ObjectMeta: metav1.ObjectMeta{Name: "default-old", Labels: map[string]string{karpv1.NodePoolLabelKey: "default"}, Finalizers: []string{"karpenter.sh/termination"}}}
	claim.Spec.NodeClassRef = &karpv1.NodeClassReference{Group: v1beta1.Group, Kind: "AKSNodeClass", Name: "default"}
	claim.Status.ProviderID = "azure:///old"
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "old", Labels: map[string]string{karpv1.NodePoolLabelKey: "default", karpv1.NodeRegisteredLabelKey: "true", karpv1.NodeInitializedLabelKey: "true", corev1.LabelHostname: "old"}}, Spec: corev1.NodeSpec{ProviderID: "azure:///old"}}
	owner := true
	running := pod("runs", "900m", func(p *corev1.Pod) {
		p.Spec.NodeName, p.Status.Phase, p.Status.Conditions = "old", corev1.PodRunning, nil
		p.OwnerReferences = []metav1.OwnerReference{{APIVersion: "apps/v1", Kind: "ReplicaSet", Name: "rs", UID: "rs", Controller: &owner}}
	})
	w.apply(claim, node, running)
	w.pass()
	if n := len(w.claims()); n != 1 {
		t.Fatalf("%d NodeClaims, want only the old one", n)
	}
	w.cluster.MarkForDeletion("azure:///old")
	w.pass()
	if n := len(w.claims()); n != 2 {
		t.Errorf("%d NodeClaims, want one more for the pod that has to move", n)
	}
	w.pass()
	if n := len(w.claims()); n != 2 {
		t.Errorf("%d NodeClaims after another pass, want no second machine for the same pod", n)
	}
}

func TestTheSchedulerIsToldWherePodsAreToGo(t *testing.T) {
	w := newWorld(t)
	w.p.Nominate = true
	w.apply(pod("a", "900m"))
	w.pass()
	nominated := func() *corev1.Pod {
		t.Helper()
		if err := w.p.nominate(w.ctx); err != nil {
			t.Fatal(err)
		}
		got := &corev1.Pod{}
		if err := w.kube.Get(w.ctx, client.ObjectKey{Namespace: "shop", Name: "a"}, got); err != nil {
			t.Fatal(err)
		}
		return got
	}
	if got := nominated(); got.Status.NominatedNodeName != "" {
		t.Fatalf("nominated %q before there is a node", got.Status.NominatedNodeName)
	}
	claim := w.claims()[0].DeepCopy()
	claim.Status.ProviderID = "azure:///x"
	claim.StatusConditions().SetTrue(karpv1.ConditionTypeLaunched)
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n", Labels: map[string]string{
		karpv1.NodePoolLabelKey: "default", corev1.LabelInstanceTypeStable: "Standard_D2s_v5", corev1.LabelArchStable: "amd64", corev1.LabelOSStable: "linux", corev1.LabelHostname: "n",
		karpv1.NodeRegisteredLabelKey: "true", karpv1.NodeInitializedLabelKey: "true"}}, Spec: corev1.NodeSpec{ProviderID: "azure:///x"}}
	node.Status.Allocatable = corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("1900m"), corev1.ResourceMemory: resource.MustParse("6Gi"), corev1.ResourcePods: resource.MustParse("30")}
	node.Status.Capacity = node.Status.Allocatable
	w.apply(claim, node)
	got := nominated()
	if got.Status.NominatedNodeName != "n" {
		t.Fatalf("nominated %q, want the node that came up", got.Status.NominatedNodeName)
	}
	// The scheduler gives nominations up when it looks too early.
	giveUp := func(pod *corev1.Pod) {
		t.Helper()
		cleared := pod.DeepCopy()
		cleared.Status.NominatedNodeName = ""
		if err := w.kube.Status().Update(w.ctx, cleared); err != nil || cleared.Status.NominatedNodeName != "" {
			t.Fatalf("clearing the nomination: %v", err)
		}
		w.p.nominations.observe(pod, w.clock.Now())
		w.p.nominations.observe(cleared, w.clock.Now())
	}
	giveUp(got)
	if got = nominated(); got.Status.NominatedNodeName != "n" {
		t.Errorf("nominated %q after the scheduler gave it up, want the same node again", got.Status.NominatedNodeName)
	}
	// When it does so again, the pod goes without, and keeps its place.
	giveUp(got)
	if err := w.p.nominate(w.ctx); err != nil || len(w.p.nominations.nominated) != 0 {
		t.Errorf("nominated once more after the scheduler gave it up twice: %v, %v", w.p.nominations.nominated, err)
	}
	if got := w.nominated("a"); got != "" {
		t.Errorf("nominated %q once more after the scheduler gave it up twice", got)
	}
	if !w.assumed("shop/a") {
		t.Error("the place is lost with the nomination")
	}
	w.assume("a", "n")
	if got = nominated(); got.Status.NominatedNodeName != "n" {
		t.Errorf("nominated %q for a new promise, want n", got.Status.NominatedNodeName)
	}
	// Our own nomination does not make the pod somebody else's: its place stays
	// taken, and no second machine is bought.
	seen, ours := w.p.nominations.observe(got, w.clock.Now())
	if !ours {
		t.Error("our own nomination is taken for one of others")
	}
	if err := w.p.cache.Upsert(seen); err != nil {
		t.Fatal(err)
	}
	w.apply(pod("b", "1100m"))
	w.pass()
	if n := len(w.claims()); n != 2 {
		t.Errorf("%d NodeClaims, want another for b, because a's place is taken", n)
	}
	// When the scheduler does not follow, the nomination is cleared.
	w.clock.Step(bindTimeoutNominated)
	w.pass()
	w.clock.Step(bindTimeoutNominated)
	w.pass()
	if err := w.kube.Get(w.ctx, client.ObjectKey{Namespace: "shop", Name: "a"}, got); err != nil {
		t.Fatal(err)
	}
	if _, standing := w.p.nominations.nominated["shop/a"]; standing || got.Status.NominatedNodeName != "" {
		t.Errorf("nomination %q still stands", got.Status.NominatedNodeName)
	}
}

func TestNominationsOfOthersDoNotStandForEver(t *testing.T) {
	w := newWorld(t)
	w.p.Nominate = true
	left := pod("left", "900m", func(p *corev1.Pod) { p.Status.NominatedNodeName = "gone" })
	w.apply(left)
	seen, ours := w.p.nominations.observe(left, w.clock.Now())
	if ours {
		t.Error("a nomination of others is taken for our own")
	}
	if err := w.p.cache.Upsert(seen); err != nil {
		t.Fatal(err)
	}
	w.pass()
	if n := len(w.claims()); n != 0 {
		t.Fatalf("%d NodeClaims for a pod that another has a place for", n)
	}
	w.clock.Step(foreignTimeout + time.Second)
	w.pass()
	got := &corev1.Pod{}
	if err := w.kube.Get(w.ctx, client.ObjectKeyFromObject(left), got); err != nil {
		t.Fatal(err)
	}
	if got.Status.NominatedNodeName != "" {
		t.Errorf("nomination %q stands after %s", got.Status.NominatedNodeName, foreignTimeout)
	}
}

func TestDecisionsCanBeReplayed(t *testing.T) {
	w := newWorld(t)
	w.p.Decisions = t.TempDir()
	w.apply(pods(20, "900m")...)
	w.pass()
	var files []string
	for range decisionsKept + 3 {
		w.apply(pod("more-"+w.clock.Now().Format("150405"), "4000")) // refused: pending for ever
		w.clock.Step(time.Second)
		w.pass()
		var err error
		if files, err = filepath.Glob(filepath.Join(w.p.Decisions, "*")); err != nil {
			t.Fatal(err)
		}
		if len(files) == 2 {
			o, err := snapshot.ReadFile(files[0])
			if err != nil {
				t.Fatal(err)
			}
			in, err := snapshot.Build(o)
			if err != nil {
				t.Fatal(err)
			}
			plan, err := engine.Place(in.Snapshot, in.Options)
			if err != nil {
				t.Fatal(err)
			}
			if len(plan.Machines) != len(w.claims()) {
				t.Errorf("the replay buys %d machines, the pass bought %d", len(plan.Machines), len(w.claims()))
			}
		}
	}
	if len(files) != decisionsKept {
		t.Errorf("%d decisions are kept, want the last %d", len(files), decisionsKept)
	}
}

func TestAWaitEndsWithItsContext(t *testing.T) {
	b := newBatch(testingclock.NewFakeClock(time.Now()), time.Second, 10*time.Second)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if b.wait(ctx, time.Minute) {
		t.Error("an ended context should end the wait")
	}
}
