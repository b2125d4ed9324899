// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package kql

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// eval computes an expression for a row. It returns nil, null, for values on
// which an operator or function is not defined.
type eval func(row []any) any

// maxTextBytes bounds the text that the string functions of a query build.
const maxTextBytes = 256 << 20

// exec is the state of one query.
type exec struct {
	tables  []Table
	src     string
	now     time.Time
	run     *run
	text    int // bytes that string functions have built
	sources int // tables and other sources compiled so far
}

// compiler compiles expressions and operators. cols is the schema of their input.
type compiler struct {
	*exec
	cols []Column
	// serialized is true if the rows have an order on which window functions may
	// rely.
	serialized bool
}

func (c *compiler) column(name string) int { return position(c.cols, name) }

// position returns the index of a column, or -1.
func position(cols []Column, name string) int {
	return slices.IndexFunc(cols, func(c Column) bool { return c.Name == name })
}

func (c *compiler) compile(e *expr) (eval, Type, error) {
	switch e.op {
	case exLiteral:
		v := e.value
		return func([]any) any { return v }, typeOf(v), nil
	case exColumn:
		i := c.column(e.name)
		if i < 0 {
			return nil, "", unresolved(c.src, e.tok, fmt.Sprintf("failed to resolve column named '%s'%s", e.name, c.hint(e.name)))
		}
		return func(row []any) any { return row[i] }, c.cols[i].Type, nil
	case exMember:
		of, _, err := c.compile(e.args[0])
		if err != nil {
			return nil, "", err
		}
		name := e.name
		return func(row []any) any { return member(of(row), name) }, Dynamic, nil
	case exIndex:
		of, _, err := c.compile(e.args[0])
		if err != nil {
			return nil, "", err
		}
		at, _, err := c.compile(e.args[1])
		if err != nil {
			return nil, "", err
		}
		return func(row []any) any { return member(of(row), at(row)) }, Dynamic, nil
	case exLet, exToScalar:
		k, err := c.computeOnce(e)
		if err != nil {
			return nil, "", err
		}
		return func([]any) any { return k.value }, k.typ, nil
	case exUnary:
		of, typ, err := c.compile(e.args[0])
		if err != nil {
			return nil, "", err
		}
		return func(row []any) any {
			switch v := of(row).(type) {
			case int64:
				return -v
			case float64:
				return -v
			case time.Duration:
				return -v
			}
			return nil
		}, typ, nil
	case exBinary:
		return c.binary(e)
	case exIn:
		return c.in(e)
	case exCall:
		return c.call(e)
	}
	return nil, "", semantic(c.src, e.tok, "'*' has no meaning here")
}

func (c *compiler) compileAll(es []*expr) ([]eval, []Type, error) {
	out, types := make([]eval, len(es)), make([]Type, len(es))
	for i, e := range es {
		var err error
		if out[i], types[i], err = c.compile(e); err != nil {
			return nil, nil, err
		}
	}
	return out, types, nil
}

// hint suggests a column whose name differs only in case.
func (c *compiler) hint(name string) string {
	for _, col := range c.cols {
		if strings.EqualFold(col.Name, name) {
			return fmt.Sprintf("; did you mean '%s'?", col.Name)
		}
	}
	return ""
}

// constant computes an expression that reads no columns.
func (x *exec) constant(e *expr) (any, Type, error) {
	f, typ, err := (&compiler{exec: x}).compile(e)
	if err != nil {
		return nil, "", err
	}
	return f(nil), typ, x.run.err
}

// computeOnce computes an expression that does not depend on the row, once for
// the whole query.
func (c *compiler) computeOnce(e *expr) (*computed, error) {
	if e.computed != nil {
		return e.computed, nil
	}
	k := &computed{}
	if e.op == exLet {
		var err error
		if k.value, k.typ, err = c.constant(e.args[0]); err != nil {
			return nil, err
		}
		e.computed = k
		return k, nil
	}
	rel, err := c.relation(e.sub)
	if err != nil {
		return nil, err
	}
	if len(rel.cols) == 0 {
		return nil, semantic(c.src, e.tok, "the table in parentheses has no columns")
	}
	k.typ = rel.cols[0].Type
	if e.op == exToScalar {
		rel.feed(rowFunc(func(row []any) bool { // the first row only
			k.value = row[0]
			return false
		}))
	} else {
		list := []any{}
		k.set = map[string]bool{}
		rel.feed(rowFunc(func(row []any) bool {
			if id := key(row[0]); !k.set[id] && c.run.hold(row[0]) {
				k.set[id] = true
				list = append(list, row[0])
			}
			return c.run.err == nil
		}))
		k.value = list
	}
	if c.run.err != nil {
		return nil, c.run.err
	}
	e.computed = k
	return k, nil
}

func (c *compiler) call(e *expr) (eval, Type, error) {
	name := strings.ToLower(e.name)
	if readsSchema(name) {
		return c.schemaCall(e, name)
	}
	fn, ok := scalars[name]
	if !ok {
		if _, window := windowFunctions[name]; window {
			return nil, "", semantic(c.src, e.tok, fmt.Sprintf("the window function '%s' can only be used in extend, project, serialize and where; extend the table with it first", e.name))
		}
		if slices.Contains(missingFunctions, name) {
			return nil, "", unresolved(c.src, e.tok, fmt.Sprintf("the function '%s' is not supported", e.name))
		}
		if _, agg := aggregates[name]; agg {
			return nil, "", semantic(c.src, e.tok, fmt.Sprintf("the aggregate function '%s' can only be used in summarize", e.name))
		}
		return nil, "", unresolved(c.src, e.tok, fmt.Sprintf("unknown function '%s'", e.name))
	}
	if len(e.args) < fn.min || fn.max >= 0 && len(e.args) > fn.max {
		return nil, "", semantic(c.src, e.tok, fmt.Sprintf("function '%s' takes %s, not %d", e.name, arity(fn.min, fn.max), len(e.args)))
	}
	a, types, err := c.compileAll(e.args)
	if err != nil {
		return nil, "", err
	}
	typ := fn.typ
	switch typ {
	case typeOfFirst:
		typ = types[0]
		if (name == "bin" || name == "floor") && typ == Long && types[1] == Real {
			typ = Real
		}
	case typeOfSecond:
		typ = types[1]
	}
	switch name { // report invalid literal patterns now
	case "extract", "extract_all", "replace_regex", "replace":
		i := map[string]int{"replace_regex": 1}[name]
		if _, err := c.pattern(e.args[i]); err != nil {
			return nil, "", err
		}
	}
	if at, ok := map[string]int{"extract": 3, "extract_json": 2, "extractjson": 2}[name]; ok && len(e.args) > at { // typeof(...)
		t, ok := e.args[at].value.(string)
		if typ = typeNames[t]; !ok || typ == "" || e.args[at].op != exLiteral {
			return nil, "", semantic(c.src, e.args[at].tok, "expected a type, such as typeof(long)")
		}
	}
	budget := &c.text
	return func(row []any) any {
		args := make([]any, len(a))
		for i, f := range a {
			args[i] = f(row)
		}
		v := fn.call(c, args)
		if s, ok := v.(string); ok {
			if *budget += len(s); *budget > maxTextBytes {
				return nil
			}
		}
		return v
	}, typ, nil
}

func arity(lo, hi int) string {
	switch {
	case hi < 0:
		return fmt.Sprintf("at least %d arguments", lo)
	case lo == hi:
		return fmt.Sprintf("%d arguments", lo)
	}
	return fmt.Sprintf("%d to %d arguments", lo, hi)
}

// readsSchema reports whether the result of a function depends on the schema.
func readsSchema(function string) bool {
	switch strings.ToLower(function) {
	case "column_ifexists", "columnifexists", "pack_all", "estimate_data_size":
		return true
	}
	return false
}

// schemaCall compiles a call of a function for which readsSchema is true.
func (c *compiler) schemaCall(e *expr, name string) (eval, Type, error) {
	if name == "pack_all" {
		cols := c.cols
		return func(row []any) any {
			m := make(map[string]any, len(cols))
			for i, col := range cols {
				m[col.Name] = row[i]
			}
			return m
		}, Dynamic, nil
	}
	if name == "estimate_data_size" {
		return c.estimateDataSize(e)
	}
	if len(e.args) != 2 {
		return nil, "", semantic(c.src, e.tok, fmt.Sprintf("function '%s' takes 2 arguments, not %d", e.name, len(e.args)))
	}
	col, ok := e.args[0].value.(string)
	if e.args[0].op != exLiteral || !ok {
		return nil, "", semantic(c.src, e.args[0].tok, e.name+" needs the name of the column as a string literal")
	}
	if c.column(col) >= 0 {
		return c.compile(&expr{op: exColumn, name: col, tok: e.args[0].tok})
	}
	return c.compile(e.args[1])
}
