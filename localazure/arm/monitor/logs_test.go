// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package monitor_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/nap-aks/nap/localazure/arm"
	"github.com/nap-aks/nap/localazure/arm/armtest"
	"github.com/nap-aks/nap/localazure/intent"
)

// events is a Kubernetes API that serves events only.
type events struct {
	mu     sync.Mutex
	items  []corev1.Event
	more   chan struct{}
	listed int
}

func (e *events) add(reason, message string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	n := len(e.items) + 1
	e.items = append(e.items, corev1.Event{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Event"},
		ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("e%d", n), Namespace: "default", ResourceVersion: fmt.Sprint(100 + n)},
		Reason:     reason, Message: message, Type: "Normal", LastTimestamp: metav1.Now(), Source: corev1.EventSource{Component: "node-auto-provisioning"},
	})
	close(e.more)
	e.more = make(chan struct{})
}

func (e *events) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path != "/api/v1/events" || r.URL.Query().Get("fieldSelector") != "source=node-auto-provisioning" {
		http.NotFound(w, r)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	e.mu.Lock()
	at := len(e.items)
	if r.URL.Query().Get("watch") == "" {
		e.listed++
		list := corev1.EventList{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "EventList"}, ListMeta: metav1.ListMeta{ResourceVersion: fmt.Sprint(100 + at)}, Items: e.items}
		b, _ := json.Marshal(list)
		e.mu.Unlock()
		_, _ = w.Write(b)
		return
	}
	from := r.URL.Query().Get("resourceVersion")
	e.mu.Unlock()
	var after int
	_, _ = fmt.Sscan(from, &after)
	w.(http.Flusher).Flush()
	for {
		e.mu.Lock()
		more := e.more
		for after-100 < len(e.items) {
			b, _ := json.Marshal(map[string]any{"type": "ADDED", "object": e.items[after-100]})
			_, _ = w.Write(append(b, '\n'))
			after++
		}
		e.mu.Unlock()
		w.(http.Flusher).Flush()
		select {
		case <-r.Context().Done():
			return
		case <-more:
		}
	}
}

func query(a *armtest.Azure, guid, kql string) (armtest.Reply, []any) {
	a.T.Helper()
	r := a.Do(http.MethodPost, "/v1/workspaces/"+guid+"/query", object{"query": kql, "timespan": "P1D"})
	tables, _ := r.JSON["tables"].([]any)
	if len(tables) != 1 {
		return r, nil
	}
	rows, _ := tables[0].(object)["rows"].([]any)
	return r, rows
}

func eventually(t *testing.T, what string, f func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		if f() {
			return
		}
	}
	t.Fatalf("not within 20 s: %s", what)
}

func appendTo(t *testing.T, file, line string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(file, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString(line + "\n"); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}

// The queries in the documentation find the log and the events of the controller
// in a workspace that diagnostic settings send them to.
func TestDocumentedQueriesFindLogsAndEvents(t *testing.T) {
	dir := t.TempDir()
	a := armtest.New(t, func(o *arm.Options) {
		o.LogsDir, o.LogsDB = filepath.Join(dir, "logs"), filepath.Join(dir, "logs.db")
	})
	a.Machinery()
	a.MustSucceed(a.Do(http.MethodPut, group, object{"location": "eastus"}))
	a.MustSucceed(a.Do(http.MethodPut, workspace, object{"location": "eastus"}))
	a.MustSucceed(a.Do(http.MethodPut, workspace+"2", object{"location": "eastus"}))
	newCluster(a)
	guid := a.Do(http.MethodGet, workspace, nil).JSON["properties"].(object)["customerId"].(string)
	other := a.Do(http.MethodGet, workspace+"2", nil).JSON["properties"].(object)["customerId"].(string)

	ctx := context.Background()
	cs, _, err := intent.List[intent.ClusterStatus](ctx, a.Etcd, intent.ClusterStatusPrefix)
	if err != nil || len(cs) != 1 {
		t.Fatalf("%d statuses, %v", len(cs), err)
	}
	uid := cs[0].UID
	api := &events{more: make(chan struct{})}
	srv := httptest.NewServer(api)
	t.Cleanup(srv.CloseClientConnections)
	cs[0].AdminKubeconfig = fmt.Sprintf(`{"apiVersion":"v1","kind":"Config","current-context":"c","contexts":[{"name":"c","context":{"cluster":"c","user":"u"}}],"clusters":[{"name":"c","cluster":{"server":%q}}],"users":[{"name":"u","user":{}}]}`, srv.URL)
	if err := intent.Put(ctx, a.Etcd, intent.ClusterStatusKey(uid), cs[0]); err != nil {
		t.Fatal(err)
	}
	controller := filepath.Join(dir, "logs", uid, "controller.log")
	line := func(message string) string {
		return fmt.Sprintf(`{"level":"INFO","time":%q,"message":%q,"NodePool":{"name":"default"}}`, time.Now().UTC().Format(time.RFC3339Nano), message)
	}
	appendTo(t, controller, line("before there was a setting"))
	time.Sleep(5 * time.Millisecond)
	if r := a.Do(http.MethodPut, settings+"/nap?api-version=2021-05-01-preview", setting(log("node-auto-provisioning"), log("karpenter-events"))); r.Status != 200 {
		t.Fatalf("the setting: %d %s", r.Status, r.Body)
	}
	time.Sleep(5 * time.Millisecond)
	appendTo(t, controller, line("launched nodeclaim"))
	appendTo(t, filepath.Join(dir, "logs", uid, "kube-scheduler.log"), line("not sent to any workspace"))
	time.Sleep(time.Second) // the times of events are whole seconds
	api.add("Launched", "machine of size Standard_D4s_v5")

	const diagnostics = `AzureDiagnostics | where Category == "node-auto-provisioning"`
	const karpenter = `AKSControlPlane | where Category == "karpenter-events"`
	eventually(t, "one row of the controller's log", func() bool {
		r, rows := query(a, guid, diagnostics+" | project log_s, Level")
		if len(rows) > 1 || strings.Contains(r.Body, "before there was") {
			t.Fatalf("a workspace shows rows from before its setting: %s", r.Body)
		}
		return len(rows) == 1 && strings.Contains(r.Body, "launched nodeclaim")
	})
	eventually(t, "one event", func() bool {
		r, rows := query(a, guid, karpenter+" | project Message, reason = tostring(Properties.reason)")
		return len(rows) == 1 && strings.Contains(r.Body, "Standard_D4s_v5") && strings.Contains(r.Body, "Launched")
	})
	if r, rows := query(a, guid, `AzureDiagnostics | where Category == "kube-scheduler"`); r.Status != 200 || len(rows) != 0 {
		t.Errorf("a category that no setting sends: %d %s", r.Status, r.Body)
	}
	if r, rows := query(a, other, "AzureDiagnostics"); r.Status != 200 || len(rows) != 0 {
		t.Errorf("a workspace that nothing is sent to: %d %s", r.Status, r.Body)
	}
	if r := a.Do(http.MethodPost, "/v1"+workspace+"/query", object{"query": diagnostics + " | count"}); !strings.Contains(r.Body, "[[1]]") {
		t.Errorf("the same by the workspace's resource ID: %d %s", r.Status, r.Body)
	}

	// After a restart, every record is there once.
	a.Stop()
	appendTo(t, controller, line("while it was down"))
	api.add("Disrupted", "while it was down")
	a.Start()
	for q, want := range map[string]int{diagnostics: 2, karpenter: 2} {
		eventually(t, "both rows of "+q, func() bool {
			r, rows := query(a, guid, q)
			if len(rows) > want {
				t.Fatalf("duplicate rows: %s", r.Body)
			}
			return len(rows) == want
		})
	}
	api.mu.Lock()
	listed := api.listed
	api.mu.Unlock()
	if listed < 2 {
		t.Errorf("the events were listed %d times, want again after the restart", listed)
	}
}

func TestQueryAuthorization(t *testing.T) {
	dir := t.TempDir()
	a := armtest.New(t, func(o *arm.Options) { o.LogsDB = filepath.Join(dir, "logs.db") })
	a.MustSucceed(a.Do(http.MethodPut, group, object{"location": "eastus"}))
	a.MustSucceed(a.Do(http.MethodPut, workspace, object{"location": "eastus"}))
	guid := a.Do(http.MethodGet, workspace, nil).JSON["properties"].(object)["customerId"].(string)
	path := "/v1/workspaces/" + guid + "/query"
	ask := object{"query": "AzureDiagnostics | count"}
	for _, c := range []struct {
		what, path string
		header     []string
		status     int
		code       string
	}{
		{"the owner", path, nil, 200, ""},
		{"a forged token", path, []string{"Authorization", "Bearer forged"}, 401, "AuthorizationRequiredError"},
		{"a workspace that is not there", "/v1/workspaces/99999999-9999-4999-8999-999999999999/query", nil, 404, "WorkspaceNotFoundError"},
		{"the ID of something else", "/v1" + group + "/providers/Microsoft.Network/virtualNetworks/net/query", nil, 404, "PathNotFoundError"},
	} {
		if r := a.Do(http.MethodPost, c.path, ask, c.header...); r.Status != c.status || r.Code() != c.code {
			t.Errorf("%s: %d %s, want %d %s", c.what, r.Status, r.Body, c.status, c.code)
		}
	}
	if r := a.Do(http.MethodPost, path, object{"query": "AzureDiagnostics | wher x"}); r.Status != 400 || r.Code() != "BadArgumentError" {
		t.Errorf("an invalid query: %d %s", r.Status, r.Body)
	}
	a.MustSucceed(a.Do(http.MethodDelete, workspace, nil))
	if r := a.Do(http.MethodPost, path, ask); r.Status != 404 {
		t.Errorf("a deleted workspace: %d %s", r.Status, r.Body)
	}
}
