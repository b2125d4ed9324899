// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package cloud

import (
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/nap-aks/nap/localazure/fleet"
	"github.com/nap-aks/nap/test/sim/apiserver"
)

// helmHook is the annotation of pods that are hooks of Helm charts.
const helmHook = "helm.sh/hook"

// changed follows pods: one that is bound starts, one that is deleted stops.
func (k *Kubelets) changed(e apiserver.Event) {
	p, ok := e.Object.(*corev1.Pod)
	if !ok || e.Type == watch.Deleted || p.Spec.NodeName == "" {
		return
	}
	l := k.of(p.Spec.NodeName)
	if l == nil {
		return
	}
	old, _ := e.Old.(*corev1.Pod)
	switch {
	case p.DeletionTimestamp != nil:
		if old == nil || old.DeletionGracePeriodSeconds == nil || *old.DeletionGracePeriodSeconds != *p.DeletionGracePeriodSeconds {
			k.later(l, k.stopTime(p), func() { k.stop(p) })
		}
	case old == nil || old.Spec.NodeName == "":
		k.bound(l, p)
	}
}

// bound starts a pod later. All but those in the host's network wait for that of the
// node.
func (k *Kubelets) bound(l *kubelet, p *corev1.Pod) {
	start := func() { k.start(l, p) }
	k.mu.Lock()
	waits := !p.Spec.HostNetwork && (!l.up || l.never || l.down)
	if waits {
		l.waiting = append(l.waiting, start)
	}
	k.mu.Unlock()
	if waits {
		return
	}
	k.later(l, k.draw(k.options.PodStart), start)
}

// stopTime returns how long a pod takes to end.
func (k *Kubelets) stopTime(p *corev1.Pod) time.Duration {
	if p.Status.Phase != corev1.PodRunning {
		return 0
	}
	return min(k.draw(k.options.PodStop), time.Duration(*p.DeletionGracePeriodSeconds)*time.Second)
}

// stop ends a pod. One that somebody still has to look at says first how it ended.
func (k *Kubelets) stop(p *corev1.Pod) {
	if len(p.Finalizers) > 0 {
		k.updatePod(p, func(p *corev1.Pod) bool {
			if p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed {
				return false
			}
			end(p, corev1.PodFailed, "Error", 143)
			return true
		})
	}
	zero, uid := int64(0), p.UID
	_ = k.api.DeleteWith(podsResource, p.Namespace, p.Name, metav1.DeleteOptions{GracePeriodSeconds: &zero, Preconditions: &metav1.Preconditions{UID: &uid}}) // it may be gone
}

// updatePod changes the status of a pod, if it still exists and change returns true. It
// reports whether it did.
func (k *Kubelets) updatePod(p *corev1.Pod, change func(*corev1.Pod) bool) bool {
	return k.update(podsResource, p.Namespace, p.Name, "status", func(o runtime.Object) bool {
		now := o.(*corev1.Pod)
		return now.UID == p.UID && change(now)
	})
}

// address returns the next pod's address.
func (k *Kubelets) address() string {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.next++
	return fmt.Sprintf("10.%d.%d.%d", 244+k.next>>16&7, k.next>>8&255, k.next&255)
}

// start makes a pod run, be ready, and end if it is one that ends.
func (k *Kubelets) start(l *kubelet, p *corev1.Pod) {
	unhealthy := p.Labels[fleet.StageLabel] == fleet.Unhealthy
	wait := k.draw(k.options.PodReady)
	now := metav1.Now().Rfc3339Copy()
	ok := k.updatePod(p, func(p *corev1.Pod) bool {
		if p.DeletionTimestamp != nil || p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed {
			return false
		}
		ip := l.ip
		if !p.Spec.HostNetwork {
			ip = k.address()
		}
		s := &p.Status
		s.Phase, s.StartTime, s.HostIP, s.HostIPs = corev1.PodRunning, &now, l.ip, []corev1.HostIP{{IP: l.ip}}
		s.PodIP, s.PodIPs = ip, []corev1.PodIP{{IP: ip}}
		setCondition(p, corev1.PodReadyToStartContainers, corev1.ConditionTrue, "")
		setCondition(p, corev1.PodInitialized, corev1.ConditionTrue, "")
		s.InitContainerStatuses, s.ContainerStatuses = initStatuses(p, now), nil
		for _, c := range p.Spec.Containers {
			s.ContainerStatuses = append(s.ContainerStatuses, running(c, now))
		}
		setReady(p, !unhealthy && wait == 0)
		return true
	})
	if !ok {
		return
	}
	if !unhealthy && wait > 0 {
		k.later(l, wait, func() {
			k.updatePod(p, func(p *corev1.Pod) bool {
				if p.Status.Phase != corev1.PodRunning || p.DeletionTimestamp != nil {
					return false
				}
				setReady(p, true)
				return true
			})
		})
	}
	if d, ends := k.runTime(p); ends {
		k.later(l, d, func() {
			k.updatePod(p, func(p *corev1.Pod) bool {
				if p.DeletionTimestamp != nil {
					return false
				}
				end(p, corev1.PodSucceeded, "Completed", 0)
				return true
			})
		})
	}
}

func running(c corev1.Container, now metav1.Time) corev1.ContainerStatus {
	yes := true
	return corev1.ContainerStatus{Name: c.Name, Image: c.Image, Started: &yes, State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: now}}}
}

// initStatuses returns the statuses of the init containers of a pod that runs: those
// that restart run, the others have ended.
func initStatuses(p *corev1.Pod, now metav1.Time) []corev1.ContainerStatus {
	var out []corev1.ContainerStatus
	for _, c := range p.Spec.InitContainers {
		s := running(c, now)
		s.Ready = true
		if c.RestartPolicy == nil || *c.RestartPolicy != corev1.ContainerRestartPolicyAlways {
			no := false
			s.Started, s.State = &no, corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{Reason: "Completed", StartedAt: now, FinishedAt: now}}
		}
		out = append(out, s)
	}
	return out
}

// setReady makes the containers of a running pod ready or not.
func setReady(p *corev1.Pod, ready bool) {
	status, reason := corev1.ConditionTrue, ""
	if !ready {
		status, reason = corev1.ConditionFalse, "ContainersNotReady"
	}
	for i := range p.Status.ContainerStatuses {
		p.Status.ContainerStatuses[i].Ready = ready
	}
	setCondition(p, corev1.ContainersReady, status, reason)
	setCondition(p, corev1.PodReady, status, reason)
}

// runTime returns how long a pod runs and whether it ends at all, as in the local
// Azure: one with a duration, one of a Job, and a hook of a Helm chart.
func (k *Kubelets) runTime(p *corev1.Pod) (time.Duration, bool) {
	if text, ok := p.Annotations[fleet.DurationAnnotation]; ok {
		if d, err := time.ParseDuration(text); err == nil {
			return d, true
		}
		return 30 * time.Second, true
	}
	for _, o := range p.OwnerReferences {
		if o.Kind == "Job" {
			return k.draw(Span{20 * time.Second, 40 * time.Second}), true
		}
	}
	if _, ok := p.Annotations[helmHook]; ok && p.Spec.RestartPolicy != corev1.RestartPolicyAlways {
		return time.Second, true
	}
	return 0, false
}

// end makes all containers of a pod end.
func end(p *corev1.Pod, phase corev1.PodPhase, reason string, code int32) {
	now := metav1.Now().Rfc3339Copy()
	p.Status.Phase = phase
	for _, t := range []corev1.PodConditionType{corev1.PodReady, corev1.ContainersReady} {
		why := "PodCompleted"
		if phase == corev1.PodFailed {
			why = "PodFailed"
		}
		setCondition(p, t, corev1.ConditionFalse, why)
	}
	for i := range p.Status.ContainerStatuses {
		s := &p.Status.ContainerStatuses[i]
		ended := corev1.ContainerStateTerminated{ExitCode: code, Reason: reason, FinishedAt: now}
		if s.State.Running != nil {
			ended.StartedAt = s.State.Running.StartedAt
		}
		no := false
		s.Ready, s.Started, s.State = false, &no, corev1.ContainerState{Terminated: &ended}
	}
}

func setCondition(p *corev1.Pod, t corev1.PodConditionType, status corev1.ConditionStatus, reason string) {
	now := metav1.Now().Rfc3339Copy()
	for i := range p.Status.Conditions {
		if c := &p.Status.Conditions[i]; c.Type == t {
			if c.Status != status {
				c.Status, c.LastTransitionTime = status, now
			}
			c.Reason = reason
			return
		}
	}
	p.Status.Conditions = append(p.Status.Conditions, corev1.PodCondition{Type: t, Status: status, Reason: reason, LastTransitionTime: now})
}
