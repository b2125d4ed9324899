// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package snapshot_test

import (
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	karpv1 "sigs.k8s.io/karpenter/pkg/apis/v1"

	"github.com/nap-aks/nap/engine"
)

func TestTranslatePods(t *testing.T) {
	always := corev1.ContainerRestartPolicyAlways
	honor := corev1.NodeInclusionPolicyHonor
	three := int32(3)
	prio := int32(7)
	wait := storagev1.VolumeBindingWaitForFirstConsumer
	in := func(k string, v ...string) engine.Requirement {
		return engine.Requirement{Key: k, Operator: engine.In, Values: v}
	}
	sel := &metav1.LabelSelector{MatchLabels: map[string]string{"app": "web"}}
	for name, c := range map[string]struct {
		pod   func(*corev1.Pod)
		extra []client.Object
		want  func(*engine.PodClass)
	}{
		"nothing":  {func(*corev1.Pod) {}, nil, func(*engine.PodClass) {}},
		"priority": {func(p *corev1.Pod) { p.Spec.Priority = &prio }, nil, func(c *engine.PodClass) { c.Priority = 7 }},
		"init containers and sidecars": {func(p *corev1.Pod) {
			p.Spec.InitContainers = []corev1.Container{
				{Name: "s", RestartPolicy: &always, Resources: corev1.ResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("100m")}}},
				{Name: "i", Resources: corev1.ResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("2")}}},
			}
		}, nil, func(c *engine.PodClass) { c.Requests["cpu"] = 2100 }},
		"pod-level resources": {func(p *corev1.Pod) {
			p.Spec.Resources = &corev1.ResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("3")}}
		}, nil, func(c *engine.PodClass) { c.Requests["cpu"] = 3000 }},
		"overhead and extended resources": {func(p *corev1.Pod) {
			p.Spec.Overhead = corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("1Gi")}
			p.Spec.Containers[0].Resources.Requests["nvidia.com/gpu"] = resource.MustParse("2")
		}, nil, func(c *engine.PodClass) { c.Requests["memory"] = 2 << 30; c.Requests["nvidia.com/gpu"] = 2 }},
		"node selector by an old name": {func(p *corev1.Pod) {
			p.Spec.NodeSelector = map[string]string{"failure-domain.beta.kubernetes.io/zone": "z1", "disk": "ssd"}
		}, nil, func(c *engine.PodClass) {
			c.NodeSelector = []engine.Requirement{in("disk", "ssd"), in(engine.LabelZone, "z1")}
		}},
		"node affinity": {func(p *corev1.Pod) {
			p.Spec.Affinity = &corev1.Affinity{NodeAffinity: &corev1.NodeAffinity{
				RequiredDuringSchedulingIgnoredDuringExecution: &corev1.NodeSelector{NodeSelectorTerms: []corev1.NodeSelectorTerm{
					{MatchExpressions: []corev1.NodeSelectorRequirement{{Key: "a", Operator: corev1.NodeSelectorOpGt, Values: []string{"3"}}, {Key: "b", Operator: corev1.NodeSelectorOpExists}}},
					{MatchExpressions: []corev1.NodeSelectorRequirement{{Key: "c", Operator: corev1.NodeSelectorOpNotIn, Values: []string{"x"}}}},
				}},
				PreferredDuringSchedulingIgnoredDuringExecution: []corev1.PreferredSchedulingTerm{{Weight: 9, Preference: corev1.NodeSelectorTerm{MatchExpressions: []corev1.NodeSelectorRequirement{{Key: "d", Operator: corev1.NodeSelectorOpDoesNotExist}}}}},
			}}
		}, nil, func(c *engine.PodClass) {
			c.NodeAffinity = [][]engine.Requirement{
				{{Key: "a", Operator: engine.Gt, Values: []string{"3"}}, {Key: "b", Operator: engine.Exists}},
				{{Key: "c", Operator: engine.NotIn, Values: []string{"x"}}},
			}
			c.PreferredNodeAffinity = []engine.PreferredTerm{{Weight: 9, Requirements: []engine.Requirement{{Key: "d", Operator: engine.DoesNotExist}}}}
		}},
		"tolerations": {func(p *corev1.Pod) {
			p.Spec.Tolerations = []corev1.Toleration{{Key: "k", Operator: corev1.TolerationOpEqual, Value: "v", Effect: corev1.TaintEffectNoExecute}}
		}, nil, func(c *engine.PodClass) {
			c.Tolerations = []engine.Toleration{{Key: "k", Operator: "Equal", Value: "v", Effect: engine.NoExecute}}
		}},
		"spread": {func(p *corev1.Pod) {
			p.Labels["rev"] = "5"
			p.Spec.TopologySpreadConstraints = []corev1.TopologySpreadConstraint{{
				MaxSkew: 2, TopologyKey: corev1.LabelTopologyZone, WhenUnsatisfiable: corev1.ScheduleAnyway, LabelSelector: sel, MinDomains: &three,
				MatchLabelKeys: []string{"rev", "absent"}, NodeTaintsPolicy: &honor,
			}}
		}, nil, func(c *engine.PodClass) {
			c.Labels = map[string]string{"app": "web", "rev": "5"}
			c.Spread = []engine.SpreadConstraint{{Key: engine.LabelZone, MaxSkew: 2, MinDomains: 3, Soft: true, NodeTaintsPolicy: engine.Honor,
				Selector: &engine.Selector{Requirements: []engine.Requirement{in("app", "web"), in("rev", "5")}}}}
		}},
		"pod affinity": {func(p *corev1.Pod) {
			p.Spec.Affinity = &corev1.Affinity{
				PodAffinity: &corev1.PodAffinity{RequiredDuringSchedulingIgnoredDuringExecution: []corev1.PodAffinityTerm{
					{TopologyKey: "rack", LabelSelector: sel, NamespaceSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"tone": "dark"}}, Namespaces: []string{"zzz"}}}},
				PodAntiAffinity: &corev1.PodAntiAffinity{PreferredDuringSchedulingIgnoredDuringExecution: []corev1.WeightedPodAffinityTerm{
					{Weight: 4, PodAffinityTerm: corev1.PodAffinityTerm{TopologyKey: corev1.LabelHostname, LabelSelector: sel}}}},
			}
		}, []client.Object{
			&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "night", Labels: map[string]string{"tone": "dark"}}},
			&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "day"}},
		}, func(c *engine.PodClass) {
			s := &engine.Selector{Requirements: []engine.Requirement{in("app", "web")}}
			c.Labels = map[string]string{"app": "web"}
			c.PodAffinity = []engine.AffinityTerm{{Key: "rack", Selector: s, Namespaces: []string{"night", "zzz"}}}
			c.PodAntiAffinity = []engine.AffinityTerm{{Key: engine.LabelHostname, Selector: s, Namespaces: []string{"default"}, Weight: 4}}
		}},
		"host ports": {func(p *corev1.Pod) {
			p.Spec.Containers[0].Ports = []corev1.ContainerPort{{ContainerPort: 1}, {HostPort: 53, Protocol: corev1.ProtocolUDP, HostIP: "10.0.0.1"}}
		}, nil, func(c *engine.PodClass) { c.HostPorts = []engine.HostPort{{IP: "10.0.0.1", Port: 53, Protocol: "UDP"}} }},
		"resource claims": {func(p *corev1.Pod) {
			p.Spec.ResourceClaims = []corev1.PodResourceClaim{{Name: "gpu"}}
			p.Spec.Containers[0].Resources.Claims = []corev1.ResourceClaim{{Name: "gpu"}}
		},
			nil, func(c *engine.PodClass) { c.Unsupported = []string{"dynamic resource claims"} }},
		"a volume still to be made, in one of two places": {func(p *corev1.Pod) {
			p.Spec.Volumes = []corev1.Volume{{Name: "d", VolumeSource: corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "shared"}}}}
		}, []client.Object{
			&storagev1.StorageClass{ObjectMeta: metav1.ObjectMeta{Name: "sc"}, Provisioner: "driver", VolumeBindingMode: &wait, AllowedTopologies: []corev1.TopologySelectorTerm{
				{MatchLabelExpressions: []corev1.TopologySelectorLabelRequirement{{Key: corev1.LabelTopologyZone, Values: []string{"z2", "z1"}}}},
				{MatchLabelExpressions: []corev1.TopologySelectorLabelRequirement{{Key: "rack", Values: []string{"r"}}}},
			}},
			&corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Name: "shared", Namespace: "default"}, Spec: corev1.PersistentVolumeClaimSpec{StorageClassName: ptr("sc")}},
		}, func(c *engine.PodClass) {
			c.SharedVolumes = []engine.SharedVolume{{Driver: "driver", ID: "default/shared"}}
			c.VolumeTopology = []engine.VolumeTopology{{Terms: [][]engine.Requirement{{in(engine.LabelZone, "z1", "z2")}, {in("rack", "r")}}}}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			got := only(t, pod("p", c.pod), c.extra...)
			want := engine.PodClass{Name: "p", Namespace: "default", Requests: engine.Resources{"cpu": 250, "memory": 1 << 30}}
			c.want(&want)
			if !reflect.DeepEqual(got, want) {
				g, _ := json.MarshalIndent(got, "", " ")
				w, _ := json.MarshalIndent(want, "", " ")
				t.Errorf("got %s\nwant %s", g, w)
			}
		})
	}
}

func TestPodsOfOneShapeShareAClass(t *testing.T) {
	o := base()
	for i := range 100 {
		o.Pods = append(o.Pods, pod(fmt.Sprintf("p-%d", i), func(p *corev1.Pod) { p.Labels["index"] = fmt.Sprint(i); p.Labels["app"] = fmt.Sprint("app-", i%2) }))
	}
	if n := len(build(t, o).Snapshot.Pending); n != 1 {
		t.Errorf("%d classes, want 1: no selector uses the labels", n)
	}
	o.Pods = append(o.Pods, pod("selects", func(p *corev1.Pod) {
		p.Spec.Affinity = &corev1.Affinity{PodAntiAffinity: &corev1.PodAntiAffinity{RequiredDuringSchedulingIgnoredDuringExecution: []corev1.PodAffinityTerm{
			{TopologyKey: "rack", LabelSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "app-1"}}}}}}
	}))
	if n := len(build(t, o).Snapshot.Pending); n != 3 {
		t.Errorf("%d classes, want 3: that of the pod with a selector, and the two that the selector tells apart", n)
	}
}

func TestStatefulSetPodsWithOwnClaimsShareAClass(t *testing.T) {
	o := base()
	wait := storagev1.VolumeBindingWaitForFirstConsumer
	o.Classes = append(o.Classes, &storagev1.StorageClass{ObjectMeta: metav1.ObjectMeta{Name: "sc"}, Provisioner: "driver", VolumeBindingMode: &wait})
	for i := range 5 {
		name := fmt.Sprintf("db-%d", i)
		o.PVCs = append(o.PVCs, &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Name: "data-" + name, Namespace: "default"}, Spec: corev1.PersistentVolumeClaimSpec{StorageClassName: ptr("sc")}})
		o.Pods = append(o.Pods, pod(name, func(p *corev1.Pod) {
			p.Spec.Volumes = []corev1.Volume{{Name: "d", VolumeSource: corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "data-" + name}}}}
		}))
	}
	in := build(t, o)
	if len(in.Snapshot.Pending) != 1 || len(in.Snapshot.Pending[0].Pods) != 5 {
		t.Fatalf("groups: %+v, invalid: %v", in.Snapshot.Pending, in.Invalid)
	}
	if c := in.Snapshot.Classes[in.Snapshot.Pending[0].Class]; c.Volumes["driver"] != 1 {
		t.Errorf("volumes: %+v", c)
	}
}

func TestInvalidPodsHaveAReason(t *testing.T) {
	o := base()
	o.Pods = []*corev1.Pod{
		pod("no-claim", func(p *corev1.Pod) {
			p.Spec.Volumes = []corev1.Volume{{Name: "d", VolumeSource: corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "missing"}}}}
		}),
		pod("not-for-us", func(p *corev1.Pod) {
			p.Spec.Affinity = &corev1.Affinity{NodeAffinity: &corev1.NodeAffinity{RequiredDuringSchedulingIgnoredDuringExecution: &corev1.NodeSelector{NodeSelectorTerms: []corev1.NodeSelectorTerm{
				{MatchExpressions: []corev1.NodeSelectorRequirement{{Key: karpv1.NodePoolLabelKey, Operator: corev1.NodeSelectorOpDoesNotExist}}}}}}}
		}),
		pod("fine"),
		pod("not-seen-yet", func(p *corev1.Pod) { p.Status.Conditions, p.Spec.SchedulerName = nil, "mine" }),
	}
	in := build(t, o)
	if len(in.Invalid) != 2 || in.Invalid["default/no-claim"] == nil || in.Invalid["default/not-for-us"] == nil {
		t.Errorf("invalid: %v", in.Invalid)
	}
	if len(in.Pods) != 1 || in.Pods["default/fine"] == nil {
		t.Errorf("pending: %v", in.Pods)
	}
}

func TestUntriedPodsArePlannedForBesideRefusedOnes(t *testing.T) {
	owned := func(by string) func(*corev1.Pod) {
		return func(p *corev1.Pod) {
			yes := true
			p.OwnerReferences = []metav1.OwnerReference{{APIVersion: "apps/v1", Kind: "ReplicaSet", Name: by, UID: types.UID(by), Controller: &yes}}
		}
	}
	fresh := func(p *corev1.Pod) { p.Status.Conditions = nil }
	o := base()
	o.Pods = append(o.Pods,
		pod("refused", owned("web")),
		pod("alike", owned("web"), fresh),
		pod("of-another", owned("db"), fresh),
		pod("of-none", fresh),
		pod("larger", owned("web"), fresh, func(p *corev1.Pod) {
			p.Spec.Containers[0].Resources.Requests[corev1.ResourceCPU] = resource.MustParse("4")
		}),
		pod("of-another-scheduler", owned("web"), fresh, func(p *corev1.Pod) { p.Spec.SchedulerName = "mine" }),
		pod("more-important", owned("web"), fresh, func(p *corev1.Pod) { n := int32(9); p.Spec.Priority = &n }),
		pod("nominated", owned("web"), fresh, func(p *corev1.Pod) { p.Status.NominatedNodeName = "n" }),
		pod("gated", owned("web"), func(p *corev1.Pod) {
			p.Spec.SchedulingGates = []corev1.PodSchedulingGate{{Name: "g"}}
			p.Status.Conditions[0].Reason = corev1.PodReasonSchedulingGated
		}),
	)
	in := build(t, o)
	var got []string
	for key := range in.Pods {
		got = append(got, key)
	}
	slices.Sort(got)
	if want := []string{"default/alike", "default/larger", "default/of-another", "default/of-none", "default/refused"}; !slices.Equal(got, want) {
		t.Errorf("pending are %v, want %v", got, want)
	}
}

// TestValidityIsNotShared: Karpenter refuses what the engine has no term for, and pods
// that are equal otherwise must not inherit it, in whatever order they come.
func TestValidityIsNotShared(t *testing.T) {
	for _, names := range [][]string{{"invalid", "plain"}, {"plain", "invalid"}} {
		o := base()
		for _, name := range names {
			o.Pods = append(o.Pods, pod(name, func(p *corev1.Pod) {
				p.Spec.Affinity = nil
				if name == "invalid" {
					p.Spec.NodeSelector = map[string]string{"kubernetes.io/hostname": ""}
				}
			}), pod("pinned-"+name, func(p *corev1.Pod) {
				p.Spec.Affinity = &corev1.Affinity{NodeAffinity: &corev1.NodeAffinity{
					RequiredDuringSchedulingIgnoredDuringExecution: &corev1.NodeSelector{NodeSelectorTerms: []corev1.NodeSelectorTerm{{
						MatchFields: []corev1.NodeSelectorRequirement{{Key: "metadata.name", Operator: corev1.NodeSelectorOpIn, Values: []string{name}}},
					}}},
				}}
			}))
		}
		in := build(t, o)
		for k, err := range in.Invalid {
			if k != "default/invalid" {
				t.Errorf("%s is invalid: %v", k, err)
			}
		}
	}
}

func TestTranslateFieldsOfTheNode(t *testing.T) {
	c := only(t, pod("p", func(p *corev1.Pod) {
		p.Spec.Affinity = &corev1.Affinity{NodeAffinity: &corev1.NodeAffinity{
			RequiredDuringSchedulingIgnoredDuringExecution: &corev1.NodeSelector{NodeSelectorTerms: []corev1.NodeSelectorTerm{{
				MatchExpressions: []corev1.NodeSelectorRequirement{{Key: "a", Operator: corev1.NodeSelectorOpExists}},
				MatchFields:      []corev1.NodeSelectorRequirement{{Key: "metadata.name", Operator: corev1.NodeSelectorOpIn, Values: []string{"n7"}}},
			}}},
		}}
	}))
	want := [][]engine.Requirement{{{Key: "a", Operator: engine.Exists}, {Key: corev1.LabelHostname, Operator: engine.In, Values: []string{"n7"}}}}
	if !reflect.DeepEqual(c.NodeAffinity, want) {
		t.Errorf("node affinity %v, want %v", c.NodeAffinity, want)
	}
}

func TestTranslateANamespaceSelectorThatSelectsNone(t *testing.T) {
	c := only(t, pod("p", func(p *corev1.Pod) {
		p.Spec.Affinity = &corev1.Affinity{PodAntiAffinity: &corev1.PodAntiAffinity{RequiredDuringSchedulingIgnoredDuringExecution: []corev1.PodAffinityTerm{{
			TopologyKey: corev1.LabelHostname, LabelSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "web"}},
			NamespaceSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"tenant": "nobody"}},
		}}}}
	}))
	if want := []engine.AffinityTerm{{Key: corev1.LabelHostname}}; !reflect.DeepEqual(c.PodAntiAffinity, want) {
		t.Errorf("anti-affinity %v, want %v: it selects no pod", c.PodAntiAffinity, want)
	}
}
