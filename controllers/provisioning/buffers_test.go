// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package provisioning

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	autoscalingv1beta1 "sigs.k8s.io/karpenter/pkg/apis/autoscaling/v1beta1"
	"sigs.k8s.io/karpenter/pkg/controllers/capacitybuffer"
	"sigs.k8s.io/karpenter/pkg/state/virtualpods"
)

// bufferEnv returns an environment with a ready buffer of one-core placeholders.
func bufferEnv(t *testing.T, replicas int32) (*testEnv, *autoscalingv1beta1.CapacityBuffer) {
	env := newEnv(t)
	env.p.features.CapacityBuffer = true
	env.p.Buffers = virtualpods.NewVirtualPodCache(env.kube)
	buffer := &autoscalingv1beta1.CapacityBuffer{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "spare", UID: "spare"}}
	buffer.Spec.PodTemplateRef = &autoscalingv1beta1.LocalObjectRef{Name: "spare"}
	buffer.Status.Replicas = &replicas
	buffer.SetCondition(autoscalingv1beta1.ReadyForProvisioningCondition, metav1.ConditionTrue, capacitybuffer.ReasonResolved, "")
	template := &corev1.PodTemplate{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "spare"}, Template: corev1.PodTemplateSpec{Spec: pod("spare", "1").Spec}}
	for _, o := range []client.Object{template, buffer} {
		if err := env.kube.Create(env.ctx, o); err != nil {
			t.Fatal(err)
		}
	}
	return env, buffer
}

// provisioning returns status and reason of the buffer's Provisioning condition.
func (env *testEnv) provisioning(buffer *autoscalingv1beta1.CapacityBuffer) (metav1.ConditionStatus, string) {
	env.t.Helper()
	if err := env.kube.Get(env.ctx, client.ObjectKeyFromObject(buffer), buffer); err != nil {
		env.t.Fatal(err)
	}
	c := apimeta.FindStatusCondition(buffer.Status.Conditions, autoscalingv1beta1.ProvisioningCondition)
	if c == nil {
		return "", ""
	}
	return c.Status, c.Reason
}

func TestBufferConditionFollowsItsCapacity(t *testing.T) {
	env, buffer := bufferEnv(t, 3)
	env.pass()
	if n := len(env.claims()); n == 0 {
		t.Fatal("no NodeClaim for the buffer")
	}
	if status, reason := env.provisioning(buffer); status != metav1.ConditionFalse || reason != capacitybuffer.ReasonRequiresNewCapacity {
		t.Errorf("condition after the pass that buys for the buffer: %s %s", status, reason)
	}
	before := len(env.claims())
	env.registerAll()
	env.pass()
	if n := len(env.claims()); n != before {
		t.Errorf("%d NodeClaims, %d before: want none bought again for the same buffer", n, before)
	}
	if status, reason := env.provisioning(buffer); status != metav1.ConditionTrue || reason != capacitybuffer.ReasonFitsExistingCapacity {
		t.Errorf("condition with initialized machines: %s %s", status, reason)
	}
	version := buffer.ResourceVersion
	env.pass()
	env.provisioning(buffer)
	if buffer.ResourceVersion != version {
		t.Error("a pass that changes nothing wrote the buffer's status")
	}
}

func TestPlaceholdersMakeAMachineNonEmptyButDoNotNominateIt(t *testing.T) {
	env, buffer := bufferEnv(t, 1)
	env.pass()
	env.registerAll()
	env.pass()
	id := env.claims()[0].Status.ProviderID
	if !env.cluster.HasBufferPods(id) {
		t.Error("the machine that holds a placeholder counts as empty")
	}
	if env.cluster.IsNodeNominated(id) {
		t.Error("a placeholder nominated the machine: it could never drift")
	}
	if err := env.kube.Delete(env.ctx, buffer); err != nil {
		t.Fatal(err)
	}
	env.p.Buffers.RemoveEntry(client.ObjectKeyFromObject(buffer))
	env.pass()
	if env.cluster.HasBufferPods(id) {
		t.Error("the machine of a deleted buffer still counts as in use")
	}
}

func TestBufferWithoutReplicasIsReportedEmpty(t *testing.T) {
	env, buffer := bufferEnv(t, 0)
	env.pass()
	if status, reason := env.provisioning(buffer); status != metav1.ConditionFalse || reason != capacitybuffer.ReasonBufferEmpty {
		t.Errorf("condition of a buffer without replicas: %s %s", status, reason)
	}
}

func TestBufferTriggersPass(t *testing.T) {
	env, buffer := bufferEnv(t, 1)
	for _, wake := range []func(){func() { env.p.Trigger(buffer.UID) }, env.p.TriggerReconcile} {
		wake()
		select {
		case <-env.p.batch.triggers:
		default:
			t.Error("no pass was triggered")
		}
	}
}
