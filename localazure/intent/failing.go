// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package intent

import "time"

// FailingStageKey returns the key of a cluster's FailingStage.
func FailingStageKey(uid string) string { return "/nap/local/failing-stages/" + uid }

// FailingStageFor is how long a FailingStage counts: a stage that fails for ever is tried
// again every ten minutes.
const FailingStageFor = 15 * time.Minute

// FailingStage says that simulated kubelets of a cluster cannot write statuses, so that
// nodes or pods stay as they are.
type FailingStage struct {
	// Stage and Object, a node or a pod, are one example, with its Error.
	Stage  string `json:"stage"`
	Object string `json:"object"`
	Error  string `json:"error"`
	// Objects is how many have failed since the last report.
	Objects int       `json:"objects"`
	At      time.Time `json:"at"`
}
