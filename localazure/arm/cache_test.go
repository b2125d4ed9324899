// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package arm_test

import (
	"strings"
	"testing"

	"github.com/nap-aks/nap/localazure/arm/armtest"
)

// A cached body is never older than the records that it is made of: the cluster's
// and those of its pools.
func TestCachedBodiesAreCurrent(t *testing.T) {
	a := armtest.New(t)
	a.Machinery()
	newCluster(a, "Manual")
	list := group + "/providers/Microsoft.ContainerService/managedClusters"
	check := func(when, want string, there bool) {
		t.Helper()
		for _, path := range []string{clusterID, list} {
			for range 2 {
				if r := a.Do("GET", path, nil); strings.Contains(r.Body, want) != there {
					t.Errorf("%s, %s has %s: %v; %s", when, path, want, !there, r.Body)
				}
			}
		}
	}
	check("new", `"name":"extra"`, false)
	a.MustSucceed(a.Do("PUT", clusterID+"/agentPools/extra", map[string]any{"properties": map[string]any{"count": 1, "mode": "User"}}))
	check("with a pool", `"name":"extra"`, true)
	a.MustSucceed(a.Do("PUT", clusterID+"/agentPools/extra", map[string]any{"properties": map[string]any{"count": 2, "nodeLabels": map[string]any{"a": "b"}}}))
	check("with the pool changed", `"nodeLabels":{"a":"b"}`, true)
	a.MustSucceed(a.Do("DELETE", clusterID+"/agentPools/extra", nil))
	check("without it", `"name":"extra"`, false)
	if r := a.Do("PATCH", clusterID, map[string]any{"tags": map[string]any{"x": "y"}}); r.Status != 200 {
		t.Fatal(r.Body)
	}
	check("tagged", `"tags":{"x":"y"}`, true)
	// Another API version has another body.
	if r := a.Do("GET", clusterID+"?api-version=2022-11-01", nil); strings.Contains(r.Body, "nodeProvisioningProfile") {
		t.Errorf("at API version 2022-11-01: %s", r.Body)
	}
	check("now", "nodeProvisioningProfile", true)
}
