// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package kql

import (
	"fmt"
	"math"
	"strings"
	"time"
)

// datetimeFunctions compute with times and timespans.
var datetimeFunctions = map[string]scalar{
	"now":                              {0, 1, DateTime, now},
	"ago":                              {1, 1, DateTime, func(c *compiler, a []any) any { return arithmetic("-", c.now, a[0]) }},
	"todatetime":                       {1, 1, DateTime, onValue(toTime)},
	"totimespan":                       {1, 1, TimeSpan, onValue(toSpan)},
	"totime":                           {1, 1, TimeSpan, onValue(toSpan)},
	"startofhour":                      {1, 1, DateTime, onTime(func(t time.Time) any { return t.Truncate(time.Hour) })},
	"startofday":                       {1, 2, DateTime, startOf(dayStart)},
	"startofweek":                      {1, 2, DateTime, startOf(weekStart)},
	"startofmonth":                     {1, 2, DateTime, startOf(monthStart)},
	"startofyear":                      {1, 2, DateTime, startOf(yearStart)},
	"endofday":                         {1, 2, DateTime, endOf(dayStart)},
	"endofweek":                        {1, 2, DateTime, endOf(weekStart)},
	"endofmonth":                       {1, 2, DateTime, endOf(monthStart)},
	"endofyear":                        {1, 2, DateTime, endOf(yearStart)},
	"dayofweek":                        {1, 1, TimeSpan, onTime(func(t time.Time) any { return time.Duration(t.Weekday()) * 24 * time.Hour })},
	"dayofmonth":                       {1, 1, Long, onTime(func(t time.Time) any { return int64(t.Day()) })},
	"dayofyear":                        {1, 1, Long, onTime(func(t time.Time) any { return int64(t.YearDay()) })},
	"hourofday":                        {1, 1, Long, onTime(func(t time.Time) any { return int64(t.Hour()) })},
	"getmonth":                         {1, 1, Long, onTime(func(t time.Time) any { return int64(t.Month()) })},
	"monthofyear":                      {1, 1, Long, onTime(func(t time.Time) any { return int64(t.Month()) })},
	"getyear":                          {1, 1, Long, onTime(func(t time.Time) any { return int64(t.Year()) })},
	"week_of_year":                     {1, 1, Long, onTime(func(t time.Time) any { _, w := t.ISOWeek(); return int64(w) })},
	"datetime_add":                     {3, 3, DateTime, datetimeAdd},
	"datetime_part":                    {2, 2, Long, datetimePart},
	"datetime_diff":                    {3, 3, Long, datetimeDiff},
	"make_datetime":                    {1, 7, DateTime, makeDatetime},
	"make_timespan":                    {2, 4, TimeSpan, makeTimespan},
	"unixtime_seconds_todatetime":      {1, 1, DateTime, fromUnixSeconds},
	"unixtime_milliseconds_todatetime": {1, 1, DateTime, fromUnix(1e6)},
	"unixtime_microseconds_todatetime": {1, 1, DateTime, fromUnix(1e3)},
	"unixtime_nanoseconds_todatetime":  {1, 1, DateTime, fromUnix(1)},
	"format_datetime":                  {2, 2, String, formatDatetime},
	"format_timespan":                  {2, 2, String, formatTimespan},
}

func now(c *compiler, a []any) any {
	if len(a) > 0 {
		return arithmetic("+", c.now, a[0])
	}
	return c.now
}

func datetimeAdd(_ *compiler, a []any) any {
	n, okn := toLong(a[1]).(int64)
	t, okt := toTime(a[2]).(time.Time)
	if !okn || !okt || n > 1<<31 || n < -1<<31 {
		return nil
	}
	return addToTime(text(a[0]), int(n), t)
}

func datetimePart(_ *compiler, a []any) any {
	t, ok := toTime(a[1]).(time.Time)
	if !ok {
		return nil
	}
	return timePart(text(a[0]), t)
}

func datetimeDiff(_ *compiler, a []any) any {
	x, okx := toTime(a[1]).(time.Time)
	y, oky := toTime(a[2]).(time.Time)
	if !okx || !oky {
		return nil
	}
	return boundariesBetween(text(a[0]), x, y)
}

func makeDatetime(_ *compiler, a []any) any {
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
}

func makeTimespan(_ *compiler, a []any) any {
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
}

func fromUnixSeconds(_ *compiler, a []any) any {
	if f, ok := toReal(a[0]); ok && math.Abs(f) < 1e11 {
		return time.Unix(0, int64(f*1000)*1e6).UTC()
	}
	return nil
}

func formatDatetime(_ *compiler, a []any) any {
	if t, ok := toTime(a[0]).(time.Time); ok {
		return formatTime(t, text(a[1]))
	}
	return ""
}

func formatTimespan(_ *compiler, a []any) any {
	if d, ok := toSpan(a[0]).(time.Duration); ok {
		return formatTime(time.Unix(0, 0).UTC().Add(d), strings.ReplaceAll(text(a[1]), "d", ""))
	}
	return ""
}

// formatTime formats a time with a pattern of the letters y M d H h m s f F t.
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

// addToTime adds n units to a time. If the resulting month has no such day, the
// result is its last day.
func addToTime(unit string, n int, t time.Time) any {
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

// boundariesBetween counts the starts of units between y and x.
func boundariesBetween(unit string, x, y time.Time) any {
	month := func(t time.Time) int64 { return int64(t.Year())*12 + int64(t.Month()) - 1 }
	switch unit = strings.ToLower(unit); unit {
	case "year":
		return int64(x.Year() - y.Year())
	case "quarter":
		return month(x)/3 - month(y)/3
	case "month":
		return month(x) - month(y)
	case "week": // weeks start on Sunday
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

// timePart returns one part of a time.
func timePart(part string, t time.Time) any {
	_, week := t.ISOWeek()
	v, ok := map[string]int{"year": t.Year(), "quarter": (int(t.Month()) + 2) / 3, "month": int(t.Month()), "week_of_year": week, "weekofyear": week, "day": t.Day(), "dayofyear": t.YearDay(),
		"hour": t.Hour(), "minute": t.Minute(), "second": t.Second(), "millisecond": t.Nanosecond() / 1e6, "microsecond": t.Nanosecond() / 1e3, "nanosecond": t.Nanosecond()}[strings.ToLower(part)]
	if !ok {
		return nil
	}
	return int64(v)
}

// startOf makes functions like startofday. start returns the beginning of the
// n-th period after that of t.
func startOf(start func(t time.Time, n int) time.Time) func(*compiler, []any) any {
	return func(_ *compiler, a []any) any {
		t, n, ok := timeAndPeriods(a)
		if !ok {
			return nil
		}
		return start(t, n)
	}
}

// endOf makes functions like endofday, which return the last tick (100 ns) of the
// period.
func endOf(start func(t time.Time, n int) time.Time) func(*compiler, []any) any {
	return func(_ *compiler, a []any) any {
		t, n, ok := timeAndPeriods(a)
		if !ok {
			return nil
		}
		return start(t, n+1).Add(-100)
	}
}

// timeAndPeriods returns the arguments: a time and, optionally, a number of
// periods.
func timeAndPeriods(a []any) (t time.Time, n int, ok bool) {
	if t, ok = toTime(a[0]).(time.Time); !ok || len(a) < 2 {
		return t, 0, ok
	}
	periods, ok := toLong(a[1]).(int64)
	return t, int(periods), ok && periods > -10000 && periods < 10000
}

func dayStart(t time.Time, n int) time.Time {
	return time.Date(t.Year(), t.Month(), t.Day()+n, 0, 0, 0, 0, time.UTC)
}

func weekStart(t time.Time, n int) time.Time { return dayStart(t, 7*n-int(t.Weekday())) }

func monthStart(t time.Time, n int) time.Time {
	return time.Date(t.Year(), t.Month()+time.Month(n), 1, 0, 0, 0, 0, time.UTC)
}

func yearStart(t time.Time, n int) time.Time {
	return time.Date(t.Year()+n, 1, 1, 0, 0, 0, 0, time.UTC)
}

// fromUnix makes the functions unixtime_*_todatetime. unit is in nanoseconds.
func fromUnix(unit int64) func(*compiler, []any) any {
	return func(_ *compiler, a []any) any {
		n, ok := toLong(a[0]).(int64)
		if !ok || n/1_000_000 > 1e11/unit*1000 || n/1_000_000 < -1e11/unit*1000 {
			return nil
		}
		return time.Unix(0, 0).UTC().Add(time.Duration(n) * time.Duration(unit))
	}
}
