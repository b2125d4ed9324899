// Package azure is Karpenter's CloudProvider for AKS. It makes and removes
// machines through the AKS machine API alone (agentPools/{pool}/machines), and
// knows sizes, prices, quota, stock-outs, node images and drift.
//
// What comes in: Karpenter's calls, an ARM endpoint with a credential, and the
// AKSNodeClasses of the cluster. What goes out: machines. It is told an ARM
// endpoint and never knows whether Azure or a local ARM answers there; it talks
// to no other room of the project but apis, catalog and azure/instancetype.
//
// A launch is one call: Create ranks the offerings that fit a NodeClaim by
// price, asks for the first, and on a stock-out or a used-up quota marks it and
// goes on with the next, until a machine is up or nothing is left.
package azure
