// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package containerservice

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/nap-aks/nap/localazure/arm/containerservice/kubeapi"
	"github.com/nap-aks/nap/localazure/arm/rp"
)

// forcedKey is the key in an operation's data that marks a forced upgrade.
const forcedKey = "forced"

// overridePath is the path of a cluster's upgrade overrides.
var overridePath = []string{"properties", "upgradeSettings", "overrideSettings"}

// forced reports whether an upgrade of the cluster that starts at a time is
// forced: it is not checked first, and its drains ignore PodDisruptionBudgets.
func forced(cluster rp.Doc, now time.Time) bool {
	o := cluster.Map(overridePath...)
	until, err := time.Parse(time.RFC3339, o.Str("until"))
	return o.Bool("forceUpgrade") && err == nil && now.Before(until)
}

// longestOverride is the longest time until an override ends.
const longestOverride = 30 * 24 * time.Hour

// checkOverride refuses an override that does not end within longestOverride. An
// unchanged one was checked before.
func checkOverride(d, old rp.Doc, now time.Time) error {
	was, is := old.Map(overridePath...), d.Map(overridePath...)
	text := is.Str("until")
	if !is.Bool("forceUpgrade") || text == "" || text == was.Str("until") && was.Bool("forceUpgrade") {
		return nil
	}
	until, err := time.Parse(time.RFC3339, text)
	if err == nil && until.After(now) && until.Before(now.Add(longestOverride)) {
		return nil
	}
	return rp.BadRequest("InvalidParameter", "The value of parameter upgradeSettings.overrideSettings.until is invalid: '%s' is not a time between now (%s) and 30 days from now.",
		text, now.UTC().Format(time.RFC3339)).At("properties.upgradeSettings.overrideSettings.until")
}

// upgrades reports whether a change of a pool upgrades its nodes.
func upgrades(old, d rp.Doc) bool {
	for _, k := range []string{"currentOrchestratorVersion", "nodeImageVersion"} {
		if was := old.Str("properties", k); was != "" && was != d.Str("properties", k) {
			return true
		}
	}
	return false
}

// checkBudgets refuses an upgrade of a cluster with PodDisruptionBudgets that never
// allow an eviction, unless it is forced. d is the cluster after the change.
func (p *Provider) checkBudgets(ctx context.Context, r *rp.Record, d rp.Doc) error {
	if forced(d, p.env.Now()) || equal(d.Str("properties", "powerState", "code"), "Stopped") {
		return nil
	}
	st, _, err := p.status(ctx, r.UID)
	if err != nil {
		return err
	}
	blocking, err := func() ([]string, error) {
		client, err := p.Dial(st)
		if err != nil {
			return nil, err
		}
		ctx, cancel := context.WithTimeout(ctx, kubeapi.Timeout)
		defer cancel()
		return client.BlockingBudgets(ctx)
	}()
	if err != nil {
		return rp.Conflict("OperationNotAllowed", "The upgrade of cluster '%s' cannot begin: its PodDisruptionBudgets have to be checked first, and its API server does not answer: %v. Try again once the cluster is healthy, or force the upgrade (az aks upgrade --enable-force-upgrade).",
			r.ParsedID().Name(), err)
	}
	if len(blocking) == 0 {
		return nil
	}
	var b strings.Builder
	noun := "errors"
	if len(blocking) == 1 {
		noun = "error"
	}
	fmt.Fprintf(&b, "%d %s occurred:\n", len(blocking), noun)
	for _, name := range blocking {
		fmt.Fprintf(&b, "\t* PDB %s has maxUnavailable == 0 can't proceed with put operation\n", name)
	}
	return rp.BadRequest("UnsatisfiablePDB", "%s\nNodes with their pods could never be drained. Raise maxUnavailable or delete the PodDisruptionBudget for the time of the upgrade, or force the upgrade: az aks upgrade --enable-force-upgrade, which takes pods away whatever their budgets say.",
		b.String()).At("properties.upgradeSettings.overrideSettings")
}
