// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package armtemplate

import (
	"errors"
	"strings"
)

// parameter implements parameters('name').
func (f *frame) parameter(name string) (any, error) {
	key := strings.ToLower(name)
	if f.args != nil {
		v, ok := f.args[key]
		if !ok {
			return nil, failf("the function has no parameter '%s'", name)
		}
		return v, nil
	}
	if v, ok := f.params[key]; ok {
		return v, nil
	}
	for _, p := range f.t.params {
		if strings.EqualFold(p.name, name) {
			return f.env.evalParam(p)
		}
	}
	return nil, failf("the template parameter '%s' is not found", name)
}

// variable implements variables('name').
func (f *frame) variable(name string) (any, error) {
	if f.args != nil {
		return nil, failf("variables cannot be used in a function")
	}
	key := strings.ToLower(name)
	if v, ok := f.vars[key]; ok {
		return v, nil
	}
	def, loopDef := f.t.variableDef(name)
	if def == nil && loopDef == nil {
		return nil, failf("the template variable '%s' is not found", name)
	}
	if f.busy["v:"+key] {
		return nil, failf("the template variable '%s' refers to itself", name)
	}
	f.busy["v:"+key] = true
	defer delete(f.busy, "v:"+key)
	if err := f.meter.call(); err != nil {
		return nil, err
	}
	defer f.meter.ret()
	vf := &frame{env: f.env.strict()}
	var v any
	var err error
	if def != nil {
		v, err = vf.value(def)
	} else {
		var count int64
		if count, err = vf.loopCount(loopDef.get("count")); err == nil {
			v, err = vf.unroll(name, count, loopDef.get("input"))
		}
	}
	if errors.Is(err, errDeferred) {
		return nil, failf("the template variable '%s' calls reference or list*, which variables cannot", name)
	}
	if err != nil {
		return nil, err
	}
	f.vars[key] = v
	return v, nil
}

// strict returns the env without a Runtime, in which expressions that need one
// are errors.
func (e *env) strict() *env {
	if !e.keep && e.rt == nil {
		return e
	}
	s := *e
	s.keep, s.rt = false, nil
	return &s
}

// variableDef returns the node of a variable, or its loop in the copy of the
// section.
func (t *Template) variableDef(name string) (def, loopDef *node) {
	if t.variables == nil {
		return nil, nil
	}
	for _, m := range t.variables.members {
		if strings.EqualFold(m.key, "copy") && isPropertyLoop(m.val) {
			for _, e := range m.val.elems {
				if strings.EqualFold(e.get("name").text(), name) {
					loopDef = e
				}
			}
			continue
		}
		if strings.EqualFold(m.key, name) {
			def = m.val
		}
	}
	if def != nil {
		loopDef = nil
	}
	return def, loopDef
}

// copyIndex implements copyIndex([loop], [offset]).
func (f *frame) copyIndex(args []any) (any, error) {
	var offset int64
	name := ""
	for i, a := range args {
		switch a := a.(type) {
		case string:
			if i > 0 {
				return nil, failf("the name of the loop must be the first argument")
			}
			name = a
		case int64:
			offset = a
		default:
			return nil, failf("the arguments must be the name of a loop and an integer offset, not %s", typeName(a))
		}
	}
	if len(f.loops) == 0 {
		return nil, failf("it is used outside of a copy loop")
	}
	if name == "" {
		for _, l := range f.loops {
			if l.resource {
				return l.index + offset, nil
			}
		}
		return f.loops[len(f.loops)-1].index + offset, nil
	}
	for i := len(f.loops) - 1; i >= 0; i-- {
		if strings.EqualFold(f.loops[i].name, name) {
			return f.loops[i].index + offset, nil
		}
	}
	return nil, failf("it is used outside of copy loop '%s'", name)
}
