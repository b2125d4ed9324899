// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package scenario

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// nodeDecoder is a type that reads itself from a YAML node.
type nodeDecoder interface {
	decodeNode(n *yaml.Node) error
}

var nodeDecoderType = reflect.TypeFor[nodeDecoder]()

// errorAt returns an error that names the line of n.
func errorAt(n *yaml.Node, format string, args ...any) error {
	return fmt.Errorf("line %d: "+format, append([]any{n.Line}, args...)...)
}

// decode stores n in v. Unlike package yaml it refuses unknown and repeated
// fields, converts nothing, and says in each error what may stand there. what
// names the object that n is a part of.
func decode(n *yaml.Node, v reflect.Value, what string) error {
	if n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	if v.Kind() == reflect.Pointer {
		if v.IsNil() {
			v.Set(reflect.New(v.Type().Elem()))
		}
		return decode(n, v.Elem(), what)
	}
	if v.CanAddr() && v.Addr().Type().Implements(nodeDecoderType) {
		return v.Addr().Interface().(nodeDecoder).decodeNode(n)
	}
	switch v.Kind() {
	case reflect.Struct:
		return decodeStruct(n, v, what)
	case reflect.Slice:
		if n.Kind != yaml.SequenceNode {
			return errorAt(n, "%s must be a list", what)
		}
		var errs []error
		for _, item := range n.Content {
			e := reflect.New(v.Type().Elem()).Elem()
			errs = append(errs, decode(item, e, what))
			v.Set(reflect.Append(v, e))
		}
		return errors.Join(errs...)
	case reflect.Map:
		if n.Kind != yaml.MappingNode {
			return errorAt(n, "%s must be a mapping", what)
		}
		v.Set(reflect.MakeMap(v.Type()))
		var errs []error
		for i := 0; i+1 < len(n.Content); i += 2 {
			key := reflect.ValueOf(n.Content[i].Value)
			if v.MapIndex(key).IsValid() {
				errs = append(errs, errorAt(n.Content[i], "%s has %s twice", what, n.Content[i].Value))
				continue
			}
			e := reflect.New(v.Type().Elem()).Elem()
			errs = append(errs, decode(n.Content[i+1], e, what+"."+n.Content[i].Value))
			v.SetMapIndex(key, e)
		}
		return errors.Join(errs...)
	}
	return decodeScalar(n, v, what)
}

func decodeScalar(n *yaml.Node, v reflect.Value, what string) error {
	if n.Kind != yaml.ScalarNode {
		return errorAt(n, "%s must be a single value", what)
	}
	switch v.Kind() {
	case reflect.String:
		if n.Tag == "!!null" {
			return errorAt(n, "%s has no value", what)
		}
		v.SetString(n.Value)
	case reflect.Bool:
		if n.Value != "true" && n.Value != "false" {
			return errorAt(n, "%s is %q: write true or false", what, n.Value)
		}
		v.SetBool(n.Value == "true")
	case reflect.Int:
		i, err := strconv.ParseInt(n.Value, 10, 64)
		if err != nil {
			return errorAt(n, "%s is %q: write a whole number", what, n.Value)
		}
		v.SetInt(i)
	case reflect.Uint64:
		i, err := strconv.ParseUint(n.Value, 10, 64)
		if err != nil {
			return errorAt(n, "%s is %q: write a whole number that is not negative", what, n.Value)
		}
		v.SetUint(i)
	case reflect.Float64:
		f, err := strconv.ParseFloat(n.Value, 64)
		if err != nil {
			return errorAt(n, "%s is %q: write a number", what, n.Value)
		}
		v.SetFloat(f)
	default:
		return errorAt(n, "%s cannot be read from a file", what)
	}
	return nil
}

func decodeStruct(n *yaml.Node, v reflect.Value, what string) error {
	if n.Kind != yaml.MappingNode {
		return errorAt(n, "%s must be a mapping with %s", what, strings.Join(fieldNames(v.Type()), ", "))
	}
	seen := map[string]bool{}
	var errs []error
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		f, ok := fieldByName(v, key.Value)
		switch {
		case !ok:
			errs = append(errs, errorAt(key, "%s has no field %q: %s", what, key.Value, suggest(key.Value, fieldNames(v.Type()))))
		case seen[key.Value]:
			errs = append(errs, errorAt(key, "%s has the field %q twice", what, key.Value))
		default:
			errs = append(errs, decode(value, f, child(what, key.Value)))
		}
		seen[key.Value] = true
	}
	if f := v.FieldByName("Line"); f.IsValid() && f.CanSet() && f.Kind() == reflect.Int {
		f.SetInt(int64(n.Line))
	}
	return errors.Join(errs...)
}

// child returns the name of a field for messages: short, as in the file.
func child(what, field string) string {
	if what == "the scenario" {
		return field
	}
	return what + "." + field
}

func fieldByName(v reflect.Value, name string) (reflect.Value, bool) {
	for i := range v.NumField() {
		f := v.Type().Field(i)
		if f.Anonymous {
			if inner, ok := fieldByName(v.Field(i), name); ok {
				return inner, true
			}
			continue
		}
		if f.Tag.Get("yaml") == name && name != "" {
			return v.Field(i), true
		}
	}
	return reflect.Value{}, false
}

// fieldNames returns the names of the fields of a struct as files have them.
func fieldNames(t reflect.Type) []string {
	var out []string
	for i := range t.NumField() {
		f := t.Field(i)
		if f.Anonymous {
			out = append(out, fieldNames(f.Type)...)
		} else if name := f.Tag.Get("yaml"); name != "" {
			out = append(out, name)
		}
	}
	return out
}

// suggest says what to write instead of word.
func suggest(word string, known []string) string {
	best, least := "", 3
	for _, k := range known {
		if d := distance(strings.ToLower(word), strings.ToLower(k)); d < least {
			best, least = k, d
		}
	}
	if best != "" {
		return fmt.Sprintf("write %q", best)
	}
	known = slices.Sorted(slices.Values(known))
	return "write one of " + strings.Join(known, ", ")
}

// distance returns how many letters must be inserted, removed or changed to turn a
// into b.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		last := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := last
			if a[i] != b[j] {
				cost++
			}
			last = row[j+1]
			row[j+1] = min(cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
