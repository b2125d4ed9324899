// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
)

const (
	diskDriver = "disk.csi.azure.com"
	// diskZoneLabel is the label of nodes that Azure's disk driver sets, and the
	// topology that its volumes require.
	diskZoneLabel = "topology." + diskDriver + "/zone"

	selectedNodeAnnotation  = "volume.kubernetes.io/selected-node"
	provisionerAnnotation   = "volume.kubernetes.io/storage-provisioner"
	provisionedByAnnotation = "pv.kubernetes.io/provisioned-by"
)

// VolumeOptions are the options of dynamic provisioning.
type VolumeOptions struct {
	// ProvisionTime is how long it takes from the request to the volume.
	ProvisionTime time.Duration
}

// provisioner stands for the drivers of volumes: it creates the volumes of claims
// that ask for one, and deletes those that were released.
type provisioner struct {
	client kubernetes.Interface
	wait   time.Duration
	claims cache.SharedIndexInformer
	volume cache.SharedIndexInformer
	class  cache.SharedIndexInformer
	node   cache.SharedIndexInformer
	queue  *keyQueue
}

// volumeProvisioner returns the loop of the provisioner. Its keys are a claim's
// namespace and name, or a volume's name.
func (c *controllers) volumeProvisioner(client kubernetes.Interface) (func(context.Context), error) {
	core := c.factory.Core().V1()
	p := &provisioner{
		client: client, wait: c.o.Volumes.ProvisionTime,
		claims: core.PersistentVolumeClaims().Informer(), volume: core.PersistentVolumes().Informer(),
		class: c.factory.Storage().V1().StorageClasses().Informer(), node: core.Nodes().Informer(),
	}
	p.queue = newKeyQueue(p.sync)
	// A claim is provisioned after the time that it takes, whatever happens to it
	// meanwhile; sync looks again.
	if _, err := p.claims.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc: func(obj any) {
			if wantsVolume(obj.(*corev1.PersistentVolumeClaim)) {
				p.queue.addAfter(objectKey(obj), p.wait)
			}
		},
		UpdateFunc: func(old, obj any) {
			if wantsVolume(obj.(*corev1.PersistentVolumeClaim)) && !wantsVolume(old.(*corev1.PersistentVolumeClaim)) {
				p.queue.addAfter(objectKey(obj), p.wait)
			}
		},
	}); err != nil {
		return nil, err
	}
	released := func(obj any) {
		if isReleased(obj.(*corev1.PersistentVolume)) {
			p.queue.add(objectKey(obj))
		}
	}
	if _, err := p.volume.AddEventHandler(cache.ResourceEventHandlerFuncs{AddFunc: released, UpdateFunc: func(_, obj any) { released(obj) }}); err != nil {
		return nil, err
	}
	return func(ctx context.Context) {
		p.queue.run(ctx, 1, p.claims.HasSynced, p.volume.HasSynced, p.class.HasSynced, p.node.HasSynced)
	}, nil
}

// wantsVolume reports whether a driver was asked for the claim's volume. The volume
// controller asks at once, or, if the class waits for a pod, when the scheduler has
// chosen the node.
func wantsVolume(claim *corev1.PersistentVolumeClaim) bool {
	return claim.Spec.VolumeName == "" && claim.DeletionTimestamp == nil && claim.Annotations[provisionerAnnotation] != ""
}

// isReleased reports whether the volume is to be deleted by its driver.
func isReleased(v *corev1.PersistentVolume) bool {
	return v.Status.Phase == corev1.VolumeReleased && v.DeletionTimestamp == nil && v.Annotations[provisionedByAnnotation] != "" &&
		v.Spec.PersistentVolumeReclaimPolicy == corev1.PersistentVolumeReclaimDelete
}

func (p *provisioner) sync(ctx context.Context, key string) error {
	namespace, name, err := cache.SplitMetaNamespaceKey(key)
	if err != nil {
		return fmt.Errorf("provisioning volumes: %w", err)
	}
	if namespace == "" {
		return p.release(ctx, name)
	}
	obj, there, err := p.claims.GetStore().GetByKey(key)
	if err != nil || !there {
		return err
	}
	return p.provision(ctx, obj.(*corev1.PersistentVolumeClaim))
}

// provision creates the claim's volume, in the zone of the node that the scheduler
// chose if it is a disk.
func (p *provisioner) provision(ctx context.Context, claim *corev1.PersistentVolumeClaim) error {
	if !wantsVolume(claim) || claim.Spec.StorageClassName == nil {
		return nil
	}
	obj, there, err := p.class.GetStore().GetByKey(*claim.Spec.StorageClassName)
	if err != nil || !there {
		return err
	}
	class := obj.(*storagev1.StorageClass)
	var node *corev1.Node
	if class.VolumeBindingMode != nil && *class.VolumeBindingMode == storagev1.VolumeBindingWaitForFirstConsumer {
		chosen := claim.Annotations[selectedNodeAnnotation]
		if chosen == "" {
			return nil
		}
		obj, there, err := p.node.GetStore().GetByKey(chosen)
		if err != nil {
			return err
		}
		if !there {
			return p.reschedule(ctx, claim)
		}
		node = obj.(*corev1.Node)
	}
	_, err = p.client.CoreV1().PersistentVolumes().Create(ctx, volumeFor(claim, class, node), metav1.CreateOptions{})
	if err != nil && !apierrors.IsAlreadyExists(err) {
		return fmt.Errorf("provisioning a volume for claim %s/%s: %w", claim.Namespace, claim.Name, err)
	}
	return nil
}

// reschedule gives a claim whose node has gone back to the scheduler, as drivers do.
func (p *provisioner) reschedule(ctx context.Context, claim *corev1.PersistentVolumeClaim) error {
	claim = claim.DeepCopy()
	delete(claim.Annotations, selectedNodeAnnotation)
	delete(claim.Annotations, provisionerAnnotation)
	_, err := p.client.CoreV1().PersistentVolumeClaims(claim.Namespace).Update(ctx, claim, metav1.UpdateOptions{})
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("rescheduling claim %s/%s: %w", claim.Namespace, claim.Name, err)
	}
	return nil
}

// volumeFor returns the volume of a claim. A disk can only be used in its zone.
func volumeFor(claim *corev1.PersistentVolumeClaim, class *storagev1.StorageClass, node *corev1.Node) *corev1.PersistentVolume {
	reclaim := corev1.PersistentVolumeReclaimDelete
	if class.ReclaimPolicy != nil {
		reclaim = *class.ReclaimPolicy
	}
	name := "pvc-" + string(claim.UID)
	pv := &corev1.PersistentVolume{
		ObjectMeta: metav1.ObjectMeta{Name: name, Annotations: map[string]string{provisionedByAnnotation: class.Provisioner}},
		Spec: corev1.PersistentVolumeSpec{
			Capacity:                      corev1.ResourceList{corev1.ResourceStorage: claim.Spec.Resources.Requests[corev1.ResourceStorage]},
			AccessModes:                   claim.Spec.AccessModes,
			VolumeMode:                    claim.Spec.VolumeMode,
			StorageClassName:              class.Name,
			PersistentVolumeReclaimPolicy: reclaim,
			ClaimRef: &corev1.ObjectReference{APIVersion: "v1", Kind: "PersistentVolumeClaim",
				Namespace: claim.Namespace, Name: claim.Name, UID: claim.UID, ResourceVersion: claim.ResourceVersion},
			PersistentVolumeSource: corev1.PersistentVolumeSource{
				CSI: &corev1.CSIPersistentVolumeSource{Driver: class.Provisioner, VolumeHandle: name},
			},
		},
	}
	if class.Provisioner == diskDriver && node != nil {
		pv.Spec.NodeAffinity = &corev1.VolumeNodeAffinity{Required: &corev1.NodeSelector{NodeSelectorTerms: []corev1.NodeSelectorTerm{{
			MatchExpressions: []corev1.NodeSelectorRequirement{{
				Key: diskZoneLabel, Operator: corev1.NodeSelectorOpIn, Values: []string{node.Labels[diskZoneLabel]},
			}},
		}}}}
	}
	return pv
}

// release deletes a released volume.
func (p *provisioner) release(ctx context.Context, name string) error {
	obj, there, err := p.volume.GetStore().GetByKey(name)
	if err != nil || !there || !isReleased(obj.(*corev1.PersistentVolume)) {
		return err
	}
	if err := p.client.CoreV1().PersistentVolumes().Delete(ctx, name, metav1.DeleteOptions{}); err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("deleting volume %s: %w", name, err)
	}
	return nil
}
