// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package snapshot_test

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/nap-aks/nap/snapshot"
)

func TestReplicasExchangePlaces(t *testing.T) {
	owned := func(by string) func(*corev1.Pod) {
		return func(p *corev1.Pod) {
			yes := true
			p.OwnerReferences = []metav1.OwnerReference{{APIVersion: "apps/v1", Kind: "ReplicaSet", Name: by, UID: types.UID(by), Controller: &yes}}
		}
	}
	for _, c := range []struct {
		name  string
		owner string // of the pod on b
		on    string // where the scheduler binds the pod planned for a
		want  string // where the pod planned for b is to go now
		even  bool
	}{
		{"a replica is planned there", "web", "b", "a", true},
		{"a pod of another workload is planned there", "db", "b", "b", false},
		{"as planned", "web", "a", "b", true},
		{"to a node for which nothing is planned", "web", "c", "b", false},
		{"to another node in the zone of a replica", "web", "d", "a", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			o := base()
			for n, zone := range map[string]string{"a": "1", "b": "2", "c": "3", "d": "2"} {
				o.Nodes = append(o.Nodes, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: n, Labels: map[string]string{corev1.LabelTopologyZone: zone}}, Spec: corev1.NodeSpec{ProviderID: n}})
			}
			o.Pods = append(o.Pods, pod("x", owned("web")), pod("y", owned(c.owner)))
			o.Assumed = map[string]string{"default/x": "a", "default/y": "b"}
			cache, err := snapshot.Load(o)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := cache.Snapshot(o.Now); err != nil {
				t.Fatal(err)
			}
			bound := pod("x", owned("web"))
			bound.Spec.NodeName = c.on
			peer, even := cache.Exchange(bound)
			if (peer != nil) != (c.want == "a") || peer != nil && peer.Name != "y" {
				t.Errorf("x was exchanged with %v", peer)
			}
			if even != c.even {
				t.Errorf("even is %t", even)
			}
			if err := cache.Upsert(bound); err != nil {
				t.Fatal(err)
			}
			if on, _ := cache.AssumedOn("default/y"); on != c.want {
				t.Errorf("y is assumed on %s, want %s", on, c.want)
			}
		})
	}
}
