// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

// Package kube runs the parts of a Kubernetes control plane that act on objects
// inside a simulation: the real kube-scheduler, the real controllers of
// kube-controller-manager that workloads need, and small substitutes for what
// would need a kubelet's heartbeats, a cloud or a process of its own (taints of
// unhealthy nodes, dynamic volumes, garbage collection).
//
// Everything talks to the API through the *rest.Config it is given, sleeps with
// package time, and ends with its context. In a testing/synctest bubble it thus
// lives on the bubble's time. Nothing here reads files, opens sockets or
// measures time.
package kube

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/go-logr/logr"
	"k8s.io/apimachinery/pkg/runtime"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/util/flowcontrol"
	"k8s.io/klog/v2"
)

// init prepares what the process has once, outside of any bubble.
func init() {
	// kube-scheduler asks for a signal when it is built. Were that the first request
	// of the process, the signal loop, which never ends, would belong to the bubble.
	c := make(chan os.Signal, 1)
	signal.Notify(c, syscall.SIGUSR2)
	signal.Stop(c)

	// Kubernetes' handler of errors sleeps until a millisecond after the last error,
	// which at first is the start of the process: decades of a bubble's time.
	utilruntime.ErrorHandlers = []utilruntime.ErrorHandler{logError}
}

// logError logs what a component could not return to the component's logger. What
// does not say whose it is, is mostly a retry, and is logged at level 1.
func logError(ctx context.Context, err error, msg string, keysAndValues ...any) {
	l, noLogger := logr.FromContext(ctx)
	if noLogger != nil {
		l = klog.Background().V(1)
		if !l.Enabled() {
			return
		}
	}
	l.WithCallDepth(3).Error(err, msg, keysAndValues...)
}

// errStopped is what requests of a component answer after its context has ended.
var errStopped = errors.New("the component has stopped")

// limits are a client's own limits of requests.
type limits struct {
	qps   float32 // requests a second; 0 or less: unlimited
	burst int
}

// configFor returns the configuration of one client of a component: protobuf
// where the caller did not choose, its own rate limiter, and no request that
// outlives ctx.
func configFor(ctx context.Context, cfg *rest.Config, l limits) *rest.Config {
	c := rest.CopyConfig(cfg)
	if c.ContentType == "" {
		c.ContentType = runtime.ContentTypeProtobuf
		c.AcceptContentTypes = runtime.ContentTypeProtobuf + "," + runtime.ContentTypeJSON
	}
	c.QPS, c.Burst, c.RateLimiter = -1, 0, nil
	if l.qps > 0 {
		c.RateLimiter = flowcontrol.NewTokenBucketRateLimiter(l.qps, max(l.burst, 1))
	}
	c.Wrap(func(next http.RoundTripper) http.RoundTripper { return &mortal{ctx: ctx, next: next} })
	return c
}

// clientFor returns a typed client for configFor's configuration. Without events,
// what the client is asked to record goes nowhere.
func clientFor(ctx context.Context, cfg *rest.Config, l limits, events bool) (kubernetes.Interface, error) {
	client, err := kubernetes.NewForConfig(configFor(ctx, cfg, l))
	if err != nil {
		return nil, fmt.Errorf("making a client: %w", err)
	}
	if events {
		return client, nil
	}
	return withoutEvents{client}, nil
}

// withLogger returns ctx with the logger, or with one that drops everything.
func withLogger(ctx context.Context, l logr.Logger) context.Context {
	if l.GetSink() == nil {
		l = logr.Discard()
	}
	return klog.NewContext(ctx, l)
}

// mortal ends requests with the component that sent them, as the death of a
// process does. Components send some of their requests with a context that never
// ends.
type mortal struct {
	ctx  context.Context
	next http.RoundTripper
}

// RoundTrip implements http.RoundTripper.
func (m *mortal) RoundTrip(req *http.Request) (*http.Response, error) {
	if m.ctx.Err() != nil {
		return nil, fmt.Errorf("%s %s: %w", req.Method, req.URL.Path, errStopped)
	}
	ctx, cancel := context.WithCancel(req.Context())
	stop := context.AfterFunc(m.ctx, cancel)
	resp, err := m.next.RoundTrip(req.WithContext(ctx))
	if err != nil {
		stop()
		cancel()
		return nil, err
	}
	resp.Body = &mortalBody{ReadCloser: resp.Body, end: func() { stop(); cancel() }}
	return resp, nil
}

// mortalBody is the body of an answer; closing it frees the request's context.
type mortalBody struct {
	io.ReadCloser
	end func()
}

// Close implements io.Closer.
func (b *mortalBody) Close() error {
	err := b.ReadCloser.Close()
	b.end()
	return err
}

// sleep waits for d, or until ctx ends, and reports whether d has passed.
func sleep(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
