// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"reflect"
	"testing"
)

func TestMachineRoomFollowsSizePortsAndRules(t *testing.T) {
	s := smallCluster()
	addClass(s, "plain", 20, nil)
	addClass(s, "port", 2, func(p *PodClass) { p.HostPorts = []HostPort{{Port: 80}} })
	addClass(s, "apart", 2, func(p *PodClass) {
		p.PodAntiAffinity = []AffinityTerm{{Key: LabelHostname, Selector: selectApp("apart")}}
	})
	ps := beginPass(t, s, Options{})
	m := ps.newMachine(ps.columnOf(t, "large", "z1"))
	for i, want := range []int64{8, 1, 1} {
		v := ps.classes[i].v
		if got := m.room(v, 20); got != want {
			t.Errorf("room for %d of %s, want %d", got, v.pc.cl.pc.Name, want)
		}
	}
	for _, pc := range ps.classes {
		m.commit(pc.v, 0, 1)
	}
	for i, want := range []int64{5, 0, 0} {
		v := ps.classes[i].v
		if got := m.room(v, 20); got != want {
			t.Errorf("with one pod of each there is room for %d more of %s, want %d", got, v.pc.cl.pc.Name, want)
		}
	}
}

func TestMachineAttachesASharedVolumeOnce(t *testing.T) {
	s := smallCluster()
	s.Catalogues[0].InstanceTypes[1].VolumeLimits = map[string]int{"disk": 2}
	addClass(s, "shared", 3, func(p *PodClass) {
		p.SharedVolumes = []SharedVolume{{Driver: "disk", ID: "data"}}
		p.Volumes = map[string]int{"disk": 1}
	})
	ps := beginPass(t, s, Options{})
	v := ps.classes[0].v
	m := ps.newMachine(ps.columnOf(t, "large", "z1"))
	if got := m.room(v, 3); got != 1 {
		t.Fatalf("room for %d pods with one volume each and one shared, want 1 of 2 attachments", got)
	}
	m.commit(v, 0, 1)
	if got := m.free[ps.c.dims.ids[attachPrefix+"disk"]]; got != 0 {
		t.Errorf("%d attachments free, want 0", got)
	}
}

func TestMachineKeepsWhatPodsRelyOn(t *testing.T) {
	s := smallCluster()
	addClass(s, "plain", 1, nil)
	addClass(s, "spread", 1, spreading(1, 0))
	ps := beginPass(t, s, Options{})
	m := ps.newMachine(ps.columnOf(t, "small", "z1"))
	other, larger := ps.columnOf(t, "small", "z2"), ps.columnOf(t, "large", "z1")
	m.commit(ps.classes[0].v, 0, 1)
	if !m.pinned(other) {
		t.Error("nothing relies on the zone, and the machine is pinned to it")
	}
	m.commit(ps.classes[1].v, 0, 1)
	if m.pinned(other) || !m.pinned(larger) {
		t.Error("a spread over zones relies on the zone, not on the size")
	}
	if m.room(ps.classes[0].v, 1) != 0 {
		t.Error("the machine of 2 CPUs has room for a third pod")
	}
	ps.move(m, larger, m.used(nil))
	if got := m.room(ps.classes[0].v, 9); got != 6 || m.price() != 0.3 {
		t.Errorf("the larger machine has room for %d pods at $%v, want 6 at $0.3", got, m.price())
	}
}

func TestMachineCloneIsUnaffectedByChanges(t *testing.T) {
	s := smallCluster()
	addClass(s, "apart", 2, func(p *PodClass) {
		p.PodAntiAffinity = []AffinityTerm{{Key: LabelHostname, Selector: selectApp("db")}}
	})
	addClass(s, "db", 1, nil)
	ps := beginPass(t, s, Options{})
	m := ps.newMachine(ps.columnOf(t, "large", "z1"))
	m.commit(ps.classes[0].v, 0, 1)
	saved, again := m.clone(), m.clone()
	m.commit(ps.classes[0].v, 1, 1)
	m.become(ps.columnOf(t, "small", "z1"), m.used(nil))
	if !reflect.DeepEqual(saved, again) {
		t.Error("the copy has changed with the machine")
	}
	if len(m.pods) != 1 || m.pods[0].n != 2 || saved.pods[0].n != 1 {
		t.Errorf("runs %d and %d", m.pods[0].n, saved.pods[0].n)
	}
}

func TestMachineKeepsMinValues(t *testing.T) {
	s := smallCluster()
	s.Pools[0].Requirements = []Requirement{{Key: LabelInstanceType, Operator: Exists, MinValues: 2}}
	addClass(s, "web", 8, nil)
	for policy, want := range map[MinValuesPolicy]int64{MinValuesStrict: 2, MinValuesBestEffort: 8} {
		ps := beginPass(t, s, Options{MinValues: policy})
		m := ps.newMachine(ps.columnOf(t, "large", "z1"))
		if got := m.room(ps.classes[0].v, 8); got != want {
			t.Errorf("policy %s: room for %d pods, want %d: with more only one size holds them", policy, got, want)
		}
		ps.end()
	}
}
