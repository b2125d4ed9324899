package armtemplate

import (
	"errors"
	"strings"
)

var idFunctions = map[string]builtin{
	"resourceId": {2, -1, func(f *frame, a []any) (any, error) {
		pre, typ, names, err := splitIDArgs(a, 2)
		if err != nil {
			return nil, err
		}
		sub, rg := f.in.Scope.SubscriptionID, f.in.Scope.ResourceGroup.Name
		switch len(pre) {
		case 1:
			if rg == "" {
				sub = pre[0]
			} else {
				rg = pre[0]
			}
		case 2:
			sub, rg = pre[0], pre[1]
		}
		return makeID(sub, rg, typ, names)
	}},
	"subscriptionResourceId": {2, -1, func(f *frame, a []any) (any, error) {
		pre, typ, names, err := splitIDArgs(a, 1)
		if err != nil {
			return nil, err
		}
		sub := f.in.Scope.SubscriptionID
		if len(pre) == 1 {
			sub = pre[0]
		}
		return makeID(sub, "", typ, names)
	}},
	"tenantResourceId": {2, -1, func(_ *frame, a []any) (any, error) {
		_, typ, names, err := splitIDArgs(a, 0)
		if err != nil {
			return nil, err
		}
		return makeID("", "", typ, names)
	}},
	"managementGroupResourceId": {3, -1, func(_ *frame, a []any) (any, error) {
		pre, typ, names, err := splitIDArgs(a, 1)
		if err != nil {
			return nil, err
		}
		if len(pre) == 0 {
			return nil, failf("this Resource Manager has no management group deployments: name the management group")
		}
		rel, err := relativeID(typ, names)
		return "/providers/Microsoft.Management/managementGroups/" + pre[0] + "/providers/" + rel, err
	}},
	"extensionResourceId": {3, -1, func(_ *frame, a []any) (any, error) {
		base, err := strArg(a[0])
		if err != nil {
			return nil, err
		}
		_, typ, names, err := splitIDArgs(a[1:], 0)
		if err != nil {
			return nil, err
		}
		rel, err := relativeID(typ, names)
		return strings.TrimSuffix(base, "/") + "/providers/" + rel, err
	}},
	"resourceGroup": {0, 0, func(f *frame, _ []any) (any, error) {
		s := f.in.Scope
		if s.ResourceGroup.Name == "" {
			return nil, failf("the deployment is not one of a resource group")
		}
		g := obj("id", "/subscriptions/"+s.SubscriptionID+"/resourceGroups/"+s.ResourceGroup.Name, "name", s.ResourceGroup.Name,
			"type", "Microsoft.Resources/resourceGroups", "location", s.ResourceGroup.Location)
		if s.ResourceGroup.ManagedBy != "" {
			g.set("managedBy", s.ResourceGroup.ManagedBy)
		}
		tags := newObject()
		for _, k := range sortedKeys(s.ResourceGroup.Tags) {
			tags.set(k, s.ResourceGroup.Tags[k])
		}
		g.set("tags", tags)
		g.set("properties", obj("provisioningState", "Succeeded"))
		return g, nil
	}},
	"subscription": {0, 0, func(f *frame, _ []any) (any, error) {
		s := f.in.Scope
		if s.SubscriptionID == "" {
			return nil, failf("the deployment is not one of a subscription")
		}
		return obj("id", "/subscriptions/"+s.SubscriptionID, "subscriptionId", s.SubscriptionID, "tenantId", s.TenantID, "displayName", s.SubscriptionName), nil
	}},
	"tenant": {0, 0, func(f *frame, _ []any) (any, error) {
		return obj("countryCode", "US", "displayName", "Default Directory", "id", "/tenants/"+f.in.Scope.TenantID, "tenantId", f.in.Scope.TenantID), nil
	}},
	"deployer": {0, 0, func(f *frame, _ []any) (any, error) {
		return obj("objectId", f.in.DeployerObjectID, "tenantId", f.in.Scope.TenantID), nil
	}},
	"deployment": {0, 0, func(f *frame, _ []any) (any, error) {
		d := obj("name", f.in.DeploymentName)
		if f.in.DeploymentLocation != "" {
			d.set("location", f.in.DeploymentLocation)
		}
		d.set("properties", obj(
			"template", obj("$schema", f.t.Schema, "contentVersion", f.t.ContentVersion, "resources", []any{}),
			"templateHash", f.t.Hash(), "parameters", newObject(), "mode", f.in.Mode, "provisioningState", "Accepted"))
		return d, nil
	}},
	"environment": {0, 0, func(f *frame, _ []any) (any, error) {
		if f.in.Environment != nil {
			return fromJSON(f.in.Environment)
		}
		return obj("name", "AzureCloud", "suffixes", newObject(), "authentication", obj("audiences", []any{}, "tenant", "common", "identityProvider", "AAD")), nil
	}},
	"pickZones": {3, 5, func(f *frame, a []any) (any, error) {
		var s [3]string
		for i := range s {
			var err error
			if s[i], err = strArg(a[i]); err != nil {
				return nil, err
			}
		}
		n, offset := int64(1), int64(0)
		var err error
		if len(a) > 3 {
			if n, err = intArg(a[3]); err != nil {
				return nil, err
			}
		}
		if len(a) > 4 {
			if offset, err = intArg(a[4]); err != nil {
				return nil, err
			}
		}
		if n < 1 || offset < 0 || n+offset > 3 {
			return nil, failf("%d zones from number %d were asked for, and a region has 3", n, offset+1)
		}
		out := []any{}
		for i := range n {
			out = append(out, string(rune('1'+offset+i)))
		}
		return out, nil
	}},
	"resourceInfo": {1, 1, func(f *frame, a []any) (any, error) {
		s, err := strArg(a[0])
		if err != nil {
			return nil, err
		}
		if f.graph != nil {
			if i, ok := f.graph.bySymbol[strings.ToLower(s)]; ok {
				r := f.graph.Resources[i]
				return obj("id", r.ID, "name", r.Name, "type", r.Type, "apiVersion", r.APIVersion), nil
			}
		}
		return nil, failf("no resource of the template has the symbolic name '%s'", s)
	}},
}

// splitIDArgs takes the arguments of a resourceId function apart: up to maxPre
// scope arguments, the type (the first with a slash), and the names.
func splitIDArgs(a []any, maxPre int) (pre []string, typ string, names []string, err error) {
	all := make([]string, len(a))
	for i, v := range a {
		s, err := strArg(v)
		if err != nil {
			return nil, "", nil, err
		}
		all[i] = s
	}
	for i, s := range all {
		if i > maxPre {
			break
		}
		if strings.Contains(s, "/") {
			return all[:i], s, all[i+1:], nil
		}
	}
	return nil, "", nil, failf("no resource type, such as 'Microsoft.Network/virtualNetworks', is among the arguments")
}

// relativeID is "Microsoft.X/type/name/type/name" of a type and its names.
func relativeID(typ string, names []string) (string, error) {
	segs := strings.Split(strings.Trim(typ, "/"), "/")
	var parts []string
	for _, n := range names {
		parts = append(parts, strings.Split(n, "/")...)
	}
	if len(segs) < 2 || len(parts) != len(segs)-1 {
		return "", failf("the resource type '%s' needs %d names, and %d are given", typ, max(len(segs)-1, 1), len(parts))
	}
	var b strings.Builder
	b.WriteString(segs[0])
	for i, p := range parts {
		if p == "" {
			return "", failf("a name of the resource of type '%s' is empty", typ)
		}
		b.WriteString("/" + segs[i+1] + "/" + p)
	}
	return b.String(), nil
}

func makeID(sub, rg, typ string, names []string) (any, error) {
	rel, err := relativeID(typ, names)
	if err != nil {
		return nil, err
	}
	scope := scopeID(sub, rg)
	if rest, ok := cutFoldPrefix(rel, "Microsoft.Resources/resourceGroups/"); ok && sub != "" && rg == "" {
		return scope + "/resourceGroups/" + rest, nil
	}
	if rest, ok := cutFoldPrefix(rel, "Microsoft.Resources/subscriptions/"); ok && sub == "" {
		return "/subscriptions/" + rest, nil
	}
	return scope + "/providers/" + rel, nil
}

func cutFoldPrefix(s, prefix string) (string, bool) {
	if len(s) >= len(prefix) && strings.EqualFold(s[:len(prefix)], prefix) {
		return s[len(prefix):], true
	}
	return s, false
}

func scopeID(sub, rg string) string {
	s := ""
	if sub != "" {
		s = "/subscriptions/" + sub
		if rg != "" {
			s += "/resourceGroups/" + rg
		}
	}
	return s
}

// target is what a reference or list* call is about: an ID and the version to
// read it in, "" when neither the call nor the template says.
func (f *frame) target(arg any) (id, apiVersion string, err error) {
	s, err := strArg(arg)
	if err != nil {
		return "", "", err
	}
	if f.graph != nil {
		if i, ok := f.graph.find(s); ok {
			return f.graph.Resources[i].ID, f.graph.Resources[i].APIVersion, nil
		}
	}
	if !strings.HasPrefix(s, "/") {
		return "", "", failf("the resource '%s' is not defined in the template; a resource from outside is named by its resource ID", s)
	}
	return s, "", nil
}

// reference answers reference(id or name, [apiVersion], ['Full']).
func (f *frame) reference(e *expr) (any, error) {
	if len(e.args) < 1 || len(e.args) > 3 {
		return nil, failf("the template function 'reference' takes 1 to 3 arguments, not %d", len(e.args))
	}
	args, err := f.evalAll(e.args)
	if err != nil {
		return nil, err
	}
	if f.args != nil {
		return nil, failf("the template function 'reference' cannot be used in a function")
	}
	id, version, err := f.target(args[0])
	if err != nil {
		return nil, prefixFunction("reference", err)
	}
	full := false
	if len(args) > 1 {
		if v, err := strArg(args[1]); err != nil {
			return nil, prefixFunction("reference", err)
		} else if v != "" {
			version = v
		}
	}
	if len(args) > 2 {
		v, err := strArg(args[2])
		if err != nil || !strings.EqualFold(v, "Full") {
			return nil, failf("the third argument of 'reference' is 'Full' or absent")
		}
		full = true
	}
	if version == "" {
		return nil, failf("the template function 'reference' needs an API version for '%s', which is not deployed by this template", id)
	}
	if f.rt == nil {
		return nil, &evalError{msg: errDeferred.Error(), off: -1, err: errDeferred}
	}
	return f.read(id, version, full)
}

func (f *frame) read(id, version string, full bool) (any, error) {
	b, err := f.rt.Reference(id, version)
	if err != nil {
		return nil, &evalError{msg: "reading '" + id + "': " + err.Error(), off: -1, err: err}
	}
	if err := f.meter.grow(4 * len(b)); err != nil {
		return nil, err
	}
	v, err := fromJSON(b)
	if err != nil {
		return nil, failf("reading '%s': the resource is not JSON: %s", id, err)
	}
	if full {
		return v, nil
	}
	if o, ok := v.(*object); ok {
		if p, ok := o.get("properties"); ok {
			return p, nil
		}
	}
	return newObject(), nil
}

// references answers references('symbolic name of a loop', ['Full']).
func (f *frame) references(e *expr) (any, error) {
	if len(e.args) < 1 || len(e.args) > 2 {
		return nil, failf("the template function 'references' takes 1 to 2 arguments, not %d", len(e.args))
	}
	args, err := f.evalAll(e.args)
	if err != nil {
		return nil, err
	}
	name, err := strArg(args[0])
	if err != nil {
		return nil, prefixFunction("references", err)
	}
	if f.graph == nil || len(f.graph.bySymbolLoop[strings.ToLower(name)]) == 0 && !f.graph.emptyLoops[strings.ToLower(name)] {
		return nil, failf("no resource loop of the template has the symbolic name '%s'", name)
	}
	if f.rt == nil {
		return nil, &evalError{msg: errDeferred.Error(), off: -1, err: errDeferred}
	}
	out := []any{}
	for _, i := range f.graph.bySymbolLoop[strings.ToLower(name)] {
		r := f.graph.Resources[i]
		v, err := f.read(r.ID, r.APIVersion, len(args) > 1)
		if err != nil {
			return nil, err
		}
		out = append(out, v)
	}
	return out, nil
}

// list answers list*(id or name, apiVersion, [input]).
func (f *frame) list(e *expr) (any, error) {
	if len(e.args) < 1 || len(e.args) > 3 {
		return nil, failf("the template function '%s' takes 1 to 3 arguments, not %d", e.name, len(e.args))
	}
	args, err := f.evalAll(e.args)
	if err != nil {
		return nil, err
	}
	if f.args != nil {
		return nil, failf("the template function '%s' cannot be used in a function", e.name)
	}
	id, version, err := f.target(args[0])
	if err != nil {
		return nil, prefixFunction(e.name, err)
	}
	if len(args) > 1 {
		if v, err := strArg(args[1]); err != nil {
			return nil, prefixFunction(e.name, err)
		} else if v != "" {
			version = v
		}
	}
	if version == "" {
		return nil, failf("the template function '%s' needs an API version", e.name)
	}
	var input []byte
	if len(args) > 2 {
		if input, err = f.meter.encode(args[2]); err != nil {
			return nil, err
		}
	}
	if f.rt == nil {
		return nil, &evalError{msg: errDeferred.Error(), off: -1, err: errDeferred}
	}
	b, err := f.rt.List(e.name, id, version, input)
	if err != nil {
		return nil, &evalError{msg: e.name + " of '" + id + "': " + err.Error(), off: -1, err: err}
	}
	if err := f.meter.grow(4 * len(b)); err != nil {
		return nil, err
	}
	v, err := fromJSON(b)
	if err != nil {
		return nil, failf("%s of '%s': the answer is not JSON: %s", e.name, id, err)
	}
	return v, nil
}

// dependencies notes every resource of the graph that the expressions under a
// node refer to at run time; an argument that is itself known only at run time
// is looked into for references of its own.
func (f *frame) dependencies(n *node, note func(int)) error {
	switch n.kind {
	case kindString:
		if !isExpression(n.str) {
			return nil
		}
		e, err := f.parse(n.str)
		if err != nil {
			return at(n, err)
		}
		return f.exprDependencies(e, note)
	case kindArray:
		for _, c := range n.elems {
			if err := f.dependencies(c, note); err != nil {
				return err
			}
		}
	case kindObject:
		for _, m := range n.members {
			if isExpression(m.key) {
				e, err := f.parse(m.key)
				if err != nil {
					return at(m.val, err)
				}
				if err := f.exprDependencies(e, note); err != nil {
					return err
				}
			}
			if strings.EqualFold(m.key, "copy") && isPropertyLoop(m.val) {
				if err := f.loopDependencies(m.val, note); err != nil {
					return err
				}
				continue
			}
			if err := f.dependencies(m.val, note); err != nil {
				return err
			}
		}
	}
	return nil
}

// loopDependencies looks into a property loop, once for each turn.
func (f *frame) loopDependencies(n *node, note func(int)) error {
	for _, e := range n.elems {
		input := e.get("input")
		if !f.hasRuntime(input) {
			continue
		}
		count, err := f.loopCount(e.get("count"))
		if err != nil {
			return at(n, err)
		}
		for i := range count {
			if err := f.push(e.get("name").text(), i, false).dependencies(input, note); err != nil {
				return err
			}
		}
	}
	return nil
}

// hasRuntime tells whether anything under a node needs a Runtime; what does not
// parse is found by evaluation.
func (f *frame) hasRuntime(n *node) bool {
	switch n.kind {
	case kindString:
		if isExpression(n.str) {
			e, err := f.parse(n.str)
			return err != nil || e.runtime
		}
	case kindArray:
		for _, c := range n.elems {
			if f.hasRuntime(c) {
				return true
			}
		}
	case kindObject:
		for _, m := range n.members {
			if f.hasRuntime(m.val) {
				return true
			}
			if isExpression(m.key) {
				if e, err := f.parse(m.key); err != nil || e.runtime {
					return true
				}
			}
		}
	}
	return false
}

func (f *frame) exprDependencies(e *expr, note func(int)) error {
	if !e.runtime {
		return nil
	}
	if err := f.meter.step(1); err != nil {
		return err
	}
	if e.op == opCall && needsRuntime(e.key) && len(e.args) > 0 {
		if _, builtin := functions[e.key]; !builtin && !e.args[0].runtime {
			if v, err := f.eval(e.args[0]); err == nil {
				if s, ok := v.(string); ok {
					if e.key == "references" {
						for _, i := range f.graph.bySymbolLoop[strings.ToLower(s)] {
							note(i)
						}
					} else if i, ok := f.graph.find(s); ok {
						note(i)
					}
				}
			} else if errors.Is(err, errTooMuch) {
				return err
			}
		}
	}
	if e.of != nil {
		if err := f.exprDependencies(e.of, note); err != nil {
			return err
		}
	}
	for _, a := range e.args {
		if err := f.exprDependencies(a, note); err != nil {
			return err
		}
	}
	return nil
}
