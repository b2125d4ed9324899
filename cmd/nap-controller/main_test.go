package main

import (
	"os"
	"strings"
	"testing"
)

func TestOptionsFromFlagsAndEnvironment(t *testing.T) {
	null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
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
	o, err := parse([]string{"--metrics-port=9000", "--additional-tags=a=1,b=2"}, env(append(who, "METRICS_PORT=1", "HEALTH_PROBE_PORT=9001")...), null)
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
		if _, err := parse(c.args, env(c.env...), null); err == nil {
			t.Errorf("%s: should be refused", name)
		}
	}
}
