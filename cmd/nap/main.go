// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

// Command nap plans the nodes of AKS clusters, and runs a local Azure whose
// clusters provision their own nodes: one binary that holds etcd, Kubernetes'
// control plane, kubectl, an Azure Resource Manager, simulated machines and the
// node auto-provisioning controller.
//
// With the build tag slim it has only the commands that need no local Azure,
// such as plan and explain. That build compiles in a fraction of the time.
package main

import (
	"errors"
	"fmt"
	"os"

	"github.com/nap-aks/nap/cmd/nap/app"
)

//go:generate go run ../../internal/clireference/gen ../../docs/reference/cli.md

func main() {
	if handled, err := runComponent(os.Args[1:]); handled {
		if err != nil {
			fmt.Fprintln(os.Stderr, os.Args[2]+":", err)
			os.Exit(1)
		}
		return
	}
	err := newCommand().Execute()
	var status app.ExitError
	switch {
	case err == nil:
	case errors.As(err, &status):
		os.Exit(status.Code)
	default:
		fmt.Fprintln(os.Stderr, "nap:", err)
		os.Exit(1)
	}
}
