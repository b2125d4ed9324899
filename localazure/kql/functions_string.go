// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package kql

import (
	"crypto/md5" //nolint:gosec // a function of the language, not for secrets
	"crypto/sha256"
	"encoding/base64"
	"encoding/csv"
	"fmt"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// stringFunctions build, search and take apart text.
var stringFunctions = map[string]scalar{
	"format_bytes":           {1, 3, String, formatBytes},
	"strcat":                 {1, -1, String, concat},
	"strcat_delim":           {2, -1, String, joinArgs},
	"tolower":                {1, 1, String, onString(strings.ToLower)},
	"toupper":                {1, 1, String, onString(strings.ToUpper)},
	"strlen":                 {1, 1, Long, onString(func(s string) any { return int64(utf8.RuneCountInString(s)) })},
	"reverse":                {1, 1, String, onString(reverseString)},
	"trim":                   {2, 2, String, func(_ *compiler, a []any) any { return trim(text(a[0]), text(a[1]), true, true) }},
	"trim_start":             {2, 2, String, func(_ *compiler, a []any) any { return trim(text(a[0]), text(a[1]), true, false) }},
	"trim_end":               {2, 2, String, func(_ *compiler, a []any) any { return trim(text(a[0]), text(a[1]), false, true) }},
	"substring":              {2, 3, String, substring},
	"split":                  {2, 3, Dynamic, splitString},
	"countof":                {2, 2, Long, countof},
	"indexof":                {2, 5, Long, indexOf},
	"strcmp":                 {2, 2, Long, func(_ *compiler, a []any) any { return int64(strings.Compare(text(a[0]), text(a[1]))) }},
	"strrep":                 {2, 3, String, repeatString},
	"translate":              {3, 3, String, translate},
	"replace_string":         {3, 3, String, replaceString},
	"replace_regex":          {3, 3, String, replaceRegex},
	"replace":                {3, 3, String, replacePattern},
	"extract":                {3, 4, String, extractMatch},
	"extract_all":            {2, 3, Dynamic, extractAll},
	"extract_json":           {2, 3, String, extractJSON},
	"extractjson":            {2, 3, String, extractJSON},
	"has_any_index":          {2, 2, Long, hasAnyIndex},
	"parse_csv":              {1, 1, Dynamic, parseCSV},
	"parse_url":              {1, 1, Dynamic, parseURL},
	"url_decode":             {1, 1, String, onString(func(s string) any { u, _ := url.QueryUnescape(s); return u })},
	"url_encode":             {1, 1, String, onString(url.QueryEscape)},
	"base64_encode_tostring": {1, 1, String, onString(func(s string) any { return base64.StdEncoding.EncodeToString([]byte(s)) })},
	"base64_decode_tostring": {1, 1, String, onString(decodeBase64)},
	"hash_sha256":            {1, 1, String, onString(func(s string) any { return fmt.Sprintf("%x", sha256.Sum256([]byte(s))) })},
	"hash_md5": {1, 1, String, func(_ *compiler, a []any) any {
		return fmt.Sprintf("%x", md5.Sum([]byte(text(a[0])))) //nolint:gosec // as above
	}},
	"ipv4_is_private":  {1, 1, Bool, ipv4IsPrivate},
	"ipv4_is_in_range": {2, 2, Bool, ipv4InRange},
}

func concat(_ *compiler, a []any) any {
	var b strings.Builder
	for _, v := range a {
		b.WriteString(text(v))
	}
	return b.String()
}

func joinArgs(_ *compiler, a []any) any {
	parts := make([]string, 0, len(a))
	for _, v := range a[1:] {
		parts = append(parts, text(v))
	}
	return strings.Join(parts, text(a[0]))
}

func reverseString(s string) any {
	r := []rune(s)
	for i, j := 0, len(r)-1; i < j; i, j = i+1, j-1 {
		r[i], r[j] = r[j], r[i]
	}
	return string(r)
}

func substring(_ *compiler, a []any) any {
	r := []rune(text(a[0]))
	from, ok := toLong(a[1]).(int64)
	n := int64(len(r))
	if len(a) > 2 {
		n, _ = toLong(a[2]).(int64)
	}
	if from < 0 {
		from = max(0, from+int64(len(r)))
	}
	if !ok || from > int64(len(r)) || n <= 0 {
		return ""
	}
	return string(r[from : from+min(n, int64(len(r))-from)])
}

func splitString(_ *compiler, a []any) any {
	var parts []string
	if sep := text(a[1]); sep != "" {
		parts = strings.Split(text(a[0]), sep)
	} else {
		parts = []string{text(a[0])}
	}
	if len(a) > 2 {
		i, ok := toLong(a[2]).(int64)
		if !ok || i < 0 || i >= int64(len(parts)) {
			return []any{""}
		}
		parts = parts[i : i+1]
	}
	out := make([]any, len(parts))
	for i, p := range parts {
		out[i] = p
	}
	return out
}

func countof(_ *compiler, a []any) any {
	if text(a[1]) == "" {
		return int64(0)
	}
	return int64(strings.Count(text(a[0]), text(a[1])))
}

func indexOf(_ *compiler, a []any) any {
	s, what := text(a[0]), text(a[1])
	from, n, nth := int64(0), int64(-1), int64(1)
	for i, p := range []*int64{&from, &n, &nth} {
		if len(a) > i+2 {
			*p, _ = toLong(a[i+2]).(int64)
		}
	}
	if from < 0 {
		from = max(0, from+int64(len(s)))
	}
	if from > int64(len(s)) || nth < 1 || nth > int64(len(s))+1 {
		return int64(-1)
	}
	end := int64(len(s))
	if n >= 0 && n < end-from {
		end = from + n
	}
	at := from
	for ; nth > 0; nth-- {
		i := strings.Index(s[at:end], what)
		if i < 0 {
			return int64(-1)
		}
		if at += int64(i); nth > 1 {
			if at++; at > end {
				return int64(-1)
			}
		}
	}
	return at
}

func repeatString(_ *compiler, a []any) any {
	n, ok := toLong(a[1]).(int64)
	sep := ""
	if len(a) > 2 {
		sep = text(a[2])
	}
	s := text(a[0])
	if !ok || n < 1 || n > 1024 || int64(len(s)+len(sep))*n > 1<<20 {
		return ""
	}
	return strings.Repeat(s+sep, int(n-1)) + s
}

func translate(_ *compiler, a []any) any {
	from, to := []rune(text(a[0])), []rune(text(a[1]))
	return strings.Map(func(r rune) rune {
		switch i := slices.Index(from, r); {
		case i < 0:
			return r
		case len(to) == 0:
			return -1
		default:
			return to[min(i, len(to)-1)]
		}
	}, text(a[2]))
}

func replaceString(_ *compiler, a []any) any {
	s, t, u := text(a[0]), text(a[1]), text(a[2])
	if t == "" || len(s)+strings.Count(s, t)*len(u) > 16<<20 {
		return s
	}
	return strings.ReplaceAll(s, t, u)
}

func replaceRegex(_ *compiler, a []any) any {
	re := cachedRegexp(text(a[1]))
	if re == nil {
		return nil
	}
	return re.ReplaceAllString(text(a[0]), backReference.ReplaceAllString(text(a[2]), "$${$1}"))
}

func replacePattern(_ *compiler, a []any) any {
	re := cachedRegexp(text(a[0]))
	if re == nil {
		return nil
	}
	return re.ReplaceAllString(text(a[2]), backReference.ReplaceAllString(text(a[1]), "$${$1}"))
}

func extractMatch(_ *compiler, a []any) any {
	re := cachedRegexp(text(a[0]))
	n, ok := toLong(a[1]).(int64)
	if re == nil || !ok {
		return ""
	}
	m := re.FindStringSubmatch(text(a[2]))
	s := ""
	if n >= 0 && n < int64(len(m)) {
		s = m[n]
	}
	if len(a) > 3 { // typeof(...)
		return convert(s, Type(text(a[3])))
	}
	return s
}

func extractAll(_ *compiler, a []any) any {
	re := cachedRegexp(text(a[0]))
	if re == nil {
		return nil
	}
	out := []any{}
	for _, m := range re.FindAllStringSubmatch(text(a[len(a)-1]), 10_000) {
		switch {
		case len(m) == 1:
			out = append(out, m[0])
		case len(m) == 2:
			out = append(out, m[1])
		default:
			groups := make([]any, len(m)-1)
			for i, g := range m[1:] {
				groups[i] = g
			}
			out = append(out, groups)
		}
	}
	return out
}

func hasAnyIndex(_ *compiler, a []any) any {
	l, _ := toDynamic(a[1]).([]any)
	for i, v := range l {
		if hasTerm(strings.ToLower(text(a[0])), strings.ToLower(text(v))) {
			return int64(i)
		}
	}
	return int64(-1)
}

func parseCSV(_ *compiler, a []any) any {
	fields, err := csv.NewReader(strings.NewReader(text(a[0]))).Read()
	if err != nil {
		return nil
	}
	out := make([]any, len(fields))
	for i, f := range fields {
		out[i] = f
	}
	return out
}

func parseURL(_ *compiler, a []any) any {
	u, err := url.Parse(text(a[0]))
	if err != nil {
		return nil
	}
	params := map[string]any{}
	for k, v := range u.Query() {
		params[k] = strings.Join(v, ",")
	}
	password, _ := u.User.Password()
	return map[string]any{"Scheme": u.Scheme, "Host": u.Hostname(), "Port": u.Port(), "Path": u.Path, "Username": u.User.Username(), "Password": password, "Query Parameters": params, "Fragment": u.Fragment}
}

func decodeBase64(s string) any {
	b, err := base64.StdEncoding.DecodeString(s)
	if err != nil {
		return nil
	}
	return strings.ToValidUTF8(string(b), "\ufffd")
}

func ipv4IsPrivate(_ *compiler, a []any) any {
	ip, err := netip.ParseAddr(text(a[0]))
	if err != nil || !ip.Is4() {
		return nil
	}
	return ip.IsPrivate()
}

func ipv4InRange(_ *compiler, a []any) any {
	ip, err := netip.ParseAddr(text(a[0]))
	if err != nil || !ip.Is4() {
		return nil
	}
	block := text(a[1])
	if !strings.Contains(block, "/") {
		block += "/32"
	}
	p, err := netip.ParsePrefix(block)
	if err != nil {
		return nil
	}
	return p.Contains(ip)
}

var backReference = regexp.MustCompile(`\\(\d+)`)

// trim removes matches of a regular expression from the start and the end.
func trim(pattern, s string, start, end bool) any {
	if start {
		re := cachedRegexp("^(?:" + pattern + ")+")
		if re == nil {
			return nil
		}
		s = s[len(re.FindString(s)):]
	}
	if end {
		re := cachedRegexp("(?:" + pattern + ")+$")
		if re == nil {
			return nil
		}
		if m := re.FindStringIndex(s); m != nil {
			s = s[:m[0]]
		}
	}
	return s
}

// extractJSON implements extract_json("$.a.b[0]", text, typeof(...)).
func extractJSON(_ *compiler, a []any) any {
	v := toDynamic(a[1])
	path, ok := strings.CutPrefix(text(a[0]), "$")
	for ok && path != "" {
		switch path[0] {
		case '.':
			end := strings.IndexAny(path[1:], ".[")
			if end < 0 {
				end = len(path) - 1
			}
			v, path = member(v, path[1:end+1]), path[end+1:]
		case '[':
			end := strings.IndexByte(path, ']')
			if end < 0 {
				return ""
			}
			name := path[1:end]
			if i, err := strconv.ParseInt(name, 10, 64); err == nil {
				v = member(v, i)
			} else {
				v = member(v, strings.Trim(name, `"'`))
			}
			path = path[end+1:]
		default:
			return ""
		}
	}
	if len(a) > 2 {
		return convert(v, Type(text(a[2])))
	}
	return text(v)
}
