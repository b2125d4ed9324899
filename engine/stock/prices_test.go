// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package stock

import (
	"testing"

	"pgregory.net/rapid"
)

// No bin holds more value than it costs, the demand is worth no more than bins that
// hold it and, with one dimension, no less than the relaxation of the purchase
// costs.
func TestPricesProveABound(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		nd, nb := rapid.IntRange(1, 4).Draw(t, "dims"), rapid.IntRange(1, 12).Draw(t, "bins")
		var demand, content, price []float64
		for range nd {
			demand = append(demand, float64(rapid.IntRange(1, 1000).Draw(t, "demand")))
		}
		for range nb {
			price = append(price, float64(rapid.IntRange(1, 500).Draw(t, "price"))/100)
			for range nd {
				content = append(content, float64(rapid.IntRange(0, 40).Draw(t, "content")))
			}
		}
		w := Prices(demand, content, price)
		worth, exact := 0.0, 0.0
		for d, x := range w {
			if x < 0 {
				t.Fatalf("price %v of dimension %d", x, d)
			}
			worth += x * demand[d]
		}
		for b, p := range price {
			held := 0.0
			for d, x := range w {
				held += x * content[b*nd+d]
			}
			if held > p*(1+1e-9) {
				t.Fatalf("bin %d holds %v and costs %v", b, held, p)
			}
			exact = max(exact, held/p)
		}
		// Bins of one size for all demand cost at least as much.
		for b, p := range price {
			times := 0.0
			for d := range nd {
				if c := content[b*nd+d]; c > 0 {
					times = max(times, demand[d]/c)
				} else if w[d] > 0 {
					times = -1
					break
				}
			}
			if times > 0 && times*p < worth*(1-1e-9) {
				t.Fatalf("demand is worth %v, %v of bin %d cost %v", worth, times, b, times*p)
			}
		}
		if worth > 0 && exact < 1-1e-6 {
			t.Fatalf("prices could be higher: the fullest bin holds %v of its price", exact)
		}
	})
}
