// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package provisioning

import (
	"context"
	"strings"

	"sigs.k8s.io/controller-runtime/pkg/log"
	karpv1 "sigs.k8s.io/karpenter/pkg/apis/v1"

	"github.com/nap-aks/nap/controllers/nodepool"
	"github.com/nap-aks/nap/engine"
)

// emptyPools are the NodePools that can create no machine, as sentences, of all.
type emptyPools struct {
	sentences []string
	all       int
}

// emptyPools reads them.
func (p *Provisioner) emptyPools(ctx context.Context) emptyPools {
	pools := &karpv1.NodePoolList{}
	if err := p.Kube.List(ctx, pools); err != nil {
		log.FromContext(ctx).Error(err, "listing nodepools failed")
		return emptyPools{}
	}
	return emptyPools{nodepool.Empty(pools.Items), len(pools.Items)}
}

// reason returns why a pod is refused, with the NodePools without sizes if they may be
// the cause.
func (e emptyPools) reason(v *engine.Verdict) string {
	switch {
	case len(e.sentences) == 0:
		return v.Reason
	case v.Code == engine.ReasonNoPools && len(e.sentences) == e.all:
		return strings.Join(e.sentences, "; ")
	case v.Code == engine.ReasonNoPools || v.Code == engine.ReasonRequirement || v.Code == engine.ReasonTaints:
		return v.Reason + "; " + strings.Join(e.sentences, "; ")
	}
	return v.Reason
}
