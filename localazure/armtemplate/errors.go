// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package armtemplate

import (
	"bytes"
	"errors"
	"fmt"
	"unicode/utf8"
)

// Error codes of this package.
const (
	CodeInvalidTemplate       = "InvalidTemplate"
	CodeInvalidRequestContent = "InvalidRequestContent"
	CodeRequestTooLarge       = "RequestContentTooLarge"
	CodeOutputEvaluation      = "DeploymentOutputEvaluationFailed"
)

// Error is an error in a template or its parameters.
type Error struct {
	// Code is an ARM error code, such as InvalidTemplate.
	Code string
	// Message is a full sentence for the error body. It includes the position
	// and the path if they are known.
	Message string
	// Line and Column are the position in the template, from 1; 0 is unknown.
	Line, Column int
	// Path is the path of the value in the template, such as
	// "resources[0].properties.agentPoolProfiles"; empty is unknown.
	Path string
}

func (e *Error) Error() string { return e.Code + ": " + e.Message }

// evalError is an error of evaluation. The callers of the evaluator add the
// offset and the path.
type evalError struct {
	msg  string
	off  int // -1: not yet known
	path string
	err  error // errDeferred, a Runtime's error, or nil
}

func (e *evalError) Error() string { return e.msg }

func (e *evalError) Unwrap() error { return e.err }

// errDeferred is returned for a value that depends on a deployed resource.
var errDeferred = errors.New("the value is known only once the resource is deployed")

func failf(format string, args ...any) error {
	return &evalError{msg: fmt.Sprintf(format, args...), off: -1}
}

// at sets the node that an error came from, unless it is already set.
func at(n *node, err error) error {
	if err == nil || n == nil {
		return err
	}
	var ee *evalError
	if !errors.As(err, &ee) {
		ee = &evalError{msg: err.Error(), off: -1, err: err}
	}
	if ee.off < 0 {
		ee.off = n.off
	}
	return ee
}

// under prepends a path segment (".key" or "[3]") to the path of an error.
func under(seg string, err error) error {
	if err == nil {
		return nil
	}
	var ee *evalError
	if !errors.As(err, &ee) {
		ee = &evalError{msg: err.Error(), off: -1, err: err}
	}
	ee.path = seg + ee.path
	return ee
}

// position converts a byte offset to a line and a column, both from 1.
func position(src []byte, off int) (line, col int) {
	off = max(0, min(off, len(src)))
	line = 1 + bytes.Count(src[:off], []byte{'\n'})
	start := bytes.LastIndexByte(src[:off], '\n') + 1
	return line, 1 + utf8.RuneCount(src[start:off])
}

// invalid returns an InvalidTemplate error at an offset; -1 is unknown.
func (t *Template) invalid(off int, path, format string, args ...any) *Error {
	e := &Error{Code: CodeInvalidTemplate, Path: path}
	msg := fmt.Sprintf(format, args...)
	if off >= 0 {
		e.Line, e.Column = position(t.src, off)
		msg += fmt.Sprintf(" (line '%d', column '%d'", e.Line, e.Column)
		if path != "" {
			msg += ", path '" + path + "'"
		}
		msg += ")"
	}
	e.Message = "Deployment template validation failed: '" + msg + "'."
	return e
}

// public converts an error of evaluation to an *Error; what names the part of
// the template ("resource 'aks'"). It wraps the error of a Runtime.
func (t *Template) public(what, root string, err error) error {
	if err == nil {
		return nil
	}
	var te *Error
	if errors.As(err, &te) {
		return err
	}
	var ee *evalError
	if !errors.As(err, &ee) {
		ee = &evalError{msg: err.Error(), off: -1, err: err}
	}
	out := t.invalid(ee.off, root+ee.path, "Unable to process template language expressions for %s: %s", what, ee.msg)
	if ee.err != nil && !errors.Is(ee.err, errDeferred) && !errors.Is(ee.err, errTooMuch) {
		return &wrapped{out, ee.err}
	}
	return out
}

// wrapped is an *Error that also wraps the error of a Runtime.
type wrapped struct {
	outer *Error
	inner error
}

func (w *wrapped) Error() string { return w.outer.Error() }

func (w *wrapped) Unwrap() []error { return []error{w.outer, w.inner} }
