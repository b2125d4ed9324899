// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	"strings"
	"testing"
	"time"

	karpoptions "sigs.k8s.io/karpenter/pkg/operator/options"

	"github.com/nap-aks/nap/controllers/machines"
)

func TestDeadlinesOfOptions(t *testing.T) {
	var o Options
	if err := o.setDeadlines(); err != nil || o.LaunchTimeout != machines.LaunchDeadline || o.RegistrationTimeout != machines.RegistrationDeadline || o.InitializationTimeout != machines.InitializationDeadline {
		t.Errorf("defaults: %v, %+v", err, o)
	}
	for _, c := range []struct {
		name string
		o    Options
		ok   bool
	}{
		{"shorter", Options{LaunchTimeout: time.Minute, RegistrationTimeout: time.Minute, InitializationTimeout: time.Minute}, true},
		{"no deadline for the initialization", Options{InitializationTimeout: -1}, true},
		{"negative launch", Options{LaunchTimeout: -1}, false},
		{"later than Karpenter's", Options{LaunchTimeout: 10 * time.Minute}, false},
	} {
		if err := c.o.setDeadlines(); (err == nil) != c.ok {
			t.Errorf("%s: %v, want accepted %t", c.name, err, c.ok)
		}
	}
}

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
