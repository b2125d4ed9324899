// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package azure

import (
	"context"
	"fmt"
	"strings"

	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/containerservice/armcontainerservice/v8"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"
	karpv1 "sigs.k8s.io/karpenter/pkg/apis/v1"
	"sigs.k8s.io/karpenter/pkg/cloudprovider"

	corev1 "k8s.io/api/core/v1"

	"github.com/nap-aks/nap/apis/v1beta1"
)

// Reasons for drift.
const (
	DriftNodeClass     cloudprovider.DriftReason = "NodeClassDrift"
	DriftKubernetes    cloudprovider.DriftReason = "K8sVersionDrift"
	DriftImage         cloudprovider.DriftReason = "ImageDrift"
	DriftClusterConfig cloudprovider.DriftReason = "ClusterConfigDrift"
)

// IsDrifted returns the reason why the machine of a NodeClaim has drifted from its
// AKSNodeClass: settings, Kubernetes version, node image, or a cluster change that
// AKS wants applied. It returns "" if there is no drift, or if the NodeClaim has no
// NodePool or its class no longer exists.
func (p *Provider) IsDrifted(ctx context.Context, claim *karpv1.NodeClaim) (cloudprovider.DriftReason, error) {
	if claim.Labels[karpv1.NodePoolLabelKey] == "" || claim.Spec.NodeClassRef == nil {
		return "", nil
	}
	nc, err := p.nodeClass(ctx, claim.Spec.NodeClassRef)
	if apierrors.IsNotFound(err) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	if claim.Status.ProviderID == "" {
		return "", fmt.Errorf("checking the drift of NodeClaim %s: it has no provider ID yet", claim.Name)
	}
	if hashDrifted(nc, claim) {
		return DriftNodeClass, nil
	}
	if drifted, err := p.kubernetesDrifted(ctx, nc, claim); drifted || err != nil {
		return DriftKubernetes, err
	}
	if drifted, err := imageDrifted(nc, claim); drifted || err != nil {
		return DriftImage, err
	}
	return p.clusterDrifted(ctx, claim)
}

func hashDrifted(nc *v1beta1.AKSNodeClass, claim *karpv1.NodeClaim) bool {
	want, wantVersion := nc.Annotations[v1beta1.AnnotationNodeClassHash], nc.Annotations[v1beta1.AnnotationNodeClassHashVersion]
	have, haveVersion := claim.Annotations[v1beta1.AnnotationNodeClassHash], claim.Annotations[v1beta1.AnnotationNodeClassHashVersion]
	if want == "" || wantVersion == "" || have == "" || haveVersion == "" || wantVersion != haveVersion {
		return false
	}
	return want != have
}

// kubernetesDrifted compares minor versions only. AKS may install a different patch
// than requested, and replacing the node would then never end. New patches come
// with new node images, which are drift of their own.
func (p *Provider) kubernetesDrifted(ctx context.Context, nc *v1beta1.AKSNodeClass, claim *karpv1.NodeClaim) (bool, error) {
	want, err := nc.ResolvedKubernetesVersion()
	if err != nil || claim.Status.NodeName == "" {
		return false, nil
	}
	node := &corev1.Node{}
	if err := p.kube.Get(ctx, client.ObjectKey{Name: claim.Status.NodeName}, node); err != nil {
		return false, client.IgnoreNotFound(err)
	}
	have := strings.TrimPrefix(node.Status.NodeInfo.KubeletVersion, "v")
	if have == "" || !node.DeletionTimestamp.IsZero() {
		return false, nil
	}
	return minorVersion(have) != minorVersion(want), nil
}

func imageDrifted(nc *v1beta1.AKSNodeClass, claim *karpv1.NodeClaim) (bool, error) {
	images, err := nc.ResolvedImages()
	if err != nil {
		return false, nil // nothing to compare with
	}
	if len(images) == 0 || claim.Status.ImageID == "" {
		return false, fmt.Errorf("checking the image drift of NodeClaim %s: its image is %q and its class has %d images", claim.Name, claim.Status.ImageID, len(images))
	}
	for _, image := range images {
		version, err := NodeImageVersion(image.ID)
		if err != nil {
			return false, err
		}
		if version == claim.Status.ImageID {
			return false, nil
		}
	}
	return true, nil
}

func (p *Provider) clusterDrifted(ctx context.Context, claim *karpv1.NodeClaim) (cloudprovider.DriftReason, error) {
	name, err := p.machineOf(claim)
	if err != nil {
		return "", err
	}
	m, err := p.getMachine(ctx, name)
	if isNotFound(err) {
		return "", nil // garbage collection removes the NodeClaim
	}
	if err != nil {
		return "", fmt.Errorf("reading machine %s to check its drift: %w", name, err)
	}
	if m.Properties == nil || m.Properties.Status == nil || m.Properties.Status.DriftAction == nil {
		return "", nil
	}
	switch *m.Properties.Status.DriftAction {
	case "", armcontainerservice.DriftActionSynced:
		return "", nil
	}
	return DriftClusterConfig, nil
}
