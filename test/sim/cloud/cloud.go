// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

// Package cloud is Azure in simulated time: the part of Azure Resource Manager's
// contract that the provider uses, spoken to the Azure SDK through a transport in the
// same process; the machines behind it, with what they cost; and the kubelets on them.
//
// All durations are drawn from the options' random numbers, and everything that happens
// by itself happens in one schedule, so the same numbers give the same history.
package cloud

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/containerservice/armcontainerservice/v8"

	"github.com/nap-aks/nap/azure"
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

// Capacity types of machines.
const (
	onDemand = "on-demand"
	spotType = "spot"
)

// Options configure a Cloud.
type Options struct {
	Rand       *rand.Rand
	Location   string // "eastus"
	Kubernetes string // version of the cluster, without v
	// Dataplane is the cluster's network dataplane: "cilium", or empty for AKS's own.
	Dataplane string
	// Latency is how long a request takes, Create how long a machine takes from the
	// request until it exists, Boot from then until its kubelet registers.
	Latency, Create, Boot Span
	// Fail is how long Azure takes to say that a machine cannot be had, Delete how long
	// it takes to delete one; both are Create's if zero.
	Fail, Delete Span
	// Poll is how long Azure asks clients to wait between two looks at an operation: 1 s
	// if zero, nothing if negative.
	Poll time.Duration
	// SpotNotice is how long before its eviction a spot machine is told: 30 s if zero,
	// not at all if negative.
	SpotNotice time.Duration
	// Quotas are vCPUs by family ("standardDSv5Family"), "regional" for all regular
	// machines and "lowPriorityCores" for spot machines. What is not named has no quota.
	Quotas map[string]int
	// Budgets limit requests by kind; nil means that nothing is throttled. See
	// AzureBudgets.
	Budgets map[string]Budget
	// Intercept, if not nil, is asked before each request is handled. It may sleep.
	Intercept func(context.Context, *Call) Fault
}

// Call is a request to Azure Resource Manager.
type Call struct {
	Method string
	// Operation names what is asked for: token, cluster, skus, usages, images, prices,
	// machines (a list), machine, delete, operation, or empty for what is not served.
	Operation string
	Machine   string // its name, of machine; the operation's of operation
}

// Fault is what happens to a request. The zero value is nothing.
type Fault struct {
	Before, After time.Duration // passes before it is handled, and before the answer
	// Status, Code and Message are the answer of a request that is not handled.
	Status        int
	Code, Message string
	RetryAfter    time.Duration // of that answer; rounded up to seconds
	Lose          bool          // handle it, and break the connection instead of answering
	Hang          bool          // neither handle nor answer it
}

// Machine is a virtual machine.
type Machine struct {
	Name, NodeName, ProviderID string
	Size, Zone, CapacityType   string
	NodePool, Claim            string    // of its tags
	USDPerHour                 float64   // its price now
	Created                    time.Time // when it was asked for
	Running                    time.Time // when it existed first; zero before
	Booted                     time.Time // when its kubelet started first; zero before
	Deleted                    time.Time // when it is gone; zero before
	Deleting                   bool
	Failed                     bool // it could not be made; see Launch.Late
	// Broken is whether a fault of the scenario keeps it from serving.
	Broken bool

	etag    int
	state   string // provisioningState
	code    string // of a failure
	text    string
	body    *armcontainerservice.Machine // as it was asked for
	json    []byte                       // as it is answered; nil if that has changed
	spec    intent.MachineIntent
	vcpus   int
	costs   bool // it is in the account
	charged bool // it is in the quotas
}

// Alive reports whether the machine exists, or will, and is not being deleted.
func (m *Machine) Alive() bool { return !m.Failed && !m.Deleting && m.Deleted.IsZero() }

// EventType is what happened to a machine.
type EventType string

// The events of machines.
const (
	Bought  EventType = "bought"  // it exists and costs
	Failed  EventType = "failed"  // it could not be made
	Booted  EventType = "booted"  // its kubelet starts
	Evicted EventType = "evicted" // a spot machine is told that it will be gone soon
	Gone    EventType = "gone"    // it does not exist any more
)

// Launch is what faults decide about a machine that is asked for.
type Launch struct {
	// Code and Message are the error if there is no such machine to be had. If Late
	// is set, the machine exists all the same, so long after the error, even if it was
	// deleted in the meantime, unless another one has its name by then.
	Code, Message string
	Late          time.Duration
	NeverRegister bool
	NeverReady    bool
}

// Counts are numbers of machines since the start.
type Counts struct {
	Asked   int // requests that were accepted
	Bought  int
	Failed  int
	Deleted int // that had existed
	Evicted int // of those, spot machines that Azure took away
}

// Cloud is the subscription of one cluster. Use New.
type Cloud struct {
	options Options
	sizes   map[string]*catalog.Size
	due     schedule

	mu         sync.Mutex
	machines   map[string]*Machine // that Azure Resource Manager lists, by name
	live       map[*Machine]bool   // that exist or are being made
	sorted     []*Machine          // live, by name; nil if they have changed
	names      map[string]int      // how often each name was used
	prices     []priceChange
	account    account
	quotas     map[string]int // by quotaName
	used       map[string]int // vCPUs by quotaName
	soldOut    []*StockOut
	buckets    map[string]*bucket
	operations map[string]*operation
	lastID     int
	calls      map[string]int
	refused    int
	counts     Counts
	skuList    []byte
	launch     func(*Machine) Launch
	listeners  []func(EventType, *Machine)
}

// New returns a cloud without machines. It returns an error if the location is not in
// the catalogue.
func New(o Options) (*Cloud, error) {
	sizes, err := catalog.Sizes(o.Location)
	if err != nil {
		return nil, fmt.Errorf("location of the simulated cloud: %w", err)
	}
	if o.Fail == (Span{}) {
		o.Fail = o.Create
	}
	if o.Delete == (Span{}) {
		o.Delete = o.Create
	}
	if o.Poll == 0 {
		o.Poll = time.Second
	}
	if o.SpotNotice == 0 {
		o.SpotNotice = 30 * time.Second
	}
	c := &Cloud{
		options: o, sizes: map[string]*catalog.Size{}, machines: map[string]*Machine{}, live: map[*Machine]bool{}, names: map[string]int{},
		account: account{since: time.Now()}, quotas: map[string]int{}, used: map[string]int{}, buckets: map[string]*bucket{},
		operations: map[string]*operation{}, calls: map[string]int{},
	}
	for i := range sizes {
		c.sizes[strings.ToLower(sizes[i].Name)] = &sizes[i]
	}
	for k, v := range o.Quotas {
		c.quotas[quotaName(k)] = v
	}
	for kind, b := range o.Budgets {
		c.buckets[kind] = &bucket{Budget: b, tokens: float64(b.Burst), at: time.Now()}
	}
	return c, nil
}

// Subscribe calls f after each event of a machine, in the order in which they happen.
// f must change neither the machine nor the cloud, and must not block.
func (c *Cloud) Subscribe(f func(EventType, *Machine)) { c.listeners = append(c.listeners, f) }

// OnLaunch sets what decides about machines that are asked for. It must not call the
// cloud, but for Family.
func (c *Cloud) OnLaunch(f func(*Machine) Launch) { c.launch = f }

// tell tells the listeners. The caller must not hold the lock.
func (c *Cloud) tell(t EventType, m *Machine) {
	for _, f := range c.listeners {
		f(t, m)
	}
}

// Machines returns all machines that exist or are being made, by name. The slice must
// not be changed.
func (c *Cloud) Machines() []*Machine {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.list()
}

// list returns all machines that exist or are being made, by name. The caller holds the
// lock.
func (c *Cloud) list() []*Machine {
	if c.sorted == nil {
		out := make([]*Machine, 0, len(c.live))
		for m := range c.live {
			out = append(out, m)
		}
		slices.SortFunc(out, func(a, b *Machine) int { return strings.Compare(a.NodeName, b.NodeName) })
		slices.SortStableFunc(out, func(a, b *Machine) int { return strings.Compare(a.Name, b.Name) })
		c.sorted = out
	}
	return c.sorted
}

// MachineOf returns the machine of a node that exists or is being made, or nil.
func (c *Cloud) MachineOf(node string) *Machine {
	name, ok := strings.CutPrefix(node, "aks-"+azure.DefaultMachinesPool+"-")
	i := strings.LastIndex(strings.TrimSuffix(name, "-vm"), "-")
	if !ok || i < 0 {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if m := c.machines[name[:i]]; m != nil && m.NodeName == node && c.live[m] {
		return m
	}
	return nil
}

// Counts returns how many machines were asked for, bought and so on.
func (c *Cloud) Counts() Counts {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.counts
}
