// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package provisioning

import (
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	karpv1 "sigs.k8s.io/karpenter/pkg/apis/v1"
	"sigs.k8s.io/karpenter/pkg/cloudprovider"
	"sigs.k8s.io/karpenter/pkg/events"

	"github.com/nap-aks/nap/apis/v1beta1"
	"github.com/nap-aks/nap/snapshot"
)

func TestPendingPodsGetNodeClaims(t *testing.T) {
	env := newEnv(t)
	env.apply(pods(40, "900m")...)
	env.pass()
	claims := env.claims()
	if len(claims) == 0 {
		t.Fatal("no NodeClaim was created")
	}
	asked := resource.Quantity{}
	for _, c := range claims {
		asked.Add(c.Spec.Resources.Requests[corev1.ResourceCPU])
		if c.Labels[karpv1.NodePoolLabelKey] != "default" || c.Labels["karpenter.azure.com/aksnodeclass"] != "default" || len(c.OwnerReferences) != 1 || c.Annotations[karpv1.NodePoolHashAnnotationKey] == "" {
			t.Errorf("claim %s lacks labels, owner or hash of its NodePool: labels %v, owners %v", c.Name, c.Labels, c.OwnerReferences)
		}
		keys := map[string][]string{}
		for _, r := range c.Spec.Requirements {
			keys[r.Key] = r.Values
		}
		if len(keys[corev1.LabelInstanceTypeStable]) < 2 || len(keys[corev1.LabelTopologyZone]) < 2 {
			t.Errorf("claim %s has %d instance types and %d zones, want alternatives", c.Name, len(keys[corev1.LabelInstanceTypeStable]), len(keys[corev1.LabelTopologyZone]))
		}
		if len(keys[karpv1.CapacityTypeLabelKey]) != 1 || keys[karpv1.CapacityTypeLabelKey][0] != "on-demand" {
			t.Errorf("claim %s: capacity types %v, want on-demand", c.Name, keys[karpv1.CapacityTypeLabelKey])
		}
	}
	if asked.MilliValue() < 40*900 {
		t.Errorf("the claims ask for %s of cpu, the pods for 36", asked.String())
	}
	if n := len(env.events.about("p-000", events.Nominated)); n != 1 {
		t.Errorf("%d Nominated events for a pod, want 1", n)
	}
}

func TestScaleUpIsPlannedAsAWhole(t *testing.T) {
	env := newEnv(t)
	env.apply(pod("refused", "900m", of("web")))
	for i := range 60 {
		env.apply(pod(fmt.Sprintf("p-%02d", i), "900m", of("web"), untried))
	}
	env.apply(pod("other", "900m", of("db"), untried), pod("bare", "900m", untried))
	env.pass()
	assumed := env.p.cache.AssumedPods()
	if len(assumed) != 63 {
		t.Errorf("%d pods are assumed, want the refused one and the 62 that wait beside it", len(assumed))
	}
	machines := len(env.claims())
	env.pass()
	if n := len(env.claims()); n != machines {
		t.Errorf("%d NodeClaims, and %d after a pass without a change", machines, n)
	}
	// The scheduler refuses them, too: nothing more is bought.
	for i := range 60 {
		env.apply(pod(fmt.Sprintf("p-%02d", i), "900m", of("web")))
	}
	env.pass()
	if n := len(env.claims()); n != machines {
		t.Errorf("%d NodeClaims, and %d after the scheduler has refused all pods", machines, n)
	}
}

func TestPodsOfNodesBeingDeletedArePlaced(t *testing.T) {
	env := newEnv(t)
	claim := &karpv1.NodeClaim{ObjectMeta: metav1.ObjectMeta{Name: "default-old", Labels: map[string]string{karpv1.NodePoolLabelKey: "default"}, Finalizers: []string{"karpenter.sh/termination"}}}
	claim.Spec.NodeClassRef = &karpv1.NodeClassReference{Group: v1beta1.Group, Kind: "AKSNodeClass", Name: "default"}
	claim.Status.ProviderID = "azure:///old"
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "old", Labels: map[string]string{karpv1.NodePoolLabelKey: "default", karpv1.NodeRegisteredLabelKey: "true", karpv1.NodeInitializedLabelKey: "true", corev1.LabelHostname: "old"}}, Spec: corev1.NodeSpec{ProviderID: "azure:///old"}}
	owner := true
	running := pod("runs", "900m", func(p *corev1.Pod) {
		p.Spec.NodeName, p.Status.Phase, p.Status.Conditions = "old", corev1.PodRunning, nil
		p.OwnerReferences = []metav1.OwnerReference{{APIVersion: "apps/v1", Kind: "ReplicaSet", Name: "rs", UID: "rs", Controller: &owner}}
	})
	env.apply(claim, node, running)
	env.pass()
	if n := len(env.claims()); n != 1 {
		t.Fatalf("%d NodeClaims, want only the old one", n)
	}
	env.cluster.MarkForDeletion("azure:///old")
	env.pass()
	if n := len(env.claims()); n != 2 {
		t.Errorf("%d NodeClaims, want one more for the pod of the node being deleted", n)
	}
	env.pass()
	if n := len(env.claims()); n != 2 {
		t.Errorf("%d NodeClaims after another pass, want no second machine for the same pod", n)
	}
}

func TestQuotasHoldAcrossPassesAndAreReported(t *testing.T) {
	env := newEnv(t)
	charges := map[string]int64{}
	for _, it := range env.provider.list {
		charges[it.Name] = it.Capacity.Cpu().Value()
	}
	used := int64(92)
	env.p.Quotas = func() []snapshot.Quota {
		return []snapshot.Quota{{Name: "cores", Title: "Total Regional vCPUs", Used: used, Limit: 100, Charges: charges, Advice: "ask for more"}}
	}
	env.apply(pods(20, "900m")...)
	env.pass()
	first := len(env.claims())
	if first == 0 {
		t.Fatal("8 vCPUs are left, and no NodeClaim was created")
	}
	message := ""
	for i := range 20 {
		for _, e := range env.events.about(fmt.Sprintf("p-%03d", i), events.FailedScheduling) {
			message = e
		}
	}
	if !strings.Contains(message, "of quota cores (Total Regional vCPUs)") || !strings.Contains(message, "left of 100") || !strings.Contains(message, "ask for more") {
		t.Errorf("event of a refused pod is %q, want the quota, what is left of it, and the advice", message)
	}
	// The cloud does not count machines that are not launched yet; the cache does.
	env.clock.Step(10 * time.Second)
	env.pass()
	if n := len(env.claims()); n != first {
		t.Errorf("%d NodeClaims after a second pass, %d after the first: the quota was spent twice", n, first)
	}
	used = 84 // machines outside of this cluster were deleted
	env.pass()
	if n := len(env.claims()); n <= first {
		t.Error("no NodeClaim was created although the quota allows one again")
	}
}

func TestNodePoolLimitsHoldAcrossPasses(t *testing.T) {
	np := pool("default")
	np.Spec.Limits = karpv1.Limits{corev1.ResourceCPU: resource.MustParse("8")}
	env := newEnv(t, np)
	for round := range 4 {
		for i := range 3 {
			env.apply(pod(fmt.Sprintf("r%d-%d", round, i), "1500m"))
		}
		env.pass()
		env.clock.Step(5 * time.Second)
	}
	byName := map[string]*cloudprovider.InstanceType{}
	for _, it := range env.provider.list {
		byName[it.Name] = it
	}
	total := int64(0)
	for _, c := range env.claims() {
		most := int64(0) // of all types that may be launched
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
		t.Errorf("the claims may become machines of %d cores, the limit is 8", total)
	}
}

func TestEveryRefusedPodGetsAnEventWithTheReason(t *testing.T) {
	env := newEnv(t)
	for i := range 30 {
		env.apply(pod(fmt.Sprintf("huge-%02d", i), "4000"))
	}
	env.apply(pod("small", "100m"))
	env.pass()
	if n := len(env.claims()); n != 1 {
		t.Errorf("%d NodeClaims, want one for the small pod", n)
	}
	for i := range 30 {
		messages := env.events.about(fmt.Sprintf("huge-%02d", i), events.FailedScheduling)
		if len(messages) != 1 || !strings.Contains(messages[0], "cpu") {
			t.Fatalf("events of pod huge-%02d are %q, want one about cpu", i, messages)
		}
	}
	if messages := env.events.about("small", events.FailedScheduling); len(messages) != 0 {
		t.Errorf("events of the small pod are %v, want none", messages)
	}
}
