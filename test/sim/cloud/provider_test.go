// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package cloud_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/karpenter/pkg/cloudprovider"

	"github.com/nap-aks/nap/catalog"
	"github.com/nap-aks/nap/test/sim/cloud"
)

var (
	small  = []string{"Standard_D2s_v5"}
	either = []string{"Standard_D2s_v5", "Standard_D4s_v5"}
	// families are sizes of two families: if one is out of stock or beyond its quota, the
	// provider does not try larger sizes of its family.
	families = []string{"Standard_D2s_v5", "Standard_E2s_v5"}
)

func TestProviderLaunchesListsAndDeletes(t *testing.T) {
	withProvider(t, options(), func(ctx context.Context, r *rig) {
		made := r.create(ctx, claim("default-abcde", either))
		m := r.machines(1)[0]
		if made.Status.ProviderID != m.ProviderID || made.Labels[corev1.LabelInstanceTypeStable] != "Standard_D2s_v5" || made.Labels[corev1.LabelTopologyZone] != "eastus-"+m.Zone {
			t.Fatalf("launched %+v as %+v", made, m)
		}
		if m.NodePool != "default" || m.Claim != "default-abcde" || !m.Alive() || m.Running.Sub(m.Created) < 10*time.Second {
			t.Fatalf("machine %+v", m)
		}
		// The provider learns of it at the next poll, which Azure asks for every second.
		if took := time.Since(m.Running); took > 1100*time.Millisecond {
			t.Fatalf("the provider has learned of the machine %s after it ran", took)
		}
		time.Sleep(time.Minute)
		list, err := r.provider.List(ctx)
		if err != nil || len(list) != 1 || list[0].Status.ProviderID != m.ProviderID {
			t.Fatalf("list: %v, %v", list, err)
		}
		if _, err := r.provider.Get(ctx, m.ProviderID); err != nil {
			t.Fatal(err)
		}
		for err = nil; err == nil; {
			err = r.provider.Delete(ctx, made)
			time.Sleep(time.Second)
		}
		if !cloudprovider.IsNodeClaimNotFoundError(err) {
			t.Fatalf("deleting: %v", err)
		}
		r.machines(0)
		usd, rate := r.cloud.Cost()
		if want := m.USDPerHour * m.Deleted.Sub(m.Running).Hours(); rate != 0 || math.Abs(usd-want) > 1e-12 {
			t.Fatalf("cost $%v, $%v/h, want $%v and nothing an hour", usd, rate, want)
		}
		if c := r.cloud.Counts(); c != (cloud.Counts{Asked: 1, Bought: 1, Deleted: 1}) {
			t.Fatalf("counts %+v", c)
		}
		if n, _ := r.cloud.Calls(); n["PUT machine"] != 1 || n["POST delete"] != 1 {
			t.Fatalf("calls %v", n)
		}
	})
}

func TestStockOutsMakeTheProviderTryTheNextOffering(t *testing.T) {
	tests := []struct {
		name string
		out  cloud.StockOut
		want string
	}{
		{"later", cloud.StockOut{Size: "Standard_D2s_v5"}, "Standard_E2s_v5"},
		{"at once", cloud.StockOut{Size: "standard_d2s_v5", AtOnce: true, Code: "SkuNotAvailable"}, "Standard_E2s_v5"},
		{"family", cloud.StockOut{Family: "standardDSv5Family"}, "Standard_E2s_v5"},
		{"spot", cloud.StockOut{CapacityType: "spot"}, "Standard_D2s_v5"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			withProvider(t, options(), func(ctx context.Context, r *rig) {
				r.cloud.SellOut(tt.out)
				r.create(ctx, claim("default-abcde", families, "on-demand", "spot"))
				m := r.machines(1)[0]
				if m.Size != tt.want || (tt.out.CapacityType != "") != (m.CapacityType == "on-demand") {
					t.Fatalf("got %s in zone %q, %s", m.Size, m.Zone, m.CapacityType)
				}
			})
		})
	}
}

func TestAZoneOutOfStockIsLeftAlone(t *testing.T) {
	withProvider(t, options(), func(ctx context.Context, r *rig) {
		r.cloud.SellOut(cloud.StockOut{Family: "D", Zone: "eastus-2"})
		for i := range 6 { // the provider spreads them
			r.create(ctx, claim(fmt.Sprintf("default-aaaa%d", i), small))
		}
		for _, m := range r.machines(6) {
			if m.Zone != "1" && m.Zone != "3" {
				t.Errorf("%s is in zone %q", m.Name, m.Zone)
			}
		}
		if c := r.cloud.Counts(); c.Failed != 1 {
			t.Errorf("counts %+v: the provider tries a zone once and remembers", c)
		}
	})
}

func TestNothingInStockIsInsufficientCapacity(t *testing.T) {
	withProvider(t, options(), func(ctx context.Context, r *rig) {
		restock := r.cloud.SellOut(cloud.StockOut{})
		_, err := r.provider.Create(ctx, claim("default-abcde", small))
		if !cloudprovider.IsInsufficientCapacityError(err) {
			t.Fatalf("creating: %v", err)
		}
		r.machines(0)
		if c := r.cloud.Counts(); c.Bought != 0 || c.Failed != c.Asked || c.Failed < 3 {
			t.Fatalf("counts %+v", c)
		}
		if usd, _ := r.cloud.Cost(); usd != 0 {
			t.Fatalf("machines that were never there cost $%v", usd)
		}
		restock()
		time.Sleep(24 * time.Hour) // the provider remembers
		r.create(ctx, claim("default-fghij", small))
	})
}

func TestQuotas(t *testing.T) {
	o := options()
	o.Quotas = map[string]int{"standardDSv5Family": 4, "regional": 8}
	withProvider(t, o, func(ctx context.Context, r *rig) {
		// The provider does not know the quota yet: Azure refuses.
		r.create(ctx, claim("default-aaaaa", small))
		r.create(ctx, claim("default-bbbbb", small))
		made := r.create(ctx, claim("default-ccccc", families))
		if got := made.Labels[corev1.LabelInstanceTypeStable]; got != "Standard_E2s_v5" {
			t.Fatalf("got %s although the quota of its family is used up", got)
		}
		if c := r.cloud.Counts(); c.Failed == 0 {
			t.Fatalf("counts %+v: Azure has refused nothing", c)
		}
		// Now it does, and does not even ask.
		time.Sleep(time.Minute)
		if err := r.provider.RefreshQuota(ctx); err != nil {
			t.Fatal(err)
		}
		asked := r.cloud.Counts().Asked
		if _, err := r.provider.Create(ctx, claim("default-ddddd", small)); !cloudprovider.IsInsufficientCapacityError(err) {
			t.Fatalf("creating: %v", err)
		}
		if c := r.cloud.Counts(); c.Asked != asked {
			t.Fatalf("the provider has asked for a machine that its quota does not allow")
		}
		// The region has 8 vCPUs, spot machines are apart.
		r.create(ctx, claim("default-eeeee", []string{"Standard_E2s_v5"}))
		if _, err := r.provider.Create(ctx, claim("default-fffff", []string{"Standard_E2s_v5"})); !cloudprovider.IsInsufficientCapacityError(err) {
			t.Fatalf("creating: %v", err)
		}
		r.create(ctx, claim("default-ggggg", small, "spot"))
		// A fault changes the quota and takes it back.
		r.cloud.SetQuota("standardDSv5Family", 0)
		r.cloud.SetQuota("standardDSv5Family", -1)
		r.cloud.SetQuota("", 100)
		if _, err := r.provider.Create(ctx, claim("default-hhhhh", small)); !cloudprovider.IsInsufficientCapacityError(err) {
			t.Fatalf("creating: %v", err)
		}
	})
}

func TestThrottledRequestsWaitAsTold(t *testing.T) {
	withProvider(t, options(), func(ctx context.Context, r *rig) {
		r.cloud.SetBudget(cloud.Writes, cloud.Budget{Burst: 1, PerSecond: 0.1})
		r.create(ctx, claim("default-aaaaa", small))
		begun := time.Now()
		r.cloud.SetBudget(cloud.Writes, cloud.Budget{Burst: 1, PerSecond: 0.05})
		done := make(chan time.Duration)
		for _, name := range []string{"default-bbbbb", "default-ccccc"} {
			go func() {
				_, err := r.provider.Create(ctx, claim(name, small))
				if err != nil {
					t.Error(err)
				}
				done <- time.Since(begun)
			}()
		}
		<-done
		if second := <-done; second < 30*time.Second || second > time.Minute {
			t.Fatalf("the second machine took %s, the budget gives a request in 20 s and a machine takes 10 s", second)
		}
		r.machines(3)
		if _, throttled := r.cloud.Calls(); throttled == 0 {
			t.Fatal("nothing was throttled")
		}
		r.cloud.SetBudget(cloud.Writes, cloud.Budget{})
		for i := range 3 {
			r.create(ctx, claim(fmt.Sprintf("default-ddd%dd", i), small))
		}
	})
}

func TestFaultsOfRequestsLeaveOneMachine(t *testing.T) {
	tests := []struct {
		name  string
		fault cloud.Fault
		least time.Duration // that the launch takes
	}{
		{"lost answer", cloud.Fault{Lose: true}, 0},
		{"hung request", cloud.Fault{Hang: true}, 2 * time.Minute},
		{"slow answer", cloud.Fault{Before: 20 * time.Second, After: 20 * time.Second}, 40 * time.Second},
		{"server error", cloud.Fault{Status: 503, Code: "ServiceUnavailable", Message: "Try again."}, 0},
		{"throttled", cloud.Fault{Status: 429, Code: "TooManyRequests", RetryAfter: 15 * time.Second}, 15 * time.Second},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			withProvider(t, options(), func(ctx context.Context, r *rig) {
				r.faults = []cloud.Fault{tt.fault}
				begun := time.Now()
				made := r.create(ctx, claim("default-abcde", small))
				if m := r.machines(1)[0]; m.ProviderID != made.Status.ProviderID {
					t.Fatalf("launched %s, machine %s", made.Status.ProviderID, m.ProviderID)
				}
				if took := time.Since(begun); took < tt.least || took > tt.least+30*time.Second {
					t.Fatalf("launching took %s, want %s and the creation of a machine", took, tt.least)
				}
			})
		})
	}
}

func TestLateSuccess(t *testing.T) {
	withProvider(t, options(), func(ctx context.Context, r *rig) {
		r.cloud.OnLaunch(func(*cloud.Machine) cloud.Launch {
			return cloud.Launch{Code: "OperationTimedOut", Message: "The operation did not finish in time.", Late: 5 * time.Minute}
		})
		_, err := r.provider.Create(ctx, claim("default-abcde", small))
		if err == nil || cloudprovider.IsInsufficientCapacityError(err) || !strings.Contains(err.Error(), "OperationTimedOut") {
			t.Fatalf("creating: %v", err)
		}
		r.machines(0)
		if list, err := r.provider.List(ctx); err != nil || len(list) != 0 {
			t.Fatalf("list: %v, %v", list, err)
		}
		time.Sleep(6 * time.Minute)
		m := r.machines(1)[0]
		list, err := r.provider.List(ctx)
		if err != nil || len(list) != 1 || list[0].Status.ProviderID != m.ProviderID {
			t.Fatalf("list: %v, %v; want the machine that came late", list, err)
		}
		if _, rate := r.cloud.Cost(); rate != m.USDPerHour {
			t.Fatalf("the machine that came late costs $%v/h, want $%v", rate, m.USDPerHour)
		}
	})
}

func TestALateMachineGivesWayToOneOfItsName(t *testing.T) {
	withProvider(t, options(), func(ctx context.Context, r *rig) {
		first := true
		r.cloud.OnLaunch(func(*cloud.Machine) (l cloud.Launch) {
			if first {
				l = cloud.Launch{Code: "AllocationFailed", Message: "none", Late: 5 * time.Minute}
			}
			first = false
			return l
		})
		made := r.create(ctx, claim("default-abcde", either))
		time.Sleep(6 * time.Minute)
		if m := r.machines(1)[0]; m.ProviderID != made.Status.ProviderID {
			t.Fatalf("machine %s is not the one launched", m.ProviderID)
		}
	})
}

func TestPrices(t *testing.T) {
	withProvider(t, options(), func(ctx context.Context, r *rig) {
		r.create(ctx, claim("default-aaaaa", either))
		m := r.machines(1)[0]
		size, err := catalog.Lookup("eastus", m.Size)
		if err != nil || m.Size != "Standard_D2s_v5" || m.USDPerHour != size.OnDemandUSDPerHour {
			t.Fatalf("%s costs $%v/h, want $%v (%v)", m.Size, m.USDPerHour, size.OnDemandUSDPerHour, err)
		}
		time.Sleep(time.Hour)
		before, _ := r.cloud.Cost()
		r.cloud.SetPrice("Standard_D2s_v5", "", "on-demand", 4)
		time.Sleep(time.Hour)
		after, rate := r.cloud.Cost()
		if want := 4 * size.OnDemandUSDPerHour; math.Abs(after-before-want) > 1e-9 || math.Abs(rate-want) > 1e-9 {
			t.Fatalf("an hour at four times the price cost $%v, $%v/h, want $%v", after-before, rate, want)
		}
		if err := r.provider.RefreshPrices(ctx); err != nil {
			t.Fatal(err)
		}
		if made := r.create(ctx, claim("default-bbbbb", either)); made.Labels[corev1.LabelInstanceTypeStable] != "Standard_D4s_v5" {
			t.Fatalf("launched %s, which is dearer now", made.Labels[corev1.LabelInstanceTypeStable])
		}
		r.cloud.SetPrice("", "standardDSv5Family", "", 1)
		r.cloud.SetPrice("", "D", "spot", 3)
		for _, m := range r.machines(2) {
			if size, err := catalog.Lookup("eastus", m.Size); err != nil || m.USDPerHour != size.OnDemandUSDPerHour {
				t.Fatalf("%s costs $%v/h after prices are as listed again (%v)", m.Size, m.USDPerHour, err)
			}
		}
	})
}

func TestEvictedMachinesStayInAzureResourceManager(t *testing.T) {
	withProvider(t, options(), func(ctx context.Context, r *rig) {
		made := r.create(ctx, claim("default-abcde", small, "spot"))
		time.Sleep(time.Minute)
		var events []cloud.EventType
		r.cloud.Subscribe(func(e cloud.EventType, _ *cloud.Machine) { events = append(events, e) })
		r.cloud.Evict("default-abcde")
		time.Sleep(29 * time.Second)
		r.machines(1)
		time.Sleep(2 * time.Second)
		r.machines(0)
		if list, err := r.provider.List(ctx); err != nil || len(list) != 1 {
			t.Fatalf("list: %v, %v; AKS knows the machine still", list, err)
		}
		if _, rate := r.cloud.Cost(); rate != 0 {
			t.Fatalf("it costs $%v/h", rate)
		}
		var err error
		for err == nil { // as Karpenter does
			err = r.provider.Delete(ctx, made)
			time.Sleep(time.Second)
		}
		if !cloudprovider.IsNodeClaimNotFoundError(err) {
			t.Fatalf("deleting: %v", err)
		}
		if got := fmt.Sprint(events); got != "[evicted gone]" {
			t.Fatalf("events %s", got)
		}
		if c := r.cloud.Counts(); c.Evicted != 1 || c.Deleted != 1 {
			t.Fatalf("counts %+v", c)
		}
	})
}

// history lives through some launches, faults and deletions and returns what happened.
func history(t *testing.T, seed uint64) string {
	var out strings.Builder
	o := options()
	o.Rand = rand.New(rand.NewPCG(seed, 7))
	withProvider(t, o, func(ctx context.Context, r *rig) {
		r.cloud.Subscribe(func(e cloud.EventType, m *cloud.Machine) {
			fmt.Fprintf(&out, "%s %s %s %s zone %s\n", time.Since(r.start), e, m.NodeName, m.Size, m.Zone)
		})
		r.cloud.SellOut(cloud.StockOut{Size: "Standard_D2s_v5", Zone: "1"})
		for i := range 5 {
			c := claim(fmt.Sprintf("default-aaaa%d", i), either)
			made := r.create(ctx, c)
			if i%2 == 0 {
				if err := r.provider.Delete(ctx, made); err != nil && !cloudprovider.IsNodeClaimNotFoundError(err) {
					t.Fatal(err)
				}
			}
		}
		time.Sleep(5 * time.Minute)
		usd, rate := r.cloud.Cost()
		fmt.Fprintf(&out, "$%v $%v/h\n", usd, rate)
	})
	return out.String()
}

func TestOneSeedOneHistory(t *testing.T) {
	first, again, other := history(t, 1), history(t, 1), history(t, 2)
	if first != again {
		t.Errorf("the same seed gave\n%s\nand\n%s", first, again)
	}
	if first == other {
		t.Error("another seed gave the same history")
	}
	if strings.Count(first, "bought") != 5 || strings.Count(first, "gone") < 3 {
		t.Errorf("history\n%s", first)
	}
}

func TestAnUnknownLocationIsAnError(t *testing.T) {
	o := options()
	o.Location = "nowhere"
	if _, err := cloud.New(o); !errors.Is(err, catalog.ErrUnknownRegion) {
		t.Fatalf("error %v", err)
	}
}
