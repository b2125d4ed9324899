package plan

import (
	"bytes"
	"math"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
)

// twoPools is a cluster with a system node and two nodes of a pool "web", whose
// pods are on them, and a pod that only the label agentpool brings there.
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

// The nodes of a pool give way to machines: what fits on the nodes that stay
// goes there, the rest gets machines, and a pod that selects the pool by name
// has no place.
func TestMoveToMachines(t *testing.T) {
	src := read(t, twoPools)
	more, err := ReadManifestText("proposal", []byte(webNodePool), at)
	if err != nil {
		t.Fatal(err)
	}
	src.With(more)
	m, err := Simulate(src, Move{Gone: ofPool("web"), Provision: true}, Options{})
	if err != nil {
		t.Fatal(err)
	}
	s := m.Plan.Summary
	if len(m.Gone) != 2 || m.Stay != 1 || s.Pods != 3 || s.Refused != 1 || s.OnNodes != 1 || s.OnMachines != 1 || s.Machines != 1 {
		t.Fatalf("%d nodes go, %d stay; %+v", len(m.Gone), m.Stay, s)
	}
	if g := m.Gone[1]; g.Name != "web-1" || strings.Join(g.Pods, " ") != "shop/big shop/pinned" {
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

// What keeps pods for a while does not keep them in the plan, but is said.
func TestMoveNotesWhatHoldsPods(t *testing.T) {
	src := read(t, twoPools+`
---
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata: {name: none, namespace: shop}
spec: {maxUnavailable: 0, selector: {}}
status: {expectedPods: 3, disruptionsAllowed: 0, currentHealthy: 3, desiredHealthy: 3}
`)
	for _, p := range src.Objects.Pods {
		if p.Name == "big" {
			p.Annotations = map[string]string{"karpenter.sh/do-not-disrupt": "true"}
		}
	}
	m, err := Simulate(src, Move{Gone: ofPool("web")}, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if m.Plan.Summary.Pods != 3 {
		t.Errorf("%d pods are planned for", m.Plan.Summary.Pods)
	}
	notes := strings.Join(m.Plan.Notes, "\n")
	for _, want := range []string{"shop/none allows no disruption now", "do-not-disrupt keep their nodes until the annotation is gone: shop/big"} {
		if !strings.Contains(notes, want) {
			t.Errorf("no %q in\n%s", want, notes)
		}
	}
}

// The way back: the machines go and there are fixed nodes only, those that
// there are and those to come.
func TestMoveToFixedNodes(t *testing.T) {
	none, err := Simulate(read(t, twoPools), Move{Gone: ofPool("web")}, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if none.Homeless() != 2 || none.Plan.Summary.OnNodes != 1 || len(none.Plan.Machines) != 0 {
		t.Errorf("without new nodes %d pods have no place: %+v", none.Homeless(), none.Plan.Summary)
	}
	some, err := Simulate(read(t, twoPools), Move{Gone: ofPool("web"), Fixed: []FixedNodes{{Pool: "fixed", Size: "standard_d4s_v5", Count: 2, Zones: []string{"1"}}}}, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if some.Homeless() != 1 || some.Plan.Summary.OnNodes != 2 {
		t.Errorf("with a fixed pool %d pods have no place: %+v %+v", some.Homeless(), some.Plan.Summary, some.Plan.Refused)
	}
	const d2, d4 = 0.096, 0.192
	if math.Abs(some.AfterUSDPerHour-(d2+2*d4)) > 1e-9 {
		t.Errorf("$%.4f afterwards", some.AfterUSDPerHour)
	}
	if _, err := Simulate(read(t, twoPools), Move{Gone: ofPool("web"), Fixed: []FixedNodes{{Pool: "fixed", Size: "Standard_Nope", Count: 1}}}, Options{}); err == nil || !strings.Contains(err.Error(), "pool fixed") {
		t.Errorf("a size that there is not: %v", err)
	}
}
