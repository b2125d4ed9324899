// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

// Package report keeps what happens in a simulated run and shows it: figures over time,
// lives of pods and machines, a history whose hash tells whether two runs were the
// same, tables and pictures.
package report

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"
)

// Sample is the state of the cluster at a time.
type Sample struct {
	// T is the time after the start.
	T time.Duration `json:"t"`
	// USDPerHour is what the machines cost; PlanUSDPerHour what one plan of all pods
	// would; BoundUSDPerHour a proven lower bound. Values of 0 are unknown.
	USDPerHour      float64 `json:"usdPerHour"`
	PlanUSDPerHour  float64 `json:"planUSDPerHour,omitempty"`
	BoundUSDPerHour float64 `json:"boundUSDPerHour,omitempty"`
	// PodsPending are not bound or not running yet, PodsRefused those of them that no
	// machine can run. PodsTotal leaves out pods that have ended and those of
	// DaemonSets.
	PodsPending int `json:"podsPending"`
	PodsRefused int `json:"podsRefused,omitempty"`
	PodsRunning int `json:"podsRunning"`
	PodsTotal   int `json:"podsTotal"`
	Machines    int `json:"machines"`
	Nodes       int `json:"nodes"`
	Claims      int `json:"claims"`
	// Evictions, Moves and APICalls count from the start. A move is a pod that runs
	// again elsewhere after its eviction.
	Evictions int `json:"evictions"`
	Moves     int `json:"moves"`
	APICalls  int `json:"apiCalls"`
}

// Write is one committed change of an object.
type Write struct {
	T time.Duration
	// Client is who wrote, Verb what was done, Object kind and name.
	Client, Verb, Object string
	// Change is a short description of the difference, in one line.
	Change string
}

func (w Write) String() string {
	return fmt.Sprintf("%12.6f %s %s %s %s", w.T.Seconds(), w.Client, w.Verb, w.Object, strings.ReplaceAll(w.Change, "\n", " "))
}

// Options of a Recorder.
type Options struct {
	// WaveGap is the longest time between two purchases of one wave; 5 s if 0.
	WaveGap time.Duration
	// KeepHistory keeps all lines of the history instead of the last.
	KeepHistory bool
	// MaxSamples bounds the samples that are kept for pictures; 4,000 if 0. All count
	// for integrals and expectations.
	MaxSamples int
}

// lastLines is how many lines of the history before a violation are shown.
const lastLines = 40

// Recorder collects one run. Its methods may be called concurrently; times must not
// decrease.
type Recorder struct {
	mu       sync.Mutex
	o        Options
	hash     hash.Hash
	lines    []string
	recent   []string
	next     int
	writes   int
	samples  []Sample
	pods     map[string]*podLife
	machines map[string]*machineLife
	buys     []time.Duration
	changes  []time.Duration
	reasons  map[string]int
	broken   []Violation
	calls    map[string]int
}

type podLife struct {
	created, scheduled, running, deleted time.Duration
	isScheduled, isRunning, isDeleted    bool
}

type machineLife struct {
	size           string
	bought, gone   time.Duration
	isGone, useful bool
}

// Violation is an invariant that was broken.
type Violation struct {
	T         time.Duration `json:"t"`
	Invariant string        `json:"invariant"`
	Message   string        `json:"message"`
	// History are the last lines of the history before it.
	History []string `json:"history,omitempty"`
}

// NewRecorder returns an empty recorder.
func NewRecorder(o Options) *Recorder {
	if o.WaveGap == 0 {
		o.WaveGap = 5 * time.Second
	}
	if o.MaxSamples == 0 {
		o.MaxSamples = 4000
	}
	return &Recorder{
		o: o, hash: sha256.New(), pods: map[string]*podLife{}, machines: map[string]*machineLife{},
		reasons: map[string]int{}, calls: map[string]int{},
	}
}

// Sample adds a sample. It holds until the next one, so take one whenever the cost or a
// count has changed. Of several at one time the last holds.
func (r *Recorder) Sample(s Sample) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if n := len(r.samples); n > 0 && r.samples[n-1].T == s.T {
		r.samples[n-1] = s
		return
	}
	r.samples = append(r.samples, s)
}

// Wrote adds a line to the history.
func (r *Recorder) Wrote(w Write) {
	line := w.String()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.hash.Write([]byte(line))
	r.hash.Write([]byte{'\n'})
	r.writes++
	if r.o.KeepHistory {
		r.lines = append(r.lines, line)
	}
	if len(r.recent) < lastLines {
		r.recent = append(r.recent, line)
		return
	}
	r.recent[r.next] = line
	r.next = (r.next + 1) % lastLines
}

// last returns the last lines of the history, oldest first.
func (r *Recorder) last() []string {
	return append(slices.Clone(r.recent[r.next:]), r.recent[:r.next]...)
}

// PodCreated notes that the pod with the UID exists. Only the first call of this and of
// PodScheduled, PodRunning and PodDeleted counts; pods of DaemonSets are left out by
// not telling of them.
func (r *Recorder) PodCreated(uid string, t time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.pods[uid] == nil {
		r.pods[uid] = &podLife{created: t}
	}
}

// PodScheduled notes that the pod was bound.
func (r *Recorder) PodScheduled(uid string, t time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if p := r.pods[uid]; p != nil && !p.isScheduled {
		p.scheduled, p.isScheduled = t, true
	}
}

// PodRunning notes that the pod runs and is ready.
func (r *Recorder) PodRunning(uid string, t time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if p := r.pods[uid]; p != nil && !p.isRunning {
		p.running, p.isRunning = t, true
	}
}

// PodDeleted notes that the pod is gone.
func (r *Recorder) PodDeleted(uid string, t time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if p := r.pods[uid]; p != nil && !p.isDeleted {
		p.deleted, p.isDeleted = t, true
	}
}

// MachineBought notes a new machine.
func (r *Recorder) MachineBought(name, size string, t time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.machines[name] != nil {
		return
	}
	r.machines[name] = &machineLife{size: size, bought: t}
	r.buys = append(r.buys, t)
	r.changes = append(r.changes, t)
}

// MachineUseful notes that a pod other than a DaemonSet's was bound to the machine. A
// machine that never was is wasted.
func (r *Recorder) MachineUseful(name string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if m := r.machines[name]; m != nil {
		m.useful = true
	}
}

// MachineDeleted notes that a machine is gone.
func (r *Recorder) MachineDeleted(name string, t time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if m := r.machines[name]; m != nil && !m.isGone {
		m.gone, m.isGone = t, true
		r.changes = append(r.changes, t)
	}
}

// Evicted notes an eviction.
func (r *Recorder) Evicted(t time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.changes = append(r.changes, t)
}

// Event notes a Kubernetes event by its reason.
func (r *Recorder) Event(reason string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.reasons[reason]++
}

// Calls sets how many requests a client has made.
func (r *Recorder) Calls(client string, n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.calls[client] = n
}

// Violated notes a broken invariant with the lines of the history before it. The first
// of each invariant is kept.
func (r *Recorder) Violated(invariant, message string, t time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if slices.ContainsFunc(r.broken, func(v Violation) bool { return v.Invariant == invariant }) {
		return
	}
	r.broken = append(r.broken, Violation{T: t, Invariant: invariant, Message: message, History: r.last()})
}

// Violations returns the broken invariants, first to last.
func (r *Recorder) Violations() []Violation {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.broken)
}

// History returns the lines of the history, if Options.KeepHistory was set.
func (r *Recorder) History() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.lines)
}

// HistoryHash returns the SHA-256 of the history in hexadecimal.
func (r *Recorder) HistoryHash() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return hex.EncodeToString(r.hash.Sum(nil))
}

// integral returns the area below a figure of the samples up to the time end, in
// units × hours. Each sample holds until the next.
func integral(samples []Sample, end time.Duration, value func(Sample) float64) float64 {
	sum := 0.0
	for i, s := range samples {
		until := end
		if i+1 < len(samples) {
			until = min(until, samples[i+1].T)
		}
		if until > s.T {
			sum += value(s) * (until - s.T).Hours()
		}
	}
	return sum
}

// percentile returns the smallest of the sorted values that a share of p of them does
// not exceed.
func percentile(sorted []time.Duration, p float64) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	// A tiny part less, so that 0.99 × 100 is 99.
	n := int(p*float64(len(sorted)) - 1e-9)
	return sorted[min(max(n, 0), len(sorted)-1)]
}

// Wave is a group of purchases that follow each other closely.
type Wave struct {
	T        time.Duration `json:"t"`
	Machines int           `json:"machines"`
}

func waves(buys []time.Duration, gap time.Duration) []Wave {
	var out []Wave
	var last time.Duration
	for i, t := range slices.Sorted(slices.Values(buys)) {
		if i == 0 || t-last > gap {
			out = append(out, Wave{T: t})
		}
		out[len(out)-1].Machines++
		last = t
	}
	return out
}

// Summarise returns the figures of the run, which ended at the time end.
func (r *Recorder) Summarise(end time.Duration) Summary {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := Summary{
		SimulatedSeconds: end.Seconds(),
		CostUSD:          integral(r.samples, end, func(s Sample) float64 { return s.USDPerHour }),
		PlanUSD:          integral(r.samples, end, func(s Sample) float64 { return s.PlanUSDPerHour }),
		BoundUSD:         integral(r.samples, end, func(s Sample) float64 { return s.BoundUSDPerHour }),
		Pods:             len(r.pods), MachinesBought: len(r.buys), Waves: waves(r.buys, r.o.WaveGap),
		APICallsByClient: maps.Clone(r.calls), Writes: r.writes,
	}
	s.CostOverBound = ratio(s.CostUSD, s.BoundUSD)
	if n := len(r.samples); n > 0 {
		last := r.samples[n-1]
		s.FinalUSDPerHour, s.FinalPlanUSDPerHour = last.USDPerHour, last.PlanUSDPerHour
		s.FinalOverPlan = ratio(last.USDPerHour, last.PlanUSDPerHour)
		s.Evictions, s.Moves, s.APICalls = last.Evictions, last.Moves, last.APICalls
		s.PodsRunning, s.PodsPending = last.PodsRunning, last.PodsPending
		s.Machines = last.Machines
	}
	for _, x := range r.samples {
		s.MachinesMax = max(s.MachinesMax, x.Machines)
	}
	var waits []time.Duration
	for _, p := range r.pods {
		if p.isRunning {
			waits = append(waits, p.running-p.created)
		} else if !p.isDeleted {
			s.NeverRan++
		}
	}
	slices.Sort(waits)
	s.RunningP50Seconds = percentile(waits, 0.50).Seconds()
	s.RunningP99Seconds = percentile(waits, 0.99).Seconds()
	s.RunningMaxSeconds = percentile(waits, 1).Seconds()
	for _, m := range r.machines {
		if !m.useful {
			s.MachinesWasted++
		}
	}
	return s
}

func ratio(a, b float64) float64 {
	if b == 0 {
		return 0
	}
	return a / b
}

// Samples returns at most Options.MaxSamples samples, evenly chosen; the first and the
// last are among them, and so is each one at which a picture has a peak.
func (r *Recorder) Samples() []Sample {
	r.mu.Lock()
	defer r.mu.Unlock()
	return thin(r.samples, r.o.MaxSamples)
}

// thin leaves out samples so that at most n remain: of each stretch the first, and those
// with the most pods pending and the most machines.
func thin(samples []Sample, n int) []Sample {
	if len(samples) <= n {
		return slices.Clone(samples)
	}
	stretches := max(1, (n-1)/3)
	keep := map[int]bool{len(samples) - 1: true}
	for k := range stretches {
		from, to := k*len(samples)/stretches, (k+1)*len(samples)/stretches
		if from >= to {
			continue
		}
		pending, machines := from, from
		for i := from; i < to; i++ {
			if samples[i].PodsPending > samples[pending].PodsPending {
				pending = i
			}
			if samples[i].USDPerHour > samples[machines].USDPerHour {
				machines = i
			}
		}
		keep[from], keep[pending], keep[machines] = true, true, true
	}
	var out []Sample
	for _, i := range slices.SortedFunc(maps.Keys(keep), cmp.Compare[int]) {
		out = append(out, samples[i])
	}
	return out
}
