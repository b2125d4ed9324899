// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package fleet

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/kwok/pkg/apis/internalversion"
	"sigs.k8s.io/kwok/pkg/utils/lifecycle"
)

func TestUnhealthyLabelKeepsPodsUnready(t *testing.T) {
	st, err := stages()
	if err != nil {
		t.Fatal(err)
	}
	list := st[internalversion.StageResourceRef{APIGroup: "v1", Kind: "Pod"}]
	pods, err := lifecycle.NewLifecycle(list)
	if err != nil {
		t.Fatal(err)
	}
	for label, want := range map[string]string{"": "pod-ready", "something": "pod-ready", Unhealthy: "pod-unready"} {
		p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "p", Namespace: "default"}, Status: corev1.PodStatus{Phase: corev1.PodPending}}
		if label != "" {
			p.Labels = map[string]string{StageLabel: label}
		}
		stage, err := pods.Match(t.Context(), &lifecycle.Event{Labels: p.Labels, Data: p})
		if err != nil || stage == nil || stage.Name() != want {
			t.Errorf("a pod with the label %q: stage %v (%v), want %s", label, stage, err, want)
		}
	}
	for _, s := range list {
		if s.Name != "pod-unready" {
			continue
		}
		text := ""
		for _, step := range s.Spec.Steps {
			if step.Patch != nil {
				text += step.Patch.Template
			}
		}
		if n := strings.Count(text, "ContainersNotReady"); n != 2 {
			t.Errorf("%d conditions say that the containers are not ready, want 2:\n%s", n, text)
		}
		if !strings.Contains(text, "ready: false") {
			t.Errorf("the containers count as ready:\n%s", text)
		}
	}
}
