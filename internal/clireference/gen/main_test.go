// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"slices"
	"testing"

	"github.com/spf13/cobra"

	"github.com/nap-aks/nap/cmd/nap/app"
	"github.com/nap-aks/nap/cmd/nap/local"
)

func TestReferenceIsCurrent(t *testing.T) {
	have, err := os.ReadFile("../../../docs/reference/cli.md")
	if err != nil {
		t.Fatal(err)
	}
	if string(have) != reference() {
		t.Error("docs/reference/cli.md is out of date: run go generate ./cmd/nap")
	}
}

// The build without the local Azure knows the same commands, and says of those
// it lacks how to get them.
func TestBothBuildsHaveTheSameCommands(t *testing.T) {
	full, slim := app.NewCommand(), app.NewCommand()
	local.AddTo(full)
	app.AddPlaceholders(slim)
	names := func(c *cobra.Command) []string {
		var out []string
		for _, sub := range c.Commands() {
			if sub.Name() != "component" {
				out = append(out, sub.Name())
			}
		}
		slices.Sort(out)
		return out
	}
	if f, s := names(full), names(slim); !slices.Equal(f, s) {
		t.Errorf("full build: %v\nslim build: %v", f, s)
	}
}

func TestEveryCommandHasAnExample(t *testing.T) {
	root := app.NewCommand()
	local.AddTo(root)
	var check func(*cobra.Command)
	check = func(c *cobra.Command) {
		if c.Hidden {
			return
		}
		if c.Short == "" || c.Example == "" {
			t.Errorf("%s has no short text or no example", c.CommandPath())
		}
		for _, sub := range c.Commands() {
			check(sub)
		}
	}
	check(root)
}
