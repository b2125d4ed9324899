// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package world

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	jsonpatch "gopkg.in/evanphx/json-patch.v4"
	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	karpv1 "sigs.k8s.io/karpenter/pkg/apis/v1"

	"github.com/nap-aks/nap/apis"
	"github.com/nap-aks/nap/test/sim/scenario"
)

// runtimeObject keeps the signatures of callbacks short.
type runtimeObject = runtime.Object

// snapshotResources are what a plan reads.
var snapshotResources = []schema.GroupVersionResource{
	podsResource, nodesResource, corev1.SchemeGroupVersion.WithResource("namespaces"), corev1.SchemeGroupVersion.WithResource("persistentvolumeclaims"),
	corev1.SchemeGroupVersion.WithResource("persistentvolumes"), corev1.SchemeGroupVersion.WithResource("services"),
	appsv1.SchemeGroupVersion.WithResource("daemonsets"), pdbsResource, storagev1.SchemeGroupVersion.WithResource("storageclasses"),
	storagev1.SchemeGroupVersion.WithResource("csinodes"), poolResource, claimResource,
	classResource,
}

var classResource = schema.GroupVersionResource{Group: "karpenter.azure.com", Version: "v1beta1", Resource: "aksnodeclasses"}

// kinds are the resources of the kinds that scenarios name.
var kinds = map[string]schema.GroupVersionResource{
	"Deployment": appsv1.SchemeGroupVersion.WithResource("deployments"), "StatefulSet": appsv1.SchemeGroupVersion.WithResource("statefulsets"),
	"DaemonSet": appsv1.SchemeGroupVersion.WithResource("daemonsets"), "ReplicaSet": appsv1.SchemeGroupVersion.WithResource("replicasets"),
	"Job": batchv1.SchemeGroupVersion.WithResource("jobs"), "CronJob": batchv1.SchemeGroupVersion.WithResource("cronjobs"),
	"Pod": podsResource, "Node": nodesResource, "Namespace": corev1.SchemeGroupVersion.WithResource("namespaces"), "Service": corev1.SchemeGroupVersion.WithResource("services"),
	"PersistentVolumeClaim": corev1.SchemeGroupVersion.WithResource("persistentvolumeclaims"), "PodDisruptionBudget": policyv1.SchemeGroupVersion.WithResource("poddisruptionbudgets"),
	"NodePool": poolResource, "NodeClaim": claimResource, "AKSNodeClass": classResource,
}

// do carries out an action.
func (w *world) do(a scenario.Action) error {
	switch s := a.Step.(type) {
	case scenario.InstallDefaults:
		return w.apply([]runtime.Object{apis.DefaultNodeClass(), apis.DefaultNodePool(), apis.SystemSurgeNodePool()})
	case scenario.Apply:
		return w.apply(s.Objects)
	case scenario.Delete:
		gvr, ok := kinds[s.Ref.Kind]
		if !ok {
			return fmt.Errorf("deleting a %s is not supported", s.Ref.Kind)
		}
		if err := w.api.Delete(gvr, s.Ref.Namespace, s.Ref.Name); err != nil && !apierrors.IsNotFound(err) {
			return err
		}
		return nil
	case scenario.ScaleTo:
		return w.eachWorkload(s.Selection, func(o runtime.Object, replicas *int32) {
			base := int(*replicas)
			if first, ok := w.replicas[keyOf(o)]; ok && s.Original {
				base = int(first)
			}
			*replicas = int32(s.To.Of(base))
		})
	case scenario.Restart:
		return w.restart(s.Selection)
	case scenario.Inject:
		return w.faults.inject(s)
	case scenario.ChangeNodes:
		return w.changeNodes(s)
	case scenario.PatchNodePool:
		return w.patchNodePool(s)
	case scenario.ChangePrice:
		w.cloud.SetPrice(s.Price.Size, s.Price.Family, s.Price.CapacityType, s.Price.Times)
		return nil
	}
	return fmt.Errorf("step %T is not supported", a.Step)
}

func keyOf(o runtime.Object) string {
	m, err := meta.Accessor(o)
	if err != nil {
		return ""
	}
	return fmt.Sprintf("%T %s/%s", o, m.GetNamespace(), m.GetName())
}

// apply creates objects, or replaces those that exist.
func (w *world) apply(list []runtime.Object) error {
	for _, o := range list {
		o = o.DeepCopyObject()
		if m, err := meta.Accessor(o); err == nil && m.GetNamespace() != "" {
			ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: m.GetNamespace()}}
			if err := w.api.Create(ns); err != nil && !apierrors.IsAlreadyExists(err) {
				return err
			}
		}
		err := w.api.Create(o)
		if apierrors.IsAlreadyExists(err) {
			err = w.api.Update(o)
		}
		if err != nil {
			return fmt.Errorf("applying %s: %w", keyOf(o), err)
		}
		if r := replicasOf(o); r != nil && *r != nil {
			if _, ok := w.replicas[keyOf(o)]; !ok {
				w.replicas[keyOf(o)] = **r
			}
		}
	}
	return nil
}

// replicasOf returns where a workload has its replicas, or nil if it has none.
func replicasOf(o runtime.Object) **int32 {
	switch t := o.(type) {
	case *appsv1.Deployment:
		return &t.Spec.Replicas
	case *appsv1.StatefulSet:
		return &t.Spec.Replicas
	case *appsv1.ReplicaSet:
		return &t.Spec.Replicas
	}
	return nil
}

// selected returns copies of the workloads of a selection.
func (w *world) selected(s scenario.Selection) []runtime.Object {
	list := []string{"Deployment", "StatefulSet"}
	if s.Kind != "" {
		list = []string{s.Kind}
	}
	var out []runtime.Object
	for _, kind := range list {
		w.api.Each(kinds[kind], func(o runtime.Object) bool {
			m, err := meta.Accessor(o)
			if err != nil {
				return true
			}
			switch {
			case s.Namespace != "" && m.GetNamespace() != s.Namespace:
			case len(s.Names) > 0 && !slices.Contains(s.Names, m.GetName()):
			case len(s.Labels) > 0 && !labels.SelectorFromSet(s.Labels).Matches(labels.Set(m.GetLabels())):
			default:
				c := o.DeepCopyObject()
				if m, err := meta.Accessor(c); err == nil {
					m.SetResourceVersion("")
				}
				out = append(out, c)
			}
			return true
		})
	}
	return out
}

// eachWorkload changes the replicas of the workloads of a selection.
func (w *world) eachWorkload(s scenario.Selection, change func(runtime.Object, *int32)) error {
	for _, o := range w.selected(s) {
		r := replicasOf(o)
		if r == nil {
			continue
		}
		n := int32(1)
		if *r != nil {
			n = **r
		}
		change(o, &n)
		*r = &n
		if err := w.api.Update(o); err != nil {
			return fmt.Errorf("scaling %s: %w", keyOf(o), err)
		}
	}
	return nil
}

// restart changes the pod template of the workloads of a selection.
func (w *world) restart(s scenario.Selection) error {
	for _, o := range w.selected(s) {
		var t *corev1.PodTemplateSpec
		switch x := o.(type) {
		case *appsv1.Deployment:
			t = &x.Spec.Template
		case *appsv1.StatefulSet:
			t = &x.Spec.Template
		default:
			continue
		}
		if t.Annotations == nil {
			t.Annotations = map[string]string{}
		}
		t.Annotations["kubectl.kubernetes.io/restartedAt"] = time.Now().UTC().Format(time.RFC3339Nano)
		if err := w.api.Update(o); err != nil {
			return fmt.Errorf("restarting %s: %w", keyOf(o), err)
		}
	}
	return nil
}

// chooseNodes returns copies of the nodes of a selection.
func (w *world) chooseNodes(n scenario.Nodes, rng *rand.Rand) []*corev1.Node {
	var all []*corev1.Node
	w.api.Each(nodesResource, func(o runtime.Object) bool {
		x := o.(*corev1.Node)
		switch {
		case n.Name != "" && x.Name != n.Name:
		case len(n.Labels) > 0 && !labels.SelectorFromSet(n.Labels).Matches(labels.Set(x.Labels)):
		case n.Name == "" && len(n.Labels) == 0 && x.Labels[karpv1.NodePoolLabelKey] == "":
		default:
			c := x.DeepCopy()
			c.ResourceVersion = ""
			all = append(all, c)
		}
		return true
	})
	if n.Count == (scenario.Count{}) {
		return all
	}
	rng.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	return all[:min(n.Count.Of(len(all)), len(all))]
}

func (w *world) changeNodes(s scenario.ChangeNodes) error {
	for _, n := range w.chooseNodes(s.Nodes, scenario.Stream(s.Seed, s.Op)) {
		switch s.Op {
		case "delete":
			if err := w.api.Delete(nodesResource, "", n.Name); err != nil && !apierrors.IsNotFound(err) {
				return err
			}
			continue
		case "cordon", "drain":
			n.Spec.Unschedulable = true
		case "uncordon":
			n.Spec.Unschedulable = false
		}
		if err := w.api.Update(n); err != nil {
			return fmt.Errorf("%s of node %s: %w", s.Op, n.Name, err)
		}
		if s.Op == "drain" {
			w.drain(n.Name)
		}
	}
	return nil
}

// drain deletes the pods of a node but those of DaemonSets.
func (w *world) drain(node string) {
	w.api.Each(podsResource, func(o runtime.Object) bool {
		if p := o.(*corev1.Pod); p.Spec.NodeName == node && !ofNode(p) {
			_ = w.api.Delete(podsResource, p.Namespace, p.Name)
		}
		return true
	})
}

func (w *world) patchNodePool(s scenario.PatchNodePool) error {
	o, ok := w.api.Get(poolResource, "", s.Name)
	if !ok {
		return fmt.Errorf("there is no NodePool %s", s.Name)
	}
	before, err := json.Marshal(o)
	if err != nil {
		return err
	}
	patch, err := json.Marshal(map[string]any{"spec": s.Spec})
	if err != nil {
		return err
	}
	after, err := jsonpatch.MergePatch(before, patch)
	if err != nil {
		return fmt.Errorf("patching NodePool %s: %w", s.Name, err)
	}
	next := &karpv1.NodePool{}
	if err := json.Unmarshal(after, next); err != nil {
		return fmt.Errorf("patching NodePool %s: %w", s.Name, err)
	}
	next.ResourceVersion = ""
	return w.api.Update(next)
}
