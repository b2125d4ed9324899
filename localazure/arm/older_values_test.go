// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package arm_test

import (
	"strings"
	"testing"

	"github.com/nap-aks/nap/localazure/arm/armtest"
)

// Clients of 2022 write the SKU as Basic and Paid, and read it so.
func TestOldAPIVersionsHaveTheirOwnEnums(t *testing.T) {
	a := armtest.New(t)
	a.Machinery()
	newGroup(a)
	body := clusterBody("Manual")
	body["sku"] = map[string]any{"name": "Basic", "tier": "Paid"}
	if r := a.Do("PUT", clusterID, body); r.Status != 400 || !strings.Contains(r.Message(), "'Basic' is none of Automatic, Base") {
		t.Errorf("Basic at the newest version: %d %s", r.Status, r.Body)
	}
	delete(body["properties"].(map[string]any), "nodeProvisioningProfile")
	a.MustSucceed(a.Wait(a.Do("PUT", clusterID+"?api-version=2022-11-01", body)))
	for version, want := range map[string]string{"2022-11-01": "Basic Paid", "2023-08-01": "Base Standard", "2026-02-01": "Base Standard"} {
		for _, get := range []string{clusterID, strings.TrimSuffix(clusterID, "/"+clusterID[strings.LastIndex(clusterID, "/")+1:])} {
			r := a.Do("GET", get+"?api-version="+version, nil)
			doc := r.JSON
			if list, ok := doc["value"].([]any); ok {
				doc = list[0].(map[string]any)
			}
			sku, _ := doc["sku"].(map[string]any)
			if got := strings.TrimSpace(str(sku["name"]) + " " + str(sku["tier"])); got != want {
				t.Errorf("%s at %s: sku %q, want %q", get, version, got, want)
			}
		}
	}
	// what the old version has written, it may write again
	a.MustSucceed(a.Wait(a.Do("PUT", clusterID+"?api-version=2022-11-01", a.Do("GET", clusterID+"?api-version=2022-11-01", nil).JSON)))
	body["sku"] = map[string]any{"name": "Basic", "tier": "Gold"}
	if r := a.Do("PUT", clusterID+"?api-version=2022-11-01", body); r.Status != 400 || !strings.Contains(r.Message(), "'Gold' is none of") {
		t.Errorf("Gold: %d %s", r.Status, r.Body)
	}
}

func str(v any) string { s, _ := v.(string); return s }
