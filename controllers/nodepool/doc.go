// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

// Package nodepool holds the controller that tells which NodePools can create no
// machine, whatever the pods need, and why.
package nodepool
