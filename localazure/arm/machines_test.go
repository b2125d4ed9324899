// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package arm_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/nap-aks/nap/localazure/arm/armtest"
)

func TestMachineErrors(t *testing.T) {
	a := armtest.New(t)
	a.Machinery()
	newCluster(a, "Auto")
	put := func(name, size string, extra map[string]any) armtest.Reply {
		props := map[string]any{"hardware": map[string]any{"vmSize": size}}
		for k, v := range extra {
			props[k] = v
		}
		return a.Do("PUT", clusterID+"/agentPools/aksmanagedap/machines/"+name, map[string]any{"properties": props})
	}
	if r := put("m1", "Standard_Nonsense", nil); r.Status != 400 || r.Code() != "VMSizeNotSupported" {
		t.Errorf("an unknown size: %d %s", r.Status, r.Body)
	}
	// The quota of six vCPUs of the family allows one machine of four, not two.
	if _, err := a.Etcd.Put(t.Context(), "/nap/arm/quota/eastus/standarddsv5family", "6"); err != nil {
		t.Fatal(err)
	}
	usages := sub + "/providers/Microsoft.Compute/locations/eastus/usages"
	eventually(t, func() bool { return strings.Contains(a.Do("GET", usages, nil).Body, `"limit":6`) })
	a.MustSucceed(put("m2", "Standard_D4s_v5", nil))
	r := put("m3", "Standard_D4s_v5", nil)
	if r.Status != http.StatusCreated {
		t.Fatalf("%d %s", r.Status, r.Body)
	}
	if end := a.Wait(r); end.JSON["status"] != "Failed" || !strings.Contains(end.Body, "Family Cores quota") || !strings.Contains(end.Body, "Current Limit: 6") {
		t.Errorf("over quota: %s", end.Body)
	}
	g := a.Do("GET", clusterID+"/agentPools/aksmanagedap/machines/m3", nil)
	if !strings.Contains(g.Body, `"provisioningState":"Failed"`) || !strings.Contains(g.Body, `"provisioningError"`) || !strings.Contains(g.Body, "OperationNotAllowed") {
		t.Errorf("the failed machine: %s", g.Body)
	}
	a.MustSucceed(put("m4", "Standard_D4s_v5", map[string]any{"priority": "Spot"}))
	u := a.Do("GET", sub+"/providers/Microsoft.Compute/locations/eastus/usages", nil)
	if !strings.Contains(u.Body, `"currentValue":4,"limit":6`) {
		t.Errorf("usages do not show 4 of 6")
	}
	// A batch of three, of which one exists.
	head := `{"batchMachines":[{"machineName":"m2","zones":["1"],"tags":{}},{"machineName":"b1","zones":["1"],"tags":{"x":"1"}},{"machineName":"b2","zones":["2"],"tags":{"x":"2"}}]}`
	r = a.Do("PUT", clusterID+"/agentPools/aksmanagedap/machines/b1", map[string]any{"properties": map[string]any{"hardware": map[string]any{"vmSize": "Standard_E2s_v5"}}}, "BatchPutMachine", head)
	if r.Status != 400 || r.Code() != "BatchMachineClientError" || !strings.Contains(r.Body, `"target":"m2"`) {
		t.Errorf("batch: %d %s", r.Status, r.Body)
	}
	b2 := a.Do("GET", clusterID+"/agentPools/aksmanagedap/machines/b2", nil)
	if fmt.Sprint(b2.JSON["zones"]) != "[2]" || !strings.Contains(b2.Body, `"x":"2"`) {
		t.Errorf("b2: %s", b2.Body)
	}
	if r := a.Do("POST", clusterID+"/agentPools/aksmanagedap/deleteMachines", map[string]any{"machineNames": []string{"nothere"}}); r.Status != 400 || !strings.Contains(r.Message(), "Cannot find any valid machines") {
		t.Errorf("deleting an unknown machine: %d %s", r.Status, r.Body)
	}
}
