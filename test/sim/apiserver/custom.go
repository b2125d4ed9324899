// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package apiserver

import (
	"context"
	"encoding/json"
	"fmt"

	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	structuralschema "k8s.io/apiextensions-apiserver/pkg/apiserver/schema"
	schemacel "k8s.io/apiextensions-apiserver/pkg/apiserver/schema/cel"
	structuraldefaulting "k8s.io/apiextensions-apiserver/pkg/apiserver/schema/defaulting"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/validation"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"
	utiljson "k8s.io/apimachinery/pkg/util/json"
	"k8s.io/apimachinery/pkg/util/validation/field"
	celconfig "k8s.io/apiserver/pkg/apis/cel"
)

// customRules are the defaults and the validation of a custom resource, by the API
// server's own code.
type customRules struct {
	schema    *structuralschema.Structural
	validator validation.SchemaValidator
	rules     *schemacel.Validator
}

func newCustomRules(v *apiextensionsv1.CustomResourceDefinitionVersion) (*customRules, error) {
	if v.Schema == nil || v.Schema.OpenAPIV3Schema == nil {
		return &customRules{}, nil
	}
	internal := &apiextensions.CustomResourceValidation{}
	if err := apiextensionsv1.Convert_v1_CustomResourceValidation_To_apiextensions_CustomResourceValidation(v.Schema, internal, nil); err != nil {
		return nil, fmt.Errorf("reading the schema: %w", err)
	}
	structural, err := structuralschema.NewStructural(internal.OpenAPIV3Schema)
	if err != nil {
		return nil, fmt.Errorf("reading the schema: %w", err)
	}
	validator, _, err := validation.NewSchemaValidator(internal.OpenAPIV3Schema)
	if err != nil {
		return nil, fmt.Errorf("reading the schema: %w", err)
	}
	return &customRules{schema: structural, validator: validator, rules: schemacel.NewValidator(structural, true, celconfig.PerCallLimit)}, nil
}

// validate returns the object with defaults, or the error with which the API server
// refuses it. old is nil for a new object.
func (c *customRules) validate(r *resource, o, old runtime.Object) (runtime.Object, error) {
	if c.schema == nil {
		return o, nil
	}
	content, err := contentOf(o)
	if err != nil {
		return nil, apierrors.NewInternalError(err)
	}
	delete(content, "status") // is not part of a request that the rules are for
	structuraldefaulting.PruneNonNullableNullsWithoutDefaults(content, c.schema)
	structuraldefaulting.Default(content, c.schema)
	var before map[string]any
	if old != nil {
		if before, err = contentOf(old); err != nil {
			return nil, apierrors.NewInternalError(err)
		}
		delete(before, "status")
	}
	errs := validation.ValidateCustomResource(nil, content, c.validator)
	if len(errs) == 0 && c.rules != nil {
		var previous any
		if before != nil {
			previous = before
		}
		var more field.ErrorList
		more, _ = c.rules.Validate(context.Background(), nil, c.schema, content, previous, celconfig.RuntimeCELCostBudget)
		errs = append(errs, more...)
	}
	if len(errs) > 0 {
		return nil, apierrors.NewInvalid(r.gvk().GroupKind(), accessor(o).GetName(), errs)
	}
	text, err := json.Marshal(content)
	if err != nil {
		return nil, apierrors.NewInternalError(err)
	}
	out := o.DeepCopyObject()
	clearField(out, "Spec")
	if err := json.Unmarshal(text, out); err != nil {
		return nil, apierrors.NewInternalError(err)
	}
	return out, nil
}

// contentOf returns an object as JSON's maps and lists.
func contentOf(o runtime.Object) (map[string]any, error) {
	text, err := json.Marshal(o)
	if err != nil {
		return nil, err
	}
	var out map[string]any
	return out, utiljson.Unmarshal(text, &out) // whole numbers become int64, as in the API server
}
