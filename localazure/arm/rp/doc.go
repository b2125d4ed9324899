// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

// Package rp is the base of all resource providers of the local Azure Resource
// Manager: resource IDs, errors, documents that keep unknown properties, the
// store in etcd, long-running operations, and the generic create, read, update,
// delete and list that follow ARM's conventions.
//
// A provider describes its resource types (Type), with hooks for what is special
// about them; Env serves them over HTTP (ServeARM) and to other providers
// (Env.Put, Env.Delete) along the same path. Acknowledged changes are in etcd: one
// transaction writes the record, the operation and the intents of a change.
// Operations are reconciled in steps: each reads the state and does what is
// missing, so that it continues after a crash at any point.
//
// The package never calls what runs clusters and machines: providers write intents
// (localazure/intent) and read statuses.
package rp
