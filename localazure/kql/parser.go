package kql

import (
	"encoding/json"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"
)

type parser struct {
	src   string
	toks  []token
	pos   int
	depth int
	lets  map[string]binding
	// inFunction counts the function bodies around: their lets may depend on
	// columns, through parameters.
	inFunction int
	// search: a bare string is a condition on all columns.
	search bool
	// calls counts calls of the query's own functions.
	calls int
}

// parse reads let statements and one pipeline.
func parse(src string) (*pipeline, error) {
	toks, err := lex(src)
	if err != nil {
		return nil, err
	}
	p := &parser{src: src, toks: toks, lets: map[string]binding{}}
	if err := p.statements(); err != nil {
		return nil, err
	}
	q, err := p.pipeline()
	if err != nil {
		return nil, err
	}
	p.accept(";")
	if p.cur().kind != tokEnd {
		return nil, p.fail("unexpected '%s'", p.cur().text)
	}
	return q, nil
}

func (p *parser) cur() token { return p.toks[p.pos] }

func (p *parser) next() token {
	t := p.toks[p.pos]
	if t.kind != tokEnd {
		p.pos++
	}
	return t
}

func (p *parser) fail(format string, args ...any) error {
	t := p.cur()
	msg := fmt.Sprintf(format, args...)
	if t.kind == tokEnd {
		msg = strings.Replace(msg, "''", "the end of the query", 1)
	}
	return syntax(p.src, t, msg)
}

func (p *parser) is(sym string) bool { return p.cur().kind == tokSymbol && p.cur().text == sym }

func (p *parser) accept(sym string) bool {
	if p.is(sym) {
		p.pos++
		return true
	}
	return false
}

func (p *parser) expect(sym string) error {
	if !p.accept(sym) {
		return p.fail("expected '%s' and found '%s'", sym, p.cur().text)
	}
	return nil
}

func (p *parser) peekName(name string) bool {
	return p.cur().kind == tokName && strings.EqualFold(p.cur().text, name)
}

func (p *parser) acceptName(name string) bool {
	if p.peekName(name) {
		p.pos++
		return true
	}
	return false
}

// columnPatterns reads names that may hold *.
func (p *parser) columnPatterns() ([]named, error) {
	var out []named
	for {
		t := p.cur()
		text := ""
		end := t.off
		for (p.cur().kind == tokName || p.cur().kind == tokNumber || p.is("*")) && (text == "" || p.cur().off == end) {
			text += p.cur().text
			end = p.cur().end
			p.next()
		}
		if text == "" {
			return nil, p.fail("expected a column and found '%s'", p.cur().text)
		}
		out = append(out, named{name: text, tok: t})
		if p.acceptName("asc") || p.acceptName("desc") {
			continue
		}
		if !p.accept(",") {
			return out, nil
		}
	}
}

// namedList reads "name = expr, expr, ..."; auto names those without a name
// that are not plain columns.
func (p *parser) namedList(auto string) ([]named, error) {
	var out []named
	for {
		n := named{tok: p.cur()}
		if p.is("*") {
			n.expr = &expr{op: exStar, tok: p.next()}
			n.name = "*"
		} else {
			n.name = p.assigned()
			e, err := p.expr()
			if err != nil {
				return nil, err
			}
			n.expr = e
			if n.name == "" {
				n.name = autoName(e, auto, len(out))
			}
		}
		out = append(out, n)
		if !p.accept(",") {
			return out, nil
		}
	}
}

// autoName is the name that Kusto gives to a column without one.
func autoName(e *expr, auto string, i int) string {
	switch e.op {
	case exColumn, exLet:
		return e.name
	case exMember:
		return autoName(e.args[0], auto, i) + "_" + e.name
	case exIndex:
		if s, ok := e.args[1].value.(string); ok && e.args[1].op == exLiteral {
			return autoName(e.args[0], auto, i) + "_" + s
		}
	case exCall:
		fn := strings.ToLower(e.name)
		switch fn {
		case "bin", "floor", "tostring", "tolong", "toint", "todouble", "todatetime", "tobool", "tolower", "toupper", "startofday", "startofhour", "parse_json", "todynamic":
			if len(e.args) > 0 && (e.args[0].op == exColumn || e.args[0].op == exMember || e.args[0].op == exIndex) {
				return autoName(e.args[0], auto, i)
			}
		}
		if _, agg := aggregates[fn]; agg {
			name := strings.TrimPrefix(fn+"_", "make_")
			if len(e.args) > 0 && fn != "countif" {
				if a := e.args[0]; a.op == exColumn || a.op == exMember || a.op == exIndex {
					name += autoName(a, auto, i)
				}
				if fn == "percentile" && len(e.args) > 1 && e.args[1].op == exLiteral {
					name += "_" + strings.NewReplacer(".", "_", "-", "_").Replace(text(e.args[1].value))
				}
			}
			return name
		}
	}
	if auto == "print_" {
		return auto + strconv.Itoa(i)
	}
	return auto + strconv.Itoa(i+1)
}

// isAssignment tells whether "name =" comes.
func (p *parser) isAssignment() bool {
	return p.cur().kind == tokName && p.toks[p.pos+1].kind == tokSymbol && p.toks[p.pos+1].text == "="
}

// assigned reads "name =" if it comes, and gives the name; else "".
func (p *parser) assigned() string {
	if !p.isAssignment() {
		return ""
	}
	name := p.next().text
	p.next()
	return name
}

func (p *parser) sortList() ([]named, error) {
	var out []named
	for {
		e, err := p.expr()
		if err != nil {
			return nil, err
		}
		n := named{tok: e.tok, expr: e, desc: true}
		if p.acceptName("asc") {
			n.desc = false
		} else {
			p.acceptName("desc")
		}
		n.nullsFirst = !n.desc
		if p.acceptName("nulls") {
			switch {
			case p.acceptName("first"):
				n.nullsFirst = true
			case p.acceptName("last"):
				n.nullsFirst = false
			default:
				return nil, p.fail("expected first or last after nulls and found '%s'", p.cur().text)
			}
		}
		out = append(out, n)
		if !p.accept(",") {
			return out, nil
		}
	}
}

func (p *parser) enter() error {
	if p.depth++; p.depth > MaxNesting {
		return p.fail("the expression is nested deeper than %d levels", MaxNesting)
	}
	return nil
}

func (p *parser) expr() (*expr, error) {
	if err := p.enter(); err != nil {
		return nil, err
	}
	defer func() { p.depth-- }()
	e, err := p.chain("or", func() (*expr, error) {
		return p.chain("and", p.comparison)
	})
	if err == nil && sizeOf(e) > maxExprSize {
		return nil, p.fail("the expression is too large: it has more than %d parts once the functions it calls are put in", maxExprSize)
	}
	return e, err
}

// maxExprSize bounds the parts of an expression, counted where they are used:
// functions that call each other twice would double them at each step.
const maxExprSize = 20_000

// sizeOf counts an expression's parts; each is looked at once.
func sizeOf(e *expr) int {
	if e.size == 0 {
		e.size = 1
		for _, a := range e.args {
			if e.size += sizeOf(a); e.size > 2*maxExprSize {
				break
			}
		}
	}
	return e.size
}

// plainly parses with bare strings as values.
func (p *parser) plainly(f func() (*expr, error)) (*expr, error) {
	saved := p.search
	p.search = false
	e, err := f()
	p.search = saved
	return e, err
}

// chain parses a run of one logical operator.
func (p *parser) chain(op string, sub func() (*expr, error)) (*expr, error) {
	e, err := sub()
	if err != nil {
		return nil, err
	}
	for first := true; p.peekName(op); first = false {
		t := p.next()
		r, err := sub()
		if err != nil {
			return nil, err
		}
		if !first { // flat, so that long chains stay shallow
			e.args = append(e.args, r)
			continue
		}
		e = &expr{op: exBinary, name: op, args: []*expr{e, r}, tok: t}
	}
	return e, nil
}

var symbolComparisons = map[string]string{"==": "==", "=~": "=~", "!=": "!=", "<>": "!=", "!~": "!~", "<": "<", "<=": "<=", ">": ">", ">=": ">="}

func (p *parser) comparison() (*expr, error) {
	var l *expr
	var err error
	if p.is("*") { // * has "x": in any column
		l = &expr{op: exStar, tok: p.next()}
	} else if l, err = p.additive(); err != nil {
		return nil, err
	}
	t := p.cur()
	name := strings.ToLower(t.text)
	if p.search && p.is(":") { // column:"term"
		p.next()
		r, err := p.additive()
		if err != nil {
			return nil, err
		}
		if r.op != exLiteral {
			return nil, syntax(p.src, r.tok, "expected a text or a number after ':'")
		}
		return term(l, r, t), nil
	}
	if t.kind == tokSymbol {
		if op, ok := symbolComparisons[name]; ok {
			p.next()
			r, err := p.additive()
			if err != nil {
				return nil, err
			}
			return &expr{op: exBinary, name: op, args: []*expr{l, r}, tok: t}, nil
		}
	}
	bare := strings.TrimPrefix(name, "!")
	if t.kind != tokName && !(t.kind == tokSymbol && strings.HasPrefix(name, "!")) {
		return p.alone(l)
	}
	switch bare {
	case "in", "in~", "has_any", "has_all":
		p.next()
		return p.in(l, name, t)
	case "between":
		p.next()
		return p.between(l, name, t)
	case "matches":
		p.next()
		if !p.acceptName("regex") {
			return nil, p.fail("expected 'regex' after matches and found '%s'", p.cur().text)
		}
		r, err := p.additive()
		return &expr{op: exBinary, name: "matches regex", args: []*expr{l, r}, tok: t}, err
	}
	if _, ok := stringOperators[bare]; ok {
		p.next()
		r, err := p.additive()
		return &expr{op: exBinary, name: name, args: []*expr{l, r}, tok: t}, err
	}
	if t.kind == tokSymbol {
		return nil, p.fail("'%s' is not an operator", t.text)
	}
	return p.alone(l)
}

// alone is a value that is compared with nothing.
func (p *parser) alone(e *expr) (*expr, error) {
	if e.op == exStar {
		return nil, syntax(p.src, e.tok, "'*' is followed by an operator on text, as in * has \"x\"")
	}
	if _, ok := e.value.(string); ok && e.op == exLiteral && p.search {
		return term(&expr{op: exStar, tok: e.tok}, e, e.tok), nil
	}
	return e, nil
}

// term is what search means by a text: a whole word, or with stars the
// beginning, the end or a part of one.
func term(of, what *expr, t token) *expr {
	s := text(what.value)
	bare := strings.Trim(s, "*")
	op := "has"
	switch {
	case bare == "":
		return &expr{value: true, tok: t}
	case strings.Contains(bare, "*"):
		parts := strings.Split(s, "*")
		for i := range parts {
			parts[i] = regexp.QuoteMeta(parts[i])
		}
		return &expr{op: exBinary, name: "matches regex", args: []*expr{of, {value: "(?is)" + strings.Join(parts, ".*"), tok: what.tok}}, tok: t}
	case strings.HasPrefix(s, "*") && strings.HasSuffix(s, "*"):
		op = "contains"
	case strings.HasPrefix(s, "*"):
		op = "hassuffix"
	case strings.HasSuffix(s, "*"):
		op = "hasprefix"
	}
	return &expr{op: exBinary, name: op, args: []*expr{of, {value: bare, tok: what.tok}}, tok: t}
}

func (p *parser) in(l *expr, name string, t token) (*expr, error) {
	if err := p.expect("("); err != nil {
		return nil, err
	}
	e := &expr{op: exIn, name: name, args: []*expr{l}, tok: t}
	if p.startsTabular(p.pos) {
		sub, err := p.pipeline()
		if err != nil {
			return nil, err
		}
		e.sub = sub
		return e, p.expect(")")
	}
	for {
		a, err := p.plainly(p.expr)
		if err != nil {
			return nil, err
		}
		e.args = append(e.args, a)
		if p.accept(",") {
			continue
		}
		return e, p.expect(")")
	}
}

func (p *parser) between(l *expr, name string, t token) (*expr, error) {
	if err := p.expect("("); err != nil {
		return nil, err
	}
	lo, err := p.additive()
	if err != nil {
		return nil, err
	}
	if err := p.expect(".."); err != nil {
		return nil, err
	}
	hi, err := p.additive()
	if err != nil {
		return nil, err
	}
	return &expr{op: exBinary, name: name, args: []*expr{l, lo, hi}, tok: t}, p.expect(")")
}

func (p *parser) additive() (*expr, error) {
	return p.binary([]string{"+", "-"}, func() (*expr, error) {
		return p.binary([]string{"*", "/", "%"}, p.unary)
	})
}

func (p *parser) binary(ops []string, sub func() (*expr, error)) (*expr, error) {
	e, err := sub()
	if err != nil {
		return nil, err
	}
	for n := 0; ; n++ {
		t := p.cur()
		found := false
		for _, op := range ops {
			found = found || t.kind == tokSymbol && t.text == op
		}
		if !found {
			return e, nil
		}
		if n > MaxNesting {
			return nil, p.fail("more than %d operators in a row", MaxNesting)
		}
		p.next()
		r, err := sub()
		if err != nil {
			return nil, err
		}
		e = &expr{op: exBinary, name: t.text, args: []*expr{e, r}, tok: t}
	}
}

func (p *parser) unary() (*expr, error) {
	if t := p.cur(); p.is("-") || p.is("+") {
		if err := p.enter(); err != nil {
			return nil, err
		}
		defer func() { p.depth-- }()
		p.next()
		e, err := p.unary()
		if err != nil || t.text == "+" {
			return e, err
		}
		return &expr{op: exUnary, name: "-", args: []*expr{e}, tok: t}, nil
	}
	return p.postfix()
}

func (p *parser) postfix() (*expr, error) {
	e, err := p.primary()
	if err != nil {
		return nil, err
	}
	for n := 0; ; n++ {
		t := p.cur()
		if n > MaxNesting {
			return nil, p.fail("more than %d accesses in a row", MaxNesting)
		}
		switch {
		case p.accept("."):
			m := p.cur()
			if m.kind != tokName {
				return nil, p.fail("expected a property name after '.' and found '%s'", m.text)
			}
			p.next()
			e = &expr{op: exMember, name: m.text, args: []*expr{e}, tok: m}
		case p.accept("["):
			i, err := p.plainly(p.expr)
			if err != nil {
				return nil, err
			}
			if err := p.expect("]"); err != nil {
				return nil, err
			}
			e = &expr{op: exIndex, args: []*expr{e, i}, tok: t}
		default:
			return e, nil
		}
	}
}

func (p *parser) primary() (*expr, error) {
	t := p.next()
	switch t.kind {
	case tokString:
		s := t.text
		for p.cur().kind == tokString { // adjacent literals are one
			s += p.next().text
		}
		return &expr{value: s, tok: t}, nil
	case tokNumber:
		v, err := parseNumber(t.text)
		if err != nil {
			return nil, syntax(p.src, t, err.Error())
		}
		return &expr{value: v, tok: t}, nil
	case tokSymbol:
		if t.text == "(" {
			e, err := p.expr()
			if err != nil {
				return nil, err
			}
			return e, p.expect(")")
		}
		if t.text == "[" && p.cur().kind == tokString { // ['column name']
			name := p.next()
			return &expr{op: exColumn, name: name.text, tok: name}, p.expect("]")
		}
	case tokName:
		return p.name(t)
	}
	if t.kind != tokEnd {
		p.pos--
	}
	return nil, p.fail("expected a value and found '%s'", p.cur().text)
}

func (p *parser) name(t token) (*expr, error) {
	lower := strings.ToLower(t.text)
	if !p.is("(") {
		switch lower {
		case "true", "false":
			return &expr{value: lower == "true", tok: t}, nil
		case "null":
			return &expr{tok: t}, nil
		}
		if b, ok := p.lets[t.text]; ok && b.scalar != nil {
			return b.scalar, nil
		}
		return &expr{op: exColumn, name: t.text, tok: t}, nil
	}
	if b, ok := p.lets[t.text]; ok && b.fn != nil && !b.fn.tabular {
		var e *expr
		err := p.call(t, b.fn, func() (err error) {
			e, err = p.plainly(p.expr)
			return err
		})
		return e, err
	}
	switch lower {
	case "toscalar":
		p.next()
		sub, err := p.pipeline()
		if err != nil {
			return nil, err
		}
		return &expr{op: exToScalar, sub: sub, tok: t}, p.expect(")")
	case "typeof":
		p.next()
		typ, err := p.typeName()
		if err != nil {
			return nil, err
		}
		return &expr{value: string(typ), tok: t}, p.expect(")")
	case "datetime", "timespan", "time", "dynamic", "long", "int", "real", "double", "bool", "guid", "decimal":
		return p.typedLiteral(lower, t)
	}
	p.next()
	e := &expr{op: exCall, name: t.text, tok: t}
	if p.accept(")") {
		return e, nil
	}
	for {
		if p.is("*") {
			e.args = append(e.args, &expr{op: exStar, tok: p.next()})
		} else {
			read := p.plainly
			if lower == "not" { // search not("x")
				read = func(f func() (*expr, error)) (*expr, error) { return f() }
			}
			a, err := read(p.expr)
			if err != nil {
				return nil, err
			}
			e.args = append(e.args, a)
		}
		if p.accept(",") {
			continue
		}
		return e, p.expect(")")
	}
}

// typedLiteral reads datetime(2026-01-01), dynamic([1,2]) and their like: the
// raw text up to the matching parenthesis.
func (p *parser) typedLiteral(typ string, t token) (*expr, error) {
	open := p.next()
	depth := 1
	for depth > 0 {
		c := p.next()
		switch {
		case c.kind == tokEnd:
			return nil, syntax(p.src, t, typ+"( is not closed")
		case c.kind == tokSymbol && c.text == "(":
			depth++
		case c.kind == tokSymbol && c.text == ")":
			depth--
		}
	}
	raw := strings.TrimSpace(p.src[open.end:p.toks[p.pos-1].off])
	e := &expr{tok: t}
	text := strings.Trim(raw, `"'`)
	if strings.EqualFold(raw, "null") || raw == "" && typ != "dynamic" {
		return e, nil
	}
	var err error
	switch typ {
	case "datetime":
		var at time.Time
		if at, err = parseTime(text); err == nil {
			e.value = at
		}
	case "timespan", "time":
		var d time.Duration
		if d, err = parseTimespan(text); err == nil {
			e.value = d
		}
	case "dynamic":
		var v any
		dec := json.NewDecoder(strings.NewReader(raw))
		dec.UseNumber()
		if err = dec.Decode(&v); err == nil {
			e.value = dynamic(v)
		} else {
			err = fmt.Errorf("dynamic(...) must hold JSON")
		}
	case "bool":
		if e.value, err = strconv.ParseBool(strings.ToLower(text)); err != nil {
			err = fmt.Errorf("'%s' is neither true nor false", text)
		}
	case "long", "int":
		if e.value, err = strconv.ParseInt(text, 0, 64); err != nil {
			err = fmt.Errorf("'%s' is not an integer", text)
		}
	case "guid":
		e.value = strings.ToLower(text)
	default:
		if e.value, err = strconv.ParseFloat(text, 64); err != nil {
			err = fmt.Errorf("'%s' is not a number", text)
		}
	}
	if err != nil {
		return nil, syntax(p.src, t, err.Error())
	}
	return e, nil
}

var timespanUnits = []struct {
	suffix string
	unit   time.Duration
}{
	{"microseconds", time.Microsecond}, {"microsecond", time.Microsecond}, {"milliseconds", time.Millisecond}, {"millisecond", time.Millisecond}, {"seconds", time.Second}, {"second", time.Second}, {"sec", time.Second},
	{"minutes", time.Minute}, {"minute", time.Minute}, {"min", time.Minute}, {"hours", time.Hour}, {"hour", time.Hour}, {"hrs", time.Hour}, {"days", 24 * time.Hour}, {"day", 24 * time.Hour},
	{"tick", 100 * time.Nanosecond}, {"us", time.Microsecond}, {"ms", time.Millisecond}, {"d", 24 * time.Hour}, {"h", time.Hour}, {"m", time.Minute}, {"s", time.Second},
}

// parseNumber reads 12, 0x1f, 1.5, 1e3 and timespans such as 1.5h.
func parseNumber(s string) (any, error) {
	if i, err := strconv.ParseInt(s, 0, 64); err == nil && !(len(s) > 1 && s[0] == '0' && s[1] != 'x' && s[1] != 'X') {
		return i, nil
	}
	if i, err := strconv.ParseInt(s, 10, 64); err == nil {
		return i, nil
	}
	if !strings.ContainsAny(s, "xXpP_iInN") {
		if f, err := strconv.ParseFloat(s, 64); err == nil {
			return f, nil
		}
	}
	for _, u := range timespanUnits {
		if num, ok := strings.CutSuffix(strings.ToLower(s), u.suffix); ok {
			if f, err := strconv.ParseFloat(num, 64); err == nil && !strings.ContainsAny(num, "xpe_in") {
				if d := f * float64(u.unit); d < 1<<62 && d > -1<<62 {
					return time.Duration(d), nil
				}
			}
		}
	}
	return nil, fmt.Errorf("'%s' is neither a number nor a timespan", s)
}

// parseTimespan reads 1d, 00:05:00, 1.02:03:04.5 and plain days.
func parseTimespan(s string) (time.Duration, error) {
	s = strings.TrimSpace(s)
	neg := strings.HasPrefix(s, "-")
	s = strings.TrimPrefix(s, "-")
	sign := time.Duration(1)
	if neg {
		sign = -1
	}
	if strings.Contains(s, ":") {
		days := 0.0
		rest := s
		if i, j := strings.IndexByte(s, '.'), strings.IndexByte(s, ':'); i >= 0 && i < j {
			d, err := strconv.ParseUint(s[:i], 10, 20)
			if err != nil {
				return 0, fmt.Errorf("'%s' is not a timespan", s)
			}
			days, rest = float64(d), s[i+1:]
		}
		parts := strings.Split(rest, ":")
		total := days * 24 * float64(time.Hour)
		for i, unit := range []time.Duration{time.Hour, time.Minute, time.Second} {
			if i >= len(parts) {
				break
			}
			f, err := strconv.ParseFloat(parts[i], 64)
			if err != nil || f < 0 || f > 1e6 {
				return 0, fmt.Errorf("'%s' is not a timespan", s)
			}
			total += f * float64(unit)
		}
		if len(parts) > 3 || total >= 1<<62 {
			return 0, fmt.Errorf("'%s' is not a timespan", s)
		}
		return sign * time.Duration(total), nil
	}
	v, err := parseNumber(s)
	if err == nil {
		switch v := v.(type) {
		case time.Duration:
			return sign * v, nil
		case int64:
			if v < 100000 {
				return sign * time.Duration(v) * 24 * time.Hour, nil
			}
		}
	}
	return 0, fmt.Errorf("'%s' is not a timespan, such as 5m or 1.00:00:00", s)
}

// parseTime reads an ISO 8601 date and time; no zone means UTC.
func parseTime(s string) (time.Time, error) {
	s = strings.TrimSpace(s)
	for _, l := range []string{time.RFC3339Nano, "2006-01-02T15:04:05.999999999", "2006-01-02 15:04:05.999999999Z07:00", "2006-01-02 15:04:05.999999999", "2006-01-02T15:04Z07:00", "2006-01-02T15:04", "2006-01-02 15:04", "2006-01-02", "2006-01", "2006", "01/02/2006 15:04:05", "01/02/2006"} {
		if t, err := time.Parse(l, s); err == nil {
			return t.UTC(), nil
		}
	}
	return time.Time{}, fmt.Errorf("'%s' is not a date and time, such as 2026-11-24T10:00:00Z", s)
}
