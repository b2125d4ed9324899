// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/nap-aks/nap/azure/aksdefaults"
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
	for _, c := range aksdefaults.StorageClasses() {
		if !given[c.Name] {
			c.Annotations = nil // another class may be the default
			o.Classes = append(o.Classes, c)
		}
	}
	if fallback == "" {
		fallback = aksdefaults.DefaultStorageClass
	}
	for _, c := range o.PVCs {
		if c.Spec.StorageClassName == nil && c.Spec.VolumeName == "" {
			c.Spec.StorageClassName = &fallback
		}
	}
	m.bindClaims()
}

// bound is the annotation of claims that the volume controller has bound.
const bound = "pv.kubernetes.io/bind-completed"

// bindClaims binds claims as the volume controller does before pods are scheduled: to
// volumes that are given, and to new volumes where the class does not wait for a pod.
func (m *manifests) bindClaims() {
	o := m.Objects
	modes := map[string]*storagev1.StorageClass{}
	for _, c := range o.Classes {
		modes[c.Name] = c
	}
	for _, c := range o.PVCs {
		if c.Annotations[bound] != "" || c.Spec.VolumeName != "" && c.Status.Phase == corev1.ClaimBound {
			bindClaim(c, nil)
			continue
		}
		class := modes[className(c)]
		waits := class != nil && class.VolumeBindingMode != nil && *class.VolumeBindingMode == storagev1.VolumeBindingWaitForFirstConsumer
		if v := volumeFor(c, o.PVs); v != nil && (!waits || c.Spec.VolumeName != "" || v.Spec.ClaimRef != nil) {
			bindClaim(c, v)
			continue
		}
		if class == nil || waits || c.Spec.VolumeName != "" || class.Provisioner == "kubernetes.io/no-provisioner" {
			continue
		}
		v := &corev1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: "pvc-" + c.Namespace + "-" + c.Name}}
		v.Spec.StorageClassName, v.Spec.AccessModes, v.Spec.Capacity = class.Name, c.Spec.AccessModes, c.Spec.Resources.Requests.DeepCopy()
		v.Spec.CSI = &corev1.CSIPersistentVolumeSource{Driver: class.Provisioner, VolumeHandle: v.Name}
		o.PVs = append(o.PVs, v)
		if class.Provisioner == aksdefaults.DiskDriver {
			m.note("StorageClass %s creates disks before their pods are placed (Immediate), in a zone that is not known: it is not planned for", class.Name)
		}
		bindClaim(c, v)
	}
}

// bindClaim binds a claim to a volume, or completes a claim that is bound.
func bindClaim(c *corev1.PersistentVolumeClaim, v *corev1.PersistentVolume) {
	if c.Annotations == nil {
		c.Annotations = map[string]string{}
	}
	c.Annotations[bound] = "yes"
	c.Status.Phase = corev1.ClaimBound
	if v != nil {
		c.Spec.VolumeName = v.Name
		v.Spec.ClaimRef = &corev1.ObjectReference{Kind: "PersistentVolumeClaim", APIVersion: "v1", Namespace: c.Namespace, Name: c.Name, UID: c.UID}
		v.Status.Phase = corev1.VolumeBound
	}
}

func className(c *corev1.PersistentVolumeClaim) string {
	if c.Spec.StorageClassName == nil {
		return ""
	}
	return *c.Spec.StorageClassName
}

// volumeFor returns the volume that the volume controller binds to a claim: the one
// that either names, else the smallest that fits. It returns nil if there is none.
func volumeFor(c *corev1.PersistentVolumeClaim, volumes []*corev1.PersistentVolume) *corev1.PersistentVolume {
	var best *corev1.PersistentVolume
	want := c.Spec.Resources.Requests[corev1.ResourceStorage]
	for _, v := range volumes {
		ref := v.Spec.ClaimRef
		if ref != nil && (ref.Namespace != c.Namespace || ref.Name != c.Name) || c.Spec.VolumeName != "" && c.Spec.VolumeName != v.Name {
			continue
		}
		size := v.Spec.Capacity[corev1.ResourceStorage]
		if !fits(c, v) || size.Cmp(want) < 0 {
			continue
		}
		if ref != nil || c.Spec.VolumeName != "" {
			return v
		}
		if best == nil {
			best = v
			continue
		}
		have := best.Spec.Capacity[corev1.ResourceStorage]
		if d := size.Cmp(have); d < 0 || d == 0 && v.Name < best.Name {
			best = v
		}
	}
	return best
}

// fits reports whether a volume has the class, the mode, the access modes and the
// labels that a claim asks for.
func fits(c *corev1.PersistentVolumeClaim, v *corev1.PersistentVolume) bool {
	mode := func(p *corev1.PersistentVolumeMode) corev1.PersistentVolumeMode {
		if p == nil {
			return corev1.PersistentVolumeFilesystem
		}
		return *p
	}
	if v.Spec.StorageClassName != className(c) || mode(v.Spec.VolumeMode) != mode(c.Spec.VolumeMode) {
		return false
	}
	for _, a := range c.Spec.AccessModes {
		if !slices.Contains(v.Spec.AccessModes, a) {
			return false
		}
	}
	if c.Spec.Selector == nil || c.Spec.VolumeName != "" {
		return true
	}
	s, err := metav1.LabelSelectorAsSelector(c.Spec.Selector)
	return err == nil && s.Matches(labels.Set(v.Labels))
}
