// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package cloud_test

import (
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nap-aks/nap/azure"
	"github.com/nap-aks/nap/test/sim/cloud"
)

// arm makes requests without the SDK.
type arm struct {
	t *testing.T
	*cloud.Cloud
}

// withARM runs f in a bubble with a cloud.
func withARM(t *testing.T, o cloud.Options, f func(a *arm)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		c, err := cloud.New(o)
		if err != nil {
			t.Fatal(err)
		}
		f(&arm{t, c})
	})
}

// answer is what a request got.
type answer struct {
	status int
	header http.Header
	body   struct {
		Status string
		Error  struct {
			Code    string
			Details []struct{ Code, Target string }
		}
		Value      []json.RawMessage
		Items      []struct{ ArmSKUName, SKUName, ArmRegionName string }
		Next       string `json:"NextPageLink"`
		Zones      []string
		Properties struct {
			ProvisioningState, ResourceID, ETag, Priority, NodeResourceGroup string
			Kubernetes                                                       struct{ NodeName string }
			Status                                                           struct{ VMState string }
		}
	}
}

const machinesPath = cloud.ClusterID + "/agentPools/" + azure.DefaultMachinesPool + "/machines"

func machineURL(name string) string {
	return cloud.Endpoint + machinesPath + "/" + name + "?api-version=2025-10-02-preview"
}

const deleteURL = cloud.Endpoint + cloud.ClusterID + "/agentPools/" + azure.DefaultMachinesPool + "/deleteMachines?api-version=2025-10-02-preview"

// do makes a request; header are keys and values.
func (a *arm) do(method, url, body string, header ...string) answer {
	a.t.Helper()
	r, err := http.NewRequestWithContext(a.t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		a.t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer token")
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	resp, err := a.Transport().RoundTrip(r)
	if err != nil {
		a.t.Fatal(err)
	}
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		a.t.Fatal(err)
	}
	out := answer{status: resp.StatusCode, header: resp.Header}
	if len(text) > 0 {
		if err := json.Unmarshal(text, &out.body); err != nil {
			a.t.Fatalf("%s %s answered %s: %v", method, url, text, err)
		}
	}
	return out
}

const d2 = `{"zones":["1"],"properties":{"hardware":{"vmSize":"standard_d2s_v5"},"priority":"Regular","tags":{"karpenter.sh_nodepool":"default"}}}`

func TestARMRefuses(t *testing.T) {
	put := func(body string) func(*arm) answer {
		return func(a *arm) answer { return a.do("PUT", machineURL("new"), body) }
	}
	tests := []struct {
		name   string
		do     func(*arm) answer
		status int
		code   string
	}{
		{"requests without a token", func(a *arm) answer { return a.do("GET", machineURL("old"), "", "Authorization", "") }, 401, "AuthenticationFailed"},
		{"requests without a version", func(a *arm) answer { return a.do("GET", cloud.Endpoint+machinesPath, "") }, 400, "MissingApiVersionParameter"},
		{"unknown resources", func(a *arm) answer { return a.do("GET", cloud.Endpoint+"/subscriptions?api-version=1", "") }, 404, "ResourceNotFound"},
		{"unknown machines", func(a *arm) answer { return a.do("GET", machineURL("none"), "") }, 404, "NotFound"},
		{"unknown operations", func(a *arm) answer {
			return a.do("GET", cloud.Endpoint+"/subscriptions/"+cloud.Subscription+"/providers/Microsoft.ContainerService/locations/sim/operations/9?api-version=1", "")
		}, 404, "OperationNotFound"},
		{"the deletion of unknown machines", func(a *arm) answer { return a.do("POST", deleteURL, `{"machineNames":["none"]}`) }, 400, "InvalidParameter"},
		{"the deletion of nothing", func(a *arm) answer { return a.do("POST", deleteURL, `{}`) }, 400, "InvalidParameter"},
		{"bodies that are no machine", put(`{"properties":{}}`), 400, "InvalidParameter"},
		{"unknown sizes", put(`{"properties":{"hardware":{"vmSize":"Standard_X"}}}`), 400, "VMSizeNotSupported"},
		{"zones that a size does not have", put(`{"zones":["9"],"properties":{"hardware":{"vmSize":"Standard_D2s_v5"}}}`), 400, "AvailabilityZoneNotSupported"},
		{"two zones", put(`{"zones":["1","2"],"properties":{"hardware":{"vmSize":"Standard_D2s_v5"}}}`), 400, "InvalidParameter"},
		{"spot machines of sizes without", put(`{"properties":{"priority":"Spot","hardware":{"vmSize":"Standard_B2s"}}}`), 400, "VMSizeNotSupported"},
		{"an older version", func(a *arm) answer { return a.do("PUT", machineURL("old"), d2, "If-Match", "0") }, 412, "PreconditionFailed"},
		{"a second machine of a name", func(a *arm) answer { return a.do("PUT", machineURL("old"), d2, "If-None-Match", "*") }, 412, "PreconditionFailed"},
		{"another size", func(a *arm) answer {
			return a.do("PUT", machineURL("old"), strings.Replace(d2, "d2s", "d4s", 1))
		}, 400, "PropertyChangeNotAllowed"},
		{"another zone", func(a *arm) answer {
			return a.do("PUT", machineURL("old"), strings.Replace(d2, `"1"`, `"2"`, 1))
		}, 400, "PropertyChangeNotAllowed"},
		{"changes of machines being deleted", func(a *arm) answer {
			a.do("POST", deleteURL, `{"machineNames":["old"]}`)
			return a.do("PUT", machineURL("old"), d2)
		}, 409, "OperationNotAllowed"},
		{"batches of nothing", func(a *arm) answer {
			return a.do("PUT", machineURL("new"), d2, "BatchPutMachine", `{"batchMachines":[]}`)
		}, 400, "InvalidParameter"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			withARM(t, options(), func(a *arm) {
				if got := a.do("PUT", machineURL("old"), d2); got.status != 201 {
					t.Fatalf("creating a machine: %d %+v", got.status, got.body)
				}
				if got := tt.do(a); got.status != tt.status || got.body.Error.Code != tt.code {
					t.Fatalf("answered %d %s, want %d %s", got.status, got.body.Error.Code, tt.status, tt.code)
				}
				if n := a.Counts().Asked; n != 1 {
					t.Fatalf("%d machines were made, want one", n)
				}
			})
		})
	}
}

func TestARMOperations(t *testing.T) {
	withARM(t, options(), func(a *arm) {
		made := a.do("PUT", machineURL("one"), d2)
		p := made.body.Properties
		if made.status != 201 || p.ProvisioningState != "Creating" || p.Priority != "" || made.header.Get("Retry-After") != "1" ||
			p.Kubernetes.NodeName != "aks-aksmanagedap-one-00000000-vm" || !strings.HasSuffix(p.ResourceID, "/virtualMachines/"+p.Kubernetes.NodeName) {
			t.Fatalf("creating: %+v", made)
		}
		operation := made.header.Get("Azure-AsyncOperation")
		if got := a.do("GET", operation, ""); got.body.Status != "InProgress" || got.header.Get("Retry-After") == "" {
			t.Fatalf("operation: %+v", got)
		}
		time.Sleep(20 * time.Second)
		if got := a.do("GET", operation, ""); got.body.Status != "Succeeded" || got.header.Get("Retry-After") != "" {
			t.Fatalf("operation: %+v", got)
		}
		got := a.do("GET", machineURL("one"), "")
		if got.body.Properties.ProvisioningState != "Succeeded" || got.body.Properties.Status.VMState != "Running" || got.body.Zones[0] != "1" {
			t.Fatalf("machine: %+v", got.body)
		}
		changed := a.do("PUT", machineURL("one"), strings.Replace(d2, `"default"`, `"other"`, 1), "If-Match", got.body.Properties.ETag)
		if changed.status != 200 || changed.body.Properties.ETag == got.body.Properties.ETag || a.Machines()[0].NodePool != "other" {
			t.Fatalf("changing tags: %+v, machine %+v", changed, a.Machines()[0])
		}

		deleted := a.do("POST", deleteURL, `{"machineNames":["one","none"]}`)
		if deleted.status != 202 || a.Machines()[0].Alive() {
			t.Fatalf("deleting: %+v", deleted)
		}
		if got := a.do("GET", deleted.header.Get("Location"), ""); got.status != 202 || got.header.Get("Location") == "" {
			t.Fatalf("result of the deletion: %+v", got)
		}
		time.Sleep(20 * time.Second)
		if got := a.do("GET", deleted.header.Get("Location"), ""); got.status != 204 {
			t.Fatalf("result of the deletion: %+v", got)
		}
		if got := a.do("GET", machineURL("one"), ""); got.status != 404 {
			t.Fatalf("machine after its deletion: %+v", got)
		}

		// The name can be used again, for another virtual machine.
		again := a.do("PUT", machineURL("one"), d2)
		if again.status != 201 || again.body.Properties.ResourceID == p.ResourceID {
			t.Fatalf("creating again: %+v", again)
		}
		a.do("POST", deleteURL, `{"machineNames":["one"]}`)
		if got := a.do("GET", again.header.Get("Azure-AsyncOperation"), ""); got.body.Status != "Failed" || got.body.Error.Code != "OperationPreempted" {
			t.Fatalf("creation of a machine that was deleted: %+v", got)
		}
		time.Sleep(time.Minute)
		if n := len(a.Machines()); n != 0 || a.MachineOf(p.Kubernetes.NodeName) != nil {
			t.Fatalf("%d machines exist", n)
		}
		time.Sleep(time.Hour)
		if got := a.do("GET", operation, ""); got.status != 404 {
			t.Fatalf("operation after an hour: %+v", got)
		}
	})
}

func TestFailedOperationsSayWhy(t *testing.T) {
	withARM(t, options(), func(a *arm) {
		a.SellOut(cloud.StockOut{Zone: "1"})
		made := a.do("PUT", machineURL("one"), d2)
		time.Sleep(20 * time.Second)
		if got := a.do("GET", made.header.Get("Azure-AsyncOperation"), ""); got.body.Status != "Failed" || got.body.Error.Code != "ZonalAllocationFailed" {
			t.Fatalf("operation: %+v", got)
		}
		if got := a.do("GET", machineURL("one"), ""); got.body.Properties.ProvisioningState != "Failed" {
			t.Fatalf("machine: %+v", got)
		}
	})
}

func TestBatches(t *testing.T) {
	withARM(t, options(), func(a *arm) {
		const header = `{"batchMachines":[{"machineName":"one","zones":["1"],"tags":{"karpenter.sh_nodepool":"x"}},{"machineName":"two","zones":["2"]},{"machineName":"three","zones":["9"]}]}`
		got := a.do("PUT", machineURL("one"), d2, "BatchPutMachine", header)
		if got.status != 400 || got.body.Error.Code != "BatchMachineClientError" || len(got.body.Error.Details) != 1 || got.body.Error.Details[0].Target != "three" {
			t.Fatalf("batch: %+v", got)
		}
		if list := a.Machines(); len(list) != 2 || list[0].Zone != "1" || list[1].Zone != "2" || list[0].NodePool != "x" || list[1].NodePool != "" {
			t.Fatalf("machines %+v", list)
		}
		if got := a.do("PUT", machineURL("four"), d2, "BatchPutMachine", `{"batchMachines":[{"machineName":"four"}]}`); got.status != 201 {
			t.Fatalf("batch: %+v", got)
		}
	})
}

func TestRetailPricesHavePages(t *testing.T) {
	withARM(t, options(), func(a *arm) {
		seen := map[string]bool{}
		pages := 0
		for url := cloud.PricesEndpoint + "/api/retail/prices?%24filter=armRegionName+eq+%27eastus%27"; url != ""; pages++ {
			got := a.do("GET", url, "", "Authorization", "")
			for _, item := range got.body.Items {
				if seen[item.SKUName] || item.ArmRegionName != "eastus" {
					t.Fatalf("item %+v", item)
				}
				seen[item.SKUName] = true
			}
			url = got.body.Next
		}
		if pages < 2 || !seen["D2s v5"] || !seen["D2s v5 Spot"] {
			t.Fatalf("%d pages, %d prices", pages, len(seen))
		}
		if got := a.do("GET", cloud.PricesEndpoint+"/api/retail/prices?%24filter=armRegionName+eq+%27mars%27", ""); len(got.body.Items) != 0 {
			t.Fatalf("prices of another region: %+v", got.body.Items)
		}
	})
}

func TestBudgetsOfAzure(t *testing.T) {
	o := options()
	o.Budgets = cloud.AzureBudgets()
	o.Latency = cloud.Span{}
	withARM(t, o, func(a *arm) {
		for i := range 61 {
			got := a.do("GET", cloud.Endpoint+machinesPath+"?api-version=1", "")
			if want := map[bool]int{true: 200, false: 429}[i < 60]; got.status != want || want == 429 && got.header.Get("Retry-After") != "1" {
				t.Fatalf("list %d answered %d, Retry-After %q", i+1, got.status, got.header.Get("Retry-After"))
			}
		}
		time.Sleep(time.Second)
		if got := a.do("GET", cloud.Endpoint+machinesPath+"?api-version=1", ""); got.status != 200 {
			t.Fatalf("list after a second answered %d", got.status)
		}
		// Requests to other providers have Azure Resource Manager's budget only.
		if got := a.do("GET", cloud.Endpoint+"/subscriptions/"+cloud.Subscription+"/providers/Microsoft.Compute/locations/eastus/usages?api-version=1", ""); got.status != 200 {
			t.Fatalf("usages answered %d", got.status)
		}
	})
}
