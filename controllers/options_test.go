// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	"strings"
	"testing"

	karpoptions "sigs.k8s.io/karpenter/pkg/operator/options"
)

// The default policy is nap's own; Karpenter's code gets the nearest of its own.
func TestPreferencePolicy(t *testing.T) {
	for given, want := range map[string]karpoptions.PreferencePolicy{
		"": karpoptions.PreferencePolicyRespect, PreferencesPriced: karpoptions.PreferencePolicyRespect,
		"Respect": karpoptions.PreferencePolicyRespect, "Ignore": karpoptions.PreferencePolicyIgnore,
	} {
		o := Options{PreferencePolicy: given}
		o.Azure.ClusterResourceID = "/subscriptions/s/resourceGroups/g/providers/Microsoft.ContainerService/managedClusters/c"
		if err := o.setDefaults(); err != nil {
			t.Fatal(err)
		}
		if given == "" && o.PreferencePolicy != PreferencesPriced {
			t.Errorf("the default is %q", o.PreferencePolicy)
		}
		k, err := o.karpenter()
		if err != nil {
			t.Fatal(err)
		}
		if k.PreferencePolicy != want {
			t.Errorf("%q: Karpenter gets %q, want %q", given, k.PreferencePolicy, want)
		}
	}
	o := Options{PreferencePolicy: "priced"}
	if err := o.setDefaults(); err == nil || !strings.Contains(err.Error(), `"priced"`) {
		t.Errorf("an unknown policy: %v", err)
	}
}
