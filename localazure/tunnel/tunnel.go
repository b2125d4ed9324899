// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

// Package tunnel connects a cluster's API server with its simulated nodes. The API
// server dials everything in the cluster (kubelets, aggregated APIs, pods) through
// an HTTP CONNECT proxy, as AKS's does through konnectivity. Here the proxy is
// itself the endpoint: it serves as the kubelet of each node and as metrics-server,
// and refuses what would need a process in a pod with a message that says why.
package tunnel

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"os"
	"time"

	"k8s.io/client-go/kubernetes"
)

const (
	// KubeletPort is the port of every node's kubelet.
	KubeletPort = 10250
	// metricsHost is the name that the Service of metrics-server resolves to.
	metricsHost = "metrics-server.nap.internal"
	// maxSocket is the maximum length of a socket's path on Linux, in bytes.
	maxSocket = 107
)

// Cluster is what the tunnel needs to know of its cluster.
type Cluster struct {
	// Client waits for the cluster's API and returns a client with all rights.
	Client func(ctx context.Context) (kubernetes.Interface, error)
	// Simulated reports whether the kubelet of a node is currently simulated.
	Simulated func(node string) bool
	// Logger must not be nil.
	Logger *slog.Logger
}

// CheckSocket returns an error if path is too long for a socket.
func CheckSocket(path string) error {
	if len(path) > maxSocket {
		return fmt.Errorf("%s is longer than the %d bytes that a socket's path may have: kubectl logs, exec and top do not work; choose a shorter --home", path, maxSocket)
	}
	return nil
}

// Serve serves the tunnel on a Unix socket, readable by its owner only, until ctx
// ends. It replaces a socket that an earlier run left behind.
func Serve(ctx context.Context, socket string, c Cluster) error {
	if err := CheckSocket(socket); err != nil {
		return err
	}
	if err := os.Remove(socket); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("tunnel: %w", err)
	}
	l, err := net.Listen("unix", socket)
	if err != nil {
		return fmt.Errorf("tunnel: %w", err)
	}
	if err := os.Chmod(socket, 0o600); err != nil {
		_ = l.Close()
		return fmt.Errorf("tunnel: %w", err)
	}
	cert, err := selfSigned()
	if err != nil {
		_ = l.Close()
		return fmt.Errorf("tunnel: %w", err)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s := &server{Cluster: c, tls: &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1"}}}
	s.inner = &handoff{addr: l.Addr(), conns: make(chan net.Conn), done: ctx.Done()}
	base := func(net.Listener) context.Context { return ctx }
	errLog := slog.NewLogLogger(c.Logger.Handler(), slog.LevelDebug)
	front := &http.Server{Handler: http.HandlerFunc(s.connect), ReadHeaderTimeout: 10 * time.Second, BaseContext: base, ErrorLog: errLog}
	behind := &http.Server{Handler: http.HandlerFunc(s.answer), ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute, BaseContext: base, ErrorLog: errLog,
		ConnContext: func(ctx context.Context, conn net.Conn) context.Context {
			if t, ok := conn.(*tls.Conn); ok {
				if to, ok := t.NetConn().(*tunnelled); ok {
					return context.WithValue(ctx, targetKey{}, to.host)
				}
			}
			return ctx
		}}
	done := make(chan error, 2)
	go func() { done <- front.Serve(l) }()
	go func() { done <- behind.Serve(s.inner) }()
	select {
	case <-ctx.Done():
		err = nil
	case err = <-done:
		err = fmt.Errorf("tunnel: %w", err)
	}
	cancel()
	_ = front.Close()
	_ = behind.Close()
	return err
}

type server struct {
	Cluster
	tls   *tls.Config
	inner *handoff
}

type targetKey struct{}

// tunnelled is a connection of the API server to a host in the cluster.
type tunnelled struct {
	net.Conn
	host string
}

// connect accepts or refuses a CONNECT request.
func (s *server) connect(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodConnect {
		http.Error(w, "this is a tunnel: only CONNECT is supported", http.StatusMethodNotAllowed)
		return
	}
	refusal := s.refusal(r.Host)
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	if refusal != "" {
		// The API server passes only the status line on to its client.
		_, _ = fmt.Fprintf(conn, "HTTP/1.1 502 %s\r\nContent-Length: 0\r\n\r\n", refusal)
		_ = conn.Close()
		return
	}
	_ = conn.SetDeadline(time.Time{})
	if _, err := fmt.Fprint(conn, "HTTP/1.1 200 OK\r\n\r\n"); err != nil {
		_ = conn.Close()
		return
	}
	host, _, _ := net.SplitHostPort(r.Host)
	s.inner.deliver(tls.Server(&tunnelled{Conn: conn, host: host}, s.tls))
}

// refusal returns why nothing answers at an address, or "" if something does.
func (s *server) refusal(address string) string {
	host, port, err := net.SplitHostPort(address)
	switch {
	case err != nil:
		return "the address is not host:port"
	case host == metricsHost:
		return ""
	case port == fmt.Sprint(KubeletPort) && s.Simulated(host):
		return ""
	case port == fmt.Sprint(KubeletPort) && net.ParseIP(host) == nil:
		return "the kubelet of node " + host + " does not answer: its machine is off, or a fault has silenced it"
	default:
		return "nothing listens at " + address + ": pods of the local Azure are simulated, no process runs in them"
	}
}

// answer serves a request to the kubelet of a node, or to metrics-server.
func (s *server) answer(w http.ResponseWriter, r *http.Request) {
	host, _ := r.Context().Value(targetKey{}).(string)
	ctx, cancel := context.WithTimeout(r.Context(), 10*time.Second)
	client, err := s.Client(ctx)
	cancel()
	if err != nil {
		http.Error(w, "the cluster's API is not reachable: "+err.Error(), http.StatusServiceUnavailable)
		return
	}
	if host == metricsHost {
		metricsAPI{client: client, simulated: s.Simulated, now: time.Now}.ServeHTTP(w, r)
		return
	}
	kubelet{node: host, client: client}.ServeHTTP(w, r)
}

// handoff is a listener whose connections are handed over by deliver.
type handoff struct {
	addr  net.Addr
	conns chan net.Conn
	done  <-chan struct{}
}

// deliver passes a connection to Accept.
func (h *handoff) deliver(c net.Conn) {
	select {
	case h.conns <- c:
	case <-h.done:
		_ = c.Close()
	}
}

func (h *handoff) Accept() (net.Conn, error) {
	select {
	case c := <-h.conns:
		return c, nil
	case <-h.done:
		return nil, net.ErrClosed
	}
}

func (h *handoff) Close() error   { return nil }
func (h *handoff) Addr() net.Addr { return h.addr }

// selfSigned returns the kubelets' serving certificate. Nobody verifies it, neither
// here nor in AKS, and only the owner can open the socket.
func selfSigned() (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()),
		Subject:      pkix.Name{CommonName: "simulated kubelets"},
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().AddDate(10, 0, 0),
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		DNSNames:     []string{metricsHost},
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		return tls.Certificate{}, err
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, nil
}
