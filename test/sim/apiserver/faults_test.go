// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package apiserver

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	utilnet "k8s.io/apimachinery/pkg/util/net"
	"k8s.io/client-go/rest"
)

func newRequest(t testing.TB, method, path, body string) *http.Request {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, "http://apiserver.invalid"+path, strings.NewReader(body))
	must(t, err)
	return r
}

func TestFaults(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var fault Fault
		var seen Call
		s := newServer(t, Options{Intercept: func(_ context.Context, c *Call) Fault {
			seen = *c
			return fault
		}})
		pods := clientset(t, s.Config("nap")).CoreV1().Pods("default")
		ctx := t.Context()
		start := time.Now()

		fault = Fault{Before: time.Second, After: 2 * time.Second}
		_, err := pods.Create(ctx, newPod("slow"), metav1.CreateOptions{})
		must(t, err)
		o, _ := s.Get(podsResource, "default", "slow")
		if took, created := time.Since(start), accessor(o).GetCreationTimestamp().Sub(start); took != 3*time.Second || created != time.Second {
			t.Errorf("it took %v, the pod was created after %v", took, created)
		}
		fault = Fault{Err: apierrors.NewTooManyRequests("slow down", 3)}
		err = pods.Delete(ctx, "slow", metav1.DeleteOptions{GracePeriodSeconds: ptr[int64](0)})
		if !apierrors.IsTooManyRequests(err) {
			t.Errorf("an injected error: %v", err)
		}
		if want := (Call{Client: "nap", Verb: "delete", Namespace: "default", Name: "slow", Resource: podsResource}); seen != want {
			t.Errorf("the interceptor saw %+v, want %+v", seen, want)
		}

		fault = Fault{Lose: true}
		_, err = pods.Create(ctx, newPod("lost"), metav1.CreateOptions{})
		if !utilnet.IsConnectionReset(err) {
			t.Errorf("a lost answer: %v", err)
		}
		if _, ok := s.Get(podsResource, "default", "lost"); !ok {
			t.Error("the request whose answer was lost was not handled")
		}

		fault = Fault{Hang: true}
		short, cancel := context.WithTimeout(ctx, time.Hour)
		defer cancel()
		start = time.Now()
		_, err = pods.Create(short, newPod("hung"), metav1.CreateOptions{})
		if _, ok := s.Get(podsResource, "default", "hung"); !errors.Is(err, context.DeadlineExceeded) || time.Since(start) != time.Hour || ok {
			t.Errorf("a hung request: %v after %v, handled %v", err, time.Since(start), ok)
		}
		time.AfterFunc(time.Minute, s.Restart)
		_, err = pods.Create(ctx, newPod("hung"), metav1.CreateOptions{})
		if !utilnet.IsConnectionReset(err) {
			t.Errorf("a hung request when the server restarts: %v", err)
		}

		fault = Fault{Before: time.Hour}
		short, cancel = context.WithTimeout(ctx, time.Minute)
		defer cancel()
		if err := errorOf(pods.Get(short, "slow", metav1.GetOptions{})); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a request that gives up: %v", err)
		}
		fault = Fault{}
		_, err = pods.Get(ctx, "lost", metav1.GetOptions{})
		must(t, err)
		calls := s.Calls()
		if n := calls[CallKey{Client: "nap", Verb: "create", Resource: "pods"}]; n != 4 {
			t.Errorf("%d pods were created by %v", n, calls)
		}
	})
}

func TestClientTimeoutEndsHungRequests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer(t, Options{Intercept: func(context.Context, *Call) Fault { return Fault{Hang: true} }})
		c := s.Config("nap")
		c.Timeout = 10 * time.Second
		start := time.Now()
		err := errorOf(clientset(t, c).CoreV1().Nodes().Get(t.Context(), "n", metav1.GetOptions{}))
		if err == nil || time.Since(start) != 10*time.Second {
			t.Errorf("the client waited %v and got %v", time.Since(start), err)
		}
	})
}

func TestBadRequestsAreAnswered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer(t, Options{})
		must(t, s.Create(newPod("p")))
		for _, c := range []struct {
			method, path, contentType, body string
			code                            int
		}{
			{"GET", "/", "", "", 404},
			{"GET", "/api/v1/namespaces/default/unknown", "", "", 404},
			{"GET", "/apis/example.com/v1/things", "", "", 404},
			{"GET", "/api/v1/namespaces/default/pods/p/colour", "", "", 404},
			{"GET", "/api/v1/namespaces/default/pods/p/status/more", "", "", 404},
			{"GET", "/api/v1/namespaces/default/nodes", "", "", 404},
			{"GET", "/api/v1/pods/p", "", "", 404},
			{"GET", "/api/v1/pods?limit=many", "", "", 400},
			{"GET", "/api/v1/pods?continue=nonsense", "", "", 410},
			{"GET", "/api/v1/pods?watch=1&resourceVersion=x", "", "", 400},
			{"GET", "/api/v1/pods?resourceVersion=99999999999", "", "", 504},
			{"POST", "/api/v1/pods", "application/json", "{}", 404},
			{"POST", "/api/v1/namespaces/default/pods", "application/json", "", 400},
			{"POST", "/api/v1/namespaces/default/pods", "application/json", "{", 400},
			{"POST", "/api/v1/namespaces/default/pods", "application/json", `{"spec":5}`, 400},
			{"POST", "/api/v1/namespaces/default/pods", "application/json", `{"kind":"Node","apiVersion":"v1"}`, 400},
			{"POST", "/api/v1/namespaces/default/pods", "application/json", `{"metadata":{"namespace":"other","name":"p"}}`, 400},
			{"POST", "/api/v1/namespaces/default/pods", "application/json", `{"metadata":{}}`, 422},
			{"POST", "/api/v1/namespaces/default/pods", "application/json", `{"metadata":{"name":"x"}}`, 422},
			{"POST", "/api/v1/namespaces/default/pods", "text/html", `{}`, 415},
			{"POST", "/api/v1/namespaces/default/pods", "a/b/c", `{}`, 400},
			{"POST", "/api/v1/namespaces/default/pods", "application/vnd.kubernetes.protobuf", "k8s", 400},
			{"POST", "/api/v1/namespaces/default/pods", "application/vnd.kubernetes.protobuf", "k8s\x00\xff\xff", 400},
			{"POST", "/api/v1/namespaces/default/pods", "application/vnd.kubernetes.protobuf", "k8s\x00\x12\x02\xff\xff", 400},
			{"POST", "/api/v1/namespaces/default/pods", "application/json", strings.Repeat(" ", maxBody+1), 413},
			{"POST", "/api/v1/namespaces/default/pods/p/binding", "application/json", `{"metadata":{"name":"p"}}`, 400},
			{"POST", "/api/v1/namespaces/default/pods/p/binding", "application/json", `{"metadata":{"name":"q"},"target":{"name":"n"}}`, 400},
			{"POST", "/api/v1/namespaces/default/pods/p/eviction", "application/json", `{"metadata":{"name":"q"}}`, 400},
			{"PUT", "/api/v1/namespaces/default/pods/p", "application/json", `{"metadata":{"name":"q"}}`, 400},
			{"PUT", "/api/v1/namespaces/default/pods", "application/json", `{}`, 404},
			{"PATCH", "/api/v1/namespaces/default/pods/p", "application/json", `{}`, 415},
			{"PATCH", "/api/v1/namespaces/default/pods/p", "application/json-patch+json", `{}`, 400},
			{"PATCH", "/api/v1/namespaces/default/pods/p", "application/json-patch+json", `[{"op":"test","path":"/metadata/name","value":"q"}]`, 422},
			{"PATCH", "/api/v1/namespaces/default/pods/p", "application/merge-patch+json", `[]`, 400},
			{"PATCH", "/api/v1/namespaces/default/pods/p", "application/merge-patch+json", `{"kind":"Node"}`, 400},
			{"PATCH", "/api/v1/namespaces/default/pods/p", "application/merge-patch+json", `{"metadata":{"resourceVersion":"1"}}`, 409},
			{"PATCH", "/api/v1/namespaces/default/pods/p", "application/strategic-merge-patch+json", `{"metadata":{"name":"q"}}`, 400},
			{"PATCH", "/api/v1/namespaces/default/pods/p", "application/apply-patch+yaml", "a: [", 400},
			{"PATCH", "/apis/karpenter.sh/v1/nodepools/x", "application/strategic-merge-patch+json", `{}`, 404},
			{"PATCH", "/apis/karpenter.sh/v1/nodepools/x", "application/apply-patch+yaml", `{"metadata":{"name":"y"}}`, 400},
			{"DELETE", "/api/v1/namespaces/default/pods/p", "application/json", `{"gracePeriodSeconds":"x"}`, 400},
			{"DELETE", "/api/v1/namespaces/default/pods/p?gracePeriodSeconds=x", "", "", 400},
			{"TRACE", "/api/v1/namespaces/default/pods/p", "", "", 405},
		} {
			r := newRequest(t, c.method, c.path, c.body)
			r.Header.Set("Content-Type", c.contentType)
			resp, err := s.Config("test").Transport.RoundTrip(r)
			must(t, err)
			if resp.StatusCode != c.code {
				t.Errorf("%s %s with %s %.60q: %d, want %d", c.method, c.path, c.contentType, c.body, resp.StatusCode, c.code)
			}
		}
		r := newRequest(t, "GET", "/apis/karpenter.sh/v1/nodepools", "")
		r.Header.Set("Accept", "application/vnd.kubernetes.protobuf")
		resp, err := s.Config("test").Transport.RoundTrip(r)
		must(t, err)
		if resp.StatusCode != http.StatusNotAcceptable {
			t.Errorf("a custom resource as protobuf: %d", resp.StatusCode)
		}
	})
}

// Outside of a bubble the server also works behind a socket.
func TestOverHTTP(t *testing.T) {
	s := newServer(t, Options{})
	front := httptest.NewServer(s)
	defer front.Close()
	defer s.Stop()
	k := clientset(t, proto(&rest.Config{Host: front.URL, UserAgent: "remote"}))
	w, err := k.CoreV1().Pods("").Watch(t.Context(), metav1.ListOptions{})
	must(t, err)
	defer w.Stop()
	_, err = k.CoreV1().Pods("default").Create(t.Context(), newPod("p"), metav1.CreateOptions{})
	must(t, err)
	if e := <-w.ResultChan(); e.Object.(*corev1.Pod).Name != "p" {
		t.Errorf("the watch got %+v", e)
	}
	_, err = k.CoreV1().Pods("default").Patch(t.Context(), "p", types.MergePatchType, []byte(`{"metadata":{"labels":{"a":"b"}}}`), metav1.PatchOptions{})
	must(t, err)
	if n := s.Calls()[CallKey{Client: "remote", Verb: "patch", Resource: "pods"}]; n != 1 {
		t.Errorf("calls: %v", s.Calls())
	}
}
