// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package armtemplate

import (
	"strconv"
	"strings"
)

// keywords are the members of a resource in a template that are not part of its
// body.
var keywords = map[string]bool{
	"name": true, "type": true, "apiversion": true, "condition": true, "copy": true, "dependson": true, "comments": true,
	"metadata": true, "scope": true, "existing": true, "resources": true, "subscriptionid": true, "resourcegroup": true, "asserts": true,
}

// collect adds the resources of a section. parent is nil at the top level.
func (g *Graph) collect(f *frame, section *node, parent *Resource, root string) error {
	t := f.t
	if section.kind == kindObject {
		for _, m := range section.members {
			if err := g.resource(f, m.val, m.key, parent, root+"."+m.key); err != nil {
				return err
			}
		}
		return nil
	}
	if section.kind != kindArray {
		return t.invalid(section.off, root, "Resources must be an array, not %s", section.kind)
	}
	for i, n := range section.elems {
		if err := g.resource(f, n, "", parent, root+"["+strconv.Itoa(i)+"]"); err != nil {
			return err
		}
	}
	return nil
}

// resource adds a resource, or all resources of its copy loop.
func (g *Graph) resource(f *frame, n *node, symbol string, parent *Resource, path string) error {
	t := f.t
	if n.kind != kindObject {
		return t.invalid(n.off, path, "A resource must be an object, not %s", n.kind)
	}
	for _, key := range []string{"type", "apiVersion", "name"} {
		if v := n.get(key); v == nil && !(key == "apiVersion" && t.root.get("apiProfile") != nil) {
			return t.invalid(n.off, path, "The template resource at '%s' has no '%s'", path, key)
		}
	}
	cp := n.get("copy")
	if cp == nil || cp.kind == kindNull {
		return g.one(f, n, symbol, "", -1, parent, path)
	}
	if cp.kind != kindObject {
		return t.invalid(cp.off, path+".copy", "The copy of a resource must be an object with 'name' and 'count'")
	}
	if parent != nil {
		return t.invalid(cp.off, path+".copy", "A resource inside another cannot have a copy loop: move it to the top level")
	}
	name, err := f.str(cp.get("name"))
	if err != nil {
		return t.public("copy loop", path+".copy.name", at(cp, err))
	}
	count, err := f.loopCount(cp.get("count"))
	if err != nil {
		return t.public("copy loop '"+name+"'", path+".copy.count", at(cp, err))
	}
	batch, err := f.batch(cp, name)
	if err != nil {
		return t.public("copy loop '"+name+"'", path+".copy.batchSize", err)
	}
	lower := strings.ToLower(name)
	if _, twice := g.loops[lower]; twice {
		return t.invalid(cp.off, path+".copy", "The copy loop '%s' is defined twice", name)
	}
	g.loops[lower] = []int{}
	if count == 0 && symbol != "" {
		g.emptyLoops[strings.ToLower(symbol)] = true
	}
	first := len(g.Resources)
	for i := range count {
		if err := g.one(f.push(name, i, true), n, symbol, name, i, parent, path); err != nil {
			return err
		}
		r := first + int(i)
		g.loops[lower] = append(g.loops[lower], r)
		if batch > 0 && i >= batch { // wait for all of the previous batch
			start := (i/batch - 1) * batch
			for j := start; j < start+batch; j++ {
				g.Resources[r].DependsOn = append(g.Resources[r].DependsOn, first+int(j))
			}
		}
	}
	return nil
}

// batch returns the batch size of a serial copy loop, and 0 for a parallel one.
func (f *frame) batch(cp *node, name string) (int64, error) {
	if !strings.EqualFold(cp.get("mode").text(), "serial") {
		return 0, nil
	}
	b := cp.get("batchSize")
	if b == nil {
		return 1, nil
	}
	n, err := f.loopCount(b)
	if err != nil || n < 1 {
		return 0, at(b, failf("The batch size of copy loop '%s' must be an integer of at least 1", name))
	}
	return n, nil
}

// one adds a single resource. index is its iteration in the loop; -1 without
// one.
func (g *Graph) one(f *frame, n *node, symbol, loopName string, index int64, parent *Resource, path string) error {
	t := f.t
	if len(g.Resources) >= MaxResources {
		return t.invalid(n.off, path, "The template has more than %d resources", MaxResources)
	}
	r := Resource{Symbol: symbol, Condition: true, node: n, loops: f.loops, loopName: loopName}
	r.Line, r.Column = position(t.src, n.off)
	if index >= 0 && symbol != "" {
		r.Symbol = symbol + "[" + strconv.FormatInt(index, 10) + "]"
	}
	for _, p := range []struct {
		key string
		to  *string
	}{{"type", &r.Type}, {"apiVersion", &r.APIVersion}, {"name", &r.Name}} {
		v := n.get(p.key)
		if v == nil {
			continue
		}
		s, err := f.str(v)
		if err == nil && strings.TrimSpace(s) == "" {
			err = at(v, failf("it is empty"))
		}
		if err != nil {
			return t.public(p.key+" of the resource at "+path, path+"."+p.key, deferredIn(err, "a resource's "+p.key))
		}
		*p.to = s
	}
	if parent != nil {
		if !strings.HasPrefix(strings.ToLower(r.Type), strings.ToLower(parent.Type)+"/") {
			r.Type = parent.Type + "/" + r.Type
		}
		if strings.Count(r.Name, "/") < strings.Count(r.Type, "/")-1 {
			r.Name = parent.Name + "/" + r.Name
		}
	}
	what := "resource '" + r.Name + "'"
	if c := n.get("condition"); c != nil && c.kind != kindNull {
		v, err := f.value(c)
		if err != nil {
			return t.public("condition of "+what, path+".condition", deferredIn(err, "a condition"))
		}
		b, ok := v.(bool)
		if !ok {
			return t.invalid(c.off, path+".condition", "The condition of %s must be a Boolean, not %s", what, typeName(v))
		}
		r.Condition = b
	}
	if parent != nil && !parent.Condition {
		r.Condition = false
	}
	r.Existing = n.get("existing") != nil && n.get("existing").bool
	if r.Existing && !t.Symbolic {
		return t.invalid(n.off, path, "The 'existing' resource needs symbolic names (\"languageVersion\": \"2.0\")")
	}
	r.SubscriptionID, r.ResourceGroup = f.in.Scope.SubscriptionID, f.in.Scope.ResourceGroup.Name
	if parent != nil {
		r.SubscriptionID, r.ResourceGroup, r.scope = parent.SubscriptionID, parent.ResourceGroup, parent.scope
	}
	for _, p := range []struct {
		key string
		to  *string
	}{{"subscriptionId", &r.SubscriptionID}, {"resourceGroup", &r.ResourceGroup}, {"scope", &r.scope}} {
		v := n.get(p.key)
		if v == nil || v.kind == kindNull {
			continue
		}
		s, err := f.str(v)
		if err != nil {
			return t.public(p.key+" of "+what, path+"."+p.key, deferredIn(err, "a resource's "+p.key))
		}
		if p.key == "subscriptionId" && n.get("resourceGroup") == nil {
			r.ResourceGroup = "" // a resource of the subscription
		}
		*p.to = s
	}
	if err := r.makeID(); err != nil {
		return t.public(what, path, at(n, err))
	}
	g.Resources = append(g.Resources, r)
	if kids := n.get("resources"); kids != nil && kids.kind != kindNull && !r.Existing {
		if loopName != "" && kids.kind == kindArray && len(kids.elems) > 0 && t.Symbolic {
			return t.invalid(kids.off, path, "Nested resources with symbolic names cannot stand in a loop")
		}
		self := r
		return g.collect(f, kids, &self, path+".resources")
	}
	return nil
}

// deferredIn returns a better error if err is about a value that depends on
// deployed resources and what cannot.
func deferredIn(err error, what string) error {
	if isDeferred(err) {
		return at(nil, failf("%s cannot depend on reference or list*: it must be known before deployment", what))
	}
	return err
}

// makeID computes the ID. It also replaces a type of the form A/b/providers/c by
// that of the extension resource.
func (r *Resource) makeID() error {
	rel, err := relativeID(r.Type, []string{r.Name})
	if err != nil {
		return failf("the type '%s' and the name '%s' do not match: a name has one segment less than its type, such as 'vnet/subnet' for 'Microsoft.Network/virtualNetworks/subnets'", r.Type, r.Name)
	}
	base := scopeID(r.SubscriptionID, r.ResourceGroup)
	switch {
	case r.scope == "/":
		base, r.SubscriptionID, r.ResourceGroup = "", "", ""
	case strings.HasPrefix(r.scope, "/"):
		base = strings.TrimSuffix(r.scope, "/")
		segs := strings.Split(base, "/") // "", subscriptions, S, resourceGroups, RG, ...
		r.SubscriptionID, r.ResourceGroup = "", ""
		if len(segs) > 2 && strings.EqualFold(segs[1], "subscriptions") {
			r.SubscriptionID = segs[2]
		}
		if len(segs) > 4 && r.SubscriptionID != "" && strings.EqualFold(segs[3], "resourceGroups") {
			r.ResourceGroup = segs[4]
		}
	case r.scope != "":
		base += "/providers/" + strings.Trim(r.scope, "/")
	}
	if rest, ok := cutFoldPrefix(rel, "Microsoft.Resources/resourceGroups/"); ok && r.scope == "" {
		r.ID = scopeID(r.SubscriptionID, "") + "/resourceGroups/" + rest
		return nil
	}
	r.ID = base + "/providers/" + rel
	if i := strings.LastIndex(strings.ToLower(r.Type), "/providers/"); i >= 0 {
		// A/b/providers/c with name x/N.S/y is N.S/c with name y, on A/b/x.
		segs, names := strings.Split(r.Type, "/"), strings.Split(r.Name, "/")
		k := strings.Count(r.Type[:i], "/") // index of the name that is the namespace
		r.Type = names[k] + "/" + strings.Join(segs[k+2:], "/")
		r.Name = strings.Join(names[k+1:], "/")
	}
	return nil
}

// index fills the maps that find uses and rejects duplicate resources.
func (g *Graph) index() error {
	for i := range g.Resources {
		r := &g.Resources[i]
		id := strings.ToLower(r.ID)
		if j, twice := g.byID[id]; twice && r.Symbol == "" || twice && r.Condition && g.Resources[j].Condition && !r.Existing && !g.Resources[j].Existing {
			if r.Condition && g.Resources[j].Condition {
				return g.env.t.invalid(r.node.off, "", "The resource '%s' is defined multiple times in a template", r.ID)
			}
		}
		if j, have := g.byID[id]; !have || !g.Resources[j].Condition || g.Resources[j].Existing {
			g.byID[id] = i
		}
		for _, name := range []string{r.Name, relativeName(r)} {
			n := strings.ToLower(name)
			g.byName[n] = append(g.byName[n], i)
		}
		if r.Symbol != "" {
			s := strings.ToLower(r.Symbol)
			if _, twice := g.bySymbol[s]; twice {
				return g.env.t.invalid(r.node.off, "", "The symbolic name '%s' is used twice", r.Symbol)
			}
			g.bySymbol[s] = i
			if k := strings.LastIndexByte(s, '['); k > 0 && r.loopName != "" {
				g.bySymbolLoop[s[:k]] = append(g.bySymbolLoop[s[:k]], i)
			}
		}
	}
	return nil
}

// relativeName returns the ID of a resource in its scope:
// "Microsoft.X/type/name".
func relativeName(r *Resource) string {
	rel, err := relativeID(r.Type, []string{r.Name})
	if err != nil {
		return r.ID
	}
	return rel
}

// find returns the index of a resource by symbolic name, ID, full name or
// relative ID.
func (g *Graph) find(s string) (int, bool) {
	s = strings.ToLower(s)
	if i, ok := g.bySymbol[s]; ok {
		return i, true
	}
	if i, ok := g.byID[strings.TrimSuffix(s, "/")]; ok {
		return i, true
	}
	if is := g.byName[s]; len(is) > 0 {
		for _, i := range is {
			if g.Resources[i].Condition {
				return i, true
			}
		}
		return is[0], true
	}
	return 0, false
}
