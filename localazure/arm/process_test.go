// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package arm_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/nap-aks/nap/localazure/arm"
	"github.com/nap-aks/nap/localazure/arm/armtest"
)

// serverEnv is the environment variable that makes the test binary run a server,
// in a process that can be killed.
const serverEnv = "NAP_TEST_ARM_SERVER"

type serverArgs struct{ Etcd, Listen, Cert, Key, Signing string }

// TestServerProcess is not a test but the server process of other tests.
func TestServerProcess(t *testing.T) {
	text := os.Getenv(serverEnv)
	if text == "" {
		t.Skip("runs only as the server process of other tests")
	}
	var a serverArgs
	if err := json.Unmarshal([]byte(text), &a); err != nil {
		t.Fatal(err)
	}
	for {
		ctx, cancel := context.WithCancel(context.Background())
		err := arm.Run(ctx, arm.Options{
			EtcdConfig: clientv3.Config{Endpoints: []string{a.Etcd}, DialTimeout: 5 * time.Second, Logger: zap.NewNop()}, Listen: a.Listen, CertFile: a.Cert, KeyFile: a.Key, SigningKeyFile: a.Signing,
			TenantID: armtest.Tenant, SubscriptionID: armtest.Subscription, Owner: arm.ServicePrincipal{ClientID: armtest.ClientID, ClientSecret: armtest.ClientSecret},
		})
		cancel()
		// Between a kill and the next start a connection may have taken the port
		// for a moment.
		if !errors.Is(err, syscall.EADDRINUSE) {
			t.Fatal(err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// process is a server in its own process.
type process struct {
	t       *testing.T
	args    serverArgs
	url     string
	clients []*http.Client
	roots   *x509.CertPool
	token   string
	mu      sync.Mutex
	cmd     *exec.Cmd
}

// certificate writes a self-signed certificate for 127.0.0.1 and its key, and
// returns a pool with it.
func certificate(t *testing.T, cert, key string) *x509.CertPool {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, c, c, &k.PublicKey, k)
	if err != nil {
		t.Fatal(err)
	}
	kd, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	p := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	if err := os.WriteFile(cert, p, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(key, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: kd}), 0o600); err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(p)
	return roots
}

// startServed starts a server with the tests' resource group, and fulfils its
// intents until the test ends.
func startServed(t *testing.T) *process {
	t.Helper()
	etcd := armtest.Etcd(t)
	ctx, cancel := context.WithCancel(t.Context())
	var machinery sync.WaitGroup
	machinery.Go(func() { armtest.Fulfil(ctx, etcd) })
	t.Cleanup(func() { cancel(); machinery.Wait() })
	p := startProcess(t, etcd)
	if r, err := p.do(0, "PUT", group, map[string]any{"location": "eastus"}, ""); err != nil || r.Status != 201 {
		t.Fatalf("%v %d %s", err, r.Status, r.Body)
	}
	return p
}

func startProcess(t *testing.T, etcd *clientv3.Client) *process {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	at := l.Addr().String()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	p := &process{t: t, url: "https://" + at, args: serverArgs{Etcd: etcd.Endpoints()[0], Listen: at, Cert: filepath.Join(dir, "cert"), Key: filepath.Join(dir, "key"), Signing: filepath.Join(dir, "token.key")}}
	roots := certificate(t, p.args.Cert, p.args.Key)
	p.roots = roots
	for range 8 { // a connection carries at most 250 requests at a time
		p.clients = append(p.clients, p.client(true))
	}
	p.run()
	t.Cleanup(p.kill)
	_, port, err := net.SplitHostPort(at)
	if err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(30 * time.Second); p.token == "" && time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		resp, err := p.clients[0].PostForm(p.url+"/"+armtest.Tenant+"/oauth2/v2.0/token", url.Values{"grant_type": {"client_credentials"}, "client_id": {armtest.ClientID}, "client_secret": {armtest.ClientSecret}, "scope": {"https://localhost:" + port + "/.default"}})
		if err != nil {
			continue
		}
		var body struct {
			AccessToken string `json:"access_token"`
		}
		if err := json.NewDecoder(resp.Body).Decode(&body); err == nil {
			p.token = body.AccessToken
		}
		_ = resp.Body.Close()
	}
	if p.token == "" {
		t.Fatal("the server did not start within 30 s")
	}
	return p
}

// client returns a client with its own connections: one of HTTP/2, or as many of
// HTTP/1.1 as it needs.
func (p *process) client(http2 bool) *http.Client {
	tr := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: p.roots, MinVersion: tls.VersionTLS12}, ForceAttemptHTTP2: http2}
	if !http2 {
		tr.TLSNextProto = map[string]func(string, *tls.Conn) http.RoundTripper{}
	}
	return &http.Client{Timeout: time.Minute, Transport: tr}
}

func (p *process) run() {
	text, err := json.Marshal(p.args)
	if err != nil {
		p.t.Error(err)
		return
	}
	cmd := exec.Command(os.Args[0], "-test.run=^TestServerProcess$")
	// The same environment as in `nap up`.
	cmd.Env = append(os.Environ(), serverEnv+"="+string(text), "GOMEMLIMIT=300MiB", "GOGC=200")
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := cmd.Start(); err != nil {
		p.t.Error(err)
		return
	}
	p.cmd = cmd
}

// cpuTime returns the processor time that the server has used, in user mode and in
// the kernel, or 0 without /proc.
func (p *process) cpuTime() time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.cmd.Process.Pid))
	if err != nil {
		return 0
	}
	_, rest, _ := strings.Cut(string(b), ") ")
	var user, system int64
	if f := strings.Fields(rest); len(f) > 12 {
		_, _ = fmt.Sscan(f[11], &user)
		_, _ = fmt.Sscan(f[12], &system)
	}
	return time.Duration(user+system) * 10 * time.Millisecond // of 100 a second
}

// kill sends SIGKILL to the process and waits for its end.
func (p *process) kill() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd != nil {
		_ = p.cmd.Process.Kill()
		_ = p.cmd.Wait()
		p.cmd = nil
	}
}

// do sends a request over one of the connections. After an error it is unknown
// whether the request was carried out.
func (p *process) do(n int, method, path string, body any, ifMatch string) (armtest.Reply, error) {
	var rd io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return armtest.Reply{}, err
		}
		rd = bytes.NewReader(b)
	}
	req, err := http.NewRequest(method, p.url+path+"?api-version=2025-10-01", rd)
	if err != nil {
		return armtest.Reply{}, err
	}
	req.Header.Set("Authorization", "Bearer "+p.token)
	req.Header.Set("Content-Type", "application/json")
	if ifMatch != "" {
		req.Header.Set("If-Match", ifMatch)
	}
	resp, err := p.clients[n%len(p.clients)].Do(req)
	if err != nil {
		return armtest.Reply{}, err
	}
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return armtest.Reply{}, err
	}
	r := armtest.Reply{Status: resp.StatusCode, Header: resp.Header, Body: string(b)}
	_ = json.Unmarshal(b, &r.JSON) // the caller looks at the status first
	return r, nil
}
