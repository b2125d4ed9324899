// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package authorization

import (
	"strings"
	"testing"
	"time"
)

func TestWildcards(t *testing.T) {
	for _, x := range []struct {
		pattern, s string
		want       bool
	}{
		{"*", "a/b/read", true}, {"*/read", "a/b/read", true}, {"*/read", "a/b/write", false}, {"a/*", "a/b/read", true}, {"a/*", "ab/c", false},
		{"a/*/read", "a/b/c/read", true}, {"a/*/read", "a/read", false}, {"a/b", "a/b", true}, {"a/b", "a/b/c", false}, {"*a*a*", "aa", true}, {"a*a", "a", false},
	} {
		if got := wildcard(x.pattern, x.s); got != x.want {
			t.Errorf("%s on %s: %v", x.pattern, x.s, got)
		}
	}
	start := time.Now()
	wildcard(strings.Repeat("*a", 2000)+"b", strings.Repeat("a", 20000))
	if d := time.Since(start); d > time.Minute {
		t.Errorf("a pattern with many asterisks took %v", d)
	}
}

func TestContributorMayNotAssignRoles(t *testing.T) {
	for _, r := range builtIn {
		switch r.Name {
		case "Contributor":
			if r.Allows("Microsoft.Authorization/roleAssignments/write") || !r.Allows("Microsoft.ContainerService/managedClusters/write") {
				t.Error("Contributor may assign roles, or may not change clusters")
			}
		case "Reader":
			if r.Allows("Microsoft.ContainerService/managedClusters/write") || r.Allows("Microsoft.ContainerService/managedClusters/listClusterAdminCredential/action") {
				t.Error("Reader may write, or may get credentials")
			}
		}
	}
}
