// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

// Package migration translates agent pools under the cluster autoscaler to
// NodePools and AKSNodeClasses of node auto-provisioning, and notes the settings
// without a counterpart.
//
// In: the documents of the pools and of the autoscaler's profile, as ARM stores
// them. Out: a Proposal, which a user can read, edit and send back. The translation
// is a function of its input: it calls neither a cluster nor a cloud.
package migration

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"github.com/nap-aks/nap/apis/v1beta1"
	"github.com/nap-aks/nap/catalog"
	"github.com/nap-aks/nap/localazure/arm/rp"
)

// Effect is what happens to a setting.
type Effect string

// The effects, the worst first.
const (
	// Blocks: node auto-provisioning cannot be enabled with this setting.
	Blocks Effect = "Blocks"
	// Lost: there is no counterpart.
	Lost Effect = "Lost"
	// Changed: something similar, or the default, replaces it.
	Changed Effect = "Changed"
)

// Note is a setting that is not carried over unchanged.
type Note struct {
	// Pool is empty for a setting of the autoscaler's profile.
	Pool string `json:"pool,omitempty"`
	// Setting is the property's name in ARM, Value its value.
	Setting string `json:"setting"`
	Value   string `json:"value,omitempty"`
	Effect  Effect `json:"effect"`
	// Text says what happens to it and what the user can do.
	Text string `json:"text"`
}

// Pool is an agent pool: its name and the "properties" of its ARM document.
type Pool struct {
	Name       string
	Properties rp.Doc
}

// Cluster is the cluster to migrate.
type Cluster struct {
	// Location is the region's name, such as eastus.
	Location string
	// AutoScalerProfile is the cluster's autoScalerProfile; nil if it has none.
	AutoScalerProfile rp.Doc
	Pools             []Pool
}

// Options are the options of a translation.
type Options struct {
	// Pools are the pools to replace; empty: the user pools with the autoscaler.
	Pools []string
	// Priorities are the data "priorities" of the ConfigMap of the autoscaler's
	// priority expander; empty if there are none or they are unknown.
	Priorities string
	// ScaleSet returns the name of a pool's scale set, which the patterns of the
	// priorities match; nil: the pool's name.
	ScaleSet func(pool string) string
	// KeepSizes restricts each NodePool to the pool's size, rather than its family.
	KeepSizes bool
}

// Replacement is what replaces one pool.
type Replacement struct {
	// Pool is the name of the pool, the NodePool and the AKSNodeClass.
	Pool string
	// Summary describes the pool in a few words.
	Summary   string
	NodePool  map[string]any
	NodeClass map[string]any
}

// Proposal is the result of a translation.
type Proposal struct {
	Replacements []Replacement
	Notes        []Note
}

// Pools returns the names of the pools that are replaced.
func (p *Proposal) Pools() []string {
	out := make([]string, 0, len(p.Replacements))
	for _, r := range p.Replacements {
		out = append(out, r.Pool)
	}
	return out
}

// Blocked returns the notes of effect Blocks.
func (p *Proposal) Blocked() []Note {
	var out []Note
	for _, n := range p.Notes {
		if n.Effect == Blocks {
			out = append(out, n)
		}
	}
	return out
}

// Objects returns the AKSNodeClasses and NodePools in the order of their
// creation.
func (p *Proposal) Objects() []map[string]any {
	var out []map[string]any
	for _, r := range p.Replacements {
		out = append(out, r.NodeClass, r.NodePool)
	}
	return out
}

// YAML returns the proposal as a file: each pool's NodePool and AKSNodeClass below a
// comment with the pool and its notes.
func (p *Proposal) YAML() (string, error) {
	var b strings.Builder
	first := true
	part := func(o map[string]any) error {
		y, err := yaml.Marshal(o)
		if err != nil {
			return fmt.Errorf("encoding %v %v: %w", o["kind"], o["metadata"], err)
		}
		b.Write(y)
		return nil
	}
	general := false
	for _, n := range p.Notes {
		if n.Pool == "" {
			if !general {
				b.WriteString("# Of the cluster autoscaler's profile:\n")
			}
			general = true
			b.WriteString(comment(n))
		}
	}
	if general {
		first = false
	}
	for _, r := range p.Replacements {
		if !first {
			b.WriteString("---\n")
		}
		first = false
		b.WriteString("# Pool " + r.Pool + ": " + r.Summary + ".\n")
		for _, n := range p.Notes {
			if n.Pool == r.Pool {
				b.WriteString(comment(n))
			}
		}
		if err := part(r.NodePool); err != nil {
			return "", err
		}
		b.WriteString("---\n")
		if err := part(r.NodeClass); err != nil {
			return "", err
		}
	}
	return b.String(), nil
}

func comment(n Note) string {
	return "# - " + n.String() + "\n"
}

// String returns the note as a line of text.
func (n Note) String() string {
	head := n.Setting
	if n.Value != "" {
		head += " (" + n.Value + ")"
	}
	return head + " " + map[Effect]string{Blocks: "blocks the migration", Lost: "is lost", Changed: "changes"}[n.Effect] + ": " + n.Text
}

// translator builds a proposal.
type translator struct {
	c    Cluster
	o    Options
	out  *Proposal
	pool string
	// weights are the NodePools' weights by pool, for the priority expander.
	weights map[string]int
}

func (t *translator) note(effect Effect, setting string, value any, format string, args ...any) {
	v := ""
	if value != nil {
		v = brief(value)
	}
	t.out.Notes = append(t.out.Notes, Note{Pool: t.pool, Setting: setting, Value: v, Effect: effect, Text: fmt.Sprintf(format, args...)})
}

// brief returns a value as a short text: the name of a resource ID, at most 60
// characters of JSON.
func brief(v any) string {
	if s, ok := v.(string); ok {
		if strings.HasPrefix(s, "/subscriptions/") {
			return s[strings.LastIndexByte(s, '/')+1:]
		}
		return s
	}
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Sprint(v)
	}
	if len(b) > 60 {
		return string(b[:57]) + "..."
	}
	return string(b)
}

// Translate returns a proposal. It fails if a requested pool does not exist or
// cannot be replaced, or if its size is not in the catalog.
func Translate(c Cluster, o Options) (*Proposal, error) {
	t := &translator{c: c, o: o, out: &Proposal{}}
	names, asked := map[string]bool{}, map[string]bool{}
	for _, p := range c.Pools {
		names[p.Name] = true
	}
	for _, n := range o.Pools {
		if !names[n] {
			return nil, fmt.Errorf("the cluster has no agent pool %q", n)
		}
		asked[n] = true
	}
	pools := append([]Pool(nil), c.Pools...)
	slices.SortStableFunc(pools, func(a, b Pool) int { return strings.Compare(a.Name, b.Name) })
	disruption := t.profile()
	for _, p := range pools {
		t.pool = p.Name
		d := p.Properties
		mode, autoscaled := d.Str("mode"), d.Bool("enableAutoScaling")
		switch {
		case strings.EqualFold(d.Str("osType"), "Windows"):
			t.note(Blocks, "osType", d.Str("osType"), "node auto-provisioning creates Linux nodes only and cannot be enabled in a cluster with a Windows pool. Move its pods to another cluster and delete the pool.")
			continue
		case !strings.EqualFold(mode, "User"):
			if asked[p.Name] {
				return nil, fmt.Errorf("agent pool %q is of mode %s and stays: only user pools can be replaced", p.Name, mode)
			}
			if autoscaled {
				n, _ := d.Int("count")
				t.note(Changed, "enableAutoScaling", true, "the pool stays, with its %d nodes; the critical addons run on it. Pods that do not fit there and do not select it get nodes of node auto-provisioning.", n)
			}
			continue
		case len(asked) > 0 && !asked[p.Name] || len(asked) == 0 && !autoscaled:
			if autoscaled {
				t.note(Changed, "enableAutoScaling", true, "the pool was not chosen: it stays, with its nodes, and is no longer scaled.")
			}
			continue
		}
		r, err := t.replace(p, disruption)
		if err != nil {
			return nil, err
		}
		t.out.Replacements = append(t.out.Replacements, r)
	}
	return t.out, nil
}

// in returns a requirement with operator In.
func in(key string, values ...string) map[string]any {
	vs := make([]any, len(values))
	for i, v := range values {
		vs[i] = v
	}
	return map[string]any{"key": key, "operator": "In", "values": vs}
}

func (t *translator) replace(p Pool, disruption map[string]any) (Replacement, error) {
	d := p.Properties
	size, err := catalog.Lookup(t.c.Location, d.Str("vmSize"))
	if err != nil {
		return Replacement{}, fmt.Errorf("agent pool %s: %w", p.Name, err)
	}
	spot := strings.EqualFold(d.Str("scaleSetPriority"), "Spot")
	capacity := "on-demand"
	if spot {
		capacity = "spot"
	}
	requirements := []any{in("kubernetes.io/arch", size.Arch), in("kubernetes.io/os", "linux"), in("karpenter.sh/capacity-type", capacity)}
	switch {
	case t.o.KeepSizes:
		requirements = append(requirements, in(v1beta1.LabelSKUName, size.Name))
	case size.GPUs > 0:
		requirements = append(requirements, in(v1beta1.LabelSKUName, size.Name))
		t.note(Changed, "vmSize", size.Name, "the size is kept, as pods that use GPUs depend on the model. Add others to the requirement %s if they are suitable.", v1beta1.LabelSKUName)
	default:
		requirements = append(requirements, in(v1beta1.LabelSKUFamily, size.Family[:1]))
		if size.PremiumIO {
			requirements = append(requirements, in(v1beta1.LabelSKUStoragePremiumCapable, "true"))
		}
	}
	if zones := d.Strings("availabilityZones"); len(zones) > 0 {
		var labels []string
		for _, z := range zones {
			labels = append(labels, t.c.Location+"-"+z)
		}
		requirements = append(requirements, in("topology.kubernetes.io/zone", labels...))
	}
	spec := map[string]any{
		"nodeClassRef": map[string]any{"group": v1beta1.Group, "kind": "AKSNodeClass", "name": p.Name},
		"requirements": requirements, "expireAfter": "Never",
	}
	taints := t.taints(d.Strings("nodeTaints"))
	if spot {
		// AKS adds this taint to spot pools; node auto-provisioning does not.
		taints = append(taints, map[string]any{"key": v1beta1.AKSLabelScaleSetPriority, "value": "spot", "effect": "NoSchedule"})
	}
	if len(taints) > 0 {
		spec["taints"] = taints
	}
	if startup := t.taints(d.Strings("nodeInitializationTaints")); len(startup) > 0 {
		spec["startupTaints"] = startup
	}
	template := map[string]any{"spec": spec}
	if labels := t.labels(d.Map("nodeLabels")); len(labels) > 0 {
		template["metadata"] = map[string]any{"labels": labels}
	}
	lo, _ := d.Int("minCount")
	hi, _ := d.Int("maxCount")
	count, _ := d.Int("count")
	scale := fmt.Sprintf("%d nodes", count)
	if d.Bool("enableAutoScaling") {
		scale = fmt.Sprintf("%d to %d nodes (now %d)", lo, hi, count)
		if lo > 0 {
			t.note(Changed, "minCount", lo, "nodes exist only while pods need them. To keep spare capacity, run placeholder pods of low priority, or keep a small pool.")
		}
	} else {
		hi = count
		t.note(Changed, "count", count, "the NodePool is limited to what the pool has now; raise spec.limits to let it grow.")
	}
	cpu, memory := hi*size.VCPUsAvailable, int(float64(hi)*size.MemoryGiB)
	np := map[string]any{"template": template, "disruption": disruption, "limits": map[string]any{"cpu": strconv.Itoa(cpu), "memory": strconv.Itoa(memory) + "Gi"}}
	if w := t.weights[p.Name]; w > 0 {
		np["weight"] = w
	}
	if spot {
		scale += " of Spot"
	}
	summary := scale + ", " + size.Name
	if zones := d.Strings("availabilityZones"); len(zones) > 0 {
		summary += ", zones " + strings.Join(zones, " ")
	}
	class, err := t.class(p)
	if err != nil {
		return Replacement{}, err
	}
	t.rest(d)
	meta := func() map[string]any {
		return map[string]any{"name": p.Name, "annotations": map[string]any{"kubernetes.io/description": "Replaces agent pool " + p.Name}}
	}
	return Replacement{Pool: p.Name, Summary: summary,
		NodePool:  map[string]any{"apiVersion": "karpenter.sh/v1", "kind": "NodePool", "metadata": meta(), "spec": np},
		NodeClass: map[string]any{"apiVersion": v1beta1.Group + "/v1beta1", "kind": "AKSNodeClass", "metadata": meta(), "spec": class},
	}, nil
}

// taints parses taints of the form key=value:effect, which ARM has validated.
func (t *translator) taints(texts []string) []any {
	var out []any
	for _, s := range texts {
		i := strings.LastIndexByte(s, ':')
		if i < 0 {
			continue
		}
		key, value, has := strings.Cut(s[:i], "=")
		m := map[string]any{"key": key, "effect": s[i+1:]}
		if has && value != "" {
			m["value"] = value
		}
		out = append(out, m)
	}
	return out
}

// ownLabels are the keys of kubernetes.azure.com that a NodePool may set.
var ownLabels = map[string]bool{
	v1beta1.AKSLabelMode: true, v1beta1.AKSLabelScaleSetPriority: true, v1beta1.AKSLabelPriority: true, v1beta1.AKSLabelFIPSEnabled: true,
	v1beta1.AKSLabelOSSKU: true, v1beta1.AKSLabelCluster: true, v1beta1.AKSLabelSKUCPU: true, v1beta1.AKSLabelSKUMemory: true,
}

// labelRefused returns why a NodePool cannot set a label; empty if it can.
func labelRefused(key string) string {
	domain, _, has := strings.Cut(key, "/")
	if !has {
		switch key {
		case "agentpool", "storageprofile", "storagetier", "accelerator":
			return "AKS sets the label itself"
		}
		return ""
	}
	switch {
	case ownLabels[key]:
		return ""
	case domain == v1beta1.AKSLabelDomain || strings.HasSuffix(domain, "."+v1beta1.AKSLabelDomain), domain == v1beta1.Group, domain == "karpenter.sh":
		return "labels of the domain " + domain + " are AKS's and Karpenter's own"
	case key == "kubernetes.io/hostname", key == "node.kubernetes.io/instance-type", strings.HasPrefix(key, "topology.kubernetes.io/"), strings.HasPrefix(key, "failure-domain.beta.kubernetes.io/"):
		return "its value differs per node"
	}
	return ""
}

func (t *translator) labels(labels rp.Doc) map[string]any {
	out := map[string]any{}
	for _, k := range slices.Sorted(maps.Keys(labels)) {
		if why := labelRefused(k); why != "" {
			t.note(Lost, "nodeLabels", k, "%s, so the NodePool cannot set it. Pods that select nodes by it no longer fit any: add a label of your own to the NodePool and select by that.", why)
			continue
		}
		out[k] = labels[k]
	}
	return out
}

// class returns the spec of the AKSNodeClass: the settings that are not defaults.
func (t *translator) class(p Pool) (map[string]any, error) {
	d := p.Properties
	var s v1beta1.AKSNodeClassSpec
	if n, ok := d.Int("osDiskSizeGB"); ok && n > 0 {
		s.OSDiskSizeGB = ptr(int32(n))
	}
	family := v1beta1.ImageFamilyUbuntu
	switch sku := d.Str("osSKU"); sku {
	case "", "Ubuntu":
	case "Ubuntu2204", "Ubuntu2404", "AzureLinux":
		family = sku
	case "AzureLinux3", "Mariner", "CBLMariner":
		family = "AzureLinux"
		t.note(Changed, "osSKU", sku, "the NodePool uses AzureLinux.")
	default:
		t.note(Lost, "osSKU", sku, "node auto-provisioning supports Ubuntu and Azure Linux; the NodePool uses Ubuntu.")
	}
	s.ImageFamily = &family
	if n, ok := d.Int("maxPods"); ok && n > 0 {
		s.MaxPods = ptr(int32(n))
	}
	if v := d.Str("vnetSubnetID"); v != "" {
		s.VNETSubnetID = &v
	}
	if d.Bool("enableFIPS") {
		s.FIPSMode = ptr("FIPS")
	}
	for k, v := range d.Map("tags") {
		if s.Tags == nil {
			s.Tags = map[string]string{}
		}
		s.Tags[k] = fmt.Sprint(v)
	}
	host, vtpm, boot := d.Bool("enableEncryptionAtHost"), d.Bool("securityProfile", "enableVTPM"), d.Bool("securityProfile", "enableSecureBoot")
	if host || vtpm || boot {
		s.Security = &v1beta1.Security{}
		if host {
			s.Security.EncryptionAtHost = ptr(true)
		}
		if vtpm || boot {
			s.Security.TrustedLaunch = &v1beta1.TrustedLaunch{VTPM: ptr(vtpm), SecureBoot: ptr(boot)}
		}
	}
	if d.Bool("artifactStreamingProfile", "enabled") {
		s.ArtifactStreaming = &v1beta1.ArtifactStreaming{Enabled: ptr(true)}
	}
	if strings.EqualFold(d.Str("gpuProfile", "driver"), "None") {
		s.GPU = &v1beta1.GPU{Mode: ptr("None")}
	}
	if k := d.Map("kubeletConfig"); len(k) > 0 {
		kc, err := t.kubelet(k)
		if err != nil {
			return nil, fmt.Errorf("agent pool %s: kubeletConfig: %w", p.Name, err)
		}
		s.Kubelet = kc
	}
	if l := d.Map("linuxOSConfig"); len(l) > 0 {
		lc := &v1beta1.LinuxOSConfiguration{}
		if n, ok := l.Int("swapFileSizeMB"); ok && n > 0 {
			lc.SwapFileSize = ptr(strconv.Itoa(n) + "Mi")
		}
		for path, to := range map[string]**string{"transparentHugePageEnabled": &lc.TransparentHugePageEnabled, "transparentHugePageDefrag": &lc.TransparentHugePageDefrag} {
			if v := l.Str(path); v != "" {
				*to = ptr(v)
			}
		}
		if sys := l.Map("sysctls"); len(sys) > 0 {
			lc.Sysctls = &v1beta1.SysctlConfiguration{}
			// The names in ARM and in the class differ only in their casing.
			if err := sys.Into(lc.Sysctls); err != nil {
				return nil, fmt.Errorf("agent pool %s: linuxOSConfig.sysctls: %w", p.Name, err)
			}
		}
		s.LinuxOSConfig = lc
	}
	if l := d.Map("localDNSProfile"); len(l) > 0 {
		s.LocalDNS = localDNS(l)
	}
	doc, err := rp.ToDoc(s)
	return doc, err
}

func ptr[T any](v T) *T { return &v }

func (t *translator) kubelet(k rp.Doc) (*v1beta1.KubeletConfiguration, error) {
	out := &v1beta1.KubeletConfiguration{}
	if err := k.Into(out); err != nil { // cpuManagerPolicy, topologyManagerPolicy, cpuCfsQuota, failSwapOn, allowedUnsafeSysctls, containerLogMaxFiles
		return nil, err
	}
	// These have other names or units.
	if v := k.Str("cpuCfsQuotaPeriod"); v != "" {
		var d metav1.Duration
		if err := d.UnmarshalJSON([]byte(strconv.Quote(v))); err != nil {
			return nil, fmt.Errorf("cpuCfsQuotaPeriod: %w", err)
		}
		out.CPUCFSQuotaPeriod = &d
	}
	if n, ok := k.Int("imageGcHighThreshold"); ok {
		out.ImageGCHighThresholdPercent = ptr(int32(n))
	}
	if n, ok := k.Int("imageGcLowThreshold"); ok {
		out.ImageGCLowThresholdPercent = ptr(int32(n))
	}
	if n, ok := k.Int("containerLogMaxSizeMB"); ok {
		out.ContainerLogMaxSize = ptr(strconv.Itoa(n) + "Mi")
	}
	if n, ok := k.Int("podMaxPids"); ok {
		out.PodPidsLimit = ptr(int64(n))
	}
	if v := k.Str("seccompDefault"); v != "" && !strings.EqualFold(v, "Unconfined") {
		t.note(Lost, "kubeletConfig.seccompDefault", v, "set the seccomp profile in the pods' security contexts.")
	}
	return out, nil
}

func localDNS(l rp.Doc) *v1beta1.LocalDNS {
	zones := func(m rp.Doc) []v1beta1.LocalDNSZoneOverride {
		out := []v1beta1.LocalDNSZoneOverride{}
		for _, z := range slices.Sorted(maps.Keys(m)) {
			o := m.Map(z)
			seconds := func(k string) string { n, _ := o.Int(k); return strconv.Itoa(n) + "s" }
			max, _ := o.Int("maxConcurrent")
			out = append(out, v1beta1.LocalDNSZoneOverride{Zone: z, QueryLogging: o.Str("queryLogging"), Protocol: o.Str("protocol"), ForwardDestination: o.Str("forwardDestination"), ForwardPolicy: o.Str("forwardPolicy"),
				MaxConcurrent: int32(max), CacheDuration: seconds("cacheDurationInSeconds"), ServeStaleDuration: seconds("serveStaleDurationInSeconds"), ServeStale: o.Str("serveStale")})
		}
		return out
	}
	return &v1beta1.LocalDNS{Mode: l.Str("mode"), VnetDNSOverrides: zones(l.Map("vnetDNSOverrides")), KubeDNSOverrides: zones(l.Map("kubeDNSOverrides"))}
}
