// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"fmt"
	"strings"

	"github.com/nap-aks/nap/azure/instancetype"
	"github.com/nap-aks/nap/snapshot"
)

// QuotaUse is the effect of a move on one of the region's vCPU quotas.
type QuotaUse struct {
	Name  string `json:"name"` // Azure's name, such as standardDSv5Family
	Title string `json:"title,omitempty"`
	// Limit and Used are vCPUs as Azure reports them now; Used includes the nodes to
	// be removed.
	Limit int64 `json:"limit"`
	Used  int64 `json:"used"`
	// Fixed and Machines are the vCPUs of the new fixed nodes and of the machines to
	// buy. Freed are the vCPUs of the nodes to be removed.
	Fixed    int64 `json:"fixed"`
	Machines int64 `json:"machines"`
	Freed    int64 `json:"freed"`
	// Shortage says what exceeds the quota, and what to do; empty if nothing does.
	Shortage string `json:"missing,omitempty"`
	// Blocking reports whether the move cannot start because of the shortage.
	// Otherwise it proceeds as removed nodes free their vCPUs.
	Blocking bool `json:"blocks,omitempty"`
	advice   string
	// least is the number of vCPUs of the smallest machine.
	least int64
}

// setQuotas sets the quotas of the source. Their usage is that after nodes
// have been removed and the fixed ones created; the result has both changes.
func (s *Source) setQuotas(usages []instancetype.Usage, region string, removed []RemovedNode, fixed []FixedNodes) ([]*QuotaUse, error) {
	quotas, err := quotasOf(usages, region)
	if err != nil {
		return nil, err
	}
	var uses []*QuotaUse
	for i := range quotas {
		q := &quotas[i]
		u := &QuotaUse{Name: q.Name, Title: q.Title, Limit: q.Limit, Used: q.Used, advice: q.Advice}
		for _, g := range removed {
			u.Freed += charge(q, g.Size, g.CapacityType)
		}
		for _, f := range fixed {
			u.Fixed += int64(f.Count) * charge(q, f.Size, "on-demand")
		}
		q.Used += u.Fixed - u.Freed
		uses = append(uses, u)
	}
	s.Objects.Quotas = quotas
	return uses, nil
}

// charge returns the number of vCPUs that a machine takes from a quota.
func charge(q *snapshot.Quota, size, capacityType string) int64 {
	for _, c := range q.CapacityTypes {
		if c == capacityType {
			return q.Charges[size]
		}
	}
	return 0
}

// judge adds the machines of the plan and the shortages to the uses, and returns
// the uses that the move changes.
func judge(uses []*QuotaUse, quotas []snapshot.Quota, machines []Machine) []QuotaUse {
	var out []QuotaUse
	for i, u := range uses {
		for _, m := range machines {
			if n := charge(&quotas[i], m.Size, m.CapacityType); n > 0 {
				u.Machines += n
				if u.least == 0 || n < u.least {
					u.least = n
				}
			}
		}
		if u.Fixed == 0 && u.Machines == 0 && u.Freed == 0 {
			continue
		}
		left := u.Limit - u.Used
		name := u.Title
		if name == "" {
			name = u.Name
		}
		switch {
		case u.Fixed > 0 && u.Fixed > left:
			u.Blocking = true
			u.Shortage = fmt.Sprintf("%s: the fixed nodes need %d vCPUs and %d of %d are left while the nodes that go still exist; they cannot be created", name, u.Fixed, max(0, left), u.Limit)
		case u.least > left-u.Fixed && u.Machines > 0:
			u.Blocking = true
			u.Shortage = fmt.Sprintf("%s: the smallest of the machines needs %d vCPUs and %d of %d are left; none can be bought before a node is deleted", name, u.least, max(0, left-u.Fixed), u.Limit)
		case u.Machines > 0 && u.Machines > left-u.Fixed:
			u.Shortage = fmt.Sprintf("%s: the machines need %d vCPUs and %d of %d are left now; the rest is bought as nodes are deleted, which frees %d", name, u.Machines, left-u.Fixed, u.Limit, u.Freed)
		}
		if u.Shortage != "" {
			advice := u.advice
			if u.Fixed > left {
				ask, _, _ := strings.Cut(advice, ", or ") // the rest is about NodePools
				advice = ask + ", or create fewer fixed nodes or of another family"
			}
			u.Shortage += ". To start at once, " + advice
		}
		out = append(out, *u)
	}
	return out
}

// BlockedByQuota returns the shortages that keep the move from starting, joined, or
// an empty string.
func (m *MoveReport) BlockedByQuota() string {
	var out []string
	for _, q := range m.Quotas {
		if q.Blocking {
			out = append(out, q.Shortage)
		}
	}
	return strings.Join(out, "; ")
}
