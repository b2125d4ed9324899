// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package scenario

import (
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

// task is a row of a trace.
type task struct {
	arrival, end time.Duration
	size         request
}

// readTrace returns the tasks of a CSV file in the order of their arrival. A task
// without an end has 0 there.
func readTrace(text string) ([]task, error) {
	r := csv.NewReader(strings.NewReader(text))
	head, err := r.Read()
	if err != nil {
		return nil, fmt.Errorf("reading the heading: %w", err)
	}
	column := map[string]int{}
	for i, name := range head {
		column[strings.TrimSpace(name)] = i
	}
	for _, name := range []string{"cpu_milli", "memory_mib", "creation_time"} {
		if _, ok := column[name]; !ok {
			return nil, fmt.Errorf("the heading has no column %s: it needs cpu_milli, memory_mib, creation_time, and may have num_gpu, and deletion_time or duration", name)
		}
	}
	var tasks []task
	for {
		row, err := r.Read()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("reading a row: %w", err)
		}
		line, _ := r.FieldPos(0)
		value := func(name string) float64 {
			i, ok := column[name]
			if !ok || strings.TrimSpace(row[i]) == "" {
				return 0
			}
			f, ferr := strconv.ParseFloat(strings.TrimSpace(row[i]), 64)
			if ferr != nil || f < 0 || f > 1e12 {
				err = fmt.Errorf("row in line %d: %s is %q: a number from 0 on is needed", line, name, row[i])
			}
			return f
		}
		t := task{
			arrival: time.Duration(value("creation_time") * float64(time.Second)),
			end:     time.Duration(value("deletion_time") * float64(time.Second)),
			size:    request{milliCPU: int64(value("cpu_milli")), memory: int64(value("memory_mib")) << 20, gpus: int64(value("num_gpu"))},
		}
		if d := value("duration"); d > 0 {
			t.end = t.arrival + time.Duration(d*float64(time.Second))
		}
		if err != nil {
			return nil, err
		}
		if t.end != 0 && t.end < t.arrival {
			return nil, fmt.Errorf("row in line %d: the task ends before it arrives", line)
		}
		tasks = append(tasks, t)
	}
	slices.SortStableFunc(tasks, func(a, b task) int { return int(a.arrival - b.arrival) })
	return tasks, nil
}

// openbSizes are frequent requests of a GPU cluster's tasks without GPUs, with how
// often they occur in a hundred.
var openbSizes = []struct {
	milliCPU, mib int64
	weight        int
}{
	{1000, 2048, 8}, {2000, 4096, 11}, {4000, 8192, 21}, {4000, 15258, 9}, {6000, 12288, 7},
	{8000, 16384, 14}, {8000, 30517, 10}, {11400, 44236, 6}, {16000, 32768, 7}, {16000, 61440, 4}, {32000, 122880, 3},
}

// makeTrace returns a day in the shape of the openb trace: few sizes with large
// requests, arrivals that swing by a factor of three over the day and come in bunches,
// and lifetimes from minutes to many hours.
func makeTrace(rng *rand.Rand, n int) []task {
	const day = 24 * time.Hour
	total := 0
	for _, s := range openbSizes {
		total += s.weight
	}
	var tasks []task
	for len(tasks) < n {
		at := time.Duration(rng.Int64N(int64(day)))
		// The afternoon has three times the arrivals of the night.
		load := 0.5 - 0.25*math.Cos(2*math.Pi*float64(at-3*time.Hour)/float64(day))
		if rng.Float64() > load/0.75 {
			continue
		}
		pick := rng.IntN(total)
		i := 0
		for ; pick >= openbSizes[i].weight; i++ {
			pick -= openbSizes[i].weight
		}
		// One of eight arrivals is a bunch of equal tasks.
		bunch := 1
		if rng.IntN(8) == 0 {
			bunch = 2 + rng.IntN(15)
		}
		for range min(bunch, n-len(tasks)) {
			life := time.Duration(math.Exp(math.Log(20*60)+1.3*rng.NormFloat64()) * float64(time.Second))
			life = min(max(life, 30*time.Second), day)
			tasks = append(tasks, task{
				arrival: at, end: at + life.Round(time.Second),
				size: request{milliCPU: openbSizes[i].milliCPU, memory: openbSizes[i].mib << 20},
			})
		}
	}
	slices.SortStableFunc(tasks, func(a, b task) int { return int(a.arrival - b.arrival) })
	return tasks
}

// trace adds the tasks of a trace.
func (c *compiler) trace(at time.Duration, event int, t *Trace) error {
	rng := Stream(c.seed, fmt.Sprintf("trace %s/%s%s", namespaceOr(t.Namespace), t.File, t.Shape))
	line := c.scenario.Events[event].Line
	var tasks []task
	if t.File != "" {
		var err error
		if tasks, err = readTrace(c.scenario.Source.Files[t.File]); err != nil {
			return fmt.Errorf("line %d: the trace %s: %w", t.Line, t.File, err)
		}
	} else {
		n := t.Tasks
		if n == 0 {
			n = 8000
		}
		tasks = makeTrace(rng, n)
	}
	speed := t.Speed
	if speed == 0 {
		speed = 1
	}
	ns := namespaceOr(t.Namespace)
	c.namespace(at, line, ns)
	number := 0
	for _, k := range tasks {
		if k.size.gpus > 0 && !t.GPUs {
			continue
		}
		if t.Share > 0 && rng.Float64() >= float64(t.Share) {
			continue
		}
		if k.arrival < time.Duration(t.Skip) {
			continue
		}
		from := time.Duration(float64(k.arrival-time.Duration(t.Skip)) / speed)
		if t.For > 0 && from >= time.Duration(t.For) {
			break
		}
		life := time.Duration(float64(k.end-k.arrival) / speed)
		if k.end == 0 {
			life = 0
		}
		name := fmt.Sprintf("task-%05d", number)
		number++
		if t.As == "job" {
			c.add(at+from, line, Apply{Objects: []runtime.Object{taskJob(name, ns, k.size, life)}})
			continue
		}
		c.add(at+from, line, Apply{Objects: []runtime.Object{taskSet(name, ns, k.size)}})
		if life > 0 {
			c.add(at+from+life, line, Delete{Ref: Ref{Kind: "ReplicaSet", Namespace: ns, Name: name}})
		}
	}
	if number == 0 {
		return fmt.Errorf("line %d: the trace has no tasks in the part that is taken: change skip, for or share", t.Line)
	}
	return nil
}

func taskTemplate(name string, size request) corev1.PodTemplateSpec {
	grace := int64(30)
	return corev1.PodTemplateSpec{
		ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"app": name}},
		Spec: corev1.PodSpec{
			TerminationGracePeriodSeconds: &grace,
			Containers:                    []corev1.Container{{Name: "c", Image: image, Resources: corev1.ResourceRequirements{Requests: size.list(), Limits: gpuLimits(size)}}},
		},
	}
}

// gpuLimits returns limits for GPUs, which must equal the requests.
func gpuLimits(size request) corev1.ResourceList {
	if size.gpus == 0 {
		return nil
	}
	return corev1.ResourceList{"nvidia.com/gpu": size.list()["nvidia.com/gpu"]}
}

// taskSet returns a ReplicaSet of one pod.
func taskSet(name, namespace string, size request) runtime.Object {
	one := int32(1)
	o := &appsv1.ReplicaSet{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: namespace, Labels: map[string]string{"app": name, FamilyLabel: "task"}},
		Spec: appsv1.ReplicaSetSpec{
			Replicas: &one, Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": name}}, Template: taskTemplate(name, size),
		},
	}
	o.SetGroupVersionKind(appsv1.SchemeGroupVersion.WithKind("ReplicaSet"))
	return o
}

// taskJob returns a Job of one pod that runs for life; without one it runs for ever.
func taskJob(name, namespace string, size request, life time.Duration) runtime.Object {
	template := taskTemplate(name, size)
	template.Spec.RestartPolicy = corev1.RestartPolicyNever
	if life > 0 {
		template.Annotations = map[string]string{RunForAnnotation: life.String()}
	}
	after := int32(60)
	o := &batchv1.Job{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: namespace, Labels: map[string]string{"app": name, FamilyLabel: "task"}},
		Spec:       batchv1.JobSpec{Template: template, TTLSecondsAfterFinished: &after},
	}
	o.SetGroupVersionKind(batchv1.SchemeGroupVersion.WithKind("Job"))
	return o
}
