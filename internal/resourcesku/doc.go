// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

// Package resourcesku has the types of the Compute Resource SKUs API: VM sizes with
// their capabilities, zones and restrictions.
//
// They are the Azure SDK's types. A build with the tag slim, which calls no Azure
// API, has types with the same fields instead, because the SDK's package takes as
// long to compile as any ten others.
package resourcesku
