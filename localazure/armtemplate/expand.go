package armtemplate

import (
	"encoding/json"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Scope is where a deployment happens. ResourceGroup.Name empty means the
// subscription; SubscriptionID empty too means the tenant.
type Scope struct {
	TenantID         string
	SubscriptionID   string
	SubscriptionName string
	ResourceGroup    ResourceGroup
}

// ResourceGroup is what resourceGroup() tells.
type ResourceGroup struct {
	Name, Location, ManagedBy string
	Tags                      map[string]string
}

// Input is what a template is expanded with.
type Input struct {
	// Parameters are the given values as JSON, by name.
	Parameters map[string]json.RawMessage
	Scope      Scope
	// DeploymentName, DeploymentLocation and Mode are what deployment() tells.
	DeploymentName, DeploymentLocation, Mode string
	// DeployerObjectID is what deployer() tells.
	DeployerObjectID string
	// Environment is what environment() tells, as JSON; nil for a bare default.
	Environment json.RawMessage
	// Now is the time of utcNow().
	Now time.Time
	// NewGUID makes the values of newGuid(); nil for random ones.
	NewGUID func() string
}

// Runtime answers what only deployed resources can tell. Its errors come back
// wrapped in what Resolve and Outputs return.
type Runtime interface {
	// Reference reads a resource: the whole of it as JSON, with properties,
	// location, identity and so on.
	Reference(id, apiVersion string) ([]byte, error)
	// List calls an action of a resource: POST {id}/{function} with the input,
	// nil for none, as body. The answer is JSON.
	List(function, id, apiVersion string, input []byte) ([]byte, error)
}

// Resource is one resource that a template asks for, loops unrolled.
type Resource struct {
	// Symbol is the symbolic name (with an index, "vm[3]", in a loop); empty
	// when the template does not use them.
	Symbol string
	// ID is the whole resource ID; Type and Name are whole too, such as
	// "Microsoft.Network/virtualNetworks/subnets" and "vnet/default".
	ID, Type, Name, APIVersion string
	// SubscriptionID and ResourceGroup tell where it goes: the deployment's
	// own scope unless the resource says otherwise.
	SubscriptionID, ResourceGroup string
	// Location as far as it is known before deployment.
	Location string
	// Existing resources are referred to, not deployed.
	Existing bool
	// Condition false means that the resource is not deployed.
	Condition bool
	// DependsOn are indices of Graph.Resources that come first: only such as
	// are deployed (not Existing, Condition true), each once, in order.
	DependsOn []int
	// Body is what to PUT, without name, type, apiVersion and the template's
	// own keywords. While Deferred is true, the expressions that need deployed
	// resources stand in it as text: use Resolve for the real body. Nil when
	// Existing or Condition is false.
	Body     json.RawMessage
	Deferred bool
	// Line and Column of the resource in the template.
	Line, Column int

	loopName string
	node     *node
	loops    []loop
	scope    string // scope of an extension resource, "" for none
}

// ParameterValue is a parameter as a deployment shows it. Value is nil for
// secure ones.
type ParameterValue struct {
	Type  string          `json:"type"`
	Value json.RawMessage `json:"value,omitempty"`
}

// Output is one output. Value is nil for secure types.
type Output struct {
	Name, Type string
	Value      json.RawMessage
}

// Graph is an expanded template: what to deploy, and in which order.
type Graph struct {
	// Resources are in the order of the template.
	Resources []Resource
	// Parameters are the values in force, given or by default.
	Parameters map[string]ParameterValue

	env          *env
	byID         map[string]int   // lower-case ID
	byName       map[string][]int // lower-case full name, and last part of it
	bySymbol     map[string]int
	bySymbolLoop map[string][]int
	emptyLoops   map[string]bool
	loops        map[string][]int
}

// Expand evaluates everything that is known before deployment. The error is an
// *Error with code InvalidTemplate.
func (t *Template) Expand(in Input) (*Graph, error) {
	if in.Mode == "" {
		in.Mode = "Incremental"
	}
	e := &env{t: t, in: in, meter: &meter{}, exprs: &sync.Map{}, given: map[string]any{}, params: map[string]any{}, vars: map[string]any{}, busy: map[string]bool{}}
	g := &Graph{env: e, byID: map[string]int{}, byName: map[string][]int{}, bySymbol: map[string]int{}, bySymbolLoop: map[string][]int{},
		emptyLoops: map[string]bool{}, loops: map[string][]int{}}
	if err := g.parameters(); err != nil {
		return nil, err
	}
	if t.variables != nil { // all of them: a wrong one is an error even when unused
		for _, m := range t.variables.members {
			names := []string{m.key}
			if strings.EqualFold(m.key, "copy") && isPropertyLoop(m.val) {
				names = nil
				for _, l := range m.val.elems {
					names = append(names, l.get("name").text())
				}
			}
			for _, name := range names {
				if _, err := (&frame{env: e}).variable(name); err != nil {
					return nil, t.public("variable '"+name+"'", "variables."+name, err)
				}
			}
		}
	}
	if err := g.collect(&frame{env: e}, t.resources, nil, "resources"); err != nil {
		return nil, err
	}
	if err := g.index(); err != nil {
		return nil, err
	}
	e.graph = g
	if err := g.bodies(); err != nil {
		return nil, err
	}
	if err := g.order(); err != nil {
		return nil, err
	}
	if err := g.checkOutputs(); err != nil {
		return nil, err
	}
	lenient := *e
	lenient.keep = true
	return g, g.asserts(&lenient)
}

// asserts holds what the template asserts: before deployment as far as it is
// known then, and all of it afterwards.
func (g *Graph) asserts(e *env) error {
	n := e.t.root.get("asserts")
	if n == nil {
		return nil
	}
	var failed []string
	off := -1
	for _, m := range n.members {
		what, path := "assert '"+m.key+"'", "asserts."+m.key
		e.skipped = false
		v, err := (&frame{env: e}).value(m.val)
		if err != nil {
			return e.t.public(what, path, at(m.val, err))
		}
		if e.skipped {
			continue
		}
		ok, isBool := v.(bool)
		if !isBool {
			return e.t.invalid(m.val.off, path, "The %s must be a Boolean, not %s", what, typeName(v))
		}
		if !ok {
			failed = append(failed, "'"+m.key+"'")
			off = max(off, m.val.off)
		}
	}
	if len(failed) > 0 {
		return e.t.invalid(off, "asserts", "The template asserts what is not so: %s evaluated to false", strings.Join(failed, ", "))
	}
	return nil
}

// keywords of a resource in a template that are not part of its body.
var keywords = map[string]bool{
	"name": true, "type": true, "apiversion": true, "condition": true, "copy": true, "dependson": true, "comments": true,
	"metadata": true, "scope": true, "existing": true, "resources": true, "subscriptionid": true, "resourcegroup": true, "asserts": true,
}

// collect unrolls the resources of a section; parent is set for nested ones.
func (g *Graph) collect(f *frame, section *node, parent *Resource, root string) error {
	t := f.t
	if section.kind == kindObject {
		for _, m := range section.members {
			if err := g.resource(f, m.val, m.key, parent, root+"."+m.key); err != nil {
				return err
			}
		}
		return nil
	}
	if section.kind != kindArray {
		return t.invalid(section.off, root, "Resources must be an array, not %s", section.kind)
	}
	for i, n := range section.elems {
		if err := g.resource(f, n, "", parent, root+"["+strconv.Itoa(i)+"]"); err != nil {
			return err
		}
	}
	return nil
}

func (g *Graph) resource(f *frame, n *node, symbol string, parent *Resource, path string) error {
	t := f.t
	if n.kind != kindObject {
		return t.invalid(n.off, path, "A resource must be an object, not %s", n.kind)
	}
	for _, key := range []string{"type", "apiVersion", "name"} {
		if v := n.get(key); v == nil && !(key == "apiVersion" && t.root.get("apiProfile") != nil) {
			return t.invalid(n.off, path, "The template resource at '%s' has no '%s'", path, key)
		}
	}
	cp := n.get("copy")
	if cp == nil || cp.kind == kindNull {
		return g.one(f, n, symbol, "", -1, parent, path)
	}
	if cp.kind != kindObject {
		return t.invalid(cp.off, path+".copy", "The copy of a resource must be an object with 'name' and 'count'")
	}
	if parent != nil {
		return t.invalid(cp.off, path+".copy", "A resource inside another cannot have a copy loop: move it to the top level")
	}
	name, err := f.str(cp.get("name"))
	if err != nil {
		return t.public("copy loop", path+".copy.name", at(cp, err))
	}
	count, err := f.loopCount(cp.get("count"))
	if err != nil {
		return t.public("copy loop '"+name+"'", path+".copy.count", at(cp, err))
	}
	batch, err := f.batch(cp, name)
	if err != nil {
		return t.public("copy loop '"+name+"'", path+".copy.batchSize", err)
	}
	lower := strings.ToLower(name)
	if _, twice := g.loops[lower]; twice {
		return t.invalid(cp.off, path+".copy", "The copy loop '%s' is defined twice", name)
	}
	g.loops[lower] = []int{}
	if count == 0 && symbol != "" {
		g.emptyLoops[strings.ToLower(symbol)] = true
	}
	first := len(g.Resources)
	for i := range count {
		if err := g.one(f.push(name, i, true), n, symbol, name, i, parent, path); err != nil {
			return err
		}
		r := first + int(i)
		g.loops[lower] = append(g.loops[lower], r)
		if batch > 0 && i >= batch { // every turn waits for the whole batch before its own
			start := (i/batch - 1) * batch
			for j := start; j < start+batch; j++ {
				g.Resources[r].DependsOn = append(g.Resources[r].DependsOn, first+int(j))
			}
		}
	}
	return nil
}

// batch is how many turns of a loop go at a time; 0 is all of them.
func (f *frame) batch(cp *node, name string) (int64, error) {
	if !strings.EqualFold(cp.get("mode").text(), "serial") {
		return 0, nil
	}
	b := cp.get("batchSize")
	if b == nil {
		return 1, nil
	}
	n, err := f.loopCount(b)
	if err != nil || n < 1 {
		return 0, at(b, failf("The batch size of copy loop '%s' must be an integer of at least 1", name))
	}
	return n, nil
}

// one adds a single resource; index is its turn in the loop, -1 without one.
func (g *Graph) one(f *frame, n *node, symbol, loopName string, index int64, parent *Resource, path string) error {
	t := f.t
	if len(g.Resources) >= MaxResources {
		return t.invalid(n.off, path, "The template has more than %d resources", MaxResources)
	}
	r := Resource{Symbol: symbol, Condition: true, node: n, loops: f.loops, loopName: loopName}
	r.Line, r.Column = position(t.src, n.off)
	if index >= 0 && symbol != "" {
		r.Symbol = symbol + "[" + strconv.FormatInt(index, 10) + "]"
	}
	for _, p := range []struct {
		key string
		to  *string
	}{{"type", &r.Type}, {"apiVersion", &r.APIVersion}, {"name", &r.Name}} {
		v := n.get(p.key)
		if v == nil {
			continue
		}
		s, err := f.str(v)
		if err == nil && strings.TrimSpace(s) == "" {
			err = at(v, failf("it is empty"))
		}
		if err != nil {
			return t.public(p.key+" of the resource at "+path, path+"."+p.key, deferredIn(err, "a resource's "+p.key))
		}
		*p.to = s
	}
	if parent != nil {
		if !strings.HasPrefix(strings.ToLower(r.Type), strings.ToLower(parent.Type)+"/") {
			r.Type = parent.Type + "/" + r.Type
		}
		if strings.Count(r.Name, "/") < strings.Count(r.Type, "/")-1 {
			r.Name = parent.Name + "/" + r.Name
		}
	}
	what := "resource '" + r.Name + "'"
	if c := n.get("condition"); c != nil && c.kind != kindNull {
		v, err := f.value(c)
		if err != nil {
			return t.public("condition of "+what, path+".condition", deferredIn(err, "a condition"))
		}
		b, ok := v.(bool)
		if !ok {
			return t.invalid(c.off, path+".condition", "The condition of %s must be a Boolean, not %s", what, typeName(v))
		}
		r.Condition = b
	}
	if parent != nil && !parent.Condition {
		r.Condition = false
	}
	r.Existing = n.get("existing") != nil && n.get("existing").bool
	if r.Existing && !t.Symbolic {
		return t.invalid(n.off, path, "The 'existing' resource needs symbolic names (\"languageVersion\": \"2.0\")")
	}
	r.SubscriptionID, r.ResourceGroup = f.in.Scope.SubscriptionID, f.in.Scope.ResourceGroup.Name
	if parent != nil {
		r.SubscriptionID, r.ResourceGroup, r.scope = parent.SubscriptionID, parent.ResourceGroup, parent.scope
	}
	for _, p := range []struct {
		key string
		to  *string
	}{{"subscriptionId", &r.SubscriptionID}, {"resourceGroup", &r.ResourceGroup}, {"scope", &r.scope}} {
		v := n.get(p.key)
		if v == nil || v.kind == kindNull {
			continue
		}
		s, err := f.str(v)
		if err != nil {
			return t.public(p.key+" of "+what, path+"."+p.key, deferredIn(err, "a resource's "+p.key))
		}
		if p.key == "subscriptionId" && n.get("resourceGroup") == nil {
			r.ResourceGroup = "" // the subscription itself
		}
		*p.to = s
	}
	if err := r.makeID(); err != nil {
		return t.public(what, path, at(n, err))
	}
	g.Resources = append(g.Resources, r)
	if kids := n.get("resources"); kids != nil && kids.kind != kindNull && !r.Existing {
		if loopName != "" && kids.kind == kindArray && len(kids.elems) > 0 && t.Symbolic {
			return t.invalid(kids.off, path, "Nested resources with symbolic names cannot stand in a loop")
		}
		self := r
		return g.collect(f, kids, &self, path+".resources")
	}
	return nil
}

func deferredIn(err error, what string) error {
	if isDeferred(err) {
		return at(nil, failf("%s cannot depend on reference or list*: it must be known before deployment", what))
	}
	return err
}

// makeID computes the ID, and for types of the form A/b/providers/c the type
// proper.
func (r *Resource) makeID() error {
	rel, err := relativeID(r.Type, []string{r.Name})
	if err != nil {
		return failf("the type '%s' and the name '%s' do not match: a name has one part less than its type, as 'vnet/subnet' for 'Microsoft.Network/virtualNetworks/subnets'", r.Type, r.Name)
	}
	base := scopeID(r.SubscriptionID, r.ResourceGroup)
	switch {
	case r.scope == "/":
		base, r.SubscriptionID, r.ResourceGroup = "", "", ""
	case strings.HasPrefix(r.scope, "/"):
		base = strings.TrimSuffix(r.scope, "/")
		segs := strings.Split(base, "/") // "", subscriptions, S, resourceGroups, RG, ...
		r.SubscriptionID, r.ResourceGroup = "", ""
		if len(segs) > 2 && strings.EqualFold(segs[1], "subscriptions") {
			r.SubscriptionID = segs[2]
		}
		if len(segs) > 4 && r.SubscriptionID != "" && strings.EqualFold(segs[3], "resourceGroups") {
			r.ResourceGroup = segs[4]
		}
	case r.scope != "":
		base += "/providers/" + strings.Trim(r.scope, "/")
	}
	if rest, ok := cutFoldPrefix(rel, "Microsoft.Resources/resourceGroups/"); ok && r.scope == "" {
		r.ID = scopeID(r.SubscriptionID, "") + "/resourceGroups/" + rest
		return nil
	}
	r.ID = base + "/providers/" + rel
	if i := strings.LastIndex(strings.ToLower(r.Type), "/providers/"); i >= 0 {
		// A/b/providers/c named x/N.S/y is N.S/c named y, on A/b/x.
		segs, names := strings.Split(r.Type, "/"), strings.Split(r.Name, "/")
		k := strings.Count(r.Type[:i], "/") // index of the name that is the namespace
		r.Type = names[k] + "/" + strings.Join(segs[k+2:], "/")
		r.Name = strings.Join(names[k+1:], "/")
	}
	return nil
}

func (g *Graph) index() error {
	for i := range g.Resources {
		r := &g.Resources[i]
		id := strings.ToLower(r.ID)
		if j, twice := g.byID[id]; twice && r.Symbol == "" || twice && r.Condition && g.Resources[j].Condition && !r.Existing && !g.Resources[j].Existing {
			if r.Condition && g.Resources[j].Condition {
				return g.env.t.invalid(r.node.off, "", "The resource '%s' is defined multiple times in a template", r.ID)
			}
		}
		if j, have := g.byID[id]; !have || !g.Resources[j].Condition || g.Resources[j].Existing {
			g.byID[id] = i
		}
		for _, name := range []string{r.Name, relativeName(r)} {
			n := strings.ToLower(name)
			g.byName[n] = append(g.byName[n], i)
		}
		if r.Symbol != "" {
			s := strings.ToLower(r.Symbol)
			if _, twice := g.bySymbol[s]; twice {
				return g.env.t.invalid(r.node.off, "", "The symbolic name '%s' is used twice", r.Symbol)
			}
			g.bySymbol[s] = i
			if k := strings.LastIndexByte(s, '['); k > 0 && r.loopName != "" {
				g.bySymbolLoop[s[:k]] = append(g.bySymbolLoop[s[:k]], i)
			}
		}
	}
	return nil
}

// relativeName is the form "Microsoft.X/type/name" of a resource.
func relativeName(r *Resource) string {
	rel, err := relativeID(r.Type, []string{r.Name})
	if err != nil {
		return r.ID
	}
	return rel
}

// find looks a resource up by symbolic name, ID, full name or relative ID.
func (g *Graph) find(s string) (int, bool) {
	s = strings.ToLower(s)
	if i, ok := g.bySymbol[s]; ok {
		return i, true
	}
	if i, ok := g.byID[strings.TrimSuffix(s, "/")]; ok {
		return i, true
	}
	if is := g.byName[s]; len(is) > 0 {
		for _, i := range is {
			if g.Resources[i].Condition {
				return i, true
			}
		}
		return is[0], true
	}
	return 0, false
}

// bodies evaluates bodies and dependencies.
func (g *Graph) bodies() error {
	if err := g.edges(); err != nil {
		return err
	}
	t := g.env.t
	for i := range g.Resources {
		r := &g.Resources[i]
		if r.Existing || !r.Condition {
			continue
		}
		what := "resource '" + r.Name + "'"
		lenient := *g.env
		lenient.keep = true
		f := &frame{env: &lenient, loops: r.loops}
		body, err := f.body(r)
		if err != nil {
			return t.public(what, "", err)
		}
		r.Deferred = lenient.skipped
		if r.Body, err = g.env.meter.encode(body); err != nil {
			return t.public(what, "", err)
		}
		if loc, ok := body.get("location"); ok {
			if s, ok := loc.(string); ok && !(r.Deferred && isExpression(s)) {
				r.Location = s
			}
		}
	}
	return nil
}

// edges works out which resource waits for which. Who depends on an existing
// resource waits for what that depends on: it may be what makes it. A resource
// that is not deployed is waited for by nobody, nor is what it depends on.
func (g *Graph) edges() error {
	t := g.env.t
	all := make([]map[int]bool, len(g.Resources))
	for i := range g.Resources {
		r := &g.Resources[i]
		if !r.Condition {
			continue
		}
		f := &frame{env: g.env, loops: r.loops}
		deps := map[int]bool{}
		all[i] = deps
		for _, d := range r.DependsOn { // of a serial loop
			deps[d] = true
		}
		if err := g.explicit(f, r, deps); err != nil {
			return err
		}
		if r.Existing {
			continue
		}
		note := func(d int) {
			if d != i {
				deps[d] = true
			}
		}
		for _, m := range r.node.members {
			if keywords[strings.ToLower(m.key)] {
				continue
			}
			n := m.val
			if strings.EqualFold(m.key, "properties") && r.isInnerDeployment() {
				n = withoutTemplate(n)
			}
			if f.hasRuntime(n) {
				if err := f.dependencies(n, note); err != nil {
					return t.public("resource '"+r.Name+"'", "", err)
				}
			}
		}
	}
	for i := range g.Resources {
		r := &g.Resources[i]
		r.DependsOn = nil
		if r.Existing {
			continue
		}
		deployed, seen := map[int]bool{}, map[int]bool{}
		var follow func(deps map[int]bool)
		follow = func(deps map[int]bool) {
			for d := range deps {
				if dep := &g.Resources[d]; !dep.Condition || seen[d] {
					continue
				} else if seen[d] = true; !dep.Existing {
					deployed[d] = true
				} else {
					follow(all[d])
				}
			}
		}
		follow(all[i])
		r.DependsOn = append(r.DependsOn, slices.Sorted(maps.Keys(deployed))...)
	}
	return nil
}

// explicit resolves dependsOn.
func (g *Graph) explicit(f *frame, r *Resource, deps map[int]bool) error {
	t := g.env.t
	list := r.node.get("dependsOn")
	if list == nil || list.kind == kindNull {
		return nil
	}
	v, err := f.value(list)
	if err != nil {
		return t.public("dependsOn of resource '"+r.Name+"'", "", deferredIn(err, "dependsOn"))
	}
	arr, ok := v.([]any)
	if !ok {
		return t.invalid(list.off, "", "The dependsOn of resource '%s' must be an array, not %s", r.Name, typeName(v))
	}
	for _, e := range arr {
		s, ok := e.(string)
		if !ok {
			return t.invalid(list.off, "", "The dependsOn of resource '%s' must hold strings, not %s", r.Name, typeName(e))
		}
		lower := strings.ToLower(s)
		if i, ok := g.find(s); ok {
			deps[i] = true
		} else if loop, ok := g.bySymbolLoop[lower]; ok {
			for _, i := range loop {
				deps[i] = true
			}
		} else if loop, ok := g.loops[lower]; ok {
			for _, i := range loop {
				deps[i] = true
			}
		} else if g.emptyLoops[lower] {
			continue
		} else {
			return t.invalid(list.off, "", "The resource '%s', on which resource '%s' depends, is not defined in the template", s, r.Name)
		}
	}
	return nil
}

func (r *Resource) isDeployment() bool {
	return strings.EqualFold(r.Type, "Microsoft.Resources/deployments")
}

func (r *Resource) isInnerDeployment() bool {
	return r.isDeployment() && isInner(r.node.get("properties"))
}

func isInner(props *node) bool {
	return strings.EqualFold(props.get("expressionEvaluationOptions").get("scope").text(), "inner")
}

func withoutTemplate(props *node) *node {
	if props == nil || props.kind != kindObject {
		return props
	}
	c := *props
	c.members = nil
	for _, m := range props.members {
		if !strings.EqualFold(m.key, "template") {
			c.members = append(c.members, m)
		}
	}
	return &c
}

// body evaluates what is PUT for a resource.
func (f *frame) body(r *Resource) (*object, error) {
	o := newObject()
	for _, m := range r.node.members {
		key := strings.ToLower(m.key)
		if keywords[key] {
			continue
		}
		if key == "properties" && r.isDeployment() && m.val.kind == kindObject {
			p, err := f.deploymentProperties(m.val)
			if err != nil {
				return nil, under("."+m.key, err)
			}
			o.set(m.key, p)
			continue
		}
		if err := f.member(o, m); err != nil {
			return nil, err
		}
	}
	return o, nil
}

// deploymentProperties evaluates the properties of a nested deployment. Its
// template is left as it stands when expressions belong to the inner scope;
// else it is evaluated here and becomes a template of plain values.
func (f *frame) deploymentProperties(props *node) (*object, error) {
	o := newObject()
	for _, m := range props.members {
		if !strings.EqualFold(m.key, "template") {
			if err := f.member(o, m); err != nil {
				return nil, err
			}
			continue
		}
		if isInner(props) {
			o.set(m.key, literal(m.val))
			continue
		}
		v, err := f.outerTemplate(m.val)
		if err != nil {
			return nil, under("."+m.key, err)
		}
		o.set(m.key, v)
	}
	return o, nil
}

// outerTemplate evaluates a nested template in the scope of its parent.
func (f *frame) outerTemplate(n *node) (any, error) {
	if n.kind != kindObject {
		return f.value(n)
	}
	g := *f
	g.escape = true
	o := newObject()
	for _, m := range n.members {
		if strings.EqualFold(m.key, "variables") || strings.EqualFold(m.key, "functions") {
			continue // those of the parent are in force
		}
		if !strings.EqualFold(m.key, "resources") {
			if err := g.member(o, m); err != nil {
				return nil, err
			}
			continue
		}
		res, err := g.outerResources(m.val)
		if err != nil {
			return nil, under(".resources", err)
		}
		o.set(m.key, res)
	}
	return o, nil
}

func (f *frame) outerResources(n *node) (any, error) {
	one := func(f *frame, n *node) (*object, error) {
		o := newObject()
		inner := strings.EqualFold(n.get("type").text(), "Microsoft.Resources/deployments")
		for _, m := range n.members {
			switch {
			case strings.EqualFold(m.key, "copy"):
			case strings.EqualFold(m.key, "properties") && inner && m.val.kind == kindObject:
				p, err := f.deploymentProperties(m.val)
				if err != nil {
					return nil, err
				}
				o.set(m.key, p)
			default:
				if err := f.member(o, m); err != nil {
					return nil, err
				}
			}
		}
		return o, nil
	}
	if n.kind != kindArray {
		return f.value(n)
	}
	out := []any{}
	names := map[string][]any{} // names of the resources of a loop
	for i, e := range n.elems {
		seg := "[" + strconv.Itoa(i) + "]"
		cp := e.get("copy")
		if cp == nil || cp.kind != kindObject {
			v, err := one(f, e)
			if err != nil {
				return nil, under(seg, err)
			}
			out = append(out, v)
			continue
		}
		name, err := f.str(cp.get("name"))
		if err != nil {
			return nil, under(seg+".copy", err)
		}
		count, err := f.loopCount(cp.get("count"))
		if err != nil {
			return nil, under(seg+".copy", err)
		}
		batch, err := f.batch(cp, name)
		if err != nil {
			return nil, under(seg+".copy", err)
		}
		names[strings.ToLower(name)] = []any{}
		for k := range count {
			v, err := one(f.push(name, k, true), e)
			if err != nil {
				return nil, under(seg, err)
			}
			if batch > 0 && k >= batch { // every turn waits for the whole batch before its own
				start := (k/batch - 1) * batch
				deps, _ := v.get("dependsOn")
				list, _ := deps.([]any)
				if have := names[strings.ToLower(name)]; int64(len(have)) >= start+batch {
					v.set("dependsOn", append(slices.Clone(list), have[start:start+batch]...))
				}
			}
			out = append(out, v)
			if id, _ := v.get("name"); id != nil {
				names[strings.ToLower(name)] = append(names[strings.ToLower(name)], id)
			}
		}
	}
	for _, v := range out { // a loop that is depended on stands for its resources
		o := v.(*object)
		deps, _ := o.get("dependsOn")
		arr, ok := deps.([]any)
		if !ok {
			continue
		}
		all := []any{}
		for _, d := range arr {
			if s, ok := d.(string); ok {
				if many, ok := names[strings.ToLower(s)]; ok {
					all = append(all, many...)
					continue
				}
			}
			all = append(all, d)
		}
		o.set("dependsOn", all)
	}
	return out, nil
}

// order proves that the dependencies have no cycle.
func (g *Graph) order() error {
	const (
		white = iota
		grey
		black
	)
	state := make([]int, len(g.Resources))
	var path []int
	var visit func(i int) error
	visit = func(i int) error {
		state[i] = grey
		path = append(path, i)
		for _, d := range g.Resources[i].DependsOn {
			switch state[d] {
			case grey:
				var names []string
				for _, p := range path[slices.Index(path, d):] {
					names = append(names, g.Resources[p].ID)
				}
				names = append(names, g.Resources[d].ID)
				return g.env.t.invalid(g.Resources[d].node.off, "", "Circular dependency detected on resource: '%s' (%s)", g.Resources[d].ID, strings.Join(names, " needs "))
			case white:
				if err := visit(d); err != nil {
					return err
				}
			}
		}
		path = path[:len(path)-1]
		state[i] = black
		return nil
	}
	for i := range g.Resources {
		if state[i] == white {
			if err := visit(i); err != nil {
				return err
			}
		}
	}
	return nil
}

// at run time: a copy of the environment with its own meter, so that any
// number of resources can be resolved at once.
func (g *Graph) live(rt Runtime) *env {
	e := *g.env
	e.meter, e.rt, e.busy = &meter{}, rt, map[string]bool{}
	e.vars, e.params = maps.Clone(g.env.vars), maps.Clone(g.env.params)
	return &e
}

// Resolve gives the body of a resource, to be called once everything in its
// DependsOn is deployed. It may be called concurrently. The error is an *Error
// and wraps the Runtime's own.
func (g *Graph) Resolve(i int, rt Runtime) (json.RawMessage, error) {
	r := &g.Resources[i]
	if !r.Deferred {
		return r.Body, nil
	}
	e := g.live(rt)
	body, err := (&frame{env: e, loops: r.loops}).body(r)
	if err != nil {
		return nil, e.t.public("resource '"+r.Name+"'", "", err)
	}
	out, err := e.meter.encode(body)
	if err != nil {
		return nil, e.t.public("resource '"+r.Name+"'", "", err)
	}
	return out, nil
}

// checkOutputs evaluates outputs as far as they are known before deployment.
func (g *Graph) checkOutputs() error {
	e := *g.env
	e.keep = true
	_, err := g.outputs(&e)
	return err
}

// Outputs evaluates the template's outputs, to be called when everything is
// deployed. Outputs whose condition is false are left out. What the template
// asserts is checked before.
func (g *Graph) Outputs(rt Runtime) ([]Output, error) {
	e := g.live(rt)
	if err := g.asserts(e); err != nil {
		return nil, err
	}
	return g.outputs(e)
}

func (g *Graph) outputs(e *env) ([]Output, error) {
	out := []Output{}
	if e.t.outputs == nil {
		return out, nil
	}
	f := &frame{env: e}
	for _, m := range e.t.outputs.members {
		what, path := "output '"+m.key+"'", "outputs."+m.key
		if c := m.val.get("condition"); c != nil {
			v, err := (&frame{env: e.strict()}).value(c)
			if err != nil {
				return nil, e.t.public(what, path+".condition", deferredIn(err, "a condition"))
			}
			if b, ok := v.(bool); !ok {
				return nil, e.t.invalid(c.off, path+".condition", "The condition of %s must be a Boolean, not %s", what, typeName(v))
			} else if !b {
				continue
			}
		}
		var v any
		var err error
		e.skipped = false
		if cp := m.val.get("copy"); cp != nil && cp.kind == kindObject {
			var count int64
			if count, err = f.loopCount(cp.get("count")); err == nil {
				v, err = f.unroll(m.key, count, cp.get("input"))
			}
		} else {
			v, err = f.value(m.val.get("value"))
		}
		if err != nil {
			return nil, e.t.public(what, path+".value", err)
		}
		typ := outputType(e.t, m.val)
		if e.skipped {
			out = append(out, Output{Name: m.key, Type: typ})
			continue
		}
		if err := f.checkType(m.val, v, what, 0); err != nil {
			return nil, e.t.public(what, path, at(m.val, err))
		}
		o := Output{Name: m.key, Type: typ}
		if !isSecure(typ) {
			if o.Value, err = e.meter.encode(v); err != nil {
				return nil, e.t.public(what, path, at(m.val, err))
			}
		}
		out = append(out, o)
	}
	return out, nil
}
