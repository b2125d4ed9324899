// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"slices"

	"github.com/nap-aks/nap/engine/stock"
)

// The improving path takes the pods that the quick path put on new machines and
// chooses the machines again, all together, as a cutting stock problem (package
// stock). Pods stay in their domains, so topology rules over zones and the like
// still hold; rules within a machine are checked again for each new machine.

// Limits of the improving path under WorkDefault.
const (
	improveMinPods   = 32   // fewer pods: the quick path is as good
	improveFewPods   = 200  // fewer pods: some 20 milliseconds
	improveFewItems  = 120  // up to here the whole budget
	improveMaxItems  = 2000 // above: only the quick path
	improveTrim      = 8    // surplus machines that trim removes
	improveWork      = 600_000
	improveBoundWork = 160_000 // at least, for the bound
	improveManyWork  = 150_000 // for many items or rules that keep pods apart, plus some per pod …
	improveMostWork  = 400_000 // … up to this
)

// improvePerPod returns the most work for a number of pods. A pass with few pods
// takes some 20 milliseconds.
func improvePerPod(pods int) int64 {
	if pods < improveFewPods {
		return 20 * int64(pods)
	}
	return 200 * int64(pods-improveFewPods*9/10)
}

// improve chooses the machines of the quick path again and proves a bound.
func (ps *pass) improve() {
	if ps.opt.Work == WorkQuick && ps.opt.SkipBound {
		return
	}
	var old, keep []*plannedMachine
	pods := 0
	for _, m := range ps.machines {
		if len(m.pods) == 0 {
			continue
		}
		if m.frozen() {
			keep = append(keep, m)
			continue
		}
		old = append(old, m)
		for i := range m.pods {
			pods += m.pods[i].n
		}
	}
	if len(old)+len(keep) == 0 {
		if !ps.opt.SkipBound {
			ps.bound = &CostBound{Kind: "resource"}
		}
		return
	}
	every := append(slices.Clone(old), keep...)
	all, apart := ps.items(every, false)
	work := ps.opt.Work
	if work == WorkDefault {
		switch {
		case pods < improveMinPods || len(all) > improveMaxItems:
			work = WorkQuick
		case len(all) > improveFewItems || len(apart) > 0:
			work = min(improveManyWork+3*int64(pods), improveMostWork, improvePerPod(pods))
		default:
			work = min(improveWork, improvePerPod(pods))
		}
	}
	same := len(keep) == 0 && len(ps.cat.tiers) == 1 && ps.ledger.unlimited() && !slices.ContainsFunc(all, func(it *item) bool { return len(it.pins) > 0 })
	// The relaxed problem, in which pods may go to any domain, proves the bound. Its
	// fillings, put into the domains, are where the purchase starts.
	var relaxed *relaxedPurchase
	if work >= 0 && !same && (!ps.opt.SkipBound || len(apart) > 0) {
		most := max(1, work/3)
		switch {
		case ps.opt.Work != WorkDefault:
		case pods < improveFewPods:
			most = stock.WorkQuick
		default:
			most = max(most, min(improveBoundWork, improvePerPod(pods)))
		}
		relaxed = ps.relax(every, most)
		ps.setBound(relaxed.sol)
	}
	if work >= 0 && len(old) > 0 {
		items := all
		if len(keep) > 0 {
			items, apart = ps.items(old, false)
		}
		before := 0.0
		for _, m := range old {
			before += m.price()
		}
		for _, m := range old {
			ps.ledger.refund(m.col)
		}
		prob, bins := ps.problem(items, apart, false)
		for _, m := range old {
			ps.ledger.draw(m.col)
		}
		o := stock.Options{Work: work, Aim: stock.AimCost}
		if same && !ps.opt.SkipBound {
			o.Aim = stock.AimBoth
		}
		if relaxed != nil && len(apart) > 0 {
			o.Seeds = relaxed.seeds(ps, prob, items, bins)
		}
		sol := stock.Solve(prob, o)
		ps.work += sol.Work
		if len(sol.Unplaceable) == 0 && sol.Cost < before*(1-1e-9) {
			ps.adopt(items, sol, bins, old, keep)
		}
		if same && len(sol.Unplaceable) == 0 {
			ps.setBound(sol)
		}
	}
	if !ps.opt.SkipBound {
		b := ps.resourceBound(all)
		switch {
		case ps.bound == nil:
			ps.bound = b
		case b.Resource > ps.bound.Resource:
			ps.bound.Resource = b.Resource
			ps.bound.USDPerHour = max(ps.bound.Resource, ps.bound.Pattern)
			if ps.bound.Resource > ps.bound.Pattern {
				ps.bound.Kind = "resource"
			}
		}
	}
	if ps.opt.SkipBound {
		ps.bound = nil
		return
	}
	for _, it := range all {
		ps.bound.Pods += it.n
	}
}

// relaxedPurchase is the purchase without domains, tiers and limits, solved.
type relaxedPurchase struct {
	items []*item
	bins  []int32
	sol   *stock.Solution
}

// relax solves the relaxed purchase of the pods on machines.
func (ps *pass) relax(ms []*plannedMachine, work int64) *relaxedPurchase {
	r := &relaxedPurchase{}
	items, apart := ps.items(ms, true)
	prob, bins := ps.problem(items, apart, true)
	r.items, r.bins = items, bins
	r.sol = stock.Solve(prob, stock.Options{Work: work, Aim: stock.AimBound, Columns: true})
	ps.work += r.sol.Work
	return r
}

// seeds returns the fillings of the relaxed purchase in terms of the purchase, for
// each domain with the items that are there.
func (r *relaxedPurchase) seeds(ps *pass, prob *stock.Problem, items []*item, bins []int32) []stock.Pattern {
	of := map[*variant]int{}
	for f, it := range r.items {
		for i := range it.runs {
			of[it.runs[i].v] = f
		}
	}
	here := make([][]int, len(r.items))
	for i, it := range items {
		f := of[it.runs[0].v]
		here[f] = append(here[f], i)
	}
	byKind := map[int32][]int{}
	for b, col := range bins {
		ki := ps.cat.cols[col].kind
		byKind[ki] = append(byKind[ki], b)
	}
	var out []stock.Pattern
	for _, c := range r.sol.Columns {
		for _, b := range byKind[ps.cat.cols[r.bins[c.Bin]].kind] {
			p := stock.Pattern{Bin: b, Times: 1}
			for q, f := range c.Items {
				n := c.Counts[q]
				for _, i := range here[f] {
					if k := min(n, items[i].n); k > 0 && prob.Allowed[i][b/64]&(1<<(b%64)) != 0 {
						p.Items, p.Counts = append(p.Items, i), append(p.Counts, k)
						n -= k
					}
				}
			}
			if len(p.Items) > 0 {
				out = append(out, p)
			}
		}
	}
	return out
}

// setBound takes the bound of a solution.
func (ps *pass) setBound(sol *stock.Solution) {
	ps.bound = &CostBound{USDPerHour: sol.Bound, Resource: sol.ResourceBound, Pattern: sol.PatternBound, Kind: "resource"}
	if sol.PatternBound > sol.ResourceBound {
		ps.bound.Kind = "pattern"
	}
}

// adopt replaces the old machines by a purchase, if it is cheaper once the rules
// within each machine are kept.
func (ps *pass) adopt(items []*item, sol *stock.Solution, bins []int32, old, keep []*plannedMachine) {
	before := ps.cost()
	savedMachines := ps.machines
	for _, m := range old {
		m.countAll(-1)
		ps.ledger.refund(m.col)
	}
	ps.machines = slices.Clone(keep)
	ok := ps.build(items, sol, bins)
	if ok {
		ps.rightSize()
		ps.dissolve()
		ps.trim()
		ok = ps.cost() < before*(1-1e-9) && !ps.domains.findOpened(ps.classes, ps.machines)
	}
	if ok {
		return
	}
	// Restore the old machines.
	for _, m := range ps.machines[len(keep):] {
		m.countAll(-1)
		ps.ledger.refund(m.col)
	}
	ps.machines = savedMachines
	for _, m := range old {
		ps.ledger.draw(m.col)
		m.countAll(1)
	}
}

// trim removes machines beyond those that pods limited to one per machine need, if
// they are few. They save little money, and fewer machines are worth that.
func (ps *pass) trim() {
	var most *counter
	for _, m := range ps.machines {
		for i := range m.pods {
			if v := m.pods[i].v; v.hostCap == 1 && v.capCtr >= 0 {
				if ctr := ps.domains.counters[v.capCtr]; most == nil || ctr.total > most.total {
					most = ctr
				}
			}
		}
	}
	if most == nil || int64(len(ps.machines)) > most.total+improveTrim {
		return
	}
	for _, m := range slices.Clone(ps.machines) {
		if len(m.pods) > 0 && m.count(most) == 0 && !m.frozen() {
			ps.remove(m, 1)
		}
	}
}
