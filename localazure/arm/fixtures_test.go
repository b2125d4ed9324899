// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package arm_test

import (
	"encoding/json"
	"io"
	"net/http"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/nap-aks/nap/localazure/arm/armtest"
)

var withPrefix = clientv3.WithPrefix()

func decode(r io.Reader, v any) error { return json.NewDecoder(r).Decode(v) }

// eventually waits up to a minute until f returns true.
func eventually(t *testing.T, f func() bool) {
	t.Helper()
	for range 3000 {
		if f() {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	t.Error("the condition did not become true within a minute")
}

const group = "/subscriptions/" + armtest.Subscription + "/resourceGroups/rg"

func clusterBody(mode string) map[string]any {
	return map[string]any{"location": "eastus", "identity": map[string]any{"type": "SystemAssigned"}, "properties": map[string]any{
		"dnsPrefix": "nap", "nodeProvisioningProfile": map[string]any{"mode": mode},
		"networkProfile":    map[string]any{"networkPlugin": "azure", "networkPluginMode": "overlay", "networkDataplane": "cilium"},
		"agentPoolProfiles": []any{map[string]any{"name": "system", "mode": "System", "count": 3, "vmSize": "standard_d2s_v3"}}}}
}

const clusterID = group + "/providers/Microsoft.ContainerService/managedClusters/c"

func newGroup(a *armtest.Azure) {
	a.T.Helper()
	if r := a.Do(http.MethodPut, group, map[string]any{"location": "eastus"}); r.Status != 201 {
		a.T.Fatalf("creating the group: %d %s", r.Status, r.Body)
	}
}

func newCluster(a *armtest.Azure, mode string) {
	a.T.Helper()
	newGroup(a)
	a.MustSucceed(a.Do(http.MethodPut, clusterID, clusterBody(mode)))
}
