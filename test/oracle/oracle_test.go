// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package oracle

import (
	"context"
	"flag"
	"fmt"
	"math"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/kubernetes/pkg/scheduler/framework/plugins/names"

	"github.com/nap-aks/nap/engine"
	"github.com/nap-aks/nap/internal/peer"
	"github.com/nap-aks/nap/snapshot"
	"github.com/nap-aks/nap/test/clustergen"
)

var (
	clusters = flag.Int("oracle.clusters", 10000, "number of generated clusters")
	oneSeed  = flag.Int64("oracle.seed", -1, "check only this seed")
	saveFile = flag.String("oracle.save", "", "with -oracle.seed: write the cluster to this snapshot file (for nap plan --snapshot)")
	fromSeed = flag.Uint64("oracle.from", 0, "first seed")
)

// verdicts returns the verdict of each pod, and the errors if a pod has not exactly one.
func verdicts(in *snapshot.Input, p *engine.Plan) (map[string]*engine.Verdict, []string) {
	out := map[string]*engine.Verdict{}
	var bad []string
	for i := range p.Verdicts {
		for _, k := range p.Verdicts[i].Pods {
			if out[k] != nil {
				bad = append(bad, fmt.Sprintf("pod %s has two verdicts", k))
			}
			out[k] = &p.Verdicts[i]
		}
	}
	for k := range in.Pods {
		if out[k] == nil {
			bad = append(bad, fmt.Sprintf("pod %s has no verdict", k))
		}
	}
	if len(out) > len(in.Pods) {
		bad = append(bad, "there are verdicts for pods that are not pending")
	}
	return out, bad
}

// checked is the result of one seed.
type checked struct {
	problems     []string // violations
	fewer        string   // description, if the engine places fewer pods than Karpenter
	limited      bool     // with fewer: NodePools have limits
	comparable   bool     // the costs are comparable
	nap, karp    float64  // costs in USD per hour
	extra        float64  // nap - karp, if comparable
	placed, pods int
}

// limited reports whether a NodePool has limits.
func limited(o *snapshot.Objects) bool {
	for _, np := range o.NodePools {
		if len(np.Spec.Limits) > 0 {
			return true
		}
	}
	return false
}

// hasPreferences reports whether a pending pod has preferences or a NodePool has a
// PreferNoSchedule taint. The two schedulers relax preferences in different orders.
func hasPreferences(in *snapshot.Input) bool {
	for _, g := range in.Snapshot.Pending {
		c := &in.Snapshot.Classes[g.Class]
		if len(c.PreferredNodeAffinity) > 0 {
			return true
		}
		for _, s := range c.Spread {
			if s.Soft {
				return true
			}
		}
		for _, t := range append(slices.Clone(c.PodAffinity), c.PodAntiAffinity...) {
			if t.Weight > 0 {
				return true
			}
		}
	}
	for _, p := range in.Snapshot.Pools {
		for _, t := range p.Taints {
			if t.Effect == engine.PreferNoSchedule {
				return true
			}
		}
	}
	return false
}

// checkSeed generates the cluster of a seed and checks the plan for it.
func checkSeed(t testing.TB, ctx context.Context, k *kube, seed uint64, opt clustergen.Options) checked {
	o := clustergen.Generate(seed, opt)
	if *saveFile != "" {
		if err := snapshot.WriteFile(*saveFile, o); err != nil {
			t.Fatal(err)
		}
	}
	in, err := snapshot.Build(o)
	if err != nil {
		return checked{problems: []string{err.Error()}}
	}
	p, err := engine.Place(in.Snapshot, in.Options)
	if err != nil {
		return checked{problems: []string{"engine: " + err.Error()}}
	}
	r := checked{pods: len(in.Pods)}
	of, bad := verdicts(in, p)
	r.problems = append(r.problems, bad...)

	// The kube-scheduler.
	done := k.storage(ctx, o, claimPrefix(seed))
	defer done()
	rng := rand.New(rand.NewPCG(seed, 2))
	for i, choose := range []func(*engine.Machine) engine.RankedOffering{
		func(m *engine.Machine) engine.RankedOffering { return m.Offerings[0] },
		func(m *engine.Machine) engine.RankedOffering { return m.Offerings[rng.IntN(len(m.Offerings))] },
	} {
		w, csi, err := applyPlan(o, in, p, choose)
		if err != nil {
			r.problems = append(r.problems, err.Error())
			break
		}
		why := k.check(ctx, o, w, csi, in, seed, true)
		if i > 0 {
			// A machine that falls back to another zone can violate the spread of
			// pods on other machines. A plan cannot prevent that for all offerings.
			why = slices.DeleteFunc(why, func(s string) bool { return strings.Contains(s, names.PodTopologySpread) })
		}
		if len(why) > 0 {
			r.problems = append(r.problems, "kube-scheduler rejects "+strings.Join(why, "\n  and "))
			break
		}
	}

	// Karpenter.
	kr, err := peer.Schedule(ctx, o, peer.Options{})
	if err != nil {
		r.problems = append(r.problems, "Karpenter: "+err.Error())
		return r
	}
	var refused, more []string
	for key, v := range of {
		if v.Outcome == engine.OnNode || v.Outcome == engine.OnMachine {
			r.placed++
		}
		_, karpenterRefuses := kr.Errors[podName(key)]
		switch {
		case (v.Outcome == engine.Refused || v.Outcome == engine.Deferred) && !karpenterRefuses:
			refused = append(refused, fmt.Sprintf("%s (%s: %s)", key, v.Code, v.Reason))
		case v.Outcome != engine.Refused && v.Outcome != engine.Deferred && karpenterRefuses:
			more = append(more, key)
		}
	}
	slices.Sort(refused)
	invalid := 0
	if len(refused) > len(more) {
		if invalid, err = k.invalidPlacements(ctx, o, in, p, kr, seed); err != nil {
			r.problems = append(r.problems, "Karpenter's plan: "+err.Error())
			return r
		}
	}
	// Placing one pod often leaves no capacity for another, and the schedulers may
	// choose differently, so only the numbers are compared.
	if n := len(refused) - invalid; n > len(more) {
		r.fewer = fmt.Sprintf("Karpenter places %d pods that the engine refuses, %d of them where they cannot run (and the engine places %d that Karpenter refuses): %s", len(refused), invalid, len(more), strings.Join(refused, "; "))
		r.limited = limited(o)
	}

	// Cost.
	r.nap, r.karp = p.CostUSDPerHour, 0
	for _, m := range kr.Machines() {
		r.karp += m.USDPerHour
	}
	var sum float64
	for i := range p.Machines {
		sum += p.Machines[i].PriceUSDPerHour
	}
	if math.Abs(sum-p.CostUSDPerHour) > 1e-6 {
		r.problems = append(r.problems, fmt.Sprintf("the plan costs %.6f, its machines %.6f", p.CostUSDPerHour, sum))
	}
	if p.Bound != nil && p.Bound.USDPerHour > p.CostUSDPerHour+1e-6 {
		r.problems = append(r.problems, fmt.Sprintf("the plan costs %.6f, less than the %s bound of %.6f", p.CostUSDPerHour, p.Bound.Kind, p.Bound.USDPerHour))
	}
	r.comparable = len(refused) == 0 && len(more) == 0 && !hasPreferences(in) && !limited(o)
	if r.comparable {
		r.extra = r.nap - r.karp
		if p.Bound != nil && p.Bound.USDPerHour > r.karp+1e-6 && samePodsOnMachines(p, kr) {
			r.problems = append(r.problems, fmt.Sprintf("Karpenter's plan costs %.6f, less than the bound of %.6f for the same pods", r.karp, p.Bound.USDPerHour))
		}
	}
	return r
}

// asPlan converts Karpenter's results to a plan of the engine.
func asPlan(kr *peer.Result) *engine.Plan {
	p := &engine.Plan{}
	for _, n := range kr.ExistingNodes {
		if len(n.Pods) == 0 {
			continue
		}
		g := engine.PodGroup{}
		for _, pod := range n.Pods {
			g.Pods = append(g.Pods, snapshot.PodKey(pod))
		}
		p.Placements = append(p.Placements, engine.Placement{Node: n.Name(), Pods: []engine.PodGroup{g}})
	}
	for _, m := range kr.Machines() {
		out := engine.Machine{NodePool: m.Claim.NodePoolName, Offerings: []engine.RankedOffering{{InstanceType: m.InstanceType, Zone: m.Zone, CapacityType: m.CapacityType}}}
		for _, r := range m.Claim.Requirements.NodeSelectorRequirements() {
			if r.Key != corev1.LabelHostname {
				out.Requirements = append(out.Requirements, engine.Requirement{Key: r.Key, Operator: engine.Operator(r.Operator), Values: r.Values})
			}
		}
		g := engine.PodGroup{}
		for _, pod := range m.Claim.Pods {
			g.Pods = append(g.Pods, snapshot.PodKey(pod))
		}
		out.Pods = []engine.PodGroup{g}
		p.Machines = append(p.Machines, out)
	}
	return p
}

// invalidPlacements counts the pods that Karpenter places where they cannot run.
// Karpenter is more lenient than the kube-scheduler with some constraints. It also
// accepts any value of a label that no NodePool defines, once another pod on the same
// planned machine has a requirement for the label, which depends on the order of the
// pods. Only classes with pods that the engine refuses for their requirements are
// checked for the latter.
func (k *kube) invalidPlacements(ctx context.Context, o *snapshot.Objects, in *snapshot.Input, p *engine.Plan, kr *peer.Result, seed uint64) (int, error) {
	w, csi, err := applyPlan(o, in, asPlan(kr), func(m *engine.Machine) engine.RankedOffering { return m.Offerings[0] })
	if err != nil {
		return 0, err
	}
	invalid := map[string]bool{} // by pod key
	for _, pod := range k.unbindable(ctx, o, w, csi, seed) {
		invalid[snapshot.PodKey(pod)] = true
	}
	suspect := map[engine.ClassID]bool{}
	for i := range p.Verdicts {
		if v := &p.Verdicts[i]; v.Code == engine.ReasonRequirement {
			suspect[v.Class] = true
		}
	}
	class := map[string]engine.ClassID{}
	for _, g := range in.Snapshot.Pending {
		for _, key := range g.Pods {
			class[key] = g.Class
		}
	}
	for _, m := range kr.Machines() {
		for _, pod := range m.Claim.Pods {
			if key := snapshot.PodKey(pod); suspect[class[key]] && !invalid[key] && !placedAlone(ctx, o, key) {
				invalid[key] = true
			}
		}
	}
	return len(invalid), nil
}

// placedAlone reports whether Karpenter places a pod on a new machine if there are no
// nodes and no other pending pods.
func placedAlone(ctx context.Context, o *snapshot.Objects, name string) bool {
	one := *o
	one.Marked, one.Nodes, one.NodeClaims = nil, nil, nil
	one.Pods = slices.DeleteFunc(slices.Clone(o.Pods), func(p *corev1.Pod) bool { return p.Spec.NodeName != "" || snapshot.PodKey(p) != name })
	kr, err := peer.Schedule(ctx, &one, peer.Options{})
	return err == nil && kr.Errors[podName(name)] == nil
}

// samePodsOnMachines reports whether both plans place the same pods on new machines.
func samePodsOnMachines(p *engine.Plan, kr *peer.Result) bool {
	mine := map[string]bool{}
	for i := range p.Machines {
		for _, g := range p.Machines[i].Pods {
			for _, k := range g.Pods {
				mine[k] = true
			}
		}
	}
	n := 0
	for _, m := range kr.Machines() {
		for _, pod := range m.Claim.Pods {
			if !mine[snapshot.PodKey(pod)] {
				return false
			}
			n++
		}
	}
	return n == len(mine)
}

// TestOracles is described in the package comment.
func TestOracles(t *testing.T) {
	ctx, cancel := context.WithCancel(peer.Context(context.Background(), snapshot.Settings{}))
	defer cancel()
	seeds := make([]uint64, 0, *clusters)
	if *oneSeed >= 0 {
		seeds = append(seeds, uint64(*oneSeed))
	} else {
		for i := range *clusters {
			seeds = append(seeds, *fromSeed+uint64(i))
		}
	}
	var failed, fewer, limited, comparable, costlier, pods, placed int
	var nap, karp, worst float64
	start := time.Now()
	results := make([]checked, len(seeds))
	workers := min(runtime.NumCPU(), len(seeds))
	next := make(chan int)
	var wg sync.WaitGroup
	for range workers {
		k := newKube(t, ctx, clustergen.Generate(0, clustergen.Options{}).Namespaces)
		wg.Go(func() {
			for i := range next {
				// A third of the clusters have no topology constraints, so that costs are
				// comparable.
				results[i] = checkSeed(t, ctx, k, seeds[i], clustergen.Options{Plain: seeds[i]%3 == 0})
			}
		})
	}
	for i := range seeds {
		next <- i
	}
	close(next)
	wg.Wait()
	for i, r := range results {
		seed := seeds[i]
		pods, placed = pods+r.pods, placed+r.placed
		if r.limited {
			limited++
		}
		if r.fewer != "" {
			fewer++
			t.Logf("seed %d: %s\nrepeat with: go test ./test/oracle -run TestOracles -oracle.seed=%d -v", seed, r.fewer, seed)
		}
		if r.comparable {
			comparable++
			nap, karp = nap+r.nap, karp+r.karp
			if r.extra > 1e-6 {
				costlier++
				if r.karp > 0 && r.extra/r.karp > worst {
					worst = r.extra / r.karp
				}
				if *oneSeed >= 0 || testing.Verbose() {
					t.Logf("seed %d: $%.4f, Karpenter $%.4f", seed, r.nap, r.karp)
				}
			}
		}
		if len(r.problems) > 0 {
			failed++
			if failed <= 10 {
				t.Errorf("seed %d:\n  %s\nrepeat with: go test ./test/oracle -run TestOracles -oracle.seed=%d -v", seed, strings.Join(r.problems, "\n  "), seed)
			}
		}
	}
	// Capacity of nodes, domains and limits can go to one pod or another, and no
	// scheduler tries all combinations.
	if fewer > len(seeds)/1000+1 {
		t.Errorf("in %d of %d clusters Karpenter places more pods than the engine, want at most one in 1,000", fewer, len(seeds))
	}
	if nap > karp*(1+1e-9) {
		t.Errorf("in all comparable clusters the engine pays $%.2f in total, more than Karpenter's $%.2f", nap, karp)
	}
	t.Logf("%d clusters in %s: %d pods, %d placed; %d failed, %d place fewer pods than Karpenter (%d of them with limits); of %d with comparable cost %d cost more than Karpenter (worst %.1f%%), total $%.2f, Karpenter $%.2f",
		len(seeds), time.Since(start).Round(time.Millisecond), pods, placed, failed, fewer, limited, comparable, costlier, 100*worst, nap, karp)
}

// FuzzClusters searches for seeds and sizes that violate a rule:
//
//	go test ./test/oracle -run FuzzClusters -fuzz FuzzClusters -fuzztime 5m
func FuzzClusters(f *testing.F) {
	ctx, cancel := context.WithCancel(peer.Context(context.Background(), snapshot.Settings{}))
	f.Cleanup(cancel)
	k := newKube(f, ctx, clustergen.Generate(0, clustergen.Options{}).Namespaces)
	for seed := range uint64(8) {
		f.Add(seed, uint8(6), uint8(8), uint8(5))
	}
	f.Fuzz(func(t *testing.T, seed uint64, workloads, replicas, nodes uint8) {
		opt := clustergen.Options{Workloads: 1 + int(workloads)%10, Replicas: 1 + int(replicas)%12, Nodes: 1 + int(nodes)%8}
		if r := checkSeed(t, ctx, k, seed, opt); len(r.problems) > 0 {
			t.Errorf("seed %d, %+v:\n  %s", seed, opt, strings.Join(r.problems, "\n  "))
		}
	})
}

func podName(key string) types.NamespacedName {
	ns, name, _ := strings.Cut(key, "/")
	return types.NamespacedName{Namespace: ns, Name: name}
}
