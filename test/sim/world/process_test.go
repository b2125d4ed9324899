// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package world

import (
	"context"
	"errors"
	"net/http"
	"testing"
)

func TestAKilledProcessReachesNobody(t *testing.T) {
	handled := 0
	var p *process
	inFlight := func(*http.Request) (*http.Response, error) {
		handled++
		if handled == 2 {
			p.kill()
		}
		return &http.Response{StatusCode: 200, Body: http.NoBody}, nil
	}
	started := make(chan struct{})
	p = startProcess(context.Background(), func(ctx context.Context, _ *process) error {
		close(started)
		<-ctx.Done()
		return ctx.Err()
	})
	<-started
	gate := p.gate(roundTripper(inFlight))
	request := func() error {
		r, err := http.NewRequestWithContext(context.Background(), http.MethodGet, "http://api", nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := gate.RoundTrip(r)
		if err == nil {
			_ = resp.Body.Close()
		}
		return err
	}
	if err := request(); err != nil {
		t.Fatalf("request of a living process: %v", err)
	}
	if err := request(); !errors.Is(err, errKilled) || handled != 2 {
		t.Fatalf("request in flight when killed: %v, %d handled; want it handled and its answer lost", err, handled)
	}
	if err := request(); !errors.Is(err, errKilled) || handled != 2 {
		t.Fatalf("request after the kill: %v, %d handled; want it not handled", err, handled)
	}
	<-p.ended
	if !errors.Is(p.err, context.Canceled) {
		t.Fatalf("the process ended with %v", p.err)
	}
}
