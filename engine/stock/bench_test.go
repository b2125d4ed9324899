// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package stock

import (
	"fmt"
	"testing"
)

// few returns a scale-up of ten pods of three kinds.
func few() []Item {
	return []Item{
		{Size: []int64{500, 1 << 30, 1, 0}, Count: 5},
		{Size: []int64{2000, 4 << 30, 1, 0}, Count: 3, MaxPerBin: 1},
		{Size: []int64{250, 3 << 30, 1, 0}, Count: 2},
	}
}

func BenchmarkStock(b *testing.B) {
	for _, c := range []struct {
		name  string
		items func() []Item
		work  int64
	}{
		{"pods=10/quick", few, WorkQuick},
		{"pods=10/default", few, WorkDefault},
		{"deployments=500/quick", deployments, WorkQuick},
		{"deployments=500/default", deployments, WorkDefault},
		{"openb-cpu/quick", func() []Item { return openb(b, false) }, WorkQuick},
		{"openb-cpu/default", func() []Item { return openb(b, false) }, WorkDefault},
		{"openb-gpu/quick", func() []Item { return openb(b, true) }, WorkQuick},
	} {
		b.Run(c.name, func(b *testing.B) {
			keep := family()
			if c.name[:6] == "openb-" {
				keep = family("D", "E", "F")
				if c.name[6] == 'g' {
					keep = withGPUs
				}
			}
			p := &Problem{Items: c.items(), Bins: sizes(b, keep)}
			b.ReportAllocs()
			var s *Solution
			for b.Loop() {
				s = Solve(p, Options{Work: c.work})
			}
			b.ReportMetric(s.Cost, "USD/h")
			b.ReportMetric(100*(s.Cost/s.Bound-1), "%gap")
		})
	}
}

func ExampleSolve() {
	s := Solve(&Problem{
		Items: []Item{{Size: []int64{3}, Count: 4}, {Size: []int64{2}, Count: 2}},
		Bins:  []Bin{{Capacity: []int64{4}, Price: 1}, {Capacity: []int64{8}, Price: 1.5}},
	}, Options{})
	for _, p := range s.Patterns {
		fmt.Println(p.Times, "of bin", p.Bin, "with", p.Counts, "of items", p.Items)
	}
	fmt.Printf("%.2f, at least %.2f\n", s.Cost, s.Bound)
	// Output:
	// 2 of bin 1 with [2 1] of items [0 1]
	// 3.00, at least 3.00
}
