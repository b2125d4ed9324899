package instancetype

import (
	"fmt"
	"regexp"
	"strings"
)

// Name is a VM size name taken apart, such as Standard_NC24ads_A100_v4.
type Name struct {
	Full        string
	Family      string // the family letter: N
	SubFamily   string // further capitals: C
	Constrained bool   // vCPUs limited below the parent size: the -2 of M8-2ms
	Features    string // small letters: ads
	Accelerator string // A100; empty without
	Version     string // digits of the generation: 4; empty when the name has none
}

var (
	coreRE        = regexp.MustCompile(`^([A-Z])([A-Z]*?)(\d+)(-\d+)?([a-z]*)$`)
	versionRE     = regexp.MustCompile(`^v(\d+)$`)
	acceleratorRE = regexp.MustCompile(`^[A-Z][A-Z0-9]*\d[A-Z0-9]*$`)
	ignoredRE     = regexp.MustCompile(`^(\d+|cc|xl|Promo|[A-Z]+)$`)
)

// ParseName takes a size name apart. It is an error when a part of the name
// follows no known pattern.
func ParseName(full string) (Name, error) {
	parts := strings.Split(full, "_")
	if len(parts) < 2 || parts[0] != "Standard" && parts[0] != "Basic" {
		return Name{}, fmt.Errorf("size %q does not start with Standard_ or Basic_", full)
	}
	m := coreRE.FindStringSubmatch(parts[1])
	if m == nil {
		return Name{}, fmt.Errorf("size %q: %q is not family, vCPUs and features", full, parts[1])
	}
	n := Name{Full: full, Family: m[1], SubFamily: m[2], Constrained: m[4] != "", Features: m[5]}
	for _, part := range parts[2:] {
		switch {
		case versionRE.MatchString(part):
			n.Version = part[1:]
		case acceleratorRE.MatchString(part):
			n.Accelerator = part
		case !ignoredRE.MatchString(part):
			return Name{}, fmt.Errorf("size %q: part %q is not known", full, part)
		}
	}
	return n, nil
}

// Series is family, sub-family, features and version: NCads_v4.
func (n Name) Series() string {
	s := n.Family + n.SubFamily + n.Features
	if n.Version != "" {
		s += "_v" + n.Version
	}
	return s
}

// Confidential tells sizes for confidential computing (DC and EC), which NAP
// does not offer.
func (n Name) Confidential() bool {
	return strings.HasPrefix(n.Family+n.SubFamily, "DC") || strings.HasPrefix(n.Family+n.SubFamily, "EC")
}
