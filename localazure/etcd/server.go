// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package etcd

import (
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/signal"
	"syscall"

	"go.etcd.io/etcd/client/pkg/v3/transport"
	"go.etcd.io/etcd/server/v3/embed"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// MaxTxnOps is the number of operations that one transaction of ours may have.
const MaxTxnOps = 1024

// ServerOptions are the settings of the embedded etcd.
type ServerOptions struct {
	DataDir              string
	ClientPort, PeerPort int
	CAFile               string
	CertFile, KeyFile    string
}

// Run serves a one-member etcd on loopback until SIGTERM. Clients and peers need
// a certificate of the instance's authority; writes are fsynced.
func Run(o ServerOptions) error {
	e, err := embed.StartEtcd(o.Config())
	if err != nil {
		return fmt.Errorf("starting etcd: %w", err)
	}
	defer e.Close()
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM, syscall.SIGINT)
	select {
	case <-stop:
		return nil
	case err := <-e.Err():
		return fmt.Errorf("etcd: %w", err)
	case <-e.Server.StopNotify():
		return errors.New("etcd stopped by itself; see the log above")
	}
}

// Config returns etcd's own configuration for these options.
func (o ServerOptions) Config() *embed.Config {
	cfg := embed.NewConfig()
	cfg.Name = "nap"
	cfg.Dir = o.DataDir
	client := url.URL{Scheme: "https", Host: fmt.Sprintf("127.0.0.1:%d", o.ClientPort)}
	peer := url.URL{Scheme: "https", Host: fmt.Sprintf("127.0.0.1:%d", o.PeerPort)}
	cfg.ListenClientUrls, cfg.AdvertiseClientUrls = []url.URL{client}, []url.URL{client}
	cfg.ListenPeerUrls, cfg.AdvertisePeerUrls = []url.URL{peer}, []url.URL{peer}
	cfg.InitialCluster = cfg.InitialClusterFromName(cfg.Name)
	tlsInfo := transport.TLSInfo{
		CertFile: o.CertFile, KeyFile: o.KeyFile, ClientCertFile: o.CertFile, ClientKeyFile: o.KeyFile,
		TrustedCAFile: o.CAFile, ClientCertAuth: true,
	}
	cfg.ClientTLSInfo, cfg.PeerTLSInfo = tlsInfo, tlsInfo
	cfg.QuotaBackendBytes = 4 << 30
	cfg.MaxTxnOps = MaxTxnOps
	cfg.SnapshotCount = 5000 // keeps fewer entries in memory than the default
	cfg.SnapshotCatchUpEntries = 500
	cfg.LogLevel = "warn"
	cfg.ZapLoggerBuilder = embed.NewZapLoggerBuilder(logger())
	return cfg
}

func logger() *zap.Logger {
	c := zap.NewProductionConfig()
	c.Level = zap.NewAtomicLevelAt(zap.WarnLevel)
	c.EncoderConfig.EncodeTime = zapcore.ISO8601TimeEncoder
	l, err := c.Build()
	if err != nil {
		return zap.NewNop()
	}
	return l
}
