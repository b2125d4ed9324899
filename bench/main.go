// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

// Command bench measures nap's engine and Karpenter's scheduler, both in this
// process and on the same objects, and prints one table:
//
//	go run ./bench                 all shapes that take minutes
//	go run ./bench -full           also Karpenter on the large ones (an hour)
//	go run ./bench -trace DIR      with the openb trace (openb_pod_list_default.csv)
//	go run ./bench -shapes mixed   shapes whose name matches
//
// It writes bench/RESULTS.md, with the machine, and bench/results.txt, which
// benchstat reads. It measures:
//
//   - plan: for nap engine.Place, including the compilation of the snapshot; for
//     Karpenter Scheduler.Solve alone.
//   - read: what each pass does before that. For nap, updating the snapshot after
//     one pod event; for Karpenter, copying the nodes, listing pods, counting
//     topology and building the scheduler.
//   - fill: filling the cluster cache once, as informers do.
//   - pass: a pass of a running controller after one pod was added and one was
//     removed: for nap read and the quick path from the compiled cluster, for
//     Karpenter read and plan.
//   - quick path: nap without the improving path and the bound, including the
//     compilation of the snapshot.
//   - cost: list prices of the planned machines. Karpenter leaves the choice of
//     the offering to the provider, so its machines count with the cheapest one
//     that their requirements allow.
//   - left out: pods without a place.
//   - Both engines run up to five times within two seconds; the best run counts.
//   - allocations and peak: of the planning alone.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math"
	"os"
	"regexp"
	"runtime"
	"runtime/pprof"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/nap-aks/nap/engine"
	"github.com/nap-aks/nap/internal/peer"
	"github.com/nap-aks/nap/snapshot"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// row is one line of the table.
type row struct {
	shape     *shape
	pods      int // to place
	nodes     int
	nap, karp *figures
	skip      string // why the shape was not measured
	peerSkip  string // why Karpenter was not
}

// figures are the results of one engine for a shape.
type figures struct {
	fill, read, plan  time.Duration
	warm              time.Duration
	allocs            uint64
	peak              uint64 // bytes
	machines, leftOut int
	usd, quickUSD     float64
	bound             float64
	quick             time.Duration
	quickMachines     int
	note              string
}

func run() error {
	full := flag.Bool("full", false, "also run Karpenter on the large shapes")
	trace := flag.String("trace", "", "directory with the openb trace (openb_pod_list_default.csv)")
	pattern := flag.String("shapes", ".", "regular expression over shape names")
	out := flag.String("out", "bench", "directory for RESULTS.md and results.txt; empty writes nothing")
	peerTimeout := flag.Duration("peer-timeout", 2*time.Minute, "stop Karpenter's scheduler after this time")
	note := flag.String("note", "", "a note for RESULTS.md")
	profile := flag.String("cpuprofile", "", "write a CPU profile to this file")
	allocations := flag.String("memprofile", "", "write a profile of all allocations to this file; slows the run")
	noPeer := flag.Bool("no-peer", false, "do not run Karpenter")
	flag.Parse()
	want, err := regexp.Compile(*pattern)
	if err != nil {
		return fmt.Errorf("-shapes: %w", err)
	}
	if *allocations != "" {
		runtime.MemProfileRate = 1
		defer func() {
			if f, err := os.Create(*allocations); err == nil {
				_ = pprof.Lookup("allocs").WriteTo(f, 0)
				_ = f.Close()
			}
		}()
	}
	if *profile != "" {
		f, err := os.Create(*profile)
		if err != nil {
			return fmt.Errorf("-cpuprofile: %w", err)
		}
		defer f.Close()
		if err := pprof.StartCPUProfile(f); err != nil {
			return fmt.Errorf("-cpuprofile: %w", err)
		}
		defer pprof.StopCPUProfile()
	}
	var rows []row
	for _, s := range shapes(*trace) {
		if !want.MatchString(s.name) {
			continue
		}
		fmt.Fprintf(os.Stderr, "%s … ", s.name)
		start := time.Now()
		r, err := measure(s, *full, *noPeer, *peerTimeout)
		if err != nil {
			return fmt.Errorf("shape %s: %w", s.name, err)
		}
		rows = append(rows, r)
		fmt.Fprintln(os.Stderr, time.Since(start).Round(time.Millisecond))
	}
	fmt.Println()
	writeTable(os.Stdout, rows)
	if *out == "" {
		return nil
	}
	return writeFiles(*out, rows, *full, *trace, *note)
}

func measure(s *shape, full, noPeer bool, peerTimeout time.Duration) (row, error) {
	r := row{shape: s}
	if s.absent != "" {
		r.skip = s.absent
		return r, nil
	}
	o, err := s.make()
	if err != nil {
		return r, err
	}
	r.nodes = len(o.Nodes)
	if r.nap, r.pods, err = nap(o); err != nil {
		return r, err
	}
	switch {
	case noPeer:
		r.peerSkip = "-no-peer"
	case s.large && !full:
		r.peerSkip = "-full"
	default:
		if r.karp, err = karpenter(o, peerTimeout); err != nil {
			return r, err
		}
	}
	return r, nil
}

func nap(o *snapshot.Objects) (*figures, int, error) {
	f := &figures{}
	start := time.Now()
	cache, err := snapshot.Load(o)
	if err != nil {
		return nil, 0, err
	}
	in, err := cache.Snapshot(o.Now)
	if err != nil {
		return nil, 0, err
	}
	f.fill = time.Since(start)
	opt := in.Options
	opt.Trace = engine.TraceNone

	var p *engine.Plan
	err = best(func() (time.Duration, error) {
		took, allocs, peak, err := cost(func() error {
			p, err = engine.Place(in.Snapshot, opt)
			return err
		})
		if f.plan == 0 || took < f.plan {
			f.plan, f.allocs, f.peak = took, allocs, peak
		}
		return took, err
	})
	if err != nil {
		return nil, 0, err
	}
	f.usd, f.machines = p.CostUSDPerHour, len(p.Machines)
	if p.Bound != nil {
		f.bound = p.Bound.USDPerHour
	}
	pods := len(in.Invalid)
	f.leftOut = len(in.Invalid)
	for i := range p.Verdicts {
		n := len(p.Verdicts[i].Pods)
		pods += n
		if out := p.Verdicts[i].Outcome; out != engine.OnNode && out != engine.OnMachine {
			f.leftOut += n
		}
	}
	quick := opt
	quick.Work, quick.SkipBound = engine.WorkQuick, true
	if err := best(func() (time.Duration, error) {
		took, _, _, err := cost(func() error {
			p, err := engine.Place(in.Snapshot, quick)
			if err == nil {
				f.quickUSD, f.quickMachines = p.CostUSDPerHour, len(p.Machines)
			}
			return err
		})
		if f.quick == 0 || took < f.quick {
			f.quick = took
		}
		return took, err
	}); err != nil {
		return nil, 0, err
	}
	if f.read, f.warm, err = warm(cache, o, quick); err != nil {
		return nil, 0, err
	}
	return f, pods, nil
}

// warm measures a pass of a controller that follows the cluster: one pod was added
// and one removed, the snapshot is updated (read), and the quick path plans from
// the compiled cluster (all is both together). The figures are medians.
func warm(cache *snapshot.Cache, o *snapshot.Objects, opt engine.Options) (read, all time.Duration, err error) {
	var pending *corev1.Pod
	for _, p := range o.Pods {
		if p.Spec.NodeName == "" {
			pending = p
			break
		}
	}
	var reads, alls []time.Duration
	var sum time.Duration
	for i := range 12 {
		more := pending.DeepCopy()
		more.Name, more.UID = fmt.Sprintf("one-more-%d", i%2), ""
		gone := pending.DeepCopy()
		gone.Name = fmt.Sprintf("one-more-%d", (i+1)%2)
		start := time.Now()
		if err := cache.Upsert(more); err != nil {
			return 0, 0, fmt.Errorf("adding pod %s: %w", more.Name, err)
		}
		if err := cache.Delete(gone); err != nil {
			return 0, 0, fmt.Errorf("removing pod %s: %w", gone.Name, err)
		}
		in, err := cache.Snapshot(o.Now)
		if err != nil {
			return 0, 0, err
		}
		reads = append(reads, time.Since(start))
		if _, err := cache.Place(in, opt); err != nil {
			return 0, 0, err
		}
		alls = append(alls, time.Since(start))
		if sum += alls[i]; i >= 4 && sum > 4*time.Second {
			break
		}
	}
	// The first two compile and warm up.
	reads, alls = reads[2:], alls[2:]
	slices.Sort(reads)
	slices.Sort(alls)
	return reads[len(reads)/2], alls[len(alls)/2], nil
}

func karpenter(o *snapshot.Objects, timeout time.Duration) (*figures, error) {
	f := &figures{}
	var res *peer.Result
	var err error
	_ = best(func() (time.Duration, error) { // it returns err
		var got *peer.Result
		took, allocs, peak, _ := cost(func() error {
			// As many candidates in parallel as there are processors: Karpenter derives
			// the number from its CPU request.
			got, err = peer.Schedule(context.Background(), o, peer.Options{Timeout: timeout, Threads: runtime.NumCPU()})
			return nil
		})
		if got != nil && (res == nil || got.Solve < res.Solve) {
			res, f.allocs, f.peak = got, allocs, peak
		}
		return took, err
	})
	if err != nil && !errors.Is(err, peer.ErrTimeout) {
		return nil, err
	}
	if err != nil {
		f.note = "stopped after " + timeout.String()
	}
	f.fill, f.read, f.plan = res.Fill, res.Prepare, res.Solve
	placed := 0
	for _, m := range res.Machines() {
		f.machines++
		f.usd += m.USDPerHour
		placed += len(m.Claim.Pods)
	}
	for _, n := range res.ExistingNodes {
		placed += len(n.Pods)
	}
	f.leftOut = res.Pods - placed
	return f, nil
}

// best runs f, which keeps its best figures, up to five times within two seconds,
// as other processes disturb short runs most.
func best(f func() (time.Duration, error)) error {
	var sum time.Duration
	for i := 0; i < 5 && sum < 2*time.Second; i++ {
		took, err := f()
		if err != nil {
			return err
		}
		sum += took
	}
	return nil
}

// cost runs f and returns the time it took, the number of its allocations and its
// peak memory beyond what was in use before.
func cost(f func() error) (time.Duration, uint64, uint64, error) {
	runtime.GC()
	var before, after, now runtime.MemStats
	runtime.ReadMemStats(&before)
	peak := before.HeapAlloc
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-stop:
				return
			case <-tick.C:
				runtime.ReadMemStats(&now)
				peak = max(peak, now.HeapAlloc)
			}
		}
	}()
	start := time.Now()
	err := f()
	took := time.Since(start)
	close(stop)
	<-done
	runtime.ReadMemStats(&after)
	peak = max(peak, after.HeapAlloc)
	return took, after.Mallocs - before.Mallocs, peak - before.HeapAlloc, err
}

func perSecond(pods int, t time.Duration) string {
	if t <= 0 {
		return "-"
	}
	v := float64(pods) / t.Seconds()
	switch {
	case v >= 1e6:
		return fmt.Sprintf("%.1fM", v/1e6)
	case v >= 1e4:
		return fmt.Sprintf("%.0fk", v/1e3)
	}
	return fmt.Sprintf("%.0f", v)
}

func ratio(a, b float64) float64 {
	if b == 0 {
		return math.NaN()
	}
	return a / b
}

func machineName() string {
	model := "unknown processor"
	if data, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.SplitSeq(string(data), "\n") {
			if k, v, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(k) == "model name" {
				model = strings.TrimSpace(v)
				break
			}
		}
	}
	memory := ""
	if data, err := os.ReadFile("/proc/meminfo"); err == nil {
		var kb int
		if _, err := fmt.Sscanf(string(data), "MemTotal: %d kB", &kb); err == nil {
			memory = fmt.Sprintf(", %d GiB memory", kb>>20)
		}
	}
	return fmt.Sprintf("%s, %d cores%s, %s/%s, %s", model, runtime.NumCPU(), memory, runtime.GOOS, runtime.GOARCH, runtime.Version())
}
