package arm_test

import (
	"strings"
	"testing"
	"time"

	"github.com/nap-aks/nap/arm/armtest"
)

func nodePool() map[string]any {
	return map[string]any{"metadata": map[string]any{"name": "default"}, "spec": map[string]any{
		"limits": map[string]any{"cpu": "1000", "memory": "1Ti"}, "template": map[string]any{"spec": map[string]any{}}, "disruption": map[string]any{"budgets": []any{map[string]any{"nodes": "10%"}}}}}
}

const nodePoolJSON = `{"metadata":{"annotations":{},"name":"default"},"spec":{"disruption":{"budgets":[{"nodes":"10%"}]},"limits":{"cpu":"1000","memory":"1Ti"},"template":{"spec":{}}}}`

// One call does the documented migration: a fixed pool, limits 0, the taint,
// waiting for the nodes to go, Manual.
func TestDisableInOneCall(t *testing.T) {
	a := armtest.New(t)
	a.Machinery()
	newCluster(a, "Auto")
	a.Live.Set([]string{"aks-a"}, nil)
	a.Live.SetObjects(nodePool())
	r := a.Do("POST", clusterID+"/disableNodeProvisioning", map[string]any{"fixedPool": map[string]any{"name": "fixed", "vmSize": "Standard_D4s_v5", "count": 2}})
	if r.Status != 202 {
		t.Fatalf("%d %s", r.Status, r.Body)
	}
	poll := r.Header.Get("Azure-AsyncOperation")
	eventually(t, func() bool { return strings.Contains(a.Do("GET", poll, nil).Body, "1 nodes left: aks-a") })
	if o := a.Live.Object(0); !strings.Contains(o, `"cpu":"0"`) || !strings.Contains(o, "karpenter.azure.com/disable") {
		t.Errorf("while it drains, the NodePool is %s", o)
	}
	a.Stop()
	a.Start()
	a.Live.Set(nil, nil)
	a.MustSucceed(r)
	c := a.Do("GET", clusterID, nil)
	if !strings.Contains(c.Body, `"mode":"Manual"`) || !strings.Contains(c.Body, `"name":"fixed"`) || !strings.Contains(c.Body, `"provisioningState":"Succeeded"`) {
		t.Errorf("the cluster is %s", c.Body)
	}
	if r := a.Do("POST", clusterID+"/disableNodeProvisioning", nil); r.Status != 400 {
		t.Errorf("disabling it again: %d %s", r.Status, r.Body)
	}
	// Switched on again, the NodePools are what they were.
	a.MustSucceed(a.Do("PUT", clusterID, map[string]any{"location": "eastus", "properties": map[string]any{"nodeProvisioningProfile": map[string]any{"mode": "Auto"}}}))
	if o := a.Live.Object(0); o != nodePoolJSON {
		t.Errorf("enabled again, the NodePool is %s", o)
	}
}

// Aborting puts everything back, and so does giving up.
func TestDisableIsUndone(t *testing.T) {
	a := armtest.New(t)
	a.Machinery()
	newCluster(a, "Auto")
	for name, end := range map[string]func(poll string){
		"aborted": func(string) {
			if r := a.Do("POST", clusterID+"/abort", nil); r.Status != 202 {
				t.Fatalf("%d %s", r.Status, r.Body)
			}
		},
		"stuck": func(string) { a.Advance(11 * time.Minute) },
	} {
		t.Run(name, func(t *testing.T) {
			a.Live.Set([]string{"aks-a"}, nil)
			a.Live.SetObjects(nodePool())
			r := a.Do("POST", clusterID+"/disableNodeProvisioning", nil)
			poll := r.Header.Get("Azure-AsyncOperation")
			eventually(t, func() bool { return strings.Contains(a.Do("GET", poll, nil).Body, "nodes left") })
			end(poll)
			done := a.Wait(r)
			if s := done.JSON["status"]; s != "Canceled" && s != "Failed" {
				t.Errorf("it ended as %s", done.Body)
			}
			if name == "stuck" && (!strings.Contains(done.Body, "aks-a") || !strings.Contains(done.Body, "cannot be Manual")) {
				t.Errorf("the reason: %s", done.Body)
			}
			if o := a.Live.Object(0); o != nodePoolJSON {
				t.Errorf("the NodePool is %s", o)
			}
			if c := a.Do("GET", clusterID, nil); !strings.Contains(c.Body, `"mode":"Auto"`) {
				t.Errorf("the mode is not Auto")
			}
		})
	}
}

func TestFreezeAndResume(t *testing.T) {
	a := armtest.New(t)
	a.Machinery()
	newCluster(a, "Auto")
	a.Live.SetObjects(nodePool())
	for _, x := range []struct {
		scope string
		want  []string
	}{{"Disruption", []string{`"nodes":"0"`, `"cpu":"1000"`}}, {"All", []string{`"nodes":"0"`, `"cpu":"0"`}}} {
		if r := a.Do("POST", clusterID+"/freezeNodeProvisioning", map[string]any{"scope": x.scope}); r.Status != 200 || !strings.Contains(r.Body, "default") {
			t.Fatalf("%d %s", r.Status, r.Body)
		}
		for _, w := range x.want {
			if o := a.Live.Object(0); !strings.Contains(o, w) {
				t.Errorf("frozen (%s), without %s: %s", x.scope, w, o)
			}
		}
	}
	if r := a.Do("POST", clusterID+"/resumeNodeProvisioning", nil); r.Status != 200 {
		t.Fatalf("%d %s", r.Status, r.Body)
	}
	if o := a.Live.Object(0); o != nodePoolJSON {
		t.Errorf("resumed: %s", o)
	}
}
