package engine

import (
	"fmt"
	"slices"
	"sort"
	"strings"
	"time"
)

// Cluster is the compiled, warm form of a Snapshot: the mirror that its owner
// keeps up to date, and on which Place answers without copying the cluster. It
// is not safe for concurrent use.
type Cluster struct {
	sym  symbols
	dims dimTable

	classes    []*class
	classIndex map[string]ClassID // by canonical text, of the first indexed classes
	indexed    int
	sigs       map[string]int32 // numbers of signatures, see sig
	text       []byte           // scratch for keys of maps
	vec        []int64          // scratch of addClass
	vecs       [][]int64        // requests by their signature
	slab       []class          // for classes to come

	nodes     []*node // by slot; nil where free
	nodeIndex map[string]int32
	freeSlots []int32
	order     []int32   // live slots: initialized first, then by name
	nodeVals  [][]int32 // [key][slot] value of the node's label
	changed   []int32   // log of slots whose static shape changed
	hostKey   int32

	pools      []NodePool
	poolIndex  map[string]int
	catalogues []Catalogue
	quotas     []Quota
	daemons    []ClassID

	inPlay    map[int32]bool // keys that columns must resolve
	mentioned map[int32]map[int32]bool
	cat       *catalog // nil when it must be compiled again

	scratchNodes []int32 // of candidates, kept between passes

	byLabel    map[[2]string][]ClassID // classes by label, up to labelsUpTo
	labelsUpTo int

	matchers    map[string]*matcher
	antiClasses []ClassID // classes with required anti-affinity terms
}

// class is a compiled PodClass.
type class struct {
	id    ClassID
	pc    PodClass
	vec   []int64
	sel   []creq
	aff   [][]creq
	vols  [][][]creq
	pref  []prefTerm
	keys  []int32 // keys its requirements and topologies look at
	on    map[int32]int32
	total int
	// pending is the class in the pass that is under way, if it is to be placed.
	pending *passClass

	// Equal numbers stand for equal node selectors and required affinities,
	// tolerations, volume topologies, and requests.
	affID, tolID, volID, vecID int32
	// Matchers of the topology rules, once they have been needed.
	spreadM, affM, antiM []*matcher
	spreadRoom           [2]*matcher
	followM              *matcher // all required affinity terms together

	nodeRows [2]nodeRow // without and with PreferNoSchedule repelling
	anti     []*matcher // required anti-affinity terms, as selectors
	antiKeys []int32
}

type prefTerm struct {
	weight int32
	reqs   []creq
}

// nodeRow caches on which nodes a class can be by labels, taints and volume
// topology. It is brought up to date from Cluster.changed.
type nodeRow struct {
	row   bitset
	valid bool
	pos   int
}

type node struct {
	n      Node
	slot   int32
	free   []int64
	podIdx map[ClassID]int // into n.Pods
	shared map[string]int  // shared volume → pods using it
	open   map[int32][]int32
	taints []Taint // that count now
	ports  []HostPort
	// daemonPorts are the host ports of daemon pods that will come.
	daemonPorts []HostPort
}

// dimTable interns resource dimensions. CSI attachments are dimensions too.
type dimTable struct {
	ids   map[string]int
	names []string
}

const (
	dimCPU = iota
	dimMemory
	dimPods
)

const attachPrefix = "attach:"

func (d *dimTable) id(name string) int {
	if i, ok := d.ids[name]; ok {
		return i
	}
	i := len(d.names)
	d.ids[name] = i
	d.names = append(d.names, name)
	return i
}

// missing is the amount of a dimension that a machine does not list.
func (d *dimTable) missing(i int) int64 {
	if i == dimPods || strings.HasPrefix(d.names[i], attachPrefix) {
		return unlimited
	}
	return 0
}

func (d *dimTable) vec(r Resources) []int64 {
	d.know(r)
	v := make([]int64, len(d.names))
	for k, a := range r {
		v[d.ids[k]] = a
	}
	return v
}

// know interns the resources that are new, by name.
func (d *dimTable) know(r Resources) {
	for k := range r {
		if _, ok := d.ids[k]; !ok {
			for _, k := range sortedKeys(r) {
				d.id(k)
			}
			return
		}
	}
}

// capacityVec is like vec for what a machine has.
func (d *dimTable) capacityVec(r Resources, limits map[string]int) []int64 {
	d.know(r)
	if len(limits) > 0 {
		for _, k := range sortedKeys(limits) {
			d.id(attachPrefix + k)
		}
	}
	v := make([]int64, len(d.names))
	for i := range v {
		v[i] = d.missing(i)
	}
	for k, a := range r {
		v[d.ids[k]] = a
	}
	for k, a := range limits {
		v[d.ids[attachPrefix+k]] = int64(a)
	}
	return v
}

func (d *dimTable) pad(v []int64) []int64 {
	for len(v) < len(d.names) {
		v = append(v, d.missing(len(v)))
	}
	return v
}

// Compile builds the warm form of a snapshot. An empty snapshot is a start,
// too. The error names the first inconsistency: a class, catalogue or quota
// that is not there, a requirement that cannot be read, a name used twice.
func Compile(s *Snapshot) (*Cluster, error) {
	if s.Version > SnapshotVersion {
		return nil, fmt.Errorf("snapshot has version %d, this engine reads up to %d: use a newer nap", s.Version, SnapshotVersion)
	}
	c := &Cluster{
		classIndex: map[string]ClassID{},
		nodeIndex:  map[string]int32{},
		poolIndex:  map[string]int{},
		inPlay:     map[int32]bool{},
		mentioned:  map[int32]map[int32]bool{},
		matchers:   map[string]*matcher{},
		sigs:       map[string]int32{"": 0},
	}
	c.dims.ids = map[string]int{}
	c.dims.id(ResourceCPU)
	c.dims.id(ResourceMemory)
	c.dims.id(ResourcePods)
	c.hostKey = c.sym.key(LabelHostname)
	for _, k := range []string{LabelZone, LabelCapacityType, LabelNodePool, LabelHostname} {
		c.inPlay[c.sym.key(k)] = true
	}
	for i := range s.Classes {
		// Snapshot class numbers are kept: no interning of equal ones here.
		if _, err := c.addClass(s.Classes[i]); err != nil {
			return nil, fmt.Errorf("class %d (%s): %w", i, s.Classes[i].Name, err)
		}
	}
	if err := c.SetCatalogue(s.Pools, s.Catalogues, s.Quotas, s.Daemons); err != nil {
		return nil, err
	}
	for i := range s.Nodes {
		if _, dup := c.nodeIndex[s.Nodes[i].Name]; dup {
			return nil, fmt.Errorf("node %q is listed twice", s.Nodes[i].Name)
		}
		if err := c.setNode(s.Nodes[i], false); err != nil {
			return nil, err
		}
	}
	c.sortNodes()
	return c, nil
}

// Class interns a pod class and returns its number: the same one for every
// equal shape. The error says which requirement cannot be read.
func (c *Cluster) Class(p PodClass) (ClassID, error) {
	for ; c.indexed < len(c.classes); c.indexed++ {
		c.text = c.classes[c.indexed].pc.canon(c.text[:0])
		if _, ok := c.classIndex[string(c.text)]; !ok {
			c.classIndex[string(c.text)] = ClassID(c.indexed)
		}
	}
	c.text = p.canon(c.text[:0])
	if id, ok := c.classIndex[string(c.text)]; ok {
		return id, nil
	}
	key := string(c.text)
	id, err := c.addClass(p)
	if err == nil {
		c.classIndex[key] = id
		c.indexed = len(c.classes)
	}
	return id, err
}

// sig numbers texts: equal texts have equal numbers, the empty one has 0.
func (c *Cluster) sig(text []byte) int32 {
	if len(text) == 0 {
		return 0
	}
	id, ok := c.sigs[string(text)]
	if !ok {
		id = int32(len(c.sigs))
		c.sigs[string(text)] = id
	}
	return id
}

func (c *Cluster) addClass(p PodClass) (ClassID, error) {
	if len(c.slab) == 0 {
		c.slab = make([]class, 64)
	}
	cl := &c.slab[0]
	c.slab = c.slab[1:]
	cl.id, cl.pc = ClassID(len(c.classes)), p
	var err error
	use := func(k int32) {
		if !slices.Contains(cl.keys, k) {
			cl.keys = append(cl.keys, k)
		}
	}
	compile := func(rs []Requirement) []creq {
		if err != nil {
			return nil
		}
		var cs []creq
		cs, err = c.sym.compileReqs(rs)
		for _, r := range cs {
			use(r.key)
			for _, v := range r.values {
				if c.mentioned[r.key] == nil {
					c.mentioned[r.key] = map[int32]bool{}
				}
				if !c.mentioned[r.key][v] {
					c.mentioned[r.key][v] = true
					if c.cat != nil && c.cat.openEnded[r.key] {
						c.cat = nil
					}
				}
			}
		}
		return cs
	}
	cl.sel = compile(p.NodeSelector)
	for _, t := range p.NodeAffinity {
		cl.aff = append(cl.aff, compile(t))
	}
	for _, v := range p.VolumeTopology {
		var terms [][]creq
		for _, t := range v.Terms {
			terms = append(terms, compile(t))
		}
		cl.vols = append(cl.vols, terms)
	}
	for _, t := range p.PreferredNodeAffinity {
		cl.pref = append(cl.pref, prefTerm{t.Weight, compile(t.Requirements)})
	}
	if err != nil {
		return 0, err
	}
	for i := range p.Spread {
		use(c.sym.key(p.Spread[i].Key))
	}
	for i := range p.PodAffinity {
		use(c.sym.key(p.PodAffinity[i].Key))
	}
	for i := range p.PodAntiAffinity {
		t := &p.PodAntiAffinity[i]
		use(c.sym.key(t.Key))
		if t.Weight == 0 {
			cl.anti = append(cl.anti, c.matcher([]nsSelector{c.termSelector(t, p.Namespace)}))
			cl.antiKeys = append(cl.antiKeys, c.sym.key(t.Key))
		}
	}
	for _, k := range cl.keys {
		if !c.inPlay[k] {
			c.inPlay[k] = true
			c.cat = nil
		}
	}
	for k, a := range p.Requests {
		if a < 0 {
			return 0, fmt.Errorf("request of %s is negative", k)
		}
	}
	for _, v := range p.SharedVolumes {
		c.dims.id(attachPrefix + v.Driver)
	}
	c.dims.know(p.Requests)
	for drv := range p.Volumes {
		c.dims.id(attachPrefix + drv)
	}
	vec := append(c.vec[:0], make([]int64, len(c.dims.names))...)
	for k, a := range p.Requests {
		vec[c.dims.ids[k]] = a
	}
	for drv, n := range p.Volumes {
		vec[c.dims.ids[attachPrefix+drv]] += int64(n)
	}
	vec[dimPods] = 1
	c.vec = vec
	c.text = vecSig(c.text[:0], vec)
	cl.vecID = c.sig(c.text)
	for int(cl.vecID) >= len(c.vecs) {
		c.vecs = append(c.vecs, nil)
	}
	if len(c.vecs[cl.vecID]) != len(vec) {
		c.vecs[cl.vecID] = slices.Clone(vec)
	}
	cl.vec = c.vecs[cl.vecID]
	c.text = cl.affSig(c.text[:0])
	cl.affID = c.sig(c.text)
	c.text = tolSig(c.text[:0], p.Tolerations)
	cl.tolID = c.sig(c.text)
	c.text = cl.volSig(c.text[:0])
	cl.volID = c.sig(c.text)
	c.classes = append(c.classes, cl)
	if len(cl.anti) > 0 {
		c.antiClasses = append(c.antiClasses, cl.id)
	}
	return cl.id, nil
}

func (c *Cluster) checkClass(id ClassID) error {
	if id < 0 || int(id) >= len(c.classes) {
		return fmt.Errorf("pod class %d does not exist (there are %d)", id, len(c.classes))
	}
	return nil
}

// SetQuotas replaces what is left of the quotas that SetCatalogue gave, and the
// texts about them. It is cheap. The error says which quotas do not match; give
// them with SetCatalogue then.
func (c *Cluster) SetQuotas(quotas []Quota) error {
	if len(quotas) != len(c.quotas) {
		return fmt.Errorf("there are %d quotas, the catalogue charges %d: set the catalogue anew", len(quotas), len(c.quotas))
	}
	for i := range quotas {
		if quotas[i].Name != c.quotas[i].Name {
			return fmt.Errorf("quota %d is %q, the catalogue charges %q there: set the catalogue anew", i, quotas[i].Name, c.quotas[i].Name)
		}
	}
	c.quotas = slices.Clone(quotas)
	return nil
}

// SetCatalogue replaces NodePools, catalogues, quotas and daemon classes. The
// error names what refers to something that is not there.
func (c *Cluster) SetCatalogue(pools []NodePool, catalogues []Catalogue, quotas []Quota, daemons []ClassID) error {
	index := map[string]int{}
	for i := range pools {
		p := &pools[i]
		if _, dup := index[p.Name]; dup {
			return fmt.Errorf("NodePool %q is listed twice", p.Name)
		}
		index[p.Name] = i
		if p.Catalogue < 0 || p.Catalogue >= len(catalogues) {
			return fmt.Errorf("NodePool %q uses catalogue %d, there are %d", p.Name, p.Catalogue, len(catalogues))
		}
		if _, err := c.sym.compileReqs(p.Requirements); err != nil {
			return fmt.Errorf("NodePool %q: %w", p.Name, err)
		}
	}
	for i := range catalogues {
		for j := range catalogues[i].InstanceTypes {
			it := &catalogues[i].InstanceTypes[j]
			for _, r := range it.Requirements {
				switch r.Operator {
				case In, Exists, DoesNotExist:
				default:
					return fmt.Errorf("instance type %q describes label %s with operator %q: only In, Exists and DoesNotExist are possible", it.Name, r.Key, r.Operator)
				}
			}
			for k := range it.Offerings {
				o := &it.Offerings[k]
				if o.PriceUSDPerHour < 0 {
					return fmt.Errorf("instance type %q has an offering with a negative price", it.Name)
				}
				for _, q := range o.Charges {
					if q.Quota < 0 || q.Quota >= len(quotas) {
						return fmt.Errorf("instance type %q charges quota %d, there are %d", it.Name, q.Quota, len(quotas))
					}
				}
			}
		}
	}
	for _, d := range daemons {
		if err := c.checkClass(d); err != nil {
			return fmt.Errorf("daemons: %w", err)
		}
	}
	c.pools, c.catalogues, c.quotas, c.daemons = pools, catalogues, quotas, daemons
	c.poolIndex = index
	c.cat = nil
	return nil
}

// SetUsage sets what a NodePool's machines, in-flight ones included, take of
// its limits.
func (c *Cluster) SetUsage(pool string, usage Resources) error {
	i, ok := c.poolIndex[pool]
	if !ok {
		return fmt.Errorf("NodePool %q does not exist", pool)
	}
	c.pools[i].Usage = usage
	return nil
}

// SetNode adds a node or replaces the one of that name, pods included.
func (c *Cluster) SetNode(n Node) error { return c.setNode(n, true) }

func (c *Cluster) setNode(n Node, place bool) error {
	for _, g := range n.Pods {
		if err := c.checkClass(g.Class); err != nil {
			return fmt.Errorf("node %q: %w", n.Name, err)
		}
	}
	for _, d := range n.MissingDaemons {
		if err := c.checkClass(d); err != nil {
			return fmt.Errorf("node %q, missing daemons: %w", n.Name, err)
		}
	}
	open := map[int32][]int32{}
	for _, r := range n.Undecided {
		q, err := c.sym.compileReq(r)
		if err != nil || q.op != In || len(q.values) == 0 {
			return fmt.Errorf("node %q: undecided label %s must be In with values", n.Name, r.Key)
		}
		open[q.key] = q.values
	}
	c.RemoveNode(n.Name)
	slot := int32(len(c.nodes))
	if k := len(c.freeSlots); k > 0 {
		slot = c.freeSlots[k-1]
		c.freeSlots = c.freeSlots[:k-1]
	} else {
		c.nodes = append(c.nodes, nil)
	}
	pods := n.Pods
	n.Pods = nil
	nd := &node{n: n, slot: slot, podIdx: map[ClassID]int{}, open: open}
	c.nodes[slot] = nd
	c.nodeIndex[n.Name] = slot
	for k := range n.Labels {
		c.sym.key(k)
	}
	for len(c.nodeVals) < len(c.sym.tab) {
		c.nodeVals = append(c.nodeVals, nil)
	}
	for k := range c.nodeVals {
		for int32(len(c.nodeVals[k])) <= slot {
			c.nodeVals[k] = append(c.nodeVals[k], valAbsent)
		}
		c.nodeVals[k][slot] = valAbsent
	}
	for k, v := range n.Labels {
		id := c.sym.keys[k]
		c.nodeVals[id][slot] = c.sym.value(id, v)
	}
	for k, vs := range open {
		if len(vs) == 1 {
			c.nodeVals[k][slot] = vs[0]
			delete(open, k)
		} else {
			c.nodeVals[k][slot] = valOther
		}
	}
	if c.nodeVals[c.hostKey][slot] == valAbsent {
		c.nodeVals[c.hostKey][slot] = c.sym.value(c.hostKey, n.Name)
	}
	nd.taints = effectiveTaints(&nd.n)
	nd.free = c.dims.capacityVec(n.Allocatable, n.VolumeLimits)
	sub(nd.free, c.dims.vec(n.Reserved))
	c.changed = append(c.changed, slot)
	for _, d := range n.MissingDaemons {
		dc := c.classes[d]
		if c.staticFit(dc, nd, false) == nil {
			sub(nd.free, dc.vec)
			nd.daemonPorts = append(nd.daemonPorts, dc.pc.HostPorts...)
		}
	}
	if len(nd.daemonPorts) > 0 {
		nd.ports = slices.Clone(nd.daemonPorts)
	}
	for _, g := range pods {
		if err := c.AddPods(n.Name, g.Class, g.Pods...); err != nil {
			return err
		}
	}
	if place {
		at := sort.Search(len(c.order), func(i int) bool { return !c.nodeLess(c.order[i], slot) })
		c.order = slices.Insert(c.order, at, slot)
	}
	return nil
}

// effectiveTaints are the taints that repel new pods for good: startup taints
// and those of a node that is not ready yet go away by themselves.
func effectiveTaints(n *Node) []Taint {
	if n.Initialized {
		return n.Taints
	}
	var out []Taint
	for _, t := range n.Taints {
		if strings.HasPrefix(t.Key, "node.kubernetes.io/") && t.Key != "node.kubernetes.io/unschedulable" ||
			t.Key == "node.cloudprovider.kubernetes.io/uninitialized" || t.Key == "karpenter.sh/unregistered" {
			continue
		}
		if slices.ContainsFunc(n.StartupTaints, func(s Taint) bool { return s.Key == t.Key && s.Effect == t.Effect && s.Value == t.Value }) {
			continue
		}
		out = append(out, t)
	}
	return out
}

func (c *Cluster) nodeLess(a, b int32) bool {
	x, y := c.nodes[a], c.nodes[b]
	if x.n.Initialized != y.n.Initialized {
		return x.n.Initialized
	}
	return x.n.Name < y.n.Name
}

func (c *Cluster) sortNodes() {
	c.order = c.order[:0]
	for i, n := range c.nodes {
		if n != nil {
			c.order = append(c.order, int32(i))
		}
	}
	sort.Slice(c.order, func(i, j int) bool { return c.nodeLess(c.order[i], c.order[j]) })
}

// RemoveNode takes a node and its pods out. An unknown name is no error.
func (c *Cluster) RemoveNode(name string) {
	slot, ok := c.nodeIndex[name]
	if !ok {
		return
	}
	for _, g := range c.nodes[slot].n.Pods {
		cl := c.classes[g.Class]
		cl.total -= len(g.Pods)
		delete(cl.on, slot)
	}
	delete(c.nodeIndex, name)
	if i := slices.Index(c.order, slot); i >= 0 {
		c.order = slices.Delete(c.order, i, i+1)
	}
	c.nodes[slot] = nil
	for k := range c.nodeVals {
		if int(slot) < len(c.nodeVals[k]) {
			c.nodeVals[k][slot] = valAbsent
		}
	}
	c.freeSlots = append(c.freeSlots, slot)
	c.changed = append(c.changed, slot)
}

// AddPods records pods of a class as being on a node. The error says that the
// node or the class does not exist.
func (c *Cluster) AddPods(nodeName string, id ClassID, pods ...string) error {
	slot, ok := c.nodeIndex[nodeName]
	if !ok {
		return fmt.Errorf("pods %v: node %q does not exist", pods, nodeName)
	}
	if err := c.checkClass(id); err != nil {
		return fmt.Errorf("pods %v on node %q: %w", pods, nodeName, err)
	}
	if len(pods) == 0 {
		return nil
	}
	nd, cl := c.nodes[slot], c.classes[id]
	i, ok := nd.podIdx[id]
	if !ok {
		i = len(nd.n.Pods)
		nd.podIdx[id] = i
		nd.n.Pods = append(nd.n.Pods, PodGroup{Class: id})
	}
	// The slice may be the snapshot's: never grow it in place.
	nd.n.Pods[i].Pods = append(slices.Clip(nd.n.Pods[i].Pods), pods...)
	n := int32(len(pods))
	if cl.on == nil {
		cl.on = map[int32]int32{}
	}
	cl.on[slot] += n
	cl.total += len(pods)
	c.occupy(nd, cl, int64(n))
	return nil
}

// RemovePods records that pods have left a node. The error says which pod was
// not there; the others are removed all the same.
func (c *Cluster) RemovePods(nodeName string, id ClassID, pods ...string) error {
	slot, ok := c.nodeIndex[nodeName]
	if !ok {
		return fmt.Errorf("pods %v: node %q does not exist", pods, nodeName)
	}
	nd := c.nodes[slot]
	i, ok := nd.podIdx[id]
	if !ok {
		return fmt.Errorf("node %q has no pods of class %d", nodeName, id)
	}
	cl := c.classes[id]
	var err error
	left := slices.Clone(nd.n.Pods[i].Pods)
	for _, p := range pods {
		at := slices.Index(left, p)
		if at < 0 {
			err = fmt.Errorf("node %q has no pod %q of class %d", nodeName, p, id)
			continue
		}
		left = slices.Delete(left, at, at+1)
	}
	gone := int64(len(nd.n.Pods[i].Pods) - len(left))
	nd.n.Pods[i].Pods = left
	cl.on[slot] -= int32(gone)
	cl.total -= int(gone)
	if len(left) == 0 {
		delete(cl.on, slot)
		delete(nd.podIdx, id)
		last := len(nd.n.Pods) - 1
		if i != last {
			nd.n.Pods[i] = nd.n.Pods[last]
			nd.podIdx[nd.n.Pods[i].Class] = i
		}
		nd.n.Pods = nd.n.Pods[:last]
	}
	c.occupy(nd, cl, -gone)
	return err
}

// occupy takes the requests of n pods off a node (adds them for n < 0).
func (c *Cluster) occupy(nd *node, cl *class, n int64) {
	nd.free = c.dims.pad(nd.free)
	for d, r := range cl.vec {
		nd.free[d] -= r * n
	}
	for _, v := range cl.pc.SharedVolumes {
		if nd.shared == nil {
			nd.shared = map[string]int{}
		}
		k := v.Driver + "\x00" + v.ID
		before := nd.shared[k]
		nd.shared[k] = before + int(n)
		d := c.dims.id(attachPrefix + v.Driver)
		nd.free = c.dims.pad(nd.free)
		if before == 0 && n > 0 {
			nd.free[d]--
		} else if before > 0 && nd.shared[k] <= 0 {
			delete(nd.shared, k)
			nd.free[d]++
		}
	}
	if len(cl.pc.HostPorts) > 0 {
		nd.ports = append(nd.ports[:0:0], nd.daemonPorts...)
		for _, g := range nd.n.Pods {
			nd.ports = append(nd.ports, c.classes[g.Class].pc.HostPorts...)
		}
	}
}

func sub(a, b []int64) {
	for i := range b {
		a[i] -= b[i]
	}
}

// Snapshot returns the value form of the cluster, as of the given time and
// with these pending pods. It shares strings and maps with the Cluster; the
// pod lists are the Cluster's own until the next change: write or copy it
// before.
func (c *Cluster) Snapshot(at time.Time, pending []PodGroup) *Snapshot {
	s := &Snapshot{
		Version: SnapshotVersion, Time: at, Pending: pending, Daemons: c.daemons,
		Pools: slices.Clone(c.pools), Catalogues: c.catalogues, Quotas: c.quotas,
	}
	for _, cl := range c.classes {
		s.Classes = append(s.Classes, cl.pc)
	}
	names := sortedKeys(c.nodeIndex)
	for _, name := range names {
		n := c.nodes[c.nodeIndex[name]].n
		n.Pods = slices.Clone(n.Pods)
		sort.Slice(n.Pods, func(i, j int) bool { return n.Pods[i].Class < n.Pods[j].Class })
		s.Nodes = append(s.Nodes, n)
	}
	return s
}

// nodeHolds says whether a compiled requirement holds on a node, for every
// value that a label can still take.
func (c *Cluster) nodeHolds(r *creq, nd *node) bool {
	if vs, ok := nd.open[r.key]; ok {
		for _, v := range vs {
			if !c.sym.holds(r, v) {
				return false
			}
		}
		return true
	}
	return c.sym.holds(r, c.nodeVal(r.key, nd.slot))
}

func (c *Cluster) nodeVal(key, slot int32) int32 {
	if int(key) >= len(c.nodeVals) || int(slot) >= len(c.nodeVals[key]) {
		return valAbsent
	}
	return c.nodeVals[key][slot]
}

func (c *Cluster) allHold(rs []creq, nd *node) *creq {
	for i := range rs {
		if !c.nodeHolds(&rs[i], nd) {
			return &rs[i]
		}
	}
	return nil
}

// nodeMiss says why a class can never be on a node as it is.
type nodeMiss struct {
	reason Reason
	detail string
}

// labelsFit checks node selector and required node affinity.
func (c *Cluster) labelsFit(cl *class, nd *node) *nodeMiss {
	if r := c.allHold(cl.sel, nd); r != nil {
		return &nodeMiss{ReasonRequirement, "nodeSelector " + c.reqText(r)}
	}
	if len(cl.aff) > 0 {
		ok := false
		for _, t := range cl.aff {
			if len(t) > 0 && c.allHold(t, nd) == nil {
				ok = true
				break
			}
		}
		if !ok {
			return &nodeMiss{ReasonRequirement, "node affinity"}
		}
	}
	return nil
}

// staticFit checks everything about a node that does not change while pods are
// placed: taints, labels, volume topology. nil means it fits.
func (c *Cluster) staticFit(cl *class, nd *node, strict bool) *nodeMiss {
	if t, bad := firstUntolerated(cl.pc.Tolerations, nd.taints, strict); bad {
		return &nodeMiss{ReasonTaints, "taint " + taintText(t)}
	}
	if m := c.labelsFit(cl, nd); m != nil {
		return m
	}
	for _, terms := range cl.vols {
		ok := false
		for _, t := range terms {
			if c.allHold(t, nd) == nil {
				ok = true
				break
			}
		}
		if !ok {
			return &nodeMiss{ReasonVolume, "a volume of the pod cannot be here"}
		}
	}
	return nil
}

// staticNodes returns the set of nodes on which the class can be, statically.
func (c *Cluster) staticNodes(cl *class, strict bool) bitset {
	i := 0
	if strict {
		i = 1
	}
	r := &cl.nodeRows[i]
	eval := func(slot int32) {
		nd := c.nodes[slot]
		if nd != nil && nd.n.Closed == "" && !nd.n.Gone && c.staticFit(cl, nd, strict) == nil {
			r.row.set(slot)
		} else {
			r.row.clear(slot)
		}
	}
	r.row = r.row.grow(len(c.nodes))
	if !r.valid || len(c.changed)-r.pos > len(c.nodes) {
		for s := range c.nodes {
			eval(int32(s))
		}
		r.valid = true
	} else {
		for _, s := range c.changed[r.pos:] {
			eval(s)
		}
	}
	r.pos = len(c.changed)
	return r.row
}

func taintText(t Taint) string {
	if t.Value == "" {
		return t.Key + ":" + string(t.Effect)
	}
	return t.Key + "=" + t.Value + ":" + string(t.Effect)
}

func (c *Cluster) reqText(r *creq) string {
	t := &c.sym.tab[r.key]
	switch r.op {
	case In, NotIn:
		var vs []string
		for _, v := range r.values {
			vs = append(vs, t.names[v])
		}
		sort.Strings(vs)
		return fmt.Sprintf("%s %s [%s]", t.name, r.op, strings.Join(vs, " "))
	case Exists, DoesNotExist:
		return t.name + " " + string(r.op)
	}
	return fmt.Sprintf("%s %s %d", t.name, r.op, r.num)
}
