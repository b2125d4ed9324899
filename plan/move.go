// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"bytes"
	"fmt"
	"io"
	"sort"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"
	karpv1 "sigs.k8s.io/karpenter/pkg/apis/v1"

	"github.com/nap-aks/nap/apis/v1beta1"
	"github.com/nap-aks/nap/azure/instancetype"
	"github.com/nap-aks/nap/catalog"
	"github.com/nap-aks/nap/snapshot"
)

// Move describes the removal of nodes from a cluster. Simulate returns where their
// pods would go, and the cost per hour before and after.
type Move struct {
	// Remove reports whether a node is to be removed.
	Remove func(*corev1.Node) bool
	// Provision allows buying machines for the NodePools of the source. Without it,
	// pods can only be placed on existing nodes and on Fixed.
	Provision bool
	// Fixed are agent pools to create or scale up before nodes are removed.
	Fixed []FixedNodes
	// Region is the region for sizes and prices; empty means that of the nodes.
	Region string
	// Usages is the subscription's quota usage in the region. If nil, quotas are
	// ignored, and the report says so in a note.
	Usages []instancetype.Usage
}

// FixedNodes is the desired node count and VM size of an agent pool. Count includes
// the nodes that the pool has.
type FixedNodes struct {
	Pool  string
	Size  string // full name, such as Standard_D8s_v5
	Count int
	Zones []string // zone numbers; regional if empty
}

// MoveReport is the result of Simulate. Costs are in US dollars per hour. A node
// whose size has no price in the catalogue counts as free, and a note names it.
type MoveReport struct {
	Version int       `json:"version"`
	Region  string    `json:"region"`
	Time    time.Time `json:"time"`
	// BeforeUSDPerHour is the current cost of all nodes. AfterUSDPerHour is the cost
	// of the remaining nodes, the new fixed nodes and the machines to buy.
	BeforeUSDPerHour float64       `json:"beforeUSDPerHour"`
	AfterUSDPerHour  float64       `json:"afterUSDPerHour"`
	RemovedNodes     []RemovedNode `json:"gone"` // sorted by name
	RemainingNodes   int           `json:"stay"` // number of existing nodes that are kept
	// Quotas are the vCPU quotas whose usage the move changes.
	Quotas []QuotaUse `json:"quotas,omitempty"`
	// Plan places the pods of the removed nodes and the pending pods.
	Plan *Report `json:"plan"`
}

// RemovedNode is a node that the move removes, with its current cost.
type RemovedNode struct {
	Name         string   `json:"name"`
	Size         string   `json:"size"`
	CapacityType string   `json:"capacityType"`
	USDPerHour   float64  `json:"usdPerHour"`
	Pods         []string `json:"pods"` // namespace/name of the pods that are rescheduled, sorted
}

// ReadManifestText is ReadManifests for text. Errors name it by name.
func ReadManifestText(name string, text []byte, now time.Time) (*Source, error) {
	m := newManifests(now)
	decoder, err := newDecoder()
	if err != nil {
		return nil, err
	}
	if err := m.readFile(decoder, name, bytes.TrimSpace(text)); err != nil {
		return nil, err
	}
	m.finish()
	return m.Source, nil
}

// With adds the objects of another source. They replace objects of the same kind
// and name.
func (s *Source) With(more *Source) { s.merge(more) }

// Simulate plans a move. It changes the source, which must not be used afterwards.
func Simulate(s *Source, mv Move, opt Options) (*MoveReport, error) {
	o := s.Objects
	region := mv.Region
	if region == "" {
		region = regionOf(o)
	}
	if region == "" {
		region = DefaultRegion
	}
	if !mv.Provision {
		o.NodePools, o.NodeClaims = nil, nil
	}
	if err := s.AddInstanceTypes(region); err != nil {
		return nil, err
	}
	out := &MoveReport{Version: ReportVersion, Region: region, Time: o.Now, RemovedNodes: []RemovedNode{}}
	notes := s.ignoreEvictionBlocks(mv.Provision)
	pods := map[string][]string{}
	for _, p := range o.Pods {
		if p.Spec.NodeName != "" && movable(p) {
			pods[p.Spec.NodeName] = append(pods[p.Spec.NodeName], snapshot.PodKey(p))
		}
	}
	var unknown []string
	for _, n := range o.Nodes {
		size, capacity, price, ok := nodePrice(region, n)
		if !ok {
			unknown = append(unknown, n.Name)
		}
		out.BeforeUSDPerHour += price
		if !mv.Remove(n) {
			out.RemainingNodes++
			out.AfterUSDPerHour += price
			continue
		}
		o.Marked = append(o.Marked, n.Spec.ProviderID)
		sort.Strings(pods[n.Name])
		out.RemovedNodes = append(out.RemovedNodes, RemovedNode{Name: n.Name, Size: size, CapacityType: capacity, USDPerHour: price, Pods: append([]string{}, pods[n.Name]...)})
	}
	sort.Slice(out.RemovedNodes, func(i, j int) bool { return out.RemovedNodes[i].Name < out.RemovedNodes[j].Name })
	var coming []FixedNodes
	for _, f := range mv.Fixed {
		for _, n := range o.Nodes {
			if f.Count > 0 && n.Labels[v1beta1.AKSLabelDomain+"/agentpool"] == f.Pool {
				f.Count--
			}
		}
		nodes, price, err := fixedNodes(s, region, f)
		if err != nil {
			return nil, err
		}
		o.Nodes = append(o.Nodes, nodes...)
		out.AfterUSDPerHour += price * float64(f.Count)
		if len(nodes) > 0 {
			f.Size = nodes[0].Labels[corev1.LabelInstanceTypeStable]
			coming = append(coming, f)
		}
	}
	var uses []*QuotaUse
	o.Quotas = nil
	if mv.Usages != nil {
		var err error
		if uses, err = s.setQuotas(mv.Usages, region, out.RemovedNodes, coming); err != nil {
			return nil, fmt.Errorf("reading the quotas from the subscription's usages: %w", err)
		}
	} else {
		notes = append(notes, "vCPU quotas are not considered")
	}
	r, err := Nap(o, opt)
	if err != nil {
		return nil, err
	}
	out.Quotas = judge(uses, o.Quotas, r.Machines)
	for _, q := range out.Quotas {
		if q.Shortage != "" {
			notes = append(notes, q.Shortage)
		}
	}
	r.Region, r.Notes = region, append(r.Notes, notes...)
	if len(unknown) > 0 {
		r.Notes = append(r.Notes, fmt.Sprintf("no price is known for %s; counted as free", strings.Join(unknown, ", ")))
	}
	out.Plan = r
	out.AfterUSDPerHour += r.Summary.USDPerHour
	return out, nil
}

// ignoreEvictionBlocks removes PodDisruptionBudgets and do-not-disrupt annotations,
// which delay evictions but do not decide where pods finally go. It returns notes
// about those that block evictions now. drained means that nodes are drained, which
// evicts annotated pods too.
func (s *Source) ignoreEvictionBlocks(drained bool) []string {
	o := s.Objects
	var notes []string
	for _, b := range o.PDBs {
		switch why := neverAllows(b); {
		case b.Status.ExpectedPods == 0 || b.Status.DisruptionsAllowed > 0:
		case why != "":
			notes = append(notes, fmt.Sprintf("PodDisruptionBudget %s/%s never allows a disruption (%s): its pods stay and the move cannot finish until it is changed", b.Namespace, b.Name, why))
		default:
			notes = append(notes, fmt.Sprintf("PodDisruptionBudget %s/%s allows no disruption now: its pods stay until it does", b.Namespace, b.Name))
		}
	}
	o.PDBs = nil
	var held []string
	for i, p := range o.Pods {
		if p.Annotations[karpv1.DoNotDisruptAnnotationKey] == "true" && movable(p) {
			held = append(held, snapshot.PodKey(p))
			o.Pods[i] = p.DeepCopy()
			delete(o.Pods[i].Annotations, karpv1.DoNotDisruptAnnotationKey)
		}
	}
	if len(held) > 0 {
		what := "keep their nodes until the annotation is removed"
		if drained {
			what = "are evicted like the others"
		}
		sort.Strings(held)
		notes = append(notes, fmt.Sprintf("pods with the annotation %s %s: %s", karpv1.DoNotDisruptAnnotationKey, what, strings.Join(held, ", ")))
	}
	return notes
}

// neverAllows returns why a budget can never allow a disruption, or an empty string
// if it can once its pods are healthy.
func neverAllows(b *policyv1.PodDisruptionBudget) string {
	expected := int(b.Status.ExpectedPods)
	if x := b.Spec.MaxUnavailable; x != nil {
		if n, err := intstr.GetScaledValueFromIntOrPercent(x, 100, true); err == nil && n == 0 {
			return "maxUnavailable " + x.String()
		}
	}
	if x := b.Spec.MinAvailable; x != nil && expected > 0 {
		if n, err := intstr.GetScaledValueFromIntOrPercent(x, expected, true); err == nil && n >= expected {
			return fmt.Sprintf("minAvailable %s of %s", x.String(), count(expected, "pod"))
		}
	}
	return ""
}

// movable reports whether a pod has to move when its node is removed.
func movable(p *corev1.Pod) bool {
	if p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed || p.Annotations[corev1.MirrorPodAnnotationKey] != "" {
		return false
	}
	for _, o := range p.OwnerReferences {
		if o.Controller != nil && *o.Controller && (o.Kind == "DaemonSet" || o.Kind == "Node") {
			return false
		}
	}
	return true
}

// nodePrice returns the size and capacity type of a node and its price in the
// catalogue.
func nodePrice(region string, n *corev1.Node) (size, capacity string, usd float64, ok bool) {
	size, capacity = n.Labels[corev1.LabelInstanceTypeStable], "on-demand"
	if n.Labels["kubernetes.azure.com/scalesetpriority"] == "spot" || n.Labels["karpenter.sh/capacity-type"] == "spot" {
		capacity = "spot"
	}
	s, err := catalog.Lookup(region, size)
	if err != nil || !s.HasPrice {
		return size, capacity, 0, false
	}
	if capacity == "spot" {
		return size, capacity, s.SpotUSDPerHour, true
	}
	return size, capacity, s.OnDemandUSDPerHour, true
}

// fixedNodes returns nodes as an agent pool would create them, with only the pods
// of DaemonSets, and the price of each.
func fixedNodes(s *Source, region string, f FixedNodes) ([]*corev1.Node, float64, error) {
	size, err := catalog.Lookup(region, f.Size)
	if err != nil {
		return nil, 0, fmt.Errorf("pool %s: %w", f.Pool, err)
	}
	table, prices, err := offline(region)
	if err != nil {
		return nil, 0, err
	}
	settings := instancetype.SettingsFor(&v1beta1.AKSNodeClass{}, instancetype.Cluster{
		NetworkPlugin: "azure", NetworkPluginMode: "overlay", NodeResourceGroup: "nap", VMMemoryOverheadPercent: instancetype.DefaultVMMemoryOverheadPercent,
	})
	var allocatable corev1.ResourceList
	for _, it := range table.Build(settings, prices, nil) {
		if it.Name == size.Name {
			allocatable = it.Allocatable()
		}
	}
	if allocatable == nil {
		return nil, 0, fmt.Errorf("pool %s: the allocatable resources of size %s are unknown", f.Pool, size.Name)
	}
	var out []*corev1.Node
	for i := range f.Count {
		zone := v1beta1.RegionalZone
		if len(f.Zones) > 0 {
			zone = instancetype.ZoneLabel(region, f.Zones[i%len(f.Zones)])
		}
		n := &corev1.Node{}
		n.Name = fmt.Sprintf("%s-new-%d", f.Pool, i+1)
		n.Spec.ProviderID = "plan://" + n.Name
		n.Labels = map[string]string{
			corev1.LabelHostname: n.Name, corev1.LabelInstanceTypeStable: size.Name, corev1.LabelTopologyRegion: region, corev1.LabelTopologyZone: zone,
			corev1.LabelArchStable: size.Arch, corev1.LabelOSStable: "linux", "agentpool": f.Pool, v1beta1.AKSLabelDomain + "/agentpool": f.Pool, v1beta1.AKSLabelMode: v1beta1.ModeUser,
		}
		n.Status.Capacity = allocatable.DeepCopy()
		n.Status.Allocatable = withoutDaemonSets(allocatable, s.Objects.DaemonSets, n)
		n.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}}
		out = append(out, n)
	}
	return out, size.OnDemandUSDPerHour, nil
}

// withoutDaemonSets returns the resources of a node less the requests of the
// DaemonSets that select it.
func withoutDaemonSets(allocatable corev1.ResourceList, sets []*appsv1.DaemonSet, n *corev1.Node) corev1.ResourceList {
	left := allocatable.DeepCopy()
	take := func(name corev1.ResourceName, q resource.Quantity) {
		if have, ok := left[name]; ok {
			have.Sub(q)
			left[name] = have
		}
	}
	for _, ds := range sets {
		if !labels.SelectorFromSet(ds.Spec.Template.Spec.NodeSelector).Matches(labels.Set(n.Labels)) {
			continue
		}
		for _, c := range ds.Spec.Template.Spec.Containers {
			for name, q := range c.Resources.Requests {
				take(name, q)
			}
		}
		take(corev1.ResourcePods, resource.MustParse("1"))
	}
	return left
}

// Unplaced returns the number of pods that the plan places nowhere.
func (m *MoveReport) Unplaced() int { return m.Plan.Summary.Refused + m.Plan.Summary.Deferred }

// WriteTable writes the report as text tables.
func (m *MoveReport) WriteTable(w io.Writer) error {
	r := m.Plan
	tw := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
	if len(m.RemovedNodes) > 0 {
		fmt.Fprintln(tw, "NODE THAT GOES\tSIZE\tCAPACITY\t$/H\tPODS")
		for _, g := range m.RemovedNodes {
			fmt.Fprintf(tw, "%s\t%s\t%s\t%.4f\t%s\n", g.Name, g.Size, g.CapacityType, g.USDPerHour, r.podList(g.Pods, 4))
		}
		fmt.Fprintln(tw)
	}
	if err := tw.Flush(); err != nil {
		return fmt.Errorf("writing the plan: %w", err)
	}
	if err := r.WriteTable(w); err != nil {
		return err
	}
	_, err := fmt.Fprintln(w, m.Sentence())
	return err
}

// Sentence returns a one-line summary: cost before and after, nodes removed,
// machines bought, pods without a place.
func (m *MoveReport) Sentence() string {
	var b strings.Builder
	fmt.Fprintf(&b, "now $%.4f per hour, afterwards $%.4f%s: %s, %s", m.BeforeUSDPerHour, m.AfterUSDPerHour, percent(m.AfterUSDPerHour, m.BeforeUSDPerHour),
		count(len(m.RemovedNodes), "node")+" of "+strconv.Itoa(len(m.RemovedNodes)+m.RemainingNodes)+" would go", count(len(m.Plan.Machines), "machine")+" would be bought")
	if n := m.Unplaced(); n > 0 {
		fmt.Fprintf(&b, "; %s would have no place", count(n, "pod"))
	}
	return b.String()
}
