// Package armtemplate reads Azure Resource Manager deployment templates and works
// out what they ask for. It is pure: bytes and values in, values out; it does
// no I/O, reads no clock and starts no goroutine, so the same input always
// gives the same answer. Package arm/resources executes what it returns.
//
//	body, err := template.DecodeDeploymentBody(request)   // what az really sends
//	t, err := template.Parse(body.Template)               // structure checked
//	g, err := t.Expand(template.Input{...})                // loops unrolled, order known
//	for each resource, dependencies first:
//	    json, err := g.Resolve(i, runtime)                // reference(), list*() answered
//	outs, err := g.Outputs(runtime)
//
// Everything that can be known before anything is deployed is known after
// Expand: parameters are checked, loops and conditions evaluated, names, types
// and IDs computed, explicit and implicit dependencies turned into indices and
// proven free of cycles. What needs a deployed resource (reference, list*)
// waits for Resolve and Outputs, which ask the Runtime.
//
// A template is input from a stranger: size, nesting, loop counts, evaluation
// steps and produced bytes are all bounded (see the Max constants), so that a
// hostile one gets an error in bounded time and memory.
//
// Errors are of type *Error and carry the ARM code, the line and column in the
// template and the path of the offending value.
package armtemplate

// Limits on what a template may ask for. Those that Azure documents have
// Azure's value.
const (
	// MaxTemplateBytes bounds the template's size.
	MaxTemplateBytes = 4 << 20
	// MaxNesting bounds the nesting of JSON values and of expressions.
	MaxNesting = 100
	// MaxExpressionLength bounds one expression, in bytes.
	MaxExpressionLength = 24576
	// MaxCopyCount bounds one copy loop.
	MaxCopyCount = 800
	// MaxResources bounds the resources of one template, loops unrolled.
	MaxResources = 800
	// MaxParameters, MaxVariables and MaxOutputs bound those sections.
	MaxParameters = 256
	MaxVariables  = 512
	MaxOutputs    = 64
	// MaxSteps bounds the evaluation steps of one expansion, and of each
	// Resolve and Outputs.
	MaxSteps = 4_000_000
	// MaxProducedBytes bounds the memory that evaluation may produce in one
	// expansion, and in each Resolve and Outputs.
	MaxProducedBytes = 64 << 20
	// MaxRange bounds the length of range().
	MaxRange = 10000
	// maxCallDepth bounds calls in flight: user functions, lambdas, variables.
	maxCallDepth = 64
	// maxValueDepth bounds the nesting of computed values.
	maxValueDepth = 200
)
