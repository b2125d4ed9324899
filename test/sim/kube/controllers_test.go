// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

func TestDeploymentRollsOut(t *testing.T) {
	inBubble(t, everything(), func(c *cluster) {
		c.addNode(node("n1", "20"))
		c.create(deploymentOf("web", 5, "1"))
		c.eventually(20*time.Second, "five pods run", func() bool { return len(c.pods(running)) == 5 })
		d, err := c.client.AppsV1().Deployments("default").Get(c.ctx, "web", metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		d.Spec.Template.Spec.Containers[0].Image = "new"
		if _, err := c.client.AppsV1().Deployments("default").Update(c.ctx, d, metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
		c.eventually(time.Minute, "the new pods have replaced the old", func() bool {
			return len(c.pods(nil)) == 5 && len(c.pods(func(p *corev1.Pod) bool { return running(p) && p.Spec.Containers[0].Image == "new" })) == 5
		})
		c.eventually(time.Minute, "the status says so", func() bool {
			d, err := c.client.AppsV1().Deployments("default").Get(c.ctx, "web", metav1.GetOptions{})
			return err == nil && d.Status.UpdatedReplicas == 5 && d.Status.AvailableReplicas == 5 && d.Status.Replicas == 5
		})
		if n := c.count(replicaSets); n != 2 {
			t.Errorf("%d ReplicaSets, want the new and the old", n)
		}
	})
}

func TestStatefulSetStartsInOrder(t *testing.T) {
	inBubble(t, everything(), func(c *cluster) {
		c.addNode(node("n1", "20"))
		replicas := int32(3)
		c.create(&appsv1.StatefulSet{
			ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "db"},
			Spec:       appsv1.StatefulSetSpec{Replicas: &replicas, Selector: selector("db"), Template: template("db", "1"), ServiceName: "db"},
		})
		c.eventually(30*time.Second, "three pods run", func() bool { return len(c.pods(running)) == 3 })
		all := c.pods(nil)
		slices.SortFunc(all, func(a, b *corev1.Pod) int { return strings.Compare(a.Name, b.Name) })
		for i, p := range all {
			if want := fmt.Sprint("db-", i); p.Name != want {
				t.Errorf("pod %d is %s, want %s", i, p.Name, want)
			}
			if i > 0 && !all[i-1].Status.StartTime.Before(p.Status.StartTime) {
				t.Errorf("%s started at %v, not after %s", p.Name, p.Status.StartTime, all[i-1].Name)
			}
		}
	})
}

func TestJobCompletes(t *testing.T) {
	inBubble(t, everything(), func(c *cluster) {
		c.addNode(node("n1", "20"))
		count, ttl := int32(3), int32(60)
		tmpl := template("work", "1")
		tmpl.Spec.RestartPolicy = corev1.RestartPolicyNever
		c.create(&batchv1.Job{
			ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "work"},
			Spec:       batchv1.JobSpec{Parallelism: &count, Completions: &count, TTLSecondsAfterFinished: &ttl, Template: tmpl},
		})
		c.eventually(20*time.Second, "three pods run", func() bool { return len(c.pods(running)) == 3 })
		for _, p := range c.pods(running) {
			c.setPhase(p, corev1.PodSucceeded)
		}
		c.eventually(20*time.Second, "the job is complete", func() bool {
			j, err := c.client.BatchV1().Jobs("default").Get(c.ctx, "work", metav1.GetOptions{})
			return err == nil && j.Status.Succeeded == 3 && slices.ContainsFunc(j.Status.Conditions, func(cond batchv1.JobCondition) bool {
				return cond.Type == batchv1.JobComplete && cond.Status == corev1.ConditionTrue
			})
		})
		c.eventually(2*time.Minute, "the job and its pods are gone a minute later", func() bool {
			return c.count(batchv1.SchemeGroupVersion.WithResource("jobs")) == 0 && len(c.pods(nil)) == 0
		})
	})
}

func TestCronJobRunsOnTime(t *testing.T) {
	inBubble(t, everything(), func(c *cluster) {
		tmpl := template("tick", "1")
		tmpl.Spec.RestartPolicy = corev1.RestartPolicyNever
		c.create(&batchv1.CronJob{
			ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "tick"},
			Spec:       batchv1.CronJobSpec{Schedule: "*/10 * * * *", JobTemplate: batchv1.JobTemplateSpec{Spec: batchv1.JobSpec{Template: tmpl}}},
		})
		time.Sleep(31 * time.Minute)
		if n := c.count(batchv1.SchemeGroupVersion.WithResource("jobs")); n != 3 {
			t.Errorf("%d jobs after half an hour, want 3", n)
		}
	})
}

func TestDaemonSetFollowsNodes(t *testing.T) {
	inBubble(t, everything(), func(c *cluster) {
		c.create(&appsv1.DaemonSet{
			ObjectMeta: metav1.ObjectMeta{Namespace: "kube-system", Name: "agent"},
			Spec:       appsv1.DaemonSetSpec{Selector: selector("agent"), Template: template("agent", "100m")},
		})
		for i := 1; i <= 3; i++ {
			c.addNode(node(fmt.Sprint("n", i), "4"))
			c.eventually(10*time.Second, "each node has its pod", func() bool { return len(c.pods(running)) == i && len(c.pods(on(fmt.Sprint("n", i)))) == 1 })
		}
		if err := c.s.Delete(nodes, "", "n2"); err != nil {
			t.Fatal(err)
		}
		c.eventually(3*time.Minute, "the pod of a deleted node is collected", func() bool { return len(c.pods(nil)) == 2 })
	})
}

func TestDisruptionBudgetFollowsPods(t *testing.T) {
	inBubble(t, everything(), func(c *cluster) {
		c.addNode(node("n1", "20"))
		least := intstr.FromInt32(3)
		c.create(deploymentOf("web", 5, "1"), &policyv1.PodDisruptionBudget{
			ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "web"},
			Spec:       policyv1.PodDisruptionBudgetSpec{MinAvailable: &least, Selector: selector("web")},
		})
		allowed := func(n int32) func() bool {
			return func() bool {
				b, err := c.client.PolicyV1().PodDisruptionBudgets("default").Get(c.ctx, "web", metav1.GetOptions{})
				return err == nil && b.Status.DisruptionsAllowed == n && b.Status.ObservedGeneration == b.Generation && (n == 0 || b.Status.ExpectedPods == 5)
			}
		}
		c.eventually(20*time.Second, "two of five pods may go", allowed(2))
		evict := func(p *corev1.Pod) error {
			return c.client.CoreV1().Pods(p.Namespace).EvictV1(c.ctx, &policyv1.Eviction{ObjectMeta: metav1.ObjectMeta{Namespace: p.Namespace, Name: p.Name}})
		}
		errs := 0
		for _, p := range c.pods(running) {
			if evict(p) != nil {
				errs++
			}
		}
		if errs != 3 {
			t.Errorf("%d of 5 evictions were refused, want 3", errs)
		}
		c.eventually(20*time.Second, "two may go again when the pods are back", allowed(2))
	})
}

func TestFinishedAndStuckPodsAreCollected(t *testing.T) {
	o := everything()
	o.controllers.TerminatedPods = 2
	o.noKubelets = true
	inBubble(t, o, func(c *cluster) {
		c.addNode(node("n1", "20"))
		time.Sleep(time.Hour)
		for i := range 5 {
			c.create(podOf(fmt.Sprint("p", i), "1", func(p *corev1.Pod) { p.Spec.NodeName = "n1" }))
		}
		for _, p := range c.pods(nil) {
			c.setPhase(p, corev1.PodSucceeded)
		}
		c.eventually(21*time.Second, "two finished pods are kept", func() bool { return len(c.pods(nil)) == 2 })
		c.create(podOf("orphan", "1", func(p *corev1.Pod) { p.Spec.NodeName = "no-such-node" }))
		time.Sleep(40 * time.Second)
		if n := len(c.pods(nil)); n != 3 {
			t.Errorf("%d pods before the quarantine has ended, want 3", n)
		}
		c.eventually(41*time.Second, "the pod of a node that does not exist is deleted", func() bool { return len(c.pods(nil)) == 2 })
	})
}

func TestControllersStartAgain(t *testing.T) {
	o := everything()
	o.controllers, o.garbage = nil, nil
	inBubble(t, o, func(c *cluster) {
		c.addNode(node("n1", "20"))
		for round := range int32(3) {
			ctx, cancel := context.WithCancel(c.ctx)
			stopped, err := StartControllers(ctx, c.s.Config("kube-controller-manager"), LocalControllers())
			if err != nil {
				t.Fatal(err)
			}
			name := fmt.Sprint("web", round)
			c.create(deploymentOf(name, 2, "1"))
			c.eventually(20*time.Second, "the pods run", func() bool { return len(c.pods(running)) == int(round+1)*2 })
			cancel()
			<-stopped
			// Nobody replaces a pod now; the next round does.
			p := c.pods(func(p *corev1.Pod) bool { return p.Labels["app"] == name })[0]
			if err := c.client.CoreV1().Pods(p.Namespace).Delete(c.ctx, p.Name, metav1.DeleteOptions{}); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Minute)
			if got := len(c.pods(nil)); got != int(round+1)*2-1 {
				t.Fatalf("%d pods without controllers, want %d", got, int(round+1)*2-1)
			}
			ctx, cancel = context.WithCancel(c.ctx)
			stopped, err = StartControllers(ctx, c.s.Config("kube-controller-manager"), LocalControllers())
			if err != nil {
				t.Fatal(err)
			}
			c.eventually(20*time.Second, "the pod is replaced", func() bool { return len(c.pods(running)) == int(round+1)*2 })
			cancel()
			<-stopped
		}
	})
}
