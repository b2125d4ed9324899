// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package dashboard_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/go-logr/logr/testr"
	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
	clocktesting "k8s.io/utils/clock/testing"

	"github.com/nap-aks/nap/dashboard"
	"github.com/nap-aks/nap/dashboard/dashboardtest"
	"github.com/nap-aks/nap/snapshot"
)

const key = "0123456789abcdef0123456789abcdef"

// newServer returns a server of a small cluster and its clock.
func newServer(t testing.TB, review dashboard.Reviewer) (*httptest.Server, *dashboard.Live, *clocktesting.FakeClock) {
	t.Helper()
	o, err := dashboardtest.Cluster(20)
	if err != nil {
		t.Fatal(err)
	}
	clock := clocktesting.NewFakeClock(dashboardtest.Now)
	l, err := dashboard.NewLive(dashboard.Config{Objects: func(context.Context) (*snapshot.Objects, error) { return o, nil }, Clock: clock})
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Update(context.Background()); err != nil {
		t.Fatal(err)
	}
	h, err := dashboard.NewServer(dashboard.ServerConfig{Live: l, Key: key, Review: review, Hosts: []string{"nap.example.com"}})
	if err != nil {
		t.Fatal(err)
	}
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s, l, clock
}

// do sends a request without following redirects.
func do(t testing.TB, s *httptest.Server, method, path string, change func(*http.Request)) *http.Response {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, s.URL+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	if change != nil {
		change(r)
	}
	res, err := http.DefaultTransport.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = res.Body.Close() })
	return res
}

func withKey(r *http.Request) { r.Header.Set("Authorization", "Bearer "+key) }

// TestRefusals checks that the server refuses what it must.
func TestRefusals(t *testing.T) {
	s, _, _ := newServer(t, nil)
	data := []string{"/api/v1/state", "/api/v1/node?name=x", "/api/v1/timeline", "/api/v1/frame", "/api/v1/events"}
	for _, path := range data {
		for name, change := range map[string]func(*http.Request){
			"no token":     nil,
			"wrong token":  func(r *http.Request) { r.Header.Set("Authorization", "Bearer "+key+"x") },
			"basic":        func(r *http.Request) { r.SetBasicAuth("a", key) },
			"wrong cookie": func(r *http.Request) { r.AddCookie(&http.Cookie{Name: "nap-dashboard-80", Value: "x"}) },
			"empty token":  func(r *http.Request) { r.Header.Set("Authorization", "Bearer ") },
		} {
			if res := do(t, s, http.MethodGet, path, change); res.StatusCode != http.StatusUnauthorized {
				t.Errorf("GET %s with %s: %s, want 401", path, name, res.Status)
			}
		}
	}
	for _, c := range []struct {
		name, method, path string
		change             func(*http.Request)
		want               int
	}{
		{"foreign origin", "GET", "/api/v1/state", func(r *http.Request) { withKey(r); r.Header.Set("Origin", "https://evil.example") }, 403},
		{"null origin", "GET", "/api/v1/state", func(r *http.Request) { withKey(r); r.Header.Set("Origin", "null") }, 403},
		{"other port of the same host", "GET", "/api/v1/state", func(r *http.Request) { withKey(r); r.Header.Set("Origin", "http://127.0.0.1:1") }, 403},
		{"cross-site fetch", "GET", "/api/v1/state", func(r *http.Request) { withKey(r); r.Header.Set("Sec-Fetch-Site", "cross-site") }, 403},
		{"same-site fetch", "POST", "/api/v1/session", func(r *http.Request) { withKey(r); r.Header.Set("Sec-Fetch-Site", "same-site") }, 403},
		{"rebound name", "GET", "/api/v1/state", func(r *http.Request) { withKey(r); r.Host = "evil.example:80" }, 421},
		{"rebound name, page", "GET", "/", func(r *http.Request) { r.Host = "evil.example" }, 421},
		{"allowed name", "GET", "/", func(r *http.Request) { r.Host = "nap.example.com" }, 200},
		{"post", "POST", "/api/v1/state", withKey, 405},
		{"delete", "DELETE", "/api/v1/node?name=x", withKey, 405},
		{"get of the session", "GET", "/api/v1/session", withKey, 405},
		{"path trick", "GET", "/../server.go", nil, 404},
		{"escaped path trick", "GET", "/%2e%2e/server.go", nil, 404},
		{"double slash", "GET", "//api/v1/state", withKey, 404},
		{"escaped slash", "GET", "/api%2fv1/state", withKey, 404},
		{"escaped letter", "GET", "/%61pp.js", nil, 404},
		{"trailing slash", "GET", "/api/v1/state/", withKey, 404},
		{"folder", "GET", "/web/", nil, 404},
		{"unknown node", "GET", "/api/v1/node?name=../../etc/passwd", withKey, 404},
		{"bad time", "GET", "/api/v1/timeline?from=yesterday", withKey, 400},
		{"time out of range", "GET", "/api/v1/frame?at=99999999999999999", withKey, 400},
		{"login without code", "GET", "/login", nil, 401},
		{"login with the key", "GET", "/login?code=" + key, nil, 401},
		{"state", "GET", "/api/v1/state", withKey, 200},
	} {
		res := do(t, s, c.method, c.path, c.change)
		if res.StatusCode != c.want {
			t.Errorf("%s: %s %s: %s, want %d", c.name, c.method, c.path, res.Status, c.want)
		}
		if csp := res.Header.Get("Content-Security-Policy"); !strings.Contains(csp, "default-src 'none'") || strings.Contains(csp, "unsafe") {
			t.Errorf("%s: Content-Security-Policy %q", c.name, csp)
		}
	}
}

// TestOneTimeLogin checks that a code works once, in time, and opens a session that
// ends.
func TestOneTimeLogin(t *testing.T) {
	s, _, clock := newServer(t, nil)
	code := func() string {
		var out struct{ Code, Path string }
		res := do(t, s, http.MethodPost, "/api/v1/session", withKey)
		if err := json.NewDecoder(res.Body).Decode(&out); err != nil || out.Path != "/login?code="+out.Code || len(out.Code) < 40 {
			t.Fatalf("%+v, %v", out, err)
		}
		return out.Path
	}
	path := code()
	res := do(t, s, http.MethodGet, path, nil)
	if res.StatusCode != http.StatusSeeOther || res.Header.Get("Location") != "/" || len(res.Cookies()) != 1 {
		t.Fatalf("login: %s, %v", res.Status, res.Header)
	}
	cookie := res.Cookies()[0]
	if !cookie.HttpOnly || cookie.SameSite != http.SameSiteStrictMode || strings.Contains(cookie.Value, key) {
		t.Errorf("cookie = %+v", cookie)
	}
	with := func(r *http.Request) { r.AddCookie(cookie) }
	if res := do(t, s, http.MethodGet, "/api/v1/state", with); res.StatusCode != http.StatusOK {
		t.Errorf("state with the cookie: %s", res.Status)
	}
	if res := do(t, s, http.MethodGet, path, nil); res.StatusCode != http.StatusUnauthorized {
		t.Errorf("the code a second time: %s, want 401", res.Status)
	}
	late := code()
	clock.Step(3 * time.Minute)
	if res := do(t, s, http.MethodGet, late, nil); res.StatusCode != http.StatusUnauthorized {
		t.Errorf("the code after three minutes: %s, want 401", res.Status)
	}
	clock.Step(12 * time.Hour)
	if res := do(t, s, http.MethodGet, "/api/v1/state", with); res.StatusCode != http.StatusUnauthorized {
		t.Errorf("the session after twelve hours: %s, want 401", res.Status)
	}
}

// TestKubeReviewer checks that the cluster decides: who may not list nodes, or whose
// token it does not know any more, sees nothing, also in an open session.
func TestKubeReviewer(t *testing.T) {
	c := fake.NewClientset()
	known, reviews := map[string]string{"good": "alice", "poor": "bob"}, 0
	c.PrependReactor("create", "tokenreviews", func(a clienttesting.Action) (bool, runtime.Object, error) {
		reviews++
		tr := a.(clienttesting.CreateAction).GetObject().(*authenticationv1.TokenReview)
		user, ok := known[tr.Spec.Token]
		tr.Status = authenticationv1.TokenReviewStatus{Authenticated: ok, User: authenticationv1.UserInfo{Username: user}}
		return true, tr, nil
	})
	c.PrependReactor("create", "subjectaccessreviews", func(a clienttesting.Action) (bool, runtime.Object, error) {
		sar := a.(clienttesting.CreateAction).GetObject().(*authorizationv1.SubjectAccessReview)
		r := sar.Spec.ResourceAttributes
		sar.Status.Allowed = sar.Spec.User == "alice" && r.Verb == "list" && r.Resource == "nodes" && r.Group == ""
		return true, sar, nil
	})
	s, _, clock := newServer(t, dashboard.KubeReviewer(c))
	status := func(token string) int {
		return do(t, s, http.MethodGet, "/api/v1/state", func(r *http.Request) { r.Header.Set("Authorization", "Bearer "+token) }).StatusCode
	}
	for token, want := range map[string]int{"good": 200, "poor": 401, "unknown": 401, strings.Repeat("x", 20000): 401} {
		if got := status(token); got != want {
			t.Errorf("token %.10s: %d, want %d", token, got, want)
		}
	}
	before := reviews
	for range 20 {
		status("good")
		status("poor")
	}
	if reviews != before {
		t.Errorf("%d further reviews of tokens that were just reviewed", reviews-before)
	}
	var out struct{ Path string }
	res := do(t, s, http.MethodPost, "/api/v1/session", func(r *http.Request) { r.Header.Set("Authorization", "Bearer good") })
	if err := json.NewDecoder(res.Body).Decode(&out); err != nil {
		t.Fatal(err)
	}
	cookie := do(t, s, http.MethodGet, out.Path, nil).Cookies()[0]
	delete(known, "good")
	clock.Step(2 * time.Minute)
	if res := do(t, s, http.MethodGet, "/api/v1/state", func(r *http.Request) { r.AddCookie(cookie) }); res.StatusCode != http.StatusUnauthorized {
		t.Errorf("session of a token that has ended: %s, want 401", res.Status)
	}
}

// TestEvents checks that a new state is announced, that ETags save sending it again and
// that too many streams are refused.
func TestEvents(t *testing.T) {
	s, l, _ := newServer(t, nil)
	res := do(t, s, http.MethodGet, "/api/v1/events", withKey)
	in := bufio.NewScanner(res.Body)
	next := func() string {
		for in.Scan() {
			if data, ok := strings.CutPrefix(in.Text(), "data: "); ok {
				return data
			}
		}
		t.Fatal("the stream ended")
		return ""
	}
	if got := next(); got != "1" {
		t.Errorf("first event %q, want 1", got)
	}
	if err := l.Update(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := next(); got != "2" {
		t.Errorf("second event %q, want 2", got)
	}
	tag := do(t, s, http.MethodGet, "/api/v1/state", withKey).Header.Get("ETag")
	if res := do(t, s, http.MethodGet, "/api/v1/state", func(r *http.Request) { withKey(r); r.Header.Set("If-None-Match", tag) }); res.StatusCode != http.StatusNotModified {
		t.Errorf("state with its ETag: %s, want 304", res.Status)
	}
	for i := range 40 {
		if res := do(t, s, http.MethodGet, "/api/v1/events", withKey); res.StatusCode == http.StatusServiceUnavailable {
			return
		} else if i > 35 {
			t.Errorf("stream %d: %s, want 503", i, res.Status)
		}
	}
}

// TestNode checks that a node opens with its pods.
func TestNode(t *testing.T) {
	s, l, _ := newServer(t, nil)
	st, _ := l.State()
	for _, n := range st.Nodes {
		var out struct {
			Node dashboard.Node
			Pods []dashboard.Pod
		}
		res := do(t, s, http.MethodGet, "/api/v1/node?name="+n.Name, withKey)
		if err := json.NewDecoder(res.Body).Decode(&out); err != nil {
			t.Fatal(err)
		}
		if out.Node.Name != n.Name || len(out.Pods) != n.Pods {
			t.Errorf("node %s: %d pods, want %d", n.Name, len(out.Pods), n.Pods)
		}
	}
}

// TestNobodyIsRefused checks that a server that nobody could use, or with a key that can
// be guessed, is not made.
func TestNobodyIsRefused(t *testing.T) {
	l, err := dashboard.NewLive(dashboard.Config{Log: testr.New(t)})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []dashboard.ServerConfig{{Live: l}, {Live: l, Key: "secret"}} {
		if _, err := dashboard.NewServer(c); err == nil {
			t.Errorf("server with key %q and no reviewer: no error", c.Key)
		}
	}
}

// FuzzServer checks that no request without a token gets data, and none makes the
// server fail.
func FuzzServer(f *testing.F) {
	o, err := dashboardtest.Cluster(5)
	if err != nil {
		f.Fatal(err)
	}
	l, err := dashboard.NewLive(dashboard.Config{Objects: func(context.Context) (*snapshot.Objects, error) { return o, nil }})
	if err != nil {
		f.Fatal(err)
	}
	if err := l.Update(context.Background()); err != nil {
		f.Fatal(err)
	}
	h, err := dashboard.NewServer(dashboard.ServerConfig{Live: l, Key: key})
	if err != nil {
		f.Fatal(err)
	}
	for _, path := range []string{"/", "/api/v1/state", "/login?code=x", "/api/v1/node?name=a", "/..%2f", "/api/v1/frame?at=1"} {
		f.Add("GET", path, "localhost", "", "Bearer x", "nap-dashboard-80=x")
	}
	f.Fuzz(func(t *testing.T, method, path, host, origin, authorization, cookie string) {
		if strings.Contains(authorization, key) {
			t.Skip("the fuzzer has the key")
		}
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		r, err := http.NewRequestWithContext(ctx, "GET", "http://localhost/", nil)
		if err != nil {
			t.Fatal(err)
		}
		u, err := r.URL.Parse(path)
		if err != nil {
			return
		}
		r.Method, r.URL, r.Host, r.RequestURI = method, u, host, path
		r.Header.Set("Origin", origin)
		r.Header.Set("Authorization", authorization)
		r.Header.Set("Cookie", cookie)
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Code >= 500 {
			t.Errorf("status %d", w.Code)
		}
		if strings.HasPrefix(u.Path, "/api") && w.Code < 300 || strings.Contains(w.Body.String(), fmt.Sprint("aks-", "default")) {
			t.Errorf("%s %s without a token: %d %.200s", method, path, w.Code, w.Body)
		}
	})
}
