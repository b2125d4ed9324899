// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

// Package etcd is the instance's database: the embedded one-member server, the
// client that every component uses, and the check that an external etcd belongs
// to this instance and to no other.
package etcd

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/grpclog"

	"github.com/nap-aks/nap/localazure/home"
)

// Dial connects to an etcd. The client reconnects by itself.
func Dial(e home.EtcdClient) (*clientv3.Client, error) {
	// grpc logs what a restarting etcd causes; callers get the same as errors.
	quietGRPC.Do(func() { grpclog.SetLoggerV2(grpclog.NewLoggerV2(io.Discard, io.Discard, io.Discard)) })
	cert, err := tls.LoadX509KeyPair(e.CertFile, e.KeyFile)
	if err != nil {
		return nil, fmt.Errorf("etcd client certificate: %w", err)
	}
	pem, err := os.ReadFile(e.CAFile)
	if err != nil {
		return nil, fmt.Errorf("etcd authority: %w", err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("etcd authority: no certificate in %s", e.CAFile)
	}
	c, err := clientv3.New(clientv3.Config{
		Endpoints:            e.Endpoints,
		DialTimeout:          5 * time.Second,
		DialKeepAliveTime:    10 * time.Second,
		DialKeepAliveTimeout: 5 * time.Second,
		TLS:                  &tls.Config{Certificates: []tls.Certificate{cert}, RootCAs: roots, MinVersion: tls.VersionTLS12},
		Logger:               zap.NewNop(),
		// A restarted etcd is back within a second; grpc's default backoff would
		// grow to minutes.
		DialOptions: []grpc.DialOption{grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 100 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 2 * time.Second},
			MinConnectTimeout: 3 * time.Second,
		})},
	})
	if err != nil {
		return nil, fmt.Errorf("connecting to etcd at %s: %w", strings.Join(e.Endpoints, ","), err)
	}
	return c, nil
}

var quietGRPC sync.Once

// Ready returns an error unless etcd answers a linearizable read, which needs a
// leader and a working disk.
func Ready(ctx context.Context, c *clientv3.Client) error {
	_, err := c.Get(ctx, "/nap/health")
	return err
}
