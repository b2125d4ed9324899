// Package plan answers "what would happen": it places the pods of a cluster, of
// a snapshot file or of plain manifests, and says what would be bought, what it
// would cost, how far from the proven optimum that is, and why a pod finds no
// place. It is the engine on a snapshot, rendered for a person or as JSON
// (docs/plan.md); it reads clusters and never writes to one.
//
// NewPlanCommand and NewExplainCommand are the commands `nap plan` and
// `nap explain`.
package plan
