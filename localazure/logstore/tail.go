// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package logstore

import (
	"bufio"
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"
)

// Source is a log file to follow.
type Source struct {
	// Path of the file. It need not exist yet, and may be truncated or replaced.
	Path string
	// Category, Cluster and Pod of its records.
	Category, Cluster, Pod string
}

const (
	maxLine   = 256 << 10 // bytes; longer lines are cut
	tailBatch = 1000      // records per transaction
)

// Tail follows a log file and appends its lines as records. It writes the
// position in the file in the same transaction as the records, so that a restart
// neither loses nor repeats a line. It returns nil when ctx ends, and an error
// if it cannot read the file or write to the database.
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

// tailOnce appends at most one batch of whole lines and returns their number.
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
			break // an unfinished line is read once it is complete
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

// readLine reads a whole line. n is its length in the file, which is more than
// len(line) if the line was cut.
func readLine(rd *bufio.Reader) (line []byte, n int, err error) {
	for {
		part, err := rd.ReadSlice('\n')
		n += len(part)
		if left := maxLine - len(line); left > 0 {
			line = append(line, part[:min(len(part), left)]...)
		}
		if errors.Is(err, bufio.ErrBufferFull) {
			continue
		}
		return bytes.TrimRight(line, "\r\n"), n, err
	}
}
