// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package world

import (
	"context"
	"errors"
	"net/http"
	"sync/atomic"
)

// errKilled is what the goroutines of a killed process get from their requests, as
// long as they still run.
var errKilled = errors.New("the process was killed")

// process is one life of a program. Killing it is like kill -9: from that moment
// nothing that it does reaches anyone, whatever its goroutines are about to do.
type process struct {
	dead   atomic.Bool
	cancel context.CancelFunc
	ended  chan struct{} // closed when run has returned
	err    error         // of run; read it after ended
}

// startProcess starts run, whose requests have to go through gate.
func startProcess(ctx context.Context, run func(ctx context.Context, p *process) error) *process {
	ctx, cancel := context.WithCancel(ctx)
	p := &process{cancel: cancel, ended: make(chan struct{})}
	go func() {
		defer close(p.ended)
		p.err = run(ctx, p)
	}()
	return p
}

// kill ends the process. It does not wait for its goroutines.
func (p *process) kill() {
	p.dead.Store(true)
	p.cancel()
}

// gate returns a transport for the requests of the process. A request in flight at
// the moment of death may have been carried out; its answer is lost.
func (p *process) gate(next http.RoundTripper) http.RoundTripper {
	return roundTripper(func(r *http.Request) (*http.Response, error) {
		if p.dead.Load() {
			return nil, errKilled
		}
		resp, err := next.RoundTrip(r)
		if p.dead.Load() {
			if err == nil {
				_ = resp.Body.Close()
			}
			return nil, errKilled
		}
		return resp, err
	})
}

// roundTripper makes a function a http.RoundTripper.
type roundTripper func(*http.Request) (*http.Response, error)

// RoundTrip calls f.
func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }
