// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

// Package version identifies the build: its release, its commit and the date of
// that commit.
package version

import (
	"cmp"
	"fmt"
	"runtime/debug"
)

// The Makefile sets these with -ldflags -X. A build without it uses what the go
// command recorded.
var (
	version string // git describe --tags --always --dirty
	commit  string // full hash
	date    string // of the commit, RFC 3339 in UTC
)

// Info identifies a build.
type Info struct {
	// Version is a release tag, possibly followed by the distance from it, or
	// "dev" if neither the linker nor the go command knows one.
	Version string
	// Commit and Date are empty if unknown.
	Commit string
	Date   string
}

// Get returns the identity of this binary.
func Get() Info {
	info, _ := debug.ReadBuildInfo()
	return resolve(Info{Version: version, Commit: commit, Date: date}, info)
}

// resolve fills the fields the linker left empty from the build information.
func resolve(i Info, build *debug.BuildInfo) Info {
	if build != nil {
		settings := map[string]string{}
		for _, s := range build.Settings {
			settings[s.Key] = s.Value
		}
		if i.Version == "" && build.Main.Version != "(devel)" {
			i.Version = build.Main.Version
		}
		if i.Commit == "" {
			i.Commit = settings["vcs.revision"]
			if settings["vcs.modified"] == "true" {
				i.Commit += "-dirty"
			}
		}
		if i.Date == "" {
			i.Date = settings["vcs.time"]
		}
	}
	i.Version = cmp.Or(i.Version, "dev")
	return i
}

// String returns the identity on one line, such as
// "v0.3.0 (commit 1076b3d0…, 2026-11-30T18:04:05Z)".
func (i Info) String() string {
	switch {
	case i.Commit == "":
		return i.Version
	case i.Date == "":
		return fmt.Sprintf("%s (commit %s)", i.Version, i.Commit)
	}
	return fmt.Sprintf("%s (commit %s, %s)", i.Version, i.Commit, i.Date)
}
