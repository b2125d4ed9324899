package armtemplate

import (
	"fmt"
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

// parseTime reads the forms of time that templates use; no zone means UTC.
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

// addDuration adds an ISO 8601 duration such as P3Y, -P9D or PT1H30M.
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

// formatTime formats a UTC time by a .NET format string: one of the standard
// letters, or a custom pattern.
func formatTime(t time.Time, spec string) (string, error) {
	switch spec {
	case "u":
		return t.Format("2006-01-02 15:04:05Z"), nil
	case "s":
		return t.Format("2006-01-02T15:04:05"), nil
	case "o", "O":
		return t.Format("2006-01-02T15:04:05.0000000Z"), nil
	case "r", "R":
		return t.Format("Mon, 02 Jan 2006 15:04:05 GMT"), nil
	case "d":
		return t.Format("01/02/2006"), nil
	case "D":
		return t.Format("Monday, 02 January 2006"), nil
	case "t":
		return t.Format("15:04"), nil
	case "T":
		return t.Format("15:04:05"), nil
	case "g":
		return t.Format("01/02/2006 15:04"), nil
	case "G":
		return t.Format("01/02/2006 15:04:05"), nil
	case "y", "Y":
		return t.Format("2006 January"), nil
	case "m", "M":
		return t.Format("January 02"), nil
	}
	if len(spec) == 1 && spec != "%" {
		return "", failf("'%s' is not a date format", spec)
	}
	spec = strings.TrimPrefix(spec, "%")
	var b strings.Builder
	for i := 0; i < len(spec); {
		c := spec[i]
		n := 1
		for i+n < len(spec) && spec[i+n] == c {
			n++
		}
		switch c {
		case 'y':
			switch {
			case n <= 2:
				fmt.Fprintf(&b, "%0*d", n, t.Year()%100)
			default:
				fmt.Fprintf(&b, "%0*d", n, t.Year())
			}
		case 'M':
			switch n {
			case 1, 2:
				fmt.Fprintf(&b, "%0*d", n, int(t.Month()))
			case 3:
				b.WriteString(t.Format("Jan"))
			default:
				b.WriteString(t.Month().String())
			}
		case 'd':
			switch n {
			case 1, 2:
				fmt.Fprintf(&b, "%0*d", n, t.Day())
			case 3:
				b.WriteString(t.Format("Mon"))
			default:
				b.WriteString(t.Weekday().String())
			}
		case 'H':
			fmt.Fprintf(&b, "%0*d", min(n, 2), t.Hour())
		case 'h':
			fmt.Fprintf(&b, "%0*d", min(n, 2), (t.Hour()+11)%12+1)
		case 'm':
			fmt.Fprintf(&b, "%0*d", min(n, 2), t.Minute())
		case 's':
			fmt.Fprintf(&b, "%0*d", min(n, 2), t.Second())
		case 'f', 'F':
			if n > 7 {
				return "", failf("'%s' asks for more than 7 digits of a second", clip(spec))
			}
			digits := fmt.Sprintf("%09d", t.Nanosecond())[:n]
			if c == 'F' {
				digits = strings.TrimRight(digits, "0")
			}
			b.WriteString(digits)
		case 't':
			half := "AM"
			if t.Hour() >= 12 {
				half = "PM"
			}
			b.WriteString(half[:min(n, 2)])
		case 'K':
			b.WriteString("Z")
		case 'z':
			b.WriteString([]string{"+0", "+00", "+00:00"}[min(n, 3)-1])
		case '\'', '"':
			end := strings.IndexByte(spec[i+1:], c)
			if end < 0 {
				return "", failf("'%s' has a quote that is not closed", clip(spec))
			}
			b.WriteString(spec[i+1 : i+1+end])
			n = end + 2
		case '\\':
			if i+1 >= len(spec) {
				return "", failf("'%s' ends in the middle of an escape", clip(spec))
			}
			b.WriteByte(spec[i+1])
			n = 2
		default:
			b.WriteString(spec[i : i+n])
		}
		i += n
	}
	return b.String(), nil
}
