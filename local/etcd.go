package local

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"go.etcd.io/etcd/client/pkg/v3/transport"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/grpclog"
)

// EtcdOptions tell RunEtcd what to serve; RunEtcd's caller gets them from the
// supervisor's command line.
type EtcdOptions struct {
	DataDir              string
	ClientPort, PeerPort int
	CAFile               string
	CertFile, KeyFile    string
}

// RunEtcd serves a one-member etcd on loopback until SIGTERM. Clients and peers
// need a certificate of the instance's authority; writes are fsynced.
func RunEtcd(o EtcdOptions) error {
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
	cfg.MaxTxnOps = 1024
	cfg.SnapshotCount = 5000 // keeps fewer entries in memory than the default
	cfg.SnapshotCatchUpEntries = 500
	cfg.LogLevel = "warn"
	cfg.ZapLoggerBuilder = embed.NewZapLoggerBuilder(etcdLogger())

	e, err := embed.StartEtcd(cfg)
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

func etcdLogger() *zap.Logger {
	c := zap.NewProductionConfig()
	c.Level = zap.NewAtomicLevelAt(zap.WarnLevel)
	c.EncoderConfig.EncodeTime = zapcore.ISO8601TimeEncoder
	l, err := c.Build()
	if err != nil {
		return zap.NewNop()
	}
	return l
}

// DialEtcd connects to the instance's etcd. The client reconnects by itself.
func DialEtcd(i Instance) (*clientv3.Client, error) {
	// What grpc has to say about a restarting etcd, the caller gets as errors.
	quietGRPC.Do(func() { grpclog.SetLoggerV2(grpclog.NewLoggerV2(io.Discard, io.Discard, io.Discard)) })
	cert, err := tls.LoadX509KeyPair(i.EtcdCertFile, i.EtcdKeyFile)
	if err != nil {
		return nil, fmt.Errorf("etcd client certificate: %w", err)
	}
	pem, err := os.ReadFile(i.EtcdCAFile)
	if err != nil {
		return nil, fmt.Errorf("etcd authority: %w", err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("etcd authority: no certificate in %s", i.EtcdCAFile)
	}
	c, err := clientv3.New(clientv3.Config{
		Endpoints:            []string{i.EtcdEndpoint},
		DialTimeout:          5 * time.Second,
		DialKeepAliveTime:    10 * time.Second,
		DialKeepAliveTimeout: 5 * time.Second,
		TLS:                  &tls.Config{Certificates: []tls.Certificate{cert}, RootCAs: roots, MinVersion: tls.VersionTLS12},
		Logger:               zap.NewNop(),
		// A restarted etcd is back within a second: do not wait minutes for it.
		DialOptions: []grpc.DialOption{grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 100 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 2 * time.Second},
			MinConnectTimeout: 3 * time.Second,
		})},
	})
	if err != nil {
		return nil, fmt.Errorf("connecting to etcd at %s: %w", i.EtcdEndpoint, err)
	}
	return c, nil
}

var quietGRPC sync.Once

// etcdAnswers is a linearizable read: it needs a leader and a working disk.
func etcdAnswers(ctx context.Context, c *clientv3.Client) error {
	_, err := c.Get(ctx, "/nap/health")
	return err
}
