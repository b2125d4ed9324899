// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

// Package scenario reads the files that say what happens to a simulated cluster:
// workloads and faults over time, and what must hold. docs/simulator.md is their
// reference. A scenario and a seed give one list of timed actions, the same for each
// engine.
package scenario

import "time"

// Scenario is a history to live through and what must hold in it.
type Scenario struct {
	// Name identifies the scenario: lower-case letters, digits, dots and dashes.
	Name string `yaml:"name"`
	// About says in a sentence what the scenario shows.
	About string `yaml:"about"`
	// Duration is how much simulated time passes. 0 is until 10 minutes after the
	// last event.
	Duration Duration `yaml:"duration"`
	// Seed is the seed if none is given.
	Seed     uint64   `yaml:"seed"`
	Settings Settings `yaml:"settings"`
	// Objects exist before time 0. A file without the field has nap's defaults.
	Objects []Manifest `yaml:"objects"`
	// Events happen at their times; those of one time in the order of the file.
	Events       []Event       `yaml:"events"`
	Expect       []Expectation `yaml:"expect"`
	Invariants   Invariants    `yaml:"invariants"`
	KnownFailure *KnownFailure `yaml:"knownFailure"`

	// Source is where the scenario was read from. It is enough to read it again.
	Source Source `yaml:"-"`
}

// Settings describe the cluster and the machine below it. A field that is 0 or empty
// has the value of the preset Machine.
type Settings struct {
	// Machine is the preset: laptop (a local cluster on two cores) or aks.
	Machine string `yaml:"machine"`
	// Kubernetes is the version, for example 1.36.3.
	Kubernetes string `yaml:"kubernetes"`
	// Location is the Azure region, which decides sizes, zones and prices.
	Location string `yaml:"location"`
	// Create is from the request for a machine to its running.
	Create Range `yaml:"create"`
	// Boot is from running to the kubelet's registration.
	Boot Range `yaml:"boot"`
	// Ready is from registration to readiness.
	Ready Range `yaml:"ready"`
	// PodStart is from a pod's binding to its running, PodStop from its deletion to
	// its end, if its grace period is not shorter.
	PodStart Range `yaml:"podStart"`
	PodStop  Range `yaml:"podStop"`
	// SchedulerCycle is the time of one scheduling cycle, and SchedulerMarks how many
	// pods a second are marked as unschedulable.
	SchedulerCycle Duration `yaml:"schedulerCycle"`
	SchedulerMarks float64  `yaml:"schedulerMarks"`
	// ControllerQPS is how many requests a second each controller of
	// kube-controller-manager may make.
	ControllerQPS float64 `yaml:"controllerQPS"`
	// APILatency is the time of a request to the API server, WatchLatency that of a
	// watch event, AzureLatency that of a request to Azure Resource Manager.
	APILatency   Range `yaml:"apiLatency"`
	WatchLatency Range `yaml:"watchLatency"`
	AzureLatency Range `yaml:"azureLatency"`
	// PlanTime is how long one plan of the engine takes.
	PlanTime Range `yaml:"planTime"`
	// BatchIdle and BatchMax bound how long pods are collected before a plan.
	BatchIdle Duration `yaml:"batchIdle"`
	BatchMax  Duration `yaml:"batchMax"`
	// Nominations is off to leave pods to the scheduler alone, on or empty otherwise.
	Nominations string `yaml:"nominations"`
	// SystemNodes exist from the start, outside of node auto-provisioning.
	SystemNodes SystemNodes `yaml:"systemNodes"`
	// Quotas are vCPU limits by family of sizes as in the usages of Azure, and
	// "regional" for the whole region.
	Quotas map[string]int `yaml:"quotas"`
	// FeatureGates are Karpenter's, by name.
	FeatureGates map[string]bool `yaml:"featureGates"`
	// SampleEvery is the longest time between two samples of the figures.
	SampleEvery Duration `yaml:"sampleEvery"`
}

// SystemNodes are nodes of the system pool.
type SystemNodes struct {
	Count int    `yaml:"count"`
	Size  string `yaml:"size"`
}

// Event is one thing that happens, once or repeatedly. It has exactly one action.
type Event struct {
	// At is the time after the start.
	At Duration `yaml:"at"`
	// Every repeats the event from At to Until, both included. Without Until it
	// repeats to the end.
	Every Duration `yaml:"every"`
	Until Duration `yaml:"until"`

	Apply       []Manifest   `yaml:"apply"`
	Delete      *Ref         `yaml:"delete"`
	Scale       *Scale       `yaml:"scale"`
	Restart     *Selection   `yaml:"restart"`
	Generate    *Generate    `yaml:"generate"`
	Trace       *Trace       `yaml:"trace"`
	Fault       *Fault       `yaml:"fault"`
	Cordon      *Nodes       `yaml:"cordon"`
	Uncordon    *Nodes       `yaml:"uncordon"`
	Drain       *Nodes       `yaml:"drain"`
	DeleteNode  *Nodes       `yaml:"deleteNode"`
	SetNodePool *SetNodePool `yaml:"setNodePool"`
	Price       *Price       `yaml:"price"`

	Line int `yaml:"-"`
}

// Ref names an object.
type Ref struct {
	Kind      string `yaml:"kind"`
	Namespace string `yaml:"namespace"`
	Name      string `yaml:"name"`
}

// Selection selects workloads: all of a kind that meet every field given.
type Selection struct {
	// Kind is Deployment if empty, or StatefulSet.
	Kind      string            `yaml:"kind"`
	Namespace string            `yaml:"namespace"`
	Names     []string          `yaml:"names"`
	Labels    map[string]string `yaml:"labels"`
	// All must be true to select everything.
	All bool `yaml:"all"`
}

// Scale sets the replicas of workloads.
type Scale struct {
	Selection
	To Count `yaml:"to"`
	// Of is what a percentage refers to: current (the default) or original, the
	// replicas that the workload was created with.
	Of string `yaml:"of"`

	Line int `yaml:"-"`
}

// Generate makes a family of workloads from the seed.
type Generate struct {
	// Kind is Deployment if empty, StatefulSet or Job.
	Kind      string   `yaml:"kind"`
	Name      string   `yaml:"name"`
	Namespace string   `yaml:"namespace"`
	Count     int      `yaml:"count"`
	Replicas  IntRange `yaml:"replicas"`
	// CPU and Memory are the requests of one pod. Shapes is a table instead; without
	// any of them it is the mix of DefaultShapes.
	CPU    *Quantity `yaml:"cpu"`
	Memory *Quantity `yaml:"memory"`
	Shapes []Shape   `yaml:"shapes"`
	// Over is the time in which the workloads arrive, evenly.
	Over Duration `yaml:"over"`
	// ZoneSpread, HostnameAntiAffinity, PDB and DoNotDisrupt are the shares of the
	// workloads that have the property. A PodDisruptionBudget allows a tenth of the
	// pods to be unavailable.
	ZoneSpread           Share `yaml:"zoneSpread"`
	HostnameAntiAffinity Share `yaml:"hostnameAntiAffinity"`
	PDB                  Share `yaml:"pdb"`
	DoNotDisrupt         Share `yaml:"doNotDisrupt"`
	// Spot is the share of workloads that tolerate and ask for spot machines.
	Spot Share `yaml:"spot"`
	// PriorityClass is the priority class of the pods.
	PriorityClass string `yaml:"priorityClass"`
	// RunFor is how long the pods of a Job run.
	RunFor Range `yaml:"runFor"`
	// Grace is the pods' termination grace period; 30 s if 0.
	Grace Duration `yaml:"grace"`

	Line int `yaml:"-"`
}

// Shape is a row of a table of pod sizes.
type Shape struct {
	CPU    Quantity `yaml:"cpu"`
	Memory Quantity `yaml:"memory"`
	// Weight is how often the row is drawn, relative to the others; 1 if 0.
	Weight int `yaml:"weight"`
}

// Trace plays a recorded workload.
type Trace struct {
	// File is a CSV file with a heading, relative to the scenario. Its columns are
	// found by name: cpu_milli, memory_mib, num_gpu, creation_time, deletion_time (or
	// duration), in seconds.
	File string `yaml:"file"`
	// Shape makes a trace from the seed instead: openb is a day of it.
	Shape string `yaml:"shape"`
	// Tasks is how many tasks a made trace has in 24 hours; 8000 if 0.
	Tasks int `yaml:"tasks"`
	// Speed divides all times: 10 plays ten hours in one. 1 if 0.
	Speed float64 `yaml:"speed"`
	// Skip is the time of the trace, before Speed, at which to begin.
	Skip Duration `yaml:"skip"`
	// For is how much of the played trace is taken; 0 is all of it.
	For Duration `yaml:"for"`
	// Share is the part of the tasks that is taken, drawn by the seed; all if 0.
	Share Share `yaml:"share"`
	// GPUs is true to take tasks with GPUs too.
	GPUs      bool   `yaml:"gpus"`
	Namespace string `yaml:"namespace"`
	// As is what a task becomes: replicaset (of one pod; the default), which is
	// deleted when the task ends, or job.
	As string `yaml:"as"`

	Line int `yaml:"-"`
}

// Nodes selects nodes: by name, by label, or Count of those that match, drawn by the
// seed. Nodes of the system pool are selected by name only.
type Nodes struct {
	Name   string            `yaml:"name"`
	Labels map[string]string `yaml:"labels"`
	Count  Count             `yaml:"count"`

	Line int `yaml:"-"`
}

// SetNodePool merges Spec into the spec of a NodePool (a JSON merge patch).
type SetNodePool struct {
	Name string `yaml:"name"`
	Spec Object `yaml:"spec"`
}

// Price multiplies the prices of offerings; empty fields match all.
type Price struct {
	Size         string  `yaml:"size"`
	Family       string  `yaml:"family"`
	CapacityType string  `yaml:"capacityType"`
	Times        float64 `yaml:"times"`
}

// Expectation is what must hold at a time. All its figures must meet their conditions.
// Without a time it is judged at the end.
type Expectation struct {
	// Name is what a known failure and the output call it; made from its figures if
	// empty.
	Name string `yaml:"name"`
	// Engine limits the expectation to one engine: nap or karpenter.
	Engine string `yaml:"engine"`
	// At is the time at which it must hold.
	At *Duration `yaml:"at"`
	// Within is how long after the last event it must hold at the latest; it may hold
	// earlier and cease to.
	Within *Duration `yaml:"within"`
	// Always is true if it must hold the whole time (from At on, if given).
	Always bool `yaml:"always"`

	Figures `yaml:""`

	// NoChangeAfter is how long after the last event machines may still be bought or
	// deleted or pods evicted.
	NoChangeAfter *Duration `yaml:"noChangeAfter"`
	// Event is the reason of an event that must have been recorded, NoEvent that of
	// one that must not.
	Event   string `yaml:"event"`
	NoEvent string `yaml:"noEvent"`

	Line int `yaml:"-"`
}

// Figures are conditions on figures of the run.
type Figures struct {
	Running  *Condition `yaml:"running"`
	Pending  *Condition `yaml:"pending"`
	Pods     *Condition `yaml:"pods"`
	Refused  *Condition `yaml:"refused"`
	Machines *Condition `yaml:"machines"`
	Nodes    *Condition `yaml:"nodes"`
	Claims   *Condition `yaml:"claims"`
	// Cost is in $/h, CostIntegral in $ since the start.
	Cost         *Condition `yaml:"cost"`
	CostIntegral *Condition `yaml:"costIntegral"`
	Evictions    *Condition `yaml:"evictions"`
	Moves        *Condition `yaml:"moves"`
	// TimeToRunning figures are from a pod's creation to its first running.
	P50      *Condition `yaml:"timeToRunningP50"`
	P99      *Condition `yaml:"timeToRunningP99"`
	Max      *Condition `yaml:"timeToRunningMax"`
	Bought   *Condition `yaml:"bought"`
	Wasted   *Condition `yaml:"wasted"`
	Waves    *Condition `yaml:"waves"`
	APICalls *Condition `yaml:"apiCalls"`
}

// Figure is one condition by its name in the file.
type Figure struct {
	Name      string
	Condition Condition
}

// List returns the conditions given, in the order of the reference.
func (f *Figures) List() []Figure {
	var out []Figure
	for _, x := range []struct {
		name string
		c    *Condition
	}{
		{"running", f.Running}, {"pending", f.Pending}, {"pods", f.Pods}, {"refused", f.Refused},
		{"machines", f.Machines}, {"nodes", f.Nodes}, {"claims", f.Claims},
		{"cost", f.Cost}, {"costIntegral", f.CostIntegral},
		{"evictions", f.Evictions}, {"moves", f.Moves},
		{"timeToRunningP50", f.P50}, {"timeToRunningP99", f.P99}, {"timeToRunningMax", f.Max},
		{"bought", f.Bought}, {"wasted", f.Wasted}, {"waves", f.Waves}, {"apiCalls", f.APICalls},
	} {
		if x.c != nil {
			out = append(out, Figure{x.name, *x.c})
		}
	}
	return out
}

// Invariants are the parameters of what is checked after every step. 0 is the default.
type Invariants struct {
	// FleetDelay is how long machines, claims and nodes may differ; 10 minutes by
	// default.
	FleetDelay Duration `yaml:"fleetDelay"`
	// RunningWithin is how long after the last fault or event a satisfiable pod may
	// be pending; 15 minutes by default.
	RunningWithin Duration `yaml:"runningWithin"`
	// ConvergedAfter is how long after the last fault or event machines may still be
	// exchanged voluntarily; 1 hour by default.
	ConvergedAfter Duration `yaml:"convergedAfter"`
	// AssumedFor is how long a pod may be assumed on a node before it is bound or
	// released; 10 minutes by default.
	AssumedFor Duration `yaml:"assumedFor"`
	// MaxObjects and MaxMemoryMiB bound the process; 200,000 and 4,096 by default.
	MaxObjects   int `yaml:"maxObjects"`
	MaxMemoryMiB int `yaml:"maxMemoryMiB"`
	// Off are the names of invariants that are not checked.
	Off []string `yaml:"off"`
}

// InvariantNames are the invariants that exist, as results and files name them.
var InvariantNames = []string{
	"fleet", "double", "leak", "budgets", "pdbs", "limits", "quotas",
	"running", "convergence", "assumed", "doNotDisrupt", "bounded",
}

// withDefaults returns i with the defaults filled in.
func (i Invariants) withDefaults() Invariants {
	set := func(d *Duration, v time.Duration) {
		if *d == 0 {
			*d = Duration(v)
		}
	}
	set(&i.FleetDelay, 10*time.Minute)
	set(&i.RunningWithin, 15*time.Minute)
	set(&i.ConvergedAfter, time.Hour)
	set(&i.AssumedFor, 10*time.Minute)
	if i.MaxObjects == 0 {
		i.MaxObjects = 200_000
	}
	if i.MaxMemoryMiB == 0 {
		i.MaxMemoryMiB = 4096
	}
	return i
}

// KnownFailure says how the scenario is known to fail. A run that does not fail so is a
// failure itself: the known failure is to be removed then.
type KnownFailure struct {
	// Reason says why, and what will mend it.
	Reason string `yaml:"reason"`
	// Engine is the engine that fails; nap if empty.
	Engine string `yaml:"engine"`
	// Expectation is the name of the expectation that fails, or Invariant that of the
	// invariant.
	Expectation string `yaml:"expectation"`
	Invariant   string `yaml:"invariant"`
}

// Engines are the names of the engines a scenario can run with.
var Engines = []string{"nap", "karpenter"}
