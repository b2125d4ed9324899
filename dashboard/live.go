// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package dashboard

import (
	"context"
	"fmt"
	"maps"
	"sync"
	"time"

	"github.com/go-logr/logr"
	"k8s.io/utils/clock"
	karpv1 "sigs.k8s.io/karpenter/pkg/apis/v1"

	"github.com/nap-aks/nap/snapshot"
)

const (
	watchedEvery = 2 * time.Second  // between states while somebody watches
	quietEvery   = 15 * time.Second // between states otherwise
	pointEvery   = time.Minute
	boundEvery   = time.Minute
	// buildShare and boundShare are how many times longer than a build or a proof the
	// pause after it is at least, which bounds their share of a core.
	buildShare = 20
	boundShare = 50
	// frameBytesPerSecond leaves half of the recording to decisions.
	frameBytesPerSecond = KeptBytes / 2 / (7 * 24 * 3600)
	maxPoints           = 7 * 24 * 60
	maxSubscribers      = 32
)

// Config configures a Live.
type Config struct {
	// Objects lists the cluster; the objects are only read. Required.
	Objects func(context.Context) (*snapshot.Objects, error)
	// Cluster is the name for people.
	Cluster string
	// Recorder keeps the history; nil keeps the last decisions in memory only.
	Recorder *Recorder
	Clock    clock.Clock // nil: the real one
	// Updated is called with each new State, which must not be changed; nil: nobody.
	Updated func(*State)
	Log     logr.Logger
}

// Live keeps the State of a running cluster. It is safe for concurrent use.
type Live struct {
	Config
	builder Builder
	wake    chan struct{}

	mu       sync.Mutex
	state    *State
	objects  *snapshot.Objects
	seq      uint64
	verdicts map[string]*Verdict
	bought   map[string]Purchase
	leaving  map[string]leavingClaim
	seen     map[string]bool // machines in the timeline, or older than it
	bound    *Bound
	recent   []Decision // newest last; without a Recorder
	points   []Point
	subs     map[chan struct{}]bool
	lastID   uint64

	built, pointed, framed, proven time.Time
	pause, framePause, boundPause  time.Duration
	proving                        bool
}

// leavingClaim is why a NodeClaim is deleted.
type leavingClaim struct {
	reason string
	at     time.Time
}

// NewLive returns a Live with what the Recorder has kept.
func NewLive(c Config) (*Live, error) {
	if c.Clock == nil {
		c.Clock = clock.RealClock{}
	}
	l := &Live{
		Config: c, wake: make(chan struct{}, 1), verdicts: map[string]*Verdict{}, bought: map[string]Purchase{},
		leaving: map[string]leavingClaim{}, seen: map[string]bool{}, subs: map[chan struct{}]bool{},
	}
	if c.Recorder == nil {
		return l, nil
	}
	var err error
	if l.points, err = c.Recorder.Points(maxPoints); err != nil {
		return nil, err
	}
	now := c.Clock.Now()
	decisions, err := c.Recorder.Decisions(now.Add(-KeptFor), now, 10_000)
	if err != nil {
		return nil, err
	}
	for i := len(decisions) - 1; i >= 0; i-- {
		l.noteBought(&decisions[i])
	}
	return l, nil
}

func (l *Live) noteBought(d *Decision) {
	for i := range d.Machines {
		if b := &d.Machines[i]; b.Claim != "" {
			l.bought[b.Claim] = Purchase{Text: b.why(), Decision: d.ID}
		}
	}
}

// ObservePass takes over what a provisioning pass decided.
func (l *Live) ObservePass(p Pass) {
	l.mu.Lock()
	cost := 0.0
	if l.state != nil {
		cost = l.state.USDPerHour
	}
	for pod, v := range l.verdicts { // a pass has a verdict on each pod without a place
		if v.Node == "" {
			delete(l.verdicts, pod)
		}
	}
	maps.Copy(l.verdicts, p.verdicts())
	if d := p.decision(cost); d != nil {
		l.record(d)
		l.noteBought(d)
	}
	l.mu.Unlock()
	l.Wake()
}

// ObserveClaim notes why a NodeClaim is being deleted, while it still exists.
func (l *Live) ObserveClaim(c *karpv1.NodeClaim) {
	if c.DeletionTimestamp == nil {
		return
	}
	l.mu.Lock()
	l.noteLeaving(c, l.Clock.Now())
	l.mu.Unlock()
	l.Wake()
}

func (l *Live) noteLeaving(c *karpv1.NodeClaim, now time.Time) {
	reason := "Deleted"
	if cond := c.StatusConditions().Get(karpv1.ConditionTypeDisruptionReason); cond != nil && cond.IsTrue() {
		reason = cond.Reason
	}
	l.leaving[c.Name] = leavingClaim{reason, now}
}

// Wake asks for a new State soon.
func (l *Live) Wake() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// record adds a decision to the timeline. The lock is held.
func (l *Live) record(d *Decision) {
	if l.Recorder != nil {
		if err := l.Recorder.AddDecision(d); err != nil {
			l.Log.Error(err, "recording a decision failed")
		}
		return
	}
	l.lastID++
	d.ID = l.lastID
	l.recent = append(l.recent, *d)
	if len(l.recent) > 1000 {
		l.recent = l.recent[len(l.recent)-1000:]
	}
}

// Run keeps the State until the context ends. It logs errors and tries again.
func (l *Live) Run(ctx context.Context) {
	tick := l.Clock.NewTimer(0)
	defer tick.Stop()
	for {
		soon := false
		select {
		case <-ctx.Done():
			return
		case <-l.wake:
			soon = true
		case <-tick.C():
		}
		now := l.Clock.Now()
		l.mu.Lock()
		every := quietEvery
		if soon || len(l.subs) > 0 {
			every = watchedEvery
		}
		wait := max(every, l.pause) - now.Sub(l.built)
		l.mu.Unlock()
		due := wait <= 0
		if due {
			if err := l.Update(ctx); err != nil && ctx.Err() == nil {
				l.Log.Error(err, "reading the cluster for the dashboard failed")
			}
			wait = watchedEvery
		}
		if !tick.Stop() {
			select {
			case <-tick.C():
			default:
			}
		}
		tick.Reset(max(50*time.Millisecond, min(wait, watchedEvery)))
		if soon && !due {
			// The wish stays until the pause is over.
			select {
			case <-ctx.Done():
				return
			case <-l.Clock.After(min(wait, watchedEvery)):
				l.Wake()
			}
		}
	}
}

// Update makes a new State now.
func (l *Live) Update(ctx context.Context) error {
	start := l.Clock.Now()
	o, err := l.Objects(ctx)
	if err != nil {
		l.mu.Lock()
		l.built, l.pause = start, quietEvery
		l.mu.Unlock()
		return err
	}
	l.mu.Lock()
	known := Known{Verdicts: maps.Clone(l.verdicts), Bought: maps.Clone(l.bought), Bound: l.bound}
	l.mu.Unlock()
	s := l.builder.Build(o, known)
	s.Cluster = l.Cluster

	l.mu.Lock()
	defer l.mu.Unlock()
	for _, c := range o.NodeClaims {
		if c.DeletionTimestamp != nil {
			l.noteLeaving(c, start)
		}
	}
	if l.state == nil {
		for i := range s.Nodes {
			l.seen[key(&s.Nodes[i])] = true
		}
	} else if d := appeared(s, l.seen, l.bought); d != nil {
		l.record(d)
	}
	for _, d := range changes(l.state, s, l.reasonOf) {
		l.record(d)
	}
	l.state, l.objects = s, o
	l.seq++
	l.prune(o, start)
	l.built = l.Clock.Now()
	l.pause = buildShare * l.built.Sub(start)
	l.keep(s)
	l.prove(o, s)
	if l.Updated != nil {
		l.Updated(s)
	}
	for ch := range l.subs {
		select {
		case ch <- struct{}{}:
		default:
		}
	}
	return nil
}

func (l *Live) reasonOf(claim string) string {
	if c, ok := l.leaving[claim]; ok {
		return c.reason
	}
	return "Deleted"
}

// prune forgets what belongs to pods and NodeClaims that are gone.
func (l *Live) prune(o *snapshot.Objects, now time.Time) {
	pending := map[string]bool{}
	for _, p := range o.Pods {
		if p.Spec.NodeName == "" {
			pending[snapshot.PodKey(p)] = true
		}
	}
	for pod := range l.verdicts {
		if !pending[pod] {
			delete(l.verdicts, pod)
		}
	}
	claims := map[string]bool{}
	for _, c := range o.NodeClaims {
		claims[c.Name] = true
	}
	for claim := range l.bought {
		if !claims[claim] && len(l.bought) > 2*len(claims)+1000 {
			delete(l.bought, claim)
		}
	}
	for claim, c := range l.leaving {
		if !claims[claim] && now.Sub(c.at) > 10*time.Minute {
			delete(l.leaving, claim)
		}
	}
}

// keep records a point each minute, and frames as often as their size allows.
func (l *Live) keep(s *State) {
	if s.Time.Sub(l.pointed) < pointEvery {
		return
	}
	l.pointed = s.Time
	f := s.frame()
	l.points = append(l.points, f.point())
	if len(l.points) > maxPoints {
		l.points = l.points[len(l.points)-maxPoints:]
	}
	if l.Recorder == nil {
		return
	}
	if err := l.Recorder.AddPoint(f.point()); err != nil {
		l.Log.Error(err, "recording failed")
		return
	}
	if s.Time.Sub(l.framed) < l.framePause {
		return
	}
	n, err := l.Recorder.AddFrame(f)
	if err != nil {
		l.Log.Error(err, "recording failed")
		return
	}
	l.framed = s.Time
	l.framePause = time.Duration(n/frameBytesPerSecond) * time.Second
}

// prove starts a proof of the bound in the background if the last one is old.
func (l *Live) prove(o *snapshot.Objects, s *State) {
	if l.proving || s.Time.Sub(l.proven) < max(boundEvery, l.boundPause) {
		return
	}
	cost, starting := 0.0, false
	for i := range s.Nodes {
		if n := &s.Nodes[i]; n.Pool != "" {
			cost += n.USDPerHour
			starting = starting || !n.Priced
		}
	}
	if starting { // the cost is not known
		return
	}
	l.proving = true
	go func() {
		start := l.Clock.Now()
		b, err := BoundOf(o, cost)
		l.mu.Lock()
		defer l.mu.Unlock()
		l.proving, l.proven = false, s.Time
		l.boundPause = boundShare * l.Clock.Since(start)
		if err != nil {
			l.Log.Error(err, "proving the bound for the dashboard failed")
			return
		}
		l.bound = b
		l.Wake()
	}()
}

// State returns the latest State and its number, nil before the first.
func (l *Live) State() (*State, uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.state, l.seq
}

// PodsOn returns the pods on a node, at most limit.
func (l *Live) PodsOn(node string, limit int) []Pod {
	l.mu.Lock()
	o := l.objects
	l.mu.Unlock()
	if o == nil {
		return []Pod{}
	}
	return PodsOn(o, node, limit)
}

// Decisions returns the decisions in [from, to], newest first, at most limit.
func (l *Live) Decisions(from, to time.Time, limit int) ([]Decision, error) {
	if l.Recorder != nil {
		return l.Recorder.Decisions(from, to, limit)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	out := []Decision{}
	for i := len(l.recent) - 1; i >= 0 && len(out) < limit; i-- {
		if d := l.recent[i]; !d.Time.Before(from) && !d.Time.After(to) {
			out = append(out, d)
		}
	}
	return out, nil
}

// Points returns the curves in [from, to], thinned to at most limit points.
func (l *Live) Points(from, to time.Time, limit int) []Point {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := []Point{}
	for _, p := range l.points {
		if !p.Time.Before(from) && !p.Time.After(to) {
			out = append(out, p)
		}
	}
	if step := (len(out) + limit - 1) / max(limit, 1); step > 1 {
		thin := out[:0]
		for i := 0; i < len(out); i += step {
			thin = append(thin, out[i])
		}
		out = thin
	}
	return out
}

// FrameAt returns the newest frame at or before a time, nil if there is none.
func (l *Live) FrameAt(at time.Time) (*Frame, error) {
	if l.Recorder == nil {
		return nil, nil
	}
	return l.Recorder.FrameAt(at)
}

// Subscribe returns a channel that gets a value after each new State, and a function
// that ends it. It returns an error if there are too many subscribers.
func (l *Live) Subscribe() (<-chan struct{}, func(), error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.subs) >= maxSubscribers {
		return nil, nil, fmt.Errorf("%d pages are connected already: close one and reload", maxSubscribers)
	}
	ch := make(chan struct{}, 1)
	l.subs[ch] = true
	return ch, func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		delete(l.subs, ch)
	}, nil
}
