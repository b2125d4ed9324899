// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package logstore

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func TestHandler(t *testing.T) {
	s := openStore(t)
	seed(t, s)
	h := s.Handler(HandlerOptions{Views: func(_ *http.Request, ws string) ([]View, bool, error) {
		return []View{{Cluster: clusterA}}, ws == "w1", nil
	}})
	for _, c := range []struct {
		method, path, body string
		status             int
		want               string
	}{
		{"POST", "/v1/workspaces/w1/query", `{"query":"AzureDiagnostics | where Category == 'node-auto-provisioning' | summarize n=count(), d=make_set(Level)"}`, 200,
			`{"tables":[{"columns":[{"name":"n","type":"long"},{"name":"d","type":"dynamic"}],"name":"PrimaryResult","rows":[[5,"[\"info\",\"warning\",\"error\"]"]]}]}`},
		{"POST", "/v1/workspaces/w1/query", `{"query":"AKSControlPlane | count","timespan":"PT1H"}`, 200, `"rows":[[3]]`},
		{"POST", "/v1/workspaces/w1/query", `{"query":"AKSControlPlane | count","timespan":"2026-11-24T08:00:00Z/2026-11-24T10:30:00Z"}`, 200, `"rows":[[3]]`},
		{"GET", "/v1/workspaces/w1/query?query=AKSControlPlane%7Ccount&timespan=P1D", "", 200, `"rows":[[7]]`},
		{"POST", "/v1/workspaces/w2/query", `{"query":"AKSControlPlane"}`, 404, "WorkspaceNotFoundError"},
		{"POST", "/v1/workspaces/w1/query", `{"query":"AKSControlPlane | nope"}`, 400, `"code":"SYN0002","line":1,"message":"Query could not be parsed at 'nope' on line [1,19]: the operator 'nope' is not supported`},
		{"POST", "/v1/workspaces/w1/query", `{"query":"AKSControlPlane | where x == 1"}`, 400, `"innererror":{"code":"SemanticError","innererror":{"code":"SEM0100","line":1,"message":"failed to resolve column named 'x'","pos":25,"token":"x"}`},
		{"POST", "/v1/workspaces/w1/query", `{"query":""}`, 400, "'query' is empty"},
		{"POST", "/v1/workspaces/w1/query", `{"query":"AKSControlPlane","timespan":"soon"}`, 400, "is not an ISO 8601 duration"},
		{"POST", "/v1/workspaces/w1/query", `nope`, 400, "must be JSON"},
		{"PUT", "/v1/workspaces/w1/query", ``, 405, "MethodNotAllowed"},
		{"POST", "/v1/workspaces/w1", ``, 404, "PathNotFoundError"},
	} {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(c.method, c.path, strings.NewReader(c.body)))
		if w.Code != c.status || !strings.Contains(w.Body.String(), c.want) {
			t.Errorf("%s %s %s\n got %d %s\nwant %d %s", c.method, c.path, c.body, w.Code, w.Body, c.status, c.want)
		}
	}
}
