// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	nodev1 "k8s.io/api/node/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// admission holds the objects by which the API server completes pods when they are
// created, and completes them in its order: LimitRanger, Priority, RuntimeClass
// (https://kubernetes.io/docs/reference/access-authn-authz/admission-controllers/).
type admission struct {
	limits     []*corev1.LimitRange
	priorities map[string]*schedulingv1.PriorityClass
	runtimes   map[string]*nodev1.RuntimeClass
}

// add takes an object that admission reads and reports whether it is one.
func (a *admission) add(o client.Object) bool {
	switch t := o.(type) {
	case *corev1.LimitRange:
		a.limits = append(a.limits, t)
	case *schedulingv1.PriorityClass:
		if a.priorities == nil {
			a.priorities = map[string]*schedulingv1.PriorityClass{}
		}
		a.priorities[t.Name] = t
	case *nodev1.RuntimeClass:
		if a.runtimes == nil {
			a.runtimes = map[string]*nodev1.RuntimeClass{}
		}
		a.runtimes[t.Name] = t
	default:
		return false
	}
	return true
}

// admit completes a pod that is created in a namespace. It returns an error for a pod
// that the API server refuses to create.
func (a *admission) admit(namespace string, s *corev1.PodSpec) error {
	if err := a.limitRanges(namespace, s); err != nil {
		return err
	}
	if err := a.priority(s); err != nil {
		return err
	}
	return a.runtimeClass(s)
}

// limitRanges sets the default requests and limits of containers, and compares the
// result with the bounds.
func (a *admission) limitRanges(namespace string, s *corev1.PodSpec) error {
	for _, l := range a.limits {
		if l.Namespace != namespace {
			continue
		}
		for _, item := range l.Spec.Limits {
			if item.Type != corev1.LimitTypeContainer {
				continue
			}
			for _, list := range [][]corev1.Container{s.InitContainers, s.Containers} {
				for i := range list {
					defaultResources(&list[i].Resources, item)
				}
			}
		}
	}
	for _, l := range a.limits {
		if l.Namespace != namespace {
			continue
		}
		for _, item := range l.Spec.Limits {
			if item.Type != corev1.LimitTypeContainer {
				continue
			}
			for i := range s.Containers {
				if err := within(&s.Containers[i].Resources, item); err != nil {
					return fmt.Errorf("container %s: LimitRange %s/%s: %w", s.Containers[i].Name, namespace, l.Name, err)
				}
			}
		}
	}
	return nil
}

// defaultResources sets what a container does not say. An item without defaults for
// requests takes those for limits, and one without defaults its maximum, as the API
// server completes LimitRanges.
func defaultResources(r *corev1.ResourceRequirements, item corev1.LimitRangeItem) {
	limits := either(item.Default, item.Max)
	requests := either(either(item.DefaultRequest, limits), item.Min)
	for name, q := range limits {
		if _, ok := r.Limits[name]; !ok {
			set(&r.Limits, name, q)
		}
	}
	for name, q := range requests {
		if _, ok := r.Requests[name]; ok {
			continue
		}
		set(&r.Requests, name, q)
	}
}

// either returns the amounts of a, completed from b.
func either(a, b corev1.ResourceList) corev1.ResourceList {
	out := b.DeepCopy()
	for name, q := range a {
		set(&out, name, q)
	}
	return out
}

func set(list *corev1.ResourceList, name corev1.ResourceName, q resource.Quantity) {
	if *list == nil {
		*list = corev1.ResourceList{}
	}
	(*list)[name] = q.DeepCopy()
}

// within returns an error if a container's resources are out of an item's bounds.
func within(r *corev1.ResourceRequirements, item corev1.LimitRangeItem) error {
	for name, least := range item.Min {
		if q := r.Requests[name]; q.Cmp(least) < 0 {
			return fmt.Errorf("requests %s of %s, at least %s are allowed", q.String(), name, least.String())
		}
	}
	for name, most := range item.Max {
		if q := r.Requests[name]; q.Cmp(most) > 0 {
			return fmt.Errorf("requests %s of %s, at most %s are allowed", q.String(), name, most.String())
		}
	}
	return nil
}

// The priority classes that every cluster has.
var systemPriorities = map[string]int32{"system-node-critical": 2000001000, "system-cluster-critical": 2000000000}

// priority resolves the priority class of a pod, or the default class.
func (a *admission) priority(s *corev1.PodSpec) error {
	if s.Priority != nil {
		return nil
	}
	if s.PriorityClassName == "" {
		for _, c := range a.priorities {
			if c.GlobalDefault && (s.Priority == nil || c.Value < *s.Priority) {
				setPriority(s, c)
			}
		}
		return nil
	}
	if v, ok := systemPriorities[s.PriorityClassName]; ok {
		s.Priority = &v
		return nil
	}
	c := a.priorities[s.PriorityClassName]
	if c == nil {
		return fmt.Errorf("no PriorityClass has the name %q: add it to the files", s.PriorityClassName)
	}
	setPriority(s, c)
	return nil
}

func setPriority(s *corev1.PodSpec, c *schedulingv1.PriorityClass) {
	value := c.Value
	s.Priority, s.PriorityClassName = &value, c.Name
	if s.PreemptionPolicy == nil {
		s.PreemptionPolicy = c.PreemptionPolicy
	}
}

// runtimeClass adds the overhead, the node selector and the tolerations of the pod's
// RuntimeClass.
func (a *admission) runtimeClass(s *corev1.PodSpec) error {
	if s.RuntimeClassName == nil || *s.RuntimeClassName == "" {
		return nil
	}
	c := a.runtimes[*s.RuntimeClassName]
	if c == nil {
		if len(s.Overhead) > 0 { // admitted already
			return nil
		}
		return fmt.Errorf("no RuntimeClass has the name %q: add it to the files", *s.RuntimeClassName)
	}
	if c.Overhead != nil && s.Overhead == nil {
		s.Overhead = c.Overhead.PodFixed.DeepCopy()
	}
	if c.Scheduling == nil {
		return nil
	}
	for k, v := range c.Scheduling.NodeSelector {
		if have, ok := s.NodeSelector[k]; ok && have != v {
			return fmt.Errorf("the node selector asks for %s=%s, RuntimeClass %s for %s", k, have, c.Name, v)
		}
		if s.NodeSelector == nil {
			s.NodeSelector = map[string]string{}
		}
		s.NodeSelector[k] = v
	}
	for _, t := range c.Scheduling.Tolerations {
		if !slices.ContainsFunc(s.Tolerations, func(o corev1.Toleration) bool { return o.MatchToleration(&t) }) {
			s.Tolerations = append(s.Tolerations, t)
		}
	}
	return nil
}
