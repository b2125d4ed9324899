// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package scenario

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// Names that generated objects carry.
const (
	// ReplicasAnnotation is on generated workloads: the replicas they were made with,
	// which ScaleTo.Original refers to.
	ReplicasAnnotation = "sim.nap.dev/replicas"
	// FamilyLabel is on generated workloads: the name of their generate event.
	FamilyLabel = "sim.nap.dev/family"
	// RunForAnnotation is on pods that end by themselves: after how long. The
	// simulated kubelets of the local Azure have the same.
	RunForAnnotation = "nap.dev/run-for"

	image           = "registry.k8s.io/pause:3.10"
	doNotDisrupt    = "karpenter.sh/do-not-disrupt"
	spotTaint       = "kubernetes.azure.com/scalesetpriority"
	capacityTypeKey = "karpenter.sh/capacity-type"
)

// DefaultShapes is the mix of requests that families without a size of their own have:
// from 100m to 6.5 cores, with 1 to 8 GiB for a core.
func DefaultShapes() []Shape {
	var out []Shape
	for _, s := range [][2]string{
		{"100m", "128Mi"}, {"250m", "512Mi"}, {"500m", "1Gi"}, {"1", "2Gi"}, {"1500m", "6Gi"},
		{"2", "4Gi"}, {"3", "8Gi"}, {"4", "16Gi"}, {"6500m", "12Gi"},
	} {
		c, m := resource.MustParse(s[0]), resource.MustParse(s[1])
		out = append(out, Shape{CPU: Quantity{c, c}, Memory: Quantity{m, m}, Weight: 1})
	}
	return out
}

// draw returns an amount of the range, even by its logarithm and rounded to unit.
func (q Quantity) draw(rng *rand.Rand, unit int64) int64 {
	low, high := q.Min.MilliValue(), q.Max.MilliValue()
	if unit > 1000 {
		low, high = q.Min.Value(), q.Max.Value()
	}
	if high <= low || low <= 0 {
		return max(low, high)
	}
	v := math.Exp(math.Log(float64(low)) + rng.Float64()*(math.Log(float64(high))-math.Log(float64(low))))
	return min(high, max(low, int64(math.Round(v/float64(unit)))*unit))
}

// request is what one pod asks for.
type request struct{ milliCPU, memory, gpus int64 }

func (r request) list() corev1.ResourceList {
	l := corev1.ResourceList{
		corev1.ResourceCPU:    *resource.NewMilliQuantity(r.milliCPU, resource.DecimalSI),
		corev1.ResourceMemory: *resource.NewQuantity(r.memory, resource.BinarySI),
	}
	if r.gpus > 0 {
		l["nvidia.com/gpu"] = *resource.NewQuantity(r.gpus, resource.DecimalSI)
	}
	return l
}

// requests deals the sizes of n workloads. The rows of the table are dealt like cards,
// so that each seed has the same mix in another order.
func (g *Generate) requests(rng *rand.Rand, n int) []request {
	shapes := g.Shapes
	if g.CPU != nil {
		shapes = []Shape{{CPU: *g.CPU, Memory: *g.Memory}}
	} else if len(shapes) == 0 {
		shapes = DefaultShapes()
	}
	var deck, left []Shape
	for _, s := range shapes {
		for range max(1, s.Weight) {
			deck = append(deck, s)
		}
	}
	out := make([]request, n)
	for i := range out {
		if len(left) == 0 {
			left = slices.Clone(deck)
			rng.Shuffle(len(left), func(a, b int) { left[a], left[b] = left[b], left[a] })
		}
		s := left[0]
		left = left[1:]
		out[i] = request{milliCPU: s.CPU.draw(rng, 10), memory: s.Memory.draw(rng, 1<<20)}
	}
	return out
}

// chosen returns which of n workloads have a property that share of them have.
func chosen(rng *rand.Rand, share Share, n int) []bool {
	out := make([]bool, n)
	for i := range int(math.Round(float64(share) * float64(n))) {
		out[i] = true
	}
	rng.Shuffle(n, func(a, b int) { out[a], out[b] = out[b], out[a] })
	return out
}

// generate adds the workloads of a family.
func (c *compiler) generate(at time.Duration, event int, g *Generate) {
	rng := Stream(c.seed, fmt.Sprintf("generate %s/%s", namespaceOr(g.Namespace), g.Name))
	line := c.scenario.Events[event].Line
	c.namespace(at, line, namespaceOr(g.Namespace))
	sizes := g.requests(rng, g.Count)
	spread := chosen(rng, g.ZoneSpread, g.Count)
	apart := chosen(rng, g.HostnameAntiAffinity, g.Count)
	budget := chosen(rng, g.PDB, g.Count)
	keep := chosen(rng, g.DoNotDisrupt, g.Count)
	spot := chosen(rng, g.Spot, g.Count)
	digits := len(fmt.Sprint(g.Count - 1))
	for i := range g.Count {
		w := workload{
			family: g, name: fmt.Sprintf("%s-%0*d", g.Name, digits, i), namespace: namespaceOr(g.Namespace),
			replicas: int32(g.Replicas.Draw(rng)), size: sizes[i],
			spread: spread[i], apart: apart[i], keep: keep[i], spot: spot[i], runFor: g.RunFor.Draw(rng),
		}
		if g.Replicas == (IntRange{}) {
			w.replicas = 1
		}
		objects := []runtime.Object{w.object()}
		if budget[i] {
			objects = append(objects, w.budget())
		}
		when := at
		if g.Over > 0 {
			when += time.Duration(g.Over) * time.Duration(i) / time.Duration(g.Count)
		}
		c.add(when, line, Apply{Objects: objects})
	}
}

// workload is one member of a family.
type workload struct {
	family                    *Generate
	name, namespace           string
	replicas                  int32
	size                      request
	spread, apart, keep, spot bool
	runFor                    time.Duration
}

func (w *workload) labels() map[string]string { return map[string]string{"app": w.name} }

func (w *workload) meta() metav1.ObjectMeta {
	return metav1.ObjectMeta{
		Name: w.name, Namespace: w.namespace,
		Labels:      map[string]string{"app": w.name, FamilyLabel: w.family.Name},
		Annotations: map[string]string{ReplicasAnnotation: fmt.Sprint(w.replicas)},
	}
}

// template returns the pods of the workload.
func (w *workload) template() corev1.PodTemplateSpec {
	grace := int64(time.Duration(w.family.Grace) / time.Second)
	if grace == 0 {
		grace = 30
	}
	t := corev1.PodTemplateSpec{
		ObjectMeta: metav1.ObjectMeta{Labels: w.labels()},
		Spec: corev1.PodSpec{
			TerminationGracePeriodSeconds: &grace,
			PriorityClassName:             w.family.PriorityClass,
			Containers:                    []corev1.Container{{Name: "c", Image: image, Resources: corev1.ResourceRequirements{Requests: w.size.list()}}},
		},
	}
	selector := &metav1.LabelSelector{MatchLabels: w.labels()}
	if w.spread {
		t.Spec.TopologySpreadConstraints = []corev1.TopologySpreadConstraint{{
			MaxSkew: 1, TopologyKey: corev1.LabelTopologyZone, WhenUnsatisfiable: corev1.DoNotSchedule, LabelSelector: selector,
		}}
	}
	if w.apart {
		t.Spec.Affinity = &corev1.Affinity{PodAntiAffinity: &corev1.PodAntiAffinity{
			RequiredDuringSchedulingIgnoredDuringExecution: []corev1.PodAffinityTerm{{LabelSelector: selector, TopologyKey: corev1.LabelHostname}},
		}}
	}
	if w.keep {
		t.Annotations = map[string]string{doNotDisrupt: "true"}
	}
	if w.spot {
		t.Spec.NodeSelector = map[string]string{capacityTypeKey: "spot"}
		t.Spec.Tolerations = []corev1.Toleration{{Key: spotTaint, Operator: corev1.TolerationOpEqual, Value: "spot", Effect: corev1.TaintEffectNoSchedule}}
	}
	if w.runFor > 0 {
		if t.Annotations == nil {
			t.Annotations = map[string]string{}
		}
		t.Annotations[RunForAnnotation] = w.runFor.String()
		t.Spec.RestartPolicy = corev1.RestartPolicyNever
	}
	return t
}

func (w *workload) object() runtime.Object {
	selector := &metav1.LabelSelector{MatchLabels: w.labels()}
	switch w.family.Kind {
	case "StatefulSet":
		o := &appsv1.StatefulSet{ObjectMeta: w.meta(), Spec: appsv1.StatefulSetSpec{
			Replicas: &w.replicas, Selector: selector, Template: w.template(), ServiceName: w.name,
		}}
		o.SetGroupVersionKind(appsv1.SchemeGroupVersion.WithKind("StatefulSet"))
		return o
	case "Job":
		o := &batchv1.Job{ObjectMeta: w.meta(), Spec: batchv1.JobSpec{
			Parallelism: &w.replicas, Completions: &w.replicas, Template: w.template(),
		}}
		o.SetGroupVersionKind(batchv1.SchemeGroupVersion.WithKind("Job"))
		return o
	}
	o := &appsv1.Deployment{ObjectMeta: w.meta(), Spec: appsv1.DeploymentSpec{
		Replicas: &w.replicas, Selector: selector, Template: w.template(),
	}}
	o.SetGroupVersionKind(appsv1.SchemeGroupVersion.WithKind("Deployment"))
	return o
}

// budget returns a PodDisruptionBudget for the workload.
func (w *workload) budget() runtime.Object {
	unavailable := intstr.FromString("10%")
	o := &policyv1.PodDisruptionBudget{ObjectMeta: w.meta(), Spec: policyv1.PodDisruptionBudgetSpec{
		MaxUnavailable: &unavailable, Selector: &metav1.LabelSelector{MatchLabels: w.labels()},
	}}
	o.Annotations = nil
	o.SetGroupVersionKind(policyv1.SchemeGroupVersion.WithKind("PodDisruptionBudget"))
	return o
}
