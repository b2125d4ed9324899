// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package provisioning

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	toolscache "k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"
	karpv1 "sigs.k8s.io/karpenter/pkg/apis/v1"
	podutils "sigs.k8s.io/karpenter/pkg/utils/pod"

	"github.com/nap-aks/nap/snapshot"
)

// kinds returns the kinds of objects that the snapshot cache watches. Owners and
// services matter only for default spread constraints.
func kinds(defaultSpread bool) []client.Object {
	list := []client.Object{
		&corev1.Pod{}, &corev1.Node{}, &karpv1.NodePool{}, &karpv1.NodeClaim{}, &appsv1.DaemonSet{}, &corev1.Namespace{},
		&policyv1.PodDisruptionBudget{}, &corev1.PersistentVolumeClaim{}, &corev1.PersistentVolume{}, &storagev1.StorageClass{}, &storagev1.CSINode{},
	}
	if defaultSpread {
		list = append(list, &corev1.Service{}, &appsv1.ReplicaSet{}, &appsv1.StatefulSet{}, &corev1.ReplicationController{})
	}
	return list
}

// feed passes the informers' events to the snapshot cache and triggers passes for
// those that can change a decision. It returns when the cache has all objects that
// existed at the start.
func (p *Provisioner) feed(ctx context.Context, informers cache.Informers) error {
	logger := log.FromContext(ctx)
	check := func(err error) {
		if err != nil && !errors.Is(err, snapshot.ErrUnknownKind) {
			logger.Error(err, "updating snapshot cache failed")
		}
	}
	upsert := func(old, o client.Object) {
		ours := false
		if pod, ok := o.(*corev1.Pod); ok {
			p.noteBound(pod)
			if p.Nominate {
				o, ours = p.nominations.observe(pod, p.Clock.Now())
			}
		}
		check(p.cache.Upsert(o))
		if !ours {
			p.wake(old, o)
		}
	}
	handler := toolscache.ResourceEventHandlerFuncs{
		AddFunc: func(obj any) {
			if o, ok := obj.(client.Object); ok {
				upsert(nil, o)
			}
		},
		UpdateFunc: func(before, obj any) {
			if o, ok := obj.(client.Object); ok {
				old, _ := before.(client.Object)
				upsert(old, o)
			}
		},
		DeleteFunc: func(obj any) {
			if gone, ok := obj.(toolscache.DeletedFinalStateUnknown); ok {
				obj = gone.Obj
			}
			if o, ok := obj.(client.Object); ok {
				check(p.cache.Delete(o))
				if pod, ok := o.(*corev1.Pod); ok {
					p.nominations.forget(snapshot.PodKey(pod))
					p.breaker.forget(snapshot.PodKey(pod))
				}
			}
		},
	}
	var synced []toolscache.InformerSynced
	for _, kind := range kinds(p.defaultSpread) {
		informer, err := informers.GetInformer(ctx, kind)
		if err != nil {
			return fmt.Errorf("getting the informer of %T: %w", kind, err)
		}
		registration, err := informer.AddEventHandler(handler)
		if err != nil {
			return fmt.Errorf("watching %T: %w", kind, err)
		}
		synced = append(synced, registration.HasSynced)
	}
	if !toolscache.WaitForCacheSync(ctx.Done(), synced...) {
		return ctx.Err()
	}
	return nil
}

// noteBound notes the time at which the scheduler bound an assumed pod, and gives its
// place to a replica if it was bound where that was to go. Call it before the cache has
// the bound pod.
func (p *Provisioner) noteBound(pod *corev1.Pod) {
	if pod.Spec.NodeName == "" {
		return
	}
	key := snapshot.PodKey(pod)
	p.cache.NoteBound(key, p.Clock.Now())
	p.breaker.served(key, pod.Spec.NodeName, p.cache.ClaimOf(pod.Spec.NodeName))
	peer, even := p.cache.Exchange(pod)
	if peer != nil {
		if on, ok := p.cache.AssumedOn(snapshot.PodKey(peer)); ok {
			p.breaker.promise(snapshot.PodKey(peer), snapshot.ShapeKey(peer), p.kindOf(on), on, p.Clock.Now())
		}
	}
	if peer != nil && p.Nominate {
		p.nominations.want(peer)
		p.nominations.signal()
	}
	if !even {
		p.batch.trigger() // another pod may have lost its room
	}
}

// wake triggers a pass for an event that may need one: a pod that cannot be
// scheduled, a node that is being drained, a NodePool that may offer other machines.
// old is the object before the event, nil if it is new.
func (p *Provisioner) wake(old, o client.Object) {
	switch o := o.(type) {
	case *corev1.Pod:
		before, _ := old.(*corev1.Pod)
		p.wakeForPod(before, o)
	case *corev1.Node:
		p.nominations.signal() // assumed pods may wait for it
		before, _ := old.(*corev1.Node)
		if disrupted(o) && (before == nil || !disrupted(before)) {
			p.batch.trigger()
			p.batch.extend()
		}
	case *karpv1.NodePool:
		before, _ := old.(*karpv1.NodePool)
		if before == nil || offersChanged(before, o) {
			p.batch.trigger()
			p.batch.extend()
		}
	}
}

// offersChanged reports whether a NodePool may offer other machines than before. It
// ignores the resources in use, which the status counts with every machine.
func offersChanged(a, b *karpv1.NodePool) bool {
	return a.UID != b.UID || a.Generation != b.Generation || a.DeletionTimestamp.IsZero() != b.DeletionTimestamp.IsZero() ||
		!equality.Semantic.DeepEqual(a.Spec, b.Spec) || !maps.Equal(a.Labels, b.Labels) || !maps.Equal(a.Annotations, b.Annotations) ||
		!equality.Semantic.DeepEqual(a.Status.Conditions, b.Status.Conditions)
}

// wakeForPod triggers a pass for a pod that cannot be scheduled and is not assumed, and
// for a new pod beside such pods, with which it is planned for. Only a new pod extends
// the batch: the pass sees it anyway whether the scheduler has come to it or not, so a
// refusal says nothing new.
func (p *Provisioner) wakeForPod(old, pod *corev1.Pod) {
	switch {
	case snapshot.Untried(pod):
		if old == nil || !snapshot.Untried(old) {
			if p.cache.Refuses(pod) {
				p.batch.trigger()
			}
			p.batch.extend()
		}
	case podutils.IsProvisionable(pod):
		if p.cluster != nil {
			p.cluster.AckPods(pod)
		}
		if _, assumed := p.cache.AssumedOn(snapshot.PodKey(pod)); assumed {
			return
		}
		p.batch.trigger()
	}
}

// disrupted reports whether a node has the taint of a running disruption.
func disrupted(n *corev1.Node) bool {
	return slices.ContainsFunc(n.Spec.Taints, func(t corev1.Taint) bool { return t.MatchTaint(&karpv1.DisruptedNoScheduleTaint) })
}
