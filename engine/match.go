// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"slices"
	"strconv"
)

// selects reports whether a selector selects a set of labels.
func (sel *Selector) selects(labels map[string]string) bool {
	if sel == nil {
		return false
	}
	for i := range sel.Requirements {
		r := &sel.Requirements[i]
		v, ok := labels[r.Key]
		switch r.Operator {
		case In:
			if !ok || !slices.Contains(r.Values, v) {
				return false
			}
		case NotIn:
			if ok && slices.Contains(r.Values, v) {
				return false
			}
		case Exists:
			if !ok {
				return false
			}
		case DoesNotExist:
			if ok {
				return false
			}
		default:
			return false
		}
	}
	return true
}

// tolerates reports whether one of the tolerations tolerates the taint.
func tolerates(ts []Toleration, t Taint) bool {
	for i := range ts {
		o := &ts[i]
		if o.Effect != "" && o.Effect != t.Effect {
			continue
		}
		if o.Key != "" && o.Key != t.Key {
			continue
		}
		switch o.Operator {
		case "", "Equal":
			if o.Key != "" && o.Value == t.Value {
				return true
			}
		case "Exists":
			return true
		case "Lt", "Gt":
			have, err1 := strconv.ParseInt(t.Value, 10, 64)
			want, err2 := strconv.ParseInt(o.Value, 10, 64)
			if err1 == nil && err2 == nil && ((o.Operator == "Lt" && have < want) || (o.Operator == "Gt" && have > want)) {
				return true
			}
		}
	}
	return false
}

// firstUntolerated returns the first taint that is not tolerated, if any. Taints
// with the effect PreferNoSchedule count only if strict.
func firstUntolerated(ts []Toleration, taints []Taint, strict bool) (Taint, bool) {
	for _, t := range taints {
		if t.Effect == PreferNoSchedule && !strict {
			continue
		}
		if !tolerates(ts, t) {
			return t, true
		}
	}
	return Taint{}, false
}

func portsConflict(a, b HostPort) bool {
	if a.Port != b.Port || proto(a) != proto(b) {
		return false
	}
	return a.IP == b.IP || anyIP(a.IP) || anyIP(b.IP)
}

func proto(p HostPort) string {
	if p.Protocol == "" {
		return "TCP"
	}
	return p.Protocol
}

func anyIP(ip string) bool { return ip == "" || ip == "0.0.0.0" || ip == "::" }

func conflictAny(a, b []HostPort) bool {
	for _, x := range a {
		for _, y := range b {
			if portsConflict(x, y) {
				return true
			}
		}
	}
	return false
}
