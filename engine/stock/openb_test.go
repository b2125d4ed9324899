// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package stock

import (
	"encoding/csv"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/nap-aks/nap/catalog"
)

// openb reads the tasks of the openb trace by shape: all of them, with whole GPUs,
// or only those without GPUs.
func openb(tb testing.TB, gpus bool) []Item {
	tb.Helper()
	dir := os.Getenv("NAP_TRACES")
	if dir == "" {
		tb.Skip("NAP_TRACES does not name the directory of the openb trace (openb_pod_list_default.csv): not measured")
	}
	f, err := os.Open(filepath.Join(dir, "openb_pod_list_default.csv"))
	if err != nil {
		tb.Fatalf("open trace: %v", err)
	}
	defer f.Close()
	rows, err := csv.NewReader(f).ReadAll()
	if err != nil {
		tb.Fatalf("read trace: %v", err)
	}
	type shape [3]int64
	at := map[shape]int{}
	var items []Item
	for _, r := range rows[1:] {
		var s shape
		for k := range s {
			if s[k], err = strconv.ParseInt(r[1+k], 10, 64); err != nil {
				tb.Fatalf("trace row %v: %v", r, err)
			}
		}
		if s[2] > 0 && !gpus {
			continue
		}
		i, ok := at[s]
		if !ok {
			i = len(items)
			at[s] = i
			items = append(items, Item{Size: []int64{s[0], s[1] << 20, 1, s[2]}})
		}
		items[i].Count++
	}
	return items
}

// sizes returns the AKS node sizes of some families in eastus, on demand, as bins:
// CPU in millicores, memory in bytes, pods, GPUs.
func sizes(tb testing.TB, keep func(catalog.Size) bool) []Bin {
	tb.Helper()
	all, err := catalog.Sizes("eastus")
	if err != nil {
		tb.Fatal(err)
	}
	var bins []Bin
	for _, s := range all {
		if !s.HasPrice || !keep(s) {
			continue
		}
		cpu, mem := catalog.AKSReserved(s.VCPUsAvailable, s.MemoryGiB)
		c := int64(s.VCPUsAvailable)*1000 - cpu
		m := catalog.CapacityMemoryBytes(s.MemoryGiB) - (mem+catalog.EvictionMemoryMiB)<<20
		if c <= 0 || m <= 0 {
			continue
		}
		bins = append(bins, Bin{Capacity: []int64{c, m, 250, int64(s.GPUs)}, Price: s.OnDemandUSDPerHour})
	}
	return bins
}

func family(names ...string) func(catalog.Size) bool {
	return func(s catalog.Size) bool {
		return s.Arch == "amd64" && s.GPUs == 0 && (len(names) == 0 || slices.Contains(names, s.Family))
	}
}

// withGPUs selects every size that AKS can use, including those with GPUs.
func withGPUs(s catalog.Size) bool {
	return s.Arch == "amd64" && (s.GPUs == 0 || s.GPURegistered)
}

func TestOpenB(t *testing.T) {
	for _, c := range []struct {
		name      string
		gpus      bool
		keep      func(catalog.Size) bool
		karpenter float64 // $/h of Karpenter v1.15 on the same input
		below     float64 // the share of it that is asked for
		gap       float64
	}{
		{"cpu/D", false, family("D"), 1028, 0.88, 0.03},
		{"cpu/DEF", false, family("D", "E", "F"), 1083, 0.85, 0.03},
		{"cpu/all", false, family(), 2600, 0.35, 0.03},
		{"gpu/all", true, withGPUs, math.Inf(1), 1, 0.06},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := &Problem{Items: openb(t, c.gpus), Bins: sizes(t, c.keep)}
			start := cpuTime()
			q := quick(p)
			quick := cpuTime() - start
			start = cpuTime()
			s := Solve(p, Options{})
			full := cpuTime() - start
			for _, x := range []*Solution{q, s} {
				if err := x.Check(p); err != nil {
					t.Fatal(err)
				}
			}
			n := 0
			for _, x := range s.Patterns {
				n += x.Times
			}
			t.Logf("%d items, %d bins (%d kept): quick %.2f $/h in %v; solve %.2f $/h (%d machines) in %v, work %d; bounds %.2f resource, %.2f pattern; gap %.2f%%, quick %.2f%%; unplaceable %v",
				len(p.Items), len(p.Bins), len(prepare(p).price), q.Cost, quick, s.Cost, n, full, s.Work, s.ResourceBound, s.PatternBound,
				100*(s.Cost/s.Bound-1), 100*(q.Cost/s.Bound-1), s.Unplaceable)
			if q.Cost >= c.karpenter {
				t.Errorf("quick costs %.2f $/h, Karpenter %.2f", q.Cost, c.karpenter)
			}
			if s.Cost > c.karpenter*c.below {
				t.Errorf("costs %.2f $/h, should be at most %.2f", s.Cost, c.karpenter*c.below)
			}
			if s.Cost > s.Bound*(1+c.gap) {
				t.Errorf("costs %.2f $/h, more than %.0f%% above the bound %.2f", s.Cost, 100*c.gap, s.Bound)
			}
		})
	}
}

// deployments returns 500 items of 200 pods.
func deployments() []Item {
	r := rng(7)
	var items []Item
	for range 500 {
		cpu := int64(50) << r.below(7) // 50m to 3200m
		cpu += int64(r.below(int(cpu)/50)+1) * 50
		mem := cpu * int64(1+r.below(8)) << 20
		items = append(items, Item{Size: []int64{cpu, mem, 1, 0}, Count: 200})
	}
	return items
}

func TestManyDeployments(t *testing.T) {
	p := &Problem{Items: deployments(), Bins: sizes(t, family())}
	start := cpuTime()
	q := quick(p)
	quick := cpuTime() - start
	start = cpuTime()
	s := Solve(p, Options{})
	full := cpuTime() - start
	for _, x := range []*Solution{q, s} {
		if err := x.Check(p); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("%d items, %d bins: quick %.2f $/h in %v, work %d; solve %.2f $/h in %v, work %d; bounds %.2f resource, %.2f pattern; gap %.2f%%, quick %.2f%%",
		len(p.Items), len(p.Bins), q.Cost, quick, q.Work, s.Cost, full, s.Work, s.ResourceBound, s.PatternBound, 100*(s.Cost/s.Bound-1), 100*(q.Cost/s.Bound-1))
	if s.Cost > s.Bound*1.02 {
		t.Errorf("costs %.2f $/h, more than 2%% above the bound %.2f", s.Cost, s.Bound)
	}
}

// cpuTime returns the CPU time of this process, which does not depend on other
// processes.
func cpuTime() time.Duration {
	var r syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &r); err != nil {
		panic(err)
	}
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}
