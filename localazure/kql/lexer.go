// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package kql

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

type tokenKind uint8

const (
	tokEnd tokenKind = iota
	tokName
	tokNumber // integer, real or timespan such as 5m
	tokString
	tokSymbol
)

type token struct {
	kind tokenKind
	text string // as in the query; for tokString the value
	off  int
	end  int
}

// lex splits a query into tokens. Comments go from // to the end of the line.
func lex(src string) ([]token, error) {
	if len(src) > MaxQueryBytes {
		return nil, &Error{Code: LimitError, Message: fmt.Sprintf("the query has %d bytes; at most %d are allowed", len(src), MaxQueryBytes)}
	}
	var out []token
	for i := 0; i < len(src); {
		c := src[i]
		switch {
		case c == ' ' || c == '\t' || c == '\n' || c == '\r':
			i++
		case c == '/' && strings.HasPrefix(src[i:], "//"):
			for i < len(src) && src[i] != '\n' {
				i++
			}
		case c == '\'' || c == '"', (c == '@' || c == 'h' || c == 'H') && i+1 < len(src) && (src[i+1] == '\'' || src[i+1] == '"'):
			verbatim := c == '@'
			start := i
			if c == '@' || c == 'h' || c == 'H' {
				i++
			}
			s, n, err := lexString(src, i, verbatim)
			if err != nil {
				return nil, err
			}
			i += n
			out = append(out, token{tokString, s, start, i})
		case c >= '0' && c <= '9':
			start := i
			for i < len(src) && (isWord(src[i]) || src[i] == '.' && i+1 < len(src) && src[i+1] >= '0' && src[i+1] <= '9') {
				if (src[i] == 'e' || src[i] == 'E') && i+1 < len(src) && (src[i+1] == '-' || src[i+1] == '+') && !strings.HasPrefix(src[start:], "0x") {
					i++
				}
				i++
			}
			out = append(out, token{tokNumber, src[start:i], start, i})
		case isWord(c) || c == '$':
			start := i
			for i < len(src) && (isWord(src[i]) || src[i] == '$') {
				i++
			}
			// some keywords contain dashes
			for _, w := range []string{"project-away", "project-rename", "project-keep", "project-reorder", "mv-expand", "mv-apply", "make-series", "parse-where", "sample-distinct", "order-by", "sort-by", "project-smart",
				"graph-match", "make-graph", "parse-kv", "project-by-names", "top-hitters", "top-nested"} {
				if strings.HasPrefix(strings.ToLower(src[start:]), w) && strings.HasPrefix(src[i:], "-") {
					i = start + len(w)
				}
			}
			if (src[start:i] == "in" || src[start:i] == "has_any" || src[start:i] == "has_all") && i < len(src) && src[i] == '~' {
				i++
			}
			out = append(out, token{tokName, src[start:i], start, i})
		case c == '!':
			start := i
			i++
			for i < len(src) && isWord(src[i]) {
				i++
			}
			if i == start+1 && i < len(src) && (src[i] == '=' || src[i] == '~') {
				i++
			} else if i < len(src) && src[i] == '~' {
				i++
			}
			out = append(out, token{tokSymbol, src[start:i], start, i})
		default:
			sym := string(c)
			for _, two := range []string{"==", "=~", "<=", ">=", "<>", ".."} {
				if strings.HasPrefix(src[i:], two) {
					sym = two
				}
			}
			if !strings.Contains("|()[]{},;=<>+-*/%.:..", sym) && len(sym) == 1 {
				r, size := utf8.DecodeRuneInString(src[i:])
				return nil, syntax(src, token{off: i, end: i + size}, fmt.Sprintf("the character %q has no meaning here", r))
			}
			out = append(out, token{tokSymbol, sym, i, i + len(sym)})
			i += len(sym)
		}
	}
	return append(out, token{kind: tokEnd, off: len(src), end: len(src)}), nil
}

func isWord(c byte) bool {
	return c == '_' || c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
}

// lexString returns the value and the length of the string literal at i.
func lexString(src string, i int, verbatim bool) (string, int, error) {
	start, quote := i, src[i]
	var b strings.Builder
	for i++; i < len(src); i++ {
		c := src[i]
		switch {
		case c == quote && verbatim && i+1 < len(src) && src[i+1] == quote:
			b.WriteByte(quote)
			i++
		case c == quote:
			return b.String(), i + 1 - start, nil
		case c == '\n':
			return "", 0, syntax(src, token{off: start, end: start + 1}, "the string is not closed on its line")
		case c == '\\' && !verbatim && i+1 < len(src):
			i++
			if j := strings.IndexByte(`ntr"'\0`, src[i]); j >= 0 {
				b.WriteByte("\n\t\r\"'\\\x00"[j])
			} else if src[i] == 'u' && i+4 < len(src) {
				var r rune
				if _, err := fmt.Sscanf(src[i+1:i+5], "%04x", &r); err != nil {
					return "", 0, syntax(src, token{off: i, end: i + 1}, "\\u needs four hexadecimal digits")
				}
				b.WriteRune(r)
				i += 4
			} else {
				return "", 0, syntax(src, token{off: i - 1, end: i + 1}, fmt.Sprintf("\\%c is not an escape sequence; write strings with backslashes as @\"...\"", src[i]))
			}
		default:
			b.WriteByte(c)
		}
	}
	return "", 0, syntax(src, token{off: start, end: start + 1}, "the string is not closed")
}
