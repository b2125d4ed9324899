// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package resources

import (
	"context"
	"encoding/json"
	"path"
	"regexp"
	"strings"

	"github.com/nap-aks/nap/localazure/arm/rp"
	"github.com/nap-aks/nap/localazure/armtemplate"
)

const (
	specType        = "Microsoft.Resources/templateSpecs"
	specVersionType = specType + "/versions"
	// maxSpecBytes limits the templates of one version, which are one record.
	maxSpecBytes = 1 << 20
)

var specVersions = []string{"2022-02-01", "2021-05-01", "2021-03-01-preview", "2019-06-01-preview"}

// addSpecs registers template specs: stored templates with versions, deployed by
// their ID.
func (p *Provider) addSpecs() {
	rule := regexp.MustCompile(`^[-\w\._\(\)]{1,90}$`)
	const help = "The name of a template spec and of its versions has 1 to 90 letters, digits, dots, dashes, underscores and parentheses."
	p.env.Add(
		&rp.Type{Name: specType, Versions: specVersions, Tracked: true, NoState: true, NameRule: rule, NameHelp: help,
			Prepare: func(_ context.Context, c *rp.Change) error {
				if c.Doc.Map("properties") == nil {
					c.Doc.Set(map[string]any{}, "properties")
				}
				c.Doc.Drop("properties", "versions")
				return nil
			}},
		&rp.Type{Name: specVersionType, Versions: specVersions, Tracked: true, NoState: true, NameRule: rule, NameHelp: help, Prepare: prepareSpec},
	)
}

func prepareSpec(_ context.Context, c *rp.Change) error {
	if c.Patch { // tags only
		return nil
	}
	props, ok := c.Sent.Lookup("properties")
	m, isMap := props.(map[string]any)
	if !ok || !isMap {
		return rp.BadRequest("InvalidTemplateSpec", "The template spec version '%s' has no properties.", c.ID).At("properties")
	}
	sent := rp.Doc(m).Clone() // as sent: null is a value in a template
	b, err := json.Marshal(sent)
	if err != nil {
		return rp.BadRequest("InvalidTemplateSpec", "The template spec version '%s' cannot be stored: %v.", c.ID, err)
	}
	if len(b) > maxSpecBytes {
		return rp.BadRequest("TemplateSpecTooLarge", "The templates of '%s' take %d bytes; at most %d can be kept in one version.", c.ID, len(b), maxSpecBytes).At("properties")
	}
	check := func(v any, target string) error {
		t, ok := v.(map[string]any)
		if !ok {
			return rp.BadRequest("InvalidTemplateSpec", "%s of '%s' must be a template.", target, c.ID).At("properties." + target)
		}
		b, err := json.Marshal(t)
		if err != nil {
			return err
		}
		if _, err := armtemplate.Parse(b); err != nil {
			return templateError(err)
		}
		return nil
	}
	if err := check(sent["mainTemplate"], "mainTemplate"); err != nil {
		return err
	}
	seen := map[string]bool{}
	for _, x := range sent.List("linkedTemplates") {
		l, _ := x.(map[string]any)
		at := rp.Doc(l).Str("path")
		if at == "" || path.IsAbs(at) || seen[linkedPath(at)] {
			return rp.BadRequest("InvalidTemplateSpec", "The paths of the linkedTemplates of '%s' must be relative, and each there once; one is '%s'.", c.ID, at).At("properties.linkedTemplates")
		}
		seen[linkedPath(at)] = true
		if err := check(l["template"], "linkedTemplates"); err != nil {
			return err
		}
	}
	c.Doc["properties"] = map[string]any(sent)
	return nil
}

func linkedPath(s string) string { return strings.ToLower(path.Clean(strings.ReplaceAll(s, `\`, "/"))) }

// linked returns the template of a templateLink: a version of a template spec, or
// a linked template of such a version. Nothing is fetched from the network.
func (p *Provider) linked(ctx context.Context, caller rp.Principal, link json.RawMessage, parent *request) (text string, set map[string]string, at string, err error) {
	var l struct{ ID, URI, RelativePath string }
	if err := json.Unmarshal(link, &l); err != nil {
		return "", nil, "", rp.BadRequest("InvalidTemplateLink", "The templateLink is not an object of strings: %v.", err).At("properties.templateLink")
	}
	switch {
	case l.ID != "":
		return p.spec(ctx, caller, l.ID)
	case l.RelativePath != "":
		if parent == nil || parent.Linked == nil {
			return "", nil, "", rp.BadRequest("InvalidTemplateLink", "The templateLink has the relativePath '%s', and the template that it is relative to did not come from a template spec: this Resource Manager fetches nothing. Write the linked template in place of the link (az bicep build does), or deploy a template spec that holds both (az ts create).", l.RelativePath).At("properties.templateLink.relativePath")
		}
		name := linkedPath(path.Join(path.Dir(parent.Path), l.RelativePath))
		text, ok := parent.Linked[name]
		if !ok {
			return "", nil, "", rp.BadRequest("InvalidTemplateLink", "The template spec has no linked template '%s'.", l.RelativePath).At("properties.templateLink.relativePath")
		}
		return text, parent.Linked, name, nil
	}
	return "", nil, "", rp.BadRequest("InvalidTemplateLink", "This Resource Manager fetches no templates from the network, and the templateLink is to '%s'. Send the template itself in properties.template (az deployment group create --template-file), or store it as a template spec (az ts create) and deploy that by its ID.", l.URI).At("properties.templateLink.uri")
}

func (p *Provider) spec(ctx context.Context, caller rp.Principal, s string) (text string, set map[string]string, at string, err error) {
	id, err := rp.ParseID(s)
	if err != nil || !strings.EqualFold(id.Type(), specVersionType) || id.IsCollection() {
		return "", nil, "", rp.BadRequest("InvalidTemplateLink", "'%s' is not the ID of a version of a template spec: .../providers/%s/<name>/versions/<version>.", s, specType).At("properties.templateLink.id")
	}
	if err := p.env.Authorize(ctx, caller, specVersionType+"/read", id); err != nil {
		return "", nil, "", err
	}
	r, err := p.env.Store.Get(ctx, id)
	if err != nil {
		return "", nil, "", err
	}
	if r == nil {
		return "", nil, "", rp.Errorf(404, "TemplateSpecVersionNotFound", "The template spec version '%s' could not be found.", s)
	}
	set = map[string]string{}
	write := func(v any) string {
		b, e := json.Marshal(v)
		if e != nil {
			err = e
		}
		return string(b)
	}
	for _, x := range r.Doc.List("properties", "linkedTemplates") {
		if l, ok := x.(map[string]any); ok {
			set[linkedPath(rp.Doc(l).Str("path"))] = write(l["template"])
		}
	}
	main, _ := r.Doc.Lookup("properties", "mainTemplate")
	text = write(main)
	return text, set, "", err
}
