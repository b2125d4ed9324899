// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package fleet

import (
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/kwok/pkg/apis/internalversion"
	"sigs.k8s.io/kwok/pkg/utils/lifecycle"
)

func TestPreStopHooksRunWithinTheGracePeriod(t *testing.T) {
	st, err := stages()
	if err != nil {
		t.Fatal(err)
	}
	pods, err := lifecycle.NewLifecycle(st[internalversion.StageResourceRef{APIGroup: "v1", Kind: "Pod"}])
	if err != nil {
		t.Fatal(err)
	}
	hook := func(h corev1.LifecycleHandler) *corev1.Lifecycle { return &corev1.Lifecycle{PreStop: &h} }
	command := func(c ...string) *corev1.Lifecycle {
		return hook(corev1.LifecycleHandler{Exec: &corev1.ExecAction{Command: c}})
	}
	now := time.Now().Truncate(time.Second)
	for _, c := range []struct {
		name  string
		hooks []*corev1.Lifecycle
		grace int64
		phase corev1.PodPhase
		want  time.Duration
	}{
		{"no hook", []*corev1.Lifecycle{nil}, 30, corev1.PodRunning, 0},
		{"a hook longer than the grace period", []*corev1.Lifecycle{command("/bin/sh", "-c", "sleep 300")}, 30, corev1.PodRunning, 30 * time.Second},
		{"a shorter one", []*corev1.Lifecycle{command("sh", "-c", "nginx -s quit; sleep 5")}, 30, corev1.PodRunning, 5 * time.Second},
		{"a sleep action beside a container without a hook", []*corev1.Lifecycle{nil, hook(corev1.LifecycleHandler{Sleep: &corev1.SleepAction{Seconds: 7}})}, 30, corev1.PodRunning, 7 * time.Second},
		{"a command that does not sleep", []*corev1.Lifecycle{command("nginx", "-s", "quit")}, 30, corev1.PodRunning, 0},
		{"a container that does not run yet", []*corev1.Lifecycle{command("sleep", "20")}, 30, corev1.PodPending, 0},
	} {
		p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "p", Namespace: "default"}, Status: corev1.PodStatus{Phase: c.phase}}
		p.DeletionGracePeriodSeconds = &c.grace
		p.DeletionTimestamp = &metav1.Time{Time: now.Add(time.Duration(c.grace) * time.Second)}
		for range c.hooks {
			p.Spec.Containers = append(p.Spec.Containers, corev1.Container{Name: "c"})
		}
		for i, h := range c.hooks {
			p.Spec.Containers[i].Lifecycle = h
		}
		event := &lifecycle.Event{Data: p}
		stage, err := pods.Match(t.Context(), event)
		if err != nil || stage == nil {
			t.Errorf("%s: no stage ends the pod (%v)", c.name, err)
			continue
		}
		delay, _, err := stage.Delay(t.Context(), event, now)
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
		if delay != c.want {
			t.Errorf("%s: the pod ends after %s (stage %s), want %s", c.name, delay, stage.Name(), c.want)
		}
	}
}
