// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

// Package armtemplate evaluates Azure Resource Manager deployment templates. It
// performs no I/O, reads no clock and starts no goroutines: except for newGuid,
// the same input always gives the same result. Package arm/resources deploys
// what it returns.
//
//	body, err := armtemplate.DecodeDeploymentBody(request) // as az sends it
//	t, err := armtemplate.Parse(body.Template)             // checks the structure
//	g, err := t.Expand(armtemplate.Input{...})             // unrolls loops, orders resources
//	for each resource, dependencies first:
//	    json, err := g.Resolve(i, runtime)                 // evaluates reference() and list*()
//	outs, err := g.Outputs(runtime)
//
// Expand evaluates everything that does not depend on a deployed resource: it
// checks parameters, evaluates loops and conditions, computes names, types and
// IDs, and resolves explicit and implicit dependencies, which it checks for
// cycles. Resolve and Outputs evaluate the rest (reference, list*) with a
// Runtime.
//
// Templates are untrusted input. Size, nesting, loop counts, evaluation steps
// and produced bytes are bounded by the Max constants, so that a hostile
// template fails in bounded time and memory.
//
// Errors are of type *Error and carry the ARM code, the line and column in the
// template and the path of the value.
package armtemplate

// Limits of a template. Those that Azure documents have Azure's values.
const (
	// MaxTemplateBytes bounds the template's size.
	MaxTemplateBytes = 4 << 20
	// MaxNesting bounds the nesting of JSON values and of expressions.
	MaxNesting = 100
	// MaxExpressionLength bounds one expression, in bytes.
	MaxExpressionLength = 24576
	// MaxCopyCount bounds one copy loop.
	MaxCopyCount = 800
	// MaxResources bounds the resources of one template after unrolling loops.
	MaxResources = 800
	// MaxParameters, MaxVariables and MaxOutputs bound those sections.
	MaxParameters = 256
	MaxVariables  = 512
	MaxOutputs    = 64
	// MaxSteps bounds the evaluation steps of one expansion, and of each
	// Resolve and Outputs.
	MaxSteps = 4_000_000
	// MaxProducedBytes bounds the size of the values that one expansion, and
	// each Resolve and Outputs, may create.
	MaxProducedBytes = 64 << 20
	// MaxRange bounds the length of range().
	MaxRange = 10000
	// maxCallDepth bounds nested calls of user functions, lambdas and variables.
	maxCallDepth = 64
	// maxValueDepth bounds the nesting of computed values.
	maxValueDepth = 200
)
