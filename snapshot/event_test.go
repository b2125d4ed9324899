// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package snapshot_test

import (
	"fmt"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/karpenter/pkg/cloudprovider"

	"github.com/nap-aks/nap/engine"
	"github.com/nap-aks/nap/snapshot"
	"github.com/nap-aks/nap/test/clustergen"
)

const eventTypes = 300

// eventTypesList returns instance types; every call makes new elements.
func eventTypesList(price float64) []*cloudprovider.InstanceType {
	var out []*cloudprovider.InstanceType
	for i := range eventTypes {
		name, p := fmt.Sprintf("type-%03d", i), float64(i+1)/10
		if i == 0 {
			name, p = "m4", price
		}
		out = append(out, clustergen.InstanceType(name, 4+i/10, float64(16+i/5), 0, "amd64", clustergen.Zones, p, p/4))
	}
	return out
}

// overlaid returns copies as an overlay makes them: they share what it leaves alone.
func overlaid(list []*cloudprovider.InstanceType) []*cloudprovider.InstanceType {
	out := make([]*cloudprovider.InstanceType, len(list))
	for i, it := range list {
		out[i] = &cloudprovider.InstanceType{Name: it.Name, Requirements: it.Requirements, Offerings: it.Offerings, Capacity: it.Capacity.DeepCopy(), Overhead: it.Overhead, VolumeAttachmentLimits: it.VolumeAttachmentLimits}
	}
	return out
}

// eventCluster is a cluster with n nodes that have three pods each (one of a
// DaemonSet, one with a volume claim on every tenth node), and one pending pod.
func eventCluster(n int) *snapshot.Objects {
	o := base()
	o.InstanceTypes["default"] = eventTypesList(0.2)
	o.Namespaces = append(o.Namespaces, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "default"}})
	o.DaemonSets = append(o.DaemonSets, eventDaemonSet(0))
	wait := storagev1.VolumeBindingWaitForFirstConsumer
	o.Add(&storagev1.StorageClass{ObjectMeta: metav1.ObjectMeta{Name: "disk"}, Provisioner: "disk.csi.azure.com", VolumeBindingMode: &wait})
	for i := range n {
		name := fmt.Sprintf("node-%05d", i)
		o.Nodes = append(o.Nodes, node(name))
		o.NodeClaims = append(o.NodeClaims, claim("claim-"+name, "id-"+name))
		o.Pods = append(o.Pods, pod("web-"+name, bound(name)), eventDaemon(name, 0))
		if i%10 == 0 {
			o.Add(eventClaim(i, ""))
			o.Pods = append(o.Pods, eventVolumePod(i, bound(name)))
		} else {
			o.Pods = append(o.Pods, pod("api-"+name, bound(name)))
		}
	}
	o.Pods = append(o.Pods, pod("pending"))
	return o
}

func eventDaemonSet(ready int32) *appsv1.DaemonSet {
	d := &appsv1.DaemonSet{ObjectMeta: metav1.ObjectMeta{Name: "agent", Namespace: "default", UID: "agent"}}
	d.Spec.Template.Labels = map[string]string{"app": "agent"}
	d.Spec.Template.Spec = corev1.PodSpec{Containers: pod("agent").Spec.Containers}
	d.Status.NumberReady = ready
	return d
}

func eventDaemon(on string, age int) *corev1.Pod {
	controller := true
	return pod("agent-"+on, bound(on), func(p *corev1.Pod) {
		p.Labels = map[string]string{"app": "agent"}
		p.OwnerReferences = []metav1.OwnerReference{{APIVersion: "apps/v1", Kind: "DaemonSet", Name: "agent", UID: types.UID("agent"), Controller: &controller}}
		p.CreationTimestamp = metav1.NewTime(time.Date(2026, 11, 1, 0, age, 0, 0, time.UTC))
	})
}

func eventClaim(i int, volume string) *corev1.PersistentVolumeClaim {
	class := "disk"
	c := &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("data-%d", i), Namespace: "default"}}
	c.Spec.StorageClassName, c.Spec.VolumeName = &class, volume
	return c
}

func eventVolumePod(i int, mutate ...func(*corev1.Pod)) *corev1.Pod {
	return pod(fmt.Sprintf("db-%d", i), append(mutate, func(p *corev1.Pod) {
		p.Spec.Volumes = []corev1.Volume{{Name: "data", VolumeSource: corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: fmt.Sprintf("data-%d", i)}}}}
	})...)
}

// event is a change of a single object, and what it may make stale.
type event struct {
	name  string
	apply func(c *snapshot.Cache, i int) error
	nodes int
	pools bool
}

func upsert(f func(i int) client.Object) func(*snapshot.Cache, int) error {
	return func(c *snapshot.Cache, i int) error { return c.Upsert(f(i)) }
}

func events() []event {
	list := eventTypesList(0.2)
	overlays := [][]*cloudprovider.InstanceType{overlaid(list), overlaid(list), overlaid(list)}
	return []event{
		{"plain pod", upsert(func(i int) client.Object { return pod(fmt.Sprintf("new-%d", i)) }), 0, false},
		{"bound pod", upsert(func(i int) client.Object { return pod(fmt.Sprintf("bound-%d", i), bound("node-00001")) }), 1, false},
		{"NodePool status", upsert(func(i int) client.Object {
			np := clustergen.NodePool("default")
			np.Status.Resources = corev1.ResourceList{corev1.ResourceCPU: *resource.NewQuantity(int64(i), resource.DecimalSI)}
			return np
		}), 0, false},
		{"DaemonSet status", upsert(func(i int) client.Object { return eventDaemonSet(int32(i)) }), 0, false},
		{"DaemonSet pod", upsert(func(i int) client.Object { return eventDaemon("node-00001", i+1) }), 1, false},
		{"PersistentVolumeClaim", upsert(func(i int) client.Object { return eventClaim(10, fmt.Sprintf("pv-%d", i)) }), 1, false},
		{"PersistentVolume", upsert(func(i int) client.Object {
			pv := &corev1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: "pv", ResourceVersion: fmt.Sprint(i)}}
			pv.Spec.ClaimRef = &corev1.ObjectReference{Namespace: "default", Name: "data-10"}
			return pv
		}), 1, false},
		{"StorageClass metadata", upsert(func(i int) client.Object {
			wait := storagev1.VolumeBindingWaitForFirstConsumer
			return &storagev1.StorageClass{ObjectMeta: metav1.ObjectMeta{Name: "disk", ResourceVersion: fmt.Sprint(i)}, Provisioner: "disk.csi.azure.com", VolumeBindingMode: &wait}
		}), 0, false},
		{"namespace labels", upsert(func(i int) client.Object {
			return &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "default", Labels: map[string]string{"i": fmt.Sprint(i)}}}
		}), 0, false},
		{"node status", upsert(func(i int) client.Object {
			return node("node-00002", func(n *corev1.Node) { n.ResourceVersion = fmt.Sprint(i) })
		}), 1, false},
		{"CSINode", upsert(func(i int) client.Object {
			return &storagev1.CSINode{ObjectMeta: metav1.ObjectMeta{Name: "node-00003", ResourceVersion: fmt.Sprint(i)}}
		}), 1, false},
		{"PodDisruptionBudget", upsert(func(i int) client.Object {
			return &policyv1.PodDisruptionBudget{ObjectMeta: metav1.ObjectMeta{Name: "pdb", Namespace: "default", ResourceVersion: fmt.Sprint(i)}}
		}), 0, false},
		{"overlay without effect", func(c *snapshot.Cache, i int) error {
			c.SetInstanceTypes("default", overlays[i%len(overlays)])
			return nil
		}, 0, false},
	}
}

// An event makes stale what was translated from its object, and no more. Otherwise
// the time of a pass would grow with the cluster.
func TestEventsMakeOnlyTheirOwnStale(t *testing.T) {
	o := eventCluster(40)
	for _, e := range events() {
		t.Run(e.name, func(t *testing.T) {
			c, err := snapshot.Load(o)
			if err != nil {
				t.Fatal(err)
			}
			before, err := c.Snapshot(o.Now)
			if err != nil {
				t.Fatal(err)
			}
			for i := range 3 {
				if err := e.apply(c, i); err != nil {
					t.Fatal(err)
				}
				in, err := c.Snapshot(o.Now)
				if err != nil {
					t.Fatal(err)
				}
				if nodes, pools := in.Renewed(before); nodes > e.nodes || pools != e.pools {
					t.Errorf("%d nodes translated again, want at most %d; NodePools: %v, want %v", nodes, e.nodes, pools, e.pools)
				}
				cold, err := snapshot.Build(c.Objects(o.Now))
				if err != nil {
					t.Fatal(err)
				}
				diff(t, "the snapshot after the event", canonical(t, cold.Snapshot), canonical(t, in.Snapshot))
				before = in
			}
		})
	}
}

// BenchmarkPassAfterEvent is the time of a pass on a warm cache of 5,000 nodes after
// one event.
func BenchmarkPassAfterEvent(b *testing.B) {
	o := eventCluster(5000)
	c, err := snapshot.Load(o)
	if err != nil {
		b.Fatal(err)
	}
	pass := func() {
		in, err := c.Snapshot(o.Now)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := c.Place(in, engine.Options{}); err != nil {
			b.Fatal(err)
		}
	}
	pass()
	i := 0
	for _, e := range events() {
		b.Run(e.name, func(b *testing.B) {
			for b.Loop() {
				if i++; e.apply(c, i) != nil {
					b.Fatal("the event cannot be applied")
				}
				pass()
			}
		})
	}
}
