// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package dashboard

import (
	"bytes"
	"compress/flate"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

const (
	// KeptFor is how long a Recorder keeps a record at most.
	KeptFor = 7 * 24 * time.Hour
	// KeptBytes is how much a Recorder keeps on disk at most.
	KeptBytes = 64 << 20

	segmentBytes  = 1 << 20
	segmentSuffix = ".rec"
	recordHeader  = 21
	// maxRecord bounds one record, as written and when read back.
	maxRecord = 8 << 20
)

// Kinds of records.
const (
	recordDecision byte = 'd'
	recordFrame    byte = 'f'
	recordPoint    byte = 'p'
)

// Recorder keeps decisions and frames in a folder, within KeptFor and KeptBytes. A
// record that Add has acknowledged survives a crash; one that was being written is
// dropped by the next Open. It is safe for concurrent use, by one process: the folder
// must not be shared.
//
// The folder has segments of about a megabyte, the oldest of which are deleted. Each
// record has its kind, time, length and checksum, then compressed JSON.
type Recorder struct {
	mu       sync.Mutex
	dir      string
	maxBytes int64
	keep     time.Duration
	segments []*segment
	out      *os.File // the last segment, or nil
	nextID   uint64
}

type segment struct {
	path    string
	seq     uint64
	size    int64
	records []record
}

// record is where a record is.
type record struct {
	kind   byte
	at     time.Time
	offset int64 // of the payload
	length int
}

// OpenRecorder opens or creates the recording in a folder.
func OpenRecorder(dir string) (*Recorder, error) { return openRecorder(dir, KeptBytes, KeptFor) }

func openRecorder(dir string, maxBytes int64, keep time.Duration) (*Recorder, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("creating the folder of the dashboard's recording: %w", err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("reading the folder of the dashboard's recording: %w", err)
	}
	r := &Recorder{dir: dir, maxBytes: maxBytes, keep: keep, nextID: 1}
	for _, e := range entries {
		seq, err := strconv.ParseUint(strings.TrimSuffix(e.Name(), segmentSuffix), 10, 64)
		if err != nil || !strings.HasSuffix(e.Name(), segmentSuffix) || !e.Type().IsRegular() {
			continue // not ours
		}
		s, err := readSegment(filepath.Join(dir, e.Name()), seq)
		if err != nil {
			return nil, err
		}
		r.segments = append(r.segments, s)
	}
	slices.SortFunc(r.segments, func(a, b *segment) int { return int(int64(a.seq) - int64(b.seq)) })
	newest, err := r.read(recordDecision, time.Time{}, time.Unix(1<<40, 0), 1)
	if err != nil {
		return nil, err
	}
	if len(newest) > 0 {
		var d Decision
		if err := json.Unmarshal(newest[0], &d); err != nil {
			return nil, fmt.Errorf("reading the newest recorded decision: %w", err)
		}
		r.nextID = d.ID + 1
	}
	return r, nil
}

// readSegment reads the index of a segment and cuts off what is damaged.
func readSegment(path string, seq uint64) (*segment, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("reading a recording: %w", err)
	}
	s := &segment{path: path, seq: seq}
	for {
		rec, n, ok := parseRecord(b[s.size:])
		if !ok {
			break
		}
		rec.offset = s.size + recordHeader
		s.records = append(s.records, rec)
		s.size += int64(n)
	}
	if s.size < int64(len(b)) {
		if err := os.Truncate(path, s.size); err != nil {
			return nil, fmt.Errorf("cutting off the damaged end of a recording: %w", err)
		}
	}
	return s, nil
}

// parseRecord parses the record at the start of b and returns its length.
func parseRecord(b []byte) (record, int, bool) {
	if len(b) < recordHeader || !slices.Contains([]byte{recordDecision, recordFrame, recordPoint}, b[0]) {
		return record{}, 0, false
	}
	length := binary.BigEndian.Uint32(b[9:])
	if length > maxRecord || int(length) > len(b)-recordHeader {
		return record{}, 0, false
	}
	payload := b[recordHeader : recordHeader+int(length)]
	if crc32.ChecksumIEEE(payload) != binary.BigEndian.Uint32(b[13:]) || crc32.ChecksumIEEE(b[:17]) != binary.BigEndian.Uint32(b[17:]) {
		return record{}, 0, false
	}
	return record{kind: b[0], at: time.UnixMilli(int64(binary.BigEndian.Uint64(b[1:]))).UTC(), length: int(length)}, recordHeader + int(length), true
}

// AddDecision records a decision and sets its ID.
func (r *Recorder) AddDecision(d *Decision) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	d.ID = r.nextID
	if _, err := r.add(recordDecision, d.Time, d); err != nil {
		return err
	}
	r.nextID++
	return nil
}

// AddFrame records a frame and returns its size in bytes.
func (r *Recorder) AddFrame(f *Frame) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.add(recordFrame, f.Time, f)
}

// AddPoint records a point of the curves.
func (r *Recorder) AddPoint(p Point) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	_, err := r.add(recordPoint, p.Time, p)
	return err
}

func (r *Recorder) add(kind byte, at time.Time, v any) (int, error) {
	var buf bytes.Buffer
	buf.Write(make([]byte, recordHeader))
	z, err := flate.NewWriter(&buf, flate.BestSpeed)
	if err != nil {
		return 0, fmt.Errorf("recording: %w", err)
	}
	if err := errors.Join(json.NewEncoder(z).Encode(v), z.Close()); err != nil {
		return 0, fmt.Errorf("recording: %w", err)
	}
	b := buf.Bytes()
	payload := b[recordHeader:]
	if len(payload) > maxRecord {
		return 0, fmt.Errorf("recording: a record of %d bytes is larger than the limit of %d", len(payload), maxRecord)
	}
	b[0] = kind
	binary.BigEndian.PutUint64(b[1:], uint64(at.UnixMilli()))
	binary.BigEndian.PutUint32(b[9:], uint32(len(payload)))
	binary.BigEndian.PutUint32(b[13:], crc32.ChecksumIEEE(payload))
	binary.BigEndian.PutUint32(b[17:], crc32.ChecksumIEEE(b[:17]))
	if err := r.forget(at, int64(len(b))); err != nil {
		return 0, err
	}
	s, err := r.open()
	if err != nil {
		return 0, err
	}
	if _, err := r.out.WriteAt(b, s.size); err != nil {
		return 0, errors.Join(fmt.Errorf("recording: %w", err), r.out.Truncate(s.size))
	}
	if err := r.out.Sync(); err != nil {
		return 0, fmt.Errorf("recording: %w", err)
	}
	s.records = append(s.records, record{kind: kind, at: time.UnixMilli(at.UnixMilli()).UTC(), offset: s.size + recordHeader, length: len(payload)})
	s.size += int64(len(b))
	return len(b), nil
}

// open opens the segment to write to.
func (r *Recorder) open() (*segment, error) {
	seq := uint64(1)
	if n := len(r.segments); n > 0 {
		last := r.segments[n-1]
		if last.size < segmentBytes {
			if r.out != nil {
				return last, nil
			}
			f, err := os.OpenFile(last.path, os.O_RDWR, 0o600)
			if err != nil {
				return nil, fmt.Errorf("recording: %w", err)
			}
			r.out = f
			return last, nil
		}
		seq = last.seq + 1
	}
	if r.out != nil {
		_ = r.out.Close()
		r.out = nil
	}
	path := filepath.Join(r.dir, fmt.Sprintf("%012d%s", seq, segmentSuffix))
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, fmt.Errorf("recording: %w", err)
	}
	r.out = f
	s := &segment{path: path, seq: seq}
	r.segments = append(r.segments, s)
	return s, nil
}

// forget deletes the oldest segments to keep within the limits with more bytes.
func (r *Recorder) forget(now time.Time, more int64) error {
	total := more
	for _, s := range r.segments {
		total += s.size
	}
	for len(r.segments) > 0 {
		s := r.segments[0]
		old := len(s.records) > 0 && now.Sub(s.records[len(s.records)-1].at) > r.keep
		if total <= r.maxBytes && !old {
			return nil
		}
		if len(r.segments) == 1 && r.out != nil {
			_ = r.out.Close()
			r.out = nil
		}
		if err := os.Remove(s.path); err != nil && !os.IsNotExist(err) {
			return fmt.Errorf("deleting an old recording: %w", err)
		}
		total -= s.size
		r.segments = r.segments[1:]
	}
	return nil
}

// Decisions returns the recorded decisions in [from, to], newest first, at most limit.
func (r *Recorder) Decisions(from, to time.Time, limit int) ([]Decision, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	raw, err := r.read(recordDecision, from, to, limit)
	if err != nil {
		return nil, err
	}
	out := make([]Decision, 0, len(raw))
	for _, b := range raw {
		var d Decision
		if err := json.Unmarshal(b, &d); err != nil {
			return nil, fmt.Errorf("reading a recorded decision: %w", err)
		}
		out = append(out, d)
	}
	return out, nil
}

// FrameAt returns the newest frame at or before a time, nil if there is none.
func (r *Recorder) FrameAt(at time.Time) (*Frame, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	raw, err := r.read(recordFrame, time.Time{}, at, 1)
	if err != nil || len(raw) == 0 {
		return nil, err
	}
	f := &Frame{}
	if err := json.Unmarshal(raw[0], f); err != nil {
		return nil, fmt.Errorf("reading a recorded frame: %w", err)
	}
	return f, nil
}

// Points returns the recorded points, oldest first, at most limit of the newest.
func (r *Recorder) Points(limit int) ([]Point, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	raw, err := r.read(recordPoint, time.Time{}, time.Unix(1<<40, 0), limit)
	if err != nil {
		return nil, err
	}
	out := make([]Point, len(raw))
	for i, b := range raw {
		if err := json.Unmarshal(b, &out[len(raw)-1-i]); err != nil {
			return nil, fmt.Errorf("reading a recorded point: %w", err)
		}
	}
	return out, nil
}

// read returns the records of a kind in [from, to], newest first.
func (r *Recorder) read(kind byte, from, to time.Time, limit int) ([][]byte, error) {
	var out [][]byte
	for i := len(r.segments) - 1; i >= 0 && len(out) < limit; i-- {
		s := r.segments[i]
		var f *os.File
		for j := len(s.records) - 1; j >= 0 && len(out) < limit; j-- {
			rec := s.records[j]
			if rec.kind != kind || rec.at.Before(from) || rec.at.After(to) {
				continue
			}
			if f == nil {
				var err error
				if f, err = os.Open(s.path); err != nil {
					return nil, fmt.Errorf("reading a recording: %w", err)
				}
			}
			b, err := inflate(io.NewSectionReader(f, rec.offset, int64(rec.length)))
			if err != nil {
				_ = f.Close()
				return nil, fmt.Errorf("reading a recording: %w", err)
			}
			out = append(out, b)
		}
		if f != nil {
			_ = f.Close()
		}
	}
	return out, nil
}

func inflate(r io.Reader) ([]byte, error) {
	z := flate.NewReader(r)
	b, err := io.ReadAll(io.LimitReader(z, 8*maxRecord))
	return b, errors.Join(err, z.Close())
}

// Close closes the open file. The Recorder can be used again.
func (r *Recorder) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.out == nil {
		return nil
	}
	err := r.out.Close()
	r.out = nil
	return err
}
