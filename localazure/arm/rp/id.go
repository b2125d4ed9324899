// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package rp

import (
	"fmt"
	"strings"
)

// ID is a parsed ARM resource ID: a subscription, a resource group, a resource
// or a collection of one of them. IDs are compared without regard to case: see
// Key.
type ID struct {
	Subscription  string
	ResourceGroup string
	// Scope is the resource that an extension resource extends; nil for others.
	Scope *ID
	// Namespace is the provider's, such as Microsoft.ContainerService; empty
	// for subscriptions and resource groups.
	Namespace string
	// Types and Names are the alternating segments below the namespace. A
	// collection has one more type than names.
	Types []string
	Names []string
}

// ParseID parses a resource ID or a collection's path. Keywords may have any case;
// names keep theirs.
func ParseID(s string) (ID, error) {
	trimmed := strings.Trim(s, "/")
	if trimmed == "" {
		return ID{}, fmt.Errorf("resource ID %q is empty", s)
	}
	seg := strings.Split(trimmed, "/")
	for _, p := range seg {
		if p == "" {
			return ID{}, fmt.Errorf("resource ID %q has an empty segment", s)
		}
	}
	var id ID
	i := 0
	if strings.EqualFold(seg[0], "subscriptions") {
		if len(seg) == 1 {
			return ID{}, fmt.Errorf("resource ID %q names no subscription", s)
		}
		id.Subscription = seg[1]
		i = 2
		if i < len(seg) && strings.EqualFold(seg[i], "resourceGroups") {
			if i+1 >= len(seg) {
				return ID{}, fmt.Errorf("resource ID %q names no resource group", s)
			}
			id.ResourceGroup = seg[i+1]
			i += 2
		}
	}
	for i < len(seg) {
		if !strings.EqualFold(seg[i], "providers") {
			return ID{}, fmt.Errorf("resource ID %q: expected \"providers\" where it says %q", s, seg[i])
		}
		if i+1 >= len(seg) {
			return ID{}, fmt.Errorf("resource ID %q names no provider", s)
		}
		if id.Namespace != "" {
			if len(id.Names) == 0 || len(id.Types) != len(id.Names) {
				return ID{}, fmt.Errorf("resource ID %q extends something that is not a resource", s)
			}
			scope := id
			id = ID{Subscription: scope.Subscription, ResourceGroup: scope.ResourceGroup, Scope: &scope}
		}
		id.Namespace = seg[i+1]
		i += 2
		for i < len(seg) && !strings.EqualFold(seg[i], "providers") {
			id.Types = append(id.Types, seg[i])
			i++
			if i < len(seg) && !strings.EqualFold(seg[i], "providers") {
				id.Names = append(id.Names, seg[i])
				i++
			}
		}
	}
	return id, nil
}

// MustParseID is ParseID for stored IDs; it panics on invalid ones.
func MustParseID(s string) ID {
	id, err := ParseID(s)
	if err != nil {
		panic(err)
	}
	return id
}

// String returns the ID with ARM's usual casing of keywords.
func (id ID) String() string {
	var b strings.Builder
	if id.Scope != nil {
		b.WriteString(id.Scope.String())
	} else {
		if id.Subscription != "" {
			b.WriteString("/subscriptions/" + id.Subscription)
		}
		if id.ResourceGroup != "" {
			b.WriteString("/resourceGroups/" + id.ResourceGroup)
		}
	}
	if id.Namespace != "" {
		b.WriteString("/providers/" + id.Namespace)
		for i, t := range id.Types {
			b.WriteString("/" + t)
			if i < len(id.Names) {
				b.WriteString("/" + id.Names[i])
			}
		}
	}
	if b.Len() == 0 {
		return "/"
	}
	return b.String()
}

// Key returns the ID in lower case. Two IDs are the same if their keys are.
func (id ID) Key() string { return strings.ToLower(id.String()) }

// Type returns the full resource type, such as
// Microsoft.ContainerService/managedClusters/agentPools.
func (id ID) Type() string {
	switch {
	case id.Namespace != "" && len(id.Types) > 0:
		return id.Namespace + "/" + strings.Join(id.Types, "/")
	case id.Namespace != "":
		return id.Namespace
	case id.ResourceGroup != "":
		return "Microsoft.Resources/resourceGroups"
	case id.Subscription != "":
		return "Microsoft.Resources/subscriptions"
	}
	return ""
}

// Name returns the last name: of the resource, the group or the subscription.
func (id ID) Name() string {
	switch {
	case len(id.Names) > 0:
		return id.Names[len(id.Names)-1]
	case id.Namespace != "":
		return id.Namespace
	case id.ResourceGroup != "":
		return id.ResourceGroup
	}
	return id.Subscription
}

// IsCollection reports whether the ID ends in a type, as the path of a list does.
func (id ID) IsCollection() bool { return len(id.Types) > len(id.Names) }

// Parent returns the resource one level up: the parent of a child, the scope of an
// extension, the group (or subscription) of a top-level resource.
func (id ID) Parent() ID {
	n := len(id.Types) - 1
	if n >= 1 {
		p := id
		p.Types = append([]string(nil), id.Types[:n]...)
		names := id.Names
		if len(names) > n {
			names = names[:n]
		}
		p.Names = append([]string(nil), names...)
		return p
	}
	if id.Scope != nil {
		return *id.Scope
	}
	if id.Namespace != "" && id.ResourceGroup != "" {
		return ID{Subscription: id.Subscription, ResourceGroup: id.ResourceGroup}
	}
	return ID{Subscription: id.Subscription}
}

// Child returns the ID of a resource below id.
func (id ID) Child(typ, name string) ID {
	c := id
	c.Types = append(append([]string(nil), id.Types...), typ)
	c.Names = append(append([]string(nil), id.Names...), name)
	return c
}

// Group returns the ID of the resource group that id is in.
func (id ID) Group() ID { return ID{Subscription: id.Subscription, ResourceGroup: id.ResourceGroup} }

// In returns the ID of a resource of a full type ("Namespace/type") in a group or
// subscription.
func (id ID) In(fullType string, names ...string) ID {
	ns, rest, _ := strings.Cut(fullType, "/")
	return ID{Subscription: id.Subscription, ResourceGroup: id.ResourceGroup, Namespace: ns, Types: strings.Split(rest, "/"), Names: names}
}

// Within reports whether id is scope or below it.
func (id ID) Within(scope ID) bool {
	k, s := id.Key(), scope.Key()
	return s == "/" || k == s || strings.HasPrefix(k, s+"/")
}

// NormalizeLocation returns the programmatic name of a location: "East US" is
// eastus.
func NormalizeLocation(s string) string {
	return strings.ToLower(strings.ReplaceAll(s, " ", ""))
}
