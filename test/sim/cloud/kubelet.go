// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package cloud

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/nap-aks/nap/localazure/fleet"
	"github.com/nap-aks/nap/localazure/intent"
	"github.com/nap-aks/nap/test/sim/apiserver"
)

// KubeletOptions are the durations of the simulated kubelets.
type KubeletOptions struct {
	Rand *rand.Rand
	// Ready is how long a node takes from its registration until it is ready, PodStart
	// how long a pod takes from then, or from its binding if that is later, until it
	// runs, PodReady from then until it is ready, PodStop how long its containers take
	// to end; at most the grace period.
	Ready, PodStart, PodReady, PodStop Span
	// NodeGone is how long after its machine was deleted a Node is deleted: 10 s if zero,
	// at once if negative.
	NodeGone time.Duration
	// NodeLost is how long after a kubelet has fallen silent the conditions of its Node
	// are unknown: 40 s if zero. If its machine is gone, the Node is deleted soon after.
	NodeLost time.Duration
	Location string
	// Dataplane is the cluster's network dataplane, as in Options.
	Dataplane string
	// SystemTaints are the taints of system nodes, as "key=value:effect"; nil means
	// CriticalAddonsOnly=true:NoSchedule.
	SystemTaints []string
}

// monitorPeriod is how often the cloud node lifecycle controller looks for nodes
// without machines among those that are not ready.
const monitorPeriod = 5 * time.Second

// Kubelets are the kubelets of all machines. They write to the API server without
// delay and without heartbeats: the durations are in KubeletOptions.
type Kubelets struct {
	options KubeletOptions
	api     *apiserver.Server
	cloud   *Cloud
	due     *schedule

	mu    sync.Mutex
	nodes map[string]*kubelet // that live, by node name
	next  int                 // of pod addresses
}

// kubelet is the kubelet of one node. What changes of it is guarded by Kubelets.mu.
type kubelet struct {
	node, ip string
	// up is whether its node has become ready, never that it will not, down that it is
	// made not ready, silent that it does nothing and tells nobody.
	up, never, down, silent bool
	waiting                 []func() // pods that start once the node has a network
	held                    []func() // what a silent kubelet would have done
}

var (
	podsResource  = corev1.SchemeGroupVersion.WithResource("pods")
	nodesResource = corev1.SchemeGroupVersion.WithResource("nodes")
	csiResource   = storagev1.SchemeGroupVersion.WithResource("csinodes")
)

// StartKubelets starts the kubelets: each begins when its machine has booted.
func StartKubelets(api *apiserver.Server, c *Cloud, o KubeletOptions) *Kubelets {
	if o.NodeGone == 0 {
		o.NodeGone = 10 * time.Second
	}
	if o.NodeLost == 0 {
		o.NodeLost = 40 * time.Second
	}
	if o.SystemTaints == nil {
		o.SystemTaints = []string{"CriticalAddonsOnly=true:NoSchedule"}
	}
	k := &Kubelets{options: o, api: api, cloud: c, due: &c.due, nodes: map[string]*kubelet{}}
	api.Subscribe(k.changed)
	c.Subscribe(func(t EventType, m *Machine) {
		switch t {
		case Booted:
			k.boot(m)
		case Evicted:
			k.warn(m.NodeName)
		case Gone:
			k.die(m)
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

// of returns the kubelet of a node, or nil.
func (k *Kubelets) of(node string) *kubelet {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.nodes[node]
}

// register creates the Node of a machine and its CSINode.
func (k *Kubelets) register(m intent.MachineIntent, ready bool) (*kubelet, error) {
	n, err := fleet.NodeFor(m, intent.ClusterIntent{NetworkDataplane: k.options.Dataplane, NetworkPluginMode: "overlay"})
	if err != nil {
		return nil, err
	}
	setConditions(n, readiness(ready, "container runtime network not ready"))
	l := &kubelet{node: n.Name, up: ready, ip: n.Status.Addresses[0].Address}
	k.mu.Lock()
	k.nodes[n.Name] = l
	k.mu.Unlock()
	if err := k.api.Create(n); err != nil && !apierrors.IsAlreadyExists(err) {
		return nil, fmt.Errorf("registering node %s: %w", n.Name, err)
	}
	if o, ok := k.api.Get(nodesResource, "", n.Name); ok {
		n = o.(*corev1.Node)
	}
	csi, err := fleet.CSINodeFor(n, m)
	if err != nil {
		return nil, err
	}
	if err := k.api.Create(csi); err != nil && !apierrors.IsAlreadyExists(err) {
		return nil, fmt.Errorf("registering the CSI drivers of node %s: %w", n.Name, err)
	}
	return l, nil
}

// AddSystemNodes creates nodes of the system pool that are ready at once.
func (k *Kubelets) AddSystemNodes(count int, size, kubernetes string) error {
	for i := range count {
		m := intent.MachineIntent{
			Pool: "system", Mode: "System", Name: strconv.Itoa(i), NodeName: fmt.Sprintf("aks-system-00000000-vmss%06d", i), VMSize: size, Location: k.options.Location, Zone: strconv.Itoa(i%3 + 1),
			ProviderID:        "azure:///subscriptions/" + Subscription + "/resourceGroups/mc_sim_sim/providers/Microsoft.Compute/virtualMachineScaleSets/aks-system-00000000-vmss/virtualMachines/" + strconv.Itoa(i),
			KubernetesVersion: kubernetes, NodeResourceGroup: NodeGroup, Taints: k.options.SystemTaints,
		}
		l, err := k.register(m, true)
		if err != nil {
			return err
		}
		k.untaint(l)
	}
	return nil
}

// boot registers the node of a machine and makes it ready later.
func (k *Kubelets) boot(m *Machine) {
	l, err := k.register(m.spec, false)
	if err != nil {
		panic(fmt.Sprintf("kubelet of machine %s: %v", m.Name, err)) // the size was looked up before, and the cluster has no such node
	}
	if m.Broken {
		k.change(func() { l.never = true })
		return
	}
	k.later(l, k.draw(k.options.Ready), func() {
		k.change(func() { l.up = true })
		k.post(l)
		k.later(l, k.draw(k.options.PodStart), func() { k.untaint(l) })
	})
}

// later runs f after d, if the kubelet still lives; when it is silent then, once it is
// not any more.
func (k *Kubelets) later(l *kubelet, d time.Duration, f func()) {
	k.due.after(d, func() { k.act(l, f) })
}

func (k *Kubelets) act(l *kubelet, f func()) {
	k.mu.Lock()
	lives, silent := k.nodes[l.node] == l, l.silent
	if lives && silent {
		l.held = append(l.held, f)
	}
	k.mu.Unlock()
	if lives && !silent {
		f()
	}
}

// change changes what a kubelet is.
func (k *Kubelets) change(f func()) {
	k.mu.Lock()
	defer k.mu.Unlock()
	f()
}

// SetReady makes a node not ready, as if its container runtime had stopped, or takes
// that back. Pods that run go on. It does nothing for nodes without a kubelet.
func (k *Kubelets) SetReady(node string, ready bool) {
	if l := k.of(node); l != nil {
		k.change(func() { l.down = !ready })
		k.post(l)
	}
}

// Silence stops the kubelet of a node, or lets it go on. Of a silent one the conditions
// become unknown after a while; pods that are bound to it do not start, those deleted
// do not end. It does nothing for nodes without a kubelet.
func (k *Kubelets) Silence(node string, silent bool) {
	k.mu.Lock()
	l := k.nodes[node]
	if l == nil || l.silent == silent {
		k.mu.Unlock()
		return
	}
	l.silent = silent
	held := l.held
	l.held = nil
	k.mu.Unlock()
	if silent {
		k.due.after(k.options.NodeLost, func() {
			k.mu.Lock()
			lost := k.nodes[node] == l && l.silent
			k.mu.Unlock()
			if lost {
				k.forget(node)
			}
		})
		return
	}
	k.post(l)
	for _, f := range held {
		k.act(l, f)
	}
}

// post writes the conditions of a node, and starts the pods that have waited for it.
func (k *Kubelets) post(l *kubelet) {
	k.mu.Lock()
	ready, message := l.up && !l.down && !l.never, "container runtime network not ready"
	if l.down {
		message = "container runtime is down"
	}
	silent := l.silent
	var waiting []func()
	if ready && !silent {
		waiting, l.waiting = l.waiting, nil
	}
	k.mu.Unlock()
	if silent {
		return
	}
	k.updateNode(l.node, "status", func(n *corev1.Node) { setConditions(n, readiness(ready, message)) })
	for _, f := range waiting {
		k.later(l, k.draw(k.options.PodStart), f)
	}
}

// forget marks what nobody knows of a node whose kubelet is silent.
func (k *Kubelets) forget(node string) {
	k.updateNode(node, "status", func(n *corev1.Node) {
		var list []corev1.NodeCondition
		for _, c := range readiness(false, "") {
			c.Status, c.Reason, c.Message = corev1.ConditionUnknown, "NodeStatusUnknown", "Kubelet stopped posting node status."
			list = append(list, c)
		}
		setConditions(n, list)
	})
}

// warn tells the node of a spot machine that it will be evicted, as the node problem
// detector of AKS does.
func (k *Kubelets) warn(node string) {
	if k.of(node) == nil {
		return
	}
	message := "Preempt Scheduled: " + time.Now().Add(k.cloud.options.SpotNotice).UTC().Format(time.RFC1123)
	k.updateNode(node, "status", func(n *corev1.Node) {
		setConditions(n, []corev1.NodeCondition{{Type: "VMEventScheduled", Status: corev1.ConditionTrue, Reason: "VMEventScheduled", Message: message}})
	})
	now := metav1.Now().Rfc3339Copy()
	_ = k.api.Create(&corev1.Event{ // nobody waits for an event
		ObjectMeta:     metav1.ObjectMeta{Namespace: metav1.NamespaceDefault, GenerateName: node + "."},
		InvolvedObject: corev1.ObjectReference{APIVersion: "v1", Kind: "Node", Name: node}, Type: corev1.EventTypeWarning,
		Reason: "PreemptScheduled", Message: message, Source: corev1.EventSource{Component: "custom-scheduledevents-consolidated-preempt-plugin-monitor"},
		FirstTimestamp: now, LastTimestamp: now, Count: 1,
	})
}

// untaint removes Cilium's taint from a node whose agent runs.
func (k *Kubelets) untaint(l *kubelet) {
	k.updateNode(l.node, "", func(n *corev1.Node) {
		n.Spec.Taints = slices.DeleteFunc(n.Spec.Taints, func(t corev1.Taint) bool { return t.Key == fleet.CiliumTaint })
	})
}

// die ends the kubelet of a machine that is gone. Its Node is deleted later: by AKS,
// which has deleted the machine, or else by the cloud node lifecycle controller, which
// looks at nodes that are not ready.
func (k *Kubelets) die(m *Machine) {
	k.mu.Lock()
	delete(k.nodes, m.NodeName)
	k.mu.Unlock()
	if m.Deleting {
		k.due.after(k.options.NodeGone, func() { k.deleteNode(m) })
		return
	}
	k.due.after(k.options.NodeLost, func() {
		if k.of(m.NodeName) == nil {
			k.forget(m.NodeName)
		}
	})
	k.due.after(k.options.NodeLost+monitorPeriod, func() { k.deleteNode(m) })
}

// deleteNode deletes the Node of a machine that is gone.
func (k *Kubelets) deleteNode(m *Machine) {
	if k.of(m.NodeName) != nil {
		return // it has come back
	}
	if o, ok := k.api.Get(nodesResource, "", m.NodeName); ok && o.(*corev1.Node).DeletionTimestamp == nil {
		_ = k.api.Delete(nodesResource, "", m.NodeName) // nobody else deletes in between
	}
	if _, ok := k.api.Get(csiResource, "", m.NodeName); ok {
		_ = k.api.Delete(csiResource, "", m.NodeName)
	}
}

// updateNode changes a node, or its status, if it exists.
func (k *Kubelets) updateNode(name, subresource string, change func(*corev1.Node)) {
	k.update(nodesResource, "", name, subresource, func(o runtime.Object) bool {
		change(o.(*corev1.Node))
		return true
	})
}

// update changes an object, or its status, if it exists and change returns true. It
// reports whether it did.
func (k *Kubelets) update(r schema.GroupVersionResource, namespace, name, subresource string, change func(runtime.Object) bool) bool {
	for {
		old, ok := k.api.Get(r, namespace, name)
		if !ok {
			return false
		}
		o := old.DeepCopyObject()
		if !change(o) {
			return false
		}
		write := k.api.Update
		if subresource == "status" {
			write = k.api.UpdateStatus
		}
		switch err := write(o); {
		case err == nil:
			return true
		case !apierrors.IsConflict(err):
			return false // it was deleted in between
		}
	}
}

// readiness returns the conditions that a kubelet posts.
func readiness(ready bool, message string) []corev1.NodeCondition {
	c := func(t corev1.NodeConditionType, status corev1.ConditionStatus, reason, message string) corev1.NodeCondition {
		return corev1.NodeCondition{Type: t, Status: status, Reason: reason, Message: message}
	}
	state := c(corev1.NodeReady, corev1.ConditionTrue, "KubeletReady", "kubelet is posting ready status")
	if !ready {
		state = c(corev1.NodeReady, corev1.ConditionFalse, "KubeletNotReady", message)
	}
	return []corev1.NodeCondition{
		c(corev1.NodeMemoryPressure, corev1.ConditionFalse, "KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
		c(corev1.NodeDiskPressure, corev1.ConditionFalse, "KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
		c(corev1.NodePIDPressure, corev1.ConditionFalse, "KubeletHasSufficientPID", "kubelet has sufficient PID available"),
		state,
	}
}

// setConditions sets conditions of a node and leaves its others alone.
func setConditions(n *corev1.Node, list []corev1.NodeCondition) {
	now := metav1.Now().Rfc3339Copy()
	for _, c := range list {
		c.LastHeartbeatTime, c.LastTransitionTime = now, now
		i := slices.IndexFunc(n.Status.Conditions, func(x corev1.NodeCondition) bool { return x.Type == c.Type })
		if i < 0 {
			n.Status.Conditions = append(n.Status.Conditions, c)
			continue
		}
		if old := n.Status.Conditions[i]; old.Status == c.Status {
			c.LastTransitionTime = old.LastTransitionTime
		}
		n.Status.Conditions[i] = c
	}
}
