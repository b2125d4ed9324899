// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package arm_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/nap-aks/nap/localazure/arm/armtest"
	"github.com/nap-aks/nap/localazure/intent"
)

func nodePool() map[string]any {
	return map[string]any{"metadata": map[string]any{"name": "default"}, "spec": map[string]any{
		"limits": map[string]any{"cpu": "1000", "memory": "1Ti"}, "template": map[string]any{"spec": map[string]any{}}, "disruption": map[string]any{"budgets": []any{map[string]any{"nodes": "10%"}}}}}
}

const nodePoolJSON = `{"metadata":{"name":"default"},"spec":{"disruption":{"budgets":[{"nodes":"10%"}]},"limits":{"cpu":"1000","memory":"1Ti"},"template":{"spec":{}}}}`

// One call does the documented steps: a fixed pool, limits of 0, the taint,
// waiting for the nodes to be deleted, Manual.
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
	a.Live.SetClaims("default-x")
	a.Live.Set(nil, nil)
	// The controller must run until its last object is deleted.
	eventually(t, func() bool { return strings.Contains(a.Do("GET", poll, nil).Body, "1 nodes left: NodeClaim default-x") })
	a.Live.SetClaims()
	a.MustSucceed(r)
	c := a.Do("GET", clusterID, nil)
	if !strings.Contains(c.Body, `"mode":"Manual"`) || !strings.Contains(c.Body, `"name":"fixed"`) || !strings.Contains(c.Body, `"provisioningState":"Succeeded"`) {
		t.Errorf("the cluster is %s", c.Body)
	}
	if r := a.Do("POST", clusterID+"/disableNodeProvisioning", nil); r.Status != 400 {
		t.Errorf("disabling it again: %d %s", r.Status, r.Body)
	}
	// Enabled again, the NodePools are as they were.
	a.MustSucceed(a.Do("PUT", clusterID, map[string]any{"location": "eastus", "properties": map[string]any{"nodeProvisioningProfile": map[string]any{"mode": "Auto"}}}))
	if o := a.Live.Object(0); o != nodePoolJSON {
		t.Errorf("enabled again, the NodePool is %s", o)
	}
}

// Aborting restores the cluster, and so does failing.
func TestAbortedDisableIsUndone(t *testing.T) {
	a := armtest.New(t)
	a.Machinery()
	newCluster(a, "Auto")
	for name, end := range map[string]func(poll string){
		"aborted": func(string) {
			if r := a.Do("POST", clusterID+"/abort", nil); r.Status != 202 {
				t.Fatalf("%d %s", r.Status, r.Body)
			}
		},
		"stuck": func(poll string) {
			a.Live.SetHeld("pod shop/web-1 (PodDisruptionBudget web)")
			a.Advance(time.Minute)
			eventually(t, func() bool {
				return strings.Contains(a.Do("GET", poll, nil).Body, "1 nodes left: aks-a; kept by pod shop/web-1 (PodDisruptionBudget web)")
			})
			a.Advance(10 * time.Minute)
		},
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
			if name == "stuck" && (!strings.Contains(done.Body, "aks-a: kept by pod shop/web-1") || !strings.Contains(done.Body, "cannot be Manual")) {
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

// Aborting at any stage restores the mode, the NodePools and the fixed pools: a
// created pool is deleted, a scaled one has its former nodes, and pods that were
// evicted to it are moved back first.
func TestAbortedDisableIsUndoneAtEachStage(t *testing.T) {
	a := armtest.New(t)
	m := a.Machinery()
	block := blocks(m)
	newCluster(a, "Auto")
	a.MustSucceed(a.Do("PUT", clusterID+"/agentPools/grow", map[string]any{"properties": map[string]any{"mode": "User", "count": 1, "vmSize": "Standard_D4s_v5"}}))
	body := map[string]any{"fixedPools": []any{map[string]any{"name": "fixed", "vmSize": "Standard_D4s_v5", "count": 2}, map[string]any{"name": "grow", "count": 3}}}
	var op armtest.Reply
	abort := func() {
		if r := a.Do("POST", clusterID+"/abort", nil); r.Status != 202 {
			t.Fatalf("%d %s", r.Status, r.Body)
		}
	}
	disable := func(until string) {
		op = a.Do("POST", clusterID+"/disableNodeProvisioning", body)
		inProgress(a, op, until)
	}
	for _, x := range []struct {
		name string
		do   func()
	}{
		{"pools boot", func() {
			m.Hold(true)
			disable("nodes of pool fixed to boot")
			abort()
			m.Hold(false)
		}},
		{"nodes drain", func() {
			disable("1 nodes left: aks-a")
			fixed := machines(a, "fixed")
			block(fixed[1], "not now")
			abort()
			inProgress(a, armtest.Reply{Status: 202, Header: op.Header}, "giving up: pool fixed: 2 nodes left to drain; "+fixed[1]+" is being drained, not now")
			if o := a.Live.Object(0); o != nodePoolJSON {
				t.Errorf("while pods move back the NodePool is %s", o)
			}
			a.Stop()
			block(fixed[1], "")
			a.Start()
		}},
		{"the controller stops", func() {
			disable("1 nodes left: aks-a")
			m.Hold(true)
			a.Live.Set(nil, nil)
			inProgress(a, op, "no nodes left; the controller is being stopped")
			abort()
			m.Hold(false)
		}},
	} {
		t.Run(x.name, func(t *testing.T) {
			a.Live.Set([]string{"aks-a"}, nil)
			a.Live.SetObjects(nodePool())
			x.do()
			if done := a.Wait(op); done.JSON["status"] != "Canceled" {
				t.Errorf("it ended as %s", done.Body)
			}
			if o := a.Live.Object(0); o != nodePoolJSON {
				t.Errorf("the NodePool is %s", o)
			}
			if got := clusterMode(a) + "; fixed " + poolOf(a, "fixed") + "; grow " + poolOf(a, "grow") + fmt.Sprint(" ", len(machines(a, "grow"))); got != "Auto Auto Canceled; fixed gone; grow 1 nodes, autoscaler false 1" {
				t.Errorf("the cluster is %s", got)
			}
			if r := a.Do("GET", clusterID+"/agentPools/aksmanagedap", nil); r.Status != 200 {
				t.Errorf("the pool of provisioned machines: %d %s", r.Status, r.Body)
			}
		})
	}
	// The next attempt succeeds, with both pools.
	a.Live.Set(nil, nil)
	a.MustSucceed(a.Do("POST", clusterID+"/disableNodeProvisioning", body))
	if got := clusterMode(a) + "; fixed " + poolOf(a, "fixed") + "; grow " + poolOf(a, "grow"); got != "Manual Auto Succeeded; fixed 2 nodes, autoscaler false; grow 3 nodes, autoscaler false" {
		t.Errorf("disabled, the cluster is %s", got)
	}
}

// Disabling fails if the fixed pool does not start.
func TestDisableFailsIfItsPoolDoesNotBoot(t *testing.T) {
	a := armtest.New(t)
	m := a.Machinery()
	newCluster(a, "Auto")
	m.Fail = func(i intent.MachineIntent) (string, string) {
		if i.Pool == "fixed" {
			return "AllocationFailed", "no capacity"
		}
		return "", ""
	}
	a.Live.SetObjects(nodePool())
	done := a.Wait(a.Do("POST", clusterID+"/disableNodeProvisioning", map[string]any{"fixedPools": []any{map[string]any{"name": "fixed", "vmSize": "Standard_D4s_v5", "count": 1}}}))
	if done.JSON["status"] != "Failed" || !strings.Contains(done.Body, "no capacity") || !strings.Contains(done.Body, "AllocationFailed") {
		t.Errorf("it ended as %s", done.Body)
	}
	if got := clusterMode(a) + " fixed " + poolOf(a, "fixed"); got != "Auto Auto Failed fixed gone" || a.Live.Object(0) != nodePoolJSON {
		t.Errorf("the cluster is %s, its NodePool %s", got, a.Live.Object(0))
	}
}
