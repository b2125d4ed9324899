// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package network

import (
	"context"
	"net/http"
	"net/netip"
	"regexp"
	"strings"

	"github.com/nap-aks/nap/localazure/arm/rp"
)

// zoneVersions are the API versions of private DNS.
var zoneVersions = []string{"2024-06-01", "2020-06-01", "2020-01-01", "2018-09-01"}

const zoneHelp = "A private zone's name has 2 to 34 labels with dots between, each of 1 to 63 letters, digits, dashes and underscores."

// Limits of a private zone.
const (
	maxRecordSets        = 25_000
	maxZoneLinks         = 1000
	maxRegistrationLinks = 100
)

var (
	zoneRule   = regexp.MustCompile(`^([A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?\.)+[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?$`)
	recordRule = regexp.MustCompile(`^(@|\*|(\*\.)?[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?(\.[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?)*)$`)
	hostRule   = regexp.MustCompile(`^[A-Za-z0-9_*]([A-Za-z0-9_.-]{0,251}[A-Za-z0-9_])?\.?$`)
)

// recordKind is a type of record set: the property with its records, and the
// check of a record, which returns the reason if it is invalid.
type recordKind struct {
	name, property string
	single         bool // one record, an object
	check          func(rp.Doc) string
}

var recordKinds = []recordKind{
	{"A", "aRecords", false, func(r rp.Doc) string { return wantAddress(r.Str("ipv4Address"), "ipv4Address", netip.Addr.Is4) }},
	{"AAAA", "aaaaRecords", false, func(r rp.Doc) string { return wantAddress(r.Str("ipv6Address"), "ipv6Address", netip.Addr.Is6) }},
	{"CNAME", "cnameRecord", true, func(r rp.Doc) string { return wantHost(r.Str("cname"), "cname") }},
	{"MX", "mxRecords", false, func(r rp.Doc) string {
		return firstText(wantHost(r.Str("exchange"), "exchange"), wantNumber(r, "preference"))
	}},
	{"PTR", "ptrRecords", false, func(r rp.Doc) string { return wantHost(r.Str("ptrdname"), "ptrdname") }},
	{"SRV", "srvRecords", false, func(r rp.Doc) string {
		return firstText(wantHost(r.Str("target"), "target"), wantNumber(r, "port"), wantNumber(r, "priority"), wantNumber(r, "weight"))
	}},
	{"TXT", "txtRecords", false, func(r rp.Doc) string {
		n := 0
		for _, s := range r.Strings("value") {
			n += len(s)
		}
		if n == 0 || n > 1024 {
			return "value holds texts of 1 to 1024 characters together"
		}
		return ""
	}},
	{"SOA", "soaRecord", true, func(rp.Doc) string { return "" }},
}

func firstText(s ...string) string {
	for _, x := range s {
		if x != "" {
			return x
		}
	}
	return ""
}

func wantAddress(s, name string, is func(netip.Addr) bool) string {
	if a, err := netip.ParseAddr(s); err != nil || !is(a) {
		return name + " is '" + s + "', which is not such an address"
	}
	return ""
}

func wantHost(s, name string) string {
	if !hostRule.MatchString(s) {
		return name + " is '" + s + "', which is not the name of a host"
	}
	return ""
}

func wantNumber(r rp.Doc, name string) string {
	if n, ok := r.Int(name); !ok || n < 0 || n > 65535 {
		return name + " is a number from 0 to 65535"
	}
	return ""
}

func (p *Provider) addZones() {
	etagged := func(_ context.Context, r *rp.Record, d rp.Doc, _ string) error { d["etag"] = r.ETag; return nil }
	p.env.Add(
		&rp.Type{Name: PrivateZoneType, Versions: zoneVersions, Tracked: true, Global: true, PatchTagsOnly: true, NameRule: zoneRule, ETagPath: []string{"etag"},
			NameHelp: zoneHelp,
			Prepare:  prepareZone, Commit: p.commitZone, Delete: p.deleteZone, RenderList: p.renderZones},
		&rp.Type{Name: ZoneLinkType, Versions: zoneVersions, Tracked: true, Global: true, NameRule: nameRule, NameHelp: nameHelp, ETagPath: []string{"etag"},
			Prepare: p.prepareZoneLink, Commit: func(_ context.Context, c *rp.Change) error { settle(c); return nil },
			Delete: func(_ context.Context, c *rp.Change) error { removal(c); return nil },
			Render: func(ctx context.Context, r *rp.Record, d rp.Doc, v string) error {
				d.Set("Completed", "properties", "virtualNetworkLinkState")
				return etagged(ctx, r, d, v)
			}},
		&rp.Type{Name: PrivateZoneType + "/all", Versions: zoneVersions, Hidden: true, Virtual: true, List: p.listRecords},
	)
	for _, k := range recordKinds {
		t := &rp.Type{Name: PrivateZoneType + "/" + k.name, Versions: zoneVersions, NoState: true, NameRule: recordRule, ETagPath: []string{"etag"},
			NameHelp: "A record set's name is relative to its zone: labels with dots between, the first of which may be *, or @ for the zone itself.",
			Prepare:  func(ctx context.Context, c *rp.Change) error { return p.prepareRecords(ctx, c, k) },
			Render:   renderRecords}
		t.Delete = func(_ context.Context, c *rp.Change) error {
			if k.name == "SOA" {
				return rp.BadRequest("BadRequest", "The SOA record set of a zone cannot be deleted; it is deleted with the zone.")
			}
			return nil
		}
		p.env.Add(t)
	}
}

func prepareZone(_ context.Context, c *rp.Change) error {
	if labels := strings.Count(c.ID.Name(), ".") + 1; labels > 34 {
		return rp.BadRequest("BadRequest", "The private zone '%s' has %d labels. %s", c.ID.Name(), labels, zoneHelp).At("name")
	}
	c.Doc["properties"] = map[string]any{}
	return nil
}

// commitZone creates the SOA record set of a new zone.
func (p *Provider) commitZone(_ context.Context, c *rp.Change) error {
	if c.Creating() {
		now := p.env.Now().UTC()
		zone := strings.ToLower(c.ID.Name())
		c.Ops = append(c.Ops, rp.PutOp(&rp.Record{ID: c.ID.Child("SOA", "@").String(), State: rp.Succeeded, UID: rp.NewGUID(), ETag: rp.NewGUID(), Internal: rp.Doc{},
			CreatedAt: now, ChangedAt: now, CreatedBy: c.Caller.ObjectID, ChangedBy: c.Caller.ObjectID,
			Doc: rp.Doc{"properties": map[string]any{"ttl": 3600, "soaRecord": map[string]any{"email": "azureprivatedns-host.microsoft.com", "expireTime": 2419200, "host": "azureprivatedns.net",
				"minimumTtl": 10, "refreshTime": 3600, "retryTime": 300, "serialNumber": 1}, "fqdn": zone + "."}}}))
	}
	settle(c)
	return nil
}

func (p *Provider) linksOf(ctx context.Context, zone rp.ID) ([]*rp.Record, error) {
	id := zone
	id.Types = append(append([]string(nil), zone.Types...), "virtualNetworkLinks")
	return p.env.Store.List(ctx, id)
}

func (p *Provider) recordsOf(ctx context.Context, zone rp.ID, kind string) ([]*rp.Record, error) {
	id := zone
	id.Types = append(append([]string(nil), zone.Types...), kind)
	return p.env.Store.List(ctx, id)
}

func (p *Provider) deleteZone(ctx context.Context, c *rp.Change) error {
	if c.Old.State == "Deleting" {
		return busy(c.ID, "Deleting")
	}
	links, err := p.linksOf(ctx, c.ID)
	if err != nil {
		return err
	}
	if len(links) > 0 {
		var ids []string
		for _, l := range links {
			ids = append(ids, l.ID)
		}
		return rp.Conflict("CannotDeleteResource", "Cannot delete resource while nested resources exist: %s has the virtual network links %s. Delete them first.", c.ID, listed(ids))
	}
	removal(c)
	return nil
}

func (p *Provider) renderZones(ctx context.Context, rs []*rp.Record, ds []rp.Doc, _ string) error {
	for i, r := range rs {
		ds[i]["etag"] = r.ETag
		links, err := p.linksOf(ctx, r.ParsedID())
		if err != nil {
			return err
		}
		registering := 0
		for _, l := range links {
			if l.Doc.Bool("properties", "registrationEnabled") {
				registering++
			}
		}
		sets := 0
		for _, k := range recordKinds {
			of, err := p.recordsOf(ctx, r.ParsedID(), k.name)
			if err != nil {
				return err
			}
			sets += len(of)
		}
		for k, v := range map[string]int{"maxNumberOfRecordSets": maxRecordSets, "numberOfRecordSets": sets, "maxNumberOfVirtualNetworkLinks": maxZoneLinks, "numberOfVirtualNetworkLinks": len(links),
			"maxNumberOfVirtualNetworkLinksWithRegistration": maxRegistrationLinks, "numberOfVirtualNetworkLinksWithRegistration": registering} {
			ds[i].Set(v, "properties", k)
		}
	}
	return nil
}

func (p *Provider) prepareZoneLink(ctx context.Context, c *rp.Change) error {
	if c.Old != nil && c.Old.State == "Deleting" {
		return busy(c.ID, "Deleting")
	}
	d := c.Doc
	d.Drop("properties", "virtualNetworkLinkState")
	vnet := d.Str("properties", "virtualNetwork", "id")
	if vnet == "" {
		return rp.BadRequest("BadRequest", "The virtual network link %s has no virtualNetwork.id.", c.ID).At("properties.virtualNetwork.id")
	}
	d.Default(false, "properties", "registrationEnabled")
	if err := oneOf(d, "Default", []string{"Default", "NxDomainRedirect"}, "properties", "resolutionPolicy"); err != nil {
		return err
	}
	if c.Old != nil && !strings.EqualFold(c.Old.Doc.Str("properties", "virtualNetwork", "id"), vnet) {
		return rp.BadRequest("BadRequest", "The virtual network of link '%s' cannot be changed; delete the link and create another.", c.ID).At("properties.virtualNetwork.id")
	}
	// A link is global, its network is regional.
	if err := p.checkReference(ctx, &rp.Change{Env: c.Env, ID: c.ID, Doc: rp.Doc{}, Preflight: c.Preflight}, d, VNetType, "properties", "virtualNetwork"); err != nil {
		return err
	}
	if c.Preflight {
		return nil
	}
	all, err := p.env.Store.ListType(ctx, ZoneLinkType)
	if err != nil {
		return err
	}
	for _, l := range all {
		id := l.ParsedID()
		if id.Key() == c.ID.Key() || !strings.EqualFold(l.Doc.Str("properties", "virtualNetwork", "id"), vnet) {
			continue
		}
		if id.Parent().Key() == c.ID.Parent().Key() {
			return rp.Conflict("Conflict", "The virtual network %s is linked with the zone %s already, by %s.", vnet, c.ID.Parent().Name(), l.ID)
		}
		if l.Doc.Bool("properties", "registrationEnabled") && d.Bool("properties", "registrationEnabled") {
			return rp.Conflict("Conflict", "The virtual network %s registers its names in the zone %s already; a network registers them in one zone only.", vnet, id.Parent().Name())
		}
	}
	return nil
}

func (p *Provider) prepareRecords(ctx context.Context, c *rp.Change, k recordKind) error {
	d := c.Doc
	bad := func(format string, args ...any) error {
		return rp.BadRequest("BadRequest", "The record set '%s' of type %s is not valid: "+format+".", append([]any{c.ID.Name(), k.name}, args...)...).At("properties")
	}
	for _, ro := range []string{"fqdn", "isAutoRegistered"} {
		d.Drop("properties", ro)
	}
	if ttl, ok := d.Int("properties", "ttl"); !ok || ttl < 0 || ttl > 1<<31-1 {
		return bad("it needs a ttl in seconds, from 0 to 2147483647")
	}
	for _, other := range recordKinds {
		if _, has := d.Lookup("properties", other.property); has && other.name != k.name {
			return bad("it has %s, which belongs to the type %s", other.property, other.name)
		}
	}
	records := d.List("properties", k.property)
	if k.single {
		if m := d.Map("properties", k.property); m != nil {
			records = []any{map[string]any(m)}
		}
	}
	if len(records) == 0 {
		return bad("it has no %s", k.property)
	}
	for i, x := range records {
		m, ok := x.(map[string]any)
		if !ok {
			return bad("element %d of %s is not an object", i, k.property)
		}
		if why := k.check(rp.Doc(m)); why != "" {
			return bad("in element %d of %s, %s", i, k.property, why)
		}
	}
	if k.name == "SOA" && c.ID.Name() != "@" || k.name == "CNAME" && c.ID.Name() == "@" {
		return bad("this type cannot have that name")
	}
	if c.Preflight {
		return nil
	}
	for _, other := range recordKinds { // a name with a CNAME has no other records
		if other.name == k.name || other.name != "CNAME" && k.name != "CNAME" {
			continue
		}
		r, err := p.env.Store.Get(ctx, c.ID.Parent().Child(other.name, c.ID.Name()))
		if err != nil {
			return err
		}
		if r != nil {
			return rp.Conflict("Conflict", "The record set '%s' of type %s cannot be created because a record set of type %s with that name exists: a name with a CNAME has no other record sets.", c.ID.Name(), k.name, other.name)
		}
	}
	return nil
}

func renderRecords(_ context.Context, r *rp.Record, d rp.Doc, _ string) error {
	id := r.ParsedID()
	zone := strings.ToLower(id.Parent().Name()) + "."
	if name := id.Name(); name != "@" {
		zone = strings.ToLower(name) + "." + zone
	}
	d["etag"] = r.ETag
	d.Set(zone, "properties", "fqdn")
	d.Set(false, "properties", "isAutoRegistered")
	return nil
}

// listRecords returns the record sets of all types.
func (p *Provider) listRecords(ctx context.Context, q *rp.Request) (*rp.Response, error) {
	zone := q.ID.Parent()
	if r, err := p.env.Store.Get(ctx, zone); err != nil {
		return nil, err
	} else if r == nil {
		return nil, rp.NotFound(zone)
	}
	out := []rp.Doc{}
	for _, k := range recordKinds {
		rs, err := p.recordsOf(ctx, zone, k.name)
		if err != nil {
			return nil, err
		}
		ds, err := p.env.RenderAll(ctx, p.env.FindType(PrivateZoneType+"/"+k.name), rs, q.APIVersion)
		if err != nil {
			return nil, err
		}
		out = append(out, ds...)
	}
	page, next, err := rp.Page(q, out)
	if err != nil {
		return nil, err
	}
	resp := rp.ListResponse(page, next)
	resp.Status = http.StatusOK
	return resp, nil
}
