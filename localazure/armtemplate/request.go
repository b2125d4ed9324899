// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package armtemplate

import (
	"encoding/json"
	"strconv"
	"strings"
)

// DeploymentBody is the body of a deployment request.
type DeploymentBody struct {
	// Location is the location of a deployment at subscription scope.
	Location string
	// Mode is Incremental, the default, or Complete.
	Mode string
	// Template is the template as in the request, including comments; nil if
	// there was none.
	Template []byte
	// TemplateLink is properties.templateLink as JSON; nil if there was none.
	TemplateLink json.RawMessage
	// Parameters are the values by name, each as JSON.
	Parameters map[string]json.RawMessage
	// Tags are the tags of the deployment.
	Tags map[string]string
	// ResultFormat is whatIfSettings.resultFormat.
	ResultFormat string
	// Inner is true if expressionEvaluationOptions.scope is Inner.
	Inner bool
}

// DecodeDeploymentBody decodes the body of a deployment PUT, validate or whatIf.
// The body need not be valid JSON: az inserts the template file, with its
// comments and line breaks, under a key without quotes. The error is an *Error
// with code InvalidRequestContent, or RequestContentTooLarge for a body of more
// than twice MaxTemplateBytes.
func DecodeDeploymentBody(body []byte) (*DeploymentBody, error) {
	if len(body) > 2*MaxTemplateBytes {
		return nil, &Error{Code: CodeRequestTooLarge, Message: "The request content size exceeds the maximum size of " + strconv.Itoa(2*MaxTemplateBytes>>20) + " MB."}
	}
	bad := func(off int, msg string) error {
		line, col := position(body, off)
		return &Error{Code: CodeInvalidRequestContent, Line: line, Column: col,
			Message: "The request content was invalid and could not be deserialized: '" + msg + ", line " + strconv.Itoa(line) + ", position " + strconv.Itoa(col) + "'."}
	}
	root, err := readJSON(body, true)
	if err != nil {
		return nil, bad(offsetOf(err), err.Error())
	}
	if root.kind != kindObject {
		return nil, bad(root.off, "the content must be an object")
	}
	props := root.get("properties")
	if props == nil || props.kind != kindObject {
		return nil, bad(root.off, "required property 'properties' not found in JSON")
	}
	out := &DeploymentBody{Mode: "Incremental", Location: root.get("location").text(), Parameters: map[string]json.RawMessage{}}
	if tags := root.get("tags"); tags != nil && tags.kind == kindObject {
		out.Tags = map[string]string{}
		for _, m := range tags.members {
			out.Tags[m.key] = m.val.text()
		}
	}
	if m := props.get("mode"); m != nil && m.kind != kindNull {
		switch {
		case strings.EqualFold(m.text(), "Incremental"):
		case strings.EqualFold(m.text(), "Complete"):
			out.Mode = "Complete"
		default:
			return nil, bad(m.off, "deployment mode must be 'Incremental' or 'Complete'")
		}
	}
	if tn := props.get("template"); tn != nil && tn.kind != kindNull {
		if tn.kind == kindString { // the template as a string
			out.Template = []byte(tn.str)
		} else {
			out.Template = body[tn.off:tn.end]
		}
	}
	m := &meter{}
	if tl := props.get("templateLink"); tl != nil && tl.kind != kindNull {
		if out.TemplateLink, err = m.encode(literal(tl)); err != nil {
			return nil, bad(tl.off, err.Error())
		}
	}
	out.ResultFormat = props.get("whatIfSettings").get("resultFormat").text()
	out.Inner = strings.EqualFold(props.get("expressionEvaluationOptions").get("scope").text(), "Inner")
	if ps := props.get("parameters"); ps != nil && ps.kind != kindNull {
		if ps.kind != kindObject {
			return nil, bad(ps.off, "'parameters' must be an object")
		}
		if f := ps.get("parameters"); f != nil && f.kind == kindObject && ps.get("$schema") != nil {
			ps = f // the content of a parameters file
		}
		for _, p := range ps.members {
			if p.val.kind != kindObject {
				return nil, bad(p.val.off, "parameter '"+p.key+"' must be an object with a 'value'")
			}
			if p.val.get("reference") != nil {
				return nil, bad(p.val.off, "parameter '"+p.key+"' is a Key Vault reference, and this Resource Manager has no Key Vault: give the value instead")
			}
			v := p.val.get("value")
			if v == nil {
				return nil, bad(p.val.off, "parameter '"+p.key+"' has no 'value'")
			}
			enc, err := m.encode(literal(v))
			if err != nil {
				return nil, bad(v.off, err.Error())
			}
			out.Parameters[p.key] = enc
		}
	}
	return out, nil
}
