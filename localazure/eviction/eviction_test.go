// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package eviction

import (
	"context"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
)

func pod(name string, change func(*corev1.Pod)) *corev1.Pod {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "shop"}, Spec: corev1.PodSpec{NodeName: "n"}}
	if change != nil {
		change(p)
	}
	return p
}

func TestEvictReportsThePodsThatAreLeft(t *testing.T) {
	ctx := context.Background()
	yes, now, began := true, metav1.Now(), time.Now()
	pods := []runtime.Object{
		pod("free", nil),
		pod("kept", nil),
		pod("ending", func(p *corev1.Pod) { p.DeletionTimestamp, p.Finalizers = &now, []string{"x/y"} }),
		pod("daemon", func(p *corev1.Pod) {
			p.OwnerReferences = []metav1.OwnerReference{{APIVersion: "apps/v1", Kind: "DaemonSet", Name: "d", Controller: &yes}}
		}),
		pod("back again", func(p *corev1.Pod) {
			p.CreationTimestamp, p.Spec.Tolerations = now, []corev1.Toleration{{Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoSchedule}}
		}),
		&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n"}},
	}
	client := fake.NewClientset(pods...)
	// kubectl's helper looks the DaemonSet up; the fake client has none.
	client.PrependReactor("get", "daemonsets", func(clienttesting.Action) (bool, runtime.Object, error) { return true, nil, nil })
	var evicted []string
	client.PrependReactor("create", "pods", func(a clienttesting.Action) (bool, runtime.Object, error) {
		if a.GetSubresource() != "eviction" {
			return false, nil, nil
		}
		name := a.(clienttesting.CreateAction).GetObject().(*policyv1.Eviction).Name
		if name == "kept" {
			err := apierrors.NewTooManyRequests("Cannot evict pod as it would violate the pod's disruption budget.", 0)
			err.ErrStatus.Details.Causes = []metav1.StatusCause{{Message: "The disruption budget b needs 1 healthy pods and has 1 currently"}}
			return true, nil, err
		}
		evicted = append(evicted, name)
		return true, nil, nil
	})
	left, err := Evict(ctx, client, "n", began, false)
	if err != nil {
		t.Fatal(err)
	}
	text := strings.Join(left, "\n")
	if len(left) != 3 || !strings.Contains(left[0], "shop/kept is refused") || !strings.Contains(left[0], "budget b needs 1 healthy") || !strings.Contains(text, "shop/ending is still terminating") || strings.Contains(text, "daemon") || strings.Contains(text, "back again") {
		t.Errorf("left are %q", left)
	}
	if len(evicted) != 1 || evicted[0] != "free" {
		t.Errorf("evicted are %v", evicted)
	}
	// With ignorePDBs, pods are deleted.
	if _, err := Evict(ctx, client, "n", began, true); err != nil {
		t.Fatal(err)
	}
	if _, err := client.CoreV1().Pods("shop").Get(ctx, "kept", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
		t.Errorf("the pod with a budget still exists: %v", err)
	}
	for _, want := range []bool{true, false} {
		if err := Cordon(ctx, client, "n", want); err != nil {
			t.Fatal(err)
		}
		if n, err := client.CoreV1().Nodes().Get(ctx, "n", metav1.GetOptions{}); err != nil || n.Spec.Unschedulable != want {
			t.Errorf("unschedulable %v (%v), want %v", n.Spec.Unschedulable, err, want)
		}
	}
	if err := Cordon(ctx, client, "gone", true); err != nil {
		t.Errorf("a missing node: %v", err)
	}
}
