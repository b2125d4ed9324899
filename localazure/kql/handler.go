package kql

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/google/uuid"
)

// HandlerOptions of Handler.
type HandlerOptions struct {
	// Views tells which logs are sent to a workspace, by its ID in the path; ok
	// is false when there is no such workspace. Nil means that every workspace
	// sees everything.
	Views func(r *http.Request, workspace string) (views []View, ok bool, err error)
	// Timeout bounds one query; 0 means 30 seconds.
	Timeout time.Duration
}

// Handler serves queries in the shape of the Log Analytics API: POST (with
// {"query","timespan"}) or GET (?query=&timespan=) of
// .../workspaces/{id}/query. The caller mounts and authenticates it.
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
			b, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 4*MaxQueryBytes))
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
	ctx, cancel := contextWithTimeout(r, opts.Timeout)
	defer cancel()
	res, err := s.Query(ctx, req)
	var qe *Error
	switch {
	case errors.As(err, &qe):
		writeError(w, http.StatusBadRequest, "BadArgumentError", "The request had some invalid properties", qe)
		return
	case err != nil && ctx.Err() != nil:
		writeError(w, http.StatusGatewayTimeout, "GatewayTimeout", "The query took longer than "+opts.Timeout.String()+"; filter by time or category first", nil)
		return
	case err != nil:
		writeError(w, http.StatusInternalServerError, "InternalServerError", err.Error(), nil)
		return
	}
	out := map[string]any{"tables": []any{map[string]any{"name": "PrimaryResult", "columns": res.Columns, "rows": res.apiRows()}}}
	if res.Truncated {
		out["error"] = map[string]any{"code": "PartialError", "message": "There were some errors when processing your query.",
			"details": []any{map[string]any{"code": "EngineError", "message": "The answer was cut off after " + text(int64(MaxRowsReturned)) + " rows."}}}
	}
	writeJSON(w, http.StatusOK, out)
}

// apiRows are the rows as the API has them: dynamic values as JSON text.
func (r *Result) apiRows() [][]any {
	for _, row := range r.Rows {
		for i, v := range row {
			if r.Columns[i].Type == Dynamic && v != nil {
				row[i] = text(v)
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
	_, _ = w.Write(b) // the client has gone when this fails
}

func writeError(w http.ResponseWriter, status int, code, message string, qe *Error) {
	e := map[string]any{"code": code, "message": message, "correlationId": uuid.NewString()}
	if qe != nil {
		inner := map[string]any{"code": qe.Code, "message": qe.Message}
		if qe.ID != "" {
			inner["code"] = qe.ID
		}
		if qe.Line > 0 {
			inner["line"], inner["pos"], inner["token"] = qe.Line, qe.Pos, qe.Token
		}
		if qe.Code == SyntaxError {
			inner["message"] = fmt.Sprintf("Query could not be parsed at '%s' on line [%d,%d]: %s", qe.Token, qe.Line, qe.Pos, qe.Message)
		}
		outer := map[string]string{SyntaxError: "A recognition error occurred in the query.", LimitError: "The query needs more than one query may have."}[qe.Code]
		if outer == "" {
			outer = "A semantic error occurred."
		}
		e["innererror"] = map[string]any{"code": qe.Code, "message": outer, "innererror": inner}
	}
	writeJSON(w, status, map[string]any{"error": e})
}
