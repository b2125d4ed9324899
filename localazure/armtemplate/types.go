// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package armtemplate

import (
	"errors"
	"strings"
	"unicode/utf8"
)

func isDeferred(err error) bool { return errors.Is(err, errDeferred) }

func isSecure(typ string) bool {
	return strings.EqualFold(typ, "securestring") || strings.EqualFold(typ, "secureObject")
}

// canonicalType returns the name of a type as deployments show it.
func canonicalType(s string) string {
	for _, c := range []string{"String", "SecureString", "Int", "Bool", "Object", "SecureObject", "Array"} {
		if strings.EqualFold(c, s) {
			return c
		}
	}
	return s
}

func outputType(t *Template, def *node) string {
	for range 16 {
		if s := def.get("type").text(); s != "" {
			return canonicalType(s)
		}
		next := t.definition(def.get("$ref").text())
		if next == nil {
			break
		}
		def = next
	}
	return "Object"
}

func (t *Template) definition(ref string) *node {
	name, ok := strings.CutPrefix(ref, "#/definitions/")
	if !ok {
		return nil
	}
	return t.defs.get(strings.ReplaceAll(strings.ReplaceAll(name, "~1", "/"), "~0", "~"))
}

func (e *env) nullable(def *node) bool {
	for range 16 {
		if n := def.get("nullable"); n != nil && n.bool {
			return true
		}
		if def = e.t.definition(def.get("$ref").text()); def == nil {
			return false
		}
	}
	return false
}

// checkType checks a value against the definition of a parameter, an output, a
// parameter of a user function or a user-defined type.
func (f *frame) checkType(def *node, v any, what string, depth int) error {
	if depth > 32 {
		return failf("the type of %s is nested deeper than 32 levels", what)
	}
	if err := f.meter.step(1); err != nil {
		return err
	}
	if v == nil && f.nullable(def) {
		return nil
	}
	if ref := def.get("$ref").text(); ref != "" {
		next := f.t.definition(ref)
		if next == nil {
			return failf("the type '%s' of %s is not defined in the template", ref, what)
		}
		if err := f.checkType(next, v, what, depth+1); err != nil {
			return err
		}
	}
	if typ := def.get("type").text(); typ != "" {
		ok := false
		switch strings.ToLower(typ) {
		case "string", "securestring":
			_, ok = v.(string)
		case "int":
			_, ok = v.(int64)
		case "bool":
			_, ok = v.(bool)
		case "object", "secureobject":
			_, ok = v.(*object)
		case "array":
			_, ok = v.([]any)
		}
		if !ok {
			return failf("%s JToken type is not valid. Expected '%s'. Actual '%s'", what, canonicalType(typ), typeName(v))
		}
	}
	if err := f.checkConstraints(def, v, what); err != nil {
		return err
	}
	return f.checkMembers(def, v, what, depth)
}

func (f *frame) checkConstraints(def *node, v any, what string) error {
	if allowed := def.get("allowedValues"); allowed != nil && allowed.kind == kindArray {
		if err := f.checkAllowed(allowed, v, what); err != nil {
			if isSecure(def.get("type").text()) && !errors.Is(err, errTooMuch) {
				return failf("the provided value for the %s is not one of the allowed values", what) // without the secret
			}
			return err
		}
	}
	bound := func(key string) (int64, bool) {
		i, ok := number(numText(def.get(key))).(int64)
		return i, ok && def.get(key) != nil && def.get(key).kind == kindNumber
	}
	if i, ok := v.(int64); ok {
		if lo, ok := bound("minValue"); ok && i < lo {
			return failf("the value of %s is %d, less than the minimum %d", what, i, lo)
		}
		if hi, ok := bound("maxValue"); ok && i > hi {
			return failf("the value of %s is %d, more than the maximum %d", what, i, hi)
		}
	}
	n := -1
	switch v := v.(type) {
	case string:
		n = utf8.RuneCountInString(v)
	case []any:
		n = len(v)
	}
	if n >= 0 {
		if lo, ok := bound("minLength"); ok && int64(n) < lo {
			return failf("the value of %s has length %d, less than the minimum %d", what, n, lo)
		}
		if hi, ok := bound("maxLength"); ok && int64(n) > hi {
			return failf("the value of %s has length %d, more than the maximum %d", what, n, hi)
		}
	}
	return nil
}

func numText(n *node) string {
	if n == nil || n.kind != kindNumber {
		return ""
	}
	return n.str
}

// checkAllowed checks that a value is allowed. An array is also allowed if all
// its elements are.
func (f *frame) checkAllowed(allowed *node, v any, what string) error {
	in := func(v any) (bool, error) {
		for _, a := range allowed.elems {
			want := literal(a)
			if s, ok := want.(string); ok {
				if have, ok := v.(string); ok && strings.EqualFold(s, have) {
					return true, nil
				}
				continue
			}
			if eq, err := f.meter.equal(want, v, 0); eq || err != nil {
				return eq, err
			}
		}
		return false, nil
	}
	ok, err := in(v)
	if err != nil || ok {
		return err
	}
	if arr, isArr := v.([]any); isArr {
		all := true
		for _, e := range arr {
			if ok, err = in(e); err != nil {
				return err
			}
			all = all && ok
		}
		if all {
			return nil
		}
	}
	var list []string
	for _, a := range allowed.elems {
		s, err := f.toString(literal(a))
		if err != nil {
			return err
		}
		list = append(list, s)
	}
	s, err := f.toString(v)
	if err != nil {
		return err
	}
	return failf("the provided value '%s' for the %s is not valid. The value '%s' is not part of the allowed value(s): '%s'", clip(s), what, clip(s), strings.Join(list, ","))
}

// checkMembers checks the properties of an object and the elements of an array
// against a user-defined type.
func (f *frame) checkMembers(def *node, v any, what string, depth int) error {
	switch v := v.(type) {
	case *object:
		if d := def.get("discriminator"); d != nil {
			if err := f.checkVariant(d, v, what, depth); err != nil {
				return err
			}
		}
		props := def.get("properties")
		if props != nil {
			for _, m := range props.members {
				pv, ok := v.get(m.key)
				if !ok {
					if f.nullable(m.val) {
						continue
					}
					return failf("%s has no property '%s'", what, m.key)
				}
				if err := f.checkType(m.val, pv, what+" property '"+m.key+"'", depth+1); err != nil {
					return err
				}
			}
		}
		extra := def.get("additionalProperties")
		if extra == nil {
			return nil
		}
		for _, k := range v.keys {
			if props.get(k) != nil {
				continue
			}
			if extra.kind == kindBool && !extra.bool {
				return failf("%s has an unknown property '%s'", what, k)
			}
			if extra.kind == kindObject {
				if err := f.checkType(extra, v.m[k], what+" property '"+k+"'", depth+1); err != nil {
					return err
				}
			}
		}
	case []any:
		prefix, items := def.get("prefixItems"), def.get("items")
		for i, e := range v {
			var each *node
			if prefix != nil && i < len(prefix.elems) {
				each = prefix.elems[i]
			} else if items != nil && items.kind == kindObject {
				each = items
			}
			if each == nil {
				if items != nil && items.kind == kindBool && !items.bool {
					return failf("%s has more than %d elements", what, i)
				}
				continue
			}
			if err := f.checkType(each, e, what+" element", depth+1); err != nil {
				return err
			}
		}
	}
	return nil
}

// checkVariant checks an object of a tagged union, in which one property, the
// discriminator, names the type.
func (f *frame) checkVariant(d *node, v *object, what string, depth int) error {
	name, mapping := d.get("propertyName").text(), d.get("mapping")
	if name == "" || mapping == nil || mapping.kind != kindObject {
		return failf("the discriminator of %s must have a 'propertyName' and a 'mapping'", what)
	}
	var kinds []string
	for _, m := range mapping.members {
		kinds = append(kinds, m.key)
	}
	got, _ := v.get(name)
	kind, ok := got.(string)
	if !ok {
		return failf("%s has no property '%s', which must name its type: one of '%s'", what, name, strings.Join(kinds, ","))
	}
	for _, m := range mapping.members {
		if m.key == kind {
			return f.checkType(m.val, v, what, depth+1)
		}
	}
	return failf("the provided value '%s' for property '%s' of %s is not valid: it is one of '%s'", clip(kind), name, what, strings.Join(kinds, ","))
}
