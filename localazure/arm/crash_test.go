package arm_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nap-aks/nap/localazure/arm/armtest"
	"github.com/nap-aks/nap/localazure/intent"
)

// A second operation on a cluster is told which one is in the way.
func TestOneOperationAtATimeOnACluster(t *testing.T) {
	a := armtest.New(t)
	m := a.Machinery()
	newGroup(a)
	m.Hold(true)
	first := a.Do("PUT", clusterID, clusterBody("Auto"))
	if first.Status != 201 {
		t.Fatal(first.Body)
	}
	op := first.Header.Get("Azure-AsyncOperation")
	id := op[strings.LastIndex(op, "/")+1 : strings.Index(op, "?")]
	for name, r := range map[string]armtest.Reply{
		"PUT of the cluster": a.Do("PUT", clusterID, clusterBody("Auto")), "PUT of a pool": a.Do("PUT", clusterID+"/agentPools/p", map[string]any{"properties": map[string]any{"count": 1}}),
		"DELETE": a.Do("DELETE", clusterID, nil), "start": a.Do("POST", clusterID+"/start", nil),
	} {
		if r.Status != 409 || r.Code() != "OperationNotAllowed" || !strings.Contains(r.Message(), "Another operation (Creating) is in progress") || !strings.Contains(r.Message(), id) {
			t.Errorf("%s: %d %s", name, r.Status, r.Body)
		}
	}
	if r := a.Do("GET", clusterID, nil); !strings.Contains(r.Body, `"provisioningState":"Creating"`) || !strings.Contains(r.Body, `"principalId"`) {
		t.Errorf("while it is created: %s", r.Body)
	}
	// It can be given up, and tried again.
	a.MustSucceed(a.Do("POST", clusterID+"/abort", nil))
	if end := a.Wait(first); end.JSON["status"] != "Canceled" {
		t.Errorf("the aborted operation ended as %s", end.Body)
	}
	if r := a.Do("GET", clusterID, nil); !strings.Contains(r.Body, `"provisioningState":"Canceled"`) {
		t.Errorf("the aborted cluster: %s", r.Body)
	}
	m.Hold(false)
	a.MustSucceed(a.Do("PUT", clusterID, clusterBody("Auto")))
}

// Operations go on where they were, whenever the server is killed.
func TestOperationsSurviveRestarts(t *testing.T) {
	a := armtest.New(t)
	m := a.Machinery()
	newGroup(a)
	m.Hold(true)
	deployment := a.Do("PUT", deploymentID, azBody(napTemplate, "{}"))
	if deployment.Status != 201 {
		t.Fatal(deployment.Body)
	}
	a.Stop()
	a.Start()
	if r := a.Do("GET", deployment.Header.Get("Azure-AsyncOperation"), nil); r.JSON["status"] != "Running" {
		t.Errorf("after the restart: %s", r.Body)
	}
	m.Hold(false)
	a.Stop()
	a.Start()
	a.MustSucceed(deployment)
	m.Hold(true)
	var replies []armtest.Reply
	for i := range 5 {
		replies = append(replies, a.Do("PUT", fmt.Sprintf("%s/agentPools/aksmanagedap/machines/m%d", clusterID, i), map[string]any{"properties": map[string]any{"hardware": map[string]any{"vmSize": "Standard_D4s_v5"}}}))
	}
	a.Stop()
	m.Hold(false)
	a.Start()
	for _, r := range replies {
		a.MustSucceed(r)
	}
	del := a.Do("DELETE", clusterID, nil)
	a.Stop()
	a.Start()
	a.MustSucceed(del)
	if resp, err := a.Etcd.Get(t.Context(), "/nap/intent/", withPrefix); err != nil || len(resp.Kvs) > 0 {
		t.Errorf("%d intents are left (%v)", len(resp.Kvs), err)
	}
	if resp, err := a.Etcd.Get(t.Context(), "/nap/arm/locks/", withPrefix); err != nil || len(resp.Kvs) > 0 {
		t.Errorf("%d locks are left (%v)", len(resp.Kvs), err)
	}
}

// What a killed server had sent to etcd may be carried out only after the next
// one has read which operations there are. It is driven all the same.
func TestOperationWrittenLateIsDriven(t *testing.T) {
	a := armtest.New(t)
	m := a.Machinery()
	newGroup(a)
	m.Hold(true)
	made := a.Do("PUT", clusterID, clusterBody("Auto"))
	if made.Status != 201 {
		t.Fatal(made.Body)
	}
	a.Stop()
	records, err := a.Etcd.Get(t.Context(), "/nap/arm/operations/", withPrefix)
	if err != nil || len(records.Kvs) != 1 {
		t.Fatalf("%d operations, want the cluster's alone (%v)", len(records.Kvs), err)
	}
	record := records.Kvs[0]
	if _, err := a.Etcd.Delete(t.Context(), string(record.Key)); err != nil {
		t.Fatal(err)
	}
	a.Start()
	m.Hold(false)
	if _, err := a.Etcd.Put(t.Context(), string(record.Key), string(record.Value)); err != nil {
		t.Fatal(err)
	}
	a.MustSucceed(made)
}

// Many writers change one resource, each on the condition of the etag it read:
// every acknowledged change must have been made on top of exactly one earlier
// state, none lost, and what is read is never older than what was acknowledged
// before. Meanwhile the server is killed now and then.
func TestETagsAreLinearizable(t *testing.T) {
	a := armtest.New(t)
	newGroup(a)
	type write struct{ from, to int }
	var mu sync.Mutex
	var acked []write
	var last atomic.Int64 // highest acknowledged value
	path := group + "/providers/Microsoft.ManagedIdentity/userAssignedIdentities/counter"
	if r := a.Do("PUT", path, map[string]any{"location": "eastus", "tags": map[string]any{"n": "0"}}); r.Status != 201 {
		t.Fatal(r.Body)
	}
	value := func(r armtest.Reply) int {
		n := -1
		tags, _ := r.JSON["tags"].(map[string]any)
		s, _ := tags["n"].(string)
		if _, err := fmt.Sscan(s, &n); err != nil {
			t.Errorf("no counter in %s", r.Body)
		}
		return n
	}
	const each, writers, kills = 12, 8, 6
	var wg sync.WaitGroup
	stop := make(chan struct{})
	restarts := make(chan int)
	go func() {
		n := 0
		defer func() { restarts <- n }()
		// By what has been done, not by time: a fast machine would be through.
		for ; n < kills; n++ {
			for int(last.Load()) < each*writers*(n+1)/(kills+2) {
				select {
				case <-stop:
					return
				case <-time.After(time.Duration(1+rand.IntN(10)) * time.Millisecond):
				}
			}
			a.Stop()
			a.Start()
		}
	}()
	for range writers {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for done := 0; done < each; {
				floor := int(last.Load())
				r, err := a.Try("GET", path, nil)
				if err != nil || r.Status != 200 {
					time.Sleep(10 * time.Millisecond)
					continue
				}
				n := value(r)
				if n < floor {
					t.Errorf("read %d after %d had been acknowledged", n, floor)
				}
				w, err := a.Try("PUT", path, map[string]any{"location": "eastus", "tags": map[string]any{"n": fmt.Sprint(n + 1)}}, "If-Match", r.Header.Get("ETag"))
				if err != nil || w.Status == http.StatusBadGateway || w.Status >= 500 {
					continue // not acknowledged: it may or may not have happened
				}
				switch w.Status {
				case 200:
					mu.Lock()
					acked = append(acked, write{n, n + 1})
					mu.Unlock()
					for {
						l := last.Load()
						if int64(n+1) <= l || last.CompareAndSwap(l, int64(n+1)) {
							break
						}
					}
					done++
				case 412:
				default:
					t.Errorf("PUT: %d %s", w.Status, w.Body)
					return
				}
			}
		}()
	}
	wg.Wait()
	close(stop)
	n := <-restarts
	slices.SortFunc(acked, func(x, y write) int { return x.from - y.from })
	for i := 1; i < len(acked); i++ {
		if acked[i].from == acked[i-1].from {
			t.Errorf("two changes on top of %d were both acknowledged", acked[i].from)
		}
	}
	end := value(a.Do("GET", path, nil))
	if end < acked[len(acked)-1].to || len(acked) != each*writers {
		t.Errorf("%d changes acknowledged, the last to %d, but the counter is %d", len(acked), acked[len(acked)-1].to, end)
	}
	t.Logf("%d changes, counter %d, %d restarts", len(acked), end, n)
	if n < kills {
		t.Errorf("only %d of %d restarts happened", n, kills)
	}
}

func percentile(ds []time.Duration, p float64) time.Duration {
	slices.Sort(ds)
	return ds[min(len(ds)-1, int(float64(len(ds))*p))]
}

// 50 clusters at once and 1,000 readers at once, with stub control planes.
func TestManyAtOnce(t *testing.T) {
	if testing.Short() {
		t.Skip("short: takes ten seconds")
	}
	a := armtest.New(t)
	a.Machinery()
	newGroup(a)
	newOne := func(i int) string {
		return fmt.Sprintf("%s/providers/Microsoft.ContainerService/managedClusters/c%d", group, i)
	}
	a.Do("GET", group, nil)
	var wg sync.WaitGroup
	puts := make([]time.Duration, 50)
	replies := make([]armtest.Reply, 50)
	for i := range puts {
		wg.Add(1)
		go func() {
			defer wg.Done()
			start := time.Now()
			replies[i] = a.Do("PUT", newOne(i), clusterBody("Auto"))
			puts[i] = time.Since(start)
		}()
	}
	wg.Wait()
	for _, r := range replies {
		a.MustSucceed(r)
	}
	// The server's own time: a thousand TLS handshakes at once would measure
	// the clients.
	gets := make([]time.Duration, 1000)
	gate := make(chan struct{})
	token := a.Token(armtest.ClientID, armtest.ClientSecret)
	handler := a.Server().Handler()
	for i := range gets {
		wg.Add(1)
		req := httptest.NewRequest(http.MethodGet, a.URL+newOne(i%50)+"?api-version=2025-10-01", nil)
		req.Header.Set("Authorization", "Bearer "+token)
		go func() {
			defer wg.Done()
			<-gate
			start := time.Now()
			rec := httptest.NewRecorder()
			handler.ServeHTTP(rec, req)
			gets[i] = time.Since(start)
			if rec.Code != 200 {
				t.Errorf("GET: %d %s", rec.Code, rec.Body)
			}
		}()
	}
	close(gate)
	wg.Wait()
	p, g := percentile(puts, .99), percentile(gets, .99)
	t.Logf("PUT p99 %v, median %v; GET p99 %v, median %v", p, percentile(puts, .5), g, percentile(gets, .5))
	// The requirement, 1 s and 100 ms, is for a machine of one's own:
	// NAP_TEST_PERF=1 holds the server to it. What holds on a shared one as well is
	// TestReadingIsCheap.
	if os.Getenv("NAP_TEST_PERF") == "" {
		return
	}
	if p > time.Second {
		t.Errorf("99%% of 50 concurrent PUTs took up to %v, more than a second", p)
	}
	if g > 100*time.Millisecond {
		t.Errorf("99%% of 1,000 concurrent GETs took up to %v, more than 100 ms", g)
	}
}

func TestTwoHundredResourcesInFiveSeconds(t *testing.T) {
	a := armtest.New(t)
	newGroup(a)
	tmpl := `{"$schema":"https://schema.management.azure.com/schemas/2019-04-01/deploymentTemplate.json#","contentVersion":"1.0.0.0","resources":[
	 {"type":"Microsoft.Network/virtualNetworks","apiVersion":"2024-05-01","name":"[concat('v', copyIndex())]","location":"eastus","copy":{"name":"vs","count":100},"properties":{"addressSpace":{"addressPrefixes":["10.0.0.0/8"]}}},
	 {"type":"Microsoft.Network/virtualNetworks/subnets","apiVersion":"2024-05-01","name":"[concat('v', copyIndex(), '/s')]","copy":{"name":"ss","count":100},"dependsOn":["[resourceId('Microsoft.Network/virtualNetworks', concat('v', copyIndex()))]"],"properties":{"addressPrefix":"10.1.0.0/16"}}]}`
	start := time.Now()
	r := a.Do("PUT", deploymentID, azBody(tmpl, "{}"))
	a.MustSucceed(r)
	took := time.Since(start)
	t.Logf("200 resources in %v", took)
	if os.Getenv("NAP_TEST_PERF") != "" && took > 5*time.Second {
		t.Errorf("a deployment of 200 resources took %v, more than 5 s", took)
	}
	d := a.Do("GET", deploymentID, nil)
	if n := len(d.JSON["properties"].(map[string]any)["outputResources"].([]any)); n != 200 {
		t.Errorf("%d output resources", n)
	}
}

// A pool grows, shrinks and is replaced by newer nodes.
func TestPoolsScaleAndUpgrade(t *testing.T) {
	a := armtest.New(t)
	a.Machinery()
	newGroup(a)
	body := clusterBody("Manual")
	change(body, "properties.kubernetesVersion", "1.35.6")
	a.MustSucceed(a.Do("PUT", clusterID, body))
	names := func() []string {
		c := a.Do("GET", clusterID+"/agentPools/system/machines", nil)
		var out []string
		for _, x := range c.JSON["value"].([]any) {
			m := x.(map[string]any)
			v := m["properties"].(map[string]any)["kubernetes"].(map[string]any)["orchestratorVersion"].(string)
			out = append(out, m["name"].(string)[len("aks-system-12345678-"):]+"@"+v)
		}
		slices.Sort(out)
		return out
	}
	if got := names(); !slices.Equal(got, []string{"vmss000000@1.35.6", "vmss000001@1.35.6", "vmss000002@1.35.6"}) {
		t.Errorf("new: %v", got)
	}
	scale := func(n int) {
		t.Helper()
		a.MustSucceed(a.Do("PUT", clusterID+"/agentPools/system", map[string]any{"properties": map[string]any{"count": n}}))
	}
	scale(5)
	scale(1)
	if got := names(); !slices.Equal(got, []string{"vmss000000@1.35.6"}) {
		t.Errorf("after 5 and 1: %v", got)
	}
	scale(3)
	if got := names(); !slices.Equal(got, []string{"vmss000000@1.35.6", "vmss000005@1.35.6", "vmss000006@1.35.6"}) {
		t.Errorf("numbers are not used twice: %v", got)
	}
	a.MustSucceed(a.Do("PUT", clusterID, map[string]any{"location": "eastus", "properties": map[string]any{"kubernetesVersion": "1.36.3",
		"agentPoolProfiles": []any{map[string]any{"name": "system", "orchestratorVersion": "1.36.3"}}}}))
	for _, n := range names() {
		if !strings.HasSuffix(n, "@1.36.3") {
			t.Errorf("after the upgrade: %s", n)
		}
	}
	for v, want := range map[string]string{"1.35.6": "Downgrading", "1.99": "not supported"} {
		if r := a.Do("PUT", clusterID, map[string]any{"location": "eastus", "properties": map[string]any{"kubernetesVersion": v}}); r.Status != 400 || !strings.Contains(r.Message(), want) {
			t.Errorf("to %s: %d %s", v, r.Status, r.Body)
		}
	}
	if r := a.Do("PUT", clusterID+"/agentPools/system", map[string]any{"properties": map[string]any{"mode": "User"}}); r.Status != 400 || !strings.Contains(r.Message(), "at least one system agent pool") {
		t.Errorf("the last system pool: %d %s", r.Status, r.Body)
	}
	ms, _, err := intent.List[intent.MachineIntent](context.Background(), a.Etcd, intent.MachineIntentPrefix)
	if err != nil || len(ms) != 3 {
		t.Errorf("%d machines (%v)", len(ms), err)
	}
}
