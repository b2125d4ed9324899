// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package azure

import (
	"encoding/json"
	"encoding/pem"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/to"
	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/compute/armcompute/v8"
	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/containerservice/armcontainerservice/v8"

	"github.com/nap-aks/nap/catalog"
)

const (
	testSubscription = "11111111-1111-1111-1111-111111111111"
	testClusterID    = "/subscriptions/" + testSubscription + "/resourceGroups/RG/providers/Microsoft.ContainerService/managedClusters/napcluster"
	testTenant       = "22222222-2222-2222-2222-222222222222"
)

// fakeARM answers the calls of the provider as Azure does: tokens, the cluster,
// sizes, usages, image versions, and machines that come up after some polls.
type fakeARM struct {
	*httptest.Server
	caFile string

	mu       sync.Mutex
	machines map[string]*armcontainerservice.Machine
	polls    map[string]int // how often an in-flight machine was listed
	requests []string       // method and last path part, in order
	bodies   []armcontainerservice.Machine
	headers  []http.Header
	usages   []usageRow
	// putError rejects a PUT; failure makes the machine fail while it is created.
	putError func(m *armcontainerservice.Machine) (status int, code, message string)
	failure  func(m *armcontainerservice.Machine) (code, message string)
	// slow is how often a machine is listed before it is up.
	slow int
}

type usageRow struct {
	name           string
	current, limit int
}

func newFakeARM(t *testing.T) *fakeARM {
	t.Helper()
	f := &fakeARM{machines: map[string]*armcontainerservice.Machine{}, polls: map[string]int{}}
	f.Server = httptest.NewTLSServer(f)
	t.Cleanup(f.Close)
	f.caFile = filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(f.caFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: f.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	return f
}

func (f *fakeARM) config() Config {
	return Config{
		ARMEndpoint: f.URL, TenantID: testTenant, ClientID: "33333333-3333-3333-3333-333333333333", ClientSecret: "secret",
		CAFile: f.caFile, ClusterResourceID: testClusterID, VMMemoryOverheadPercent: -1,
	}
}

// poolPath is the path of the machines pool, in lower case.
var poolPath = strings.ToLower(testClusterID) + "/agentpools/" + DefaultMachinesPool

func reply(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	if err := json.NewEncoder(w).Encode(v); err != nil {
		panic(err)
	}
}

func fail(w http.ResponseWriter, status int, code, message string) {
	reply(w, status, map[string]any{"error": map[string]any{"code": code, "message": message}})
}

func lastSegment(path string) string { return path[strings.LastIndex(path, "/")+1:] }

func (f *fakeARM) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	path := strings.ToLower(r.URL.Path)
	if !f.authorize(w, r, path) {
		return
	}
	if !strings.Contains(path, "/machines/") || r.Method != http.MethodGet {
		f.requests = append(f.requests, r.Method+" "+lastSegment(r.URL.Path))
	}
	switch {
	case path == strings.ToLower(testClusterID):
		reply(w, 200, map[string]any{"id": testClusterID, "name": "napcluster", "location": "East US", "properties": map[string]any{
			"nodeResourceGroup": "MC_RG_napcluster_eastus", "networkProfile": map[string]any{"networkPlugin": "azure", "networkPluginMode": "overlay"},
		}})
	case strings.HasSuffix(path, "/providers/microsoft.compute/skus"):
		f.listSKUs(w)
	case strings.HasSuffix(path, "/usages"):
		f.listUsages(w)
	case strings.HasSuffix(path, "/nodeimageversions"):
		f.listNodeImageVersions(w)
	case path == poolPath+"/machines":
		f.listMachines(w)
	case strings.HasPrefix(path, poolPath+"/machines/") && r.Method == http.MethodGet:
		f.getMachine(w, r)
	case strings.HasPrefix(path, poolPath+"/machines/"):
		f.putMachine(w, r)
	case strings.HasPrefix(path, "/subscriptions/"+testSubscription+"/operations/"):
		reply(w, 200, map[string]string{"status": "Succeeded"})
	case path == poolPath+"/deletemachines":
		f.deleteMachines(w, r)
	default:
		fail(w, 404, "ResourceNotFound", r.Method+" "+r.URL.Path)
	}
}

// authorize serves tokens and reports whether another request has a token and an
// API version.
func (f *fakeARM) authorize(w http.ResponseWriter, r *http.Request, path string) bool {
	switch {
	case strings.HasSuffix(path, "/.well-known/openid-configuration"):
		base := f.URL + "/" + testTenant
		reply(w, 200, map[string]string{"issuer": base + "/v2.0", "authorization_endpoint": base + "/oauth2/v2.0/authorize", "token_endpoint": base + "/oauth2/v2.0/token"})
	case strings.HasSuffix(path, "/oauth2/v2.0/token"):
		reply(w, 200, map[string]any{"token_type": "Bearer", "expires_in": 3600, "access_token": "token"})
	case r.Header.Get("Authorization") != "Bearer token":
		fail(w, 401, "AuthenticationFailed", "no token")
	case r.URL.Query().Get("api-version") == "":
		fail(w, 400, "MissingApiVersionParameter", "no api-version")
	default:
		return true
	}
	return false
}

func (f *fakeARM) listSKUs(w http.ResponseWriter) {
	var skus []*armcompute.ResourceSKU
	for _, s := range catalog.SKUs("eastus") {
		if strings.HasPrefix(*s.Name, "Standard_D") && strings.HasSuffix(*s.Name, "s_v5") || *s.Name == "Standard_NC24ads_A100_v4" {
			skus = append(skus, s)
		}
	}
	reply(w, 200, armcompute.ResourceSKUsResult{Value: skus})
}

func (f *fakeARM) listUsages(w http.ResponseWriter) {
	var list armcompute.ListUsagesResult
	for _, u := range f.usages {
		list.Value = append(list.Value, &armcompute.Usage{Name: &armcompute.UsageName{Value: to.Ptr(u.name)}, CurrentValue: to.Ptr(int32(u.current)), Limit: to.Ptr(int64(u.limit)), Unit: to.Ptr("Count")})
	}
	reply(w, 200, list)
}

func (f *fakeARM) listNodeImageVersions(w http.ResponseWriter) {
	var list armcontainerservice.NodeImageVersionsListResult
	for _, v := range []string{"AKSUbuntu 2404gen2containerd 202610.15.0", "AKSUbuntu 2404gen2containerd 202611.2.0", "AKSUbuntu 2404containerd 202611.2.0", "AKSUbuntu 2404gen2arm64containerd 202611.2.0", "AKSWindows 2022 1.2.3"} {
		p := strings.Fields(v)
		list.Value = append(list.Value, &armcontainerservice.NodeImageVersion{OS: &p[0], SKU: &p[1], Version: &p[2]})
	}
	reply(w, 200, list)
}

func (f *fakeARM) listMachines(w http.ResponseWriter) {
	list := armcontainerservice.MachineListResult{Value: []*armcontainerservice.Machine{}}
	for _, n := range slices.Sorted(maps.Keys(f.machines)) {
		f.advance(n)
		if m := f.machines[n]; m != nil {
			list.Value = append(list.Value, m)
		}
	}
	reply(w, 200, list)
}

func (f *fakeARM) getMachine(w http.ResponseWriter, r *http.Request) {
	name := lastSegment(r.URL.Path)
	m := f.machines[name]
	if m == nil {
		fail(w, 404, "NotFound", "no machine "+name)
		return
	}
	reply(w, 200, m)
}

func (f *fakeARM) putMachine(w http.ResponseWriter, r *http.Request) {
	name := lastSegment(r.URL.Path)
	var m armcontainerservice.Machine
	if err := json.NewDecoder(r.Body).Decode(&m); err != nil {
		fail(w, 400, "InvalidRequestContent", err.Error())
		return
	}
	old := f.machines[name]
	if want := r.Header.Get("If-Match"); want != "" && (old == nil || deref(old.Properties.ETag) != want) {
		fail(w, 412, "PreconditionFailed", "the ETag does not match")
		return
	}
	if f.putError != nil {
		if status, code, message := f.putError(&m); status != 0 {
			fail(w, status, code, message)
			return
		}
	}
	f.bodies = append(f.bodies, m)
	f.headers = append(f.headers, r.Header.Clone())
	id := testClusterID + "/agentPools/" + DefaultMachinesPool + "/machines/" + name
	m.ID, m.Name = to.Ptr(id), to.Ptr(name)
	m.Properties.ETag = to.Ptr(fmt.Sprint("etag", len(f.bodies)))
	m.Properties.ProvisioningState = to.Ptr("Creating")
	m.Properties.Status = &armcontainerservice.MachineStatus{CreationTimestamp: to.Ptr(time.Now())}
	if deref(m.Properties.Priority) == armcontainerservice.ScaleSetPriorityRegular {
		m.Properties.Priority = nil // as AKS does
	}
	if old != nil {
		m.Properties.ProvisioningState, m.Properties.ResourceID = to.Ptr("Succeeded"), old.Properties.ResourceID
	}
	f.machines[name] = &m
	f.polls[name] = 0
	w.Header().Set("x-ms-retry-after-ms", "1")
	w.Header().Set("Azure-AsyncOperation", f.URL+"/subscriptions/"+testSubscription+"/operations/"+name+"?api-version=1")
	reply(w, 201, m)
}

func (f *fakeARM) deleteMachines(w http.ResponseWriter, r *http.Request) {
	var p armcontainerservice.AgentPoolDeleteMachinesParameter
	if err := json.NewDecoder(r.Body).Decode(&p); err != nil {
		fail(w, 400, "InvalidRequestContent", err.Error())
		return
	}
	for _, n := range p.MachineNames {
		if f.machines[*n] == nil {
			fail(w, 400, "InvalidParameter", "Cannot find any valid machines")
			return
		}
		f.machines[*n].Properties.ProvisioningState = to.Ptr("Deleting")
		f.polls[*n] = 0
	}
	w.Header().Set("Location", f.URL+"/subscriptions/"+testSubscription+"/operations/delete?api-version=1")
	w.WriteHeader(202)
}

// advance moves a machine to its next state after enough polls.
func (f *fakeARM) advance(name string) {
	m := f.machines[name]
	if f.polls[name]++; f.polls[name] <= f.slow {
		return
	}
	switch state(m) {
	case "Creating":
		if f.failure != nil {
			if code, message := f.failure(m); code != "" {
				m.Properties.ProvisioningState = to.Ptr("Failed")
				m.Properties.Status.ProvisioningError = &armcontainerservice.ErrorDetail{Code: to.Ptr("VMCreateFailed"), Message: to.Ptr("outer"),
					Details: []*armcontainerservice.ErrorDetail{{Code: to.Ptr(code), Message: to.Ptr(message)}}}
				return
			}
		}
		m.Properties.ProvisioningState = to.Ptr("Succeeded")
		m.Properties.ResourceID = to.Ptr("/subscriptions/" + testSubscription + "/resourceGroups/MC_RG_napcluster_eastus/providers/Microsoft.Compute/virtualMachines/aks-" + DefaultMachinesPool + "-" + name + "-12345678-vm")
	case "Deleting":
		delete(f.machines, name)
	}
}

// count returns how many requests start with the prefix.
func (f *fakeARM) count(prefix string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := 0
	for _, r := range f.requests {
		if strings.HasPrefix(r, prefix) {
			n++
		}
	}
	return n
}
