package controllers

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
)

// strip takes off an object, before it enters the cache, what no controller reads
// and what makes up half of a pod: who set which field, and how a container is run.
// What is written back is a patch of what a controller changed, so nothing is lost.
// Objects that have no metadata (of a watch's bookkeeping) pass as they are.
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
		o.Spec.EphemeralContainers = nil // they ask for nothing
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
