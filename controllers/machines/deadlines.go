// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package machines

import (
	"context"
	"fmt"
	"time"

	"github.com/awslabs/operatorpkg/status"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	karpv1 "sigs.k8s.io/karpenter/pkg/apis/v1"
	"sigs.k8s.io/karpenter/pkg/events"
	"sigs.k8s.io/karpenter/pkg/metrics"
	nodeutils "sigs.k8s.io/karpenter/pkg/utils/node"
	nodeclaimutils "sigs.k8s.io/karpenter/pkg/utils/nodeclaim"
)

// Deadlines are the longest times that a machine may take for each step. A value that
// is not positive means no deadline for that step.
type Deadlines struct {
	// Launch counts from the creation of the NodeClaim until its machine runs.
	Launch time.Duration
	// Registration counts from then until the machine's node has registered.
	Registration time.Duration
	// Initialization counts from then until the node is ready, without startup taints
	// and with all resources that the NodeClaim requests.
	Initialization time.Duration
}

// Default deadlines. Karpenter's own deadline for registration, 15 minutes after the
// creation, cannot be set; these come first, so that every end has an event.
const (
	LaunchDeadline         = 5 * time.Minute
	RegistrationDeadline   = 9 * time.Minute
	InitializationDeadline = 15 * time.Minute
)

// step is a part of the start of a machine.
type step struct {
	condition string // of the NodeClaim, true at the end of the step
	before    string // condition whose transition starts the clock; "" means the creation of the claim
	within    func(Deadlines) time.Duration
	event     string // reason of the event about a missed deadline
	metric    string // reason in Karpenter's metric of disrupted NodeClaims
	did       string // what the machine did not do, for the event
}

var steps = []step{
	{karpv1.ConditionTypeLaunched, "", func(d Deadlines) time.Duration { return d.Launch }, "LaunchTimeout", metrics.LaunchTimeoutReason, "The machine did not start"},
	{karpv1.ConditionTypeRegistered, karpv1.ConditionTypeLaunched, func(d Deadlines) time.Duration { return d.Registration }, "RegistrationTimeout", metrics.RegistrationTimeoutReason, "The machine started, but its node did not register"},
	{karpv1.ConditionTypeInitialized, karpv1.ConditionTypeRegistered, func(d Deadlines) time.Duration { return d.Initialization }, "InitializationTimeout", "initialization_timeout", "The node registered, but was not initialized"},
}

// DeadlineController deletes NodeClaims whose machine misses a deadline of its start.
// Their pods are then planned for again.
//
// Invariant: a claim that is initialized is never deleted here, whatever becomes of its
// node; and a claim is deleted only after an event has said why.
type DeadlineController struct {
	kube      client.Client
	recorder  events.Recorder
	clock     clock.Clock
	deadlines Deadlines
}

// NewDeadlines returns the controller.
func NewDeadlines(kube client.Client, recorder events.Recorder, c clock.Clock, d Deadlines) *DeadlineController {
	return &DeadlineController{kube, recorder, c, d}
}

// Register adds the controller to the manager.
func (c *DeadlineController) Register(_ context.Context, m manager.Manager) error {
	return ctrl.NewControllerManagedBy(m).Named("nodeclaim.deadlines").
		Watches(&karpv1.NodeClaim{}, &handler.EnqueueRequestForObject{}).
		WithOptions(controller.Options{MaxConcurrentReconciles: 10}).
		Complete(reconcile.AsReconciler(m.GetClient(), c))
}

// Reconcile deletes the claim if it is late, and otherwise returns when it will be.
func (c *DeadlineController) Reconcile(ctx context.Context, claim *karpv1.NodeClaim) (reconcile.Result, error) {
	if !claim.DeletionTimestamp.IsZero() || condition(claim, karpv1.ConditionTypeRebooting).IsTrue() {
		return reconcile.Result{}, nil
	}
	late, left := c.late(claim)
	if late == nil {
		return reconcile.Result{RequeueAfter: left}, nil
	}
	node, err := c.nodeOf(ctx, claim)
	if err != nil {
		return reconcile.Result{}, err
	}
	message := fmt.Sprintf("%s within %s: %s. The machine is replaced", late.did, late.within(c.deadlines), c.cause(claim, node, late.condition))
	for _, o := range about(claim, node) {
		c.recorder.Publish(events.Event{InvolvedObject: o, Type: corev1.EventTypeWarning, Reason: late.event, Message: message, DedupeValues: []string{string(claim.UID), late.event, string(o.GetUID())}})
	}
	// The resource version keeps a claim that has finished the step meanwhile.
	uid, version := claim.UID, claim.ResourceVersion
	if err := c.kube.Delete(ctx, claim, client.Preconditions{UID: &uid, ResourceVersion: &version}); err != nil {
		return reconcile.Result{}, client.IgnoreNotFound(fmt.Errorf("deleting NodeClaim %s, which missed its deadline: %w", claim.Name, err))
	}
	log.FromContext(ctx).Info("deleted nodeclaim that missed a deadline", "nodeClaim", claim.Name, "reason", late.event, "cause", message)
	metrics.NodeClaimsDisruptedTotal.Inc(map[string]string{
		metrics.ReasonLabel: late.metric, metrics.NodePoolLabel: claim.Labels[karpv1.NodePoolLabelKey], metrics.CapacityTypeLabel: claim.Labels[karpv1.CapacityTypeLabelKey],
		metrics.ConsolidationPolicyLabel: "", metrics.TerminationModeLabel: nodeclaimutils.DisruptionTerminationMode(claim),
	})
	return reconcile.Result{}, nil
}

// late returns the step whose deadline the claim has missed, or how long is left for
// the step that it is at; zero if there is nothing to wait for.
func (c *DeadlineController) late(claim *karpv1.NodeClaim) (*step, time.Duration) {
	if condition(claim, karpv1.ConditionTypeInitialized).IsTrue() {
		return nil, 0
	}
	for i := range steps {
		s := &steps[i]
		if condition(claim, s.condition).IsTrue() {
			continue
		}
		within := s.within(c.deadlines)
		if within <= 0 {
			return nil, 0 // the end of the step is an event
		}
		since := claim.CreationTimestamp.Time
		if s.before != "" {
			since = condition(claim, s.before).LastTransitionTime.Time
		}
		// A node that is rebooting is initialized a second time.
		if reset := condition(claim, s.condition); reset != nil && s.condition == karpv1.ConditionTypeInitialized && reset.LastTransitionTime.After(since) {
			since = reset.LastTransitionTime.Time
		}
		if left := within - c.clock.Since(since); left > 0 {
			return nil, left
		}
		return s, 0
	}
	return nil, 0
}

// cause returns what the claim's conditions and its node say about a step.
func (c *DeadlineController) cause(claim *karpv1.NodeClaim, node *corev1.Node, of string) string {
	text := "no cause is known"
	if cond := condition(claim, of); cond != nil && cond.Message != "" {
		text = cond.Message
	}
	if node == nil {
		return text
	}
	ready := nodeutils.GetCondition(node, corev1.NodeReady)
	switch {
	case ready.Type == "":
		return text + "; the kubelet of node " + node.Name + " has never reported"
	case ready.Status != corev1.ConditionTrue:
		return fmt.Sprintf("%s; node %s is not ready for %s: %s (%s)", text, node.Name, c.clock.Since(ready.LastTransitionTime.Time).Round(time.Second), ready.Message, ready.Reason)
	}
	return text
}

// nodeOf returns the node of a claim, nil if there is none.
func (c *DeadlineController) nodeOf(ctx context.Context, claim *karpv1.NodeClaim) (*corev1.Node, error) {
	if claim.Status.ProviderID == "" {
		return nil, nil
	}
	nodes := &corev1.NodeList{}
	if err := c.kube.List(ctx, nodes, client.MatchingFields{"spec.providerID": claim.Status.ProviderID}); err != nil {
		return nil, fmt.Errorf("listing the nodes of NodeClaim %s: %w", claim.Name, err)
	}
	if len(nodes.Items) == 0 {
		return nil, nil
	}
	return &nodes.Items[0], nil
}

// about returns the objects that exist.
func about(claim *karpv1.NodeClaim, node *corev1.Node) []client.Object {
	if node == nil {
		return []client.Object{claim}
	}
	return []client.Object{claim, node}
}

// condition returns a condition as it is stored, nil if it is not there.
func condition(claim *karpv1.NodeClaim, of string) *status.Condition {
	return claim.StatusConditions(status.WithObservedOnly()).Get(of)
}
