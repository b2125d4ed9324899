// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package fleet

import (
	"context"
	"errors"
	"fmt"
	"path"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/nap-aks/nap/localazure/intent"
)

// FaultsPrefix is the prefix of the instance's faults in etcd, one key each.
const FaultsPrefix = "/nap/local/faults/"

// FaultKind is the effect of a fault.
type FaultKind string

// The kinds of faults.
const (
	// Stockout makes the allocation of matching machines fail with Code.
	Stockout FaultKind = "stockout"
	// SlowBoot makes matching machines take BootTime to boot.
	SlowBoot FaultKind = "slow-boot"
	// Silent stops the kubelets of matching machines: no more heartbeats.
	Silent FaultKind = "silent"
)

// Fault is a rule about machines. Empty fields match everything.
type Fault struct {
	Name string    `json:"name"`
	Kind FaultKind `json:"kind"`
	// Size is a case-insensitive pattern of VM sizes, such as Standard_D*_v5.
	Size string `json:"size,omitempty"`
	// Zone is a zone's number, Capacity "spot" or "on-demand".
	Zone     string `json:"zone,omitempty"`
	Capacity string `json:"capacity,omitempty"`
	// Pool is the agent pool, Node the name of one node.
	Pool string `json:"pool,omitempty"`
	Node string `json:"node,omitempty"`
	// Share is the fraction of the matching machines that are hit, 0 to 1; zero
	// means all. Names decide which ones, so a run can be repeated.
	Share float64 `json:"share,omitempty"`
	// Code is the Azure error of a Stockout.
	Code string `json:"code,omitempty"`
	// BootTime is that of a SlowBoot.
	BootTime time.Duration `json:"bootTime,omitempty"`
}

// Check validates a fault. It fills in a missing code of a Stockout: Azure's code
// for a zone, or for a region.
func (f *Fault) Check() error {
	if f.Name == "" || strings.Contains(f.Name, "/") {
		return fmt.Errorf("fault %q: the name must not be empty or contain a slash", f.Name)
	}
	if _, err := path.Match(strings.ToLower(f.Size), "x"); err != nil {
		return fmt.Errorf("fault %s: size %q: %w", f.Name, f.Size, err)
	}
	if f.Capacity != "" && f.Capacity != "spot" && f.Capacity != "on-demand" {
		return fmt.Errorf("fault %s: capacity %q is neither spot nor on-demand", f.Name, f.Capacity)
	}
	if f.Share < 0 || f.Share > 1 {
		return fmt.Errorf("fault %s: share %g is not between 0 and 1", f.Name, f.Share)
	}
	switch f.Kind {
	case Stockout:
		if f.Code == "" {
			f.Code = "AllocationFailed"
			if f.Zone != "" {
				f.Code = "ZonalAllocationFailed"
			}
		}
	case SlowBoot:
		if f.BootTime <= 0 {
			return fmt.Errorf("fault %s: a slow boot needs a boot time", f.Name)
		}
	case Silent:
		if f.Node == "" && f.Pool == "" && f.Size == "" {
			return errors.New("a silent fault needs a node, a pool or a size: it would stop every kubelet")
		}
	default:
		return fmt.Errorf("fault %s: kind %q is not one of %s, %s, %s", f.Name, f.Kind, Stockout, SlowBoot, Silent)
	}
	return nil
}

// hits reports whether a machine matches.
func (f *Fault) hits(m intent.MachineIntent) bool {
	capacity := "on-demand"
	if m.Spot {
		capacity = "spot"
	}
	if f.Size != "" {
		if ok, err := path.Match(strings.ToLower(f.Size), strings.ToLower(m.VMSize)); err != nil || !ok {
			return false
		}
	}
	return (f.Zone == "" || f.Zone == m.Zone) && (f.Capacity == "" || f.Capacity == capacity) &&
		(f.Pool == "" || f.Pool == m.Pool) && (f.Node == "" || f.Node == m.NodeName) &&
		(f.Share == 0 || float64(hash(f.Name+"/"+m.Pool+"/"+m.Name)%10000) < f.Share*10000)
}

// message returns Azure's text for a failed allocation.
func (f *Fault) message(m intent.MachineIntent) string {
	where := "region " + m.Location
	if m.Zone != "" {
		where = "zone " + m.Zone + " of " + m.Location
	}
	return fmt.Sprintf("Allocation failed: there is no capacity left for size %s in %s (fault %q of this local Azure).", m.VMSize, where, f.Name)
}

// fault returns a fault of that kind that hits a machine.
func (f *fleet) fault(kind FaultKind, m intent.MachineIntent) (Fault, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, r := range f.faults {
		if r.Kind == kind && r.hits(m) {
			return r, true
		}
	}
	return Fault{}, false
}

// setFault stores a fault, or deletes it if fault is nil, and wakes all machines.
func (f *fleet) setFault(name string, fault *Fault) {
	f.mu.Lock()
	if fault == nil {
		delete(f.faults, name)
	} else {
		f.faults[name] = *fault
	}
	clusters := make([]*clusterFleet, 0, len(f.clusters))
	for _, c := range f.clusters {
		clusters = append(clusters, c)
	}
	f.mu.Unlock()
	for _, c := range clusters {
		c.wakeAll()
	}
}

// PutFault checks and writes a fault.
func PutFault(ctx context.Context, c clientv3.KV, f Fault) error {
	if err := f.Check(); err != nil {
		return err
	}
	return intent.Put(ctx, c, FaultsPrefix+f.Name, f)
}

// Faults lists the active faults.
func Faults(ctx context.Context, c clientv3.KV) ([]Fault, error) {
	out, _, err := intent.List[Fault](ctx, c, FaultsPrefix)
	return out, err
}

// ClearFault deletes one fault, or all if the name is empty.
func ClearFault(ctx context.Context, c clientv3.KV, name string) error {
	if name != "" {
		return intent.Delete(ctx, c, FaultsPrefix+name)
	}
	if _, err := c.Delete(ctx, FaultsPrefix, clientv3.WithPrefix()); err != nil {
		return fmt.Errorf("clearing faults: %w", err)
	}
	return nil
}
