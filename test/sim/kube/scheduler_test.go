// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/nap-aks/nap/test/sim/apiserver"
)

// schedulerOnly runs a scheduler with the options, and kubelets.
func schedulerOnly(o SchedulerOptions) config { return config{scheduler: &o} }

func unschedulable(p *corev1.Pod) *corev1.PodCondition {
	for i, c := range p.Status.Conditions {
		if c.Type == corev1.PodScheduled && c.Status == corev1.ConditionFalse && c.Reason == corev1.PodReasonUnschedulable {
			return &p.Status.Conditions[i]
		}
	}
	return nil
}

func TestSchedulerBindsWhatFits(t *testing.T) {
	inBubble(t, schedulerOnly(SchedulerOptions{}), func(c *cluster) {
		c.addNode(node("n1", "4"))
		for i := range 6 {
			c.create(podOf(fmt.Sprint("p", i), "1"))
		}
		c.eventually(10*time.Second, "four pods run", func() bool { return len(c.pods(on("n1"))) == 4 })
		if left := c.pods(func(p *corev1.Pod) bool { return unschedulable(p) != nil }); len(left) != 2 {
			t.Errorf("%d pods are marked as unschedulable, want 2\n%s", len(left), c.dump())
		}
		c.addNode(node("n2", "4"))
		c.eventually(15*time.Second, "the rest runs on a new node", func() bool { return len(c.pods(on("n2"))) == 2 })
	})
}

func TestCyclesAndMarksTakeTheirTime(t *testing.T) {
	const pods, cycle, rate = 50, 100 * time.Millisecond, 4.0
	for _, test := range []struct {
		name  string
		o     SchedulerOptions
		room  string
		apart time.Duration
	}{
		{"cycles", SchedulerOptions{CycleTime: cycle}, "64", cycle},
		{"marks", SchedulerOptions{MarkRate: rate}, "0", time.Second / rate},
	} {
		t.Run(test.name, func(t *testing.T) {
			inBubble(t, schedulerOnly(test.o), func(c *cluster) {
				c.addNode(node("n1", test.room))
				time.Sleep(time.Second)
				var at []time.Time
				c.s.Subscribe(func(e apiserver.Event) {
					now, is := e.Object.(*corev1.Pod)
					old, was := e.Old.(*corev1.Pod)
					if is && was && (old.Spec.NodeName == "" && now.Spec.NodeName != "" || unschedulable(old) == nil && unschedulable(now) != nil) {
						at = append(at, time.Now())
					}
				})
				for i := range pods {
					c.create(podOf(fmt.Sprintf("p%02d", i), "1"))
				}
				time.Sleep(5 * time.Minute)
				if len(at) != pods {
					t.Fatalf("%d pods were scheduled or refused, want %d", len(at), pods)
				}
				took := at[len(at)-1].Sub(at[0])
				want := (pods - 1) * test.apart
				if took < want-test.apart || took > want+test.apart*5/2 {
					t.Errorf("the last pod came %v after the first, want about %v", took, want)
				}
			})
		})
	}
}

func TestPreemptionByPriority(t *testing.T) {
	inBubble(t, schedulerOnly(SchedulerOptions{}), func(c *cluster) {
		c.create(&schedulingv1.PriorityClass{ObjectMeta: metav1.ObjectMeta{Name: "high"}, Value: 1000})
		c.addNode(node("n1", "4"))
		for i := range 4 {
			c.create(podOf(fmt.Sprint("low", i), "1"))
		}
		c.eventually(10*time.Second, "the node is full", func() bool { return len(c.pods(on("n1"))) == 4 })
		nominated := ""
		c.s.Subscribe(func(e apiserver.Event) {
			if p, ok := e.Object.(*corev1.Pod); ok && p.Name == "vip" && p.Status.NominatedNodeName != "" {
				nominated = p.Status.NominatedNodeName
			}
		})
		c.create(podOf("vip", "2", func(p *corev1.Pod) { p.Spec.PriorityClassName = "high" }))
		c.eventually(20*time.Second, "the pod with priority runs", func() bool {
			return len(c.pods(func(p *corev1.Pod) bool { return p.Name == "vip" && running(p) })) == 1
		})
		if nominated != "n1" {
			t.Errorf("the pod was nominated for node %q, want n1", nominated)
		}
		if low := len(c.pods(on("n1"))) - 1; low != 2 {
			t.Errorf("%d pods without priority are left, want 2\n%s", low, c.dump())
		}
	})
}

// A pod that is nominated for a node holds its place there against pods of the same
// priority, even while it cannot be bound yet.
func TestNominationsAreHonoured(t *testing.T) {
	for _, nominate := range []bool{true, false} {
		t.Run(fmt.Sprint("nominated ", nominate), func(t *testing.T) {
			inBubble(t, schedulerOnly(SchedulerOptions{}), func(c *cluster) {
				c.addNode(node("n1", "2"))
				c.create(podOf("waits", "2", func(p *corev1.Pod) { p.Spec.NodeSelector = map[string]string{"pool": "x"} }))
				time.Sleep(5 * time.Second)
				if nominate {
					p, err := c.client.CoreV1().Pods("default").Get(c.ctx, "waits", metav1.GetOptions{})
					if err != nil {
						t.Fatal(err)
					}
					p.Status.NominatedNodeName = "n1"
					if _, err := c.client.CoreV1().Pods("default").UpdateStatus(c.ctx, p, metav1.UpdateOptions{}); err != nil {
						t.Fatal(err)
					}
				}
				c.create(podOf("rival", "2"))
				time.Sleep(time.Minute)
				if runs := len(c.pods(on("n1"))) == 1; runs == nominate {
					t.Errorf("the rival runs: %v, want %v\n%s", runs, !nominate, c.dump())
				}
				if !nominate {
					return
				}
				patch := []byte(`{"metadata":{"labels":{"pool":"x"}}}`)
				if _, err := c.client.CoreV1().Nodes().Patch(c.ctx, "n1", types.MergePatchType, patch, metav1.PatchOptions{}); err != nil {
					t.Fatal(err)
				}
				c.eventually(time.Minute, "the nominated pod runs on its node", func() bool {
					return slices.ContainsFunc(c.pods(on("n1")), func(p *corev1.Pod) bool { return p.Name == "waits" })
				})
			})
		})
	}
}

func TestSchedulerStartsAgain(t *testing.T) {
	inBubble(t, config{}, func(c *cluster) {
		c.addNode(node("n1", "10"))
		for round := range 3 {
			ctx, cancel := context.WithCancel(c.ctx)
			stopped, err := StartScheduler(ctx, c.s.Config("kube-scheduler"), LocalScheduler())
			if err != nil {
				t.Fatal(err)
			}
			c.create(podOf(fmt.Sprint("p", round), "1"))
			c.eventually(10*time.Second, "the pod runs", func() bool { return len(c.pods(running)) == round+1 })
			cancel()
			<-stopped
			c.create(podOf(fmt.Sprint("late", round), "100m"))
			time.Sleep(time.Minute)
			if got := len(c.pods(running)); got != round+1 {
				t.Fatalf("%d pods run without a scheduler, want %d", got, round+1)
			}
			if err := c.s.Delete(pods, "default", fmt.Sprint("late", round)); err != nil {
				t.Fatal(err)
			}
		}
	})
}
