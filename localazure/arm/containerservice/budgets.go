package containerservice

import (
	"context"
	"fmt"
	"sort"
	"strings"
	"time"

	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/nap-aks/nap/localazure/arm/rp"
)

var budgetsOf = schema.GroupVersionResource{Group: "policy", Version: "v1", Resource: "poddisruptionbudgets"}

// NeverBudgets implements Live.
func (l liveCluster) NeverBudgets(ctx context.Context) ([]string, error) {
	items, err := l.list(ctx, budgetsOf, "")
	if err != nil {
		return nil, err
	}
	return neverBudgets(items)
}

// neverBudgets names those that allow no pod to be unavailable, ever: with a
// maxUnavailable of 0. AKS looks for these alone; a minAvailable that is never
// exceeded shows when a node is drained.
func neverBudgets(items []unstructured.Unstructured) ([]string, error) {
	var out []string
	for i := range items {
		var b policyv1.PodDisruptionBudget
		if err := runtime.DefaultUnstructuredConverter.FromUnstructured(items[i].Object, &b); err != nil {
			return nil, fmt.Errorf("reading PodDisruptionBudget %s/%s: %w", items[i].GetNamespace(), items[i].GetName(), err)
		}
		if b.Spec.MaxUnavailable == nil {
			continue
		}
		if n, err := intstr.GetScaledValueFromIntOrPercent(b.Spec.MaxUnavailable, 100, true); err == nil && n == 0 {
			out = append(out, b.Namespace+"/"+b.Name)
		}
	}
	sort.Strings(out)
	return out, nil
}

// forcedKey is where an operation remembers that it is a forced upgrade.
const forcedKey = "forced"

// overridePath is where a cluster's upgrade overrides are.
var overridePath = []string{"properties", "upgradeSettings", "overrideSettings"}

// forced tells whether an upgrade of the cluster that begins at a time is a
// forced one: no checks before, and budgets do not keep pods.
func forced(cluster rp.Doc, now time.Time) bool {
	o := cluster.Map(overridePath...)
	until, err := time.Parse(time.RFC3339, o.Str("until"))
	return o.Bool("forceUpgrade") && err == nil && now.Before(until)
}

// longestOverride is how far ahead an override may end.
const longestOverride = 30 * 24 * time.Hour

// checkOverride refuses an override whose end is no time in the next 30 days. One
// that stays as it is has been checked before.
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

// upgrades tells whether a change of a pool replaces its nodes by newer ones.
func upgrades(old, d rp.Doc) bool {
	for _, k := range []string{"currentOrchestratorVersion", "nodeImageVersion"} {
		if was := old.Str("properties", k); was != "" && was != d.Str("properties", k) {
			return true
		}
	}
	return false
}

// checkBudgets refuses to begin an upgrade of a cluster with PodDisruptionBudgets
// that no drain can ever satisfy, unless it is a forced one. d is the cluster as
// it will be.
func (p *Provider) checkBudgets(ctx context.Context, r *rp.Record, d rp.Doc) error {
	if forced(d, p.env.Now()) || equal(d.Str("properties", "powerState", "code"), "Stopped") {
		return nil
	}
	st, _, err := p.status(ctx, r.UID)
	if err != nil {
		return err
	}
	never, err := func() ([]string, error) {
		live, err := p.Dial(st)
		if err != nil {
			return nil, err
		}
		ctx, cancel := context.WithTimeout(ctx, liveTimeout)
		defer cancel()
		return live.NeverBudgets(ctx)
	}()
	if err != nil {
		return rp.Conflict("OperationNotAllowed", "The upgrade of cluster '%s' cannot begin: its PodDisruptionBudgets have to be looked at before, and its API server does not answer: %v. Try again once the cluster is healthy, or force the upgrade (az aks upgrade --enable-force-upgrade).",
			r.ParsedID().Name(), err)
	}
	if len(never) == 0 {
		return nil
	}
	var b strings.Builder
	noun := "errors"
	if len(never) == 1 {
		noun = "error"
	}
	fmt.Fprintf(&b, "%d %s occurred:\n", len(never), noun)
	for _, name := range never {
		fmt.Fprintf(&b, "\t* PDB %s has maxUnavailable == 0 can't proceed with put operation\n", name)
	}
	return rp.BadRequest("UnsatisfiablePDB", "%s\nNodes with their pods could never be drained. Raise maxUnavailable or delete the PodDisruptionBudget for the time of the upgrade, or force the upgrade: az aks upgrade --enable-force-upgrade, which takes pods away whatever their budgets say.",
		b.String()).At("properties.upgradeSettings.overrideSettings")
}
