// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package apiserver

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
)

// collect returns a description of the events that arrive on a watch until nothing
// happens any more at this moment.
func collect(w watch.Interface) []string {
	var out []string
	for {
		synctest.Wait()
		select {
		case e, ok := <-w.ResultChan():
			if !ok {
				return append(out, "closed")
			}
			out = append(out, describe(e))
		default:
			return out
		}
	}
}

func describe(e watch.Event) string {
	if st, ok := e.Object.(*metav1.Status); ok {
		return fmt.Sprintf("%s %d", e.Type, st.Code)
	}
	m := accessor(e.Object)
	if e.Type == watch.Bookmark {
		return fmt.Sprintf("%s %s %s", e.Type, m.GetResourceVersion(), m.GetAnnotations()[metav1.InitialEventsAnnotationKey])
	}
	return fmt.Sprintf("%s %s", e.Type, m.GetName())
}

func wantEvents(t *testing.T, got []string, want ...string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("events\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func openWatch(t *testing.T, k kubernetes.Interface, o metav1.ListOptions) watch.Interface {
	t.Helper()
	w, err := k.CoreV1().Pods("").Watch(t.Context(), o)
	must(t, err)
	t.Cleanup(w.Stop)
	return w
}

func TestWatchResumesWhereItEnded(t *testing.T) {
	inBoth(t, func(t *testing.T, s *Server, k kubernetes.Interface) {
		must(t, s.Create(newPod("a")))
		list, err := k.CoreV1().Pods("").List(t.Context(), metav1.ListOptions{})
		must(t, err)
		must(t, s.Create(newPod("b")))
		must(t, s.Delete(podsResource, "default", "a"))
		w := openWatch(t, k, metav1.ListOptions{ResourceVersion: list.ResourceVersion})
		wantEvents(t, collect(w), "ADDED b", "DELETED a")
		must(t, s.Create(newPod("c")))
		wantEvents(t, collect(w), "ADDED c")
		w.Stop()
		all := openWatch(t, k, metav1.ListOptions{})
		wantEvents(t, collect(all), "ADDED b", "ADDED c")
		all.Stop()
		synctest.Wait()
		if r := s.lookup(podsResource); len(r.watchers) != 0 {
			t.Errorf("%d watches are left", len(r.watchers))
		}
	})
}

func TestWatchOfVersionsThatAreGone(t *testing.T) {
	inBoth(t, func(t *testing.T, s *Server, k kubernetes.Interface) {
		must(t, s.Create(newPod("a")))
		old, err := k.CoreV1().Pods("").List(t.Context(), metav1.ListOptions{})
		must(t, err)
		w := openWatch(t, k, metav1.ListOptions{ResourceVersion: old.ResourceVersion})
		s.Restart()
		if got := collect(w); len(got) == 0 || got[len(got)-1] != "closed" {
			t.Errorf("after a restart the watch has %v", got)
		}
		_, err = k.CoreV1().Pods("").Watch(t.Context(), metav1.ListOptions{ResourceVersion: old.ResourceVersion})
		if !apierrors.IsResourceExpired(err) {
			t.Errorf("watching from before a restart: %v", err)
		}
		again, err := k.CoreV1().Pods("").List(t.Context(), metav1.ListOptions{})
		must(t, err)
		w = openWatch(t, k, metav1.ListOptions{ResourceVersion: again.ResourceVersion})
		must(t, s.Create(newPod("b")))
		wantEvents(t, collect(w), "ADDED b")
		_, err = k.CoreV1().Pods("").Watch(t.Context(), metav1.ListOptions{ResourceVersion: "1000000"})
		if !apierrors.HasStatusCause(err, metav1.CauseTypeResourceVersionTooLarge) {
			t.Errorf("watching from the future: %v", err)
		}
		s.Stop()
		wantEvents(t, collect(w), "closed")
		if err := errorOf(k.CoreV1().Pods("").Watch(t.Context(), metav1.ListOptions{})); !apierrors.IsServiceUnavailable(err) {
			t.Errorf("watching a server that has stopped: %v", err)
		}
	})
}

func TestWatchWithInitialEvents(t *testing.T) {
	inBoth(t, func(t *testing.T, s *Server, k kubernetes.Interface) {
		must(t, s.Create(newPod("a")))
		must(t, s.Create(newPod("b", onNode("n"))))
		version := s.Version()
		w := openWatch(t, k, metav1.ListOptions{SendInitialEvents: ptr(true), AllowWatchBookmarks: true, ResourceVersionMatch: metav1.ResourceVersionMatchNotOlderThan, TimeoutSeconds: ptr[int64](60)})
		wantEvents(t, collect(w), "ADDED a", "ADDED b", fmt.Sprintf("BOOKMARK %d true", version))
		must(t, s.Delete(podsResource, "default", "a"))
		wantEvents(t, collect(w), "DELETED a")
		must(t, s.Create(&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "c"}}))
		time.Sleep(time.Minute)
		wantEvents(t, collect(w), fmt.Sprintf("BOOKMARK %d ", s.Version()), "closed")
		if err := errorOf(k.CoreV1().Pods("").Watch(t.Context(), metav1.ListOptions{SendInitialEvents: ptr(true)})); !apierrors.IsBadRequest(err) {
			t.Errorf("initial events without bookmarks: %v", err)
		}
	})
}

func TestObjectsEnterAndLeaveSelections(t *testing.T) {
	inBoth(t, func(t *testing.T, s *Server, k kubernetes.Interface) {
		must(t, s.Create(newPod("a")))
		must(t, s.Create(newPod("other", func(p *corev1.Pod) { p.Labels = map[string]string{"app": "b"} })))
		byNode := openWatch(t, k, metav1.ListOptions{FieldSelector: "spec.nodeName=n"})
		unbound := openWatch(t, k, metav1.ListOptions{FieldSelector: "spec.nodeName=,status.phase!=Failed", LabelSelector: "app in (a)"})
		named := openWatch(t, k, metav1.ListOptions{FieldSelector: "metadata.name=a,metadata.namespace=default"})
		wantEvents(t, collect(unbound), "ADDED a")
		must(t, k.CoreV1().Pods("default").Bind(t.Context(), binding("a", "n"), metav1.CreateOptions{}))
		wantEvents(t, collect(unbound), "DELETED a")
		wantEvents(t, collect(byNode), "ADDED a")
		wantEvents(t, collect(named), "ADDED a", "MODIFIED a")
		bound, err := k.CoreV1().Pods("default").List(t.Context(), metav1.ListOptions{FieldSelector: "spec.nodeName=n"})
		must(t, err)
		if len(bound.Items) != 1 || bound.Items[0].Name != "a" {
			t.Errorf("on the node: %v", bound.Items)
		}
		event := &corev1.Event{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "e"}, InvolvedObject: corev1.ObjectReference{Kind: "Pod", Name: "a"}, Source: corev1.EventSource{Component: "me"}}
		must(t, s.Create(event))
		for selector, want := range map[string]int{"involvedObject.name=a,source=me": 1, "involvedObject.kind=Node": 0} {
			events, err := k.CoreV1().Events("default").List(t.Context(), metav1.ListOptions{FieldSelector: selector})
			must(t, err)
			if len(events.Items) != want {
				t.Errorf("%s selects %d events, want %d", selector, len(events.Items), want)
			}
		}
		for _, o := range []metav1.ListOptions{{FieldSelector: "spec.colour=red"}, {LabelSelector: "a in ("}, {FieldSelector: "x"}} {
			if err := errorOf(k.CoreV1().Pods("").List(t.Context(), o)); !apierrors.IsBadRequest(err) {
				t.Errorf("listing with %q %q: %v", o.FieldSelector, o.LabelSelector, err)
			}
		}
	})
}

func TestWatchDelayHoldsBackAndCoalesces(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		delays := []time.Duration{10 * time.Second, time.Second, 0, 30 * time.Second}
		s := newServer(t, Options{WatchDelay: func(client string, r schema.GroupVersionResource) time.Duration {
			if client != "slow" || r != podsResource {
				return 0
			}
			d := delays[0]
			delays = delays[1:]
			return d
		}})
		fast, slow := openWatch(t, clientset(t, s.Config("fast")), metav1.ListOptions{}), openWatch(t, clientset(t, s.Config("slow")), metav1.ListOptions{})
		for _, name := range []string{"a", "b", "c", "d"} {
			must(t, s.Create(newPod(name)))
		}
		wantEvents(t, collect(fast), "ADDED a", "ADDED b", "ADDED c", "ADDED d")
		time.Sleep(9 * time.Second)
		wantEvents(t, collect(slow))
		time.Sleep(time.Second)
		wantEvents(t, collect(slow), "ADDED a", "ADDED b", "ADDED c")
		time.Sleep(20 * time.Second)
		wantEvents(t, collect(slow), "ADDED d")
	})
}

func TestSlowWatchEndsAndNeverBlocksWriters(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer(t, Options{})
		k := clientset(t, s.Config("test"))
		resp, err := s.Config("test").Transport.RoundTrip(newRequest(t, "GET", "/api/v1/namespaces/default/pods?watch=1", ""))
		must(t, err)
		must(t, s.Create(newPod("p")))
		old := s.Version()
		o, _ := s.Get(podsResource, "default", "p")
		for i := range logLong + logShort {
			p := o.(*corev1.Pod).DeepCopy()
			p.ResourceVersion, p.Labels["i"] = "", fmt.Sprint(i)
			must(t, s.Update(p))
		}
		if n := len(s.lookup(podsResource).log); n > logLong+logShort || n < logShort {
			t.Errorf("the log has %d changes", n)
		}
		if err := errorOf(k.CoreV1().Pods("").Watch(t.Context(), metav1.ListOptions{ResourceVersion: fmt.Sprint(old)})); !apierrors.IsResourceExpired(err) {
			t.Errorf("watching from %d of %d: %v", old, s.Version(), err)
		}
		body, err := io.ReadAll(resp.Body)
		must(t, err)
		if !strings.Contains(string(body), `"type":"ERROR"`) || !strings.Contains(string(body), `"code":410`) || strings.Contains(string(body), "ADDED") {
			t.Errorf("the slow watch got %.300s", body)
		}
		// What is old goes once there is more than a little.
		time.Sleep(2 * logAge)
		for i := range logShort {
			p := o.(*corev1.Pod).DeepCopy()
			p.ResourceVersion, p.Labels["i"] = "", fmt.Sprint("again", i)
			must(t, s.Update(p))
		}
		if n := len(s.lookup(podsResource).log); n > 2*logShort {
			t.Errorf("the log has %d changes, of which %d are young", n, logShort)
		}
	})
}

func TestInformersFollow(t *testing.T) {
	inBoth(t, func(t *testing.T, s *Server, k kubernetes.Interface) {
		ctx, cancel := context.WithCancel(t.Context())
		factory := informers.NewSharedInformerFactory(k, 0)
		pods := factory.Core().V1().Pods()
		var log []string
		_, err := pods.Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{
			AddFunc: func(o any) { log = append(log, "add "+o.(*corev1.Pod).Name) },
			UpdateFunc: func(old, o any) {
				if old.(*corev1.Pod).ResourceVersion != o.(*corev1.Pod).ResourceVersion {
					log = append(log, "update "+o.(*corev1.Pod).Name)
				}
			},
			DeleteFunc: func(o any) {
				key, err := cache.DeletionHandlingMetaNamespaceKeyFunc(o) // what a list misses has no last state
				must(t, err)
				log = append(log, "delete "+strings.TrimPrefix(key, "default/"))
			},
		})
		must(t, err)
		must(t, s.Create(newPod("a")))
		factory.Start(ctx.Done())
		factory.WaitForCacheSync(ctx.Done())
		must(t, s.Create(newPod("b")))
		must(t, k.CoreV1().Pods("default").Bind(ctx, binding("b", "n"), metav1.CreateOptions{}))
		synctest.Wait()
		s.Restart()
		must(t, s.Delete(podsResource, "default", "a"))
		time.Sleep(time.Minute) // the reflector finds the way back
		must(t, s.Create(newPod("c")))
		time.Sleep(24 * time.Hour)
		must(t, s.DeleteWith(podsResource, "default", "b", metav1.DeleteOptions{GracePeriodSeconds: ptr[int64](0)}))
		synctest.Wait()
		wantEvents(t, log, "add a", "add b", "update b", "delete a", "add c", "delete b")
		if left, err := pods.Lister().List(labels.Everything()); err != nil || len(left) != 1 {
			t.Errorf("the informer has %d pods, error %v", len(left), err)
		}
		cancel()
		factory.Shutdown()
	})
}

func binding(pod, node string) *corev1.Binding {
	return &corev1.Binding{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: pod}, Target: corev1.ObjectReference{Kind: "Node", Name: node}}
}
