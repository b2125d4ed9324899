// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package kql

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

var timespanUnits = []struct {
	suffix string
	unit   time.Duration
}{
	{"microseconds", time.Microsecond}, {"microsecond", time.Microsecond}, {"milliseconds", time.Millisecond}, {"millisecond", time.Millisecond}, {"seconds", time.Second}, {"second", time.Second}, {"sec", time.Second},
	{"minutes", time.Minute}, {"minute", time.Minute}, {"min", time.Minute}, {"hours", time.Hour}, {"hour", time.Hour}, {"hrs", time.Hour}, {"days", 24 * time.Hour}, {"day", 24 * time.Hour},
	{"tick", 100 * time.Nanosecond}, {"us", time.Microsecond}, {"ms", time.Millisecond}, {"d", 24 * time.Hour}, {"h", time.Hour}, {"m", time.Minute}, {"s", time.Second},
}

// parseNumber parses 12, 0x1f, 1.5, 1e3 and timespans such as 1.5h.
func parseNumber(s string) (any, error) {
	if i, err := strconv.ParseInt(s, 0, 64); err == nil && !(len(s) > 1 && s[0] == '0' && s[1] != 'x' && s[1] != 'X') {
		return i, nil
	}
	if i, err := strconv.ParseInt(s, 10, 64); err == nil {
		return i, nil
	}
	if !strings.ContainsAny(s, "xXpP_iInN") {
		if f, err := strconv.ParseFloat(s, 64); err == nil {
			return f, nil
		}
	}
	for _, u := range timespanUnits {
		if num, ok := strings.CutSuffix(strings.ToLower(s), u.suffix); ok {
			if f, err := strconv.ParseFloat(num, 64); err == nil && !strings.ContainsAny(num, "xpe_in") {
				if d := f * float64(u.unit); d < 1<<62 && d > -1<<62 {
					return time.Duration(d), nil
				}
			}
		}
	}
	return nil, fmt.Errorf("'%s' is neither a number nor a timespan", s)
}

// parseTimespan parses 1d, 00:05:00, 1.02:03:04.5 and numbers of days.
func parseTimespan(s string) (time.Duration, error) {
	s = strings.TrimSpace(s)
	neg := strings.HasPrefix(s, "-")
	s = strings.TrimPrefix(s, "-")
	sign := time.Duration(1)
	if neg {
		sign = -1
	}
	if strings.Contains(s, ":") {
		days := 0.0
		rest := s
		if i, j := strings.IndexByte(s, '.'), strings.IndexByte(s, ':'); i >= 0 && i < j {
			d, err := strconv.ParseUint(s[:i], 10, 20)
			if err != nil {
				return 0, fmt.Errorf("'%s' is not a timespan", s)
			}
			days, rest = float64(d), s[i+1:]
		}
		parts := strings.Split(rest, ":")
		total := days * 24 * float64(time.Hour)
		for i, unit := range []time.Duration{time.Hour, time.Minute, time.Second} {
			if i >= len(parts) {
				break
			}
			f, err := strconv.ParseFloat(parts[i], 64)
			if err != nil || f < 0 || f > 1e6 {
				return 0, fmt.Errorf("'%s' is not a timespan", s)
			}
			total += f * float64(unit)
		}
		if len(parts) > 3 || total >= 1<<62 {
			return 0, fmt.Errorf("'%s' is not a timespan", s)
		}
		return sign * time.Duration(total), nil
	}
	v, err := parseNumber(s)
	if err == nil {
		switch v := v.(type) {
		case time.Duration:
			return sign * v, nil
		case int64:
			if v < 100000 {
				return sign * time.Duration(v) * 24 * time.Hour, nil
			}
		}
	}
	return 0, fmt.Errorf("'%s' is not a timespan, such as 5m or 1.00:00:00", s)
}

// ParseTime parses a date and time, usually of ISO 8601, as datetime() does. No
// zone means UTC.
func ParseTime(s string) (time.Time, error) {
	s = strings.TrimSpace(s)
	for _, l := range []string{time.RFC3339Nano, "2006-01-02T15:04:05.999999999", "2006-01-02 15:04:05.999999999Z07:00", "2006-01-02 15:04:05.999999999", "2006-01-02T15:04Z07:00", "2006-01-02T15:04", "2006-01-02 15:04", "2006-01-02", "2006-01", "2006", "01/02/2006 15:04:05", "01/02/2006"} {
		if t, err := time.Parse(l, s); err == nil {
			return t.UTC(), nil
		}
	}
	return time.Time{}, fmt.Errorf("'%s' is not a date and time, such as 2026-11-24T10:00:00Z", s)
}
