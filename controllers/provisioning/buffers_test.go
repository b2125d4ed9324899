package provisioning

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	autoscalingv1beta1 "sigs.k8s.io/karpenter/pkg/apis/autoscaling/v1beta1"
	karpv1 "sigs.k8s.io/karpenter/pkg/apis/v1"
	"sigs.k8s.io/karpenter/pkg/controllers/capacitybuffer"
	"sigs.k8s.io/karpenter/pkg/state/virtualpods"
)

// bufferWorld is a world with a ready buffer of that many one-core placeholders.
func bufferWorld(t *testing.T, replicas int32) (*world, *autoscalingv1beta1.CapacityBuffer) {
	w := newWorld(t)
	w.p.features.CapacityBuffer = true
	w.p.Buffers = virtualpods.NewVirtualPodCache(w.kube)
	buffer := &autoscalingv1beta1.CapacityBuffer{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "spare", UID: "spare"}}
	buffer.Spec.PodTemplateRef = &autoscalingv1beta1.LocalObjectRef{Name: "spare"}
	buffer.Status.Replicas = &replicas
	buffer.SetCondition(autoscalingv1beta1.ReadyForProvisioningCondition, metav1.ConditionTrue, capacitybuffer.ReasonResolved, "")
	template := &corev1.PodTemplate{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "spare"}, Template: corev1.PodTemplateSpec{Spec: pod("spare", "1").Spec}}
	for _, o := range []client.Object{template, buffer} {
		if err := w.kube.Create(w.ctx, o); err != nil {
			t.Fatal(err)
		}
	}
	return w, buffer
}

// provisioning reads the reason of the buffer's Provisioning condition.
func (w *world) provisioning(buffer *autoscalingv1beta1.CapacityBuffer) (metav1.ConditionStatus, string) {
	w.t.Helper()
	if err := w.kube.Get(w.ctx, client.ObjectKeyFromObject(buffer), buffer); err != nil {
		w.t.Fatal(err)
	}
	c := apimeta.FindStatusCondition(buffer.Status.Conditions, autoscalingv1beta1.ProvisioningCondition)
	if c == nil {
		return "", ""
	}
	return c.Status, c.Reason
}

// register plays the machines of all claims that have none: they launch and
// their nodes are ready.
func (w *world) register() {
	w.t.Helper()
	for _, claim := range w.claims() {
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
		for _, it := range w.provider.list {
			if it.Name == size {
				node.Status.Capacity, node.Status.Allocatable = it.Capacity, it.Allocatable()
				claim.Status.Capacity, claim.Status.Allocatable = it.Capacity, it.Allocatable()
			}
		}
		w.apply(&claim, node)
	}
}

func TestABufferIsToldWhetherItsRoomIsThere(t *testing.T) {
	w, buffer := bufferWorld(t, 3)
	w.pass()
	if n := len(w.claims()); n == 0 {
		t.Fatal("no machine for the buffer")
	}
	if status, reason := w.provisioning(buffer); status != metav1.ConditionFalse || reason != capacitybuffer.ReasonRequiresNewCapacity {
		t.Errorf("after the pass that buys for it: %s %s", status, reason)
	}
	before := len(w.claims())
	w.register()
	w.pass()
	if n := len(w.claims()); n != before {
		t.Errorf("%d NodeClaims, %d before: bought again for the same buffer", n, before)
	}
	if status, reason := w.provisioning(buffer); status != metav1.ConditionTrue || reason != capacitybuffer.ReasonFitsExistingCapacity {
		t.Errorf("with its machines there: %s %s", status, reason)
	}
	version := buffer.ResourceVersion
	w.pass()
	w.provisioning(buffer)
	if buffer.ResourceVersion != version {
		t.Error("a pass that changes nothing wrote the buffer's status")
	}
}

func TestPlaceholdersKeepAMachineFromBeingEmptyButNotFromBeingReplaced(t *testing.T) {
	w, buffer := bufferWorld(t, 1)
	w.pass()
	w.register()
	w.pass()
	id := w.claims()[0].Status.ProviderID
	if !w.cluster.HasBufferPods(id) {
		t.Error("the machine that holds a placeholder counts as empty")
	}
	if w.cluster.IsNodeNominated(id) {
		t.Error("a placeholder nominated the machine: it could never drift")
	}
	if err := w.kube.Delete(w.ctx, buffer); err != nil {
		t.Fatal(err)
	}
	w.p.Buffers.RemoveEntry(client.ObjectKeyFromObject(buffer))
	w.pass()
	if w.cluster.HasBufferPods(id) {
		t.Error("the buffer is gone and its machine still counts as in use")
	}
}

func TestAnEmptyBufferIsToldSo(t *testing.T) {
	w, buffer := bufferWorld(t, 0)
	w.pass()
	if status, reason := w.provisioning(buffer); status != metav1.ConditionFalse || reason != capacitybuffer.ReasonBufferEmpty {
		t.Errorf("a buffer of no replicas: %s %s", status, reason)
	}
}

func TestABufferWakesTheProvisioner(t *testing.T) {
	w, buffer := bufferWorld(t, 1)
	for _, wake := range []func(){func() { w.p.Trigger(buffer.UID) }, w.p.TriggerReconcile} {
		wake()
		select {
		case <-w.p.batch.triggers:
		default:
			t.Error("no pass was asked for")
		}
	}
}
