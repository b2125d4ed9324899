// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package logstore

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/nap-aks/nap/localazure/kql"
)

// HandlerOptions configure a Handler.
type HandlerOptions struct {
	// Views returns the views of the workspace with the given ID in the path;
	// ok is false if there is no such workspace. If Views is nil, every
	// workspace shows all records.
	Views func(r *http.Request, workspace string) (views []View, ok bool, err error)
	// Timeout bounds one query; 0 means 30 seconds.
	Timeout time.Duration
}

// Handler serves queries in the shape of the Log Analytics API: POST (with
// {"query","timespan"}) or GET (?query=&timespan=) of
// .../workspaces/{id}/query. The caller mounts it and authenticates requests.
func (s *Store) Handler(opts HandlerOptions) http.Handler {
	if opts.Timeout <= 0 {
		opts.Timeout = 30 * time.Second
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		workspace := ""
		segs := strings.Split(strings.Trim(r.URL.Path, "/"), "/")
		for i := 0; i+1 < len(segs); i++ {
			if strings.EqualFold(segs[i], "workspaces") {
				workspace = segs[i+1]
			}
		}
		if workspace == "" || !strings.EqualFold(segs[len(segs)-1], "query") {
			writeError(w, http.StatusNotFound, "PathNotFoundError", "The requested path does not exist", nil)
			return
		}
		var body struct{ Query, Timespan string }
		switch r.Method {
		case http.MethodGet:
			body.Query, body.Timespan = r.URL.Query().Get("query"), r.URL.Query().Get("timespan")
		case http.MethodPost:
			b, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 4*kql.MaxQueryBytes))
			if err == nil {
				err = json.Unmarshal(b, &body)
			}
			if err != nil {
				writeError(w, http.StatusBadRequest, "BadArgumentError", "The request body must be JSON with a 'query': "+err.Error(), nil)
				return
			}
		default:
			w.Header().Set("Allow", "GET, POST")
			writeError(w, http.StatusMethodNotAllowed, "MethodNotAllowed", "Queries are sent with GET or POST", nil)
			return
		}
		s.serve(w, r, opts, workspace, body.Query, body.Timespan)
	})
}

func (s *Store) serve(w http.ResponseWriter, r *http.Request, opts HandlerOptions, workspace, query, timespan string) {
	req := Request{Query: query}
	if strings.TrimSpace(query) == "" {
		writeError(w, http.StatusBadRequest, "BadArgumentError", "The request had some invalid properties: 'query' is empty", nil)
		return
	}
	var err error
	if req.From, req.To, err = parseInterval(timespan, s.opts.Clock().UTC()); err != nil {
		writeError(w, http.StatusBadRequest, "BadArgumentError", "The request had some invalid properties: "+err.Error(), nil)
		return
	}
	if opts.Views != nil {
		views, ok, err := opts.Views(r, workspace)
		if err != nil {
			writeError(w, http.StatusInternalServerError, "InternalServerError", "The workspace could not be read: "+err.Error(), nil)
			return
		}
		if !ok {
			writeError(w, http.StatusNotFound, "WorkspaceNotFoundError", "The workspace could not be found: '"+workspace+"'", nil)
			return
		}
		if views == nil {
			views = []View{}
		}
		req.Views = views
	}
	ctx, cancel := context.WithTimeout(r.Context(), opts.Timeout)
	defer cancel()
	res, err := s.Query(ctx, req)
	var qerr *kql.Error
	switch {
	case errors.As(err, &qerr):
		writeError(w, http.StatusBadRequest, "BadArgumentError", "The request had some invalid properties", qerr)
		return
	case err != nil && ctx.Err() != nil:
		writeError(w, http.StatusGatewayTimeout, "GatewayTimeout", "The query took longer than "+opts.Timeout.String()+"; filter by time or category first", nil)
		return
	case err != nil:
		writeError(w, http.StatusInternalServerError, "InternalServerError", err.Error(), nil)
		return
	}
	out := map[string]any{"tables": []any{map[string]any{"name": "PrimaryResult", "columns": res.Columns, "rows": apiRows(res)}}}
	if res.Truncated {
		out["error"] = map[string]any{"code": "PartialError", "message": "There were some errors when processing your query.",
			"details": []any{map[string]any{"code": "EngineError", "message": fmt.Sprintf("The answer was cut off after %d rows.", kql.MaxRowsReturned)}}}
	}
	writeJSON(w, http.StatusOK, out)
}

// apiRows changes the rows of a result to those of the API, which has dynamic
// values as JSON text.
func apiRows(r *kql.Result) [][]any {
	for _, row := range r.Rows {
		for i, v := range row {
			if r.Columns[i].Type == kql.Dynamic && v != nil {
				row[i] = kql.ToString(v)
			}
		}
	}
	return r.Rows
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	b, err := json.Marshal(v)
	if err != nil {
		status, b = http.StatusInternalServerError, []byte(`{"error":{"code":"InternalServerError","message":"The answer could not be written as JSON."}}`)
	}
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.WriteHeader(status)
	_, _ = w.Write(b) // fails only if the client has gone
}

func writeError(w http.ResponseWriter, status int, code, message string, qerr *kql.Error) {
	e := map[string]any{"code": code, "message": message, "correlationId": uuid.NewString()}
	if qerr != nil {
		e["innererror"] = innerError(qerr)
	}
	writeJSON(w, status, map[string]any{"error": e})
}

// innerError returns the details that the API gives about an error in a query.
func innerError(qerr *kql.Error) map[string]any {
	inner := map[string]any{"code": qerr.Code, "message": qerr.Message}
	if qerr.ID != "" {
		inner["code"] = qerr.ID
	}
	if qerr.Line > 0 {
		inner["line"], inner["pos"], inner["token"] = qerr.Line, qerr.Pos, qerr.Token
	}
	message := "A semantic error occurred."
	switch qerr.Code {
	case kql.SyntaxError:
		message = "A recognition error occurred in the query."
		inner["message"] = fmt.Sprintf("Query could not be parsed at '%s' on line [%d,%d]: %s", qerr.Token, qerr.Line, qerr.Pos, qerr.Message)
	case kql.LimitError:
		message = "The query needs more than one query may have."
	}
	return map[string]any{"code": qerr.Code, "message": message, "innererror": inner}
}
