package plan

import (
	"fmt"
	"strings"

	"github.com/nap-aks/nap/azure/instancetype"
	"github.com/nap-aks/nap/snapshot"
)

// QuotaUse is what a move does to one of the region's vCPU quotas.
type QuotaUse struct {
	Name  string `json:"name"` // Azure's name, such as standardDSv5Family
	Title string `json:"title,omitempty"`
	// Limit and Used are as Azure reports them now; the nodes that go are among
	// the used.
	Limit int64 `json:"limit"`
	Used  int64 `json:"used"`
	// Fixed and Machines are the vCPUs of the fixed nodes that come and of the
	// machines to buy, Freed those of the nodes that go.
	Fixed    int64 `json:"fixed"`
	Machines int64 `json:"machines"`
	Freed    int64 `json:"freed"`
	// Missing says what does not fit, and when. Blocks tells that the move cannot
	// begin because of it; otherwise it goes on as nodes go.
	Missing string `json:"missing,omitempty"`
	Blocks  bool   `json:"blocks,omitempty"`
	advice  string
	// least is what the smallest machine takes of it.
	least int64
}

// setQuotas tells the source which quotas there are. What is used is taken as it
// will be once the nodes that go have gone and the fixed ones have come; the
// result says what that changes.
func (s *Source) setQuotas(usages []instancetype.Usage, region string, gone []GoingNode, fixed []FixedNodes) ([]*QuotaUse, error) {
	quotas, err := quotasOf(usages, region)
	if err != nil {
		return nil, err
	}
	var uses []*QuotaUse
	for i := range quotas {
		q := &quotas[i]
		u := &QuotaUse{Name: q.Name, Title: q.Title, Limit: q.Limit, Used: q.Used, advice: q.Advice}
		for _, g := range gone {
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

// charge is what a machine takes of a quota.
func charge(q *snapshot.Quota, size, capacityType string) int64 {
	for _, c := range q.CapacityTypes {
		if c == capacityType {
			return q.Charges[size]
		}
	}
	return 0
}

// judge fills in what the plan's machines take of the quotas, says what is
// missing, and gives those that the move touches.
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
			u.Blocks = true
			u.Missing = fmt.Sprintf("%s: the fixed nodes need %d vCPUs and %d of %d are left, the nodes that go being there still; they cannot be created", name, u.Fixed, max(0, left), u.Limit)
		case u.least > left-u.Fixed && u.Machines > 0:
			u.Blocks = true
			u.Missing = fmt.Sprintf("%s: the smallest of the machines needs %d vCPUs and %d of %d are left; none can be bought before a node has gone", name, u.least, max(0, left-u.Fixed), u.Limit)
		case u.Machines > 0 && u.Machines > left-u.Fixed:
			u.Missing = fmt.Sprintf("%s: the machines need %d vCPUs and %d of %d are left now; the rest is bought as nodes go, which give back %d", name, u.Machines, left-u.Fixed, u.Limit, u.Freed)
		}
		if u.Missing != "" {
			advice := u.advice
			if u.Fixed > left {
				ask, _, _ := strings.Cut(advice, ", or ") // the rest is about NodePools
				advice = ask + ", or create fewer fixed nodes or of another family"
			}
			u.Missing += ". To have it at once, " + advice
		}
		out = append(out, *u)
	}
	return out
}

// BlockedByQuota says which quotas do not let the move begin; empty: none.
func (m *MoveReport) BlockedByQuota() string {
	var out []string
	for _, q := range m.Quotas {
		if q.Blocks {
			out = append(out, q.Missing)
		}
	}
	return strings.Join(out, "; ")
}
