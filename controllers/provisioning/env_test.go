// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package provisioning

import (
	"context"
	"fmt"
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
)

// sizes is a provider that only has instance types: the D sizes of eastus.
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

func (s *sizes) Name() string { return "sizes" }

func (s *sizes) RepairPolicies() []cloudprovider.RepairPolicy { return nil }

// recorded is an event recorder that keeps all events. Karpenter's provisioner
// publishes events concurrently.
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

// testEnv is a provisioner with a fake API server, a fake clock and a provider.
type testEnv struct {
	t        *testing.T
	ctx      context.Context
	kube     client.Client
	clock    *testingclock.FakeClock
	events   *recorded
	provider *sizes
	cluster  *state.Cluster
	p        *Provisioner
	refuse   int // how many of the next NodeClaim creations fail
	// unanswered is how many of the next NodeClaim creations succeed but return an error.
	unanswered int
}

func newEnv(t *testing.T, pools ...*karpv1.NodePool) *testEnv {
	t.Helper()
	if err := v1beta1.AddToScheme(scheme.Scheme); err != nil {
		t.Fatal(err)
	}
	env := &testEnv{t: t, clock: testingclock.NewFakeClock(time.Now()), events: &recorded{}}
	env.ctx = karpoptions.ToContext(t.Context(), &karpoptions.Options{
		BatchIdleDuration: time.Second, BatchMaxDuration: 10 * time.Second, PreferencePolicy: karpoptions.PreferencePolicyRespect,
		MinValuesPolicy: karpoptions.MinValuesPolicyStrict, CPURequests: 1000, IgnoreDRARequests: true, FeatureGates: karpoptions.DefaultFeatureGates(),
	})
	class := func(f func(*karpv1.NodeClassReference) string) client.IndexerFunc {
		return func(o client.Object) []string {
			return []string{f(o.(*karpv1.NodePool).Spec.Template.Spec.NodeClassRef)}
		}
	}
	env.kube = fake.NewClientBuilder().WithScheme(scheme.Scheme).WithStatusSubresource(&autoscalingv1beta1.CapacityBuffer{}).
		WithIndex(&karpv1.NodePool{}, "spec.template.spec.nodeClassRef.group", class(func(r *karpv1.NodeClassReference) string { return r.Group })).
		WithIndex(&karpv1.NodePool{}, "spec.template.spec.nodeClassRef.kind", class(func(r *karpv1.NodeClassReference) string { return r.Kind })).
		WithIndex(&karpv1.NodePool{}, "spec.template.spec.nodeClassRef.name", class(func(r *karpv1.NodeClassReference) string { return r.Name })).
		WithIndex(&corev1.Pod{}, "spec.nodeName", func(o client.Object) []string { return []string{o.(*corev1.Pod).Spec.NodeName} }).
		WithInterceptorFuncs(interceptor.Funcs{Create: func(ctx context.Context, c client.WithWatch, obj client.Object, opts ...client.CreateOption) error {
			if claim, ok := obj.(*karpv1.NodeClaim); ok {
				if env.refuse > 0 {
					env.refuse--
					return fmt.Errorf("the API server is not well")
				}
				if claim.UID == "" {
					claim.UID = types.UID(claim.Name)
				}
				if env.unanswered > 0 {
					env.unanswered--
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
	env.provider = &sizes{list: list}
	env.cluster = state.NewCluster(env.clock, env.kube, env.provider)
	env.p = New(env.ctx, Config{
		Kube: env.kube, Provider: env.provider, Cluster: env.cluster, Recorder: env.events, Clock: env.clock,
		Karpenter: karpprovisioning.NewProvisioner(env.kube, env.events, env.provider, env.cluster, env.clock, nil, nil),
	})
	if len(pools) == 0 {
		pools = []*karpv1.NodePool{pool("default")}
	}
	for _, np := range pools {
		env.apply(np)
	}
	return env
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

// of makes a workload the controller of a pod.
func of(workload string) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		yes := true
		p.OwnerReferences = []metav1.OwnerReference{{APIVersion: "apps/v1", Kind: "ReplicaSet", Name: workload, UID: types.UID(workload), Controller: &yes}}
	}
}

// untried makes a pod one that the scheduler has not tried yet.
func untried(p *corev1.Pod) { p.Status.Conditions = nil }

// labelled gives a pod an app label.
func labelled(app string) func(*corev1.Pod) {
	return func(p *corev1.Pod) { p.Labels = map[string]string{"app": app} }
}

// apart gives a pod a required anti-affinity to the pods of an app, by host.
func apart(app string, edit ...func(*corev1.PodAffinityTerm)) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		t := corev1.PodAffinityTerm{TopologyKey: corev1.LabelHostname, LabelSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": app}}}
		for _, e := range edit {
			e(&t)
		}
		p.Spec.Affinity = &corev1.Affinity{PodAntiAffinity: &corev1.PodAntiAffinity{RequiredDuringSchedulingIgnoredDuringExecution: []corev1.PodAffinityTerm{t}}}
	}
}

// apply writes objects to the API, the snapshot cache and the cluster state, as the watch
// would.
func (env *testEnv) apply(objects ...client.Object) {
	env.t.Helper()
	for _, o := range objects {
		copied := o.DeepCopyObject().(client.Object)
		copied.SetResourceVersion("")
		err := env.kube.Create(env.ctx, copied)
		if err != nil {
			if err = env.kube.Get(env.ctx, client.ObjectKeyFromObject(o), copied); err != nil {
				env.t.Fatal(err)
			}
			o.SetResourceVersion(copied.GetResourceVersion())
			if err = env.kube.Update(env.ctx, o); err != nil {
				env.t.Fatal(err)
			}
		}
		if pod, ok := o.(*corev1.Pod); ok {
			env.p.noteBound(pod)
		}
		if err := env.p.cache.Upsert(o); err != nil {
			env.t.Fatal(err)
		}
		switch o := o.(type) {
		case *corev1.Node:
			if err := env.cluster.UpdateNode(env.ctx, o); err != nil {
				env.t.Fatal(err)
			}
		case *karpv1.NodeClaim:
			env.cluster.UpdateNodeClaim(o)
		case *corev1.Pod:
			if err := env.cluster.UpdatePod(env.ctx, o); err != nil {
				env.t.Fatal(err)
			}
		}
	}
}

func (env *testEnv) pass() {
	env.t.Helper()
	if err := env.p.Pass(env.ctx); err != nil {
		env.t.Fatal(err)
	}
}

func (env *testEnv) claims() []karpv1.NodeClaim {
	env.t.Helper()
	list := &karpv1.NodeClaimList{}
	if err := env.kube.List(env.ctx, list); err != nil {
		env.t.Fatal(err)
	}
	return list.Items
}

// applyMachine applies an initialized node with the given cpu and its NodeClaim.
func (env *testEnv) applyMachine(name, cpu string) {
	env.t.Helper()
	labels := map[string]string{
		karpv1.NodePoolLabelKey: "default", karpv1.CapacityTypeLabelKey: "on-demand", corev1.LabelInstanceTypeStable: "Standard_D4s_v5",
		corev1.LabelArchStable: "amd64", corev1.LabelOSStable: "linux", corev1.LabelTopologyZone: "eastus-1", corev1.LabelHostname: name,
		karpv1.NodeRegisteredLabelKey: "true", karpv1.NodeInitializedLabelKey: "true",
	}
	claim := &karpv1.NodeClaim{ObjectMeta: metav1.ObjectMeta{Name: "claim-" + name, UID: types.UID("claim-" + name), Labels: labels}}
	claim.Status.ProviderID, claim.Status.NodeName = "azure:///"+name, name
	for _, c := range []string{karpv1.ConditionTypeLaunched, karpv1.ConditionTypeRegistered, karpv1.ConditionTypeInitialized} {
		claim.StatusConditions().SetTrue(c)
	}
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, UID: types.UID(name), Labels: labels}, Spec: corev1.NodeSpec{ProviderID: claim.Status.ProviderID}}
	node.Status.Allocatable = corev1.ResourceList{corev1.ResourceCPU: resource.MustParse(cpu), corev1.ResourceMemory: resource.MustParse("14Gi"), corev1.ResourcePods: resource.MustParse("50")}
	node.Status.Capacity = node.Status.Allocatable
	node.Status.Conditions = ready
	env.apply(claim, node)
}

// registerAll launches the machines of all NodeClaims that have none, and applies their
// initialized nodes.
func (env *testEnv) registerAll() {
	env.t.Helper()
	for _, claim := range env.claims() {
		if claim.Status.ProviderID != "" {
			continue
		}
		claim.Status.ProviderID = "azure:///" + claim.Name
		claim.Status.NodeName = claim.Name
		claim.Status.Capacity = corev1.ResourceList{}
		var size string
		for _, r := range claim.Spec.Requirements {
			if r.Key == corev1.LabelInstanceTypeStable {
				size = r.Values[0]
			}
		}
		labels := map[string]string{corev1.LabelHostname: claim.Name, corev1.LabelInstanceTypeStable: size, karpv1.NodeRegisteredLabelKey: "true", karpv1.NodeInitializedLabelKey: "true"}
		for k, v := range claim.Labels {
			labels[k] = v
		}
		node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: claim.Name, UID: types.UID(claim.Name), Labels: labels}, Spec: corev1.NodeSpec{ProviderID: claim.Status.ProviderID}}
		for _, it := range env.provider.list {
			if it.Name == size {
				node.Status.Capacity, node.Status.Allocatable = it.Capacity, it.Allocatable()
				claim.Status.Capacity, claim.Status.Allocatable = it.Capacity, it.Allocatable()
			}
		}
		env.apply(&claim, node)
	}
}

// applyReady applies an initialized, empty node for a NodeClaim.
func (env *testEnv) applyReady(claim *karpv1.NodeClaim, name string) {
	env.t.Helper()
	up := claim.DeepCopy()
	up.Status.ProviderID, up.Status.NodeName = "azure:///"+name, name
	up.Labels[corev1.LabelInstanceTypeStable] = "Standard_D2s_v5"
	for _, c := range []string{karpv1.ConditionTypeLaunched, karpv1.ConditionTypeRegistered, karpv1.ConditionTypeInitialized} {
		up.StatusConditions().SetTrue(c)
	}
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{
		karpv1.NodeInitializedLabelKey: "true", karpv1.NodeRegisteredLabelKey: "true", karpv1.NodePoolLabelKey: "default", corev1.LabelArchStable: "amd64",
		corev1.LabelOSStable: "linux", karpv1.CapacityTypeLabelKey: "on-demand", corev1.LabelTopologyZone: "eastus-1", corev1.LabelHostname: name}}}
	node.Spec.ProviderID = up.Status.ProviderID
	node.Status.Allocatable = corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("2"), corev1.ResourceMemory: resource.MustParse("8Gi"), corev1.ResourcePods: resource.MustParse("30")}
	node.Status.Capacity = node.Status.Allocatable
	env.apply(up, node)
}

// ready are the conditions of a node that is ready.
var ready = []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}}

// launch applies the unregistered node of a NodeClaim, ready but for the taints. It
// returns the claim with its provider ID, which the API server does not have yet.
func (env *testEnv) launch(claim karpv1.NodeClaim, node string, taints ...corev1.Taint) *karpv1.NodeClaim {
	env.t.Helper()
	env.apply(&corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: node, UID: types.UID(node), CreationTimestamp: metav1.NewTime(env.clock.Now())},
		Spec:       corev1.NodeSpec{ProviderID: "azure:///" + node, Taints: append(taints, karpv1.UnregisteredNoExecuteTaint)},
		Status:     corev1.NodeStatus{Conditions: ready},
	})
	launched := claim.DeepCopy()
	launched.Status.ProviderID = "azure:///" + node
	return launched
}

// bind binds a pod to a node, as the scheduler would.
func (env *testEnv) bind(name, cpu, node string) {
	env.apply(pod(name, cpu, func(p *corev1.Pod) {
		p.Spec.NodeName = node
		p.Status = corev1.PodStatus{Phase: corev1.PodRunning}
	}))
}

// applyAssumed applies a pending pod and assumes it on a node.
func (env *testEnv) applyAssumed(name, cpu, node string) {
	env.t.Helper()
	env.apply(pod(name, cpu))
	env.assume(name, node)
}

// assume assumes a pending pod on a node.
func (env *testEnv) assume(name, node string) {
	env.t.Helper()
	env.p.assumePod(pod(name, "1"), node, env.p.kindOf(node), env.p.cache.Assume)
	if !env.assumed("shop/" + name) {
		env.t.Fatalf("pod %s is not assumed: it is not pending", name)
	}
}

func (env *testEnv) assumed(key string) bool {
	_, ok := env.p.cache.AssumedOn(key)
	return ok
}

func (env *testEnv) nominated(name string) string {
	env.t.Helper()
	got := &corev1.Pod{}
	if err := env.kube.Get(env.ctx, client.ObjectKey{Namespace: "shop", Name: name}, got); err != nil {
		env.t.Fatal(err)
	}
	return got.Status.NominatedNodeName
}
