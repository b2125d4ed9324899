// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"strconv"
	"strings"
	"testing"
	"time"
)

// planText plans the pods of a manifest on the D family of eastus.
func planText(t *testing.T, text string) (*Source, *Report) {
	t.Helper()
	src, err := ReadManifestText("test.yaml", []byte(text), time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC))
	if err != nil {
		t.Fatal(err)
	}
	src.addDefaultNodePool()
	if err := src.AddInstanceTypes("eastus"); err != nil {
		t.Fatal(err)
	}
	r, err := Nap(src.Objects, Options{})
	if err != nil {
		t.Fatal(err)
	}
	return src, r
}

const boxPod = `
apiVersion: v1
kind: Pod
metadata: {name: box, namespace: team}
spec:
  containers: [{name: c, image: x, resources: {requests: {cpu: 500m, memory: 256Mi}}}]
`

func TestPodsAreAdmittedAsByTheAPIServer(t *testing.T) {
	limits := `
---
apiVersion: v1
kind: LimitRange
metadata: {name: defaults, namespace: %s}
spec:
  limits: [{type: Container, default: {cpu: "2", memory: 4Gi}, defaultRequest: {cpu: "1"}, max: {cpu: "3"}}]
`
	runtimeClass := `
---
apiVersion: node.k8s.io/v1
kind: RuntimeClass
metadata: {name: kata}
handler: kata
overhead: {podFixed: {cpu: 500m, memory: 600Mi}}
scheduling: {nodeSelector: {isolation: kata}, tolerations: [{key: kata, operator: Exists}]}
`
	priorities := `
---
apiVersion: scheduling.k8s.io/v1
kind: PriorityClass
metadata: {name: urgent}
value: 1000
preemptionPolicy: Never
---
apiVersion: scheduling.k8s.io/v1
kind: PriorityClass
metadata: {name: usual}
value: 5
globalDefault: true
`
	for name, c := range map[string]struct {
		text string
		want string // of the pod as admitted
		note string // instead of the pod
	}{
		"nothing":            {boxPod, "cpu=500m memory=256Mi priority= overhead= tolerations=0", ""},
		"another namespace":  {boxPod + strings.ReplaceAll(limits, "%s", "other"), "cpu=500m memory=256Mi priority= overhead= tolerations=0", ""},
		"requests by limits": {strings.Replace(boxPod, "requests: {cpu: 500m, memory: 256Mi}", "", 1) + strings.ReplaceAll(limits, "%s", "team"), "cpu=1 memory=4Gi priority= overhead= tolerations=0", ""},
		"own requests stay":  {boxPod + strings.ReplaceAll(limits, "%s", "team"), "cpu=500m memory=256Mi priority= overhead= tolerations=0", ""},
		"too much":           {strings.Replace(boxPod, "500m", "4", 1) + strings.ReplaceAll(limits, "%s", "team"), "", "container c: LimitRange team/defaults: requests 4 of cpu, at most 3 are allowed"},
		"runtime class":      {strings.Replace(boxPod, "spec:", "spec:\n  runtimeClassName: kata", 1) + runtimeClass, "cpu=500m memory=256Mi priority= overhead=500m isolation=kata tolerations=1", ""},
		"no such runtime class": {
			strings.Replace(boxPod, "spec:", "spec:\n  runtimeClassName: gvisor", 1) + runtimeClass, "", `no RuntimeClass has the name "gvisor"`,
		},
		"priority class":         {strings.Replace(boxPod, "spec:", "spec:\n  priorityClassName: urgent", 1) + priorities, "cpu=500m memory=256Mi priority=1000 overhead= tolerations=0", ""},
		"default priority class": {boxPod + priorities, "cpu=500m memory=256Mi priority=5 overhead= tolerations=0", ""},
		"system priority class":  {strings.Replace(boxPod, "spec:", "spec:\n  priorityClassName: system-node-critical", 1), "cpu=500m memory=256Mi priority=2000001000 overhead= tolerations=0", ""},
		"no such priority class": {strings.Replace(boxPod, "spec:", "spec:\n  priorityClassName: vital", 1) + priorities, "", `no PriorityClass has the name "vital"`},
	} {
		t.Run(name, func(t *testing.T) {
			src, _ := planText(t, c.text)
			if c.note != "" {
				if len(src.Objects.Pods) != 0 || !strings.Contains(strings.Join(src.Notes, "\n"), c.note) {
					t.Fatalf("%d pods and the notes %q, want none and %q", len(src.Objects.Pods), src.Notes, c.note)
				}
				return
			}
			s := src.Objects.Pods[0].Spec
			got := "cpu=" + s.Containers[0].Resources.Requests.Cpu().String() + " memory=" + s.Containers[0].Resources.Requests.Memory().String() + " priority="
			if s.Priority != nil {
				got += strconv.Itoa(int(*s.Priority))
			}
			got += " overhead="
			if s.Overhead != nil {
				got += s.Overhead.Cpu().String()
			}
			for k, v := range s.NodeSelector {
				got += " " + k + "=" + v
			}
			got += " tolerations=" + strconv.Itoa(len(s.Tolerations))
			if got != c.want {
				t.Errorf("admitted %s, want %s", got, c.want)
			}
		})
	}
}

func TestGatedPodsAreNotPlanned(t *testing.T) {
	src, r := planText(t, strings.Replace(boxPod, "spec:", "spec:\n  schedulingGates: [{name: queue}]", 1))
	if r.Summary.Machines != 0 || !strings.Contains(strings.Join(src.Notes, "\n"), "1 pods of team/box have scheduling gates") {
		t.Errorf("%d machines, notes %q; want no machine and a note", r.Summary.Machines, src.Notes)
	}
}

func TestPrioritiesDecideWhoGetsScarceMachines(t *testing.T) {
	_, r := planText(t, `
apiVersion: karpenter.sh/v1
kind: NodePool
metadata: {name: default}
spec:
  limits: {cpu: "2"}
  template:
    spec:
      nodeClassRef: {group: karpenter.azure.com, kind: AKSNodeClass, name: default}
      requirements: [{key: node.kubernetes.io/instance-type, operator: In, values: [Standard_D2s_v5]}]
---
apiVersion: scheduling.k8s.io/v1
kind: PriorityClass
metadata: {name: urgent}
value: 1000
---
apiVersion: v1
kind: Pod
metadata: {name: bulk}
spec: {containers: [{name: c, image: x, resources: {requests: {cpu: "1"}}}]}
---
apiVersion: v1
kind: Pod
metadata: {name: zz-urgent}
spec: {priorityClassName: urgent, containers: [{name: c, image: x, resources: {requests: {cpu: "1"}}}]}
`)
	if len(r.Machines) != 1 || strings.Join(r.Machines[0].Pods, " ") != "default/zz-urgent" {
		t.Errorf("machines %+v, want one for the urgent pod", r.Machines)
	}
}
