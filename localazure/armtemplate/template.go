// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package armtemplate

import (
	"hash/fnv"
	"strconv"
	"strings"
)

// Template is a deployment template with a valid structure. It is read-only, so
// that it may be expanded concurrently.
type Template struct {
	src  []byte
	root *node
	// Schema and ContentVersion are the values in the template.
	Schema, ContentVersion string
	// Symbolic is true if resources have symbolic names (languageVersion 2.0).
	Symbolic bool

	params    []paramDef
	variables *node
	functions map[string]*function // "namespace.member", lower case
	resources *node
	outputs   *node
	defs      *node // type definitions
}

type paramDef struct {
	name string
	node *node
}

// function is a user-defined function.
type function struct {
	params []member // name and definition
	output *node
}

// Parse parses a template and checks its structure, but not its expressions,
// which are checked when they are evaluated. The error is an *Error with code
// InvalidTemplate, or InvalidRequestContent if src is not JSON.
func Parse(src []byte) (*Template, error) {
	t := &Template{src: src, functions: map[string]*function{}}
	if len(src) > MaxTemplateBytes {
		return nil, t.invalid(-1, "", "The template has %d bytes; at most %d are allowed", len(src), MaxTemplateBytes)
	}
	root, err := readJSON(src, false)
	if err != nil {
		line, col := position(src, offsetOf(err))
		return nil, &Error{Code: CodeInvalidRequestContent, Line: line, Column: col,
			Message: "The request content was invalid and could not be deserialized: '" + err.Error() + ", line " + strconv.Itoa(line) + ", position " + strconv.Itoa(col) + "'."}
	}
	if root.kind != kindObject {
		return nil, t.invalid(root.off, "", "The template must be an object, not %s", root.kind)
	}
	t.root = root
	if err := t.sections(); err != nil {
		return nil, err
	}
	return t, nil
}

var topLevel = map[string]kind{
	"$schema": kindString, "contentversion": kindString, "apiprofile": kindString, "languageversion": kindString,
	"metadata": kindObject, "parameters": kindObject, "variables": kindObject, "functions": kindArray,
	"definitions": kindObject, "outputs": kindObject, "extensions": kindObject, "imports": kindObject, "asserts": kindObject,
}

func (t *Template) sections() *Error {
	for _, m := range t.root.members {
		key := strings.ToLower(m.key)
		if key == "resources" {
			continue
		}
		want, known := topLevel[key]
		if !known {
			return t.invalid(m.off, m.key, "The template has an unknown property '%s'", m.key)
		}
		if m.val.kind != want && m.val.kind != kindNull {
			return t.invalid(m.val.off, m.key, "Template property '%s' must be %s, not %s", m.key, want, m.val.kind)
		}
	}
	for _, k := range []string{"extensions", "imports"} {
		if n := t.root.get(k); n != nil && len(n.members) > 0 {
			return t.invalid(n.off, k, "This Resource Manager has no template extensions: remove '%s'", k)
		}
	}
	t.Schema = t.root.get("$schema").text()
	t.ContentVersion = t.root.get("contentVersion").text()
	if t.Schema == "" {
		return t.invalid(t.root.off, "", "The template has no '$schema', such as 'https://schema.management.azure.com/schemas/2019-04-01/deploymentTemplate.json#'")
	}
	if !strings.Contains(strings.ToLower(t.Schema), "deploymenttemplate.json") {
		n := t.root.get("$schema")
		return t.invalid(n.off, "$schema", "The schema '%s' is not one of a deployment template", t.Schema)
	}
	if t.ContentVersion == "" {
		return t.invalid(t.root.off, "", "The template has no 'contentVersion', such as '1.0.0.0'")
	}
	lang := t.root.get("languageVersion").text()
	if lang != "" && !strings.HasPrefix(lang, "1.") && !strings.HasPrefix(lang, "2.") {
		return t.invalid(t.root.get("languageVersion").off, "languageVersion", "Language version '%s' is not supported: '1.0' and '2.0' are", lang)
	}
	t.variables, t.outputs, t.defs = t.root.get("variables"), t.root.get("outputs"), t.root.get("definitions")
	t.resources = t.root.get("resources")
	switch {
	case t.resources == nil || t.resources.kind == kindNull:
		return t.invalid(t.root.off, "", "Required property 'resources' not found in the template")
	case t.resources.kind == kindArray && strings.HasPrefix(lang, "2."):
		return t.invalid(t.resources.off, "resources", "With language version '%s' resources are an object of symbolic names, not an array", lang)
	case t.resources.kind == kindObject:
		if !strings.HasPrefix(lang, "2.") {
			return t.invalid(t.resources.off, "resources", "Resources with symbolic names need \"languageVersion\": \"2.0\"")
		}
		t.Symbolic = true
	case t.resources.kind != kindArray:
		return t.invalid(t.resources.off, "resources", "Template property 'resources' must be an array or an object, not %s", t.resources.kind)
	}
	if err := t.parameterSection(); err != nil {
		return err
	}
	if n := t.variables; n != nil && len(n.members) > MaxVariables {
		return t.invalid(n.off, "variables", "The template has %d variables; at most %d are allowed", len(n.members), MaxVariables)
	}
	if n := t.outputs; n != nil {
		if len(n.members) > MaxOutputs {
			return t.invalid(n.off, "outputs", "The template has %d outputs; at most %d are allowed", len(n.members), MaxOutputs)
		}
		for _, m := range n.members {
			if m.val.kind != kindObject || m.val.get("type").text() == "" && m.val.get("$ref") == nil || m.val.get("value") == nil && m.val.get("copy") == nil {
				return t.invalid(m.val.off, "outputs."+m.key, "Output '%s' must be an object with 'type' and 'value'", m.key)
			}
		}
	}
	return t.functionSection()
}

func (t *Template) parameterSection() *Error {
	n := t.root.get("parameters")
	if n == nil {
		return nil
	}
	if len(n.members) > MaxParameters {
		return t.invalid(n.off, "parameters", "The template has %d parameters; at most %d are allowed", len(n.members), MaxParameters)
	}
	for _, m := range n.members {
		path := "parameters." + m.key
		if m.val.kind != kindObject {
			return t.invalid(m.val.off, path, "Template parameter '%s' must be an object", m.key)
		}
		if ty := m.val.get("type"); ty == nil && m.val.get("$ref") == nil {
			return t.invalid(m.val.off, path, "Template parameter '%s' has no 'type'", m.key)
		} else if ty != nil && !isParamType(ty.text()) {
			return t.invalid(ty.off, path+".type", "Template parameter '%s' has type '%s', which is not one of string, securestring, int, bool, object, secureObject and array", m.key, ty.text())
		}
		for _, have := range t.params {
			if strings.EqualFold(have.name, m.key) {
				return t.invalid(m.off, path, "Template parameter '%s' is defined twice", m.key)
			}
		}
		t.params = append(t.params, paramDef{m.key, m.val})
	}
	return nil
}

func isParamType(s string) bool {
	switch strings.ToLower(s) {
	case "string", "securestring", "int", "bool", "object", "secureobject", "array":
		return true
	}
	return false
}

func (t *Template) functionSection() *Error {
	n := t.root.get("functions")
	if n == nil {
		return nil
	}
	for i, ns := range n.elems {
		path := "functions[" + strconv.Itoa(i) + "]"
		name, members := ns.get("namespace").text(), ns.get("members")
		if name == "" || members == nil || members.kind != kindObject {
			return t.invalid(ns.off, path, "A functions entry must have a 'namespace' and 'members'")
		}
		for _, m := range members.members {
			f := &function{output: m.val.get("output").get("value")}
			path := path + ".members." + m.key
			if f.output == nil {
				return t.invalid(m.val.off, path, "Function '%s.%s' has no output with a value", name, m.key)
			}
			if ps := m.val.get("parameters"); ps != nil {
				for _, p := range ps.elems {
					pn := p.get("name").text()
					if pn == "" {
						return t.invalid(p.off, path, "A parameter of function '%s.%s' has no name", name, m.key)
					}
					f.params = append(f.params, member{key: pn, val: p})
				}
			}
			t.functions[strings.ToLower(name+"."+m.key)] = f
		}
	}
	return nil
}

// Hash returns the hash of the template that deployments report: decimal digits
// that depend on all of the template.
func (t *Template) Hash() string {
	h := fnv.New64a()
	if b, err := (&meter{}).encode(literal(t.root)); err == nil {
		h.Write(b)
	}
	return strconv.FormatUint(h.Sum64(), 10)
}
