// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"fmt"
	"maps"
	"slices"
	"sort"
	"time"
)

// Cluster is the compiled form of a Snapshot. Its owner keeps it up to date, and
// Place works on it without copying. It is not safe for concurrent use.
type Cluster struct {
	sym  symbols
	dims dimTable

	classes    []*class
	classIndex map[string]ClassID // by canonical text, of the first indexed classes
	indexed    int
	sigs       map[string]int32 // see sig
	text       []byte           // scratch for map keys
	vec        []int64          // scratch of addClass
	vecs       [][]int64        // requests by their signature
	slab       []class          // for classes to come

	nodes     []*node // by slot; nil where free
	nodeIndex map[string]int32
	freeSlots []int32
	order     []int32   // slots in use: initialized nodes first, then by name
	nodeVals  [][]int32 // [key][slot]: the value of the node's label
	changed   changeLog
	hostKey   int32

	pools      []NodePool
	poolIndex  map[string]int
	catalogues []Catalogue
	quotas     []Quota
	daemons    []ClassID

	inPlay    map[int32]bool           // keys whose value columns decide
	mentioned map[int32]map[int32]bool // values that classes name, by key
	cat       *catalog                 // nil if it must be compiled again

	scratchNodes []int32 // of existing.candidates

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
	keys  []int32 // labels that its requirements and topology rules look at
	on    map[int32]int32
	total int
	// coming are the nodes to which a daemon pod of the class is still to come.
	coming map[int32]bool
	// pending is the class in the current pass, if it has pods to place.
	pending *passClass

	// Classes with equal numbers have equal node selectors and required node
	// affinity, tolerations, volume topologies and requests.
	affID, tolID, volID, vecID int32
	// Matchers of the topology rules, made when first used.
	spreadM, affM, antiM []*matcher
	spreadBuf            [2]*matcher
	followM              *matcher // all required affinity terms together

	nodeRows [2]nodeRow // without and with PreferNoSchedule taints
	anti     []*matcher // required anti-affinity terms, as selectors
	antiKeys []int32
}

type prefTerm struct {
	weight int32
	reqs   []creq
}

// Compile builds the Cluster of a snapshot, which may be empty. The error names
// the first inconsistency: a class, catalogue or quota that does not exist, an
// invalid requirement, a name that is used twice.
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
		// The snapshot refers to classes by number, so equal ones are not merged.
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

// Class interns a pod class and returns its number, the same one for equal
// classes. It returns an error if a requirement is invalid.
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

// sig numbers texts: equal texts have equal numbers, the empty text has 0.
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
		if c.cat != nil && c.cat.sparse[k] {
			c.cat = nil // the class may ask for another combination
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

// SetQuotas updates what is left of the quotas that SetCatalogue set, and their
// texts. It is cheap. It returns an error if the quotas are not the same ones; use
// SetCatalogue then.
func (c *Cluster) SetQuotas(quotas []Quota) error {
	if len(quotas) != len(c.quotas) {
		return fmt.Errorf("setting %d quotas: the catalogue charges %d, set the catalogue again", len(quotas), len(c.quotas))
	}
	for i := range quotas {
		if quotas[i].Name != c.quotas[i].Name {
			return fmt.Errorf("setting quota %d to %q: the catalogue charges %q, set the catalogue again", i, quotas[i].Name, c.quotas[i].Name)
		}
	}
	c.quotas = slices.Clone(quotas)
	return nil
}

// SetCatalogue replaces NodePools, catalogues, quotas and daemon classes. The
// error names what refers to something that does not exist.
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

// SetUsage sets what the machines of a NodePool, in-flight ones included, use of
// its limits.
func (c *Cluster) SetUsage(pool string, usage Resources) error {
	i, ok := c.poolIndex[pool]
	if !ok {
		return fmt.Errorf("NodePool %q does not exist", pool)
	}
	c.pools[i].Usage = usage
	return nil
}

// Snapshot returns the value form of the cluster at the given time with these
// pending pods. It shares strings, maps and pod lists with the Cluster: write or
// copy it before the next change.
func (c *Cluster) Snapshot(at time.Time, pending []PodGroup) *Snapshot {
	s := &Snapshot{
		Version: SnapshotVersion, Time: at, Pending: pending, Daemons: c.daemons,
		Pools: slices.Clone(c.pools), Catalogues: c.catalogues, Quotas: c.quotas,
	}
	for _, cl := range c.classes {
		s.Classes = append(s.Classes, cl.pc)
	}
	names := slices.Sorted(maps.Keys(c.nodeIndex))
	for _, name := range names {
		n := c.nodes[c.nodeIndex[name]].n
		n.Pods = slices.Clone(n.Pods)
		sort.Slice(n.Pods, func(i, j int) bool { return n.Pods[i].Class < n.Pods[j].Class })
		s.Nodes = append(s.Nodes, n)
	}
	return s
}
