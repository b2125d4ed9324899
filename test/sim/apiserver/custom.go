// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package apiserver

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	structuralschema "k8s.io/apiextensions-apiserver/pkg/apiserver/schema"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/defaulting"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/pruning"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/validation"
	"k8s.io/apiextensions-apiserver/pkg/registry/customresource"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/apiserver/pkg/registry/rest"
)

// customRules are the present rules of a custom resource; its definition may change.
type customRules struct{ current atomic.Pointer[rules] }

// rules are pruning, defaults and validation of a custom resource, by the API server's
// own code.
type rules struct {
	schema *structuralschema.Structural
	main   strategy
	status rest.RESTUpdateStrategy
}

// strategy is what the API server does with a custom resource but its status.
type strategy interface {
	rest.RESTCreateStrategy
	rest.RESTUpdateStrategy
}

// compiled has the rules of all definitions that the process has seen, by the hash of
// what they depend on: compiling them takes longer than a test.
var compiled sync.Map

// rulesFor returns the rules of a version of a definition.
func rulesFor(crd *apiextensionsv1.CustomResourceDefinition, v *apiextensionsv1.CustomResourceDefinitionVersion) (*rules, error) {
	text, err := json.Marshal([]any{crd.Spec.Group, crd.Spec.Names.Kind, crd.Spec.Scope, v})
	if err != nil {
		return nil, err
	}
	hash := sha256.Sum256(text)
	if c, ok := compiled.Load(hash); ok {
		return c.(*rules), nil
	}
	c, err := compile(crd, v)
	if err == nil {
		compiled.Store(hash, c)
	}
	return c, err
}

func compile(crd *apiextensionsv1.CustomResourceDefinition, v *apiextensionsv1.CustomResourceDefinitionVersion) (*rules, error) {
	if v.Schema == nil || v.Schema.OpenAPIV3Schema == nil {
		return nil, fmt.Errorf("version %s has no schema", v.Name)
	}
	internal := &apiextensions.JSONSchemaProps{}
	if err := apiextensionsv1.Convert_v1_JSONSchemaProps_To_apiextensions_JSONSchemaProps(v.Schema.OpenAPIV3Schema, internal, nil); err != nil {
		return nil, fmt.Errorf("reading the schema of version %s: %w", v.Name, err)
	}
	structural, err := structuralschema.NewStructural(internal)
	if err != nil {
		return nil, fmt.Errorf("reading the schema of version %s: %w", v.Name, err)
	}
	if errs := structuralschema.ValidateStructural(field.NewPath("schema"), structural); len(errs) > 0 {
		return nil, fmt.Errorf("the schema of version %s is not structural: %w", v.Name, errs.ToAggregate())
	}
	validator, _, err := validation.NewSchemaValidator(internal)
	if err != nil {
		return nil, fmt.Errorf("reading the schema of version %s: %w", v.Name, err)
	}
	var status *apiextensions.CustomResourceSubresourceStatus
	var statusValidator validation.SchemaValidator
	if v.Subresources != nil && v.Subresources.Status != nil {
		status = &apiextensions.CustomResourceSubresourceStatus{}
		if part, ok := internal.Properties["status"]; ok {
			if statusValidator, _, err = validation.NewSchemaValidator(&part); err != nil {
				return nil, fmt.Errorf("reading the schema of the status in version %s: %w", v.Name, err)
			}
		}
	}
	kind := schema.GroupVersionKind{Group: crd.Spec.Group, Version: v.Name, Kind: crd.Spec.Names.Kind}
	namespaced := crd.Spec.Scope == apiextensionsv1.NamespaceScoped
	// The rules of the spec need not be run when only the status changes.
	withoutSpec := structural.DeepCopy()
	delete(withoutSpec.Properties, "spec")
	return &rules{
		schema: structural,
		main:   customresource.NewStrategy(nil, namespaced, kind, validator, statusValidator, structural, status, nil, v.SelectableFields),
		status: customresource.NewStatusStrategy(customresource.NewStrategy(nil, namespaced, kind, validator, statusValidator, withoutSpec, status, nil, v.SelectableFields)),
	}, nil
}

// complete prunes what the schema does not know and sets its defaults.
func (c *rules) complete(r *resource, u *unstructured.Unstructured) {
	u.SetGroupVersionKind(r.gvk)
	pruning.Prune(u.Object, c.schema, true)
	defaulting.PruneNonNullableNullsWithoutDefaults(u.Object, c.schema)
	defaulting.Default(u.Object, c.schema)
	if m, ok := u.Object["metadata"].(map[string]any); ok && m["creationTimestamp"] == nil {
		delete(m, "creationTimestamp") // what Go's types send for none
	}
}

// createCustom completes a new object, and returns an error if it is not valid.
func (r *resource) createCustom(u *unstructured.Unstructured) error {
	c := r.custom.current.Load()
	c.complete(r, u)
	c.main.PrepareForCreate(context.Background(), u)
	if errs := c.main.Validate(context.Background(), u); len(errs) > 0 {
		return apierrors.NewInvalid(r.gvk.GroupKind(), u.GetName(), errs)
	}
	return nil
}

// updateCustom returns next as the successor of old, or the error with which the API server
// refuses it. Changes of metadata alone are not validated.
func (r *resource) updateCustom(next, old *unstructured.Unstructured, subresource string) (runtime.Object, error) {
	c := r.custom.current.Load()
	c.complete(r, next)
	var s rest.RESTUpdateStrategy = c.main
	if subresource == "status" {
		s = c.status
	}
	s.PrepareForUpdate(context.Background(), next, old)
	unchanged := len(next.Object) == len(old.Object)
	for k, v := range next.Object {
		unchanged = unchanged && (k == "metadata" || equality.Semantic.DeepEqual(v, old.Object[k]))
	}
	if unchanged {
		return next, nil
	}
	if errs := s.ValidateUpdate(context.Background(), next, old); len(errs) > 0 {
		return nil, apierrors.NewInvalid(r.gvk.GroupKind(), next.GetName(), errs)
	}
	return next, nil
}

// customResource returns the resource that a definition defines, in its stored
// version, without the objects.
func customResource(crd *apiextensionsv1.CustomResourceDefinition) (*resource, error) {
	i := slices.IndexFunc(crd.Spec.Versions, func(v apiextensionsv1.CustomResourceDefinitionVersion) bool { return v.Storage })
	if i < 0 {
		return nil, fmt.Errorf("no version is stored")
	}
	v := &crd.Spec.Versions[i]
	rules, err := rulesFor(crd, v)
	if err != nil {
		return nil, err
	}
	custom := &customRules{}
	custom.current.Store(rules)
	gvk := schema.GroupVersionKind{Group: crd.Spec.Group, Version: v.Name, Kind: crd.Spec.Names.Kind}
	return &resource{
		gvr: gvk.GroupVersion().WithResource(crd.Spec.Names.Plural), gvk: gvk,
		namespaced: crd.Spec.Scope == apiextensionsv1.NamespaceScoped, status: v.Subresources != nil && v.Subresources.Status != nil,
		generations: true, custom: custom,
	}, nil
}

// checkDefinition returns an error unless a definition can be served.
func (s *Server) checkDefinition(crd *apiextensionsv1.CustomResourceDefinition) error {
	var errs field.ErrorList
	if want := crd.Spec.Names.Plural + "." + crd.Spec.Group; crd.Name != want {
		errs = append(errs, field.Invalid(field.NewPath("metadata", "name"), crd.Name, "must be spec.names.plural+\".\"+spec.group"))
	}
	if _, err := customResource(crd); err != nil {
		errs = append(errs, field.Invalid(field.NewPath("spec", "versions"), len(crd.Spec.Versions), err.Error()))
	}
	if len(errs) > 0 {
		return apierrors.NewInvalid(definitionKind.GroupKind(), crd.Name, errs)
	}
	return nil
}

var definitionKind = apiextensionsv1.SchemeGroupVersion.WithKind("CustomResourceDefinition")

// admitDefinition completes a new definition and says in its status that it is served,
// which it is as soon as it is stored.
func (s *Server) admitDefinition(crd *apiextensionsv1.CustomResourceDefinition) error {
	apiextensionsv1.SetObjectDefaults_CustomResourceDefinition(crd)
	names := &crd.Spec.Names
	if names.Singular == "" {
		names.Singular = strings.ToLower(names.Kind)
	}
	if names.ListKind == "" {
		names.ListKind = names.Kind + "List"
	}
	if err := s.checkDefinition(crd); err != nil {
		return err
	}
	crd.Status = apiextensionsv1.CustomResourceDefinitionStatus{AcceptedNames: crd.Spec.Names}
	for _, c := range []apiextensionsv1.CustomResourceDefinitionCondition{
		{Type: apiextensionsv1.NamesAccepted, Reason: "NoConflicts", Message: "no conflicts found"},
		{Type: apiextensionsv1.Established, Reason: "InitialNamesAccepted", Message: "the initial names have been accepted"},
	} {
		c.Status, c.LastTransitionTime = apiextensionsv1.ConditionTrue, now()
		crd.Status.Conditions = append(crd.Status.Conditions, c)
	}
	for _, v := range crd.Spec.Versions {
		if v.Storage {
			crd.Status.StoredVersions = []string{v.Name}
		}
	}
	return nil
}

// definitionChanged serves what a definition defines, by its present schema, or no
// longer. The caller holds the lock.
func (s *Server) definitionChanged(o *object, gone bool) {
	crd, ok := o.obj.(*apiextensionsv1.CustomResourceDefinition)
	if !ok {
		return
	}
	i := slices.IndexFunc(s.ordered, func(r *resource) bool {
		return r.custom != nil && r.gvr.Group == crd.Spec.Group && r.gvr.Resource == crd.Spec.Names.Plural
	})
	if gone {
		if i >= 0 {
			s.drop(i)
		}
		return
	}
	next, err := customResource(crd)
	if err != nil {
		return // checked before: only a direct change of the status can lead here
	}
	switch {
	case i < 0:
		s.serve(next)
	case s.ordered[i].gvr == next.gvr:
		s.ordered[i].custom.current.Store(next.custom.current.Load())
	default: // another version is stored
		s.drop(i)
		s.serve(next)
	}
}

// drop no longer serves a resource; its objects go, and its watches end. The caller
// holds the lock.
func (s *Server) drop(i int) {
	r := s.ordered[i]
	for _, o := range slices.Clone(r.sorted) {
		if last, err := r.newState(copyOf(o.work)); err == nil {
			s.commit(r, watch.Deleted, last, o, actor{verb: "delete"})
		}
	}
	delete(s.resources, r.gvr)
	s.ordered = slices.Delete(s.ordered, i, i+1)
	for _, w := range r.watchers {
		w.last.Store(true)
		w.wake()
	}
}
