// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package apiserver

import (
	"strings"
	"testing"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	nodev1 "k8s.io/api/node/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	quantity "k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

// getPod creates a pod directly and returns it as stored.
func getPod(t *testing.T, s *Server, p *corev1.Pod) *corev1.Pod {
	t.Helper()
	must(t, s.Create(p))
	o, _ := s.Get(podsResource, p.Namespace, p.Name)
	return o.(*corev1.Pod)
}

func TestPodsAreCompleted(t *testing.T) {
	inBoth(t, func(t *testing.T, s *Server, k kubernetes.Interface) {
		p, err := k.CoreV1().Pods("default").Create(t.Context(), newPod("p", func(p *corev1.Pod) {
			p.Status.Phase = corev1.PodRunning
			p.Spec.Containers[0].Resources.Limits = corev1.ResourceList{corev1.ResourceMemory: quantity.MustParse("1Gi")}
		}), metav1.CreateOptions{})
		must(t, err)
		if p.Status.Phase != corev1.PodPending || p.Status.QOSClass != corev1.PodQOSBurstable {
			t.Errorf("status %+v", p.Status)
		}
		if p.Spec.SchedulerName != "default-scheduler" || *p.Spec.TerminationGracePeriodSeconds != 30 || p.Spec.RestartPolicy != corev1.RestartPolicyAlways || *p.Spec.Priority != 0 || *p.Spec.PreemptionPolicy != corev1.PreemptLowerPriority {
			t.Errorf("spec %+v", p.Spec)
		}
		if m := p.Spec.Containers[0].Resources.Requests[corev1.ResourceMemory]; m.String() != "1Gi" {
			t.Errorf("the memory limit makes a request of %s", m.String())
		}
		if len(p.Spec.Tolerations) != 2 || *p.Spec.Tolerations[1].TolerationSeconds != 300 {
			t.Errorf("tolerations %+v", p.Spec.Tolerations)
		}
		all := getPod(t, s, newPod("all", func(p *corev1.Pod) { p.Spec.Tolerations = []corev1.Toleration{{Operator: corev1.TolerationOpExists}} }))
		if len(all.Spec.Tolerations) != 1 {
			t.Errorf("a pod that tolerates all got %+v", all.Spec.Tolerations)
		}
		gated := getPod(t, s, newPod("gated", func(p *corev1.Pod) { p.Spec.SchedulingGates = []corev1.PodSchedulingGate{{Name: "example.com/wait"}} }))
		if c := gated.Status.Conditions; len(c) != 1 || c[0].Reason != corev1.PodReasonSchedulingGated {
			t.Errorf("a gated pod has the conditions %+v", c)
		}
	})
}

func TestPriorityClasses(t *testing.T) {
	inBoth(t, func(t *testing.T, s *Server, k kubernetes.Interface) {
		never := corev1.PreemptNever
		must(t, s.Create(&schedulingv1.PriorityClass{ObjectMeta: metav1.ObjectMeta{Name: "high"}, Value: 1000, PreemptionPolicy: &never}))
		high := getPod(t, s, newPod("high", func(p *corev1.Pod) { p.Spec.PriorityClassName = "high" }))
		if *high.Spec.Priority != 1000 || *high.Spec.PreemptionPolicy != never {
			t.Errorf("priority %d, preemption %s", *high.Spec.Priority, *high.Spec.PreemptionPolicy)
		}
		system := getPod(t, s, newPod("system", func(p *corev1.Pod) { p.Spec.PriorityClassName = "system-node-critical" }))
		if *system.Spec.Priority != 2000001000 {
			t.Errorf("priority %d", *system.Spec.Priority)
		}
		must(t, s.Create(&schedulingv1.PriorityClass{ObjectMeta: metav1.ObjectMeta{Name: "usual"}, Value: 7, GlobalDefault: true}))
		if p := getPod(t, s, newPod("usual")); *p.Spec.Priority != 7 || p.Spec.PriorityClassName != "usual" {
			t.Errorf("priority %d of class %q", *p.Spec.Priority, p.Spec.PriorityClassName)
		}
		for want, change := range map[string]func(*corev1.Pod){
			"no PriorityClass with name missing": func(p *corev1.Pod) { p.Spec.PriorityClassName = "missing" },
			"must not be provided":               func(p *corev1.Pod) { p.Spec.Priority = ptr[int32](5) },
		} {
			_, err := k.CoreV1().Pods("default").Create(t.Context(), newPod("bad", change), metav1.CreateOptions{})
			if !apierrors.IsForbidden(err) || !strings.Contains(err.Error(), want) {
				t.Errorf("want %q: %v", want, err)
			}
		}
	})
}

func TestRuntimeClassesAndMatchLabelKeys(t *testing.T) {
	inBoth(t, func(t *testing.T, s *Server, k kubernetes.Interface) {
		must(t, s.Create(&nodev1.RuntimeClass{
			ObjectMeta: metav1.ObjectMeta{Name: "kata"}, Handler: "kata",
			Overhead:   &nodev1.Overhead{PodFixed: corev1.ResourceList{corev1.ResourceCPU: quantity.MustParse("250m")}},
			Scheduling: &nodev1.Scheduling{NodeSelector: map[string]string{"kata": "yes"}},
		}))
		p := getPod(t, s, newPod("p", func(p *corev1.Pod) {
			p.Spec.RuntimeClassName = ptr("kata")
			p.Labels["hash"] = "1"
			p.Spec.TopologySpreadConstraints = []corev1.TopologySpreadConstraint{{
				MaxSkew: 1, TopologyKey: corev1.LabelHostname, WhenUnsatisfiable: corev1.DoNotSchedule,
				LabelSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "a"}}, MatchLabelKeys: []string{"hash", "missing"},
			}}
		}))
		if cpu := p.Spec.Overhead[corev1.ResourceCPU]; cpu.String() != "250m" || p.Spec.NodeSelector["kata"] != "yes" {
			t.Errorf("overhead %v, node selector %v", p.Spec.Overhead, p.Spec.NodeSelector)
		}
		if e := p.Spec.TopologySpreadConstraints[0].LabelSelector.MatchExpressions; len(e) != 1 || e[0].Key != "hash" || e[0].Values[0] != "1" {
			t.Errorf("the spread selects %+v", e)
		}
		_, err := k.CoreV1().Pods("default").Create(t.Context(), newPod("bad", func(p *corev1.Pod) { p.Spec.RuntimeClassName = ptr("missing") }), metav1.CreateOptions{})
		if !apierrors.IsForbidden(err) {
			t.Errorf("a missing RuntimeClass: %v", err)
		}
	})
}

func TestOtherObjectsAreCompleted(t *testing.T) {
	inBoth(t, func(t *testing.T, s *Server, k kubernetes.Interface) {
		ctx := t.Context()
		must(t, s.Create(&storagev1.StorageClass{
			ObjectMeta: metav1.ObjectMeta{Name: "usual", Annotations: map[string]string{"storageclass.kubernetes.io/is-default-class": "true"}}, Provisioner: "disk.csi.azure.com",
		}))
		claim, err := k.CoreV1().PersistentVolumeClaims("default").Create(ctx, &corev1.PersistentVolumeClaim{
			ObjectMeta: metav1.ObjectMeta{Name: "c"},
			Spec: corev1.PersistentVolumeClaimSpec{AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce}, Resources: corev1.VolumeResourceRequirements{
				Requests: corev1.ResourceList{corev1.ResourceStorage: quantity.MustParse("1Gi")},
			}},
		}, metav1.CreateOptions{})
		must(t, err)
		if *claim.Spec.StorageClassName != "usual" || claim.Status.Phase != corev1.ClaimPending || *claim.Spec.VolumeMode != corev1.PersistentVolumeFilesystem {
			t.Errorf("claim %+v", claim)
		}
		job, err := k.BatchV1().Jobs("default").Create(ctx, &batchv1.Job{ObjectMeta: metav1.ObjectMeta{Name: "j"}, Spec: batchv1.JobSpec{
			Template: corev1.PodTemplateSpec{Spec: func() corev1.PodSpec { s := newPod("").Spec; s.RestartPolicy = corev1.RestartPolicyNever; return s }()},
		}}, metav1.CreateOptions{})
		must(t, err)
		if uid := string(job.UID); job.Spec.Selector.MatchLabels[batchv1.ControllerUidLabel] != uid || job.Spec.Template.Labels[batchv1.JobNameLabel] != "j" || *job.Spec.Completions != 1 {
			t.Errorf("job %+v", job.Spec)
		}
		for name, conditions := range map[string][]corev1.NodeCondition{"new": nil, "ready": {{Type: corev1.NodeReady, Status: corev1.ConditionTrue}}} {
			n, err := k.CoreV1().Nodes().Create(ctx, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}, Status: corev1.NodeStatus{Conditions: conditions}}, metav1.CreateOptions{})
			must(t, err)
			if tainted := len(n.Spec.Taints) == 1 && n.Spec.Taints[0].Key == corev1.TaintNodeNotReady; tainted != (name == "new") {
				t.Errorf("node %s has the taints %v", name, n.Spec.Taints)
			}
		}
		ns, err := k.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "x"}}, metav1.CreateOptions{})
		must(t, err)
		if ns.Labels[corev1.LabelMetadataName] != "x" || ns.Status.Phase != corev1.NamespaceActive {
			t.Errorf("namespace %+v", ns)
		}
	})
}

func TestInvalidObjectsAreRefused(t *testing.T) {
	inBoth(t, func(t *testing.T, s *Server, k kubernetes.Interface) {
		ctx := t.Context()
		d := newDeployment("d", 1)
		d.Spec.Template.Labels = map[string]string{"other": "label"}
		if _, err := k.AppsV1().Deployments("default").Create(ctx, d, metav1.CreateOptions{}); !apierrors.IsInvalid(err) || !strings.Contains(err.Error(), "does not match template") {
			t.Errorf("a selector that does not match: %v", err)
		}
		p := newPod("p", func(p *corev1.Pod) {
			p.Spec.Containers[0].Resources.Limits = corev1.ResourceList{corev1.ResourceCPU: quantity.MustParse("1m")}
		})
		if _, err := k.CoreV1().Pods("default").Create(ctx, p, metav1.CreateOptions{}); !apierrors.IsInvalid(err) {
			t.Errorf("a request above the limit: %v", err)
		}
		good := newDeployment("good", 1)
		must(t, s.Create(good))
		good, err := k.AppsV1().Deployments("default").Get(ctx, "good", metav1.GetOptions{})
		must(t, err)
		good.Spec.Replicas = ptr[int32](-1)
		if _, err := k.AppsV1().Deployments("default").Update(ctx, good, metav1.UpdateOptions{}); !apierrors.IsInvalid(err) {
			t.Errorf("a negative number of replicas: %v", err)
		}
	})
}

func TestDryRunChangesNothing(t *testing.T) {
	inBoth(t, func(t *testing.T, s *Server, k kubernetes.Interface) {
		ctx, pods, dry := t.Context(), k.CoreV1().Pods("default"), []string{metav1.DryRunAll}
		must(t, s.Create(newPod("p")))
		version := s.Version()
		_, err := pods.Create(ctx, newPod("q"), metav1.CreateOptions{DryRun: dry})
		must(t, err)
		p, err := pods.Get(ctx, "p", metav1.GetOptions{})
		must(t, err)
		p.Labels["x"] = "y"
		p, err = pods.Update(ctx, p, metav1.UpdateOptions{DryRun: dry})
		must(t, err)
		must(t, pods.Delete(ctx, "p", metav1.DeleteOptions{DryRun: dry}))
		if p.Labels["x"] != "y" || s.Version() != version || s.Count(podsResource) != 1 {
			t.Errorf("labels %v, version %d after %d, %d pods", p.Labels, s.Version(), version, s.Count(podsResource))
		}
	})
}
