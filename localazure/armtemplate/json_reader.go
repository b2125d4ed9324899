// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package armtemplate

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

type kind uint8

const (
	kindNull kind = iota
	kindBool
	kindNumber
	kindString
	kindArray
	kindObject
)

func (k kind) String() string {
	return [...]string{"Null", "Boolean", "Integer", "String", "Array", "Object"}[k]
}

// node is a JSON value with its position in the source.
type node struct {
	kind     kind
	bool     bool
	off, end int    // byte range in the source
	str      string // text of a string or number
	elems    []*node
	members  []member
}

type member struct {
	key string
	off int // of the key
	val *node
}

// get returns a member, or nil. It ignores case and returns the last of several
// equal keys, as ARM does.
func (n *node) get(key string) *node {
	if n == nil || n.kind != kindObject {
		return nil
	}
	for i := len(n.members) - 1; i >= 0; i-- {
		if strings.EqualFold(n.members[i].key, key) {
			return n.members[i].val
		}
	}
	return nil
}

// text returns the string of a node, or "" for other values.
func (n *node) text() string {
	if n == nil || n.kind != kindString {
		return ""
	}
	return n.str
}

// syntaxError is an error of the reader at an offset.
type syntaxError struct {
	off int
	msg string
}

func (e *syntaxError) Error() string { return e.msg }

// offsetOf returns the offset of a syntax error, and 0 for other errors.
func offsetOf(err error) int {
	var se *syntaxError
	if errors.As(err, &se) {
		return se.off
	}
	return 0
}

// reader is a JSON parser that also accepts what ARM accepts: comments, raw
// line breaks in strings, a byte order mark and, with bareKeys, unquoted keys.
type reader struct {
	src      []byte
	pos      int
	depth    int
	bareKeys bool
}

func readJSON(src []byte, bareKeys bool) (*node, error) {
	r := &reader{src: src, bareKeys: bareKeys}
	if strings.HasPrefix(string(src[:min(3, len(src))]), "\ufeff") {
		r.pos = 3
	}
	n, err := r.value()
	if err != nil {
		return nil, err
	}
	if err := r.space(); err != nil {
		return nil, err
	}
	if r.pos < len(src) {
		return nil, r.fail("unexpected %s after the end of the document", r.here())
	}
	return n, nil
}

func (r *reader) fail(format string, args ...any) error {
	return &syntaxError{off: r.pos, msg: fmt.Sprintf(format, args...)}
}

func (r *reader) here() string {
	if r.pos >= len(r.src) {
		return "end of input"
	}
	c, _ := utf8.DecodeRune(r.src[r.pos:])
	return strconv.QuoteRune(c)
}

func (r *reader) space() error {
	for r.pos < len(r.src) {
		switch c := r.src[r.pos]; {
		case c == ' ' || c == '\t' || c == '\n' || c == '\r':
			r.pos++
		case c == '/' && r.pos+1 < len(r.src) && r.src[r.pos+1] == '/':
			for r.pos < len(r.src) && r.src[r.pos] != '\n' {
				r.pos++
			}
		case c == '/' && r.pos+1 < len(r.src) && r.src[r.pos+1] == '*':
			end := strings.Index(string(r.src[r.pos+2:]), "*/")
			if end < 0 {
				return r.fail("a comment is opened with /* and not closed")
			}
			r.pos += 2 + end + 2
		default:
			return nil
		}
	}
	return nil
}

func (r *reader) value() (*node, error) {
	if err := r.space(); err != nil {
		return nil, err
	}
	if r.pos >= len(r.src) {
		return nil, r.fail("a value is missing at the end of input")
	}
	n := &node{off: r.pos}
	switch c := r.src[r.pos]; {
	case c == '{' || c == '[':
		if r.depth++; r.depth > MaxNesting {
			return nil, r.fail("values are nested deeper than %d levels", MaxNesting)
		}
		var err error
		if c == '{' {
			err = r.object(n)
		} else {
			err = r.array(n)
		}
		if err != nil {
			return nil, err
		}
		r.depth--
	case c == '"':
		s, err := r.str()
		if err != nil {
			return nil, err
		}
		n.kind, n.str = kindString, s
	case c == '-' || c >= '0' && c <= '9':
		if err := r.number(n); err != nil {
			return nil, err
		}
	default:
		word := r.word()
		switch word {
		case "true", "false":
			n.kind, n.bool = kindBool, word == "true"
		case "null":
		default:
			return nil, r.fail("unexpected %s where a value should be", r.here())
		}
		r.pos += len(word)
	}
	n.end = r.pos
	return n, nil
}

// word returns the identifier at the current position, without consuming it.
func (r *reader) word() string {
	i := r.pos
	for i < len(r.src) && (r.src[i] == '_' || r.src[i] == '$' || isAlnum(r.src[i])) {
		i++
	}
	return string(r.src[r.pos:i])
}

func isAlnum(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
}

func (r *reader) object(n *node) error {
	n.kind = kindObject
	r.pos++
	for first := true; ; first = false {
		if err := r.space(); err != nil {
			return err
		}
		if r.pos >= len(r.src) {
			return r.fail("an object is not closed")
		}
		if r.src[r.pos] == '}' && first {
			r.pos++
			return nil
		}
		m := member{off: r.pos}
		if r.src[r.pos] == '"' {
			s, err := r.str()
			if err != nil {
				return err
			}
			m.key = s
		} else if w := r.word(); r.bareKeys && w != "" {
			m.key = w
			r.pos += len(w)
		} else {
			return r.fail("unexpected %s where a property name should be", r.here())
		}
		if err := r.space(); err != nil {
			return err
		}
		if r.pos >= len(r.src) || r.src[r.pos] != ':' {
			return r.fail("unexpected %s where ':' should follow property %q", r.here(), m.key)
		}
		r.pos++
		v, err := r.value()
		if err != nil {
			return err
		}
		m.val = v
		n.members = append(n.members, m)
		if err := r.space(); err != nil {
			return err
		}
		if r.pos < len(r.src) && r.src[r.pos] == ',' {
			r.pos++
			continue
		}
		if r.pos < len(r.src) && r.src[r.pos] == '}' {
			r.pos++
			return nil
		}
		return r.fail("unexpected %s where ',' or '}' should be", r.here())
	}
}

func (r *reader) array(n *node) error {
	n.kind = kindArray
	r.pos++
	for first := true; ; first = false {
		if err := r.space(); err != nil {
			return err
		}
		if r.pos < len(r.src) && r.src[r.pos] == ']' && first {
			r.pos++
			return nil
		}
		v, err := r.value()
		if err != nil {
			return err
		}
		n.elems = append(n.elems, v)
		if err := r.space(); err != nil {
			return err
		}
		if r.pos < len(r.src) && r.src[r.pos] == ',' {
			r.pos++
			continue
		}
		if r.pos < len(r.src) && r.src[r.pos] == ']' {
			r.pos++
			return nil
		}
		return r.fail("unexpected %s where ',' or ']' should be", r.here())
	}
}

func (r *reader) number(n *node) error {
	start := r.pos
	for r.pos < len(r.src) && (isAlnum(r.src[r.pos]) || strings.IndexByte("+-.", r.src[r.pos]) >= 0) {
		r.pos++
	}
	n.kind, n.str = kindNumber, string(r.src[start:r.pos])
	if !validNumber(n.str) {
		r.pos = start
		return r.fail("%q is not a number", n.str)
	}
	return nil
}

// validNumber reports whether s is a number in JSON.
func validNumber(s string) bool {
	digits := func() bool {
		i := 0
		for i < len(s) && s[i] >= '0' && s[i] <= '9' {
			i++
		}
		s = s[i:]
		return i > 0
	}
	s = strings.TrimPrefix(s, "-")
	if strings.HasPrefix(s, "0") {
		s = s[1:]
	} else if !digits() {
		return false
	}
	if strings.HasPrefix(s, ".") {
		s = s[1:]
		if !digits() {
			return false
		}
	}
	if strings.HasPrefix(s, "e") || strings.HasPrefix(s, "E") {
		s = strings.TrimLeft(s[1:], "+-")
		if !digits() {
			return false
		}
	}
	return s == ""
}

func (r *reader) str() (string, error) {
	start := r.pos
	r.pos++
	var b strings.Builder
	for r.pos < len(r.src) {
		c := r.src[r.pos]
		switch {
		case c == '"':
			r.pos++
			return b.String(), nil
		case c == '\\':
			if err := r.escape(&b); err != nil {
				return "", err
			}
		case c < utf8.RuneSelf: // including line breaks and tabs, as in ARM
			b.WriteByte(c)
			r.pos++
		default:
			u, size := utf8.DecodeRune(r.src[r.pos:])
			b.WriteRune(u)
			r.pos += size
		}
	}
	r.pos = start
	return "", r.fail("a string is not closed")
}

func (r *reader) escape(b *strings.Builder) error {
	if r.pos+1 >= len(r.src) {
		return r.fail("a string ends in the middle of an escape")
	}
	c := r.src[r.pos+1]
	if i := strings.IndexByte(`"\/bfnrt`, c); i >= 0 {
		b.WriteByte("\"\\/\b\f\n\r\t"[i])
		r.pos += 2
		return nil
	}
	if c != 'u' {
		return r.fail("\\%c is not an escape of JSON", c)
	}
	u, err := r.hex4(r.pos + 2)
	if err != nil {
		return err
	}
	r.pos += 6
	if utf16.IsSurrogate(u) && r.pos+1 < len(r.src) && r.src[r.pos] == '\\' && r.src[r.pos+1] == 'u' {
		if low, err := r.hex4(r.pos + 2); err == nil {
			if both := utf16.DecodeRune(u, low); both != utf8.RuneError {
				u = both
				r.pos += 6
			}
		}
	}
	b.WriteRune(u)
	return nil
}

func (r *reader) hex4(at int) (rune, error) {
	if at+4 > len(r.src) {
		return 0, r.fail("\\u needs four hexadecimal digits")
	}
	v, err := strconv.ParseUint(string(r.src[at:at+4]), 16, 32)
	if err != nil {
		return 0, r.fail("\\u needs four hexadecimal digits, not %q", r.src[at:at+4])
	}
	return rune(v), nil
}
