// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

// Command gen writes the command reference to the file given as its argument.
package main

import (
	"fmt"
	"os"

	"github.com/nap-aks/nap/cmd/nap-controller/options"
	"github.com/nap-aks/nap/cmd/nap/app"
	"github.com/nap-aks/nap/cmd/nap/local"
	"github.com/nap-aks/nap/internal/clireference"
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: gen FILE")
		os.Exit(2)
	}
	if err := os.WriteFile(os.Args[1], []byte(reference()), 0o644); err != nil {
		fmt.Fprintln(os.Stderr, "gen:", err)
		os.Exit(1)
	}
}

func reference() string {
	root := app.NewCommand()
	local.AddTo(root)
	return clireference.Markdown(root, "nap-controller", options.FlagSet())
}
