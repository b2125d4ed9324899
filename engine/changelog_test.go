// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package engine

import "testing"

func TestChangeLogForgets(t *testing.T) {
	var l changeLog
	const nodes, changes = 10, 100_000
	for i := range changes {
		l.add(int32(i%nodes), nodes)
		if len(l.slots) > changeLogMin {
			t.Fatalf("%d changes are kept for %d nodes", len(l.slots), nodes)
		}
	}
	if l.end() != changes {
		t.Errorf("the log ends at %d, want %d", l.end(), changes)
	}
	if since, ok := l.since(changes - 3); !ok || len(since) != 3 || since[2] != (changes-1)%nodes {
		t.Errorf("the last three changes are %v, %v", since, ok)
	}
	if _, ok := l.since(0); ok {
		t.Error("the log has changes that it has forgotten")
	}
}
