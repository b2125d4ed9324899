// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package armtest

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
	"go.uber.org/zap"
)

// Etcd starts an etcd that stops at the end of the test.
func Etcd(t testing.TB) *clientv3.Client {
	t.Helper()
	dir, err := os.MkdirTemp("", "nap-etcd")
	if err != nil {
		t.Fatal(err)
	}
	var e *embed.Etcd
	var address string
	// Another process may have taken a port that was free a moment ago.
	for try := 0; ; try++ {
		e, address, err = startEtcd(filepath.Join(dir, fmt.Sprint(try)))
		if err == nil {
			break
		}
		if !errors.Is(err, syscall.EADDRINUSE) || try == 20 {
			t.Fatal(err)
		}
	}
	select {
	case <-e.Server.ReadyNotify():
	case <-time.After(time.Minute):
		t.Fatal("etcd did not start within a minute")
	}
	cli, err := clientv3.New(clientv3.Config{Endpoints: []string{address}, DialTimeout: 5 * time.Second, Logger: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cli.Close()
		e.Close()
		_ = os.RemoveAll(dir)
	})
	return cli
}

// startEtcd starts an etcd that keeps its state in dir, on two free ports.
func startEtcd(dir string) (*embed.Etcd, string, error) {
	cfg := embed.NewConfig()
	cfg.Dir = filepath.Join(dir, "data")
	cfg.LogLevel = "fatal"
	cfg.LogOutputs = []string{filepath.Join(dir, "log")}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, "", err
	}
	var at [2]url.URL
	for i := range at {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, "", err
		}
		at[i] = url.URL{Scheme: "http", Host: l.Addr().String()}
		if err := l.Close(); err != nil {
			return nil, "", err
		}
	}
	cfg.ListenClientUrls, cfg.AdvertiseClientUrls = []url.URL{at[0]}, []url.URL{at[0]}
	cfg.ListenPeerUrls, cfg.AdvertisePeerUrls = []url.URL{at[1]}, []url.URL{at[1]}
	cfg.InitialCluster = cfg.Name + "=" + at[1].String()
	e, err := embed.StartEtcd(cfg)
	return e, at[0].Host, err
}
