package kql

import (
	"crypto/md5" //nolint:gosec // a function of the language, not for secrets
	"encoding/csv"
	"encoding/json"
	"fmt"
	"math"
	"net/netip"
	"net/url"
	"slices"
	"sort"
	"strconv"
	"strings"
	"time"
)

// maxArray bounds the elements of an array that a function makes.
const maxArray = 1 << 20

// moreScalars are further scalar functions: dates, arrays and sets, texts.
func moreScalars() map[string]scalar {
	date := func(f func(time.Time) any) func(*compiler, []any) any {
		return func(_ *compiler, a []any) any {
			t, ok := toTime(a[0]).(time.Time)
			if !ok {
				return nil
			}
			return f(t)
		}
	}
	// moved is startof... and endof...: the second argument counts periods
	moved := func(start func(t time.Time, n int) time.Time, end bool) func(*compiler, []any) any {
		return func(_ *compiler, a []any) any {
			t, ok := toTime(a[0]).(time.Time)
			n := int64(0)
			if len(a) > 1 {
				var isLong bool
				n, isLong = toLong(a[1]).(int64)
				ok = ok && isLong && n > -10000 && n < 10000
			}
			if !ok {
				return nil
			}
			if end {
				return start(t, int(n)+1).Add(-100)
			}
			return start(t, int(n))
		}
	}
	day := func(t time.Time, n int) time.Time {
		return time.Date(t.Year(), t.Month(), t.Day()+n, 0, 0, 0, 0, time.UTC)
	}
	week := func(t time.Time, n int) time.Time { return day(t, 7*n-int(t.Weekday())) }
	month := func(t time.Time, n int) time.Time {
		return time.Date(t.Year(), t.Month()+time.Month(n), 1, 0, 0, 0, 0, time.UTC)
	}
	year := func(t time.Time, n int) time.Time { return time.Date(t.Year()+n, 1, 1, 0, 0, 0, 0, time.UTC) }
	list := func(f func(l []any, a []any) any) func(*compiler, []any) any {
		return func(_ *compiler, a []any) any {
			l, ok := toDynamic(a[0]).([]any)
			if !ok {
				return nil
			}
			return f(l, a[1:])
		}
	}
	number := func(f func(float64) any) func(*compiler, []any) any {
		return func(_ *compiler, a []any) any {
			x, ok := toReal(a[0])
			if !ok {
				return nil
			}
			return f(x)
		}
	}
	whole := func(f func(x, y int64) any) func(*compiler, []any) any {
		return func(_ *compiler, a []any) any {
			x, okx := toLong(a[0]).(int64)
			y, oky := toLong(a[1]).(int64)
			if !okx || !oky {
				return nil
			}
			return f(x, y)
		}
	}
	unix := func(unit int64) func(*compiler, []any) any {
		return func(_ *compiler, a []any) any {
			n, ok := toLong(a[0]).(int64)
			if !ok || n/1_000_000 > 1e11/unit*1000 || n/1_000_000 < -1e11/unit*1000 {
				return nil
			}
			return time.Unix(0, 0).UTC().Add(time.Duration(n) * time.Duration(unit))
		}
	}
	return map[string]scalar{
		// time
		"startofday":   {1, 2, DateTime, 0, moved(day, false)},
		"startofweek":  {1, 2, DateTime, 0, moved(week, false)},
		"startofmonth": {1, 2, DateTime, 0, moved(month, false)},
		"startofyear":  {1, 2, DateTime, 0, moved(year, false)},
		"endofday":     {1, 2, DateTime, 0, moved(day, true)},
		"endofweek":    {1, 2, DateTime, 0, moved(week, true)},
		"endofmonth":   {1, 2, DateTime, 0, moved(month, true)},
		"endofyear":    {1, 2, DateTime, 0, moved(year, true)},
		"dayofmonth":   {1, 1, Long, 0, date(func(t time.Time) any { return int64(t.Day()) })},
		"dayofyear":    {1, 1, Long, 0, date(func(t time.Time) any { return int64(t.YearDay()) })},
		"getmonth":     {1, 1, Long, 0, date(func(t time.Time) any { return int64(t.Month()) })},
		"monthofyear":  {1, 1, Long, 0, date(func(t time.Time) any { return int64(t.Month()) })},
		"week_of_year": {1, 1, Long, 0, date(func(t time.Time) any { _, w := t.ISOWeek(); return int64(w) })},
		"datetime_add": {3, 3, DateTime, 0, func(_ *compiler, a []any) any {
			n, okn := toLong(a[1]).(int64)
			t, okt := toTime(a[2]).(time.Time)
			if !okn || !okt || n > 1<<31 || n < -1<<31 {
				return nil
			}
			return addToDate(text(a[0]), int(n), t)
		}},
		"datetime_part": {2, 2, Long, 0, func(_ *compiler, a []any) any {
			t, ok := toTime(a[1]).(time.Time)
			if !ok {
				return nil
			}
			return partOfDate(text(a[0]), t)
		}},
		"datetime_diff": {3, 3, Long, 0, func(_ *compiler, a []any) any {
			x, okx := toTime(a[1]).(time.Time)
			y, oky := toTime(a[2]).(time.Time)
			if !okx || !oky {
				return nil
			}
			return datesApart(text(a[0]), x, y)
		}},
		"make_datetime": {1, 7, DateTime, 0, func(_ *compiler, a []any) any {
			part := []int64{1, 1, 1, 0, 0, 0}
			seconds := 0.0
			for i := range a {
				n, ok := toLong(a[i]).(int64)
				if !ok || i > 5 || n < 0 || n > 9999 {
					return nil
				}
				part[i] = n
				if i == 5 {
					seconds, _ = toReal(a[i])
				}
			}
			if part[1] < 1 || part[1] > 12 || part[2] < 1 || part[2] > 31 || part[3] > 23 || part[4] > 59 || part[5] > 59 {
				return nil
			}
			return time.Date(int(part[0]), time.Month(part[1]), int(part[2]), int(part[3]), int(part[4]), 0, 0, time.UTC).Add(time.Duration(seconds * float64(time.Second)))
		}},
		"make_timespan": {2, 4, TimeSpan, 0, func(_ *compiler, a []any) any {
			units := []float64{float64(24 * time.Hour), float64(time.Hour), float64(time.Minute), float64(time.Second)}
			if len(a) < 4 {
				units = units[1:]
			}
			total := 0.0
			for i, v := range a {
				f, ok := toReal(v)
				if !ok {
					return nil
				}
				total += f * units[i]
			}
			if math.Abs(total) >= 1<<62 {
				return nil
			}
			return time.Duration(total)
		}},
		"unixtime_milliseconds_todatetime": {1, 1, DateTime, 0, unix(1e6)},
		"unixtime_microseconds_todatetime": {1, 1, DateTime, 0, unix(1e3)},
		"unixtime_nanoseconds_todatetime":  {1, 1, DateTime, 0, unix(1)},
		"bin_at":                           {3, 3, "", 0, func(_ *compiler, a []any) any { return binAt(a[0], a[1], a[2]) }},
		// conversion
		"toboolean": {1, 1, Bool, 0, func(_ *compiler, a []any) any { return toBool(a[0]) }},
		"todecimal": {1, 1, Real, 0, func(_ *compiler, a []any) any { return realOrNil(a[0]) }},
		"toguid":    {1, 1, String, 0, func(_ *compiler, a []any) any { return strings.ToLower(text(a[0])) }},
		"totime":    {1, 1, TimeSpan, 0, func(_ *compiler, a []any) any { return toSpan(a[0]) }},
		"tohex": {1, 1, String, 0, func(_ *compiler, a []any) any {
			n, ok := toLong(a[0]).(int64)
			if !ok {
				return ""
			}
			return strconv.FormatUint(uint64(n), 16) //nolint:gosec // the bits, as hexadecimal digits have them
		}},
		"parsejson": {1, 1, Dynamic, 0, func(_ *compiler, a []any) any { return toDynamic(a[0]) }},
		"dynamic_to_json": {1, 1, String, 0, func(_ *compiler, a []any) any {
			b, err := json.Marshal(jsonValue(a[0]))
			if err != nil {
				return ""
			}
			return string(b)
		}},
		// texts
		"strcmp": {2, 2, Long, 0, func(_ *compiler, a []any) any { return int64(strings.Compare(text(a[0]), text(a[1]))) }},
		"strrep": {2, 3, String, 0, func(_ *compiler, a []any) any {
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
		}},
		"indexof": {2, 5, Long, 0, func(_ *compiler, a []any) any {
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
		}},
		"has_any_index": {2, 2, Long, 0, func(_ *compiler, a []any) any {
			l, _ := toDynamic(a[1]).([]any)
			for i, v := range l {
				if hasTerm(strings.ToLower(text(a[0])), strings.ToLower(text(v))) {
					return int64(i)
				}
			}
			return int64(-1)
		}},
		"extract_all": {2, 3, Dynamic, 0, func(_ *compiler, a []any) any {
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
		}},
		"replace": {3, 3, String, 0, func(_ *compiler, a []any) any {
			re := cachedRegexp(text(a[0]))
			if re == nil {
				return nil
			}
			return re.ReplaceAllString(text(a[2]), backReference.ReplaceAllString(text(a[1]), "$${$1}"))
		}},
		"translate": {3, 3, String, 0, func(_ *compiler, a []any) any {
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
		}},
		"parse_csv": {1, 1, Dynamic, 0, func(_ *compiler, a []any) any {
			fields, err := csv.NewReader(strings.NewReader(text(a[0]))).Read()
			if err != nil {
				return nil
			}
			out := make([]any, len(fields))
			for i, f := range fields {
				out[i] = f
			}
			return out
		}},
		"parse_url": {1, 1, Dynamic, 0, func(_ *compiler, a []any) any {
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
		}},
		"extract_json": {2, 3, String, 0, extractJSON}, "extractjson": {2, 3, String, 0, extractJSON},
		"hash_md5": {1, 1, String, 0, func(_ *compiler, a []any) any {
			return fmt.Sprintf("%x", md5.Sum([]byte(text(a[0])))) //nolint:gosec // as above
		}},
		"ipv4_is_private": {1, 1, Bool, 0, func(_ *compiler, a []any) any {
			ip, err := netip.ParseAddr(text(a[0]))
			if err != nil || !ip.Is4() {
				return nil
			}
			return ip.IsPrivate()
		}},
		"ipv4_is_in_range": {2, 2, Bool, 0, func(_ *compiler, a []any) any {
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
		}},
		// numbers
		"sign":       {1, 1, Long, 0, number(func(x float64) any { return int64(cmp(x, 0)) })},
		"isnan":      {1, 1, Bool, 0, number(func(x float64) any { return math.IsNaN(x) })},
		"isinf":      {1, 1, Bool, 0, number(func(x float64) any { return math.IsInf(x, 0) })},
		"isfinite":   {1, 1, Bool, 0, number(func(x float64) any { return !math.IsInf(x, 0) && !math.IsNaN(x) })},
		"exp2":       {1, 1, Real, 0, number(func(x float64) any { return math.Exp2(x) })},
		"exp10":      {1, 1, Real, 0, number(func(x float64) any { return math.Pow(10, x) })},
		"binary_and": {2, 2, Long, 0, whole(func(x, y int64) any { return x & y })},
		"binary_or":  {2, 2, Long, 0, whole(func(x, y int64) any { return x | y })},
		"binary_xor": {2, 2, Long, 0, whole(func(x, y int64) any { return x ^ y })},
		// arrays, sets and bags
		"array_concat": {1, -1, Dynamic, 0, func(_ *compiler, a []any) any {
			out := []any{}
			for _, v := range a {
				l, ok := toDynamic(v).([]any)
				if !ok || len(out)+len(l) > maxArray {
					return nil
				}
				out = append(out, l...)
			}
			return out
		}},
		"array_slice": {3, 3, Dynamic, 0, list(func(l, a []any) any {
			from, okf := toLong(a[0]).(int64)
			to, okt := toLong(a[1]).(int64)
			if !okf || !okt {
				return nil
			}
			n := int64(len(l))
			if from < 0 {
				from = max(0, from+n)
			}
			if to < 0 {
				to += n
			}
			if to = min(to, n-1); from > to {
				return []any{}
			}
			return slices.Clone(l[from : to+1])
		})},
		"array_reverse": {1, 1, Dynamic, 0, list(func(l, _ []any) any {
			out := slices.Clone(l)
			slices.Reverse(out)
			return out
		})},
		"array_sum": {1, 1, Real, 0, list(func(l, _ []any) any {
			sum := 0.0
			for _, v := range l {
				f, _ := toReal(v)
				sum += f
			}
			return sum
		})},
		"array_sort_asc":  {1, 2, Dynamic, 0, list(func(l, _ []any) any { return sortArray(l, 1) })},
		"array_sort_desc": {1, 2, Dynamic, 0, list(func(l, _ []any) any { return sortArray(l, -1) })},
		"range": {2, 3, Dynamic, 0, func(c *compiler, a []any) any {
			step := any(int64(1))
			if len(a) > 2 {
				step = a[2]
			}
			up := compareZero(step)
			out := []any{}
			for v := a[0]; up != 0 && len(out) < maxArray; v = arithmetic("+", v, step) {
				d, ok := compare(v, a[1])
				if !ok || d*up > 0 {
					break
				}
				if !c.run.makes("range") {
					return nil
				}
				out = append(out, v)
			}
			return out
		}},
		"repeat": {2, 2, Dynamic, 0, func(c *compiler, a []any) any {
			n, ok := toLong(a[1]).(int64)
			if !ok || n < 0 || n > maxArray {
				return nil
			}
			out := make([]any, 0, min(n, 64))
			for range n {
				if !c.run.makes("repeat") {
					return nil
				}
				out = append(out, a[0])
			}
			return out
		}},
		"set_union":      {2, -1, Dynamic, 0, func(_ *compiler, a []any) any { return setOf(a, func(in, of int) bool { return in > 0 }) }},
		"set_intersect":  {2, -1, Dynamic, 0, func(_ *compiler, a []any) any { return setOf(a, func(in, of int) bool { return in == of }) }},
		"set_difference": {2, -1, Dynamic, 0, setDifference},
		"bag_has_key": {2, 2, Bool, 0, func(_ *compiler, a []any) any {
			m, _ := toDynamic(a[0]).(map[string]any)
			_, ok := m[text(a[1])]
			return ok
		}},
		"bag_merge": {2, -1, Dynamic, 0, func(_ *compiler, a []any) any {
			out := map[string]any{}
			for _, v := range slices.Backward(a) { // the first wins
				m, _ := toDynamic(v).(map[string]any)
				for k, v := range m {
					out[k] = v
				}
			}
			return out
		}},
		"bag_remove_keys": {2, 2, Dynamic, 0, func(_ *compiler, a []any) any {
			m, ok := toDynamic(a[0]).(map[string]any)
			if !ok {
				return nil
			}
			out := map[string]any{}
			keys, _ := toDynamic(a[1]).([]any)
			for k, v := range m {
				if !slices.ContainsFunc(keys, func(x any) bool { return text(x) == k }) {
					out[k] = v
				}
			}
			return out
		}},
	}
}

// addToDate is datetime_add; units that have no fixed length follow the
// calendar, and a day that the month does not have is its last.
func addToDate(unit string, n int, t time.Time) any {
	months := func(m int) any {
		if m > 120_000 || m < -120_000 {
			return nil
		}
		first := time.Date(t.Year(), t.Month()+time.Month(m), 1, t.Hour(), t.Minute(), t.Second(), t.Nanosecond(), time.UTC)
		last := first.AddDate(0, 1, -1).Day()
		return first.AddDate(0, 0, min(t.Day(), last)-1)
	}
	switch strings.ToLower(unit) {
	case "year":
		return months(12 * min(max(n, -10_001), 10_001))
	case "quarter":
		return months(3 * min(max(n, -40_001), 40_001))
	case "month":
		return months(n)
	case "week":
		n *= 7
		fallthrough
	case "day":
		if n > 3_650_000 || n < -3_650_000 {
			return nil
		}
		return t.AddDate(0, 0, n)
	}
	d, ok := fixedUnits[strings.ToLower(unit)]
	if !ok || math.Abs(float64(n)*float64(d)) >= 1<<62 {
		return nil
	}
	return t.Add(time.Duration(n) * d)
}

var fixedUnits = map[string]time.Duration{"hour": time.Hour, "minute": time.Minute, "second": time.Second, "millisecond": time.Millisecond, "microsecond": time.Microsecond, "nanosecond": 1}

// datesApart is datetime_diff: how many boundaries of a unit lie between.
func datesApart(unit string, x, y time.Time) any {
	month := func(t time.Time) int64 { return int64(t.Year())*12 + int64(t.Month()) - 1 }
	switch unit = strings.ToLower(unit); unit {
	case "year":
		return int64(x.Year() - y.Year())
	case "quarter":
		return month(x)/3 - month(y)/3
	case "month":
		return month(x) - month(y)
	case "week": // of Sundays
		sunday := func(t time.Time) time.Time {
			return time.Date(t.Year(), t.Month(), t.Day()-int(t.Weekday()), 0, 0, 0, 0, time.UTC)
		}
		return int64(sunday(x).Sub(sunday(y)) / (7 * 24 * time.Hour))
	}
	d := fixedUnits[unit]
	if unit == "day" {
		d = 24 * time.Hour
	}
	if d == 0 {
		return nil
	}
	return x.Truncate(d).Sub(y.Truncate(d)).Nanoseconds() / int64(d)
}

// partOfDate is datetime_part.
func partOfDate(part string, t time.Time) any {
	_, week := t.ISOWeek()
	v, ok := map[string]int{"year": t.Year(), "quarter": (int(t.Month()) + 2) / 3, "month": int(t.Month()), "week_of_year": week, "weekofyear": week, "day": t.Day(), "dayofyear": t.YearDay(),
		"hour": t.Hour(), "minute": t.Minute(), "second": t.Second(), "millisecond": t.Nanosecond() / 1e6, "microsecond": t.Nanosecond() / 1e3, "nanosecond": t.Nanosecond()}[strings.ToLower(part)]
	if !ok {
		return nil
	}
	return int64(v)
}

// binAt rounds down to a multiple of by, counted from a fixed point.
func binAt(v, by, at any) any {
	switch at := at.(type) {
	case time.Time:
		t, okt := v.(time.Time)
		d, okd := by.(time.Duration)
		if !okt || !okd || d <= 0 {
			return nil
		}
		if at.IsZero() { // bin: Duration does not reach back to the year 1
			return bin(t, d)
		}
		off, ok := bin(t.Sub(at), d).(time.Duration)
		if !ok {
			return nil
		}
		return at.Add(off)
	case time.Duration:
		if d, ok := v.(time.Duration); ok {
			if off, ok := bin(d-at, by).(time.Duration); ok {
				return at + off
			}
		}
		return nil
	}
	return arithmetic("+", bin(arithmetic("-", v, at), by), at)
}

func sortArray(l []any, sign int) any {
	out := slices.Clone(l)
	sort.SliceStable(out, func(i, j int) bool {
		if out[i] == nil || out[j] == nil {
			return out[j] == nil && out[i] != nil // nulls last
		}
		c, ok := compare(out[i], out[j])
		return ok && c*sign < 0
	})
	return out
}

// setOf makes a set of arrays: the values for which keep says so, told in how
// many of how many arrays a value is.
func setOf(a []any, keep func(in, of int) bool) any {
	in := map[string]int{}
	var order []any
	for _, v := range a {
		l, ok := toDynamic(v).([]any)
		if !ok {
			return nil
		}
		here := map[string]bool{}
		for _, e := range l {
			if k := key(e); !here[k] {
				if here[k] = true; in[k] == 0 {
					order = append(order, e)
				}
				in[k]++
			}
		}
	}
	out := []any{}
	for _, e := range order {
		if keep(in[key(e)], len(a)) {
			out = append(out, e)
		}
	}
	return out
}

func setDifference(_ *compiler, a []any) any {
	gone := map[string]bool{}
	for _, v := range a[1:] {
		l, ok := toDynamic(v).([]any)
		if !ok {
			return nil
		}
		for _, e := range l {
			gone[key(e)] = true
		}
	}
	l, ok := toDynamic(a[0]).([]any)
	if !ok {
		return nil
	}
	out := []any{}
	for _, e := range l {
		if k := key(e); !gone[k] {
			gone[k] = true
			out = append(out, e)
		}
	}
	return out
}

// extractJSON is extract_json("$.a.b[0]", text, typeof(...)).
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
