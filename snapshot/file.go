// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package snapshot

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	storagev1 "k8s.io/api/storage/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	karpv1 "sigs.k8s.io/karpenter/pkg/apis/v1"
	"sigs.k8s.io/karpenter/pkg/cloudprovider"
	"sigs.k8s.io/karpenter/pkg/scheduling"
)

// FileVersion is the version of the snapshot file format that this package writes. It
// reads this version and earlier ones. Version 2 added quotas.
const FileVersion = 2

const fileKind = "nap-snapshot"

// file is the content of a snapshot file: JSON, compressed with gzip when written. A
// list of instance types that several NodePools share is written once.
type file struct {
	Kind     string    `json:"kind"`
	Version  int       `json:"version"`
	Time     time.Time `json:"time"`
	Settings Settings  `json:"settings"`

	Pods         []*corev1.Pod                   `json:"pods,omitempty"`
	VirtualPods  []*corev1.Pod                   `json:"virtualPods,omitempty"`
	Nodes        []*corev1.Node                  `json:"nodes,omitempty"`
	NodePools    []*karpv1.NodePool              `json:"nodePools,omitempty"`
	NodeClaims   []*karpv1.NodeClaim             `json:"nodeClaims,omitempty"`
	DaemonSets   []*appsv1.DaemonSet             `json:"daemonSets,omitempty"`
	Namespaces   []*corev1.Namespace             `json:"namespaces,omitempty"`
	PDBs         []*policyv1.PodDisruptionBudget `json:"podDisruptionBudgets,omitempty"`
	PVCs         []*corev1.PersistentVolumeClaim `json:"persistentVolumeClaims,omitempty"`
	PVs          []*corev1.PersistentVolume      `json:"persistentVolumes,omitempty"`
	Classes      []*storagev1.StorageClass       `json:"storageClasses,omitempty"`
	CSINodes     []*storagev1.CSINode            `json:"csiNodes,omitempty"`
	Services     []*corev1.Service               `json:"services,omitempty"`
	ReplicaSets  []*appsv1.ReplicaSet            `json:"replicaSets,omitempty"`
	StatefulSets []*appsv1.StatefulSet           `json:"statefulSets,omitempty"`
	RCs          []*corev1.ReplicationController `json:"replicationControllers,omitempty"`
	Marked       []string                        `json:"marked,omitempty"`
	Assumed      map[string]string               `json:"promised,omitempty"`
	Held         []string                        `json:"held,omitempty"`
	Quotas       []Quota                         `json:"quotas,omitempty"`
	Types        [][]fileInstanceType            `json:"instanceTypes,omitempty"`
	TypesOf      map[string]int                  `json:"instanceTypesOf,omitempty"`
}

// fileInstanceType is a cloudprovider.InstanceType in JSON, which Karpenter does not
// define for requirements.
type fileInstanceType struct {
	Name         string                                        `json:"name"`
	Requirements []karpv1.NodeSelectorRequirementWithMinValues `json:"requirements"`
	Capacity     corev1.ResourceList                           `json:"capacity"`
	Overhead     *cloudprovider.InstanceTypeOverhead           `json:"overhead,omitempty"`
	VolumeLimits map[string]int                                `json:"volumeLimits,omitempty"`
	Offerings    []fileOffering                                `json:"offerings"`
}

type fileOffering struct {
	Requirements []karpv1.NodeSelectorRequirementWithMinValues `json:"requirements"`
	Price        float64                                       `json:"priceUSDPerHour"`
	Available    bool                                          `json:"available"`
	Reserved     int                                           `json:"reservationCapacity,omitempty"`
	Capacity     corev1.ResourceList                           `json:"capacity,omitempty"`
	Overhead     *cloudprovider.InstanceTypeOverhead           `json:"overhead,omitempty"`
}

// WriteFile writes the cluster to a file that ReadFile reads. Fields that no decision
// depends on are left out: commands, environments, images, annotations and status
// texts.
func WriteFile(path string, o *Objects) error {
	var b bytes.Buffer
	if err := Write(&b, o); err != nil {
		return err
	}
	if err := os.WriteFile(path, b.Bytes(), 0o600); err != nil {
		return fmt.Errorf("writing the snapshot file: %w", err)
	}
	return nil
}

// ReadFile reads a file that WriteFile wrote. It also accepts uncompressed JSON.
func ReadFile(path string) (*Objects, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("opening the snapshot file: %w", err)
	}
	defer f.Close()
	o, err := Read(f)
	if err != nil {
		return nil, fmt.Errorf("reading snapshot file %s: %w", path, err)
	}
	return o, nil
}

// Write writes the cluster as WriteFile does.
func Write(w io.Writer, o *Objects) error {
	f := file{
		Kind: fileKind, Version: FileVersion, Time: o.Now, Settings: o.Settings,
		Pods: slim(o.Pods), VirtualPods: slim(o.VirtualPods), Nodes: slim(o.Nodes), NodePools: slim(o.NodePools), NodeClaims: slim(o.NodeClaims),
		DaemonSets: slim(o.DaemonSets), Namespaces: slim(o.Namespaces), PDBs: slim(o.PDBs), PVCs: slim(o.PVCs), PVs: slim(o.PVs),
		Classes: slim(o.Classes), CSINodes: slim(o.CSINodes), Services: slim(o.Services), ReplicaSets: slim(o.ReplicaSets),
		StatefulSets: slim(o.StatefulSets), RCs: slim(o.RCs), Marked: o.Marked, Assumed: o.Assumed, Held: o.Held, Quotas: o.Quotas, TypesOf: map[string]int{},
	}
	var lists [][]*cloudprovider.InstanceType
	for _, pool := range slices.Sorted(maps.Keys(o.InstanceTypes)) {
		list := o.InstanceTypes[pool]
		at := slices.IndexFunc(lists, func(have []*cloudprovider.InstanceType) bool { return slices.Equal(have, list) })
		if at < 0 {
			at = len(lists)
			lists = append(lists, list)
			f.Types = append(f.Types, toFile(list))
		}
		f.TypesOf[pool] = at
	}
	zw := gzip.NewWriter(w)
	if err := json.NewEncoder(zw).Encode(f); err != nil {
		return fmt.Errorf("writing the snapshot: %w", err)
	}
	if err := zw.Close(); err != nil {
		return fmt.Errorf("writing the snapshot: %w", err)
	}
	return nil
}

// Read reads what Write wrote.
func Read(r io.Reader) (*Objects, error) {
	br := bufio.NewReader(r)
	var in io.Reader = br
	if magic, _ := br.Peek(2); len(magic) == 2 && magic[0] == 0x1f && magic[1] == 0x8b {
		zr, err := gzip.NewReader(br)
		if err != nil {
			return nil, fmt.Errorf("decompressing: %w", err)
		}
		in = zr
	}
	var f file
	if err := json.NewDecoder(in).Decode(&f); err != nil {
		return nil, fmt.Errorf("not a snapshot file: %w", err)
	}
	switch {
	case f.Kind != fileKind:
		return nil, fmt.Errorf("not a snapshot file: its kind is %q, not %q", f.Kind, fileKind)
	case f.Version > FileVersion:
		return nil, fmt.Errorf("format version %d is newer than %d, the newest that this nap reads: use a newer nap", f.Version, FileVersion)
	}
	o := &Objects{
		Now: f.Time, Settings: f.Settings, Pods: f.Pods, VirtualPods: f.VirtualPods, Nodes: f.Nodes, NodePools: f.NodePools, NodeClaims: f.NodeClaims,
		DaemonSets: f.DaemonSets, Namespaces: f.Namespaces, PDBs: f.PDBs, PVCs: f.PVCs, PVs: f.PVs, Classes: f.Classes, CSINodes: f.CSINodes,
		Services: f.Services, ReplicaSets: f.ReplicaSets, StatefulSets: f.StatefulSets, RCs: f.RCs, Marked: f.Marked, Assumed: f.Assumed, Held: f.Held, Quotas: f.Quotas,
		InstanceTypes: map[string][]*cloudprovider.InstanceType{},
	}
	lists := make([][]*cloudprovider.InstanceType, len(f.Types))
	for i := range f.Types {
		lists[i] = fromFile(f.Types[i])
	}
	for pool, at := range f.TypesOf {
		if at < 0 || at >= len(lists) {
			return nil, fmt.Errorf("NodePool %s refers to list %d of %d lists of instance types", pool, at, len(lists))
		}
		o.InstanceTypes[pool] = lists[at]
	}
	return o, nil
}

func toFile(list []*cloudprovider.InstanceType) []fileInstanceType {
	out := make([]fileInstanceType, 0, len(list))
	for _, it := range list {
		f := fileInstanceType{Name: it.Name, Requirements: sorted(it.Requirements), Capacity: it.Capacity, Overhead: it.Overhead, VolumeLimits: it.VolumeAttachmentLimits}
		for _, o := range it.Offerings {
			f.Offerings = append(f.Offerings, fileOffering{Requirements: sorted(o.Requirements), Price: o.Price, Available: o.Available, Reserved: o.ReservationCapacity, Capacity: o.CapacityOverride, Overhead: o.OverheadOverride})
		}
		out = append(out, f)
	}
	return out
}

func fromFile(list []fileInstanceType) []*cloudprovider.InstanceType {
	out := make([]*cloudprovider.InstanceType, 0, len(list))
	for _, f := range list {
		it := &cloudprovider.InstanceType{
			Name: f.Name, Requirements: scheduling.NewNodeSelectorRequirementsWithMinValues(f.Requirements...), Capacity: f.Capacity,
			Overhead: f.Overhead, VolumeAttachmentLimits: f.VolumeLimits,
		}
		if it.Overhead == nil {
			it.Overhead = &cloudprovider.InstanceTypeOverhead{}
		}
		for _, o := range f.Offerings {
			it.Offerings = append(it.Offerings, &cloudprovider.Offering{
				Requirements: scheduling.NewNodeSelectorRequirementsWithMinValues(o.Requirements...), Price: o.Price, Available: o.Available,
				ReservationCapacity: o.Reserved, CapacityOverride: o.Capacity, OverheadOverride: o.Overhead,
			})
		}
		out = append(out, it)
	}
	return out
}

func sorted(reqs scheduling.Requirements) []karpv1.NodeSelectorRequirementWithMinValues {
	out := reqs.NodeSelectorRequirements()
	slices.SortStableFunc(out, func(a, b karpv1.NodeSelectorRequirementWithMinValues) int { return strings.Compare(a.Key, b.Key) })
	return out
}

// slim returns copies of objects without the fields that no decision depends on.
func slim[T client.Object](list []T) []T {
	out := make([]T, 0, len(list))
	for _, o := range list {
		c := o.DeepCopyObject().(T)
		c.SetManagedFields(nil)
		for k := range c.GetAnnotations() {
			if !strings.Contains(k, "karpenter") && !strings.HasPrefix(k, "pv.kubernetes.io/") && !strings.HasPrefix(k, "controller.kubernetes.io/") && !strings.HasPrefix(k, "autoscaling.x-k8s.io/") {
				delete(c.GetAnnotations(), k)
			}
		}
		switch t := any(c).(type) {
		case *corev1.Pod:
			slimPod(&t.Spec)
			t.Status.HostIPs, t.Status.PodIPs, t.Status.HostIP, t.Status.PodIP = nil, nil, "", ""
			slimStatuses(t.Status.ContainerStatuses)
			slimStatuses(t.Status.InitContainerStatuses)
			t.Status.EphemeralContainerStatuses = nil
		case *corev1.Node:
			t.Status.Images, t.Status.Addresses, t.Status.VolumesInUse, t.Status.VolumesAttached = nil, nil, nil, nil
		case *appsv1.DaemonSet:
			slimPod(&t.Spec.Template.Spec)
		case *appsv1.ReplicaSet:
			t.Spec.Template.Spec = corev1.PodSpec{}
		case *appsv1.StatefulSet:
			t.Spec.Template.Spec = corev1.PodSpec{}
		case *corev1.ReplicationController:
			t.Spec.Template = nil
		}
		out = append(out, c)
	}
	return out
}

func slimPod(s *corev1.PodSpec) {
	for _, list := range [][]corev1.Container{s.Containers, s.InitContainers} {
		for i := range list {
			c := &list[i]
			list[i] = corev1.Container{Name: c.Name, Ports: c.Ports, Resources: c.Resources, RestartPolicy: c.RestartPolicy}
		}
	}
	s.Volumes = slices.DeleteFunc(s.Volumes, func(v corev1.Volume) bool { return v.PersistentVolumeClaim == nil && v.Ephemeral == nil })
	s.EphemeralContainers, s.ImagePullSecrets, s.HostAliases, s.DNSConfig, s.SecurityContext = nil, nil, nil, nil, nil
}

func slimStatuses(list []corev1.ContainerStatus) {
	for i := range list {
		c := &list[i]
		list[i] = corev1.ContainerStatus{Name: c.Name, AllocatedResources: c.AllocatedResources, Resources: c.Resources}
	}
}
