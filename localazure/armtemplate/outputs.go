// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package armtemplate

import (
	"encoding/json"
	"maps"
)

// live returns an env with a Runtime. It has its own meter and caches, so that
// resources can be resolved concurrently.
func (g *Graph) live(rt Runtime) *env {
	e := *g.env
	e.meter, e.rt, e.busy = &meter{}, rt, map[string]bool{}
	e.vars, e.params = maps.Clone(g.env.vars), maps.Clone(g.env.params)
	return &e
}

// Resolve returns the final body of a resource. All resources in its DependsOn
// must be deployed. It may be called concurrently. Its error is an *Error and
// wraps that of the Runtime.
func (g *Graph) Resolve(i int, rt Runtime) (json.RawMessage, error) {
	r := &g.Resources[i]
	if !r.Deferred {
		return r.Body, nil
	}
	e := g.live(rt)
	body, err := (&frame{env: e, loops: r.loops}).body(r)
	if err != nil {
		return nil, e.t.public("resource '"+r.Name+"'", "", err)
	}
	out, err := e.meter.encode(body)
	if err != nil {
		return nil, e.t.public("resource '"+r.Name+"'", "", err)
	}
	return out, nil
}

// checkOutputs evaluates the outputs that do not depend on deployed resources.
func (g *Graph) checkOutputs() error {
	e := *g.env
	e.keep = true
	_, err := g.outputs(&e)
	return err
}

// Outputs checks the assertions of the template and evaluates its outputs. All
// resources must be deployed. Outputs whose condition is false are left out.
func (g *Graph) Outputs(rt Runtime) ([]Output, error) {
	e := g.live(rt)
	if err := g.asserts(e); err != nil {
		return nil, err
	}
	return g.outputs(e)
}

func (g *Graph) outputs(e *env) ([]Output, error) {
	out := []Output{}
	if e.t.outputs == nil {
		return out, nil
	}
	f := &frame{env: e}
	for _, m := range e.t.outputs.members {
		what, path := "output '"+m.key+"'", "outputs."+m.key
		if c := m.val.get("condition"); c != nil {
			v, err := (&frame{env: e.strict()}).value(c)
			if err != nil {
				return nil, e.t.public(what, path+".condition", deferredIn(err, "a condition"))
			}
			if b, ok := v.(bool); !ok {
				return nil, e.t.invalid(c.off, path+".condition", "The condition of %s must be a Boolean, not %s", what, typeName(v))
			} else if !b {
				continue
			}
		}
		var v any
		var err error
		e.skipped = false
		if cp := m.val.get("copy"); cp != nil && cp.kind == kindObject {
			var count int64
			if count, err = f.loopCount(cp.get("count")); err == nil {
				v, err = f.unroll(m.key, count, cp.get("input"))
			}
		} else {
			v, err = f.value(m.val.get("value"))
		}
		if err != nil {
			return nil, e.t.public(what, path+".value", err)
		}
		typ := outputType(e.t, m.val)
		if e.skipped {
			out = append(out, Output{Name: m.key, Type: typ})
			continue
		}
		if err := f.checkType(m.val, v, what, 0); err != nil {
			return nil, e.t.public(what, path, at(m.val, err))
		}
		o := Output{Name: m.key, Type: typ}
		if !isSecure(typ) {
			if o.Value, err = e.meter.encode(v); err != nil {
				return nil, e.t.public(what, path, at(m.val, err))
			}
		}
		out = append(out, o)
	}
	return out, nil
}
