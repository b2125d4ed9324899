// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"bytes"
	"fmt"
	"math"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/nap-aks/nap/azure/instancetype"
)

// twoPools is a cluster with a system node and two nodes of a pool "web". One of the
// pods on them selects the pool by its label.
const twoPools = `
apiVersion: v1
kind: Node
metadata: {name: system-0, labels: {node.kubernetes.io/instance-type: Standard_D2s_v3, topology.kubernetes.io/region: eastus, topology.kubernetes.io/zone: eastus-1, kubernetes.io/arch: amd64, kubernetes.io/os: linux, agentpool: system}}
status: {allocatable: {cpu: 1900m, memory: 6Gi, pods: "110"}}
---
apiVersion: v1
kind: Node
metadata: {name: web-0, labels: {node.kubernetes.io/instance-type: Standard_D8s_v5, topology.kubernetes.io/region: eastus, topology.kubernetes.io/zone: eastus-1, kubernetes.io/arch: amd64, kubernetes.io/os: linux, agentpool: web}}
status: {allocatable: {cpu: 7800m, memory: 28Gi, pods: "110"}}
---
apiVersion: v1
kind: Node
metadata: {name: web-1, labels: {node.kubernetes.io/instance-type: Standard_D8s_v5, topology.kubernetes.io/region: eastus, topology.kubernetes.io/zone: eastus-1, kubernetes.io/arch: amd64, kubernetes.io/os: linux, agentpool: web}}
status: {allocatable: {cpu: 7800m, memory: 28Gi, pods: "110"}}
---
apiVersion: v1
kind: Pod
metadata: {name: small, namespace: shop}
spec: {nodeName: web-0, containers: [{name: c, image: x, resources: {requests: {cpu: 500m, memory: 1Gi}}}]}
---
apiVersion: v1
kind: Pod
metadata: {name: big, namespace: shop}
spec: {nodeName: web-1, containers: [{name: c, image: x, resources: {requests: {cpu: "3", memory: 4Gi}}}]}
---
apiVersion: v1
kind: Pod
metadata: {name: pinned, namespace: shop}
spec: {nodeName: web-1, nodeSelector: {agentpool: web}, containers: [{name: c, image: x, resources: {requests: {cpu: "1", memory: 1Gi}}}]}
---
apiVersion: v1
kind: Pod
metadata: {name: daemon, namespace: kube-system, ownerReferences: [{apiVersion: apps/v1, kind: DaemonSet, name: d, uid: d, controller: true}]}
spec: {nodeName: web-1, containers: [{name: c, image: x, resources: {requests: {cpu: 100m, memory: 100Mi}}}]}
`

const webNodePool = `
apiVersion: karpenter.sh/v1
kind: NodePool
metadata: {name: web}
spec:
  template:
    spec:
      nodeClassRef: {group: karpenter.azure.com, kind: AKSNodeClass, name: web}
      requirements:
      - {key: karpenter.sh/capacity-type, operator: In, values: [on-demand]}
      - {key: karpenter.azure.com/sku-family, operator: In, values: [D]}
---
apiVersion: karpenter.azure.com/v1beta1
kind: AKSNodeClass
metadata: {name: web}
spec: {}
`

func ofPool(pool string) func(*corev1.Node) bool {
	return func(n *corev1.Node) bool { return n.Labels["agentpool"] == pool }
}

// Pods of the removed nodes go to remaining nodes if they fit, else to machines. A
// pod that selects the removed pool by name has no place.
func TestMoveFromPoolToMachines(t *testing.T) {
	src := read(t, twoPools)
	more, err := ReadManifestText("proposal", []byte(webNodePool), at)
	if err != nil {
		t.Fatal(err)
	}
	src.With(more)
	m, err := Simulate(src, Move{Remove: ofPool("web"), Provision: true}, Options{})
	if err != nil {
		t.Fatal(err)
	}
	s := m.Plan.Summary
	if len(m.RemovedNodes) != 2 || m.RemainingNodes != 1 || s.Pods != 3 || s.Refused != 1 || s.OnNodes != 1 || s.OnMachines != 1 || s.Machines != 1 {
		t.Fatalf("%d nodes go, %d stay; %+v", len(m.RemovedNodes), m.RemainingNodes, s)
	}
	if g := m.RemovedNodes[1]; g.Name != "web-1" || strings.Join(g.Pods, " ") != "shop/big shop/pinned" {
		t.Errorf("of %s go %v", g.Name, g.Pods)
	}
	const d2, d8 = 0.096, 0.384 // Standard_D2s_v3 and Standard_D8s_v5 in eastus
	if math.Abs(m.BeforeUSDPerHour-(d2+2*d8)) > 1e-9 || math.Abs(m.AfterUSDPerHour-(d2+s.USDPerHour)) > 1e-9 || m.AfterUSDPerHour >= m.BeforeUSDPerHour {
		t.Errorf("$%.4f before, $%.4f after, of which machines %.4f", m.BeforeUSDPerHour, m.AfterUSDPerHour, s.USDPerHour)
	}
	if r := m.Plan.Refused[0]; strings.Join(r.Pods, " ") != "shop/pinned" || !strings.Contains(r.Reason, "agentpool") {
		t.Errorf("refused: %+v", r)
	}
	var b bytes.Buffer
	if err := m.WriteTable(&b); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"NODE THAT GOES", "web-1", "shop/big", "2 nodes of 3 would go, 1 machine would be bought; 1 pod would have no place"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("no %q in\n%s", want, b.String())
		}
	}
}

// What delays evictions does not change the plan, but gets a note.
func TestMoveNotesWhatBlocksEvictions(t *testing.T) {
	src := read(t, twoPools+`
---
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata: {name: none, namespace: shop}
spec: {maxUnavailable: 0, selector: {}}
status: {expectedPods: 3, disruptionsAllowed: 0, currentHealthy: 3, desiredHealthy: 3}
---
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata: {name: all, namespace: shop}
spec: {minAvailable: 3, selector: {}}
status: {expectedPods: 3, disruptionsAllowed: 0, currentHealthy: 3, desiredHealthy: 3}
---
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata: {name: ill, namespace: shop}
spec: {minAvailable: 67%, selector: {}}
status: {expectedPods: 4, disruptionsAllowed: 0, currentHealthy: 3, desiredHealthy: 3}
---
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata: {name: fine, namespace: shop}
spec: {maxUnavailable: 1, selector: {}}
status: {expectedPods: 3, disruptionsAllowed: 1, currentHealthy: 3, desiredHealthy: 2}
`)
	for _, p := range src.Objects.Pods {
		if p.Name == "big" {
			p.Annotations = map[string]string{"karpenter.sh/do-not-disrupt": "true"}
		}
	}
	m, err := Simulate(src, Move{Remove: ofPool("web")}, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if m.Plan.Summary.Pods != 3 {
		t.Errorf("%d pods are planned for", m.Plan.Summary.Pods)
	}
	notes := strings.Join(m.Plan.Notes, "\n")
	for _, want := range []string{"shop/none never allows a disruption (maxUnavailable 0)", "shop/all never allows a disruption (minAvailable 3 of 3 pods)", "shop/ill allows no disruption now", "do-not-disrupt keep their nodes until the annotation is removed: shop/big"} {
		if !strings.Contains(notes, want) {
			t.Errorf("no %q in\n%s", want, notes)
		}
	}
	if strings.Contains(notes, "shop/fine") {
		t.Errorf("a budget that allows evictions is in\n%s", notes)
	}
}

// usagesOf returns a subscription's usage of the DSv5 family and of all sizes in a
// region.
func usagesOf(t *testing.T, used, family, regional int64) []instancetype.Usage {
	t.Helper()
	u, err := ParseUsage("usages", fmt.Appendf(nil, `{"value": [
		{"currentValue": %d, "limit": %d, "name": {"value": "standardDSv5Family", "localizedValue": "Standard DSv5 Family vCPUs"}},
		{"currentValue": "%d", "limit": "%d", "name": {"value": "cores", "localizedValue": "Total Regional vCPUs"}}]}`, used, family, used, regional))
	if err != nil {
		t.Fatal(err)
	}
	return u
}

// A move uses what the region's quotas have left plus what the removed nodes free,
// and reports what is missing at the start.
func TestMoveStaysWithinQuotas(t *testing.T) {
	// The web nodes have 16 vCPUs, the system node 2.
	for name, x := range map[string]struct {
		used, family, regional int64
		fixed                  int
		blocks                 bool
		refused                int // by quota
		notes                  string
	}{
		"enough":                     {18, 100, 100, 0, false, 0, ""},
		"more fixed nodes than fit":  {18, 97, 100, 20, true, 0, "DSv5 Family vCPUs: the fixed nodes need 80 vCPUs and 79 of 97 are left"},
		"fixed nodes fit exactly":    {20, 100, 100, 20, false, 0, ""},
		"nothing before a node goes": {18, 100, 18, 0, true, 0, "Total Regional vCPUs: the smallest of the machines needs"},
		"nothing even afterwards":    {18, 100, 1, 0, false, 1, ""},
		"a family that is full":      {100, 100, 200, 0, false, 0, ""},
		"of the fixed nodes' family": {100, 100, 200, 1, true, 0, "or create fewer fixed nodes or of another family"},
	} {
		t.Run(name, func(t *testing.T) {
			src := read(t, twoPools)
			more, err := ReadManifestText("proposal", []byte(webNodePool), at)
			if err != nil {
				t.Fatal(err)
			}
			mv := Move{Remove: ofPool("web"), Provision: x.fixed == 0, Usages: usagesOf(t, x.used, x.family, x.regional)}
			if x.fixed > 0 {
				mv.Fixed = []FixedNodes{{Pool: "fixed", Size: "standard_d4s_v5", Count: x.fixed}}
			} else {
				src.With(more)
			}
			m, err := Simulate(src, mv, Options{})
			if err != nil {
				t.Fatal(err)
			}
			if blocked := m.BlockedByQuota(); (blocked != "") != x.blocks {
				t.Errorf("blocked by %q, want %v", blocked, x.blocks)
			}
			if notes := strings.Join(m.Plan.Notes, "\n"); !strings.Contains(notes, x.notes) || x.notes == "" && strings.Contains(notes, "vCPUs") {
				t.Errorf("notes %q, want %q", notes, x.notes)
			}
			refused := 0
			for _, r := range m.Plan.Refused {
				if r.Code == "Quota" {
					refused += len(r.Pods)
				}
			}
			if refused != x.refused {
				t.Errorf("%d pods refused by quota, want %d: %+v", refused, x.refused, m.Plan.Refused)
			}
			for _, q := range m.Quotas {
				if end := q.Used + q.Fixed + q.Machines - q.Freed; q.Machines > 0 && end > q.Limit {
					t.Errorf("the plan ends with %d of %d in use: %+v", end, q.Limit, q)
				}
				if q.Name == "cores" && q.Freed != 16 {
					t.Errorf("the nodes that go give back %d vCPUs, not 16", q.Freed)
				}
			}
		})
	}
}

func TestMoveCountsExistingNodesOfFixedPool(t *testing.T) {
	src := read(t, twoPools)
	for _, n := range src.Objects.Nodes {
		n.Labels["kubernetes.azure.com/agentpool"] = n.Labels["agentpool"]
	}
	m, err := Simulate(src, Move{Remove: func(*corev1.Node) bool { return false }, Fixed: []FixedNodes{{Pool: "web", Size: "Standard_D8s_v5", Count: 3}, {Pool: "system", Size: "Standard_D2s_v3", Count: 1}}, Usages: usagesOf(t, 18, 100, 100)}, Options{})
	if err != nil {
		t.Fatal(err)
	}
	const d2, d8 = 0.096, 0.384
	if math.Abs(m.AfterUSDPerHour-(d2+3*d8)) > 1e-9 {
		t.Errorf("$%.4f afterwards, want three D8s and one D2s", m.AfterUSDPerHour)
	}
	for _, q := range m.Quotas {
		if q.Fixed != 8 {
			t.Errorf("one more node takes %d vCPUs of %s", q.Fixed, q.Name)
		}
	}
}

// Without provisioning, pods can only go to existing and to given fixed nodes.
func TestMoveToFixedNodes(t *testing.T) {
	none, err := Simulate(read(t, twoPools), Move{Remove: ofPool("web")}, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if none.Unplaced() != 2 || none.Plan.Summary.OnNodes != 1 || len(none.Plan.Machines) != 0 {
		t.Errorf("without new nodes %d pods have no place: %+v", none.Unplaced(), none.Plan.Summary)
	}
	some, err := Simulate(read(t, twoPools), Move{Remove: ofPool("web"), Fixed: []FixedNodes{{Pool: "fixed", Size: "standard_d4s_v5", Count: 2, Zones: []string{"1"}}}}, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if some.Unplaced() != 1 || some.Plan.Summary.OnNodes != 2 {
		t.Errorf("with a fixed pool %d pods have no place: %+v %+v", some.Unplaced(), some.Plan.Summary, some.Plan.Refused)
	}
	const d2, d4 = 0.096, 0.192
	if math.Abs(some.AfterUSDPerHour-(d2+2*d4)) > 1e-9 {
		t.Errorf("$%.4f afterwards", some.AfterUSDPerHour)
	}
	if _, err := Simulate(read(t, twoPools), Move{Remove: ofPool("web"), Fixed: []FixedNodes{{Pool: "fixed", Size: "Standard_Nope", Count: 1}}}, Options{}); err == nil || !strings.Contains(err.Error(), "pool fixed") {
		t.Errorf("an unknown size: %v", err)
	}
}
