// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package arm_test

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nap-aks/nap/localazure/arm/armtest"
	"github.com/nap-aks/nap/localazure/intent"
)

// autoscaledCluster creates a cluster with a system pool of 3 nodes and the
// autoscaled pools "web" of 2 and "batch" of 1.
func autoscaledCluster(a *armtest.Azure) {
	a.T.Helper()
	newGroup(a)
	body := clusterBody("Manual")
	auto := func(name string, count, lo, hi int) any {
		return map[string]any{"name": name, "mode": "User", "vmSize": "Standard_D4s_v5", "count": count, "enableAutoScaling": true, "minCount": lo, "maxCount": hi}
	}
	p := body["properties"].(map[string]any)
	p["agentPoolProfiles"] = append(p["agentPoolProfiles"].([]any), auto("web", 2, 1, 4), auto("batch", 1, 0, 9))
	p["autoScalerProfile"] = map[string]any{"expander": "priority", "scale-down-unneeded-time": "3m"}
	a.MustSucceed(a.Do("PUT", clusterID, body))
}

// poolOf describes an agent pool in a few words.
func poolOf(a *armtest.Azure, name string) string {
	a.T.Helper()
	r := a.Do("GET", clusterID+"/agentPools/"+name, nil)
	if r.Status == 404 {
		return "gone"
	}
	p := r.JSON["properties"].(map[string]any)
	return strings.TrimSuffix(fmt.Sprintf("%v nodes, autoscaler %v %v-%v", p["count"], p["enableAutoScaling"], p["minCount"], p["maxCount"]), " <nil>-<nil>")
}

func machines(a *armtest.Azure, pool string) []string {
	a.T.Helper()
	var out []string
	for _, x := range a.Do("GET", clusterID+"/agentPools/"+pool+"/machines", nil).JSON["value"].([]any) {
		out = append(out, x.(map[string]any)["name"].(string))
	}
	slices.Sort(out)
	return out
}

func clusterMode(a *armtest.Azure) string {
	a.T.Helper()
	p := a.Do("GET", clusterID, nil).JSON["properties"].(map[string]any)
	return fmt.Sprint(p["nodeProvisioningProfile"].(map[string]any)["mode"], " ", p["nodeProvisioningProfile"].(map[string]any)["defaultNodePools"], " ", p["provisioningState"])
}

const enablePath = clusterID + "/enableNodeProvisioning"

func fromAutoscaler(more ...any) map[string]any {
	out := map[string]any{"migrateFrom": "cluster-autoscaler"}
	for i := 0; i < len(more); i += 2 {
		out[more[i].(string)] = more[i+1]
	}
	return out
}

// blocks returns a function that makes the drain of a node fail for a reason; an
// empty reason lets it succeed.
func blocks(m *armtest.Machinery) func(node, why string) {
	var mu sync.Mutex
	reasons := map[string]string{}
	m.Blocked = func(i intent.MachineIntent) string {
		mu.Lock()
		defer mu.Unlock()
		return reasons[i.NodeName]
	}
	return func(node, why string) {
		mu.Lock()
		defer mu.Unlock()
		reasons[node] = why
	}
}

// inProgress polls an operation until its progress contains want.
func inProgress(a *armtest.Azure, r armtest.Reply, want string) {
	a.T.Helper()
	if r.Status != 202 {
		a.T.Fatalf("%d %s", r.Status, r.Body)
	}
	last := ""
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if last = a.Do("GET", r.Header.Get("Azure-AsyncOperation"), nil).Body; strings.Contains(last, want) {
			return
		}
	}
	a.T.Fatalf("the progress never contained %q, the last one is %s", want, last)
}

// A dry run returns a proposal and changes nothing.
func TestEnableDryRunChangesNothing(t *testing.T) {
	a := armtest.New(t)
	a.Machinery()
	autoscaledCluster(a)
	before := a.Do("GET", clusterID, nil).Body
	r := a.Do("POST", enablePath, fromAutoscaler("dryRun", true, "pools", []string{"web"}))
	if r.Status != 200 {
		t.Fatalf("%d %s", r.Status, r.Body)
	}
	text := r.JSON["nodePools"].(string)
	for _, want := range []string{"kind: NodePool", "name: web", "consolidateAfter: 3m", "expander (priority) is lost"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in the proposal\n%s", want, text)
		}
	}
	a.Live.Expander = "7: [aks-batch-.*]\n9: ['aks-web-[0-9]+-vmss']"
	var weights []string
	for _, line := range strings.Split(a.Do("POST", enablePath, fromAutoscaler("dryRun", true)).JSON["nodePools"].(string), "\n") {
		if strings.HasPrefix(line, "  weight: ") || strings.HasPrefix(line, "# Pool ") {
			weights = append(weights, strings.TrimSpace(line))
		}
	}
	if got := strings.Join(weights, "; "); got != "# Pool batch: 0 to 9 nodes (now 1), Standard_D4s_v5.; weight: 10; # Pool web: 1 to 4 nodes (now 2), Standard_D4s_v5.; weight: 20" {
		t.Errorf("with priorities of the expander: %s", got)
	}
	if got := fmt.Sprint(r.JSON["pools"], r.JSON["blockedBy"]); got != "[web] []" {
		t.Errorf("pools and obstacles: %s", got)
	}
	if !strings.Contains(r.Body, `"pool":"batch","setting":"enableAutoScaling"`) {
		t.Errorf("the proposal does not name the pool that stays: %s", r.Body)
	}
	if after := a.Do("GET", clusterID, nil).Body; after != before {
		t.Errorf("a dry run changed the cluster: %s", after)
	}
}

// Invalid requests are refused and change nothing.
func TestEnableRefusesInvalidRequests(t *testing.T) {
	a := armtest.New(t)
	a.Machinery()
	autoscaledCluster(a)
	for name, x := range map[string]struct {
		body map[string]any
		want string
	}{
		"from what":       {map[string]any{"migrateFrom": "karpenter"}, "only ClusterAutoscaler can be migrated from"},
		"unknown pool":    {fromAutoscaler("pools", []string{"nope"}), "no agent pool"},
		"the system pool": {fromAutoscaler("pools", []string{"system"}), "of mode System and stays"},
		"bad YAML":        {fromAutoscaler("nodePools", "a: [b"), "not readable as YAML"},
		"other objects":   {fromAutoscaler("nodePools", "apiVersion: v1\nkind: Pod\nmetadata: {name: x}"), "neither a NodePool"},
		"no NodePool":     {fromAutoscaler("nodePools", "apiVersion: karpenter.azure.com/v1beta1\nkind: AKSNodeClass\nmetadata: {name: x}"), "no NodePool"},
		"emptied":         {fromAutoscaler("emptied", "Burn"), "none of Keep, Delete"},
		"width":           {fromAutoscaler("maxUnavailable", 0), "maxUnavailable"},
	} {
		if r := a.Do("POST", enablePath, x.body); r.Status != 400 || !strings.Contains(r.Body, x.want) {
			t.Errorf("%s: %d %s", name, r.Status, r.Body)
		}
	}
	// Node auto-provisioning does not support Windows pools.
	a.MustSucceed(a.Do("PUT", clusterID+"/agentPools/win", map[string]any{"properties": map[string]any{"osType": "Windows", "mode": "User", "count": 1, "vmSize": "Standard_D4s_v5"}}))
	if r := a.Do("POST", enablePath, fromAutoscaler()); r.Status != 400 || !strings.Contains(r.Body, "Windows") {
		t.Errorf("with a Windows pool: %d %s", r.Status, r.Body)
	}
	if r := a.Do("POST", enablePath, fromAutoscaler("dryRun", true)); r.Status != 200 || !strings.Contains(fmt.Sprint(r.JSON["blockedBy"]), "osType") {
		t.Errorf("the dry run does not name the Windows pool as an obstacle: %d %s", r.Status, r.Body)
	}
	if got := clusterMode(a) + ", web " + poolOf(a, "web"); got != "Manual Auto Succeeded, web 2 nodes, autoscaler true 1-4" {
		t.Errorf("after refusals the cluster is %s", got)
	}
}

// A migration drains nodes one after the other, within disruption budgets and
// only while evicted pods are scheduled again, and survives restarts.
func TestEnableMigratesPools(t *testing.T) {
	a := armtest.New(t)
	m := a.Machinery()
	block := blocks(m)
	autoscaledCluster(a)
	web := machines(a, "web")
	block(web[1], "the budget web allows none")
	m.Hold(true)
	r := a.Do("POST", enablePath, fromAutoscaler())
	inProgress(a, r, "the controller of node auto-provisioning comes up")
	if got := clusterMode(a) + ", web " + poolOf(a, "web"); got != "Auto None Updating, web 2 nodes, autoscaler false" {
		t.Errorf("at the start the cluster is %s", got)
	}
	if r := a.Do("PUT", clusterID+"/agentPools/web", map[string]any{"properties": map[string]any{"count": 3}}); r.Status != 409 {
		t.Errorf("scaling during the migration: %d %s", r.Status, r.Body)
	}
	a.Live.Refuse("", "its class is not there")
	m.Hold(false)
	inProgress(a, r, "NodePools are not ready: batch (its class is not there), web")
	made, cordoned := a.Live.State()
	if got := fmt.Sprint(made, cordoned); got != "[AKSNodeClass batch AKSNodeClass web NodePool batch NodePool web] []" {
		t.Errorf("created and cordoned: %s", got)
	}
	a.Stop()
	a.Live.Refuse("", "")
	a.Start()
	inProgress(a, r, "pool web: 2 nodes left to drain; "+web[1]+" is being drained, the budget web allows none")
	if _, cordoned := a.Live.State(); !slices.Contains(cordoned, web[0]) || !slices.Contains(cordoned, web[1]) {
		t.Errorf("cordoned nodes: %v", cordoned)
	}
	if got := poolOf(a, "web") + "; " + poolOf(a, "batch"); got != "2 nodes, autoscaler false; 0 nodes, autoscaler false" {
		t.Errorf("while a pod cannot be evicted: web %s", got)
	}
	a.Live.SetWaits("shop/web-9")
	block(web[1], "")
	inProgress(a, r, "pool web: 1 nodes left to drain; waiting for a place for shop/web-9")
	a.Stop()
	a.Start()
	a.Live.SetWaits()
	a.MustSucceed(r)
	if got := clusterMode(a) + ", web " + poolOf(a, "web") + ", system " + poolOf(a, "system"); got != "Auto None Succeeded, web 0 nodes, autoscaler false, system 3 nodes, autoscaler false" {
		t.Errorf("migrated, the cluster is %s", got)
	}
	if ms := machines(a, "web"); len(ms) != 0 {
		t.Errorf("machines %v are left", ms)
	}
}

// Emptied pools are deleted on request, and the request can contain NodePools.
func TestEnableDeletesEmptiedPoolsAndUsesGivenNodePools(t *testing.T) {
	a := armtest.New(t)
	a.Machinery()
	autoscaledCluster(a)
	text := a.Do("POST", enablePath, fromAutoscaler("dryRun", true)).JSON["nodePools"].(string)
	a.MustSucceed(a.Do("POST", enablePath, fromAutoscaler("emptied", "Delete", "maxUnavailable", 5, "defaultNodePools", "Auto", "nodePools", strings.ReplaceAll(text, "name: web", "name: mine"))))
	if got := clusterMode(a) + " " + poolOf(a, "web") + " " + poolOf(a, "batch") + " " + poolOf(a, "system"); got != "Auto Auto Succeeded gone gone 3 nodes, autoscaler false" {
		t.Errorf("the cluster is %s", got)
	}
	if made, _ := a.Live.State(); fmt.Sprint(made) != "[AKSNodeClass batch AKSNodeClass mine NodePool batch NodePool mine]" {
		t.Errorf("created: %v", made)
	}
}

// A migration that is aborted or fails, at any stage, leaves the cluster as it
// was: mode, autoscaler and nodes, and no NodePools.
func TestAbortedEnableIsUndone(t *testing.T) {
	a := armtest.New(t)
	m := a.Machinery()
	block := blocks(m)
	autoscaledCluster(a)
	abort := func() {
		if r := a.Do("POST", clusterID+"/abort", nil); r.Status != 202 {
			t.Fatalf("%d %s", r.Status, r.Body)
		}
	}
	var op armtest.Reply
	for _, x := range []struct {
		name string
		do   func()
		want string
	}{
		{"aborted while the controller starts", func() {
			m.Hold(true)
			op = a.Do("POST", enablePath, fromAutoscaler())
			inProgress(a, op, "comes up")
			abort()
			m.Hold(false)
		}, "Canceled"},
		{"aborted while NodePools are not ready", func() {
			a.Live.Refuse("", "no subnet")
			op = a.Do("POST", enablePath, fromAutoscaler())
			inProgress(a, op, "no subnet")
			abort()
		}, "Canceled"},
		{"a NodePool is refused", func() {
			a.Live.Refuse("spec.limits is wrong", "")
			op = a.Do("POST", enablePath, fromAutoscaler())
		}, "spec.limits is wrong"},
		{"aborted when one pool is empty and another half drained", func() {
			web := machines(a, "web")
			block(web[0], "not now")
			op = a.Do("POST", enablePath, fromAutoscaler())
			inProgress(a, op, "1 nodes left to drain; "+web[0]+" is being drained, not now")
			a.Live.Set([]string{"aks-new-1", "aks-new-2"}, nil)
			a.Stop()
			a.Start()
			abort()
		}, "Canceled"},
		{"evicted pods stay pending", func() {
			a.Live.SetWaits("shop/lost")
			op = a.Do("POST", enablePath, fromAutoscaler())
			inProgress(a, op, "waiting for a place for shop/lost")
			a.Advance(11 * time.Minute)
		}, "waiting for a place for shop/lost. Node auto-provisioning is off again and the pools are as before."},
	} {
		t.Run(x.name, func(t *testing.T) {
			x.do()
			done := a.Wait(op)
			if s := done.JSON["status"]; s != "Canceled" && s != "Failed" || !strings.Contains(done.Body, x.want) {
				t.Errorf("it ended as %s", done.Body)
			}
			a.Live.Refuse("", "")
			a.Live.SetWaits()
			for _, n := range machines(a, "web") {
				block(n, "")
			}
			state := strings.Fields(clusterMode(a))
			if got := fmt.Sprint(state[:2], "; ", poolOf(a, "web"), "; ", poolOf(a, "batch"), "; ", len(machines(a, "web")), len(machines(a, "batch"))); got != "[Manual Auto]; 2 nodes, autoscaler true 1-4; 1 nodes, autoscaler true 0-9; 2 1" {
				t.Errorf("the cluster is %s", got)
			}
			if made, cordoned := a.Live.State(); len(made)+len(cordoned) > 0 {
				t.Errorf("objects %v are left, and nodes %v cordoned", made, cordoned)
			}
			if nodes, _ := a.Live.ProvisionedNodes(t.Context()); len(nodes) > 0 {
				t.Errorf("provisioned nodes %v are left", nodes)
			}
		})
	}
	// The migration can be repeated.
	a.MustSucceed(a.Do("POST", enablePath, fromAutoscaler()))
}
