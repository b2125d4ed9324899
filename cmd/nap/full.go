// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

//go:build !slim

package main

import (
	"github.com/spf13/cobra"

	"github.com/nap-aks/nap/cmd/nap/app"
	"github.com/nap-aks/nap/cmd/nap/local"
)

func newCommand() *cobra.Command {
	cmd := app.NewCommand()
	local.AddTo(cmd)
	return cmd
}

func runComponent(args []string) (handled bool, err error) { return local.RunComponent(args) }
