// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package provisioning

import (
	"context"
	"errors"
	"fmt"

	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	autoscalingv1beta1 "sigs.k8s.io/karpenter/pkg/apis/autoscaling/v1beta1"
	"sigs.k8s.io/karpenter/pkg/controllers/capacitybuffer"
	karpprovisioning "sigs.k8s.io/karpenter/pkg/controllers/provisioning"

	"github.com/nap-aks/nap/engine"
	"github.com/nap-aks/nap/snapshot"
)

// Trigger asks for a pass because an object changed, as Karpenter's controller
// of CapacityBuffers does. It never blocks.
func (p *Provisioner) Trigger(types.UID) { p.TriggerReconcile() }

// TriggerReconcile asks for a pass for no object in particular. It never blocks.
func (p *Provisioner) TriggerReconcile() {
	p.batch.trigger()
	p.batch.extend()
}

// bufferState counts the placeholders of a buffer by where a plan puts them: on
// existing machines, on new ones or nowhere.
type bufferState struct{ existing, bought, refused int }

// bufferStates returns the state of each buffer that has placeholders in the plan.
func bufferStates(in *snapshot.Input, plan *engine.Plan) map[types.NamespacedName]*bufferState {
	out := map[types.NamespacedName]*bufferState{}
	for _, v := range plan.Verdicts {
		for _, key := range v.Pods {
			pod := in.Pods[key]
			if !karpprovisioning.IsVirtualPod(pod) {
				continue
			}
			buffer := types.NamespacedName{
				Namespace: pod.Annotations[autoscalingv1beta1.BufferNamespaceAnnotation], Name: pod.Annotations[autoscalingv1beta1.BufferNameAnnotation],
			}
			s := out[buffer]
			if s == nil {
				s = &bufferState{}
				out[buffer] = s
			}
			switch v.Outcome {
			case engine.OnNode:
				s.existing++
			case engine.OnMachine:
				s.bought++
			case engine.Refused:
				s.refused++
			}
		}
	}
	return out
}

// bufferedNodes returns the number of placeholders that a plan puts on each existing
// machine, by provider ID.
func bufferedNodes(in *snapshot.Input, plan *engine.Plan) map[string]int {
	out := map[string]int{}
	for _, placed := range plan.Placements {
		id := providerID(in.Nodes[placed.Node])
		if id == "" {
			continue
		}
		for _, g := range placed.Pods {
			for _, key := range g.Pods {
				if karpprovisioning.IsVirtualPod(in.Pods[key]) {
					out[id]++
				}
			}
		}
	}
	return out
}

// updateBuffers publishes the results of a pass for CapacityBuffers: machines with
// placeholders are not empty, and the Provisioning condition of each buffer says
// whether its capacity exists. A nil plan is that of a pass without pending pods.
func (p *Provisioner) updateBuffers(ctx context.Context, in *snapshot.Input, plan *engine.Plan) error {
	if !p.features.CapacityBuffer {
		return nil
	}
	states := map[types.NamespacedName]*bufferState{}
	nodes := map[string]int{}
	if plan != nil {
		states, nodes = bufferStates(in, plan), bufferedNodes(in, plan)
	}
	p.cluster.UpdateBufferPodCounts(nodes)
	list := &autoscalingv1beta1.CapacityBufferList{}
	if err := p.Kube.List(ctx, list); err != nil {
		return fmt.Errorf("listing CapacityBuffers: %w", err)
	}
	var errs []error
	for i := range list.Items {
		buffer := &list.Items[i]
		condition, ok := provisioningOf(buffer, states[client.ObjectKeyFromObject(buffer)])
		if !ok {
			continue
		}
		stored := buffer.DeepCopy()
		if !apimeta.SetStatusCondition(&buffer.Status.Conditions, condition) {
			continue
		}
		err := p.Kube.Status().Patch(ctx, buffer, client.MergeFromWithOptions(stored, client.MergeFromWithOptimisticLock{}))
		if client.IgnoreNotFound(err) != nil {
			errs = append(errs, fmt.Errorf("writing the Provisioning condition of CapacityBuffer %s/%s: %w", buffer.Namespace, buffer.Name, err))
		}
	}
	return errors.Join(errs...)
}

// provisioningOf returns the Provisioning condition of a buffer; false if the pass
// does not show it.
func provisioningOf(buffer *autoscalingv1beta1.CapacityBuffer, s *bufferState) (metav1.Condition, bool) {
	c := metav1.Condition{Type: autoscalingv1beta1.ProvisioningCondition, Status: metav1.ConditionFalse, ObservedGeneration: buffer.Generation}
	want := 0
	if buffer.Status.Replicas != nil {
		want = int(*buffer.Status.Replicas)
	}
	switch {
	case !apimeta.IsStatusConditionTrue(buffer.Status.Conditions, autoscalingv1beta1.ReadyForProvisioningCondition):
		c.Reason, c.Message = capacitybuffer.ReasonNotReadyForProvisioning, "the pods of the buffer are not known, see ReadyForProvisioning"
	case want == 0:
		c.Reason, c.Message = capacitybuffer.ReasonBufferEmpty, "the buffer has no replicas"
	case s == nil:
		return c, false
	case s.bought+s.refused > 0:
		c.Reason = capacitybuffer.ReasonRequiresNewCapacity
		c.Message = fmt.Sprintf("of %d replicas %d fit on existing machines, %d wait for new machines, %d fit nowhere", want, s.existing, s.bought, s.refused)
	case s.existing == want:
		c.Status, c.Reason = metav1.ConditionTrue, capacitybuffer.ReasonFitsExistingCapacity
		c.Message = fmt.Sprintf("all %d replicas fit on existing machines", want)
	default:
		return c, false
	}
	return c, true
}
