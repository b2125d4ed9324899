// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package apiserver

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	karpv1 "sigs.k8s.io/karpenter/pkg/apis/v1"
)

// BenchmarkPodLives measures the life of a pod through a real client: created, bound,
// running, deleted and removed, with three informers that follow. Writes are per
// second of real time.
func BenchmarkPodLives(b *testing.B) {
	s := newServer(b, Options{})
	ctx, cancel := context.WithCancel(b.Context())
	defer cancel()
	defer s.Stop()
	var seen atomic.Int64
	configs := []string{"one", "two", "three"}
	for i, name := range configs {
		c := s.Config(name)
		if i < 2 {
			c = proto(c)
		}
		factory := informers.NewSharedInformerFactory(clientset(b, c), 0)
		_, err := factory.Core().V1().Pods().Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{DeleteFunc: func(any) { seen.Add(1) }})
		must(b, err)
		factory.Start(ctx.Done())
		factory.WaitForCacheSync(ctx.Done())
		defer factory.Shutdown()
		defer cancel()
	}
	must(b, s.Create(&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n"}}))
	for i := range 2000 {
		must(b, s.Create(newPod(fmt.Sprintf("other-%d", i))))
	}
	pods := clientset(b, proto(s.Config("writer"))).CoreV1().Pods("default")
	start := s.Version()
	b.ResetTimer()
	for range b.N {
		p, err := pods.Create(ctx, newPod("", func(p *corev1.Pod) { p.GenerateName = "web-" }), metav1.CreateOptions{})
		must(b, err)
		must(b, pods.Bind(ctx, binding(p.Name, "n"), metav1.CreateOptions{}))
		p, err = pods.Get(ctx, p.Name, metav1.GetOptions{})
		must(b, err)
		p.Status.Phase, p.Status.StartTime = corev1.PodRunning, ptr(metav1.Now())
		_, err = pods.UpdateStatus(ctx, p, metav1.UpdateOptions{})
		must(b, err)
		must(b, pods.Delete(ctx, p.Name, metav1.DeleteOptions{}))
		must(b, pods.Delete(ctx, p.Name, metav1.DeleteOptions{GracePeriodSeconds: ptr[int64](0)}))
	}
	b.StopTimer()
	b.ReportMetric(float64(s.Version()-start)/b.Elapsed().Seconds(), "writes/s")
}

// BenchmarkDirectStatus measures a status written directly, as simulated kubelets do.
func BenchmarkDirectStatus(b *testing.B) {
	s := newServer(b, Options{})
	must(b, s.Create(newPod("p", onNode("n"))))
	o, _ := s.Get(podsResource, "default", "p")
	b.ResetTimer()
	for i := range b.N {
		p := o.(*corev1.Pod).DeepCopy()
		p.ResourceVersion, p.Status.PodIP = "", fmt.Sprintf("10.0.%d.%d", i>>8&255, i&255)
		must(b, s.UpdateStatus(p))
	}
}

// BenchmarkClaimStatus measures a change of a NodeClaim's status through a real
// client, with the rules of its definition.
func BenchmarkClaimStatus(b *testing.B) {
	s := newServer(b, Options{})
	c := newClient(b, s)
	must(b, s.Create(newClaim("c")))
	claim := &karpv1.NodeClaim{}
	must(b, c.Get(b.Context(), client.ObjectKey{Name: "c"}, claim))
	b.ResetTimer()
	for i := range b.N {
		stored := claim.DeepCopy()
		claim.Status.ProviderID = fmt.Sprint("azure:///", i)
		must(b, c.Status().Patch(b.Context(), claim, client.MergeFrom(stored)))
	}
}
