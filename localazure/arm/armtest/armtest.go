// Package armtest runs a local Azure Resource Manager for tests: an embedded
// etcd, the server behind a TLS listener on loopback, clients of the Azure SDK
// for Go, and a stand-in for the machinery that fulfils intents.
package armtest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	sdkarm "github.com/Azure/azure-sdk-for-go/sdk/azcore/arm"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/cloud"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
	"go.uber.org/zap"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/nap-aks/nap/localazure/arm"
	"github.com/nap-aks/nap/localazure/arm/containerservice/kubeapi"
	"github.com/nap-aks/nap/localazure/intent"
)

// The identities of the test's Azure.
const (
	Tenant       = "11111111-1111-4111-8111-111111111111"
	Subscription = "22222222-2222-4222-8222-222222222222"
	ClientID     = "33333333-3333-4333-8333-333333333333"
	ClientSecret = "not-a-real-secret-of-anyone"
)

// Etcd starts an etcd that ends with the test.
func Etcd(t testing.TB) *clientv3.Client {
	t.Helper()
	dir, err := os.MkdirTemp("", "nap-etcd")
	if err != nil {
		t.Fatal(err)
	}
	var e *embed.Etcd
	var address string
	// A port that was free a moment ago may be another process's by now.
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

// Live is a cluster's own API as a test wants it to look.
type Live struct {
	mu    sync.Mutex
	Nodes []string
	Pools map[string]string
	// Expander is what the autoscaler's priority expander is told.
	Expander string
	// Objects are whole NodePools; those whose CPU limit is not 0 count among
	// Pools.
	Objects []map[string]any
	// made are the objects made through Create, by who made them.
	made map[string][]map[string]any
	// waits are the pods without a node, held those that must not be moved.
	held     []string
	claims   []string
	waits    []string
	cordoned map[string]string
	// never are the budgets that never allow anything.
	never []string
	// refuse and notReady have Create and NotReady complain.
	refuse, notReady string
}

// SetWaits changes the pods that have no node.
func (l *Live) SetWaits(pods ...string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.waits = pods
}

// Refuse has Create fail with a reason, and NodePools be not ready for one.
func (l *Live) Refuse(create, ready string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.refuse, l.notReady = create, ready
}

// State says what was made and which nodes are cordoned, in words.
func (l *Live) State() (made, cordoned []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, os := range l.made {
		for _, o := range os {
			name, _, _ := unstructured.NestedString(o, "metadata", "name")
			made = append(made, fmt.Sprint(o["kind"], " ", name))
		}
	}
	for n := range l.cordoned {
		cordoned = append(cordoned, n)
	}
	slices.Sort(made)
	slices.Sort(cordoned)
	return made, cordoned
}

// Create implements kubeapi.Client.
func (l *Live) Create(_ context.Context, object map[string]any, by string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.refuse != "" {
		return fmt.Errorf("%s: %w", l.refuse, kubeapi.ErrRefused)
	}
	if l.made == nil {
		l.made = map[string][]map[string]any{}
	}
	name, _, _ := unstructured.NestedString(object, "metadata", "name")
	for _, o := range l.made[by] {
		if n, _, _ := unstructured.NestedString(o, "metadata", "name"); n == name && o["kind"] == object["kind"] {
			return nil
		}
	}
	l.made[by] = append(l.made[by], object)
	return nil
}

// DeleteCreated implements kubeapi.Client.
func (l *Live) DeleteCreated(_ context.Context, by string) ([]string, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.made, by)
	return nil, nil
}

// NotReady implements kubeapi.Client.
func (l *Live) NotReady(_ context.Context, names []string) (map[string]string, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := map[string]string{}
	for _, n := range names {
		if l.notReady != "" {
			out[n] = l.notReady
		}
	}
	return out, nil
}

// Cordon implements kubeapi.Client.
func (l *Live) Cordon(_ context.Context, nodes []string, by string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.cordoned == nil {
		l.cordoned = map[string]string{}
	}
	for _, n := range nodes {
		l.cordoned[n] = by
	}
	return nil
}

// Uncordon implements kubeapi.Client.
func (l *Live) Uncordon(_ context.Context, by string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	for n, who := range l.cordoned {
		if who == by {
			delete(l.cordoned, n)
		}
	}
	return nil
}

// UnscheduledPods implements kubeapi.Client.
func (l *Live) UnscheduledPods(context.Context, time.Time) ([]string, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]string(nil), l.waits...), nil
}

// SetClaims changes the NodeClaims.
func (l *Live) SetClaims(names ...string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.claims = names
}

// NodeClaims implements kubeapi.Client.
func (l *Live) NodeClaims(context.Context) ([]string, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]string(nil), l.claims...), nil
}

// Priorities implements kubeapi.Client.
func (l *Live) Priorities(context.Context) (string, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.Expander, nil
}

// SetHeld changes what is said of pods that must not be moved.
func (l *Live) SetHeld(pods ...string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.held = pods
}

// SetNever changes which PodDisruptionBudgets never allow an eviction.
func (l *Live) SetNever(budgets ...string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.never = budgets
}

// BlockingBudgets implements kubeapi.Client.
func (l *Live) BlockingBudgets(context.Context) ([]string, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]string(nil), l.never...), nil
}

// UnevictablePods implements kubeapi.Client.
func (l *Live) UnevictablePods(context.Context, []string) ([]string, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]string(nil), l.held...), nil
}

// DeleteNodeClaim implements kubeapi.Client.
func (l *Live) DeleteNodeClaim(_ context.Context, node string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.cordoned, node)
	l.Nodes = slices.DeleteFunc(l.Nodes, func(n string) bool { return n == node })
	return nil
}

// SetObjects changes the NodePools.
func (l *Live) SetObjects(pools ...map[string]any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.Objects = pools
}

// Object is a NodePool as JSON.
func (l *Live) Object(i int) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	b, err := json.Marshal(l.Objects[i])
	if err != nil {
		return err.Error()
	}
	return string(b)
}

// EditNodePools implements kubeapi.Client.
func (l *Live) EditNodePools(_ context.Context, f func(map[string]any) (bool, error)) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, o := range l.Objects {
		if _, err := f(o); err != nil {
			return err
		}
	}
	return nil
}

// Set changes what is there.
func (l *Live) Set(nodes []string, pools map[string]string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.Nodes, l.Pools = nodes, pools
}

// ProvisionedNodes implements kubeapi.Client.
func (l *Live) ProvisionedNodes(context.Context) ([]string, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]string(nil), l.Nodes...), nil
}

// OpenNodePools implements kubeapi.Client.
func (l *Live) OpenNodePools(context.Context) (map[string]string, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := map[string]string{}
	for k, v := range l.Pools {
		out[k] = v
	}
	for _, o := range l.Objects {
		name, _, _ := unstructured.NestedString(o, "metadata", "name")
		if v, ok, _ := unstructured.NestedFieldCopy(o, "spec", "limits", "cpu"); !ok || fmt.Sprint(v) != "0" {
			out[name] = fmt.Sprint(v)
		}
	}
	return out, nil
}

// Azure is a running local Azure Resource Manager.
type Azure struct {
	T    testing.TB
	Etcd *clientv3.Client
	Live *Live
	URL  string
	HTTP *http.Client
	// Dir is where the server keeps its files.
	Dir   string
	opts  arm.Options
	ahead atomic.Int64

	signIn     sync.Once
	ownerToken string

	srv        *httptest.Server
	server     *arm.Server
	cancel     context.CancelFunc
	mu         sync.RWMutex
	cur        http.Handler
	generation int
}

// New starts one on an etcd of its own; configure may change its options.
func New(t testing.TB, configure ...func(*arm.Options)) *Azure {
	t.Helper()
	a := &Azure{T: t, Etcd: Etcd(t), Live: &Live{}, Dir: t.TempDir()}
	a.srv = httptest.NewUnstartedServer(http.HandlerFunc(a.serve))
	a.srv.EnableHTTP2 = true
	a.srv.Config.ErrorLog = slog.NewLogLogger(slog.NewTextHandler(io.Discard, nil), slog.LevelError)
	a.srv.StartTLS()
	_, port, err := net.SplitHostPort(a.srv.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	// The test certificate is for 127.0.0.1.
	a.URL = "https://127.0.0.1:" + port
	a.HTTP = a.srv.Client()
	a.HTTP.Transport.(*http.Transport).MaxIdleConnsPerHost = 64
	level := slog.LevelError
	if os.Getenv("NAP_TEST_LOG") != "" {
		level = slog.LevelDebug
	}
	a.opts = arm.Options{
		Etcd: a.Etcd, BaseURL: a.URL, SigningKeyFile: filepath.Join(a.Dir, "token.key"), TenantID: Tenant, SubscriptionID: Subscription,
		Owner: arm.ServicePrincipal{ClientID: ClientID, ClientSecret: ClientSecret},
		Log:   slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level})),
		Dial:  func(intent.ClusterStatus) (kubeapi.Client, error) { return a.Live, nil },
		Now:   func() time.Time { return time.Now().Add(time.Duration(a.ahead.Load())) },
	}
	for _, f := range configure {
		f(&a.opts)
	}
	a.Start()
	t.Cleanup(func() { a.Stop(); a.srv.Close() })
	return a
}

// serve has the running server answer. An answer that is not out when the server
// is stopped never comes out, as if its process had been killed.
func (a *Azure) serve(w http.ResponseWriter, r *http.Request) {
	a.mu.RLock()
	h, generation := a.cur, a.generation
	a.mu.RUnlock()
	rec := httptest.NewRecorder()
	h.ServeHTTP(rec, r)
	a.mu.RLock()
	defer a.mu.RUnlock()
	if a.generation != generation {
		panic(http.ErrAbortHandler)
	}
	for k, v := range rec.Header() {
		w.Header()[k] = v
	}
	w.WriteHeader(rec.Code)
	_, _ = w.Write(rec.Body.Bytes())
}

// Start starts the server's work (again).
func (a *Azure) Start() {
	a.T.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	s, err := arm.New(ctx, a.opts)
	if err != nil {
		a.T.Fatal(err)
	}
	if err := s.Start(ctx); err != nil {
		a.T.Fatal(err)
	}
	a.mu.Lock()
	a.cur, a.server, a.cancel = s.Handler(), s, cancel
	a.mu.Unlock()
}

// Stop ends the server's work, as a kill does: what is not in etcd is lost.
func (a *Azure) Stop() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.cancel != nil {
		a.cancel()
		a.server.Wait()
		a.cancel = nil
		a.generation++
		a.cur = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadGateway) })
	}
}

// Advance puts the server's clock ahead.
func (a *Azure) Advance(d time.Duration) { a.ahead.Add(int64(d)) }

// LogTo writes the server's whole log to w.
func LogTo(w io.Writer) func(*arm.Options) {
	return func(o *arm.Options) {
		o.Log = slog.New(slog.NewJSONHandler(w, &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
}

// Server is the running server.
func (a *Azure) Server() *arm.Server { return a.server }

// Credential signs in as a service principal.
func (a *Azure) Credential(clientID, secret string) azcore.TokenCredential {
	a.T.Helper()
	c, err := azidentity.NewClientSecretCredential(Tenant, clientID, secret, &azidentity.ClientSecretCredentialOptions{ClientOptions: a.clientOptions(), DisableInstanceDiscovery: true})
	if err != nil {
		a.T.Fatal(err)
	}
	return c
}

// Owner signs in as the subscription's owner.
func (a *Azure) Owner() azcore.TokenCredential { return a.Credential(ClientID, ClientSecret) }

func (a *Azure) clientOptions() policy.ClientOptions {
	return policy.ClientOptions{
		Cloud: cloud.Configuration{ActiveDirectoryAuthorityHost: a.URL + "/", Services: map[cloud.ServiceName]cloud.ServiceConfiguration{
			cloud.ResourceManager: {Endpoint: a.URL, Audience: a.URL + "/"}}},
		Transport: a.HTTP, Retry: policy.RetryOptions{MaxRetries: -1},
	}
}

// ClientOptions are for the SDK's clients.
func (a *Azure) ClientOptions() *sdkarm.ClientOptions {
	return &sdkarm.ClientOptions{ClientOptions: a.clientOptions(), DisableRPRegistration: true}
}

// Token is a bearer token of the owner for ARM.
func (a *Azure) Token(clientID, secret string) string {
	a.T.Helper()
	tok, why := a.TryToken(clientID, secret)
	if tok == "" {
		a.T.Fatalf("no token: %s", why)
	}
	return tok
}

// TryToken is Token without failing the test: without a token it gives the
// reason.
func (a *Azure) TryToken(clientID, secret string) (token, why string) {
	a.T.Helper()
	resp, err := a.HTTP.PostForm(a.URL+"/"+Tenant+"/oauth2/v2.0/token", url.Values{"grant_type": {"client_credentials"}, "client_id": {clientID}, "client_secret": {secret}, "scope": {a.URL + "//.default"}})
	if err != nil {
		a.T.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	var body struct {
		AccessToken string `json:"access_token"`
		Description string `json:"error_description"`
	}
	if err := json.NewDecoder(resp.Body).Decode(&body); err != nil {
		a.T.Fatal(err)
	}
	return body.AccessToken, body.Description
}

// Reply is an answer with its body read.
type Reply struct {
	Status int
	Header http.Header
	Body   string
	JSON   map[string]any
}

// Code is the error code in the body, wrapped or flat.
func (r Reply) Code() string {
	if e, ok := r.JSON["error"].(map[string]any); ok {
		s, _ := e["code"].(string)
		return s
	}
	s, _ := r.JSON["code"].(string)
	return s
}

// Message is the error message in the body.
func (r Reply) Message() string {
	if e, ok := r.JSON["error"].(map[string]any); ok {
		s, _ := e["message"].(string)
		return s
	}
	s, _ := r.JSON["message"].(string)
	return s
}

// Do sends a request as the owner; path gets an api-version if it has none. A
// body that is no string is sent as JSON. Extra are pairs of header and value.
func (a *Azure) Do(method, path string, body any, extra ...string) Reply {
	a.T.Helper()
	r, err := a.Try(method, path, body, extra...)
	if err != nil {
		a.T.Fatal(err)
	}
	return r
}

// Try is Do without failing the test.
func (a *Azure) Try(method, path string, body any, extra ...string) (Reply, error) {
	if !strings.Contains(path, "api-version") {
		sep := "?"
		if strings.Contains(path, "?") {
			sep = "&"
		}
		path += sep + "api-version=2025-10-01"
	}
	if !strings.HasPrefix(path, "https:") {
		path = a.URL + path
	}
	var rd io.Reader
	switch b := body.(type) {
	case nil:
	case string:
		rd = strings.NewReader(b)
	default:
		enc, err := json.Marshal(b)
		if err != nil {
			return Reply{}, err
		}
		rd = strings.NewReader(string(enc))
	}
	req, err := http.NewRequest(method, path, rd)
	if err != nil {
		return Reply{}, err
	}
	// Each server has a key of its own, even if it gets the port of another.
	a.signIn.Do(func() { a.ownerToken = a.Token(ClientID, ClientSecret) })
	req.Header.Set("Authorization", "Bearer "+a.ownerToken)
	req.Header.Set("Content-Type", "application/json")
	for i := 0; i+1 < len(extra); i += 2 {
		req.Header.Set(extra[i], extra[i+1])
	}
	resp, err := a.HTTP.Do(req)
	if err != nil {
		return Reply{}, err
	}
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return Reply{}, err
	}
	out := Reply{Status: resp.StatusCode, Header: resp.Header, Body: string(b)}
	_ = json.Unmarshal(b, &out.JSON)
	return out, nil
}

// Wait polls the operation of a reply until it is over and gives the last
// answer.
func (a *Azure) Wait(r Reply) Reply {
	a.T.Helper()
	where := r.Header.Get("Azure-AsyncOperation")
	location := where == ""
	if location {
		where = r.Header.Get("Location")
	}
	if where == "" {
		return r
	}
	deadline := time.Now().Add(60 * time.Second)
	for time.Now().Before(deadline) {
		p := a.Do(http.MethodGet, where, nil)
		if location && p.Status != http.StatusAccepted {
			return p
		}
		if st, _ := p.JSON["status"].(string); st != "" && st != "InProgress" && st != "Running" && st != "Accepted" {
			return p
		}
		time.Sleep(20 * time.Millisecond)
	}
	a.T.Fatalf("the operation %s did not end", where)
	return Reply{}
}

// MustSucceed fails the test unless the operation of a reply succeeds.
func (a *Azure) MustSucceed(r Reply) {
	a.T.Helper()
	if r.Status >= 300 {
		a.T.Fatalf("status %d: %s", r.Status, r.Body)
	}
	if end := a.Wait(r); end.Status >= 300 || end.JSON["status"] != nil && end.JSON["status"] != "Succeeded" {
		a.T.Fatalf("the operation ended as: %d %s", end.Status, end.Body)
	}
}

// Machinery fulfils intents: a stand-in for package local.
type Machinery struct {
	// Fail gives the error of a machine that must not come up.
	Fail func(m intent.MachineIntent) (code, message string)
	// Boot is how long machines take.
	Boot time.Duration
	// Blocked says what keeps the pods of a machine that is drained, if
	// anything; such a drain fails at once.
	Blocked func(m intent.MachineIntent) string
	// Hold, while true, leaves everything as it is.
	mu   sync.Mutex
	hold bool
}

// Hold stops the machinery, or lets it go on. Once it returns nothing that was
// begun before is under way.
func (m *Machinery) Hold(on bool) {
	m.mu.Lock()
	m.hold = on
	m.mu.Unlock()
}

// Machinery starts a stand-in for the machinery; it ends with the test.
func (a *Azure) Machinery() *Machinery {
	m := &Machinery{}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Add(1)
	go func() {
		defer wg.Done()
		m.run(ctx, a.Etcd)
	}()
	a.T.Cleanup(func() { cancel(); wg.Wait() })
	return m
}

func (m *Machinery) run(ctx context.Context, kv *clientv3.Client) {
	watch := kv.Watch(ctx, "/nap/intent/", clientv3.WithPrefix())
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-watch:
		case <-tick.C:
		}
		m.mu.Lock()
		var err error
		if !m.hold {
			err = m.round(ctx, kv)
		}
		m.mu.Unlock()
		if err != nil && ctx.Err() == nil {
			fmt.Fprintln(os.Stderr, "armtest machinery:", err)
		}
	}
}

func (m *Machinery) round(ctx context.Context, kv *clientv3.Client) error {
	cs, _, err := intent.List[intent.ClusterIntent](ctx, kv, intent.ClusterIntentPrefix)
	if err != nil {
		return err
	}
	sts, _, err := intent.List[intent.ClusterStatus](ctx, kv, intent.ClusterStatusPrefix)
	if err != nil {
		return err
	}
	have := map[string]intent.ClusterStatus{}
	for _, s := range sts {
		have[s.UID] = s
	}
	for _, c := range cs {
		s, ok := have[c.UID]
		delete(have, c.UID)
		if ok && s.ObservedGeneration == c.Generation {
			continue
		}
		s = intent.ClusterStatus{UID: c.UID, ObservedGeneration: c.Generation, Phase: intent.ClusterReady, NodeProvisioningMode: c.NodeProvisioning.Mode, KubernetesVersion: c.KubernetesVersion,
			AdminKubeconfig: "apiVersion: v1\nkind: Config\n", UserKubeconfig: "apiVersion: v1\nkind: Config\n", UpdatedAt: time.Now()}
		if c.Stopped {
			s.Phase = intent.ClusterStopped
		}
		if err := intent.Put(ctx, kv, intent.ClusterStatusKey(c.UID), s); err != nil {
			return err
		}
	}
	ms, _, err := intent.List[intent.MachineIntent](ctx, kv, intent.MachineIntentPrefix)
	if err != nil {
		return err
	}
	mst, _, err := intent.List[intent.MachineStatus](ctx, kv, intent.MachineStatusPrefix)
	if err != nil {
		return err
	}
	mhave := map[string]intent.MachineStatus{}
	for _, s := range mst {
		mhave[intent.MachineStatusKey(s.ClusterUID, s.Pool, s.Name)] = s
	}
	for _, x := range ms {
		key := intent.MachineStatusKey(x.ClusterUID, x.Pool, x.Name)
		s, ok := mhave[key]
		delete(mhave, key)
		if x.Drain != nil && ok && (s.Drain == nil || !s.Drain.Since.Equal(x.Drain.Since)) {
			s.Drain = &intent.DrainStatus{Since: x.Drain.Since, State: intent.Drained, At: time.Now()}
			if m.Blocked != nil && !x.Drain.IgnorePDBs {
				if why := m.Blocked(x); why != "" {
					s.Drain.State, s.Drain.Message = intent.DrainFailed, why
				}
			}
			if err := intent.Put(ctx, kv, key, s); err != nil {
				return err
			}
		}
		if ok && s.Phase != intent.MachineBooting && s.Image == x.Image() || time.Since(x.CreatedAt) < m.Boot {
			continue
		}
		s = intent.MachineStatus{ClusterUID: x.ClusterUID, Pool: x.Pool, Name: x.Name, Phase: intent.MachineRunning, Image: x.Image(), Registered: true, UpdatedAt: time.Now()}
		if m.Fail != nil {
			if code, msg := m.Fail(x); code != "" {
				s.Phase, s.Code, s.Message = intent.MachineFailed, code, msg
			}
		}
		if err := intent.Put(ctx, kv, key, s); err != nil {
			return err
		}
	}
	for key := range mhave {
		if err := intent.Delete(ctx, kv, key); err != nil {
			return err
		}
	}
	for uid := range have {
		if err := intent.Delete(ctx, kv, intent.ClusterStatusKey(uid)); err != nil {
			return err
		}
	}
	return nil
}

// Fulfil runs a stand-in for the machinery until ctx ends.
func Fulfil(ctx context.Context, kv *clientv3.Client) { (&Machinery{}).run(ctx, kv) }
