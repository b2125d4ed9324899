// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package logstore

import (
	"bytes"
	"encoding/json"
	"strings"
	"time"

	"github.com/nap-aks/nap/localazure/kql"
)

// ParseLine returns the record of a log line: JSON as zap, slog and klog write
// it, an audit event, klog's text format, or any other text. now is the time of
// lines without one, and gives klog's lines their year.
func ParseLine(line []byte, now time.Time, src Source) Record {
	r := Record{Time: now.UTC(), Category: src.Category, Cluster: src.Cluster, Pod: src.Pod}
	trimmed := bytes.TrimSpace(line)
	if len(trimmed) > 0 && trimmed[0] == '{' && json.Valid(trimmed) {
		r.Properties = append(json.RawMessage{}, trimmed...)
		if m, ok := kql.ParseJSON(string(trimmed)).(map[string]any); ok {
			r.Level = strings.ToLower(firstText(m, "level", "severity", "lvl"))
			r.Message = firstText(m, "message", "msg")
			for _, k := range []string{"time", "ts", "timestamp", "stageTimestamp", "lastTimestamp", "eventTime"} {
				if t, ok := logTime(m[k]); ok {
					r.Time = t
					break
				}
			}
			if r.Level == "" && m["err"] != nil {
				r.Level = "error"
			}
			if r.Message == "" {
				r.Message = strings.TrimSpace(firstText(m, "reason", "verb") + " " + firstText(m, "note", "requestURI"))
			}
		}
		return r
	}
	r.Message = strings.ToValidUTF8(string(line), "\ufffd")
	// klog's text format: Lmmdd hh:mm:ss.uuuuuu threadid file:line] msg
	if len(r.Message) > 22 && strings.IndexByte("IWEF", r.Message[0]) >= 0 {
		if t, err := time.Parse("0102 15:04:05.000000", r.Message[1:21]); err == nil {
			year := now.UTC().Year()
			at := time.Date(year, t.Month(), t.Day(), t.Hour(), t.Minute(), t.Second(), t.Nanosecond(), time.UTC)
			if at.After(now.Add(24 * time.Hour)) { // last year's line
				at = at.AddDate(-1, 0, 0)
			}
			r.Time = at
			r.Level = map[byte]string{'I': "info", 'W': "warning", 'E': "error", 'F': "fatal"}[r.Message[0]]
		}
	}
	return r
}

// firstText returns the first of some properties that is a string and not
// empty.
func firstText(m map[string]any, keys ...string) string {
	for _, k := range keys {
		if s, ok := m[k].(string); ok && s != "" {
			return s
		}
	}
	return ""
}

// logTime reads the time of a JSON log line: text, or seconds or milliseconds
// since 1970.
func logTime(v any) (time.Time, bool) {
	var f float64
	switch v := v.(type) {
	case string:
		t, err := kql.ParseTime(v)
		if err != nil {
			t, err = time.Parse("2006-01-02T15:04:05.000Z0700", v)
		}
		return t.UTC(), err == nil
	case float64:
		f = v
	case int64:
		f = float64(v)
	}
	if f > 1e12 { // milliseconds, as in klog's JSON
		f /= 1000
	}
	if f > 1e8 && f < 1e11 {
		return time.Unix(0, int64(f*1e6)*1e3).UTC(), true
	}
	return time.Time{}, false
}
