// Package provisioning is the provisioner: it watches pods that cannot be
// scheduled, asks the engine for a plan, and writes the NodeClaims that carry
// it out. It decides nothing itself.
//
// A pass is: gather pending pods for a moment (batching), bring the mirror of
// the cluster up to date, ask for a plan, create its NodeClaims, and tell every
// pod its verdict. What was decided is promised: a pod keeps its place on a
// node or on a machine under way until it runs there, so that the next pass
// does not buy a second machine for it. A promise that is not kept (the machine
// failed, or the scheduler put the pod nowhere for too long) is taken back.
//
// Pods that need a feature the engine does not compile are handed, they alone,
// to Karpenter's scheduler; a metric counts them.
package provisioning
