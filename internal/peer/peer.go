// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

// Package peer runs Karpenter's scheduler as a library on the objects of a snapshot, for
// `nap plan --engine karpenter`, for the benchmark and as an oracle in tests. The work
// around the scheduler (selection of pods, volume topology, default spread, daemon pods,
// cluster state) is done by Karpenter's code, too.
package peer

import (
	"context"
	"errors"
	"fmt"
	"sort"
	"time"

	"github.com/awslabs/operatorpkg/status"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/client-go/tools/record"
	clocktesting "k8s.io/utils/clock/testing"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"
	karpv1 "sigs.k8s.io/karpenter/pkg/apis/v1"
	"sigs.k8s.io/karpenter/pkg/cloudprovider"
	"sigs.k8s.io/karpenter/pkg/controllers/provisioning"
	"sigs.k8s.io/karpenter/pkg/controllers/provisioning/scheduling"
	"sigs.k8s.io/karpenter/pkg/controllers/state"
	"sigs.k8s.io/karpenter/pkg/events"
	"sigs.k8s.io/karpenter/pkg/operator/injection"
	"sigs.k8s.io/karpenter/pkg/operator/logging"
	"sigs.k8s.io/karpenter/pkg/operator/options"
	karpreqs "sigs.k8s.io/karpenter/pkg/scheduling"
	nodeutils "sigs.k8s.io/karpenter/pkg/utils/node"

	"github.com/nap-aks/nap/internal/kubemem"
	"github.com/nap-aks/nap/snapshot"
)

// ErrTimeout is wrapped by the error if the timeout ends before all pods are scheduled.
// The results so far are returned with it.
var ErrTimeout = errors.New("scheduling with Karpenter ran out of time")

// Result holds the decisions of Karpenter's scheduler.
type Result struct {
	scheduling.Results
	// Errors has the reason for each pod that was not scheduled.
	Errors map[types.NamespacedName]error
	// Pods is the number of pods to schedule.
	Pods int
	// Fill is the time to fill the cluster state, which informers do once. Prepare is
	// the time of each pass before it schedules: copying nodes, listing pods, counting
	// topology, building the scheduler. Solve is the time of the scheduling.
	Fill, Prepare, Solve time.Duration
}

// Machine is a planned machine with its cheapest offering.
type Machine struct {
	Claim        *scheduling.NodeClaim
	InstanceType string
	Zone         string
	CapacityType string
	USDPerHour   float64
}

// Machines returns the planned machines, each with the cheapest launchable offering that
// matches its requirements, which a provider would launch.
func (r *Result) Machines() []Machine {
	var out []Machine
	for _, nc := range r.NewNodeClaims {
		m := Machine{Claim: nc}
		for _, it := range nc.InstanceTypeOptions {
			for _, o := range it.Offerings.Launchable() {
				if !nc.Requirements.IsCompatible(o.Requirements, karpreqs.AllowUndefinedWellKnownLabels) {
					continue
				}
				if m.InstanceType == "" || o.Price < m.USDPerHour || o.Price == m.USDPerHour && it.Name < m.InstanceType {
					m.InstanceType, m.Zone, m.CapacityType, m.USDPerHour = it.Name, o.Zone(), o.CapacityType(), o.Price
				}
			}
		}
		out = append(out, m)
	}
	return out
}

// Options configure Schedule.
type Options struct {
	// Timeout limits the scheduling; zero means no limit.
	Timeout time.Duration
	// Threads is the number of candidates that are evaluated in parallel; zero means
	// 1, which makes the result repeatable.
	Threads int
}

// Schedule runs Karpenter's scheduler for the pending pods of the snapshot and the pods
// of nodes that are being deleted. It does not change the snapshot.
func Schedule(ctx context.Context, o *snapshot.Objects, opt Options) (*Result, error) {
	start := time.Now()
	ctx = Context(ctx, o.Settings)
	cp := provider{types: o.InstanceTypes}
	cp.classes(o.NodePools)
	c := kubemem.New()
	o.Each(func(obj client.Object) { c.Upsert(obj) })
	clk := clocktesting.NewFakeClock(o.Now)
	cluster := state.NewCluster(clk, c, cp)
	if err := fill(ctx, cluster, o); err != nil {
		return nil, err
	}
	filled := time.Since(start)
	start = time.Now()
	recorder := events.NewRecorder(discard{})
	p := provisioning.NewProvisioner(c, recorder, cp, cluster, clk, nil, nil)
	nodes := cluster.DeepCopyNodes()
	res := &Result{Errors: map[types.NamespacedName]error{}, Fill: filled}

	pending, err := nodeutils.GetProvisionablePods(ctx, c)
	if err != nil {
		return nil, fmt.Errorf("listing the pending pods: %w", err)
	}
	var pods []*corev1.Pod
	for _, pod := range pending {
		if err := p.Validate(ctx, pod); err != nil {
			res.Errors[client.ObjectKeyFromObject(pod)] = err
			continue
		}
		pods = append(pods, pod)
	}
	for _, v := range o.VirtualPods {
		pods = append(pods, v.DeepCopy())
	}
	leaving, err := nodes.Deleting().CurrentlyReschedulablePods(ctx, c, clk, recorder)
	if err != nil {
		return nil, fmt.Errorf("listing the pods of nodes that are being deleted: %w", err)
	}
	pods = append(pods, leaving...)
	res.Pods = len(pods) + len(res.Errors)
	uids := sets.New[types.UID]()
	for _, pod := range leaving {
		uids.Insert(pod.UID)
	}
	opts := []scheduling.Options{
		scheduling.DisableReservedCapacityFallback,
		scheduling.NumConcurrentReconciles(max(1, opt.Threads)),
		scheduling.MinValuesPolicy(options.FromContext(ctx).MinValuesPolicy),
	}
	if o.Settings.IgnorePreferences {
		opts = append(opts, scheduling.IgnorePreferences)
	}
	s, err := p.NewScheduler(ctx, pods, nodes.Active(), uids, opts...)
	if errors.Is(err, provisioning.ErrNodePoolsNotFound) {
		for _, pod := range pods {
			res.Errors[client.ObjectKeyFromObject(pod)] = err
		}
		return res, nil
	} else if err != nil {
		return nil, fmt.Errorf("building Karpenter's scheduler: %w", err)
	}
	res.Prepare = time.Since(start)

	solveCtx, cancel := ctx, context.CancelFunc(func() {})
	if opt.Timeout > 0 {
		solveCtx, cancel = context.WithTimeout(ctx, opt.Timeout)
	}
	defer cancel()
	start = time.Now()
	results, err := s.Solve(solveCtx, pods)
	res.Solve = time.Since(start)
	if err != nil && !errors.Is(err, context.DeadlineExceeded) {
		return nil, fmt.Errorf("running Karpenter's scheduler: %w", err)
	}
	timedOut := err != nil
	res.Results = results.TruncateInstanceTypes(ctx, scheduling.MaxInstanceTypes)
	for pod, err := range res.PodErrors {
		res.Errors[client.ObjectKeyFromObject(pod)] = err
	}
	if timedOut {
		return res, fmt.Errorf("%w after %s", ErrTimeout, opt.Timeout)
	}
	return res, nil
}

// Context returns a context with the options that Karpenter's code reads, and logging
// turned off.
func Context(ctx context.Context, s snapshot.Settings) context.Context {
	o := &options.Options{
		CPURequests: 1000, BatchMaxDuration: 10 * time.Second, BatchIdleDuration: time.Second, LogLevel: "error",
		PreferencePolicy: options.PreferencePolicyRespect, MinValuesPolicy: options.MinValuesPolicyStrict, IgnoreDRARequests: true,
		FeatureGates: options.DefaultFeatureGates(),
	}
	o.FeatureGates.ReservedCapacity = s.ReservedCapacity
	if s.IgnorePreferences {
		o.PreferencePolicy = options.PreferencePolicyIgnore
	}
	if s.MinValuesBestEffort {
		o.MinValuesPolicy = options.MinValuesPolicyBestEffort
	}
	if len(s.DefaultSpread) > 0 {
		o.SchedulerConfig = &options.SchedulerConfiguration{PodTopologySpread: &options.PodTopologySpreadConfig{DefaultConstraints: s.DefaultSpread}}
	}
	ctx = log.IntoContext(ctx, logging.NopLogger)
	return injection.WithControllerName(options.ToContext(ctx, o), "provisioner")
}

// fill fills the cluster state as Karpenter's informers do.
func fill(ctx context.Context, cluster *state.Cluster, o *snapshot.Objects) error {
	for _, nc := range o.NodeClaims {
		cluster.UpdateNodeClaim(nc.DeepCopy())
	}
	for _, n := range o.Nodes {
		if err := cluster.UpdateNode(ctx, n.DeepCopy()); err != nil {
			return fmt.Errorf("adding node %s to the cluster state: %w", n.Name, err)
		}
	}
	for _, d := range o.DaemonSets {
		if err := cluster.UpdateDaemonSet(ctx, d); err != nil {
			return fmt.Errorf("adding DaemonSet %s/%s to the cluster state: %w", d.Namespace, d.Name, err)
		}
	}
	known := sets.New[string]()
	for _, n := range o.Nodes {
		known.Insert(n.Name)
	}
	for _, p := range o.Pods {
		if p.Spec.NodeName != "" && !known.Has(p.Spec.NodeName) {
			continue // its node no longer exists
		}
		if err := cluster.UpdatePod(ctx, p.DeepCopy()); err != nil {
			return fmt.Errorf("adding pod %s/%s to the cluster state: %w", p.Namespace, p.Name, err)
		}
	}
	cluster.MarkForDeletion(o.Marked...)
	return nil
}

// provider is a CloudProvider that serves only instance types.
type provider struct {
	cloudprovider.CloudProvider // nil: Karpenter's scheduler calls no other method
	types                       map[string][]*cloudprovider.InstanceType
	supported                   []status.Object
}

// classes sets the node classes that the NodePools refer to as supported.
func (p *provider) classes(pools []*karpv1.NodePool) {
	seen := map[schema.GroupKind]bool{}
	for _, np := range pools {
		ref := np.Spec.Template.Spec.NodeClassRef
		if ref == nil || seen[ref.GroupKind()] {
			continue
		}
		seen[ref.GroupKind()] = true
		p.supported = append(p.supported, newNodeClass(ref.GroupKind()))
	}
	sort.Slice(p.supported, func(i, j int) bool {
		return p.supported[i].GetObjectKind().GroupVersionKind().String() < p.supported[j].GetObjectKind().GroupVersionKind().String()
	})
}

func (p provider) GetInstanceTypes(_ context.Context, np *karpv1.NodePool) ([]*cloudprovider.InstanceType, error) {
	return p.types[np.Name], nil
}

func (p provider) GetSupportedNodeClasses() []status.Object { return p.supported }

func (p provider) Name() string { return "snapshot" }

func (p provider) RepairPolicies() []cloudprovider.RepairPolicy { return nil }

// nodeClass represents a node class that a NodePool refers to. Only its group and kind
// are used.
type nodeClass struct{ unstructured.Unstructured }

func newNodeClass(gk schema.GroupKind) *nodeClass {
	n := &nodeClass{}
	n.SetGroupVersionKind(gk.WithVersion("v1"))
	return n
}

func (n *nodeClass) GetConditions() []status.Condition { return nil }
func (n *nodeClass) SetConditions([]status.Condition)  {}
func (n *nodeClass) StatusConditions(...status.ForOption) status.ConditionSet {
	return status.NewReadyConditions().For(n)
}

// discard drops all events.
type discard struct{}

func (discard) Event(runtime.Object, string, string, string)          {}
func (discard) Eventf(runtime.Object, string, string, string, ...any) {}
func (discard) AnnotatedEventf(runtime.Object, map[string]string, string, string, string, ...any) {
}

var _ record.EventRecorder = discard{}
