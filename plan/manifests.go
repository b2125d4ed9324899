// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/awslabs/operatorpkg/status"
	appsv1 "k8s.io/api/apps/v1"
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
	// Unread lists the files and directories that are not, or not completely, in the
	// plan. Each has a note.
	Unread []string
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
	workloads workloads
	admission admission
	names     map[string]int // objects with each generateName, by kind and namespace
	cronRuns  bool           // plan one run of each CronJob
	// kustomization is set by a document that is input of kustomize.
	kustomization bool
}

// ReadManifests reads YAML or JSON files, and replaces workloads by the pods their
// controllers would create. Of directories it reads .yaml, .yml and .json files,
// recursively; "-" is standard input. A file of a directory that cannot be read is
// listed in Unread, with a note; a file that is named is an error. Objects are created
// at now.
func ReadManifests(paths []string, now time.Time) (*Source, error) {
	return readManifests(paths, now, false)
}

// readManifests is ReadManifests, with one run of each CronJob if cronRuns is set.
func readManifests(paths []string, now time.Time, cronRuns bool) (*Source, error) {
	m := newManifests(now)
	m.cronRuns = cronRuns
	decoder, err := newDecoder()
	if err != nil {
		return nil, err
	}
	files, err := m.expandPaths(paths)
	if err != nil {
		return nil, err
	}
	var last error
	read := 0
	for _, f := range files {
		m.kustomization = false
		data, err := readFile(f.path)
		if err == nil {
			err = m.readFile(decoder, f.path, data)
		}
		switch {
		case m.kustomization || f.inDirectory && err != nil && isKustomization(f.path):
			m.unread(f.path, "%s is input of kustomize, and what it changes is not planned: use kustomize build %s | nap plan -f -", f.path, filepath.Dir(f.path))
		case err != nil && !f.inDirectory:
			return nil, err
		case err != nil:
			m.unread(f.path, "not planned: %v", err)
			last = err
		default:
			read++
		}
	}
	if read == 0 && last != nil {
		return nil, last
	}
	m.finish()
	return m.Source, nil
}

func newManifests(now time.Time) *manifests {
	return &manifests{Source: &Source{Objects: &snapshot.Objects{Now: now, Settings: snapshot.Settings{PricedPreferences: true}}}, names: map[string]int{}}
}

// unread notes a file that is not, or not completely, in the plan.
func (m *manifests) unread(path, format string, args ...any) {
	m.note(format, args...)
	if !slices.Contains(m.Unread, path) {
		m.Unread = append(m.Unread, path)
	}
}

// isKustomization reports whether a file has one of the names that kustomize reads.
func isKustomization(path string) bool {
	name := filepath.Base(path)
	return name == "kustomization.yaml" || name == "kustomization.yml"
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

// file is a file to read.
type file struct {
	path        string
	inDirectory bool // found in a directory, not named
}

// expandPaths returns the files of paths. Helm charts in directories are left out.
func (m *manifests) expandPaths(paths []string) ([]file, error) {
	var out []file
	for _, p := range paths {
		if p == "-" {
			out = append(out, file{path: p})
			continue
		}
		info, err := os.Stat(p)
		if err != nil {
			return nil, fmt.Errorf("reading manifests: %w", err)
		}
		if !info.IsDir() {
			out = append(out, file{path: p})
			continue
		}
		found := len(out) + len(m.Unread)
		err = filepath.WalkDir(p, func(path string, d os.DirEntry, err error) error {
			if err != nil {
				return err
			}
			if d.IsDir() {
				if _, err := os.Stat(filepath.Join(path, "Chart.yaml")); err == nil {
					m.unread(path, "%s is a Helm chart and not planned: use helm template %s | nap plan -f -", path, path)
					return filepath.SkipDir
				}
				return nil
			}
			switch filepath.Ext(path) {
			case ".yaml", ".yml", ".json":
				out = append(out, file{path: path, inDirectory: true})
			}
			return nil
		})
		if err != nil {
			return nil, fmt.Errorf("reading directory %s: %w", p, err)
		}
		if len(out)+len(m.Unread) == found {
			return nil, fmt.Errorf("directory %s has no .yaml, .yml or .json file", p)
		}
	}
	if len(out) == 0 && len(m.Notes) > 0 {
		return nil, errors.New(strings.Join(m.Notes, "; "))
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

func (m *manifests) add(o client.Object, kind schema.GroupVersionKind) {
	switch t := o.(type) {
	case *corev1.Namespace, *corev1.Node, *corev1.PersistentVolume, *storagev1.StorageClass, *storagev1.CSINode, *karpv1.NodePool, *karpv1.NodeClaim, *v1beta1.AKSNodeClass,
		*schedulingv1.PriorityClass, *nodev1.RuntimeClass:
	default:
		if t.GetNamespace() == "" {
			t.SetNamespace(metav1.NamespaceDefault)
		}
	}
	m.generateName(o, kind.Kind)
	switch t := o.(type) {
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
		if !m.workloads.add(o) && !m.admission.add(o) && !m.Objects.Add(o) {
			m.left(kind)
		}
	}
}

// generateName gives an object without a name one of its own, as the API server does.
// The names are the same in every run.
func (m *manifests) generateName(o client.Object, kind string) {
	if o.GetName() != "" {
		return
	}
	key := kind + "/" + o.GetNamespace() + "/" + o.GetGenerateName()
	m.names[key]++
	o.SetName(fmt.Sprintf("%s%05d", o.GetGenerateName(), m.names[key]))
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
	m.expandWorkloads()
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
