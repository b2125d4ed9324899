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
	"fmt"
	"io"
	"math/big"
	mrand "math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/nap-aks/nap/arm"
	"github.com/nap-aks/nap/arm/armtest"
)

// serverEnv makes the test's binary a Resource Manager: a process of its own,
// so that it can be killed.
const serverEnv = "NAP_TEST_ARM_SERVER"

type serverArgs struct{ Etcd, Listen, Cert, Key, Signing string }

// TestServerProcess is not a test but the process that others kill.
func TestServerProcess(t *testing.T) {
	text := os.Getenv(serverEnv)
	if text == "" {
		t.Skip("is for the tests that need a server in a process of its own")
	}
	var a serverArgs
	if err := json.Unmarshal([]byte(text), &a); err != nil {
		t.Fatal(err)
	}
	t.Fatal(arm.Run(context.Background(), arm.Options{
		EtcdConfig: clientv3.Config{Endpoints: []string{a.Etcd}, DialTimeout: 5 * time.Second, Logger: zap.NewNop()}, Listen: a.Listen, CertFile: a.Cert, KeyFile: a.Key, SigningKeyFile: a.Signing,
		TenantID: armtest.Tenant, SubscriptionID: armtest.Subscription, Owner: arm.ServicePrincipal{ClientID: armtest.ClientID, ClientSecret: armtest.ClientSecret},
	}))
}

// process is a Resource Manager in a process of its own.
type process struct {
	t       *testing.T
	args    serverArgs
	url     string
	clients []*http.Client
	token   string
	mu      sync.Mutex
	cmd     *exec.Cmd
}

// certificate writes a certificate for 127.0.0.1 that nothing else trusts.
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
	for range 8 { // a connection takes 250 requests at a time
		p.clients = append(p.clients, &http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}, ForceAttemptHTTP2: true}})
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
		t.Fatal("the server did not come up within 30 s")
	}
	return p
}

func (p *process) run() {
	text, err := json.Marshal(p.args)
	if err != nil {
		p.t.Error(err)
		return
	}
	cmd := exec.Command(os.Args[0], "-test.run=^TestServerProcess$")
	cmd.Env = append(os.Environ(), serverEnv+"="+string(text))
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := cmd.Start(); err != nil {
		p.t.Error(err)
		return
	}
	p.cmd = cmd
}

// kill is kill -9: the process has no time for anything.
func (p *process) kill() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd != nil {
		_ = p.cmd.Process.Kill()
		_ = p.cmd.Wait()
		p.cmd = nil
	}
}

// do sends a request over one of the connections; an error means that nobody
// knows whether it was done.
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

// counterOf is the number in a cluster's tags.
func counterOf(r armtest.Reply) (int, error) {
	n := 0
	tags, _ := r.JSON["tags"].(map[string]any)
	s, _ := tags["n"].(string)
	if _, err := fmt.Sscan(s, &n); err != nil {
		return 0, fmt.Errorf("no counter in %.200s: %w", r.Body, err)
	}
	return n, nil
}

// A thousand readers and two writers for each of fifty clusters, with stub
// control planes, over TLS, while the server is killed with SIGKILL again and
// again. Each write is a PUT of the cluster on the condition of the ETag that
// was read. As a history: on top of each state at most one acknowledged write;
// no read is older than a write that was acknowledged before it began; and at
// the end every acknowledged write is there.
func TestKilledUnderLoad(t *testing.T) {
	if testing.Short() {
		t.Skip("short: takes half a minute")
	}
	const clusters, writers, readers, each, kills = 50, 2, 1000, 2, 4
	etcd := armtest.Etcd(t)
	ctx, cancel := context.WithCancel(t.Context())
	var machinery sync.WaitGroup
	machinery.Go(func() { armtest.Fulfil(ctx, etcd) })
	defer machinery.Wait()
	defer cancel()
	p := startProcess(t, etcd)
	if r, err := p.do(0, "PUT", group, map[string]any{"location": "eastus"}, ""); err != nil || r.Status != 201 {
		t.Fatalf("%v %d %s", err, r.Status, r.Body)
	}
	ids := make([]string, clusters)
	body := func(n int) map[string]any {
		b := clusterBody("Auto")
		b["tags"] = map[string]any{"n": fmt.Sprint(n)}
		return b
	}
	for i := range ids {
		ids[i] = fmt.Sprintf("%s/providers/Microsoft.ContainerService/managedClusters/c%d", group, i)
		if r, err := p.do(i, "PUT", ids[i], body(0), ""); err != nil || r.Status != 201 {
			t.Fatalf("%v %d %s", err, r.Status, r.Body)
		}
	}
	var floor [clusters]atomic.Int64 // highest acknowledged
	var mu sync.Mutex
	taken := map[[2]int]bool{} // cluster and the state that an acknowledged write was on top of
	deadline := time.Now().Add(4 * time.Minute)
	var work sync.WaitGroup
	var acknowledged, unknown, conflicts, reads atomic.Int64
	for i := range clusters * writers {
		work.Go(func() {
			c := i % clusters
			for done := 0; done < each && time.Now().Before(deadline); {
				r, err := p.do(i, "GET", ids[c], nil, "")
				if err != nil || r.Status != 200 {
					time.Sleep(20 * time.Millisecond)
					continue
				}
				n, err := counterOf(r)
				if err != nil {
					t.Error(err)
					return
				}
				w, err := p.do(i, "PUT", ids[c], body(n+1), r.Header.Get("ETag"))
				switch {
				case err != nil || w.Status >= 500:
					unknown.Add(1)
				case w.Status == 200:
					mu.Lock()
					if taken[[2]int{c, n}] {
						t.Errorf("c%d: two writes on top of %d were acknowledged", c, n)
					}
					taken[[2]int{c, n}] = true
					mu.Unlock()
					for l := floor[c].Load(); int64(n+1) > l && !floor[c].CompareAndSwap(l, int64(n+1)); l = floor[c].Load() {
					}
					acknowledged.Add(1)
					done++
				case w.Status == 412 || w.Status == 409: // changed, or an operation runs
					conflicts.Add(1)
					time.Sleep(20 * time.Millisecond)
				default:
					t.Errorf("PUT: %d %s", w.Status, w.Body)
					return
				}
			}
		})
	}
	for i := range readers {
		work.Go(func() {
			for done := 0; done < 3 && time.Now().Before(deadline); {
				c := (i + done*17) % clusters
				least := floor[c].Load()
				r, err := p.do(i, "GET", ids[c], nil, "")
				if err != nil || r.Status >= 500 {
					time.Sleep(50 * time.Millisecond)
					continue
				}
				n, err := counterOf(r)
				if r.Status != 200 || err != nil {
					t.Errorf("GET: %d %.200s %v", r.Status, r.Body, err)
					return
				}
				if int64(n) < least {
					t.Errorf("c%d: read %d after %d had been acknowledged", c, n, least)
				}
				reads.Add(1)
				done++
			}
		})
	}
	killed := make(chan int)
	stop := make(chan struct{})
	go func() {
		n := 0
		// By what has been done, not by time: a fast machine would be through.
		const all = clusters*writers*each + readers*3
		for ; n < kills; n++ {
			at := int64(all * (n + 1) / (kills + 2))
			for acknowledged.Load()+reads.Load() < at {
				select {
				case <-stop:
					killed <- n
					return
				case <-time.After(time.Duration(1+mrand.IntN(10)) * time.Millisecond):
				}
			}
			p.kill()
			p.run()
		}
		killed <- n
	}()
	work.Wait()
	close(stop)
	n := <-killed
	for c, id := range ids {
		var r armtest.Reply
		var err error
		for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
			if r, err = p.do(0, "GET", id, nil, ""); err == nil && r.Status == 200 {
				break
			}
		}
		got, cerr := counterOf(r)
		if err != nil || cerr != nil || int64(got) < floor[c].Load() {
			t.Errorf("c%d: %d at the end, %d acknowledged (%v %v)", c, got, floor[c].Load(), err, cerr)
		}
	}
	t.Logf("%d writes acknowledged, %d of unknown outcome, %d conflicts, %d reads, %d kills", acknowledged.Load(), unknown.Load(), conflicts.Load(), reads.Load(), n)
	if acknowledged.Load() != clusters*writers*each || reads.Load() != readers*3 {
		t.Errorf("not all was done in time")
	}
	if n < kills {
		t.Errorf("only %d of %d kills happened", n, kills)
	}
}

// What a read costs is bounded by processor time, which holds on a busy machine
// as well: a thousand at once have to fit into 100 ms of two processors, and
// leave more than half of it to TLS and the rest of the machine.
func TestReadingIsCheap(t *testing.T) {
	a := armtest.New(t)
	m := a.Machinery()
	ids := manyClusters(a, 50)
	m.Hold(true) // and let nothing else use the processor
	get := inProcess(a)
	cost := func(path string, n int) time.Duration {
		get(path) // the first one makes the body
		best := time.Hour
		for range 5 { // the least of some: the collector of garbage is everybody's
			from := cpuTime(t)
			for range n {
				if rec := get(path); rec.Code != 200 {
					t.Fatalf("%d %s", rec.Code, rec.Body)
				}
			}
			best = min(best, (cpuTime(t)-from)/time.Duration(n))
		}
		return best
	}
	one, list := cost(ids[7], 1000), cost(strings.TrimSuffix(ids[0], "/c0"), 50)
	t.Logf("a cluster takes %v of a processor, a list of 50 takes %v", one, list)
	if one > 80*time.Microsecond {
		t.Errorf("reading a cluster takes %v of a processor: a thousand at once take %v of two", one, 500*one)
	}
	if list > 2*time.Millisecond {
		t.Errorf("listing 50 clusters takes %v of a processor", list)
	}
}

// A body that is kept is never older than what it is made of: the cluster's own
// record and those of its pools.
func TestKeptBodiesAreCurrent(t *testing.T) {
	a := armtest.New(t)
	a.Machinery()
	newCluster(a, "Manual")
	list := group + "/providers/Microsoft.ContainerService/managedClusters"
	check := func(when, want string, there bool) {
		t.Helper()
		for _, path := range []string{clusterID, list} {
			for range 2 {
				if r := a.Do("GET", path, nil); strings.Contains(r.Body, want) != there {
					t.Errorf("%s, %s has %s: %v; %s", when, path, want, !there, r.Body)
				}
			}
		}
	}
	check("new", `"name":"extra"`, false)
	a.MustSucceed(a.Do("PUT", clusterID+"/agentPools/extra", map[string]any{"properties": map[string]any{"count": 1, "mode": "User"}}))
	check("with a pool", `"name":"extra"`, true)
	a.MustSucceed(a.Do("PUT", clusterID+"/agentPools/extra", map[string]any{"properties": map[string]any{"count": 2, "nodeLabels": map[string]any{"a": "b"}}}))
	check("with the pool changed", `"nodeLabels":{"a":"b"}`, true)
	a.MustSucceed(a.Do("DELETE", clusterID+"/agentPools/extra", nil))
	check("without it", `"name":"extra"`, false)
	if r := a.Do("PATCH", clusterID, map[string]any{"tags": map[string]any{"x": "y"}}); r.Status != 200 {
		t.Fatal(r.Body)
	}
	check("tagged", `"tags":{"x":"y"}`, true)
	// An old version's body is another.
	if r := a.Do("GET", clusterID+"?api-version=2022-11-01", nil); strings.Contains(r.Body, "nodeProvisioningProfile") {
		t.Errorf("in the shape of 2022: %s", r.Body)
	}
	check("now", "nodeProvisioningProfile", true)
}
