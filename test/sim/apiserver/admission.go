// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package apiserver

import (
	"fmt"
	"maps"
	"slices"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	nodev1 "k8s.io/api/node/v1"
	policyv1 "k8s.io/api/policy/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	storagev1 "k8s.io/api/storage/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/kubernetes/pkg/api/legacyscheme"
	_ "k8s.io/kubernetes/pkg/apis/apps/install" // defaults of the built-in types
	_ "k8s.io/kubernetes/pkg/apis/autoscaling/install"
	_ "k8s.io/kubernetes/pkg/apis/batch/install"
	_ "k8s.io/kubernetes/pkg/apis/coordination/install"
	_ "k8s.io/kubernetes/pkg/apis/core/install"
	"k8s.io/kubernetes/pkg/apis/core/v1/helper/qos"
	_ "k8s.io/kubernetes/pkg/apis/discovery/install"
	_ "k8s.io/kubernetes/pkg/apis/networking/install"
	_ "k8s.io/kubernetes/pkg/apis/node/install"
	_ "k8s.io/kubernetes/pkg/apis/policy/install"
	_ "k8s.io/kubernetes/pkg/apis/rbac/install"
	_ "k8s.io/kubernetes/pkg/apis/resource/install"
	_ "k8s.io/kubernetes/pkg/apis/scheduling/install"
	_ "k8s.io/kubernetes/pkg/apis/storage/install"
)

// The resources that the server itself reads.
var (
	namespaces      = corev1.SchemeGroupVersion.WithResource("namespaces")
	nodes           = corev1.SchemeGroupVersion.WithResource("nodes")
	budgets         = policyv1.SchemeGroupVersion.WithResource("poddisruptionbudgets")
	priorityClasses = schedulingv1.SchemeGroupVersion.WithResource("priorityclasses")
	storageClasses  = storagev1.SchemeGroupVersion.WithResource("storageclasses")
	runtimeClasses  = nodev1.SchemeGroupVersion.WithResource("runtimeclasses")
	definitions     = apiextensionsv1.SchemeGroupVersion.WithResource("customresourcedefinitions")
)

// systemPriorities are the priority classes that every cluster has.
var systemPriorities = []struct {
	name  string
	value int32
}{{"system-node-critical", 2000001000}, {"system-cluster-critical", 2000000000}}

// tolerationSeconds is how long pods stay on a node that is not ready unless they say
// otherwise.
const tolerationSeconds = 300

// admit completes a new object as the API server's defaulting, registries and
// admission plugins do, and returns an error if it is not valid.
func (s *Server) admit(r *resource, o runtime.Object) error {
	if r.custom != nil {
		return r.createCustom(o.(*unstructured.Unstructured))
	}
	legacyscheme.Scheme.Default(o)
	switch t := o.(type) {
	case *corev1.Pod:
		if err := s.admitPod(t); err != nil {
			return apierrors.NewForbidden(r.gvr.GroupResource(), t.Name, err)
		}
	case *corev1.PersistentVolumeClaim:
		if t.Spec.StorageClassName == nil && t.Spec.VolumeName == "" {
			t.Spec.StorageClassName = s.defaultStorageClass()
		}
		t.Status.Phase = corev1.ClaimPending
	case *corev1.PersistentVolume:
		t.Status.Phase = corev1.VolumePending
	case *corev1.Namespace:
		t.Labels = with(t.Labels, corev1.LabelMetadataName, t.Name)
		t.Status.Phase = corev1.NamespaceActive
	case *corev1.Node:
		admitNode(t)
	case *batchv1.Job:
		selectJobPods(t)
	case *apiextensionsv1.CustomResourceDefinition:
		return s.admitDefinition(t)
	}
	return s.validateNew(r, o)
}

// with returns labels with one more.
func with(labels map[string]string, k, v string) map[string]string {
	labels = maps.Clone(labels)
	if labels == nil {
		labels = map[string]string{}
	}
	labels[k] = v
	return labels
}

// admitNode keeps pods off a new node until the node lifecycle controller has seen it.
// Kubelets never register as ready. Who creates a ready node by hand means it, so
// unlike in the API server that one is not tainted.
func admitNode(n *corev1.Node) {
	ready := slices.ContainsFunc(n.Status.Conditions, func(c corev1.NodeCondition) bool {
		return c.Type == corev1.NodeReady && c.Status == corev1.ConditionTrue
	})
	taint := corev1.Taint{Key: corev1.TaintNodeNotReady, Effect: corev1.TaintEffectNoSchedule}
	if !ready && !slices.ContainsFunc(n.Spec.Taints, func(t corev1.Taint) bool { return t.MatchTaint(&taint) }) {
		n.Spec.Taints = append(n.Spec.Taints, taint)
	}
}

func (s *Server) admitPod(p *corev1.Pod) error {
	if err := s.setPriority(p); err != nil {
		return err
	}
	if err := s.setOverhead(p); err != nil {
		return err
	}
	if p.Spec.ServiceAccountName == "" {
		p.Spec.ServiceAccountName, p.Spec.DeprecatedServiceAccount = "default", "default"
	}
	for _, key := range []string{corev1.TaintNodeNotReady, corev1.TaintNodeUnreachable} {
		covered := slices.ContainsFunc(p.Spec.Tolerations, func(t corev1.Toleration) bool {
			return (t.Key == key || t.Key == "") && (t.Effect == corev1.TaintEffectNoExecute || t.Effect == "")
		})
		if !covered {
			seconds := int64(tolerationSeconds)
			p.Spec.Tolerations = append(p.Spec.Tolerations, corev1.Toleration{Key: key, Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoExecute, TolerationSeconds: &seconds})
		}
	}
	mergeMatchLabelKeys(p)
	if p.Spec.NodeName != "" {
		s.copyTopology(p, p.Spec.NodeName)
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
	classes := s.lookup(priorityClasses)
	var class *schedulingv1.PriorityClass
	if name := p.Spec.PriorityClassName; name != "" {
		o := s.find(classes, "", name)
		if o == nil {
			return fmt.Errorf("no PriorityClass with name %s was found", name)
		}
		class = o.obj.(*schedulingv1.PriorityClass)
	} else {
		all, _ := s.snapshot(classes)
		for _, o := range all {
			if c := o.obj.(*schedulingv1.PriorityClass); c.GlobalDefault && (class == nil || c.Value < class.Value) {
				class = c
			}
		}
	}
	if class == nil {
		class = &schedulingv1.PriorityClass{}
	}
	if p.Spec.Priority != nil && *p.Spec.Priority != class.Value {
		return fmt.Errorf("the integer value of priority (%d) must not be provided in pod spec; priority admission controller computed %d from the given PriorityClass name", *p.Spec.Priority, class.Value)
	}
	p.Spec.PriorityClassName = class.Name
	value := class.Value
	p.Spec.Priority = &value
	policy := corev1.PreemptLowerPriority
	if class.PreemptionPolicy != nil {
		policy = *class.PreemptionPolicy
	}
	if p.Spec.PreemptionPolicy == nil {
		p.Spec.PreemptionPolicy = &policy
	} else if *p.Spec.PreemptionPolicy != policy {
		return fmt.Errorf("the string value of PreemptionPolicy (%s) must not be provided in pod spec; priority admission controller computed %s from the given PriorityClass name", *p.Spec.PreemptionPolicy, policy)
	}
	return nil
}

// setOverhead gives a pod what its RuntimeClass costs and asks for.
func (s *Server) setOverhead(p *corev1.Pod) error {
	if p.Spec.RuntimeClassName == nil {
		return nil
	}
	o := s.find(s.lookup(runtimeClasses), "", *p.Spec.RuntimeClassName)
	if o == nil {
		return fmt.Errorf("pod rejected: RuntimeClass %q not found", *p.Spec.RuntimeClassName)
	}
	class := o.obj.(*nodev1.RuntimeClass)
	if class.Overhead != nil {
		p.Spec.Overhead = class.Overhead.PodFixed
	}
	if class.Scheduling == nil {
		return nil
	}
	selector := maps.Clone(p.Spec.NodeSelector)
	if selector == nil {
		selector = map[string]string{}
	}
	for k, v := range class.Scheduling.NodeSelector {
		if have, ok := selector[k]; ok && have != v {
			return fmt.Errorf("conflict: runtimeClass.scheduling.nodeSelector[%s] = %s; pod.spec.nodeSelector[%s] = %s", k, v, k, have)
		}
		selector[k] = v
	}
	p.Spec.NodeSelector = selector
	for _, t := range class.Scheduling.Tolerations {
		if !slices.ContainsFunc(p.Spec.Tolerations, func(have corev1.Toleration) bool { return have.MatchToleration(&t) }) {
			p.Spec.Tolerations = append(p.Spec.Tolerations, t)
		}
	}
	return nil
}

// mergeMatchLabelKeys writes the labels that matchLabelKeys and mismatchLabelKeys name
// into the selectors beside them.
func mergeMatchLabelKeys(p *corev1.Pod) {
	merge := func(selector *metav1.LabelSelector, keys []string, op metav1.LabelSelectorOperator) *metav1.LabelSelector {
		for _, k := range keys {
			v, ok := p.Labels[k]
			if !ok || selector == nil {
				continue
			}
			selector = selector.DeepCopy()
			selector.MatchExpressions = append(selector.MatchExpressions, metav1.LabelSelectorRequirement{Key: k, Operator: op, Values: []string{v}})
		}
		return selector
	}
	for i := range p.Spec.TopologySpreadConstraints {
		c := &p.Spec.TopologySpreadConstraints[i]
		c.LabelSelector = merge(c.LabelSelector, c.MatchLabelKeys, metav1.LabelSelectorOpIn)
	}
	term := func(t *corev1.PodAffinityTerm) {
		t.LabelSelector = merge(t.LabelSelector, t.MatchLabelKeys, metav1.LabelSelectorOpIn)
		t.LabelSelector = merge(t.LabelSelector, t.MismatchLabelKeys, metav1.LabelSelectorOpNotIn)
	}
	terms := func(required []corev1.PodAffinityTerm, preferred []corev1.WeightedPodAffinityTerm) {
		for i := range required {
			term(&required[i])
		}
		for i := range preferred {
			term(&preferred[i].PodAffinityTerm)
		}
	}
	if a := p.Spec.Affinity; a != nil && a.PodAffinity != nil {
		terms(a.PodAffinity.RequiredDuringSchedulingIgnoredDuringExecution, a.PodAffinity.PreferredDuringSchedulingIgnoredDuringExecution)
	}
	if a := p.Spec.Affinity; a != nil && a.PodAntiAffinity != nil {
		terms(a.PodAntiAffinity.RequiredDuringSchedulingIgnoredDuringExecution, a.PodAntiAffinity.PreferredDuringSchedulingIgnoredDuringExecution)
	}
}

// copyTopology gives a pod the zone and region of the node that it is bound to.
func (s *Server) copyTopology(p *corev1.Pod, node string) {
	o := s.find(s.lookup(nodes), "", node)
	if o == nil {
		return
	}
	for _, k := range []string{corev1.LabelTopologyZone, corev1.LabelTopologyRegion} {
		if v, ok := o.meta().GetLabels()[k]; ok {
			p.Labels = with(p.Labels, k, v)
		}
	}
}

func (s *Server) defaultStorageClass() *string {
	all, _ := s.snapshot(s.lookup(storageClasses))
	var newest *storagev1.StorageClass
	for _, o := range all {
		c := o.obj.(*storagev1.StorageClass)
		if c.Annotations["storageclass.kubernetes.io/is-default-class"] == "true" && (newest == nil || newest.CreationTimestamp.Before(&c.CreationTimestamp)) {
			newest = c
		}
	}
	if newest == nil {
		return nil
	}
	name := newest.Name
	return &name
}

// selectJobPods gives a Job the selector by which it finds its pods.
func selectJobPods(j *batchv1.Job) {
	if j.Spec.ManualSelector != nil && *j.Spec.ManualSelector {
		return
	}
	uid := string(j.UID)
	labels := j.Spec.Template.Labels
	for _, l := range [][2]string{{"controller-uid", uid}, {"job-name", j.Name}, {batchv1.ControllerUidLabel, uid}, {batchv1.JobNameLabel, j.Name}} {
		labels = with(labels, l[0], l[1])
	}
	j.Spec.Template.Labels = labels
	if j.Spec.Selector == nil {
		j.Spec.Selector = &metav1.LabelSelector{MatchLabels: map[string]string{batchv1.ControllerUidLabel: uid}}
	}
}
