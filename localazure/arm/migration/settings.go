// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package migration

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"sigs.k8s.io/yaml"

	"github.com/nap-aks/nap/localazure/arm/rp"
)

// carried are the properties of a pool that the translation reads, or that do not
// concern its nodes. All others are noted if they are set: see lost.
var carried = map[string]bool{}

func init() {
	for _, k := range strings.Fields(`artifactStreamingProfile availabilityZones count currentOrchestratorVersion eTag enableAutoScaling
		enableEncryptionAtHost enableFIPS gpuProfile kubeletConfig linuxOSConfig localDNSProfile maxCount maxPods minCount mode name
		nodeImageVersion nodeInitializationTaints nodeLabels nodeTaints orchestratorVersion osDiskSizeGB osDiskType osSKU osType powerState provisioningState
		scaleSetPriority securityProfile status tags type upgradeSettings upgradeStrategy virtualMachineNodesStatus vmSize vnetSubnetID`) {
		carried[strings.ToLower(k)] = true
	}
}

// lost are the properties without a counterpart, with the text of the note and the
// values that mean unset.
var lost = map[string]struct {
	effect Effect
	unset  []string
	text   string
}{
	"capacityreservationgroupid": {Lost, nil, "machines are not taken from a capacity reservation group."},
	"creationdata":               {Lost, nil, "machines start from AKS's current node image, not from a snapshot."},
	"enablenodepublicip":         {Blocks, nil, "node auto-provisioning cannot be enabled while a pool gives its nodes public IP addresses."},
	"nodepublicipprefixid":       {Blocks, nil, "node auto-provisioning cannot be enabled while a pool gives its nodes public IP addresses."},
	"enableultrassd":             {Lost, nil, "ultra disks cannot be attached to machines."},
	"gatewayprofile":             {Lost, nil, "machines cannot be egress gateways; keep a pool for that."},
	"gpuinstanceprofile":         {Lost, []string{"None"}, "GPUs are not partitioned (MIG); each pod gets a whole one."},
	"hostgroupid":                {Lost, nil, "machines are not placed on dedicated hosts."},
	"kubeletdisktype":            {Lost, []string{"OS"}, "the kubelet's data is on the OS disk."},
	"messageoftheday":            {Lost, nil, "machines show AKS's message of the day."},
	"networkprofile":             {Lost, nil, "host ports are not opened and application security groups are not joined; add rules to the subnet's security group."},
	"nodecustomizationprofile":   {Lost, nil, "startup scripts are not run; use a DaemonSet with a startup taint."},
	"podipallocationmode":        {Lost, []string{"DynamicIndividual"}, "pods get their IP addresses as in the rest of the cluster."},
	"podsubnetid":                {Blocks, nil, "node auto-provisioning cannot be enabled with dynamic allocation of pod IPs; use overlay or node subnet networking."},
	"proximityplacementgroupid":  {Lost, nil, "machines are not placed in a proximity placement group."},
	"scaledownmode":              {Changed, []string{"Delete"}, "unneeded machines are deleted, not deallocated."},
	"scalesetevictionpolicy":     {Changed, []string{"Delete"}, "evicted spot machines are deleted and replaced, not deallocated."},
	"spotmaxprice":               {Lost, []string{"-1"}, "there is no maximum price; machines cost the current spot price, and the cheapest are chosen."},
	"upgradesettingsbluegreen":   {Lost, nil, "nodes are replaced one by one within the disruption budgets."},
	"virtualmachinesprofile":     {Changed, nil, "sizes follow the NodePool's requirements."},
	"windowsprofile":             {Lost, nil, "there are no Windows nodes."},
	"workloadruntime":            {Lost, []string{"OCIContainer"}, "nodes have the ordinary container runtime only."},
}

// rest notes the properties that are not translated.
func (t *translator) rest(d rp.Doc) {
	for _, k := range slices.Sorted(maps.Keys(d)) {
		lower, v := strings.ToLower(k), d[k]
		if carried[lower] || empty(v) {
			continue
		}
		l, known := lost[lower]
		if !known {
			t.note(Lost, k, v, "no counterpart is known.")
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
		t.note(Changed, "osDiskType", s, "the OS disk is ephemeral if the local disk is large enough.")
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

// profileSettings are the autoscaler's settings that are not carried over, with the
// text of the note if they are not at their default.
var profileSettings = map[string]struct {
	fallback string
	effect   Effect
	text     string
}{
	"balance-similar-node-groups":           {"false", Lost, "zones are chosen by price and by the pods' spread constraints; add topologySpreadConstraints to the workloads."},
	"daemonset-eviction-for-empty-nodes":    {"false", Lost, "DaemonSet pods are terminated with their node."},
	"daemonset-eviction-for-occupied-nodes": {"true", Lost, "DaemonSet pods are terminated with their node."},
	"ignore-daemonsets-utilization":         {"false", Lost, "a node is removed if its pods fit elsewhere at a lower price, whatever its utilization."},
	"max-graceful-termination-sec":          {"600", Changed, "pods have their own grace period, however long; spec.template.spec.terminationGracePeriod limits the drain of a node."},
	"max-node-provision-time":               {"15m", Changed, "a machine that has not registered as a node after 15 minutes is replaced."},
	"max-total-unready-percentage":          {"45", Lost, "provisioning continues; node repair stops while more than 20% of a NodePool is unhealthy."},
	"new-pod-scale-up-delay":                {"0s", Changed, "pods are batched for a few seconds before nodes are created."},
	"ok-total-unready-count":                {"3", Lost, "provisioning continues however many nodes are not ready."},
	"scale-down-delay-after-add":            {"10m", Changed, "disruption.consolidateAfter counts, per node, from the last pod added or removed."},
	"scale-down-delay-after-delete":         {"", Lost, "there is no delay after the removal of a node; budgets limit how many are removed at a time."},
	"scale-down-delay-after-failure":        {"3m", Lost, "there is no delay after a failed removal of a node."},
	"scale-down-unready-time":               {"20m", Changed, "unhealthy nodes are repaired after 10 minutes."},
	"scan-interval":                         {"10", Lost, "changes are handled as they occur, not at intervals."},
}

// profile translates the autoscaler's profile to the disruption settings of a
// NodePool, and notes the rest.
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
	for _, k := range slices.Sorted(maps.Keys(profileSettings)) {
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
			t.note(Lost, "expander", e, "the priorities in the ConfigMap kube-system/cluster-autoscaler-priority-expander cannot be read (%v): set spec.weight of the NodePools in their order; the highest comes first.", err)
			break
		}
		t.note(Changed, "expander", e, "the priorities become spec.weight of the NodePools, in the same order: the highest comes first. A pool that no pattern matches comes last.")
	case strings.Contains(e, "priority"):
		t.note(Lost, "expander", e, "the ConfigMap kube-system/cluster-autoscaler-priority-expander has no priorities; to set some, use spec.weight of the NodePools; the highest comes first.")
	default:
		t.note(Changed, "expander", e, "the cheapest machines that fit the pods are chosen.")
	}
	if v := get("scale-down-utilization-threshold", "0.5"); v != "0.5" && v != "0" {
		t.note(Changed, "scale-down-utilization-threshold", v, "a node is removed if its pods fit on others, or on a cheaper one, whatever its utilization.")
	}
	// By default the autoscaler does not drain nodes with such pods.
	if get("skip-nodes-with-local-storage", "true") == "true" {
		t.note(Changed, "skip-nodes-with-local-storage", "true", "nodes whose pods have an emptyDir are drained too. Annotate pods that must not be moved with karpenter.sh/do-not-disrupt.")
	}
	if get("skip-nodes-with-system-pods", "true") == "true" {
		t.note(Changed, "skip-nodes-with-system-pods", "true", "nodes with pods of kube-system are drained too, within their PodDisruptionBudgets.")
	}
	policy := "WhenEmptyOrUnderutilized"
	if get("scale-down-utilization-threshold", "0.5") == "0" {
		policy = "WhenEmpty" // as the autoscaler does
	}
	return map[string]any{
		"consolidationPolicy": policy,
		"consolidateAfter":    get("scale-down-unneeded-time", "10m"),
		// The autoscaler removes several empty nodes at a time, but drains one.
		"budgets": []any{
			map[string]any{"nodes": get("max-empty-bulk-delete", "10"), "reasons": []any{"Empty"}},
			map[string]any{"nodes": "1", "reasons": []any{"Underutilized", "Drifted"}},
		},
	}
}

// maxWeight is the maximum of spec.weight of a NodePool.
const maxWeight = 100

// priorities returns the weights of pools in the order of their priorities. Of
// several patterns that match a pool's scale set, the highest counts.
func (t *translator) priorities() (map[string]int, error) {
	var listed map[int][]string
	if err := yaml.Unmarshal([]byte(t.o.Priorities), &listed); err != nil {
		return nil, fmt.Errorf("decoding the priorities: %w", err)
	}
	of := map[string]int{}
	var levels []int
	for priority, patterns := range listed {
		for _, text := range patterns {
			re, err := regexp.Compile(text)
			if err != nil {
				return nil, fmt.Errorf("pattern %q: %w", text, err)
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
