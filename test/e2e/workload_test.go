// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/to"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// watchBudget samples the app's Running pods until the returned function is
// called, which fails the test if more than maxUnavailable of the pods that the
// app's budget expects were missing at one time.
func (c *cluster) watchBudget(t *testing.T, app string, maxUnavailable int) func() {
	done, finished := make(chan struct{}), make(chan struct{})
	worst := 0
	go func() {
		defer close(finished)
		for {
			select {
			case <-done:
				return
			case <-time.After(200 * time.Millisecond):
			}
			var pdb policyv1.PodDisruptionBudget
			if err := c.kube.Get(c.ctx, types.NamespacedName{Namespace: "default", Name: app}, &pdb); err != nil || pdb.Status.ExpectedPods == 0 {
				continue
			}
			pods, err := c.pods("default", app)
			if err != nil {
				continue
			}
			ready := 0
			for _, p := range pods {
				if p.DeletionTimestamp == nil && p.Status.Phase == corev1.PodRunning {
					ready++
				}
			}
			if missing := int(pdb.Status.ExpectedPods) - ready; missing > worst {
				worst = missing
			}
		}
	}()
	return func() {
		close(done)
		<-finished
		if worst > maxUnavailable {
			t.Errorf("%d pods of %s were missing at one time, its budget allows %d", worst, app, maxUnavailable)
		}
	}
}

// deployment returns an app whose pods request the given CPU and memory.
func deployment(name string, replicas int32, cpu, memory string) *appsv1.Deployment {
	labels := map[string]string{"app": name}
	return &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "default"},
		Spec: appsv1.DeploymentSpec{
			Replicas: &replicas,
			Selector: &metav1.LabelSelector{MatchLabels: labels},
			Template: corev1.PodTemplateSpec{
				ObjectMeta: metav1.ObjectMeta{Labels: labels},
				Spec: corev1.PodSpec{
					TerminationGracePeriodSeconds: to.Ptr[int64](1),
					Containers: []corev1.Container{{
						Name: "app", Image: "mcr.microsoft.com/oss/kubernetes/pause:3.6",
						Resources: corev1.ResourceRequirements{Requests: corev1.ResourceList{
							corev1.ResourceCPU: resource.MustParse(cpu), corev1.ResourceMemory: resource.MustParse(memory),
						}},
					}},
				},
			},
		},
	}
}

// budget returns a PodDisruptionBudget for the pods of an app.
func budget(app string, maxUnavailable int) *policyv1.PodDisruptionBudget {
	return &policyv1.PodDisruptionBudget{ObjectMeta: metav1.ObjectMeta{Name: app, Namespace: "default"}, Spec: policyv1.PodDisruptionBudgetSpec{
		MaxUnavailable: to.Ptr(intstr.FromInt32(int32(maxUnavailable))), Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": app}}}}
}
