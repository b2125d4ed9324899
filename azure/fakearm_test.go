package azure

import (
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sort"
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

// fakeARM answers the calls of the provider as Azure would: tokens, the cluster,
// sizes, usages, image versions, and machines that come up after a few looks.
type fakeARM struct {
	*httptest.Server
	caFile string

	mu       sync.Mutex
	machines map[string]*armcontainerservice.Machine
	looks    map[string]int // how often a machine under way was looked at
	requests []string       // method and last path part, in order
	bodies   []armcontainerservice.Machine
	headers  []http.Header
	usages   []usageRow
	// putError refuses a PUT; failure lets the machine fail while it is created.
	putError func(m *armcontainerservice.Machine) (status int, code, message string)
	failure  func(m *armcontainerservice.Machine) (code, message string)
	// slow is how often a machine is looked at before it is up.
	slow int
}

type usageRow struct {
	name           string
	current, limit int
}

func newFakeARM(t *testing.T) *fakeARM {
	t.Helper()
	f := &fakeARM{machines: map[string]*armcontainerservice.Machine{}, looks: map[string]int{}}
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

func (f *fakeARM) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	path := strings.ToLower(r.URL.Path)
	reply := func(status int, v any) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		if err := json.NewEncoder(w).Encode(v); err != nil {
			panic(err)
		}
	}
	fail := func(status int, code, message string) {
		reply(status, map[string]any{"error": map[string]any{"code": code, "message": message}})
	}
	switch {
	case strings.HasSuffix(path, "/.well-known/openid-configuration"):
		base := f.URL + "/" + testTenant
		reply(200, map[string]string{"issuer": base + "/v2.0", "authorization_endpoint": base + "/oauth2/v2.0/authorize", "token_endpoint": base + "/oauth2/v2.0/token"})
		return
	case strings.HasSuffix(path, "/oauth2/v2.0/token"):
		reply(200, map[string]any{"token_type": "Bearer", "expires_in": 3600, "access_token": "token"})
		return
	case r.Header.Get("Authorization") != "Bearer token":
		fail(401, "AuthenticationFailed", "no token")
		return
	case r.URL.Query().Get("api-version") == "":
		fail(400, "MissingApiVersionParameter", "no api-version")
		return
	}
	if !strings.Contains(path, "/machines/") || r.Method != http.MethodGet {
		f.requests = append(f.requests, r.Method+" "+r.URL.Path[strings.LastIndex(r.URL.Path, "/")+1:])
	}
	pool := strings.ToLower(testClusterID) + "/agentpools/" + DefaultMachinesPool
	switch {
	case path == strings.ToLower(testClusterID):
		reply(200, map[string]any{"id": testClusterID, "name": "napcluster", "location": "East US", "properties": map[string]any{
			"nodeResourceGroup": "MC_RG_napcluster_eastus", "networkProfile": map[string]any{"networkPlugin": "azure", "networkPluginMode": "overlay"},
		}})
	case strings.HasSuffix(path, "/providers/microsoft.compute/skus"):
		var skus []*armcompute.ResourceSKU
		for _, s := range catalog.SKUs("eastus") {
			if strings.HasPrefix(*s.Name, "Standard_D") && strings.HasSuffix(*s.Name, "s_v5") || *s.Name == "Standard_NC24ads_A100_v4" {
				skus = append(skus, s)
			}
		}
		reply(200, armcompute.ResourceSKUsResult{Value: skus})
	case strings.HasSuffix(path, "/usages"):
		var list armcompute.ListUsagesResult
		for _, u := range f.usages {
			list.Value = append(list.Value, &armcompute.Usage{Name: &armcompute.UsageName{Value: to.Ptr(u.name)}, CurrentValue: to.Ptr(int32(u.current)), Limit: to.Ptr(int64(u.limit)), Unit: to.Ptr("Count")})
		}
		reply(200, list)
	case strings.HasSuffix(path, "/nodeimageversions"):
		var list armcontainerservice.NodeImageVersionsListResult
		for _, v := range []string{"AKSUbuntu 2404gen2containerd 202610.15.0", "AKSUbuntu 2404gen2containerd 202611.2.0", "AKSUbuntu 2404containerd 202611.2.0", "AKSUbuntu 2404gen2arm64containerd 202611.2.0", "AKSWindows 2022 1.2.3"} {
			p := strings.Fields(v)
			list.Value = append(list.Value, &armcontainerservice.NodeImageVersion{OS: &p[0], SKU: &p[1], Version: &p[2]})
		}
		reply(200, list)
	case path == pool+"/machines":
		var names []string
		for n := range f.machines {
			names = append(names, n)
		}
		sort.Strings(names)
		list := armcontainerservice.MachineListResult{Value: []*armcontainerservice.Machine{}}
		for _, n := range names {
			f.advance(n)
			if m := f.machines[n]; m != nil {
				list.Value = append(list.Value, m)
			}
		}
		reply(200, list)
	case strings.HasPrefix(path, pool+"/machines/"):
		name := r.URL.Path[strings.LastIndex(r.URL.Path, "/")+1:]
		if r.Method == http.MethodGet {
			m := f.machines[name]
			if m == nil {
				fail(404, "NotFound", "no machine "+name)
				return
			}
			reply(200, m)
			return
		}
		var m armcontainerservice.Machine
		if err := json.NewDecoder(r.Body).Decode(&m); err != nil {
			fail(400, "InvalidRequestContent", err.Error())
			return
		}
		old := f.machines[name]
		if want := r.Header.Get("If-Match"); want != "" && (old == nil || deref(old.Properties.ETag) != want) {
			fail(412, "PreconditionFailed", "the machine is another one")
			return
		}
		if f.putError != nil {
			if status, code, message := f.putError(&m); status != 0 {
				fail(status, code, message)
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
		f.looks[name] = 0
		w.Header().Set("x-ms-retry-after-ms", "1")
		w.Header().Set("Azure-AsyncOperation", f.URL+"/subscriptions/"+testSubscription+"/operations/"+name+"?api-version=1")
		reply(201, m)
	case strings.HasPrefix(path, "/subscriptions/"+testSubscription+"/operations/"):
		reply(200, map[string]string{"status": "Succeeded"})
	case path == pool+"/deletemachines":
		var p armcontainerservice.AgentPoolDeleteMachinesParameter
		if err := json.NewDecoder(r.Body).Decode(&p); err != nil {
			fail(400, "InvalidRequestContent", err.Error())
			return
		}
		for _, n := range p.MachineNames {
			if f.machines[*n] == nil {
				fail(400, "InvalidParameter", "Cannot find any valid machines")
				return
			}
			f.machines[*n].Properties.ProvisioningState = to.Ptr("Deleting")
			f.looks[*n] = 0
		}
		w.Header().Set("Location", f.URL+"/subscriptions/"+testSubscription+"/operations/delete?api-version=1")
		w.WriteHeader(202)
	default:
		fail(404, "ResourceNotFound", r.Method+" "+r.URL.Path)
	}
}

// advance moves a machine on in its life, each time it is listed.
func (f *fakeARM) advance(name string) {
	m := f.machines[name]
	if f.looks[name]++; f.looks[name] <= f.slow {
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

func (f *fakeARM) count(request string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := 0
	for _, r := range f.requests {
		if strings.HasPrefix(r, request) {
			n++
		}
	}
	return n
}
