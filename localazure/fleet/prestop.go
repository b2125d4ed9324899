// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package fleet

import "sigs.k8s.io/kwok/pkg/apis/v1alpha1"

// hasPreStop is the expression for the preStop hooks of a pod.
const hasPreStop = ".spec.containers.[].lifecycle.preStop"

// preStopStage deletes terminating pods that have a preStop hook once the longest of
// their hooks has ended, and at the latest at the end of the grace period. A hook
// lasts as long as it sleeps, in a sleep action or in a command with "sleep N";
// anything else in a command takes no time. Hooks only run in running containers.
const preStopStage = `
apiVersion: kwok.x-k8s.io/v1alpha1
kind: Stage
metadata: {name: pod-delete-prestop}
spec:
  resourceRef: {apiGroup: v1, kind: Pod}
  selector:
    matchExpressions:
    - {key: .metadata.deletionTimestamp, operator: Exists}
    - {key: '` + hasPreStop + `', operator: Exists}
  delay:
    durationFrom:
      expressionFrom: '` + preStopEnd + `'
    durationMilliseconds: 0
  next: {delete: true}
`

// preStopEnd is the time at which such a pod ends. The deletion timestamp is the end
// of the grace period.
const preStopEnd = `
(.metadata.deletionTimestamp | fromdateiso8601) as $end
| ($end - (.metadata.deletionGracePeriodSeconds // 0)) as $begin
| (if .status.phase == "Running" then
     [.spec.containers[].lifecycle.preStop | select(. != null)
      | .sleep.seconds // ((.exec.command // []) | join(" ") | [scan("sleep +([0-9]+)")[0] | tonumber] | add) // 0] | max // 0
   else 0 end) as $hook
| [$begin + $hook, $end] | min | todateiso8601`

// withoutPreStop excludes pods with a preStop hook, which preStopStage handles.
func withoutPreStop(s *v1alpha1.Stage) {
	s.Spec.Selector.MatchExpressions = append(s.Spec.Selector.MatchExpressions, v1alpha1.MatchExpression{Key: hasPreStop, Operator: v1alpha1.SelectorOpDoesNotExist})
}
