// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/kubernetes"

	"github.com/nap-aks/nap/test/sim/apiserver"
)

var (
	pods        = corev1.SchemeGroupVersion.WithResource("pods")
	nodes       = corev1.SchemeGroupVersion.WithResource("nodes")
	replicaSets = appsv1.SchemeGroupVersion.WithResource("replicasets")
)

// cluster is a control plane in a bubble, with kubelets that run pods at once.
type cluster struct {
	t      testing.TB
	s      *apiserver.Server
	client kubernetes.Interface
	ctx    context.Context
	end    []func()
}

// config says what runs in a cluster.
type config struct {
	scheduler   *SchedulerOptions
	controllers *ControllerOptions
	garbage     *GarbageOptions
	noKubelets  bool
}

// everything runs all there is, at the rates of a local cluster.
func everything() config {
	s, c, g := LocalScheduler(), LocalControllers(), LocalGarbage()
	return config{scheduler: &s, controllers: &c, garbage: &g}
}

// inBubble runs f in a bubble with a cluster.
func inBubble(t *testing.T, o config, f func(*cluster)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, o)
		defer c.stop()
		f(c)
	})
}

func newCluster(t testing.TB, o config) *cluster {
	ctx, cancel := context.WithCancel(context.Background())
	server, err := apiserver.New(apiserver.Options{Seed: 1})
	if err != nil {
		t.Fatal(err)
	}
	c := &cluster{t: t, s: server, ctx: ctx}
	c.end = append(c.end, c.s.Stop, cancel)
	if c.client, err = kubernetes.NewForConfig(c.s.Config("test")); err != nil {
		t.Fatal(err)
	}
	if o.scheduler != nil {
		c.startScheduler(ctx, *o.scheduler)
	}
	if o.controllers != nil {
		c.startControllers(ctx, *o.controllers)
	}
	if o.garbage != nil {
		c.startGarbage(ctx, *o.garbage)
	}
	if !o.noKubelets {
		go c.kubelets()
	}
	return c
}

func (c *cluster) startScheduler(ctx context.Context, o SchedulerOptions) {
	c.t.Helper()
	stopped, err := StartScheduler(ctx, c.s.Config("kube-scheduler"), o)
	c.wait(stopped, err)
}

func (c *cluster) startControllers(ctx context.Context, o ControllerOptions) {
	c.t.Helper()
	stopped, err := StartControllers(ctx, c.s.Config("kube-controller-manager"), o)
	c.wait(stopped, err)
}

func (c *cluster) startGarbage(ctx context.Context, o GarbageOptions) {
	c.t.Helper()
	stopped, err := StartGarbageCollector(ctx, c.s.Config("kube-controller-manager"), c.s, o)
	c.wait(stopped, err)
}

func (c *cluster) wait(stopped <-chan struct{}, err error) {
	c.t.Helper()
	if err != nil {
		c.t.Fatal(err)
	}
	c.end = append([]func(){func() { <-stopped }}, c.end...)
}

func (c *cluster) stop() {
	for i := len(c.end) - 1; i >= 0; i-- {
		c.end[i]()
	}
}

// kubelets run bound pods within a second, and end deleted ones.
func (c *cluster) kubelets() {
	for sleep(c.ctx, time.Second) {
		var bound []*corev1.Pod
		c.s.Each(pods, func(obj runtime.Object) bool {
			if p := obj.(*corev1.Pod); p.Spec.NodeName != "" && (p.DeletionTimestamp != nil || p.Status.Phase == corev1.PodPending) {
				bound = append(bound, p.DeepCopy())
			}
			return true
		})
		for _, p := range bound {
			if p.DeletionTimestamp != nil {
				zero := int64(0)
				_ = c.client.CoreV1().Pods(p.Namespace).Delete(c.ctx, p.Name, metav1.DeleteOptions{GracePeriodSeconds: &zero})
				continue
			}
			c.setPhase(p, corev1.PodRunning)
		}
	}
}

// setPhase sets a pod's phase, and its readiness with it.
func (c *cluster) setPhase(p *corev1.Pod, phase corev1.PodPhase) {
	p = p.DeepCopy()
	p.Status.Phase = phase
	ready := corev1.ConditionFalse
	if phase == corev1.PodRunning {
		ready = corev1.ConditionTrue
	}
	now := metav1.Now()
	p.Status.StartTime = &now
	conditions := p.Status.Conditions[:0:0]
	for _, cond := range p.Status.Conditions {
		if cond.Type != corev1.PodReady {
			conditions = append(conditions, cond)
		}
	}
	p.Status.Conditions = append(conditions, corev1.PodCondition{Type: corev1.PodReady, Status: ready, LastTransitionTime: now})
	_, _ = c.client.CoreV1().Pods(p.Namespace).UpdateStatus(c.ctx, p, metav1.UpdateOptions{}) // again in a second
}

// create creates objects.
func (c *cluster) create(objs ...runtime.Object) {
	c.t.Helper()
	for _, obj := range objs {
		if err := c.s.Create(obj); err != nil {
			c.t.Fatal(err)
		}
	}
}

// eventually fails the test if the condition does not hold within d.
func (c *cluster) eventually(d time.Duration, what string, cond func() bool) {
	c.t.Helper()
	for deadline := time.Now().Add(d); !cond(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			c.t.Fatalf("%s: not within %v\n%s", what, d, c.dump())
		}
	}
}

// dump lists the pods.
func (c *cluster) dump() (out string) {
	for _, p := range c.pods(nil) {
		out += fmt.Sprintf("%s/%s on %q %s deleted=%v %v\n", p.Namespace, p.Name, p.Spec.NodeName, p.Status.Phase, p.DeletionTimestamp != nil, p.Status.Conditions)
	}
	return out
}

// pods returns the pods for which f holds.
func (c *cluster) pods(f func(*corev1.Pod) bool) (out []*corev1.Pod) {
	c.s.Each(pods, func(obj runtime.Object) bool {
		if p := obj.(*corev1.Pod); f == nil || f(p) {
			out = append(out, p)
		}
		return true
	})
	return out
}

func (c *cluster) count(resource schema.GroupVersionResource) (n int) {
	c.s.Each(resource, func(runtime.Object) bool { n++; return true })
	return n
}

func running(p *corev1.Pod) bool {
	return p.Status.Phase == corev1.PodRunning && p.Spec.NodeName != "" && p.DeletionTimestamp == nil
}

func on(node string) func(*corev1.Pod) bool {
	return func(p *corev1.Pod) bool { return running(p) && p.Spec.NodeName == node }
}

// node returns a ready node with room for cpu cores.
func node(name, cpu string) *corev1.Node {
	room := corev1.ResourceList{
		corev1.ResourceCPU: resource.MustParse(cpu), corev1.ResourceMemory: resource.MustParse("64Gi"), corev1.ResourcePods: resource.MustParse("110"),
	}
	return &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{
			corev1.LabelHostname: name, corev1.LabelTopologyRegion: "eastus", corev1.LabelTopologyZone: "eastus-1", diskZoneLabel: "eastus-1",
		}},
		Status: corev1.NodeStatus{
			Capacity: room, Allocatable: room,
			Conditions: []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue, LastTransitionTime: metav1.Now()}},
		},
	}
}

// addNode creates a node with its status.
func (c *cluster) addNode(n *corev1.Node) {
	c.t.Helper()
	c.create(n.DeepCopy())
	c.updateNode(n.Name, func(now *corev1.Node) { now.Status = n.Status })
}

// updateNode changes a node's status.
func (c *cluster) updateNode(name string, f func(*corev1.Node)) {
	c.t.Helper()
	obj, ok := c.s.Get(nodes, "", name)
	if !ok {
		c.t.Fatalf("node %s does not exist", name)
	}
	n := obj.(*corev1.Node).DeepCopy()
	f(n)
	if err := c.s.UpdateStatus(n); err != nil {
		c.t.Fatal(err)
	}
}

// template is a pod that requests cpu.
func template(app, cpu string) corev1.PodTemplateSpec {
	return corev1.PodTemplateSpec{
		ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"app": app}},
		Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "i", Resources: corev1.ResourceRequirements{
			Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse(cpu)},
		}}}},
	}
}

func selector(app string) *metav1.LabelSelector {
	return &metav1.LabelSelector{MatchLabels: map[string]string{"app": app}}
}

func deploymentOf(app string, replicas int32, cpu string) *appsv1.Deployment {
	return &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: app},
		Spec:       appsv1.DeploymentSpec{Replicas: &replicas, Selector: selector(app), Template: template(app, cpu)},
	}
}

// podOf is a pod of its own.
func podOf(name, cpu string, change ...func(*corev1.Pod)) *corev1.Pod {
	t := template(name, cpu)
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name, Labels: t.Labels}, Spec: t.Spec}
	for _, f := range change {
		f(p)
	}
	return p
}
