// Package controllers is the shell around the decisions: it runs, against one
// cluster, Karpenter's lifecycle controllers as a library, the controllers of
// AKSNodeClasses and machines, and the provisioner. It writes NodeClaims,
// events and metrics; what to buy is decided elsewhere, and how to buy it is
// package azure's matter. It knows ARM only through that package.
//
// Run is the whole controller, for the in-cluster binary as for a local one.
// InstallDefaults prepares a cluster for it.
package controllers
