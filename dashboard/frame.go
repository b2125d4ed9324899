// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package dashboard

import "time"

// Frame is the part of a State that is recorded: enough for the map as it was then.
type Frame struct {
	Time       time.Time   `json:"t"`
	USDPerHour float64     `json:"usd"`
	Pods       PodCounts   `json:"pods"`
	BoundUSD   float64     `json:"bound,omitempty"`
	Nodes      []FrameNode `json:"nodes"`
}

// FrameNode is a node of a Frame, with short names because there are many.
type FrameNode struct {
	Name         string  `json:"n"`
	Pool         string  `json:"p,omitempty"`
	Size         string  `json:"s,omitempty"`
	Zone         string  `json:"z,omitempty"`
	CapacityType string  `json:"c,omitempty"`
	USDPerHour   float64 `json:"u"`
	Phase        string  `json:"h"`
	CPUShare     float64 `json:"r"` // requested of allocatable, in thousandths
	Pods         int     `json:"k"`
}

// frame returns the frame of a state.
func (s *State) frame() *Frame {
	f := &Frame{Time: s.Time, USDPerHour: s.USDPerHour, Pods: s.Pods, Nodes: make([]FrameNode, 0, len(s.Nodes))}
	if s.Bound != nil {
		f.BoundUSD = s.Bound.USDPerHour
	}
	for i := range s.Nodes {
		n := &s.Nodes[i]
		f.Nodes = append(f.Nodes, FrameNode{
			Name: n.Name, Pool: n.Pool, Size: n.Size, Zone: n.Zone, CapacityType: n.CapacityType, USDPerHour: n.USDPerHour,
			Phase: n.Phase, CPUShare: float64(int(n.CPU.Share()*1000)) / 1000, Pods: n.Pods,
		})
	}
	return f
}

// Point is a moment of the timeline's curves.
type Point struct {
	Time    time.Time `json:"t"`
	USD     float64   `json:"usd"`
	Bound   float64   `json:"bound"`
	Nodes   int       `json:"nodes"`
	Running int       `json:"running"`
	Pending int       `json:"pending"`
}

func (f *Frame) point() Point {
	return Point{Time: f.Time, USD: f.USDPerHour, Bound: f.BoundUSD, Nodes: len(f.Nodes), Running: f.Pods.Running, Pending: f.Pods.Pending}
}

// State returns a frame as a State without what was not recorded.
func (f *Frame) State() *State {
	s := &State{
		Version: StateVersion, Time: f.Time, USDPerHour: f.USDPerHour, Pods: f.Pods,
		Groups: []Group{}, Nodes: []Node{}, Waiting: []Waiting{}, Quotas: []Quota{}, Pools: []Pool{},
	}
	for _, n := range f.Nodes {
		s.Nodes = append(s.Nodes, Node{
			Name: n.Name, Pool: n.Pool, Size: n.Size, Zone: n.Zone, CapacityType: n.CapacityType, USDPerHour: n.USDPerHour, Priced: n.USDPerHour > 0,
			Phase: n.Phase, CPU: Use{Requested: int64(n.CPUShare * 1000), Allocatable: 1000}, Pods: n.Pods,
		})
	}
	return s
}
