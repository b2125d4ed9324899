// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package kql

import (
	"errors"
	"strings"
	"testing"
)

func TestErrorsGiveThePosition(t *testing.T) {
	for _, c := range []struct {
		query, code, want string
		line, pos         int
	}{
		{`AzureDiagnostics | whre Level == "x"`, SyntaxError, "the operator 'whre' is not supported", 1, 20},
		{"AzureDiagnostics\n| where Level = \"x\"", SyntaxError, "unexpected '='", 2, 15},
		{`AzureDiagnostics | where level == "x"`, SemanticError, "failed to resolve column named 'level'; did you mean 'Level'?", 1, 26},
		{`azurediagnostics`, SemanticError, "did you mean 'AzureDiagnostics'?", 1, 1},
		{`Nothing | count`, SemanticError, "failed to resolve table named 'Nothing'", 1, 1},
		{`AzureDiagnostics | where Level == 5`, SemanticError, "cannot compare values of types string and long", 1, 32},
		{`AzureDiagnostics | where Level`, SemanticError, "where needs a condition", 1, 26},
		{`AzureDiagnostics | extend x = foo(1)`, SemanticError, "unknown function 'foo'", 1, 31},
		{`AzureDiagnostics | extend x = count()`, SemanticError, "can only be used in summarize", 1, 31},
		{`AzureDiagnostics | extend x = substring("a")`, SemanticError, "takes 2 to 3 arguments, not 1", 1, 31},
		{`AzureDiagnostics | where Level == "x`, SyntaxError, "the string is not closed", 1, 35},
		{`AzureDiagnostics | take -1`, SemanticError, "must be an integer that is not negative", 1, 25},
		{`AzureDiagnostics |`, SyntaxError, "expected an operator after '|' and found the end of the query", 1, 19},
		{`AzureDiagnostics | where (Level == "x"`, SyntaxError, "expected ')'", 1, 39},
		{`AzureDiagnostics | where Level matches regex "("`, SemanticError, "regular expression is not valid", 1, 46},
		{`AzureDiagnostics | project a = 1, a = 2`, SemanticError, "projected twice", 1, 35},
		{`AzureDiagnostics | where x ~ 1`, SyntaxError, "has no meaning here", 1, 28},
		{`AzureDiagnostics | project datetime(yesterday)`, SyntaxError, "is not a date and time", 1, 28},
		{`print ` + strings.Repeat("(", 100) + `1`, SyntaxError, "nested deeper than 64", 1, 70},
		{``, SyntaxError, "a query starts with a table", 1, 1},
	} {
		_, err := query(t.Context(), c.query)
		var qe *Error
		if !errors.As(err, &qe) || qe.Code != c.code || !strings.Contains(qe.Message, c.want) {
			t.Errorf("%s\n got %v\nwant %s %q", c.query, err, c.code, c.want)
		} else if qe.Line != c.line || qe.Pos != c.pos {
			t.Errorf("%s\nposition %d:%d, want %d:%d", c.query, qe.Line, qe.Pos, c.line, c.pos)
		}
	}
	_, err := query(t.Context(), strings.Repeat("x", MaxQueryBytes+1))
	var qe *Error
	if !errors.As(err, &qe) || qe.Code != LimitError {
		t.Errorf("a query of more than 64 KiB: %v", err)
	}
}

func TestOperatorErrorsGiveThePosition(t *testing.T) {
	for _, c := range []struct {
		query, code, want string
		line, pos         int
	}{
		{`AKSControlPlane | join AKSAudit`, SyntaxError, "expected 'on' with the columns", 1, 32},
		{`AKSControlPlane | join kind=sideways AKSAudit on Level`, SyntaxError, "kind must be one of inner, innerunique", 1, 29},
		{`AKSControlPlane | join AKSAudit on Message`, SemanticError, "failed to resolve column named 'Message' of the join's right side", 1, 36},
		{`AKSControlPlane | join AKSAudit on $left.Level`, SyntaxError, "expected '=='", 1, 47},
		{`AKSControlPlane | join AKSAudit on $left.Level == $left.Level`, SyntaxError, "one side of the equality must be of $left", 1, 57},
		{`AKSControlPlane | join (AKSControlPlane) on $left.Level == $right.TimeGenerated`, SemanticError, "must be of one type", 1, 51},
		{`AKSControlPlane | join (AKSControlPlane) on Properties`, SemanticError, "cannot compare dynamic values", 1, 45},
		{`AKSControlPlane | join hint.`, SyntaxError, "expected the name of a hint", 1, 29},
		{`AKSControlPlane | summarize hint.shufflekey`, SyntaxError, "expected '='", 1, 44},
		{`AKSControlPlane | parse Message with`, SyntaxError, "expected a pattern", 1, 37},
		{`AKSControlPlane | parse Message with a "x" a`, SemanticError, "the column 'a' twice", 1, 44},
		{`AKSControlPlane | parse kind=regex Message with "(" a`, SemanticError, "not a valid regular expression", 1, 19},
		{`AKSControlPlane | make-series count() on TimeGenerated`, SyntaxError, "expected 'step'", 1, 55},
		{`AKSControlPlane | make-series count() on TimeGenerated step 5`, SemanticError, "the step of a series must be more than 0 and fit its axis", 1, 61},
		{`AKSControlPlane | make-series count() on Level step 5`, SemanticError, "not of type string", 1, 42},
		{`AKSControlPlane | make-series count() on TimeGenerated from datetime(2000-01-01) to now() step 1s`, SemanticError, "take a longer step", 1, 96},
		{`let f = (x:long) { x + }; print f(1)`, SyntaxError, "expected a value and found '}'", 1, 24},
		{`let f = (x:long) { x }; print f()`, SemanticError, "needs a value for its parameter 'x'", 1, 31},
		{`let f = (x:number) { x }; print f(1)`, SyntaxError, "expected a type", 1, 12},
		{`let x = 5; x | count`, SemanticError, "'x' is a value, not a table", 1, 12},
		{`let x = 5`, SyntaxError, "a let statement ends with ';'", 1, 10},
		{`union Nothing*`, SemanticError, "no table is named like 'Nothing*'", 1, 7},
		{`datatable(a:long) ["x"]`, SemanticError, "is of type long and the value is of type string", 1, 20},
		{`datatable(a:long, b:long) [1]`, SemanticError, "a multiple of the number of its columns", 1, 1},
		{`range i from 1 to 5 step 0`, SemanticError, "a step that can be added", 1, 1},
		{`AKSControlPlane | where * > 2`, SemanticError, "operators on text", 1, 27},
		{`AKSControlPlane | where *`, SyntaxError, "'*' must be followed by an operator", 1, 25},
		{`AKSControlPlane | mv-expand Properties to typeof(thing)`, SyntaxError, "expected a type", 1, 50},
		{`AKSControlPlane | extend x = toscalar(Nothing | count)`, SemanticError, "failed to resolve table named 'Nothing'", 1, 39},
	} {
		_, err := query(t.Context(), c.query)
		var qe *Error
		if !errors.As(err, &qe) || qe.Code != c.code || !strings.Contains(qe.Message, c.want) {
			t.Errorf("%s\n got %v\nwant %s %q", c.query, err, c.code, c.want)
		} else if qe.Line != c.line || qe.Pos != c.pos {
			t.Errorf("%s\nposition %d:%d, want %d:%d", c.query, qe.Line, qe.Pos, c.line, c.pos)
		}
	}
}
