// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package snapshot_test

import (
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	karpv1 "sigs.k8s.io/karpenter/pkg/apis/v1"

	"github.com/nap-aks/nap/snapshot"
)

// Pods are planned onto a node that boots, but neither onto one that has lost its
// kubelet nor onto one that boots for too long.
func TestNodesThatAreNotReadyAreClosed(t *testing.T) {
	for _, c := range []struct {
		name        string
		ready       corev1.ConditionStatus // "" for no condition
		initialized bool
		age         time.Duration
		closed      bool
	}{
		{"ready", corev1.ConditionTrue, true, time.Hour, false},
		{"of unknown state, as in a file", "", true, time.Hour, false},
		{"booting", corev1.ConditionFalse, false, snapshot.ReadyGrace - time.Second, false},
		{"booting, without a status yet", "", false, time.Second, false},
		{"booting for too long", corev1.ConditionFalse, false, snapshot.ReadyGrace, true},
		{"that has never reported", "", false, snapshot.ReadyGrace, true},
		{"ready and waiting for its drivers", corev1.ConditionTrue, false, snapshot.ReadyGrace, false},
		{"never initialized", corev1.ConditionTrue, false, snapshot.InitializationGrace, true},
		{"lost while booting", corev1.ConditionUnknown, false, time.Minute, true},
		{"lost later", corev1.ConditionUnknown, true, time.Hour, true},
		{"not ready any more", corev1.ConditionFalse, true, time.Hour, true},
	} {
		o := base()
		o.Nodes = []*corev1.Node{node("n", func(n *corev1.Node) {
			n.CreationTimestamp = metav1.NewTime(o.Now.Add(-c.age))
			if !c.initialized {
				delete(n.Labels, karpv1.NodeInitializedLabelKey)
			}
			n.Status.Conditions = nil
			if c.ready != "" {
				n.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, Status: c.ready}}
			}
		})}
		o.NodeClaims = []*karpv1.NodeClaim{claim("c", "id-n")}
		o.Pods = []*corev1.Pod{pod("p")}
		o.Assumed = map[string]string{"default/p": "c"}
		cache, err := snapshot.Load(o)
		if err != nil {
			t.Fatal(err)
		}
		in, err := cache.Snapshot(o.Now)
		if err != nil {
			t.Fatal(err)
		}
		if why := find(t, in.Snapshot, "n").Closed; (why != "") != c.closed {
			t.Errorf("a node %s: closed %q, want closed %t", c.name, why, c.closed)
		}
		if lost := cache.LostPods(o.Now); (len(lost) == 1) != c.closed {
			t.Errorf("a node %s: lost pods %v, want the one that is promised there %t", c.name, lost, c.closed)
		}
	}
}

// The state changes with the time, without an event.
func TestNodeClosesWithTime(t *testing.T) {
	o := base()
	o.Nodes = []*corev1.Node{node("n", func(n *corev1.Node) {
		n.CreationTimestamp = metav1.NewTime(o.Now)
		delete(n.Labels, karpv1.NodeInitializedLabelKey)
		n.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionFalse}}
	})}
	o.NodeClaims = []*karpv1.NodeClaim{claim("c", "id-n")}
	cache, err := snapshot.Load(o)
	if err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct {
		after  time.Duration
		closed bool
	}{{0, false}, {snapshot.ReadyGrace, true}} {
		in, err := cache.Snapshot(o.Now.Add(step.after))
		if err != nil {
			t.Fatal(err)
		}
		if why := find(t, in.Snapshot, "n").Closed; (why != "") != step.closed {
			t.Errorf("after %v: closed %q, want closed %t", step.after, why, step.closed)
		}
	}
}
