// Package autoscaler is the cluster autoscaler of fixed pools
// (enableAutoScaling): pods that do not fit let a pool grow, nodes that are not
// needed go, within the pool's minimum and maximum and as the cluster's
// autoScalerProfile says. It decides as the upstream program does and tells of
// it in the same events and ConfigMap, but is none of its code. What fits where
// it asks the kube-scheduler's plugins.
//
// It keeps in memory only since when it has thought what it thinks; after a
// restart nodes have to be unneeded for their time again, as upstream.
package autoscaler

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"regexp"
	"slices"
	"sort"
	"strconv"
	"strings"
	"sync"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/klog/v2"
	"k8s.io/kubernetes/pkg/controller/daemon"
	"sigs.k8s.io/yaml"

	"github.com/nap-aks/nap/localazure/eviction"
)

// Names of what upstream writes and reads.
const (
	statusConfigMap   = "cluster-autoscaler-status"
	priorityConfigMap = "cluster-autoscaler-priority-expander"
	toBeDeletedTaint  = "ToBeDeletedByClusterAutoscaler"
	noScaleDown       = "cluster-autoscaler.kubernetes.io/scale-down-disabled"
	safeToEvict       = "cluster-autoscaler.kubernetes.io/safe-to-evict"
	component         = "cluster-autoscaler"

	// backoffTime is how long a pool is left alone whose nodes could not be had.
	backoffTime = 5 * time.Minute
	// idle is how often is looked whether there is an autoscaled pool.
	idle = 10 * time.Second
)

// Group is an autoscaled pool.
type Group struct {
	// Name is the agent pool's, ScaleSet that of what its nodes are in.
	Name, ScaleSet string
	Min, Max       int
	// Busy tells that an operation is changing the pool: it is left alone.
	Busy bool
	// Node is the n-th new node as it would register, with any name.
	Node func(n int) *corev1.Node
	// Instances are the machines that there are or that are on their way.
	Instances []Instance
}

// Instance is a machine of a Group.
type Instance struct {
	// Name is the machine's, Node that of its node.
	Name, Node string
	// Since is when it was asked for.
	Since time.Time
	// Failed says why it could not be had; empty if it could.
	Failed string
}

// Cloud is what the autoscaler acts on.
type Cloud interface {
	// Groups are the autoscaled pools of the cluster; none if there are none.
	Groups(ctx context.Context) ([]Group, Profile, error)
	// Grow adds n instances to a group, Shrink takes the named ones away at once,
	// of those that failed even below the minimum.
	Grow(ctx context.Context, group string, n int) error
	Shrink(ctx context.Context, group string, machines []string, failed bool) error
}

// Profile is a cluster's autoScalerProfile.
type Profile struct {
	// Expander chooses between pools: random, least-waste, most-pods, priority;
	// several with commas, each breaking the ties of those before.
	Expander string
	// ScanInterval is the time from one look to the next.
	ScanInterval time.Duration
	// NewPodDelay is how old a pod must be to count.
	NewPodDelay time.Duration
	// DelayAfterAdd, AfterDelete and AfterFailure are how long no node goes after
	// one came, one went, or one could not go.
	DelayAfterAdd, DelayAfterDelete, DelayAfterFailure time.Duration
	// UnneededTime and UnreadyTime are how long a node must be unneeded to go.
	UnneededTime, UnreadyTime time.Duration
	// ProvisionTime is how long a node may take to come.
	ProvisionTime time.Duration
	// TerminationTime is how long a node may take to be emptied.
	TerminationTime time.Duration
	// Threshold is the share of a node that is requested below which it may go.
	Threshold float64
	// MaxEmpty is how many empty nodes go at once.
	MaxEmpty int
	// SkipLocalStorage and SkipSystemPods keep nodes whose pods use the node's
	// disk, or are of kube-system without a budget.
	SkipLocalStorage, SkipSystemPods bool
	// IgnoreDaemonSets leaves DaemonSets' pods out of what is requested.
	IgnoreDaemonSets bool
}

// DefaultProfile is AKS's.
func DefaultProfile() Profile {
	return Profile{Expander: "random", ScanInterval: 10 * time.Second, DelayAfterAdd: 10 * time.Minute, DelayAfterDelete: 10 * time.Second, DelayAfterFailure: 3 * time.Minute,
		UnneededTime: 10 * time.Minute, UnreadyTime: 20 * time.Minute, ProvisionTime: 15 * time.Minute, TerminationTime: 10 * time.Minute, Threshold: 0.5, MaxEmpty: 10,
		SkipSystemPods: true}
}

// Run scales the pools of one cluster until ctx ends. It costs next to nothing
// while no pool is autoscaled.
func Run(ctx context.Context, client kubernetes.Interface, cloud Cloud, log *slog.Logger) {
	var s *scaler
	for {
		groups, profile, err := cloud.Groups(ctx)
		if err == nil && s == nil && len(groups) > 0 {
			s, err = newScaler(ctx, client, cloud, log)
		}
		wait := idle
		if err == nil && s != nil {
			if len(groups) > 0 {
				wait = profile.ScanInterval
			}
			err = s.scan(groups, profile)
		}
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			log.Warn("cluster autoscaler will look again", "error", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
	}
}

type scaler struct {
	ctx     context.Context
	client  kubernetes.Interface
	cloud   Cloud
	log     *slog.Logger
	factory informers.SharedInformerFactory
	sim     *simulator
	now     func() time.Time

	unneeded                      map[string]time.Time // by node
	backoff                       map[string]time.Time // by group, until when
	told                          map[types.UID]string // what a pod was told last
	lastUp, lastDelete, lastFail  time.Time
	scaleUpStatus, scaleDownWords string

	mu       sync.Mutex
	draining map[string]bool // nodes that are being emptied
	failed   bool            // one could not be
}

func newScaler(ctx context.Context, client kubernetes.Interface, cloud Cloud, log *slog.Logger) (*scaler, error) {
	s := &scaler{ctx: ctx, client: client, cloud: cloud, log: log, now: time.Now,
		unneeded: map[string]time.Time{}, backoff: map[string]time.Time{}, told: map[types.UID]string{}, draining: map[string]bool{}}
	s.factory = informers.NewSharedInformerFactory(client, 0)
	s.factory.Core().V1().Pods().Informer()
	s.factory.Core().V1().Nodes().Informer()
	s.factory.Apps().V1().DaemonSets().Informer()
	s.factory.Policy().V1().PodDisruptionBudgets().Informer()
	var err error
	if s.sim, err = newSimulator(ctx, client, s.factory); err != nil {
		return nil, err
	}
	s.factory.Start(ctx.Done())
	s.factory.WaitForCacheSync(ctx.Done())
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	// What an earlier run was about to delete stays until it is decided anew.
	nodes, err := s.factory.Core().V1().Nodes().Lister().List(labels.Everything())
	if err != nil {
		return nil, err
	}
	for _, n := range nodes {
		if hasTaint(n, toBeDeletedTaint) {
			if err := s.taint(n.Name, false); err != nil {
				return nil, err
			}
		}
	}
	return s, nil
}

// look is one look at the cluster.
type look struct {
	groups  []Group
	profile Profile
	now     time.Time
	nodes   map[string]*corev1.Node
	pods    map[string][]*corev1.Pod // by node
	pending []*corev1.Pod
	// groupOf has the group of a node, instance its machine.
	groupOf  map[string]*Group
	instance map[string]Instance
	upcoming map[string]int // nodes of a group that are on their way
	world    *world         // nodes that are ready or on their way, with their pods
	daemons  []*appsv1.DaemonSet
}

func (s *scaler) scan(groups []Group, profile Profile) error {
	if len(groups) == 0 {
		return s.forget()
	}
	l, err := s.observe(groups, profile)
	if err != nil {
		return err
	}
	if err := s.giveUp(l); err != nil {
		return err
	}
	grown, err := s.scaleUp(l)
	if err != nil {
		return err
	}
	s.scaleUpStatus = "NoActivity"
	for _, n := range l.upcoming {
		if n > 0 {
			s.scaleUpStatus = "InProgress"
		}
	}
	if grown {
		s.lastUp, s.scaleUpStatus = l.now, "InProgress"
	}
	if err := s.scaleDown(l, grown); err != nil {
		return err
	}
	return s.writeStatus(l)
}

// forget takes the status away once no pool is autoscaled any more.
func (s *scaler) forget() error {
	clear(s.unneeded)
	err := s.client.CoreV1().ConfigMaps(metav1.NamespaceSystem).Delete(s.ctx, statusConfigMap, metav1.DeleteOptions{})
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}

func (s *scaler) observe(groups []Group, profile Profile) (*look, error) {
	l := &look{groups: groups, profile: profile, now: s.now(), nodes: map[string]*corev1.Node{}, pods: map[string][]*corev1.Pod{},
		groupOf: map[string]*Group{}, instance: map[string]Instance{}, upcoming: map[string]int{}, world: newWorld()}
	nodes, err := s.factory.Core().V1().Nodes().Lister().List(labels.Everything())
	if err != nil {
		return nil, err
	}
	pods, err := s.factory.Core().V1().Pods().Lister().List(labels.Everything())
	if err != nil {
		return nil, err
	}
	if l.daemons, err = s.factory.Apps().V1().DaemonSets().Lister().List(labels.Everything()); err != nil {
		return nil, err
	}
	sort.Slice(nodes, func(i, j int) bool { return nodes[i].Name < nodes[j].Name })
	alive := map[types.UID]bool{}
	for _, p := range pods {
		alive[p.UID] = true
		switch {
		case p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed:
		case p.Spec.NodeName != "":
			l.pods[p.Spec.NodeName] = append(l.pods[p.Spec.NodeName], p)
		case p.DeletionTimestamp == nil && p.Status.NominatedNodeName == "" && unschedulable(p) && l.now.Sub(p.CreationTimestamp.Time) >= profile.NewPodDelay:
			// A nominated pod has a place already: of preemption, or on a node that
			// node auto-provisioning makes for it.
			l.pending = append(l.pending, p)
		}
	}
	maps.DeleteFunc(s.told, func(uid types.UID, _ string) bool { return !alive[uid] })
	sort.Slice(l.pending, func(i, j int) bool {
		a, b := l.pending[i], l.pending[j]
		if pa, pb := priority(a), priority(b); pa != pb {
			return pa > pb
		}
		if c := cpu(a).Cmp(*cpu(b)); c != 0 {
			return c > 0
		}
		return a.Namespace+"/"+a.Name < b.Namespace+"/"+b.Name
	})
	for _, n := range nodes {
		l.nodes[n.Name] = n
		if n.DeletionTimestamp == nil && ready(n) {
			l.world.add(n, l.pods[n.Name]...)
		}
	}
	for i := range groups {
		g := &groups[i]
		for k, in := range g.Instances {
			l.groupOf[in.Node], l.instance[in.Node] = g, in
			if n, ok := l.nodes[in.Node]; in.Failed != "" || ok && ready(n) || l.now.Sub(in.Since) > profile.ProvisionTime {
				continue
			}
			l.upcoming[g.Name]++
			l.world.remove(in.Node)
			l.addTemplate(l.world, g, k, in.Node)
		}
	}
	return l, nil
}

// addTemplate adds the n-th new node of a group to a world, with the pods that
// DaemonSets will put there.
func (l *look) addTemplate(w *world, g *Group, n int, name string) {
	node := g.Node(n).DeepCopy()
	node.Name = name
	node.Labels[corev1.LabelHostname] = name
	var pods []*corev1.Pod
	for _, d := range l.daemons {
		if run, _ := daemon.NodeShouldRunDaemonPod(klog.Logger{}, node, d); run {
			p := daemon.NewPod(d, name)
			p.Name = d.Name + "-" + name
			pods = append(pods, p)
		}
	}
	w.add(node, pods...)
}

// giveUp removes instances that could not be had, or that did not come in time,
// and leaves their group alone for a while.
func (s *scaler) giveUp(l *look) error {
	for i := range l.groups {
		g := &l.groups[i]
		var names []string
		why := ""
		for _, in := range g.Instances {
			n := l.nodes[in.Node]
			switch {
			case in.Failed != "":
				why = in.Failed
			case n == nil && l.now.Sub(in.Since) > l.profile.ProvisionTime:
				why = fmt.Sprintf("node %s did not come within %s", in.Node, l.profile.ProvisionTime)
			default:
				continue
			}
			names = append(names, in.Name)
		}
		if len(names) == 0 || g.Busy {
			continue
		}
		s.backoff[g.Name] = l.now.Add(backoffTime)
		s.log.Warn("nodes could not be had; the pool is left alone for a while", "pool", g.Name, "nodes", names, "why", why)
		s.event(statusRef(), corev1.EventTypeWarning, "FailedToScaleUpGroup", fmt.Sprintf("Scale-up failed for group %s: %s", g.ScaleSet, why))
		if err := s.cloud.Shrink(s.ctx, g.Name, names, true); err != nil {
			return fmt.Errorf("removing nodes of pool %s that could not be had: %w", g.Name, err)
		}
		g.Instances = slices.DeleteFunc(g.Instances, func(in Instance) bool { return slices.Contains(names, in.Name) })
	}
	return nil
}

// option is a way to make room.
type option struct {
	group *Group
	nodes int
	pods  []*corev1.Pod
	waste float64
	world *world // as it would be
}

// scaleUp lets pools grow until every pending pod has a place or none can be
// made.
func (s *scaler) scaleUp(l *look) (bool, error) {
	var left []*corev1.Pod
	for _, p := range l.pending {
		if n, _ := s.sim.place(l.world, p, l.world.names); n == "" {
			left = append(left, p)
		}
	}
	grown := false
	size := map[string]int{}
	for _, g := range l.groups {
		size[g.Name] = len(g.Instances)
	}
	for len(left) > 0 {
		var options []option
		reasons := map[types.UID]map[string]int{}
		for i := range l.groups {
			g := &l.groups[i]
			blame := func(why string, pods ...*corev1.Pod) {
				for _, p := range pods {
					if reasons[p.UID] == nil {
						reasons[p.UID] = map[string]int{}
					}
					reasons[p.UID][why]++
				}
			}
			switch room := g.Max - size[g.Name]; {
			case room <= 0:
				blame("max node group size reached", left...)
			case g.Busy:
				blame("in an operation", left...)
			case l.now.Before(s.backoff[g.Name]):
				blame("in backoff after failed scale-up", left...)
			default:
				if o := s.estimate(l, g, left, size[g.Name], room, func(p *corev1.Pod, why string) { blame(why, p) }); len(o.pods) > 0 {
					options = append(options, o)
				}
			}
		}
		if len(options) == 0 {
			for _, p := range left {
				s.tell(p, "NotTriggerScaleUp", "pod didn't trigger scale-up: "+reasonText(reasons[p.UID]))
			}
			return grown, nil
		}
		o := s.choose(l.profile.Expander, options)
		was := size[o.group.Name]
		for begun := 0; begun < o.nodes; begun += 50 {
			if err := s.cloud.Grow(s.ctx, o.group.Name, min(50, o.nodes-begun)); err != nil {
				return grown, fmt.Errorf("growing pool %s by %d: %w", o.group.Name, o.nodes, err)
			}
		}
		grown = true
		size[o.group.Name] += o.nodes
		l.world = o.world
		text := fmt.Sprintf("[{%s %d->%d (max: %d)}]", o.group.ScaleSet, was, size[o.group.Name], o.group.Max)
		s.log.Info("pool grows", "pool", o.group.Name, "nodes", o.nodes, "pods", len(o.pods))
		s.event(statusRef(), corev1.EventTypeNormal, "ScaledUpGroup", fmt.Sprintf("Scale-up: setting group %s size to %d instead of %d (max: %d)", o.group.ScaleSet, size[o.group.Name], was, o.group.Max))
		for _, p := range o.pods {
			s.tell(p, "TriggeredScaleUp", "pod triggered scale-up: "+text)
		}
		left = slices.DeleteFunc(left, func(p *corev1.Pod) bool { return slices.Contains(o.pods, p) })
	}
	return grown, nil
}

func reasonText(reasons map[string]int) string {
	keys := slices.Sorted(maps.Keys(reasons))
	for i, k := range keys {
		keys[i] = fmt.Sprintf("%d %s", reasons[k], k)
	}
	return strings.Join(keys, ", ")
}

// estimate packs pods onto new nodes of one group, at most room of them.
func (s *scaler) estimate(l *look, g *Group, pods []*corev1.Pod, size, room int, refused func(*corev1.Pod, string)) option {
	o := option{group: g, world: l.world.clone()}
	var fresh []string
	// Pods of one controller that look alike to the scheduler fail alike.
	hopeless := map[string]string{}
	for _, p := range pods {
		key := sameAs(p)
		if why, ok := hopeless[key]; ok && key != "" {
			refused(p, why)
			continue
		}
		node, why := s.sim.place(o.world, p, fresh)
		if node == "" && len(fresh) < room {
			name := fmt.Sprintf("template-%s-%d", g.Name, len(fresh))
			l.addTemplate(o.world, g, size+len(fresh), name)
			if node, why = s.sim.place(o.world, p, []string{name}); node == "" {
				o.world.remove(name)
			} else {
				fresh = append(fresh, name)
			}
		} else if node == "" {
			why = "max node group size reached"
		}
		if node == "" {
			hopeless[key] = why
			refused(p, why)
			continue
		}
		o.pods = append(o.pods, p)
	}
	o.nodes = len(fresh)
	for _, n := range fresh {
		i := o.world.byName[n]
		o.waste += 1 - (part(i.Requested.MilliCPU, i.Allocatable.MilliCPU)+part(i.Requested.Memory, i.Allocatable.Memory))/2
	}
	if len(fresh) > 0 {
		o.waste /= float64(len(fresh))
	}
	return o
}

func part(a, b int64) float64 {
	if b == 0 {
		return 1
	}
	return float64(a) / float64(b)
}

// sameAs names the controller's pods that look like this one; empty for none.
func sameAs(p *corev1.Pod) string {
	owner := metav1.GetControllerOf(p)
	if owner == nil || len(p.Spec.Volumes) > 0 && owner.Kind == "StatefulSet" {
		return ""
	}
	return string(owner.UID)
}

// choose narrows the options down with each expander of the profile.
func (s *scaler) choose(expanders string, options []option) option {
	best := func(score func(option) float64) {
		top := score(options[0])
		for _, o := range options {
			top = max(top, score(o))
		}
		options = slices.DeleteFunc(options, func(o option) bool { return score(o) < top })
	}
	for _, e := range strings.Split(expanders, ",") {
		switch strings.TrimSpace(e) {
		case "least-waste":
			best(func(o option) float64 { return -o.waste })
		case "most-pods":
			best(func(o option) float64 { return float64(len(o.pods)) })
		case "priority":
			if p := s.priorities(); len(p) > 0 {
				best(func(o option) float64 { return p.of(o.group.ScaleSet) })
			}
		}
	}
	return options[rand.IntN(len(options))]
}

// priorities are regular expressions of scale sets by their priority.
type priorities map[int][]*regexp.Regexp

func (p priorities) of(name string) float64 {
	best := -1.0
	for n, list := range p {
		for _, re := range list {
			if re.MatchString(name) {
				best = max(best, float64(n))
			}
		}
	}
	return best
}

func (s *scaler) priorities() priorities {
	cm, err := s.client.CoreV1().ConfigMaps(metav1.NamespaceSystem).Get(s.ctx, priorityConfigMap, metav1.GetOptions{})
	if err != nil {
		if !apierrors.IsNotFound(err) {
			s.log.Warn("priorities of pools are not known", "error", err)
		}
		return nil
	}
	out, err := parsePriorities(cm.Data["priorities"])
	if err != nil {
		s.event(corev1.ObjectReference{Kind: "ConfigMap", Namespace: metav1.NamespaceSystem, Name: priorityConfigMap, APIVersion: "v1"}, corev1.EventTypeWarning, "PriorityConfigMapInvalid", err.Error())
		return nil
	}
	return out
}

func parsePriorities(text string) (priorities, error) {
	raw := map[string][]string{}
	if err := yaml.Unmarshal([]byte(text), &raw); err != nil {
		return nil, fmt.Errorf("priorities are not a map of lists: %w", err)
	}
	out := priorities{}
	for k, list := range raw {
		n, err := strconv.Atoi(k)
		if err != nil || n < 1 {
			return nil, fmt.Errorf("priority %q is not a positive number", k)
		}
		for _, text := range list {
			re, err := regexp.Compile(text)
			if err != nil {
				return nil, fmt.Errorf("priority %d: %w", n, err)
			}
			out[n] = append(out[n], re)
		}
	}
	return out, nil
}

func unschedulable(p *corev1.Pod) bool {
	for _, c := range p.Status.Conditions {
		if c.Type == corev1.PodScheduled {
			return c.Status == corev1.ConditionFalse && c.Reason == corev1.PodReasonUnschedulable
		}
	}
	return false
}

func ready(n *corev1.Node) bool {
	for _, c := range n.Status.Conditions {
		if c.Type == corev1.NodeReady {
			// A node that waits for its agents to start is not ready for pods yet.
			return c.Status == corev1.ConditionTrue && !hasTaint(n, "node.cilium.io/agent-not-ready") && !hasTaint(n, corev1.TaintNodeNotReady)
		}
	}
	return false
}

func hasTaint(n *corev1.Node, key string) bool {
	return slices.ContainsFunc(n.Spec.Taints, func(t corev1.Taint) bool { return t.Key == key })
}

func priority(p *corev1.Pod) int32 {
	if p.Spec.Priority != nil {
		return *p.Spec.Priority
	}
	return 0
}

func cpu(p *corev1.Pod) *resource.Quantity {
	sum := resource.NewQuantity(0, resource.DecimalSI)
	for _, c := range p.Spec.Containers {
		sum.Add(c.Resources.Requests[corev1.ResourceCPU])
	}
	return sum
}

func statusRef() corev1.ObjectReference {
	return corev1.ObjectReference{Kind: "ConfigMap", Namespace: metav1.NamespaceSystem, Name: statusConfigMap, APIVersion: "v1"}
}

// tell writes an event on a pod, unless it was told the same last.
func (s *scaler) tell(p *corev1.Pod, reason, text string) {
	if s.told[p.UID] == reason+text {
		return
	}
	s.told[p.UID] = reason + text
	s.event(corev1.ObjectReference{Kind: "Pod", Namespace: p.Namespace, Name: p.Name, UID: p.UID, APIVersion: "v1"}, corev1.EventTypeNormal, reason, text)
}

// event is for people, so nothing depends on it.
func (s *scaler) event(on corev1.ObjectReference, kind, reason, text string) {
	if len(text) > 1000 {
		text = text[:1000]
	}
	ns := on.Namespace
	if ns == "" {
		ns = metav1.NamespaceDefault
	}
	now := metav1.NewTime(s.now())
	e := &corev1.Event{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("%s.%x", on.Name, rand.Uint64()), Namespace: ns}, InvolvedObject: on, Reason: reason, Message: text, Type: kind,
		Source: corev1.EventSource{Component: component}, FirstTimestamp: now, LastTimestamp: now, Count: 1}
	if _, err := s.client.CoreV1().Events(ns).Create(s.ctx, e, metav1.CreateOptions{}); err != nil {
		s.log.Debug("event not written", "object", on.Name, "error", err)
	}
}

// taint marks a node that is about to go, or takes the mark off.
func (s *scaler) taint(name string, on bool) error {
	n, err := s.client.CoreV1().Nodes().Get(s.ctx, name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("reading node %s: %w", name, err)
	}
	taints := slices.DeleteFunc(slices.Clone(n.Spec.Taints), func(t corev1.Taint) bool { return t.Key == toBeDeletedTaint })
	if on {
		taints = append(taints, corev1.Taint{Key: toBeDeletedTaint, Value: strconv.FormatInt(s.now().Unix(), 10), Effect: corev1.TaintEffectNoSchedule})
	}
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"resourceVersion": n.ResourceVersion}, "spec": map[string]any{"taints": taints}})
	if err != nil {
		return err
	}
	if _, err := s.client.CoreV1().Nodes().Patch(s.ctx, name, types.MergePatchType, patch, metav1.PatchOptions{}); err != nil {
		return fmt.Errorf("tainting node %s: %w", name, err)
	}
	return nil
}

// evicted empties a node within the profile's time, or says what keeps its pods.
func (s *scaler) evicted(node string, within time.Duration) error {
	began := s.now()
	for {
		left, err := eviction.Evict(s.ctx, s.client, node, began, false)
		if err != nil {
			return err
		}
		if len(left) == 0 {
			return nil
		}
		if s.now().Sub(began) > within {
			return fmt.Errorf("node %s is not empty after %s: %s", node, within, strings.Join(left, "; "))
		}
		select {
		case <-s.ctx.Done():
			return s.ctx.Err()
		case <-time.After(time.Second):
		}
	}
}
