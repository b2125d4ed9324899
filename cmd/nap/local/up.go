// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package local

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/nap-aks/nap/controllers"
	"github.com/nap-aks/nap/internal/version"
	"github.com/nap-aks/nap/localazure/etcd"
	"github.com/nap-aks/nap/localazure/example"
	"github.com/nap-aks/nap/localazure/home"
	"github.com/nap-aks/nap/localazure/supervisor"
	"github.com/nap-aks/nap/localazure/view"
)

// supervisorComponent is the process that nap up --detach starts.
const supervisorComponent = "supervisor"

type upFlags struct {
	detach, noExample bool
	location, engine  string
	bootTime          time.Duration
	etcd              home.EtcdClient
}

// supervisorFlags defines the flags that a supervisor in the background has too.
func (f *upFlags) supervisorFlags(fs *pflag.FlagSet) {
	fs.StringVar(&f.location, "location", "", "region of the examples (default: that of the last run, else eastus)")
	fs.DurationVar(&f.bootTime, "boot-time", 0, "mean boot time of machines (default 1.5s)")
	fs.StringVar(&f.engine, "engine", "", "what decides which machines to buy: nap or karpenter (default: nap)")
	fs.StringSliceVar(&f.etcd.Endpoints, "etcd-endpoints", nil, "https URLs of your own etcd for the state, in place of the one in the home folder (default: as in the last run)")
	fs.StringVar(&f.etcd.CAFile, "etcd-cafile", "", "CA file of that etcd")
	fs.StringVar(&f.etcd.CertFile, "etcd-certfile", "", "client certificate for that etcd")
	fs.StringVar(&f.etcd.KeyFile, "etcd-keyfile", "", "key of the client certificate")
}

// supervisorArgs returns the flags as arguments for a supervisor in the background.
func (f *upFlags) supervisorArgs() []string {
	return []string{"--location", f.location, "--boot-time", f.bootTime.String(), "--engine", f.engine, "--etcd-endpoints", strings.Join(f.etcd.Endpoints, ","),
		"--etcd-cafile", f.etcd.CAFile, "--etcd-certfile", f.etcd.CertFile, "--etcd-keyfile", f.etcd.KeyFile}
}

func (f *upFlags) options(h home.Home, log *slog.Logger) supervisor.Options {
	return supervisor.Options{Home: h, Version: version.Get().Version, Location: f.location, BootTime: f.bootTime, Engine: f.engine, Etcd: f.etcd, Logger: log}
}

func upCommand() *cobra.Command {
	var f upFlags
	cmd := &cobra.Command{
		Use:   "up",
		Short: "Start the local Azure, with an example cluster the first time",
		Long: `Up starts the instance of the home folder and stays in the foreground with a live
status line. Ctrl-C stops everything; the state is kept. The first run also
creates an example through ARM, as any client would: a resource group, the template
examples/nap.json (a cluster with node auto-provisioning) and the shop of
examples/shop.yaml, about 200 pods for which machines are bought.`,
		Example: `  nap up                        # in the foreground
  nap up --detach               # in the background; nap status, nap logs, nap down
  nap up --no-example           # only Azure, no cluster
  nap up --boot-time 60s        # machines that boot as slowly as real ones
  nap up --home /tmp/other      # a second instance beside the first
  nap up --etcd-endpoints https://10.0.0.5:2379 \
    --etcd-cafile ca.crt --etcd-certfile nap.crt --etcd-keyfile nap.key
                                # the state in your own etcd`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return runUp(cmd.Context(), f) },
	}
	cmd.Flags().BoolVarP(&f.detach, "detach", "d", false, "run in the background; return when the instance is ready")
	cmd.Flags().BoolVar(&f.noExample, "no-example", false, "do not create the example cluster")
	f.supervisorFlags(cmd.Flags())
	return cmd
}

func runUp(parent context.Context, f upFlags) error {
	if parent == nil {
		parent = context.Background()
	}
	ctx, stop := signal.NotifyContext(parent, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	switch f.engine {
	case "", controllers.EngineNAP, controllers.EngineKarpenter:
	default:
		return fmt.Errorf("--engine %s is not supported: use %s or %s", f.engine, controllers.EngineNAP, controllers.EngineKarpenter)
	}
	if e := f.etcd; len(e.Endpoints) > 0 || e.CAFile+e.CertFile+e.KeyFile != "" {
		if err := f.etcd.Check(); err != nil {
			return err
		}
	}
	h, err := openHome()
	if err != nil {
		return err
	}
	p := newProgress(os.Stdout)
	began := time.Now()
	var inst home.Instance
	var ended <-chan error // receives the supervisor's result if it runs in this process
	fresh := !example.Done(h)
	if info, lockErr := home.ReadLock(h); lockErr == nil {
		if inst, err = home.ReadInstance(h); err != nil {
			return err
		}
		if !f.detach {
			p.Done(nil)
			return &home.LockedError{Home: h, LockInfo: info}
		}
		p.Line(fmt.Sprintf("already running in %s (pid %d)", h.Dir, info.PID))
	} else if f.detach {
		if inst, err = startDetached(ctx, h, f, p); err != nil {
			p.Done(err)
			return err
		}
	} else {
		supCtx, cancel := context.WithCancel(context.Background())
		defer cancel()
		if inst, ended, err = startHere(ctx, supCtx, h, f, p); err != nil {
			p.Done(err)
			return err
		}
		defer func() {
			fmt.Println("\nstopping; the state is kept for the next `nap up`")
			cancel()
			if err := <-ended; err != nil {
				fmt.Fprintln(os.Stderr, "stopping:", err)
			}
		}()
	}
	err = waitClusters(ctx, inst, p)
	switch {
	case err != nil || f.noExample:
	case fresh:
		err = example.Run(ctx, h, inst, p)
	default:
		err = example.Resume(ctx, inst, p)
	}
	p.Done(err)
	if ctx.Err() != nil {
		if f.detach {
			fmt.Println("interrupted; the instance keeps running in the background: `nap status`, `nap down`")
		}
		return nil
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "nap: creating the example: %v\n", err)
		if f.detach {
			return errors.New("the instance is running but its example is not complete; `nap up --detach` tries again, `nap logs` shows details")
		}
	}
	summary(ctx, os.Stdout, inst, fresh && !f.noExample && err == nil, time.Since(began))
	if f.detach {
		fmt.Println("running in the background: `nap status`, `nap logs -f`, `nap down`")
		return nil
	}
	return stay(ctx, inst, ended, p)
}

// startHere runs the supervisor in this process and waits until it is ready.
func startHere(ctx, supCtx context.Context, h home.Home, f upFlags, p *progress) (home.Instance, <-chan error, error) {
	lock, err := home.TakeLock(h)
	if err != nil {
		return home.Instance{}, nil, err
	}
	logger, closeLog, err := supervisorLog(h, p)
	if err != nil {
		lock.Release()
		return home.Instance{}, nil, err
	}
	started := make(chan home.Instance, 1)
	done := make(chan error, 1)
	failed := make(chan error, 1)
	supCtx, cancel := context.WithCancel(supCtx)
	go func() {
		o := f.options(h, logger)
		o.Step, o.Started = p.Step, func(i home.Instance) { started <- i }
		err := supervisor.Supervise(supCtx, o)
		lock.Release()
		closeLog()
		cancel()
		failed <- err
		done <- err
	}()
	select {
	case i := <-started:
		return i, done, nil
	case err := <-failed:
		if err == nil {
			err = errors.New("stopped before the instance was ready")
		}
		return home.Instance{}, nil, err
	case <-ctx.Done():
		cancel()
		return home.Instance{}, nil, errors.Join(errors.New("interrupted before the instance was ready"), <-done)
	}
}

// supervisorLog returns a logger that writes to the supervisor's log file, and
// warnings and errors to the screen too.
func supervisorLog(h home.Home, p *progress) (*slog.Logger, func(), error) {
	f, err := os.OpenFile(h.LogFile("nap", ""), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, nil, fmt.Errorf("opening the supervisor's log: %w", err)
	}
	logger := slog.New(&teeHandler{Handler: slog.NewJSONHandler(f, nil), p: p})
	return logger, func() { _ = f.Close() }, nil
}

// teeHandler also shows warnings and errors on the screen.
type teeHandler struct {
	slog.Handler
	p *progress
}

func (t *teeHandler) Handle(ctx context.Context, r slog.Record) error {
	if r.Level >= slog.LevelWarn && t.p != nil {
		var b strings.Builder
		b.WriteString(r.Message)
		r.Attrs(func(a slog.Attr) bool {
			if a.Value.String() != "" {
				fmt.Fprintf(&b, "  %s=%s", a.Key, a.Value)
			}
			return true
		})
		t.p.Line("! " + b.String())
	}
	return t.Handler.Handle(ctx, r)
}

// startDetached starts a supervisor in a new session and waits until it is ready.
func startDetached(ctx context.Context, h home.Home, f upFlags, p *progress) (home.Instance, error) {
	bin, err := os.Executable()
	if err != nil {
		return home.Instance{}, fmt.Errorf("finding the path of this program: %w", err)
	}
	out, err := os.OpenFile(h.LogFile("nap", ""), os.O_CREATE|os.O_APPEND|os.O_RDWR, 0o600)
	if err != nil {
		return home.Instance{}, fmt.Errorf("opening the supervisor's log: %w", err)
	}
	defer func() { _ = out.Close() }()
	from, err := out.Seek(0, io.SeekEnd)
	if err != nil {
		return home.Instance{}, fmt.Errorf("opening the supervisor's log: %w", err)
	}
	p.Step("starting in the background")
	cmd := exec.Command(bin, append([]string{"component", supervisorComponent, "--home", h.Dir}, f.supervisorArgs()...)...)
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return home.Instance{}, fmt.Errorf("starting in the background: %w", err)
	}
	exited := make(chan error, 1)
	go func() { exited <- cmd.Wait() }()
	for {
		if i, err := home.ReadInstance(h); err == nil && i.PID == cmd.Process.Pid && i.Ready {
			return i, nil
		}
		select {
		case err := <-exited:
			b := make([]byte, 2000)
			n, _ := out.ReadAt(b, from)
			return home.Instance{}, fmt.Errorf("the instance exited while starting (%w):\n%s", err, strings.TrimSpace(string(b[:n])))
		case <-ctx.Done():
			_ = cmd.Process.Signal(syscall.SIGTERM)
			return home.Instance{}, errors.New("interrupted before the instance was ready; it is stopping")
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// componentCommand returns the hidden command for the processes of an instance.
// Only the supervisor uses it; RunComponent runs the others.
func componentCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "component NAME", Hidden: true, Short: "Run one process of an instance; used by nap up"}
	var f upFlags
	sup := &cobra.Command{
		Use:  supervisorComponent,
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
			defer stop()
			h, err := openHome()
			if err != nil {
				return err
			}
			lock, err := home.TakeLock(h)
			if err != nil {
				return err
			}
			defer lock.Release()
			return supervisor.Supervise(ctx, f.options(h, slog.New(slog.NewJSONHandler(os.Stderr, nil))))
		},
	}
	f.supervisorFlags(sup.Flags())
	cmd.AddCommand(sup)
	return cmd
}

// stay shows a live status line until ctx ends.
func stay(ctx context.Context, i home.Instance, ended <-chan error, p *progress) error {
	c, err := etcd.Dial(i.Etcd)
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }()
	p.Line("Ctrl-C stops the instance (the state is kept).")
	for {
		select {
		case <-ctx.Done():
			p.Live("")
			return nil
		case err := <-ended:
			return fmt.Errorf("the instance exited: %w", err)
		case <-time.After(2 * time.Second):
		}
		if !p.tty {
			continue
		}
		readCtx, cancel := context.WithTimeout(ctx, 2*time.Second)
		clusters, err := view.Read(readCtx, c, true)
		cancel()
		switch {
		case ctx.Err() != nil:
		case err != nil:
			p.Live(time.Now().Format("15:04:05") + "  etcd is not responding; `nap status` shows the processes")
		default:
			p.Live(statusLine(clusters))
		}
	}
}

// waitClusters waits until the control planes of an earlier run are ready again.
func waitClusters(ctx context.Context, i home.Instance, p *progress) error {
	c, err := etcd.Dial(i.Etcd)
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }()
	stepped := false
	deadline := time.Now().Add(3 * time.Minute)
	for {
		readCtx, cancel := context.WithTimeout(ctx, 5*time.Second)
		clusters, err := view.Read(readCtx, c, false)
		cancel()
		var waiting []string
		for _, cl := range clusters {
			if cl.Phase == "Starting" || cl.UpdatedAt.Before(i.StartedAt) {
				waiting = append(waiting, strings.TrimSpace(cl.Name+" "+cl.Message))
			}
		}
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err == nil && len(waiting) == 0:
			return nil
		case time.Now().After(deadline):
			p.Line("still not ready: " + strings.Join(waiting, ", ") + "; `nap status` and `nap logs` show details")
			return err
		}
		if !stepped {
			p.Step("clusters of the last run")
			stepped = true
		}
		p.Update(strings.Join(waiting, ", "))
		time.Sleep(150 * time.Millisecond)
	}
}

func statusLine(clusters []view.Cluster) string {
	var parts []string
	for _, cl := range clusters {
		nap := 0
		for _, m := range cl.Machines {
			if m.Provisioned() {
				nap++
			}
		}
		s := fmt.Sprintf("%s %s: %d machines (%d provisioned) $%.2f/h", cl.Name, cl.Phase, len(cl.Machines), nap, cl.USDPerHour)
		if cl.Pods != nil {
			s += fmt.Sprintf(", %d pods running, %d pending", cl.Pods.Running, cl.Pods.Pending)
		}
		parts = append(parts, s)
	}
	if len(parts) == 0 {
		return time.Now().Format("15:04:05") + "  no clusters yet: `az aks create`, or a template"
	}
	return time.Now().Format("15:04:05") + "  " + strings.Join(parts, " · ")
}
