// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package supervisor

import (
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"

	"github.com/nap-aks/nap/localazure/etcd"
	"github.com/nap-aks/nap/localazure/home"
	"github.com/nap-aks/nap/localazure/pki"
)

func testHome(t *testing.T) home.Home {
	t.Helper()
	h, err := home.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// externalEtcd starts an etcd that the instance does not run, with an authority of
// its own, and returns how to reach it.
func externalEtcd(t *testing.T, maxTxnOps uint) home.EtcdClient {
	t.Helper()
	ca, err := pki.OpenAuthority(t.TempDir(), "external")
	if err != nil {
		t.Fatal(err)
	}
	server, err := ca.Server("etcd", "localhost", "127.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	client, err := ca.Client("client", "nap")
	if err != nil {
		t.Fatal(err)
	}
	port := func() int {
		l, err := net.Listen("tcp4", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = l.Close() }()
		return l.Addr().(*net.TCPAddr).Port
	}
	var e *embed.Etcd
	var cfg *embed.Config
	for { // another process may have taken the free port meanwhile
		o := etcd.ServerOptions{DataDir: t.TempDir(), ClientPort: port(), PeerPort: port(), CAFile: ca.CAFile(), CertFile: server.CertFile, KeyFile: server.KeyFile}
		cfg = o.Config()
		cfg.MaxTxnOps = maxTxnOps
		if e, err = embed.StartEtcd(cfg); err == nil {
			break
		}
		if !errors.Is(err, syscall.EADDRINUSE) {
			t.Fatal(err)
		}
	}
	t.Cleanup(e.Close)
	select {
	case <-e.Server.ReadyNotify():
	case <-time.After(time.Minute):
		t.Fatal("etcd is not ready")
	}
	return home.EtcdClient{Endpoints: []string{cfg.ListenClientUrls[0].String()}, CAFile: ca.CAFile(), CertFile: client.CertFile, KeyFile: client.KeyFile}
}

// An instance uses the external etcd it is given, in later runs too, and refuses
// one that is unusable or belongs to another instance.
func TestExternalEtcd(t *testing.T) {
	prepare := func(h home.Home, e home.EtcdClient) (*supervisor, error) {
		p, err := home.OpenPorts(h)
		if err != nil {
			t.Fatal(err)
		}
		s := &supervisor{Options: Options{Home: h, Logger: slog.New(slog.DiscardHandler), Etcd: e}, ports: p}
		if err := s.prepare(t.Context()); err != nil {
			return nil, err
		}
		return s, nil
	}
	refused := func(h home.Home, e home.EtcdClient, want string) {
		t.Helper()
		before, _ := os.ReadFile(h.Path("instance.json"))
		if _, err := prepare(h, e); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want an error with %q", err, want)
		}
		if after, _ := os.ReadFile(h.Path("instance.json")); string(after) != string(before) {
			t.Errorf("a refused etcd (%s) has changed instance.json to %s", want, after)
		}
	}
	theirs := externalEtcd(t, etcd.MaxTxnOps)
	h := testHome(t)
	s, err := prepare(h, theirs)
	if err != nil {
		t.Fatal(err)
	}
	c, err := etcd.Dial(s.inst.Etcd)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	me := etcd.Owner{ID: s.inst.SubscriptionID, Home: h.Dir}
	if err := etcd.Claim(t.Context(), c, s.inst.Etcd, me); err != nil {
		t.Fatal(err)
	}
	// The next run needs no flags.
	again, err := prepare(h, home.EtcdClient{})
	if err != nil || !again.inst.Etcd.External || again.inst.Etcd.Endpoints[0] != theirs.Endpoints[0] {
		t.Errorf("the next run uses %+v (%v)", again, err)
	}
	if err := etcd.Claim(t.Context(), c, again.inst.Etcd, etcd.Owner{ID: again.inst.SubscriptionID, Home: h.Dir}); err != nil {
		t.Error(err)
	}
	// A reset deletes the instance's keys and no others.
	if _, err := c.Put(t.Context(), "/somebody/else", "x"); err != nil {
		t.Fatal(err)
	}
	if err := etcd.Wipe(t.Context(), h); err != nil {
		t.Error(err)
	}
	if resp, err := c.Get(t.Context(), "", clientv3.WithPrefix()); err != nil || len(resp.Kvs) != 1 {
		t.Errorf("after the reset etcd holds %v (%v)", resp, err)
	}
	if err := etcd.Claim(t.Context(), c, theirs, me); err != nil {
		t.Fatal(err)
	}
	// Another instance must not use it.
	stranger := testHome(t)
	refused(stranger, theirs, "holds the state of another instance (its home folder: "+h.Dir)
	if err := etcd.Wipe(t.Context(), stranger); err != nil {
		t.Error(err)
	}
	if err := etcd.Claim(t.Context(), c, theirs, etcd.Owner{ID: "another", Home: "elsewhere"}); err == nil {
		t.Error("a second instance claimed the etcd")
	}
	if resp, err := c.Get(t.Context(), "/nap/", clientv3.WithPrefix()); err != nil || len(resp.Kvs) != 1 || !strings.Contains(string(resp.Kvs[0].Value), s.inst.SubscriptionID) {
		t.Errorf("etcd holds %v (%v)", resp, err)
	}
	// A home whose state is in its embedded etcd keeps it.
	own := testHome(t)
	if s, err := prepare(own, home.EtcdClient{}); err != nil || s.inst.Etcd.External {
		t.Fatalf("%+v (%v)", s, err)
	}
	if err := os.MkdirAll(own.Path("etcd", "member"), 0o700); err != nil {
		t.Fatal(err)
	}
	refused(own, theirs, "choose a new folder with --home")
	// Unusable etcds and flags.
	refused(testHome(t), externalEtcd(t, 128), "--max-txn-ops=1024")
	bad := theirs
	bad.Endpoints = []string{strings.Replace(theirs.Endpoints[0], "https", "http", 1)}
	refused(testHome(t), bad, "is not of the form https://HOST:PORT")
	bad = theirs
	bad.KeyFile = ""
	refused(testHome(t), bad, "--etcd-keyfile is missing")
	bad.KeyFile = filepath.Join(t.TempDir(), "none")
	refused(testHome(t), bad, "--etcd-keyfile: stat")
}
