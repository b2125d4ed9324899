package migration

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"sigs.k8s.io/yaml"

	"github.com/nap-aks/nap/localazure/arm/rp"
)

// carried are the properties of a pool that the translation reads, or that say
// nothing about its nodes. Whatever is not here, and set, is noted: see lost.
var carried = map[string]bool{}

func init() {
	for _, k := range strings.Fields(`artifactStreamingProfile availabilityZones count currentOrchestratorVersion eTag enableAutoScaling
		enableEncryptionAtHost enableFIPS gpuProfile kubeletConfig linuxOSConfig localDNSProfile maxCount maxPods minCount mode name
		nodeImageVersion nodeInitializationTaints nodeLabels nodeTaints orchestratorVersion osDiskSizeGB osDiskType osSKU osType powerState provisioningState
		scaleSetPriority securityProfile status tags type upgradeSettings upgradeStrategy virtualMachineNodesStatus vmSize vnetSubnetID`) {
		carried[strings.ToLower(k)] = true
	}
}

// lost are properties without a counterpart: what is said of each, and the
// values that mean it is not used.
var lost = map[string]struct {
	effect Effect
	unset  []string
	text   string
}{
	"capacityreservationgroupid": {Lost, nil, "machines are not taken from a capacity reservation group."},
	"creationdata":               {Lost, nil, "machines start from AKS's current node image, not from a snapshot."},
	"enablenodepublicip":         {Blocks, nil, "node auto-provisioning cannot be on while a pool gives its nodes public addresses."},
	"nodepublicipprefixid":       {Blocks, nil, "node auto-provisioning cannot be on while a pool gives its nodes public addresses."},
	"enableultrassd":             {Lost, nil, "ultra disks cannot be attached to the machines."},
	"gatewayprofile":             {Lost, nil, "machines are no gateway for egress; keep a pool for that."},
	"gpuinstanceprofile":         {Lost, []string{"None"}, "GPUs are not partitioned (MIG); each pod gets a whole one."},
	"hostgroupid":                {Lost, nil, "machines are not put on dedicated hosts."},
	"kubeletdisktype":            {Lost, []string{"OS"}, "the kubelet's data are on the OS disk."},
	"messageoftheday":            {Lost, nil, "machines show AKS's message."},
	"networkprofile":             {Lost, nil, "host ports are not opened and application security groups not joined; put rules on the subnet's security group."},
	"nodecustomizationprofile":   {Lost, nil, "start-up scripts are not run; use a DaemonSet with a start-up taint."},
	"podipallocationmode":        {Lost, []string{"DynamicIndividual"}, "pods get their addresses as in the rest of the cluster."},
	"podsubnetid":                {Blocks, nil, "node auto-provisioning cannot be on with dynamic allocation of pod IPs; use overlay or node subnet networking."},
	"proximityplacementgroupid":  {Lost, nil, "machines are not put into a proximity placement group."},
	"scaledownmode":              {Changed, []string{"Delete"}, "machines that are not needed are deleted, none is kept deallocated."},
	"scalesetevictionpolicy":     {Changed, []string{"Delete"}, "evicted spot machines are deleted and replaced, none is kept deallocated."},
	"spotmaxprice":               {Lost, []string{"-1"}, "there is no bid; machines are paid at the current spot price, and the cheapest are taken."},
	"upgradesettingsbluegreen":   {Lost, nil, "nodes are replaced one by one within the disruption budgets."},
	"virtualmachinesprofile":     {Changed, nil, "sizes are chosen by the NodePool's requirements."},
	"windowsprofile":             {Lost, nil, "there are no Windows nodes."},
	"workloadruntime":            {Lost, []string{"OCIContainer"}, "nodes have the ordinary container runtime only."},
}

// rest notes the properties that nothing else has dealt with.
func (t *translator) rest(d rp.Doc) {
	for _, k := range sortedKeys(d) {
		lower, v := strings.ToLower(k), d[k]
		if carried[lower] || empty(v) {
			continue
		}
		l, known := lost[lower]
		if !known {
			t.note(Lost, k, v, "nothing is known of a counterpart.")
			continue
		}
		used := true
		for _, u := range l.unset {
			used = used && !strings.EqualFold(u, brief(v))
		}
		if used {
			t.note(l.effect, k, v, "%s", l.text)
		}
	}
	if s := d.Str("osDiskType"); strings.EqualFold(s, "Managed") {
		t.note(Changed, "osDiskType", s, "the OS disk is ephemeral on machines whose local disk is large enough.")
	}
	if cur, asked := d.Str("currentOrchestratorVersion"), d.Str("orchestratorVersion"); cur != "" && asked != "" && !strings.HasPrefix(cur, asked) {
		t.note(Changed, "orchestratorVersion", asked, "nodes have the version of the control plane.")
	}
}

func empty(v any) bool {
	switch x := v.(type) {
	case nil:
		return true
	case string:
		return x == ""
	case bool:
		return !x
	case float64:
		return x == 0
	case int:
		return x == 0
	case []any:
		return len(x) == 0
	case map[string]any:
		for _, y := range x {
			if !empty(y) {
				return false
			}
		}
		return true
	}
	return false
}

// profileSettings are the autoscaler's settings that are not carried over: what
// is said when they are not at their default.
var profileSettings = map[string]struct {
	fallback string
	effect   Effect
	text     string
}{
	"balance-similar-node-groups":           {"false", Lost, "zones are chosen by price and by the pods' own spread constraints; give the workloads topologySpreadConstraints."},
	"daemonset-eviction-for-empty-nodes":    {"false", Lost, "DaemonSet pods are ended with their node."},
	"daemonset-eviction-for-occupied-nodes": {"true", Lost, "DaemonSet pods are ended with their node."},
	"ignore-daemonsets-utilization":         {"false", Lost, "nodes are judged by whether their pods fit elsewhere for less, not by utilization."},
	"max-graceful-termination-sec":          {"600", Changed, "pods have their own grace period, however long; spec.template.spec.terminationGracePeriod bounds the drain of a node."},
	"max-node-provision-time":               {"15m", Changed, "a machine that has not become a node after 15 minutes is replaced."},
	"max-total-unready-percentage":          {"45", Lost, "provisioning goes on; repair of nodes stops while more than a fifth of a NodePool is unhealthy."},
	"new-pod-scale-up-delay":                {"0s", Changed, "pods are gathered for a second or a few and then provided for."},
	"ok-total-unready-count":                {"3", Lost, "provisioning goes on however many nodes are not ready."},
	"scale-down-delay-after-add":            {"10m", Changed, "disruption.consolidateAfter is counted from the last pod that came or went, for each node."},
	"scale-down-delay-after-delete":         {"", Lost, "there is no pause after a node was removed; budgets bound how many go at a time."},
	"scale-down-delay-after-failure":        {"3m", Lost, "there is no pause after a node could not be removed."},
	"scale-down-unready-time":               {"20m", Changed, "unhealthy nodes are repaired after 10 minutes."},
	"scan-interval":                         {"10", Lost, "changes are acted upon as they come, not at intervals."},
}

// profile is what the autoscaler's profile means for the disruption of a
// NodePool; the rest of it is noted.
func (t *translator) profile() map[string]any {
	p := t.c.AutoScalerProfile
	if p == nil {
		p = rp.Doc{}
	}
	get := func(k, fallback string) string {
		v, ok := p.Lookup(k)
		if !ok || v == nil || v == "" {
			return fallback
		}
		return brief(v)
	}
	for _, k := range sortedKeys(profileSettings) {
		s := profileSettings[k]
		v := get(k, s.fallback)
		if k == "scale-down-delay-after-delete" && strings.TrimSuffix(v, "s") == strings.TrimSuffix(get("scan-interval", "10"), "s") {
			continue
		}
		if !strings.EqualFold(strings.TrimSuffix(v, "s"), strings.TrimSuffix(s.fallback, "s")) {
			t.note(s.effect, k, v, "%s", s.text)
		}
	}
	switch e := get("expander", "random"); {
	case e == "random":
	case strings.Contains(e, "priority") && t.o.Priorities != "":
		var err error
		if t.weights, err = t.priorities(); err != nil {
			t.note(Lost, "expander", e, "the priorities in the ConfigMap kube-system/cluster-autoscaler-priority-expander cannot be read (%v): give the NodePools spec.weight in their order, the higher comes first.", err)
			break
		}
		t.note(Changed, "expander", e, "the priorities are the NodePools' spec.weight, in the same order: the higher comes first. A pool that no pattern matches comes last.")
	case strings.Contains(e, "priority"):
		t.note(Lost, "expander", e, "there are no priorities in a ConfigMap kube-system/cluster-autoscaler-priority-expander; to have some, give the NodePools spec.weight, the higher comes first.")
	default:
		t.note(Changed, "expander", e, "the machines that hold the pods for the least money are taken.")
	}
	if v := get("scale-down-utilization-threshold", "0.5"); v != "0.5" && v != "0" {
		t.note(Changed, "scale-down-utilization-threshold", v, "a node goes when its pods fit on others, or on a cheaper one, however well it is used.")
	}
	// By default the autoscaler spares nodes with pods that a drain might hurt.
	if get("skip-nodes-with-local-storage", "true") == "true" {
		t.note(Changed, "skip-nodes-with-local-storage", "true", "nodes whose pods have an emptyDir are drained too. Pods that must not be moved get the annotation karpenter.sh/do-not-disrupt.")
	}
	if get("skip-nodes-with-system-pods", "true") == "true" {
		t.note(Changed, "skip-nodes-with-system-pods", "true", "nodes with pods of kube-system are drained too, within their PodDisruptionBudgets.")
	}
	policy := "WhenEmptyOrUnderutilized"
	if get("scale-down-utilization-threshold", "0.5") == "0" {
		policy = "WhenEmpty" // the autoscaler, too, would remove empty nodes only
	}
	return map[string]any{
		"consolidationPolicy": policy,
		"consolidateAfter":    get("scale-down-unneeded-time", "10m"),
		// The autoscaler removes some empty nodes at a time, but drains one.
		"budgets": []any{
			map[string]any{"nodes": get("max-empty-bulk-delete", "10"), "reasons": []any{"Empty"}},
			map[string]any{"nodes": "1", "reasons": []any{"Underutilized", "Drifted"}},
		},
	}
}

// maxWeight is the most that spec.weight of a NodePool can be.
const maxWeight = 100

// priorities gives pools weights in the order of the priorities that the
// patterns for their scale sets have; of several that match the highest counts.
func (t *translator) priorities() (map[string]int, error) {
	var listed map[int][]string
	if err := yaml.Unmarshal([]byte(t.o.Priorities), &listed); err != nil {
		return nil, fmt.Errorf("not a map of priorities and patterns: %w", err)
	}
	of := map[string]int{}
	var levels []int
	for priority, patterns := range listed {
		for _, text := range patterns {
			re, err := regexp.Compile(text)
			if err != nil {
				return nil, fmt.Errorf("the pattern %q: %w", text, err)
			}
			for _, p := range t.c.Pools {
				name := p.Name
				if t.o.ScaleSet != nil {
					name = t.o.ScaleSet(name)
				}
				if have, ok := of[p.Name]; re.MatchString(name) && (!ok || have < priority) {
					of[p.Name] = priority
				}
			}
		}
	}
	for _, priority := range of {
		if !slices.Contains(levels, priority) {
			levels = append(levels, priority)
		}
	}
	slices.Sort(levels)
	step := max(1, min(10, maxWeight/max(1, len(levels))))
	out := map[string]int{}
	for pool, priority := range of {
		out[pool] = min(maxWeight, step*(1+slices.Index(levels, priority)))
	}
	return out, nil
}
