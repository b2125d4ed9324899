package provisioning

import (
	"context"
	"errors"
	"fmt"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	storagev1 "k8s.io/api/storage/v1"
	toolscache "k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"
	karpv1 "sigs.k8s.io/karpenter/pkg/apis/v1"
	podutils "sigs.k8s.io/karpenter/pkg/utils/pod"

	"github.com/nap-aks/nap/snapshot"
)

// kinds are what the mirror of the cluster is fed with. Owners and services
// matter only for default spread constraints.
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

// feed folds the informers' events into the mirror and wakes the provisioner
// for those that can change a decision. It returns when all that existed at the
// start has been folded in.
func (p *Provisioner) feed(ctx context.Context, informers cache.Informers) error {
	logger := log.FromContext(ctx)
	note := func(err error) {
		if err != nil && !errors.Is(err, snapshot.ErrUnknownKind) {
			logger.Error(err, "following the cluster")
		}
	}
	upsert := func(o client.Object) {
		if pod, ok := o.(*corev1.Pod); ok && p.Nominate {
			o = p.nominations.seen(pod, p.Clock.Now())
		}
		note(p.mirror.Upsert(o))
		p.wake(o)
	}
	handler := toolscache.ResourceEventHandlerFuncs{
		AddFunc: func(obj any) {
			if o, ok := obj.(client.Object); ok {
				upsert(o)
			}
		},
		UpdateFunc: func(_, obj any) {
			if o, ok := obj.(client.Object); ok {
				upsert(o)
			}
		},
		DeleteFunc: func(obj any) {
			if gone, ok := obj.(toolscache.DeletedFinalStateUnknown); ok {
				obj = gone.Obj
			}
			if o, ok := obj.(client.Object); ok {
				note(p.mirror.Delete(o))
				if pod, ok := o.(*corev1.Pod); ok {
					p.nominations.gone(snapshot.PodKey(pod))
				}
			}
		},
	}
	var synced []toolscache.InformerSynced
	for _, kind := range kinds(p.defaultSpread) {
		informer, err := informers.GetInformer(ctx, kind)
		if err != nil {
			return fmt.Errorf("watching %T: %w", kind, err)
		}
		registration, err := informer.AddEventHandler(handler)
		if err != nil {
			return fmt.Errorf("following %T: %w", kind, err)
		}
		synced = append(synced, registration.HasSynced)
	}
	if !toolscache.WaitForCacheSync(ctx.Done(), synced...) {
		return ctx.Err()
	}
	return nil
}

// wake starts a pass for what may need one: a pod that cannot be scheduled, a
// node that is being emptied, a NodePool that may now do what it could not.
func (p *Provisioner) wake(o client.Object) {
	switch o := o.(type) {
	case *corev1.Pod:
		if podutils.IsProvisionable(o) {
			if p.cluster != nil {
				p.cluster.AckPods(o)
			}
			p.batch.trigger()
		}
	case *corev1.Node:
		p.nominations.signal() // pods may be waiting to be told of it
		for _, t := range o.Spec.Taints {
			if t.MatchTaint(&karpv1.DisruptedNoScheduleTaint) {
				p.batch.trigger()
			}
		}
	case *karpv1.NodePool:
		p.batch.trigger()
	}
}
