// Package examples holds what `nap up` shows first: the ARM template of a
// cluster that provisions its own nodes, and a shop to run on it.
package examples

import _ "embed"

// ClusterTemplate is nap.json, an ARM template without expressions that creates
// the managed cluster ClusterName.
//
//go:embed nap.json
var ClusterTemplate []byte

// Shop is shop.yaml: about 200 pods of thirteen kinds.
//
//go:embed shop.yaml
var Shop []byte

// What the template creates, and the namespace of the shop.
const (
	ClusterName   = "napcluster"
	ShopNamespace = "shop"
)
