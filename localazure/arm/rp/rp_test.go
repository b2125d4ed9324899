// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package rp

import (
	"encoding/json"
	"testing"
)

func parse(t *testing.T, s string) Doc {
	t.Helper()
	var d Doc
	if err := json.Unmarshal([]byte(s), &d); err != nil {
		t.Fatal(err)
	}
	return d
}

func text(t *testing.T, d Doc) string {
	t.Helper()
	b, err := json.Marshal(d)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestMergePutAndPatch(t *testing.T) {
	for _, x := range []struct{ name, stored, sent, put, patch string }{
		{"missing keeps", `{"a":1,"p":{"x":1,"y":2}}`, `{"p":{"x":3}}`, `{"a":1,"p":{"x":3,"y":2}}`, `{"a":1,"p":{"x":3,"y":2}}`},
		{"null clears", `{"a":1,"p":{"x":1}}`, `{"a":null,"p":{"x":null}}`, `{"p":{}}`, `{"p":{}}`},
		{"arrays are replaced", `{"a":[1,2]}`, `{"a":[3]}`, `{"a":[3]}`, `{"a":[3]}`},
		{"tags are replaced", `{"tags":{"a":"1","b":"2"}}`, `{"tags":{"c":"3"}}`, `{"tags":{"c":"3"}}`, `{"tags":{"c":"3"}}`},
		{"labels: a PUT replaces, a PATCH merges", `{"p":{"nodeLabels":{"a":"1"}}}`, `{"p":{"nodeLabels":{"b":"2"}}}`, `{"p":{"nodeLabels":{"b":"2"}}}`, `{"p":{"nodeLabels":{"a":"1","b":"2"}}}`},
		{"names have no case", `{"Location":"x"}`, `{"location":"y"}`, `{"Location":"y"}`, `{"Location":"y"}`},
		{"an object over a value", `{"a":1}`, `{"a":{"b":null,"c":2}}`, `{"a":{"c":2}}`, `{"a":{"c":2}}`},
		{"a value over an object", `{"a":{"b":1}}`, `{"a":2}`, `{"a":2}`, `{"a":2}`},
	} {
		stored := parse(t, x.stored)
		if got := text(t, MergePut(stored, parse(t, x.sent))); got != x.put {
			t.Errorf("%s: PUT gives %s, want %s", x.name, got, x.put)
		}
		if got := text(t, MergePatch(stored, parse(t, x.sent))); got != x.patch {
			t.Errorf("%s: PATCH gives %s, want %s", x.name, got, x.patch)
		}
		if got := text(t, stored); got != x.stored {
			t.Errorf("%s: the stored document has become %s", x.name, got)
		}
	}
}

func TestParseID(t *testing.T) {
	for _, x := range []struct{ in, typ, name, parent string }{
		{"/subscriptions/s/resourcegroups/g", "Microsoft.Resources/resourceGroups", "g", "/subscriptions/s"},
		{"/subscriptions/s/resourceGroups/g/providers/A.B/c/d", "A.B/c", "d", "/subscriptions/s/resourceGroups/g"},
		{"/subscriptions/s/resourceGroups/g/providers/A.B/c/d/e/f", "A.B/c/e", "f", "/subscriptions/s/resourceGroups/g/providers/A.B/c/d"},
		{"/subscriptions/s/providers/A.B/c/d/providers/E.F/g/h", "E.F/g", "h", "/subscriptions/s/providers/A.B/c/d"},
		{"/subscriptions/s", "Microsoft.Resources/subscriptions", "s", "/subscriptions/s"},
	} {
		id, err := ParseID(x.in)
		if err != nil || id.Type() != x.typ || id.Name() != x.name || id.Parent().String() != x.parent {
			t.Errorf("%s: type %s, name %s, parent %s (%v)", x.in, id.Type(), id.Name(), id.Parent(), err)
		}
	}
	for _, bad := range []string{"", "/", "/subscriptions", "/subscriptions/s/resourceGroups", "/subscriptions/s/x", "/subscriptions//resourceGroups/g", "/subscriptions/s/providers", "/subscriptions/s/providers/A.B/c/providers/E.F/g/h"} {
		if id, err := ParseID(bad); err == nil {
			t.Errorf("%q was parsed as %s", bad, id)
		}
	}
	a, b := MustParseID("/subscriptions/S/resourceGroups/g"), MustParseID("/subscriptions/s/resourcegroups/G2")
	if b.Within(a) || !MustParseID("/subscriptions/s/resourcegroups/G/providers/A.B/c/d").Within(a) {
		t.Error("Within: g2 is not in g, but what is in G is")
	}
}
