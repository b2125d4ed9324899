// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// storage adds AKS's storage classes, the claims of generic ephemeral volumes, and
// the default class of claims that name none.
func (m *manifests) storage() {
	o := m.Objects
	for _, p := range o.Pods {
		for i := range p.Spec.Volumes {
			if v := &p.Spec.Volumes[i]; v.Ephemeral != nil && v.Ephemeral.VolumeClaimTemplate != nil {
				name := p.Name + "-" + v.Name
				if !slices.ContainsFunc(o.PVCs, func(c *corev1.PersistentVolumeClaim) bool { return c.Namespace == p.Namespace && c.Name == name }) {
					o.PVCs = append(o.PVCs, &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Namespace: p.Namespace, Name: name}, Spec: *v.Ephemeral.VolumeClaimTemplate.Spec.DeepCopy()})
				}
			}
		}
	}
	if len(o.PVCs) == 0 {
		return
	}
	given := map[string]bool{}
	fallback := ""
	for _, c := range o.Classes {
		given[c.Name] = true
		if c.Annotations["storageclass.kubernetes.io/is-default-class"] == "true" {
			fallback = c.Name
		}
	}
	wait, now := storagev1.VolumeBindingWaitForFirstConsumer, storagev1.VolumeBindingImmediate
	for _, c := range []struct {
		name, provisioner string
		mode              *storagev1.VolumeBindingMode
	}{
		{"default", "disk.csi.azure.com", &wait}, {"managed-csi", "disk.csi.azure.com", &wait}, {"managed-csi-premium", "disk.csi.azure.com", &wait},
		{"azurefile-csi", "file.csi.azure.com", &now}, {"azurefile-csi-premium", "file.csi.azure.com", &now},
	} {
		if !given[c.name] {
			o.Classes = append(o.Classes, &storagev1.StorageClass{ObjectMeta: metav1.ObjectMeta{Name: c.name}, Provisioner: c.provisioner, VolumeBindingMode: c.mode})
		}
	}
	if fallback == "" {
		fallback = "default"
	}
	for _, c := range o.PVCs {
		if c.Spec.StorageClassName == nil && c.Spec.VolumeName == "" {
			c.Spec.StorageClassName = &fallback
		}
	}
}
