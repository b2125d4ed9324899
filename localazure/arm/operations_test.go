// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package arm_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/nap-aks/nap/localazure/arm/armtest"
)

// The refusal of a second operation on a cluster names the first.
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
		t.Errorf("during creation: %s", r.Body)
	}
	// It can be aborted and repeated.
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

// Operations are resumed whenever the server is killed.
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

// etcd may apply a write of a killed server after the next server has listed the
// operations. Such an operation is resumed too.
func TestOperationWrittenLateIsResumed(t *testing.T) {
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
