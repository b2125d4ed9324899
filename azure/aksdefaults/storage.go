// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

// Package aksdefaults lists what every AKS cluster has before anything is installed in
// it. The local Azure creates it, and plans of manifests assume it.
package aksdefaults

import (
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Names of AKS's volume drivers.
const (
	DiskDriver = "disk.csi.azure.com"
	FileDriver = "file.csi.azure.com"
)

// DefaultStorageClass is the name of the class for claims that name none.
const DefaultStorageClass = "default"

// StorageClasses returns new objects for AKS's storage classes: disks are created where
// their first pod is placed, file shares at once.
func StorageClasses() []*storagev1.StorageClass {
	var out []*storagev1.StorageClass
	add := func(name, driver, sku string, mode storagev1.VolumeBindingMode) {
		c := &storagev1.StorageClass{ObjectMeta: metav1.ObjectMeta{Name: name}, Provisioner: driver, Parameters: map[string]string{"skuname": sku}, VolumeBindingMode: &mode}
		if name == DefaultStorageClass {
			c.Annotations = map[string]string{"storageclass.kubernetes.io/is-default-class": "true"}
		}
		out = append(out, c)
	}
	wait, now := storagev1.VolumeBindingWaitForFirstConsumer, storagev1.VolumeBindingImmediate
	add(DefaultStorageClass, DiskDriver, "StandardSSD_LRS", wait)
	add("managed", DiskDriver, "StandardSSD_LRS", wait)
	add("managed-csi", DiskDriver, "StandardSSD_LRS", wait)
	add("managed-csi-premium", DiskDriver, "Premium_LRS", wait)
	add("managed-premium", DiskDriver, "Premium_LRS", wait)
	add("azurefile", FileDriver, "Standard_LRS", now)
	add("azurefile-csi", FileDriver, "Standard_LRS", now)
	add("azurefile-csi-premium", FileDriver, "Premium_LRS", now)
	add("azurefile-premium", FileDriver, "Premium_LRS", now)
	return out
}
