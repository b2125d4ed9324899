//go:build simruntime

// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

// Functions without a body, which the runtime provides, need an assembly file.
