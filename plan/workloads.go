// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"cmp"
	"fmt"
	"hash/fnv"
	"slices"
	"strconv"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// workloads holds the objects that controllers turn into pods.
type workloads struct {
	deployments  []*appsv1.Deployment
	replicaSets  []*appsv1.ReplicaSet
	controllers  []*corev1.ReplicationController
	statefulSets []*appsv1.StatefulSet
	jobs         []*batchv1.Job
	cronJobs     []*batchv1.CronJob
	scalers      []*scaler
}

// add takes an object that a controller turns into pods and reports whether it is one.
func (w *workloads) add(o client.Object) bool {
	switch t := o.(type) {
	case *appsv1.Deployment:
		w.deployments = append(w.deployments, t)
	case *appsv1.ReplicaSet:
		w.replicaSets = append(w.replicaSets, t)
	case *corev1.ReplicationController:
		w.controllers = append(w.controllers, t)
	case *appsv1.StatefulSet:
		w.statefulSets = append(w.statefulSets, t)
	case *batchv1.Job:
		w.jobs = append(w.jobs, t)
	case *batchv1.CronJob:
		w.cronJobs = append(w.cronJobs, t)
	default:
		if s := scalerOf(o); s != nil {
			w.scalers = append(w.scalers, s)
			return true
		}
		return false
	}
	return true
}

// owner identifies the controller of pods.
type owner struct{ kind, namespace, name string }

// workload is what a controller makes pods from.
type workload struct {
	owner
	object   client.Object
	version  string // API version of the kind
	template *corev1.PodTemplateSpec
	// names are the names of the pods.
	names []string
	// each completes the pod of an index in names. It may be nil.
	each   func(i int, p *corev1.Pod)
	claims []corev1.PersistentVolumeClaim
}

// expandWorkloads adds the pods that the controllers of the workloads would create.
// Workloads whose pods are given have them already.
func (m *manifests) expandWorkloads() {
	owned := map[owner]bool{}
	for _, p := range m.Objects.Pods {
		if o := metav1.GetControllerOfNoCopy(p); o != nil {
			owned[owner{o.Kind, p.Namespace, o.Name}] = true
		}
	}
	m.replicaSetsAndDeployments(owned)
	for _, c := range m.workloads.controllers {
		m.Objects.Add(c)
		if c.Spec.Template == nil || owned[owner{"ReplicationController", c.Namespace, c.Name}] {
			continue
		}
		n := m.replicas("ReplicationController", c, c.Spec.Replicas)
		m.expand(workload{owner: owner{"ReplicationController", c.Namespace, c.Name}, object: c, version: "v1", template: c.Spec.Template, names: padded(c.Name, n)})
	}
	for _, s := range m.workloads.statefulSets {
		m.Objects.Add(s)
		if owned[owner{"StatefulSet", s.Namespace, s.Name}] {
			continue
		}
		m.statefulSet(s)
	}
	for _, j := range m.workloads.jobs {
		if !owned[owner{"Job", j.Namespace, j.Name}] {
			m.job(j)
		}
	}
	for _, c := range m.workloads.cronJobs {
		m.cronJob(c)
	}
	for _, s := range m.workloads.scalers {
		if !s.used {
			m.note("%s scales %s %s, which is not in the files: it does not affect the plan", s.name, s.kind, s.target)
		}
	}
}

func (m *manifests) replicaSetsAndDeployments(owned map[owner]bool) {
	given := map[string]bool{} // Deployments whose pods are given
	for _, rs := range m.workloads.replicaSets {
		have := owned[owner{"ReplicaSet", rs.Namespace, rs.Name}]
		m.Objects.Add(rs)
		if o := metav1.GetControllerOfNoCopy(rs); o != nil && o.Kind == "Deployment" {
			if have {
				given[rs.Namespace+"/"+o.Name] = true
			}
			continue // expanded with its Deployment, or its pods are given
		}
		if !have {
			n := m.replicas("ReplicaSet", rs, rs.Spec.Replicas)
			m.expand(workload{owner: owner{"ReplicaSet", rs.Namespace, rs.Name}, object: rs, version: "apps/v1", template: &rs.Spec.Template, names: padded(rs.Name, n)})
		}
	}
	for _, d := range m.workloads.deployments {
		if given[d.Namespace+"/"+d.Name] {
			continue
		}
		if d.Spec.Paused {
			m.note("Deployment %s/%s is paused: its pods are not created, and not planned, until it is resumed", d.Namespace, d.Name)
			continue
		}
		rs := replicaSetOf(d)
		m.Objects.Add(rs)
		n := m.replicas("Deployment", d, d.Spec.Replicas)
		m.expand(workload{owner: owner{"ReplicaSet", rs.Namespace, rs.Name}, object: rs, version: "apps/v1", template: &rs.Spec.Template, names: padded(d.Name, n)})
	}
}

func replicaSetOf(d *appsv1.Deployment) *appsv1.ReplicaSet {
	h := fnv.New32a()
	fmt.Fprintf(h, "%s/%s/%v", d.Namespace, d.Name, d.Spec.Template)
	hash := strconv.FormatUint(uint64(h.Sum32()), 36)
	rs := &appsv1.ReplicaSet{ObjectMeta: metav1.ObjectMeta{Namespace: d.Namespace, Name: d.Name + "-" + hash, UID: types.UID("replicaset/" + d.Namespace + "/" + d.Name)}}
	rs.Spec.Selector = d.Spec.Selector.DeepCopy()
	rs.Spec.Template = *d.Spec.Template.DeepCopy()
	if rs.Spec.Template.Labels == nil {
		rs.Spec.Template.Labels = map[string]string{}
	}
	rs.Spec.Template.Labels[appsv1.DefaultDeploymentUniqueLabelKey] = hash
	return rs
}

// replicas returns the number of pods of a workload: what it says, else 1, within the
// bounds of its autoscaler.
func (m *manifests) replicas(kind string, o client.Object, want *int32) int {
	n := int32(1)
	if want != nil {
		n = *want
	}
	for _, s := range m.workloads.scalers {
		if s.namespace != o.GetNamespace() || s.kind != kind || s.target != o.GetName() {
			continue
		}
		s.used = true
		if want != nil && *want == 0 {
			m.note("%s is off while %s %s/%s has 0 replicas", s.name, kind, s.namespace, s.target)
			continue
		}
		n = max(n, s.least)
		if s.most > 0 {
			n = min(n, s.most)
		}
		m.note("%s decides how many pods %s %s/%s has, %d to %d: the plan is for %d", s.name, kind, s.namespace, s.target, s.least, max(s.most, s.least), n)
	}
	return int(max(n, 0))
}

// padded returns n names of pods, which sort in the order of their numbers.
func padded(name string, n int) []string {
	width := len(strconv.Itoa(max(n-1, 0)))
	out := make([]string, n)
	for i := range out {
		out[i] = fmt.Sprintf("%s-%0*d", name, width, i)
	}
	return out
}

func (m *manifests) statefulSet(s *appsv1.StatefulSet) {
	first := 0
	if s.Spec.Ordinals != nil {
		first = int(s.Spec.Ordinals.Start)
	}
	names := make([]string, m.replicas("StatefulSet", s, s.Spec.Replicas))
	for i := range names {
		names[i] = fmt.Sprintf("%s-%d", s.Name, first+i)
	}
	m.expand(workload{
		owner: owner{"StatefulSet", s.Namespace, s.Name}, object: s, version: "apps/v1", template: &s.Spec.Template, names: names, claims: s.Spec.VolumeClaimTemplates,
		each: func(i int, p *corev1.Pod) {
			label(p, appsv1.StatefulSetPodNameLabel, p.Name)
			label(p, appsv1.PodIndexLabel, strconv.Itoa(first+i))
		},
	})
}

// jobManager is the value of spec.managedBy for Kubernetes' own controller.
const jobManager = "kubernetes.io/job-controller"

// job adds the pods that a Job has yet to run at the same time.
func (m *manifests) job(j *batchv1.Job) {
	if finished(j) {
		return
	}
	switch {
	case j.Spec.Suspend != nil && *j.Spec.Suspend:
		m.note("ignored Job %s/%s: it is suspended", j.Namespace, j.Name)
		return
	case j.Spec.ManagedBy != nil && *j.Spec.ManagedBy != jobManager:
		m.note("ignored Job %s/%s: %s decides when it has pods", j.Namespace, j.Name, *j.Spec.ManagedBy)
		return
	}
	indexed := j.Spec.CompletionMode != nil && *j.Spec.CompletionMode == batchv1.IndexedCompletion
	w := workload{owner: owner{"Job", j.Namespace, j.Name}, object: j, version: "batch/v1", template: &j.Spec.Template}
	var indexes []int
	if indexed {
		indexes = openIndexes(j)
		for _, i := range indexes {
			w.names = append(w.names, fmt.Sprintf("%s-%d", j.Name, i))
		}
	} else {
		w.names = padded(j.Name, openPods(j))
	}
	w.each = func(i int, p *corev1.Pod) {
		label(p, batchv1.JobNameLabel, j.Name)
		label(p, "job-name", j.Name)
		if !indexed {
			return
		}
		label(p, batchv1.JobCompletionIndexAnnotation, strconv.Itoa(indexes[i]))
		if p.Annotations == nil {
			p.Annotations = map[string]string{}
		}
		p.Annotations[batchv1.JobCompletionIndexAnnotation] = strconv.Itoa(indexes[i])
	}
	m.expand(w)
}

// finished reports whether a Job creates no pods any more. Only a Job that succeeded
// has a completion time.
func finished(j *batchv1.Job) bool {
	return j.Status.CompletionTime != nil || slices.ContainsFunc(j.Status.Conditions, func(c batchv1.JobCondition) bool {
		switch c.Type {
		case batchv1.JobComplete, batchv1.JobFailed, batchv1.JobSuccessCriteriaMet, batchv1.JobFailureTarget:
			return c.Status == corev1.ConditionTrue
		}
		return false
	})
}

// openPods returns the number of pods that a Job runs now. One without a number of
// completions starts no further pod after the first success.
func openPods(j *batchv1.Job) int {
	n := int32(1)
	if j.Spec.Parallelism != nil {
		n = *j.Spec.Parallelism
	}
	switch {
	case j.Spec.Completions != nil:
		n = min(n, *j.Spec.Completions-j.Status.Succeeded)
	case j.Status.Succeeded > 0:
		n = min(n, j.Status.Active)
	}
	return int(max(n, 0))
}

// openIndexes returns the indexes that an indexed Job runs now: the first ones that
// have neither succeeded nor failed for good.
func openIndexes(j *batchv1.Job) []int {
	if j.Spec.Completions == nil {
		return nil
	}
	done := parseIndexes(j.Status.CompletedIndexes)
	if j.Status.FailedIndexes != nil {
		done = append(done, parseIndexes(*j.Status.FailedIndexes)...)
	}
	n := 1
	if j.Spec.Parallelism != nil {
		n = int(*j.Spec.Parallelism)
	}
	var out []int
	for i := 0; i < int(*j.Spec.Completions) && len(out) < n; i++ {
		if !slices.ContainsFunc(done, func(r [2]int) bool { return r[0] <= i && i <= r[1] }) {
			out = append(out, i)
		}
	}
	return out
}

// parseIndexes returns the ranges in a text such as "1,3-5,7". What is no number is
// left out.
func parseIndexes(s string) [][2]int {
	var out [][2]int
	for part := range strings.SplitSeq(s, ",") {
		from, to, ok := strings.Cut(part, "-")
		if !ok {
			to = from
		}
		a, errA := strconv.Atoi(from)
		b, errB := strconv.Atoi(to)
		if cmp.Or(errA, errB) == nil {
			out = append(out, [2]int{a, b})
		}
	}
	return out
}

// cronJob adds the pods of one run of a CronJob, if they are asked for.
func (m *manifests) cronJob(c *batchv1.CronJob) {
	switch {
	case !m.cronRuns:
		m.note("ignored CronJob %s/%s: its schedule is not planned; --cron-jobs plans one run of each", c.Namespace, c.Name)
	case c.Spec.Suspend != nil && *c.Spec.Suspend:
		m.note("ignored CronJob %s/%s: it is suspended", c.Namespace, c.Name)
	default:
		j := &batchv1.Job{ObjectMeta: *c.Spec.JobTemplate.ObjectMeta.DeepCopy(), Spec: *c.Spec.JobTemplate.Spec.DeepCopy()}
		j.Namespace, j.Name, j.UID = c.Namespace, c.Name+"-run", types.UID("cronjob/"+c.Namespace+"/"+c.Name)
		m.job(j)
	}
}

// expand adds the pods of a workload.
func (m *manifests) expand(w workload) {
	defaultPod(&w.template.Spec)
	if w.object.GetUID() == "" {
		w.object.SetUID(types.UID(strings.ToLower(w.kind) + "/" + w.namespace + "/" + w.object.GetName()))
	}
	yes := true
	for i, name := range w.names {
		p := &corev1.Pod{ObjectMeta: *w.template.ObjectMeta.DeepCopy(), Spec: *w.template.Spec.DeepCopy()}
		p.Namespace, p.Name, p.GenerateName, p.UID = w.namespace, name, "", ""
		p.OwnerReferences = []metav1.OwnerReference{{APIVersion: w.version, Kind: w.kind, Name: w.object.GetName(), UID: w.object.GetUID(), Controller: &yes}}
		if w.each != nil {
			w.each(i, p)
		}
		m.pod(p)
		for _, c := range w.claims {
			m.claim(p, c.Name, c.Spec)
			p.Spec.Volumes = slices.DeleteFunc(p.Spec.Volumes, func(v corev1.Volume) bool { return v.Name == c.Name })
			p.Spec.Volumes = append(p.Spec.Volumes, corev1.Volume{Name: c.Name, VolumeSource: corev1.VolumeSource{
				PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: c.Name + "-" + p.Name},
			}})
		}
	}
}

func label(p *corev1.Pod, key, value string) {
	if p.Labels == nil {
		p.Labels = map[string]string{}
	}
	p.Labels[key] = value
}

// claim adds the claim that the StatefulSet controller would create, unless it is
// given.
func (m *manifests) claim(p *corev1.Pod, template string, spec corev1.PersistentVolumeClaimSpec) {
	name := template + "-" + p.Name
	if slices.ContainsFunc(m.Objects.PVCs, func(c *corev1.PersistentVolumeClaim) bool { return c.Namespace == p.Namespace && c.Name == name }) {
		return
	}
	m.Objects.PVCs = append(m.Objects.PVCs, &corev1.PersistentVolumeClaim{
		ObjectMeta: metav1.ObjectMeta{Namespace: p.Namespace, Name: name}, Spec: *spec.DeepCopy(), Status: corev1.PersistentVolumeClaimStatus{Phase: corev1.ClaimPending},
	})
}
