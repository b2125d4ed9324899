package kql

import (
	"bufio"
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"time"
)

// Source is a log file to follow.
type Source struct {
	// Path of the file; it may come into being later, be truncated or replaced.
	Path string
	// Category, Cluster and Pod of its records.
	Category, Cluster, Pod string
}

const (
	maxLine   = 256 << 10 // longer lines are cut
	tailBatch = 1000      // records per transaction
)

// Tail follows a log file until the context ends and appends its lines as
// records. How far it has read is written in the same transaction as what it
// read, so that a restart neither loses nor repeats a line. It returns nil
// when the context ends, else the error of the database.
func (s *Store) Tail(ctx context.Context, src Source) error {
	for {
		n, err := s.tailOnce(ctx, src)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return fmt.Errorf("following %s: %w", src.Path, err)
		}
		if n > 0 {
			continue
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(500 * time.Millisecond):
		}
	}
}

// CatchUp reads what a log file holds now, once, and tells how many records
// that were.
func (s *Store) CatchUp(ctx context.Context, src Source) (int, error) {
	total := 0
	for {
		n, err := s.tailOnce(ctx, src)
		total += n
		if err != nil {
			return total, fmt.Errorf("reading %s: %w", src.Path, err)
		}
		if n == 0 {
			return total, nil
		}
	}
}

// tailOnce reads at most one batch of whole lines.
func (s *Store) tailOnce(ctx context.Context, src Source) (int, error) {
	f, err := os.Open(src.Path)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	defer f.Close() //nolint:errcheck // only read
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	var file string
	var offset int64
	err = s.db.QueryRowContext(ctx, `SELECT file, offset FROM tails WHERE path = ?`, src.Path).Scan(&file, &offset)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return 0, err
	}
	id := fileID(info)
	if file != id || info.Size() < offset { // replaced or truncated
		offset = 0
	}
	if _, err := f.Seek(offset, io.SeekStart); err != nil {
		return 0, err
	}
	rd := bufio.NewReaderSize(f, 64<<10)
	var recs []Record
	for len(recs) < tailBatch {
		line, n, err := readLine(rd)
		if errors.Is(err, io.EOF) {
			break // an unfinished line waits for its end
		}
		if err != nil {
			return 0, err
		}
		offset += int64(n)
		if len(bytes.TrimSpace(line)) > 0 {
			recs = append(recs, ParseLine(line, info.ModTime(), src))
		}
	}
	if len(recs) == 0 {
		return 0, nil
	}
	return len(recs), s.write(ctx, recs, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, `INSERT INTO tails(path,file,offset) VALUES(?,?,?) ON CONFLICT(path) DO UPDATE SET file=excluded.file, offset=excluded.offset`, src.Path, id, offset)
		return err
	})
}

// readLine reads a whole line; n is its length in the file, which is more than
// that of line when it was cut.
func readLine(rd *bufio.Reader) (line []byte, n int, err error) {
	for {
		part, err := rd.ReadSlice('\n')
		n += len(part)
		if room := maxLine - len(line); room > 0 {
			line = append(line, part[:min(len(part), room)]...)
		}
		if errors.Is(err, bufio.ErrBufferFull) {
			continue
		}
		return bytes.TrimRight(line, "\r\n"), n, err
	}
}

// ParseLine makes a record of a line of a log: JSON as zap, slog and klog write
// it, an audit event, klog's text, or anything else as it stands. now is the
// time of lines that do not tell theirs.
func ParseLine(line []byte, now time.Time, src Source) Record {
	r := Record{Time: now.UTC(), Category: src.Category, Cluster: src.Cluster, Pod: src.Pod}
	trimmed := bytes.TrimSpace(line)
	if len(trimmed) > 0 && trimmed[0] == '{' && json.Valid(trimmed) {
		r.Properties = append(json.RawMessage{}, trimmed...)
		if m, ok := parseJSON(string(trimmed)).(map[string]any); ok {
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
	// klog: Lmmdd hh:mm:ss.uuuuuu threadid file:line] msg
	if len(r.Message) > 22 && strings.IndexByte("IWEF", r.Message[0]) >= 0 {
		if t, err := time.Parse("0102 15:04:05.000000", r.Message[1:21]); err == nil {
			year := now.UTC().Year()
			at := time.Date(year, t.Month(), t.Day(), t.Hour(), t.Minute(), t.Second(), t.Nanosecond(), time.UTC)
			if at.After(now.Add(24 * time.Hour)) { // written before the turn of the year
				at = at.AddDate(-1, 0, 0)
			}
			r.Time = at
			r.Level = map[byte]string{'I': "info", 'W': "warning", 'E': "error", 'F': "fatal"}[r.Message[0]]
		}
	}
	return r
}

func firstText(m map[string]any, keys ...string) string {
	for _, k := range keys {
		if s, ok := m[k].(string); ok && s != "" {
			return s
		}
	}
	return ""
}

func logTime(v any) (time.Time, bool) {
	switch v := v.(type) {
	case string:
		t, err := parseTime(v)
		if err != nil {
			t, err = time.Parse("2006-01-02T15:04:05.000Z0700", v)
		}
		return t.UTC(), err == nil
	case float64, int64:
		f, _ := toReal(v)
		if f > 1e12 { // milliseconds, as klog's JSON has them
			f /= 1000
		}
		if f > 1e8 && f < 1e11 {
			return time.Unix(0, int64(f*1e6)*1e3).UTC(), true
		}
	}
	return time.Time{}, false
}
