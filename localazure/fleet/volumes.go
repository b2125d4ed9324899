// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package fleet

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"

	"github.com/nap-aks/nap/localazure/intent"
)

const (
	diskDriver = "disk.csi.azure.com"
	fileDriver = "file.csi.azure.com"

	diskZoneLabel       = "topology.disk.csi.azure.com/zone"
	selectedNode        = "volume.kubernetes.io/selected-node"
	provisionerRequest  = "volume.kubernetes.io/storage-provisioner"
	provisionedBy       = "pv.kubernetes.io/provisioned-by"
	volumeCheckInterval = time.Second
)

// simulateCSI simulates Azure's two CSI drivers. It provisions disks and shares for
// claims, in the zone of the node that the scheduler chose, attaches them, and
// deletes them when they are released. Claims and volumes are few, so it checks all
// of them each second instead of keeping work queues.
func simulateCSI(ctx context.Context, client kubernetes.Interface, ci func() intent.ClusterIntent, node func(string) (*corev1.Node, bool), log *slog.Logger) {
	factory := informers.NewSharedInformerFactory(client, 0)
	claims := factory.Core().V1().PersistentVolumeClaims().Informer()
	volumes := factory.Core().V1().PersistentVolumes().Informer()
	classes := factory.Storage().V1().StorageClasses().Informer()
	attachments := factory.Storage().V1().VolumeAttachments().Informer()
	factory.Start(ctx.Done())
	if !cache.WaitForCacheSync(ctx.Done(), claims.HasSynced, volumes.HasSynced, classes.HasSynced, attachments.HasSynced) {
		return
	}
	warn := func(what string, err error) {
		if err != nil && ctx.Err() == nil {
			log.Warn(what+" failed, retrying", "error", err)
		}
	}
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(volumeCheckInterval):
		}
		for _, obj := range claims.GetStore().List() {
			warn("provisioning volume", provision(ctx, client, obj.(*corev1.PersistentVolumeClaim), classes.GetStore(), volumes.GetStore(), ci(), node))
		}
		for _, obj := range attachments.GetStore().List() {
			warn("attaching volume", attach(ctx, client, obj.(*storagev1.VolumeAttachment)))
		}
		for _, obj := range volumes.GetStore().List() {
			warn("deleting volume", release(ctx, client, obj.(*corev1.PersistentVolume)))
		}
	}
}

// provision creates the volume of an unbound claim of one of the two drivers. The
// volume controller then binds the two.
func provision(ctx context.Context, client kubernetes.Interface, pvc *corev1.PersistentVolumeClaim, classes, volumes cache.Store, ci intent.ClusterIntent, node func(string) (*corev1.Node, bool)) error {
	driver := pvc.Annotations[provisionerRequest]
	if pvc.Spec.VolumeName != "" || pvc.DeletionTimestamp != nil || driver != diskDriver && driver != fileDriver || pvc.Spec.StorageClassName == nil {
		return nil
	}
	name := "pvc-" + string(pvc.UID)
	if _, there, err := volumes.GetByKey(name); there || err != nil {
		return err
	}
	obj, there, err := classes.GetByKey(*pvc.Spec.StorageClassName)
	if err != nil || !there {
		return err
	}
	class := obj.(*storagev1.StorageClass)
	zone := ""
	if waits := class.VolumeBindingMode != nil && *class.VolumeBindingMode == storagev1.VolumeBindingWaitForFirstConsumer; waits {
		chosen := pvc.Annotations[selectedNode]
		if chosen == "" {
			return nil
		}
		n, ok := node(chosen)
		if !ok {
			return fmt.Errorf("claim %s/%s: selected node %s does not exist", pvc.Namespace, pvc.Name, chosen)
		}
		zone = n.Labels[diskZoneLabel]
	}
	pv := volumeFor(pvc, class, driver, name, zone, ci)
	if _, err := client.CoreV1().PersistentVolumes().Create(ctx, pv, metav1.CreateOptions{}); err != nil && !apierrors.IsAlreadyExists(err) {
		return fmt.Errorf("provisioning a volume for claim %s/%s: %w", pvc.Namespace, pvc.Name, err)
	}
	return nil
}

// volumeFor returns the volume that the driver creates for a claim. A disk can only
// be used in its zone, or by regional machines if it has none.
func volumeFor(pvc *corev1.PersistentVolumeClaim, class *storagev1.StorageClass, driver, name, zone string, ci intent.ClusterIntent) *corev1.PersistentVolume {
	reclaim := corev1.PersistentVolumeReclaimDelete
	if class.ReclaimPolicy != nil {
		reclaim = *class.ReclaimPolicy
	}
	handle := fmt.Sprintf("/subscriptions/%s/resourceGroups/%s/providers/Microsoft.Compute/disks/%s", ci.SubscriptionID, ci.NodeResourceGroup, name)
	if driver == fileDriver {
		handle = strings.ToLower(ci.NodeResourceGroup) + "#local#" + name + "###" + pvc.Namespace
	}
	pv := &corev1.PersistentVolume{
		ObjectMeta: metav1.ObjectMeta{Name: name, Annotations: map[string]string{provisionedBy: driver}},
		Spec: corev1.PersistentVolumeSpec{
			Capacity:                      corev1.ResourceList{corev1.ResourceStorage: pvc.Spec.Resources.Requests[corev1.ResourceStorage]},
			AccessModes:                   pvc.Spec.AccessModes,
			VolumeMode:                    pvc.Spec.VolumeMode,
			StorageClassName:              class.Name,
			PersistentVolumeReclaimPolicy: reclaim,
			ClaimRef: &corev1.ObjectReference{Kind: "PersistentVolumeClaim", APIVersion: "v1",
				Namespace: pvc.Namespace, Name: pvc.Name, UID: pvc.UID, ResourceVersion: pvc.ResourceVersion},
			PersistentVolumeSource: corev1.PersistentVolumeSource{CSI: &corev1.CSIPersistentVolumeSource{Driver: driver, VolumeHandle: handle}},
		},
	}
	if driver == diskDriver {
		pv.Spec.NodeAffinity = &corev1.VolumeNodeAffinity{Required: &corev1.NodeSelector{NodeSelectorTerms: []corev1.NodeSelectorTerm{{
			MatchExpressions: []corev1.NodeSelectorRequirement{{Key: diskZoneLabel, Operator: corev1.NodeSelectorOpIn, Values: []string{zone}}},
		}}}}
	}
	return pv
}

// attach marks an attachment as attached. The attach-detach controller created it
// when a pod that uses the volume was bound.
func attach(ctx context.Context, client kubernetes.Interface, va *storagev1.VolumeAttachment) error {
	if va.Status.Attached || va.DeletionTimestamp != nil || va.Spec.Attacher != diskDriver && va.Spec.Attacher != fileDriver {
		return nil
	}
	done := va.DeepCopy()
	done.Status.Attached = true
	if _, err := client.StorageV1().VolumeAttachments().UpdateStatus(ctx, done, metav1.UpdateOptions{}); err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
		return fmt.Errorf("marking attachment %s as attached: %w", va.Name, err)
	}
	return nil
}

// release deletes a released volume if its reclaim policy is Delete.
func release(ctx context.Context, client kubernetes.Interface, pv *corev1.PersistentVolume) error {
	by := pv.Annotations[provisionedBy]
	if pv.Status.Phase != corev1.VolumeReleased || pv.DeletionTimestamp != nil || by != diskDriver && by != fileDriver ||
		pv.Spec.PersistentVolumeReclaimPolicy != corev1.PersistentVolumeReclaimDelete {
		return nil
	}
	if err := client.CoreV1().PersistentVolumes().Delete(ctx, pv.Name, metav1.DeleteOptions{}); err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("deleting volume %s: %w", pv.Name, err)
	}
	return nil
}
