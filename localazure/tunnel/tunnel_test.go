// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package tunnel

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
	metricsv1beta1 "k8s.io/metrics/pkg/apis/metrics/v1beta1"
)

var begin = time.Date(2026, 11, 25, 1, 0, 0, 0, time.UTC)

func pod(ns, name, node string, annotations map[string]string, state corev1.ContainerState) *corev1.Pod {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: name, UID: "u", Annotations: annotations}}
	p.Spec.NodeName = node
	p.Spec.Containers = []corev1.Container{{Name: "c", Image: "img"}, {Name: "d", Image: "img"}}
	p.Status.Phase = corev1.PodRunning
	p.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: "c", State: state}, {Name: "d"}}
	return p
}

var (
	runs  = corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: metav1.NewTime(begin)}}
	ended = corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{StartedAt: metav1.NewTime(begin), FinishedAt: metav1.NewTime(begin.Add(time.Minute)), Reason: "Completed"}}
)

// serve starts a tunnel to a cluster of two nodes, of which only n1 is simulated,
// and returns a client that uses it.
func serve(t *testing.T, client kubernetes.Interface) (*http.Client, string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "tunnel")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	socket := filepath.Join(dir, "s")
	if err := os.WriteFile(socket, nil, 0o644); err != nil { // a killed run leaves its socket
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		done <- Serve(ctx, socket, Cluster{
			Client:    func(context.Context) (kubernetes.Interface, error) { return client, nil },
			Simulated: func(node string) bool { return node == "n1" },
			Logger:    slog.New(slog.DiscardHandler),
		})
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	dial := func(ctx context.Context, _, addr string) (net.Conn, error) {
		var conn net.Conn
		for conn == nil {
			c, err := (&net.Dialer{}).DialContext(ctx, "unix", socket)
			if err == nil {
				conn = c
			} else if ctx.Err() != nil {
				return nil, err
			} else {
				time.Sleep(5 * time.Millisecond)
			}
		}
		if _, err := fmt.Fprintf(conn, "CONNECT %s HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", addr); err != nil {
			return nil, err
		}
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			return nil, err
		}
		if resp.StatusCode != http.StatusOK {
			_ = conn.Close()
			return nil, fmt.Errorf("CONNECT: %s", resp.Status)
		}
		return conn, nil
	}
	tr := &http.Transport{DialContext: dial, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, Timeout: time.Minute}, socket
}

func get(t *testing.T, c *http.Client, url string, header ...string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := c.Do(req)
	if err != nil {
		return 0, err.Error()
	}
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(b)
}

func TestKubeletAPI(t *testing.T) {
	c, socket := serve(t, fake.NewClientset(
		pod("a", "p", "n1", nil, runs), pod("a", "done", "n1", nil, ended), pod("a", "early", "n1", nil, corev1.ContainerState{}), pod("a", "else", "n9", nil, runs)))
	const n1 = "https://n1:10250"
	const first = "nap: this container is simulated. img is not run, so there is nothing that it wrote.\n"
	const last = "nap: the container ended with exit code 0 (Completed).\n"
	for _, x := range []struct {
		url  string
		code int
		body string
	}{
		{n1 + "/healthz", 200, "ok"},
		{n1 + "/containerLogs/a/p/c", 200, first},
		{n1 + "/containerLogs/a/p/c?timestamps=true", 200, "2026-11-25T01:00:00Z " + first},
		{n1 + "/containerLogs/a/p/c?tailLines=0", 200, ""},
		{n1 + "/containerLogs/a/p/c?limitBytes=4", 200, "nap:"},
		{n1 + "/containerLogs/a/p/c?sinceTime=2026-11-25T02:00:00Z", 200, ""},
		{n1 + "/containerLogs/a/done/c", 200, first + last},
		{n1 + "/containerLogs/a/done/c?tailLines=1&follow=true", 200, last},
		{n1 + "/containerLogs/a/p/c?previous=true", 400, "previous terminated container \"c\" in pod \"p\" not found\n"},
		{n1 + "/containerLogs/a/early/c", 400, "container \"c\" in pod \"early\" is waiting to start\n"},
		{n1 + "/containerLogs/a/p/x", 404, "container \"x\" is not in pod \"p\"\n"},
		{n1 + "/containerLogs/a/else/c", 404, "pod \"else\" is not on node n1\n"},
		{n1 + "/exec/a/p/c?command=ls", 501, "node n1 is simulated: pod a/p has no process to run a command beside\n"},
		{n1 + "/attach/a/p/c", 501, "node n1 is simulated: pod a/p has no process to attach to\n"},
		{n1 + "/portForward/a/p", 501, "node n1 is simulated: pod a/p has no process that listens on a port\n"},
		{n1 + "/stats/summary", 404, "node n1 is simulated: its kubelet does not serve /stats/summary\n"},
	} {
		if code, body := get(t, c, x.url); code != x.code || body != x.body {
			t.Errorf("%s: %d %q, want %d %q", x.url, code, body, x.code, x.body)
		}
	}
	for url, why := range map[string]string{
		"https://n2:10250/healthz": "the kubelet of node n2 does not answer",
		"https://10.244.0.9:443/":  "no process runs in them",
	} {
		if code, body := get(t, c, url); code != 0 || !strings.Contains(body, "502 ") || !strings.Contains(body, why) {
			t.Errorf("%s: %d %q, want a refusal that says %q", url, code, body, why)
		}
	}
	info, err := os.Stat(socket)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the socket: %v %v, want mode 0600", info.Mode(), err)
	}
	if err := CheckSocket("/" + strings.Repeat("x", 107)); err == nil {
		t.Error("a path of 108 bytes was accepted for a socket")
	}
}

// A log that is followed ends when its container does, and not before.
func TestFollowedLogEndsWithItsContainer(t *testing.T) {
	client := fake.NewClientset(pod("a", "p", "n1", nil, runs))
	w := watch.NewFake()
	watched := make(chan struct{}, 10)
	client.PrependWatchReactor("pods", func(clienttesting.Action) (bool, watch.Interface, error) {
		watched <- struct{}{}
		return true, w, nil
	})
	c, _ := serve(t, client)
	resp, err := c.Get("https://n1:10250/containerLogs/a/p/c?follow=true")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	r := bufio.NewReader(resp.Body)
	if line, err := r.ReadString('\n'); err != nil || !strings.Contains(line, "is simulated") {
		t.Fatalf("the first line: %q %v", line, err)
	}
	<-watched
	w.Modify(pod("a", "p", "n1", nil, runs))
	w.Modify(pod("a", "p", "n1", nil, ended))
	rest, err := io.ReadAll(r)
	if err != nil || string(rest) != "nap: the container ended with exit code 0 (Completed).\n" {
		t.Errorf("the rest: %q %v", rest, err)
	}
}

func TestMetricsAPI(t *testing.T) {
	uses := func(cpu, memory string) map[string]string {
		return map[string]string{UsageCPUAnnotation: cpu, UsageMemoryAnnotation: memory}
	}
	pending := pod("a", "pending", "", uses("1", "1Gi"), corev1.ContainerState{})
	pending.Status.Phase = corev1.PodPending
	c, _ := serve(t, fake.NewClientset(
		&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n1", Labels: map[string]string{"x": "y"}}}, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n2"}},
		pod("a", "p", "n1", uses("300m", "1Gi"), runs), pod("b", "q", "n1", uses("a lot", "-5"), runs), pod("b", "silent", "n2", uses("1", "1Gi"), runs), pending))
	const root = "https://" + metricsHost + ":443/apis/metrics.k8s.io/v1beta1"
	read := func(path string, into any) {
		t.Helper()
		code, body := get(t, c, root+path)
		if code != http.StatusOK {
			t.Fatalf("%s: %d %s", path, code, body)
		}
		if err := json.Unmarshal([]byte(body), into); err != nil {
			t.Fatal(err)
		}
	}
	var pods metricsv1beta1.PodMetricsList
	read("/pods", &pods)
	if len(pods.Items) != 2 {
		t.Fatalf("%d pods have metrics, want the two that run on the simulated node", len(pods.Items))
	}
	read("/namespaces/a/pods", &pods)
	if len(pods.Items) != 1 || len(pods.Items[0].Containers) != 2 || pods.Items[0].Containers[1].Usage.Cpu().MilliValue() != 150 || pods.Items[0].Containers[0].Usage.Memory().Value() != 512<<20 {
		t.Errorf("the pod: %+v, want its usage shared by two containers", pods.Items)
	}
	var one metricsv1beta1.PodMetrics
	read("/namespaces/b/pods/q", &one)
	if !one.Containers[0].Usage.Cpu().IsZero() || !one.Containers[0].Usage.Memory().IsZero() {
		t.Errorf("a pod whose annotations are not quantities uses %+v", one.Containers)
	}
	var nodes metricsv1beta1.NodeMetricsList
	read("/nodes?labelSelector=x%3Dy", &nodes)
	if len(nodes.Items) != 1 || nodes.Items[0].Usage.Cpu().MilliValue() != 300 || nodes.Items[0].Usage.Memory().Value() != 1<<30 || time.Since(nodes.Items[0].Timestamp.Time) > time.Hour {
		t.Errorf("the nodes: %+v, want n1 with what its pods use", nodes.Items)
	}
	_, body := get(t, c, root+"/pods", "Accept", "application/json;as=Table;v=v1;g=meta.k8s.io,application/json")
	var table metav1.Table
	if err := json.Unmarshal([]byte(body), &table); err != nil || table.Kind != "Table" || len(table.Rows) != 2 || fmt.Sprint(table.Rows[0].Cells) != "[p 300m 1Gi 15s]" {
		t.Errorf("the table: %v %s", err, body)
	}
	for path, want := range map[string]int{"/nodes/n2": 404, "/nodes/n1": 200, "/namespaces/a/pods/x": 404, "/pods?watch=true": 405, "": 200, "/services": 404} {
		if code, body := get(t, c, root+path); code != want {
			t.Errorf("%s: %d %s, want %d", path, code, body, want)
		}
	}
}
