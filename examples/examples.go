// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

// Package examples holds the first examples for `nap up`: the ARM template of a cluster
// with node auto-provisioning, and a shop application to run on it.
package examples

import _ "embed"

// ClusterTemplate is nap.json, an ARM template without expressions that creates
// the managed cluster ClusterName.
//
//go:embed nap.json
var ClusterTemplate []byte

// Shop is shop.yaml: about 200 pods of thirteen workloads.
//
//go:embed shop.yaml
var Shop []byte

// Name of the cluster that the template creates, and namespace of the shop.
const (
	ClusterName   = "napcluster"
	ShopNamespace = "shop"
)
