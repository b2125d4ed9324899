// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package containerservice

import (
	"slices"
	"testing"

	"github.com/nap-aks/nap/localazure/arm/rp"
)

func TestDefaultVersionIsTheMinorBeforeTheNewest(t *testing.T) {
	for _, x := range []struct {
		list []string
		want string
	}{
		{DefaultVersions, "1.36.3"},
		{[]string{"1.37.2", "1.36.10", "1.36.9", "1.35.6"}, "1.36.10"},
		{[]string{"1.36.2", "1.36.3"}, "1.36.3"},
		{[]string{"1.36.2"}, "1.36.2"},
	} {
		v := newVersions(x.list)
		if got, err := v.resolve("", "eastus"); err != nil || got != x.want {
			t.Errorf("default of %v: %s (%v), want %s", x.list, got, err, x.want)
		}
	}
}

func TestVersionsAreThoseThatAKSSupports(t *testing.T) {
	p := &Provider{env: &rp.Env{Locations: []rp.Location{{Name: "eastus"}}}, versions: newVersions(DefaultVersions)}
	r, err := p.kubernetesVersions(t.Context(), &rp.Request{ID: rp.ID{Names: []string{"eastus"}}})
	if err != nil {
		t.Fatal(err)
	}
	var minors, defaults []string
	for _, x := range r.Body.(map[string]any)["values"].([]any) {
		d := rp.Doc(x.(map[string]any))
		minors = append(minors, d.Str("version"))
		if d.Bool("isDefault") {
			defaults = append(defaults, d.Str("version"))
		}
	}
	if want := []string{"1.35", "1.36", "1.37"}; !slices.Equal(minors, want) {
		t.Errorf("minor versions %v, want %v", minors, want)
	}
	if want := []string{"1.36"}; !slices.Equal(defaults, want) {
		t.Errorf("default versions %v, want %v", defaults, want)
	}
	for from, want := range map[string][]string{"1.35.6": {"1.36.2", "1.36.3"}, "1.36.3": {"1.37.1", "1.37.2"}, "1.37.2": nil, "1.34.9": {"1.35.5", "1.35.6"}} {
		if got := p.versions.upgrades(from); !slices.Equal(got, want) {
			t.Errorf("upgrades of %s: %v, want %v", from, got, want)
		}
	}
}
