// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package logstore

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/nap-aks/nap/localazure/kql"
)

// parseInterval reads an ISO 8601 interval: P1D, PT1H, start/end,
// start/duration or duration/end. A duration alone ends at now. The empty
// interval is unbounded.
func parseInterval(s string, now time.Time) (from, to time.Time, err error) {
	s = strings.TrimSpace(s)
	if s == "" {
		return from, to, nil
	}
	a, b, two := strings.Cut(s, "/")
	if !two {
		d, err := isoDuration(a)
		if err != nil {
			return from, to, err
		}
		return now.Add(-d), time.Time{}, nil
	}
	if strings.HasPrefix(a, "P") {
		if to, err = kql.ParseTime(b); err != nil {
			return from, to, err
		}
		d, err := isoDuration(a)
		return to.Add(-d), to, err
	}
	if from, err = kql.ParseTime(a); err != nil {
		return from, to, err
	}
	if strings.HasPrefix(b, "P") {
		d, err := isoDuration(b)
		return from, from.Add(d), err
	}
	to, err = kql.ParseTime(b)
	return from, to, err
}

// Units of ISO 8601 durations before and after the T.
var (
	dateUnits = map[byte]time.Duration{'Y': 365 * 24 * time.Hour, 'M': 30 * 24 * time.Hour, 'W': 7 * 24 * time.Hour, 'D': 24 * time.Hour}
	timeUnits = map[byte]time.Duration{'H': time.Hour, 'M': time.Minute, 'S': time.Second}
)

// isoDuration reads PnYnMnDTnHnMnS and PnW. A year has 365 days, a month 30.
func isoDuration(s string) (time.Duration, error) {
	bad := fmt.Errorf("'%s' is not an ISO 8601 duration, such as P1D or PT4H", s)
	rest, ok := strings.CutPrefix(s, "P")
	if !ok || rest == "" {
		return 0, bad
	}
	var total time.Duration
	units := dateUnits
	inTime := false
	for rest != "" {
		if rest[0] == 'T' && !inTime {
			inTime, units, rest = true, timeUnits, rest[1:]
			continue
		}
		i := strings.IndexAny(rest, "YMWDHS")
		if i <= 0 {
			return 0, bad
		}
		n, err := strconv.ParseFloat(rest[:i], 64)
		if err != nil || n < 0 || n > 1e6 {
			return 0, bad
		}
		unit, ok := units[rest[i]]
		if !ok || n*float64(unit) > 1<<62 {
			return 0, bad
		}
		total += time.Duration(n * float64(unit))
		rest = rest[i+1:]
	}
	return total, nil
}
