// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package provisioning

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	karpv1 "sigs.k8s.io/karpenter/pkg/apis/v1"
	karpprovisioning "sigs.k8s.io/karpenter/pkg/controllers/provisioning"
	karpsched "sigs.k8s.io/karpenter/pkg/controllers/provisioning/scheduling"
	"sigs.k8s.io/karpenter/pkg/events"

	"github.com/nap-aks/nap/engine"
	"github.com/nap-aks/nap/snapshot"
)

// report publishes the verdict of every pod: as an event, in the metrics and in
// Karpenter's cluster state.
func (p *Provisioner) report(ctx context.Context, in *snapshot.Input, plan *engine.Plan, created []*karpv1.NodeClaim) {
	podErrors := map[*corev1.Pod]error{}
	byPool, byClaim := map[string][]*corev1.Pod{}, map[string][]*corev1.Pod{}
	verdicts.Reset()
	known := map[types.UID]bool{}
	refused := 0
	empty := sync.OnceValue(func() emptyPools { return p.emptyPools(ctx) })
	for _, v := range plan.Verdicts {
		verdicts.WithLabelValues(string(v.Outcome), string(v.Code)).Add(float64(len(v.Pods)))
		for _, key := range v.Pods {
			pod := in.Pods[key]
			if pod == nil || karpprovisioning.IsVirtualPod(pod) {
				continue // a placeholder of a buffer is not an object in the API
			}
			known[pod.UID] = true
			switch v.Outcome {
			case engine.Refused:
				refused++
				err := errors.New(empty().reason(&v))
				podErrors[pod] = err
				p.reportRefused(pod, err, traceOf(plan, v.Class))
			case engine.OnNode:
				delete(p.reported, pod.UID)
				ref := in.Nodes[v.Node]
				p.Recorder.Publish(karpsched.NominatePodEvent(pod, ref.Node, ref.Claim))
				pool := ""
				if ref.Claim != nil {
					pool = ref.Claim.Labels[karpv1.NodePoolLabelKey]
					byClaim[ref.Claim.Name] = append(byClaim[ref.Claim.Name], pod)
				}
				byPool[pool] = append(byPool[pool], pod)
			case engine.OnMachine:
				delete(p.reported, pod.UID)
				if v.Machine < 0 || v.Machine >= len(created) || created[v.Machine] == nil {
					continue // not created: the next pass places the pod
				}
				claim := created[v.Machine]
				p.Recorder.Publish(karpsched.NominatePodEvent(pod, nil, claim))
				byPool[claim.Labels[karpv1.NodePoolLabelKey]] = append(byPool[claim.Labels[karpv1.NodePoolLabelKey]], pod)
				byClaim[claim.Name] = append(byClaim[claim.Name], pod)
			}
		}
	}
	for key, err := range in.Invalid {
		pod := p.podByKey(ctx, key)
		if pod == nil {
			continue
		}
		known[pod.UID] = true
		podErrors[pod] = fmt.Errorf("ignoring pod, %w", err)
		verdicts.WithLabelValues("Invalid", "").Inc()
		// A pod that rules out provisioned nodes needs no event about it.
		if !errors.Is(err, karpprovisioning.KarpenterManagedLabelDoesNotExistError) {
			p.reportRefused(pod, err, "")
		}
	}
	p.forgetReported(known)
	karpsched.UnschedulablePodsCount.Set(float64(refused), map[string]string{karpsched.ControllerLabel: name})
	p.cluster.MarkPodSchedulingDecisions(ctx, podErrors, byPool, byClaim)
}

// reportRefused publishes why a pod is refused: at once when the reason has changed,
// then every five minutes.
func (p *Provisioner) reportRefused(pod *corev1.Pod, err error, trace string) {
	message := err.Error()
	known := p.reported[pod.UID] == message
	if !known && !p.eventRate.TryAccept() {
		return // a later pass reports it
	}
	p.reported[pod.UID] = message
	text := "Failed to schedule pod, " + message
	if trace != "" {
		text += " (" + trace + ")"
	}
	p.Recorder.Publish(events.Event{
		InvolvedObject: pod, Type: corev1.EventTypeWarning, Reason: events.FailedScheduling, Message: shorten(text),
		DedupeValues: []string{string(pod.UID), message}, DedupeTimeout: 5 * time.Minute,
	})
}

// traceOf summarizes how many candidates each stage left for a class, and names the
// nearest miss.
func traceOf(plan *engine.Plan, class engine.ClassID) string {
	if plan.Trace == nil {
		return ""
	}
	for _, c := range plan.Trace.Classes {
		if c.Class != class {
			continue
		}
		var parts []string
		for _, s := range c.Stages {
			parts = append(parts, fmt.Sprintf("%s: %d offerings and %d nodes left", s.Name, s.Offerings, s.Nodes))
		}
		if len(c.Nearest) > 0 {
			parts = append(parts, fmt.Sprintf("nearest miss %s: %s", c.Nearest[0].What, c.Nearest[0].Detail))
		}
		return strings.Join(parts, "; ")
	}
	return ""
}

// forgetReported drops the reasons reported for pods that are not pending any more.
func (p *Provisioner) forgetReported(known map[types.UID]bool) {
	for uid := range p.reported {
		if !known[uid] {
			delete(p.reported, uid)
		}
	}
}

// podByKey returns a pod from the informer cache, nil if it does not exist.
func (p *Provisioner) podByKey(ctx context.Context, key string) *corev1.Pod {
	namespace, name := splitKey(key)
	pod := &corev1.Pod{}
	if err := p.Kube.Get(ctx, types.NamespacedName{Namespace: namespace, Name: name}, pod); err != nil {
		return nil
	}
	return pod
}

// splitKey splits a pod key; it is the inverse of snapshot.PodKey.
func splitKey(key string) (namespace, name string) {
	namespace, name, _ = strings.Cut(key, "/")
	return namespace, name
}
