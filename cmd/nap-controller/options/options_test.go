// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package options

import (
	"errors"
	"io"
	"strings"
	"testing"
)

func TestOptionsFromFlagsAndEnvironment(t *testing.T) {
	env := func(pairs ...string) func(string) (string, bool) {
		return func(name string) (string, bool) {
			for _, p := range pairs {
				if k, v, _ := strings.Cut(p, "="); k == name {
					return v, true
				}
			}
			return "", false
		}
	}
	who := []string{"ARM_SUBSCRIPTION_ID=s", "ARM_RESOURCE_GROUP=g", "CLUSTER_NAME=c"}
	o, err := Parse([]string{"--metrics-port=9000", "--additional-tags=a=1,b=2"}, env(append(who, "METRICS_PORT=1", "HEALTH_PROBE_PORT=9001")...), io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	if want := "/subscriptions/s/resourceGroups/g/providers/Microsoft.ContainerService/managedClusters/c"; o.Azure.ClusterResourceID != want {
		t.Errorf("cluster = %s, want %s", o.Azure.ClusterResourceID, want)
	}
	if o.MetricsPort != 9000 || o.HealthPort != 9001 {
		t.Errorf("ports = %d and %d, want the flag's 9000 and the variable's 9001", o.MetricsPort, o.HealthPort)
	}
	if o.Azure.AdditionalTags["b"] != "2" {
		t.Errorf("tags = %v", o.Azure.AdditionalTags)
	}
	for name, c := range map[string]struct {
		args []string
		env  []string
	}{
		"no cluster":         {nil, nil},
		"bad number":         {nil, append(who, "METRICS_PORT=x")},
		"bad tag":            {[]string{"--additional-tags=a"}, who},
		"same tag twice":     {[]string{"--additional-tags=a=1,A=2"}, who},
		"overhead above one": {[]string{"--vm-memory-overhead-percent=7.5"}, who},
		"stray argument":     {[]string{"start"}, who},
	} {
		if _, err := Parse(c.args, env(c.env...), io.Discard); err == nil {
			t.Errorf("%s: should be refused", name)
		}
	}
}

func TestVersionNeedsNoCluster(t *testing.T) {
	none := func(string) (string, bool) { return "", false }
	if _, err := Parse([]string{"--version"}, none, io.Discard); !errors.Is(err, ErrVersion) {
		t.Errorf("--version returns %v, want ErrVersion", err)
	}
}
