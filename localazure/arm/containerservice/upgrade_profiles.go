// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package containerservice

import (
	"context"
	"maps"
	"slices"
	"strings"

	"github.com/nap-aks/nap/localazure/arm/rp"
)

// addVersions registers the read-only types of versions and upgrades.
func (p *Provider) addVersions() {
	virtual := func(name string, scope rp.Scope, get, list func(context.Context, *rp.Request) (*rp.Response, error)) *rp.Type {
		return &rp.Type{Name: "Microsoft.ContainerService/" + name, Versions: apiVersions, Scope: scope, Virtual: true, Flat: true, Get: get, List: list}
	}
	p.env.Add(
		virtual("locations/kubernetesVersions", rp.InSubscription, nil, p.kubernetesVersions),
		virtual("locations/nodeImageVersions", rp.InSubscription, nil, p.nodeImageVersions),
		virtual("managedClusters/upgradeProfiles", rp.InGroup, p.upgradeProfile, nil),
		virtual("managedClusters/agentPools/upgradeProfiles", rp.InGroup, p.poolUpgradeProfile, nil),
		virtual("managedClusters/availableAgentPoolVersions", rp.InGroup, nil, p.poolVersions),
	)
}

func (p *Provider) location(q *rp.Request) (string, error) {
	l := p.env.FindLocation(q.ID.Names[0])
	if l == nil {
		return "", rp.BadRequest("NoRegisteredProviderFound", "No registered resource provider found for location '%s' and API version '%s' for type '%s'.", q.ID.Names[0], q.APIVersion, strings.Join(q.Type.Path, "/"))
	}
	return l.Name, nil
}

func (p *Provider) kubernetesVersions(_ context.Context, q *rp.Request) (*rp.Response, error) {
	if _, err := p.location(q); err != nil {
		return nil, err
	}
	byMinor := map[string][]string{}
	for _, v := range p.versions {
		byMinor[minor(v)] = append(byMinor[minor(v)], v)
	}
	var values []any
	for _, m := range slices.SortedFunc(maps.Keys(byMinor), compareVersions) {
		patches := map[string]any{}
		for _, v := range byMinor[m] {
			patches[v] = map[string]any{"upgrades": append([]string{}, p.versions.upgrades(v)...)}
		}
		d := map[string]any{"version": m, "capabilities": map[string]any{"supportPlan": []string{"KubernetesOfficial", "AKSLongTermSupport"}}, "patchVersions": patches, "isPreview": nil}
		if m == minor(p.versions.preselected()) {
			d["isDefault"] = true
		}
		values = append(values, d)
	}
	return &rp.Response{Body: map[string]any{"values": values}}, nil
}

func (p *Provider) nodeImageVersions(_ context.Context, q *rp.Request) (*rp.Response, error) {
	if _, err := p.location(q); err != nil {
		return nil, err
	}
	var ds []rp.Doc
	for _, im := range images {
		for _, v := range imageVersions {
			ds = append(ds, rp.Doc{"os": im.os, "sku": im.sku, "version": v, "fullName": im.os + "-" + im.sku + "-" + v})
		}
	}
	return rp.ListResponse(ds, ""), nil
}

func upgradeItems(vs []string) []any {
	out := []any{}
	for _, v := range vs {
		out = append(out, map[string]any{"kubernetesVersion": v, "isPreview": nil})
	}
	return out
}

func (p *Provider) upgradeProfile(ctx context.Context, q *rp.Request) (*rp.Response, error) {
	cluster, err := p.cluster(ctx, clusterOf(q.ID))
	if err != nil {
		return nil, err
	}
	if !equal(q.ID.Name(), "default") {
		return nil, rp.NotFound(q.ID)
	}
	pools, err := p.pools(ctx, cluster.ParsedID())
	if err != nil {
		return nil, err
	}
	current := cluster.Doc.Str("properties", "currentKubernetesVersion")
	profiles := []any{}
	for _, r := range pools {
		v := r.Doc.Str("properties", "currentOrchestratorVersion")
		profiles = append(profiles, map[string]any{"name": r.ParsedID().Name(), "osType": r.Doc.Str("properties", "osType"), "kubernetesVersion": v, "upgrades": upgradeItems(p.poolUpgrades(v, current))})
	}
	return &rp.Response{Body: rp.Doc{"id": cluster.ID + "/upgradeprofiles/default", "name": "default", "type": "Microsoft.ContainerService/managedClusters/upgradeprofiles", "properties": map[string]any{
		"controlPlaneProfile": map[string]any{"kubernetesVersion": current, "osType": "Linux", "name": "master", "upgrades": upgradeItems(p.versions.upgrades(current))},
		"agentPoolProfiles":   profiles}}}, nil
}

// poolUpgrades returns the versions that a pool can be upgraded to: up to its
// control plane's.
func (p *Provider) poolUpgrades(from, controlPlane string) []string {
	var out []string
	for _, v := range p.versions.upgrades(from) {
		if compareVersions(v, controlPlane) <= 0 {
			out = append(out, v)
		}
	}
	return out
}

func (p *Provider) poolUpgradeProfile(ctx context.Context, q *rp.Request) (*rp.Response, error) {
	cluster, pool, err := p.clusterAndPool(ctx, q.ID)
	if err != nil {
		return nil, err
	}
	v := pool.Doc.Str("properties", "currentOrchestratorVersion")
	img := pool.Doc.Str("properties", "nodeImageVersion")
	if i := strings.LastIndexByte(img, '-'); i > 0 {
		img = img[:i+1] + latestImage()
	}
	return &rp.Response{Body: rp.Doc{"id": pool.ID + "/upgradeProfiles/default", "name": "default", "type": "Microsoft.ContainerService/managedClusters/agentPools/upgradeProfiles", "properties": map[string]any{
		"kubernetesVersion": v, "osType": pool.Doc.Str("properties", "osType"), "latestNodeImageVersion": img,
		"upgrades": upgradeItems(p.poolUpgrades(v, cluster.Doc.Str("properties", "currentKubernetesVersion")))}}}, nil
}

func (p *Provider) poolVersions(ctx context.Context, q *rp.Request) (*rp.Response, error) {
	cluster, err := p.cluster(ctx, clusterOf(q.ID))
	if err != nil {
		return nil, err
	}
	current := cluster.Doc.Str("properties", "currentKubernetesVersion")
	list := []any{}
	for _, v := range p.versions {
		if compareVersions(v, current) <= 0 {
			list = append(list, map[string]any{"kubernetesVersion": v, "default": v == current, "isPreview": nil})
		}
	}
	return &rp.Response{Body: rp.Doc{"id": cluster.ID + "/availableagentpoolversions", "name": "default", "type": "Microsoft.ContainerService/managedClusters/availableAgentpoolVersions", "properties": map[string]any{"agentPoolVersions": list}}}, nil
}
