// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package instancetype

import (
	"fmt"
	"regexp"
	"strings"
)

// Name is a parsed VM size name, such as Standard_NC24ads_A100_v4.
type Name struct {
	Full        string
	Family      string // the family letter: N
	SubFamily   string // the other capital letters: C
	Constrained bool   // fewer vCPUs than the parent size: -2 in M8-2ms
	Features    string // lower-case letters: ads
	Accelerator string // A100; may be empty
	Version     string // digits of the version: 4; may be empty
}

var (
	coreRE        = regexp.MustCompile(`^([A-Z])([A-Z]*?)(\d+)(-\d+)?([a-z]*)$`)
	versionRE     = regexp.MustCompile(`^v(\d+)$`)
	acceleratorRE = regexp.MustCompile(`^[A-Z][A-Z0-9]*\d[A-Z0-9]*$`)
	ignoredRE     = regexp.MustCompile(`^(\d+|cc|xl|Promo|[A-Z]+)$`)
)

// ParseName parses a size name. It returns an error if a part of the name matches no
// known pattern.
func ParseName(full string) (Name, error) {
	parts := strings.Split(full, "_")
	if len(parts) < 2 || parts[0] != "Standard" && parts[0] != "Basic" {
		return Name{}, fmt.Errorf("parsing size %q: it does not start with Standard_ or Basic_", full)
	}
	m := coreRE.FindStringSubmatch(parts[1])
	if m == nil {
		return Name{}, fmt.Errorf("parsing size %q: %q is not family, vCPUs and features", full, parts[1])
	}
	n := Name{Full: full, Family: m[1], SubFamily: m[2], Constrained: m[4] != "", Features: m[5]}
	for _, part := range parts[2:] {
		switch {
		case versionRE.MatchString(part):
			n.Version = part[1:]
		case acceleratorRE.MatchString(part):
			n.Accelerator = part
		case !ignoredRE.MatchString(part):
			return Name{}, fmt.Errorf("parsing size %q: unknown part %q", full, part)
		}
	}
	return n, nil
}

// Series returns family, sub-family, features and version: NCads_v4.
func (n Name) Series() string {
	s := n.Family + n.SubFamily + n.Features
	if n.Version != "" {
		s += "_v" + n.Version
	}
	return s
}

// Confidential reports whether the size is for confidential computing (DC and EC),
// which node auto-provisioning does not support.
func (n Name) Confidential() bool {
	return strings.HasPrefix(n.Family+n.SubFamily, "DC") || strings.HasPrefix(n.Family+n.SubFamily, "EC")
}
