// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package monitor

import (
	"encoding/json"
	"net/http"
	"strings"

	"github.com/nap-aks/nap/localazure/arm/rp"
	"github.com/nap-aks/nap/localazure/arm/token"
	"github.com/nap-aks/nap/localazure/logstore"
)

// queryAction is the permission to query a workspace.
const queryAction = "Microsoft.OperationalInsights/workspaces/query/read"

// QueryHandler serves the query endpoints of Log Analytics,
// /v1/workspaces/{customer ID}/query and /v1/{resource ID of a workspace}/query.
// A caller needs a token for Log Analytics (or for this server) and the
// permission to query the workspace.
func (p *Provider) QueryHandler(logs *logstore.Store, tokens *token.Service) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		who, err := tokens.Authenticate(r.Context(), r, token.Analytics)
		if err != nil {
			e := rp.AsError(err)
			for k, v := range e.Header {
				w.Header()[k] = v
			}
			writeError(w, e.Status, "AuthorizationRequiredError", "Valid authentication was not provided: "+e.Message)
			return
		}
		record, err := p.requestedWorkspace(r)
		if err != nil {
			writeError(w, http.StatusInternalServerError, "InternalServerError", err.Error())
			return
		}
		if record != nil {
			if err := p.env.Authorize(r.Context(), who, queryAction, record.ParsedID()); err != nil {
				e := rp.AsError(err)
				writeError(w, e.Status, "InsufficientAccessError", "The provided credentials have insufficient access to perform the requested operation: "+e.Message)
				return
			}
		}
		logs.Handler(logstore.HandlerOptions{Views: func(r *http.Request, _ string) ([]logstore.View, bool, error) {
			if record == nil {
				return nil, false, nil
			}
			views, err := p.Views(r.Context(), record.ParsedID())
			return views, true, err
		}}).ServeHTTP(w, r)
	})
}

// requestedWorkspace returns the workspace in the path of a request, or nil.
func (p *Provider) requestedWorkspace(r *http.Request) (*rp.Record, error) {
	path := strings.TrimPrefix(strings.ToLower(r.URL.Path), "/v1")
	path, ok := strings.CutSuffix(path, "/query")
	if !ok {
		return nil, nil
	}
	if guid, ok := strings.CutPrefix(path, "/workspaces/"); ok {
		return p.workspace(r.Context(), guid)
	}
	id, err := rp.ParseID(path)
	if err != nil || !strings.EqualFold(id.Type(), WorkspaceType) || id.IsCollection() {
		return nil, nil
	}
	return p.env.Store.Get(r.Context(), id)
}

func writeError(w http.ResponseWriter, status int, code, message string) {
	b, err := json.Marshal(map[string]any{"error": map[string]any{"code": code, "message": message}})
	if err != nil {
		b = []byte(`{}`)
	}
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.WriteHeader(status)
	_, _ = w.Write(b)
}
