// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package fleet

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/kwok/pkg/apis/internalversion"
	"sigs.k8s.io/kwok/pkg/utils/lifecycle"
)

func TestJobsHooksAndTimedPodsComplete(t *testing.T) {
	st, err := stages()
	if err != nil {
		t.Fatal(err)
	}
	pods, err := lifecycle.NewLifecycle(st[internalversion.StageResourceRef{APIGroup: "v1", Kind: "Pod"}])
	if err != nil {
		t.Fatal(err)
	}
	hook := map[string]string{"helm.sh/hook": "test"}
	job := []metav1.OwnerReference{{APIVersion: "batch/v1", Kind: "Job", Name: "j"}}
	for _, c := range []struct {
		name   string
		meta   metav1.ObjectMeta
		policy corev1.RestartPolicy
		want   string
	}{
		{"a pod", metav1.ObjectMeta{}, corev1.RestartPolicyAlways, ""},
		{"a pod that is not restarted", metav1.ObjectMeta{}, corev1.RestartPolicyNever, ""},
		{"a pod of a Job", metav1.ObjectMeta{OwnerReferences: job}, corev1.RestartPolicyNever, "job-complete"},
		{"a Helm test", metav1.ObjectMeta{Annotations: hook}, corev1.RestartPolicyNever, "hook-complete"},
		{"a Helm hook that is a Job", metav1.ObjectMeta{Annotations: hook, OwnerReferences: job}, corev1.RestartPolicyNever, "job-complete"},
		{"a hook that runs for ever", metav1.ObjectMeta{Annotations: hook}, corev1.RestartPolicyAlways, ""},
		{"a hook with a duration", metav1.ObjectMeta{Annotations: map[string]string{"helm.sh/hook": "test", DurationAnnotation: "9s"}}, corev1.RestartPolicyNever, "timed-complete"},
		{"a pod with a duration", metav1.ObjectMeta{Annotations: map[string]string{DurationAnnotation: "9s"}}, corev1.RestartPolicyAlways, "timed-complete"},
	} {
		c.meta.Name, c.meta.Namespace = "p", "default"
		p := &corev1.Pod{ObjectMeta: c.meta}
		p.Spec.RestartPolicy = c.policy
		p.Status.Phase, p.Status.PodIP = corev1.PodRunning, "10.244.0.9"
		got := ""
		stage, err := pods.Match(t.Context(), &lifecycle.Event{Data: p})
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
		if stage != nil {
			got = stage.Name()
		}
		if got != c.want {
			t.Errorf("%s: the stage is %q, want %q", c.name, got, c.want)
		}
	}
}
