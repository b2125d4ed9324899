// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package dashboard

import (
	"time"

	"github.com/nap-aks/nap/engine"
)

// StateVersion is the version of the JSON schema of State. It changes when a field is
// removed or changes its meaning, not when one is added.
const StateVersion = 1

// Phases of a machine.
const (
	PhaseBought       = "Bought"       // a NodeClaim without a machine
	PhaseBooting      = "Booting"      // a machine without a Node
	PhaseInitializing = "Initializing" // a Node that is not ready for all pods
	PhaseReady        = "Ready"
	PhaseDraining     = "Draining"
)

// State is a cluster at one time.
type State struct {
	Version int       `json:"version"`
	Time    time.Time `json:"time"`
	// Cluster is the name for people, or empty.
	Cluster string `json:"cluster,omitempty"`
	// USDPerHour is the cost of all nodes whose price is known; Unpriced is the number
	// of the others.
	USDPerHour float64 `json:"usdPerHour"`
	Unpriced   int     `json:"unpriced"`
	// Bound is nil until it has been computed.
	Bound *Bound    `json:"bound,omitempty"`
	Pods  PodCounts `json:"pods"`
	// CPU is in millicores, Memory in bytes, both over all nodes.
	CPU    Use     `json:"cpu"`
	Memory Use     `json:"memory"`
	Groups []Group `json:"groups"`
	Nodes  []Node  `json:"nodes"`
	// Waiting are the pods without a node, by the reason.
	Waiting []Waiting `json:"waiting"`
	Quotas  []Quota   `json:"quotas"`
	Pools   []Pool    `json:"pools"`
}

// Bound is a proven lower bound of what the machines of NodePools must cost for the
// pods on them, and the cost at the time of the proof.
type Bound struct {
	// USDPerHour is the bound, Cost what the same machines cost.
	USDPerHour float64   `json:"usdPerHour"`
	Cost       float64   `json:"cost"`
	Gap        float64   `json:"gap"` // cost/bound − 1; 0 if there is nothing to buy
	Pods       int       `json:"pods"`
	Kind       string    `json:"kind"`
	Time       time.Time `json:"time"`
}

// PodCounts are pods by what becomes of them. Pending = Refused + Assigned + pods that
// have no verdict yet.
type PodCounts struct {
	Running  int `json:"running"` // bound to a node
	Pending  int `json:"pending"`
	Refused  int `json:"refused"`
	Assigned int `json:"assigned"` // will go to a node or machine that is being made
}

// Use is requests beside what nodes offer to pods, in millicores or bytes.
type Use struct {
	Requested   int64 `json:"requested"`
	Allocatable int64 `json:"allocatable"`
}

// Share returns Requested/Allocatable, 0 if nothing is allocatable.
func (u Use) Share() float64 {
	if u.Allocatable <= 0 {
		return 0
	}
	return float64(u.Requested) / float64(u.Allocatable)
}

// Group is machines that were bought alike.
type Group struct {
	Pool         string  `json:"pool"` // empty: not of a NodePool
	Size         string  `json:"size"`
	Zone         string  `json:"zone"`
	CapacityType string  `json:"capacityType"`
	Count        int     `json:"count"`
	USDPerHour   float64 `json:"usdPerHour"`
}

// Node is a machine with or without its Node object.
type Node struct {
	// Name is the Node's name, that of the NodeClaim before there is a Node.
	Name  string `json:"name"`
	Claim string `json:"claim,omitempty"`
	// Pool is the NodePool; empty for nodes that nap does not own.
	Pool         string  `json:"pool,omitempty"`
	Size         string  `json:"size,omitempty"`
	Zone         string  `json:"zone,omitempty"`
	CapacityType string  `json:"capacityType,omitempty"`
	USDPerHour   float64 `json:"usdPerHour"`
	Priced       bool    `json:"priced"`
	Phase        string  `json:"phase"`
	// Created is when the machine was asked for, Since when its phase began.
	Created time.Time `json:"created"`
	Since   time.Time `json:"since"`
	CPU     Use       `json:"cpu"`
	Memory  Use       `json:"memory"`
	Pods    int       `json:"pods"`
	Image   string    `json:"image,omitempty"`
	// Why is why the machine was bought, Stays why it is not removed now.
	Why   string `json:"why,omitempty"`
	Stays Stay   `json:"stays"`
	// Drift is the reason if the machine differs from its NodePool or class.
	Drift string `json:"drift,omitempty"`
	// Decision is the ID of the purchase in the timeline, if it is recorded.
	Decision uint64 `json:"decision,omitempty"`
}

// InFlight reports whether the machine is on its way in or out.
func (n *Node) InFlight() bool { return n.Phase != PhaseReady }

// Stay names what keeps a machine.
type Stay struct {
	// Code is one of the Stay constants, Text a sentence with the names.
	Code string `json:"code"`
	Text string `json:"text"`
}

// Pod is a pod on a node.
type Pod struct {
	Name   string    `json:"name"` // namespace/name
	Owner  string    `json:"owner,omitempty"`
	CPU    int64     `json:"cpu"`    // millicores
	Memory int64     `json:"memory"` // bytes
	Since  time.Time `json:"since"`
}

// Waiting is pending pods with the same verdict.
type Waiting struct {
	// Outcome is Refused, Deferred, Invalid, OnNode, OnMachine, or Unseen for pods that
	// have not been in a pass yet.
	Outcome string `json:"outcome"`
	Code    string `json:"code,omitempty"`
	Reason  string `json:"reason"`
	// Count is the number of pods, Pods the first of them (at most 200).
	Count int       `json:"count"`
	Pods  []string  `json:"pods"`
	Since time.Time `json:"since"` // of the oldest
	// Stages is the funnel of constraints, Nearest the near misses.
	Stages  []engine.Stage `json:"stages,omitempty"`
	Nearest []engine.Miss  `json:"nearest,omitempty"`
	// Node is where OnNode and OnMachine pods will go, if it is the same for all.
	Node string `json:"node,omitempty"`
}

// Quota is a quota of the cloud, in vCPUs.
type Quota struct {
	Name  string `json:"name"`
	Title string `json:"title,omitempty"`
	Used  int64  `json:"used"`
	Limit int64  `json:"limit"`
}

// Pool is a NodePool with what may be disrupted in it.
type Pool struct {
	Name       string  `json:"name"`
	Nodes      int     `json:"nodes"`
	USDPerHour float64 `json:"usdPerHour"`
	Ready      bool    `json:"ready"`
	// Policy is the consolidation policy, After consolidateAfter ("Never" if so).
	Policy string `json:"policy"`
	After  string `json:"after"`
	// Windows are the next 24 hours, by reason; see Window.
	Windows []Window `json:"windows"`
	// Problem is why Windows could not be computed.
	Problem string `json:"problem,omitempty"`
}

// Window is a time in which as many nodes of a pool may be disrupted for a reason.
type Window struct {
	Reason  string    `json:"reason"`
	From    time.Time `json:"from"`
	To      time.Time `json:"to"`
	Allowed int       `json:"allowed"`
}
