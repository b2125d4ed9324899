// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"context"
	"sync/atomic"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
	coreinformers "k8s.io/client-go/informers/core/v1"
	"k8s.io/client-go/kubernetes"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/kubernetes/pkg/controller/podgc"
)

// podGC returns the loop of the collector of finished, orphaned and stuck pods.
//
// It looks at all pods every 20 seconds, which is much of what a quiet day costs. It
// is given no pods as long as there are none that it would act on.
func (c *controllers) podGC(client kubernetes.Interface) (func(context.Context), error) {
	core := c.factory.Core().V1()
	l := &garbageLister{PodLister: core.Pods().Lister(), nodes: core.Nodes().Lister(), keep: c.o.TerminatedPods}
	l.look.Store(true)
	look := func(obj any) {
		if p := obj.(*corev1.Pod); !l.look.Load() && l.candidate(p) {
			l.look.Store(true)
		}
	}
	if _, err := core.Pods().Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc: look, UpdateFunc: func(_, obj any) { look(obj) },
	}); err != nil {
		return nil, err
	}
	if _, err := core.Nodes().Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{
		DeleteFunc: func(any) { l.look.Store(true) },
	}); err != nil {
		return nil, err
	}
	gc := podgc.NewPodGC(c.ctx, client, garbagePods{core.Pods(), l}, core.Nodes(), c.o.TerminatedPods)
	return gc.Run, nil
}

// garbagePods is an informer of pods with its own lister.
type garbagePods struct {
	coreinformers.PodInformer
	lister *garbageLister
}

// Lister implements coreinformers.PodInformer.
func (g garbagePods) Lister() corelisters.PodLister { return g.lister }

// garbageLister lists all pods, or none if none is a candidate for collection.
type garbageLister struct {
	corelisters.PodLister
	nodes corelisters.NodeLister
	keep  int         // how many finished pods are kept
	look  atomic.Bool // there may be candidates
}

// candidate reports whether the collector may have to act on the pod. Finished pods
// count only together.
func (l *garbageLister) candidate(p *corev1.Pod) bool {
	if p.DeletionTimestamp != nil || finished(p) {
		return true
	}
	if p.Spec.NodeName == "" {
		return false
	}
	_, err := l.nodes.Get(p.Spec.NodeName)
	return err != nil
}

func finished(p *corev1.Pod) bool {
	return p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed
}

// List implements corelisters.PodLister.
func (l *garbageLister) List(s labels.Selector) ([]*corev1.Pod, error) {
	if !l.look.Swap(false) {
		return nil, nil
	}
	pods, err := l.PodLister.List(s)
	if err != nil {
		l.look.Store(true)
		return nil, err
	}
	done := 0
	for _, p := range pods {
		switch {
		case finished(p):
			done++
		case l.candidate(p):
			l.look.Store(true)
			return pods, nil
		}
	}
	if l.keep > 0 && done > l.keep {
		l.look.Store(true)
		return pods, nil
	}
	return nil, nil
}
