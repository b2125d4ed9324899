// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package arm_test

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nap-aks/nap/localazure/arm/armtest"
)

// Many writers change one resource, each on the condition of the etag that it
// read, while the server is killed repeatedly: every acknowledged change is made
// on top of exactly one earlier state, none is lost, and no read is older than a
// change that was acknowledged before.
func TestETagsAreLinearizable(t *testing.T) {
	a := armtest.New(t)
	newGroup(a)
	type write struct{ from, to int }
	var mu sync.Mutex
	var acked []write
	var last atomic.Int64 // highest acknowledged value
	path := group + "/providers/Microsoft.ManagedIdentity/userAssignedIdentities/counter"
	if r := a.Do("PUT", path, map[string]any{"location": "eastus", "tags": map[string]any{"n": "0"}}); r.Status != 201 {
		t.Fatal(r.Body)
	}
	value := func(r armtest.Reply) int {
		n := -1
		tags, _ := r.JSON["tags"].(map[string]any)
		s, _ := tags["n"].(string)
		if _, err := fmt.Sscan(s, &n); err != nil {
			t.Errorf("no counter in %s", r.Body)
		}
		return n
	}
	const each, writers, kills = 12, 8, 6
	var wg sync.WaitGroup
	stop := make(chan struct{})
	restarts := make(chan int)
	go func() {
		n := 0
		defer func() { restarts <- n }()
		// The kills are spread over the changes, not over time, so that they all
		// happen on a fast machine too.
		for ; n < kills; n++ {
			for int(last.Load()) < each*writers*(n+1)/(kills+2) {
				select {
				case <-stop:
					return
				case <-time.After(time.Duration(1+rand.IntN(10)) * time.Millisecond):
				}
			}
			a.Stop()
			a.Start()
		}
	}()
	for range writers {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for done := 0; done < each; {
				floor := int(last.Load())
				r, err := a.Try("GET", path, nil)
				if err != nil || r.Status != 200 {
					time.Sleep(10 * time.Millisecond)
					continue
				}
				n := value(r)
				if n < floor {
					t.Errorf("read %d after %d had been acknowledged", n, floor)
				}
				w, err := a.Try("PUT", path, map[string]any{"location": "eastus", "tags": map[string]any{"n": fmt.Sprint(n + 1)}}, "If-Match", r.Header.Get("ETag"))
				if err != nil || w.Status == http.StatusBadGateway || w.Status >= 500 {
					continue // not acknowledged: it may or may not have happened
				}
				switch w.Status {
				case 200:
					mu.Lock()
					acked = append(acked, write{n, n + 1})
					mu.Unlock()
					for {
						l := last.Load()
						if int64(n+1) <= l || last.CompareAndSwap(l, int64(n+1)) {
							break
						}
					}
					done++
				case 412:
				default:
					t.Errorf("PUT: %d %s", w.Status, w.Body)
					return
				}
			}
		}()
	}
	wg.Wait()
	close(stop)
	n := <-restarts
	slices.SortFunc(acked, func(x, y write) int { return x.from - y.from })
	for i := 1; i < len(acked); i++ {
		if acked[i].from == acked[i-1].from {
			t.Errorf("two changes on top of %d were both acknowledged", acked[i].from)
		}
	}
	end := value(a.Do("GET", path, nil))
	if end < acked[len(acked)-1].to || len(acked) != each*writers {
		t.Errorf("%d changes acknowledged, the last to %d, but the counter is %d", len(acked), acked[len(acked)-1].to, end)
	}
	t.Logf("%d changes, counter %d, %d restarts", len(acked), end, n)
	if n < kills {
		t.Errorf("only %d of %d restarts happened", n, kills)
	}
}

func TestETags(t *testing.T) {
	a := armtest.New(t)
	a.Machinery()
	newCluster(a, "Manual")
	r := a.Do("GET", clusterID, nil)
	tag := r.JSON["eTag"].(string)
	if r := a.Do("PUT", clusterID, clusterBody("Manual"), "If-None-Match", "*"); r.Status != 412 {
		t.Errorf("If-None-Match on an existing cluster: %d", r.Status)
	}
	if r := a.Do("PUT", clusterID, clusterBody("Manual"), "If-Match", "nonsense"); r.Status != 412 || r.Code() != "PreconditionFailed" {
		t.Errorf("wrong If-Match: %d %s", r.Status, r.Body)
	}
	put := a.Do("PUT", clusterID, clusterBody("Manual"), "If-Match", tag)
	a.MustSucceed(put)
	if r := a.Do("DELETE", clusterID, nil, "If-Match", tag); r.Status != 412 {
		t.Errorf("deleting with an old etag: %d", r.Status)
	}
}

// counterOf returns the number in a cluster's tags.
func counterOf(r armtest.Reply) (int, error) {
	n := 0
	tags, _ := r.JSON["tags"].(map[string]any)
	s, _ := tags["n"].(string)
	if _, err := fmt.Sscan(s, &n); err != nil {
		return 0, fmt.Errorf("no counter in %.200s: %w", r.Body, err)
	}
	return n, nil
}

// history checks what clients see of the clusters ids while the server is killed:
// on top of each state at most one acknowledged write; no read is older than a
// write that was acknowledged before the read began; and in the end every
// acknowledged write is there.
type history struct {
	p        *process
	ids      []string
	deadline time.Time
	floor    []atomic.Int64 // by cluster, the highest acknowledged value
	mu       sync.Mutex
	taken    map[[2]int]bool // cluster and the state that an acknowledged write replaced

	acknowledged, unknown, conflicts, reads atomic.Int64
}

// numbered returns the body of a cluster with a number in its tags.
func numbered(n int) map[string]any {
	b := clusterBody("Auto")
	b["tags"] = map[string]any{"n": fmt.Sprint(n)}
	return b
}

// newHistory creates clusters with the number 0.
func newHistory(t *testing.T, p *process, clusters int) *history {
	h := &history{p: p, ids: make([]string, clusters), floor: make([]atomic.Int64, clusters), taken: map[[2]int]bool{}}
	for i := range h.ids {
		h.ids[i] = fmt.Sprintf("%s/providers/Microsoft.ContainerService/managedClusters/c%d", group, i)
		if r, err := p.do(i, "PUT", h.ids[i], numbered(0), ""); err != nil || r.Status != 201 {
			t.Fatalf("%v %d %s", err, r.Status, r.Body)
		}
	}
	h.deadline = time.Now().Add(4 * time.Minute)
	return h
}

// write makes n acknowledged writes of cluster i, each a PUT on the condition of
// the ETag that was read before.
func (h *history) write(t *testing.T, i, n int) {
	c := i % len(h.ids)
	for done := 0; done < n && time.Now().Before(h.deadline); {
		r, err := h.p.do(i, "GET", h.ids[c], nil, "")
		if err != nil || r.Status != 200 {
			time.Sleep(20 * time.Millisecond)
			continue
		}
		from, err := counterOf(r)
		if err != nil {
			t.Error(err)
			return
		}
		w, err := h.p.do(i, "PUT", h.ids[c], numbered(from+1), r.Header.Get("ETag"))
		switch {
		case err != nil || w.Status >= 500:
			h.unknown.Add(1)
		case w.Status == 200:
			h.acknowledge(t, c, from)
			done++
		case w.Status == 412 || w.Status == 409: // changed, or an operation runs
			h.conflicts.Add(1)
			time.Sleep(20 * time.Millisecond)
		default:
			t.Errorf("PUT: %d %s", w.Status, w.Body)
			return
		}
	}
}

// acknowledge records an acknowledged write of from+1 to cluster c.
func (h *history) acknowledge(t *testing.T, c, from int) {
	h.mu.Lock()
	if h.taken[[2]int{c, from}] {
		t.Errorf("c%d: two writes on top of %d were acknowledged", c, from)
	}
	h.taken[[2]int{c, from}] = true
	h.mu.Unlock()
	for l := h.floor[c].Load(); int64(from+1) > l && !h.floor[c].CompareAndSwap(l, int64(from+1)); l = h.floor[c].Load() {
	}
	h.acknowledged.Add(1)
}

// read makes n reads of different clusters.
func (h *history) read(t *testing.T, i, n int) {
	for done := 0; done < n && time.Now().Before(h.deadline); {
		c := (i + done*17) % len(h.ids)
		least := h.floor[c].Load()
		r, err := h.p.do(i, "GET", h.ids[c], nil, "")
		if err != nil || r.Status >= 500 {
			time.Sleep(50 * time.Millisecond)
			continue
		}
		got, err := counterOf(r)
		if r.Status != 200 || err != nil {
			t.Errorf("GET: %d %.200s %v", r.Status, r.Body, err)
			return
		}
		if int64(got) < least {
			t.Errorf("c%d: read %d after %d had been acknowledged", c, got, least)
		}
		h.reads.Add(1)
		done++
	}
}

// kill kills and restarts the server until stop is closed, at most kills times,
// and returns how often it did. The kills are spread over the requests, not over
// time, so that they all happen on a fast machine too.
func (h *history) kill(stop <-chan struct{}, kills, requests int) int {
	for n := range kills {
		at := int64(requests * (n + 1) / (kills + 2))
		for h.acknowledged.Load()+h.reads.Load() < at {
			select {
			case <-stop:
				return n
			case <-time.After(time.Duration(1+rand.IntN(10)) * time.Millisecond):
			}
		}
		h.p.kill()
		h.p.run()
	}
	return kills
}

// end checks that every acknowledged write is there.
func (h *history) end(t *testing.T) {
	for c, id := range h.ids {
		var r armtest.Reply
		var err error
		for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
			if r, err = h.p.do(0, "GET", id, nil, ""); err == nil && r.Status == 200 {
				break
			}
		}
		got, cerr := counterOf(r)
		if err != nil || cerr != nil || int64(got) < h.floor[c].Load() {
			t.Errorf("c%d: %d at the end, %d acknowledged (%v %v)", c, got, h.floor[c].Load(), err, cerr)
		}
	}
}

// A thousand readers and two writers for each of fifty clusters, with stub
// control planes, over TLS, while the server is killed with SIGKILL repeatedly.
func TestWritesSurviveKillsUnderLoad(t *testing.T) {
	if testing.Short() {
		t.Skip("short: takes half a minute")
	}
	const clusters, writers, readers, each, kills = 50, 2, 1000, 2, 4
	h := newHistory(t, startServed(t), clusters)
	var work sync.WaitGroup
	for i := range clusters * writers {
		work.Go(func() { h.write(t, i, each) })
	}
	for i := range readers {
		work.Go(func() { h.read(t, i, 3) })
	}
	killed := make(chan int)
	stop := make(chan struct{})
	go func() { killed <- h.kill(stop, kills, clusters*writers*each+readers*3) }()
	work.Wait()
	close(stop)
	n := <-killed
	h.end(t)
	t.Logf("%d writes acknowledged, %d of unknown outcome, %d conflicts, %d reads, %d kills", h.acknowledged.Load(), h.unknown.Load(), h.conflicts.Load(), h.reads.Load(), n)
	if h.acknowledged.Load() != clusters*writers*each || h.reads.Load() != readers*3 {
		t.Errorf("not all requests were done in time")
	}
	if n < kills {
		t.Errorf("only %d of %d kills happened", n, kills)
	}
}
