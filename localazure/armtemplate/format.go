// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package armtemplate

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// format implements format() with {index[,width][:spec]}, {{ and }}.
func (f *frame) format(s string, args []any) (any, error) {
	var b strings.Builder
	for i := 0; i < len(s); {
		c := s[i]
		switch {
		case c == '{' && strings.HasPrefix(s[i:], "{{"), c == '}' && strings.HasPrefix(s[i:], "}}"):
			b.WriteByte(c)
			i += 2
		case c == '{':
			end := strings.IndexByte(s[i:], '}')
			if end < 0 {
				return nil, failf("'%s' has a '{' without '}'", clip(s))
			}
			text, err := f.placeholder(s[i+1:i+end], args)
			if err != nil {
				return nil, err
			}
			b.WriteString(text)
			i += end + 1
		case c == '}':
			return nil, failf("'%s' has a '}' without '{'", clip(s))
		default:
			b.WriteByte(c)
			i++
		}
		if b.Len() > MaxProducedBytes {
			return nil, failf("the text is too long")
		}
	}
	return b.String(), nil
}

func (f *frame) placeholder(p string, args []any) (string, error) {
	head, spec, _ := strings.Cut(p, ":")
	index, width, hasWidth := strings.Cut(head, ",")
	n, err := strconv.Atoi(strings.TrimSpace(index))
	if err != nil || n < 0 {
		return "", failf("'{%s}' is not the number of an argument", clip(p))
	}
	if n >= len(args) {
		return "", failf("'{%s}' names an argument that does not exist: there are %d", clip(p), len(args))
	}
	text, err := f.formatOne(args[n], spec)
	if err != nil {
		return "", err
	}
	if hasWidth {
		w, err := strconv.Atoi(strings.TrimSpace(width))
		if err != nil || w > 1000 || w < -1000 {
			return "", failf("'{%s}' has a width that is not a number from -1000 to 1000", clip(p))
		}
		text = fmt.Sprintf("%*s", w, text)
	}
	return text, nil
}

func (f *frame) formatOne(v any, spec string) (string, error) {
	if spec == "" {
		return f.toString(v)
	}
	if s, ok := v.(string); ok {
		if t, err := parseTime(s); err == nil {
			return formatTime(t, spec)
		}
		return s, nil
	}
	x, ok := toFloat(v)
	if !ok {
		return f.toString(v)
	}
	return formatNumber(v, x, spec)
}

// formatNumber formats a number with one of the standard specifiers D, X, N, F
// and G and a precision, or with a custom pattern of zeros.
func formatNumber(v any, x float64, spec string) (string, error) {
	i, isInt := v.(int64)
	if strings.Trim(spec, "0") == "" && isInt {
		return fmt.Sprintf("%0*d", len(spec), i), nil
	}
	prec := -1
	if len(spec) > 1 {
		p, err := strconv.Atoi(spec[1:])
		if err != nil || p < 0 || p > 99 {
			return "", failf("'%s' is not a number format", clip(spec))
		}
		prec = p
	}
	switch spec[0] {
	case 'D', 'd':
		if !isInt {
			return "", failf("format '%s' needs an integer", spec)
		}
		width := max(prec, 0)
		if i < 0 {
			width++
		}
		return fmt.Sprintf("%0*d", width, i), nil
	case 'X', 'x':
		if !isInt {
			return "", failf("format '%s' needs an integer", spec)
		}
		s := fmt.Sprintf("%0*x", max(prec, 0), uint64(i))
		if spec[0] == 'X' {
			s = strings.ToUpper(s)
		}
		return s, nil
	case 'F', 'f', 'N', 'n':
		if prec < 0 {
			prec = 2
		}
		s := strconv.FormatFloat(x, 'f', prec, 64)
		if spec[0] == 'N' || spec[0] == 'n' {
			s = groupThousands(s)
		}
		return s, nil
	case 'G', 'g':
		return strconv.FormatFloat(x, 'g', prec, 64), nil
	}
	return "", failf("the number format '%s' is not supported; use D, X, N, F, G or zeros", clip(spec))
}

func groupThousands(s string) string {
	sign := ""
	if strings.HasPrefix(s, "-") {
		sign, s = "-", s[1:]
	}
	whole, frac, hasFrac := strings.Cut(s, ".")
	var b strings.Builder
	for i, c := range whole {
		if i > 0 && (len(whole)-i)%3 == 0 {
			b.WriteByte(',')
		}
		b.WriteRune(c)
	}
	if hasFrac {
		return sign + b.String() + "." + frac
	}
	return sign + b.String()
}

// formatTime formats a UTC time with a .NET format string: a standard letter or
// a custom pattern.
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
				return "", failf("'%s' has more than 7 digits of a second", clip(spec))
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
