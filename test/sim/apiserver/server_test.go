// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package apiserver

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	quantity "k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"

	"github.com/nap-aks/nap/apis"
)

var podsResource = corev1.SchemeGroupVersion.WithResource("pods")

// newServer returns a server with all custom resources of nap.
func newServer(t testing.TB, o Options) *Server {
	t.Helper()
	if o.CRDs == nil {
		o.CRDs = apis.CRDs()
	}
	s, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// proto returns a configuration that speaks protobuf.
func proto(c *rest.Config) *rest.Config {
	c.ContentType = runtime.ContentTypeProtobuf
	c.AcceptContentTypes = runtime.ContentTypeProtobuf + "," + runtime.ContentTypeJSON
	return c
}

func clientset(t testing.TB, c *rest.Config) kubernetes.Interface {
	t.Helper()
	k, err := kubernetes.NewForConfig(c)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// newPod returns a pod that the API server accepts.
func newPod(name string, change ...func(*corev1.Pod)) *corev1.Pod {
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name, Labels: map[string]string{"app": "a"}},
		Spec: corev1.PodSpec{Containers: []corev1.Container{{
			Name: "c", Image: "i", Resources: corev1.ResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceCPU: quantity.MustParse("100m")}},
		}}},
	}
	for _, f := range change {
		f(p)
	}
	return p
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// inBoth runs a test with a client that speaks JSON and with one that speaks protobuf.
func inBoth(t *testing.T, f func(t *testing.T, s *Server, k kubernetes.Interface)) {
	for _, format := range []string{"json", "protobuf"} {
		t.Run(format, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newServer(t, Options{Seed: 1})
				c := s.Config("test")
				if format == "protobuf" {
					c = proto(c)
				}
				f(t, s, clientset(t, c))
			})
		})
	}
}

func TestObjectsGoInAndComeBack(t *testing.T) {
	inBoth(t, func(t *testing.T, s *Server, k kubernetes.Interface) {
		ctx := t.Context()
		pods := k.CoreV1().Pods("default")
		created, err := pods.Create(ctx, newPod("p"), metav1.CreateOptions{})
		must(t, err)
		if created.UID == "" || created.ResourceVersion == "" || created.Generation != 1 || !created.CreationTimestamp.Equal(ptr(now())) {
			t.Errorf("a new pod has metadata %+v", created.ObjectMeta)
		}
		got, err := pods.Get(ctx, "p", metav1.GetOptions{})
		must(t, err)
		if !reflect.DeepEqual(got, created) {
			t.Errorf("get returns\n%+v, create returned\n%+v", got, created)
		}
		got.Labels["more"] = "yes"
		updated, err := pods.Update(ctx, got, metav1.UpdateOptions{})
		must(t, err)
		if updated.Labels["more"] != "yes" || updated.ResourceVersion == created.ResourceVersion || updated.Generation != 1 {
			t.Errorf("after an update: %+v", updated.ObjectMeta)
		}
		for i := range 9 {
			_, err := pods.Create(ctx, newPod(fmt.Sprintf("q%d", i)), metav1.CreateOptions{})
			must(t, err)
		}
		list, err := pods.List(ctx, metav1.ListOptions{})
		must(t, err)
		if len(list.Items) != 10 || list.Items[0].Name != "p" || list.ResourceVersion != fmt.Sprint(s.Version()) {
			t.Fatalf("a list has %d items, version %s", len(list.Items), list.ResourceVersion)
		}
		if !reflect.DeepEqual(&list.Items[0], updated) {
			t.Errorf("the list has\n%+v, update returned\n%+v", list.Items[0], updated)
		}
		must(t, pods.Delete(ctx, "p", metav1.DeleteOptions{}))
		if _, err := pods.Get(ctx, "p", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
			t.Errorf("getting a deleted pod: %v", err)
		}
		if _, err := pods.Create(ctx, newPod("q1"), metav1.CreateOptions{}); !apierrors.IsAlreadyExists(err) {
			t.Errorf("creating a pod twice: %v", err)
		}
		if _, err := k.CoreV1().Pods("nowhere").Create(ctx, newPod("p", func(p *corev1.Pod) { p.Namespace = "" }), metav1.CreateOptions{}); !apierrors.IsNotFound(err) {
			t.Errorf("creating a pod in a missing namespace: %v", err)
		}
	})
}

func TestListsInPagesAreOfOneMoment(t *testing.T) {
	inBoth(t, func(t *testing.T, s *Server, k kubernetes.Interface) {
		for i := range 5 {
			must(t, s.Create(newPod(fmt.Sprintf("p%d", i))))
		}
		pods := k.CoreV1().Pods("")
		first, err := pods.List(t.Context(), metav1.ListOptions{Limit: 2})
		must(t, err)
		if len(first.Items) != 2 || *first.RemainingItemCount != 3 {
			t.Fatalf("the first page has %d items, %v remain", len(first.Items), first.RemainingItemCount)
		}
		must(t, s.Delete(podsResource, "default", "p4"))
		rest, err := pods.List(t.Context(), metav1.ListOptions{Limit: 5, Continue: first.Continue})
		must(t, err)
		if len(rest.Items) != 3 || rest.ResourceVersion != first.ResourceVersion || rest.Continue != "" {
			t.Errorf("the rest has %d items, version %s after %s", len(rest.Items), rest.ResourceVersion, first.ResourceVersion)
		}
		s.Restart()
		if _, err := pods.List(t.Context(), metav1.ListOptions{Limit: 2, Continue: first.Continue}); !apierrors.IsResourceExpired(err) {
			t.Errorf("continuing after a restart: %v", err)
		}
	})
}

func TestConflicts(t *testing.T) {
	inBoth(t, func(t *testing.T, s *Server, k kubernetes.Interface) {
		ctx, pods := t.Context(), k.CoreV1().Pods("default")
		old, err := pods.Create(ctx, newPod("p"), metav1.CreateOptions{})
		must(t, err)
		change := old.DeepCopy()
		change.Labels["x"] = "1"
		_, err = pods.Update(ctx, change, metav1.UpdateOptions{})
		must(t, err)
		change.Labels["x"] = "2"
		if _, err := pods.Update(ctx, change, metav1.UpdateOptions{}); !apierrors.IsConflict(err) {
			t.Errorf("updating an old version: %v", err)
		}
		if _, err := pods.UpdateStatus(ctx, change, metav1.UpdateOptions{}); !apierrors.IsConflict(err) {
			t.Errorf("updating the status of an old version: %v", err)
		}
		change.ResourceVersion = ""
		_, err = pods.Update(ctx, change, metav1.UpdateOptions{})
		must(t, err)
		change.UID = "other"
		if _, err := pods.Update(ctx, change, metav1.UpdateOptions{}); !apierrors.IsConflict(err) {
			t.Errorf("updating another object of that name: %v", err)
		}
		for _, p := range []metav1.Preconditions{{UID: &change.UID}, {ResourceVersion: &old.ResourceVersion}} {
			if err := pods.Delete(ctx, "p", metav1.DeleteOptions{Preconditions: &p}); !apierrors.IsConflict(err) {
				t.Errorf("deleting with the precondition %+v: %v", p, err)
			}
		}
		must(t, pods.Delete(ctx, "p", metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &old.UID}}))
	})
}

func TestNothingNewIsNotWritten(t *testing.T) {
	inBoth(t, func(t *testing.T, s *Server, k kubernetes.Interface) {
		p, err := k.CoreV1().Pods("default").Create(t.Context(), newPod("p"), metav1.CreateOptions{})
		must(t, err)
		before := s.Version()
		again, err := k.CoreV1().Pods("default").Update(t.Context(), p, metav1.UpdateOptions{})
		must(t, err)
		if s.Version() != before || again.ResourceVersion != p.ResourceVersion {
			t.Errorf("an update without a change made version %d of %d", s.Version(), before)
		}
	})
}

func TestStatusAndSpecAreWrittenApart(t *testing.T) {
	inBoth(t, func(t *testing.T, s *Server, k kubernetes.Interface) {
		ctx, deployments := t.Context(), k.AppsV1().Deployments("default")
		d, err := deployments.Create(ctx, newDeployment("d", 3), metav1.CreateOptions{})
		must(t, err)
		if d.Status.Replicas != 0 || d.Generation != 1 || *d.Spec.RevisionHistoryLimit != 10 {
			t.Errorf("a new deployment: generation %d, status %+v", d.Generation, d.Status)
		}
		d.Status.Replicas, d.Spec.Replicas = 7, ptr[int32](9)
		d, err = deployments.UpdateStatus(ctx, d, metav1.UpdateOptions{})
		must(t, err)
		if d.Status.Replicas != 7 || *d.Spec.Replicas != 3 || d.Generation != 1 {
			t.Errorf("after a status update: %d replicas of %d, generation %d", d.Status.Replicas, *d.Spec.Replicas, d.Generation)
		}
		d.Status.Replicas, d.Spec.Replicas = 1, ptr[int32](9)
		d, err = deployments.Update(ctx, d, metav1.UpdateOptions{})
		must(t, err)
		if d.Status.Replicas != 7 || *d.Spec.Replicas != 9 || d.Generation != 2 {
			t.Errorf("after an update: %d replicas of %d, generation %d", d.Status.Replicas, *d.Spec.Replicas, d.Generation)
		}
		node, err := k.CoreV1().Nodes().Create(ctx, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n"}, Status: corev1.NodeStatus{Phase: corev1.NodeRunning}}, metav1.CreateOptions{})
		must(t, err)
		if node.Status.Phase != corev1.NodeRunning || node.Generation != 0 {
			t.Errorf("a node registers with status %+v, generation %d", node.Status, node.Generation)
		}
	})
}

func TestPodsAreDeletedGracefully(t *testing.T) {
	inBoth(t, func(t *testing.T, s *Server, k kubernetes.Interface) {
		ctx, pods := t.Context(), k.CoreV1().Pods("default")
		_, err := pods.Create(ctx, newPod("p", onNode("n")), metav1.CreateOptions{})
		must(t, err)
		must(t, pods.Delete(ctx, "p", metav1.DeleteOptions{}))
		p, err := pods.Get(ctx, "p", metav1.GetOptions{})
		must(t, err)
		if *p.DeletionGracePeriodSeconds != 30 || time.Until(p.DeletionTimestamp.Time) != 30*time.Second || p.Generation != 2 {
			t.Errorf("after the deletion: %v seconds until %v, generation %d", *p.DeletionGracePeriodSeconds, p.DeletionTimestamp, p.Generation)
		}
		version := s.Version()
		must(t, pods.Delete(ctx, "p", metav1.DeleteOptions{GracePeriodSeconds: ptr[int64](60)}))
		if s.Version() != version {
			t.Error("a second deletion made the grace period longer")
		}
		must(t, pods.Delete(ctx, "p", metav1.DeleteOptions{GracePeriodSeconds: ptr[int64](5)}))
		p, err = pods.Get(ctx, "p", metav1.GetOptions{})
		must(t, err)
		if *p.DeletionGracePeriodSeconds != 5 || time.Until(p.DeletionTimestamp.Time) != 5*time.Second {
			t.Errorf("after a shorter deletion: %v seconds until %v", *p.DeletionGracePeriodSeconds, p.DeletionTimestamp)
		}
		p.Labels["late"] = "yes"
		p, err = pods.Update(ctx, p, metav1.UpdateOptions{})
		must(t, err)
		p.Finalizers = []string{"example.com/too-late"}
		if _, err := pods.Update(ctx, p, metav1.UpdateOptions{}); !apierrors.IsInvalid(err) {
			t.Errorf("adding a finalizer to a pod that is being deleted: %v", err)
		}
		must(t, pods.Delete(ctx, "p", metav1.DeleteOptions{GracePeriodSeconds: ptr[int64](0)}))
		if _, err := pods.Get(ctx, "p", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
			t.Errorf("the kubelet has stopped the pod, getting it: %v", err)
		}
		// Nobody has to stop these.
		must(t, s.Create(newPod("unbound")))
		must(t, s.Create(newPod("done", onNode("n"))))
		done, err := pods.Get(ctx, "done", metav1.GetOptions{})
		must(t, err)
		done.Status.Phase = corev1.PodSucceeded
		_, err = pods.UpdateStatus(ctx, done, metav1.UpdateOptions{})
		must(t, err)
		must(t, pods.DeleteCollection(ctx, metav1.DeleteOptions{}, metav1.ListOptions{LabelSelector: "app=a"}))
		if n := s.Count(podsResource); n != 0 {
			t.Errorf("%d pods are left", n)
		}
	})
}

func TestFinalizersKeepObjects(t *testing.T) {
	inBoth(t, func(t *testing.T, s *Server, k kubernetes.Interface) {
		ctx, pods := t.Context(), k.CoreV1().Pods("default")
		_, err := pods.Create(ctx, newPod("p", onNode("n"), func(p *corev1.Pod) { p.Finalizers = []string{"example.com/keep"} }), metav1.CreateOptions{})
		must(t, err)
		must(t, pods.Delete(ctx, "p", metav1.DeleteOptions{}))
		p, err := pods.Get(ctx, "p", metav1.GetOptions{})
		must(t, err)
		p.Finalizers = nil
		_, err = pods.Update(ctx, p, metav1.UpdateOptions{})
		must(t, err) // still waits for the kubelet
		_, err = pods.Get(ctx, "p", metav1.GetOptions{})
		must(t, err)
		must(t, pods.Delete(ctx, "p", metav1.DeleteOptions{GracePeriodSeconds: ptr[int64](0)}))
		if s.Count(podsResource) != 0 {
			t.Error("the pod is still there")
		}
		var deleted []string
		s.Subscribe(func(e Event) {
			if e.Type == watch.Deleted {
				deleted = append(deleted, accessor(e.Object).GetName())
			}
		})
		_, err = k.CoreV1().ConfigMaps("default").Create(ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "c", Finalizers: []string{"example.com/keep"}}}, metav1.CreateOptions{})
		must(t, err)
		must(t, k.CoreV1().ConfigMaps("default").Delete(ctx, "c", metav1.DeleteOptions{}))
		c, err := k.CoreV1().ConfigMaps("default").Get(ctx, "c", metav1.GetOptions{})
		must(t, err)
		if c.DeletionTimestamp == nil || len(deleted) > 0 {
			t.Errorf("deleted at %v, gone %v", c.DeletionTimestamp, deleted)
		}
		c.Finalizers = nil
		_, err = k.CoreV1().ConfigMaps("default").Update(ctx, c, metav1.UpdateOptions{})
		must(t, err)
		if !slices.Equal(deleted, []string{"c"}) {
			t.Errorf("without its finalizer, gone: %v", deleted)
		}
		orphan := metav1.DeletePropagationOrphan
		_, err = k.AppsV1().Deployments("default").Create(ctx, newDeployment("d", 1), metav1.CreateOptions{})
		must(t, err)
		must(t, k.AppsV1().Deployments("default").Delete(ctx, "d", metav1.DeleteOptions{PropagationPolicy: &orphan}))
		d, err := k.AppsV1().Deployments("default").Get(ctx, "d", metav1.GetOptions{})
		must(t, err)
		if !slices.Equal(d.Finalizers, []string{metav1.FinalizerOrphanDependents}) {
			t.Errorf("a deletion that orphans leaves the finalizers %v", d.Finalizers)
		}
	})
}

func TestDeletedNamespacesAreEmptied(t *testing.T) {
	inBoth(t, func(t *testing.T, s *Server, k kubernetes.Interface) {
		ctx := t.Context()
		_, err := k.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "x"}}, metav1.CreateOptions{})
		must(t, err)
		inX := func(p *corev1.Pod) { p.Namespace = "x" }
		must(t, s.Create(newPod("stays", inX, onNode("n"))))
		must(t, s.Create(newPod("goes", inX)))
		must(t, k.CoreV1().Namespaces().Delete(ctx, "x", metav1.DeleteOptions{}))
		_, err = k.CoreV1().Pods("x").Create(ctx, newPod("late", inX), metav1.CreateOptions{})
		if !apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause) {
			t.Errorf("creating a pod in a namespace that is being deleted: %v", err)
		}
		time.Sleep(10 * time.Second)
		ns, err := k.CoreV1().Namespaces().Get(ctx, "x", metav1.GetOptions{})
		must(t, err)
		if ns.Status.Phase != corev1.NamespaceTerminating || s.Count(podsResource) != 1 {
			t.Errorf("after ten seconds: %s, %d pods", ns.Status.Phase, s.Count(podsResource))
		}
		must(t, s.DeleteWith(podsResource, "x", "stays", metav1.DeleteOptions{GracePeriodSeconds: ptr[int64](0)}))
		time.Sleep(time.Minute)
		if _, err := k.CoreV1().Namespaces().Get(ctx, "x", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
			t.Errorf("the namespace is empty, getting it: %v", err)
		}
	})
}

func TestSameSeedSameNames(t *testing.T) {
	names := func(seed uint64) string {
		var out strings.Builder
		synctest.Test(t, func(t *testing.T) {
			s := newServer(t, Options{Seed: seed})
			for range 20 {
				must(t, s.Create(newPod("", func(p *corev1.Pod) { p.GenerateName = "web-" })))
			}
			s.Each(podsResource, func(o runtime.Object) bool {
				m := accessor(o)
				fmt.Fprintln(&out, m.GetName(), m.GetUID(), m.GetResourceVersion(), m.GetCreationTimestamp())
				return true
			})
		})
		return out.String()
	}
	one := names(1)
	if again := names(1); one != again {
		t.Errorf("the seed 1 made\n%sand then\n%s", one, again)
	}
	if other := names(2); one == other {
		t.Errorf("the seeds 1 and 2 made the same names:\n%s", one)
	}
}

func TestSubscribersSeeAllChangesInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer(t, Options{})
		var seen []string
		s.Subscribe(func(e Event) {
			m := accessor(e.Object)
			seen = append(seen, fmt.Sprintf("%s %s %s by %q %s, was there %v", e.Type, e.Resource.Resource, m.GetName(), e.Client, e.Verb, e.Old != nil))
			if e.Type == watch.Added && m.GetName() == "first" {
				must(t, s.Create(newPod("second"))) // told after this
				seen = append(seen, "created second")
			}
		})
		k := clientset(t, s.Config("somebody"))
		_, err := k.CoreV1().Pods("default").Create(t.Context(), newPod("first"), metav1.CreateOptions{})
		must(t, err)
		must(t, k.CoreV1().Pods("default").Delete(t.Context(), "first", metav1.DeleteOptions{}))
		want := []string{
			`ADDED pods first by "somebody" create, was there false`, "created second",
			`ADDED pods second by "" create, was there false`, `DELETED pods first by "somebody" delete, was there true`,
		}
		if !slices.Equal(seen, want) {
			t.Errorf("seen\n%s\nwant\n%s", strings.Join(seen, "\n"), strings.Join(want, "\n"))
		}
	})
}

func TestEventsExpire(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer(t, Options{})
		events := corev1.SchemeGroupVersion.WithResource("events")
		event := func(name string) *corev1.Event {
			return &corev1.Event{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name}}
		}
		must(t, s.Create(event("old")))
		must(t, s.Create(event("repeated")))
		time.Sleep(40 * time.Minute)
		again := event("repeated")
		again.Count = 2
		must(t, s.Update(again))
		time.Sleep(40 * time.Minute)
		must(t, s.Create(event("new")))
		if _, ok := s.Get(events, "default", "old"); ok || s.Count(events) != 2 {
			t.Errorf("there are %d events, the old one is there: %v", s.Count(events), ok)
		}
	})
}

func TestDirectAccessNormalisesAndCopies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer(t, Options{})
		time.Sleep(1234 * time.Millisecond)
		must(t, s.Create(newPod("p")))
		o, _ := s.Get(podsResource, "default", "p")
		p := o.(*corev1.Pod).DeepCopy()
		p.Status.StartTime = ptr(metav1.Now())
		p.Status.Phase = corev1.PodRunning
		must(t, s.UpdateStatus(p))
		p.Status.Phase = corev1.PodFailed
		o, ok := s.Get(podsResource, "default", "p")
		got := o.(*corev1.Pod)
		if !ok || got.Status.Phase != corev1.PodRunning || got.Status.StartTime.Nanosecond() != 0 {
			t.Errorf("stored: phase %s, started %v", got.Status.Phase, got.Status.StartTime)
		}
		if err := s.UpdateStatus(p); !apierrors.IsConflict(err) {
			t.Errorf("updating an old version: %v", err)
		}
		if err := s.Delete(podsResource, "default", "missing"); !apierrors.IsNotFound(err) {
			t.Errorf("deleting what is not there: %v", err)
		}
		if err := s.Create(&metav1.Status{}); err == nil {
			t.Error("a Status was created")
		}
	})
}

func TestDiscovery(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer(t, Options{Version: "v1.33.7"})
		d, err := discovery.NewDiscoveryClientForConfig(s.Config("test"))
		must(t, err)
		v, err := d.ServerVersion()
		must(t, err)
		if v.GitVersion != "v1.33.7" || v.Major != "1" || v.Minor != "33" {
			t.Errorf("version %+v", v)
		}
		lists, err := d.ServerPreferredResources()
		must(t, err)
		found := map[string]bool{}
		for _, l := range lists {
			for _, r := range l.APIResources {
				found[l.GroupVersion+" "+r.Name] = true
			}
		}
		for _, want := range []string{"v1 pods", "v1 nodes", "apps/v1 deployments", "karpenter.sh/v1 nodepools", "karpenter.azure.com/v1beta1 aksnodeclasses", "autoscaling.x-k8s.io/v1beta1 capacitybuffers", "apiextensions.k8s.io/v1 customresourcedefinitions"} {
			if !found[want] {
				t.Errorf("%s is not listed", want)
			}
		}
		core, err := d.ServerResourcesForGroupVersion("v1")
		must(t, err)
		i := slices.IndexFunc(core.APIResources, func(r metav1.APIResource) bool { return r.Name == "pods/eviction" })
		if i < 0 || core.APIResources[i].Group != "policy" {
			t.Errorf("pods/eviction: %+v", core.APIResources)
		}
	})
}

func TestMetadataClientSeesMetadataOnly(t *testing.T) {
	for _, format := range []string{runtime.ContentTypeJSON, runtime.ContentTypeProtobuf} {
		t.Run(format, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newServer(t, Options{})
				must(t, s.Create(newPod("p")))
				c := metadata.ConfigFor(s.Config("test"))
				c.ContentType, c.AcceptContentTypes = format, format
				k, err := metadata.NewForConfig(c)
				must(t, err)
				list, err := k.Resource(podsResource).Namespace("default").List(t.Context(), metav1.ListOptions{})
				must(t, err)
				one, err := k.Resource(podsResource).Namespace("default").Get(t.Context(), "p", metav1.GetOptions{})
				must(t, err)
				if len(list.Items) != 1 || list.Items[0].UID != one.UID || one.Labels["app"] != "a" {
					t.Errorf("list %+v, get %+v", list.Items, one)
				}
				w, err := k.Resource(podsResource).Watch(t.Context(), metav1.ListOptions{})
				must(t, err)
				defer w.Stop()
				if e := <-w.ResultChan(); e.Type != watch.Added || e.Object.(*metav1.PartialObjectMetadata).UID != one.UID {
					t.Errorf("the watch begins with %+v", e)
				}
			})
		})
	}
}

func ptr[T any](v T) *T { return &v }

func onNode(name string) func(*corev1.Pod) {
	return func(p *corev1.Pod) { p.Spec.NodeName = name }
}

func newDeployment(name string, replicas int32) *appsv1.Deployment {
	labels := map[string]string{"app": name}
	return &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name},
		Spec: appsv1.DeploymentSpec{
			Replicas: &replicas, Selector: &metav1.LabelSelector{MatchLabels: labels},
			Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels}, Spec: newPod("").Spec},
		},
		Status: appsv1.DeploymentStatus{Replicas: 5},
	}
}

// errorOf returns the error of a call whose result does not matter.
func errorOf[T any](_ T, err error) error { return err }
