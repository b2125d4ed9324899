// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package logstore

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	_ "modernc.org/sqlite" // the database
)

// Record is one line of a log.
type Record struct {
	// Time the line was written.
	Time time.Time
	// Category as AKS names it, such as "kube-apiserver" or
	// "node-auto-provisioning".
	Category string
	// Level such as "info", "warning", "error"; lower case, may be empty.
	Level string
	// Message is the human-readable text.
	Message string
	// Properties is the whole line if it was JSON, else nil.
	Properties json.RawMessage
	// Cluster is the ARM ID of the managed cluster; empty for components of the
	// instance itself.
	Cluster string
	// Pod is the name of the pod or process.
	Pod string
}

// line returns the log line, which for JSON is the line as it was written.
func (r *Record) line() string {
	if len(r.Properties) > 0 {
		return string(r.Properties)
	}
	return r.Message
}

// Options configure a Store.
type Options struct {
	// Retention is how long records are kept; 0 means 7 days.
	Retention time.Duration
	// MaxRecords bounds the number of records; 0 means 5 million.
	MaxRecords int64
	// Clock returns the current time; nil means time.Now.
	Clock func() time.Time
}

// Store is a database of log records. It is safe for concurrent use, also by
// several processes.
type Store struct {
	db   *sql.DB
	opts Options
}

// Open opens the database at path and creates it, with mode 0600, if it does
// not exist.
func Open(path string, opts Options) (*Store, error) {
	if opts.Retention <= 0 {
		opts.Retention = 7 * 24 * time.Hour
	}
	if opts.MaxRecords <= 0 {
		opts.MaxRecords = 5_000_000
	}
	if opts.Clock == nil {
		opts.Clock = time.Now
	}
	f, err := os.OpenFile(filepath.Clean(path), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("opening the log database: %w", err)
	}
	if err := f.Close(); err != nil {
		return nil, fmt.Errorf("opening the log database: %w", err)
	}
	dsn := "file:" + path + "?_pragma=busy_timeout(10000)&_pragma=journal_mode(WAL)&_pragma=synchronous(NORMAL)&_txlock=immediate"
	db, err := sql.Open("sqlite", dsn)
	if err != nil {
		return nil, fmt.Errorf("opening the log database %s: %w", path, err)
	}
	db.SetMaxOpenConns(4)
	const schema = `
CREATE TABLE IF NOT EXISTS records(id INTEGER PRIMARY KEY, time INTEGER NOT NULL, category TEXT NOT NULL, level TEXT NOT NULL, message TEXT NOT NULL, properties TEXT, cluster TEXT NOT NULL, pod TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS by_category ON records(category, time);
CREATE INDEX IF NOT EXISTS by_time ON records(time);
CREATE TABLE IF NOT EXISTS tails(path TEXT PRIMARY KEY, file TEXT NOT NULL, offset INTEGER NOT NULL);`
	if _, err := db.Exec(schema); err != nil {
		return nil, errors.Join(fmt.Errorf("creating the tables of the log database %s: %w", path, err), db.Close())
	}
	return &Store{db: db, opts: opts}, nil
}

// Close closes the database.
func (s *Store) Close() error { return s.db.Close() }

// Append adds records in one transaction.
func (s *Store) Append(ctx context.Context, recs ...Record) error {
	return s.write(ctx, recs, nil)
}

// write adds records and calls also, if it is not nil, in the same transaction.
func (s *Store) write(ctx context.Context, recs []Record, also func(*sql.Tx) error) (err error) {
	tx, err := s.db.BeginTx(ctx, nil)
	if err != nil {
		return fmt.Errorf("writing log records: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("writing log records: %w", err), tx.Rollback())
		}
	}()
	ins, err := tx.PrepareContext(ctx, `INSERT INTO records(time,category,level,message,properties,cluster,pod) VALUES(?,?,?,?,?,?,?)`)
	if err != nil {
		return err
	}
	for i := range recs {
		r := &recs[i]
		var props any
		if len(r.Properties) > 0 {
			props = string(r.Properties)
		}
		if _, err = ins.ExecContext(ctx, r.Time.UnixNano(), r.Category, r.Level, r.Message, props, r.Cluster, r.Pod); err != nil {
			return errors.Join(err, ins.Close())
		}
	}
	if err = ins.Close(); err != nil {
		return err
	}
	if also != nil {
		if err = also(tx); err != nil {
			return err
		}
	}
	return tx.Commit()
}

// Prune deletes records that are older than the retention or exceed the largest
// number of records. It returns the number of deleted records.
func (s *Store) Prune(ctx context.Context) (int64, error) {
	res, err := s.db.ExecContext(ctx, `DELETE FROM records WHERE time < ? OR id <= (SELECT COALESCE(MAX(id),0) FROM records) - ?`,
		s.opts.Clock().Add(-s.opts.Retention).UnixNano(), s.opts.MaxRecords)
	if err != nil {
		return 0, fmt.Errorf("deleting old log records: %w", err)
	}
	return res.RowsAffected()
}
