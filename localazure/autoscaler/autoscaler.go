// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

// Package autoscaler is the cluster autoscaler of fixed pools (enableAutoScaling):
// it scales a pool up for pods that do not fit and scales it down when nodes are
// unneeded, within the pool's minimum and maximum and by the cluster's
// autoScalerProfile. It decides like the upstream program and writes the same events
// and status ConfigMap, but shares no code with it. The kube-scheduler's plugins
// decide what fits where.
//
// Its only state are timestamps in memory; after a restart nodes must be unneeded
// for the full time again, as upstream.
package autoscaler

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
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

	"github.com/nap-aks/nap/localazure/eviction"
)

// Names that the upstream program uses.
const (
	statusConfigMap   = "cluster-autoscaler-status"
	priorityConfigMap = "cluster-autoscaler-priority-expander"
	toBeDeletedTaint  = "ToBeDeletedByClusterAutoscaler"
	noScaleDown       = "cluster-autoscaler.kubernetes.io/scale-down-disabled"
	safeToEvict       = "cluster-autoscaler.kubernetes.io/safe-to-evict"
	component         = "cluster-autoscaler"

	// backoffTime is how long a pool is not scaled up after a failed scale-up.
	backoffTime = 5 * time.Minute
	// idleInterval is the scan interval while no pool is autoscaled.
	idleInterval = 10 * time.Second

	// maxGrow is the largest number of nodes that one request adds.
	maxGrow = 50
)

// Group is an autoscaled pool.
type Group struct {
	// Name is the agent pool's name, ScaleSet that of its scale set.
	Name, ScaleSet string
	Min, Max       int
	// Busy is set while an operation changes the pool: it is not scaled meanwhile.
	Busy bool
	// Node returns the n-th new node as it would register, with any name.
	Node func(n int) *corev1.Node
	// Instances are the existing and the upcoming machines.
	Instances []Instance
}

// Instance is a machine of a Group.
type Instance struct {
	// Name is the machine's name, Node its node's.
	Name, Node string
	// Since is when it was requested.
	Since time.Time
	// Failed is why it could not be created; empty if it could.
	Failed string
}

// Cloud is the interface to the pools.
type Cloud interface {
	// Groups returns the autoscaled pools of the cluster and its profile.
	Groups(ctx context.Context) ([]Group, Profile, error)
	// Grow adds n instances to a group.
	Grow(ctx context.Context, group string, n int) error
	// Shrink removes the named instances at once; those that failed, even below the
	// minimum.
	Shrink(ctx context.Context, group string, machines []string, failed bool) error
}

// Profile is a cluster's autoScalerProfile.
type Profile struct {
	// Expander chooses between pools: random, least-waste, most-pods or priority;
	// several, separated by commas, each break the ties of those before.
	Expander string
	// ScanInterval is the time between two scans.
	ScanInterval time.Duration
	// NewPodDelay is the age below which a pending pod is ignored.
	NewPodDelay time.Duration
	// DelayAfterAdd, DelayAfterDelete and DelayAfterFailure are how long scale-down
	// pauses after a scale-up, a removed node, and a failed removal.
	DelayAfterAdd, DelayAfterDelete, DelayAfterFailure time.Duration
	// UnneededTime and UnreadyTime are how long a ready and an unready node must be
	// unneeded before it is removed.
	UnneededTime, UnreadyTime time.Duration
	// ProvisionTime is how long a node may take to register.
	ProvisionTime time.Duration
	// TerminationTime is how long the drain of a node may take.
	TerminationTime time.Duration
	// Threshold is the utilization below which a node may be removed.
	Threshold float64
	// MaxEmpty is how many empty nodes are removed at once.
	MaxEmpty int
	// SkipLocalStorage keeps nodes whose pods use the node's disk, SkipSystemPods
	// nodes with pods of kube-system that have no budget.
	SkipLocalStorage, SkipSystemPods bool
	// IgnoreDaemonSets excludes DaemonSets' pods from the utilization.
	IgnoreDaemonSets bool
}

// DefaultProfile returns AKS's default.
func DefaultProfile() Profile {
	return Profile{Expander: "random", ScanInterval: 10 * time.Second, DelayAfterAdd: 10 * time.Minute, DelayAfterDelete: 10 * time.Second, DelayAfterFailure: 3 * time.Minute,
		UnneededTime: 10 * time.Minute, UnreadyTime: 20 * time.Minute, ProvisionTime: 15 * time.Minute, TerminationTime: 10 * time.Minute, Threshold: 0.5, MaxEmpty: 10,
		SkipSystemPods: true}
}

// Run scales the pools of one cluster until ctx ends. It starts its informers with
// the first autoscaled pool.
func Run(ctx context.Context, client kubernetes.Interface, cloud Cloud, log *slog.Logger) {
	var s *scaler
	for {
		groups, profile, err := cloud.Groups(ctx)
		if err == nil && s == nil && len(groups) > 0 {
			s, err = newScaler(ctx, client, cloud, log)
		}
		wait := idleInterval
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
			log.Warn("cluster autoscaler scan failed, retrying", "error", err)
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

	unneeded                       map[string]time.Time // by node
	backoff                        map[string]time.Time // by group, until when
	lastEvent                      map[types.UID]string // the last event of a pod
	lastUp, lastDelete, lastFail   time.Time
	scaleUpStatus, scaleDownStatus string

	mu       sync.Mutex
	draining map[string]bool // nodes that are being drained
	failed   bool            // a removal has failed since the last scan
}

func newScaler(ctx context.Context, client kubernetes.Interface, cloud Cloud, log *slog.Logger) (*scaler, error) {
	s := &scaler{ctx: ctx, client: client, cloud: cloud, log: log, now: time.Now,
		unneeded: map[string]time.Time{}, backoff: map[string]time.Time{}, lastEvent: map[types.UID]string{}, draining: map[string]bool{}}
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
	// A node that an earlier run was about to delete stays until it is chosen again.
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

// observation is the state of the cluster at one scan.
type observation struct {
	groups  []Group
	profile Profile
	now     time.Time
	nodes   map[string]*corev1.Node
	pods    map[string][]*corev1.Pod // by node
	pending []*corev1.Pod
	// groupOf and instance are the group and the machine of a node.
	groupOf  map[string]*Group
	instance map[string]Instance
	upcoming map[string]int // by group: instances without a ready node
	world    *world         // ready and upcoming nodes, with their pods
	daemons  []*appsv1.DaemonSet
}

// scan observes the cluster once and scales its pools.
func (s *scaler) scan(groups []Group, profile Profile) error {
	if len(groups) == 0 {
		return s.deleteStatus()
	}
	l, err := s.observe(groups, profile)
	if err != nil {
		return err
	}
	if err := s.removeFailed(l); err != nil {
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

// deleteStatus deletes the status once no pool is autoscaled.
func (s *scaler) deleteStatus() error {
	clear(s.unneeded)
	err := s.client.CoreV1().ConfigMaps(metav1.NamespaceSystem).Delete(s.ctx, statusConfigMap, metav1.DeleteOptions{})
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}

func (s *scaler) observe(groups []Group, profile Profile) (*observation, error) {
	l := &observation{groups: groups, profile: profile, now: s.now(), nodes: map[string]*corev1.Node{}, pods: map[string][]*corev1.Pod{},
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
			// A nominated pod already has a node: through preemption, or one that node
			// auto-provisioning creates for it.
			l.pending = append(l.pending, p)
		}
	}
	maps.DeleteFunc(s.lastEvent, func(uid types.UID, _ string) bool { return !alive[uid] })
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
// DaemonSets will run there.
func (l *observation) addTemplate(w *world, g *Group, n int, name string) {
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

// removeFailed removes instances that could not be created or did not register in
// time, and puts their group into backoff.
func (s *scaler) removeFailed(l *observation) error {
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
				why = fmt.Sprintf("node %s did not register within %s", in.Node, l.profile.ProvisionTime)
			default:
				continue
			}
			names = append(names, in.Name)
		}
		if len(names) == 0 || g.Busy {
			continue
		}
		s.backoff[g.Name] = l.now.Add(backoffTime)
		s.log.Warn("removing failed instances, pool in backoff", "pool", g.Name, "machines", names, "reason", why)
		s.event(statusRef(), corev1.EventTypeWarning, "FailedToScaleUpGroup", fmt.Sprintf("Scale-up failed for group %s: %s", g.ScaleSet, why))
		if err := s.cloud.Shrink(s.ctx, g.Name, names, true); err != nil {
			return fmt.Errorf("removing failed instances of pool %s: %w", g.Name, err)
		}
		g.Instances = slices.DeleteFunc(g.Instances, func(in Instance) bool { return slices.Contains(names, in.Name) })
	}
	return nil
}

// option is a possible scale-up of one group.
type option struct {
	group *Group
	nodes int
	pods  []*corev1.Pod
	waste float64
	world *world // after the scale-up
}

// scaleUp grows pools until every pending pod fits or no growth helps any more.
func (s *scaler) scaleUp(l *observation) (bool, error) {
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
			switch headroom := g.Max - size[g.Name]; {
			case headroom <= 0:
				blame("max node group size reached", left...)
			case g.Busy:
				blame("in an operation", left...)
			case l.now.Before(s.backoff[g.Name]):
				blame("in backoff after failed scale-up", left...)
			default:
				if o := s.estimate(l, g, left, size[g.Name], headroom, func(p *corev1.Pod, why string) { blame(why, p) }); len(o.pods) > 0 {
					options = append(options, o)
				}
			}
		}
		if len(options) == 0 {
			for _, p := range left {
				s.podEvent(p, "NotTriggerScaleUp", "pod didn't trigger scale-up: "+reasonText(reasons[p.UID]))
			}
			return grown, nil
		}
		o := s.choose(l.profile.Expander, options)
		was := size[o.group.Name]
		for added := 0; added < o.nodes; added += maxGrow {
			if err := s.cloud.Grow(s.ctx, o.group.Name, min(maxGrow, o.nodes-added)); err != nil {
				return grown, fmt.Errorf("growing pool %s by %d: %w", o.group.Name, o.nodes, err)
			}
		}
		grown = true
		size[o.group.Name] += o.nodes
		l.world = o.world
		text := fmt.Sprintf("[{%s %d->%d (max: %d)}]", o.group.ScaleSet, was, size[o.group.Name], o.group.Max)
		s.log.Info("scaling up pool", "pool", o.group.Name, "nodes", o.nodes, "pods", len(o.pods))
		s.event(statusRef(), corev1.EventTypeNormal, "ScaledUpGroup", fmt.Sprintf("Scale-up: setting group %s size to %d instead of %d (max: %d)", o.group.ScaleSet, size[o.group.Name], was, o.group.Max))
		for _, p := range o.pods {
			s.podEvent(p, "TriggeredScaleUp", "pod triggered scale-up: "+text)
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

// estimate packs pods onto at most headroom new nodes of one group.
func (s *scaler) estimate(l *observation, g *Group, pods []*corev1.Pod, size, headroom int, refused func(*corev1.Pod, string)) option {
	o := option{group: g, world: l.world.clone()}
	var fresh []string
	// If a pod does not fit, the equivalent pods of its controller do not either.
	hopeless := map[string]string{}
	for _, p := range pods {
		key := equivalence(p)
		if why, ok := hopeless[key]; ok && key != "" {
			refused(p, why)
			continue
		}
		node, why := s.sim.place(o.world, p, fresh)
		if node == "" && len(fresh) < headroom {
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
		o.waste += 1 - (fraction(i.Requested.MilliCPU, i.Allocatable.MilliCPU)+fraction(i.Requested.Memory, i.Allocatable.Memory))/2
	}
	if len(fresh) > 0 {
		o.waste /= float64(len(fresh))
	}
	return o
}

func fraction(a, b int64) float64 {
	if b == 0 {
		return 1
	}
	return float64(a) / float64(b)
}

// equivalence returns a key that equivalent pods of one controller share; it is empty
// for a pod without equivalents.
func equivalence(p *corev1.Pod) string {
	owner := metav1.GetControllerOf(p)
	if owner == nil || len(p.Spec.Volumes) > 0 && owner.Kind == "StatefulSet" {
		return ""
	}
	return string(owner.UID)
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
			// A node whose agents have not started is not ready for pods.
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

// taint adds the taint of a node that is about to be deleted, or removes it.
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

// drain evicts the pods of a node. It returns an error with the pods that are left
// if they take too long.
func (s *scaler) drain(node string, within time.Duration) error {
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
			return fmt.Errorf("node %s is not drained after %s: %s", node, within, strings.Join(left, "; "))
		}
		select {
		case <-s.ctx.Done():
			return s.ctx.Err()
		case <-time.After(time.Second):
		}
	}
}
