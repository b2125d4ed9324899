package supervisor

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"go.etcd.io/etcd/client/pkg/v3/transport"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/grpclog"
)

// maxTxnOps is how many operations one of our transactions may have.
const maxTxnOps = 1024

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
	e, err := embed.StartEtcd(o.config())
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

func (o EtcdOptions) config() *embed.Config {
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
	cfg.MaxTxnOps = maxTxnOps
	cfg.SnapshotCount = 5000 // keeps fewer entries in memory than the default
	cfg.SnapshotCatchUpEntries = 500
	cfg.LogLevel = "warn"
	cfg.ZapLoggerBuilder = embed.NewZapLoggerBuilder(etcdLogger())
	return cfg
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

// EtcdClient is how clients reach an etcd: its members, and the files of the
// client's certificate and key and of the authority that signed the servers'.
type EtcdClient struct {
	// Endpoints are the members' client URLs, https all of them.
	Endpoints []string `json:"endpoints"`
	CAFile    string   `json:"caFile"`
	CertFile  string   `json:"certFile"`
	KeyFile   string   `json:"keyFile"`
	// External tells that somebody else runs it.
	External bool `json:"external,omitempty"`
}

// Check tells what is missing or wrong, in the words of `nap up`'s flags, and
// makes the files' names absolute.
func (e *EtcdClient) Check() error {
	if len(e.Endpoints) == 0 {
		return errors.New("--etcd-endpoints is missing: the certificates of an etcd are given, but not where it is")
	}
	for _, s := range e.Endpoints {
		u, err := url.Parse(s)
		if err != nil || u.Scheme != "https" || u.Hostname() == "" || u.Port() == "" || strings.Trim(u.Path, "/") != "" {
			return fmt.Errorf("--etcd-endpoints %s is not of the form https://HOST:PORT; several are separated by commas", s)
		}
	}
	for _, f := range []struct {
		flag string
		file *string
	}{{"--etcd-cafile", &e.CAFile}, {"--etcd-certfile", &e.CertFile}, {"--etcd-keyfile", &e.KeyFile}} {
		if *f.file == "" {
			return fmt.Errorf("%s is missing: etcd at %s is reached with a client certificate only", f.flag, strings.Join(e.Endpoints, ","))
		}
		abs, err := filepath.Abs(*f.file)
		if err != nil {
			return fmt.Errorf("%s: %w", f.flag, err)
		}
		if _, err := os.Stat(abs); err != nil {
			return fmt.Errorf("%s: %w", f.flag, err)
		}
		*f.file = abs
	}
	return nil
}

// instanceKey says which instance has its state in an etcd.
const instanceKey = "/nap/instance"

// owner is the value of instanceKey.
type owner struct {
	ID   string `json:"id"`
	Home string `json:"home"`
}

// checkEtcd makes sure that an etcd which somebody else runs can hold the state
// of an instance: it answers, takes transactions as large as ours, and no other
// instance has its state there. It changes nothing.
func checkEtcd(ctx context.Context, c *clientv3.Client, e EtcdClient, me owner) error {
	where := strings.Join(e.Endpoints, ",")
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	probe := make([]clientv3.Op, maxTxnOps)
	for i := range probe {
		probe[i] = clientv3.OpGet(instanceKey, clientv3.WithCountOnly())
	}
	if _, err := c.Txn(ctx).Then(probe...).Commit(); errors.Is(err, rpctypes.ErrTooManyOps) {
		return fmt.Errorf("etcd at %s does not take transactions of %d operations: start its members with --max-txn-ops=%d", where, maxTxnOps, maxTxnOps)
	} else if err != nil {
		return fmt.Errorf("etcd at %s does not answer: %w; check --etcd-endpoints and the certificates", where, err)
	}
	resp, err := c.Get(ctx, instanceKey)
	if err != nil {
		return fmt.Errorf("reading %s of etcd at %s: %w", instanceKey, where, err)
	}
	return checkOwner(resp.Kvs, where, me)
}

// checkOwner refuses an etcd whose instanceKey, if it is there, names another
// instance.
func checkOwner(found []*mvccpb.KeyValue, where string, me owner) error {
	for _, kv := range found {
		var other owner
		if err := json.Unmarshal(kv.Value, &other); err != nil {
			return fmt.Errorf("etcd at %s: the key %s is not ours: %w", where, instanceKey, err)
		}
		if other.ID != me.ID {
			return fmt.Errorf("etcd at %s holds the state of another instance (its home folder: %s), and can hold that of one only; if that one is gone for ever, delete the keys below /nap/ and /kube/", where, other.Home)
		}
	}
	return nil
}

// claimEtcd writes the instance's name into its etcd, so that no other instance
// takes it for its own.
func claimEtcd(ctx context.Context, c *clientv3.Client, e EtcdClient, me owner) error {
	name, err := json.Marshal(me)
	if err != nil {
		return fmt.Errorf("naming the instance: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	where := strings.Join(e.Endpoints, ",")
	resp, err := c.Txn(ctx).If(clientv3.Compare(clientv3.CreateRevision(instanceKey), "=", 0)).
		Then(clientv3.OpPut(instanceKey, string(name))).Else(clientv3.OpGet(instanceKey)).Commit()
	if err != nil {
		return fmt.Errorf("claiming etcd at %s: %w", where, err)
	}
	if resp.Succeeded {
		return nil
	}
	return checkOwner(resp.Responses[0].GetResponseRange().Kvs, where, me) // another may have been quicker
}

// WipeEtcd deletes the state of an instance that does not run from an etcd that
// somebody else runs. It does nothing when the state lies in the home folder, or
// when that etcd holds another instance's.
func WipeEtcd(ctx context.Context, h Home) error {
	i, err := ReadInstance(h)
	if errors.Is(err, fs.ErrNotExist) || err == nil && !i.Etcd.External {
		return nil
	}
	if err != nil {
		return err
	}
	c, err := i.Etcd.dial()
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }()
	where := strings.Join(i.Etcd.Endpoints, ",")
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	resp, err := c.Get(ctx, instanceKey)
	if err != nil {
		return fmt.Errorf("deleting the state in etcd at %s: %w", where, err)
	}
	if len(resp.Kvs) == 0 || checkOwner(resp.Kvs, where, owner{ID: i.SubscriptionID}) != nil {
		return nil // not ours to delete
	}
	// The name goes last: whatever fails before, this instance can try again.
	for _, prefix := range []string{"/kube/", "/nap/"} {
		if _, err := c.Delete(ctx, prefix, clientv3.WithPrefix()); err != nil {
			return fmt.Errorf("deleting %s from etcd at %s: %w", prefix, where, err)
		}
	}
	return nil
}

// DialEtcd connects to the instance's etcd. The client reconnects by itself.
func DialEtcd(i Instance) (*clientv3.Client, error) { return i.Etcd.dial() }

func (e EtcdClient) dial() (*clientv3.Client, error) {
	// What grpc has to say about a restarting etcd, the caller gets as errors.
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
		// A restarted etcd is back within a second: do not wait minutes for it.
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

// etcdAnswers is a linearizable read: it needs a leader and a working disk.
func etcdAnswers(ctx context.Context, c *clientv3.Client) error {
	_, err := c.Get(ctx, "/nap/health")
	return err
}
