// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

// Package arm is the local Azure Resource Manager: one HTTPS server on loopback
// with the front door (tokens, cloud metadata, ARM's conventions), a package
// per resource provider, and all state in etcd.
//
// Its input is requests of real clients (az, SDKs, templates, Terraform) and the
// statuses in etcd that the machinery reports (package intent). Its output is
// responses, and intents in etcd. Everything that was acknowledged is in etcd, so
// a restarted server resumes all operations.
//
// New creates the handler, Run serves it until its context ends.
package arm

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/nap-aks/nap/localazure/arm/authorization"
	"github.com/nap-aks/nap/localazure/arm/compute"
	"github.com/nap-aks/nap/localazure/arm/containerservice"
	"github.com/nap-aks/nap/localazure/arm/containerservice/kubeapi"
	"github.com/nap-aks/nap/localazure/arm/graph"
	"github.com/nap-aks/nap/localazure/arm/managedidentity"
	"github.com/nap-aks/nap/localazure/arm/monitor"
	"github.com/nap-aks/nap/localazure/arm/network"
	"github.com/nap-aks/nap/localazure/arm/resources"
	"github.com/nap-aks/nap/localazure/arm/rp"
	"github.com/nap-aks/nap/localazure/arm/token"
	"github.com/nap-aks/nap/localazure/logstore"
)

// ServicePrincipal is the first principal, the owner of the subscription.
type ServicePrincipal struct {
	// ObjectID and ClientID are GUIDs. An empty ObjectID is derived from the
	// client ID.
	ObjectID, ClientID string
	ClientSecret       string
	// CertificatePEM, if set, is the certificate for its client assertions.
	CertificatePEM string
	DisplayName    string
}

// Options configure a server. All but those marked optional must be set.
type Options struct {
	// Etcd is the client of the etcd with the state. If it is nil, Run creates
	// one from EtcdConfig and closes it.
	Etcd       *clientv3.Client
	EtcdConfig clientv3.Config
	// Listen is the listen address, such as 127.0.0.1:8443; it must be loopback.
	Listen string
	// BaseURL is the server's URL for clients, such as https://localhost:8443
	// (the host must be in the certificate); optional, by default
	// https://localhost and Listen's port.
	BaseURL string
	// CertFile and KeyFile are the server's certificate (for localhost and
	// 127.0.0.1) and key, PEM.
	CertFile, KeyFile string
	// SigningKeyFile has the RSA key that signs tokens, PEM. The server creates
	// it, with mode 0600, if it does not exist.
	SigningKeyFile string
	// TenantID and SubscriptionID are GUIDs.
	TenantID, SubscriptionID string
	// SubscriptionName is its display name; optional.
	SubscriptionName string
	// Owner is the first service principal; it gets the role Owner of the
	// subscription.
	Owner ServicePrincipal
	// DefaultLocation is the region where none is given; optional, by default
	// eastus.
	DefaultLocation string
	// KubernetesVersions are those that clusters can have; optional:
	// containerservice.DefaultVersions. The newest is the default one.
	KubernetesVersions []string
	// Log is the server's log; optional. Secrets and tokens are never logged.
	Log *slog.Logger
	// Now is the clock; optional.
	Now func() time.Time
	// LogsDir has the components' log files, {cluster UID}/{component}.log.
	// LogsDB is the database that they are collected into for queries of Log
	// Analytics. Both are optional; without LogsDB there are no queries.
	LogsDir, LogsDB string
	// Ready, if set, is closed when the server accepts requests.
	Ready chan<- struct{}
	// Kubectl is the program, with its first arguments, that runs the commands
	// of `az aks command invoke`; optional, without it these are refused.
	Kubectl []string
	// Dial overrides how a cluster's API is reached (tests); optional.
	Dial kubeapi.Dial
}

func (o *Options) complete() error {
	if o.Log == nil {
		o.Log = slog.New(slog.NewTextHandler(io.Discard, nil))
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.DefaultLocation == "" {
		o.DefaultLocation = "eastus"
	}
	if o.SubscriptionName == "" {
		o.SubscriptionName = "Local Azure"
	}
	if o.BaseURL == "" {
		_, port, err := net.SplitHostPort(o.Listen)
		if err != nil {
			return fmt.Errorf("parsing the listen address %q: %w", o.Listen, err)
		}
		o.BaseURL = "https://localhost:" + port
	}
	o.BaseURL = strings.TrimRight(o.BaseURL, "/")
	if o.Owner.ObjectID == "" {
		o.Owner.ObjectID = deriveGUID("object/" + o.Owner.ClientID)
	}
	if o.Owner.DisplayName == "" {
		o.Owner.DisplayName = "nap-owner"
	}
	for name, v := range map[string]string{"TenantID": o.TenantID, "SubscriptionID": o.SubscriptionID, "SigningKeyFile": o.SigningKeyFile, "Owner.ClientID": o.Owner.ClientID} {
		if v == "" {
			return fmt.Errorf("arm.Options.%s is not set", name)
		}
	}
	return nil
}

// Server is the Azure Resource Manager of one instance.
type Server struct {
	options Options
	env     *rp.Env
	cache   *rp.Cache
	tokens  *token.Service
	auth    *authorization.Provider
	compute *compute.Provider
	graph   *graph.Handler
	// logs and what works on it are nil without Options.LogsDB.
	logs      *logstore.Store
	query     http.Handler
	collector *monitor.Collector
	running   sync.WaitGroup

	handler http.Handler

	reads, writes, deletes throttle
}

// New creates a server on an etcd client (o.Etcd) without listening. Call Start
// before sending requests to Handler.
func New(ctx context.Context, o Options) (*Server, error) {
	if err := o.complete(); err != nil {
		return nil, err
	}
	if o.Etcd == nil {
		return nil, errors.New("arm.Options.Etcd is not set")
	}
	cache := rp.NewCache(o.Etcd, o.Log)
	env := &rp.Env{
		Store: &rp.Store{KV: cache}, Engine: rp.NewEngine(cache, o.Log, o.Now), Log: o.Log, Now: o.Now, BaseURL: o.BaseURL,
		TenantID: o.TenantID, SubscriptionID: strings.ToLower(o.SubscriptionID), SubscriptionName: o.SubscriptionName, DefaultLocation: o.DefaultLocation, Locations: catalogued(),
	}
	tokens, err := token.New(cache, o.TenantID, o.BaseURL, o.SigningKeyFile, o.Now)
	if err != nil {
		return nil, err
	}
	s := &Server{options: o, env: env, cache: cache, tokens: tokens,
		reads: throttle{size: 200_000, rate: 5_000}, writes: throttle{size: 40_000, rate: 1_000}, deletes: throttle{size: 20_000, rate: 500}}
	s.auth = authorization.New(env)
	resources.New(env)
	s.compute = compute.New(env)
	network.New(env)
	managedidentity.New(env)
	insights := monitor.New(env)
	if o.LogsDB != "" {
		if s.logs, err = logstore.Open(o.LogsDB, logstore.Options{Clock: o.Now}); err != nil {
			return nil, err
		}
		s.query = insights.QueryHandler(s.logs, tokens)
		if o.LogsDir != "" {
			s.collector = insights.NewCollector(s.logs, o.LogsDir, o.Log)
		}
	}
	s.graph = &graph.Handler{Env: env, Tokens: tokens}
	aks := containerservice.New(env, s.auth, s.compute.Quota, o.KubernetesVersions)
	aks.Kubectl = o.Kubectl
	if o.Dial != nil {
		aks.Dial = o.Dial
	}
	cache.OnChange(env.Engine.Wake)
	cache.OnChange(s.auth.Changed)
	if err := cache.Load(ctx); err != nil {
		return nil, err
	}
	owner := token.Identity{ObjectID: o.Owner.ObjectID, AppID: o.Owner.ClientID, TenantID: o.TenantID, DisplayName: o.Owner.DisplayName, Kind: "Application"}
	if o.Owner.ClientSecret != "" {
		owner.Secrets = []string{token.HashSecret(o.Owner.ClientSecret)}
	}
	if o.Owner.CertificatePEM != "" {
		owner.Certificates = []string{o.Owner.CertificatePEM}
	}
	if err := tokens.Put(ctx, owner); err != nil {
		return nil, err
	}
	if err := s.auth.Ensure(ctx, rp.ID{Subscription: env.SubscriptionID}, owner.ObjectID, authorization.Owner, "owner of the local Azure"); err != nil {
		return nil, err
	}
	s.handler = http.HandlerFunc(s.serve)
	return s, nil
}

// Handler returns the server's HTTP handler.
func (s *Server) Handler() http.Handler { return s.handler }

// Start runs operations and watches etcd until ctx ends. It does not block.
func (s *Server) Start(ctx context.Context) error {
	go s.cache.Run(ctx)
	go s.compute.Run(ctx, s.options.Etcd, s.options.Log)
	if s.collector != nil {
		s.running.Add(1)
		go func() {
			defer s.running.Done()
			s.collector.Run(ctx)
		}()
	}
	return s.env.Engine.Run(ctx)
}

// Wait waits, after Start's context has ended, until operations and the
// collection of logs have stopped, and closes the database of logs.
func (s *Server) Wait() {
	s.env.Engine.Wait()
	s.running.Wait()
	if s.logs != nil {
		if err := s.logs.Close(); err != nil {
			s.options.Log.Warn("closing the log database failed", "error", err)
		}
	}
}

// Run serves the local Azure Resource Manager until ctx ends, and waits for
// running requests. It fails if it cannot listen or reach etcd.
func Run(ctx context.Context, o Options) error {
	if err := o.complete(); err != nil {
		return err
	}
	host, _, err := net.SplitHostPort(o.Listen)
	if err != nil {
		return fmt.Errorf("parsing the listen address %q: %w", o.Listen, err)
	}
	if ip := net.ParseIP(host); host != "localhost" && (ip == nil || !ip.IsLoopback()) {
		return fmt.Errorf("listen address %q is not loopback: the local Azure serves this machine only", o.Listen)
	}
	if o.Etcd == nil {
		cli, err := clientv3.New(o.EtcdConfig)
		if err != nil {
			return fmt.Errorf("connecting to etcd: %w", err)
		}
		defer func() { _ = cli.Close() }()
		o.Etcd = cli
	}
	cert, err := tls.LoadX509KeyPair(o.CertFile, o.KeyFile)
	if err != nil {
		return fmt.Errorf("loading the server's certificate: %w", err)
	}
	s, err := New(ctx, o)
	if err != nil {
		return err
	}
	if err := s.Start(ctx); err != nil {
		return err
	}
	l, err := net.Listen("tcp", o.Listen)
	if err != nil {
		return fmt.Errorf("listening: %w", err)
	}
	srv := &http.Server{
		Handler: s.handler, ReadHeaderTimeout: 30 * time.Second, ReadTimeout: 60 * time.Second, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 256 << 10,
		TLSConfig: &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12, NextProtos: []string{"h2", "http/1.1"}},
		ErrorLog:  slog.NewLogLogger(o.Log.Handler(), slog.LevelDebug),
	}
	o.Log.Info("serving", "address", o.BaseURL, "subscription", o.SubscriptionID, "tenant", o.TenantID)
	if o.Ready != nil {
		close(o.Ready)
	}
	done := make(chan error, 1)
	go func() { done <- srv.ServeTLS(l, "", "") }()
	select {
	case err := <-done:
		return fmt.Errorf("serving: %w", err)
	case <-ctx.Done():
	}
	stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	if err := srv.Shutdown(stop); err != nil {
		_ = srv.Close()
	}
	s.Wait()
	return nil
}

// throttle is a token bucket for one kind of request, as ARM has them for each
// subscription: it holds size requests and refills at rate. It is larger than
// Azure's, so that only a client in an endless loop is throttled.
type throttle struct {
	mu    sync.Mutex
	size  float64
	rate  float64 // requests per second
	used  float64
	since time.Time
}

// take takes a token if there is one and returns how many are left.
func (t *throttle) take(now time.Time) (remaining int64, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.since.IsZero() {
		t.used = max(0, t.used-now.Sub(t.since).Seconds()*t.rate)
	}
	t.since = now
	if t.used+1 > t.size {
		return 0, false
	}
	t.used++
	return int64(t.size - t.used), true
}

// constantHeaders are in every response. The values are shared and must not be
// changed.
var constantHeaders = []struct {
	key   string
	value []string
}{
	{"Cache-Control", []string{"no-cache"}}, {"Pragma", []string{"no-cache"}}, {"Expires", []string{"-1"}},
	{"Strict-Transport-Security", []string{"max-age=31536000; includeSubDomains"}}, {"X-Content-Type-Options", []string{"nosniff"}},
}

func (s *Server) serve(w http.ResponseWriter, r *http.Request) {
	start := time.Now()
	h := w.Header()
	id := rp.NewGUID()
	correlation := r.Header.Get("x-ms-correlation-request-id")
	if correlation == "" {
		correlation = rp.NewGUID()
	}
	// The keys are in canonical form already, which saves http.Header.Set's work
	// on every response.
	h["X-Ms-Request-Id"] = []string{id}
	h["X-Ms-Correlation-Request-Id"] = []string{correlation}
	h["X-Ms-Routing-Request-Id"] = []string{"LOCAL:" + start.UTC().Format("20060102T150405Z") + ":" + id}
	for _, c := range constantHeaders {
		h[c.key] = c.value
	}
	if c := r.Header.Get("x-ms-client-request-id"); c != "" && strings.EqualFold(r.Header.Get("x-ms-return-client-request-id"), "true") {
		h.Set("x-ms-client-request-id", c)
	}
	rec := &recorder{ResponseWriter: w}
	defer func() {
		if p := recover(); p != nil {
			s.options.Log.Error("handler panicked", "method", r.Method, "path", r.URL.Path, "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
			if rec.status == 0 {
				rp.WriteError(rec, rp.Errorf(500, "InternalServerError", "The server encountered an unexpected condition. Its log has the details of request %s.", id))
			}
		}
		if !s.options.Log.Enabled(r.Context(), slog.LevelDebug) {
			return
		}
		s.options.Log.Debug("request", "method", r.Method, "path", r.URL.Path, "api-version", r.URL.Query().Get("api-version"), "status", rec.status,
			"ms", time.Since(start).Milliseconds(), "command", r.Header.Get("CommandName"), "client", r.UserAgent(), "request", id)
	}()
	s.route(rec, r)
}

type recorder struct {
	http.ResponseWriter
	status int
}

func (r *recorder) WriteHeader(status int) {
	r.status = status
	r.ResponseWriter.WriteHeader(status)
}

func (r *recorder) Write(b []byte) (int, error) {
	if r.status == 0 {
		r.status = http.StatusOK
	}
	return r.ResponseWriter.Write(b)
}

// Unwrap lets http.ResponseController reach the real writer.
func (r *recorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }

func (s *Server) route(w http.ResponseWriter, r *http.Request) {
	path := r.URL.Path
	first, _, _ := strings.Cut(strings.TrimPrefix(path, "/"), "/")
	switch {
	case s.tokens.Handles(path):
		s.tokens.ServeHTTP(w, r)
	case strings.EqualFold(strings.TrimSuffix(path, "/"), "/metadata/endpoints"):
		s.metadata(w, r)
	case strings.EqualFold(path, "/api/retail/prices"):
		s.compute.ServePrices(w, r)
	case first == "v1.0":
		s.graph.ServeHTTP(w, r)
	case s.query != nil && strings.EqualFold(first, "v1"):
		s.query.ServeHTTP(w, r)
	case path == "/healthz":
		s.health(w, r)
	case strings.EqualFold(first, "subscriptions") || strings.EqualFold(first, "providers") || strings.EqualFold(first, "tenants"):
		who, err := s.tokens.Authenticate(r.Context(), r, token.ARM)
		if err != nil {
			rp.WriteError(w, err)
			return
		}
		kind, bucket := "writes", &s.writes
		switch r.Method {
		case http.MethodGet, http.MethodHead:
			kind, bucket = "reads", &s.reads
		case http.MethodDelete:
			kind, bucket = "deletes", &s.deletes
		}
		left, ok := bucket.take(time.Now())
		w.Header().Set("x-ms-ratelimit-remaining-subscription-"+kind, strconv.FormatInt(left, 10))
		if !ok {
			e := rp.Errorf(http.StatusTooManyRequests, "SubscriptionRequestsThrottled", "Number of %s for subscription '%s' exceeded the limit of %d per second. Wait a second and try again.", kind, s.env.SubscriptionID, int(bucket.rate))
			e.Header = http.Header{"Retry-After": {"1"}}
			rp.WriteError(w, e)
			return
		}
		s.env.ServeARM(w, r, who)
	default:
		rp.WriteError(w, rp.Errorf(http.StatusNotFound, "NotFound", "Nothing is served at '%s'. Resource Manager is at /subscriptions, tokens are at /%s/oauth2/v2.0/token.", path, s.options.TenantID))
	}
}

func (s *Server) health(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), 2*time.Second)
	defer cancel()
	if _, err := s.options.Etcd.Get(ctx, "/nap/health"); err != nil {
		rp.WriteError(w, rp.Errorf(http.StatusServiceUnavailable, "EtcdUnavailable", "etcd does not respond: %v", err))
		return
	}
	w.Header().Set("Content-Type", "text/plain")
	_, _ = io.WriteString(w, "ok\n")
}
