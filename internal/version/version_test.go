// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package version

import (
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"strings"
	"testing"
)

func TestLinkerValuesWinOverBuildInfo(t *testing.T) {
	build := &debug.BuildInfo{Main: debug.Module{Version: "v0.0.0-20261130"}, Settings: []debug.BuildSetting{
		{Key: "vcs.revision", Value: "abc"}, {Key: "vcs.time", Value: "2026-11-30T00:00:00Z"}, {Key: "vcs.modified", Value: "true"},
	}}
	for name, x := range map[string]struct {
		linked Info
		build  *debug.BuildInfo
		want   string
	}{
		"linked":           {Info{"v1.0.0", "def", "2026-12-01T00:00:00Z"}, build, "v1.0.0 (commit def, 2026-12-01T00:00:00Z)"},
		"from go build":    {Info{}, build, "v0.0.0-20261130 (commit abc-dirty, 2026-11-30T00:00:00Z)"},
		"from go install":  {Info{}, &debug.BuildInfo{Main: debug.Module{Version: "v1.2.0"}}, "v1.2.0"},
		"without VCS":      {Info{}, &debug.BuildInfo{Main: debug.Module{Version: "(devel)"}}, "dev"},
		"no build info":    {Info{}, nil, "dev"},
		"commit, no date":  {Info{Version: "v1.0.0", Commit: "def"}, nil, "v1.0.0 (commit def)"},
		"tag, commit ours": {Info{Version: "v1.0.0"}, build, "v1.0.0 (commit abc-dirty, 2026-11-30T00:00:00Z)"},
	} {
		if got := resolve(x.linked, x.build).String(); got != x.want {
			t.Errorf("%s: %q, want %q", name, got, x.want)
		}
	}
}

// The names of the variables are part of the Makefile's -ldflags; the linker
// ignores a name that does not exist.
func TestLinkerSetsTheVariables(t *testing.T) {
	const pkg = "github.com/nap-aks/nap/internal/version"
	bin := filepath.Join(t.TempDir(), "print")
	flags := "-X " + pkg + ".version=v9.9.9 -X " + pkg + ".commit=abcdef -X " + pkg + ".date=2026-12-01T00:00:00Z"
	if out, err := exec.Command("go", "build", "-o", bin, "-ldflags", flags, "./testdata/print").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	out, err := exec.Command(bin).Output()
	if err != nil {
		t.Fatal(err)
	}
	if got, want := strings.TrimSpace(string(out)), "v9.9.9 (commit abcdef, 2026-12-01T00:00:00Z)"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
