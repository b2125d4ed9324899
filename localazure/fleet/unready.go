// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package fleet

import (
	"strings"

	"sigs.k8s.io/kwok/pkg/apis/v1alpha1"
)

// StageLabel with the value Unhealthy on a pod keeps its running containers from
// becoming ready, as if the readiness probe failed. Users of kwok, and Karpenter's
// test suites, know the label by this name.
const (
	StageLabel = "kwok.x-k8s.io/stage"
	Unhealthy  = "unhealthy"
)

func stageLabel(op v1alpha1.SelectorOperator) v1alpha1.MatchExpression {
	return v1alpha1.MatchExpression{Key: `.metadata.labels["` + StageLabel + `"]`, Operator: op, Values: []string{Unhealthy}}
}

// healthy excludes pods that must not become ready, which unhealthy handles.
func healthy(s *v1alpha1.Stage) {
	s.Spec.Selector.MatchExpressions = append(s.Spec.Selector.MatchExpressions, stageLabel(v1alpha1.SelectorOpNotIn))
}

// unhealthy turns the stage that starts pods into one for pods that do not become
// ready.
func unhealthy(s *v1alpha1.Stage) {
	s.Name = "pod-unready"
	s.Spec.Selector.MatchExpressions = append(s.Spec.Selector.MatchExpressions, stageLabel(v1alpha1.SelectorOpIn))
	for _, c := range []string{"Ready", "ContainersReady"} {
		s.Spec.Next.StatusTemplate = strings.Replace(s.Spec.Next.StatusTemplate, "status: \"True\"\n  type: "+c+"\n", "status: \"False\"\n  reason: ContainersNotReady\n  type: "+c+"\n", 1)
	}
	s.Spec.Next.StatusTemplate = strings.Replace(s.Spec.Next.StatusTemplate, "ready: true", "ready: false", 1)
}
