// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package dashboard

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

var start = time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)

func recorderSize(t *testing.T, dir string) int64 {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var n int64
	for _, e := range entries {
		info, err := e.Info()
		if err != nil {
			t.Fatal(err)
		}
		n += info.Size()
	}
	return n
}

func add(t *testing.T, r *Recorder, at time.Time, text string) *Decision {
	t.Helper()
	d := &Decision{Time: at, Kind: KindScaleUp, Text: text}
	if err := r.AddDecision(d); err != nil {
		t.Fatal(err)
	}
	return d
}

// TestRecorderSurvivesRestart checks that everything acknowledged is there after a
// restart without Close, and that IDs go on.
func TestRecorderSurvivesRestart(t *testing.T) {
	dir := t.TempDir()
	r, err := OpenRecorder(dir)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 50 {
		add(t, r, start.Add(time.Duration(i)*time.Minute), "a")
	}
	if _, err := r.AddFrame(&Frame{Time: start.Add(time.Hour), USDPerHour: 3, Nodes: []FrameNode{{Name: "n", USDPerHour: 3}}}); err != nil {
		t.Fatal(err)
	}
	if err := r.AddPoint(Point{Time: start.Add(time.Hour), USD: 3}); err != nil {
		t.Fatal(err)
	}
	again, err := OpenRecorder(dir)
	if err != nil {
		t.Fatal(err)
	}
	list, err := again.Decisions(start.Add(10*time.Minute), start.Add(19*time.Minute), 5)
	if err != nil {
		t.Fatal(err)
	}
	if len(list) != 5 || list[0].ID != 20 || list[4].ID != 16 {
		t.Errorf("decisions = %+v, want IDs 20 down to 16", list)
	}
	if d := add(t, again, start.Add(2*time.Hour), "b"); d.ID != 51 {
		t.Errorf("the next decision has ID %d, want 51", d.ID)
	}
	f, err := again.FrameAt(start.Add(3 * time.Hour))
	if err != nil || f == nil || len(f.Nodes) != 1 || f.USDPerHour != 3 {
		t.Errorf("frame = %+v, %v", f, err)
	}
	if f, err := again.FrameAt(start); err != nil || f != nil {
		t.Errorf("frame before the first = %+v, %v, want none", f, err)
	}
	if points, err := again.Points(10); err != nil || len(points) != 1 || points[0].USD != 3 {
		t.Errorf("points = %+v, %v", points, err)
	}
}

// TestRecorderDropsDamage checks that a torn or damaged record is cut off, the ones
// before it are kept and writing goes on, wherever the damage is.
func TestRecorderDropsDamage(t *testing.T) {
	dir := t.TempDir()
	r, err := OpenRecorder(dir)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 3 {
		add(t, r, start.Add(time.Duration(i)*time.Minute), "decision")
	}
	path := r.segments[0].path
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	second := int(r.segments[0].records[2].offset) - recordHeader
	for cut := second; cut < len(whole); cut++ {
		for _, flip := range []bool{false, true} {
			b := append([]byte(nil), whole...)
			if flip {
				b[cut] ^= 0x41
			} else {
				b = b[:cut]
			}
			other := t.TempDir()
			if err := os.WriteFile(filepath.Join(other, filepath.Base(path)), b, 0o600); err != nil {
				t.Fatal(err)
			}
			again, err := OpenRecorder(other)
			if err != nil {
				t.Fatalf("cut at %d: %v", cut, err)
			}
			if d := add(t, again, start.Add(time.Hour), "after"); d.ID != 3 {
				t.Fatalf("cut at %d: next ID %d, want 3", cut, d.ID)
			}
			list, err := again.Decisions(start, start.Add(2*time.Hour), 10)
			if err != nil || len(list) != 3 || list[0].Text != "after" {
				t.Fatalf("cut at %d: %+v, %v", cut, list, err)
			}
			_ = again.Close()
		}
	}
}

// TestRecorderStaysSmall checks both limits: bytes and age.
func TestRecorderStaysSmall(t *testing.T) {
	dir := t.TempDir()
	const limit = 4 << 20
	r, err := openRecorder(dir, limit, KeptFor)
	if err != nil {
		t.Fatal(err)
	}
	f := &Frame{}
	for i := range 2000 {
		f.Nodes = append(f.Nodes, FrameNode{Name: time.Duration(i * 7919).String(), USDPerHour: float64(i) * 0.317, CPUShare: float64(i*i%1000) / 1000})
	}
	for i := range 400 {
		f.Time = start.Add(time.Duration(i) * time.Minute)
		if _, err := r.AddFrame(f); err != nil {
			t.Fatal(err)
		}
		if n := recorderSize(t, dir); n > limit {
			t.Fatalf("after %d frames the recording has %d bytes, more than %d", i, n, limit)
		}
	}
	if len(r.segments) < 3 {
		t.Fatalf("%d segments: the limit was not reached", len(r.segments))
	}
	f.Time = start.Add(KeptFor + 24*time.Hour)
	f.Nodes = nil
	if _, err := r.AddFrame(f); err != nil {
		t.Fatal(err)
	}
	if n := recorderSize(t, dir); n > 1000 {
		t.Errorf("a week later %d bytes of the old recording are still there", n)
	}
}

// TestRecorderLeavesOtherFiles checks that only its own segments are read and deleted.
func TestRecorderLeavesOtherFiles(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"notes.txt", "x.rec", "1.rec.bak"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("mine"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	r, err := openRecorder(dir, 100, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 5 {
		add(t, r, start.Add(time.Duration(i)*24*time.Hour), "d")
	}
	for _, name := range []string{"notes.txt", "x.rec", "1.rec.bak"} {
		if b, err := os.ReadFile(filepath.Join(dir, name)); err != nil || string(b) != "mine" {
			t.Errorf("%s: %q, %v", name, b, err)
		}
	}
}

// FuzzSegment checks that no file makes the recorder fail or grow.
func FuzzSegment(f *testing.F) {
	dir := f.TempDir()
	r, err := OpenRecorder(dir)
	if err != nil {
		f.Fatal(err)
	}
	if err := r.AddDecision(&Decision{Time: start, Text: "x"}); err != nil {
		f.Fatal(err)
	}
	seed, err := os.ReadFile(r.segments[0].path)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(seed)
	f.Add([]byte("d"))
	f.Fuzz(func(t *testing.T, b []byte) {
		path := filepath.Join(t.TempDir(), "000000000001.rec")
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		s, err := readSegment(path, 1)
		if err != nil {
			t.Fatal(err)
		}
		if s.size > int64(len(b)) {
			t.Errorf("%d bytes of %d are valid", s.size, len(b))
		}
		again, err := readSegment(path, 1)
		if err != nil || again.size != s.size || len(again.records) != len(s.records) {
			t.Errorf("read again: %d records in %d bytes, %v; before %d in %d", len(again.records), again.size, err, len(s.records), s.size)
		}
	})
}
