// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package armtemplate

import (
	"strings"
)

// bodies evaluates the dependencies and bodies of all resources.
func (g *Graph) bodies() error {
	if err := g.edges(); err != nil {
		return err
	}
	t := g.env.t
	for i := range g.Resources {
		r := &g.Resources[i]
		if r.Existing || !r.Condition {
			continue
		}
		what := "resource '" + r.Name + "'"
		lenient := *g.env
		lenient.keep = true
		f := &frame{env: &lenient, loops: r.loops}
		body, err := f.body(r)
		if err != nil {
			return t.public(what, "", err)
		}
		r.Deferred = lenient.skipped
		if r.Body, err = g.env.meter.encode(body); err != nil {
			return t.public(what, "", err)
		}
		if loc, ok := body.get("location"); ok {
			if s, ok := loc.(string); ok && !(r.Deferred && isExpression(s)) {
				r.Location = s
			}
		}
	}
	return nil
}

func (r *Resource) isDeployment() bool {
	return strings.EqualFold(r.Type, "Microsoft.Resources/deployments")
}

func (r *Resource) isInnerDeployment() bool {
	return r.isDeployment() && isInner(r.node.get("properties"))
}

func isInner(props *node) bool {
	return strings.EqualFold(props.get("expressionEvaluationOptions").get("scope").text(), "inner")
}

func withoutTemplate(props *node) *node {
	if props == nil || props.kind != kindObject {
		return props
	}
	c := *props
	c.members = nil
	for _, m := range props.members {
		if !strings.EqualFold(m.key, "template") {
			c.members = append(c.members, m)
		}
	}
	return &c
}

// body evaluates the body of the PUT request for a resource.
func (f *frame) body(r *Resource) (*object, error) {
	o := newObject()
	for _, m := range r.node.members {
		key := strings.ToLower(m.key)
		if keywords[key] {
			continue
		}
		if key == "properties" && r.isDeployment() && m.val.kind == kindObject {
			p, err := f.deploymentProperties(m.val)
			if err != nil {
				return nil, under("."+m.key, err)
			}
			o.set(m.key, p)
			continue
		}
		if err := f.member(o, m); err != nil {
			return nil, err
		}
	}
	return o, nil
}
