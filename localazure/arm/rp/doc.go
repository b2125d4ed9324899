// Package rp is what every resource provider of the local Azure Resource
// Manager is made of: resource IDs, error bodies, documents that keep what they
// do not know, the store in etcd, long-running operations, and the generic
// create, read, update, delete and list that follow ARM's conventions.
//
// A provider describes its resource types (Type) with hooks for what is special
// about them; Env serves them, over HTTP (ServeARM) and to other providers
// (Env.Put, Env.Delete), along the same path. What has been acknowledged is in
// etcd: a record, an operation and the intents of a change are written by one
// transaction. Operations are driven by steps that look at what is there and do
// what is missing, so that a process killed at any point goes on from where the
// records say it is.
//
// The package never talks to the machinery behind a resource: providers write
// intents (arm/intent) and read statuses.
package rp
