// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

// Package page has the sources of the dashboard's page. go generate in package
// dashboard bundles them.
package page

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io/fs"
)

// Hash returns the hash of the sources in a folder. The bundle names it, so that a test
// sees if the sources have changed without it.
func Hash(dir fs.FS) (string, error) {
	h := sha256.New()
	for _, pattern := range []string{"index.html", "icon.svg", "gen/main.go", "src/*"} {
		names, err := fs.Glob(dir, pattern) // sorted
		if err != nil {
			return "", fmt.Errorf("listing the sources of the page: %w", err)
		}
		for _, name := range names {
			b, err := fs.ReadFile(dir, name)
			if err != nil {
				return "", fmt.Errorf("reading the sources of the page: %w", err)
			}
			fmt.Fprintf(h, "%s %d\n", name, len(b))
			h.Write(b)
		}
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// Banner is the first line of the bundle.
func Banner(hash string) string { return "/* made by go generate; sources " + hash + " */" }
