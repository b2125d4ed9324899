// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package supervisor

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"syscall"
	"time"

	"github.com/nap-aks/nap/localazure/home"
)

// The restart delay starts at minDelay, doubles with each restart up to maxDelay,
// and is reset by a run longer than goodRun.
const (
	minDelay = 200 * time.Millisecond
	maxDelay = 10 * time.Second
	goodRun  = 30 * time.Second
)

// A component that was healthy once and then fails its probe for hungAfter is
// killed and restarted.
const (
	probeEvery = 5 * time.Second
	probeLimit = 5 * time.Second
	hungAfter  = 2 * time.Minute
)

// processSpec describes one child process.
type processSpec struct {
	name    string
	cluster string // name for people, empty when shared
	uid     string // of the cluster
	args    []string
	env     []string
	log     string
	port    int
	metrics int
	// dashboard is the port of a page for people; 0 if there is none.
	dashboard int
	// probe returns an error if the component is unhealthy; without a probe a
	// running component is ready.
	probe func(context.Context) error
	// grace is how long it may take to exit after SIGTERM.
	grace time.Duration
}

// process keeps one child process running until it is stopped.
type process struct {
	spec  processSpec
	group *processGroup
	log   *logFile

	cancel context.CancelFunc
	done   chan struct{}

	mu       sync.Mutex
	pid      int
	ready    bool
	restarts int
	started  time.Time
	lastExit string
	changed  chan struct{} // closed and replaced when ready or pid change
}

// processGroup is the set of a supervisor's child processes.
type processGroup struct {
	bin    string
	logger *slog.Logger
	// onChange is called, from any goroutine, when a pid or readiness changes.
	onChange func()

	starts chan startRequest
	mu     sync.Mutex
	all    map[*process]bool
}

type startRequest struct {
	cmd  *exec.Cmd
	done chan error
}

// newProcessGroup prepares to start children of the given binary. One thread that
// lives as long as the supervisor starts all of them: the kernel sends the parent
// death signal when the thread that started a child exits, so a pooled thread
// could kill healthy children.
func newProcessGroup(bin string, logger *slog.Logger, onChange func()) *processGroup {
	g := &processGroup{bin: bin, logger: logger, onChange: onChange, starts: make(chan startRequest), all: map[*process]bool{}}
	go func() {
		runtime.LockOSThread()
		for r := range g.starts {
			r.done <- r.cmd.Start()
		}
	}()
	return g
}

// start starts a child and restarts it until it is stopped.
func (g *processGroup) start(spec processSpec) (*process, error) {
	l, err := openLog(spec.log)
	if err != nil {
		return nil, fmt.Errorf("starting %s: %w", spec.name, err)
	}
	if spec.grace == 0 {
		spec.grace = 10 * time.Second
	}
	ctx, cancel := context.WithCancel(context.Background())
	p := &process{spec: spec, group: g, log: l, cancel: cancel, done: make(chan struct{}), changed: make(chan struct{})}
	g.mu.Lock()
	g.all[p] = true
	g.mu.Unlock()
	go p.loop(ctx)
	return p, nil
}

// list returns the state of all children.
func (g *processGroup) list() []home.ComponentInfo {
	g.mu.Lock()
	ps := make([]*process, 0, len(g.all))
	for p := range g.all {
		ps = append(ps, p)
	}
	g.mu.Unlock()
	out := make([]home.ComponentInfo, 0, len(ps))
	for _, p := range ps {
		p.mu.Lock()
		out = append(out, home.ComponentInfo{
			Name: p.spec.name, Cluster: p.spec.cluster, ClusterUID: p.spec.uid,
			PID: p.pid, Ready: p.ready, Restarts: p.restarts, StartedAt: p.started,
			Port: p.spec.port, MetricsPort: p.spec.metrics, DashboardPort: p.spec.dashboard, LogFile: p.spec.log, LastExit: p.lastExit,
		})
		p.mu.Unlock()
	}
	return out
}

// loop runs the child again and again until ctx ends.
func (p *process) loop(ctx context.Context) {
	defer close(p.done)
	delay := minDelay
	for {
		began := time.Now()
		how := p.run(ctx)
		p.set(func() { p.pid, p.ready, p.lastExit = 0, false, how })
		if ctx.Err() != nil {
			return
		}
		if time.Since(began) > goodRun {
			delay = minDelay
		}
		p.group.logger.Warn("component exited, restarting it", "component", p.spec.name, "cluster", p.spec.cluster,
			"exit", how, "ranFor", time.Since(began).Round(time.Millisecond), "delay", delay, "log", p.spec.log)
		select {
		case <-ctx.Done():
			return
		case <-time.After(delay):
		}
		delay = min(2*delay, maxDelay)
		p.set(func() { p.restarts++ })
	}
}

// run runs the child once and returns a description of its exit.
func (p *process) run(ctx context.Context) string {
	r, w, err := os.Pipe()
	if err != nil {
		return fmt.Sprintf("not started: %v", err)
	}
	cmd := exec.Command(p.group.bin, p.spec.args...)
	cmd.Env = append(os.Environ(), p.spec.env...)
	cmd.Stdout, cmd.Stderr = w, w
	// In its own process group, Ctrl-C in the terminal does not reach it: the
	// supervisor stops the children in order.
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	req := startRequest{cmd: cmd, done: make(chan error, 1)}
	p.group.starts <- req
	err = <-req.done
	_ = w.Close()
	if err != nil {
		_ = r.Close()
		return fmt.Sprintf("not started: %v", err)
	}
	copied := make(chan struct{})
	go func() {
		defer close(copied)
		_, _ = io.Copy(p.log, r)
		_ = r.Close()
	}()
	p.set(func() { p.pid, p.started, p.ready = cmd.Process.Pid, time.Now().UTC(), p.spec.probe == nil })

	exited := make(chan error, 1)
	go func() { exited <- cmd.Wait() }()
	stopProbe := make(chan struct{})
	go p.watch(cmd.Process, stopProbe)
	var end error
	select {
	case end = <-exited:
	case <-ctx.Done():
		_ = cmd.Process.Signal(syscall.SIGTERM)
		select {
		case end = <-exited:
		case <-time.After(p.spec.grace):
			_ = cmd.Process.Kill()
			end = <-exited
		}
	}
	close(stopProbe)
	select {
	case <-copied:
	case <-time.After(time.Second): // a grandchild still holds the pipe
	}
	if end == nil {
		return "exited with status 0"
	}
	return end.Error()
}

// watch probes the child until stop is closed, and kills one that was healthy
// once and has been unhealthy for hungAfter.
func (p *process) watch(proc *os.Process, stop <-chan struct{}) {
	if p.spec.probe == nil {
		return
	}
	lastGood := time.Time{}
	wait := 100 * time.Millisecond
	for {
		select {
		case <-stop:
			return
		case <-time.After(wait):
		}
		ctx, cancel := context.WithTimeout(context.Background(), probeLimit)
		err := p.spec.probe(ctx)
		cancel()
		select {
		case <-stop: // it exited during the probe, whose result says nothing of the next run
			return
		default:
		}
		switch {
		case err == nil:
			lastGood, wait = time.Now(), probeEvery
			p.set(func() { p.ready = true })
		case !lastGood.IsZero() && time.Since(lastGood) > hungAfter:
			p.group.logger.Error("component unhealthy, killing it", "component", p.spec.name, "cluster", p.spec.cluster,
				"pid", proc.Pid, "unhealthyFor", time.Since(lastGood).Round(time.Second), "error", err)
			_ = proc.Kill()
			return
		case !lastGood.IsZero():
			wait = time.Second
			if time.Since(lastGood) > 3*probeEvery {
				p.set(func() { p.ready = false })
			}
		default:
			wait = min(wait*3/2, time.Second)
		}
	}
}

// set changes the state under the lock and reports a change of pid, readiness or
// restarts.
func (p *process) set(change func()) {
	p.mu.Lock()
	pid, ready, restarts := p.pid, p.ready, p.restarts
	change()
	moved := pid != p.pid || ready != p.ready || restarts != p.restarts
	if moved {
		close(p.changed)
		p.changed = make(chan struct{})
	}
	p.mu.Unlock()
	if moved && p.group.onChange != nil {
		p.group.onChange()
	}
}

// isReady reports whether the child runs and passed its last probe.
func (p *process) isReady() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.ready
}

// state describes what the child is doing, for messages.
func (p *process) state() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.ready:
		return p.spec.name + " is ready"
	case p.pid != 0 && p.restarts == 0:
		return fmt.Sprintf("%s is starting (pid %d)", p.spec.name, p.pid)
	case p.lastExit != "":
		return fmt.Sprintf("%s exited %d times, last: %s; see %s", p.spec.name, p.restarts+1, p.lastExit, p.spec.log)
	default:
		return p.spec.name + " is starting"
	}
}

// waitReady waits until the child is ready. If ctx ends first, the error says what
// the child did instead and where its log is.
func (p *process) waitReady(ctx context.Context) error {
	for {
		p.mu.Lock()
		ready, changed := p.ready, p.changed
		p.mu.Unlock()
		if ready {
			return nil
		}
		select {
		case <-changed:
		case <-p.done:
			return fmt.Errorf("%s was stopped", p.spec.name)
		case <-ctx.Done():
			return fmt.Errorf("%s: %w", p.state(), context.Cause(ctx))
		}
	}
}

// stop ends the child for good, with SIGTERM, and SIGKILL after its grace period.
func (p *process) stop() {
	p.cancel()
	<-p.done
	_ = p.log.Close()
	p.group.mu.Lock()
	delete(p.group.all, p)
	p.group.mu.Unlock()
	if p.group.onChange != nil {
		p.group.onChange()
	}
}

// stopAll stops several children at the same time.
func stopAll(ps ...*process) {
	var wg sync.WaitGroup
	for _, p := range ps {
		if p != nil {
			wg.Go(p.stop)
		}
	}
	wg.Wait()
}

var errStopped = errors.New("stopped")
