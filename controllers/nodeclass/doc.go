// Package nodeclass holds the controllers of AKSNodeClasses: the hash that tells
// drift, the status that launches rely on, and the finalizer that keeps a class
// as long as NodeClaims use it.
package nodeclass
