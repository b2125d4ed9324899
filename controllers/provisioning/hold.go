// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package provisioning

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/karpenter/pkg/events"

	"github.com/nap-aks/nap/snapshot"
)

// holdBack leaves those pods out of the next plan that the breaker holds, and tells why
// in an event. The scheduler still tries them on the nodes that there are.
func (p *Provisioner) holdBack() {
	now := p.Clock.Now()
	for _, key := range p.breaker.observe(p.cache.PlaceState, now) {
		p.breaker.broken(key, "the machine is gone before the pod ran on it", now)
	}
	if !p.breaker.any() {
		p.cache.Hold(nil)
		heldPods.Set(0)
		return
	}
	reasons := map[string]string{} // by shape
	held := map[string]bool{}
	for _, pod := range p.cache.Unplaced() {
		shape := snapshot.ShapeKey(pod)
		why, known := reasons[shape]
		if !known {
			why = p.breaker.held(shape, p.cache.Idle, now)
			reasons[shape] = why
		}
		if why == "" {
			continue
		}
		held[snapshot.PodKey(pod)] = true
		if !p.eventRate.TryAccept() {
			continue // a later pass reports it
		}
		p.Recorder.Publish(events.Event{
			InvolvedObject: pod, Type: corev1.EventTypeWarning, Reason: events.FailedScheduling, Message: shorten("Failed to schedule pod, " + why),
			DedupeValues: []string{string(pod.UID), why}, DedupeTimeout: 5 * time.Minute,
		})
	}
	p.cache.Hold(held)
	heldPods.Set(float64(len(held)))
}

// noteBroken tells the breaker that a pod lost its place, with what the scheduler says
// about the pod.
func (p *Provisioner) noteBroken(ctx context.Context, key, reason string) {
	why := reason
	if pod := p.podByKey(ctx, key); pod != nil {
		for _, c := range pod.Status.Conditions {
			if c.Type == corev1.PodScheduled && c.Status == corev1.ConditionFalse && c.Message != "" {
				why = fmt.Sprintf("%s, and the scheduler says %q", reason, c.Message)
			}
		}
	}
	p.breaker.broken(key, why, p.Clock.Now())
}

// kindOf returns the kind of a place: the offering of a machine that was bought, or the
// node itself.
func (p *Provisioner) kindOf(place string) string {
	bought, ok := p.purchases.all()[place]
	if !ok || len(bought.machine.Offerings) == 0 {
		return "node " + place
	}
	o := bought.machine.Offerings[0]
	return fmt.Sprintf("NodePool %s, %s %s", bought.machine.NodePool, o.InstanceType, o.CapacityType)
}

// shorten cuts the message of an event to the length that the API server takes.
func shorten(text string) string {
	if len(text) > 1000 {
		return text[:997] + "..."
	}
	return text
}
