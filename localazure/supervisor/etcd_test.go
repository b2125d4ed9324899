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

	"go.etcd.io/etcd/server/v3/embed"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// foreignEtcd starts an etcd as somebody else would run it, with an authority of
// its own, and says how to reach it.
func foreignEtcd(t *testing.T, maxTxnOps uint) EtcdClient {
	t.Helper()
	ca, err := openAuthority(t.TempDir(), "somebody else")
	if err != nil {
		t.Fatal(err)
	}
	server, err := ca.server("etcd", "localhost", "127.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	client, err := ca.client("client", "nap")
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
	for { // a port that was free a moment ago may be another process's by now
		o := EtcdOptions{DataDir: t.TempDir(), ClientPort: port(), PeerPort: port(), CAFile: ca.caFile(), CertFile: server.certFile, KeyFile: server.keyFile}
		cfg = o.config()
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
	return EtcdClient{Endpoints: []string{cfg.ListenClientUrls[0].String()}, CAFile: ca.caFile(), CertFile: client.certFile, KeyFile: client.keyFile}
}

// A state of its own, somebody else's etcd, the same in the next run: which etcd
// an instance takes, and which it refuses.
func TestExternalEtcd(t *testing.T) {
	prepare := func(h Home, e EtcdClient) (*supervisor, error) {
		p, err := openPorts(h)
		if err != nil {
			t.Fatal(err)
		}
		s := &supervisor{Options: Options{Home: h, Logger: slog.New(slog.DiscardHandler), Etcd: e}, ports: p}
		if err := s.prepare(t.Context()); err != nil {
			return nil, err
		}
		return s, nil
	}
	refused := func(h Home, e EtcdClient, want string) {
		t.Helper()
		before, _ := os.ReadFile(h.Path("instance.json"))
		if _, err := prepare(h, e); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want an error with %q", err, want)
		}
		if after, _ := os.ReadFile(h.Path("instance.json")); string(after) != string(before) {
			t.Errorf("what was refused (%s) has changed instance.json to %s", want, after)
		}
	}
	theirs := foreignEtcd(t, maxTxnOps)
	h := testHome(t)
	s, err := prepare(h, theirs)
	if err != nil {
		t.Fatal(err)
	}
	c, err := s.inst.Etcd.dial()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	me := owner{s.inst.SubscriptionID, h.Dir}
	if err := claimEtcd(t.Context(), c, s.inst.Etcd, me); err != nil {
		t.Fatal(err)
	}
	// The next run needs no flags.
	again, err := prepare(h, EtcdClient{})
	if err != nil || !again.inst.Etcd.External || again.inst.Etcd.Endpoints[0] != theirs.Endpoints[0] {
		t.Errorf("the next run uses %+v (%v)", again, err)
	}
	if err := claimEtcd(t.Context(), c, again.inst.Etcd, owner{again.inst.SubscriptionID, h.Dir}); err != nil {
		t.Error(err)
	}
	// What is deleted with an instance is what it holds, and nobody else's.
	if _, err := c.Put(t.Context(), "/somebody/else", "x"); err != nil {
		t.Fatal(err)
	}
	if err := WipeEtcd(t.Context(), h); err != nil {
		t.Error(err)
	}
	if resp, err := c.Get(t.Context(), "", clientv3.WithPrefix()); err != nil || len(resp.Kvs) != 1 {
		t.Errorf("after the reset etcd holds %v (%v)", resp, err)
	}
	if err := claimEtcd(t.Context(), c, theirs, me); err != nil {
		t.Fatal(err)
	}
	// Another instance must keep away.
	stranger := testHome(t)
	refused(stranger, theirs, "holds the state of another instance (its home folder: "+h.Dir)
	if err := WipeEtcd(t.Context(), stranger); err != nil {
		t.Error(err)
	}
	if err := claimEtcd(t.Context(), c, theirs, owner{"another", "elsewhere"}); err == nil {
		t.Error("a second instance could claim the etcd")
	}
	if resp, err := c.Get(t.Context(), "/nap/", clientv3.WithPrefix()); err != nil || len(resp.Kvs) != 1 || !strings.Contains(string(resp.Kvs[0].Value), s.inst.SubscriptionID) {
		t.Errorf("etcd holds %v (%v)", resp, err)
	}
	// A home that has its own etcd stays with it.
	own := testHome(t)
	if s, err := prepare(own, EtcdClient{}); err != nil || s.inst.Etcd.External {
		t.Fatalf("%+v (%v)", s, err)
	}
	if err := os.MkdirAll(own.Path("etcd", "member"), 0o700); err != nil {
		t.Fatal(err)
	}
	refused(own, theirs, "choose a new folder with --home")
	// What cannot be used.
	refused(testHome(t), foreignEtcd(t, 128), "--max-txn-ops=1024")
	bad := theirs
	bad.Endpoints = []string{strings.Replace(theirs.Endpoints[0], "https", "http", 1)}
	refused(testHome(t), bad, "is not of the form https://HOST:PORT")
	bad = theirs
	bad.KeyFile = ""
	refused(testHome(t), bad, "--etcd-keyfile is missing")
	bad.KeyFile = filepath.Join(t.TempDir(), "none")
	refused(testHome(t), bad, "--etcd-keyfile: stat")
}
