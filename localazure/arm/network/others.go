package network

import (
	"context"
	"fmt"
	"net/netip"
	"strings"

	"github.com/nap-aks/nap/localazure/arm/rp"
)

// publicRange and prefixRange are where public IP addresses and prefixes are
// taken from: the halves of what RFC 2544 sets aside for tests, so that none
// of them is anyone's.
var (
	publicRange = netip.MustParsePrefix("198.18.0.0/16")
	prefixRange = netip.MustParsePrefix("198.19.0.0/16")
)

func (p *Provider) addOthers() {
	tracked := func(name string, prepare func(context.Context, *rp.Change) error) *rp.Type {
		return &rp.Type{Name: name, Versions: versions, Tracked: true, PatchTagsOnly: true, NameRule: nameRule, NameHelp: nameHelp, ETagPath: []string{"etag"},
			Prepare: func(ctx context.Context, c *rp.Change) error {
				replace(c)
				if c.Doc.Map("properties") == nil {
					c.Doc.Set(map[string]any{}, "properties")
				}
				c.Doc.Drop("properties", "resourceGuid")
				return prepare(ctx, c)
			},
			Commit: commitOther}
	}
	ip := tracked(PublicIPType, p.preparePublicIP)
	ip.RenderList = p.renderWith("ipConfiguration", "", LoadBalancerType, NATGatewayType)
	ip.Delete = p.deleteUnused("PublicIPAddressCannotBeDeleted", LoadBalancerType, NATGatewayType, "Microsoft.ContainerService/managedClusters")
	prefix := tracked(PublicIPPrefixType, p.preparePrefix)
	prefix.RenderList = p.renderWith("", "")
	prefix.Delete = p.deleteUnused("PublicIpPrefixInUse", NATGatewayType, PublicIPType, "Microsoft.ContainerService/managedClusters")
	nat := tracked(NATGatewayType, p.prepareNATGateway)
	nat.RenderList = p.renderWith("", "subnets", SubnetType)
	nat.Delete = p.deleteUnused("NatGatewayInUseBySubnet", SubnetType)
	nsg := tracked(SecurityGroupType, prepareSecurityGroup)
	nsg.RenderList = p.renderSecurityGroups
	nsg.Delete = p.deleteUnused("InUseNetworkSecurityGroupCannotBeDeleted", SubnetType)
	routes := tracked(RouteTableType, prepareRouteTable)
	routes.RenderList = p.renderRouteTables
	routes.Delete = p.deleteUnused("InUseRouteTableCannotBeDeleted", SubnetType)
	lb := tracked(LoadBalancerType, p.prepareLoadBalancer)
	lb.RenderList = p.renderWith("", "")
	lb.Delete = p.deleteUnused("LoadBalancerInUse")
	child := func(name string, prepare func(*rp.Change) error) *rp.Type {
		return &rp.Type{Name: name, Versions: versions, NameRule: nameRule, NameHelp: nameHelp, ETagPath: []string{"etag"},
			Prepare: func(_ context.Context, c *rp.Change) error { replace(c); return prepare(c) },
			Commit:  func(_ context.Context, c *rp.Change) error { settle(c); return nil },
			Delete:  func(_ context.Context, c *rp.Change) error { removal(c); return nil },
			Render:  func(_ context.Context, r *rp.Record, d rp.Doc, _ string) error { etag(d, r); return nil }}
	}
	p.env.Add(ip, prefix, nat, nsg, routes, lb,
		child(SecurityRuleType, func(c *rp.Change) error { return checkRule(c.ID.Name(), c.Doc) }),
		child(RouteType, func(c *rp.Change) error { return checkRoute(c.ID.Name(), c.Doc) }))
}

func commitOther(_ context.Context, c *rp.Change) error {
	if c.Creating() {
		c.Rec.Internal.Set(rp.NewGUID(), "resourceGuid")
	}
	settle(c)
	return nil
}

// deleteUnused deletes unless a resource of the types refers to it.
func (p *Provider) deleteUnused(code string, types ...string) func(context.Context, *rp.Change) error {
	return func(ctx context.Context, c *rp.Change) error {
		if c.Old.State == "Deleting" {
			return busy(c.ID, "Deleting")
		}
		users, err := p.referrers(ctx, c.ID, types...)
		if err != nil {
			return err
		}
		if len(users) > 0 {
			return inUse(code, c.ID, users)
		}
		removal(c)
		return nil
	}
}

// renderWith renders what all have, and the references that others hold: the
// first one as an object in property one, all of them as an array in many.
func (p *Provider) renderWith(one, many string, types ...string) func(context.Context, []*rp.Record, []rp.Doc, string) error {
	return func(ctx context.Context, rs []*rp.Record, ds []rp.Doc, _ string) error {
		for i, r := range rs {
			etag(ds[i], r)
			ds[i].Set(r.Internal.Str("resourceGuid"), "properties", "resourceGuid")
			if len(types) == 0 {
				continue
			}
			users, err := p.referrers(ctx, r.ParsedID(), types...)
			if err != nil {
				return err
			}
			if len(users) == 0 {
				continue
			}
			if one != "" {
				ds[i].Set(map[string]any{"id": users[0]}, "properties", one)
			}
			if many != "" {
				list := []any{}
				for _, u := range users {
					list = append(list, map[string]any{"id": u})
				}
				ds[i].Set(list, "properties", many)
			}
		}
		return nil
	}
}

func oneOf(d rp.Doc, fallback string, allowed []string, path ...string) error {
	d.Default(fallback, path...)
	got := d.Str(path...)
	for _, a := range allowed {
		if strings.EqualFold(a, got) {
			d.Set(a, path...)
			return nil
		}
	}
	return rp.BadRequest("InvalidRequestFormat", "%s is '%s', which is none of %s.", strings.Join(path, "."), got, strings.Join(allowed, ", ")).At(strings.Join(path, "."))
}

func (p *Provider) preparePublicIP(ctx context.Context, c *rp.Change) error {
	d := c.Doc
	for _, ro := range []string{"ipConfiguration", "ipAddress", "natGateway"} {
		d.Drop("properties", ro)
	}
	if err := oneOf(d, "Standard", []string{"Standard", "StandardV2", "Basic"}, "sku", "name"); err != nil {
		return err
	}
	if err := oneOf(d, "Regional", []string{"Regional", "Global"}, "sku", "tier"); err != nil {
		return err
	}
	if err := oneOf(d, "IPv4", []string{"IPv4", "IPv6"}, "properties", "publicIPAddressVersion"); err != nil {
		return err
	}
	standard := d.Str("sku", "name") != "Basic"
	method := "Dynamic"
	if standard {
		method = "Static"
	}
	if err := oneOf(d, method, []string{"Static", "Dynamic"}, "properties", "publicIPAllocationMethod"); err != nil {
		return err
	}
	if standard && d.Str("properties", "publicIPAllocationMethod") == "Dynamic" {
		return rp.BadRequest("PublicIPAddressStandardSkuCannotHaveDynamicAllocation", "Standard sku publicIp %s must have AllocationMethod set to Static.", c.ID).At("properties.publicIPAllocationMethod")
	}
	d.Default(4, "properties", "idleTimeoutInMinutes")
	if n, ok := d.Int("properties", "idleTimeoutInMinutes"); !ok || n < 4 || n > 30 {
		return rp.BadRequest("InvalidIdleTimeoutInMinutes", "idleTimeoutInMinutes of %s is not between 4 and 30.", c.ID).At("properties.idleTimeoutInMinutes")
	}
	if label := d.Str("properties", "dnsSettings", "domainNameLabel"); label != "" {
		d.Set(strings.ToLower(label)+"."+d.Str("location")+".cloudapp.azure.com", "properties", "dnsSettings", "fqdn")
	}
	switch was := ""; {
	case c.Old != nil && c.Old.Doc.Str("properties", "ipAddress") != "":
		was = c.Old.Doc.Str("properties", "ipAddress")
		d.Set(was, "properties", "ipAddress")
	case !c.Preflight && d.Str("properties", "publicIPAllocationMethod") == "Static" && d.Str("properties", "publicIPAddressVersion") == "IPv4":
		a, err := p.freeAddress(ctx)
		if err != nil {
			return err
		}
		d.Set(a.String(), "properties", "ipAddress")
	}
	return nil
}

// freeAddress gives the lowest public address that no resource has.
func (p *Provider) freeAddress(ctx context.Context) (netip.Addr, error) {
	rs, err := p.env.Store.ListType(ctx, PublicIPType)
	if err != nil {
		return netip.Addr{}, err
	}
	taken := map[string]bool{}
	for _, r := range rs {
		taken[r.Doc.Str("properties", "ipAddress")] = true
	}
	for a := publicRange.Addr().Next(); publicRange.Contains(a); a = a.Next() {
		if !taken[a.String()] {
			return a, nil
		}
	}
	return netip.Addr{}, rp.Conflict("PublicIPCountLimitReached", "All addresses of %s are taken; delete public IP addresses that are not needed.", publicRange)
}

func (p *Provider) preparePrefix(ctx context.Context, c *rp.Change) error {
	if err := oneOf(c.Doc, "Standard", []string{"Standard", "StandardV2"}, "sku", "name"); err != nil {
		return err
	}
	if err := oneOf(c.Doc, "IPv4", []string{"IPv4"}, "properties", "publicIPAddressVersion"); err != nil {
		return err
	}
	bits, ok := c.Doc.Int("properties", "prefixLength")
	if !ok || bits < 28 || bits > 31 {
		return rp.BadRequest("InvalidPrefixLength", "prefixLength of %s is not a number from 28 to 31.", c.ID).At("properties.prefixLength")
	}
	c.Doc.Drop("properties", "ipPrefix")
	if c.Old != nil {
		if was, _ := c.Old.Doc.Int("properties", "prefixLength"); was != bits {
			return rp.BadRequest("PublicIpPrefixLengthCannotBeChanged", "prefixLength of %s cannot be changed from %d to %d; make another prefix.", c.ID, was, bits).At("properties.prefixLength")
		}
		c.Doc.Set(c.Old.Doc.Str("properties", "ipPrefix"), "properties", "ipPrefix")
		return nil
	}
	if c.Preflight {
		return nil
	}
	rs, err := p.env.Store.ListType(ctx, PublicIPPrefixType)
	if err != nil {
		return err
	}
	var taken []netip.Prefix
	for _, r := range rs {
		if x, err := netip.ParsePrefix(r.Doc.Str("properties", "ipPrefix")); err == nil {
			taken = append(taken, x)
		}
	}
	// Each prefix has a block of 16 addresses to itself.
	for a := prefixRange.Addr(); prefixRange.Contains(a); {
		x := netip.PrefixFrom(a, bits)
		if _, ok := firstOverlap(x, taken); !ok {
			c.Doc.Set(x.String(), "properties", "ipPrefix")
			return nil
		}
		for range 16 {
			a = a.Next()
		}
	}
	return rp.Conflict("PublicIpPrefixCountLimitReached", "All prefixes of %s are taken; delete some that are not needed.", prefixRange)
}

func (p *Provider) prepareNATGateway(ctx context.Context, c *rp.Change) error {
	c.Doc.Drop("properties", "subnets")
	if err := oneOf(c.Doc, "Standard", []string{"Standard", "StandardV2"}, "sku", "name"); err != nil {
		return err
	}
	c.Doc.Default(4, "properties", "idleTimeoutInMinutes")
	for _, x := range c.Doc.List("properties", "publicIpAddresses") {
		m, _ := x.(map[string]any)
		wrapped := rp.Doc{"publicIpAddresses": m}
		if err := p.checkReference(ctx, c, wrapped, PublicIPType, "publicIpAddresses"); err != nil {
			return err
		}
	}
	return nil
}

// defaultRules are the rules that every security group ends with.
var defaultRules = []struct {
	name, access, direction, protocol, source, destination, about string
	priority                                                      int
}{
	{"AllowVnetInBound", "Allow", "Inbound", "*", "VirtualNetwork", "VirtualNetwork", "Allow inbound traffic from all VMs in VNET", 65000},
	{"AllowAzureLoadBalancerInBound", "Allow", "Inbound", "*", "AzureLoadBalancer", "*", "Allow inbound traffic from azure load balancer", 65001},
	{"DenyAllInBound", "Deny", "Inbound", "*", "*", "*", "Deny all inbound traffic", 65500},
	{"AllowVnetOutBound", "Allow", "Outbound", "*", "VirtualNetwork", "VirtualNetwork", "Allow outbound traffic from all VMs to all VMs in VNET", 65000},
	{"AllowInternetOutBound", "Allow", "Outbound", "*", "*", "Internet", "Allow outbound traffic from all VMs to Internet", 65001},
	{"DenyAllOutBound", "Deny", "Outbound", "*", "*", "*", "Deny all outbound traffic", 65500},
}

func prepareSecurityGroup(ctx context.Context, c *rp.Change) error {
	for _, ro := range []string{"defaultSecurityRules", "subnets", "networkInterfaces"} {
		c.Doc.Drop("properties", ro)
	}
	return inlineChildren(ctx, c, "securityRules", checkRule)
}

func prepareRouteTable(ctx context.Context, c *rp.Change) error {
	c.Doc.Drop("properties", "subnets")
	c.Doc.Default(false, "properties", "disableBgpRoutePropagation")
	return inlineChildren(ctx, c, "routes", checkRoute)
}

// inlineChildren makes child resources of an array in the parent's body, which
// then is all there are; without the array those there are stay.
func inlineChildren(ctx context.Context, c *rp.Change, prop string, check func(string, rp.Doc) error) error {
	v, has := c.Doc.Lookup("properties", prop)
	list := c.Doc.List("properties", prop)
	c.Doc.Drop("properties", prop)
	if !has {
		return nil
	}
	if _, ok := v.([]any); !ok {
		return rp.BadRequest("InvalidRequestFormat", "%s of %s is not an array.", prop, c.ID).At("properties." + prop)
	}
	if len(list) > maxInlineSubnets {
		return rp.BadRequest("InvalidRequestFormat", "%s of %s has %d elements; at most %d can be written at once. Write the others one by one.", prop, c.ID, len(list), maxInlineSubnets).At("properties." + prop)
	}
	now := c.Env.Now().UTC()
	keep := map[string]bool{}
	for i, x := range list {
		m, ok := x.(map[string]any)
		d := rp.MergePut(nil, m)
		name := d.Str("name")
		if !ok || !nameRule.MatchString(name) {
			return rp.BadRequest("InvalidResourceName", "Element %d of %s of %s has the name '%s'. %s", i, prop, c.ID, name, nameHelp).At("properties." + prop)
		}
		if keep[strings.ToLower(name)] {
			return rp.BadRequest("DuplicateResourceName", "%s of %s has two elements with the name %s.", prop, c.ID, name).At("properties." + prop)
		}
		keep[strings.ToLower(name)] = true
		for _, ro := range []string{"id", "name", "type", "etag"} {
			d.Drop(ro)
		}
		d.Drop("properties", "provisioningState")
		if err := check(name, d); err != nil {
			return err
		}
		c.Ops = append(c.Ops, rp.PutOp(&rp.Record{ID: c.ID.Child(prop, name).String(), Doc: d, State: rp.Succeeded, UID: rp.NewGUID(), ETag: rp.NewGUID(), Internal: rp.Doc{},
			CreatedAt: now, ChangedAt: now, CreatedBy: c.Caller.ObjectID, ChangedBy: c.Caller.ObjectID}))
	}
	if c.Old == nil {
		return nil
	}
	old, err := childrenOf(ctx, c.Env.Store, c.ID, prop)
	if err != nil {
		return err
	}
	for _, r := range old {
		if !keep[strings.ToLower(r.ParsedID().Name())] {
			c.Ops = append(c.Ops, rp.DeleteOp(r.ParsedID()))
		}
	}
	return nil
}

func childrenOf(ctx context.Context, s *rp.Store, parent rp.ID, typ string) ([]*rp.Record, error) {
	parent.Types = append(append([]string(nil), parent.Types...), typ)
	return s.List(ctx, parent)
}

func checkRule(name string, d rp.Doc) error {
	if n, ok := d.Int("properties", "priority"); !ok || n < 100 || n > 4096 {
		return rp.BadRequest("SecurityRuleInvalidPriority", "Security rule %s has invalid priority. It has to be a number between 100 and 4096.", name).At("properties.priority")
	}
	for prop, allowed := range map[string][]string{"access": {"Allow", "Deny"}, "direction": {"Inbound", "Outbound"}, "protocol": {"*", "Tcp", "Udp", "Icmp", "Esp", "Ah"}} {
		if d.Str("properties", prop) == "" {
			return rp.BadRequest("SecurityRuleParameterMissing", "Security rule %s has no %s.", name, prop).At("properties." + prop)
		}
		if err := oneOf(d, "", allowed, "properties", prop); err != nil {
			return err
		}
	}
	return nil
}

var hopTypes = []string{"VirtualNetworkGateway", "VnetLocal", "Internet", "VirtualAppliance", "None"}

func checkRoute(name string, d rp.Doc) error {
	if err := oneOf(d, "", hopTypes, "properties", "nextHopType"); err != nil {
		return err
	}
	to := d.Str("properties", "addressPrefix")
	if _, err := netip.ParsePrefix(to); err != nil && (to == "" || strings.ContainsAny(to, "./:")) {
		return rp.BadRequest("InvalidAddressPrefixFormat", "The route %s goes to '%s', which is neither a range such as 0.0.0.0/0 nor a service tag.", name, to).At("properties.addressPrefix")
	}
	hop := d.Str("properties", "nextHopIpAddress")
	if appliance := d.Str("properties", "nextHopType") == "VirtualAppliance"; appliance != (hop != "") {
		return rp.BadRequest("RouteNextHopIpAddressInvalid", "The route %s has nextHopType %s and nextHopIpAddress '%s'; the address is for VirtualAppliance, which needs it.", name, d.Str("properties", "nextHopType"), hop).At("properties.nextHopIpAddress")
	}
	if hop != "" {
		if _, err := netip.ParseAddr(hop); err != nil {
			return rp.BadRequest("RouteNextHopIpAddressInvalid", "nextHopIpAddress '%s' of the route %s is not an IP address.", hop, name).At("properties.nextHopIpAddress")
		}
	}
	return nil
}

// setChildren renders a parent's children into an array of its.
func (p *Provider) setChildren(ctx context.Context, r *rp.Record, d rp.Doc, prop, typ string) error {
	rs, err := childrenOf(ctx, p.env.Store, r.ParsedID(), prop)
	if err != nil {
		return err
	}
	list := []any{}
	for _, x := range rs {
		k := x.Doc.Clone()
		k["id"], k["name"], k["type"] = x.ID, x.ParsedID().Name(), typ
		k.Set(x.State, "properties", "provisioningState")
		etag(k, x)
		list = append(list, map[string]any(k))
	}
	d.Set(list, "properties", prop)
	return nil
}

func (p *Provider) renderSecurityGroups(ctx context.Context, rs []*rp.Record, ds []rp.Doc, v string) error {
	if err := p.renderWith("", "subnets", SubnetType)(ctx, rs, ds, v); err != nil {
		return err
	}
	for i, r := range rs {
		if err := p.setChildren(ctx, r, ds[i], "securityRules", SecurityRuleType); err != nil {
			return err
		}
		list := []any{}
		for _, x := range defaultRules {
			list = append(list, map[string]any{"id": r.ID + "/defaultSecurityRules/" + x.name, "name": x.name, "type": SecurityGroupType + "/defaultSecurityRules", "etag": ds[i]["etag"],
				"properties": map[string]any{"provisioningState": rp.Succeeded, "description": x.about, "protocol": x.protocol, "sourcePortRange": "*", "destinationPortRange": "*",
					"sourceAddressPrefix": x.source, "destinationAddressPrefix": x.destination, "access": x.access, "priority": x.priority, "direction": x.direction}})
		}
		ds[i].Set(list, "properties", "defaultSecurityRules")
	}
	return nil
}

func (p *Provider) renderRouteTables(ctx context.Context, rs []*rp.Record, ds []rp.Doc, v string) error {
	if err := p.renderWith("", "subnets", SubnetType)(ctx, rs, ds, v); err != nil {
		return err
	}
	for i, r := range rs {
		if err := p.setChildren(ctx, r, ds[i], "routes", RouteType); err != nil {
			return err
		}
	}
	return nil
}

func (p *Provider) prepareLoadBalancer(ctx context.Context, c *rp.Change) error {
	if err := oneOf(c.Doc, "Standard", []string{"Standard", "Basic", "Gateway"}, "sku", "name"); err != nil {
		return err
	}
	if err := oneOf(c.Doc, "Regional", []string{"Regional", "Global"}, "sku", "tier"); err != nil {
		return err
	}
	for _, prop := range []string{"frontendIPConfigurations", "backendAddressPools", "loadBalancingRules", "probes", "inboundNatRules", "outboundRules", "inboundNatPools"} {
		c.Doc.Default([]any{}, "properties", prop)
		for i, x := range c.Doc.List("properties", prop) {
			m, _ := x.(map[string]any)
			d := rp.Doc(m)
			name := d.Str("name")
			if name == "" {
				return rp.BadRequest("InvalidRequestFormat", "Element %d of %s of %s has no name.", i, prop, c.ID).At("properties." + prop)
			}
			d["id"] = fmt.Sprintf("%s/%s/%s", c.ID, prop, name)
			d["type"] = LoadBalancerType + "/" + prop
			d.Set(rp.Succeeded, "properties", "provisioningState")
			if prop != "frontendIPConfigurations" {
				continue
			}
			if err := p.checkReference(ctx, c, d, PublicIPType, "properties", "publicIPAddress"); err != nil {
				return err
			}
			if err := p.checkReference(ctx, c, d, SubnetType, "properties", "subnet"); err != nil {
				return err
			}
		}
	}
	return nil
}
