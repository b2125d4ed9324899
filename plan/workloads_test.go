// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	karpv1 "sigs.k8s.io/karpenter/pkg/apis/v1"
)

// template is a pod template that takes one core.
const template = `{metadata: {labels: {app: a}}, spec: {containers: [{name: c, image: x, resources: {requests: {cpu: "1"}}}]}}`

// podNames returns the names of the pods of a source, with their namespaces.
func podNames(s *Source) []string {
	var out []string
	for _, p := range s.Objects.Pods {
		out = append(out, p.Namespace+"/"+p.Name)
	}
	return out
}

func TestWorkloadsExpandAsTheirControllersDo(t *testing.T) {
	job := func(spec, status string) string {
		return fmt.Sprintf("{apiVersion: batch/v1, kind: Job, metadata: {name: j}, spec: {%s template: %s}, status: {%s}}", spec, template, status)
	}
	deployment := func(spec string) string {
		return fmt.Sprintf("{apiVersion: apps/v1, kind: Deployment, metadata: {name: d}, spec: {%s selector: {matchLabels: {app: a}}, template: %s}}", spec, template)
	}
	hpa := func(spec string) string {
		return "\n---\n{apiVersion: autoscaling/v2, kind: HorizontalPodAutoscaler, metadata: {name: h}, spec: {scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: d}, " + spec + "}}"
	}
	for name, c := range map[string]struct {
		text string
		want string // names of the pods
		note string // part of a note
	}{
		"autoscaler's least":       {deployment("") + hpa("minReplicas: 2, maxReplicas: 9"), "d-0 d-1", "2 to 9: the plan is for 2"},
		"autoscaler's most":        {deployment("replicas: 5,") + hpa("maxReplicas: 2"), "d-0 d-1", "1 to 2"},
		"autoscaler that is off":   {deployment("replicas: 0,") + hpa("minReplicas: 2, maxReplicas: 9"), "", "is off"},
		"autoscaler of an old API": {deployment("") + strings.Replace(hpa("minReplicas: 2, maxReplicas: 9, metrics: [{type: Resource, resource: {name: cpu, targetAverageUtilization: 50}}]"), "autoscaling/v2", "autoscaling/v2beta1", 1), "d-0 d-1", "no longer serve"},
		"autoscaler of nothing":    {strings.TrimPrefix(hpa("maxReplicas: 9"), "\n---\n"), "", "which is not in the files"},
		"KEDA": {deployment("") + "\n---\n{apiVersion: keda.sh/v1alpha1, kind: ScaledObject, metadata: {name: k}, spec: {scaleTargetRef: {name: d}, minReplicaCount: 3}}",
			"d-0 d-1 d-2", "3 to 100"},
		"paused":                 {deployment("paused: true,"), "", "is paused"},
		"ReplicationController":  {"{apiVersion: v1, kind: ReplicationController, metadata: {name: r}, spec: {replicas: 2, selector: {app: a}, template: " + template + "}}", "r-0 r-1", ""},
		"extensions/v1beta1":     {"{apiVersion: extensions/v1beta1, kind: Deployment, metadata: {name: d}, spec: {replicas: 2, template: " + template + "}}", "d-0 d-1", "planned as apps/v1"},
		"StatefulSet's ordinals": {"{apiVersion: apps/v1, kind: StatefulSet, metadata: {name: s}, spec: {replicas: 2, ordinals: {start: 5}, selector: {matchLabels: {app: a}}, template: " + template + "}}", "s-5 s-6", ""},
		"Job":                    {job("", ""), "j-0", ""},
		"Job that is complete":   {job("completions: 2, parallelism: 2,", `succeeded: 2, conditions: [{type: Complete, status: "True"}]`), "", ""},
		"Job that failed":        {job("", `failed: 7, conditions: [{type: Failed, status: "True"}]`), "", ""},
		"Job that may fail yet":  {job("", `failed: 2, conditions: [{type: Failed, status: "False"}]`), "j-0", ""},
		"Job partly done":        {job("completions: 5, parallelism: 3,", "succeeded: 3"), "j-0 j-1", ""},
		"Job of a work queue":    {job("parallelism: 3,", "succeeded: 1, active: 2"), "j-0 j-1", ""},
		"Job by index":           {job("completions: 8, parallelism: 3, completionMode: Indexed,", `completedIndexes: "0,2-4", succeeded: 4`), "j-1 j-5 j-6", ""},
		"Job of Kueue":           {job("managedBy: kueue.x-k8s.io/multikueue,", ""), "", "kueue.x-k8s.io/multikueue decides"},
		"generateName":           {"{apiVersion: v1, kind: Pod, metadata: {generateName: g-}}\n---\n{apiVersion: v1, kind: Pod, metadata: {generateName: g-}}", "g-00001 g-00002", ""},
		"typed list":             {"{apiVersion: v1, kind: PodList, items: [{metadata: {name: a}}, {metadata: {name: b}}]}", "a b", ""},
		"comments":               {"# first\n---\n# nothing\n---\n\n---\n{apiVersion: v1, kind: Pod, metadata: {name: a}} # last\n---\n", "a", ""},
		"CronJob":                {"{apiVersion: batch/v1, kind: CronJob, metadata: {name: nightly}, spec: {schedule: '0 0 * * *', jobTemplate: {spec: {template: " + template + "}}}}", "", "--cron-jobs"},
		"Rollout":                {"{apiVersion: argoproj.io/v1alpha1, kind: Rollout, metadata: {name: r}, spec: {replicas: 5, template: " + template + "}}", "", "Argo Rollouts makes pods of it (spec.replicas is 5), which are not in the plan"},
		"a kind with pods":       {"{apiVersion: x.example/v1, kind: Thing, metadata: {name: r}, spec: {parts: [{template: " + template + "}]}}", "", "its pods are not in the plan"},
		"a kind without pods":    {"{apiVersion: v1, kind: ConfigMap, metadata: {name: c}}", "", "ConfigMap: it does not affect the plan"},
		"a kind that decides":    {"{apiVersion: v1, kind: ResourceQuota, metadata: {name: c}}", "", "the number of pods"},
	} {
		t.Run(name, func(t *testing.T) {
			s := read(t, c.text)
			names := podNames(s)
			for i := range names {
				names[i] = strings.TrimPrefix(names[i], "default/")
			}
			if got := strings.Join(names, " "); got != c.want {
				t.Errorf("pods %q, want %q", got, c.want)
			}
			if !slices.ContainsFunc(s.Notes, func(n string) bool { return strings.Contains(n, c.note) }) && c.note != "" {
				t.Errorf("notes %q, want one with %q", s.Notes, c.note)
			}
		})
	}
}

func TestCronJobsOnRequest(t *testing.T) {
	path := filepath.Join(t.TempDir(), "in.yaml")
	text := "{apiVersion: batch/v1, kind: CronJob, metadata: {name: nightly}, spec: {schedule: '0 0 * * *', jobTemplate: {spec: {completions: 2, parallelism: 2, template: " + template + "}}}}"
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if r := planJSON(t, "-f", path, "--cron-jobs"); r.Summary.OnMachines != 2 {
		t.Errorf("%+v, want the two pods of one run", r.Summary)
	}
}

func TestOldNodePoolsAreConvertedOrErrors(t *testing.T) {
	pool := `
apiVersion: karpenter.sh/v1beta1
kind: NodePool
metadata: {name: default}
spec:
  limits: {cpu: 30}
  disruption: {consolidationPolicy: WhenUnderutilized, expireAfter: Never}
  template:
    spec:
      nodeClassRef: {name: default}
      requirements: [{key: karpenter.azure.com/sku-family, operator: In, values: [E]}]
`
	s := read(t, pool)
	if len(s.Objects.NodePools) != 1 {
		t.Fatalf("%d NodePools; notes %q", len(s.Objects.NodePools), s.Notes)
	}
	np := s.Objects.NodePools[0]
	ref := np.Spec.Template.Spec.NodeClassRef
	if np.Spec.Disruption.ConsolidationPolicy != "WhenEmptyOrUnderutilized" || np.Spec.Template.Spec.ExpireAfter.Duration != nil || ref.Group != "karpenter.azure.com" || ref.Kind != "AKSNodeClass" ||
		np.Spec.Template.Spec.Requirements[0].Values[0] != "E" || cpuLimit(np.Spec.Limits) != "30" {
		t.Errorf("converted to %+v", np.Spec)
	}
	for _, old := range []string{strings.Replace(pool, "v1beta1", "v1alpha5", 1), strings.Replace(strings.Replace(pool, "v1beta1", "v1alpha5", 1), "NodePool", "Provisioner", 1)} {
		if _, err := ReadManifestText("old", []byte(old), at); err == nil || !strings.Contains(err.Error(), "karpenter.sh/v1") {
			t.Errorf("error %v, want one that names the version to write", err)
		}
	}
}

func TestDirectoriesArePlannedForWhatIsInThem(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"pod.yaml":                 "{apiVersion: v1, kind: Pod, metadata: {name: a}}",
		"values.yaml":              "image: x",
		"k/kustomization.yaml":     "resources: [pod.yaml]",
		"k/pod.yaml":               "{apiVersion: v1, kind: Pod, metadata: {name: b}}",
		"l/kustomization.yaml":     "{apiVersion: kustomize.config.k8s.io/v1beta1, kind: Kustomization, resources: []}",
		"chart/Chart.yaml":         "name: chart",
		"chart/templates/pod.yaml": "{{ if }}",
	} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s, err := ReadManifests([]string{dir}, at)
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(podNames(s), " "); got != "default/b default/a" {
		t.Errorf("pods %s", got)
	}
	notes := strings.Join(s.Notes, "\n")
	for _, want := range []string{"helm template " + dir + "/chart", "kustomize build " + dir + "/k ", "kustomize build " + dir + "/l ", dir + "/values.yaml, document 1: not a Kubernetes object"} {
		if !strings.Contains(notes, want) {
			t.Errorf("no note has %q:\n%s", want, notes)
		}
	}
	if err := s.complete(); err == nil || !strings.Contains(err.Error(), "values.yaml") {
		t.Errorf("error %v, want one that names what was left out", err)
	}
	if _, err := ReadManifests([]string{filepath.Join(dir, "values.yaml")}, at); err == nil {
		t.Error("a file that is named and cannot be read is no error")
	}
}

func cpuLimit(l karpv1.Limits) string {
	q := l[corev1.ResourceCPU]
	return q.String()
}
