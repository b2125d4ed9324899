// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package apiserver

import (
	"fmt"
	"slices"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/kubernetes/pkg/api/legacyscheme"
	_ "k8s.io/kubernetes/pkg/apis/apps/install" // defaults of the built-in types
	_ "k8s.io/kubernetes/pkg/apis/autoscaling/install"
	_ "k8s.io/kubernetes/pkg/apis/batch/install"
	_ "k8s.io/kubernetes/pkg/apis/coordination/install"
	_ "k8s.io/kubernetes/pkg/apis/core/install"
	"k8s.io/kubernetes/pkg/apis/core/v1/helper/qos"
	_ "k8s.io/kubernetes/pkg/apis/discovery/install"
	_ "k8s.io/kubernetes/pkg/apis/node/install"
	_ "k8s.io/kubernetes/pkg/apis/policy/install"
	_ "k8s.io/kubernetes/pkg/apis/scheduling/install"
	_ "k8s.io/kubernetes/pkg/apis/storage/install"
)

var (
	namespaces      = corev1.SchemeGroupVersion.WithResource("namespaces")
	pods            = corev1.SchemeGroupVersion.WithResource("pods")
	budgets         = policyv1.SchemeGroupVersion.WithResource("poddisruptionbudgets")
	priorityClasses = schedulingv1.SchemeGroupVersion.WithResource("priorityclasses")
	storageClasses  = storagev1.SchemeGroupVersion.WithResource("storageclasses")
)

// systemPriorities are the priority classes that every cluster has.
var systemPriorities = map[string]int32{"system-node-critical": 2000001000, "system-cluster-critical": 2000000000}

// admit completes a new object as the API server's defaulting, registries and
// admission plugins do. The caller holds the lock.
func (s *Server) admit(r *resource, o runtime.Object) (runtime.Object, error) {
	if r.custom != nil {
		return r.custom.validate(r, o, nil)
	}
	legacyscheme.Scheme.Default(o)
	switch t := o.(type) {
	case *corev1.Pod:
		return t, s.admitPod(r, t)
	case *corev1.PersistentVolumeClaim:
		if t.Spec.StorageClassName == nil && t.Spec.VolumeName == "" {
			t.Spec.StorageClassName = s.defaultStorageClass()
		}
		t.Status.Phase = corev1.ClaimPending
	case *corev1.Namespace:
		if t.Labels == nil {
			t.Labels = map[string]string{}
		}
		t.Labels[corev1.LabelMetadataName] = t.Name
		t.Status.Phase = corev1.NamespaceActive
	case *batchv1.Job:
		selectJobPods(t)
	case *corev1.Node:
		// TaintNodesByCondition: nobody may use it before the node lifecycle controller
		// has seen it. Kubelets never register as ready; who creates a ready node by
		// hand, in a test, means it.
		if !nodeReady(t) && !slices.ContainsFunc(t.Spec.Taints, func(t corev1.Taint) bool { return t.Key == corev1.TaintNodeNotReady }) {
			t.Spec.Taints = append(t.Spec.Taints, corev1.Taint{Key: corev1.TaintNodeNotReady, Effect: corev1.TaintEffectNoSchedule})
		}
	}
	return o, nil
}

func nodeReady(n *corev1.Node) bool {
	return slices.ContainsFunc(n.Status.Conditions, func(c corev1.NodeCondition) bool {
		return c.Type == corev1.NodeReady && c.Status == corev1.ConditionTrue
	})
}

func (s *Server) admitPod(r *resource, p *corev1.Pod) error {
	if err := s.setPriority(p); err != nil {
		return apierrors.NewForbidden(r.gvr.GroupResource(), p.Name, err)
	}
	seconds := int64(300)
	for _, key := range []string{corev1.TaintNodeNotReady, corev1.TaintNodeUnreachable} {
		covered := slices.ContainsFunc(p.Spec.Tolerations, func(t corev1.Toleration) bool {
			return (t.Key == key || t.Key == "" && t.Operator == corev1.TolerationOpExists) && (t.Effect == corev1.TaintEffectNoExecute || t.Effect == "")
		})
		if !covered {
			p.Spec.Tolerations = append(p.Spec.Tolerations, corev1.Toleration{Key: key, Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoExecute, TolerationSeconds: &seconds})
		}
	}
	p.Status = corev1.PodStatus{Phase: corev1.PodPending, QOSClass: qos.GetPodQOS(p)}
	if len(p.Spec.SchedulingGates) > 0 {
		p.Status.Conditions = []corev1.PodCondition{{
			Type: corev1.PodScheduled, Status: corev1.ConditionFalse, Reason: corev1.PodReasonSchedulingGated, Message: "Scheduling is blocked due to non-empty scheduling gates",
		}}
	}
	return nil
}

// setPriority resolves the priority class of a pod.
func (s *Server) setPriority(p *corev1.Pod) error {
	var class *schedulingv1.PriorityClass
	if name := p.Spec.PriorityClassName; name != "" {
		if v, ok := systemPriorities[name]; ok {
			class = &schedulingv1.PriorityClass{ObjectMeta: metav1.ObjectMeta{Name: name}, Value: v}
		} else if class, ok = s.byGVR[priorityClasses].objects[name].(*schedulingv1.PriorityClass); !ok {
			return fmt.Errorf("no PriorityClass with name %s was found", name)
		}
	} else {
		for _, o := range s.byGVR[priorityClasses].sorted() {
			if c := o.(*schedulingv1.PriorityClass); c.GlobalDefault && (class == nil || c.Value < class.Value) {
				class = c
			}
		}
	}
	if class == nil {
		class = &schedulingv1.PriorityClass{}
	}
	p.Spec.PriorityClassName = class.Name
	value := class.Value
	p.Spec.Priority = &value
	if p.Spec.PreemptionPolicy == nil {
		policy := corev1.PreemptLowerPriority
		if class.PreemptionPolicy != nil {
			policy = *class.PreemptionPolicy
		}
		p.Spec.PreemptionPolicy = &policy
	}
	return nil
}

func (s *Server) defaultStorageClass() *string {
	for _, o := range s.byGVR[storageClasses].sorted() {
		if c := o.(*storagev1.StorageClass); c.Annotations["storageclass.kubernetes.io/is-default-class"] == "true" {
			name := c.Name
			return &name
		}
	}
	return nil
}

// selectJobPods gives a Job the selector by which it finds its pods.
func selectJobPods(j *batchv1.Job) {
	if j.Spec.Selector != nil {
		return
	}
	uid := string(j.UID)
	j.Spec.Selector = &metav1.LabelSelector{MatchLabels: map[string]string{batchv1.ControllerUidLabel: uid}}
	if j.Spec.Template.Labels == nil {
		j.Spec.Template.Labels = map[string]string{}
	}
	j.Spec.Template.Labels[batchv1.ControllerUidLabel] = uid
	j.Spec.Template.Labels[batchv1.JobNameLabel] = j.Name
}
