//go:build suites

// Package e2e needs what Karpenter's own suites import, which are run from
// Karpenter's module by TestKarpenterSuites and imported by nobody here.
package e2e

import _ "sigs.k8s.io/karpenter/test/pkg/environment/common"
