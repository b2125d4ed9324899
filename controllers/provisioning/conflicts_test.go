package provisioning

import (
	"fmt"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	karpv1 "sigs.k8s.io/karpenter/pkg/apis/v1"
)

// labelled gives a pod an app label, and apart a rule that keeps it from sharing a
// host with an app's pods.
func labelled(app string) func(*corev1.Pod) {
	return func(p *corev1.Pod) { p.Labels = map[string]string{"app": app} }
}

func apart(app string, edit ...func(*corev1.PodAffinityTerm)) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		t := corev1.PodAffinityTerm{TopologyKey: corev1.LabelHostname, LabelSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": app}}}
		for _, e := range edit {
			e(&t)
		}
		p.Spec.Affinity = &corev1.Affinity{PodAntiAffinity: &corev1.PodAntiAffinity{RequiredDuringSchedulingIgnoredDuringExecution: []corev1.PodAffinityTerm{t}}}
	}
}

func TestWhoKeepsOffWhom(t *testing.T) {
	elsewhere := func(p *corev1.Pod) { p.Namespace = "elsewhere" }
	for _, x := range []struct {
		name string
		a, b *corev1.Pod
		want bool
	}{
		{"no rule", pod("a", "1"), pod("b", "1", labelled("x")), false},
		{"the rule selects it", pod("a", "1", apart("x")), pod("b", "1", labelled("x")), true},
		{"the rule selects others", pod("a", "1", apart("y")), pod("b", "1", labelled("x")), false},
		{"the rule is the other's", pod("a", "1", labelled("x")), pod("b", "1", apart("x")), false},
		{"another namespace", pod("a", "1", apart("x")), pod("b", "1", labelled("x"), elsewhere), false},
		{"a namespace that is named", pod("a", "1", apart("x", func(t *corev1.PodAffinityTerm) { t.Namespaces = []string{"elsewhere"} })), pod("b", "1", labelled("x"), elsewhere), true},
		{"others are named, not its own", pod("a", "1", apart("x", func(t *corev1.PodAffinityTerm) { t.Namespaces = []string{"elsewhere"} })), pod("b", "1", labelled("x")), false},
		{"every namespace", pod("a", "1", apart("x", func(t *corev1.PodAffinityTerm) { t.NamespaceSelector = &metav1.LabelSelector{} })), pod("b", "1", labelled("x"), elsewhere), true},
		{"zones are not hosts", pod("a", "1", apart("x", func(t *corev1.PodAffinityTerm) { t.TopologyKey = corev1.LabelTopologyZone })), pod("b", "1", labelled("x")), false},
		{"no selector selects nothing", pod("a", "1", apart("x", func(t *corev1.PodAffinityTerm) { t.LabelSelector = nil })), pod("b", "1", labelled("x")), false},
	} {
		if got := repels(x.a, x.b); got != x.want {
			t.Errorf("%s: %t, want %t", x.name, got, x.want)
		}
	}
}

// The scheduler puts pods that exclude each other on each other's machines, and
// one of them where nobody was planned: those left find their places forbidden, and
// the machines that stayed empty are theirs. Nothing more is bought.
func TestPodsThatFindTheirPlaceForbiddenTakeAnother(t *testing.T) {
	port := func(p *corev1.Pod) {
		p.Spec.Containers[0].Ports = []corev1.ContainerPort{{ContainerPort: 80, HostPort: 8080, Protocol: corev1.ProtocolTCP}}
	}
	for name, exclusive := range map[string]func(*corev1.Pod){"anti-affinity": apart("x"), "host ports": port} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			const n = 6
			for i := range n {
				w.apply(pod(fmt.Sprintf("p-%d", i), "900m", labelled("x"), exclusive))
			}
			w.pass()
			claims := w.claims()
			if len(claims) != n {
				t.Fatalf("%d machines for %d pods that exclude each other", len(claims), n)
			}
			promised := map[string]string{}
			for key, to := range w.p.cache.AssumedPods() {
				promised[key] = to
			}
			for i := range claims {
				w.ready(&claims[i], fmt.Sprintf("n-%d", i))
			}
			w.pass()
			nodeOf := map[string]string{}
			for i := range claims {
				nodeOf[claims[i].Name] = fmt.Sprintf("n-%d", i)
			}
			taken := map[string]bool{}
			// Each even pod takes the machine of the next one.
			for i := 0; i < n; i += 2 {
				bound := pod(fmt.Sprintf("p-%d", i), "900m", labelled("x"), exclusive)
				to := promised[fmt.Sprintf("shop/p-%d", i+1)]
				if nodeOf[to] != "" {
					to = nodeOf[to]
				}
				bound.Spec.NodeName, bound.Status.Phase, bound.Status.Conditions = to, corev1.PodRunning, nil
				taken[to] = true
				w.apply(bound)
			}
			w.clock.Step(crowdedTimeout / 2)
			w.pass()
			w.clock.Step(2 * crowdedTimeout)
			w.pass()
			if got := len(w.claims()); got != n {
				t.Errorf("%d machines, %d when the pods had been exchanged", n, got)
			}
			for _, to := range w.p.cache.AssumedPods() {
				if nodeOf[to] != "" {
					to = nodeOf[to]
				}
				if taken[to] {
					t.Errorf("%s is promised, and has or is promised another", to)
				}
				taken[to] = true
			}
			if len(taken) != n {
				t.Errorf("%d pods have a machine or are promised one, want %d", len(taken), n)
			}
		})
	}
}

// ready plays a claim whose machine is up, empty and open.
func (w *world) ready(claim *karpv1.NodeClaim, name string) {
	w.t.Helper()
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
	w.apply(up, node)
}
