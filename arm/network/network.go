// Package network is what the local Azure has of Microsoft.Network: virtual
// networks and their subnets, which clusters are put into, and a few types that
// templates bring along and that have no machinery behind them.
package network

import (
	"context"
	"fmt"
	"net/netip"
	"regexp"
	"strings"

	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/network/armnetwork/v6"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/nap-aks/nap/arm/rp"
)

const (
	vnetType   = "Microsoft.Network/virtualNetworks"
	subnetType = "Microsoft.Network/virtualNetworks/subnets"
)

var apiVersions = []string{"2025-07-01", "2025-05-01", "2025-01-01", "2024-07-01", "2024-05-01", "2024-01-01", "2023-09-01", "2022-07-01", "2021-02-01", "2020-11-01"}

var nameRule = regexp.MustCompile(`^[a-zA-Z0-9]([a-zA-Z0-9_.-]{0,78}[a-zA-Z0-9_])?$`)

const nameHelp = "A network resource's name has at most 80 letters, digits, underscores, dots and dashes, starts with a letter or digit and ends with one or an underscore."

// Provider is Microsoft.Network.
type Provider struct{ env *rp.Env }

// New registers the provider's types.
func New(env *rp.Env) *Provider {
	p := &Provider{env: env}
	env.Add(
		&rp.Type{Name: vnetType, Versions: apiVersions, Scope: rp.InGroup, Tracked: true, ETagPath: []string{"etag"}, NameRule: nameRule, NameHelp: nameHelp,
			Prepare: p.prepareVnet, Commit: p.commitVnet, Delete: p.deleteVnet, Render: p.renderVnet},
		&rp.Type{Name: subnetType, Versions: apiVersions, Scope: rp.InGroup, ETagPath: []string{"etag"}, NameRule: nameRule, NameHelp: nameHelp,
			Prepare: p.prepareSubnet, Commit: p.settle, Delete: p.deleteSubnet},
	)
	for _, t := range []string{"publicIPAddresses", "publicIPPrefixes", "networkSecurityGroups", "routeTables", "natGateways", "privateDnsZones"} {
		env.Add(&rp.Type{Name: "Microsoft.Network/" + t, Versions: apiVersions, Scope: rp.InGroup, Tracked: true, ETagPath: []string{"etag"}, NameRule: nameRule, NameHelp: nameHelp, Commit: p.settle})
	}
	env.Add(env.OperationTypes("Microsoft.Network")...)
	env.Engine.Register("NetworkPut", rp.Kind{Step: p.stepPut})
	env.Engine.Register("NetworkDelete", rp.Kind{Step: p.stepDelete})
	return p
}

// settle makes a change a long-running operation, as the real provider's are.
func (p *Provider) settle(_ context.Context, c *rp.Change) error {
	c.Rec.State = "Updating"
	c.Op = &rp.Operation{Kind: "NetworkPut", Verb: "Updating", Location: p.locationOf(c)}
	c.Lock = lockOf(c.ID)
	return nil
}

func (p *Provider) locationOf(c *rp.Change) string {
	if l := c.Doc.Str("location"); l != "" {
		return l
	}
	return p.env.DefaultLocation
}

func lockOf(id rp.ID) string {
	top := id
	top.Types, top.Names = id.Types[:1], id.Names[:1]
	return rp.LockPrefix + top.Key()
}

func (p *Provider) stepPut(ctx context.Context, op *rp.Operation) (rp.Step, error) {
	id := rp.MustParseID(op.Resource)
	r, err := p.env.Store.Get(ctx, id)
	if err != nil || r == nil {
		return rp.Step{Done: err == nil}, err
	}
	cmps, ops := []clientv3.Cmp{}, []clientv3.Op{}
	set := func(r *rp.Record) {
		r.State = rp.Succeeded
		cmps, ops = append(cmps, rp.Unchanged(r)), append(ops, rp.PutOp(r))
	}
	set(r)
	if len(id.Types) == 1 && strings.EqualFold(id.Type(), vnetType) {
		subnets, err := p.subnets(ctx, id)
		if err != nil {
			return rp.Step{}, err
		}
		for _, s := range subnets {
			if s.State == "Updating" && len(ops) < 100 {
				set(s)
			}
		}
	}
	return rp.Step{Done: true, Cmps: cmps, Ops: ops}, nil
}

func (p *Provider) stepDelete(ctx context.Context, op *rp.Operation) (rp.Step, error) {
	id := rp.MustParseID(op.Resource)
	ops := []clientv3.Op{rp.DeleteOp(id)}
	children, err := p.env.Children(ctx, id)
	if err != nil {
		return rp.Step{}, err
	}
	for _, c := range children {
		ops = append(ops, rp.DeleteOp(c.ParsedID()))
	}
	return rp.Step{Done: true, Ops: ops}, nil
}

func (p *Provider) subnets(ctx context.Context, vnet rp.ID) ([]*rp.Record, error) {
	c := vnet
	c.Types = append(append([]string(nil), vnet.Types[:1]...), "subnets")
	return p.env.Store.List(ctx, c)
}

func prefixes(list []string, what string) ([]netip.Prefix, error) {
	var out []netip.Prefix
	for _, s := range list {
		pr, err := netip.ParsePrefix(s)
		if err != nil {
			return nil, rp.BadRequest("InvalidAddressPrefixFormat", "Address prefix %s of %s is not formatted correctly. It should follow CIDR notation, for example 10.0.0.0/24.", s, what)
		}
		if pr.Masked() != pr {
			return nil, rp.BadRequest("InvalidCIDRNotation", "The address prefix %s of %s has an invalid CIDR notation. For the given prefix length, the address prefix should be %s.", s, what, pr.Masked())
		}
		out = append(out, pr)
	}
	return out, nil
}

func subnetPrefixes(d rp.Doc) []string {
	if s := d.Str("properties", "addressPrefix"); s != "" {
		return []string{s}
	}
	return d.Strings("properties", "addressPrefixes")
}

func (p *Provider) prepareVnet(ctx context.Context, c *rp.Change) error {
	var model armnetwork.VirtualNetwork
	if err := c.Doc.Into(&model); err != nil {
		return rp.BadRequest("InvalidRequestFormat", "Cannot parse the request: %v", err)
	}
	space, err := prefixes(c.Doc.Strings("properties", "addressSpace", "addressPrefixes"), "virtual network "+c.ID.Name())
	if err != nil {
		return err
	}
	if len(space) == 0 {
		return rp.BadRequest("MissingAddressSpace", "The virtual network '%s' has no address space: give properties.addressSpace.addressPrefixes.", c.ID.Name()).At("properties.addressSpace")
	}
	c.Doc.Default(rp.NewGUID(), "properties", "resourceGuid")
	if _, ok := c.Doc.Lookup("properties", "enableDdosProtection"); !ok {
		c.Doc.Set(false, "properties", "enableDdosProtection")
	}
	var have []*rp.Record
	if c.Old != nil {
		if have, err = p.subnets(ctx, c.ID); err != nil {
			return err
		}
	}
	list, given := c.Sent.Lookup("properties", "subnets")
	final := map[string]rp.Doc{}
	if !given {
		for _, s := range have {
			final[s.ParsedID().Name()] = s.Doc
		}
	} else {
		byName := map[string]*rp.Record{}
		for _, s := range have {
			byName[strings.ToLower(s.ParsedID().Name())] = s
		}
		items, _ := list.([]any)
		now := p.env.Now().UTC()
		for _, x := range items {
			m, ok := x.(map[string]any)
			if !ok || rp.Doc(m).Str("name") == "" || !nameRule.MatchString(rp.Doc(m).Str("name")) {
				return rp.BadRequest("InvalidRequestFormat", "A subnet in properties.subnets has no valid name.").At("properties.subnets")
			}
			d := rp.Doc(m).Clone()
			name := d.Str("name")
			for _, k := range []string{"id", "name", "type", "etag"} {
				d.Drop(k)
			}
			d.Drop("properties", "provisioningState")
			r := byName[strings.ToLower(name)]
			delete(byName, strings.ToLower(name))
			if r == nil {
				r = &rp.Record{ID: c.ID.Child("subnets", name).String(), UID: rp.NewGUID(), CreatedAt: now, ChangedAt: now, CreatedBy: c.Caller.ObjectID, Internal: rp.Doc{}, Doc: rp.Doc{}}
			}
			r.Doc, r.ETag, r.State = rp.MergePut(r.Doc, d), rp.NewGUID(), "Updating"
			completeSubnet(r.Doc)
			final[name] = r.Doc
			c.Prepared = append(c.Prepared, r)
		}
		for _, gone := range byName {
			if err := p.inUse(ctx, gone.ParsedID()); err != nil {
				return err
			}
			c.Prepared = append(c.Prepared, gone.ParsedID())
		}
	}
	c.Doc.Drop("properties", "subnets")
	return checkSubnets(space, final)
}

func completeSubnet(d rp.Doc) {
	if _, ok := d.Lookup("properties", "delegations"); !ok {
		d.Set([]any{}, "properties", "delegations")
	}
	d.Default("Disabled", "properties", "privateEndpointNetworkPolicies")
	d.Default("Enabled", "properties", "privateLinkServiceNetworkPolicies")
}

// checkSubnets checks that the subnets lie in the space and do not overlap.
func checkSubnets(space []netip.Prefix, subnets map[string]rp.Doc) error {
	type placed struct {
		name string
		pr   netip.Prefix
	}
	var all []placed
	for name, d := range subnets {
		prs, err := prefixes(subnetPrefixes(d), "subnet "+name)
		if err != nil {
			return err
		}
		if len(prs) == 0 {
			return rp.BadRequest("NoAddressPrefixOrPoolProvided", "The subnet '%s' has no addressPrefix.", name).At("properties.addressPrefix")
		}
		for _, pr := range prs {
			in := false
			for _, s := range space {
				in = in || s.Contains(pr.Addr()) && s.Bits() <= pr.Bits()
			}
			if !in {
				return rp.BadRequest("NetcfgInvalidSubnet", "Subnet '%s' is not valid because its IP address range %s is outside the IP address range of its virtual network.", name, pr)
			}
			for _, o := range all {
				if o.pr.Overlaps(pr) {
					return rp.BadRequest("NetcfgSubnetRangesOverlap", "Subnet '%s' is not valid because its IP address range %s overlaps with that of an existing subnet (%s, %s).", name, pr, o.name, o.pr)
				}
			}
			all = append(all, placed{name, pr})
		}
	}
	return nil
}

func (p *Provider) commitVnet(ctx context.Context, c *rp.Change) error {
	for _, x := range c.Prepared {
		switch v := x.(type) {
		case *rp.Record:
			c.Cmps, c.Ops = append(c.Cmps, rp.Unchanged(v)), append(c.Ops, rp.PutOp(v))
		case rp.ID:
			c.Ops = append(c.Ops, rp.DeleteOp(v))
		}
	}
	return p.settle(ctx, c)
}

func (p *Provider) renderVnet(ctx context.Context, r *rp.Record, d rp.Doc, _ string) error {
	subnets, err := p.subnets(ctx, r.ParsedID())
	if err != nil {
		return err
	}
	t := p.env.FindType(subnetType)
	list := []any{}
	for _, s := range subnets {
		sd, err := p.env.Render(ctx, t, s, "")
		if err != nil {
			return err
		}
		list = append(list, map[string]any(sd))
	}
	d.Set(list, "properties", "subnets")
	if _, ok := d.Lookup("properties", "virtualNetworkPeerings"); !ok {
		d.Set([]any{}, "properties", "virtualNetworkPeerings")
	}
	return nil
}

func (p *Provider) prepareSubnet(ctx context.Context, c *rp.Change) error {
	var model armnetwork.Subnet
	if err := c.Doc.Into(&model); err != nil {
		return rp.BadRequest("InvalidRequestFormat", "Cannot parse the request: %v", err)
	}
	completeSubnet(c.Doc)
	vnet, err := p.env.Store.Get(ctx, c.ID.Parent())
	if err != nil {
		return err
	}
	if vnet == nil {
		if c.Preflight {
			_, err := prefixes(subnetPrefixes(c.Doc), "subnet "+c.ID.Name())
			return err
		}
		return rp.NotFound(c.ID.Parent())
	}
	space, err := prefixes(vnet.Doc.Strings("properties", "addressSpace", "addressPrefixes"), "virtual network "+vnet.ParsedID().Name())
	if err != nil {
		return err
	}
	have, err := p.subnets(ctx, c.ID.Parent())
	if err != nil {
		return err
	}
	final := map[string]rp.Doc{c.ID.Name(): c.Doc}
	for _, s := range have {
		if n := s.ParsedID().Name(); !strings.EqualFold(n, c.ID.Name()) {
			final[n] = s.Doc
		}
	}
	if c.Old != nil && fmt.Sprint(subnetPrefixes(c.Old.Doc)) != fmt.Sprint(subnetPrefixes(c.Doc)) {
		if err := p.inUse(ctx, c.ID); err != nil {
			return err
		}
	}
	// The ranges must still fit when this is written.
	c.Cmps = append(c.Cmps, rp.Unchanged(vnet))
	return checkSubnets(space, final)
}

// inUse refuses what would take a subnet away from under a cluster.
func (p *Provider) inUse(ctx context.Context, subnet rp.ID) error {
	pools, err := p.env.Store.ListType(ctx, "Microsoft.ContainerService/managedClusters/agentPools")
	if err != nil {
		return err
	}
	for _, r := range pools {
		if s := r.Doc.Str("properties", "vnetSubnetID"); s != "" && strings.EqualFold(strings.TrimSuffix(s, "/"), subnet.String()) {
			return rp.BadRequest("InUseSubnetCannotBeDeleted", "Subnet %s is in use by %s and cannot be deleted or given another range. Delete the pool or cluster first.", subnet.Name(), r.ID)
		}
	}
	return nil
}

func (p *Provider) deleteSubnet(ctx context.Context, c *rp.Change) error {
	if err := p.inUse(ctx, c.ID); err != nil {
		return err
	}
	c.Op = &rp.Operation{Kind: "NetworkDelete", Verb: "Deleting", Location: p.env.DefaultLocation}
	c.Lock = lockOf(c.ID)
	return nil
}

func (p *Provider) deleteVnet(ctx context.Context, c *rp.Change) error {
	subnets, err := p.subnets(ctx, c.ID)
	if err != nil {
		return err
	}
	for _, s := range subnets {
		if err := p.inUse(ctx, s.ParsedID()); err != nil {
			return err
		}
	}
	c.Op = &rp.Operation{Kind: "NetworkDelete", Verb: "Deleting"}
	c.Lock = lockOf(c.ID)
	return nil
}
