// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"bytes"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/awslabs/operatorpkg/status"
	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	nodev1 "k8s.io/api/node/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/types"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/controller-runtime/pkg/client"
	karpv1 "sigs.k8s.io/karpenter/pkg/apis/v1"

	"github.com/nap-aks/nap/apis/v1beta1"
	"github.com/nap-aks/nap/snapshot"
)

// Source is a cluster to plan for, before instance types are added.
type Source struct {
	Objects     *snapshot.Objects
	NodeClasses []*v1beta1.AKSNodeClass
	// Notes lists what was ignored or assumed.
	Notes []string
}

func (s *Source) note(format string, args ...any) {
	n := fmt.Sprintf(format, args...)
	if !slices.Contains(s.Notes, n) {
		s.Notes = append(s.Notes, n)
	}
}

// manifests collects the objects of files before workloads become pods.
type manifests struct {
	*Source
	deployments  []*appsv1.Deployment
	replicaSets  []*appsv1.ReplicaSet
	statefulSets []*appsv1.StatefulSet
	jobs         []*batchv1.Job
	admission    admission
}

// ReadManifests reads YAML or JSON files, and replaces workloads by the pods their
// controllers would create. Of directories it reads .yaml, .yml and .json files,
// recursively; "-" is standard input. Objects are created at now.
func ReadManifests(paths []string, now time.Time) (*Source, error) {
	m := &manifests{Source: &Source{Objects: &snapshot.Objects{Now: now}}}
	decoder, err := newDecoder()
	if err != nil {
		return nil, err
	}
	files, err := expandPaths(paths)
	if err != nil {
		return nil, err
	}
	for _, path := range files {
		data, err := readFile(path)
		if err != nil {
			return nil, err
		}
		if err := m.readFile(decoder, path, data); err != nil {
			return nil, err
		}
	}
	m.finish()
	return m.Source, nil
}

func newDecoder() (runtime.Decoder, error) {
	s := runtime.NewScheme()
	if err := scheme.AddToScheme(s); err != nil {
		return nil, fmt.Errorf("registering API types: %w", err)
	}
	if err := v1beta1.AddToScheme(s); err != nil {
		return nil, fmt.Errorf("registering API types: %w", err)
	}
	karpenterTypes(s)
	return serializer.NewCodecFactory(s).UniversalDeserializer(), nil
}

// karpenterTypes registers Karpenter's types, which Karpenter adds to the global
// scheme only.
func karpenterTypes(s *runtime.Scheme) {
	group := schema.GroupVersion{Group: "karpenter.sh", Version: "v1"}
	s.AddKnownTypes(group, &karpv1.NodePool{}, &karpv1.NodePoolList{}, &karpv1.NodeClaim{}, &karpv1.NodeClaimList{})
	metav1.AddToGroupVersion(s, group)
}

func expandPaths(paths []string) ([]string, error) {
	var out []string
	for _, p := range paths {
		if p == "-" {
			out = append(out, p)
			continue
		}
		info, err := os.Stat(p)
		if err != nil {
			return nil, fmt.Errorf("reading manifests: %w", err)
		}
		if !info.IsDir() {
			out = append(out, p)
			continue
		}
		found := len(out)
		err = filepath.WalkDir(p, func(path string, d os.DirEntry, err error) error {
			if err != nil {
				return err
			}
			switch filepath.Ext(path) {
			case ".yaml", ".yml", ".json":
				if !d.IsDir() {
					out = append(out, path)
				}
			}
			return nil
		})
		if err != nil {
			return nil, fmt.Errorf("reading directory %s: %w", p, err)
		}
		if len(out) == found {
			return nil, fmt.Errorf("directory %s has no .yaml, .yml or .json file", p)
		}
	}
	return out, nil
}

func readFile(path string) ([]byte, error) {
	if path == "-" {
		data, err := io.ReadAll(os.Stdin)
		if err != nil {
			return nil, fmt.Errorf("reading standard input: %w", err)
		}
		return data, nil
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("reading manifests: %w", err)
	}
	return data, nil
}

func (m *manifests) readFile(decoder runtime.Decoder, path string, data []byte) error {
	docs := utilyaml.NewYAMLOrJSONDecoder(bytes.NewReader(data), 4096)
	for n := 1; ; n++ {
		var raw runtime.RawExtension
		if err := docs.Decode(&raw); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return fmt.Errorf("%s, document %d: %w", path, n, err)
		}
		text := bytes.TrimSpace(raw.Raw)
		if len(text) == 0 || string(text) == "null" {
			continue
		}
		if err := m.decode(decoder, text); err != nil {
			return fmt.Errorf("%s, document %d: %w", path, n, err)
		}
	}
}

func (m *manifests) decode(decoder runtime.Decoder, text []byte) error {
	// The two versions of the node class have the same fields.
	text = bytes.Replace(text, []byte(`"apiVersion":"karpenter.azure.com/v1alpha2"`), []byte(`"apiVersion":"karpenter.azure.com/v1beta1"`), 1)
	obj, gvk, err := decoder.Decode(text, nil, nil)
	if err != nil {
		if runtime.IsNotRegisteredError(err) {
			kind := "object"
			if gvk != nil {
				kind = gvk.Kind + " (" + gvk.GroupVersion().String() + ")"
			}
			m.note("ignored %s: it does not affect the plan", kind)
			return nil
		}
		if runtime.IsMissingKind(err) || runtime.IsMissingVersion(err) {
			return fmt.Errorf("not a Kubernetes object: %w", err)
		}
		return err
	}
	if list, ok := obj.(*corev1.List); ok {
		for _, item := range list.Items {
			if err := m.decode(decoder, item.Raw); err != nil {
				return err
			}
		}
		return nil
	}
	if o, ok := obj.(client.Object); ok {
		m.add(o, gvk.Kind)
		return nil
	}
	// Typed lists: DeploymentList and so on.
	items, err := extractList(obj)
	if err != nil {
		return fmt.Errorf("%s: %w", gvk.Kind, err)
	}
	for _, o := range items {
		m.add(o, strings.TrimSuffix(gvk.Kind, "List"))
	}
	return nil
}

func (m *manifests) add(o client.Object, kind string) {
	switch t := o.(type) {
	case *corev1.Namespace, *corev1.Node, *corev1.PersistentVolume, *storagev1.StorageClass, *storagev1.CSINode, *karpv1.NodePool, *karpv1.NodeClaim, *v1beta1.AKSNodeClass,
		*schedulingv1.PriorityClass, *nodev1.RuntimeClass:
	default:
		if t.GetNamespace() == "" {
			t.SetNamespace(metav1.NamespaceDefault)
		}
	}
	switch t := o.(type) {
	case *appsv1.Deployment:
		m.deployments = append(m.deployments, t)
	case *appsv1.ReplicaSet:
		m.replicaSets = append(m.replicaSets, t)
	case *appsv1.StatefulSet:
		m.statefulSets = append(m.statefulSets, t)
	case *batchv1.Job:
		m.jobs = append(m.jobs, t)
	case *batchv1.CronJob:
		m.note("ignored CronJob %s/%s: its schedule is not planned", t.Namespace, t.Name)
	case *v1beta1.AKSNodeClass:
		m.NodeClasses = append(m.NodeClasses, t)
	case *corev1.Pod:
		defaultPod(&t.Spec)
		m.pod(t)
	case *appsv1.DaemonSet:
		defaultPod(&t.Spec.Template.Spec)
		if t.UID == "" {
			t.UID = types.UID("daemonset/" + t.Namespace + "/" + t.Name)
		}
		m.Objects.Add(t)
	default:
		if !m.admission.add(o) && !m.Objects.Add(o) {
			m.note("ignored %s: it does not affect the plan", kind)
		}
	}
}

// pod adds a pod. A pod without a node gets the status of an unschedulable pod.
func (m *manifests) pod(p *corev1.Pod) {
	if p.UID == "" {
		p.UID = types.UID("pod/" + p.Namespace + "/" + p.Name)
	}
	if p.CreationTimestamp.IsZero() {
		p.CreationTimestamp = metav1.NewTime(m.Objects.Now)
	}
	switch {
	case p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed:
	case p.Spec.NodeName == "" && len(p.Spec.SchedulingGates) > 0:
		p.Status = corev1.PodStatus{Phase: corev1.PodPending, Conditions: []corev1.PodCondition{{
			Type: corev1.PodScheduled, Status: corev1.ConditionFalse, Reason: corev1.PodReasonSchedulingGated,
		}}}
	case p.Spec.NodeName == "":
		p.Status = corev1.PodStatus{Phase: corev1.PodPending, Conditions: []corev1.PodCondition{{
			Type: corev1.PodScheduled, Status: corev1.ConditionFalse, Reason: corev1.PodReasonUnschedulable,
		}}}
	case p.Status.Phase == "":
		p.Status.Phase = corev1.PodRunning
	}
	m.Objects.Pods = append(m.Objects.Pods, p)
}

// finish replaces workloads by pods and adds what the API server and controllers of
// a cluster would add.
func (m *manifests) finish() {
	owned := map[string]bool{} // "Kind/namespace/name" of controllers whose pods are given
	for _, p := range m.Objects.Pods {
		if o := metav1.GetControllerOfNoCopy(p); o != nil {
			owned[o.Kind+"/"+p.Namespace+"/"+o.Name] = true
		}
	}
	of := map[string]bool{} // Deployments whose ReplicaSets are given
	for _, rs := range m.replicaSets {
		if o := metav1.GetControllerOfNoCopy(rs); o != nil && o.Kind == "Deployment" {
			if owned["ReplicaSet/"+rs.Namespace+"/"+rs.Name] {
				of[rs.Namespace+"/"+o.Name] = true
			}
			m.Objects.Add(rs)
			continue // expanded with its Deployment, or its pods are given
		}
		if !owned["ReplicaSet/"+rs.Namespace+"/"+rs.Name] {
			m.expand(rs.Namespace, rs.Name, rs, "ReplicaSet", rs.Spec.Replicas, &rs.Spec.Template, nil)
		}
		m.Objects.Add(rs)
	}
	for _, d := range m.deployments {
		if of[d.Namespace+"/"+d.Name] {
			continue
		}
		rs := replicaSetOf(d)
		m.Objects.Add(rs)
		m.expand(d.Namespace, d.Name, rs, "ReplicaSet", d.Spec.Replicas, &rs.Spec.Template, nil)
	}
	for _, s := range m.statefulSets {
		if s.UID == "" {
			s.UID = types.UID("statefulset/" + s.Namespace + "/" + s.Name)
		}
		m.Objects.Add(s)
		if !owned["StatefulSet/"+s.Namespace+"/"+s.Name] {
			m.expand(s.Namespace, s.Name, s, "StatefulSet", s.Spec.Replicas, &s.Spec.Template, s.Spec.VolumeClaimTemplates)
		}
	}
	for _, j := range m.jobs {
		n := int32(1)
		if j.Spec.Parallelism != nil {
			n = *j.Spec.Parallelism
		}
		if j.Spec.Completions != nil && *j.Spec.Completions < n {
			n = *j.Spec.Completions
		}
		if j.Spec.Suspend != nil && *j.Spec.Suspend {
			m.note("ignored Job %s/%s: it is suspended", j.Namespace, j.Name)
			continue
		}
		if j.Status.CompletionTime != nil || owned["Job/"+j.Namespace+"/"+j.Name] {
			continue
		}
		m.expand(j.Namespace, j.Name, j, "Job", &n, &j.Spec.Template, nil)
	}
	m.admit()
	m.cluster()
}

// admit completes the pods as the API server does when they are created. Pods that it
// would refuse are left out, with a note.
func (m *manifests) admit() {
	gated := map[string]int{}
	m.Objects.Pods = slices.DeleteFunc(m.Objects.Pods, func(p *corev1.Pod) bool {
		if p.Spec.NodeName != "" {
			return false // was admitted when it was created
		}
		name := p.Name
		if o := metav1.GetControllerOfNoCopy(p); o != nil {
			name = o.Name
		}
		if err := m.admission.admit(p.Namespace, &p.Spec); err != nil {
			m.note("the API server refuses the pods of %s/%s: %v", p.Namespace, name, err)
			return true
		}
		if len(p.Spec.SchedulingGates) > 0 {
			gated[p.Namespace+"/"+name]++
		}
		return false
	})
	for _, name := range slices.Sorted(maps.Keys(gated)) {
		m.note("%d pods of %s have scheduling gates: nothing is planned for them until the gates are removed", gated[name], name)
	}
	for _, d := range m.Objects.DaemonSets {
		if err := m.admission.admit(d.Namespace, &d.Spec.Template.Spec); err != nil {
			m.note("the API server refuses the pods of DaemonSet %s/%s: %v", d.Namespace, d.Name, err)
		}
	}
}

func replicaSetOf(d *appsv1.Deployment) *appsv1.ReplicaSet {
	h := fnv.New32a()
	fmt.Fprintf(h, "%s/%s/%v", d.Namespace, d.Name, d.Spec.Template)
	hash := strconv.FormatUint(uint64(h.Sum32()), 36)
	rs := &appsv1.ReplicaSet{ObjectMeta: metav1.ObjectMeta{Namespace: d.Namespace, Name: d.Name + "-" + hash, UID: types.UID("replicaset/" + d.Namespace + "/" + d.Name)}}
	rs.Spec.Selector = d.Spec.Selector.DeepCopy()
	rs.Spec.Template = *d.Spec.Template.DeepCopy()
	if rs.Spec.Template.Labels == nil {
		rs.Spec.Template.Labels = map[string]string{}
	}
	rs.Spec.Template.Labels[appsv1.DefaultDeploymentUniqueLabelKey] = hash
	return rs
}

// expand adds the pods of a workload.
func (m *manifests) expand(ns, name string, owner client.Object, kind string, replicas *int32, t *corev1.PodTemplateSpec, claims []corev1.PersistentVolumeClaim) {
	n := int32(1)
	if replicas != nil {
		n = *replicas
	}
	defaultPod(&t.Spec)
	width := len(strconv.Itoa(int(max(n-1, 0))))
	yes := true
	for i := range n {
		p := &corev1.Pod{ObjectMeta: *t.ObjectMeta.DeepCopy(), Spec: *t.Spec.DeepCopy()}
		p.Namespace = ns
		p.Name = fmt.Sprintf("%s-%0*d", name, width, i)
		if kind == "StatefulSet" {
			p.Name = fmt.Sprintf("%s-%d", name, i)
			if p.Labels == nil {
				p.Labels = map[string]string{}
			}
			p.Labels[appsv1.StatefulSetPodNameLabel] = p.Name
		}
		p.UID = ""
		p.OwnerReferences = []metav1.OwnerReference{{APIVersion: "apps/v1", Kind: kind, Name: owner.GetName(), UID: owner.GetUID(), Controller: &yes}}
		if kind == "Job" {
			p.OwnerReferences[0].APIVersion = "batch/v1"
		}
		m.pod(p)
		for _, c := range claims {
			m.claim(p, c.Name, c.Spec)
			p.Spec.Volumes = slices.DeleteFunc(p.Spec.Volumes, func(v corev1.Volume) bool { return v.Name == c.Name })
			p.Spec.Volumes = append(p.Spec.Volumes, corev1.Volume{Name: c.Name, VolumeSource: corev1.VolumeSource{
				PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: c.Name + "-" + p.Name},
			}})
		}
	}
}

// claim adds the claim that the StatefulSet controller would create, unless it is
// given.
func (m *manifests) claim(p *corev1.Pod, template string, spec corev1.PersistentVolumeClaimSpec) {
	name := template + "-" + p.Name
	if slices.ContainsFunc(m.Objects.PVCs, func(c *corev1.PersistentVolumeClaim) bool { return c.Namespace == p.Namespace && c.Name == name }) {
		return
	}
	m.Objects.PVCs = append(m.Objects.PVCs, &corev1.PersistentVolumeClaim{
		ObjectMeta: metav1.ObjectMeta{Namespace: p.Namespace, Name: name}, Spec: *spec.DeepCopy(), Status: corev1.PersistentVolumeClaimStatus{Phase: corev1.ClaimPending},
	})
}

// defaultPod sets the API server's defaults that affect scheduling.
func defaultPod(s *corev1.PodSpec) {
	for _, list := range [][]corev1.Container{s.InitContainers, s.Containers} {
		for i := range list {
			c := &list[i]
			for name, q := range c.Resources.Limits {
				if _, ok := c.Resources.Requests[name]; !ok {
					if c.Resources.Requests == nil {
						c.Resources.Requests = corev1.ResourceList{}
					}
					c.Resources.Requests[name] = q.DeepCopy()
				}
			}
			for p := range c.Ports {
				if s.HostNetwork && c.Ports[p].HostPort == 0 {
					c.Ports[p].HostPort = c.Ports[p].ContainerPort
				}
				if c.Ports[p].Protocol == "" {
					c.Ports[p].Protocol = corev1.ProtocolTCP
				}
			}
		}
	}
	for i := range s.TopologySpreadConstraints {
		if t := &s.TopologySpreadConstraints[i]; t.WhenUnsatisfiable == "" {
			t.WhenUnsatisfiable = corev1.DoNotSchedule
		}
	}
}

// cluster adds what every AKS cluster has and the manifests omit: namespaces,
// storage classes and the status of NodePools.
func (m *manifests) cluster() {
	o := m.Objects
	have := map[string]bool{}
	for _, n := range o.Namespaces {
		have[n.Name] = true
		if n.Labels == nil {
			n.Labels = map[string]string{}
		}
		n.Labels[corev1.LabelMetadataName] = n.Name
	}
	for _, p := range o.Pods {
		if !have[p.Namespace] {
			have[p.Namespace] = true
			o.Namespaces = append(o.Namespaces, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: p.Namespace, Labels: map[string]string{corev1.LabelMetadataName: p.Namespace}}})
		}
	}
	m.storage()
	for _, np := range o.NodePools {
		makeReady(np)
	}
}

// makeReady sets the conditions that Karpenter sets on a valid NodePool.
func makeReady(np *karpv1.NodePool) {
	if np.Generation == 0 {
		np.Generation = 1
	}
	if np.UID == "" {
		np.UID = types.UID("nodepool/" + np.Name)
	}
	np.Status.Conditions = nil
	for _, c := range []string{karpv1.ConditionTypeValidationSucceeded, karpv1.ConditionTypeNodeClassReady, status.ConditionReady} {
		np.Status.Conditions = append(np.Status.Conditions, status.Condition{Type: c, Status: metav1.ConditionTrue, Reason: c, ObservedGeneration: np.Generation})
	}
}

// storage adds AKS's storage classes, the claims of generic ephemeral volumes, and
// the default class of claims that name none.
func (m *manifests) storage() {
	o := m.Objects
	for _, p := range o.Pods {
		for i := range p.Spec.Volumes {
			if v := &p.Spec.Volumes[i]; v.Ephemeral != nil && v.Ephemeral.VolumeClaimTemplate != nil {
				name := p.Name + "-" + v.Name
				if !slices.ContainsFunc(o.PVCs, func(c *corev1.PersistentVolumeClaim) bool { return c.Namespace == p.Namespace && c.Name == name }) {
					o.PVCs = append(o.PVCs, &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Namespace: p.Namespace, Name: name}, Spec: *v.Ephemeral.VolumeClaimTemplate.Spec.DeepCopy()})
				}
			}
		}
	}
	if len(o.PVCs) == 0 {
		return
	}
	given := map[string]bool{}
	fallback := ""
	for _, c := range o.Classes {
		given[c.Name] = true
		if c.Annotations["storageclass.kubernetes.io/is-default-class"] == "true" {
			fallback = c.Name
		}
	}
	wait, now := storagev1.VolumeBindingWaitForFirstConsumer, storagev1.VolumeBindingImmediate
	for _, c := range []struct {
		name, provisioner string
		mode              *storagev1.VolumeBindingMode
	}{
		{"default", "disk.csi.azure.com", &wait}, {"managed-csi", "disk.csi.azure.com", &wait}, {"managed-csi-premium", "disk.csi.azure.com", &wait},
		{"azurefile-csi", "file.csi.azure.com", &now}, {"azurefile-csi-premium", "file.csi.azure.com", &now},
	} {
		if !given[c.name] {
			o.Classes = append(o.Classes, &storagev1.StorageClass{ObjectMeta: metav1.ObjectMeta{Name: c.name}, Provisioner: c.provisioner, VolumeBindingMode: c.mode})
		}
	}
	if fallback == "" {
		fallback = "default"
	}
	for _, c := range o.PVCs {
		if c.Spec.StorageClassName == nil && c.Spec.VolumeName == "" {
			c.Spec.StorageClassName = &fallback
		}
	}
}

func extractList(obj runtime.Object) ([]client.Object, error) {
	var out []client.Object
	items, err := meta.ExtractList(obj)
	if err != nil {
		return nil, err
	}
	for _, i := range items {
		o, ok := i.(client.Object)
		if !ok {
			return nil, fmt.Errorf("list item %T is not an object", i)
		}
		out = append(out, o)
	}
	return out, nil
}
