// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package arm_test

import (
	"strings"
	"testing"
	"time"

	"github.com/nap-aks/nap/localazure/arm/armtest"
)

// override changes a cluster's upgrade overrides as az does, by writing back the
// whole cluster.
func override(f *fixedPools, force bool, until time.Time) armtest.Reply {
	return f.Do("PUT", clusterID, map[string]any{"location": "eastus", "properties": map[string]any{
		"upgradeSettings": map[string]any{"overrideSettings": map[string]any{"forceUpgrade": force, "until": until.UTC().Format("2006-01-02T15:04:05.000Z")}}}})
}

// An upgrade is refused while a PodDisruptionBudget never allows an eviction;
// other changes are not.
func TestUpgradeIsRefusedByBudgetsWithoutEvictions(t *testing.T) {
	f := newFixedPools(t, 2, nil)
	f.Live.SetNever("shop/web", "shop/db")
	cluster := func(props map[string]any) map[string]any {
		return map[string]any{"location": "eastus", "properties": props}
	}
	refused := func(what string, r armtest.Reply) {
		t.Helper()
		if r.Status != 400 || r.Code() != "UnsatisfiablePDB" || !strings.Contains(r.Message(), "2 errors occurred:\n\t* PDB shop/web has") || !strings.Contains(r.Message(), "* PDB shop/db has") {
			t.Errorf("%s: %d %s", what, r.Status, r.Body)
		}
	}
	newer := cluster(map[string]any{"kubernetesVersion": "1.36.3"})
	refused("the control plane", f.Do("PUT", clusterID, newer))
	refused("everything, as az upgrades", f.Do("PUT", clusterID, cluster(map[string]any{"kubernetesVersion": "1.36.3", "agentPoolProfiles": []any{map[string]any{"name": "p", "orchestratorVersion": "1.36.3"}}})))
	f.expect("after the refusals", "000@1.35.6", "001@1.35.6")
	if r := f.Do("PATCH", clusterID, map[string]any{"tags": map[string]any{"a": "b"}}); r.Status != 200 {
		t.Errorf("tags: %d %s", r.Status, r.Body)
	}
	f.MustSucceed(f.put(map[string]any{"count": 3}))
	f.MustSucceed(f.Do("PUT", clusterID, cluster(map[string]any{"disableLocalAccounts": true})))
	// Once no budget does, a pool is upgraded on its own or through the cluster.
	f.Live.SetNever()
	f.MustSucceed(f.Do("PUT", clusterID, newer))
	f.Live.SetNever("shop/web", "shop/db")
	refused("the pool", f.put(map[string]any{"orchestratorVersion": "1.36.3"}))
	refused("the pool, through the cluster", f.Do("PUT", clusterID, cluster(map[string]any{"agentPoolProfiles": []any{map[string]any{"name": "p", "orchestratorVersion": "1.36.3"}}})))
	f.Live.SetNever()
	f.MustSucceed(f.put(map[string]any{"orchestratorVersion": "1.36.3"}))
	f.expect("without the budgets", "000@1.36.3", "001@1.36.3", "002@1.36.3")
}

// A forced upgrade starts and ignores budgets, whatever the pool's behaviour for
// undrainable nodes is. The override's time limits when it may start.
func TestForcedUpgradeIgnoresBudgets(t *testing.T) {
	f := newFixedPools(t, 2, map[string]any{"undrainableNodeBehavior": "Cordon"})
	f.Live.SetNever("shop/web")
	now := time.Now()
	for want, until := range map[string]time.Time{"is not a time between now": now.Add(-time.Hour), "30 days from now": now.Add(31 * 24 * time.Hour)} {
		if r := override(f, true, until); r.Status != 400 || !strings.Contains(r.Message(), want) {
			t.Errorf("until %s: %d %s", until, r.Status, r.Body)
		}
	}
	f.MustSucceed(override(f, true, now.Add(72*time.Hour)))
	if r := f.Do("GET", clusterID, nil); !strings.Contains(r.Body, `"overrideSettings":{"forceUpgrade":true,"until":"`+now.Add(72*time.Hour).UTC().Format("2006-01-02T15:04")) {
		t.Errorf("the override is missing: %s", r.Body)
	}
	f.MustSucceed(f.Do("PUT", clusterID, map[string]any{"location": "eastus", "properties": map[string]any{"kubernetesVersion": "1.36.3"}}))
	// az aks update --disable-force-upgrade leaves the time as it was.
	f.MustSucceed(override(f, false, now.Add(72*time.Hour)))
	pool := map[string]any{"orchestratorVersion": "1.36.3"}
	if r := f.put(pool); r.Status != 400 || r.Code() != "UnsatisfiablePDB" {
		t.Errorf("no longer forced: %d %s", r.Status, r.Body)
	}
	f.MustSucceed(override(f, true, now.Add(30*time.Minute)))
	f.Advance(31 * time.Minute)
	if r := f.put(pool); r.Status != 400 || r.Code() != "UnsatisfiablePDB" {
		t.Errorf("past its time: %d %s", r.Status, r.Body)
	}
	f.Advance(-31 * time.Minute)
	f.block("000", "001", "002", "003")
	f.MustSucceed(f.put(map[string]any{"count": 3}))
	f.fails(f.put(map[string]any{"count": 2}), "PodDrainFailure") // scaling in is not an upgrade
	f.block("000", "001")
	f.MustSucceed(f.put(map[string]any{"count": 2}))
	f.block("000", "001", "002", "003", "004")
	f.MustSucceed(f.put(pool))
	f.expect("forced", "000@1.36.3", "001@1.36.3")
}
