// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package scenario

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// Fault is something that goes wrong. Which fields a kind takes is in FaultKinds.
type Fault struct {
	Kind string `yaml:"kind"`
	// For is how long the fault may strike from the time of its event on. A fault of
	// requests without it lasts to the end.
	For Duration `yaml:"for"`
	// Probability is the chance that it strikes where it could; 1 if 0.
	Probability float64 `yaml:"probability"`
	// Times is how often it strikes at most; 0 is any number.
	Times int `yaml:"times"`
	// Client is whose requests it strikes: nap (whichever engine runs) if empty,
	// kube-scheduler, kube-controller-manager or kubelet, or azure for the requests
	// to Azure Resource Manager where a kind allows it.
	Client string `yaml:"client"`
	// When is before or after a write.
	When string `yaml:"when"`
	// Verb and Resource limit it to requests of one kind: create, update, patch,
	// delete, get, list; and the plural name, for example nodeclaims.
	Verb     string `yaml:"verb"`
	Resource string `yaml:"resource"`
	// Delay is how long something is held back; for a crash, until the restart.
	Delay Range `yaml:"delay"`
	// Size, Family, Zone and CapacityType name offerings; empty matches all.
	Size         string `yaml:"size"`
	Family       string `yaml:"family"`
	Zone         string `yaml:"zone"`
	CapacityType string `yaml:"capacityType"`
	// Limit is the quota in vCPUs, or the requests a minute of throttle.
	Limit int `yaml:"limit"`
	// Count is how many nodes or machines it strikes.
	Count Count `yaml:"count"`

	Line int `yaml:"-"`
}

// FaultKind describes a kind of fault.
type FaultKind struct {
	Name  string
	About string
	// Fields are the fields of Fault it takes, Required those it must have. Each
	// kind takes for, probability and times.
	Fields, Required []string
}

// FaultKinds are the kinds of faults that exist.
var FaultKinds = []FaultKind{
	{"crashController", "the controllers end before or after a write and start again after delay", []string{"when", "verb", "resource", "delay"}, []string{"when"}},
	{"leaderOverlap", "a second replica of the controllers runs beside the first", nil, []string{"for"}},
	{"apiRestart", "the API server breaks all watches and knows no old versions", []string{"delay"}, nil},
	{"conflict", "updates are answered with a conflict", []string{"client", "verb", "resource"}, nil},
	{"watchDelay", "watch events arrive late", []string{"client", "resource", "delay"}, []string{"delay"}},
	{"coalesce", "watch events of one object are held back, and only the last arrives", []string{"client", "resource", "delay"}, []string{"delay"}},
	{"staleList", "lists are answered with the state of a while ago", []string{"client", "resource", "delay"}, []string{"delay"}},
	{"loseAnswer", "requests are carried out, and the connection breaks before the answer", []string{"client", "verb", "resource"}, nil},
	{"hang", "requests are not carried out and not answered", []string{"client", "verb", "resource"}, nil},
	{"lateSuccess", "Azure reports a failure, and the machine exists after delay all the same", []string{"delay"}, []string{"delay"}},
	{"stockOut", "Azure has no machines of some offerings", []string{"size", "family", "zone", "capacityType"}, nil},
	{"quota", "the quota of a family, or of the region, is limit vCPUs", []string{"family", "limit"}, []string{"limit"}},
	{"spotEvict", "Azure evicts spot machines", []string{"size", "family", "zone", "count"}, []string{"count"}},
	{"neverRegister", "machines run, but their kubelets never register", []string{"size", "family"}, nil},
	{"neverReady", "nodes register and never become ready", []string{"size", "family"}, nil},
	{"notReady", "nodes that were ready are not ready for delay", []string{"count", "delay"}, []string{"count"}},
	{"throttle", "Azure answers with 429 above limit requests a minute", []string{"limit", "delay"}, []string{"limit"}},
}

// faultKind returns the description of a kind.
func faultKind(name string) (FaultKind, bool) {
	i := slices.IndexFunc(FaultKinds, func(k FaultKind) bool { return k.Name == name })
	if i < 0 {
		return FaultKind{}, false
	}
	return FaultKinds[i], true
}

// fields returns which fields are given, by name.
func (f *Fault) fields() map[string]bool {
	all := map[string]bool{
		"for": f.For != 0, "probability": f.Probability != 0, "times": f.Times != 0, "client": f.Client != "",
		"when": f.When != "", "verb": f.Verb != "", "resource": f.Resource != "", "delay": f.Delay != Range{},
		"size": f.Size != "", "family": f.Family != "", "zone": f.Zone != "", "capacityType": f.CapacityType != "",
		"limit": f.Limit != 0, "count": f.Count != Count{},
	}
	return all
}

func (f *Fault) validate() error {
	var names []string
	for _, k := range FaultKinds {
		names = append(names, k.Name)
	}
	kind, ok := faultKind(f.Kind)
	if !ok {
		return fmt.Errorf("line %d: the fault kind %q is unknown: %s", f.Line, f.Kind, suggest(f.Kind, names))
	}
	given := f.fields()
	for _, name := range slices.Sorted(mapKeys(given)) {
		if given[name] && !slices.Contains(kind.Fields, name) && name != "for" && name != "probability" && name != "times" {
			return fmt.Errorf("line %d: the fault %s takes no %s: it takes %s", f.Line, f.Kind, name,
				strings.Join(append(slices.Clone(kind.Fields), "for", "probability", "times"), ", "))
		}
	}
	for _, name := range kind.Required {
		if !given[name] {
			return fmt.Errorf("line %d: the fault %s needs %s", f.Line, f.Kind, name)
		}
	}
	switch {
	case f.Probability < 0 || f.Probability > 1:
		return fmt.Errorf("line %d: probability is %v: write a number above 0 and at most 1", f.Line, f.Probability)
	case f.Times < 0:
		return fmt.Errorf("line %d: times is %d: write how often the fault strikes at most", f.Line, f.Times)
	case f.When != "" && f.When != "before" && f.When != "after":
		return fmt.Errorf("line %d: when is %q: write before or after", f.Line, f.When)
	case f.CapacityType != "" && f.CapacityType != "spot" && f.CapacityType != "on-demand":
		return fmt.Errorf("line %d: capacityType is %q: write spot or on-demand", f.Line, f.CapacityType)
	case f.Verb != "" && !slices.Contains(verbs, f.Verb):
		return fmt.Errorf("line %d: the verb %q is unknown: %s", f.Line, f.Verb, suggest(f.Verb, verbs))
	}
	return nil
}

var verbs = []string{"get", "list", "watch", "create", "update", "patch", "delete", "deletecollection"}

// Chance returns the probability of a strike, from 0 to 1.
func (f *Fault) Chance() float64 {
	if f.Probability == 0 {
		return 1
	}
	return f.Probability
}

// End returns when a fault that begins at start is over in a run of the given length.
func (f *Fault) End(start, duration time.Duration) time.Duration {
	if f.For == 0 {
		return duration
	}
	return min(start+time.Duration(f.For), duration)
}
