// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package azure

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/containerservice/armcontainerservice/v8"
	"github.com/awslabs/operatorpkg/status"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/client"
	karpv1 "sigs.k8s.io/karpenter/pkg/apis/v1"
	"sigs.k8s.io/karpenter/pkg/cloudprovider"

	"github.com/nap-aks/nap/apis/v1beta1"
	"github.com/nap-aks/nap/azure/instancetype"
)

// Provider is Karpenter's CloudProvider for one AKS cluster.
type Provider struct {
	config  Config
	cluster Cluster
	clients *Clients
	kube    client.Client
	clock   clock.Clock

	skus        *skus
	prices      *prices
	quota       *quota
	unavailable *unavailable
	images      *images
	tracker     *tracker
	types       typeCache
	putSlots    chan struct{} // limits concurrent PUTs
	deleting    sync.Map      // set of machine names that Delete is working on
}

var _ cloudprovider.CloudProvider = (*Provider)(nil)

// maxPuts is the maximum number of concurrent machine PUTs.
const maxPuts = 32

// New signs in, reads the cluster from ARM and the VM sizes of its region. It returns
// an error if any of that fails, since nothing could be launched. Prices and quotas
// are read by the refresh methods.
func New(ctx context.Context, config Config, kube client.Client) (*Provider, error) {
	cluster, err := parseClusterID(config.ClusterResourceID)
	if err != nil {
		return nil, err
	}
	clients, err := newClients(config, cluster.SubscriptionID)
	if err != nil {
		return nil, err
	}
	if cluster, err = describeCluster(ctx, clients, config, cluster); err != nil {
		return nil, err
	}
	if config.VMMemoryOverheadPercent < 0 {
		config.VMMemoryOverheadPercent = instancetype.DefaultVMMemoryOverheadPercent
	}
	p := newProvider(config, cluster, clients, kube, clock.RealClock{})
	if err := p.RefreshSizes(ctx); err != nil {
		return nil, err
	}
	return p, nil
}

func newProvider(config Config, cluster Cluster, clients *Clients, kube client.Client, c clock.Clock) *Provider {
	gallerySubscription := config.ImageGallerySubscriptionID
	if gallerySubscription == "" {
		gallerySubscription = cluster.SubscriptionID
	}
	p := &Provider{
		config: config, cluster: cluster, clients: clients, kube: kube, clock: c,
		skus:        &skus{region: cluster.Location, fetch: listSKUs(clients.SKUs, cluster.Location)},
		prices:      newPrices(config.PricesEndpoint, cluster.Location, clients.HTTP),
		quota:       newQuota(c, listUsages(clients.Usage, cluster.Location)),
		unavailable: newUnavailable(c),
		putSlots:    make(chan struct{}, maxPuts),
	}
	p.images = &images{fetch: p.listImageVersions, subscription: gallerySubscription, now: c.Now}
	p.tracker = newTracker(config.PollInterval, p.listMachines)
	return p
}

// describeCluster completes the configuration of the cluster with ARM's values.
func describeCluster(ctx context.Context, clients *Clients, config Config, c Cluster) (Cluster, error) {
	resp, err := clients.Clusters.Get(ctx, c.ResourceGroup, c.Name, nil)
	if err != nil {
		return c, fmt.Errorf("reading the managed cluster %s from ARM: %w", c.ResourceID, err)
	}
	pick := func(configured string, read *string) string {
		if configured != "" {
			return configured
		}
		return deref(read)
	}
	c.Location = strings.ToLower(strings.ReplaceAll(pick(config.Location, resp.Location), " ", ""))
	c.MachinesPool = config.MachinesPool
	if c.MachinesPool == "" {
		c.MachinesPool = DefaultMachinesPool
	}
	properties := resp.Properties
	if properties == nil {
		properties = &armcontainerservice.ManagedClusterProperties{}
	}
	c.NodeResourceGroup = pick(config.NodeResourceGroup, properties.NodeResourceGroup)
	network := properties.NetworkProfile
	if network == nil {
		network = &armcontainerservice.NetworkProfile{}
	}
	c.NetworkPlugin = strings.ToLower(pick(config.NetworkPlugin, (*string)(network.NetworkPlugin)))
	c.NetworkPluginMode = strings.ToLower(pick(config.NetworkPluginMode, (*string)(network.NetworkPluginMode)))
	c.NetworkPolicy = strings.ToLower(pick(config.NetworkPolicy, (*string)(network.NetworkPolicy)))
	c.VnetSubnetID = config.VnetSubnetID
	for _, pool := range properties.AgentPoolProfiles {
		if c.VnetSubnetID == "" && pool != nil {
			c.VnetSubnetID = deref(pool.VnetSubnetID)
		}
	}
	if c.Location == "" || c.NodeResourceGroup == "" {
		return c, fmt.Errorf("managed cluster %s has no location (%q) or node resource group (%q) in ARM: set them in the configuration", c.ResourceID, c.Location, c.NodeResourceGroup)
	}
	return c, nil
}

// Cluster returns the managed cluster, as the configuration and ARM describe it.
func (p *Provider) Cluster() Cluster { return p.cluster }

// Name returns the provider's name in metrics.
func (p *Provider) Name() string { return "azure" }

// GetSupportedNodeClasses returns AKSNodeClass.
func (p *Provider) GetSupportedNodeClasses() []status.Object {
	return []status.Object{&v1beta1.AKSNodeClass{}}
}

// Reboot is not implemented: the AKS machine API does not support it.
func (p *Provider) Reboot(context.Context, *karpv1.NodeClaim, string) error {
	return cloudprovider.NewNodeRebootNotImplementedError()
}

// RepairPolicies returns the node conditions after which a machine is replaced, and
// how long each is tolerated.
func (p *Provider) RepairPolicies() []cloudprovider.RepairPolicy {
	const anyReason = ".*"
	now := time.Duration(0)
	return []cloudprovider.RepairPolicy{
		// Karpenter requires exactly one policy without a reason: the fallback.
		{ConditionType: corev1.NodeReady, ConditionStatus: corev1.ConditionFalse, TolerationDuration: 10 * time.Minute, Action: cloudprovider.ReplaceNode},
		{ConditionType: corev1.NodeReady, ConditionStatus: corev1.ConditionUnknown, ReasonRegex: anyReason, TolerationDuration: 10 * time.Minute, Action: cloudprovider.ReplaceNode},
		{ConditionType: "kubernetes.azure.com/NodeHealthy", ConditionStatus: corev1.ConditionFalse, ReasonRegex: anyReason, Action: cloudprovider.ReplaceNode, Priority: 50},
		// The VM is evicted within seconds, too soon for a slow drain.
		{ConditionType: "PreemptionScheduled", ConditionStatus: corev1.ConditionTrue, ReasonRegex: anyReason, TolerationDuration: now, Action: cloudprovider.ReplaceNode, Priority: 100},
	}
}

// GetInstanceTypes returns the instance types for the node class of a NodePool,
// including those that are unavailable now.
func (p *Provider) GetInstanceTypes(ctx context.Context, pool *karpv1.NodePool) ([]*cloudprovider.InstanceType, error) {
	nc, err := p.nodeClass(ctx, pool.Spec.Template.Spec.NodeClassRef)
	if err != nil {
		return nil, fmt.Errorf("listing the instance types of NodePool %s: %w", pool.Name, err)
	}
	return p.instanceTypes(instancetype.SettingsFor(nc, p.typeCluster()))
}

func (p *Provider) typeCluster() instancetype.Cluster {
	return instancetype.Cluster{
		NetworkPlugin: p.cluster.NetworkPlugin, NetworkPluginMode: p.cluster.NetworkPluginMode,
		NodeResourceGroup: p.cluster.NodeResourceGroup, VMMemoryOverheadPercent: p.config.VMMemoryOverheadPercent,
	}
}

// nodeClass reads the class of a reference. A class that is being deleted is
// treated as not found.
func (p *Provider) nodeClass(ctx context.Context, ref *karpv1.NodeClassReference) (*v1beta1.AKSNodeClass, error) {
	if ref == nil {
		return nil, fmt.Errorf("no nodeClassRef")
	}
	nc := &v1beta1.AKSNodeClass{}
	if err := p.kube.Get(ctx, client.ObjectKey{Name: ref.Name}, nc); err != nil {
		return nil, fmt.Errorf("reading AKSNodeClass %s: %w", ref.Name, err)
	}
	if !nc.DeletionTimestamp.IsZero() {
		return nil, newTerminatingError(nc.Name)
	}
	return nc, nil
}

// RefreshSizes reads the VM sizes of the region.
func (p *Provider) RefreshSizes(ctx context.Context) error { return p.skus.refresh(ctx) }

// Quotas returns the vCPU quotas of the region with their usage as last read, and the
// sizes that count against each. It returns nothing before the first read and after
// usages could not be read for a long time.
func (p *Provider) Quotas() []instancetype.Quota {
	table := p.skus.table()
	if table == nil {
		return nil
	}
	return table.Quotas(p.quota.report())
}

// RefreshQuota reads the vCPU usages and limits of the subscription.
func (p *Provider) RefreshQuota(ctx context.Context) error { return p.quota.refresh(ctx) }

// RefreshPrices reads the Retail Prices API, if it is configured.
func (p *Provider) RefreshPrices(ctx context.Context) error { return p.prices.refresh(ctx) }

// LatestImages returns the newest node images for the settings of a class, in order
// of preference. kubernetesVersion has no leading v. The error wraps ErrNoImages if
// no image matches.
func (p *Provider) LatestImages(ctx context.Context, nc *v1beta1.AKSNodeClass, kubernetesVersion string) ([]v1beta1.NodeImage, error) {
	return p.images.latest(ctx, nc, kubernetesVersion, kubernetesVersion)
}

func (p *Provider) listImageVersions(ctx context.Context) ([]imageVersion, error) {
	var out []imageVersion
	pager := p.clients.Images.NewListNodeImageVersionsPager(p.cluster.Location, nil)
	for pager.More() {
		page, err := pager.NextPage(ctx)
		if err != nil {
			return nil, err
		}
		for _, v := range page.Value {
			if v != nil {
				out = append(out, imageVersion{os: deref(v.OS), sku: deref(v.SKU), version: deref(v.Version)})
			}
		}
	}
	return out, nil
}
