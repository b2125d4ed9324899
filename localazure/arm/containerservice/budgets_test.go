package containerservice

import (
	"slices"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/nap-aks/nap/localazure/arm/rp"
)

func TestNeverBudgets(t *testing.T) {
	var items []unstructured.Unstructured
	for name, spec := range map[string]map[string]any{
		"none":         {"maxUnavailable": int64(0)},
		"none-percent": {"maxUnavailable": "0%"},
		"one":          {"maxUnavailable": int64(1)},
		"a-percent":    {"maxUnavailable": "1%"}, // rounds up
		"all-there":    {"minAvailable": "100%"}, // AKS finds these when it drains
		"nothing-said": {},
	} {
		items = append(items, unstructured.Unstructured{Object: map[string]any{
			"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": map[string]any{"namespace": "shop", "name": name}, "spec": spec,
		}})
	}
	got, err := neverBudgets(items)
	if want := []string{"shop/none", "shop/none-percent"}; err != nil || !slices.Equal(got, want) {
		t.Errorf("%v (%v), want %v", got, err, want)
	}
}

func TestForced(t *testing.T) {
	now := time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC)
	for name, x := range map[string]struct {
		override map[string]any
		want     bool
	}{
		"nothing":          {nil, false},
		"without an end":   {map[string]any{"forceUpgrade": true}, false},
		"before the end":   {map[string]any{"forceUpgrade": true, "until": "2026-11-25T12:00:01.000Z"}, true},
		"another zone":     {map[string]any{"forceUpgrade": true, "until": "2026-11-25T12:30:00+01:00"}, false},
		"at the end":       {map[string]any{"forceUpgrade": true, "until": "2026-11-25T12:00:00Z"}, false},
		"switched off":     {map[string]any{"forceUpgrade": false, "until": "2026-11-26T12:00:00Z"}, false},
		"an end that none": {map[string]any{"forceUpgrade": true, "until": "tomorrow"}, false},
	} {
		d := rp.Doc{}
		d.Set(x.override, overridePath...)
		if got := forced(d, now); got != x.want {
			t.Errorf("%s: %v, want %v", name, got, x.want)
		}
	}
}
