// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package azure

import (
	"encoding/pem"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"
)

// TestDeadConnectionIsReplaced interrupts an idle HTTP/2 connection without closing
// it: the client soon uses a new connection.
func TestDeadConnectionIsReplaced(t *testing.T) {
	after, wait := pingAfter, pingWait
	pingAfter, pingWait = 300*time.Millisecond, 300*time.Millisecond
	t.Cleanup(func() { pingAfter, pingWait = after, wait })

	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, r.Proto) }))
	server.EnableHTTP2 = true
	server.StartTLS()
	t.Cleanup(server.Close)
	proxy, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = proxy.Close() })
	var cut atomic.Bool // drop the data of the first connection
	var connections atomic.Int32
	go func() {
		for {
			near, err := proxy.Accept()
			if err != nil {
				return
			}
			far, err := net.Dial("tcp", server.Listener.Addr().String())
			if err != nil {
				return
			}
			first := connections.Add(1) == 1
			pass := func(to, from net.Conn) {
				buffer := make([]byte, 4096)
				for {
					n, err := from.Read(buffer)
					if err != nil {
						_ = to.Close()
						return
					}
					if first && cut.Load() {
						continue // drop the data
					}
					if _, err := to.Write(buffer[:n]); err != nil {
						return
					}
				}
			}
			go pass(near, far)
			go pass(far, near)
		}
	}()
	file := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	client, err := Config{CAFile: file}.httpClient()
	if err != nil {
		t.Fatal(err)
	}
	get := func() error {
		resp, err := client.Get("https://" + proxy.Addr().String())
		if err != nil {
			return err
		}
		defer func() { _ = resp.Body.Close() }()
		if body, err := io.ReadAll(resp.Body); err != nil || string(body) != "HTTP/2.0" {
			t.Fatalf("the server saw %q (%v), want HTTP/2.0", body, err)
		}
		return nil
	}
	if err := get(); err != nil {
		t.Fatal(err)
	}
	cut.Store(true)
	began := time.Now()
	for {
		if err = get(); err == nil {
			break
		}
		if time.Since(began) > 20*time.Second {
			t.Fatalf("no answer after 20s: %v", err)
		}
	}
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("a new connection took %s", took)
	}
	if n := connections.Load(); n < 2 {
		t.Errorf("%d connections, want 2 or more", n)
	}
}

// TestConfiguredClientSendsEverything counts what reaches the network's stand-in: a
// configured client gets requests for tokens, to ARM and for prices.
func TestConfiguredClientSendsEverything(t *testing.T) {
	hosts := map[string]int{}
	config := Config{
		ARMEndpoint: "https://arm.invalid", TenantID: testTenant, ClientID: "c", ClientSecret: "s", ClusterResourceID: testClusterID, PricesEndpoint: "https://prices.invalid",
		HTTPClient: &http.Client{Transport: roundTripper(func(r *http.Request) (*http.Response, error) {
			hosts[r.URL.Host]++
			return &http.Response{StatusCode: http.StatusTeapot, Header: http.Header{}, Body: http.NoBody, Request: r}, nil
		})},
	}
	if _, err := New(t.Context(), config, nil); err == nil {
		t.Fatal("signing in to a teapot has succeeded")
	}
	clients, err := newClients(config, testSubscription)
	if err != nil {
		t.Fatal(err)
	}
	if err := newPrices(config.PricesEndpoint, "eastus", clients.HTTP).refresh(t.Context()); err == nil {
		t.Fatal("a teapot has prices")
	}
	if hosts["arm.invalid"] == 0 || hosts["prices.invalid"] != 1 || len(hosts) != 2 {
		t.Fatalf("requests by host: %v", hosts)
	}
}

// roundTripper makes a function a http.RoundTripper.
type roundTripper func(*http.Request) (*http.Response, error)

// RoundTrip calls f.
func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }
