// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package fleet

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/containerservice/armcontainerservice/v8"
	corev1 "k8s.io/api/core/v1"

	"github.com/nap-aks/nap/catalog"
	"github.com/nap-aks/nap/localazure/autoscaler"
	"github.com/nap-aks/nap/localazure/intent"
)

// Azure is the part of the instance's Resource Manager that the autoscaler of
// fixed pools needs.
type Azure interface {
	// Cluster reads a cluster with its pools and its autoScalerProfile.
	Cluster(ctx context.Context, group, name string) (*armcontainerservice.ManagedCluster, error)
	// Resize adds instances to a pool's scale set, or removes the named ones, at
	// once. With force it ignores the pool's limits.
	Resize(ctx context.Context, group, cluster, pool string, add int, remove []string, force bool) error
}

// poolCloud reads a cluster's autoscaled pools for the autoscaler: their settings
// from ARM, their machines from etcd.
type poolCloud struct{ c *clusterFleet }

// Groups implements autoscaler.Cloud.
func (p *poolCloud) Groups(ctx context.Context) ([]autoscaler.Group, autoscaler.Profile, error) {
	ci := p.c.currentIntent()
	if ci.Name == "" {
		return nil, autoscaler.Profile{}, nil // the cluster is being deleted
	}
	cluster, err := p.c.f.Azure.Cluster(ctx, ci.ResourceGroup, ci.Name)
	if err != nil {
		return nil, autoscaler.Profile{}, err
	}
	var groups []autoscaler.Group
	if cluster.Properties == nil {
		return nil, autoscaler.Profile{}, nil
	}
	for _, pool := range cluster.Properties.AgentPoolProfiles {
		if !value(pool.EnableAutoScaling) || pool.Name == nil || pool.PowerState != nil && value(pool.PowerState.Code) == armcontainerservice.CodeStopped {
			continue
		}
		if _, err := catalog.Lookup(ci.Location, value(pool.VMSize)); err != nil {
			return nil, autoscaler.Profile{}, fmt.Errorf("pool %s: %w", *pool.Name, err)
		}
		groups = append(groups, autoscaler.Group{Name: *pool.Name, Min: int(value(pool.MinCount)), Max: int(value(pool.MaxCount)),
			Busy: !settled(cluster.Properties.ProvisioningState) || !settled(pool.ProvisioningState),
			Node: func(n int) *corev1.Node { return templateNode(pool, ci, n) }})
	}
	if len(groups) == 0 {
		return nil, autoscaler.Profile{}, nil
	}
	machines, _, err := intent.List[intent.MachineIntent](ctx, p.c.f.Etcd, intent.MachineIntentPrefix+p.c.uid+"/")
	if err != nil {
		return nil, autoscaler.Profile{}, err
	}
	statuses, _, err := intent.List[intent.MachineStatus](ctx, p.c.f.Etcd, intent.MachineStatusPrefix+p.c.uid+"/")
	if err != nil {
		return nil, autoscaler.Profile{}, err
	}
	failed := map[string]string{}
	for _, st := range statuses {
		if st.Phase == intent.MachineFailed {
			failed[st.Pool+"/"+st.Name] = st.Code + ": " + st.Message
		}
	}
	suffix := "-vmss"
	for _, m := range machines {
		if rest, ok := strings.CutPrefix(m.Name, "aks-"+m.Pool+"-"); ok && m.Pool != intent.MachinesPool && len(rest) > 6 {
			suffix = "-" + rest[:len(rest)-6] // the names of a cluster's scale sets have one suffix
		}
		for i := range groups {
			if g := &groups[i]; g.Name == m.Pool {
				since := m.CreatedAt
				if m.ReimagedAt.After(since) {
					since = m.ReimagedAt
				}
				g.Instances = append(g.Instances, autoscaler.Instance{Name: m.Name, Node: m.NodeName, Since: since, Failed: failed[m.Pool+"/"+m.Name]})
			}
		}
	}
	for i := range groups {
		groups[i].ScaleSet = "aks-" + groups[i].Name + suffix
	}
	profile, err := parseProfile(cluster.Properties.AutoScalerProfile)
	return groups, profile, err
}

// settled reports whether a provisioning state means that no operation is running.
func settled(state *string) bool {
	switch value(state) {
	case "Succeeded", "Failed", "Canceled", "":
		return true
	}
	return false
}

// Grow implements autoscaler.Cloud.
func (p *poolCloud) Grow(ctx context.Context, group string, n int) error {
	ci := p.c.currentIntent()
	return p.c.f.Azure.Resize(ctx, ci.ResourceGroup, ci.Name, group, n, nil, false)
}

// Shrink implements autoscaler.Cloud.
func (p *poolCloud) Shrink(ctx context.Context, group string, machines []string, failed bool) error {
	ci := p.c.currentIntent()
	return p.c.f.Azure.Resize(ctx, ci.ResourceGroup, ci.Name, group, 0, machines, failed)
}

func value[T any](p *T) T {
	var zero T
	if p == nil {
		return zero
	}
	return *p
}

func values[T any](list []*T) []T {
	var out []T
	for _, p := range list {
		out = append(out, value(p))
	}
	return out
}

// templateNode returns the node that the n-th new instance of a pool registers,
// without its startup taints.
func templateNode(pool *armcontainerservice.ManagedClusterAgentPoolProfile, ci intent.ClusterIntent, n int) *corev1.Node {
	m := intent.MachineIntent{
		ClusterUID: ci.UID, Pool: value(pool.Name), Name: "template", NodeName: "template", VMSize: value(pool.VMSize), Location: ci.Location,
		Spot: value(pool.ScaleSetPriority) == armcontainerservice.ScaleSetPrioritySpot, Mode: string(value(pool.Mode)), Labels: map[string]string{}, Taints: values(pool.NodeTaints),
		MaxPods: int(value(pool.MaxPods)), OSDiskSizeGB: int(value(pool.OSDiskSizeGB)), OSSKU: string(value(pool.OSSKU)), NodeImageVersion: value(pool.NodeImageVersion),
		KubernetesVersion: value(pool.CurrentOrchestratorVersion), NodeResourceGroup: ci.NodeResourceGroup,
	}
	for k, v := range pool.NodeLabels {
		m.Labels[k] = value(v)
	}
	if zones := values(pool.AvailabilityZones); len(zones) > 0 {
		m.Zone = zones[n%len(zones)]
	}
	node, err := NodeFor(m, ci)
	if err != nil {
		// Unreachable: the size is known and ARM has validated the taints.
		return &corev1.Node{}
	}
	node.Spec.Taints = withoutTaint(node.Spec.Taints, ciliumTaint)
	return node
}

// parseProfile converts an autoScalerProfile, with AKS's defaults for what is unset.
func parseProfile(p *armcontainerservice.ManagedClusterPropertiesAutoScalerProfile) (autoscaler.Profile, error) {
	out := autoscaler.DefaultProfile()
	if p == nil {
		return out, nil
	}
	var bad error
	duration := func(name string, s *string, to *time.Duration) {
		if s == nil || *s == "" {
			return
		}
		d, err := time.ParseDuration(*s)
		if n, ierr := strconv.Atoi(*s); ierr == nil { // seconds
			d, err = time.Duration(n)*time.Second, nil
		}
		if err != nil {
			bad = fmt.Errorf("autoScalerProfile.%s %q is not a duration", name, *s)
			return
		}
		*to = d
	}
	duration("scan-interval", p.ScanInterval, &out.ScanInterval)
	duration("new-pod-scale-up-delay", p.NewPodScaleUpDelay, &out.NewPodDelay)
	duration("scale-down-delay-after-add", p.ScaleDownDelayAfterAdd, &out.DelayAfterAdd)
	out.DelayAfterDelete = out.ScanInterval
	duration("scale-down-delay-after-delete", p.ScaleDownDelayAfterDelete, &out.DelayAfterDelete)
	duration("scale-down-delay-after-failure", p.ScaleDownDelayAfterFailure, &out.DelayAfterFailure)
	duration("scale-down-unneeded-time", p.ScaleDownUnneededTime, &out.UnneededTime)
	duration("scale-down-unready-time", p.ScaleDownUnreadyTime, &out.UnreadyTime)
	duration("max-node-provision-time", p.MaxNodeProvisionTime, &out.ProvisionTime)
	duration("max-graceful-termination-sec", p.MaxGracefulTerminationSec, &out.TerminationTime)
	out.ScanInterval = max(out.ScanInterval, time.Second)
	if s := value(p.ScaleDownUtilizationThreshold); s != "" {
		f, err := strconv.ParseFloat(s, 64)
		if err != nil {
			bad = fmt.Errorf("autoScalerProfile.scale-down-utilization-threshold %q is not a number", s)
		}
		out.Threshold = f
	}
	if s := value(p.MaxEmptyBulkDelete); s != "" {
		n, err := strconv.Atoi(s)
		if err != nil || n < 1 {
			bad = fmt.Errorf("autoScalerProfile.max-empty-bulk-delete %q is not a positive number", s)
		}
		out.MaxEmpty = n
	}
	if e := value(p.Expander); e != "" {
		out.Expander = string(e)
	}
	if s := value(p.SkipNodesWithLocalStorage); s != "" {
		out.SkipLocalStorage = strings.EqualFold(s, "true")
	}
	if s := value(p.SkipNodesWithSystemPods); s != "" {
		out.SkipSystemPods = strings.EqualFold(s, "true")
	}
	out.IgnoreDaemonSets = value(p.IgnoreDaemonsetsUtilization)
	return out, bad
}
