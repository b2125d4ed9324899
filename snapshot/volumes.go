// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package snapshot

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/component-helpers/storage/ephemeral"
	podutils "sigs.k8s.io/karpenter/pkg/utils/pod"

	"github.com/nap-aks/nap/engine"
)

// placeLabels are the labels by which a PersistentVolume can be held to a zone or a
// region.
var placeLabels = []string{corev1.LabelFailureDomainBetaZone, corev1.LabelFailureDomainBetaRegion, corev1.LabelTopologyZone, corev1.LabelTopologyRegion}

// claimNames returns the names of the claims that a pod uses.
func claimNames(p *corev1.Pod) []string {
	var out []string
	for i := range p.Spec.Volumes {
		switch v := &p.Spec.Volumes[i]; {
		case v.PersistentVolumeClaim != nil:
			out = append(out, v.PersistentVolumeClaim.ClaimName)
		case v.Ephemeral != nil:
			out = append(out, ephemeral.VolumeClaimName(p, v))
		}
	}
	return out
}

// volumePlaces returns, for each bound volume of a pod with a zone or region label,
// where it can be: on nodes with one of the label's values and, as in the
// kube-scheduler, on nodes without any such label.
func (s *shapes) volumePlaces(ctx context.Context, p *corev1.Pod) ([]engine.VolumeTopology, error) {
	var out []engine.VolumeTopology
	for _, name := range claimNames(p) {
		var pvc corev1.PersistentVolumeClaim
		if err := s.client.Get(ctx, types.NamespacedName{Namespace: p.Namespace, Name: name}, &pvc); err != nil {
			if apierrors.IsNotFound(err) { // an ephemeral claim that is still to be created
				continue
			}
			return nil, fmt.Errorf("reading the claim %s/%s: %w", p.Namespace, name, err)
		}
		if pvc.Spec.VolumeName == "" {
			continue
		}
		var pv corev1.PersistentVolume
		if err := s.client.Get(ctx, types.NamespacedName{Name: pvc.Spec.VolumeName}, &pv); err != nil {
			return nil, fmt.Errorf("reading the volume %s of the claim %s/%s: %w", pvc.Spec.VolumeName, p.Namespace, name, err)
		}
		var here []engine.Requirement
		for _, key := range placeLabels {
			if v, ok := pv.Labels[key]; ok {
				here = append(here, requirement(key, corev1.NodeSelectorOpIn, strings.Split(v, "__")))
			}
		}
		if len(here) > 0 {
			nowhere := []engine.Requirement{requirement(corev1.LabelTopologyZone, corev1.NodeSelectorOpDoesNotExist, nil), requirement(corev1.LabelTopologyRegion, corev1.NodeSelectorOpDoesNotExist, nil)}
			out = append(out, engine.VolumeTopology{Terms: [][]engine.Requirement{here, nowhere}})
		}
	}
	return out, nil
}

// soleClaims returns the claims of a pod, as namespace/name, that only one pod at a
// time may use (ReadWriteOncePod).
func (c *Cache) soleClaims(ctx context.Context, p *corev1.Pod) []string {
	var out []string
	for _, name := range claimNames(p) {
		var pvc corev1.PersistentVolumeClaim
		if err := c.client.Get(ctx, types.NamespacedName{Namespace: p.Namespace, Name: name}, &pvc); err == nil && slices.Contains(pvc.Spec.AccessModes, corev1.ReadWriteOncePod) {
			out = append(out, p.Namespace+"/"+name)
		}
	}
	return out
}

// withoutContenders removes the pods that cannot run because another pod has a claim
// that only one pod may use: one on a node, one that is assumed there or is to be
// moved, or else the oldest pod to place. It records why in in.Invalid.
func (c *Cache) withoutContenders(ctx context.Context, list []*podRecord, moving map[string]*podRecord, in *Input) []*podRecord {
	var contested []*podRecord
	wants := map[string][]string{}
	for _, r := range list {
		if moving[r.key] != nil || !hasClaims(r.pod) {
			continue
		}
		if claims := c.soleClaims(ctx, r.pod); len(claims) > 0 {
			wants[r.key] = claims
			contested = append(contested, r)
		}
	}
	if len(contested) == 0 {
		return list
	}
	users := map[string]string{} // of all claims, by namespace/name
	for key, r := range c.pods {
		_, assumed := c.assumed.pods[key]
		if (r.pod.Spec.NodeName == "" && !assumed) || podutils.IsTerminal(r.pod) || !hasClaims(r.pod) {
			continue
		}
		for _, name := range claimNames(r.pod) {
			claim := r.pod.Namespace + "/" + name
			if have, ok := users[claim]; !ok || key < have {
				users[claim] = key
			}
		}
	}
	slices.SortFunc(contested, func(a, b *podRecord) int {
		return cmp.Or(cmp.Compare(a.created, b.created), strings.Compare(a.key, b.key))
	})
	refused := map[string]bool{}
	for _, r := range contested {
		for _, claim := range wants[r.key] {
			if user, ok := users[claim]; ok && user != r.key {
				refused[r.key] = true
				in.Invalid[r.key] = fmt.Errorf("the claim %s (ReadWriteOncePod) is used by the pod %s: only one pod at a time can have it", claim, user)
				delete(in.Pods, r.key)
				break
			}
		}
		if !refused[r.key] {
			for _, claim := range wants[r.key] {
				users[claim] = r.key
			}
		}
	}
	return slices.DeleteFunc(list, func(r *podRecord) bool { return refused[r.key] })
}
