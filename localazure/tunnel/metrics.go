// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package tunnel

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/kubernetes"
	metricsv1beta1 "k8s.io/metrics/pkg/apis/metrics/v1beta1"
)

// A simulated pod uses nothing. These annotations set the usage that the metrics API
// reports for a pod, as quantities such as "250m" and "1Gi", divided equally among
// its containers; kubectl top and HorizontalPodAutoscalers read it.
const (
	UsageCPUAnnotation    = "nap.dev/usage-cpu"
	UsageMemoryAnnotation = "nap.dev/usage-memory"
)

// metricsWindow is the time over which metrics-server computes rates.
const metricsWindow = 15 * time.Second

// metricsAPI is metrics.k8s.io as metrics-server serves it. The API server has
// already authorized the requests.
type metricsAPI struct {
	client    kubernetes.Interface
	simulated func(node string) bool
	now       func() time.Time
}

func (m metricsAPI) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	out, err := m.answer(r)
	var failed apierrors.APIStatus
	if errors.As(err, &failed) {
		st := failed.Status()
		st.TypeMeta = metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}
		writeJSON(w, int(st.Code), st)
		return
	}
	if err != nil {
		st := apierrors.NewInternalError(err).Status()
		st.TypeMeta = metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}
		writeJSON(w, http.StatusInternalServerError, st)
		return
	}
	if strings.Contains(r.Header.Get("Accept"), "as=Table") {
		out = table(out)
	}
	writeJSON(w, http.StatusOK, out)
}

func writeJSON(w http.ResponseWriter, code int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(v)
}

const apiVersion = "metrics.k8s.io/v1beta1"

// answer returns the object that a request asks for.
func (m metricsAPI) answer(r *http.Request) (any, error) {
	path := strings.Trim(r.URL.Path, "/")
	unknown := apierrors.NewGenericServerResponse(http.StatusNotFound, r.Method, schema.GroupResource{}, "", "metrics-server does not serve /"+path, 0, true)
	rest, ours := strings.CutPrefix(path+"/", "apis/"+apiVersion+"/")
	switch {
	case path == "healthz", path == "livez", path == "readyz":
		return map[string]string{"status": "ok"}, nil
	case path == "openapi/v2":
		return openAPI(), nil
	case path == "apis/metrics.k8s.io":
		v := metav1.GroupVersionForDiscovery{GroupVersion: apiVersion, Version: "v1beta1"}
		return metav1.APIGroup{TypeMeta: metav1.TypeMeta{Kind: "APIGroup", APIVersion: "v1"}, Name: "metrics.k8s.io", Versions: []metav1.GroupVersionForDiscovery{v}, PreferredVersion: v}, nil
	case !ours:
		return nil, unknown
	case rest == "":
		verbs := metav1.Verbs{"get", "list"}
		return metav1.APIResourceList{TypeMeta: metav1.TypeMeta{Kind: "APIResourceList", APIVersion: "v1"}, GroupVersion: apiVersion, APIResources: []metav1.APIResource{
			{Name: "nodes", Kind: "NodeMetrics", Verbs: verbs}, {Name: "pods", Kind: "PodMetrics", Namespaced: true, Verbs: verbs},
		}}, nil
	case r.Method != http.MethodGet || r.URL.Query().Get("watch") == "true":
		return nil, apierrors.NewMethodNotSupported(schema.GroupResource{Group: "metrics.k8s.io", Resource: "metrics"}, "other than get and list")
	}
	q := r.URL.Query()
	opts := metav1.ListOptions{LabelSelector: q.Get("labelSelector"), FieldSelector: q.Get("fieldSelector"), ResourceVersion: "0"}
	part := strings.Split(strings.Trim(rest, "/"), "/")
	switch {
	case part[0] == "nodes" && len(part) == 1:
		list, err := m.client.CoreV1().Nodes().List(r.Context(), opts)
		if err != nil {
			return nil, err
		}
		items, err := m.nodeMetrics(r.Context(), list.Items, metav1.ListOptions{ResourceVersion: "0"})
		return metricsv1beta1.NodeMetricsList{TypeMeta: metav1.TypeMeta{Kind: "NodeMetricsList", APIVersion: apiVersion}, Items: items}, err
	case part[0] == "nodes" && len(part) == 2:
		n, err := m.client.CoreV1().Nodes().Get(r.Context(), part[1], metav1.GetOptions{})
		if err != nil {
			return nil, err
		}
		items, err := m.nodeMetrics(r.Context(), []corev1.Node{*n}, metav1.ListOptions{FieldSelector: fields.OneTermEqualSelector("spec.nodeName", n.Name).String()})
		return one(items, err, "nodes", n.Name)
	case part[0] == "pods" && len(part) == 1:
		return m.podList(r.Context(), "", opts)
	case part[0] == "namespaces" && len(part) == 3 && part[2] == "pods":
		return m.podList(r.Context(), part[1], opts)
	case part[0] == "namespaces" && len(part) == 4 && part[2] == "pods":
		p, err := m.client.CoreV1().Pods(part[1]).Get(r.Context(), part[3], metav1.GetOptions{})
		if err != nil {
			return nil, err
		}
		return one(m.podMetrics([]corev1.Pod{*p}), nil, "pods", p.Name)
	}
	return nil, unknown
}

func one[T any](items []T, err error, resource, name string) (any, error) {
	if err == nil && len(items) == 0 {
		err = apierrors.NewNotFound(schema.GroupResource{Group: "metrics.k8s.io", Resource: resource}, name)
	}
	if err != nil {
		return nil, err
	}
	return items[0], nil
}

func (m metricsAPI) podList(ctx context.Context, ns string, opts metav1.ListOptions) (any, error) {
	list, err := m.client.CoreV1().Pods(ns).List(ctx, opts)
	if err != nil {
		return nil, err
	}
	return metricsv1beta1.PodMetricsList{TypeMeta: metav1.TypeMeta{Kind: "PodMetricsList", APIVersion: apiVersion}, Items: m.podMetrics(list.Items)}, nil
}

// podMetrics returns the metrics of the pods that run on simulated nodes.
func (m metricsAPI) podMetrics(pods []corev1.Pod) []metricsv1beta1.PodMetrics {
	out := []metricsv1beta1.PodMetrics{}
	for i := range pods {
		p := &pods[i]
		if p.Status.Phase != corev1.PodRunning || !m.simulated(p.Spec.NodeName) {
			continue
		}
		pm := metricsv1beta1.PodMetrics{
			TypeMeta:   metav1.TypeMeta{Kind: "PodMetrics", APIVersion: apiVersion},
			ObjectMeta: metav1.ObjectMeta{Name: p.Name, Namespace: p.Namespace, Labels: p.Labels, CreationTimestamp: metav1.NewTime(m.now())},
			Timestamp:  metav1.NewTime(m.now()), Window: metav1.Duration{Duration: metricsWindow},
		}
		n := int64(len(p.Spec.Containers))
		cpu, memory := usage(p)
		for _, c := range p.Spec.Containers {
			pm.Containers = append(pm.Containers, metricsv1beta1.ContainerMetrics{Name: c.Name, Usage: resources(cpu/n, memory/n)})
		}
		out = append(out, pm)
	}
	return out
}

// nodeMetrics returns the metrics of the simulated nodes among nodes: the sum of
// what their pods use. podsOf must select all pods of these nodes.
func (m metricsAPI) nodeMetrics(ctx context.Context, nodes []corev1.Node, podsOf metav1.ListOptions) ([]metricsv1beta1.NodeMetrics, error) {
	pods, err := m.client.CoreV1().Pods("").List(ctx, podsOf)
	if err != nil {
		return nil, err
	}
	type used struct{ cpu, memory int64 }
	by := map[string]used{}
	for i := range pods.Items {
		if p := &pods.Items[i]; p.Status.Phase == corev1.PodRunning {
			cpu, memory := usage(p)
			u := by[p.Spec.NodeName]
			by[p.Spec.NodeName] = used{u.cpu + cpu, u.memory + memory}
		}
	}
	out := []metricsv1beta1.NodeMetrics{}
	for _, n := range nodes {
		if !m.simulated(n.Name) {
			continue
		}
		out = append(out, metricsv1beta1.NodeMetrics{
			TypeMeta:   metav1.TypeMeta{Kind: "NodeMetrics", APIVersion: apiVersion},
			ObjectMeta: metav1.ObjectMeta{Name: n.Name, Labels: n.Labels, CreationTimestamp: metav1.NewTime(m.now())},
			Timestamp:  metav1.NewTime(m.now()), Window: metav1.Duration{Duration: metricsWindow},
			Usage: resources(by[n.Name].cpu, by[n.Name].memory),
		})
	}
	return out, nil
}

// usage returns what a pod uses, in thousandths of a CPU and bytes. An annotation
// that is not a quantity, or is negative, counts as zero.
func usage(p *corev1.Pod) (cpuMilli, memoryBytes int64) {
	if q, err := resource.ParseQuantity(p.Annotations[UsageCPUAnnotation]); err == nil {
		cpuMilli = max(0, q.MilliValue())
	}
	if q, err := resource.ParseQuantity(p.Annotations[UsageMemoryAnnotation]); err == nil {
		memoryBytes = max(0, q.Value())
	}
	return cpuMilli, memoryBytes
}

func resources(cpuMilli, memoryBytes int64) corev1.ResourceList {
	return corev1.ResourceList{
		corev1.ResourceCPU:    *resource.NewMilliQuantity(cpuMilli, resource.DecimalSI),
		corev1.ResourceMemory: *resource.NewQuantity(memoryBytes, resource.BinarySI),
	}
}

// table converts metrics to the Table that clients such as kubectl get and k9s ask
// for, and returns anything else unchanged.
func table(v any) any {
	t := metav1.Table{TypeMeta: metav1.TypeMeta{Kind: "Table", APIVersion: "meta.k8s.io/v1"}, ColumnDefinitions: []metav1.TableColumnDefinition{
		{Name: "Name", Type: "string", Format: "name"}, {Name: "cpu", Type: "string"}, {Name: "memory", Type: "string"}, {Name: "Window", Type: "string", Format: "duration"},
	}, Rows: []metav1.TableRow{}}
	row := func(o metav1.ObjectMeta, u corev1.ResourceList, w metav1.Duration) {
		meta := &metav1.PartialObjectMetadata{TypeMeta: metav1.TypeMeta{Kind: "PartialObjectMetadata", APIVersion: "meta.k8s.io/v1"}, ObjectMeta: o}
		t.Rows = append(t.Rows, metav1.TableRow{Cells: []any{o.Name, u.Cpu().String(), u.Memory().String(), w.Duration.String()}, Object: runtime.RawExtension{Object: meta}})
	}
	podRow := func(p metricsv1beta1.PodMetrics) {
		var cpu, memory int64
		for _, c := range p.Containers {
			cpu, memory = cpu+c.Usage.Cpu().MilliValue(), memory+c.Usage.Memory().Value()
		}
		row(p.ObjectMeta, resources(cpu, memory), p.Window)
	}
	switch m := v.(type) {
	case metricsv1beta1.NodeMetricsList:
		for _, n := range m.Items {
			row(n.ObjectMeta, n.Usage, n.Window)
		}
	case metricsv1beta1.PodMetricsList:
		for _, p := range m.Items {
			podRow(p)
		}
	case metricsv1beta1.NodeMetrics:
		row(m.ObjectMeta, m.Usage, m.Window)
	case metricsv1beta1.PodMetrics:
		podRow(m)
	default:
		return v
	}
	slices.SortFunc(t.Rows, func(a, b metav1.TableRow) int { return strings.Compare(fmt.Sprint(a.Cells[0]), fmt.Sprint(b.Cells[0])) })
	return t
}
