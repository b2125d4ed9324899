// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package provisioning

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/nap-aks/nap/snapshot"
)

func never(string) bool { return false }

func TestBreakerBacksOffExponentially(t *testing.T) {
	b, now := newBreaker(), time.Unix(1e9, 0)
	var waits []time.Duration
	for i := range 12 {
		b.promise("ns/p", "s", "D2", fmt.Sprint("c", i), now)
		now = now.Add(time.Minute)
		b.broken("ns/p", "it did not fit", now)
		start := now
		for b.held("s", never, now) != "" {
			now = now.Add(time.Second)
		}
		waits = append(waits, now.Sub(start))
	}
	if waits[0] != 0 || waits[1] != holdFirst || waits[2] != 2*holdFirst || waits[11] != holdMost {
		t.Errorf("waits %v, want none, %s, twice that and so on up to %s", waits, holdFirst, holdMost)
	}
	for i := 2; i < len(waits); i++ {
		if waits[i] < waits[i-1] || waits[i] > holdMost {
			t.Errorf("waits %v do not grow up to %s", waits, holdMost)
		}
	}
	if why := b.held("other", never, now); why != "" {
		t.Errorf("pods of another shape are held: %s", why)
	}
}

func TestBreakerForgetsWhatWorks(t *testing.T) {
	b, now := newBreaker(), time.Unix(1e9, 0)
	fail := func(i int) {
		b.promise("ns/p", "s", "D2", fmt.Sprint("c", i), now)
		b.broken("ns/p", "x", now)
	}
	fail(1)
	fail(2)
	if b.held("s", never, now) == "" {
		t.Fatal("two failures in a row hold nothing")
	}
	// A sibling is promised another machine of the kind, and pods swap machines.
	b.promise("ns/q", "s", "D2", "c3", now)
	b.promise("ns/r", "s", "D2", "c4", now)
	b.served("ns/q", "node-4", "c4")
	if why := b.held("s", never, now); why != "" {
		t.Errorf("held although a pod of the shape runs on a machine of the kind: %s", why)
	}
	// A pod that found room anywhere says nothing about what was bought for it.
	fail(5)
	fail(6)
	b.promise("ns/q", "s", "D2", "c7", now)
	b.served("ns/q", "old-node", "")
	if b.held("s", never, now) == "" {
		t.Error("a pod on another node ended the wait")
	}
}

func TestPodsOfOnePlanThatLoseTheirPlacesAreOneFailure(t *testing.T) {
	b, now := newBreaker(), time.Unix(1e9, 0)
	for i := range 40 {
		b.promise(fmt.Sprint("ns/p", i), "s", "D32", fmt.Sprint("c", i/4), now)
	}
	for i := range 40 {
		now = now.Add(100 * time.Millisecond)
		b.broken(fmt.Sprint("ns/p", i), "room taken", now)
	}
	if why := b.held("s", never, now); why != "" {
		t.Errorf("one plan failed and pods are held: %s", why)
	}
}

func TestSizesThatFailInTurnAreHeldToo(t *testing.T) {
	b, now := newBreaker(), time.Unix(1e9, 0)
	n := 0
	for ; b.held("s", never, now) == "" && n < 100; n++ {
		now = now.Add(time.Second)
		b.promise("ns/p", "s", fmt.Sprint("size", n), fmt.Sprint("c", n), now)
		b.broken("ns/p", "x", now)
	}
	if n != freeFailures+1 {
		t.Errorf("held after %d sizes, want after %d", n, freeFailures+1)
	}
}

func TestMachinesThatAreGoneCount(t *testing.T) {
	b, now := newBreaker(), time.Unix(1e9, 0)
	state := map[string]snapshot.PlaceState{"launched": {Launched: true}, "refused": {}}
	at := func(place string) snapshot.PlaceState { return state[place] }
	b.promise("ns/p", "s", "D2", "launched", now)
	b.promise("ns/q", "s", "D2", "refused", now)
	if lost := b.observe(at, now); len(lost) != 0 {
		t.Fatalf("lost %v while the machines are there", lost)
	}
	state["launched"], state["refused"] = snapshot.PlaceState{Gone: true}, snapshot.PlaceState{Gone: true}
	if lost := b.observe(at, now); len(lost) != 1 || lost[0] != "ns/p" {
		t.Errorf("lost %v, want only the pod whose machine ran: the provider remembers failed launches", lost)
	}
}

func TestBreakerForgetsInTime(t *testing.T) {
	b, now := newBreaker(), time.Unix(1e9, 0)
	for i := range 3 {
		now = now.Add(time.Second)
		b.promise("ns/p", "s", "D2", fmt.Sprint("c", i), now)
		b.broken("ns/p", "x", now)
	}
	b.observe(func(string) snapshot.PlaceState { return snapshot.PlaceState{} }, now.Add(failureMemory/2))
	if !b.any() {
		t.Fatal("forgotten too soon")
	}
	b.observe(func(string) snapshot.PlaceState { return snapshot.PlaceState{} }, now.Add(3*failureMemory))
	if b.any() || len(b.places)+len(b.promised)+len(b.failed) != 0 {
		t.Errorf("still known: %+v", b)
	}
}

// A pod that no machine takes for a reason that the engine does not know: bought for
// one, it must not be bought for again and again.
func TestPodThatNoMachineTakesCostsLittle(t *testing.T) {
	for _, kept := range []bool{false, true} { // whether empty machines stay
		t.Run(fmt.Sprintf("empty machines stay %t", kept), func(t *testing.T) {
			env := newEnv(t)
			quiet := func(name string) *corev1.Pod {
				return pod(name, "1500m", of("quiet"), func(p *corev1.Pod) {
					p.Status.Conditions[0].Message = "0/4 nodes are available: a rule that nobody else knows"
				})
			}
			env.apply(quiet("quiet-1"))
			bought, most := map[string]bool{}, 0
			for start := env.clock.Now(); env.clock.Since(start) < 20*time.Minute; env.clock.Step(time.Second) {
				env.pass()
				env.registerAll()
				alive := env.claims()
				most = max(most, len(alive))
				for i := range alive {
					bought[alive[i].Name] = true
					if !kept && env.p.cache.Idle(alive[i].Name) { // consolidation
						if err := env.kube.Delete(env.ctx, &alive[i]); err != nil {
							t.Fatal(err)
						}
						node := &corev1.Node{}
						node.Name = alive[i].Name
						if err := errors.Join(env.p.cache.Delete(&alive[i]), env.p.cache.Delete(node)); err != nil {
							t.Fatal(err)
						}
					}
				}
			}
			if most > emptyMost {
				t.Errorf("%d machines alive for a pod that none takes, want at most %d", most, emptyMost)
			}
			// 0, 1, 1.5, 2.5, 4.5, 8.5 and 16.5 minutes, with the time until each is given up.
			if least := map[bool]int{true: 1, false: 2}[kept]; len(bought) < least || len(bought) > 8 {
				t.Errorf("%d machines bought in 20 minutes", len(bought))
			}
			told := env.events.about("quiet-1", "FailedScheduling")
			if len(told) == 0 || !strings.Contains(told[len(told)-1], "a rule that nobody else knows") {
				t.Errorf("the events do not tell why: %q", told)
			}
		})
	}
}
