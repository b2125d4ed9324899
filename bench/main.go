// Command bench measures nap's engine beside Karpenter's scheduler, both in this
// process and on the same objects, and prints one table:
//
//	go run ./bench                 the shapes that take minutes in all
//	go run ./bench -full           also Karpenter on the large ones (an hour)
//	go run ./bench -trace DIR      with the openb trace (openb_pod_list_default.csv)
//	go run ./bench -shapes mixed   shapes whose name matches
//
// It writes bench/RESULTS.md, with the machine, and bench/results.txt, which
// benchstat reads. What is measured:
//
//   - nap: engine.Place on a compiled-from-scratch snapshot (translation from
//     objects apart, as "read"); Karpenter: Scheduler.Solve (building the
//     scheduler apart, as "read").
//   - cost: list prices of the planned machines. Karpenter leaves the choice of
//     offering to the provider: its machines count with the cheapest one that
//     their requirements allow.
//   - left out: pods that got no place.
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
	"slices"
	"strings"
	"time"

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

// figures are what one engine did with a shape.
type figures struct {
	read, plan, warm  time.Duration
	allocs            uint64
	peak              uint64 // bytes
	machines, leftOut int
	usd, quickUSD     float64
	bound             float64
	quick             time.Duration
	note              string
}

func run() error {
	full := flag.Bool("full", false, "run Karpenter on the large shapes, too")
	trace := flag.String("trace", "", "directory with the openb trace (openb_pod_list_default.csv)")
	pattern := flag.String("shapes", ".", "regular expression over shape names")
	out := flag.String("out", "bench", "directory for RESULTS.md and results.txt; empty writes nothing")
	peerTimeout := flag.Duration("peer-timeout", 2*time.Minute, "time after which Karpenter's scheduler is stopped")
	noPeer := flag.Bool("no-peer", false, "leave Karpenter out")
	flag.Parse()
	want, err := regexp.Compile(*pattern)
	if err != nil {
		return fmt.Errorf("-shapes: %w", err)
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
	return writeFiles(*out, rows, *full, *trace)
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
	if r.nap, r.pods, err = nap(o, s); err != nil {
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

func nap(o *snapshot.Objects, s *shape) (*figures, int, error) {
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
	f.read = time.Since(start)
	opt := in.Options
	opt.Trace = engine.TraceNone

	var p *engine.Plan
	f.plan, f.allocs, f.peak, err = cost(func() error {
		p, err = engine.Place(in.Snapshot, opt)
		return err
	})
	if err != nil {
		return nil, 0, err
	}
	f.usd, f.quickUSD, f.machines = p.CostUSDPerHour, p.QuickCostUSDPerHour, len(p.Machines)
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
	if f.quick, _, _, err = cost(func() error {
		_, err := engine.Place(in.Snapshot, quick)
		return err
	}); err != nil {
		return nil, 0, err
	}
	if s.warm {
		c, err := engine.Compile(in.Snapshot)
		if err != nil {
			return nil, 0, err
		}
		var times []time.Duration
		for range 21 {
			start := time.Now()
			if _, err := c.Place(in.Snapshot.Pending, quick); err != nil {
				return nil, 0, err
			}
			times = append(times, time.Since(start))
		}
		slices.Sort(times)
		f.warm = times[len(times)/2]
	}
	return f, pods, nil
}

func karpenter(o *snapshot.Objects, timeout time.Duration) (*figures, error) {
	f := &figures{}
	var res *peer.Result
	var err error
	_, f.allocs, f.peak, _ = cost(func() error {
		// As many candidates side by side as there are processors, as Karpenter
		// does by its CPU request.
		res, err = peer.Schedule(context.Background(), o, peer.Options{Timeout: timeout, Threads: runtime.NumCPU()})
		return nil
	})
	if err != nil && !errors.Is(err, peer.ErrTimeout) {
		return nil, err
	}
	if err != nil {
		f.note = "stopped after " + timeout.String()
	}
	f.read, f.plan = res.Prepare, res.Solve
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

// cost runs f and returns the time it took, what it allocated (count), and the
// most memory in use above what was there before.
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
