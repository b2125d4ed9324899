package kql

import (
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"maps"
	"math"
	"net/url"
	"regexp"
	"sort"
	"strings"
	"sync"
	"time"
	"unicode/utf8"
)

// scalar is a scalar function; typ empty means that of argument typeArg.
type scalar struct {
	min, max int
	typ      Type
	typeArg  int
	call     func(c *compiler, a []any) any
}

var scalars map[string]scalar

func init() {
	str := func(f func(string) any) func(*compiler, []any) any {
		return func(_ *compiler, a []any) any { return f(text(a[0])) }
	}
	num := func(f func(float64) float64) func(*compiler, []any) any {
		return func(_ *compiler, a []any) any {
			if x, ok := toReal(a[0]); ok {
				return f(x)
			}
			return nil
		}
	}
	tim := func(f func(time.Time) any) func(*compiler, []any) any {
		return func(_ *compiler, a []any) any {
			if t, ok := toTime(a[0]).(time.Time); ok {
				return f(t)
			}
			return nil
		}
	}
	conv := func(f func(any) any) func(*compiler, []any) any {
		return func(_ *compiler, a []any) any { return f(a[0]) }
	}
	scalars = map[string]scalar{
		// time
		"now": {0, 1, DateTime, 0, func(c *compiler, a []any) any {
			if len(a) > 0 {
				return arithmetic("+", c.now, a[0])
			}
			return c.now
		}},
		"ago":         {1, 1, DateTime, 0, func(c *compiler, a []any) any { return arithmetic("-", c.now, a[0]) }},
		"todatetime":  {1, 1, DateTime, 0, conv(toTime)},
		"totimespan":  {1, 1, TimeSpan, 0, conv(toSpan)},
		"startofhour": {1, 1, DateTime, 0, tim(func(t time.Time) any { return t.Truncate(time.Hour) })},
		"dayofweek":   {1, 1, TimeSpan, 0, tim(func(t time.Time) any { return time.Duration(t.Weekday()) * 24 * time.Hour })},
		"hourofday":   {1, 1, Long, 0, tim(func(t time.Time) any { return int64(t.Hour()) })},
		"getyear":     {1, 1, Long, 0, tim(func(t time.Time) any { return int64(t.Year()) })},
		"unixtime_seconds_todatetime": {1, 1, DateTime, 0, func(_ *compiler, a []any) any {
			if f, ok := toReal(a[0]); ok && math.Abs(f) < 1e11 {
				return time.Unix(0, int64(f*1000)*1e6).UTC()
			}
			return nil
		}},
		"format_datetime": {2, 2, String, 0, func(_ *compiler, a []any) any {
			if t, ok := toTime(a[0]).(time.Time); ok {
				return formatTime(t, text(a[1]))
			}
			return ""
		}},
		"format_timespan": {2, 2, String, 0, func(_ *compiler, a []any) any {
			if d, ok := toSpan(a[0]).(time.Duration); ok {
				return formatTime(time.Unix(0, 0).UTC().Add(d), strings.ReplaceAll(text(a[1]), "d", ""))
			}
			return ""
		}},
		"bin":   {2, 2, "", 0, func(_ *compiler, a []any) any { return bin(a[0], a[1]) }},
		"floor": {2, 2, "", 0, func(_ *compiler, a []any) any { return bin(a[0], a[1]) }},
		// conversion
		"tostring":   {1, 1, String, 0, conv(func(v any) any { return text(v) })},
		"tolong":     {1, 1, Long, 0, conv(toLong)},
		"toint":      {1, 1, Long, 0, conv(toLong)},
		"todouble":   {1, 1, Real, 0, conv(realOrNil)},
		"toreal":     {1, 1, Real, 0, conv(realOrNil)},
		"tobool":     {1, 1, Bool, 0, conv(toBool)},
		"todynamic":  {1, 1, Dynamic, 0, conv(toDynamic)},
		"parse_json": {1, 1, Dynamic, 0, conv(toDynamic)},
		"toobject":   {1, 1, Dynamic, 0, conv(toDynamic)},
		"gettype":    {1, 1, String, 0, conv(func(v any) any { return kustoType(v) })},
		// strings
		"strcat": {1, -1, String, 0, func(_ *compiler, a []any) any {
			var b strings.Builder
			for _, v := range a {
				b.WriteString(text(v))
			}
			return b.String()
		}},
		"strcat_delim": {2, -1, String, 0, func(_ *compiler, a []any) any {
			parts := make([]string, 0, len(a))
			for _, v := range a[1:] {
				parts = append(parts, text(v))
			}
			return strings.Join(parts, text(a[0]))
		}},
		"tolower": {1, 1, String, 0, str(func(s string) any { return strings.ToLower(s) })},
		"toupper": {1, 1, String, 0, str(func(s string) any { return strings.ToUpper(s) })},
		"strlen":  {1, 1, Long, 0, str(func(s string) any { return int64(utf8.RuneCountInString(s)) })},
		"reverse": {1, 1, String, 0, str(func(s string) any {
			r := []rune(s)
			for i, j := 0, len(r)-1; i < j; i, j = i+1, j-1 {
				r[i], r[j] = r[j], r[i]
			}
			return string(r)
		})},
		"trim":       {2, 2, String, 0, func(_ *compiler, a []any) any { return trim(text(a[0]), text(a[1]), true, true) }},
		"trim_start": {2, 2, String, 0, func(_ *compiler, a []any) any { return trim(text(a[0]), text(a[1]), true, false) }},
		"trim_end":   {2, 2, String, 0, func(_ *compiler, a []any) any { return trim(text(a[0]), text(a[1]), false, true) }},
		"substring": {2, 3, String, 0, func(_ *compiler, a []any) any {
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
		}},
		"split": {2, 3, Dynamic, 0, func(_ *compiler, a []any) any {
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
		}},
		"countof": {2, 2, Long, 0, func(_ *compiler, a []any) any {
			if text(a[1]) == "" {
				return int64(0)
			}
			return int64(strings.Count(text(a[0]), text(a[1])))
		}},
		"replace_string": {3, 3, String, 0, func(_ *compiler, a []any) any {
			s, t, u := text(a[0]), text(a[1]), text(a[2])
			if t == "" || len(s)+strings.Count(s, t)*len(u) > 16<<20 {
				return s
			}
			return strings.ReplaceAll(s, t, u)
		}},
		"replace_regex": {3, 3, String, 0, func(_ *compiler, a []any) any {
			re := cachedRegexp(text(a[1]))
			if re == nil {
				return nil
			}
			return re.ReplaceAllString(text(a[0]), backReference.ReplaceAllString(text(a[2]), "$${$1}"))
		}},
		"extract": {3, 4, String, 0, func(_ *compiler, a []any) any {
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
		}},
		"isempty":                {1, 1, Bool, 0, conv(func(v any) any { return text(v) == "" })},
		"isnotempty":             {1, 1, Bool, 0, conv(func(v any) any { return text(v) != "" })},
		"isnull":                 {1, 1, Bool, 0, conv(func(v any) any { return v == nil })},
		"isnotnull":              {1, 1, Bool, 0, conv(func(v any) any { return v != nil })},
		"url_decode":             {1, 1, String, 0, str(func(s string) any { u, _ := url.QueryUnescape(s); return u })},
		"url_encode":             {1, 1, String, 0, str(func(s string) any { return url.QueryEscape(s) })},
		"hash_sha256":            {1, 1, String, 0, str(func(s string) any { return fmt.Sprintf("%x", sha256.Sum256([]byte(s))) })},
		"base64_encode_tostring": {1, 1, String, 0, str(func(s string) any { return base64.StdEncoding.EncodeToString([]byte(s)) })},
		"base64_decode_tostring": {1, 1, String, 0, str(func(s string) any {
			b, err := base64.StdEncoding.DecodeString(s)
			if err != nil {
				return nil
			}
			return strings.ToValidUTF8(string(b), "\ufffd")
		})},
		// choice
		"not": {1, 1, Bool, 0, conv(func(v any) any {
			if b, ok := toBool(v).(bool); ok {
				return !b
			}
			return nil
		})},
		"iff": {3, 3, "", 1, iff}, "iif": {3, 3, "", 1, iff},
		"case": {3, -1, "", 1, func(_ *compiler, a []any) any {
			for i := 0; i+1 < len(a); i += 2 {
				if toBool(a[i]) == true {
					return a[i+1]
				}
			}
			return a[len(a)-1]
		}},
		"coalesce": {1, -1, "", 0, func(_ *compiler, a []any) any {
			for _, v := range a {
				if v != nil && v != "" {
					return v
				}
			}
			return a[len(a)-1]
		}},
		"max_of": {1, -1, "", 0, func(_ *compiler, a []any) any { return extreme(a, 1) }},
		"min_of": {1, -1, "", 0, func(_ *compiler, a []any) any { return extreme(a, -1) }},
		// numbers
		"abs": {1, 1, "", 0, func(_ *compiler, a []any) any {
			switch v := a[0].(type) {
			case int64:
				return max(v, -v)
			case float64:
				return math.Abs(v)
			case time.Duration:
				return v.Abs()
			}
			return nil
		}},
		"round": {1, 2, Real, 0, func(_ *compiler, a []any) any {
			x, ok := toReal(a[0])
			p := int64(0)
			if len(a) > 1 {
				p, _ = toLong(a[1]).(int64)
			}
			if !ok || p < 0 || p > 15 {
				return nil
			}
			return math.Round(x*math.Pow10(int(p))) / math.Pow10(int(p))
		}},
		"ceiling": {1, 1, Real, 0, num(math.Ceil)}, "sqrt": {1, 1, Real, 0, num(math.Sqrt)}, "log": {1, 1, Real, 0, num(math.Log)},
		"log10": {1, 1, Real, 0, num(math.Log10)}, "log2": {1, 1, Real, 0, num(math.Log2)}, "exp": {1, 1, Real, 0, num(math.Exp)},
		"pow": {2, 2, Real, 0, func(_ *compiler, a []any) any {
			x, okx := toReal(a[0])
			y, oky := toReal(a[1])
			if !okx || !oky {
				return nil
			}
			return math.Pow(x, y)
		}},
		// dynamic
		"array_length": {1, 1, Long, 0, conv(func(v any) any {
			if l, ok := toDynamic(v).([]any); ok {
				return int64(len(l))
			}
			return nil
		})},
		"bag_keys": {1, 1, Dynamic, 0, conv(func(v any) any {
			m, ok := toDynamic(v).(map[string]any)
			if !ok {
				return nil
			}
			keys := make([]string, 0, len(m))
			for k := range m {
				keys = append(keys, k)
			}
			sort.Strings(keys)
			out := make([]any, len(keys))
			for i, k := range keys {
				out[i] = k
			}
			return out
		})},
		"pack_array": {0, -1, Dynamic, 0, func(_ *compiler, a []any) any { return append([]any{}, a...) }},
		"pack":       {0, -1, Dynamic, 0, pack}, "bag_pack": {0, -1, Dynamic, 0, pack},
		"set_has_element": {2, 2, Bool, 0, func(_ *compiler, a []any) any {
			l, _ := toDynamic(a[0]).([]any)
			for _, v := range l {
				if equal(v, a[1]) {
					return true
				}
			}
			return false
		}},
		"array_index_of": {2, 2, Long, 0, func(_ *compiler, a []any) any {
			l, _ := toDynamic(a[0]).([]any)
			for i, v := range l {
				if equal(v, a[1]) {
					return int64(i)
				}
			}
			return int64(-1)
		}},
		"strcat_array": {2, 2, String, 0, func(_ *compiler, a []any) any {
			l, _ := toDynamic(a[0]).([]any)
			parts := make([]string, len(l))
			for i, v := range l {
				parts[i] = text(v)
			}
			return strings.Join(parts, text(a[1]))
		}},
	}
	maps.Copy(scalars, moreScalars())
}

var backReference = regexp.MustCompile(`\\(\d+)`)

func iff(_ *compiler, a []any) any {
	if toBool(a[0]) == true {
		return a[1]
	}
	return a[2]
}

func pack(_ *compiler, a []any) any {
	m := map[string]any{}
	for i := 0; i+1 < len(a); i += 2 {
		m[text(a[i])] = a[i+1]
	}
	return m
}

func realOrNil(v any) any {
	if f, ok := toReal(v); ok {
		return f
	}
	return nil
}

func toDynamic(v any) any {
	if s, ok := v.(string); ok {
		return parseJSON(s)
	}
	return v
}

func kustoType(v any) string {
	switch v.(type) {
	case nil:
		return "null"
	case map[string]any:
		return "dictionary"
	case []any:
		return "array"
	case int64:
		return "long"
	case float64:
		return "double"
	}
	return string(typeOf(v))
}

func extreme(a []any, sign int) any {
	var best any
	for _, v := range a {
		if v == nil {
			continue
		}
		if c, ok := compare(v, best); best == nil || ok && c*sign > 0 {
			best = v
		}
	}
	return best
}

// bin rounds down to a multiple.
func bin(v, by any) any {
	switch v := v.(type) {
	case time.Time:
		if d, ok := by.(time.Duration); ok && d > 0 {
			return v.Truncate(d) // both count from the year 1
		}
		return nil
	case time.Duration:
		if d, ok := by.(time.Duration); ok && d > 0 {
			return v - ((v%d)+d)%d
		}
		return nil
	case int64:
		if n, ok := by.(int64); ok && n > 0 {
			return v - ((v%n)+n)%n
		}
	}
	x, okx := toReal(v)
	n, okn := toReal(by)
	if !okx || !okn || n <= 0 {
		return nil
	}
	return math.Floor(x/n) * n
}

// trim removes matches of a regular expression from the ends.
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

var regexps = struct {
	sync.Mutex
	m map[string]*regexp.Regexp
}{m: map[string]*regexp.Regexp{}}

// cachedRegexp compiles a pattern once; nil when it is not valid.
func cachedRegexp(p string) *regexp.Regexp {
	regexps.Lock()
	defer regexps.Unlock()
	if re, ok := regexps.m[p]; ok {
		return re
	}
	re, err := regexp.Compile(p)
	if err != nil {
		re = nil
	}
	if len(regexps.m) > 256 {
		clear(regexps.m)
	}
	regexps.m[p] = re
	return re
}

// formatTime formats by letters: y M d H h m s f F t.
func formatTime(t time.Time, spec string) string {
	var b strings.Builder
	for i := 0; i < len(spec); {
		c, n := spec[i], 1
		for i+n < len(spec) && spec[i+n] == c {
			n++
		}
		switch c {
		case 'y':
			if n <= 2 {
				fmt.Fprintf(&b, "%02d", t.Year()%100)
			} else {
				fmt.Fprintf(&b, "%04d", t.Year())
			}
		case 'M':
			fmt.Fprintf(&b, "%0*d", min(n, 2), int(t.Month()))
		case 'd':
			fmt.Fprintf(&b, "%0*d", min(n, 2), t.Day())
		case 'H':
			fmt.Fprintf(&b, "%0*d", min(n, 2), t.Hour())
		case 'h':
			fmt.Fprintf(&b, "%0*d", min(n, 2), (t.Hour()+11)%12+1)
		case 'm':
			fmt.Fprintf(&b, "%0*d", min(n, 2), t.Minute())
		case 's':
			fmt.Fprintf(&b, "%0*d", min(n, 2), t.Second())
		case 'f', 'F':
			digits := fmt.Sprintf("%09d", t.Nanosecond())[:min(n, 7)]
			if c == 'F' {
				digits = strings.TrimRight(digits, "0")
			}
			b.WriteString(digits)
		case 't':
			b.WriteString(t.Format("PM")[:min(n, 2)])
		default:
			b.WriteString(spec[i : i+n])
		}
		i += n
	}
	return b.String()
}
