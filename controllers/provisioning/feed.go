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
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
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
	upsert := func(old, o client.Object) {
		ours := false
		if pod, ok := o.(*corev1.Pod); ok {
			p.noteArrival(pod)
			if p.Nominate {
				o, ours = p.nominations.seen(pod, p.Clock.Now())
			}
		}
		note(p.mirror.Upsert(o))
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

// noteArrival remembers when the scheduler last bound a pod that was promised a
// place. The mirror has yet to be told of the pod.
func (p *Provisioner) noteArrival(pod *corev1.Pod) {
	if pod.Spec.NodeName != "" && p.mirror.Promised(snapshot.PodKey(pod)) {
		p.mu.Lock()
		p.arrived = p.Clock.Now()
		p.mu.Unlock()
	}
}

// wake starts a pass for what may need one: a pod that cannot be scheduled, a
// node that is being emptied, a NodePool that may now do what it could not. The
// object was old before; nil if it is new.
func (p *Provisioner) wake(old, o client.Object) {
	switch o := o.(type) {
	case *corev1.Pod:
		before, _ := old.(*corev1.Pod)
		p.wakeForPod(before, o)
	case *corev1.Node:
		p.nominations.signal() // pods may be waiting to be told of it
		before, _ := old.(*corev1.Node)
		if beingEmptied(o) && (before == nil || !beingEmptied(before)) {
			p.batch.trigger()
			p.batch.extend()
		}
	case *karpv1.NodePool:
		before, _ := old.(*karpv1.NodePool)
		if before == nil || offersOther(before, o) {
			p.batch.trigger()
			p.batch.extend()
		}
	}
}

// offersOther tells whether a NodePool may offer other than it did. How much of it
// is in use, which its status counts with every machine, is not asked.
func offersOther(a, b *karpv1.NodePool) bool {
	return a.UID != b.UID || a.Generation != b.Generation || a.DeletionTimestamp.IsZero() != b.DeletionTimestamp.IsZero() ||
		!equality.Semantic.DeepEqual(a.Spec, b.Spec) || !maps.Equal(a.Labels, b.Labels) || !maps.Equal(a.Annotations, b.Annotations) ||
		!equality.Semantic.DeepEqual(a.Status.Conditions, b.Status.Conditions)
}

// wakeForPod starts a pass for a pod that cannot be scheduled and has no place
// promised. Only news make that pass wait for more of them: a pod that appears, or
// the first one of a workload that the scheduler refuses; all the others of that
// workload are planned for together with it anyway.
func (p *Provisioner) wakeForPod(old, pod *corev1.Pod) {
	switch {
	case snapshot.Untried(pod):
		if old == nil || !snapshot.Untried(old) {
			p.batch.extend()
		}
	case podutils.IsProvisionable(pod):
		if p.cluster != nil {
			p.cluster.AckPods(pod)
		}
		if p.mirror.Promised(snapshot.PodKey(pod)) {
			return
		}
		p.batch.trigger()
		if (old == nil || !podutils.IsProvisionable(old)) && p.firstRefused(pod) {
			p.batch.extend()
		}
	}
}

// firstRefused tells whether a pod is the first of its workload that the scheduler
// refuses since the last pass.
func (p *Provisioner) firstRefused(pod *corev1.Pod) bool {
	owner := metav1.GetControllerOfNoCopy(pod)
	if owner == nil {
		return true
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.refusedOwners[owner.UID] {
		return false
	}
	p.refusedOwners[owner.UID] = true
	return true
}

func beingEmptied(n *corev1.Node) bool {
	return slices.ContainsFunc(n.Spec.Taints, func(t corev1.Taint) bool { return t.MatchTaint(&karpv1.DisruptedNoScheduleTaint) })
}
