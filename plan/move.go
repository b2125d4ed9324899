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

// Move asks what happens when some nodes of a cluster go: where their pods go,
// and what it costs per hour before and after.
type Move struct {
	// Gone tells which nodes go.
	Gone func(*corev1.Node) bool
	// Provision says whether machines may be bought, with the NodePools of the
	// source; without it the pods have what is there, and Fixed.
	Provision bool
	// Fixed are nodes of a fixed size that come before the others go.
	Fixed []FixedNodes
	// Region is that of the sizes and prices; empty: the one the nodes name.
	Region string
	// Usages are those of the subscription in the region; nil: quotas are not
	// considered, which is noted.
	Usages []instancetype.Usage
}

// FixedNodes are the nodes that an agent pool is to have; those that it has are
// among them.
type FixedNodes struct {
	Pool  string
	Size  string // full name, such as Standard_D8s_v5
	Count int
	Zones []string // numbers; none: regional
}

// MoveReport is the answer, as -o json prints it. Money is US dollars per hour;
// nodes whose size the catalogue does not know count as free and are noted.
type MoveReport struct {
	Version int       `json:"version"`
	Region  string    `json:"region"`
	Time    time.Time `json:"time"`
	// Before is what all nodes cost now, After what those that stay, the fixed
	// ones that come and the machines to buy will cost.
	BeforeUSDPerHour float64     `json:"beforeUSDPerHour"`
	AfterUSDPerHour  float64     `json:"afterUSDPerHour"`
	Gone             []GoingNode `json:"gone"`
	Stay             int         `json:"stay"` // nodes that stay
	// Quotas are those that the move touches.
	Quotas []QuotaUse `json:"quotas,omitempty"`
	// Plan is where the pods of the nodes that go, and those pending, go.
	Plan *Report `json:"plan"`
}

// GoingNode is a node that goes.
type GoingNode struct {
	Name         string   `json:"name"`
	Size         string   `json:"size"`
	CapacityType string   `json:"capacityType"`
	USDPerHour   float64  `json:"usdPerHour"`
	Pods         []string `json:"pods"` // those that have to move
}

// ReadManifestText is ReadManifests for text; name is for messages.
func ReadManifestText(name string, text []byte, now time.Time) (*Source, error) {
	m := &manifests{Source: &Source{Objects: &snapshot.Objects{Now: now}}}
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

// With adds what another source has; its objects replace those of the same name.
func (s *Source) With(more *Source) { s.merge(more) }

// Simulate plans a move. The source is changed and of no use afterwards.
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
	if err := s.addInstanceTypes(region); err != nil {
		return nil, err
	}
	out := &MoveReport{Version: ReportVersion, Region: region, Time: o.Now, Gone: []GoingNode{}}
	notes := s.letGo(mv.Provision)
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
		if !mv.Gone(n) {
			out.Stay++
			out.AfterUSDPerHour += price
			continue
		}
		o.Marked = append(o.Marked, n.Spec.ProviderID)
		sort.Strings(pods[n.Name])
		out.Gone = append(out.Gone, GoingNode{Name: n.Name, Size: size, CapacityType: capacity, USDPerHour: price, Pods: append([]string{}, pods[n.Name]...)})
	}
	sort.Slice(out.Gone, func(i, j int) bool { return out.Gone[i].Name < out.Gone[j].Name })
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
		if uses, err = s.setQuotas(mv.Usages, region, out.Gone, coming); err != nil {
			return nil, fmt.Errorf("the subscription's usages: %w", err)
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
		if q.Missing != "" {
			notes = append(notes, q.Missing)
		}
	}
	r.Region, r.Notes = region, append(r.Notes, notes...)
	if len(unknown) > 0 {
		r.Notes = append(r.Notes, fmt.Sprintf("no price is known for %s; they count as free", strings.Join(unknown, ", ")))
	}
	out.Plan = r
	out.AfterUSDPerHour += r.Summary.USDPerHour
	return out, nil
}

// letGo takes away what keeps pods where they are for a while, budgets and
// annotations: the question is where they go in the end. It notes what that was.
func (s *Source) letGo(drained bool) []string {
	o := s.Objects
	var notes []string
	for _, b := range o.PDBs {
		switch why := never(b); {
		case b.Status.ExpectedPods == 0 || b.Status.DisruptionsAllowed > 0:
		case why != "":
			notes = append(notes, fmt.Sprintf("PodDisruptionBudget %s/%s never allows a disruption (%s): its pods stay, and the move does not end, until it is changed", b.Namespace, b.Name, why))
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
		what := "keep their nodes until the annotation is gone"
		if drained {
			what = "are evicted like the others"
		}
		sort.Strings(held)
		notes = append(notes, fmt.Sprintf("pods with the annotation %s %s: %s", karpv1.DoNotDisruptAnnotationKey, what, strings.Join(held, ", ")))
	}
	return notes
}

// never says why a budget will never allow a disruption as it is; empty if it
// may, once its pods are healthy.
func never(b *policyv1.PodDisruptionBudget) string {
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

// movable tells whether a pod has to go elsewhere when its node goes.
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

// nodePrice is the catalogue's price of a node that is there.
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

// fixedNodes are nodes as an agent pool will make them, empty but for the
// DaemonSets' pods, and the price of each.
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
	var room corev1.ResourceList
	for _, it := range table.Build(settings, prices, nil) {
		if it.Name == size.Name {
			room = it.Allocatable()
		}
	}
	if room == nil {
		return nil, 0, fmt.Errorf("pool %s: how much room a node of size %s has is not known", f.Pool, size.Name)
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
		n.Status.Capacity = room.DeepCopy()
		n.Status.Allocatable = withoutDaemons(room, s.Objects.DaemonSets, n)
		n.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}}
		out = append(out, n)
	}
	return out, size.OnDemandUSDPerHour, nil
}

// withoutDaemons is a node's room less what the DaemonSets that select it ask.
func withoutDaemons(room corev1.ResourceList, sets []*appsv1.DaemonSet, n *corev1.Node) corev1.ResourceList {
	left := room.DeepCopy()
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

// Homeless is how many pods have no place.
func (m *MoveReport) Homeless() int { return m.Plan.Summary.Refused + m.Plan.Summary.Deferred }

// WriteTable prints the move for a person.
func (m *MoveReport) WriteTable(w io.Writer) error {
	r := m.Plan
	tw := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
	if len(m.Gone) > 0 {
		fmt.Fprintln(tw, "NODE THAT GOES\tSIZE\tCAPACITY\t$/H\tPODS")
		for _, g := range m.Gone {
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

// Sentence is the outcome in words.
func (m *MoveReport) Sentence() string {
	var b strings.Builder
	fmt.Fprintf(&b, "now $%.4f per hour, afterwards $%.4f%s: %s, %s", m.BeforeUSDPerHour, m.AfterUSDPerHour, percent(m.AfterUSDPerHour, m.BeforeUSDPerHour),
		count(len(m.Gone), "node")+" of "+strconv.Itoa(len(m.Gone)+m.Stay)+" would go", count(len(m.Plan.Machines), "machine")+" would be bought")
	if n := m.Homeless(); n > 0 {
		fmt.Fprintf(&b, "; %s would have no place", count(n, "pod"))
	}
	return b.String()
}
