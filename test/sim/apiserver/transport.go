// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package apiserver

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
)

// answer is what a request is answered with.
type answer struct {
	code        int
	contentType string
	body        []byte
	stream      io.ReadCloser // a watch, instead of body
}

// errBroken is what clients see of a connection that breaks.
var errBroken error = &net.OpError{Op: "read", Net: "tcp", Err: os.NewSyscallError("read", syscall.ECONNRESET)}

// Config returns the configuration of a client, whose requests are handled in the
// goroutines that make them. Its name is what faults, delays and counts know it by,
// and its user agent. It has no rate limit.
func (s *Server) Config(client string) *rest.Config {
	return &rest.Config{Host: "http://apiserver.invalid", Transport: &transport{server: s, client: client}, QPS: -1, UserAgent: client}
}

// transport sends the requests of one client to the server.
type transport struct {
	server *Server
	client string
}

// RoundTrip implements http.RoundTripper.
func (t *transport) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Body != nil {
		defer func() { _ = r.Body.Close() }()
	}
	a, err := t.server.serveHTTP(r, t.client)
	if err != nil {
		return nil, err
	}
	resp := &http.Response{
		StatusCode: a.code, Status: strconv.Itoa(a.code) + " " + http.StatusText(a.code), Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: http.Header{"Content-Type": {a.contentType}}, Request: r, ContentLength: -1, Body: a.stream,
	}
	if a.stream == nil {
		resp.ContentLength = int64(len(a.body))
		resp.Body = io.NopCloser(bytes.NewReader(a.body))
	}
	if a.code == http.StatusTooManyRequests || a.code == http.StatusServiceUnavailable {
		setRetryAfter(resp.Header, a.body)
	}
	return resp, nil
}

// CancelRequest does nothing: the end of its context ends a request. Clients with a
// timeout look for it.
func (*transport) CancelRequest(*http.Request) {}

// setRetryAfter copies the time to wait from a Status into its header, where clients
// look for it.
func setRetryAfter(h http.Header, body []byte) {
	var st metav1.Status
	if json.Unmarshal(body, &st) == nil && st.Details != nil && st.Details.RetryAfterSeconds > 0 {
		h.Set("Retry-After", strconv.Itoa(int(st.Details.RetryAfterSeconds)))
	}
}

// ServeHTTP implements http.Handler for clients outside of the process. The client's
// name is its user agent.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	t := &transport{server: s, client: r.UserAgent()}
	resp, err := t.RoundTrip(r)
	if err != nil {
		panic(http.ErrAbortHandler) // breaks the connection
	}
	defer func() { _ = resp.Body.Close() }()
	for k, v := range resp.Header {
		w.Header()[k] = v
	}
	w.WriteHeader(resp.StatusCode)
	flusher, _ := w.(http.Flusher)
	if flusher == nil || resp.ContentLength >= 0 {
		_, _ = io.Copy(w, resp.Body)
		return
	}
	flusher.Flush()
	b := make([]byte, 32<<10)
	for {
		n, err := resp.Body.Read(b)
		if _, failed := w.Write(b[:n]); err != nil || failed != nil {
			return
		}
		flusher.Flush()
	}
}

// serveHTTP answers a request. An error is one of the connection.
func (s *Server) serveHTTP(r *http.Request, client string) (*answer, error) {
	ctx := r.Context()
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if a := s.discover(r); a != nil {
		return a, nil
	}
	q, err := s.parse(r, client)
	if err != nil {
		return failure(err), nil
	}
	s.mu.Lock()
	s.calls[CallKey{q.Client, q.Verb, q.Resource.Resource, q.Subresource}]++
	epoch := s.epoch
	s.mu.Unlock()
	var f Fault
	if s.options.Intercept != nil {
		f = s.options.Intercept(ctx, &q.Call)
	}
	if f.Hang {
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-epoch:
			return nil, errBroken
		}
	}
	if err := pause(ctx, f.Before); err != nil {
		return nil, err
	}
	if f.Err != nil {
		return failure(f.Err), nil
	}
	a, err := s.handle(q)
	if err != nil {
		a = failure(err)
	}
	err = pause(ctx, f.After)
	if err == nil && f.Lose {
		err = errBroken
	}
	if err != nil {
		if a.stream != nil {
			_ = a.stream.Close()
		}
		return nil, err
	}
	return a, nil
}

// pause waits for d, or until the context ends, which is an error.
func pause(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// failure returns the answer for an error.
func failure(err error) *answer {
	st, ok := errors.AsType[*apierrors.StatusError](err)
	if !ok {
		st = apierrors.NewInternalError(err)
	}
	return statusAnswer(st.ErrStatus)
}

// statusAnswer returns an answer that is a Status, in JSON: clients read that in every
// case.
func statusAnswer(st metav1.Status) *answer {
	st.TypeMeta = metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}
	return jsonAnswer(int(st.Code), &st)
}

// jsonAnswer returns an answer that is a document.
func jsonAnswer(code int, doc any) *answer {
	body, err := json.Marshal(doc)
	if err != nil {
		return &answer{code: http.StatusInternalServerError, contentType: "text/plain", body: []byte(strings.ToValidUTF8(err.Error(), "?"))}
	}
	if code == 0 {
		code = http.StatusInternalServerError
	}
	return &answer{code: code, contentType: "application/json", body: body}
}
