// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package snapshot_test

import (
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	karpv1 "sigs.k8s.io/karpenter/pkg/apis/v1"

	"github.com/nap-aks/nap/engine"
	"github.com/nap-aks/nap/snapshot"
)

// claimed returns a claim that is bound to a volume, and the volume.
func claimed(name string, mode corev1.PersistentVolumeAccessMode, labels map[string]string) (*corev1.PersistentVolumeClaim, *corev1.PersistentVolume) {
	modes := []corev1.PersistentVolumeAccessMode{mode}
	return &corev1.PersistentVolumeClaim{
			ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "default", Annotations: map[string]string{"pv.kubernetes.io/bind-completed": "yes"}},
			Spec:       corev1.PersistentVolumeClaimSpec{AccessModes: modes, VolumeName: "pv-" + name, StorageClassName: ptr("")}},
		&corev1.PersistentVolume{
			ObjectMeta: metav1.ObjectMeta{Name: "pv-" + name, Labels: labels},
			Spec: corev1.PersistentVolumeSpec{AccessModes: modes, PersistentVolumeSource: corev1.PersistentVolumeSource{
				CSI: &corev1.CSIPersistentVolumeSource{Driver: "disk.csi.azure.com", VolumeHandle: name}}}}
}

// uses mounts a claim.
func uses(name string) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		p.Spec.Volumes = []corev1.Volume{{Name: "v", VolumeSource: corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: name}}}}
	}
}

// TestVolumeLabelsHoldToZone checks that the zone label of a volume, in either
// spelling, decides where the pod can be, and that nodes without zone take it.
func TestVolumeLabelsHoldToZone(t *testing.T) {
	for _, key := range []string{corev1.LabelFailureDomainBetaZone, corev1.LabelTopologyZone} {
		t.Run(key, func(t *testing.T) {
			for zone, want := range map[string]int{"zone-1": 1, "zone-2__zone-1": 1, "elsewhere": 0} {
				o := base()
				claim, volume := claimed("old", corev1.ReadWriteOnce, map[string]string{key: zone})
				o.PVCs, o.PVs = append(o.PVCs, claim), append(o.PVs, volume)
				o.Pods = []*corev1.Pod{pod("p", uses("old"))}
				p, err := engine.Place(build(t, o).Snapshot, engine.Options{})
				if err != nil {
					t.Fatal(err)
				}
				if len(p.Machines) != want {
					t.Fatalf("volume in %s: %d machines, want %d: %+v", zone, len(p.Machines), want, p.Verdicts)
				}
				for _, m := range p.Machines {
					for _, off := range m.Offerings {
						if !slices.Contains(strings.Split(zone, "__"), off.Zone) {
							t.Errorf("volume in %s: machine may be in %s", zone, off.Zone)
						}
					}
				}
			}
			o := base()
			claim, volume := claimed("old", corev1.ReadWriteOnce, map[string]string{key: "elsewhere"})
			o.PVCs, o.PVs = append(o.PVCs, claim), append(o.PVs, volume)
			o.Nodes = []*corev1.Node{node("nowhere", func(n *corev1.Node) {
				n.Labels = map[string]string{karpv1.NodeInitializedLabelKey: "true"}
			})}
			o.Pods = []*corev1.Pod{pod("p", uses("old"))}
			p, err := engine.Place(build(t, o).Snapshot, engine.Options{})
			if err != nil {
				t.Fatal(err)
			}
			if len(p.Placements) != 1 {
				t.Errorf("a node without zone and region does not take the pod: %+v", p.Verdicts)
			}
		})
	}
}

// TestReadWriteOncePod checks that one pod at a time gets such a claim, whether it runs
// or waits, and that others do not pay for it.
func TestReadWriteOncePod(t *testing.T) {
	for name, test := range map[string]struct {
		mode    corev1.PersistentVolumeAccessMode
		running bool
		invalid []string
	}{
		"two wait":     {corev1.ReadWriteOncePod, false, []string{"default/b"}},
		"one runs":     {corev1.ReadWriteOncePod, true, []string{"default/a", "default/b"}},
		"any may have": {corev1.ReadWriteOnce, true, nil},
	} {
		t.Run(name, func(t *testing.T) {
			o := base()
			claim, volume := claimed("sole", test.mode, nil)
			o.PVCs, o.PVs = append(o.PVCs, claim), append(o.PVs, volume)
			o.Pods = []*corev1.Pod{pod("b", uses("sole")), pod("a", uses("sole"))}
			if test.running {
				o.Nodes = []*corev1.Node{node("n1")}
				o.Pods = append(o.Pods, pod("holder", uses("sole"), bound("n1")))
			}
			in := build(t, o)
			var got []string
			for k, err := range in.Invalid {
				if !strings.Contains(err.Error(), "default/sole (ReadWriteOncePod)") {
					t.Errorf("%s: %v", k, err)
				}
				got = append(got, k)
			}
			if slices.Sort(got); !slices.Equal(got, test.invalid) {
				t.Errorf("without claim: %v, want %v", got, test.invalid)
			}
			if len(in.Pods) != 2-len(test.invalid) {
				t.Errorf("pods to place: %d, want %d", len(in.Pods), 2-len(test.invalid))
			}
		})
	}
}

// TestResizeOfPodCounts checks that a pod whose own resources are being reduced in place
// keeps what it has until the kubelet has taken it away.
func TestResizeOfPodCounts(t *testing.T) {
	cpu := func(v string) corev1.ResourceList {
		return corev1.ResourceList{corev1.ResourceCPU: resource.MustParse(v)}
	}
	o := base()
	o.Nodes = []*corev1.Node{node("n1")}
	p := pod("shrinks", bound("n1"), func(p *corev1.Pod) {
		p.Spec.Resources = &corev1.ResourceRequirements{Requests: cpu("1")}
		p.Status.Resources = &corev1.ResourceRequirements{Requests: cpu("3")}
		p.Status.AllocatedResources = cpu("2")
	})
	o.Pods = []*corev1.Pod{p}
	s := build(t, o).Snapshot
	n := find(t, s, "n1")
	if got := s.Classes[n.Pods[0].Class].Requests[engine.ResourceCPU]; got != 3000 {
		t.Errorf("cpu of a pod that shrinks from 3 to 1: %dm, want 3000m", got)
	}
	if snapshot.PodKey(p) != n.Pods[0].Pods[0] {
		t.Errorf("pods: %v", n.Pods)
	}
}
