// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package azure

import (
	"errors"
	"fmt"
	"sort"
	"strings"
	"testing"
	"time"

	testingclock "k8s.io/utils/clock/testing"
	"sigs.k8s.io/karpenter/pkg/cloudprovider"

	"github.com/nap-aks/nap/azure/instancetype"
	"github.com/nap-aks/nap/catalog"
)

// asCreateError is errors.As for a CreateError.
func asCreateError(err error, c **cloudprovider.CreateError) bool { return errors.As(err, c) }

func TestShortageMarksOfferingsUnavailable(t *testing.T) {
	table, err := instancetype.NewTable("eastus", catalog.SKUs("eastus"))
	if err != nil {
		t.Fatal(err)
	}
	d4 := table.SKU("Standard_D4s_v5")
	for _, c := range []struct {
		name, code, text, zone string
		spot                   bool
		want                   string // unavailable zone/capacity type, and for how long
		reason                 string
	}{
		{"spot quota", "OperationNotAllowed", "LowPriorityCores quota", "1", true, "all spot 1h0m0s", reasonQuota},
		{"family quota", "OperationNotAllowed", "exceeding approved Family Cores quota", "1", false, "0/od 1/od 2/od 3/od 10m0s", reasonQuota},
		{"no family quota at all", "OperationNotAllowed", "Family Cores quota. Current Limit: 0", "1", false, "0/od 1/od 2/od 3/od 1h0m0s", reasonQuota},
		{"size not available", "SkuNotAvailable", "", "1", false, "1/od 2/od 3/od 23h0m0s", reasonSKUNotAvailable},
		{"size not available as spot", "SkuNotAvailable", "", "0", true, "0/spot 1h0m0s", reasonSKUNotAvailable},
		{"zone full", "ZonalAllocationFailed", "", "2", false, "2/od 2/spot 1h0m0s", reasonZonalAllocation},
		{"region full", "AllocationFailed", "", "0", false, "0/od 0/spot 1h0m0s", reasonAllocation},
		{"over-constrained zone", "OverconstrainedZonalAllocationRequest", "", "3", true, "3/spot 1h0m0s", reasonOverconstrainedZ},
		{"over-constrained", "OverconstrainedAllocationRequest", "", "1", true, "1/spot 2/spot 3/spot 1h0m0s", reasonOverconstrained},
		{"regional quota", "OperationNotAllowed", "exceeding approved Total Regional Cores quota", "1", false, "", reasonRegionalQuota},
		{"family quota of a managed pool", "QuotaExceeded", "exceeding approved Family Cores quota", "1", false, "0/od 1/od 2/od 3/od 10m0s", reasonQuota},
		{"spot quota of a managed pool", "QuotaExceeded", "LowPriorityCores quota", "1", true, "all spot 1h0m0s", reasonQuota},
		{"regional quota of a managed pool", "QuotaExceeded", "exceeding approved Total Regional Cores quota", "1", false, "", reasonRegionalQuota},
		{"some other quota of a managed pool", "QuotaExceeded", "no more", "2", false, "0/od 1/od 2/od 3/od 10m0s", reasonQuota},
		{"subnet full", "SubnetIsFull", "", "1", false, "", reasonSubnetFull},
		{"subnet too small", "InsufficientSubnetSize", "", "1", true, "", reasonSubnetFull},
		{"refused by AKS", "VMSizeNotSupported", "", "1", false, "0/od 0/spot 1/od 1/spot 2/od 2/spot 3/od 3/spot 23h0m0s", reasonSKUNotAvailable},
		{"refused for the subscription", "BadRequest", "x is not supported for subscription y", "0", true, "0/od 0/spot 1/od 1/spot 2/od 2/spot 3/od 3/spot 23h0m0s", reasonSKUNotAvailable},
		{"zone not supported", "AvailabilityZoneNotSupported", "", "2", true, "2/od 2/spot 23h0m0s", reasonSKUNotAvailable},
		{"something else", "InternalError", "", "1", false, "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			clk := testingclock.NewFakeClock(time.Now())
			u := newUnavailable(clk)
			s, ok := classify(fmt.Errorf("wrapped: %w", &provisioningError{Code: c.code, Message: c.text}), c.spot)
			if ok != (c.reason != "") || s.reason != c.reason {
				t.Fatalf("classify = %t, reason %q; want reason %q", ok, s.reason, c.reason)
			}
			if !ok {
				return
			}
			s.mark(u, launchOption{sku: d4, zone: c.zone, spot: c.spot})
			var out []string
			for _, zone := range []string{"0", "1", "2", "3"} {
				for _, spot := range []bool{false, true} {
					if u.has(d4, zone, spot) {
						out = append(out, zone+map[bool]string{false: "/od", true: "/spot"}[spot])
					}
				}
			}
			sort.Strings(out)
			got := strings.Join(out, " ")
			if got == "0/spot 1/spot 2/spot 3/spot" && u.has(table.SKU("Standard_E2s_v5"), "1", true) {
				got = "all spot"
			}
			if got != "" {
				ttl := s.ttl
				clk.Step(ttl - time.Second)
				if !u.has(d4, c.zone, c.spot) {
					t.Errorf("available again before %s", ttl)
				}
				before := u.version()
				clk.Step(2 * time.Second)
				if u.has(d4, c.zone, c.spot) || u.version() == before {
					t.Errorf("still unavailable, or version unchanged, after %s", ttl)
				}
				got += " " + ttl.String()
			}
			if got != c.want {
				t.Errorf("unavailable %q, want %q", got, c.want)
			}
		})
	}
}

func TestFailedSizeMarksLargerSizesOfFamily(t *testing.T) {
	table, err := instancetype.NewTable("eastus", catalog.SKUs("eastus"))
	if err != nil {
		t.Fatal(err)
	}
	u := newUnavailable(testingclock.NewFakeClock(time.Now()))
	u.mark(table.SKU("Standard_D8s_v5"), "1", false, time.Hour)
	for size, want := range map[string]bool{"Standard_D8s_v5": true, "Standard_D16s_v5": true, "Standard_D4s_v5": false, "Standard_D16s_v4": false} {
		if got := u.has(table.SKU(size), "1", false); got != want {
			t.Errorf("%s unavailable = %t, want %t", size, got, want)
		}
	}
	if u.has(table.SKU("Standard_D16s_v5"), "2", false) || u.has(table.SKU("Standard_D16s_v5"), "1", true) {
		t.Error("other zones or capacity types are unavailable, too")
	}
}
