// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package armtemplate

import (
	"slices"
	"strconv"
	"strings"
)

// deploymentProperties evaluates the properties of a nested deployment. If its
// expressions belong to the inner scope, its template stays as it is; otherwise
// the result is a template of plain values.
func (f *frame) deploymentProperties(props *node) (*object, error) {
	o := newObject()
	for _, m := range props.members {
		if !strings.EqualFold(m.key, "template") {
			if err := f.member(o, m); err != nil {
				return nil, err
			}
			continue
		}
		if isInner(props) {
			o.set(m.key, literal(m.val))
			continue
		}
		v, err := f.outerTemplate(m.val)
		if err != nil {
			return nil, under("."+m.key, err)
		}
		o.set(m.key, v)
	}
	return o, nil
}

// outerTemplate evaluates a nested template in the scope of its parent.
func (f *frame) outerTemplate(n *node) (any, error) {
	if n.kind != kindObject {
		return f.value(n)
	}
	g := *f
	g.escape = true
	o := newObject()
	for _, m := range n.members {
		if strings.EqualFold(m.key, "variables") || strings.EqualFold(m.key, "functions") {
			continue // the outer scope has those of the parent
		}
		if !strings.EqualFold(m.key, "resources") {
			if err := g.member(o, m); err != nil {
				return nil, err
			}
			continue
		}
		res, err := g.outerResources(m.val)
		if err != nil {
			return nil, under(".resources", err)
		}
		o.set(m.key, res)
	}
	return o, nil
}

// outerResources evaluates the resources of a nested template and unrolls their
// loops.
func (f *frame) outerResources(n *node) (any, error) {
	one := func(f *frame, n *node) (*object, error) {
		o := newObject()
		inner := strings.EqualFold(n.get("type").text(), "Microsoft.Resources/deployments")
		for _, m := range n.members {
			switch {
			case strings.EqualFold(m.key, "copy"):
			case strings.EqualFold(m.key, "properties") && inner && m.val.kind == kindObject:
				p, err := f.deploymentProperties(m.val)
				if err != nil {
					return nil, err
				}
				o.set(m.key, p)
			default:
				if err := f.member(o, m); err != nil {
					return nil, err
				}
			}
		}
		return o, nil
	}
	if n.kind != kindArray {
		return f.value(n)
	}
	out := []any{}
	names := map[string][]any{} // names of the resources of a loop
	for i, e := range n.elems {
		seg := "[" + strconv.Itoa(i) + "]"
		cp := e.get("copy")
		if cp == nil || cp.kind != kindObject {
			v, err := one(f, e)
			if err != nil {
				return nil, under(seg, err)
			}
			out = append(out, v)
			continue
		}
		name, err := f.str(cp.get("name"))
		if err != nil {
			return nil, under(seg+".copy", err)
		}
		count, err := f.loopCount(cp.get("count"))
		if err != nil {
			return nil, under(seg+".copy", err)
		}
		batch, err := f.batch(cp, name)
		if err != nil {
			return nil, under(seg+".copy", err)
		}
		names[strings.ToLower(name)] = []any{}
		for k := range count {
			v, err := one(f.push(name, k, true), e)
			if err != nil {
				return nil, under(seg, err)
			}
			if batch > 0 && k >= batch { // wait for all of the previous batch
				start := (k/batch - 1) * batch
				deps, _ := v.get("dependsOn")
				list, _ := deps.([]any)
				if have := names[strings.ToLower(name)]; int64(len(have)) >= start+batch {
					v.set("dependsOn", append(slices.Clone(list), have[start:start+batch]...))
				}
			}
			out = append(out, v)
			if id, _ := v.get("name"); id != nil {
				names[strings.ToLower(name)] = append(names[strings.ToLower(name)], id)
			}
		}
	}
	for _, v := range out { // a dependency on a loop is one on all its resources
		o := v.(*object)
		deps, _ := o.get("dependsOn")
		arr, ok := deps.([]any)
		if !ok {
			continue
		}
		all := []any{}
		for _, d := range arr {
			if s, ok := d.(string); ok {
				if many, ok := names[strings.ToLower(s)]; ok {
					all = append(all, many...)
					continue
				}
			}
			all = append(all, d)
		}
		o.set("dependsOn", all)
	}
	return out, nil
}
