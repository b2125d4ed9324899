// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package supervisor

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// A child that is killed is restarted, and stop ends it for good.
func TestChildIsRestartedUntilStopped(t *testing.T) {
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
	eventually(t, "the child to be restarted", time.Minute, func() error {
		if c := g.list()[0]; c.PID == 0 || c.PID == first || c.Restarts != 1 || !strings.Contains(c.LastExit, "killed") {
			return fmt.Errorf("%+v", c)
		}
		return nil
	})
	second := g.list()[0].PID
	p.stop()
	if err := syscall.Kill(second, 0); !errors.Is(err, syscall.ESRCH) {
		t.Errorf("pid %d still exists after stop: %v", second, err)
	}
	if n := len(g.list()); n != 0 {
		t.Errorf("%d children are listed after stop", n)
	}
}

// The children of a supervisor that is killed die with it, even if the thread of
// the goroutine that started them has exited.
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
		return fmt.Errorf("pid %d still exists", child)
	})
}

// testSupervisor is the process that TestChildrenDieWithTheSupervisor kills: it starts a child, prints its pid and waits to be killed.
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
