// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

// Command nap-controller is the node auto-provisioning controller for a real
// cluster: the code that a local nap runs, without the local Azure.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/nap-aks/nap/cmd/nap-controller/options"
	"github.com/nap-aks/nap/controllers"
	"github.com/nap-aks/nap/internal/version"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	o, err := options.Parse(os.Args[1:], os.LookupEnv, os.Stderr)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return
	case errors.Is(err, options.ErrVersion):
		fmt.Println("nap-controller", version.Get())
		return
	case err == nil:
		err = controllers.Run(ctx, o)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "nap-controller:", err)
		os.Exit(1)
	}
}
