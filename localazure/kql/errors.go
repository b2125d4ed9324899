// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package kql

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

// Error is an error in a query. Line and Pos are its position, from 1, and Token
// is the text there; Line is 0 if it has no position.
type Error struct {
	// Code is SyntaxError, SemanticError or LimitError.
	Code string
	// ID is Kusto's number of the error, such as SYN0002; may be empty.
	ID      string
	Message string
	Line    int
	Pos     int
	Token   string
}

func (e *Error) Error() string {
	if e.Line == 0 {
		return e.Code + ": " + e.Message
	}
	return fmt.Sprintf("%s: %s at line %d, position %d", e.Code, e.Message, e.Line, e.Pos)
}

// Codes of an Error.
const (
	SyntaxError   = "SyntaxError"
	SemanticError = "SemanticError"
	LimitError    = "LimitError"
)

func located(code, src string, t token, msg string) *Error {
	off := max(0, min(t.off, len(src)))
	line := 1 + strings.Count(src[:off], "\n")
	col := utf8.RuneCountInString(src[strings.LastIndexByte(src[:off], '\n')+1:off]) + 1
	return &Error{Code: code, Message: msg, Line: line, Pos: col, Token: src[off:max(off, min(t.end, len(src)))]}
}

func syntax(src string, t token, msg string) error {
	e := located(SyntaxError, src, t, msg)
	e.ID = "SYN0002"
	return e
}

func semantic(src string, t token, msg string) error { return located(SemanticError, src, t, msg) }

// unresolved returns the error for an unknown name.
func unresolved(src string, t token, msg string) error {
	e := located(SemanticError, src, t, msg)
	e.ID = "SEM0100"
	return e
}
