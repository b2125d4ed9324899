// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	karpv1 "sigs.k8s.io/karpenter/pkg/apis/v1"

	"github.com/nap-aks/nap/azure/instancetype"
	"github.com/nap-aks/nap/snapshot"
)

// quotasOf converts the vCPU quotas of Azure to those of package snapshot.
func quotasOf(list []instancetype.Quota) []snapshot.Quota {
	out := make([]snapshot.Quota, 0, len(list))
	for _, q := range list {
		counted := []string{karpv1.CapacityTypeOnDemand}
		if q.Spot {
			counted = []string{karpv1.CapacityTypeSpot}
		}
		out = append(out, snapshot.Quota{Name: q.Name, Title: q.Title, Advice: q.Advice, Used: q.Used, Limit: q.Limit, CapacityTypes: counted, Charges: q.VCPUs})
	}
	return out
}
