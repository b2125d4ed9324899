// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package armtemplate

import (
	"strconv"
	"strings"
	"time"
)

var dateFunctions = map[string]builtin{
	"utcNow": {0, 1, func(f *frame, a []any) (any, error) {
		if !f.inDefault {
			return nil, failf("it can only be used in the default value of a parameter")
		}
		spec := "yyyyMMddTHHmmssZ"
		if len(a) > 0 {
			var err error
			if spec, err = strArg(a[0]); err != nil {
				return nil, err
			}
		}
		return wrapStr(formatTime(f.in.Now.UTC(), spec))
	}},
	"dateTimeAdd": {2, 3, func(_ *frame, a []any) (any, error) {
		base, err := strArg(a[0])
		if err != nil {
			return nil, err
		}
		t, err := parseTime(base)
		if err != nil {
			return nil, err
		}
		dur, err := strArg(a[1])
		if err != nil {
			return nil, err
		}
		if t, err = addDuration(t, dur); err != nil {
			return nil, err
		}
		spec := "u"
		if len(a) > 2 {
			if spec, err = strArg(a[2]); err != nil {
				return nil, err
			}
		}
		return wrapStr(formatTime(t, spec))
	}},
	"dateTimeToEpoch": str1(func(s string) (any, error) {
		t, err := parseTime(s)
		return t.Unix(), err
	}),
	"dateTimeFromEpoch": {1, 1, func(_ *frame, a []any) (any, error) {
		n, err := intArg(a[0])
		if err != nil {
			return nil, err
		}
		if n < -62135596800 || n > 253402300799 {
			return nil, failf("%d is not a time between the years 1 and 9999", n)
		}
		return time.Unix(n, 0).UTC().Format("2006-01-02T15:04:05Z"), nil
	}},
}

func wrapStr(s string, err error) (any, error) {
	if err != nil {
		return nil, err
	}
	return s, nil
}

var timeLayouts = []string{
	time.RFC3339Nano, "2006-01-02T15:04:05.999999999", "2006-01-02 15:04:05Z07:00", "2006-01-02 15:04:05",
	"20060102T150405Z07:00", "20060102T150405", "2006-01-02T15:04Z07:00", "2006-01-02T15:04", "2006-01-02", "01/02/2006 15:04:05", "01/02/2006", time.RFC1123,
}

// parseTime parses a date and time. No zone means UTC.
func parseTime(s string) (time.Time, error) {
	if len(s) > 40 {
		return time.Time{}, failf("'%s' is not a date and time", clip(s))
	}
	for _, l := range timeLayouts {
		if t, err := time.Parse(l, s); err == nil {
			return t.UTC(), nil
		}
	}
	return time.Time{}, failf("'%s' is not a date and time", clip(s))
}

// addDuration adds an ISO 8601 duration, such as P3Y, -P9D or PT1H30M.
func addDuration(t time.Time, s string) (time.Time, error) {
	bad := failf("'%s' is not an ISO 8601 duration, such as 'P3Y' or '-PT1H'", clip(s))
	sign := 1
	rest := s
	if strings.HasPrefix(rest, "-") {
		sign, rest = -1, rest[1:]
	}
	rest, ok := strings.CutPrefix(rest, "P")
	if !ok || rest == "" {
		return t, bad
	}
	inTime := false
	for rest != "" {
		if rest[0] == 'T' && !inTime && len(rest) > 1 {
			inTime, rest = true, rest[1:]
		}
		i := 0
		for i < len(rest) && (rest[i] >= '0' && rest[i] <= '9') {
			i++
		}
		if i == 0 || i == len(rest) || i > 6 {
			return t, bad
		}
		n, _ := strconv.Atoi(rest[:i])
		n *= sign
		switch unit := rest[i]; {
		case unit == 'Y' && !inTime:
			t = t.AddDate(n, 0, 0)
		case unit == 'M' && !inTime:
			t = t.AddDate(0, n, 0)
		case unit == 'W' && !inTime:
			t = t.AddDate(0, 0, 7*n)
		case unit == 'D' && !inTime:
			t = t.AddDate(0, 0, n)
		case unit == 'H' && inTime:
			t = t.Add(time.Duration(n) * time.Hour)
		case unit == 'M' && inTime:
			t = t.Add(time.Duration(n) * time.Minute)
		case unit == 'S' && inTime:
			t = t.Add(time.Duration(n) * time.Second)
		default:
			return t, bad
		}
		rest = rest[i+1:]
	}
	if t.Year() < 1 || t.Year() > 9999 {
		return t, failf("the sum is not between the years 1 and 9999")
	}
	return t, nil
}
