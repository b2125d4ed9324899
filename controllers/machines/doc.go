// Package machines holds the controllers that keep machines in Azure and
// NodeClaims in the cluster the same: garbage collection of machines that no
// claim owns, tags updated in place, and the regular reading of sizes, quota
// and prices.
package machines
