// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

var deployments = appsv1.SchemeGroupVersion.WithResource("deployments")

func TestDependentsOfDeletedOwners(t *testing.T) {
	for _, test := range []struct {
		policy                                metav1.DeletionPropagation
		deployments, replicaSets, podsAfter10 int
	}{
		{metav1.DeletePropagationBackground, 0, 0, 0},
		{metav1.DeletePropagationForeground, 0, 0, 0},
		{metav1.DeletePropagationOrphan, 0, 1, 3},
	} {
		t.Run(string(test.policy), func(t *testing.T) {
			inBubble(t, everything(), func(c *cluster) {
				c.addNode(node("n1", "20"))
				c.create(deploymentOf("web", 3, "1"), deploymentOf("other", 2, "1"))
				c.eventually(20*time.Second, "all pods run", func() bool { return len(c.pods(running)) == 5 })
				err := c.client.AppsV1().Deployments("default").Delete(c.ctx, "web", metav1.DeleteOptions{PropagationPolicy: &test.policy})
				if err != nil {
					t.Fatal(err)
				}
				time.Sleep(10 * time.Second)
				if n := c.count(deployments) - 1; n != test.deployments {
					t.Errorf("%d deployments, want %d", n, test.deployments)
				}
				if n := c.count(replicaSets) - 1; n != test.replicaSets {
					t.Errorf("%d ReplicaSets, want %d", n, test.replicaSets)
				}
				if n := len(c.pods(running)) - 2; n != test.podsAfter10 {
					t.Errorf("%d pods, want %d\n%s", n, test.podsAfter10, c.dump())
				}
			})
		})
	}
}

// owned returns a ConfigMap with owners.
func owned(name string, owners ...*corev1.ConfigMap) *corev1.ConfigMap {
	out := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name}}
	for _, o := range owners {
		out.OwnerReferences = append(out.OwnerReferences, metav1.OwnerReference{APIVersion: "v1", Kind: "ConfigMap", Name: o.Name, UID: o.UID})
	}
	return out
}

func TestOwnersOneByOne(t *testing.T) {
	garbage := LocalGarbage()
	garbage.Delay = 3 * time.Second
	inBubble(t, config{garbage: &garbage}, func(c *cluster) {
		maps := c.client.CoreV1().ConfigMaps("default")
		add := func(m *corev1.ConfigMap) *corev1.ConfigMap {
			out, err := maps.Create(c.ctx, m, metav1.CreateOptions{})
			if err != nil {
				t.Fatal(err)
			}
			return out
		}
		a, b := add(owned("a")), add(owned("b"))
		add(owned("child", a, b))
		time.Sleep(time.Minute)
		remove := func(name string) {
			if err := maps.Delete(c.ctx, name, metav1.DeleteOptions{}); err != nil {
				t.Fatal(err)
			}
		}
		owners := func() []metav1.OwnerReference {
			m, err := maps.Get(c.ctx, "child", metav1.GetOptions{})
			if err != nil {
				return nil
			}
			return m.OwnerReferences
		}
		if n := len(owners()); n != 2 {
			t.Fatalf("the child has %d owners, want 2", n)
		}
		remove("a")
		time.Sleep(4 * time.Second)
		if o := owners(); len(o) != 1 || o[0].Name != "b" {
			t.Errorf("owners %v after the first is gone, want b", o)
		}
		remove("b")
		time.Sleep(2 * time.Second)
		if owners() == nil {
			t.Error("the child was deleted before the collector's delay")
		}
		time.Sleep(2 * time.Second)
		if owners() != nil {
			t.Error("the child is there although its owners are gone")
		}
		// An owner that never existed.
		add(owned("stray", &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "none", UID: types.UID("none")}}))
		time.Sleep(4 * time.Second)
		if _, err := maps.Get(c.ctx, "stray", metav1.GetOptions{}); err == nil {
			t.Error("an object whose owner does not exist was not deleted")
		}
	})
}

// What happened before the collector was started is found when it is.
func TestCollectorFindsWhatIsThere(t *testing.T) {
	inBubble(t, config{}, func(c *cluster) {
		gone := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "gone", UID: "gone"}}
		c.create(owned("stray", gone), owned("free"))
		c.startGarbage(c.ctx, LocalGarbage())
		maps := corev1.SchemeGroupVersion.WithResource("configmaps")
		c.eventually(10*time.Second, "the stray object is deleted", func() bool {
			_, there := c.s.Get(maps, "default", "stray")
			return !there
		})
		if _, there := c.s.Get(maps, "default", "free"); !there {
			t.Error("an object without owners was deleted")
		}
	})
}
