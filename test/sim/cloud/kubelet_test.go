// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package cloud_test

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/nap-aks/nap/localazure/fleet"
	"github.com/nap-aks/nap/test/sim/apiserver"
	"github.com/nap-aks/nap/test/sim/cloud"
)

var (
	pods   = corev1.SchemeGroupVersion.WithResource("pods")
	nodes  = corev1.SchemeGroupVersion.WithResource("nodes")
	events = corev1.SchemeGroupVersion.WithResource("events")
	csi    = storagev1.SchemeGroupVersion.WithResource("csinodes")
)

// cluster is an API server with kubelets on the machines of a cloud.
type cluster struct {
	*arm
	api      *apiserver.Server
	kubelets *cloud.Kubelets
}

// withCluster runs f in a bubble with machines that take 10 s to exist, 30 s to boot
// and 5 s to be ready; pods start in 2 s and stop in 4 s.
func withCluster(t *testing.T, change func(*cloud.Options, *cloud.KubeletOptions), f func(c *cluster)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		o := options()
		o.Latency, o.Create = cloud.Span{}, span(10*time.Second)
		ko := cloud.KubeletOptions{Rand: rand.New(rand.NewPCG(3, 4)), Ready: span(5 * time.Second), PodStart: span(2 * time.Second), PodStop: span(4 * time.Second), Location: "eastus"}
		if change != nil {
			change(&o, &ko)
		}
		cl, err := cloud.New(o)
		if err != nil {
			t.Fatal(err)
		}
		api, err := apiserver.New(apiserver.Options{Seed: 1})
		if err != nil {
			t.Fatal(err)
		}
		f(&cluster{&arm{t, cl}, api, cloud.StartKubelets(api, cl, ko)})
	})
}

// bootAfter is how long a machine takes from the request to its registration, readyAfter
// until its node is ready.
const (
	bootAfter  = 40 * time.Second
	readyAfter = 45 * time.Second
)

// machine asks for a machine and returns its node's name.
func (c *cluster) machine(name string) string {
	c.t.Helper()
	if got := c.do("PUT", machineURL(name), `{"zones":["1"],"properties":{"hardware":{"vmSize":"Standard_D2s_v5"},"kubernetes":{"maxPods":50,"nodeLabels":{"team":"shop"},"nodeInitializationTaints":["karpenter.sh/unregistered:NoExecute","node.cilium.io/agent-not-ready=true:NoExecute"]}}}`); got.status != 201 {
		c.t.Fatalf("creating machine %s: %+v", name, got)
	}
	return "aks-aksmanagedap-" + name + "-00000000-vm"
}

// spot asks for a spot machine.
func (c *cluster) spot(name string) string {
	c.t.Helper()
	if got := c.do("PUT", machineURL(name), strings.Replace(d2, "Regular", "Spot", 1)); got.status != 201 {
		c.t.Fatalf("creating machine %s: %+v", name, got)
	}
	return "aks-aksmanagedap-" + name + "-00000000-vm"
}

func get[T runtime.Object](c *cluster, r schema.GroupVersionResource, namespace, name string) (out T, ok bool) {
	o, ok := c.api.Get(r, namespace, name)
	if ok {
		out = o.(T)
	}
	return out, ok
}

// ready returns the status of the Ready condition of a node; empty if there is none.
func (c *cluster) ready(node string) corev1.ConditionStatus {
	n, ok := get[*corev1.Node](c, nodes, "", node)
	if !ok {
		return ""
	}
	for _, x := range n.Status.Conditions {
		if x.Type == corev1.NodeReady {
			return x.Status
		}
	}
	return ""
}

// run creates a pod on a node.
func (c *cluster) run(node, name string, change ...func(*corev1.Pod)) {
	c.t.Helper()
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name},
		Spec:       corev1.PodSpec{NodeName: node, Containers: []corev1.Container{{Name: "app", Image: "example.com/app"}}},
	}
	for _, f := range change {
		f(p)
	}
	if err := c.api.Create(p); err != nil {
		c.t.Fatal(err)
	}
}

// state describes a pod: its phase, "ready" or "deleting", or "gone".
func (c *cluster) state(name string) string {
	p, ok := get[*corev1.Pod](c, pods, "default", name)
	if !ok {
		return "gone"
	}
	out := string(p.Status.Phase)
	for _, x := range p.Status.Conditions {
		if x.Type == corev1.PodReady && x.Status == corev1.ConditionTrue {
			out += " ready"
		}
	}
	if p.DeletionTimestamp != nil {
		out += " deleting"
	}
	return out
}

// expect fails unless a pod is in a state.
func (c *cluster) expect(name, want string) {
	c.t.Helper()
	if got := c.state(name); got != want {
		c.t.Fatalf("pod %s is %q, want %q", name, got, want)
	}
}

func TestNodesOfMachines(t *testing.T) {
	withCluster(t, nil, func(c *cluster) {
		node := c.machine("one")
		time.Sleep(bootAfter - time.Millisecond)
		if got := c.ready(node); got != "" {
			t.Fatalf("a node with readiness %s exists before its machine has booted", got)
		}
		time.Sleep(2 * time.Millisecond)
		n, ok := get[*corev1.Node](c, nodes, "", node)
		if !ok || c.ready(node) != corev1.ConditionFalse {
			t.Fatalf("node after boot: %v", n)
		}
		if n.Labels["team"] != "shop" || n.Labels[corev1.LabelTopologyZone] != "eastus-1" || n.Spec.ProviderID != c.Machines()[0].ProviderID || n.Status.Capacity.Pods().Value() != 50 || n.Status.NodeInfo.KubeletVersion != "v1.36.3" {
			t.Fatalf("node: %+v", n)
		}
		taints := func() string {
			n, _ := get[*corev1.Node](c, nodes, "", node)
			return fmt.Sprint(n.Spec.Taints)
		}
		if got := taints(); !strings.Contains(got, "karpenter.sh/unregistered") || !strings.Contains(got, fleet.CiliumTaint) {
			t.Fatalf("taints %s", got)
		}
		if x, ok := get[*storagev1.CSINode](c, csi, "", node); !ok || *x.Spec.Drivers[0].Allocatable.Count != 4 || x.OwnerReferences[0].UID != n.UID {
			t.Fatalf("CSINode %+v", x)
		}
		time.Sleep(readyAfter - bootAfter)
		if c.ready(node) != corev1.ConditionTrue || !strings.Contains(taints(), fleet.CiliumTaint) {
			t.Fatalf("node is %s, taints %s", c.ready(node), taints())
		}
		time.Sleep(2 * time.Second) // Cilium's agent starts
		if got := taints(); strings.Contains(got, fleet.CiliumTaint) || !strings.Contains(got, "karpenter.sh/unregistered") {
			t.Fatalf("taints %s", got)
		}
		// A Node that somebody deletes does not come back while the machine runs.
		if err := c.api.Delete(nodes, "", node); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Hour)
		if c.ready(node) != "" || len(c.Machines()) != 1 {
			t.Fatal("the deleted node has registered again")
		}
	})
}

func TestPodsStartAndStop(t *testing.T) {
	withCluster(t, nil, func(c *cluster) {
		node := c.machine("one")
		time.Sleep(bootAfter + time.Millisecond)
		c.run(node, "early") // as one that tolerates a node that is not ready
		c.run(node, "host", func(p *corev1.Pod) { p.Spec.HostNetwork = true })
		time.Sleep(3 * time.Second)
		c.expect("early", "Pending")
		c.expect("host", "Running ready")
		time.Sleep(readyAfter - bootAfter)
		c.expect("early", "Running ready")

		c.run(node, "app")
		time.Sleep(time.Second)
		c.expect("app", "Pending")
		time.Sleep(time.Second + time.Millisecond)
		c.expect("app", "Running ready")
		p, _ := get[*corev1.Pod](c, pods, "default", "app")
		host, _ := get[*corev1.Pod](c, pods, "default", "host")
		if p.Status.PodIP == "" || p.Status.PodIP == host.Status.PodIP || host.Status.PodIP != host.Status.HostIP || p.Status.StartTime == nil || !p.Status.ContainerStatuses[0].Ready || p.Status.ContainerStatuses[0].State.Running == nil {
			t.Fatalf("status %+v", p.Status)
		}

		// It stops in 4 s, or in its grace period if that is shorter.
		if err := c.api.Delete(pods, "default", "app"); err != nil {
			t.Fatal(err)
		}
		c.run(node, "short", func(p *corev1.Pod) {
			p.Spec.TerminationGracePeriodSeconds = new(int64)
			*p.Spec.TerminationGracePeriodSeconds = 1
		})
		time.Sleep(3 * time.Second)
		c.expect("app", "Running ready deleting")
		if err := c.api.Delete(pods, "default", "short"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(1001 * time.Millisecond)
		c.expect("app", "gone")
		c.expect("short", "gone")

		// One that has not started stops at once.
		c.run(node, "never")
		if err := c.api.Delete(pods, "default", "never"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Millisecond)
		c.expect("never", "gone")
		time.Sleep(time.Minute)
		c.expect("never", "gone")

		// Who has a finalizer says how it ended, and waits.
		c.run(node, "tracked", func(p *corev1.Pod) { p.Finalizers = []string{"batch.kubernetes.io/job-tracking"} })
		time.Sleep(3 * time.Second)
		if err := c.api.Delete(pods, "default", "tracked"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(5 * time.Second)
		c.expect("tracked", "Failed deleting")
	})
}

func TestPodsThatEndOrAreNotReady(t *testing.T) {
	withCluster(t, func(_ *cloud.Options, o *cloud.KubeletOptions) { o.PodReady = span(10 * time.Second) }, func(c *cluster) {
		if err := c.kubelets.AddSystemNodes(1, "Standard_D4s_v5", "1.36.3"); err != nil {
			t.Fatal(err)
		}
		const node = "aks-system-00000000-vmss000000"
		annotate := func(key, value string) func(*corev1.Pod) {
			return func(p *corev1.Pod) {
				p.Annotations = map[string]string{key: value}
				p.Spec.RestartPolicy = corev1.RestartPolicyNever
			}
		}
		c.run(node, "app")
		c.run(node, "timed", annotate(fleet.DurationAnnotation, "90s"))
		c.run(node, "odd", annotate(fleet.DurationAnnotation, "soon"))
		c.run(node, "hook", annotate("helm.sh/hook", "test"))
		c.run(node, "job", func(p *corev1.Pod) {
			p.OwnerReferences = []metav1.OwnerReference{{APIVersion: "batch/v1", Kind: "Job", Name: "j", UID: "j"}}
		})
		c.run(node, "sick", func(p *corev1.Pod) { p.Labels = map[string]string{fleet.StageLabel: fleet.Unhealthy} })
		c.run(node, "sidecar", func(p *corev1.Pod) {
			always := corev1.ContainerRestartPolicyAlways
			p.Spec.InitContainers = []corev1.Container{{Name: "init", Image: "init"}, {Name: "side", Image: "side", RestartPolicy: &always}}
		})
		time.Sleep(2500 * time.Millisecond)
		c.expect("app", "Running")
		time.Sleep(time.Second)
		c.expect("hook", "Succeeded")
		time.Sleep(9 * time.Second)
		c.expect("app", "Running ready")
		c.expect("sick", "Running")
		c.expect("job", "Running ready")
		p, _ := get[*corev1.Pod](c, pods, "default", "sidecar")
		if s := p.Status.InitContainerStatuses; len(s) != 2 || s[0].State.Terminated == nil || s[1].State.Running == nil {
			t.Fatalf("init containers %+v", s)
		}
		time.Sleep(30 * time.Second)
		c.expect("job", "Succeeded")
		c.expect("odd", "Succeeded")
		c.expect("timed", "Running ready")
		time.Sleep(50 * time.Second)
		c.expect("timed", "Succeeded")
		p, _ = get[*corev1.Pod](c, pods, "default", "timed")
		if s := p.Status.ContainerStatuses[0]; s.State.Terminated == nil || s.State.Terminated.Reason != "Completed" || s.Ready {
			t.Fatalf("container %+v", s)
		}
		time.Sleep(24 * time.Hour)
		c.expect("app", "Running ready")
		c.expect("sick", "Running")
	})
}

func TestMachinesThatAreGone(t *testing.T) {
	withCluster(t, nil, func(c *cluster) {
		one, two := c.machine("one"), c.machine("two")
		time.Sleep(time.Minute)
		c.run(one, "app")
		time.Sleep(time.Minute)
		if err := c.api.Delete(pods, "default", "app"); err != nil {
			t.Fatal(err)
		}
		c.run(one, "late")
		// AKS deletes a machine: its Node goes soon, its kubelet at once.
		c.Remove("one")
		if got := c.do("POST", deleteURL, `{"machineNames":["two"]}`); got.status != 202 {
			t.Fatalf("deleting: %+v", got)
		}
		time.Sleep(19 * time.Second)
		if c.ready(two) != corev1.ConditionTrue {
			t.Fatal("the node of a deleted machine is gone early")
		}
		time.Sleep(2 * time.Second)
		if _, ok := c.api.Get(csi, "", two); ok || c.ready(two) != "" {
			t.Fatal("the node of a deleted machine is still there")
		}
		// Nobody ends or starts the pods of a machine that has vanished.
		c.expect("app", "Running ready deleting")
		c.expect("late", "Pending")
		// The Node is not ready after 40 s, and deleted when the cloud's controller looks.
		if c.ready(one) != corev1.ConditionTrue {
			t.Fatal("the node of a vanished machine is not ready at once")
		}
		time.Sleep(20 * time.Second)
		if got := c.ready(one); got != corev1.ConditionUnknown {
			t.Fatalf("the node of a vanished machine is %q", got)
		}
		time.Sleep(5 * time.Second)
		if got := c.ready(one); got != "" {
			t.Fatalf("the node of a vanished machine is still there: %s", got)
		}
	})
}

func TestEvictionIsAnnounced(t *testing.T) {
	withCluster(t, nil, func(c *cluster) {
		node := c.spot("one")
		time.Sleep(time.Minute)
		c.Evict("one")
		n, _ := get[*corev1.Node](c, nodes, "", node)
		deadline := time.Now().Add(30 * time.Second).UTC().Format(time.RFC1123)
		if last := n.Status.Conditions[len(n.Status.Conditions)-1]; last.Type != "VMEventScheduled" || last.Status != corev1.ConditionTrue || !strings.Contains(last.Message, deadline) {
			t.Fatalf("condition %+v, want the deadline %s", last, deadline)
		}
		found := false
		c.api.Each(events, func(o runtime.Object) bool {
			found = found || o.(*corev1.Event).Reason == "PreemptScheduled"
			return true
		})
		if !found {
			t.Fatal("no event PreemptScheduled")
		}
		time.Sleep(31 * time.Second)
		if len(c.Machines()) != 0 || c.ready(node) != corev1.ConditionTrue {
			t.Fatalf("%d machines, node %s", len(c.Machines()), c.ready(node))
		}
	})
}

func TestBrokenMachines(t *testing.T) {
	withCluster(t, nil, func(c *cluster) {
		c.OnLaunch(func(m *cloud.Machine) cloud.Launch {
			return cloud.Launch{NeverRegister: m.Name == "mute", NeverReady: m.Name == "ill"}
		})
		mute, ill := c.machine("mute"), c.machine("ill")
		time.Sleep(bootAfter + time.Second)
		c.run(ill, "daemon")
		time.Sleep(time.Hour)
		if c.ready(mute) != "" || c.ready(ill) != corev1.ConditionFalse {
			t.Fatalf("nodes are %q and %q", c.ready(mute), c.ready(ill))
		}
		c.expect("daemon", "Pending")
		c.kubelets.SetReady(ill, true)
		c.kubelets.SetReady(mute, true)
		if c.ready(mute) != "" || c.ready(ill) != corev1.ConditionFalse {
			t.Fatalf("nodes are %q and %q", c.ready(mute), c.ready(ill))
		}
		if list := c.Machines(); !list[0].Broken || !list[1].Broken {
			t.Fatalf("machines %+v %+v", list[0], list[1])
		}
		if _, rate := c.Cost(); rate == 0 {
			t.Fatal("broken machines cost nothing")
		}
	})
}

func TestNodesThatAreNotReadyForAWhile(t *testing.T) {
	withCluster(t, nil, func(c *cluster) {
		node := c.machine("one")
		time.Sleep(time.Minute)
		n, _ := get[*corev1.Node](c, nodes, "", node)
		since := func(n *corev1.Node) time.Time { return n.Status.Conditions[3].LastTransitionTime.Time }
		first := since(n)

		c.run(node, "app")
		time.Sleep(3 * time.Second)
		c.kubelets.SetReady(node, false)
		c.run(node, "waits")
		time.Sleep(time.Minute)
		if c.ready(node) != corev1.ConditionFalse {
			t.Fatalf("node is %s", c.ready(node))
		}
		c.expect("app", "Running ready")
		c.expect("waits", "Pending")
		c.kubelets.SetReady(node, true)
		c.kubelets.SetReady(node, true)
		n, _ = get[*corev1.Node](c, nodes, "", node)
		if again := since(n); !again.After(first) || c.ready(node) != corev1.ConditionTrue {
			t.Fatalf("ready since %s, first %s", again, first)
		}
		time.Sleep(3 * time.Second)
		c.expect("waits", "Running ready")

		// A silent kubelet does nothing until it is back.
		c.kubelets.Silence(node, true)
		c.run(node, "new")
		if err := c.api.Delete(pods, "default", "app"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(39 * time.Second)
		if c.ready(node) != corev1.ConditionTrue {
			t.Fatalf("node is %s 39 s after its kubelet has fallen silent", c.ready(node))
		}
		time.Sleep(2 * time.Second)
		if c.ready(node) != corev1.ConditionUnknown {
			t.Fatalf("node is %s 41 s after its kubelet has fallen silent", c.ready(node))
		}
		c.expect("app", "Running ready deleting")
		c.expect("new", "Pending")
		c.kubelets.Silence(node, false)
		c.expect("app", "gone")
		c.expect("new", "Running ready")
		if c.ready(node) != corev1.ConditionTrue {
			t.Fatalf("node is %s", c.ready(node))
		}
		time.Sleep(time.Minute)
		if c.ready(node) != corev1.ConditionTrue {
			t.Fatalf("node is %s", c.ready(node))
		}
	})
}

func TestSystemNodes(t *testing.T) {
	withCluster(t, nil, func(c *cluster) {
		if err := c.kubelets.AddSystemNodes(3, "Standard_D4s_v5", "1.36.3"); err != nil {
			t.Fatal(err)
		}
		zones := map[string]bool{}
		for i := range 3 {
			n, ok := get[*corev1.Node](c, nodes, "", fmt.Sprintf("aks-system-00000000-vmss%06d", i))
			if !ok || n.Labels["kubernetes.azure.com/mode"] != "system" || c.ready(n.Name) != corev1.ConditionTrue || n.Spec.Taints[0].Key != "CriticalAddonsOnly" {
				t.Fatalf("node %d: %+v", i, n)
			}
			zones[n.Labels[corev1.LabelTopologyZone]] = true
		}
		if len(zones) != 3 || len(c.Machines()) != 0 {
			t.Fatalf("zones %v, %d machines", zones, len(c.Machines()))
		}
		if err := c.kubelets.AddSystemNodes(1, "Standard_X", "1.36.3"); err == nil {
			t.Fatal("a size that does not exist was accepted")
		}
	})
}
