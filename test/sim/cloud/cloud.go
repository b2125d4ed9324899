// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

// Package cloud is Azure in simulated time: the part of Azure Resource Manager's
// contract that the provider uses, spoken to the Azure SDK through a transport in the
// same process; the machines behind it, with what they cost; and the kubelets on them.
package cloud

import (
	"context"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/containerservice/armcontainerservice/v8"

	"github.com/nap-aks/nap/catalog"
	"github.com/nap-aks/nap/localazure/intent"
)

// Span is a range of durations, from which one is drawn each time.
type Span struct{ Min, Max time.Duration }

// draw returns a duration of the span.
func (s Span) draw(r *rand.Rand) time.Duration {
	if s.Max <= s.Min {
		return s.Min
	}
	return s.Min + time.Duration(r.Int64N(int64(s.Max-s.Min)+1))
}

// Names of the simulated subscription.
const (
	Subscription = "11111111-1111-1111-1111-111111111111"
	Tenant       = "22222222-2222-2222-2222-222222222222"
	ClusterID    = "/subscriptions/" + Subscription + "/resourceGroups/sim/providers/Microsoft.ContainerService/managedClusters/sim"
	// NodeGroup is the node resource group.
	NodeGroup = "MC_sim_sim"
)

// Options configure a Cloud.
type Options struct {
	Rand       *rand.Rand
	Location   string // "eastus"
	Kubernetes string // version of the cluster, without v
	// Latency is how long a request takes, Create how long a machine takes from the
	// request until it exists, Boot from then until its kubelet registers.
	Latency, Create, Boot Span
	// Quotas are vCPUs by family ("standardDSv5Family"), or "cores" for the region.
	// What is not named has no quota.
	Quotas map[string]int
	// Intercept, if not nil, is asked before each request is handled. It may sleep.
	Intercept func(context.Context, *Call) Fault
}

// Call is a request to Azure Resource Manager.
type Call struct {
	Method string
	// Operation names what is asked for: token, cluster, skus, usages, images,
	// machines (a list), machine, delete or operation.
	Operation string
	Machine   string // its name, of machine
}

// Fault is what happens to a request. The zero value is nothing.
type Fault struct {
	Before, After time.Duration // passes before it is handled, and before the answer
	// Status, Code and Message are the answer of a request that is not handled.
	Status        int
	Code, Message string
	RetryAfter    time.Duration // of that answer
	Lose          bool          // handle it, and break the connection instead of answering
	Hang          bool          // neither handle nor answer it
}

// Machine is a virtual machine.
type Machine struct {
	Name, NodeName, ProviderID string
	Size, Zone, CapacityType   string
	NodePool, Claim            string // of its tags
	USDPerHour                 float64
	Created                    time.Time // when it was asked for
	Running                    time.Time // when it exists; zero before
	Deleted                    time.Time // when it is gone; zero before
	Deleting                   bool
	Failed                     bool // it was never made
	// Broken is whether a fault of the scenario keeps it from serving.
	Broken bool

	etag  int
	state string // provisioningState
	code  string // of a failure
	text  string
	body  armcontainerservice.Machine
	spec  intent.MachineIntent
	vcpus int
}

// Alive reports whether the machine exists, or will, and is not being deleted.
func (m *Machine) Alive() bool { return !m.Failed && !m.Deleting && m.Deleted.IsZero() }

// EventType is what happened to a machine.
type EventType string

// The events of machines.
const (
	Bought EventType = "bought" // it exists and costs
	Failed EventType = "failed" // it could not be made
	Booted EventType = "booted" // its kubelet starts
	Gone   EventType = "gone"   // it does not exist any more
)

// Launch is what faults decide about a machine that is asked for.
type Launch struct {
	// Code and Message are the error if there is no such machine to be had. If Late
	// is set, the machine exists all the same, so long after the error.
	Code, Message string
	Late          time.Duration
	NeverRegister bool
	NeverReady    bool
}

// Cloud is the subscription of one cluster.
type Cloud struct {
	options Options
	sizes   map[string]*catalog.Size

	mu        sync.Mutex
	machines  map[string]*Machine // by name; those that are gone, too, until their name is used again
	gone      []*Machine
	prices    map[string]float64 // factors by size and capacity type
	usd       float64            // spent until since
	rate      float64            // USD per hour now
	since     time.Time
	quotas    map[string]int
	launch    func(*Machine) Launch
	listeners []func(EventType, *Machine)
}

// New returns a cloud without machines. It returns an error if the location is not in
// the catalogue.
func New(o Options) (*Cloud, error) {
	sizes, err := catalog.Sizes(o.Location)
	if err != nil {
		return nil, err
	}
	c := &Cloud{options: o, sizes: map[string]*catalog.Size{}, machines: map[string]*Machine{}, prices: map[string]float64{}, since: time.Now(), quotas: map[string]int{}}
	for i := range sizes {
		c.sizes[strings.ToLower(sizes[i].Name)] = &sizes[i]
	}
	for k, v := range o.Quotas {
		c.quotas[strings.ToLower(k)] = v
	}
	return c, nil
}

// Subscribe calls f after each event of a machine, which f must not change.
func (c *Cloud) Subscribe(f func(EventType, *Machine)) { c.listeners = append(c.listeners, f) }

// OnLaunch sets what decides about machines that are asked for.
func (c *Cloud) OnLaunch(f func(*Machine) Launch) { c.launch = f }

func (c *Cloud) tell(t EventType, m *Machine) {
	for _, f := range c.listeners {
		f(t, m)
	}
}

// Machines returns all machines that exist or are being made, by name.
func (c *Cloud) Machines() []*Machine {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := make([]*Machine, 0, len(c.machines))
	for _, m := range c.machines {
		if m.Deleted.IsZero() && !m.Failed {
			out = append(out, m)
		}
	}
	slices.SortFunc(out, func(a, b *Machine) int { return strings.Compare(a.Name, b.Name) })
	return out
}

// Cost returns what all machines have cost so far, in USD, and what they cost per
// hour now.
func (c *Cloud) Cost() (usd, perHour float64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.settle()
	return c.usd, c.rate
}

// settle adds the cost since the last change. The caller holds the lock.
func (c *Cloud) settle() {
	now := time.Now()
	c.usd += c.rate * now.Sub(c.since).Hours()
	c.since = now
	c.rate = 0
	names := make([]string, 0, len(c.machines))
	for n := range c.machines {
		names = append(names, n)
	}
	slices.Sort(names) // the sum of floating-point numbers depends on the order
	for _, n := range names {
		if m := c.machines[n]; !m.Running.IsZero() && m.Deleted.IsZero() {
			c.rate += m.USDPerHour
		}
	}
}

// SetQuota changes the quota of a family, or of the region ("cores" or ""); a negative
// limit means none.
func (c *Cloud) SetQuota(family string, limit int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	family = strings.ToLower(family)
	if family == "" {
		family = "cores"
	}
	if limit < 0 {
		delete(c.quotas, family)
	} else {
		c.quotas[family] = limit
	}
}

// used returns the vCPUs in use of a family, or of the region.
func (c *Cloud) used(family string) int {
	n := 0
	for _, m := range c.machines {
		if !m.Failed && m.Deleted.IsZero() && (family == "cores" || strings.EqualFold(c.sizes[strings.ToLower(m.Size)].Family, family)) {
			n += m.vcpus
		}
	}
	return n
}

// price returns what a machine costs in USD per hour. The caller holds the lock.
func (c *Cloud) price(s *catalog.Size, spot bool) float64 {
	usd, kind := s.OnDemandUSDPerHour, "on-demand"
	if spot {
		usd, kind = s.SpotUSDPerHour, "spot"
	}
	for _, k := range []string{kind, ""} {
		for _, what := range []string{strings.ToLower(s.Name), strings.ToLower(s.Family), ""} {
			if f, ok := c.prices[what+"/"+k]; ok {
				return usd * f
			}
		}
	}
	return usd
}

// SetPrice multiplies the prices of a size or a family, or of all, for a capacity
// type, or for both. It holds for machines that exist, too.
func (c *Cloud) SetPrice(size, family, capacityType string, times float64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.settle()
	what := size
	if what == "" {
		what = family
	}
	c.prices[strings.ToLower(what)+"/"+capacityType] = times
	for _, m := range c.machines {
		m.USDPerHour = c.price(c.sizes[strings.ToLower(m.Size)], m.CapacityType == "spot")
	}
	c.settle()
}

// Family returns the quota family of a size, or "" if there is no such size.
func (c *Cloud) Family(size string) string {
	if s := c.sizes[strings.ToLower(size)]; s != nil {
		return s.Family
	}
	return ""
}

// Remove takes a machine away, as Azure does when it evicts a spot machine or somebody
// deletes it behind our back.
func (c *Cloud) Remove(name string) {
	c.mu.Lock()
	m := c.machines[name]
	if m == nil || !m.Deleted.IsZero() {
		c.mu.Unlock()
		return
	}
	c.end(m)
	c.mu.Unlock()
	c.tell(Gone, m)
}

// end marks a machine as gone. The caller holds the lock.
func (c *Cloud) end(m *Machine) {
	c.settle()
	m.Deleted = time.Now()
	c.settle()
	delete(c.machines, m.Name)
}

// sleepThen runs f after d.
func sleepThen(d time.Duration, f func()) { time.AfterFunc(d, f) }
