// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package snapshot_test

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/nap-aks/nap/engine"
)

// TestTerminatingPodsCountForAffinity checks that a terminating pod keeps others with
// anti-affinity off its host and counts for no topology spread.
func TestTerminatingPodsCountForAffinity(t *testing.T) {
	labels := map[string]string{"app": "db"}
	apart := func(p *corev1.Pod) {
		p.Labels = labels
		p.Spec.Affinity = &corev1.Affinity{PodAntiAffinity: &corev1.PodAntiAffinity{RequiredDuringSchedulingIgnoredDuringExecution: []corev1.PodAffinityTerm{
			{TopologyKey: corev1.LabelHostname, LabelSelector: &metav1.LabelSelector{MatchLabels: labels}}}}}
	}
	spread := func(p *corev1.Pod) {
		p.Labels = labels
		p.Spec.TopologySpreadConstraints = []corev1.TopologySpreadConstraint{{MaxSkew: 1, TopologyKey: corev1.LabelHostname,
			WhenUnsatisfiable: corev1.DoNotSchedule, LabelSelector: &metav1.LabelSelector{MatchLabels: labels}}}
	}
	for name, test := range map[string]struct {
		rule   func(*corev1.Pod)
		onNode bool
	}{"anti-affinity": {apart, false}, "spread": {spread, true}} {
		t.Run(name, func(t *testing.T) {
			o := base()
			o.Nodes = []*corev1.Node{node("n1")}
			o.Pods = []*corev1.Pod{pod("new", test.rule), pod("going", bound("n1"), func(p *corev1.Pod) {
				p.Labels = labels
				p.DeletionTimestamp = &metav1.Time{Time: o.Now}
			})}
			p, err := engine.Place(build(t, o).Snapshot, engine.Options{})
			if err != nil {
				t.Fatal(err)
			}
			if got := len(p.Placements) == 1; got != test.onNode {
				t.Errorf("pod beside the terminating one: %v, want %v (%+v)", got, test.onNode, p.Verdicts)
			}
		})
	}
}
