// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

// Command nap-sim lives through scenarios of clusters in simulated time. See
// docs/simulator.md.
package main

import (
	"context"
	"os"
	"os/signal"

	"github.com/nap-aks/nap/cmd/nap-sim/app"
	"github.com/nap-aks/nap/test/sim/world"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	os.Exit(app.Main(ctx, app.NewCommand(app.Options{Simulate: world.Run}), os.Stderr))
}
