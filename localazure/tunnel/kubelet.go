// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package tunnel

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/client-go/kubernetes"
)

// kubelet is the API of one node's kubelet, as far as a simulated node can have
// one.
type kubelet struct {
	node   string
	client kubernetes.Interface
}

func (k kubelet) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	part := strings.Split(strings.Trim(r.URL.Path, "/"), "/")
	switch {
	case part[0] == "healthz":
		_, _ = fmt.Fprint(w, "ok")
	case part[0] == "pods" && len(part) == 1:
		k.pods(w, r)
	case part[0] == "containerLogs" && len(part) == 4:
		k.logs(w, r, part[1], part[2], part[3])
	case (part[0] == "exec" || part[0] == "attach" || part[0] == "portForward" || part[0] == "run") && len(part) >= 3:
		what := map[string]string{"exec": "to run a command beside", "attach": "to attach to", "portForward": "that listens on a port", "run": "to run a command beside"}[part[0]]
		http.Error(w, fmt.Sprintf("node %s is simulated: pod %s/%s has no process %s", k.node, part[1], part[2], what), http.StatusNotImplemented)
	default:
		http.Error(w, fmt.Sprintf("node %s is simulated: its kubelet does not serve %s", k.node, r.URL.Path), http.StatusNotFound)
	}
}

func (k kubelet) pods(w http.ResponseWriter, r *http.Request) {
	list, err := k.client.CoreV1().Pods("").List(r.Context(), metav1.ListOptions{FieldSelector: fields.OneTermEqualSelector("spec.nodeName", k.node).String()})
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	list.TypeMeta = metav1.TypeMeta{Kind: "PodList", APIVersion: "v1"}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(list)
}

// logs writes what is known of a container: that it is simulated, when it started
// and how it ended. With follow it waits for the container's end.
func (k kubelet) logs(w http.ResponseWriter, r *http.Request, ns, name, container string) {
	q := r.URL.Query()
	follow, _ := strconv.ParseBool(q.Get("follow"))
	pod, err := k.client.CoreV1().Pods(ns).Get(r.Context(), name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) || err == nil && pod.Spec.NodeName != k.node {
		http.Error(w, fmt.Sprintf("pod %q is not on node %s", name, k.node), http.StatusNotFound)
		return
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	st, image := containerOf(pod, container)
	switch {
	case image == "":
		http.Error(w, fmt.Sprintf("container %q is not in pod %q", container, name), http.StatusNotFound)
		return
	case q.Get("previous") == "true":
		http.Error(w, fmt.Sprintf("previous terminated container %q in pod %q not found", container, name), http.StatusBadRequest)
		return
	case st == nil || st.State.Running == nil && st.State.Terminated == nil:
		http.Error(w, fmt.Sprintf("container %q in pod %q is waiting to start", container, name), http.StatusBadRequest)
		return
	}
	out := newLogWriter(w, q)
	lines := []logLine{{startedAt(st), fmt.Sprintf("nap: this container is simulated. %s is not run, so there is nothing that it wrote.", image)}}
	if l, ended := end(st); ended {
		lines, follow = append(lines, l), false
	}
	out.last(lines)
	if follow {
		if l, ended := k.waitEnd(r.Context(), pod, container); ended {
			out.write(l)
		}
	}
}

// waitEnd waits until a container ends, its pod is deleted or ctx ends.
func (k kubelet) waitEnd(ctx context.Context, pod *corev1.Pod, container string) (logLine, bool) {
	uid, version := pod.UID, pod.ResourceVersion
	for ctx.Err() == nil {
		w, err := k.client.CoreV1().Pods(pod.Namespace).Watch(ctx, metav1.ListOptions{FieldSelector: fields.OneTermEqualSelector("metadata.name", pod.Name).String(), ResourceVersion: version})
		if err == nil {
			for ev := range w.ResultChan() {
				p, ok := ev.Object.(*corev1.Pod)
				if !ok {
					break // the resource version is too old: read the pod again below
				}
				if st, _ := containerOf(p, container); st != nil {
					if l, ended := end(st); ended {
						w.Stop()
						return l, true
					}
				}
				if ev.Type == "DELETED" {
					w.Stop()
					return logLine{}, false
				}
			}
			w.Stop()
		}
		select {
		case <-ctx.Done():
			return logLine{}, false
		case <-time.After(500 * time.Millisecond):
		}
		p, err := k.client.CoreV1().Pods(pod.Namespace).Get(ctx, pod.Name, metav1.GetOptions{})
		if apierrors.IsNotFound(err) || err == nil && p.UID != uid {
			return logLine{}, false
		}
		if err == nil {
			version = p.ResourceVersion
			if st, _ := containerOf(p, container); st != nil {
				if l, ended := end(st); ended {
					return l, true
				}
			}
		}
	}
	return logLine{}, false
}

// containerOf returns the status of a container of any kind, nil if it has none
// yet, and its image, empty if there is no such container.
func containerOf(p *corev1.Pod, name string) (st *corev1.ContainerStatus, image string) {
	for _, c := range append(append([]corev1.Container{}, p.Spec.InitContainers...), p.Spec.Containers...) {
		if c.Name == name {
			image = c.Image
		}
	}
	for _, c := range p.Spec.EphemeralContainers {
		if c.Name == name {
			image = c.Image
		}
	}
	for _, list := range [][]corev1.ContainerStatus{p.Status.InitContainerStatuses, p.Status.ContainerStatuses, p.Status.EphemeralContainerStatuses} {
		for i := range list {
			if list[i].Name == name {
				st = &list[i]
			}
		}
	}
	return st, image
}

func startedAt(st *corev1.ContainerStatus) time.Time {
	if st.State.Running != nil {
		return st.State.Running.StartedAt.Time
	}
	return st.State.Terminated.StartedAt.Time
}

// end returns the line about the end of a container that has terminated.
func end(st *corev1.ContainerStatus) (logLine, bool) {
	t := st.State.Terminated
	if t == nil {
		return logLine{}, false
	}
	return logLine{t.FinishedAt.Time, fmt.Sprintf("nap: the container ended with exit code %d (%s).", t.ExitCode, t.Reason)}, true
}

type logLine struct {
	at   time.Time
	text string
}

// logWriter writes lines as the query of a log request asks for.
type logWriter struct {
	w          http.ResponseWriter
	timestamps bool
	tail, left int64 // -1: no limit
	since      time.Time
}

func newLogWriter(w http.ResponseWriter, q map[string][]string) *logWriter {
	get := func(k string) string {
		if v := q[k]; len(v) > 0 {
			return v[0]
		}
		return ""
	}
	number := func(k string) int64 {
		if n, err := strconv.ParseInt(get(k), 10, 64); err == nil {
			return n
		}
		return -1
	}
	o := &logWriter{w: w, tail: number("tailLines"), left: number("limitBytes")}
	o.timestamps, _ = strconv.ParseBool(get("timestamps"))
	if n := number("sinceSeconds"); n >= 0 {
		o.since = time.Now().Add(-time.Duration(n) * time.Second)
	} else if t, err := time.Parse(time.RFC3339, get("sinceTime")); err == nil {
		o.since = t
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	return o
}

// last writes the newest of the lines, as many as the query asks for.
func (o *logWriter) last(lines []logLine) {
	if o.tail >= 0 && int64(len(lines)) > o.tail {
		lines = lines[int64(len(lines))-o.tail:]
	}
	for _, l := range lines {
		o.write(l)
	}
	o.w.WriteHeader(http.StatusOK)
	_ = http.NewResponseController(o.w).Flush()
}

func (o *logWriter) write(l logLine) {
	if l.at.Before(o.since) {
		return
	}
	text := l.text + "\n"
	if o.timestamps {
		text = l.at.UTC().Format(time.RFC3339Nano) + " " + text
	}
	if o.left >= 0 {
		text = text[:min(int64(len(text)), o.left)]
		o.left -= int64(len(text))
	}
	_, _ = o.w.Write([]byte(text))
	_ = http.NewResponseController(o.w).Flush()
}
