// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	"reflect"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
)

func TestStripKeepsFieldsThatDecisionsRead(t *testing.T) {
	full := corev1.Container{
		Name: "c", Image: "i", Command: []string{"sh"}, Args: []string{"-c"}, Env: []corev1.EnvVar{{Name: "A", Value: "b"}}, EnvFrom: []corev1.EnvFromSource{{Prefix: "p"}},
		VolumeMounts: []corev1.VolumeMount{{Name: "v"}}, LivenessProbe: &corev1.Probe{}, ReadinessProbe: &corev1.Probe{}, StartupProbe: &corev1.Probe{}, Lifecycle: &corev1.Lifecycle{},
		Ports:         []corev1.ContainerPort{{HostPort: 80, ContainerPort: 80}},
		Resources:     corev1.ResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("1")}},
		RestartPolicy: ptr.To(corev1.ContainerRestartPolicyAlways),
	}
	kept := corev1.Container{Name: "c", Image: "i", Ports: full.Ports, Resources: full.Resources, RestartPolicy: full.RestartPolicy}
	managed := []metav1.ManagedFieldsEntry{{Manager: "kubectl"}}
	volumes := []corev1.Volume{{Name: "v"}}
	meta := metav1.ObjectMeta{Name: "p", Labels: map[string]string{"a": "b"}, Annotations: map[string]string{"c": "d"}}
	withManaged := meta
	withManaged.ManagedFields = managed
	status := corev1.PodStatus{Phase: corev1.PodPending, NominatedNodeName: "n", Conditions: []corev1.PodCondition{{Type: corev1.PodScheduled}}}
	for _, c := range []struct {
		name      string
		got, want any
	}{
		{
			"a pod",
			&corev1.Pod{ObjectMeta: withManaged, Spec: corev1.PodSpec{InitContainers: []corev1.Container{full}, Containers: []corev1.Container{full}, Volumes: volumes, EphemeralContainers: []corev1.EphemeralContainer{{}}}, Status: status},
			&corev1.Pod{ObjectMeta: meta, Spec: corev1.PodSpec{InitContainers: []corev1.Container{kept}, Containers: []corev1.Container{kept}, Volumes: volumes}, Status: status},
		},
		{
			"a node",
			&corev1.Node{ObjectMeta: withManaged, Status: corev1.NodeStatus{Phase: "x", Images: []corev1.ContainerImage{{SizeBytes: 1}}}},
			&corev1.Node{ObjectMeta: meta, Status: corev1.NodeStatus{Phase: "x"}},
		},
		{"another object", &corev1.Namespace{ObjectMeta: withManaged}, &corev1.Namespace{ObjectMeta: meta}},
		{"a value that is not an object", "text", "text"},
	} {
		got, err := strip(c.got)
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
		if !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: kept %+v, want %+v", c.name, got, c.want)
		}
	}
}
