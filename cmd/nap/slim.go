// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

//go:build slim

package main

import (
	"github.com/spf13/cobra"

	"github.com/nap-aks/nap/cmd/nap/app"
)

func newCommand() *cobra.Command {
	cmd := app.NewCommand()
	app.AddPlaceholders(cmd)
	return cmd
}

func runComponent([]string) (handled bool, err error) { return false, nil }
