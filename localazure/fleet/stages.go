// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package fleet

import (
	"fmt"

	"k8s.io/utils/ptr"
	nodefast "sigs.k8s.io/kwok/kustomize/stage/node/fast"
	nodelease "sigs.k8s.io/kwok/kustomize/stage/node/heartbeat-with-lease"
	podfast "sigs.k8s.io/kwok/kustomize/stage/pod/fast"
	"sigs.k8s.io/kwok/pkg/apis/internalversion"
	"sigs.k8s.io/kwok/pkg/apis/v1alpha1"
	"sigs.k8s.io/yaml"
)

// DurationAnnotation on a pod is how long its containers run before they
// complete, as a Go duration ("90s"). Without it the pods of Jobs complete after
// 20 to 40 seconds and pods that are Helm hooks after one; other pods run until
// they are deleted.
const DurationAnnotation = "nap.dev/run-for"

// Expressions on pods that select how they complete.
const (
	runForExpr    = `.metadata.annotations["` + DurationAnnotation + `"]`
	helmHookExpr  = `.metadata.annotations["helm.sh/hook"]`
	ownerKindExpr = ".metadata.ownerReferences.[].kind"
)

// completion describes which running pods complete, and after how long.
type completion struct {
	name     string
	selector []v1alpha1.MatchExpression
	delay    v1alpha1.StageDelay
}

// completions are the ways in which pods complete. No pod matches two of them.
// Helm waits until its hooks, the tests of a chart among them, have succeeded.
var completions = []completion{
	{
		name: "job-complete",
		selector: []v1alpha1.MatchExpression{
			{Key: ownerKindExpr, Operator: v1alpha1.SelectorOpIn, Values: []string{"Job"}},
			{Key: runForExpr, Operator: v1alpha1.SelectorOpDoesNotExist},
		},
		delay: v1alpha1.StageDelay{DurationMilliseconds: ptr.To[int64](20000), JitterDurationMilliseconds: ptr.To[int64](40000)},
	},
	{
		name:     "timed-complete",
		selector: []v1alpha1.MatchExpression{{Key: runForExpr, Operator: v1alpha1.SelectorOpExists}},
		delay: v1alpha1.StageDelay{
			DurationFrom:         &v1alpha1.ExpressionFrom{ExpressionFrom: runForExpr},
			DurationMilliseconds: ptr.To[int64](30000), // if the annotation is not a duration
		},
	},
	{
		name: "hook-complete",
		selector: []v1alpha1.MatchExpression{
			{Key: helmHookExpr, Operator: v1alpha1.SelectorOpExists},
			{Key: ".spec.restartPolicy", Operator: v1alpha1.SelectorOpNotIn, Values: []string{"Always"}},
			{Key: ownerKindExpr, Operator: v1alpha1.SelectorOpNotIn, Values: []string{"Job"}},
			{Key: runForExpr, Operator: v1alpha1.SelectorOpDoesNotExist},
		},
		delay: v1alpha1.StageDelay{DurationMilliseconds: ptr.To[int64](1000)},
	},
}

// succeeded is the status of a pod whose containers have completed.
const succeeded = `{{ $pod := . }}
phase: Succeeded
containerStatuses:
{{ range $i, $c := .spec.containers }}
{{ $was := index $pod.status.containerStatuses $i }}
- name: {{ $c.name | Quote }}
  image: {{ $c.image | Quote }}
  ready: false
  started: false
  restartCount: 0
  state:
    terminated:
      exitCode: 0
      reason: Completed
      startedAt: {{ $was.state.running.startedAt | Quote }}
      finishedAt: {{ Now | Quote }}
{{ end }}
conditions:
- {type: Ready, status: "False", reason: PodCompleted, lastTransitionTime: {{ Now | Quote }}}
- {type: ContainersReady, status: "False", reason: PodCompleted, lastTransitionTime: {{ Now | Quote }}}
`

// stage returns the stage that completes the pods.
func (c completion) stage() v1alpha1.Stage {
	s := v1alpha1.Stage{}
	s.Name = c.name
	s.Spec.ResourceRef = v1alpha1.StageResourceRef{APIGroup: "v1", Kind: "Pod"}
	s.Spec.Selector = &v1alpha1.StageSelector{MatchExpressions: append([]v1alpha1.MatchExpression{
		{Key: ".metadata.deletionTimestamp", Operator: v1alpha1.SelectorOpDoesNotExist},
		{Key: ".status.phase", Operator: v1alpha1.SelectorOpIn, Values: []string{"Running"}},
	}, c.selector...)}
	s.Spec.Delay = &c.delay
	s.Spec.Next = &v1alpha1.StageNext{StatusTemplate: succeeded}
	return s
}

// stages returns what the simulated kubelets do, as kwok's stages of Nodes and
// Pods.
func stages() (map[internalversion.StageResourceRef][]*internalversion.Stage, error) {
	var all []v1alpha1.Stage
	for _, x := range []struct {
		text   string
		adjust func(*v1alpha1.Stage)
	}{
		{nodefast.DefaultNodeInit, nil},
		{nodelease.DefaultNodeHeartbeatWithLease, nil},
		{podfast.DefaultPodReady, healthy},
		{podfast.DefaultPodReady, unhealthy},
		{podfast.DefaultPodDelete, withoutPreStop},
		{preStopStage, nil},
	} {
		var s v1alpha1.Stage
		if err := yaml.Unmarshal([]byte(x.text), &s); err != nil {
			return nil, fmt.Errorf("kubelet stage: %w", err)
		}
		if x.adjust != nil {
			x.adjust(&s)
		}
		s.Spec.Next.StatusTemplate = quoteValues(s.Spec.Next.StatusTemplate)
		all = append(all, s)
	}
	for _, c := range completions {
		all = append(all, c.stage())
	}
	out := map[internalversion.StageResourceRef][]*internalversion.Stage{}
	for i := range all {
		in, err := internalversion.ConvertToInternalStage(&all[i])
		if err != nil {
			return nil, fmt.Errorf("kubelet stage %s: %w", all[i].Name, err)
		}
		ref := internalversion.StageResourceRef{APIGroup: all[i].Spec.ResourceRef.APIGroup, Kind: all[i].Spec.ResourceRef.Kind}
		out[ref] = append(out[ref], in)
	}
	return out, nil
}
