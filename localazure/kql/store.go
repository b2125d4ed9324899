package kql

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
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
	// Message is the text for a person.
	Message string
	// Properties is the whole line where it was JSON, else nil.
	Properties json.RawMessage
	// Cluster is the ARM ID of the managed cluster; empty for the instance's
	// own components.
	Cluster string
	// Pod is the name of the pod or process.
	Pod string
}

// line is the log line as it was written, as far as it is kept.
func (r *Record) line() string {
	if len(r.Properties) > 0 {
		return string(r.Properties)
	}
	return r.Message
}

// Options of a Store.
type Options struct {
	// Retention is how long records are kept; 0 means 7 days.
	Retention time.Duration
	// MaxRecords bounds the number of records; 0 means 5 million.
	MaxRecords int64
	// Clock tells the time; nil means time.Now.
	Clock func() time.Time
}

// Store is a database of log records. It is safe for concurrent use, also by
// several processes.
type Store struct {
	db   *sql.DB
	opts Options
}

// Open opens or makes the database at path (mode 0600).
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
		return nil, errors.Join(fmt.Errorf("preparing the log database %s: %w", path, err), db.Close())
	}
	return &Store{db: db, opts: opts}, nil
}

// Close closes the database.
func (s *Store) Close() error { return s.db.Close() }

// Append adds records in one transaction.
func (s *Store) Append(ctx context.Context, recs ...Record) error {
	return s.write(ctx, recs, nil)
}

// write adds records and, with them, whatever more does in the transaction.
func (s *Store) write(ctx context.Context, recs []Record, more func(*sql.Tx) error) (err error) {
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
	if more != nil {
		if err = more(tx); err != nil {
			return err
		}
	}
	return tx.Commit()
}

// Prune removes records that are older than the retention or beyond the
// largest number, and tells how many.
func (s *Store) Prune(ctx context.Context) (int64, error) {
	res, err := s.db.ExecContext(ctx, `DELETE FROM records WHERE time < ? OR id <= (SELECT COALESCE(MAX(id),0) FROM records) - ?`,
		s.opts.Clock().Add(-s.opts.Retention).UnixNano(), s.opts.MaxRecords)
	if err != nil {
		return 0, fmt.Errorf("removing old log records: %w", err)
	}
	return res.RowsAffected()
}

// Request is a query with its frame.
type Request struct {
	Query string
	// From and To bound TimeGenerated; zero means unbounded.
	From, To time.Time
	// Views limits the answer to what one of them shows; nil means all records,
	// an empty list none.
	Views []View
}

// View is a part of the records: those of a cluster, of one category or all,
// from a time on.
type View struct {
	// Cluster is a cluster's ARM ID, in any case.
	Cluster string
	// Category is empty for all.
	Category string
	// Since is zero for those of any time.
	Since time.Time
}

// condition is the SQL that a record of one of the views fulfils.
func condition(views []View) (string, []any) {
	if len(views) == 0 {
		return "0", nil
	}
	var terms []string
	var args []any
	for _, v := range views {
		term := "lower(cluster) = ?"
		args = append(args, strings.ToLower(v.Cluster))
		if v.Category != "" {
			term += " AND category = ?"
			args = append(args, v.Category)
		}
		if !v.Since.IsZero() {
			term += " AND time >= ?"
			args = append(args, v.Since.UnixNano())
		}
		terms = append(terms, term)
	}
	return "((" + strings.Join(terms, ") OR (") + "))", args
}

// Result is the answer to a query. Values are null, bool, int64, float64,
// string, and decoded JSON for dynamic columns; times and timespans are text.
type Result struct {
	Columns []Column
	Rows    [][]any
	// Truncated is set when rows beyond MaxRowsReturned were left out.
	Truncated bool
}

// Query answers a query. A fault of the query is an *Error.
func (s *Store) Query(ctx context.Context, req Request) (*Result, error) {
	q, err := parse(req.Query)
	if err != nil {
		return nil, err
	}
	x := &exec{store: s, req: req, src: req.Query, now: s.opts.Clock().UTC(), run: &run{ctx: ctx}}
	rel, err := x.relation(q)
	if err != nil {
		return nil, err
	}
	res := &Result{Columns: rel.cols, Rows: [][]any{}}
	rel.feed(&collect{rel.cols, res})
	if x.run.err == nil {
		x.run.err = ctx.Err()
	}
	if x.run.err == nil && x.text > maxTextBytes {
		x.run.err = &Error{Code: LimitError, Message: fmt.Sprintf("the query builds more than %d bytes of text", maxTextBytes)}
	}
	return res, x.run.err
}

// resolve finds the tables that names mean.
func (x *exec) resolve(names []token) ([]*table, error) {
	var out []*table
	for _, n := range names {
		if strings.Contains(n.text, "*") {
			return nil, unresolved(x.src, n, fmt.Sprintf("no table is named like '%s': there are %s", n.text, tableNames()))
		}
		t, ok := tables[strings.ToLower(n.text)]
		if !ok || t.name != n.text {
			hint := ""
			if ok {
				hint = "; did you mean '" + t.name + "'?"
			}
			return nil, unresolved(x.src, n, fmt.Sprintf("failed to resolve table named '%s': there are %s%s", n.text, tableNames(), hint))
		}
		out = append(out, t)
	}
	return out, nil
}

// schema is the union of the columns of tables.
func schema(views []*table) []Column {
	var out []Column
	have := map[string]bool{}
	for _, v := range views {
		for _, c := range v.cols {
			if !have[c.Name] {
				have[c.Name] = true
				out = append(out, c.Column)
			}
		}
	}
	return out
}

// neededColumns tells which base columns the query looks at; all of them
// unless an operator narrows the row down.
func (q *pipeline) neededColumns(base []Column) map[string]bool {
	needed, all, star := map[string]bool{}, true, false
	seen := map[*expr]bool{}
	var walk func(e *expr)
	walk = func(e *expr) {
		if e == nil || seen[e] {
			return
		}
		seen[e] = true
		if e.op == exColumn {
			needed[e.name] = true
		}
		star = star || e.op == exStar
		if name := strings.ToLower(e.name); e.op == exCall && (name == "pack_all" || name == "column_ifexists" || name == "columnifexists") {
			star = true
		}
		for _, a := range e.args {
			walk(a)
		}
	}
	for _, op := range q.ops {
		switch op.kind {
		case "project", "summarize", "count", "distinct", "sample-distinct", "make-series", "getschema":
			all = false
		case "mv-apply":
			star = true
		}
		walk(op.pred)
		walk(op.axis.expr)
		for _, k := range op.keys {
			needed[k.left.text] = true
		}
		for _, n := range append(append([]named{}, op.cols...), op.by...) {
			walk(n.expr)
		}
		if !all {
			break
		}
	}
	if all || star {
		for _, c := range base {
			needed[c.Name] = true
		}
	}
	return needed
}

// pushdown is the part of the filter that SQLite can answer: the request's
// frame, and the conditions on time and category that the query begins with.
// It may let through too much, never too little; the where operators still
// run.
func (x *exec) pushdown(q *pipeline) (string, []any) {
	req := x.req
	conds, args := []string{"1"}, []any{}
	add := func(cond string, vals ...any) {
		conds = append(conds, cond)
		args = append(args, vals...)
	}
	if !req.From.IsZero() {
		add("time >= ?", req.From.UnixNano())
	}
	if !req.To.IsZero() {
		add("time < ?", req.To.UnixNano())
	}
	if req.Views != nil {
		cond, vals := condition(req.Views)
		add(cond, vals...)
	}
	bare := &compiler{exec: x}
	constant := func(e *expr) any {
		f, _, err := bare.compile(e)
		if err != nil {
			return nil
		}
		return f(nil)
	}
	seen := map[*expr]bool{}
	var conjunct func(e *expr)
	conjunct = func(e *expr) {
		if seen[e] || len(args) > 500 {
			return
		}
		seen[e] = true
		if e.op == exBinary && e.name == "and" {
			for _, a := range e.args {
				conjunct(a)
			}
			return
		}
		if len(e.args) < 2 || e.args[0].op != exColumn {
			return
		}
		col := e.args[0].name
		switch {
		case col == "Category" && e.op == exBinary && e.name == "==":
			if v, ok := constant(e.args[1]).(string); ok {
				add("category = ?", v)
			}
		case col == "Category" && e.op == exIn && e.name == "in" && e.sub == nil && len(e.args) < 100:
			var vals []any
			for _, a := range e.args[1:] {
				v, ok := constant(a).(string)
				if !ok {
					return
				}
				vals = append(vals, v)
			}
			add("category IN ("+strings.TrimSuffix(strings.Repeat("?,", len(vals)), ",")+")", vals...)
		case col == "TimeGenerated" && e.op == exBinary:
			op, ok := map[string]string{">": ">", ">=": ">=", "<": "<", "<=": "<=", "==": "="}[e.name]
			t, isTime := constant(e.args[1]).(time.Time)
			if ok && isTime {
				add("time "+op+" ?", t.UnixNano())
			} else if e.name == "between" && isTime {
				add("time >= ?", t.UnixNano())
			}
		}
	}
	for _, op := range q.ops {
		if op.kind != "where" {
			break
		}
		conjunct(op.pred)
	}
	return strings.Join(conds, " AND "), args
}

// scan reads a table into a stage; false when the stage wants no more.
func (s *Store) scan(r *run, v *table, base []Column, needed map[string]bool, where string, args []any, first stage) (more bool) {
	if len(v.categories) > 0 {
		not := ""
		if v.not {
			not = "NOT "
		}
		where += " AND category " + not + "IN (" + strings.TrimSuffix(strings.Repeat("?,", len(v.categories)), ",") + ")"
		args = append([]any{}, args...)
		for _, c := range v.categories {
			args = append(args, c)
		}
	}
	type fill struct {
		at  int
		get func(*row) any
	}
	var fills []fill
	for at, b := range base {
		for _, c := range v.cols {
			if c.Name == b.Name && needed[b.Name] {
				fills = append(fills, fill{at, c.get})
			}
		}
	}
	rows, err := s.db.QueryContext(r.ctx, "SELECT time,category,level,message,properties,cluster,pod FROM records WHERE "+where+" ORDER BY id", args...)
	if err != nil {
		return r.fail(fmt.Errorf("reading log records: %w", err))
	}
	defer func() {
		if err := rows.Close(); err != nil {
			more = r.fail(fmt.Errorf("reading log records: %w", err))
		}
	}()
	for rows.Next() {
		var rec Record
		var ns int64
		var props sql.NullString
		if err := rows.Scan(&ns, &rec.Category, &rec.Level, &rec.Message, &props, &rec.Cluster, &rec.Pod); err != nil {
			return r.fail(fmt.Errorf("reading log records: %w", err))
		}
		rec.Time = time.Unix(0, ns).UTC()
		if props.Valid {
			rec.Properties = json.RawMessage(props.String)
		}
		src := &row{rec: &rec}
		out := make([]any, len(base))
		for _, f := range fills {
			out[f.at] = f.get(src)
		}
		if !first.push(out) {
			return false
		}
	}
	if err := rows.Err(); err != nil {
		return r.fail(fmt.Errorf("reading log records: %w", err))
	}
	return true
}

// collect is the last stage.
type collect struct {
	cols []Column
	out  *Result
}

func (c *collect) push(row []any) bool {
	if len(c.out.Rows) >= MaxRowsReturned {
		c.out.Truncated = true
		return false
	}
	vals := make([]any, len(row))
	for i, v := range row {
		if vals[i] = jsonValue(v); v == nil && c.cols[i].Type == String {
			vals[i] = ""
		}
	}
	c.out.Rows = append(c.out.Rows, vals)
	return true
}

func (c *collect) close() {}
