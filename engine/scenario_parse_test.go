// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package engine_test

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"

	. "github.com/nap-aks/nap/engine"
)

// The scenarios in testdata are readable scripts: they describe a cluster line by
// line, and "place" prints the plan. verify checks every plan, too. Rewrite
// expectations with -rewrite. The lines:
//
//	type NAME cpu=4 memory=16Gi [RESOURCE=N] price=0.2 [zones=z1,z2] [ct=on-demand,spot*0.3]
//	     [label=K:V] [limit.DRIVER=N] [allocatable.RESOURCE=N] [unavailable=z1/spot] [quota=NAME:N] [reservation=ID:N@z1]
//	pool NAME [weight=N] [limit.cpu=N] [used.cpu=N] [label=K:V] [require=K:In:a,b] [min=K:N] [taint=K=V:Effect] [startup=…] [blocked=why]
//	quota NAME N [of=LIMIT] [title=…] [advice=…]       (_ in texts is a space)
//	node NAME cpu=4 memory=16Gi [zone=z1] [label=K:V] [taint=…] [startup=…] [uninitialized] [closed=why] [gone] [undecided=K:a,b]
//	     [limit.DRIVER=N] [pods=CLASS*3,…] [daemons=CLASS]
//	pods NAME [xN] cpu=1 memory=1Gi …constraints…      pending pods of a class (x0: none)
//	daemon NAME cpu=…                                  a DaemonSet's pods
//
// Constraints: ns=N label=K:V select=K:Op:a,b affinity=K:Op:a&K:Op (repeat: or)
// prefer=W/K:Op:a tolerate=K[=V][:Effect] or * spread=KEY/SKEW[/soft][/min=N][/affinity=Ignore][/taints=Honor][/of=SELECTOR]
// with=KEY/SELECTOR[/w=N] apart=KEY/SELECTOR[/w=N] (SELECTOR K:Op:a, "self", "ns=*") port=80 volume=DRIVER:N
// shared=DRIVER:ID at=K:Op:a|K:Op:b priority=N unsupported=WHAT
// A class has the label app=NAME.
type scenario struct {
	s       *Snapshot
	classes map[string]ClassID
	count   int
}

var shortKeys = map[string]string{"zone": LabelZone, "host": LabelHostname, "ct": LabelCapacityType, "type": LabelInstanceType, "arch": LabelArch, "os": LabelOS, "pool": LabelNodePool}

func longKey(k string) string {
	if l, ok := shortKeys[k]; ok {
		return l
	}
	return k
}

func quantity(t *testing.T, name, v string) int64 {
	mult := map[string]float64{"m": 0, "Ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30, "k": 1000}
	unit := 1.0
	for u, f := range mult {
		if n, ok := strings.CutSuffix(v, u); ok && u != "m" {
			v, unit = n, f
			break
		}
	}
	milli, isMilli := strings.CutSuffix(v, "m")
	f, err := strconv.ParseFloat(milli, 64)
	if err != nil {
		t.Fatalf("quantity %q: %v", v, err)
	}
	if name == ResourceCPU && !isMilli {
		unit = 1000
	}
	return int64(f * unit)
}

func requirement(t *testing.T, s string) Requirement {
	parts := strings.SplitN(s, ":", 3)
	if len(parts) < 2 {
		t.Fatalf("requirement %q is not KEY:Op[:values]", s)
	}
	r := Requirement{Key: longKey(parts[0]), Operator: Operator(parts[1])}
	if len(parts) == 3 {
		r.Values = strings.Split(parts[2], ",")
	}
	return r
}

func requirements(t *testing.T, s string) []Requirement {
	var out []Requirement
	for _, p := range strings.Split(s, "&") {
		out = append(out, requirement(t, p))
	}
	return out
}

func taint(s string) Taint {
	kv, effect, _ := strings.Cut(s, ":")
	k, v, _ := strings.Cut(kv, "=")
	return Taint{Key: k, Value: v, Effect: Effect(effect)}
}

func (sc *scenario) selector(t *testing.T, name, s string) *Selector {
	if s == "self" || s == "" {
		s = "app:In:" + name
	}
	return &Selector{Requirements: requirements(t, s)}
}

func (sc *scenario) term(t *testing.T, name, v string) AffinityTerm {
	parts := strings.Split(v, "/")
	a := AffinityTerm{Key: longKey(parts[0])}
	sel := "self"
	for _, p := range parts[1:] {
		switch {
		case strings.HasPrefix(p, "w="):
			n, _ := strconv.Atoi(p[2:])
			a.Weight = int32(n)
		case p == "ns=*":
			a.AllNamespaces = true
		case strings.HasPrefix(p, "ns="):
			a.Namespaces = strings.Split(p[3:], ",")
		default:
			sel = p
		}
	}
	a.Selector = sc.selector(t, name, sel)
	return a
}

func (sc *scenario) class(t *testing.T, name string, args []string) PodClass {
	p := PodClass{Name: name, Namespace: "default", Labels: map[string]string{"app": name}, Requests: Resources{}}
	for _, a := range args {
		k, v, _ := strings.Cut(a, "=")
		switch k {
		case "ns":
			p.Namespace = v
		case "label":
			lk, lv, _ := strings.Cut(v, ":")
			p.Labels[lk] = lv
		case "select":
			p.NodeSelector = append(p.NodeSelector, requirement(t, v))
		case "affinity":
			p.NodeAffinity = append(p.NodeAffinity, requirements(t, v))
		case "prefer":
			w, r, _ := strings.Cut(v, "/")
			n, _ := strconv.Atoi(w)
			p.PreferredNodeAffinity = append(p.PreferredNodeAffinity, PreferredTerm{Weight: int32(n), Requirements: requirements(t, r)})
		case "tolerate":
			if v == "*" {
				p.Tolerations = append(p.Tolerations, Toleration{Operator: "Exists"})
				continue
			}
			tt := taint(v)
			o := Toleration{Key: tt.Key, Value: tt.Value, Effect: tt.Effect, Operator: "Equal"}
			if !strings.Contains(v, "=") {
				o.Operator = "Exists"
			}
			p.Tolerations = append(p.Tolerations, o)
		case "spread":
			parts := strings.Split(v, "/")
			n, _ := strconv.Atoi(parts[1])
			s := SpreadConstraint{Key: longKey(parts[0]), MaxSkew: int32(n)}
			sel := "self"
			for _, o := range parts[2:] {
				ok, ov, _ := strings.Cut(o, "=")
				switch ok {
				case "soft":
					s.Soft = true
				case "min":
					m, _ := strconv.Atoi(ov)
					s.MinDomains = int32(m)
				case "affinity":
					s.NodeAffinityPolicy = NodePolicy(ov)
				case "taints":
					s.NodeTaintsPolicy = NodePolicy(ov)
				case "of":
					sel = ov
				}
			}
			s.Selector = sc.selector(t, name, sel)
			p.Spread = append(p.Spread, s)
		case "with":
			p.PodAffinity = append(p.PodAffinity, sc.term(t, name, v))
		case "apart":
			p.PodAntiAffinity = append(p.PodAntiAffinity, sc.term(t, name, v))
		case "port":
			n, _ := strconv.Atoi(v)
			p.HostPorts = append(p.HostPorts, HostPort{Port: int32(n)})
		case "volume":
			d, n, _ := strings.Cut(v, ":")
			c, _ := strconv.Atoi(n)
			if p.Volumes == nil {
				p.Volumes = map[string]int{}
			}
			p.Volumes[d] = c
		case "shared":
			d, id, _ := strings.Cut(v, ":")
			p.SharedVolumes = append(p.SharedVolumes, SharedVolume{Driver: d, ID: id})
		case "at":
			var vt VolumeTopology
			for _, term := range strings.Split(v, "|") {
				vt.Terms = append(vt.Terms, requirements(t, term))
			}
			p.VolumeTopology = append(p.VolumeTopology, vt)
		case "priority":
			n, _ := strconv.Atoi(v)
			p.Priority = int32(n)
		case "unsupported":
			p.Unsupported = append(p.Unsupported, v)
		default:
			p.Requests[k] = quantity(t, k, v)
		}
	}
	return p
}

func (sc *scenario) addClass(t *testing.T, name string, args []string) ClassID {
	id := ClassID(len(sc.s.Classes))
	sc.s.Classes = append(sc.s.Classes, sc.class(t, name, args))
	sc.classes[name] = id
	return id
}

// line reads one line of a scenario.
func (sc *scenario) line(t *testing.T, line string) {
	f := strings.Fields(line)
	name, args := f[1], f[2:]
	switch f[0] {
	case "type":
		sc.typeLine(t, name, args)
	case "quota":
		sc.quotaLine(t, name, args)
	case "pool":
		sc.poolLine(t, name, args)
	case "node":
		sc.nodeLine(t, name, args)
	case "daemon":
		sc.s.Daemons = append(sc.s.Daemons, sc.addClass(t, name, args))
	case "pods":
		sc.podsLine(t, name, args)
	default:
		t.Fatalf("unknown line %q", line)
	}
}

func (sc *scenario) typeLine(t *testing.T, name string, args []string) {
	s := sc.s
	it := InstanceType{Name: name, Capacity: Resources{ResourcePods: 110}, Allocatable: Resources{}}
	zones, cts, price := []string{"z1"}, []string{CapacityOnDemand}, 0.0
	var off []string
	var charges []QuotaCharge
	var reserved []Offering
	for _, a := range args {
		k, v, _ := strings.Cut(a, "=")
		sub, subName, dotted := strings.Cut(k, ".")
		switch {
		case k == "price":
			price, _ = strconv.ParseFloat(v, 64)
		case k == "zones":
			zones = strings.Split(v, ",")
		case k == "ct":
			cts = strings.Split(v, ",")
		case k == "unavailable":
			off = strings.Split(v, ",")
		case k == "label":
			lk, lv, _ := strings.Cut(v, ":")
			it.Requirements = append(it.Requirements, Requirement{Key: longKey(lk), Operator: In, Values: strings.Split(lv, ",")})
		case k == "quota":
			q, n, _ := strings.Cut(v, ":")
			c, _ := strconv.ParseInt(n, 10, 64)
			charges = append(charges, QuotaCharge{Quota: slices.IndexFunc(s.Quotas, func(x Quota) bool { return x.Name == q }), Amount: c})
		case k == "reservation":
			id, rest, _ := strings.Cut(v, ":")
			n, z, _ := strings.Cut(rest, "@")
			c, _ := strconv.Atoi(n)
			reserved = append(reserved, Offering{Zone: z, CapacityType: CapacityReserved, ReservationID: id, ReservationRemaining: c, Available: true, PriceUSDPerHour: 0.001})
		case dotted && sub == "limit":
			n, _ := strconv.Atoi(v)
			if it.VolumeLimits == nil {
				it.VolumeLimits = map[string]int{}
			}
			it.VolumeLimits[subName] = n
		case dotted && sub == "allocatable":
			it.Allocatable[subName] = quantity(t, subName, v)
		default:
			it.Capacity[k] = quantity(t, k, v)
		}
	}
	for k, v := range it.Capacity {
		if _, ok := it.Allocatable[k]; !ok {
			it.Allocatable[k] = v
		}
	}
	for _, z := range zones {
		for _, ct := range cts {
			ct, factor, has := strings.Cut(ct, "*")
			p := price
			if has {
				x, _ := strconv.ParseFloat(factor, 64)
				p *= x
			}
			if z == `""` {
				z = ""
			}
			it.Offerings = append(it.Offerings, Offering{Zone: z, CapacityType: ct, PriceUSDPerHour: p, Available: !slices.Contains(off, z+"/"+ct), Charges: charges})
		}
	}
	it.Offerings = append(it.Offerings, reserved...)
	s.Catalogues[0].InstanceTypes = append(s.Catalogues[0].InstanceTypes, it)
}

func (sc *scenario) quotaLine(t *testing.T, name string, args []string) {
	s := sc.s
	n, _ := strconv.ParseInt(args[0], 10, 64)
	q := Quota{Name: name, Remaining: n}
	for _, a := range args[1:] {
		k, v, _ := strings.Cut(a, "=")
		switch text := strings.ReplaceAll(v, "_", " "); k {
		case "of":
			q.Limit, _ = strconv.ParseInt(v, 10, 64)
		case "title":
			q.Title = text
		case "advice":
			q.Advice = text
		default:
			t.Fatalf("quota %s: %q is not known", name, a)
		}
	}
	s.Quotas = append(s.Quotas, q)
}

func (sc *scenario) poolLine(t *testing.T, name string, args []string) {
	s := sc.s
	p := NodePool{Name: name, Labels: map[string]string{}}
	for _, a := range args {
		k, v, _ := strings.Cut(a, "=")
		sub, subName, dotted := strings.Cut(k, ".")
		switch {
		case k == "weight":
			n, _ := strconv.Atoi(v)
			p.Weight = int32(n)
		case k == "label":
			lk, lv, _ := strings.Cut(v, ":")
			p.Labels[longKey(lk)] = lv
		case k == "require":
			p.Requirements = append(p.Requirements, requirement(t, v))
		case k == "min":
			mk, n, _ := strings.Cut(v, ":")
			c, _ := strconv.Atoi(n)
			p.Requirements = append(p.Requirements, Requirement{Key: longKey(mk), Operator: Exists, MinValues: c})
		case k == "taint":
			p.Taints = append(p.Taints, taint(v))
		case k == "startup":
			p.StartupTaints = append(p.StartupTaints, taint(v))
		case k == "blocked":
			p.Blocked = v
		case dotted && sub == "limit":
			if p.Limits == nil {
				p.Limits = Resources{}
			}
			p.Limits[subName] = quantity(t, subName, v)
		case dotted && sub == "used":
			if p.Usage == nil {
				p.Usage = Resources{}
			}
			p.Usage[subName] = quantity(t, subName, v)
		}
	}
	s.Pools = append(s.Pools, p)
}

func (sc *scenario) nodeLine(t *testing.T, name string, args []string) {
	s := sc.s
	n := Node{Name: name, Labels: map[string]string{LabelHostname: name}, Initialized: true, Allocatable: Resources{ResourcePods: 110}}
	for _, a := range args {
		k, v, _ := strings.Cut(a, "=")
		sub, subName, dotted := strings.Cut(k, ".")
		switch {
		case k == "zone":
			n.Labels[LabelZone] = v
		case k == "label":
			lk, lv, _ := strings.Cut(v, ":")
			n.Labels[longKey(lk)] = lv
		case k == "taint":
			n.Taints = append(n.Taints, taint(v))
		case k == "startup":
			n.StartupTaints = append(n.StartupTaints, taint(v))
			n.Taints = append(n.Taints, taint(v))
		case k == "uninitialized":
			n.Initialized = false
		case k == "closed":
			n.Closed = v
		case k == "gone":
			n.Gone = true
		case k == "undecided":
			n.Undecided = append(n.Undecided, requirement(t, strings.Replace(v, ":", ":In:", 1)))
		case k == "daemons":
			for _, d := range strings.Split(v, ",") {
				n.MissingDaemons = append(n.MissingDaemons, sc.classes[d])
			}
		case k == "pods":
			for _, g := range strings.Split(v, ",") {
				cn, c, _ := strings.Cut(g, "*")
				num := 1
				if c != "" {
					num, _ = strconv.Atoi(c)
				}
				pg := PodGroup{Class: sc.classes[cn]}
				for i := 0; i < num; i++ {
					sc.count++
					pg.Pods = append(pg.Pods, fmt.Sprintf("old-%d", sc.count))
				}
				n.Pods = append(n.Pods, pg)
			}
		case dotted && sub == "limit":
			c, _ := strconv.Atoi(v)
			if n.VolumeLimits == nil {
				n.VolumeLimits = map[string]int{}
			}
			n.VolumeLimits[subName] = c
		default:
			n.Allocatable[k] = quantity(t, k, v)
		}
	}
	s.Nodes = append(s.Nodes, n)
}

func (sc *scenario) podsLine(t *testing.T, name string, args []string) {
	s := sc.s
	n := 1
	if len(args) > 0 && strings.HasPrefix(args[0], "x") {
		n, _ = strconv.Atoi(args[0][1:])
		args = args[1:]
	}
	g := PodGroup{Class: sc.addClass(t, name, args)}
	for i := 0; i < n; i++ {
		g.Pods = append(g.Pods, fmt.Sprintf("%s-%d", name, i))
	}
	if n > 0 {
		s.Pending = append(s.Pending, g)
	}
}

// parse reads a scenario. It reads classes before the nodes that have their pods.
func parse(t *testing.T, text string) *Snapshot {
	sc := &scenario{s: &Snapshot{Version: SnapshotVersion, Catalogues: []Catalogue{{}}}, classes: map[string]ClassID{}}
	for _, first := range []string{"quota", "type", "pool", "daemon", "pods", "node"} {
		for _, line := range strings.Split(text, "\n") {
			if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "#") && strings.Fields(line)[0] == first {
				sc.line(t, line)
			}
		}
	}
	return sc.s
}
