// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package armtemplate

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// parameters evaluates the parameters of the template.
func (g *Graph) parameters() error {
	e, t := g.env, g.env.t
	var names []string
	for _, p := range t.params {
		names = append(names, p.name)
	}
	for _, given := range slices.Sorted(maps.Keys(e.in.Parameters)) {
		known := false
		for _, n := range names {
			known = known || strings.EqualFold(n, given)
		}
		if !known {
			supported := "The only supported parameters for this template are '" + strings.Join(names, ", ") + "'"
			if len(names) == 0 {
				supported = "The template has no parameters"
			}
			return t.invalid(-1, "", "The template parameters '%s' in the parameters file are not valid; they are not present in the original template and can therefore not be provided at deployment time. %s", given, supported)
		}
		v, err := fromJSON(e.in.Parameters[given])
		if err != nil {
			return t.invalid(-1, "", "The value of parameter '%s' is not JSON: %s", given, err)
		}
		e.given[strings.ToLower(given)] = v
	}
	g.Parameters = map[string]ParameterValue{}
	for _, p := range t.params {
		v, err := e.evalParam(p)
		if err != nil {
			return t.public("parameter '"+p.name+"'", "parameters."+p.name, at(p.node, err))
		}
		pv := ParameterValue{Type: outputType(t, p.node)}
		if !isSecure(pv.Type) {
			if pv.Value, err = e.meter.encode(v); err != nil {
				return t.public("parameter '"+p.name+"'", "parameters."+p.name, at(p.node, err))
			}
		}
		g.Parameters[p.name] = pv
	}
	return nil
}

// evalParam returns the checked value of a parameter: that of the request or the
// default.
func (e *env) evalParam(p paramDef) (any, error) {
	key := strings.ToLower(p.name)
	if v, ok := e.params[key]; ok {
		return v, nil
	}
	v, given := e.given[key]
	if !given {
		def := p.node.get("defaultValue")
		switch {
		case def != nil:
			if e.busy["p:"+key] {
				return nil, failf("the default value of parameter '%s' refers to itself", p.name)
			}
			e.busy["p:"+key] = true
			defer delete(e.busy, "p:"+key)
			if err := e.meter.call(); err != nil {
				return nil, err
			}
			defer e.meter.ret()
			var err error
			if v, err = (&frame{env: e.strict(), inDefault: true}).value(def); err != nil {
				return nil, deferredIn(err, "a default value")
			}
		case e.nullable(p.node):
			e.params[key] = nil
			return nil, nil
		default:
			line, col := position(e.t.src, p.node.off)
			return nil, &Error{Code: CodeInvalidTemplate, Line: line, Column: col, Path: "parameters." + p.name,
				Message: fmt.Sprintf("Deployment template validation failed: 'The value for the template parameter '%s' at line '%d' and column '%d' is not provided. Please see https://aka.ms/arm-create-parameter-file for usage details.'.", p.name, line, col)}
		}
	}
	f := &frame{env: e}
	if err := f.checkType(p.node, v, "template parameter '"+p.name+"'", 0); err != nil {
		return nil, err
	}
	e.params[key] = v
	return v, nil
}
