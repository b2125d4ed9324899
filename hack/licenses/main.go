// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

// Command licenses lists the modules that nap's binaries are built from with
// their licences, and fails for one that may not be shipped in an Apache-2.0
// program.
//
//	go run ./hack/licenses          # check
//	go run ./hack/licenses -list    # print module, version and licences
package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/google/licensecheck"
)

// allowed are the SPDX identifiers (as licensecheck names them) of licences
// whose terms an Apache-2.0 binary can meet. MPL-2.0 is among them because its
// copyleft ends at the file: unmodified modules may be linked.
var allowed = []string{"Apache-2.0", "MIT", "MIT-0", "BSD-2-Clause", "BSD-3-Clause", "BSD-2-Clause-Views", "ISC", "MPL-2.0", "Unlicense", "CC0-1.0", "BSD-1-Clause", "Zlib", "PublicDomain"}

// reviewed are licence files that a person has read, by module and file, with
// why they are no obstacle.
var reviewed = map[string]string{
	"github.com/opencontainers/go-digest/LICENSE.docs": "CC-BY-SA-4.0 covers the module's documentation, which is not shipped",
	"modernc.org/libc/LICENSE-3RD-PARTY.md":            "MIT and BSD licences of musl, Go and others, with explanations in between",
	"modernc.org/memory/LICENSE-LOGO":                  "covers the logo, which is not shipped",
	"modernc.org/sqlite/LICENSE-SQLITE":                "SQLite is in the public domain",
}

// shipped are the programs that users get. Tools of developers, the simulator among
// them, may depend on what users must not be handed without a look.
var shipped = []string{"./cmd/nap", "./cmd/nap-controller"}

// minCoverage is the share of a licence file, in percent, that must be known
// licence text.
const minCoverage = 60

type module struct {
	Path, Version, Dir string
	Main               bool
	Replace            *module
}

func main() {
	list := flag.Bool("list", false, "print every module with its licences")
	flag.Parse()
	packages := flag.Args()
	if len(packages) == 0 {
		packages = shipped
	}
	mods, err := modules(packages)
	if err != nil {
		fmt.Fprintln(os.Stderr, "licenses:", err)
		os.Exit(1)
	}
	bad := 0
	for _, m := range mods {
		found, err := licences(m)
		if *list {
			fmt.Printf("%s %s %s\n", m.Path, m.Version, strings.Join(found, ","))
		}
		if err == nil {
			for _, l := range found {
				if !slices.Contains(allowed, l) {
					err = fmt.Errorf("licence %s is not on the list of allowed ones", l)
				}
			}
		}
		if err != nil {
			bad++
			fmt.Fprintf(os.Stderr, "licenses: %s %s: %v\n", m.Path, m.Version, err)
		}
	}
	if bad > 0 {
		os.Exit(1)
	}
	if !*list {
		fmt.Printf("licences of %d modules are allowed\n", len(mods))
	}
}

// modules returns the modules of the packages and all they depend on, by path,
// without the main module.
func modules(packages []string) ([]module, error) {
	cmd := exec.Command("go", append([]string{"list", "-deps", "-json=Module"}, packages...)...)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("listing packages: %w", err)
	}
	found := map[string]module{}
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var p struct{ Module *module }
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return nil, fmt.Errorf("reading the output of go list: %w", err)
		}
		if p.Module == nil || p.Module.Main {
			continue
		}
		m := *p.Module
		if m.Replace != nil {
			m.Dir, m.Version = m.Replace.Dir, m.Replace.Version
		}
		found[m.Path] = m
	}
	var mods []module
	for _, path := range slices.Sorted(maps.Keys(found)) {
		mods = append(mods, found[path])
	}
	return mods, nil
}

// licences returns the identifiers of the licences in the root folder of a
// module, sorted. It returns an error if there is no licence file or if a file
// holds text that is no known licence.
func licences(m module) ([]string, error) {
	entries, err := os.ReadDir(m.Dir)
	if err != nil {
		return nil, fmt.Errorf("reading the module's folder: %w", err)
	}
	found := map[string]bool{}
	files := 0
	for _, e := range entries {
		name := strings.ToUpper(e.Name())
		if e.IsDir() || !strings.HasPrefix(name, "LICENSE") && !strings.HasPrefix(name, "LICENCE") && !strings.HasPrefix(name, "COPYING") || strings.HasSuffix(name, ".GO") {
			continue
		}
		if reviewed[m.Path+"/"+e.Name()] != "" {
			continue
		}
		text, err := os.ReadFile(filepath.Join(m.Dir, e.Name()))
		if err != nil {
			return nil, fmt.Errorf("reading a licence: %w", err)
		}
		cov := licensecheck.Scan(text)
		if cov.Percent < minCoverage {
			return nil, fmt.Errorf("%s holds text that is no known licence (%.0f %% known)", e.Name(), cov.Percent)
		}
		files++
		for _, match := range cov.Match {
			if !match.IsURL {
				found[match.ID] = true
			}
		}
	}
	if files == 0 {
		return nil, errors.New("no licence file")
	}
	return slices.Sorted(maps.Keys(found)), nil
}
