package engine_test

import (
	"fmt"
	"testing"

	. "github.com/nap-aks/nap/engine"
)

// apartPods are n pods of each of two sizes that share a machine with no other
// of them, and m that may go anywhere.
func apartPods(n, m int) *Snapshot {
	s := &Snapshot{Version: SnapshotVersion, Catalogues: []Catalogue{linearTypes(30)}, Pools: []NodePool{{Name: "default"}}}
	add := func(p PodClass, n int) {
		g := PodGroup{Class: ClassID(len(s.Classes))}
		for i := range n {
			g.Pods = append(g.Pods, fmt.Sprintf("%s-%d", p.Name, i))
		}
		s.Classes = append(s.Classes, p)
		s.Pending = append(s.Pending, g)
	}
	for i, cpu := range []int64{100, 300} {
		add(PodClass{
			Name: fmt.Sprint("apart-", i), Namespace: "n", Labels: map[string]string{"app": "nginx"}, Requests: Resources{"cpu": cpu, "memory": 128 << 20},
			PodAntiAffinity: []AffinityTerm{{Key: LabelHostname, Selector: appSelector("app", "nginx")}},
		}, n)
	}
	add(PodClass{Name: "plain", Namespace: "n", Requests: Resources{"cpu": 150, "memory": 128 << 20}}, m)
	return s
}

// Pods that share no machine are as many machines, whatever they take: the bound
// knows that, and the purchase reaches it.
func TestPodsApartBoundTheNumberOfMachines(t *testing.T) {
	s := apartPods(20, 40)
	p, err := Place(s, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := verify(s, p, Options{}); err != nil {
		t.Fatal(err)
	}
	cheapest := s.Catalogues[0].InstanceTypes[0].Offerings[0].PriceUSDPerHour
	if want := 40 * cheapest; p.Bound.USDPerHour < want*(1-1e-6) || p.CostUSDPerHour > want*(1+1e-6) || len(p.Machines) != 40 {
		t.Errorf("%d machines for $%f, bound $%f; want 40 machines for $%f and that as the bound", len(p.Machines), p.CostUSDPerHour, p.Bound.USDPerHour, want)
	}
}

// Rules within machines are resources to the second purchase, so it also serves
// Karpenter's mixed pods, where it saves a tenth and more.
func TestMixedPodsAreBoughtAgain(t *testing.T) {
	s := mixedPods(1000)
	p, err := Place(s, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := verify(s, p, Options{}); err != nil {
		t.Fatal(err)
	}
	if p.CostUSDPerHour > 0.95*p.QuickCostUSDPerHour || p.Bound.Gap > 0.08 || len(p.Machines) > 202 {
		t.Errorf("%d machines for $%f, quick $%f, gap %f", len(p.Machines), p.CostUSDPerHour, p.QuickCostUSDPerHour, p.Bound.Gap)
	}
}
