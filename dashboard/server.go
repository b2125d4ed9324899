// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package dashboard

import (
	"compress/gzip"
	"context"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"
)

//go:generate go run ./page/gen

// The page.
//
//go:embed web
var web embed.FS

// assets are the files of the page by path, with their types.
var assets = map[string]string{
	"/":          "text/html; charset=utf-8",
	"/app.js":    "text/javascript; charset=utf-8",
	"/app.css":   "text/css; charset=utf-8",
	"/icon.svg":  "image/svg+xml",
	"/NOTICE.md": "text/plain; charset=utf-8",
}

// csp lets the page load its own files and nothing else, and nobody frame it.
const csp = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

const (
	maxDecisions = 500
	maxPodsShown = 1000
	curvePoints  = 1000
	keepAlive    = 20 * time.Second
)

// ServerConfig configures NewServer.
type ServerConfig struct {
	Live *Live
	// Key gives access as a bearer token does; empty means there is none. It has at
	// least 32 characters.
	Key string
	// Review decides about other tokens; nil denies them.
	Review Reviewer
	// Hosts are host names, without port, by which the dashboard may be addressed
	// besides the loopback ones: that of an ingress, for example.
	Hosts []string
}

type server struct {
	live  *Live
	auth  *auth
	hosts []string
}

// NewServer returns the handler of the dashboard. It answers GET, and POST for
// /api/v1/session only.
func NewServer(c ServerConfig) (http.Handler, error) {
	a, err := newAuth(c.Key, c.Review, c.Live.Clock)
	if err != nil {
		return nil, err
	}
	hosts := []string{"localhost", "127.0.0.1", "::1"}
	for _, h := range c.Hosts {
		hosts = append(hosts, strings.ToLower(h))
	}
	return &server{live: c.Live, auth: a, hosts: hosts}, nil
}

// Serve serves a handler on a listener until the context ends.
func Serve(ctx context.Context, l net.Listener, h http.Handler) error {
	s := &http.Server{
		Handler: h, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 64 << 10,
		BaseContext: func(net.Listener) context.Context { return ctx },
	}
	done := make(chan error, 1)
	go func() { done <- s.Serve(l) }()
	select {
	case err := <-done:
		return fmt.Errorf("serving the dashboard: %w", err)
	case <-ctx.Done():
	}
	return s.Close()
}

func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Content-Security-Policy", csp)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Cache-Control", "no-store")
	if !s.addressed(r.Host) {
		fail(w, http.StatusMisdirectedRequest, "this dashboard does not answer for that host name; allow it with --dashboard-hosts")
		return
	}
	// Paths are compared as they were sent, so there is nothing to clean or to escape.
	p := r.URL.EscapedPath()
	if kind, ok := assets[p]; ok {
		s.asset(w, r, p, kind)
		return
	}
	if p == "/login" {
		s.login(w, r)
		return
	}
	if !sameOrigin(r) {
		fail(w, http.StatusForbidden, "requests from other sites are refused")
		return
	}
	if p == "/api/v1/session" {
		s.session(w, r)
		return
	}
	handle := map[string]func(http.ResponseWriter, *http.Request){
		"/api/v1/state": s.state, "/api/v1/node": s.node, "/api/v1/timeline": s.timeline, "/api/v1/frame": s.frame, "/api/v1/events": s.events,
	}[p]
	switch {
	case handle == nil:
		fail(w, http.StatusNotFound, "no such path")
	case r.Method != http.MethodGet:
		h.Set("Allow", http.MethodGet)
		fail(w, http.StatusMethodNotAllowed, "the dashboard only reads: use GET")
	case s.allowed(w, r):
		handle(w, r)
	}
}

// addressed reports whether the request was meant for this server. A page of another
// name that resolves to this address (DNS rebinding) is not.
func (s *server) addressed(host string) bool {
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	return slices.Contains(s.hosts, strings.ToLower(strings.Trim(host, "[]")))
}

// sameOrigin reports whether a request comes from the page itself or from a program
// that is no browser.
func sameOrigin(r *http.Request) bool {
	switch r.Header.Get("Sec-Fetch-Site") {
	case "", "same-origin", "none":
	default:
		return false
	}
	origin := r.Header.Get("Origin")
	if origin == "" {
		return true
	}
	u, err := url.Parse(origin)
	return err == nil && u.Host != "" && u.Host == r.Host
}

// allowed reports whether the request has access, and answers if not.
func (s *server) allowed(w http.ResponseWriter, r *http.Request) bool {
	err := fmt.Errorf("%w: open the address that nap dashboard prints", ErrDenied)
	if token, ok := bearer(r); ok {
		err = s.auth.checkToken(r.Context(), token)
	} else if c, cookieErr := r.Cookie(cookieName(r)); cookieErr == nil {
		err = s.auth.checkSession(r.Context(), c.Value)
	}
	return answer(w, err)
}

// answer answers a request that failed, and reports whether it did not.
func answer(w http.ResponseWriter, err error) bool {
	switch {
	case err == nil:
		return true
	case errors.Is(err, ErrDenied):
		w.Header().Set("WWW-Authenticate", `Bearer realm="nap dashboard"`)
		fail(w, http.StatusUnauthorized, err.Error())
	default:
		fail(w, http.StatusServiceUnavailable, err.Error())
	}
	return false
}

func bearer(r *http.Request) (string, bool) {
	return strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
}

// cookieName has the port: browsers send cookies of a host to all its ports.
func cookieName(r *http.Request) string {
	_, port, err := net.SplitHostPort(r.Host)
	if err != nil {
		port = "80"
	}
	if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		port = "0"
	}
	return "nap-dashboard-" + port
}

func (s *server) asset(w http.ResponseWriter, r *http.Request, p, kind string) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		fail(w, http.StatusMethodNotAllowed, "use GET")
		return
	}
	if p == "/" {
		p = "/index.html"
	}
	b, err := web.ReadFile(path.Join("web", p))
	if err != nil {
		fail(w, http.StatusNotFound, "no such file")
		return
	}
	w.Header().Set("Content-Type", kind)
	write(w, r, b)
}

// session gives a code for the address of the page to who has a token.
func (s *server) session(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodPost {
		w.Header().Set("Allow", http.MethodPost)
		fail(w, http.StatusMethodNotAllowed, "use POST")
		return
	}
	token, _ := bearer(r)
	if !answer(w, s.auth.checkToken(r.Context(), token)) {
		return
	}
	code, err := s.auth.newCode(token)
	if answer(w, err) {
		reply(w, r, map[string]string{"code": code, "path": "/login?code=" + code})
	}
}

// login exchanges the code of an address for a cookie.
func (s *server) login(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet {
		fail(w, http.StatusMethodNotAllowed, "use GET")
		return
	}
	id, err := s.auth.redeem(r.Context(), r.URL.Query().Get("code"))
	if !answer(w, err) {
		return
	}
	http.SetCookie(w, &http.Cookie{ //nolint:gosec // plain HTTP on loopback; Secure is set behind TLS
		Name: cookieName(r), Value: id, Path: "/", HttpOnly: true, SameSite: http.SameSiteStrictMode,
		Secure: r.TLS != nil || r.Header.Get("X-Forwarded-Proto") == "https", MaxAge: int(sessionFor.Seconds()),
	})
	w.Header().Set("Location", "/")
	w.WriteHeader(http.StatusSeeOther)
}

func (s *server) state(w http.ResponseWriter, r *http.Request) {
	st, seq := s.live.State()
	if st == nil {
		w.Header().Set("Retry-After", "2")
		fail(w, http.StatusServiceUnavailable, "the cluster is still being read")
		return
	}
	tag := `"` + strconv.FormatUint(seq, 10) + "-" + strconv.FormatInt(st.Time.UnixNano(), 36) + `"`
	w.Header().Set("ETag", tag)
	if r.Header.Get("If-None-Match") == tag {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	reply(w, r, st)
}

// node describes one node: its pods and the decision that bought it.
func (s *server) node(w http.ResponseWriter, r *http.Request) {
	st, _ := s.live.State()
	name := r.URL.Query().Get("name")
	if st == nil {
		fail(w, http.StatusServiceUnavailable, "the cluster is still being read")
		return
	}
	i := slices.IndexFunc(st.Nodes, func(n Node) bool { return n.Name == name })
	if i < 0 {
		fail(w, http.StatusNotFound, "no node of this name: it may have been removed")
		return
	}
	n := st.Nodes[i]
	out := struct {
		Node   Node    `json:"node"`
		Pods   []Pod   `json:"pods"`
		Bought *Bought `json:"bought,omitempty"`
	}{Node: n, Pods: s.live.PodsOn(n.Name, maxPodsShown)}
	if n.Decision != 0 {
		// A purchase is at most a little younger than its NodeClaim.
		list, err := s.live.Decisions(n.Created.Add(-10*time.Minute), n.Created.Add(10*time.Minute), maxDecisions)
		if !answer(w, err) {
			return
		}
		for di := range list {
			for mi := range list[di].Machines {
				if list[di].ID == n.Decision && list[di].Machines[mi].Claim == n.Claim {
					out.Bought = &list[di].Machines[mi]
				}
			}
		}
	}
	reply(w, r, out)
}

func (s *server) timeline(w http.ResponseWriter, r *http.Request) {
	now := s.live.Clock.Now()
	from, err1 := timeOf(r, "from", now.Add(-24*time.Hour))
	to, err2 := timeOf(r, "to", now)
	if err := errors.Join(err1, err2); err != nil {
		fail(w, http.StatusBadRequest, err.Error())
		return
	}
	decisions, err := s.live.Decisions(from, to, maxDecisions)
	if !answer(w, err) {
		return
	}
	reply(w, r, struct {
		From      time.Time  `json:"from"`
		To        time.Time  `json:"to"`
		Decisions []Decision `json:"decisions"`
		Points    []Point    `json:"points"`
	}{from, to, decisions, s.live.Points(from, to, curvePoints)})
}

// frame answers with the recorded state at a time.
func (s *server) frame(w http.ResponseWriter, r *http.Request) {
	at, err := timeOf(r, "at", s.live.Clock.Now())
	if err != nil {
		fail(w, http.StatusBadRequest, err.Error())
		return
	}
	f, err := s.live.FrameAt(at)
	if !answer(w, err) {
		return
	}
	if f == nil {
		fail(w, http.StatusNotFound, "nothing was recorded at or before that time")
		return
	}
	reply(w, r, f.State())
}

// timeOf returns a parameter in milliseconds since 1970.
func timeOf(r *http.Request, name string, otherwise time.Time) (time.Time, error) {
	v := r.URL.Query().Get(name)
	if v == "" {
		return otherwise, nil
	}
	ms, err := strconv.ParseInt(v, 10, 64)
	if err != nil || ms < 0 || ms > 1<<47 {
		return time.Time{}, fmt.Errorf("%s=%.40q is not a time in milliseconds since 1970", name, v)
	}
	return time.UnixMilli(ms).UTC(), nil
}

// events sends the number of each new State as a server-sent event. The page then gets
// the State itself, so a slow connection skips States instead of queueing them.
func (s *server) events(w http.ResponseWriter, r *http.Request) {
	changed, end, err := s.live.Subscribe()
	if !answer(w, err) {
		return
	}
	defer end()
	rc := http.NewResponseController(w)
	h := w.Header()
	h.Set("Content-Type", "text/event-stream")
	h.Set("X-Accel-Buffering", "no")
	// Access is checked again while the stream is open: a session can end.
	alive := time.NewTicker(keepAlive)
	defer alive.Stop()
	send := func(text string) bool {
		if err := rc.SetWriteDeadline(time.Now().Add(10 * time.Second)); err != nil && !errors.Is(err, http.ErrNotSupported) {
			return false
		}
		_, err := io.WriteString(w, text)
		return err == nil && rc.Flush() == nil
	}
	event := func() bool {
		_, seq := s.live.State()
		return send(fmt.Sprintf("event: state\ndata: %d\n\n", seq))
	}
	if !event() {
		return
	}
	for {
		select {
		case <-r.Context().Done():
			return
		case <-changed:
			if !event() {
				return
			}
		case <-alive.C:
			if c, err := r.Cookie(cookieName(r)); err == nil && s.auth.checkSession(r.Context(), c.Value) != nil {
				return
			}
			if token, ok := bearer(r); ok && s.auth.checkToken(r.Context(), token) != nil {
				return
			}
			if !send(": alive\n\n") {
				return
			}
		}
	}
}

func reply(w http.ResponseWriter, r *http.Request, v any) {
	b, err := json.Marshal(v)
	if err != nil {
		fail(w, http.StatusInternalServerError, "encoding the answer: "+err.Error())
		return
	}
	w.Header().Set("Content-Type", "application/json")
	write(w, r, b)
}

// write sends a body, compressed if that is welcome and worth it.
func write(w http.ResponseWriter, r *http.Request, b []byte) {
	rc := http.NewResponseController(w)
	_ = rc.SetWriteDeadline(time.Now().Add(30 * time.Second)) // not supported by test recorders
	w.Header().Add("Vary", "Accept-Encoding")
	if len(b) < 1024 || !strings.Contains(r.Header.Get("Accept-Encoding"), "gzip") || r.Method == http.MethodHead {
		if r.Method != http.MethodHead {
			_, _ = w.Write(b)
		}
		return
	}
	w.Header().Set("Content-Encoding", "gzip")
	z, err := gzip.NewWriterLevel(w, gzip.BestSpeed)
	if err != nil {
		return
	}
	_, _ = z.Write(b)
	_ = z.Close()
}

func fail(w http.ResponseWriter, status int, message string) {
	b, err := json.Marshal(map[string]string{"error": message})
	if err != nil {
		b = []byte("{}")
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(append(b, '\n'))
}
