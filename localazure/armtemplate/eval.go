package armtemplate

import (
	"errors"
	"strconv"
	"strings"
	"sync"
)

// env is what the expressions of one template see.
type env struct {
	t       *Template
	in      Input
	meter   *meter
	rt      Runtime // nil during Expand
	graph   *Graph  // set once resources are known
	exprs   *sync.Map
	given   map[string]any // parameter values as given, by lower-case name
	params  map[string]any // evaluated, by lower-case name
	vars    map[string]any
	busy    map[string]bool // variables and parameters being evaluated: cycles
	keep    bool            // leave what needs a Runtime as it stands
	skipped bool            // something was left
}

// frame is where an expression stands: inside loops, a user function, lambdas.
type frame struct {
	*env
	loops     []loop
	args      map[string]any // parameters of the user function we are in
	bound     *binding
	inDefault bool // in a parameter's default value: utcNow and newGuid are allowed
	escape    bool // produce template text: strings that look like expressions get escaped
}

type loop struct {
	name     string
	index    int64
	resource bool
}

// binding is a lambda variable in scope.
type binding struct {
	name  string
	value any
	next  *binding
}

// lambda is a function value.
type lambda struct {
	params []string
	body   *expr
	frame  *frame
}

func (f *frame) push(name string, index int64, resource bool) *frame {
	g := *f
	g.loops = append(f.loops[:len(f.loops):len(f.loops)], loop{name, index, resource})
	return &g
}

// value evaluates a node of the template: expressions in its strings and keys,
// and property loops in its objects.
func (f *frame) value(n *node) (any, error) {
	if n == nil {
		return nil, nil
	}
	if err := f.meter.step(1); err != nil {
		return nil, at(n, err)
	}
	switch n.kind {
	case kindString:
		return f.text(n)
	case kindArray:
		out := make([]any, 0, len(n.elems))
		if err := f.meter.grow(16 * len(n.elems)); err != nil {
			return nil, at(n, err)
		}
		for i, e := range n.elems {
			v, err := f.value(e)
			if err != nil {
				return nil, under("["+strconv.Itoa(i)+"]", err)
			}
			out = append(out, v)
		}
		return out, nil
	case kindObject:
		o := newObject()
		for _, m := range n.members {
			if err := f.member(o, m); err != nil {
				return nil, err
			}
		}
		return o, nil
	}
	return literal(n), nil
}

func (f *frame) member(o *object, m member) error {
	if strings.EqualFold(m.key, "copy") && isPropertyLoop(m.val) {
		return under("."+m.key, f.propertyLoops(o, m.val))
	}
	key := m.key
	if isExpression(key) {
		v, err := f.expression(key)
		if err != nil {
			if f.keep && errors.Is(err, errDeferred) {
				f.skipped = true
				v = key
			} else {
				return under("."+key, at(m.val, err))
			}
		}
		s, ok := v.(string)
		if !ok {
			return under("."+key, at(m.val, failf("a property name must be a string, not %s", typeName(v))))
		}
		key = s
	} else {
		key = unescape(key)
	}
	v, err := f.value(m.val)
	if err != nil {
		return under("."+m.key, err)
	}
	if err := f.meter.grow(len(key) + 48); err != nil {
		return at(m.val, err)
	}
	o.set(key, v)
	return nil
}

func (f *frame) text(n *node) (any, error) {
	if !isExpression(n.str) {
		s := unescape(n.str)
		if f.escape {
			s = escapeLiteral(s)
		}
		return s, nil
	}
	v, err := f.expression(n.str)
	if err != nil {
		if f.keep && errors.Is(err, errDeferred) {
			f.skipped = true
			return n.str, nil
		}
		return nil, at(n, err)
	}
	if f.escape {
		if v, err = f.meter.escapeAll(v, 0); err != nil {
			return nil, at(n, err)
		}
	}
	return v, nil
}

// escapeAll makes template text of a computed value.
func (m *meter) escapeAll(v any, depth int) (any, error) {
	if err := m.step(1); err != nil {
		return nil, err
	}
	if depth > maxValueDepth {
		return nil, failf("the value is nested deeper than %d levels", maxValueDepth)
	}
	switch v := v.(type) {
	case string:
		return escapeLiteral(v), nil
	case []any:
		out := make([]any, len(v))
		for i, e := range v {
			var err error
			if out[i], err = m.escapeAll(e, depth+1); err != nil {
				return nil, err
			}
		}
		return out, m.grow(16 * len(v))
	case *object:
		out := newObject()
		for _, k := range v.keys {
			e, err := m.escapeAll(v.m[k], depth+1)
			if err != nil {
				return nil, err
			}
			out.set(escapeLiteral(k), e)
		}
		return out, m.grow(64 * len(v.keys))
	}
	return v, nil
}

// isPropertyLoop tells a property loop from a property that is called copy.
func isPropertyLoop(n *node) bool {
	if n == nil || n.kind != kindArray || len(n.elems) == 0 {
		return false
	}
	for _, e := range n.elems {
		if e.kind != kindObject || e.get("name") == nil || e.get("count") == nil || e.get("input") == nil {
			return false
		}
	}
	return true
}

func (f *frame) propertyLoops(o *object, n *node) error {
	for i, e := range n.elems {
		seg := "[" + strconv.Itoa(i) + "]"
		name, err := f.str(e.get("name"))
		if err != nil {
			return under(seg+".name", err)
		}
		count, err := f.loopCount(e.get("count"))
		if err != nil {
			return under(seg+".count", err)
		}
		items, err := f.unroll(name, count, e.get("input"))
		if err != nil {
			return under(seg+".input", err)
		}
		o.set(name, items)
	}
	return nil
}

func (f *frame) unroll(name string, count int64, input *node) ([]any, error) {
	items := make([]any, 0, count)
	if err := f.meter.grow(16 * int(count)); err != nil {
		return nil, err
	}
	for i := range count {
		v, err := f.push(name, i, false).value(input)
		if err != nil {
			return nil, err
		}
		items = append(items, v)
	}
	return items, nil
}

// loopCount evaluates the count of a loop.
func (f *frame) loopCount(n *node) (int64, error) {
	if n == nil {
		return 0, failf("a copy loop has no 'count'")
	}
	v, err := f.value(n)
	if err != nil {
		return 0, err
	}
	c, ok := v.(int64)
	if !ok {
		return 0, at(n, failf("the count of a copy loop must be an integer, not %s", typeName(v)))
	}
	if c < 0 || c > MaxCopyCount {
		return 0, at(n, failf("the count of a copy loop is %d; it must be from 0 to %d", c, MaxCopyCount))
	}
	return c, nil
}

// str evaluates a node that must be a string.
func (f *frame) str(n *node) (string, error) {
	if n == nil {
		return "", failf("a string is missing")
	}
	v, err := f.value(n)
	if err != nil {
		return "", err
	}
	s, ok := v.(string)
	if !ok {
		return "", at(n, failf("a string is expected, not %s", typeName(v)))
	}
	return s, nil
}

// expression evaluates a bracketed template string.
func (f *frame) expression(s string) (any, error) {
	e, err := f.parse(s)
	if err != nil {
		return nil, err
	}
	return f.eval(e)
}

func (e *env) parse(s string) (*expr, error) {
	if x, ok := e.exprs.Load(s); ok {
		return x.(*expr), nil
	}
	if err := e.meter.step(1 + len(s)/16); err != nil {
		return nil, err
	}
	x, err := parseExpr(s[1 : len(s)-1])
	if err != nil {
		return nil, err
	}
	e.exprs.Store(s, x)
	return x, nil
}

func (f *frame) eval(e *expr) (any, error) {
	if err := f.meter.step(1); err != nil {
		return nil, err
	}
	switch e.op {
	case opLiteral:
		return e.value, nil
	case opIndex:
		return f.access(e)
	}
	if lazy, ok := lazyFunctions[e.key]; ok {
		return lazy(f, e)
	}
	if strings.HasPrefix(e.key, "list") {
		if _, known := functions[e.key]; !known && needsRuntime(e.key) {
			return f.list(e)
		}
	}
	if strings.Contains(e.key, ".") {
		return f.userFunction(e)
	}
	fn, ok := functions[e.key]
	if !ok {
		return nil, failf("the template function '%s' is not valid", e.name)
	}
	if len(e.args) < fn.min || fn.max >= 0 && len(e.args) > fn.max {
		return nil, failf("the template function '%s' takes %s, not %d", e.name, arity(fn.min, fn.max), len(e.args))
	}
	args, err := f.evalAll(e.args)
	if err != nil {
		return nil, err
	}
	for _, a := range args { // reading costs too
		n := 0
		switch a := a.(type) {
		case string:
			n = len(a) / 256
		case []any:
			n = len(a) / 4
		case *object:
			n = len(a.keys)
		}
		if err := f.meter.step(n); err != nil {
			return nil, err
		}
	}
	v, err := fn.call(f, args)
	if err != nil {
		return nil, prefixFunction(e.name, err)
	}
	return v, f.charge(v)
}

// charge counts the memory of a new value, not of what it refers to.
func (f *frame) charge(v any) error {
	switch v := v.(type) {
	case string:
		return f.meter.grow(len(v))
	case []any:
		return f.meter.grow(16 * len(v))
	case *object:
		return f.meter.grow(64 * len(v.keys))
	}
	return nil
}

func prefixFunction(name string, err error) error {
	var ee *evalError
	if errors.As(err, &ee) && ee.off < 0 && ee.path == "" && !strings.HasPrefix(ee.msg, "evaluating the template") && !strings.HasPrefix(ee.msg, "the template function") {
		ee.msg = "the template function '" + name + "' failed: " + ee.msg
	}
	return err
}

func arity(lo, hi int) string {
	switch {
	case hi < 0:
		return "at least " + strconv.Itoa(lo) + " arguments"
	case lo == hi:
		return strconv.Itoa(lo) + " arguments"
	}
	return strconv.Itoa(lo) + " to " + strconv.Itoa(hi) + " arguments"
}

func (f *frame) evalAll(args []*expr) ([]any, error) {
	out := make([]any, len(args))
	for i, a := range args {
		v, err := f.eval(a)
		if err != nil {
			return nil, err
		}
		out[i] = v
	}
	return out, nil
}

// access evaluates x.key, x[key] and their forgiving forms.
func (f *frame) access(e *expr) (any, error) {
	base, err := f.eval(e.of)
	if err != nil {
		return nil, err
	}
	key, err := f.eval(e.args[0])
	if err != nil {
		return nil, err
	}
	v, found, err := part(base, key)
	switch {
	case err != nil && !(e.safe && base == nil):
		return nil, err
	case found || e.safe:
		return v, nil
	}
	return nil, missing(base, key)
}

func part(base, key any) (v any, found bool, err error) {
	switch b := base.(type) {
	case *object:
		k, ok := key.(string)
		if !ok {
			return nil, false, failf("a property is named by a string, not %s", typeName(key))
		}
		v, found = b.get(k)
		return v, found, nil
	case []any:
		i, ok := key.(int64)
		if !ok {
			return nil, false, failf("an array is indexed by an integer, not %s", typeName(key))
		}
		if i < 0 || i >= int64(len(b)) {
			return nil, false, nil
		}
		return b[i], true, nil
	}
	return nil, false, failf("%s has no properties; '%v' was asked of it", article(base), key)
}

func article(v any) string {
	if v == nil {
		return "null"
	}
	return "a value of type " + typeName(v)
}

func missing(base, key any) error {
	switch b := base.(type) {
	case *object:
		names := strings.Join(b.keys[:min(len(b.keys), 20)], ", ")
		return failf("the language expression property '%v' doesn't exist, available properties are '%s'", key, names)
	case []any:
		return failf("the language expression property array index '%v' is out of bounds: the array has %d elements", key, len(b))
	}
	return failf("'%v' doesn't exist", key)
}

// userFunction calls a function of the template's functions section.
func (f *frame) userFunction(e *expr) (any, error) {
	fn, ok := f.t.functions[e.key]
	if !ok {
		return nil, failf("the template function '%s' is not valid: no such function is defined in the template", e.name)
	}
	if len(e.args) != len(fn.params) {
		return nil, failf("the template function '%s' takes %d arguments, not %d", e.name, len(fn.params), len(e.args))
	}
	vals, err := f.evalAll(e.args)
	if err != nil {
		return nil, err
	}
	args := map[string]any{}
	for i, p := range fn.params {
		if err := f.checkType(p.val, vals[i], "argument '"+p.key+"' of '"+e.name+"'", 0); err != nil {
			return nil, err
		}
		args[strings.ToLower(p.key)] = vals[i]
	}
	if err := f.meter.call(); err != nil {
		return nil, err
	}
	defer f.meter.ret()
	v, err := (&frame{env: f.env, args: args}).value(fn.output)
	if err != nil {
		return nil, failf("in function '%s': %s", e.name, err.Error())
	}
	return v, nil
}

// parameter answers parameters('name').
func (f *frame) parameter(name string) (any, error) {
	key := strings.ToLower(name)
	if f.args != nil {
		v, ok := f.args[key]
		if !ok {
			return nil, failf("the function has no parameter '%s'", name)
		}
		return v, nil
	}
	if v, ok := f.params[key]; ok {
		return v, nil
	}
	for _, p := range f.t.params {
		if strings.EqualFold(p.name, name) {
			return f.env.evalParam(p)
		}
	}
	return nil, failf("the template parameter '%s' is not found", name)
}

// variable answers variables('name').
func (f *frame) variable(name string) (any, error) {
	if f.args != nil {
		return nil, failf("variables cannot be used in a function")
	}
	key := strings.ToLower(name)
	if v, ok := f.vars[key]; ok {
		return v, nil
	}
	def, loopDef := f.t.variableDef(name)
	if def == nil && loopDef == nil {
		return nil, failf("the template variable '%s' is not found", name)
	}
	if f.busy["v:"+key] {
		return nil, failf("the template variable '%s' refers to itself", name)
	}
	f.busy["v:"+key] = true
	defer delete(f.busy, "v:"+key)
	if err := f.meter.call(); err != nil {
		return nil, err
	}
	defer f.meter.ret()
	vf := &frame{env: f.env.strict()}
	var v any
	var err error
	if def != nil {
		v, err = vf.value(def)
	} else {
		var count int64
		if count, err = vf.loopCount(loopDef.get("count")); err == nil {
			v, err = vf.unroll(name, count, loopDef.get("input"))
		}
	}
	if errors.Is(err, errDeferred) {
		return nil, failf("the template variable '%s' calls reference or list*, which variables cannot", name)
	}
	if err != nil {
		return nil, err
	}
	f.vars[key] = v
	return v, nil
}

// strict is the env without leniency towards what needs a Runtime, and without
// a Runtime.
func (e *env) strict() *env {
	if !e.keep && e.rt == nil {
		return e
	}
	s := *e
	s.keep, s.rt = false, nil
	return &s
}

// variableDef finds a variable: its node, or its loop in the section's copy.
func (t *Template) variableDef(name string) (def, loopDef *node) {
	if t.variables == nil {
		return nil, nil
	}
	for _, m := range t.variables.members {
		if strings.EqualFold(m.key, "copy") && isPropertyLoop(m.val) {
			for _, e := range m.val.elems {
				if strings.EqualFold(e.get("name").text(), name) {
					loopDef = e
				}
			}
			continue
		}
		if strings.EqualFold(m.key, name) {
			def = m.val
		}
	}
	if def != nil {
		loopDef = nil
	}
	return def, loopDef
}

// copyIndex answers copyIndex([loop], [offset]).
func (f *frame) copyIndex(args []any) (any, error) {
	var offset int64
	name := ""
	for i, a := range args {
		switch a := a.(type) {
		case string:
			if i > 0 {
				return nil, failf("the loop's name comes first")
			}
			name = a
		case int64:
			offset = a
		default:
			return nil, failf("the arguments are a loop's name and an integer offset, not %s", typeName(a))
		}
	}
	if len(f.loops) == 0 {
		return nil, failf("it is used outside of a copy loop")
	}
	if name == "" {
		for _, l := range f.loops {
			if l.resource {
				return l.index + offset, nil
			}
		}
		return f.loops[len(f.loops)-1].index + offset, nil
	}
	for i := len(f.loops) - 1; i >= 0; i-- {
		if strings.EqualFold(f.loops[i].name, name) {
			return f.loops[i].index + offset, nil
		}
	}
	return nil, failf("no copy loop '%s' is around it", name)
}

// apply calls a lambda.
func (f *frame) apply(l *lambda, args ...any) (any, error) {
	if err := f.meter.call(); err != nil {
		return nil, err
	}
	defer f.meter.ret()
	g := *l.frame
	for i, p := range l.params {
		if i < len(args) {
			g.bound = &binding{p, args[i], g.bound}
		}
	}
	return g.eval(l.body)
}
