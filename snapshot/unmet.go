// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package snapshot

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	karpv1 "sigs.k8s.io/karpenter/pkg/apis/v1"
	"sigs.k8s.io/karpenter/pkg/cloudprovider"
	"sigs.k8s.io/karpenter/pkg/scheduling"
)

// Unmet returns why no instance type meets the requirements of a NodePool: the first
// requirement that leaves none, and the values nearest to those it asks for. It
// returns an empty string if an instance type is left.
func Unmet(np *karpv1.NodePool, types []*cloudprovider.InstanceType) string {
	left := types
	for _, r := range np.Spec.Template.Spec.Requirements {
		one := scheduling.NewRequirements(scheduling.NewRequirement(r.Key, r.Operator, r.Values...))
		var meet []*cloudprovider.InstanceType
		for _, it := range left {
			if !it.Requirements.Has(r.Key) || it.Requirements.Intersects(one) == nil {
				meet = append(meet, it)
			}
		}
		if len(meet) == 0 {
			return fmt.Sprintf("%s %s [%s] leaves none of %d sizes%s", r.Key, r.Operator, strings.Join(r.Values, ", "), len(left), nearest(r.Key, r.Values, left, types))
		}
		left = meet
	}
	return ""
}

// nearest suggests a value for each of values: one that the instance types left have
// or, if there is none, that any has.
func nearest(key string, values []string, lists ...[]*cloudprovider.InstanceType) string {
	for _, list := range lists {
		var have []string
		for _, it := range list {
			if r := it.Requirements.Get(key); it.Requirements.Has(key) && r.Operator() == corev1.NodeSelectorOpIn {
				have = append(have, r.Values()...)
			}
		}
		slices.Sort(have)
		have = slices.Compact(have)
		var out []string
		for _, v := range values {
			if near := closest(v, have); near != "" {
				out = append(out, fmt.Sprintf("for %q write %q", v, near))
			}
		}
		if len(out) > 0 {
			return "; " + strings.Join(out, ", ")
		}
	}
	return ""
}

// closest returns the value that is the same in another case or without a prefix, or
// else the one of the least edit distance, if it is at most a third of the length, or
// else the longest one with which v starts.
func closest(v string, have []string) string {
	best, least := "", max(1, len(v)/3)+1
	for _, h := range have {
		if strings.EqualFold(v, h) || len(v) <= 2 && strings.HasSuffix(h, "-"+v) {
			return h
		}
		if d := distance(strings.ToLower(v), strings.ToLower(h)); len(v) > 2 && d < least {
			best, least = h, d
		}
	}
	if best != "" {
		return best
	}
	for _, h := range have { // a family instead of a series: N for NCas_T4_v3
		if len(h) > len(best) && strings.HasPrefix(v, h) {
			best = h
		}
	}
	return best
}

// distance returns the number of bytes to insert, delete or replace to make b of a.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		corner := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := corner
			if a[i] != b[j] {
				cost++
			}
			corner = row[j+1]
			row[j+1] = min(cost, row[j+1]+1, row[j]+1)
		}
	}
	return row[len(b)]
}
