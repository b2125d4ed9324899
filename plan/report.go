// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"sort"
	"strings"
	"text/tabwriter"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/nap-aks/nap/engine"
)

// ReportVersion is the version of the JSON schema of Report. It changes when a
// field is removed or changes its meaning, not when one is added.
const ReportVersion = 1

// Report is the output of nap plan -o json, described in docs/plan.md.
type Report struct {
	Version    int         `json:"version"`
	Engine     string      `json:"engine"` // nap or karpenter
	Region     string      `json:"region,omitempty"`
	Time       time.Time   `json:"time"`
	Summary    Summary     `json:"summary"`
	Machines   []Machine   `json:"machines"`
	Placements []Placement `json:"placements"`
	Refused    []Refusal   `json:"refused"`
	Relaxed    []Relaxed   `json:"relaxed,omitempty"`
	Notes      []string    `json:"notes,omitempty"`

	workload map[string]string // by pod; for the table
}

// Summary has the totals of a plan.
type Summary struct {
	Pods            int      `json:"pods"`       // to place
	OnNodes         int      `json:"onNodes"`    // on existing and in-flight nodes
	OnMachines      int      `json:"onMachines"` // on machines to create
	Refused         int      `json:"refused"`
	Deferred        int      `json:"deferred"` // need a feature the engine leaves to another scheduler
	Machines        int      `json:"machines"`
	USDPerHour      float64  `json:"usdPerHour"`                // of the machines
	QuickUSDPerHour float64  `json:"quickUSDPerHour,omitempty"` // cost of the quick path alone
	BoundUSDPerHour float64  `json:"boundUSDPerHour,omitempty"` // proven: no placement costs less
	BoundKind       string   `json:"boundKind,omitempty"`
	Gap             *float64 `json:"gap,omitempty"` // cost/bound − 1
	ReadSeconds     float64  `json:"readSeconds"`   // translating the cluster
	PlanSeconds     float64  `json:"planSeconds"`   // deciding
}

// Machine is a machine to create.
type Machine struct {
	NodePool         string           `json:"nodePool"`
	Size             string           `json:"size"`
	Zone             string           `json:"zone,omitempty"`
	CapacityType     string           `json:"capacityType"`
	USDPerHour       float64          `json:"usdPerHour"`
	Pods             []string         `json:"pods"`
	Requests         engine.Resources `json:"requests"` // millicores, bytes, units; nap includes DaemonSets
	Alternatives     []Offering       `json:"alternatives,omitempty"`
	AlternativeCount int              `json:"alternativeCount"`
}

// Offering is a size, zone and capacity type in which a machine can be bought.
type Offering struct {
	Size         string  `json:"size"`
	Zone         string  `json:"zone,omitempty"`
	CapacityType string  `json:"capacityType"`
	USDPerHour   float64 `json:"usdPerHour"`
}

// Placement lists pods placed on an existing or in-flight node.
type Placement struct {
	Node string   `json:"node"`
	Pods []string `json:"pods"`
}

// Refusal lists pods without a place for the same reason.
type Refusal struct {
	Pods   []string `json:"pods"`
	Code   string   `json:"code,omitempty"`
	Reason string   `json:"reason"`
}

// Relaxed lists pods placed after relaxing the same preferences.
type Relaxed struct {
	Pods        []string `json:"pods"`
	Preferences []string `json:"preferences"`
}

// Comparison is the output of nap plan --compare -o json.
type Comparison struct {
	Version   int     `json:"version"`
	Nap       *Report `json:"nap"`
	Karpenter *Report `json:"karpenter"`
}

func (r *Report) refuse(pods []string, code, reason string) {
	for i := range r.Refused {
		if r.Refused[i].Code == code && r.Refused[i].Reason == reason {
			r.Refused[i].Pods = append(r.Refused[i].Pods, pods...)
			return
		}
	}
	r.Refused = append(r.Refused, Refusal{Pods: append([]string(nil), pods...), Code: code, Reason: reason})
}

func (r *Report) relax(pods, preferences []string) {
	key := strings.Join(preferences, "\x00")
	for i := range r.Relaxed {
		if strings.Join(r.Relaxed[i].Preferences, "\x00") == key {
			r.Relaxed[i].Pods = append(r.Relaxed[i].Pods, pods...)
			return
		}
	}
	r.Relaxed = append(r.Relaxed, Relaxed{Pods: append([]string(nil), pods...), Preferences: preferences})
}

// workloads records the owner of each pod, so that tables show "web × 12".
func (r *Report) workloads(pods map[string]*corev1.Pod) {
	r.workload = make(map[string]string, len(pods))
	for k, p := range pods {
		r.workload[k] = k
		o := metav1.GetControllerOfNoCopy(p)
		if o == nil {
			continue
		}
		name := o.Name
		if h := p.Labels[appsv1.DefaultDeploymentUniqueLabelKey]; h != "" && o.Kind == "ReplicaSet" {
			name = strings.TrimSuffix(name, "-"+h)
		}
		r.workload[k] = p.Namespace + "/" + name
	}
}

// finish sorts the report and computes the totals.
func (r *Report) finish() {
	sort.SliceStable(r.Machines, func(i, j int) bool {
		a, b := &r.Machines[i], &r.Machines[j]
		if a.USDPerHour != b.USDPerHour {
			return a.USDPerHour > b.USDPerHour
		}
		if a.Size != b.Size {
			return a.Size < b.Size
		}
		if a.Zone != b.Zone {
			return a.Zone < b.Zone
		}
		return strings.Join(a.Pods, ",") < strings.Join(b.Pods, ",")
	})
	sort.SliceStable(r.Placements, func(i, j int) bool { return r.Placements[i].Node < r.Placements[j].Node })
	for i := range r.Refused {
		sort.Strings(r.Refused[i].Pods)
	}
	sort.SliceStable(r.Refused, func(i, j int) bool { return len(r.Refused[i].Pods) > len(r.Refused[j].Pods) })
	for i := range r.Relaxed {
		sort.Strings(r.Relaxed[i].Pods)
	}
	r.Summary.Machines = len(r.Machines)
	r.Summary.USDPerHour = 0
	for i := range r.Machines {
		r.Summary.USDPerHour += r.Machines[i].USDPerHour
	}
	// In JSON, empty lists are [] and not null.
	if r.Machines == nil {
		r.Machines = []Machine{}
	}
	if r.Placements == nil {
		r.Placements = []Placement{}
	}
	if r.Refused == nil {
		r.Refused = []Refusal{}
	}
}

// WriteJSON writes v as indented JSON.
func WriteJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return fmt.Errorf("writing JSON: %w", err)
	}
	return nil
}

// podList summarizes pods by workload: "shop/web × 12, shop/api × 3". A positive
// limit shortens the list.
func (r *Report) podList(pods []string, limit int) string {
	count := map[string]int{}
	var order []string
	for _, p := range pods {
		name := r.workload[p]
		if name == "" {
			name = p
		}
		if count[name] == 0 {
			order = append(order, name)
		}
		count[name]++
	}
	sort.SliceStable(order, func(i, j int) bool { return count[order[i]] > count[order[j]] })
	var parts []string
	for i, name := range order {
		if limit > 0 && i == limit && len(order) > limit+1 {
			parts = append(parts, fmt.Sprintf("and %d more", len(order)-i))
			break
		}
		if count[name] == 1 {
			parts = append(parts, name)
		} else {
			parts = append(parts, fmt.Sprintf("%s × %d", name, count[name]))
		}
	}
	return strings.Join(parts, ", ")
}

// WriteTable writes the plan as tables for a person.
func (r *Report) WriteTable(w io.Writer) error {
	tw := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
	if len(r.Machines) > 0 {
		fmt.Fprintln(tw, "MACHINES\tSIZE\tZONE\tCAPACITY\tNODEPOOL\t$/H\tPODS")
		for i := 0; i < len(r.Machines); {
			m := &r.Machines[i]
			pods := r.podList(m.Pods, 4)
			j := i + 1
			for j < len(r.Machines) && r.Machines[j].Size == m.Size && r.Machines[j].Zone == m.Zone && r.Machines[j].CapacityType == m.CapacityType &&
				r.Machines[j].NodePool == m.NodePool && r.podList(r.Machines[j].Pods, 4) == pods {
				j++
			}
			fmt.Fprintf(tw, "%d\t%s\t%s\t%s\t%s\t%.4f\t%s\n", j-i, m.Size, zoneName(m.Zone), m.CapacityType, m.NodePool, m.USDPerHour*float64(j-i), pods)
			i = j
		}
		fmt.Fprintln(tw)
	}
	if len(r.Placements) > 0 {
		fmt.Fprintln(tw, "NODE\tPODS PLACED ON IT")
		for _, p := range r.Placements {
			fmt.Fprintf(tw, "%s\t%s\n", p.Node, r.podList(p.Pods, 4))
		}
		fmt.Fprintln(tw)
	}
	if len(r.Refused) > 0 {
		fmt.Fprintln(tw, "NO PLACE FOR\tBECAUSE")
		for _, v := range r.Refused {
			fmt.Fprintf(tw, "%s\t%s\n", r.podList(v.Pods, 3), v.Reason)
		}
		fmt.Fprintln(tw)
	}
	if len(r.Relaxed) > 0 {
		fmt.Fprintln(tw, "RELAXED PREFERENCE\tFOR")
		for _, v := range r.Relaxed {
			fmt.Fprintf(tw, "%s\t%s\n", strings.Join(v.Preferences, "; "), r.podList(v.Pods, 3))
		}
		fmt.Fprintln(tw)
	}
	if err := tw.Flush(); err != nil {
		return fmt.Errorf("writing the plan: %w", err)
	}
	for _, n := range r.Notes {
		if _, err := fmt.Fprintln(w, "note:", n); err != nil {
			return fmt.Errorf("writing the plan: %w", err)
		}
	}
	_, err := fmt.Fprintln(w, r.Summary.sentence())
	return err
}

func zoneName(z string) string {
	if z == "0" || z == "" {
		return "regional"
	}
	return z
}

func (s *Summary) sentence() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %d on existing nodes, %s on %s, %d refused", count(s.Pods, "pod"), s.OnNodes, fmt.Sprint(s.OnMachines), count(s.Machines, "new machine"), s.Refused)
	if s.Deferred > 0 {
		fmt.Fprintf(&b, ", %d deferred to another scheduler", s.Deferred)
	}
	fmt.Fprintf(&b, "\n$%.4f per hour", s.USDPerHour)
	if s.Gap != nil && s.BoundUSDPerHour > 0 {
		fmt.Fprintf(&b, "; no placement costs less than $%.4f (%s bound): at most %.1f%% above the best possible", s.BoundUSDPerHour, s.BoundKind, 100**s.Gap)
	}
	fmt.Fprintf(&b, "\nread in %s, planned in %s", seconds(s.ReadSeconds), seconds(s.PlanSeconds))
	return b.String()
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

func seconds(s float64) string {
	return time.Duration(s * float64(time.Second)).Round(10 * time.Microsecond).String()
}

// WriteTable writes both plans side by side.
func (c *Comparison) WriteTable(w io.Writer) error {
	tw := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
	n, k := &c.Nap.Summary, &c.Karpenter.Summary
	fmt.Fprintln(tw, "\tNAP\tKARPENTER")
	row := func(name string, a, b any) { fmt.Fprintf(tw, "%s\t%v\t%v\n", name, a, b) }
	row("pods to place", n.Pods, k.Pods)
	row("on existing nodes", n.OnNodes, k.OnNodes)
	row("on new machines", n.OnMachines, k.OnMachines)
	row("refused", n.Refused+n.Deferred, k.Refused)
	row("machines", n.Machines, k.Machines)
	row("$ per hour", fmt.Sprintf("%.4f", n.USDPerHour), fmt.Sprintf("%.4f%s", k.USDPerHour, percent(k.USDPerHour, n.USDPerHour)))
	if b := k.BoundUSDPerHour; b > 0 && n.Refused+n.Deferred == 0 {
		row("above the bound", percentOf(n.USDPerHour, b), percentOf(k.USDPerHour, b))
	} else if n.BoundUSDPerHour > 0 {
		row("above its own bound", percentOf(n.USDPerHour, n.BoundUSDPerHour), "")
	}
	row("time", seconds(n.PlanSeconds), fmt.Sprintf("%s%s", seconds(k.PlanSeconds), times(k.PlanSeconds, n.PlanSeconds)))
	fmt.Fprintln(tw)
	sizesN, sizesK := sizes(c.Nap), sizes(c.Karpenter)
	all := maps.Clone(sizesN)
	maps.Copy(all, sizesK)
	fmt.Fprintln(tw, "MACHINES\tNAP\tKARPENTER")
	for _, s := range slices.Sorted(maps.Keys(all)) {
		row(s, sizesN[s], sizesK[s])
	}
	if err := tw.Flush(); err != nil {
		return fmt.Errorf("writing the comparison: %w", err)
	}
	for _, list := range [][]string{c.Nap.Notes, c.Karpenter.Notes} {
		for _, note := range list {
			if _, err := fmt.Fprintln(w, "note:", note); err != nil {
				return fmt.Errorf("writing the comparison: %w", err)
			}
		}
	}
	return nil
}

func sizes(r *Report) map[string]int {
	out := map[string]int{}
	for i := range r.Machines {
		out[r.Machines[i].Size+" "+r.Machines[i].CapacityType]++
	}
	return out
}

func percent(v, base float64) string {
	if base <= 0 {
		return ""
	}
	return fmt.Sprintf(" (%+.1f%%)", 100*(v/base-1))
}

func percentOf(v, bound float64) string { return fmt.Sprintf("%.1f%%", 100*(v/bound-1)) }

func times(v, base float64) string {
	if base <= 0 {
		return ""
	}
	return fmt.Sprintf(" (%.0f times)", v/base)
}
