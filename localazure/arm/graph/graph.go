// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

// Package graph serves the few calls of Microsoft Graph that Azure clients make
// for role assignments: finding the principal of a client ID or an object ID.
package graph

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strings"

	"github.com/nap-aks/nap/localazure/arm/rp"
	"github.com/nap-aks/nap/localazure/arm/token"
)

// Handler serves /v1.0/….
type Handler struct {
	Env    *rp.Env
	Tokens *token.Service
}

func fail(w http.ResponseWriter, status int, code, format string, args ...any) {
	write(w, status, map[string]any{"error": map[string]any{"code": code, "message": fmt.Sprintf(format, args...), "innerError": map[string]any{"request-id": rp.NewGUID()}}})
}

func write(w http.ResponseWriter, status int, body any) {
	b, err := json.Marshal(body)
	if err != nil {
		status, b = 500, []byte("{}")
	}
	w.Header().Set("Content-Type", "application/json; odata.metadata=minimal")
	w.WriteHeader(status)
	_, _ = w.Write(b)
}

func doc(i token.Identity) map[string]any {
	d := map[string]any{"@odata.type": "#microsoft.graph.servicePrincipal", "id": i.ObjectID, "appId": i.AppID, "displayName": i.DisplayName, "appDisplayName": i.DisplayName,
		"servicePrincipalType": i.Kind, "servicePrincipalNames": []string{i.AppID}, "accountEnabled": true, "appOwnerOrganizationId": i.TenantID, "alternativeNames": []string{}}
	if i.Kind == "ManagedIdentity" {
		d["alternativeNames"] = []string{"isExplicit=True", i.Resource}
	}
	return d
}

var (
	nameFilter = regexp.MustCompile(`(?i)^servicePrincipalNames/any\(\s*(\w+)\s*:\s*(\w+)\s+eq\s+'([^']*)'\s*\)$`)
	eqFilter   = regexp.MustCompile(`(?i)^(appId|id|displayName|userPrincipalName|mail)\s+eq\s+'([^']*)'$`)
	byKey      = regexp.MustCompile(`(?i)^serviceprincipals\(appid='([^']*)'\)$`)
	startsWith = regexp.MustCompile(`(?i)^startswith\(\s*(displayName|userPrincipalName|mail)\s*,\s*'([^']*)'\s*\)$`)
)

// ServeHTTP serves a request that has a bearer token for Graph.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if _, err := h.Tokens.Authenticate(r.Context(), r, token.Graph); err != nil {
		e := rp.AsError(err)
		for k, v := range e.Header {
			w.Header()[k] = v
		}
		fail(w, e.Status, "InvalidAuthenticationToken", "%s", e.Message)
		return
	}
	all, err := token.All(r.Context(), h.Env.Store.KV)
	if err != nil {
		fail(w, 500, "InternalServerError", "%v", err)
		return
	}
	segs := strings.Split(strings.Trim(r.URL.Path, "/"), "/")
	switch what := strings.ToLower(strings.Join(segs[1:], "/")); {
	case what == "me":
		fail(w, 400, "BadRequest", "/me request is only valid with delegated authentication flow.")
	case what == "users" || what == "groups" || what == "applications" && r.Method == http.MethodGet:
		h.list(w, r, nil) // the directory has service principals only
	case what == "serviceprincipals" && r.Method == http.MethodGet:
		h.list(w, r, all)
	case what == "directoryobjects/getbyids" && r.Method == http.MethodPost:
		h.byIDs(w, r, all)
	case len(segs) == 3 && (strings.EqualFold(segs[1], "servicePrincipals") || strings.EqualFold(segs[1], "directoryObjects")) && r.Method == http.MethodGet:
		for _, i := range all {
			if strings.EqualFold(i.ObjectID, segs[2]) {
				write(w, 200, doc(i))
				return
			}
		}
		fail(w, 404, "Request_ResourceNotFound", "Resource '%s' does not exist or one of its queried reference-property objects are not present.", segs[2])
	case byKey.MatchString(what) && r.Method == http.MethodGet:
		m := byKey.FindStringSubmatch(what)
		for _, i := range all {
			if strings.EqualFold(i.AppID, m[1]) {
				write(w, 200, doc(i))
				return
			}
		}
		fail(w, 404, "Request_ResourceNotFound", "Resource '%s' does not exist or one of its queried reference-property objects are not present.", m[1])
	case what == "organization":
		write(w, 200, map[string]any{"value": []any{map[string]any{"id": h.Env.TenantID, "displayName": h.Env.SubscriptionName, "verifiedDomains": []any{}}}})
	case len(segs) == 3 && strings.EqualFold(segs[1], "users"):
		fail(w, 404, "Request_ResourceNotFound", "Resource '%s' does not exist: this directory has service principals only.", segs[2])
	default:
		fail(w, 400, "BadRequest", "Resource not found for the segment '%s'. This directory answers servicePrincipals, directoryObjects/getByIds, users and me.", what)
	}
}

func (h *Handler) list(w http.ResponseWriter, r *http.Request, all []token.Identity) {
	out := []any{}
	f := strings.TrimSpace(r.URL.Query().Get("$filter"))
	keep := func(token.Identity) bool { return true }
	if m := nameFilter.FindStringSubmatch(f); m != nil {
		keep = func(i token.Identity) bool { return strings.EqualFold(i.AppID, m[3]) }
	} else if m := eqFilter.FindStringSubmatch(f); m != nil {
		keep = func(i token.Identity) bool {
			v := map[string]string{"appid": i.AppID, "id": i.ObjectID, "displayname": i.DisplayName}[strings.ToLower(m[1])]
			return strings.EqualFold(v, m[2])
		}
	} else if m := startsWith.FindStringSubmatch(f); m != nil {
		keep = func(i token.Identity) bool {
			return strings.EqualFold(m[1], "displayName") && strings.HasPrefix(strings.ToLower(i.DisplayName), strings.ToLower(m[2]))
		}
	} else if f != "" {
		fail(w, 400, "Request_UnsupportedQuery", "Unsupported filter clause '%s'.", f)
		return
	}
	for _, i := range all {
		if keep(i) {
			out = append(out, doc(i))
		}
	}
	write(w, 200, map[string]any{"@odata.context": h.Env.BaseURL + "/v1.0/$metadata", "value": out})
}

func (h *Handler) byIDs(w http.ResponseWriter, r *http.Request, all []token.Identity) {
	var body struct {
		IDs   []string `json:"ids"`
		Types []string `json:"types"`
	}
	b, err := io.ReadAll(io.LimitReader(r.Body, 1<<20))
	if err == nil {
		err = json.Unmarshal(b, &body)
	}
	if err != nil {
		fail(w, 400, "BadRequest", "The body could not be read: %v", err)
		return
	}
	want := map[string]bool{}
	for _, id := range body.IDs {
		want[strings.ToLower(id)] = true
	}
	out := []any{}
	for _, i := range all {
		if want[strings.ToLower(i.ObjectID)] {
			out = append(out, doc(i))
		}
	}
	write(w, 200, map[string]any{"value": out})
}
