// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

//go:build suites

// Package e2e imports what Karpenter's own suites need, so that go.mod keeps it:
// TestKarpenterSuites runs them from Karpenter's module.
package e2e

import _ "sigs.k8s.io/karpenter/test/pkg/environment/common"
