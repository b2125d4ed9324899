// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package armtemplate

import (
	"strings"
	"sync"
)

// Expand evaluates everything that does not depend on deployed resources. Its
// error is an *Error with code InvalidTemplate.
func (t *Template) Expand(in Input) (*Graph, error) {
	if in.Mode == "" {
		in.Mode = "Incremental"
	}
	e := &env{t: t, in: in, meter: &meter{}, exprs: &sync.Map{}, given: map[string]any{}, params: map[string]any{}, vars: map[string]any{}, busy: map[string]bool{}}
	g := &Graph{env: e, byID: map[string]int{}, byName: map[string][]int{}, bySymbol: map[string]int{}, bySymbolLoop: map[string][]int{},
		emptyLoops: map[string]bool{}, loops: map[string][]int{}}
	if err := g.parameters(); err != nil {
		return nil, err
	}
	if t.variables != nil { // also unused ones: their errors are errors of the template
		for _, m := range t.variables.members {
			names := []string{m.key}
			if strings.EqualFold(m.key, "copy") && isPropertyLoop(m.val) {
				names = nil
				for _, l := range m.val.elems {
					names = append(names, l.get("name").text())
				}
			}
			for _, name := range names {
				if _, err := (&frame{env: e}).variable(name); err != nil {
					return nil, t.public("variable '"+name+"'", "variables."+name, err)
				}
			}
		}
	}
	if err := g.collect(&frame{env: e}, t.resources, nil, "resources"); err != nil {
		return nil, err
	}
	if err := g.index(); err != nil {
		return nil, err
	}
	e.graph = g
	if err := g.bodies(); err != nil {
		return nil, err
	}
	if err := g.order(); err != nil {
		return nil, err
	}
	if err := g.checkOutputs(); err != nil {
		return nil, err
	}
	lenient := *e
	lenient.keep = true
	return g, g.asserts(&lenient)
}

// asserts checks the assertions of the template. Without a Runtime it skips those
// that depend on deployed resources.
func (g *Graph) asserts(e *env) error {
	n := e.t.root.get("asserts")
	if n == nil {
		return nil
	}
	var failed []string
	off := -1
	for _, m := range n.members {
		what, path := "assert '"+m.key+"'", "asserts."+m.key
		e.skipped = false
		v, err := (&frame{env: e}).value(m.val)
		if err != nil {
			return e.t.public(what, path, at(m.val, err))
		}
		if e.skipped {
			continue
		}
		ok, isBool := v.(bool)
		if !isBool {
			return e.t.invalid(m.val.off, path, "The %s must be a Boolean, not %s", what, typeName(v))
		}
		if !ok {
			failed = append(failed, "'"+m.key+"'")
			off = max(off, m.val.off)
		}
	}
	if len(failed) > 0 {
		return e.t.invalid(off, "asserts", "Assertions of the template failed: %s evaluated to false", strings.Join(failed, ", "))
	}
	return nil
}
