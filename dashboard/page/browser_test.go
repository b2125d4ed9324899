// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package page_test

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
	clocktesting "k8s.io/utils/clock/testing"

	"github.com/nap-aks/nap/dashboard"
	"github.com/nap-aks/nap/dashboard/dashboardtest"
	"github.com/nap-aks/nap/snapshot"
)

const key = "0123456789abcdef0123456789abcdef"

// luminance is that of WCAG.
func luminance(t *testing.T, hex string) float64 {
	t.Helper()
	n, err := strconv.ParseUint(hex, 16, 32)
	if err != nil {
		t.Fatal(err)
	}
	linear := func(c uint64) float64 {
		v := float64(c&255) / 255
		if v <= 0.04045 {
			return v / 12.92
		}
		return math.Pow((v+0.055)/1.055, 2.4)
	}
	return 0.2126*linear(n>>16) + 0.7152*linear(n>>8) + 0.0722*linear(n)
}

// serve serves the dashboard of a cluster with some history.
func serve(t *testing.T, nodes int) (*httptest.Server, *dashboard.Live) {
	t.Helper()
	clock := clocktesting.NewFakeClock(dashboardtest.Now.Add(-40 * time.Minute))
	recorder, err := dashboard.OpenRecorder(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	var o *snapshot.Objects
	l, err := dashboard.NewLive(dashboard.Config{Cluster: "shop", Recorder: recorder, Clock: clock, Objects: func(context.Context) (*snapshot.Objects, error) { return o, nil }})
	if err != nil {
		t.Fatal(err)
	}
	steps := 40
	if nodes > 1000 {
		steps = 1
	}
	for i := range steps {
		if o, err = dashboardtest.Cluster(max(10, nodes*(steps-i%7)/steps-(steps-i-1))); err != nil {
			t.Fatal(err)
		}
		if i == steps-1 {
			if o, err = dashboardtest.Cluster(nodes); err != nil {
				t.Fatal(err)
			}
			pass, err := dashboardtest.Pass(o)
			if err != nil {
				t.Fatal(err)
			}
			pass.Time = clock.Now()
			l.ObservePass(*pass)
		}
		o.Now = clock.Now()
		if err := l.Update(t.Context()); err != nil {
			t.Fatal(err)
		}
		clock.Step(time.Minute)
	}
	deadline := time.Now().Add(20 * time.Second)
	for s, _ := l.State(); s.Bound == nil && time.Now().Before(deadline); s, _ = l.State() {
		time.Sleep(100 * time.Millisecond)
		if err := l.Update(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	h, err := dashboard.NewServer(dashboard.ServerConfig{Live: l, Key: key})
	if err != nil {
		t.Fatal(err)
	}
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s, l
}

// browser returns a context with a page and a function that returns what went wrong on
// it: errors on the console, exceptions, violations of the content security policy.
func browser(t *testing.T, width, height int64, dark bool) (context.Context, func() []string) {
	t.Helper()
	path := ""
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if p, err := exec.LookPath(name); err == nil {
			path = p
			break
		}
	}
	if path == "" {
		t.Skip("no Chromium on this machine: apt-get install chromium")
	}
	options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(path), chromedp.NoSandbox, chromedp.WindowSize(int(width), int(height)))
	alloc, cancelAlloc := chromedp.NewExecAllocator(t.Context(), options...)
	ctx, cancel := chromedp.NewContext(alloc)
	ctx, cancelTime := context.WithTimeout(ctx, 90*time.Second)
	t.Cleanup(func() { cancelTime(); cancel(); cancelAlloc() })
	var mu sync.Mutex
	var wrong []string
	scheme := "light"
	if dark {
		scheme = "dark"
	}
	var mobile []chromedp.EmulateViewportOption
	if width < 640 {
		mobile = append(mobile, chromedp.EmulateMobile)
	}
	if err := chromedp.Do(ctx, chromedp.EmulateViewport(width, height, mobile...)); err != nil {
		t.Fatalf("starting %s: %v", path, err)
	}
	if err := chromedp.Listen(ctx, func(ev any) {
		mu.Lock()
		defer mu.Unlock()
		switch e := ev.(type) {
		case *runtime.EventConsoleAPICalled:
			if e.Type == runtime.ConsoleAPICalledTypeError || e.Type == runtime.ConsoleAPICalledTypeWarning {
				b, err := json.Marshal(e.Args)
				wrong = append(wrong, fmt.Sprintf("console: %s %v", b, err))
			}
		case *runtime.EventExceptionThrown:
			wrong = append(wrong, "exception: "+e.ExceptionDetails.Text)
		case *log.EventEntryAdded:
			if e.Entry.Level == log.EntryLevelError || e.Entry.Level == log.EntryLevelWarning {
				wrong = append(wrong, "log: "+e.Entry.Text)
			}
		}
	}); err != nil {
		t.Fatal(err)
	}
	if _, err := chromedp.Call(ctx, log.Enable, cdp.Empty{}); err != nil {
		t.Fatal(err)
	}
	if _, err := chromedp.Call(ctx, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}}}); err != nil {
		t.Fatal(err)
	}
	return ctx, func() []string {
		mu.Lock()
		defer mu.Unlock()
		return append([]string(nil), wrong...)
	}
}

// address returns a one-time address of the page.
func address(t *testing.T, s *httptest.Server) string {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.URL+"/api/v1/session", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+key)
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close() //nolint:errcheck // only read
	var out struct{ Path string }
	if err := json.NewDecoder(res.Body).Decode(&out); err != nil {
		t.Fatal(err)
	}
	return s.URL + out.Path
}

// shot writes a picture of the page to the folder of $NAP_SCREENSHOTS, if that is set.
func shot(t *testing.T, ctx context.Context, name string) {
	t.Helper()
	dir := os.Getenv("NAP_SCREENSHOTS")
	if dir == "" {
		return
	}
	time.Sleep(400 * time.Millisecond) // transitions
	b, err := chromedp.Run(ctx, chromedp.CaptureScreenshot())
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, name+".png"), b, 0o600); err != nil {
		t.Fatal(err)
	}
}

func text(t *testing.T, ctx context.Context, selector string) string {
	t.Helper()
	s, err := chromedp.Run(ctx, chromedp.Text(selector))
	if err != nil {
		t.Fatalf("%s: %v", selector, err)
	}
	return strings.TrimSpace(s)
}

// view opens a view by its key.
func view(t *testing.T, ctx context.Context, k, name string) {
	t.Helper()
	if err := chromedp.Do(ctx, chromedp.KeyEvent(k), chromedp.WaitVisible(`main[data-view=`+name+`]`)); err != nil {
		t.Fatalf("view %s: %v", name, err)
	}
	wide, err := chromedp.Run(ctx, chromedp.Evaluate[bool](`document.documentElement.scrollWidth > innerWidth`))
	if err != nil {
		t.Fatal(err)
	}
	if wide {
		t.Errorf("view %s is wider than the window", name)
	}
}

// TestPage opens each view as a person would and compares what it shows with the API.
func TestPage(t *testing.T) {
	s, l := serve(t, 200)
	st, _ := l.State()
	for _, c := range []struct {
		name          string
		width, height int64
		dark          bool
	}{{"light", 1280, 900, false}, {"dark", 1280, 900, true}, {"narrow", 400, 860, false}} {
		t.Run(c.name, func(t *testing.T) {
			ctx, wrong := browser(t, c.width, c.height, c.dark)
			if err := chromedp.Do(ctx, chromedp.Navigate(address(t, s)), chromedp.WaitVisible("#usd")); err != nil {
				t.Fatal(err)
			}
			for selector, want := range map[string]string{
				"#usd": fmt.Sprintf("$%.2f/h", st.USDPerHour), "#bound": fmt.Sprintf("$%.2f/h", st.Bound.USDPerHour), "#gap": fmt.Sprintf("%.1f%%", 100*st.Bound.Gap),
				"#nodes": strconv.Itoa(len(st.Nodes)), "#refused": strconv.Itoa(st.Pods.Refused),
			} {
				if got := text(t, ctx, selector); got != want {
					t.Errorf("%s shows %q, want %q", selector, got, want)
				}
			}
			if got := strings.ReplaceAll(text(t, ctx, "#running"), ",", ""); got != strconv.Itoa(st.Pods.Running) {
				t.Errorf("pods running: %s, want %d", got, st.Pods.Running)
			}
			shot(t, ctx, "now-"+c.name)
			view(t, ctx, "2", "map")
			if got := text(t, ctx, ".told"); !strings.HasPrefix(got, fmt.Sprintf("%d nodes, $%.2f/h", len(st.Nodes), st.USDPerHour)) {
				t.Errorf("below the map: %q", got)
			}
			shot(t, ctx, "map-"+c.name)
			// By keyboard: to a node, and open it.
			if err := chromedp.Do(ctx, chromedp.Focus("canvas"), chromedp.KeyEvent(kb.ArrowRight), chromedp.KeyEvent(kb.ArrowRight), chromedp.KeyEvent(kb.Enter),
				chromedp.WaitVisible(".panel .facts")); err != nil {
				t.Fatal(err)
			}
			title := text(t, ctx, ".panel h2")
			for _, n := range st.Nodes {
				if n.Name == title && !strings.Contains(text(t, ctx, ".panel .body"), n.Stays.Text) {
					t.Errorf("the panel of %s does not say %q", title, n.Stays.Text)
				}
			}
			shot(t, ctx, "node-"+c.name)
			if err := chromedp.Do(ctx, chromedp.KeyEvent(kb.Escape), chromedp.WaitNotPresent(".panel")); err != nil {
				t.Fatal(err)
			}
			view(t, ctx, "3", "waiting")
			if got := text(t, ctx, ".wait"); !strings.Contains(got, st.Waiting[0].Reason) || !strings.Contains(got, st.Waiting[0].Nearest[0].What) {
				t.Errorf("the first group that waits says %q, want %q and the nearest miss", got, st.Waiting[0].Reason)
			}
			shot(t, ctx, "waiting-"+c.name)
			view(t, ctx, "4", "timeline")
			if err := chromedp.Do(ctx, chromedp.WaitVisible(".decision.ScaleUp"), chromedp.WaitVisible(".uplot canvas")); err != nil {
				t.Fatal(err)
			}
			shot(t, ctx, "timeline-"+c.name)
			// Back in time, and to the present again.
			if err := chromedp.Do(ctx, chromedp.Click(".decision button.link"), chromedp.WaitVisible("main[data-view=map] .past"),
				chromedp.Click(".past button"), chromedp.WaitNotPresent(".past")); err != nil {
				t.Fatal(err)
			}
			view(t, ctx, "5", "budgets")
			if got := text(t, ctx, "main"); !strings.Contains(got, "batch") || !strings.Contains(got, "until 18:00 none") && !strings.Contains(got, "none") {
				t.Errorf("budgets: %q", got)
			}
			shot(t, ctx, "budgets-"+c.name)
			if list := wrong(); len(list) > 0 {
				t.Errorf("on the page:\n%s", strings.Join(list, "\n"))
			}
		})
	}
}

// TestPageWithoutToken checks that a page without a session shows the login and nothing
// of the cluster.
func TestPageWithoutToken(t *testing.T) {
	s, l := serve(t, 20)
	ctx, _ := browser(t, 1000, 700, false)
	if err := chromedp.Do(ctx, chromedp.Navigate(s.URL+"/"), chromedp.WaitVisible("form")); err != nil {
		t.Fatal(err)
	}
	st, _ := l.State()
	for _, n := range st.Nodes {
		if strings.Contains(text(t, ctx, "body"), n.Name) {
			t.Fatalf("the page shows %s without a token", n.Name)
		}
	}
	shot(t, ctx, "login")
	if err := chromedp.Do(ctx, chromedp.SendKeys("input", key), chromedp.Click("form button"), chromedp.WaitVisible("#usd")); err != nil {
		t.Fatalf("logging in with the key: %v", err)
	}
}

// TestLargeMap measures a frame of the map with 5,000 nodes: layout and drawing.
func TestLargeMap(t *testing.T) {
	if testing.Short() {
		t.Skip("-short: a cluster of 5,000 nodes takes a while")
	}
	s, l := serve(t, 5000)
	ctx, wrong := browser(t, 1600, 1000, false)
	if err := chromedp.Do(ctx, chromedp.Navigate(address(t, s)), chromedp.WaitVisible("#usd")); err != nil {
		t.Fatal(err)
	}
	view(t, ctx, "2", "map")
	best := math.Inf(1)
	for range 5 {
		if err := l.Update(t.Context()); err != nil { // announced to the page
			t.Fatal(err)
		}
		time.Sleep(700 * time.Millisecond)
		ms, err := chromedp.Run(ctx, chromedp.Evaluate[string](`document.querySelector("canvas").dataset.frame`))
		if err != nil {
			t.Fatal(err)
		}
		v, err := strconv.ParseFloat(ms, 64)
		if err != nil {
			t.Fatal(err)
		}
		best = min(best, v)
	}
	t.Logf("layout and drawing of 5,000 nodes: %.1f ms", best)
	if best > 200 {
		t.Errorf("a frame of 5,000 nodes takes %.1f ms, more than 200", best)
	}
	if rows, err := chromedp.Run(ctx, chromedp.Evaluate[float64](`document.querySelectorAll(".row").length`)); err != nil || rows > 60 || rows < 5 {
		t.Errorf("the list has %v rows in the page, %v", rows, err)
	}
	shot(t, ctx, "map-5000")
	if list := wrong(); len(list) > 0 {
		t.Errorf("on the page:\n%s", strings.Join(list, "\n"))
	}
}

// TestLive opens each view of a running dashboard, by the address that nap dashboard
// prints.
func TestLive(t *testing.T) {
	url := os.Getenv("NAP_DASHBOARD")
	if url == "" {
		t.Skip("no running dashboard: set NAP_DASHBOARD to what nap dashboard --no-open prints")
	}
	ctx, wrong := browser(t, 1280, 900, false)
	if err := chromedp.Do(ctx, chromedp.Navigate(url), chromedp.WaitVisible("#usd")); err != nil {
		t.Fatal(err)
	}
	same := `fetch("/api/v1/state").then((r) => r.json()).then((s) => String(s.nodes.length) === document.querySelector("#nodes").textContent)`
	ok := false
	for deadline := time.Now().Add(15 * time.Second); !ok && time.Now().Before(deadline); time.Sleep(300 * time.Millisecond) { // machines come and go
		var err error
		if ok, err = chromedp.Run(ctx, chromedp.Evaluate[bool](same, chromedp.EvalAwaitPromise)); err != nil {
			t.Fatal(err)
		}
	}
	if !ok {
		t.Errorf("the page shows %s nodes, the API another number", text(t, ctx, "#nodes"))
	}
	for i, name := range []string{"now", "map", "waiting", "timeline", "budgets"} {
		view(t, ctx, strconv.Itoa(i+1), name)
		time.Sleep(300 * time.Millisecond)
		shot(t, ctx, "live-"+name)
	}
	if list := wrong(); len(list) > 0 {
		t.Errorf("on the page:\n%s", strings.Join(list, "\n"))
	}
}
