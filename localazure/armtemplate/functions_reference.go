// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package armtemplate

import (
	"strings"
)

// target returns the ID of the resource that the argument of reference or list*
// means, and its API version in the template, if any.
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
		return "", "", failf("the resource '%s' is not defined in the template; use the resource ID for other resources", s)
	}
	return s, "", nil
}

// reference implements reference(id or name, [apiVersion], ['Full']).
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
			return nil, failf("the third argument of 'reference' can only be 'Full'")
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

// references implements references('symbolic name of a loop', ['Full']).
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

// list implements list*(id or name, apiVersion, [input]).
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
		return nil, failf("%s of '%s': the response is not JSON: %s", e.name, id, err)
	}
	return v, nil
}
