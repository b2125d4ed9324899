// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/karpenter/pkg/cloudprovider"

	"github.com/nap-aks/nap/apis"
	"github.com/nap-aks/nap/apis/v1beta1"
	"github.com/nap-aks/nap/azure/instancetype"
	"github.com/nap-aks/nap/catalog"
	"github.com/nap-aks/nap/snapshot"
)

// DefaultRegion is the region if neither a flag nor a node names one.
const DefaultRegion = "eastus"

// addDefaultNodePool adds the NodePool that AKS creates, unless the source has one
// of that name.
func (s *Source) addDefaultNodePool() {
	for _, np := range s.Objects.NodePools {
		if np.Name == apis.DefaultNodePoolName {
			return
		}
	}
	s.note("using the NodePool default that AKS creates (on-demand D family, linux, amd64); --default-node-pools None omits it")
	np := apis.DefaultNodePool()
	np.CreationTimestamp = metav1.NewTime(s.Objects.Now)
	makeReady(np)
	s.Objects.NodePools = append(s.Objects.NodePools, np)
}

// AddInstanceTypes sets the instance types of each NodePool: those that its node
// class allows in the region, from the built-in catalogue.
func (s *Source) AddInstanceTypes(region string) error {
	o := s.Objects
	table, prices, err := offline(region)
	if err != nil {
		return err
	}
	built := map[instancetype.Settings][]*cloudprovider.InstanceType{}
	o.InstanceTypes = map[string][]*cloudprovider.InstanceType{}
	for _, np := range o.NodePools {
		ref := np.Spec.Template.Spec.NodeClassRef
		name := "default"
		if ref != nil {
			name = ref.Name
		}
		nc := &v1beta1.AKSNodeClass{ObjectMeta: metav1.ObjectMeta{Name: name}}
		if i := slices.IndexFunc(s.NodeClasses, func(c *v1beta1.AKSNodeClass) bool { return c.Name == name }); i >= 0 {
			nc = s.NodeClasses[i]
		} else if len(s.NodeClasses) > 0 || name != "default" {
			s.note("NodePool %s refers to AKSNodeClass %s, which is not given; using the defaults", np.Name, name)
		}
		settings := instancetype.SettingsFor(nc, instancetype.Cluster{
			NetworkPlugin: "azure", NetworkPluginMode: "overlay", NodeResourceGroup: "nap", VMMemoryOverheadPercent: instancetype.DefaultVMMemoryOverheadPercent,
		})
		if built[settings] == nil {
			built[settings] = table.Build(settings, prices, nil)
		}
		o.InstanceTypes[np.Name] = built[settings]
	}
	s.completeNodes(region)
	return nil
}

// offline returns the sizes and prices of a region in the built-in catalogue.
func offline(region string) (*instancetype.Table, instancetype.PriceFunc, error) {
	sizes, err := catalog.Sizes(region)
	if err != nil {
		return nil, nil, fmt.Errorf("looking up the sizes of region %s: %w", region, err)
	}
	byName := make(map[string]*catalog.Size, len(sizes))
	for i := range sizes {
		byName[sizes[i].Name] = &sizes[i]
	}
	table, err := instancetype.NewTable(region, catalog.SKUs(region))
	if err != nil {
		return nil, nil, fmt.Errorf("reading the sizes of region %s: %w", region, err)
	}
	prices := func(size string, spot bool) (float64, bool) {
		s := byName[size]
		switch {
		case s == nil || !s.HasPrice:
			return 0, false
		case spot:
			return s.SpotUSDPerHour, s.SpotUSDPerHour > 0
		}
		return s.OnDemandUSDPerHour, true
	}
	return table, prices, nil
}

// completeNodes adds what a handwritten Node manifest may omit: allocatable
// resources, from its size, and the labels that every node has.
func (s *Source) completeNodes(region string) {
	for _, n := range s.Objects.Nodes {
		if n.Labels == nil {
			n.Labels = map[string]string{}
		}
		if n.Labels[corev1.LabelHostname] == "" {
			n.Labels[corev1.LabelHostname] = n.Name
		}
		if n.Spec.ProviderID == "" {
			n.Spec.ProviderID = "plan://" + n.Name
		}
		if len(n.Status.Allocatable) > 0 {
			continue
		}
		if len(n.Status.Capacity) > 0 {
			n.Status.Allocatable = n.Status.Capacity.DeepCopy()
			continue
		}
		size := n.Labels[corev1.LabelInstanceTypeStable]
		if it := s.instanceType(size); it != nil {
			n.Status.Capacity, n.Status.Allocatable = it.Capacity.DeepCopy(), it.Allocatable().DeepCopy()
			continue
		}
		s.note("node %s has neither allocatable resources nor a size known in %s (label %s): no pod fits on it", n.Name, region, corev1.LabelInstanceTypeStable)
	}
}

func (s *Source) instanceType(name string) *cloudprovider.InstanceType {
	for _, list := range s.Objects.InstanceTypes {
		for _, it := range list {
			if it.Name == name {
				return it
			}
		}
	}
	return nil
}

// regionOf returns the region in the labels of a cluster's nodes, or an empty
// string.
func regionOf(o *snapshot.Objects) string {
	for _, n := range o.Nodes {
		if r := strings.ToLower(n.Labels[corev1.LabelTopologyRegion]); r != "" {
			return r
		}
	}
	return ""
}
