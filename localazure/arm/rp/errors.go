// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package rp

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
)

// Error is an ARM error, sent to clients as {"error":{code,message,…}}.
type Error struct {
	// Status is the HTTP status.
	Status  int            `json:"-"`
	Code    string         `json:"code"`
	Message string         `json:"message"`
	Target  string         `json:"target,omitempty"`
	Details []Error        `json:"details,omitempty"`
	Info    []any          `json:"additionalInfo,omitempty"`
	Extra   map[string]any `json:"-"`
	// Flat omits the "error" wrapper, as AKS does.
	Flat bool `json:"-"`
	// Header has further response headers.
	Header http.Header `json:"-"`
}

// Error implements error.
func (e *Error) Error() string { return e.Code + ": " + e.Message }

// Errorf returns an Error.
func Errorf(status int, code, format string, args ...any) *Error {
	return &Error{Status: status, Code: code, Message: fmt.Sprintf(format, args...)}
}

// At sets the target: the invalid property.
func (e *Error) At(target string) *Error { e.Target = target; return e }

// AsError returns the ARM error in err's chain, or a 500.
func AsError(err error) *Error {
	var e *Error
	if errors.As(err, &e) {
		return e
	}
	return Errorf(http.StatusInternalServerError, "InternalServerError", "%v", err)
}

// WriteError writes an ARM error response.
func WriteError(w http.ResponseWriter, err error) {
	e := AsError(err)
	for k, v := range e.Header {
		w.Header()[k] = v
	}
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	var body any = map[string]any{"error": e}
	if e.Flat {
		flat := map[string]any{"code": e.Code, "message": e.Message, "details": nil, "subcode": ""}
		if e.Target != "" {
			flat["target"] = e.Target
		}
		if len(e.Details) > 0 {
			flat["details"] = e.Details
		}
		for k, v := range e.Extra {
			flat[k] = v
		}
		body = flat
	}
	b, merr := json.Marshal(body)
	if merr != nil {
		b = []byte(`{"error":{"code":"InternalServerError","message":"the error could not be encoded"}}`)
	}
	status := e.Status
	if status == 0 {
		status = http.StatusInternalServerError
	}
	w.WriteHeader(status)
	_, _ = w.Write(b)
}

// NotFound returns the gateway's answer for a resource that does not exist.
func NotFound(id ID) *Error {
	h := http.Header{"X-Ms-Failure-Cause": {"gateway"}}
	if id.Namespace == "" {
		if id.ResourceGroup != "" {
			return &Error{Status: 404, Code: "ResourceGroupNotFound", Message: fmt.Sprintf("Resource group '%s' could not be found.", id.ResourceGroup), Header: h}
		}
		return SubscriptionNotFound(id.Subscription)
	}
	name := ""
	for i, n := range id.Names {
		if i > 0 {
			name += "/"
		}
		name += n
	}
	where := "subscription '" + id.Subscription + "'"
	if id.ResourceGroup != "" {
		where = "resource group '" + id.ResourceGroup + "'"
	}
	return &Error{Status: 404, Code: "ResourceNotFound", Header: h, Message: fmt.Sprintf(
		"The Resource '%s/%s' under %s was not found. For more details please go to https://aka.ms/ARMResourceNotFoundFix", id.Type(), name, where)}
}

// SubscriptionNotFound returns the answer for an unknown subscription.
func SubscriptionNotFound(sub string) *Error {
	return Errorf(404, "SubscriptionNotFound", "The subscription '%s' could not be found.", sub)
}

// BadRequest returns a 400.
func BadRequest(code, format string, args ...any) *Error {
	return Errorf(http.StatusBadRequest, code, format, args...)
}

// Conflict returns a 409.
func Conflict(code, format string, args ...any) *Error {
	return Errorf(http.StatusConflict, code, format, args...)
}

// IsError reports whether err is or wraps an *Error. Such an error is for the
// client; a retry does not help.
func IsError(err error) bool {
	var e *Error
	return errors.As(err, &e)
}
