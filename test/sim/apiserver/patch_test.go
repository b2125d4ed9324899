// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package apiserver

import (
	"testing"
	"testing/synctest"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	applyv1 "k8s.io/client-go/applyconfigurations/core/v1"
	"k8s.io/client-go/kubernetes"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

func TestPatches(t *testing.T) {
	inBoth(t, func(t *testing.T, s *Server, k kubernetes.Interface) {
		ctx, pods := t.Context(), k.CoreV1().Pods("default")
		must(t, s.Create(newPod("p", func(p *corev1.Pod) { p.Finalizers = []string{"example.com/a", "example.com/b"} })))
		patch := func(kind types.PatchType, body string, subresources ...string) *corev1.Pod {
			t.Helper()
			p, err := pods.Patch(ctx, "p", kind, []byte(body), metav1.PatchOptions{}, subresources...)
			must(t, err)
			return p
		}
		p := patch(types.JSONPatchType, `[{"op":"add","path":"/metadata/labels/x","value":"y"}]`)
		if p.Labels["x"] != "y" || p.Labels["app"] != "a" {
			t.Errorf("after a JSON patch: %v", p.Labels)
		}
		p = patch(types.MergePatchType, `{"metadata":{"labels":{"x":null},"finalizers":["example.com/c"]}}`)
		if _, ok := p.Labels["x"]; ok || len(p.Finalizers) != 1 {
			t.Errorf("after a merge patch: labels %v, finalizers %v", p.Labels, p.Finalizers)
		}
		p = patch(types.StrategicMergePatchType, `{"metadata":{"finalizers":["example.com/d"]}}`)
		if len(p.Finalizers) != 2 {
			t.Errorf("after a strategic patch: finalizers %v", p.Finalizers)
		}
		// What the scheduler sends.
		p = patch(types.StrategicMergePatchType, `{"status":{"conditions":[{"type":"PodScheduled","status":"False","reason":"Unschedulable"}],"nominatedNodeName":"n"}}`, "status")
		p2 := patch(types.StrategicMergePatchType, `{"status":{"conditions":[{"type":"Ready","status":"False"}]}}`, "status")
		if len(p.Status.Conditions) != 1 || len(p2.Status.Conditions) != 2 || p2.Status.NominatedNodeName != "n" || p2.Status.Phase != corev1.PodPending || p2.Generation != 1 {
			t.Errorf("after patches of the status: %+v, then %+v", p.Status, p2.Status)
		}
		// The status is not reached by the object's own path, nor the spec by the status.
		version := s.Version()
		patch(types.MergePatchType, `{"status":{"phase":"Failed"}}`)
		patch(types.MergePatchType, `{"spec":{"nodeName":"n"}}`, "status")
		patch(types.MergePatchType, `{}`)
		if s.Version() != version {
			t.Errorf("three patches of nothing made version %d of %d", s.Version(), version)
		}
		old := p.ResourceVersion
		_, err := pods.Patch(ctx, "p", types.MergePatchType, []byte(`{"metadata":{"resourceVersion":"`+old+`","labels":{"l":"m"}}}`), metav1.PatchOptions{})
		if !apierrors.IsConflict(err) {
			t.Errorf("patching an old version: %v", err)
		}
		if err := errorOf(pods.Patch(ctx, "missing", types.MergePatchType, []byte(`{}`), metav1.PatchOptions{})); !apierrors.IsNotFound(err) {
			t.Errorf("patching what is not there: %v", err)
		}
	})
}

func TestServerSideApplyMerges(t *testing.T) {
	inBoth(t, func(t *testing.T, s *Server, k kubernetes.Interface) {
		ctx, maps := t.Context(), k.CoreV1().ConfigMaps("default")
		o := metav1.ApplyOptions{FieldManager: "test"}
		c, err := maps.Apply(ctx, applyv1.ConfigMap("c", "default").WithData(map[string]string{"a": "1"}), o)
		must(t, err)
		first := c.ResourceVersion
		c, err = maps.Apply(ctx, applyv1.ConfigMap("c", "default").WithData(map[string]string{"b": "2"}), o)
		must(t, err)
		if len(c.Data) != 2 || c.ResourceVersion == first {
			t.Errorf("after two applies: %v", c.Data)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		s := newServer(t, Options{})
		c := newClient(t, s)
		claim := newClaim("c")
		must(t, c.Patch(t.Context(), claim, client.Apply, client.FieldOwner("test"))) //nolint:staticcheck // what Karpenter uses
		claim = newClaim("c")
		claim.Labels = map[string]string{"a": "b"}
		must(t, c.Patch(t.Context(), claim, client.Apply, client.FieldOwner("test"))) //nolint:staticcheck // what Karpenter uses
		if claim.Labels["a"] != "b" || claim.UID == "" {
			t.Errorf("applied: %+v", claim.ObjectMeta)
		}
	})
}
