// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"fmt"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

func setReady(status corev1.ConditionStatus) func(*corev1.Node) {
	return func(n *corev1.Node) {
		n.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, Status: status, LastTransitionTime: metav1.Now()}}
	}
}

// taints returns a node's taints as text.
func (c *cluster) taints(name string) (out string) {
	obj, ok := c.s.Get(nodes, "", name)
	if !ok {
		return "no node"
	}
	for _, t := range obj.(*corev1.Node).Spec.Taints {
		out += t.Key + ":" + string(t.Effect) + " "
	}
	return out
}

func TestUnreadyNodes(t *testing.T) {
	inBubble(t, everything(), func(c *cluster) {
		c.addNode(node("n1", "4"))
		c.addNode(node("n2", "4"))
		c.create(deploymentOf("web", 4, "1"))
		c.eventually(20*time.Second, "all pods run", func() bool { return len(c.pods(running)) == 4 })

		c.updateNode("n1", setReady(corev1.ConditionUnknown))
		time.Sleep(100 * time.Millisecond)
		if got := c.taints("n1"); got != "node.kubernetes.io/unreachable:NoSchedule " {
			t.Errorf("at once, the taints are %q", got)
		}
		c.eventually(6*time.Second, "the pods of the node are evicted after the monitor's period", func() bool {
			return c.taints("n1") == "node.kubernetes.io/unreachable:NoSchedule node.kubernetes.io/unreachable:NoExecute "
		})
		if c.taints("n2") != "" {
			t.Errorf("the other node has taints %q", c.taints("n2"))
		}
		// Pods tolerate it for five minutes, then move.
		time.Sleep(4 * time.Minute)
		if n := len(c.pods(on("n2"))); n == 4 {
			t.Error("the pods moved before their toleration ended")
		}
		c.eventually(90*time.Second, "the pods run elsewhere", func() bool { return len(c.pods(on("n2"))) == 4 })

		c.updateNode("n1", setReady(corev1.ConditionTrue))
		c.eventually(6*time.Second, "a ready node has no taints", func() bool { return c.taints("n1") == "" })
	})
}

func TestPodsOfUnreadyNodesAreNotReady(t *testing.T) {
	o := everything()
	o.noKubelets = true
	inBubble(t, o, func(c *cluster) {
		c.addNode(node("n1", "4"))
		c.addNode(node("n2", "4"))
		c.create(podOf("p", "1", func(p *corev1.Pod) { p.Spec.NodeName = "n1" }))
		c.setPhase(c.pods(nil)[0], corev1.PodRunning)
		time.Sleep(time.Minute)
		c.updateNode("n1", setReady(corev1.ConditionFalse))
		c.eventually(6*time.Second, "the pod is not ready", func() bool {
			for _, cond := range c.pods(nil)[0].Status.Conditions {
				if cond.Type == corev1.PodReady {
					return cond.Status == corev1.ConditionFalse
				}
			}
			return false
		})
	})
}

func TestCordonedNodesHaveTheirTaint(t *testing.T) {
	inBubble(t, everything(), func(c *cluster) {
		c.addNode(node("n1", "4"))
		for _, cordon := range []bool{true, false} {
			patch := fmt.Sprintf(`{"spec":{"unschedulable":%v}}`, cordon)
			if _, err := c.client.CoreV1().Nodes().Patch(c.ctx, "n1", types.MergePatchType, []byte(patch), metav1.PatchOptions{}); err != nil {
				t.Fatal(err)
			}
			want := map[bool]string{true: "node.kubernetes.io/unschedulable:NoSchedule ", false: ""}[cordon]
			c.eventually(time.Second, "the taint follows", func() bool { return c.taints("n1") == want })
		}
	})
}

// Nodes of one zone are emptied one after the other, and not at all if most of a
// small zone is not ready.
func TestEvictionsAreLimitedByZone(t *testing.T) {
	for _, test := range []struct{ ready, unready, want int }{
		{10, 4, 4},
		{3, 5, 0}, // 62 %
		{0, 2, 0}, // all of the cluster
	} {
		t.Run(fmt.Sprint(test.unready, " of ", test.ready+test.unready), func(t *testing.T) {
			o := everything()
			o.scheduler = nil
			inBubble(t, o, func(c *cluster) {
				for i := range test.ready {
					c.addNode(node(fmt.Sprint("ready", i), "4"))
				}
				for i := range test.unready {
					c.addNode(node(fmt.Sprint("unready", i), "4"))
				}
				time.Sleep(time.Minute)
				for i := range test.unready {
					c.updateNode(fmt.Sprint("unready", i), setReady(corev1.ConditionFalse))
				}
				emptied := func() (n int) {
					for i := range test.unready {
						if c.taints(fmt.Sprint("unready", i)) == "node.kubernetes.io/not-ready:NoSchedule node.kubernetes.io/not-ready:NoExecute " {
							n++
						}
					}
					return n
				}
				time.Sleep(17 * time.Second)
				if n := emptied(); n != min(2, test.want) {
					t.Errorf("%d nodes were emptied in 17 seconds, want %d", n, min(2, test.want))
				}
				time.Sleep(time.Minute)
				if n := emptied(); n != test.want {
					t.Errorf("%d nodes were emptied, want %d", n, test.want)
				}
			})
		})
	}
}
