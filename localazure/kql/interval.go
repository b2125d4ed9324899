package kql

import (
	"context"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"
)

func contextWithTimeout(r *http.Request, d time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeout(r.Context(), d)
}

// parseInterval reads an ISO 8601 interval: P1D, PT1H, start/end,
// start/duration or duration/end. Empty is unbounded.
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
		if to, err = parseTime(b); err != nil {
			return from, to, err
		}
		d, err := isoDuration(a)
		return to.Add(-d), to, err
	}
	if from, err = parseTime(a); err != nil {
		return from, to, err
	}
	if strings.HasPrefix(b, "P") {
		d, err := isoDuration(b)
		return from, from.Add(d), err
	}
	to, err = parseTime(b)
	return from, to, err
}

// isoDuration reads PnDTnHnMnS and PnW.
func isoDuration(s string) (time.Duration, error) {
	bad := fmt.Errorf("'%s' is not an ISO 8601 duration, such as P1D or PT4H", s)
	rest, ok := strings.CutPrefix(s, "P")
	if !ok || rest == "" {
		return 0, bad
	}
	var total time.Duration
	inTime := false
	for rest != "" {
		if rest[0] == 'T' && !inTime {
			inTime, rest = true, rest[1:]
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
		day := float64(24 * time.Hour)
		unit, ok := map[string]float64{"Y": 365 * day, "M": 30 * day, "W": 7 * day, "D": day, "TH": float64(time.Hour), "TM": float64(time.Minute), "TS": float64(time.Second)}[map[bool]string{true: "T"}[inTime]+rest[i:i+1]]
		if !ok || n*unit > 1<<62 {
			return 0, bad
		}
		total += time.Duration(n * unit)
		rest = rest[i+1:]
	}
	return total, nil
}
