// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
)

// strip removes from an object, before it enters the informer cache, the fields that no
// controller reads and that are half of a pod: managed fields, and how a container is
// run. Controllers write patches of the fields that they change, so nothing is lost.
// Objects without metadata (of a watch's bookkeeping) are not changed.
func strip(obj any) (any, error) {
	if m, err := meta.Accessor(obj); err == nil {
		m.SetManagedFields(nil)
	}
	switch o := obj.(type) {
	case *corev1.Pod:
		for i := range o.Spec.Containers {
			stripContainer(&o.Spec.Containers[i])
		}
		for i := range o.Spec.InitContainers {
			stripContainer(&o.Spec.InitContainers[i])
		}
		o.Spec.EphemeralContainers = nil // they have no requests
		o.Status.EphemeralContainerStatuses = nil
	case *corev1.Node:
		o.Status.Images = nil
	}
	return obj, nil
}

func stripContainer(c *corev1.Container) {
	c.Command, c.Args, c.Env, c.EnvFrom, c.VolumeMounts = nil, nil, nil, nil, nil
	c.LivenessProbe, c.ReadinessProbe, c.StartupProbe, c.Lifecycle = nil, nil, nil, nil
}
