// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package world

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/nap-aks/nap/test/sim/apiserver"
	"github.com/nap-aks/nap/test/sim/cloud"
	"github.com/nap-aks/nap/test/sim/scenario"
)

// fault is an injected fault while it may strike.
type fault struct {
	scenario.Fault
	rng   *rand.Rand
	until time.Time
	done  int // how often it has struck
	// bucket are the requests left in the present minute, of throttle.
	bucket int
	minute time.Time
}

// faults decides what goes wrong, and how long everything takes.
type faults struct {
	w      *world
	mu     sync.Mutex
	active []*fault
	rng    *rand.Rand // latencies of requests
	events *rand.Rand // latencies of watch events
	calls  int        // requests to Azure
}

func newFaults(w *world) *faults {
	return &faults{w: w, rng: scenario.Stream(w.options.Seed, "requests"), events: scenario.Stream(w.options.Seed, "events")}
}

// azureCalls returns how many requests were made to Azure Resource Manager.
func (f *faults) azureCalls() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.calls
}

// strikes reports whether the fault happens here, and counts it.
func (x *fault) strikes() bool {
	if time.Now().After(x.until) || x.Times > 0 && x.done >= x.Times || x.rng.Float64() >= x.Chance() {
		return false
	}
	x.done++
	return true
}

// of returns the active faults of the kinds. The caller holds the lock.
func (f *faults) of(kinds ...string) []*fault {
	var out []*fault
	for _, x := range f.active {
		for _, k := range kinds {
			if x.Kind == k && !time.Now().After(x.until) {
				out = append(out, x)
			}
		}
	}
	return out
}

// inject begins a fault. Those that strike once do so now.
func (f *faults) inject(s scenario.Inject) error {
	x := &fault{Fault: s.Fault, rng: scenario.Stream(s.Seed, s.Fault.Kind), until: f.w.start.Add(s.Until)}
	f.mu.Lock()
	f.active = append(f.active, x)
	f.mu.Unlock()
	w := f.w
	switch s.Fault.Kind {
	case "apiRestart":
		w.api.Restart()
	case "leaderOverlap":
		second := w.newControllers(context.Background())
		go func() {
			time.Sleep(time.Until(x.until))
			second.kill()
		}()
	case "quota":
		w.cloud.SetQuota(s.Fault.Family, s.Fault.Limit)
		go func() {
			time.Sleep(time.Until(x.until))
			w.cloud.SetQuota(s.Fault.Family, -1)
		}()
	case "spotEvict":
		var list []*cloud.Machine
		for _, m := range w.cloud.Machines() {
			if m.CapacityType == "spot" && !m.Running.IsZero() && x.offers(w.cloud, m) {
				list = append(list, m)
			}
		}
		x.rng.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
		for _, m := range list[:min(x.Count.Of(len(list)), len(list))] {
			w.cloud.Evict(m.Name)
		}
	case "notReady":
		for _, n := range w.chooseNodes(scenario.Nodes{Count: x.Count}, x.rng) {
			w.kubelets.SetReady(n.Name, false)
			delay := x.Delay.Draw(x.rng)
			if delay == 0 {
				delay = time.Until(x.until)
			}
			time.AfterFunc(delay, func() { w.kubelets.SetReady(n.Name, true) })
		}
	}
	return nil
}

// offers reports whether a machine is of the offerings that the fault names.
func (x *fault) offers(c *cloud.Cloud, m *cloud.Machine) bool {
	return (x.Size == "" || strings.EqualFold(x.Size, m.Size)) &&
		(x.Family == "" || strings.EqualFold(x.Family, c.Family(m.Size))) &&
		(x.Zone == "" || strings.HasSuffix(x.Zone, m.Zone) && m.Zone != "") &&
		(x.CapacityType == "" || x.CapacityType == m.CapacityType)
}

// matches reports whether a request of a client is one that the fault names.
func (x *fault) matches(client, verb, resource string) bool {
	want := x.Client
	if want == "" {
		want = napClient
	}
	return want == client && (x.Verb == "" || x.Verb == verb) && (x.Resource == "" || x.Resource == resource)
}

func writes(verb string) bool {
	return verb == "create" || verb == "update" || verb == "patch" || strings.HasPrefix(verb, "delete")
}

// request decides about a request to the API server.
func (f *faults) request(_ context.Context, c *apiserver.Call) apiserver.Fault {
	w := f.w
	f.mu.Lock()
	defer f.mu.Unlock()
	var out apiserver.Fault
	out.Before = w.settings.APILatency.Draw(f.rng)
	if c.Verb == "create" && c.Resource == claimResource {
		out.Before += w.settings.PlanTime.Draw(f.rng)
	}
	for _, x := range f.active {
		if !x.matches(c.Client, c.Verb, c.Resource.Resource) || c.Verb == "watch" {
			continue
		}
		switch x.Kind {
		case "conflict":
			if (c.Verb == "update" || c.Verb == "patch") && x.strikes() {
				out.Err = apierrors.NewConflict(c.Resource.GroupResource(), c.Name, fmt.Errorf("the object has been modified"))
			}
		case "loseAnswer":
			if x.strikes() {
				out.Lose = true
			}
		case "hang":
			if x.strikes() {
				out.Hang = true
			}
		case "staleList":
			if c.Verb == "list" && x.strikes() {
				out.After += x.Delay.Draw(x.rng)
			}
		case "crashController":
			if c.Client == napClient && writes(c.Verb) && x.strikes() {
				delay := x.Delay.Draw(x.rng)
				if delay == 0 {
					delay = restartDelay
				}
				if x.When == "before" {
					out.Hang = true
				}
				go w.crash(delay)
			}
		}
	}
	return out
}

// watchDelay decides how late a watch event arrives.
func (f *faults) watchDelay(client string, resource schema.GroupVersionResource) time.Duration {
	f.mu.Lock()
	defer f.mu.Unlock()
	d := f.w.settings.WatchLatency.Draw(f.events)
	for _, x := range f.of("watchDelay", "coalesce") {
		if x.matches(client, "watch", resource.Resource) && x.strikes() {
			d += x.Delay.Draw(x.rng)
		}
	}
	return d
}

// azure decides about a request to Azure Resource Manager.
func (f *faults) azure(_ context.Context, c *cloud.Call) cloud.Fault {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls++
	var out cloud.Fault
	if c.Operation == "token" {
		return out
	}
	verb := map[string]string{"GET": "get", "PUT": "update", "POST": "delete", "PATCH": "patch", "DELETE": "delete"}[c.Method]
	for _, x := range f.of("loseAnswer", "hang", "throttle") {
		switch {
		case x.Kind == "throttle":
			if now := time.Now(); now.Sub(x.minute) >= time.Minute {
				x.minute, x.bucket = now, x.Limit
			}
			if x.bucket--; x.bucket < 0 {
				out.Status, out.Code, out.Message = 429, "TooManyRequests", "The request is being throttled as the limit has been reached for operation type."
				if out.RetryAfter = x.Delay.Draw(x.rng); out.RetryAfter == 0 {
					out.RetryAfter = 10 * time.Second
				}
			}
		case x.Client != azureClient || x.Verb != "" && x.Verb != verb:
		case x.strikes():
			out.Lose, out.Hang = x.Kind == "loseAnswer", x.Kind == "hang"
		}
	}
	return out
}

// launch decides about a machine that is asked for.
func (f *faults) launch(m *cloud.Machine) cloud.Launch {
	f.mu.Lock()
	defer f.mu.Unlock()
	var out cloud.Launch
	for _, x := range f.of("stockOut", "lateSuccess", "neverRegister", "neverReady") {
		if !x.offers(f.w.cloud, m) || !x.strikes() {
			continue
		}
		switch x.Kind {
		case "stockOut":
			out.Code, out.Message = "SkuNotAvailable", "The requested VM size for resource 'Following SKUs have failed for Capacity Restrictions: "+m.Size+"' is currently not available in location '"+f.w.settings.Location+"'. Please try another size or deploy to a different location or different zone."
			if m.Zone != "" {
				out.Code, out.Message = "ZonalAllocationFailed", "Allocation failed. We do not have sufficient capacity for the requested VM size in this zone."
			}
		case "lateSuccess":
			out.Code, out.Message, out.Late = "OperationTimedOut", "The operation did not finish in time.", max(x.Delay.Draw(x.rng), time.Second)
		case "neverRegister":
			out.NeverRegister = true
		case "neverReady":
			out.NeverReady = true
		}
	}
	return out
}
