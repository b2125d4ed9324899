// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package autoscaler

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
)

// cloud is a fake whose nodes register and disappear at once, unless slow is set.
type cloud struct {
	mu      sync.Mutex
	client  *fake.Clientset
	groups  []*Group
	profile Profile
	next    int
	slow    bool
	calls   []string
	refuse  error
}

func (c *cloud) Groups(context.Context) ([]Group, Profile, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	var out []Group
	for _, g := range c.groups {
		x := *g
		x.Instances = slices.Clone(g.Instances)
		out = append(out, x)
	}
	return out, c.profile, nil
}

func (c *cloud) group(name string) *Group {
	for _, g := range c.groups {
		if g.Name == name {
			return g
		}
	}
	return nil
}

func (c *cloud) Grow(ctx context.Context, name string, n int) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.calls = append(c.calls, fmt.Sprintf("%s+%d", name, n))
	g := c.group(name)
	for range n {
		c.next++
		in := Instance{Name: fmt.Sprintf("%s-%d", name, c.next), Node: fmt.Sprintf("%s-node-%d", name, c.next), Since: time.Now()}
		g.Instances = append(g.Instances, in)
		if !c.slow {
			c.register(ctx, g, in)
		}
	}
	return nil
}

func (c *cloud) register(ctx context.Context, g *Group, in Instance) {
	n := g.Node(0).DeepCopy()
	n.Name = in.Node
	n.Labels[corev1.LabelHostname] = in.Node
	n.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}}
	_, _ = c.client.CoreV1().Nodes().Create(ctx, n, metav1.CreateOptions{})
}

func (c *cloud) Shrink(ctx context.Context, name string, machines []string, failed bool) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.refuse != nil {
		return c.refuse
	}
	text := name + "-" + strings.Join(machines, ",")
	if failed {
		text += "!"
	}
	c.calls = append(c.calls, text)
	g := c.group(name)
	g.Instances = slices.DeleteFunc(g.Instances, func(in Instance) bool {
		if slices.Contains(machines, in.Name) {
			_ = c.client.CoreV1().Nodes().Delete(ctx, in.Node, metav1.DeleteOptions{})
			return true
		}
		return false
	})
	return nil
}

// took returns the calls since the last one and forgets them.
func (c *cloud) took() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := c.calls
	c.calls = nil
	return out
}

func pool(name string, lo, hi int, cpu, memory string, change func(*corev1.Node)) *Group {
	return &Group{Name: name, ScaleSet: "aks-" + name + "-1-vmss", Min: lo, Max: hi, Node: func(int) *corev1.Node {
		n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"pool": name, corev1.LabelTopologyZone: "1"}}}
		n.Status.Allocatable = corev1.ResourceList{corev1.ResourceCPU: resource.MustParse(cpu), corev1.ResourceMemory: resource.MustParse(memory), corev1.ResourcePods: resource.MustParse("110")}
		n.Status.Capacity = n.Status.Allocatable
		if change != nil {
			change(n)
		}
		return n
	}}
}

var yes = true

func app(name string, n int, cpu string, change func(*corev1.Pod)) []*corev1.Pod {
	var out []*corev1.Pod
	for i := range n {
		p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("%s-%d", name, i), Namespace: "shop", UID: types.UID(fmt.Sprintf("%s-%d", name, i)), Labels: map[string]string{"app": name},
			OwnerReferences: []metav1.OwnerReference{{APIVersion: "apps/v1", Kind: "ReplicaSet", Name: name, UID: types.UID(name), Controller: &yes}}}}
		p.Spec.Containers = []corev1.Container{{Name: "c", Resources: corev1.ResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse(cpu), corev1.ResourceMemory: resource.MustParse("128Mi")}}}}
		p.Status.Phase = corev1.PodPending
		p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodScheduled, Status: corev1.ConditionFalse, Reason: corev1.PodReasonUnschedulable}}
		if change != nil {
			change(p)
		}
		out = append(out, p)
	}
	return out
}

func on(node string) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		p.Spec.NodeName = node
		p.Status = corev1.PodStatus{Phase: corev1.PodRunning}
	}
}

// fixture is an autoscaler of a fake cluster, whose clock can be set ahead.
type fixture struct {
	t     *testing.T
	cloud *cloud
	s     *scaler
	ahead time.Duration
}

func newFixture(t *testing.T, groups []*Group, pods []*corev1.Pod, others ...runtime.Object) *fixture {
	objs := others
	for _, p := range pods {
		objs = append(objs, p)
	}
	client := fake.NewClientset(objs...)
	f := &fixture{t: t, cloud: &cloud{client: client, groups: groups, profile: DefaultProfile()}}
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	for _, g := range groups {
		for _, in := range g.Instances {
			f.cloud.register(ctx, g, in)
		}
	}
	var err error
	if f.s, err = newScaler(ctx, client, f.cloud, slog.New(slog.DiscardHandler)); err != nil {
		t.Fatal(err)
	}
	f.s.now = func() time.Time { return time.Now().Add(f.ahead) }
	return f
}

// with adds instances to a pool that were requested an hour ago.
func with(g *Group, names ...string) *Group {
	for _, n := range names {
		g.Instances = append(g.Instances, Instance{Name: n, Node: n, Since: time.Now().Add(-time.Hour)})
	}
	return g
}

// scan runs one scan once the informers are up to date, and returns the calls to the
// cloud.
func (f *fixture) scan() []string {
	f.t.Helper()
	f.settle()
	groups, profile, err := f.cloud.Groups(f.s.ctx)
	if err != nil {
		f.t.Fatal(err)
	}
	if err := f.s.scan(groups, profile); err != nil && f.cloud.refuse == nil {
		f.t.Fatal(err)
	}
	return f.cloud.took()
}

// settle waits until the informers have caught up with the fake API.
func (f *fixture) settle() {
	f.t.Helper()
	for end := time.Now().Add(time.Minute); time.Now().Before(end); {
		nodes, err := f.cloud.client.CoreV1().Nodes().List(f.s.ctx, metav1.ListOptions{})
		if err != nil {
			f.t.Fatal(err)
		}
		pods, err := f.cloud.client.CoreV1().Pods("").List(f.s.ctx, metav1.ListOptions{})
		if err != nil {
			f.t.Fatal(err)
		}
		same := len(f.s.factory.Core().V1().Nodes().Informer().GetStore().List()) == len(nodes.Items) && len(f.s.factory.Core().V1().Pods().Informer().GetStore().List()) == len(pods.Items)
		for _, n := range nodes.Items {
			if got, ok, _ := f.s.factory.Core().V1().Nodes().Informer().GetStore().GetByKey(n.Name); !ok || len(got.(*corev1.Node).Spec.Taints) != len(n.Spec.Taints) {
				same = false
			}
		}
		if same {
			return
		}
		time.Sleep(2 * time.Millisecond)
	}
	f.t.Fatal("the informers did not catch up")
}

// events returns the autoscaler's events as lines "kind reason message".
func (f *fixture) events() string {
	list, err := f.cloud.client.CoreV1().Events("").List(f.s.ctx, metav1.ListOptions{})
	if err != nil {
		f.t.Fatal(err)
	}
	var out []string
	for _, e := range list.Items {
		out = append(out, e.InvolvedObject.Kind+" "+e.Reason+" "+e.Message)
	}
	return strings.Join(out, "\n")
}

func (f *fixture) expect(what string, got []string, want ...string) {
	f.t.Helper()
	if !slices.Equal(got, want) {
		f.t.Errorf("%s: did %v, want %v\n%s", what, got, want, f.events())
	}
}

func TestScaleUp(t *testing.T) {
	ds := &appsv1.DaemonSet{ObjectMeta: metav1.ObjectMeta{Name: "agent", Namespace: "kube-system"}}
	ds.Spec.Template.Spec.Containers = []corev1.Container{{Name: "a", Resources: corev1.ResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("1")}}}}
	spread := func(p *corev1.Pod) {
		p.Spec.Affinity = &corev1.Affinity{PodAntiAffinity: &corev1.PodAntiAffinity{RequiredDuringSchedulingIgnoredDuringExecution: []corev1.PodAffinityTerm{{TopologyKey: corev1.LabelHostname, LabelSelector: &metav1.LabelSelector{MatchLabels: p.Labels}}}}}
	}
	for name, x := range map[string]struct {
		groups   []*Group
		pods     []*corev1.Pod
		expander string
		others   []runtime.Object
		want     []string
		events   []string
	}{
		"as many nodes as the pods need": {groups: []*Group{pool("a", 0, 5, "4", "16Gi", nil)}, pods: app("web", 6, "2", nil), want: []string{"a+3"},
			events: []string{"Pod TriggeredScaleUp pod triggered scale-up: [{aks-a-1-vmss 0->3 (max: 5)}]"}},
		"existing nodes are used first": {groups: []*Group{with(pool("a", 0, 5, "4", "16Gi", nil), "a1")}, pods: app("web", 2, "2", nil)},
		"not past the maximum": {groups: []*Group{pool("a", 0, 2, "4", "16Gi", nil)}, pods: app("web", 6, "2", nil), want: []string{"a+2"},
			events: []string{"NotTriggerScaleUp pod didn't trigger scale-up: 1 max node group size reached"}},
		"DaemonSets take their share": {groups: []*Group{pool("a", 0, 5, "4", "16Gi", nil)}, pods: app("web", 4, "2", nil), others: []runtime.Object{ds}, want: []string{"a+4"}},
		"pods with anti-affinity":     {groups: []*Group{pool("a", 0, 5, "4", "16Gi", nil)}, pods: app("web", 3, "100m", spread), want: []string{"a+3"}},
		"taints exclude a pool": {groups: []*Group{pool("a", 0, 5, "4", "16Gi", func(n *corev1.Node) {
			n.Spec.Taints = []corev1.Taint{{Key: "x", Effect: corev1.TaintEffectNoSchedule}}
		}), pool("b", 0, 5, "4", "16Gi", nil)}, pods: app("web", 1, "2", nil), want: []string{"b+1"}},
		"fits no pool":    {groups: []*Group{pool("a", 0, 5, "4", "16Gi", nil)}, pods: app("web", 1, "9", nil), events: []string{"NotTriggerScaleUp pod didn't trigger scale-up: 1 Insufficient cpu"}},
		"the least waste": {groups: []*Group{pool("big", 0, 5, "64", "256Gi", nil), pool("small", 0, 5, "4", "16Gi", nil)}, pods: app("web", 1, "3", nil), expander: "least-waste", want: []string{"small+1"}},
		"the most pods":   {groups: []*Group{pool("big", 0, 1, "64", "256Gi", nil), pool("small", 0, 1, "4", "16Gi", nil)}, pods: app("web", 9, "3", nil), expander: "most-pods", want: []string{"big+1"}},
		"by priority": {groups: []*Group{pool("big", 0, 5, "64", "256Gi", nil), pool("small", 0, 5, "4", "16Gi", nil)}, pods: app("web", 1, "3", nil), expander: "priority,least-waste", want: []string{"big+1"},
			others: []runtime.Object{&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: priorityConfigMap, Namespace: "kube-system"}, Data: map[string]string{"priorities": "10: ['.*']\n50: ['.*-big-.*']"}}}},
		"a nominated pod": {groups: []*Group{pool("a", 0, 5, "4", "16Gi", nil)}, pods: app("web", 1, "2", func(p *corev1.Pod) { p.Status.NominatedNodeName = "default-x7k2p" })},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t, x.groups, x.pods, x.others...)
			if x.expander != "" {
				f.cloud.profile.Expander = x.expander
			}
			f.expect("first scan", f.scan(), x.want...)
			for _, e := range x.events {
				if !strings.Contains(f.events(), e) {
					t.Errorf("no event %q in:\n%s", e, f.events())
				}
			}
			if x.want != nil {
				// The pods are still pending here: the new nodes are enough for them.
				f.expect("second scan", f.scan())
			}
		})
	}
}

// Upcoming nodes count as capacity; failed ones are removed, and their pool goes into
// backoff.
func TestFailedInstancesAreRemovedWithBackoff(t *testing.T) {
	f := newFixture(t, []*Group{pool("a", 0, 5, "4", "16Gi", nil)}, app("web", 2, "3", nil))
	f.cloud.slow = true
	f.expect("first scan", f.scan(), "a+2")
	f.expect("while they boot", f.scan())
	f.cloud.groups[0].Instances[0].Failed = "AllocationFailed: no capacity"
	f.expect("one failed", f.scan(), "a-a-1!")
	if !strings.Contains(f.events(), "FailedToScaleUpGroup Scale-up failed for group aks-a-1-vmss: AllocationFailed") || !strings.Contains(f.events(), "1 in backoff after failed scale-up") {
		t.Errorf("events:\n%s", f.events())
	}
	f.ahead = backoffTime + time.Second
	f.expect("after a while", f.scan(), "a+1")
	f.ahead += DefaultProfile().ProvisionTime
	got := f.scan()
	if len(got) == 0 || got[0] != "a-a-2,a-3!" {
		t.Errorf("nodes that never registered: did %v", got)
	}
}

func TestScaleDown(t *testing.T) {
	two := func(lo int) []*Group { return []*Group{with(pool("a", lo, 5, "4", "16Gi", nil), "a1", "a2")} }
	budget := func(allowed int32) runtime.Object {
		return &policyv1.PodDisruptionBudget{ObjectMeta: metav1.ObjectMeta{Name: "web", Namespace: "shop"}, Spec: policyv1.PodDisruptionBudgetSpec{Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "web"}}},
			Status: policyv1.PodDisruptionBudgetStatus{DisruptionsAllowed: allowed}}
	}
	tweak := func(node string, change func(*corev1.Pod)) func(*corev1.Pod) {
		return func(p *corev1.Pod) { on(node)(p); change(p) }
	}
	busy := app("db", 1, "3", on("a1"))
	for name, x := range map[string]struct {
		groups []*Group
		pods   []*corev1.Pod
		others []runtime.Object
		change func(*Profile)
		want   []string
	}{
		"an empty node is removed":                   {groups: two(0), pods: busy, want: []string{"a-a2"}},
		"not below the minimum":                      {groups: two(2), pods: busy},
		"several empty nodes at once":                {groups: two(0), want: []string{"a-a1", "a-a2"}},
		"at most MaxEmpty":                           {groups: two(0), change: func(p *Profile) { p.MaxEmpty = 1 }, want: []string{"a-a1"}},
		"a node whose pods fit elsewhere":            {groups: two(0), pods: append(app("web", 1, "1", on("a2")), busy...), want: []string{"a-a2"}},
		"not a node whose pods fit nowhere":          {groups: two(0), pods: append(app("web", 1, "1500m", on("a2")), busy...)},
		"not a utilized node":                        {groups: two(0), pods: append(app("web", 1, "2", on("a2")), app("db", 1, "2", on("a1"))...)},
		"a higher threshold":                         {groups: two(0), pods: append(app("web", 1, "2", on("a2")), app("db", 1, "2", on("a1"))...), change: func(p *Profile) { p.Threshold = 0.9 }, want: []string{"a-a1"}},
		"only one of two nodes that need each other": {groups: []*Group{with(pool("a", 0, 5, "4", "16Gi", nil), "a1", "a2")}, pods: append(app("x", 1, "1", on("a1")), app("y", 1, "1", on("a2"))...), want: []string{"a-a1"}},
		"not if a budget forbids it":                 {groups: two(0), pods: append(app("web", 1, "1", on("a2")), busy...), others: []runtime.Object{budget(0)}},
		"if a budget allows it":                      {groups: two(0), pods: append(app("web", 1, "1", on("a2")), busy...), others: []runtime.Object{budget(1)}, want: []string{"a-a2"}},
		"not with a pod marked unsafe to evict":      {groups: two(0), pods: append(app("web", 1, "1", tweak("a2", func(p *corev1.Pod) { p.Annotations = map[string]string{safeToEvict: "false"} })), busy...)},
		"not with a pod without a controller":        {groups: two(0), pods: append(app("web", 1, "1", tweak("a2", func(p *corev1.Pod) { p.OwnerReferences = nil })), busy...)},
		"not with a pod of kube-system":              {groups: two(0), pods: append(app("web", 1, "1", tweak("a2", func(p *corev1.Pod) { p.Namespace = "kube-system" })), busy...)},
		"local storage is ignored by default":        {groups: two(0), pods: append(app("web", 1, "1", tweak("a2", emptyDir)), busy...), want: []string{"a-a2"}},
		"local storage with SkipLocalStorage":        {groups: two(0), pods: append(app("web", 1, "1", tweak("a2", emptyDir)), busy...), change: func(p *Profile) { p.SkipLocalStorage = true }},
		"a DaemonSet's pod is ignored":               {groups: two(0), pods: append(app("web", 1, "1", tweak("a2", func(p *corev1.Pod) { p.OwnerReferences[0].Kind = "DaemonSet" })), busy...), want: []string{"a-a2"}},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t, x.groups, x.pods, x.others...)
			if x.change != nil {
				x.change(&f.cloud.profile)
			}
			f.cloud.client.PrependReactor("create", "pods", evictAtOnce(f))
			f.expect("first scan", f.scan())
			f.ahead = f.cloud.profile.UnneededTime - time.Second
			f.expect("before UnneededTime", f.scan())
			f.ahead += 2 * time.Second
			got := f.scan()
			for end := time.Now().Add(time.Minute); time.Now().Before(end); { // the drain runs in its own goroutine
				if len(got) >= len(x.want) && len(x.want) > 0 {
					break
				}
				time.Sleep(2 * time.Millisecond)
				got = append(got, f.cloud.took()...)
				if x.want == nil && len(got) == 0 {
					break
				}
			}
			f.expect("after UnneededTime", got, x.want...)
		})
	}
}

func emptyDir(p *corev1.Pod) {
	p.Spec.Volumes = []corev1.Volume{{Name: "v", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}}}
}

// A node that cannot be removed loses its taint; the status ConfigMap is written, and
// deleted with the last autoscaled pool.
func TestFailedScaleDownRemovesTheTaint(t *testing.T) {
	f := newFixture(t, []*Group{with(pool("a", 0, 5, "4", "16Gi", nil), "a1")}, nil)
	f.scan()
	f.ahead = 11 * time.Minute
	f.cloud.refuse = fmt.Errorf("an operation is in progress")
	f.expect("refused", f.scan())
	n, err := f.cloud.client.CoreV1().Nodes().Get(f.s.ctx, "a1", metav1.GetOptions{})
	if err != nil || hasTaint(n, toBeDeletedTaint) {
		t.Errorf("the node is still tainted: %v (%v)", n.Spec.Taints, err)
	}
	f.cloud.refuse = nil
	f.cloud.profile.UnneededTime = time.Hour
	f.scan()
	cm, err := f.cloud.client.CoreV1().ConfigMaps("kube-system").Get(f.s.ctx, statusConfigMap, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"autoscalerStatus: Running", "name: aks-a-1-vmss", "maxSize: 5", "status: CandidatesPresent", "cloudProviderTarget: 1"} {
		if !strings.Contains(cm.Data["status"], want) {
			t.Errorf("no %q in the status:\n%s", want, cm.Data["status"])
		}
	}
	if err := f.s.scan(nil, DefaultProfile()); err != nil {
		t.Fatal(err)
	}
	if _, err := f.cloud.client.CoreV1().ConfigMaps("kube-system").Get(f.s.ctx, statusConfigMap, metav1.GetOptions{}); err == nil {
		t.Error("the status stays although no pool is autoscaled")
	}
}

// A pool is not scaled while an operation changes it.
func TestBusyPoolIsNotScaled(t *testing.T) {
	g := with(pool("a", 0, 5, "4", "16Gi", nil), "a1", "a2")
	g.Busy = true
	f := newFixture(t, []*Group{g}, app("web", 3, "4", nil))
	f.expect("pending pods", f.scan())
	f.ahead = time.Hour
	f.expect("empty nodes", f.scan())
	g.Busy = false
	f.expect("afterwards", f.scan(), "a+1")
}

func TestInvalidPrioritiesAreRejected(t *testing.T) {
	for text, want := range map[string]string{"a: [x]": "not a positive number", "1: ['(']": "priority 1", "[": "not a map"} {
		if _, err := parsePriorities(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
}

// evictAtOnce is an eviction API that deletes pods at once.
func evictAtOnce(f *fixture) clienttesting.ReactionFunc {
	return func(a clienttesting.Action) (bool, runtime.Object, error) {
		if a.GetSubresource() != "eviction" {
			return false, nil, nil
		}
		e := a.(clienttesting.CreateAction).GetObject().(*policyv1.Eviction)
		return true, nil, f.cloud.client.Tracker().Delete(corev1.SchemeGroupVersion.WithResource("pods"), e.Namespace, e.Name)
	}
}
