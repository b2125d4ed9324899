// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package oracle

import (
	"context"
	"fmt"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/nap-aks/nap/snapshot"
)

// TestCanBindAll tests the search for an order in which the kube-scheduler accepts all
// pods. A pod is written as "spread@zone" or "plain@zone". The spread pods have a skew of
// at most one over the zones and count the plain ones.
func TestCanBindAll(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	k := newKube(t, ctx, nil)
	w := &cluster{}
	for _, zone := range []string{"a", "b"} {
		capacity := corev1.ResourceList{corev1.ResourcePods: resource.MustParse("10")}
		w.nodes = append(w.nodes, &corev1.Node{
			ObjectMeta: metav1.ObjectMeta{Name: zone, Labels: map[string]string{corev1.LabelTopologyZone: zone, corev1.LabelHostname: zone}},
			Status:     corev1.NodeStatus{Allocatable: capacity, Capacity: capacity},
		})
	}
	labels := map[string]string{"app": "web"}
	for _, c := range []struct {
		why, pods string
		want      bool
	}{
		{"alternating", "spread@a spread@b spread@a", true},
		{"listed in a bad order", "spread@a spread@a spread@b", true},
		{"a plain pod in addition", "plain@a spread@a spread@a spread@b", true},
		{"two plain pods in addition", "plain@a plain@a spread@a spread@a spread@b spread@b", true},
		{"a plain pod balances the others", "spread@a spread@a plain@b", true},
		{"too many in one zone", "spread@a spread@a spread@a spread@b", false},
		{"too many in one zone with a plain pod", "plain@a spread@a spread@a", false},
	} {
		t.Run(c.why, func(t *testing.T) {
			var pods []*corev1.Pod
			placed := map[string]bool{}
			for i, f := range strings.Fields(c.pods) {
				kind, zone, _ := strings.Cut(f, "@")
				p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: fmt.Sprintf("p%d", i), Labels: labels}, Spec: corev1.PodSpec{NodeName: zone}}
				if kind == "spread" {
					p.Spec.TopologySpreadConstraints = []corev1.TopologySpreadConstraint{{MaxSkew: 1, TopologyKey: corev1.LabelTopologyZone,
						WhenUnsatisfiable: corev1.DoNotSchedule, LabelSelector: &metav1.LabelSelector{MatchLabels: labels}}}
				}
				pods = append(pods, p)
				placed[snapshot.PodKey(p)] = true
			}
			if got := k.canBindAll(ctx, w, pods, placed, false); got != c.want {
				t.Errorf("%s: canBindAll = %v, want %v", c.pods, got, c.want)
			}
		})
	}
}
