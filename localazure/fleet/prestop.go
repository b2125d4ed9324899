package fleet

import "sigs.k8s.io/kwok/pkg/apis/v1alpha1"

// hasPreStop is what the pods with a preStop hook have.
const hasPreStop = ".spec.containers.[].lifecycle.preStop"

// preStopStage ends the pods that have a preStop hook: when the longest of
// their hooks is through, at the latest at the end of the grace period. A hook
// lasts as long as it sleeps, be it a sleep action or a command that says
// "sleep N"; what else a command does takes no time. Hooks run only in
// containers that do.
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

// preStopEnd is when such a pod ends, as a time. The deletion timestamp is the
// end of the grace period.
const preStopEnd = `
(.metadata.deletionTimestamp | fromdateiso8601) as $end
| ($end - (.metadata.deletionGracePeriodSeconds // 0)) as $begin
| (if .status.phase == "Running" then
     [.spec.containers[].lifecycle.preStop | select(. != null)
      | .sleep.seconds // ((.exec.command // []) | join(" ") | [scan("sleep +([0-9]+)")[0] | tonumber] | add) // 0] | max // 0
   else 0 end) as $hook
| [$begin + $hook, $end] | min | todateiso8601`

// withoutPreStop leaves the pods with such a hook to preStopStage.
func withoutPreStop(s *v1alpha1.Stage) {
	s.Spec.Selector.MatchExpressions = append(s.Spec.Selector.MatchExpressions, v1alpha1.MatchExpression{Key: hasPreStop, Operator: v1alpha1.SelectorOpDoesNotExist})
}
