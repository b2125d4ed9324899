// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package provisioning

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"sigs.k8s.io/controller-runtime/pkg/client"
	karpv1 "sigs.k8s.io/karpenter/pkg/apis/v1"
)

func TestEventsThatTriggerOrExtendAPass(t *testing.T) {
	env := newEnv(t)
	env.p.Nominate = true
	signal := func(c chan struct{}) bool {
		select {
		case <-c:
			return true
		default:
			return false
		}
	}
	expect := func(what string, old, now client.Object, trigger, extend bool) {
		t.Helper()
		env.p.wake(old, now)
		if gotTrigger, gotExtend := signal(env.p.batch.triggers), signal(env.p.batch.more); gotTrigger != trigger || gotExtend != extend {
			t.Errorf("%s: triggers a pass %t, extends it %t; want %t and %t", what, gotTrigger, gotExtend, trigger, extend)
		}
	}
	fresh, refused := pod("a", "900m", of("web"), untried), pod("a", "900m", of("web"))
	expect("a pod appears", nil, fresh, false, true)
	expect("the status of the pod changes", fresh, fresh, false, false)
	expect("the scheduler refuses the pod", fresh, refused, true, false)
	expect("the scheduler refuses another pod of the workload", pod("b", "900m", of("web"), untried), pod("b", "900m", of("web")), true, false)
	expect("the scheduler refuses a pod of another workload", pod("c", "900m", of("db"), untried), pod("c", "900m", of("db")), true, false)
	expect("the scheduler refuses the pod again", refused, refused, true, false)
	env.apply(refused)
	env.pass()
	expect("the scheduler refuses an assumed pod", fresh, refused, false, false)
	expect("a pod appears while others are refused", nil, pod("d", "900m", of("db"), untried), true, true)

	node, disrupted := &corev1.Node{}, &corev1.Node{Spec: corev1.NodeSpec{Taints: []corev1.Taint{karpv1.DisruptedNoScheduleTaint}}}
	expect("a node changes", node, node, false, false)
	expect("a node is being disrupted", node, disrupted, true, true)
	expect("a node being disrupted changes", disrupted, disrupted, false, false)
	offering, counted, other := pool("default"), pool("default"), pool("default")
	counted.Status.Conditions = offering.Status.Conditions
	counted.Status.Resources = corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("8")}
	other.Status.Conditions = offering.Status.Conditions
	other.Spec.Template.Spec.Requirements = nil
	expect("a NodePool appears", nil, offering, true, true)
	expect("the resources in use of a NodePool change", offering, counted, false, false)
	expect("the requirements of a NodePool change", offering, other, true, true)
	expect("the node class of a NodePool gets ready", &karpv1.NodePool{Spec: offering.Spec}, &karpv1.NodePool{Spec: offering.Spec, Status: offering.Status}, true, true)
}
