// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package provisioning

import (
	"fmt"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestRepelsByRequiredAntiAffinity(t *testing.T) {
	elsewhere := func(p *corev1.Pod) { p.Namespace = "elsewhere" }
	for _, x := range []struct {
		name string
		a, b *corev1.Pod
		want bool
	}{
		{"no anti-affinity", pod("a", "1"), pod("b", "1", labelled("x")), false},
		{"the term selects it", pod("a", "1", apart("x")), pod("b", "1", labelled("x")), true},
		{"the term selects others", pod("a", "1", apart("y")), pod("b", "1", labelled("x")), false},
		{"only the other pod has a term", pod("a", "1", labelled("x")), pod("b", "1", apart("x")), false},
		{"another namespace", pod("a", "1", apart("x")), pod("b", "1", labelled("x"), elsewhere), false},
		{"a namespace that the term names", pod("a", "1", apart("x", func(t *corev1.PodAffinityTerm) { t.Namespaces = []string{"elsewhere"} })), pod("b", "1", labelled("x"), elsewhere), true},
		{"the term names other namespaces", pod("a", "1", apart("x", func(t *corev1.PodAffinityTerm) { t.Namespaces = []string{"elsewhere"} })), pod("b", "1", labelled("x")), false},
		{"all namespaces", pod("a", "1", apart("x", func(t *corev1.PodAffinityTerm) { t.NamespaceSelector = &metav1.LabelSelector{} })), pod("b", "1", labelled("x"), elsewhere), true},
		{"a term on zones", pod("a", "1", apart("x", func(t *corev1.PodAffinityTerm) { t.TopologyKey = corev1.LabelTopologyZone })), pod("b", "1", labelled("x")), false},
		{"a term without selector", pod("a", "1", apart("x", func(t *corev1.PodAffinityTerm) { t.LabelSelector = nil })), pod("b", "1", labelled("x")), false},
	} {
		if got := repels(x.a, x.b); got != x.want {
			t.Errorf("%s: %t, want %t", x.name, got, x.want)
		}
	}
}

// The scheduler binds some of the pods that exclude each other to machines planned for
// others. The pods left over are excluded from their machines and get the empty ones,
// without another NodeClaim.
func TestExcludedPodsExchangeMachines(t *testing.T) {
	port := func(p *corev1.Pod) {
		p.Spec.Containers[0].Ports = []corev1.ContainerPort{{ContainerPort: 80, HostPort: 8080, Protocol: corev1.ProtocolTCP}}
	}
	for name, exclusive := range map[string]func(*corev1.Pod){"anti-affinity": apart("x"), "host ports": port} {
		t.Run(name, func(t *testing.T) {
			env := newEnv(t)
			const n = 6
			for i := range n {
				env.apply(pod(fmt.Sprintf("p-%d", i), "900m", labelled("x"), exclusive))
			}
			env.pass()
			claims := env.claims()
			if len(claims) != n {
				t.Fatalf("%d machines for %d pods that exclude each other", len(claims), n)
			}
			planned := map[string]string{}
			for key, to := range env.p.cache.AssumedPods() {
				planned[key] = to
			}
			for i := range claims {
				env.applyReady(&claims[i], fmt.Sprintf("n-%d", i))
			}
			env.pass()
			nodeOf := map[string]string{}
			for i := range claims {
				nodeOf[claims[i].Name] = fmt.Sprintf("n-%d", i)
			}
			taken := map[string]bool{}
			// Each even pod is bound to the machine of the next one.
			for i := 0; i < n; i += 2 {
				bound := pod(fmt.Sprintf("p-%d", i), "900m", labelled("x"), exclusive)
				to := planned[fmt.Sprintf("shop/p-%d", i+1)]
				if nodeOf[to] != "" {
					to = nodeOf[to]
				}
				bound.Spec.NodeName, bound.Status.Phase, bound.Status.Conditions = to, corev1.PodRunning, nil
				taken[to] = true
				env.apply(bound)
			}
			env.clock.Step(crowdedTimeout / 2)
			env.pass()
			env.clock.Step(2 * crowdedTimeout)
			env.pass()
			if got := len(env.claims()); got != n {
				t.Errorf("%d machines, want %d after the pods have been exchanged", n, got)
			}
			for _, to := range env.p.cache.AssumedPods() {
				if nodeOf[to] != "" {
					to = nodeOf[to]
				}
				if taken[to] {
					t.Errorf("%s has a pod or an assumed pod, and another is assumed on it", to)
				}
				taken[to] = true
			}
			if len(taken) != n {
				t.Errorf("%d machines have a pod or an assumed pod, want %d", len(taken), n)
			}
		})
	}
}
