// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package armtemplate

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base32"
	"encoding/base64"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"unicode/utf8"
)

var stringFunctions = map[string]builtin{
	"toLower": str1(func(s string) (any, error) { return strings.ToLower(s), nil }),
	"toUpper": str1(func(s string) (any, error) { return strings.ToUpper(s), nil }),
	"trim":    str1(func(s string) (any, error) { return strings.TrimSpace(s), nil }),
	"base64":  str1(func(s string) (any, error) { return base64.StdEncoding.EncodeToString([]byte(s)), nil }),
	"base64ToString": str1(func(s string) (any, error) {
		b, err := base64.StdEncoding.DecodeString(s)
		if err != nil {
			return nil, failf("'%s' is not base64", clip(s))
		}
		return strings.ToValidUTF8(string(b), "\ufffd"), nil
	}),
	"base64ToJson": str1(func(s string) (any, error) {
		b, err := base64.StdEncoding.DecodeString(s)
		if err != nil {
			return nil, failf("'%s' is not base64", clip(s))
		}
		return parseJSON(string(b))
	}),
	"json":                 str1(parseJSON),
	"uriComponent":         str1(func(s string) (any, error) { return escapeURI(s), nil }),
	"uriComponentToString": str1(func(s string) (any, error) { return unescapeURI(s) }),
	"dataUri": str1(func(s string) (any, error) {
		return "data:text/plain;charset=utf8;base64," + base64.StdEncoding.EncodeToString([]byte(s)), nil
	}),
	"dataUriToString": str1(func(s string) (any, error) {
		rest, ok := strings.CutPrefix(s, "data:")
		meta, data, comma := strings.Cut(rest, ",")
		if !ok || !comma {
			return nil, failf("'%s' is not a data URI", clip(s))
		}
		if strings.HasSuffix(meta, ";base64") {
			b, err := base64.StdEncoding.DecodeString(data)
			if err != nil {
				return nil, failf("the data of '%s' is not base64", clip(s))
			}
			return strings.ToValidUTF8(string(b), "\ufffd"), nil
		}
		return unescapeURI(data)
	}),
	"string": {1, 1, func(f *frame, a []any) (any, error) { return f.toString(a[0]) }},
	"format": {1, -1, func(f *frame, a []any) (any, error) {
		s, err := strArg(a[0])
		if err != nil {
			return nil, err
		}
		return f.format(s, a[1:])
	}},
	"startsWith": str2(func(s, t string) (any, error) {
		return strings.HasPrefix(strings.ToLower(s), strings.ToLower(t)), nil
	}),
	"endsWith": str2(func(s, t string) (any, error) {
		return strings.HasSuffix(strings.ToLower(s), strings.ToLower(t)), nil
	}),
	"uri": str2(func(base, rel string) (any, error) {
		b, err := url.Parse(base)
		if err != nil || !b.IsAbs() {
			return nil, failf("'%s' is not an absolute URI", clip(base))
		}
		r, err := url.Parse(rel)
		if err != nil {
			return nil, failf("'%s' is not a relative URI", clip(rel))
		}
		return b.ResolveReference(r).String(), nil
	}),
	"replace": {3, 3, func(f *frame, a []any) (any, error) {
		var s [3]string
		for i := range s {
			var err error
			if s[i], err = strArg(a[i]); err != nil {
				return nil, err
			}
		}
		if s[1] == "" {
			return nil, failf("the string to look for is empty")
		}
		if n := strings.Count(s[0], s[1]); n > 0 {
			if err := f.meter.grow(len(s[0]) + n*len(s[2])); err != nil {
				return nil, err
			}
		}
		return strings.ReplaceAll(s[0], s[1], s[2]), nil
	}},
	"split": {2, 2, func(f *frame, a []any) (any, error) {
		s, err := strArg(a[0])
		if err != nil {
			return nil, err
		}
		var seps []string
		if one, ok := a[1].(string); ok {
			seps = []string{one}
		} else if many, ok := a[1].([]any); ok {
			for _, m := range many {
				sep, err := strArg(m)
				if err != nil {
					return nil, err
				}
				seps = append(seps, sep)
			}
		} else {
			return nil, failf("a delimiter is a String or an Array of them, not %s", typeName(a[1]))
		}
		return f.split(s, seps)
	}},
	"join": {2, 2, func(f *frame, a []any) (any, error) {
		arr, err := arrArg(a[0])
		if err != nil {
			return nil, err
		}
		sep, err := strArg(a[1])
		if err != nil {
			return nil, err
		}
		var b strings.Builder
		for i, v := range arr {
			s, err := f.toString(v)
			if err != nil {
				return nil, err
			}
			if i > 0 {
				b.WriteString(sep)
			}
			b.WriteString(s)
			if err := f.meter.grow(len(sep) + len(s)); err != nil {
				return nil, err
			}
		}
		return b.String(), nil
	}},
	"substring": {2, 3, func(_ *frame, a []any) (any, error) {
		s, err := strArg(a[0])
		if err != nil {
			return nil, err
		}
		r := []rune(s)
		start, err := intArg(a[1])
		if err != nil {
			return nil, err
		}
		n := int64(len(r)) - start
		if len(a) > 2 {
			if n, err = intArg(a[2]); err != nil {
				return nil, err
			}
		}
		if start < 0 || n < 0 || start > int64(len(r)) || n > int64(len(r))-start {
			return nil, failf("the index and length parameters must refer to a location within the string: index '%d', length '%d', length of the string '%d'", start, n, len(r))
		}
		return string(r[start : start+n]), nil
	}},
	"padLeft": {2, 3, func(f *frame, a []any) (any, error) {
		s, err := f.toString(a[0])
		if err != nil {
			return nil, err
		}
		n, err := intArg(a[1])
		if err != nil {
			return nil, err
		}
		pad := " "
		if len(a) > 2 {
			if pad, err = strArg(a[2]); err != nil {
				return nil, err
			}
		}
		if utf8.RuneCountInString(pad) != 1 || n < 0 || n > MaxExpressionLength {
			return nil, failf("the padding must be one character, and the length from 0 to %d", MaxExpressionLength)
		}
		if k := int(n) - utf8.RuneCountInString(s); k > 0 {
			s = strings.Repeat(pad, k) + s
		}
		return s, nil
	}},
	"uniqueString": {1, -1, func(f *frame, a []any) (any, error) {
		s, err := joinStrings(a)
		if err != nil {
			return nil, err
		}
		sum := sha256.Sum256([]byte(s))
		return base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").EncodeToString(sum[:10])[:13], nil
	}},
	"guid": {1, -1, func(f *frame, a []any) (any, error) {
		s, err := joinStrings(a)
		if err != nil {
			return nil, err
		}
		return NameUUID(s), nil
	}},
	"newGuid": {0, 0, func(f *frame, _ []any) (any, error) {
		if !f.inDefault {
			return nil, failf("it can only be used in the default value of a parameter")
		}
		if f.in.NewGUID != nil {
			return f.in.NewGUID(), nil
		}
		var b [16]byte
		if _, err := rand.Read(b[:]); err != nil {
			return nil, err
		}
		b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
		return formatUUID(b[:]), nil
	}},
}

func joinStrings(a []any) (string, error) {
	parts := make([]string, len(a))
	for i, v := range a {
		s, err := strArg(v)
		if err != nil {
			return "", err
		}
		parts[i] = s
	}
	return strings.Join(parts, "-"), nil
}

func clip(s string) string {
	if len(s) > 60 {
		return strings.ToValidUTF8(s[:60], "") + "..."
	}
	return s
}

func parseJSON(s string) (any, error) {
	v, err := fromJSON([]byte(s))
	if err != nil {
		return nil, failf("'%s' is not JSON: %s", clip(s), err)
	}
	return v, nil
}

// toString implements string(): text stays as it is, objects and arrays become
// JSON.
func (f *frame) toString(v any) (string, error) {
	switch v := v.(type) {
	case nil:
		return "", nil
	case string:
		return v, nil
	case bool:
		if v {
			return "True", nil
		}
		return "False", nil
	case int64:
		return strconv.FormatInt(v, 10), nil
	}
	b, err := f.meter.encode(v)
	return string(b), err
}

func (f *frame) split(s string, seps []string) (any, error) {
	out := []any{}
	start := 0
	for i := 0; i <= len(s); {
		hit := ""
		for _, sep := range seps {
			if sep != "" && strings.HasPrefix(s[i:], sep) {
				hit = sep
				break
			}
		}
		if hit == "" {
			i++
			continue
		}
		out = append(out, s[start:i])
		i += len(hit)
		start = i
	}
	if err := f.meter.step(len(s)/8 + len(out)); err != nil {
		return nil, err
	}
	return append(out, s[start:]), nil
}

// escapeURI escapes all but the unreserved characters of RFC 3986.
func escapeURI(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if c := s[i]; isAlnum(c) || strings.IndexByte("-_.~", c) >= 0 {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	return b.String()
}

func unescapeURI(s string) (any, error) {
	out, err := url.PathUnescape(s)
	if err != nil {
		return nil, failf("'%s' is not percent-encoded", clip(s))
	}
	return out, nil
}
