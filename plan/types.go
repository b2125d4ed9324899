package plan

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/karpenter/pkg/cloudprovider"

	"github.com/nap-aks/nap/apis"
	"github.com/nap-aks/nap/apis/v1beta1"
	"github.com/nap-aks/nap/azure/instancetype"
	"github.com/nap-aks/nap/catalog"
	"github.com/nap-aks/nap/snapshot"
)

func metaExtract(obj runtime.Object) ([]runtime.Object, error) { return meta.ExtractList(obj) }

// DefaultRegion is the region planned for when nothing names one.
const DefaultRegion = "eastus"

// addDefaultNodePool adds the NodePool that AKS makes, unless the source has
// one of that name.
func (s *Source) addDefaultNodePool() {
	for _, np := range s.Objects.NodePools {
		if np.Name == apis.DefaultNodePoolName {
			return
		}
	}
	s.note("planning with the NodePool default that AKS creates (on-demand D family, linux, amd64): --default-node-pools None leaves it out")
	np := apis.DefaultNodePool()
	np.CreationTimestamp = metav1.NewTime(s.Objects.Now)
	makeReady(np)
	s.Objects.NodePools = append(s.Objects.NodePools, np)
}

// addInstanceTypes gives each NodePool the instance types of its node class in
// the region, from the embedded catalogue.
func (s *Source) addInstanceTypes(region string) error {
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
			s.note("NodePool %s refers to AKSNodeClass %s, which is not given: planning with the defaults", np.Name, name)
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

// offline returns the sizes and prices of a region of the embedded catalogue.
func offline(region string) (*instancetype.Table, instancetype.PriceFunc, error) {
	sizes, err := catalog.Sizes(region)
	if err != nil {
		return nil, nil, fmt.Errorf("looking up the sizes to plan with: %w", err)
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

// completeNodes fills in what a Node manifest written by hand leaves out: its
// room, from its size, and the labels every node has.
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
		s.note("node %s says neither its allocatable resources nor a size known in %s (label %s): nothing fits on it", n.Name, region, corev1.LabelInstanceTypeStable)
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

// regionOf reads the region of a cluster off its nodes; it is empty if they do
// not say.
func regionOf(o *snapshot.Objects) string {
	for _, n := range o.Nodes {
		if r := strings.ToLower(n.Labels[corev1.LabelTopologyRegion]); r != "" {
			return r
		}
	}
	return ""
}
