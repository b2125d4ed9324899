// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"fmt"
	"math"
)

// checkKind is the kind of a topology rule.
type checkKind uint8

const (
	checkSpread checkKind = iota
	checkAffinity
	checkAnti
	checkForbid // an anti-affinity term of another pod selects this one
)

// check is one topology rule of a variant.
type check struct {
	kind       checkKind
	ctr        *counter
	self       bool // the rule counts the pods that have it
	maxSkew    int64
	minDomains int
	universe   []int32
	late       []int32 // of the universe: not there when the first pods were placed
	preferred  bool
	brought    bool // by the daemons of every column of the variant, see besideDaemons
}

// text names the rule.
func (k *check) text(c *Cluster) string {
	key := c.sym.tab[k.ctr.key].name
	switch {
	case k.kind == checkSpread:
		return fmt.Sprintf("spread over %s with maxSkew %d", key, k.maxSkew)
	case k.kind == checkAffinity && k.preferred:
		return "preferred pod affinity over " + key
	case k.kind == checkAffinity:
		return "pod affinity over " + key
	case k.kind == checkAnti:
		return "pod anti-affinity over " + key
	}
	return "another pod's anti-affinity over " + key
}

// noCap is the answer of rules that allow any number of pods.
const noCap = math.MaxInt32

// room returns how many more pods of the owner may go to a domain with cnt
// counted pods, when least is the least count over the domains (0 for hostnames,
// as a new machine is an empty domain). bootstrap waives affinity.
func (k *check) room(cnt, least int64, bootstrap bool) int64 {
	switch k.kind {
	case checkSpread:
		r := k.maxSkew + least - cnt
		if r < 0 {
			return 0
		}
		if !k.self {
			return noCap
		}
		return r
	case checkAffinity:
		if cnt > 0 || bootstrap {
			return noCap
		}
		return 0
	case checkAnti:
		if cnt > 0 {
			return 0
		}
		if k.self {
			return 1
		}
		return noCap
	}
	if cnt > 0 {
		return 0
	}
	return noCap
}

// count returns the count of a domain that the rule must reckon with: for affinity the
// pods that are certainly there, for all others those that may be.
func (k *check) count(val int32) int64 {
	if k.kind == checkAffinity {
		return k.ctr.at(val)
	}
	return k.ctr.atMost(val)
}

func (k *check) reason() Reason {
	switch k.kind {
	case checkSpread:
		return ReasonSpread
	case checkAffinity:
		return ReasonAffinity
	}
	return ReasonAnti
}

// bootstrap reports whether the variant's affinity selects its own pods and no
// pod it could follow exists, so that the first pod may go anywhere.
func (v *variant) bootstrap() bool {
	if len(v.affs) == 0 || !v.selfAll {
		return false
	}
	for _, a := range v.affs {
		if a.total > 0 {
			return false
		}
	}
	return true
}

// hostRoom returns how many pods of a variant the hostname rules allow on a host
// where count returns what a counter counts. The host is a node or a machine to
// create, which has its daemons, too.
func (v *variant) hostRoom(count func(*counter) int64, machine bool) int64 {
	room := int64(noCap)
	boot := false
	if len(v.affs) > 0 {
		boot = v.bootstrap()
	}
	for i := range v.host {
		if machine && v.host[i].brought {
			continue
		}
		room = min(room, v.host[i].room(count(v.host[i].ctr), 0, boot))
		if room == 0 {
			return 0
		}
	}
	return room
}

// noneThere is the count of a machine without pods.
func noneThere(*counter) int64 { return 0 }

// fitBeside returns how many of n pods the rules within a host allow: host ports
// beside those that are taken, and hostname rules with the pods that count
// returns. The host is a node or a machine to create.
func (v *variant) fitBeside(n int64, taken []HostPort, count func(*counter) int64, machine bool) int64 {
	if ports := v.pc.cl.pc.HostPorts; len(ports) > 0 {
		if conflictAny(ports, taken) {
			return 0
		}
		n = min(n, 1)
	}
	if len(v.host) > 0 {
		n = min(n, v.hostRoom(count, machine))
	}
	return n
}

// followsOnHost reports whether the variant has an affinity over the hostname that
// other pods than daemons have to meet.
func (v *variant) followsOnHost() bool {
	for i := range v.host {
		if v.host[i].kind == checkAffinity && !v.host[i].brought {
			return true
		}
	}
	return false
}
