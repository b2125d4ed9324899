// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package plan

import (
	autoscalingv1 "k8s.io/api/autoscaling/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// scaler is an autoscaler: it decides the number of pods of a workload within bounds.
type scaler struct {
	name                    string // kind and name of the autoscaler
	namespace, kind, target string // the workload
	least, most             int32  // most is 0 if there is no upper bound
	used                    bool   // the workload is in the files
}

// scalerOf returns the bounds of an autoscaler: a HorizontalPodAutoscaler, or KEDA's
// ScaledObject. It returns nil for other objects.
func scalerOf(o client.Object) *scaler {
	s := &scaler{namespace: o.GetNamespace(), least: 1}
	switch t := o.(type) {
	case *autoscalingv1.HorizontalPodAutoscaler:
		s.kind, s.target, s.most = t.Spec.ScaleTargetRef.Kind, t.Spec.ScaleTargetRef.Name, t.Spec.MaxReplicas
		if t.Spec.MinReplicas != nil {
			s.least = *t.Spec.MinReplicas
		}
	case *autoscalingv2.HorizontalPodAutoscaler:
		s.kind, s.target, s.most = t.Spec.ScaleTargetRef.Kind, t.Spec.ScaleTargetRef.Name, t.Spec.MaxReplicas
		if t.Spec.MinReplicas != nil {
			s.least = *t.Spec.MinReplicas
		}
	case *unstructured.Unstructured:
		if t.GetKind() != "ScaledObject" || t.GroupVersionKind().Group != "keda.sh" {
			return nil
		}
		ref, _, _ := unstructured.NestedStringMap(t.Object, "spec", "scaleTargetRef")
		s.kind, s.target = ref["kind"], ref["name"]
		if s.kind == "" {
			s.kind = "Deployment"
		}
		s.least, s.most = integer(t, 0, "spec", "minReplicaCount"), integer(t, 100, "spec", "maxReplicaCount")
		s.name = "ScaledObject " + o.GetNamespace() + "/" + o.GetName()
		return s
	default:
		return nil
	}
	s.name = "HorizontalPodAutoscaler " + o.GetNamespace() + "/" + o.GetName()
	return s
}

// integer returns a number of an object, or another one if it has none.
func integer(u *unstructured.Unstructured, otherwise int32, path ...string) int32 {
	n, ok := number(u.Object, path...)
	if !ok {
		return otherwise
	}
	return int32(max(-1, min(n, 1<<30)))
}
