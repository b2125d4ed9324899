package supervisor

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

func testHome(t *testing.T) Home {
	t.Helper()
	h, err := OpenHome(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func TestLockIsHeldByOneAndFallsWithItsHolder(t *testing.T) {
	h := testHome(t)
	if _, err := ReadLock(h); !errors.Is(err, ErrNoInstance) {
		t.Fatalf("a fresh home: %v, want ErrNoInstance", err)
	}
	l, err := TakeLock(h)
	if err != nil {
		t.Fatal(err)
	}
	var locked *LockedError
	if _, err := TakeLock(h); !errors.As(err, &locked) || locked.PID != os.Getpid() {
		t.Fatalf("second taker got %v, want a LockedError that names pid %d", err, os.Getpid())
	}
	if !strings.Contains(locked.Error(), "nap down") {
		t.Errorf("the error does not say what to do: %v", locked)
	}
	l.Release()

	// A file left behind by a dead holder is no lock.
	if err := os.WriteFile(h.Path("lock"), []byte(`{"pid":999999,"startedAt":"2020-01-01T00:00:00Z"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadLock(h); !errors.Is(err, ErrNoInstance) {
		t.Errorf("a stale file reads as %v, want ErrNoInstance", err)
	}
	l, err = TakeLock(h)
	if err != nil {
		t.Fatalf("a stale file is in the way: %v", err)
	}
	l.Release()
}

func TestPortsAreRememberedAndReplacedWhenTaken(t *testing.T) {
	h := testHome(t)
	p, err := openPorts(h)
	if err != nil {
		t.Fatal(err)
	}
	first, err := p.get("arm", false)
	if err != nil {
		t.Fatal(err)
	}
	other, err := p.get("etcd", false)
	if err != nil || other == first {
		t.Fatalf("two names share port %d (%v)", other, err)
	}
	again, err := openPorts(h)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := again.get("arm", false); err != nil || got != first {
		t.Fatalf("after a restart arm is at %d (%v), want %d", got, err, first)
	}
	l, err := net.Listen("tcp4", fmt.Sprintf("127.0.0.1:%d", first))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	if got, err := again.get("arm", true); err != nil || got != first {
		t.Errorf("our own process holds the port: got %d (%v), want %d", got, err, first)
	}
	moved, err := again.get("arm", false)
	if err != nil || moved == first {
		t.Errorf("a port that somebody else took is handed out again: %d (%v)", moved, err)
	}
}

func TestCertificatesAreKeptUntilWhatTheySayChanges(t *testing.T) {
	dir := t.TempDir()
	ca, err := openAuthority(dir, "test")
	if err != nil {
		t.Fatal(err)
	}
	p, err := ca.server("api", "localhost", "127.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	read := func() string {
		b, err := os.ReadFile(p.certFile)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	one := read()
	if ca, err = openAuthority(dir, "test"); err != nil {
		t.Fatal(err)
	}
	if _, err := ca.server("api", "localhost", "127.0.0.1"); err != nil {
		t.Fatal(err)
	}
	if read() != one {
		t.Error("the certificate was made anew although nothing changed")
	}
	if _, err := ca.server("api", "localhost", "127.0.0.1", "10.0.0.1"); err != nil {
		t.Fatal(err)
	}
	if read() == one {
		t.Error("the certificate was kept although a host was added")
	}
	for _, f := range []string{p.keyFile, filepath.Join(dir, "ca.key")} {
		st, err := os.Stat(f)
		if err != nil {
			t.Fatal(err)
		}
		if st.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %v", f, st.Mode().Perm())
		}
	}
}

func TestLogsRotateAndKeepThree(t *testing.T) {
	file := filepath.Join(t.TempDir(), "a.log")
	l, err := openLog(file)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	chunk := []byte(strings.Repeat("x", logMaxBytes/2+1))
	for range 6 {
		if n, err := l.Write(chunk); err != nil || n != len(chunk) {
			t.Fatalf("wrote %d: %v", n, err)
		}
	}
	for i, want := range []bool{true, true, true, true, false} {
		name := file
		if i > 0 {
			name = fmt.Sprintf("%s.%d", file, i)
		}
		st, err := os.Stat(name)
		if (err == nil) != want {
			t.Errorf("%s exists: %t, want %t", filepath.Base(name), err == nil, want)
		}
		if err == nil && st.Size() > logMaxBytes {
			t.Errorf("%s has %d bytes", filepath.Base(name), st.Size())
		}
	}
}

// A child that dies comes back, one that no longer answers is not killed before
// its time, and stop ends it for good.
func TestChildIsKeptRunning(t *testing.T) {
	sh, err := exec.LookPath("sleep")
	if err != nil {
		t.Fatal(err)
	}
	g := newProcessGroup(sh, slog.New(slog.DiscardHandler), nil)
	p, err := g.start(processSpec{name: "child", args: []string{"1000"}, log: filepath.Join(t.TempDir(), "child.log")})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := p.waitReady(ctx); err != nil {
		t.Fatal(err)
	}
	first := g.list()[0].PID
	if err := syscall.Kill(first, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the child to be back", time.Minute, func() error {
		if c := g.list()[0]; c.PID == 0 || c.PID == first || c.Restarts != 1 || !strings.Contains(c.LastExit, "killed") {
			return fmt.Errorf("%+v", c)
		}
		return nil
	})
	second := g.list()[0].PID
	p.stop()
	if err := syscall.Kill(second, 0); !errors.Is(err, syscall.ESRCH) {
		t.Errorf("pid %d is still there after stop: %v", second, err)
	}
	if n := len(g.list()); n != 0 {
		t.Errorf("%d children are listed after stop", n)
	}
}

// The children of a supervisor that is killed die with it, also when the Go
// thread that asked for their start is long gone.
func TestChildrenDieWithTheSupervisor(t *testing.T) {
	bin, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(bin, "component", "test-supervisor")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var child int
	if _, err := fmt.Fscan(out, &child); err != nil {
		t.Fatalf("reading the child's pid: %v", err)
	}
	if err := syscall.Kill(child, 0); err != nil {
		t.Fatalf("child %d does not run: %v", child, err)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	eventually(t, "the child to be gone", time.Minute, func() error {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", child))
		if err != nil || strings.Contains(string(b), ") Z ") {
			return nil
		}
		return fmt.Errorf("pid %d is still there", child)
	})
}

// testSupervisor starts a child, prints its pid and waits to be killed.
func testSupervisor() {
	g := newProcessGroup("/bin/sleep", slog.New(slog.DiscardHandler), nil)
	dir, err := os.MkdirTemp("", "nap-test")
	if err != nil {
		panic(err)
	}
	p, err := g.start(processSpec{name: "child", args: []string{"1000"}, log: filepath.Join(dir, "child.log")})
	if err != nil {
		panic(err)
	}
	if err := p.waitReady(context.Background()); err != nil {
		panic(err)
	}
	fmt.Println(g.list()[0].PID)
	time.Sleep(time.Minute)
}

func TestFirstServiceAddress(t *testing.T) {
	for cidr, want := range map[string]string{"10.0.0.0/16": "10.0.0.1", "172.16.8.0/22": "172.16.8.1"} {
		if got, err := firstIP(cidr); err != nil || got != want {
			t.Errorf("%s: %s (%v), want %s", cidr, got, err, want)
		}
	}
	for _, bad := range []string{"fd00::/108", "nonsense"} {
		if _, err := firstIP(bad); err == nil {
			t.Errorf("%s was taken", bad)
		}
	}
}

func TestKubeconfigsMergeAndGo(t *testing.T) {
	file := filepath.Join(t.TempDir(), "kubeconfig")
	dir := t.TempDir()
	ca, err := openAuthority(dir, "test")
	if err != nil {
		t.Fatal(err)
	}
	p, err := ca.client("admin", "masterclient", "system:masters")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"one", "two"} {
		b, err := kubeconfig(name, name+"-admin", "clusterAdmin_rg_"+name, "https://127.0.0.1:1", []byte("ca"), p)
		if err != nil {
			t.Fatal(err)
		}
		if err := mergeKubeconfig(file, b, ""); err != nil {
			t.Fatal(err)
		}
	}
	text := func() string {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	if s := text(); !strings.Contains(s, "current-context: one-admin") || !strings.Contains(s, "two-admin") {
		t.Errorf("after two clusters:\n%s", s)
	}
	if err := mergeKubeconfig(file, nil, "one"); err != nil {
		t.Fatal(err)
	}
	if s := text(); strings.Contains(s, "one") || !strings.Contains(s, "current-context: two-admin") {
		t.Errorf("after the first one went:\n%s", s)
	}
}
