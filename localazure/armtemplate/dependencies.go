// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package armtemplate

import (
	"errors"
	"maps"
	"slices"
	"strings"
)

// edges sets the dependencies of all resources. A resource that depends on an
// existing one also depends on the dependencies of that: they may create it.
// Resources whose condition is false, and the dependencies of those, are nobody's
// dependencies.
func (g *Graph) edges() error {
	t := g.env.t
	all := make([]map[int]bool, len(g.Resources))
	for i := range g.Resources {
		r := &g.Resources[i]
		if !r.Condition {
			continue
		}
		f := &frame{env: g.env, loops: r.loops}
		deps := map[int]bool{}
		all[i] = deps
		for _, d := range r.DependsOn { // set for serial loops
			deps[d] = true
		}
		if err := g.explicit(f, r, deps); err != nil {
			return err
		}
		if r.Existing {
			continue
		}
		note := func(d int) {
			if d != i {
				deps[d] = true
			}
		}
		for _, m := range r.node.members {
			if keywords[strings.ToLower(m.key)] {
				continue
			}
			n := m.val
			if strings.EqualFold(m.key, "properties") && r.isInnerDeployment() {
				n = withoutTemplate(n)
			}
			if f.hasRuntime(n) {
				if err := f.dependencies(n, note); err != nil {
					return t.public("resource '"+r.Name+"'", "", err)
				}
			}
		}
	}
	for i := range g.Resources {
		r := &g.Resources[i]
		r.DependsOn = nil
		if r.Existing {
			continue
		}
		deployed, seen := map[int]bool{}, map[int]bool{}
		var follow func(deps map[int]bool)
		follow = func(deps map[int]bool) {
			for d := range deps {
				if dep := &g.Resources[d]; !dep.Condition || seen[d] {
					continue
				} else if seen[d] = true; !dep.Existing {
					deployed[d] = true
				} else {
					follow(all[d])
				}
			}
		}
		follow(all[i])
		r.DependsOn = append(r.DependsOn, slices.Sorted(maps.Keys(deployed))...)
	}
	return nil
}

// explicit adds the resources in dependsOn.
func (g *Graph) explicit(f *frame, r *Resource, deps map[int]bool) error {
	t := g.env.t
	list := r.node.get("dependsOn")
	if list == nil || list.kind == kindNull {
		return nil
	}
	v, err := f.value(list)
	if err != nil {
		return t.public("dependsOn of resource '"+r.Name+"'", "", deferredIn(err, "dependsOn"))
	}
	arr, ok := v.([]any)
	if !ok {
		return t.invalid(list.off, "", "The dependsOn of resource '%s' must be an array, not %s", r.Name, typeName(v))
	}
	for _, e := range arr {
		s, ok := e.(string)
		if !ok {
			return t.invalid(list.off, "", "The dependsOn of resource '%s' must hold strings, not %s", r.Name, typeName(e))
		}
		lower := strings.ToLower(s)
		if i, ok := g.find(s); ok {
			deps[i] = true
		} else if loop, ok := g.bySymbolLoop[lower]; ok {
			for _, i := range loop {
				deps[i] = true
			}
		} else if loop, ok := g.loops[lower]; ok {
			for _, i := range loop {
				deps[i] = true
			}
		} else if g.emptyLoops[lower] {
			continue
		} else {
			return t.invalid(list.off, "", "The resource '%s', on which resource '%s' depends, is not defined in the template", s, r.Name)
		}
	}
	return nil
}

// order returns an error if the dependencies have a cycle.
func (g *Graph) order() error {
	const (
		white = iota
		grey
		black
	)
	state := make([]int, len(g.Resources))
	var path []int
	var visit func(i int) error
	visit = func(i int) error {
		state[i] = grey
		path = append(path, i)
		for _, d := range g.Resources[i].DependsOn {
			switch state[d] {
			case grey:
				var names []string
				for _, p := range path[slices.Index(path, d):] {
					names = append(names, g.Resources[p].ID)
				}
				names = append(names, g.Resources[d].ID)
				return g.env.t.invalid(g.Resources[d].node.off, "", "Circular dependency detected on resource: '%s' (%s)", g.Resources[d].ID, strings.Join(names, " needs "))
			case white:
				if err := visit(d); err != nil {
					return err
				}
			}
		}
		path = path[:len(path)-1]
		state[i] = black
		return nil
	}
	for i := range g.Resources {
		if state[i] == white {
			if err := visit(i); err != nil {
				return err
			}
		}
	}
	return nil
}

// dependencies calls note for each resource that expressions under a node refer
// to with reference or list*.
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

// loopDependencies calls dependencies for each iteration of property loops.
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

// hasRuntime reports whether an expression under a node needs a Runtime. It is
// also true for one that does not parse: evaluation returns the error.
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
