// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package armtemplate

import (
	"maps"
	"slices"
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
			return nil, failf("deployments of management groups are not supported here: give the name of the management group")
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
			return nil, failf("the deployment has no resource group")
		}
		g := obj("id", "/subscriptions/"+s.SubscriptionID+"/resourceGroups/"+s.ResourceGroup.Name, "name", s.ResourceGroup.Name,
			"type", "Microsoft.Resources/resourceGroups", "location", s.ResourceGroup.Location)
		if s.ResourceGroup.ManagedBy != "" {
			g.set("managedBy", s.ResourceGroup.ManagedBy)
		}
		tags := newObject()
		for _, k := range slices.Sorted(maps.Keys(s.ResourceGroup.Tags)) {
			tags.set(k, s.ResourceGroup.Tags[k])
		}
		g.set("tags", tags)
		g.set("properties", obj("provisioningState", "Succeeded"))
		return g, nil
	}},
	"subscription": {0, 0, func(f *frame, _ []any) (any, error) {
		s := f.in.Scope
		if s.SubscriptionID == "" {
			return nil, failf("the deployment has no subscription")
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
			return nil, failf("%d zones starting at number %d were requested; a region has 3", n, offset+1)
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

// splitIDArgs splits the arguments of a resourceId function into up to maxPre
// scope arguments, the type (the first argument with a slash), and the names.
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
	return nil, "", nil, failf("there is no resource type, such as 'Microsoft.Network/virtualNetworks', among the arguments")
}

// relativeID returns "Microsoft.X/type/name/type/name" for a type and names.
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
