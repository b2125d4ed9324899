// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package cloud

import (
	"fmt"
	"math/rand/v2"
	"strconv"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/nap-aks/nap/localazure/fleet"
	"github.com/nap-aks/nap/localazure/intent"
	"github.com/nap-aks/nap/test/sim/apiserver"
)

// KubeletOptions are the durations of the simulated kubelets.
type KubeletOptions struct {
	Rand *rand.Rand
	// Ready is how long a node takes from its registration until it is ready, PodStart
	// how long a pod takes from its binding until it runs and is ready, PodStop how
	// long its containers take to end; at most the grace period.
	Ready, PodStart, PodStop Span
	// NodeGone is how long after its machine a Node is deleted by the cloud node
	// lifecycle controller.
	NodeGone time.Duration
	Location string
}

// Kubelets are the kubelets of all machines. They write to the API server without
// delay and without heartbeats: the durations are in KubeletOptions.
type Kubelets struct {
	options KubeletOptions
	api     *apiserver.Server
	cloud   *Cloud

	mu    sync.Mutex
	alive map[string]bool // by node name; false once the machine is gone
	next  int             // of pod addresses
}

var (
	podsResource  = corev1.SchemeGroupVersion.WithResource("pods")
	nodesResource = corev1.SchemeGroupVersion.WithResource("nodes")
)

// StartKubelets starts the kubelets: each begins when its machine has booted.
func StartKubelets(api *apiserver.Server, c *Cloud, o KubeletOptions) *Kubelets {
	if o.NodeGone == 0 {
		o.NodeGone = 10 * time.Second
	}
	k := &Kubelets{options: o, api: api, cloud: c, alive: map[string]bool{}}
	api.Subscribe(k.changed)
	c.Subscribe(func(t EventType, m *Machine) {
		switch t {
		case Booted:
			go k.boot(m)
		case Gone:
			k.die(m.NodeName)
		}
	})
	return k
}

// draw returns a duration of a span.
func (k *Kubelets) draw(s Span) time.Duration {
	k.mu.Lock()
	defer k.mu.Unlock()
	return s.draw(k.options.Rand)
}

func (k *Kubelets) serves(node string) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.alive[node]
}

// AddSystemNodes creates nodes of the system pool that are ready at once.
func (k *Kubelets) AddSystemNodes(count int, size, kubernetes string) error {
	for i := range count {
		name := fmt.Sprintf("aks-system-00000000-vmss%06d", i)
		m := intent.MachineIntent{
			Pool: "system", Mode: "System", Name: strconv.Itoa(i), NodeName: name, VMSize: size, Location: k.options.Location, Zone: strconv.Itoa(i%3 + 1),
			ProviderID:        "azure:///subscriptions/" + Subscription + "/resourceGroups/mc_sim_sim/providers/Microsoft.Compute/virtualMachineScaleSets/aks-system-00000000-vmss/virtualMachines/" + strconv.Itoa(i),
			KubernetesVersion: kubernetes, NodeResourceGroup: NodeGroup, Taints: []string{"CriticalAddonsOnly=true:NoSchedule"},
		}
		n, err := fleet.NodeFor(m, intent.ClusterIntent{})
		if err != nil {
			return err
		}
		n.Status.Conditions = conditions(true)
		if err := k.api.Create(n); err != nil {
			return err
		}
		k.mu.Lock()
		k.alive[name] = true
		k.mu.Unlock()
	}
	return nil
}

// boot registers the node of a machine and makes it ready.
func (k *Kubelets) boot(m *Machine) {
	n, err := fleet.NodeFor(m.spec, intent.ClusterIntent{})
	if err != nil {
		panic(fmt.Sprintf("node of machine %s: %v", m.Name, err)) // its size was looked up before
	}
	n.Status.Conditions = conditions(false)
	if err := k.api.Create(n); err != nil {
		return
	}
	k.mu.Lock()
	k.alive[m.NodeName] = true
	k.mu.Unlock()
	if m.Broken {
		return
	}
	time.Sleep(k.draw(k.options.Ready))
	k.SetReady(m.NodeName, true)
}

// SetReady makes a node ready or not ready.
func (k *Kubelets) SetReady(node string, ready bool) {
	o, ok := k.api.Get(nodesResource, "", node)
	if !ok || !k.serves(node) {
		return
	}
	n := o.DeepCopyObject().(*corev1.Node)
	n.ResourceVersion = ""
	n.Status.Conditions = conditions(ready)
	_ = k.api.UpdateStatus(n) // the node may have been deleted
}

func conditions(ready bool) []corev1.NodeCondition {
	now := metav1.Now().Rfc3339Copy()
	c := func(t corev1.NodeConditionType, status corev1.ConditionStatus, reason, message string) corev1.NodeCondition {
		return corev1.NodeCondition{Type: t, Status: status, Reason: reason, Message: message, LastHeartbeatTime: now, LastTransitionTime: now}
	}
	state := c(corev1.NodeReady, corev1.ConditionTrue, "KubeletReady", "kubelet is posting ready status")
	if !ready {
		state = c(corev1.NodeReady, corev1.ConditionFalse, "KubeletNotReady", "container runtime network not ready")
	}
	return []corev1.NodeCondition{
		c(corev1.NodeMemoryPressure, corev1.ConditionFalse, "KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
		c(corev1.NodeDiskPressure, corev1.ConditionFalse, "KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
		c(corev1.NodePIDPressure, corev1.ConditionFalse, "KubeletHasSufficientPID", "kubelet has sufficient PID available"),
		state,
	}
}

// die ends the kubelet of a machine that is gone. Its Node is deleted later.
func (k *Kubelets) die(node string) {
	k.mu.Lock()
	k.alive[node] = false
	k.mu.Unlock()
	sleepThen(k.options.NodeGone, func() {
		if _, ok := k.api.Get(nodesResource, "", node); ok {
			_ = k.api.Delete(nodesResource, "", node)
		}
	})
}

// changed follows pods: one that is bound starts, one that is deleted stops.
func (k *Kubelets) changed(e apiserver.Event) {
	p, ok := e.Object.(*corev1.Pod)
	if !ok || e.Type == watch.Deleted || p.Spec.NodeName == "" {
		return
	}
	old, _ := e.Old.(*corev1.Pod)
	switch {
	case p.DeletionTimestamp != nil && (old == nil || old.DeletionTimestamp == nil || *old.DeletionGracePeriodSeconds != *p.DeletionGracePeriodSeconds):
		stop := min(k.draw(k.options.PodStop), time.Duration(*p.DeletionGracePeriodSeconds)*time.Second)
		k.later(stop, p, func() { k.stop(p) })
	case p.DeletionTimestamp == nil && (old == nil || old.Spec.NodeName == ""):
		k.later(k.draw(k.options.PodStart), p, func() { k.start(p.Namespace, p.Name, p.UID) })
	}
}

// later runs f after d if the pod's kubelet still lives.
func (k *Kubelets) later(d time.Duration, p *corev1.Pod, f func()) {
	node := p.Spec.NodeName
	sleepThen(d, func() {
		if k.serves(node) {
			f()
		}
	})
}

func (k *Kubelets) stop(p *corev1.Pod) {
	zero, uid := int64(0), p.UID
	_ = k.api.DeleteWith(podsResource, p.Namespace, p.Name, metav1.DeleteOptions{GracePeriodSeconds: &zero, Preconditions: &metav1.Preconditions{UID: &uid}})
}

// pod returns a copy of a pod to change its status, or nil if it is gone.
func (k *Kubelets) pod(namespace, name string, uid types.UID) *corev1.Pod {
	o, ok := k.api.Get(podsResource, namespace, name)
	if !ok || o.(*corev1.Pod).UID != uid {
		return nil
	}
	p := o.DeepCopyObject().(*corev1.Pod)
	p.ResourceVersion = ""
	return p
}

// start makes a pod run and be ready, and end if it is one that ends.
func (k *Kubelets) start(namespace, name string, uid types.UID) {
	p := k.pod(namespace, name, uid)
	if p == nil || p.DeletionTimestamp != nil {
		return
	}
	now := metav1.Now().Rfc3339Copy()
	k.mu.Lock()
	k.next++
	ip := fmt.Sprintf("10.244.%d.%d", k.next/250%250, k.next%250+1)
	k.mu.Unlock()
	p.Status.Phase, p.Status.StartTime, p.Status.PodIP, p.Status.PodIPs = corev1.PodRunning, &now, ip, []corev1.PodIP{{IP: ip}}
	for _, t := range []corev1.PodConditionType{corev1.PodInitialized, corev1.PodReady, corev1.ContainersReady} {
		setCondition(p, t, corev1.ConditionTrue, "")
	}
	p.Status.ContainerStatuses = nil
	yes := true
	for _, c := range p.Spec.Containers {
		p.Status.ContainerStatuses = append(p.Status.ContainerStatuses, corev1.ContainerStatus{
			Name: c.Name, Image: c.Image, Ready: true, Started: &yes, State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: now}},
		})
	}
	if err := k.api.UpdateStatus(p); err != nil {
		return
	}
	if d, ends := runTime(p, k); ends {
		k.later(d, p, func() { k.complete(namespace, name, uid) })
	}
}

// runTime returns how long a pod runs and whether it ends at all: one with a duration,
// and one of a Job.
func runTime(p *corev1.Pod, k *Kubelets) (time.Duration, bool) {
	if d, err := time.ParseDuration(p.Annotations[fleet.DurationAnnotation]); err == nil {
		return d, true
	}
	if o := metav1.GetControllerOf(p); o != nil && o.Kind == "Job" {
		return k.draw(Span{20 * time.Second, 40 * time.Second}), true
	}
	return 0, false
}

func (k *Kubelets) complete(namespace, name string, uid types.UID) {
	p := k.pod(namespace, name, uid)
	if p == nil || p.DeletionTimestamp != nil {
		return
	}
	now := metav1.Now().Rfc3339Copy()
	p.Status.Phase = corev1.PodSucceeded
	for _, t := range []corev1.PodConditionType{corev1.PodReady, corev1.ContainersReady} {
		setCondition(p, t, corev1.ConditionFalse, "PodCompleted")
	}
	for i := range p.Status.ContainerStatuses {
		s := &p.Status.ContainerStatuses[i]
		s.Ready = false
		s.State = corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{Reason: "Completed", FinishedAt: now}}
	}
	_ = k.api.UpdateStatus(p)
}

func setCondition(p *corev1.Pod, t corev1.PodConditionType, status corev1.ConditionStatus, reason string) {
	now := metav1.Now().Rfc3339Copy()
	for i := range p.Status.Conditions {
		if c := &p.Status.Conditions[i]; c.Type == t {
			if c.Status != status {
				c.Status, c.LastTransitionTime = status, now
			}
			c.Reason = reason
			return
		}
	}
	p.Status.Conditions = append(p.Status.Conditions, corev1.PodCondition{Type: t, Status: status, Reason: reason, LastTransitionTime: now})
}
