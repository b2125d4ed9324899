// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"reflect"
	"slices"
	"testing"
)

func TestUndoRestoresNodes(t *testing.T) {
	s := smallCluster()
	s.Nodes[0].VolumeLimits = map[string]int{"disk": 2}
	addClass(s, "web", 2, func(p *PodClass) {
		p.HostPorts = []HostPort{{Port: 80}}
		p.SharedVolumes = []SharedVolume{{Driver: "disk", ID: "data"}}
	})
	ps := beginPass(t, s, Options{})
	nd := ps.c.nodes[0]
	free, ports, shared := slices.Clone(nd.free), slices.Clone(nd.ports), nd.shared
	v := ps.classes[0].v
	if n := ps.existing.add(v, 0, 2); n != 1 {
		t.Fatalf("%d pods with the same host port on a node", n)
	}
	if len(ps.existing.candidates(v)) != 1 || ps.existing.add(v, 0, 1) != 0 {
		t.Error("a second pod with the host port has room")
	}
	if slices.Equal(nd.free, free) || len(nd.ports) != 1 || len(nd.shared) != 1 {
		t.Error("the node is unchanged")
	}
	ps.existing.undo()
	if !slices.Equal(nd.free, free) || !slices.Equal(nd.ports, ports) || !reflect.DeepEqual(nd.shared, shared) || len(ps.existing.placed) > 0 {
		t.Errorf("after undo: free %v, ports %v, shared %v", nd.free, nd.ports, nd.shared)
	}
}

func TestRunsOnANodeAreJoined(t *testing.T) {
	s := smallCluster()
	addClass(s, "web", 3, nil)
	ps := beginPass(t, s, Options{})
	v := ps.classes[0].v
	ps.existing.add(v, 0, 1)
	ps.existing.add(v, 0, 5)
	if len(ps.existing.placed) != 1 || ps.existing.placed[0].run.n != 3 {
		t.Fatalf("placed %v, want one run of 3 pods", ps.existing.placed)
	}
	if len(ps.existing.candidates(v)) != 0 || !ps.existing.hadRoom(v.pc.cl) {
		t.Error("the node is full, and had room before")
	}
}

func TestFitSharedTakesAttachmentsOfNewVolumes(t *testing.T) {
	d := dimTable{ids: map[string]int{}}
	for _, name := range []string{ResourceCPU, ResourceMemory, ResourcePods, attachPrefix + "disk"} {
		d.id(name)
	}
	volume := SharedVolume{Driver: "disk", ID: "data"}
	for _, test := range []struct {
		own, free int64
		attached  bool
		want      int64
	}{
		{0, 1, false, 9},
		{0, 0, false, 0},
		{0, 0, true, 9},
		{2, 7, false, 3},
		{2, 2, false, 0},
		{1, -1, false, 0},
	} {
		cl := &class{vec: []int64{0, 0, 1, test.own}, pc: PodClass{SharedVolumes: []SharedVolume{volume}}}
		got := d.fitShared(cl, []int64{0, 0, 9, test.free}, 9, func(SharedVolume) bool { return test.attached })
		if got != test.want {
			t.Errorf("own %d, free %d, attached %v: %d pods, want %d", test.own, test.free, test.attached, got, test.want)
		}
	}
}
