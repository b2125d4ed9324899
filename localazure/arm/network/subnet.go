// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package network

import (
	"context"
	"fmt"
	"net/netip"
	"strings"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/nap-aks/nap/localazure/arm/rp"
	"github.com/nap-aks/nap/localazure/intent"
)

// Azure's limits on the sizes of subnets, as prefix lengths.
const (
	largestIPv4Subnet  = 2
	smallestIPv4Subnet = 29
	ipv6Subnet         = 64
)

// ranges returns the address ranges of a subnet's document, from either of its
// two properties.
func ranges(name string, d rp.Doc) ([]netip.Prefix, error) {
	one, many := d.Str("properties", "addressPrefix"), d.Strings("properties", "addressPrefixes")
	target := "properties.addressPrefix"
	if len(many) > 0 {
		target = "properties.addressPrefixes"
	}
	if one != "" && len(many) == 0 {
		many = []string{one}
	}
	if len(many) == 0 {
		return nil, rp.BadRequest("MissingAddressPrefix", "The subnet %s has no address range; give it in addressPrefix or addressPrefixes.", name).At("properties.addressPrefix")
	}
	if one != "" && one != many[0] && len(many) == 1 {
		return nil, rp.BadRequest("ConflictingAddressPrefixes", "The subnet %s has %s in addressPrefix but %s in addressPrefixes; give one of them.", name, one, many[0]).At(target)
	}
	var out []netip.Prefix
	for _, s := range many {
		x, err := parsePrefix(s, "subnet "+name, target)
		if err != nil {
			return nil, err
		}
		switch {
		case x.Addr().Is4() && (x.Bits() < largestIPv4Subnet || x.Bits() > smallestIPv4Subnet):
			return nil, rp.BadRequest("NetcfgInvalidSubnet", "Subnet '%s' is not valid because its range %s is not between /%d and /%d.", name, x, largestIPv4Subnet, smallestIPv4Subnet).At(target)
		case x.Addr().Is6() && x.Bits() != ipv6Subnet:
			return nil, rp.BadRequest("NetcfgInvalidSubnet", "Subnet '%s' is not valid because an IPv6 range must be a /%d; it has %s.", name, ipv6Subnet, x).At(target)
		}
		if other, ok := firstOverlap(x, out); ok {
			return nil, rp.BadRequest("NetcfgSubnetRangesOverlap", "Subnet '%s' is not valid because its ranges %s and %s overlap.", name, other, x).At(target)
		}
		out = append(out, x)
	}
	return out, nil
}

// prepareSubnetDoc sets Azure's defaults in a subnet's document and checks the
// subnet and its references.
func (p *Provider) prepareSubnetDoc(ctx context.Context, c *rp.Change, name string, d rp.Doc) error {
	for k := range d {
		if !strings.EqualFold(k, "properties") {
			d.Drop(k)
		}
	}
	if d.Map("properties") == nil {
		d.Set(map[string]any{}, "properties")
	}
	for _, ro := range []string{"provisioningState", "ipConfigurations", "purpose", "resourceNavigationLinks", "serviceAssociationLinks", "privateEndpoints", "ipConfigurationProfiles"} {
		d.Drop("properties", ro)
	}
	if _, err := ranges(name, d); err != nil {
		return err
	}
	d.Default("Disabled", "properties", "privateEndpointNetworkPolicies")
	d.Default("Enabled", "properties", "privateLinkServiceNetworkPolicies")
	d.Default([]any{}, "properties", "delegations")
	for i, x := range d.List("properties", "delegations") {
		m, _ := x.(map[string]any)
		g := rp.Doc(m)
		if g.Str("properties", "serviceName") == "" {
			return rp.BadRequest("InvalidServiceNameOnDelegation", "The delegation %d of subnet %s has no properties.serviceName.", i, name).At("properties.delegations")
		}
		g.Default(fmt.Sprint(i), "name")
		for _, ro := range []string{"id", "etag", "type"} {
			g.Drop(ro)
		}
		g.Drop("properties", "provisioningState")
	}
	for typ, prop := range map[string]string{SecurityGroupType: "networkSecurityGroup", RouteTableType: "routeTable", NATGatewayType: "natGateway"} {
		if err := p.checkReference(ctx, c, d, typ, "properties", prop); err != nil {
			return err
		}
	}
	return nil
}

// layout checks that subnets are inside their network's space and do not overlap.
func layout(vnet rp.ID, in []netip.Prefix, subnets map[string]rp.Doc, order []string) error {
	type taken struct {
		name string
		p    netip.Prefix
	}
	var all []taken
	for _, name := range order {
		rs, err := ranges(name, subnets[name])
		if err != nil {
			return err
		}
		for _, x := range rs {
			if !inside(x, in) {
				return rp.BadRequest("NetcfgInvalidSubnet", "Subnet '%s' is not valid because its IP address range %s is outside the IP address range of virtual network '%s' (%s).", name, x, vnet.Name(), joined(in)).At("properties.addressPrefix")
			}
			for _, t := range all {
				if t.p.Overlaps(x) {
					return rp.BadRequest("NetcfgSubnetRangesOverlap", "Subnet '%s' is not valid because its IP address range %s overlaps with that of an existing subnet in virtual network '%s': '%s' has %s.", name, x, vnet.Name(), t.name, t.p).At("properties.addressPrefix")
				}
			}
			all = append(all, taken{name, x})
		}
	}
	return nil
}

func joined(ps []netip.Prefix) string {
	s := make([]string, len(ps))
	for i, p := range ps {
		s[i] = p.String()
	}
	return strings.Join(s, ", ")
}

func (p *Provider) newSubnet(c *rp.Change, name string, d rp.Doc) *rp.Record {
	now := p.env.Now().UTC()
	return &rp.Record{ID: c.ID.Child("subnets", name).String(), Doc: d, State: rp.Succeeded, UID: rp.NewGUID(), ETag: rp.NewGUID(), Internal: rp.Doc{},
		CreatedAt: now, ChangedAt: now, CreatedBy: c.Caller.ObjectID, ChangedBy: c.Caller.ObjectID}
}

func (p *Provider) subnetsOf(ctx context.Context, vnet rp.ID) ([]*rp.Record, error) {
	id := vnet
	id.Types = append(append([]string(nil), vnet.Types...), "subnets")
	return p.env.Store.List(ctx, id)
}

func renderSubnet(_ context.Context, r *rp.Record, d rp.Doc, _ string) error {
	etag(d, r)
	for _, x := range d.List("properties", "delegations") {
		if m, ok := x.(map[string]any); ok {
			g := rp.Doc(m)
			g["id"], g["etag"], g["type"] = r.ID+"/delegations/"+g.Str("name"), d["etag"], SubnetType+"/delegations"
			g.Set(rp.Succeeded, "properties", "provisioningState")
		}
	}
	for _, x := range d.List("properties", "serviceEndpoints") {
		if m, ok := x.(map[string]any); ok {
			m["provisioningState"] = rp.Succeeded
		}
	}
	return nil
}

// touch adds the network's record to the transaction, so that it fails if
// another subnet of the network changes concurrently.
func (p *Provider) touch(ctx context.Context, c *rp.Change) (*rp.Record, error) {
	id := c.ID.Parent()
	v, err := p.env.Store.Get(ctx, id)
	if err != nil {
		return nil, err
	}
	if v == nil {
		if c.Preflight {
			return nil, nil
		}
		return nil, rp.NotFound(id)
	}
	if v.State == "Deleting" && !c.Preflight {
		return nil, busy(id, "Deleting")
	}
	if c.Preflight {
		return v, nil
	}
	next := v.Clone()
	next.ETag = rp.NewGUID()
	c.Cmps = append(c.Cmps, rp.Unchanged(v))
	c.Ops = append(c.Ops, rp.PutOp(next))
	return v, nil
}

func (p *Provider) prepareSubnet(ctx context.Context, c *rp.Change) error {
	replace(c)
	name := c.ID.Name()
	if c.Old != nil && c.Old.State == "Deleting" {
		return busy(c.ID, "Deleting")
	}
	if err := p.prepareSubnetDoc(ctx, c, name, c.Doc); err != nil {
		return err
	}
	vnet, err := p.touch(ctx, c)
	if err != nil || vnet == nil {
		return err
	}
	in, err := space(vnet.ParsedID(), vnet.Doc)
	if err != nil {
		return err
	}
	all, err := p.subnetsOf(ctx, vnet.ParsedID())
	if err != nil {
		return err
	}
	subnets, order := map[string]rp.Doc{}, []string{}
	for _, r := range all {
		if n := r.ParsedID().Name(); !strings.EqualFold(n, name) {
			subnets[n] = r.Doc
			order = append(order, n)
		}
	}
	subnets[name] = c.Doc
	if err := layout(vnet.ParsedID(), in, subnets, append(order, name)); err != nil {
		return err
	}
	if c.Old != nil {
		return p.checkRangeChange(ctx, c.Old, c.Doc)
	}
	return nil
}

func commitSubnet(_ context.Context, c *rp.Change) error { settle(c); return nil }

// checkRangeChange refuses to remove a range from a subnet that is in use.
func (p *Provider) checkRangeChange(ctx context.Context, old *rp.Record, d rp.Doc) error {
	id := old.ParsedID()
	was, err := ranges(id.Name(), old.Doc)
	if err != nil {
		return err
	}
	now, err := ranges(id.Name(), d)
	if err != nil {
		return err
	}
	for _, w := range was {
		if inside(w, now) {
			continue
		}
		users, err := p.referrers(ctx, id, userTypes...)
		if err != nil {
			return err
		}
		if len(users) > 0 {
			return rp.BadRequest("InUsePrefixCannotBeDeleted", "IpPrefix %s on Subnet %s has active allocations and cannot be deleted. It is used by %s.", w, id.Name(), listed(users)).At("properties.addressPrefix")
		}
	}
	return nil
}

// userTypes are the types whose resources take addresses of subnets.
var userTypes = []string{
	"Microsoft.ContainerService/managedClusters", "Microsoft.ContainerService/managedClusters/agentPools", machineType, LoadBalancerType,
}

const machineType = "Microsoft.ContainerService/managedClusters/agentPools/machines"

// subnetFree returns an error while resources have addresses in a subnet.
func (p *Provider) subnetFree(ctx context.Context, id rp.ID) error {
	users, err := p.referrers(ctx, id, userTypes...)
	if err != nil {
		return err
	}
	if len(users) > 0 {
		return rp.BadRequest("InUseSubnetCannotBeDeleted", "Subnet %s is in use by %s and cannot be deleted. In order to delete the subnet, delete all the resources within the subnet. See aka.ms/deletesubnet.", id.Name(), listed(users)).At(id.String())
	}
	return nil
}

func (p *Provider) deleteSubnet(ctx context.Context, c *rp.Change) error {
	if c.Old.State == "Deleting" {
		return busy(c.ID, "Deleting")
	}
	if err := p.subnetFree(ctx, c.ID); err != nil {
		return err
	}
	if _, err := p.touch(ctx, c); err != nil {
		return err
	}
	removal(c)
	return nil
}

// nodesPerSubnet counts the machines of clusters by the key of their subnet: the
// machine's, else its pool's, else its cluster's.
func (p *Provider) nodesPerSubnet(ctx context.Context) (map[string]int, error) {
	clusters, err := p.env.Store.ListType(ctx, "Microsoft.ContainerService/managedClusters")
	if err != nil {
		return nil, err
	}
	pools, err := p.env.Store.ListType(ctx, "Microsoft.ContainerService/managedClusters/agentPools")
	if err != nil {
		return nil, err
	}
	machines, err := p.env.Store.ListType(ctx, machineType)
	if err != nil {
		return nil, err
	}
	byCluster, byPool, own := map[string]string{}, map[string]string{}, map[string]string{}
	uid := map[string]string{}
	for _, r := range clusters {
		uid[r.ParsedID().Key()] = r.UID
	}
	for _, r := range pools {
		s := strings.ToLower(r.Doc.Str("properties", "vnetSubnetID"))
		if s == "" {
			continue
		}
		id := r.ParsedID()
		u := uid[id.Parent().Key()]
		byPool[u+"/"+strings.ToLower(id.Name())] = s
		if byCluster[u] == "" {
			byCluster[u] = s
		}
	}
	for _, r := range machines {
		if s := r.Doc.Str("properties", "network", "vnetSubnetID"); s != "" {
			id := r.ParsedID()
			own[uid[id.Parent().Parent().Key()]+"/"+strings.ToLower(id.Parent().Name()+"/"+id.Name())] = strings.ToLower(s)
		}
	}
	all, _, err := intent.List[intent.MachineIntent](ctx, p.env.Store.KV, intent.MachineIntentPrefix)
	if err != nil {
		return nil, err
	}
	out := map[string]int{}
	for _, m := range all {
		pool := m.ClusterUID + "/" + strings.ToLower(m.Pool)
		s := own[pool+"/"+strings.ToLower(m.Name)]
		if s == "" {
			s = byPool[pool]
		}
		if s == "" {
			s = byCluster[m.ClusterUID]
		}
		if s != "" {
			out[s]++
		}
	}
	return out, nil
}

// Subnet describes a subnet for other providers.
type Subnet struct {
	ID   rp.ID
	VNet rp.ID
	// Location is the network's region.
	Location string
	Prefixes []netip.Prefix
	// Usable is the number of IPv4 addresses that resources can have in it.
	Usable int
	// Delegations are the services that it is delegated to; a delegated subnet
	// takes no machines.
	Delegations []string
	// RouteTable and NATGateway are the IDs of the resources that it refers to,
	// or empty. A cluster's outbound types userDefinedRouting and
	// userAssignedNATGateway need them.
	RouteTable string
	NATGateway string
	// Unchanged is the condition, for a transaction, that it has not changed.
	Unchanged clientv3.Cmp
}

func subnetOf(r, vnet *rp.Record) (*Subnet, error) {
	id := r.ParsedID()
	rs, err := ranges(id.Name(), r.Doc)
	if err != nil {
		return nil, fmt.Errorf("reading the record of %s: %w", r.ID, err)
	}
	s := &Subnet{ID: id, VNet: id.Parent(), Location: vnet.Doc.Str("location"), Prefixes: rs, Unchanged: rp.Unchanged(r),
		RouteTable: r.Doc.Str("properties", "routeTable", "id"), NATGateway: r.Doc.Str("properties", "natGateway", "id")}
	for _, x := range rs {
		if x.Addr().Is4() {
			s.Usable += usable(x)
		}
	}
	for _, x := range r.Doc.List("properties", "delegations") {
		if m, ok := x.(map[string]any); ok {
			s.Delegations = append(s.Delegations, rp.Doc(m).Str("properties", "serviceName"))
		}
	}
	return s, nil
}

// FindSubnet returns the subnet with an ID that a client sent. It returns nil if
// the subnet does not exist or is being deleted, and a 400 (*rp.Error) if the ID
// is not a subnet's.
func FindSubnet(ctx context.Context, store *rp.Store, id string) (*Subnet, error) {
	parsed, err := rp.ParseID(id)
	if err != nil || !strings.EqualFold(parsed.Type(), SubnetType) || parsed.IsCollection() || parsed.ResourceGroup == "" {
		return nil, rp.BadRequest("InvalidParameter", "'%s' is not the ID of a subnet, which looks like /subscriptions/{id}/resourceGroups/{group}/providers/%s/{network}/subnets/{subnet}.", id, VNetType)
	}
	r, err := store.Get(ctx, parsed)
	if err != nil || r == nil || r.State == "Deleting" {
		return nil, err
	}
	vnet, err := store.Get(ctx, parsed.Parent())
	if err != nil || vnet == nil || vnet.State == "Deleting" {
		return nil, err
	}
	return subnetOf(r, vnet)
}
