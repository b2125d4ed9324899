// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

// Command print prints the version it was linked with.
package main

import (
	"fmt"

	"github.com/nap-aks/nap/internal/version"
)

func main() { fmt.Println(version.Get()) }
