// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package arm_test

import (
	"context"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nap-aks/nap/localazure/arm/armtest"
	"github.com/nap-aks/nap/localazure/intent"
)

// fixedPools is a cluster of version 1.35.6 with a system pool of one node and a
// user pool. Drains fail on the nodes that are blocked.
type fixedPools struct {
	*armtest.Azure
	m       *armtest.Machinery
	mu      sync.Mutex
	blocked map[string]bool
	most    int // largest number of nodes of the pool at one time
	least   int // smallest number of nodes that were not being drained
}

const userPool = clusterID + "/agentPools/p"

func newFixedPools(t *testing.T, count int, settings map[string]any) *fixedPools {
	f := &fixedPools{Azure: armtest.New(t), blocked: map[string]bool{}, least: 1000}
	f.m = f.Machinery()
	f.m.Blocked = func(m intent.MachineIntent) string {
		f.mu.Lock()
		defer f.mu.Unlock()
		if f.blocked[short(m)] {
			return "eviction of pod shop/web-0 is refused: the budget says no"
		}
		return ""
	}
	newGroup(f.Azure)
	body := clusterBody("Manual")
	change(body, "properties.kubernetesVersion", "1.35.6")
	f.MustSucceed(f.Do("PUT", clusterID, body))
	f.MustSucceed(f.Do("PUT", userPool, map[string]any{"properties": map[string]any{"count": count, "vmSize": "Standard_D4s_v5", "upgradeSettings": settings}}))
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		for range f.Etcd.Watch(ctx, intent.MachineIntentPrefix, withPrefix) {
			list := f.intents()
			free := 0
			for _, m := range list {
				if m.Drain == nil {
					free++
				}
			}
			f.mu.Lock()
			f.most, f.least = max(f.most, len(list)), min(f.least, free)
			f.mu.Unlock()
		}
	})
	t.Cleanup(func() { cancel(); wg.Wait() })
	return f
}

// short returns the number of an instance, such as "00a".
func short(m intent.MachineIntent) string { return m.Name[len(m.Name)-3:] }

func (f *fixedPools) block(names ...string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	clear(f.blocked)
	for _, n := range names {
		f.blocked[n] = true
	}
}

func (f *fixedPools) intents() []intent.MachineIntent {
	all, _, err := intent.List[intent.MachineIntent](context.Background(), f.Etcd, intent.MachineIntentPrefix)
	if err != nil {
		f.T.Error(err)
	}
	return slices.DeleteFunc(all, func(m intent.MachineIntent) bool { return m.Pool != "p" })
}

// nodes returns the pool's instances as "number@version", with "!" for cordoned
// ones and "?" for quarantined ones.
func (f *fixedPools) nodes() []string {
	var out []string
	for _, m := range f.intents() {
		s := short(m) + "@" + m.KubernetesVersion
		if m.Drain != nil {
			s += "!"
		}
		if m.Labels["kubernetes.azure.com/upgrade-status"] == "Quarantined" {
			s += "?"
		}
		out = append(out, s)
	}
	slices.Sort(out)
	return out
}

func (f *fixedPools) expect(what string, want ...string) {
	f.T.Helper()
	if got := f.nodes(); !slices.Equal(got, want) {
		f.T.Errorf("%s: nodes %v, want %v", what, got, want)
	}
}

// fails waits for an operation to fail and returns its message.
func (f *fixedPools) fails(r armtest.Reply, code string) string {
	f.T.Helper()
	if r.Status >= 300 {
		f.T.Fatalf("status %d: %s", r.Status, r.Body)
	}
	end := f.Wait(r)
	if end.JSON["status"] != "Failed" || end.Code() != code {
		f.T.Fatalf("the operation ended as %s, want it to fail with %s", end.Body, code)
	}
	return end.Message()
}

func (f *fixedPools) state() string {
	p, _ := f.Do("GET", userPool, nil).JSON["properties"].(map[string]any)
	s, _ := p["provisioningState"].(string)
	return s
}

func (f *fixedPools) put(props map[string]any) armtest.Reply {
	return f.Do("PUT", userPool, map[string]any{"properties": props})
}

// upgrade upgrades the control plane to 1.36.3, then starts the pool's upgrade.
func (f *fixedPools) upgrade() armtest.Reply {
	f.T.Helper()
	f.MustSucceed(f.Do("PUT", clusterID, map[string]any{"location": "eastus", "properties": map[string]any{"kubernetesVersion": "1.36.3"}}))
	f.mu.Lock()
	f.most, f.least = 0, 1000
	f.mu.Unlock()
	return f.put(map[string]any{"orchestratorVersion": "1.36.3"})
}

// Nodes are drained before they are deleted; those that cannot be drained stay.
func TestScaleInDrainsNodes(t *testing.T) {
	f := newFixedPools(t, 4, nil)
	f.block("003")
	msg := f.fails(f.put(map[string]any{"count": 2}), "PodDrainFailure")
	for _, want := range []string{"vmss000003", "shop/web-0", "budget says no"} {
		if !strings.Contains(msg, want) {
			t.Errorf("the failure does not contain %q: %s", want, msg)
		}
	}
	// The other node is deleted, the blocked one uncordoned.
	f.expect("after the failure", "000@1.35.6", "001@1.35.6", "003@1.35.6")
	p, _ := f.Do("GET", userPool, nil).JSON["properties"].(map[string]any)
	if p["count"] != 3.0 || p["provisioningState"] != "Failed" {
		t.Errorf("count %v, state %v; want the actual 3 and Failed", p["count"], p["provisioningState"])
	}
	f.block()
	f.MustSucceed(f.put(map[string]any{"count": 2}))
	f.expect("repeated", "000@1.35.6", "001@1.35.6")
	// deleteMachines deletes the named machines only.
	f.MustSucceed(f.Do("POST", userPool+"/deleteMachines", map[string]any{"machineNames": []string{f.intents()[0].Name}}))
	f.expect("named", "001@1.35.6")
}

// A long drain shows in the state, survives a restart and can be aborted, which
// uncordons the node.
func TestScaleInCanBeAborted(t *testing.T) {
	f := newFixedPools(t, 2, nil)
	f.m.Hold(true)
	r := f.put(map[string]any{"count": 1})
	for i := 0; i < 3000 && !slices.Equal(f.nodes(), []string{"000@1.35.6", "001@1.35.6!"}); i++ {
		time.Sleep(20 * time.Millisecond)
	}
	f.expect("while it drains", "000@1.35.6", "001@1.35.6!")
	if s := f.state(); s != "Scaling" {
		t.Errorf("state %s, want Scaling", s)
	}
	f.Stop()
	f.Start()
	f.expect("after a restart", "000@1.35.6", "001@1.35.6!")
	f.MustSucceed(f.Do("POST", userPool+"/abort", nil))
	if end := f.Wait(r); end.JSON["status"] != "Canceled" {
		t.Errorf("the aborted operation ended as %s", end.Body)
	}
	f.expect("aborted", "000@1.35.6", "001@1.35.6")
	if s := f.state(); s != "Canceled" {
		t.Errorf("state %s, want Canceled", s)
	}
	f.m.Hold(false)
	f.MustSucceed(f.put(map[string]any{"count": 1}))
	f.expect("again", "000@1.35.6")
}

func TestPoolDeletionDrains(t *testing.T) {
	f := newFixedPools(t, 2, nil)
	f.block("000", "001")
	f.fails(f.Do("DELETE", userPool, nil), "PodDrainFailure")
	f.expect("refused", "000@1.35.6", "001@1.35.6")
	if s := f.state(); s != "Failed" {
		t.Errorf("state %s, want Failed", s)
	}
	if r := f.Do("DELETE", userPool+"?ignore-pod-disruption-budget=perhaps", nil); r.Status != 400 {
		t.Errorf("an invalid value: %d %s", r.Status, r.Body)
	}
	f.MustSucceed(f.Do("DELETE", userPool+"?ignore-pod-disruption-budget=true", nil))
	f.expect("ignoring budgets")
	if r := f.Do("GET", userPool, nil); r.Status != 404 {
		t.Errorf("GET of the deleted pool: %d", r.Status)
	}
}

func TestUpgradeSurges(t *testing.T) {
	for name, x := range map[string]struct {
		settings    map[string]any
		most, least int
	}{
		"one by one, the default": {nil, 5, 4},
		"half of them at a time":  {map[string]any{"maxSurge": "50%"}, 6, 4},
		"without surge":           {map[string]any{"maxSurge": "0", "maxUnavailable": "2"}, 4, 2},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixedPools(t, 4, x.settings)
			f.MustSucceed(f.upgrade())
			f.expect("upgraded", "000@1.36.3", "001@1.36.3", "002@1.36.3", "003@1.36.3")
			f.mu.Lock()
			defer f.mu.Unlock()
			if f.most > x.most || f.least < x.least {
				t.Errorf("there were up to %d nodes and as few as %d schedulable ones, want at most %d and at least %d", f.most, f.least, x.most, x.least)
			}
		})
	}
}

// If a node cannot be drained, it stays and the surge nodes are deleted (behaviour
// Schedule), or it is quarantined and replaced (Cordon).
func TestUndrainableNodes(t *testing.T) {
	t.Run("Schedule", func(t *testing.T) {
		f := newFixedPools(t, 3, nil)
		f.block("001")
		msg := f.fails(f.upgrade(), "PodDrainFailure")
		if !strings.Contains(msg, "vmss000001") {
			t.Errorf("the failure does not name the node: %s", msg)
		}
		f.expect("after the failure", "000@1.36.3", "001@1.35.6", "002@1.35.6")
		f.block()
		f.MustSucceed(f.put(map[string]any{"orchestratorVersion": "1.36.3"}))
		f.expect("repeated", "000@1.36.3", "001@1.36.3", "002@1.36.3")
	})
	t.Run("Cordon", func(t *testing.T) {
		f := newFixedPools(t, 3, map[string]any{"undrainableNodeBehavior": "cordon"})
		f.block("001")
		f.fails(f.upgrade(), "PodDrainFailure")
		f.expect("after the failure", "000@1.36.3", "001@1.35.6!?", "002@1.36.3", "003@1.36.3")
		f.block()
		f.MustSucceed(f.put(map[string]any{"orchestratorVersion": "1.36.3"}))
		f.expect("repeated", "000@1.36.3", "001@1.36.3", "002@1.36.3")
	})
}

func TestUpgradeSettingsAreChecked(t *testing.T) {
	f := newFixedPools(t, 1, nil)
	for want, settings := range map[string]map[string]any{
		"cannot both be 0":            {"maxSurge": "0", "maxUnavailable": "0%"},
		"neither a number":            {"maxSurge": "many"},
		"not between 1 and 1440":      {"drainTimeoutInMinutes": 2000},
		"not between 0 and 30":        {"nodeSoakDurationInMinutes": 31},
		"'Wait' is none of Cordon,":   {"undrainableNodeBehavior": "Wait"},
		"'-1' is neither a number of": {"maxBlockedNodes": "-1"},
	} {
		if r := f.put(map[string]any{"upgradeSettings": settings}); r.Status != 400 || !strings.Contains(r.Message(), want) {
			t.Errorf("%v: %d %s, want %q", settings, r.Status, r.Body, want)
		}
	}
}

// Labels and taints of a pool are applied to its existing nodes.
func TestPoolLabelsReachNodes(t *testing.T) {
	f := newFixedPools(t, 1, nil)
	f.MustSucceed(f.put(map[string]any{"nodeLabels": map[string]any{"tier": "web"}, "nodeTaints": []string{"a=b:NoSchedule"}}))
	m := f.intents()[0]
	if m.Labels["tier"] != "web" || !slices.Equal(m.Taints, []string{"a=b:NoSchedule"}) {
		t.Errorf("labels %v, taints %v", m.Labels, m.Taints)
	}
}

// The cluster autoscaler resizes a pool within its limits; a PUT with an outdated
// count does not undo it.
func TestAutoscalerResizesPool(t *testing.T) {
	f := newFixedPools(t, 1, nil)
	f.MustSucceed(f.put(map[string]any{"enableAutoScaling": true, "minCount": 1, "maxCount": 3}))
	resize := func(body map[string]any) armtest.Reply { return f.Do("POST", userPool+"/resize", body) }
	count := func() any {
		p, _ := f.Do("GET", userPool, nil).JSON["properties"].(map[string]any)
		return p["count"]
	}
	if r := resize(map[string]any{"add": 2}); r.Status != 200 || count() != 3.0 {
		t.Fatalf("adding 2: %d %s, count %v", r.Status, r.Body, count())
	}
	f.expect("added", "000@1.35.6", "001@1.35.6", "002@1.35.6")
	f.MustSucceed(f.put(map[string]any{"count": 1, "nodeLabels": map[string]any{"a": "b"}}))
	if count() != 3.0 {
		t.Errorf("a PUT with an outdated count changed it to %v", count())
	}
	first := f.intents()[0].Name
	for name, body := range map[string]map[string]any{
		"past the maximum": {"add": 1}, "both": {"add": 1, "remove": []string{first}}, "nothing": {}, "unknown": {"remove": []string{"x"}},
	} {
		if r := resize(body); r.Status != 400 {
			t.Errorf("%s: %d %s", name, r.Status, r.Body)
		}
	}
	if r := resize(map[string]any{"remove": []string{first, first}}); r.Status != 200 || count() != 2.0 {
		t.Errorf("removing one: %d %s, count %v", r.Status, r.Body, count())
	}
	f.expect("removed", "001@1.35.6", "002@1.35.6")
	// A new minimum takes effect at once.
	f.MustSucceed(f.put(map[string]any{"minCount": 3}))
	f.expect("new minimum", "001@1.35.6", "002@1.35.6", "003@1.35.6")
	f.m.Hold(true)
	r := f.put(map[string]any{"enableAutoScaling": false, "count": 4})
	if busy := resize(map[string]any{"remove": []string{f.intents()[0].Name}}); busy.Status != 409 {
		t.Errorf("during an operation: %d %s", busy.Status, busy.Body)
	}
	f.m.Hold(false)
	f.MustSucceed(r)
}

// The autoscaler's profile is validated, and gets AKS's defaults once a pool is
// autoscaled.
func TestAutoScalerProfile(t *testing.T) {
	a := armtest.New(t)
	a.Machinery()
	newGroup(a)
	body := clusterBody("Manual")
	change(body, "properties.autoScalerProfile", map[string]any{"scan-interval": "20s"})
	a.MustSucceed(a.Do("PUT", clusterID, body))
	profile := func() map[string]any {
		p, _ := a.Do("GET", clusterID, nil).JSON["properties"].(map[string]any)
		m, _ := p["autoScalerProfile"].(map[string]any)
		return m
	}
	if p := profile(); len(p) != 1 {
		t.Errorf("without an autoscaled pool: %v", p)
	}
	change(body, "properties.agentPoolProfiles", []any{map[string]any{"name": "system", "mode": "System", "count": 3, "enableAutoScaling": true, "minCount": 1, "maxCount": 5}})
	a.MustSucceed(a.Do("PUT", clusterID, body))
	if p := profile(); p["scan-interval"] != "20s" || p["expander"] != "random" || p["scale-down-unneeded-time"] != "10m" {
		t.Errorf("with one: %v", p)
	}
	for k, v := range map[string]string{"expander": "cheapest", "scale-down-utilization-threshold": "1.5", "scale-down-unneeded-time": "soon", "max-empty-bulk-delete": "-1", "skip-nodes-with-system-pods": "perhaps"} {
		change(body, "properties.autoScalerProfile", map[string]any{k: v})
		if r := a.Do("PUT", clusterID, body); r.Status != 400 || !strings.Contains(r.Message(), k) {
			t.Errorf("%s %q: %d %s", k, v, r.Status, r.Body)
		}
	}
}

// An upgrade is resumed whenever ARM is killed, and disrupts no more nodes for it.
func TestUpgradeSurvivesKills(t *testing.T) {
	f := newFixedPools(t, 4, map[string]any{"maxSurge": "1"})
	r := f.upgrade()
	if r.Status >= 300 {
		t.Fatalf("status %d: %s", r.Status, r.Body)
	}
	for range 8 {
		time.Sleep(60 * time.Millisecond)
		f.Stop()
		f.Start()
	}
	f.MustSucceed(r)
	f.expect("upgraded", "000@1.36.3", "001@1.36.3", "002@1.36.3", "003@1.36.3")
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.most > 5 || f.least < 4 {
		t.Errorf("there were up to %d nodes and as few as %d schedulable ones, want at most 5 and at least 4", f.most, f.least)
	}
}

// An aborted upgrade leaves no node cordoned, and the next one completes it.
func TestUpgradeCanBeAborted(t *testing.T) {
	f := newFixedPools(t, 2, map[string]any{"maxSurge": "0", "maxUnavailable": "1"})
	f.MustSucceed(f.Do("PUT", clusterID, map[string]any{"location": "eastus", "properties": map[string]any{"kubernetesVersion": "1.36.3"}}))
	f.m.Hold(true)
	r := f.put(map[string]any{"orchestratorVersion": "1.36.3"})
	for i := 0; i < 3000 && !slices.Equal(f.nodes(), []string{"000@1.35.6!", "001@1.35.6"}); i++ {
		time.Sleep(20 * time.Millisecond)
	}
	f.expect("while it drains", "000@1.35.6!", "001@1.35.6")
	if s := f.state(); s != "Upgrading" {
		t.Errorf("state %s, want Upgrading", s)
	}
	if busy := f.put(map[string]any{"count": 3}); busy.Status != 409 {
		t.Errorf("another change during the upgrade: %d %s", busy.Status, busy.Body)
	}
	f.MustSucceed(f.Do("POST", userPool+"/abort", nil))
	if end := f.Wait(r); end.JSON["status"] != "Canceled" {
		t.Errorf("the aborted operation ended as %s", end.Body)
	}
	f.expect("aborted", "000@1.35.6", "001@1.35.6")
	f.m.Hold(false)
	f.MustSucceed(f.put(map[string]any{"orchestratorVersion": "1.36.3"}))
	f.expect("again", "000@1.36.3", "001@1.36.3")
}

// A pool is scaled out, scaled in and upgraded.
func TestPoolsScaleAndUpgrade(t *testing.T) {
	a := armtest.New(t)
	a.Machinery()
	newGroup(a)
	body := clusterBody("Manual")
	change(body, "properties.kubernetesVersion", "1.35.6")
	a.MustSucceed(a.Do("PUT", clusterID, body))
	names := func() []string {
		c := a.Do("GET", clusterID+"/agentPools/system/machines", nil)
		var out []string
		for _, x := range c.JSON["value"].([]any) {
			m := x.(map[string]any)
			v := m["properties"].(map[string]any)["kubernetes"].(map[string]any)["orchestratorVersion"].(string)
			out = append(out, m["name"].(string)[len("aks-system-12345678-"):]+"@"+v)
		}
		slices.Sort(out)
		return out
	}
	if got := names(); !slices.Equal(got, []string{"vmss000000@1.35.6", "vmss000001@1.35.6", "vmss000002@1.35.6"}) {
		t.Errorf("new: %v", got)
	}
	scale := func(n int) {
		t.Helper()
		a.MustSucceed(a.Do("PUT", clusterID+"/agentPools/system", map[string]any{"properties": map[string]any{"count": n}}))
	}
	scale(5)
	scale(1)
	if got := names(); !slices.Equal(got, []string{"vmss000000@1.35.6"}) {
		t.Errorf("after 5 and 1: %v", got)
	}
	scale(3)
	if got := names(); !slices.Equal(got, []string{"vmss000000@1.35.6", "vmss000005@1.35.6", "vmss000006@1.35.6"}) {
		t.Errorf("numbers must not be reused: %v", got)
	}
	a.MustSucceed(a.Do("PUT", clusterID, map[string]any{"location": "eastus", "properties": map[string]any{"kubernetesVersion": "1.36.3",
		"agentPoolProfiles": []any{map[string]any{"name": "system", "orchestratorVersion": "1.36.3"}}}}))
	for _, n := range names() {
		if !strings.HasSuffix(n, "@1.36.3") {
			t.Errorf("after the upgrade: %s", n)
		}
	}
	for v, want := range map[string]string{"1.35.6": "Downgrading", "1.99": "not supported"} {
		if r := a.Do("PUT", clusterID, map[string]any{"location": "eastus", "properties": map[string]any{"kubernetesVersion": v}}); r.Status != 400 || !strings.Contains(r.Message(), want) {
			t.Errorf("to %s: %d %s", v, r.Status, r.Body)
		}
	}
	if r := a.Do("PUT", clusterID+"/agentPools/system", map[string]any{"properties": map[string]any{"mode": "User"}}); r.Status != 400 || !strings.Contains(r.Message(), "at least one system agent pool") {
		t.Errorf("the last system pool: %d %s", r.Status, r.Body)
	}
	ms, _, err := intent.List[intent.MachineIntent](context.Background(), a.Etcd, intent.MachineIntentPrefix)
	if err != nil || len(ms) != 3 {
		t.Errorf("%d machines (%v)", len(ms), err)
	}
}
