// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

// Package armtest runs a local Azure Resource Manager for tests: an embedded
// etcd, the server behind a TLS listener on loopback, clients of the Azure SDK
// for Go, and a stand-in for the machinery that fulfils intents.
package armtest

import (
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/nap-aks/nap/localazure/arm"
	"github.com/nap-aks/nap/localazure/arm/containerservice/kubeapi"
	"github.com/nap-aks/nap/localazure/intent"
)

// Tenant, subscription and owner of every test's Azure.
const (
	Tenant       = "11111111-1111-4111-8111-111111111111"
	Subscription = "22222222-2222-4222-8222-222222222222"
	ClientID     = "33333333-3333-4333-8333-333333333333"
	ClientSecret = "not-a-real-secret-of-anyone"
)

// Azure is a running local Azure Resource Manager.
type Azure struct {
	T    testing.TB
	Etcd *clientv3.Client
	Live *Live
	URL  string
	HTTP *http.Client
	// Dir is where the server keeps its files.
	Dir   string
	opts  arm.Options
	ahead atomic.Int64

	signIn     sync.Once
	ownerToken string

	srv        *httptest.Server
	server     *arm.Server
	cancel     context.CancelFunc
	mu         sync.RWMutex
	cur        http.Handler
	generation int
}

// New starts an Azure with its own etcd; configure may change its options.
func New(t testing.TB, configure ...func(*arm.Options)) *Azure {
	t.Helper()
	a := &Azure{T: t, Etcd: Etcd(t), Live: &Live{}, Dir: t.TempDir()}
	a.srv = httptest.NewUnstartedServer(http.HandlerFunc(a.serve))
	a.srv.EnableHTTP2 = true
	a.srv.Config.ErrorLog = slog.NewLogLogger(slog.NewTextHandler(io.Discard, nil), slog.LevelError)
	a.srv.StartTLS()
	_, port, err := net.SplitHostPort(a.srv.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	// The test certificate is for 127.0.0.1.
	a.URL = "https://127.0.0.1:" + port
	a.HTTP = a.srv.Client()
	a.HTTP.Transport.(*http.Transport).MaxIdleConnsPerHost = 64
	level := slog.LevelError
	if os.Getenv("NAP_TEST_LOG") != "" {
		level = slog.LevelDebug
	}
	a.opts = arm.Options{
		Etcd: a.Etcd, BaseURL: a.URL, SigningKeyFile: filepath.Join(a.Dir, "token.key"), TenantID: Tenant, SubscriptionID: Subscription,
		Owner: arm.ServicePrincipal{ClientID: ClientID, ClientSecret: ClientSecret},
		Log:   slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level})),
		Dial:  func(intent.ClusterStatus) (kubeapi.Client, error) { return a.Live, nil },
		Now:   func() time.Time { return time.Now().Add(time.Duration(a.ahead.Load())) },
	}
	for _, f := range configure {
		f(&a.opts)
	}
	a.Start()
	t.Cleanup(func() { a.Stop(); a.srv.Close() })
	return a
}

// serve passes a request to the running server. If the server is stopped before
// it has answered, the client gets no answer, as if the process had been killed.
func (a *Azure) serve(w http.ResponseWriter, r *http.Request) {
	a.mu.RLock()
	h, generation := a.cur, a.generation
	a.mu.RUnlock()
	rec := httptest.NewRecorder()
	h.ServeHTTP(rec, r)
	a.mu.RLock()
	defer a.mu.RUnlock()
	if a.generation != generation {
		panic(http.ErrAbortHandler)
	}
	for k, v := range rec.Header() {
		w.Header()[k] = v
	}
	w.WriteHeader(rec.Code)
	_, _ = w.Write(rec.Body.Bytes())
}

// Start starts the server, also after Stop.
func (a *Azure) Start() {
	a.T.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	s, err := arm.New(ctx, a.opts)
	if err != nil {
		a.T.Fatal(err)
	}
	if err := s.Start(ctx); err != nil {
		a.T.Fatal(err)
	}
	a.mu.Lock()
	a.cur, a.server, a.cancel = s.Handler(), s, cancel
	a.mu.Unlock()
}

// Stop stops the server like a kill: what is not in etcd is lost.
func (a *Azure) Stop() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.cancel != nil {
		a.cancel()
		a.server.Wait()
		a.cancel = nil
		a.generation++
		a.cur = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadGateway) })
	}
}

// Advance sets the server's clock forward.
func (a *Azure) Advance(d time.Duration) { a.ahead.Add(int64(d)) }

// LogTo writes the server's whole log to w.
func LogTo(w io.Writer) func(*arm.Options) {
	return func(o *arm.Options) {
		o.Log = slog.New(slog.NewJSONHandler(w, &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
}

// Server returns the running server.
func (a *Azure) Server() *arm.Server { return a.server }
