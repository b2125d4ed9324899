// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package monitor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/nap-aks/nap/localazure/intent"
	"github.com/nap-aks/nap/localazure/logstore"
)

// eventSource is the source of the events of node auto-provisioning.
const eventSource = "node-auto-provisioning"

// eventPrefix is the prefix of the keys in etcd that hold, for each cluster, the
// resource version up to which events were collected.
const eventPrefix = "/nap/arm/events/"

const (
	pollInterval  = 2 * time.Second
	pruneInterval = 10 * time.Minute
	eventPageSize = 500
)

// componentCategory maps the names of log files, without extension, to log
// categories.
var componentCategory = map[string]string{
	"kube-apiserver": APIServer, "kube-controller-manager": ControllerManager, "kube-scheduler": Scheduler, "controller": NodeProvisioning,
}

// Collector stores the logs and events of clusters.
type Collector struct {
	Logs *logstore.Store
	// Dir is the directory of the log files, {cluster UID}/{component}.log.
	Dir string
	Log *slog.Logger

	p *Provider
}

// NewCollector returns a collector for the clusters of the provider.
func (p *Provider) NewCollector(logs *logstore.Store, dir string, log *slog.Logger) *Collector {
	return &Collector{Logs: logs, Dir: dir, Log: log, p: p}
}

// Run collects until ctx ends, and returns when all its goroutines have. It logs
// errors and retries: a cluster may be starting or stopped.
func (c *Collector) Run(ctx context.Context) {
	var wg sync.WaitGroup
	defer wg.Wait()
	running := map[string]context.CancelFunc{}
	tick, prune := time.NewTicker(pollInterval), time.NewTicker(pruneInterval)
	defer tick.Stop()
	defer prune.Stop()
	for {
		if wanted, err := c.wanted(ctx); err != nil {
			if ctx.Err() == nil {
				c.Log.Warn("listing the logs to collect failed, retrying", "error", err)
			}
		} else {
			for key, job := range wanted {
				if running[key] != nil {
					continue
				}
				jobCtx, cancel := context.WithCancel(ctx)
				running[key] = cancel
				wg.Add(1)
				go func() {
					defer wg.Done()
					c.keep(jobCtx, key, job)
				}()
			}
			for key, cancel := range running {
				if wanted[key] == nil {
					cancel()
					delete(running, key)
				}
			}
		}
		select {
		case <-ctx.Done():
			for _, cancel := range running {
				cancel()
			}
			return
		case <-prune.C:
			if _, err := c.Logs.Prune(ctx); err != nil && ctx.Err() == nil {
				c.Log.Warn("deleting old logs failed", "error", err)
			}
		case <-tick.C:
		}
	}
}

// job collects from one source until it fails or ctx ends.
type job func(ctx context.Context) error

// keep runs a job again and again until ctx ends.
func (c *Collector) keep(ctx context.Context, key string, do job) {
	for ctx.Err() == nil {
		if err := do(ctx); err != nil && ctx.Err() == nil {
			c.Log.Debug("collecting logs failed, retrying", "source", key, "error", err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(pollInterval):
		}
	}
}

// wanted returns the jobs for all clusters, by source.
func (c *Collector) wanted(ctx context.Context) (map[string]job, error) {
	clusters, err := c.p.env.Store.ListType(ctx, clusterType)
	if err != nil {
		return nil, err
	}
	out := map[string]job{}
	for _, r := range clusters {
		uid, id := r.UID, r.ID
		files, err := os.ReadDir(filepath.Join(c.Dir, uid))
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, fmt.Errorf("listing the log files of %s: %w", id, err)
		}
		for _, f := range files {
			name := strings.TrimSuffix(f.Name(), ".log")
			if name == f.Name() || componentCategory[name] == "" {
				continue
			}
			src := logstore.Source{Path: filepath.Join(c.Dir, uid, f.Name()), Category: componentCategory[name], Cluster: id, Pod: podName(componentCategory[name], uid)}
			out[src.Path] = func(ctx context.Context) error { return c.Logs.Tail(ctx, src) }
		}
		out["events of "+uid] = func(ctx context.Context) error { return c.events(ctx, uid, id) }
	}
	return out, nil
}

// podName returns a pod name for a component of a control plane, which here runs
// in no pod.
func podName(category, uid string) string {
	return category + "-" + uid[:min(8, len(uid))]
}

// events watches the events of node auto-provisioning in a cluster. Its progress
// is in etcd: after a restart it collects all events that the cluster still has,
// and at most the last ones twice.
func (c *Collector) events(ctx context.Context, uid, id string) error {
	st, ok, err := intent.Get[intent.ClusterStatus](ctx, c.p.env.Store.KV, intent.ClusterStatusKey(uid))
	if err != nil || !ok || st.AdminKubeconfig == "" || st.Phase != intent.ClusterReady {
		return err
	}
	cfg, err := clientcmd.RESTConfigFromKubeConfig([]byte(st.AdminKubeconfig))
	if err != nil {
		return fmt.Errorf("reading the kubeconfig of %s: %w", id, err)
	}
	if cfg.Host == "" {
		return nil
	}
	client, err := kubernetes.NewForConfig(cfg)
	if err != nil {
		return fmt.Errorf("creating a client for %s: %w", id, err)
	}
	opts := metav1.ListOptions{FieldSelector: "source=" + eventSource, Limit: eventPageSize}
	done, err := c.collected(ctx, uid)
	if err != nil {
		return err
	}
	var version string
	for {
		page, err := client.CoreV1().Events("").List(ctx, opts)
		if err != nil {
			return fmt.Errorf("listing the events of %s: %w", id, err)
		}
		if err := c.append(ctx, uid, id, done, page.Items); err != nil {
			return err
		}
		version = page.ResourceVersion
		if opts.Continue = page.Continue; opts.Continue == "" {
			break
		}
	}
	w, err := client.CoreV1().Events("").Watch(ctx, metav1.ListOptions{FieldSelector: opts.FieldSelector, ResourceVersion: version})
	if err != nil {
		return fmt.Errorf("watching the events of %s: %w", id, err)
	}
	defer w.Stop()
	for ev := range w.ResultChan() {
		switch ev.Type {
		case watch.Added, watch.Modified:
			if e, ok := ev.Object.(*corev1.Event); ok {
				if err := c.append(ctx, uid, id, 0, []corev1.Event{*e}); err != nil {
					return err
				}
			}
		case watch.Error:
			return fmt.Errorf("watching the events of %s: %w", id, apierrors.FromObject(ev.Object))
		}
	}
	return nil
}

// collected returns the resource version up to which events were collected.
func (c *Collector) collected(ctx context.Context, uid string) (uint64, error) {
	resp, err := c.p.env.Store.KV.Get(ctx, eventPrefix+uid)
	if err != nil || len(resp.Kvs) == 0 {
		return 0, err
	}
	return strconv.ParseUint(string(resp.Kvs[0].Value), 10, 64)
}

// append stores the events that are newer than a resource version.
func (c *Collector) append(ctx context.Context, uid, id string, after uint64, events []corev1.Event) error {
	var recs []logstore.Record
	newest := after
	for i := range events {
		e := &events[i]
		v, err := strconv.ParseUint(e.ResourceVersion, 10, 64)
		if err != nil || v <= after {
			continue
		}
		newest = max(newest, v)
		r, err := record(e, id, podName(ProvisioningEvents, uid))
		if err != nil {
			return err
		}
		recs = append(recs, r)
	}
	if len(recs) == 0 {
		return nil
	}
	if err := c.Logs.Append(ctx, recs...); err != nil {
		return err
	}
	if _, err := c.p.env.Store.KV.Put(ctx, eventPrefix+uid, strconv.FormatUint(newest, 10)); err != nil {
		return fmt.Errorf("saving the progress of collecting events of %s: %w", id, err)
	}
	return nil
}

// record converts an event to a log record.
func record(e *corev1.Event, cluster, pod string) (logstore.Record, error) {
	at := e.LastTimestamp.Time
	switch {
	case e.Series != nil && !e.Series.LastObservedTime.IsZero():
		at = e.Series.LastObservedTime.Time
	case at.IsZero() && !e.EventTime.IsZero():
		at = e.EventTime.Time
	case at.IsZero():
		at = e.CreationTimestamp.Time
	}
	level := "info"
	if e.Type == corev1.EventTypeWarning {
		level = "warning"
	}
	clean := e.DeepCopy()
	clean.ManagedFields = nil
	props, err := json.Marshal(clean)
	if err != nil {
		return logstore.Record{}, fmt.Errorf("encoding an event of %s: %w", cluster, err)
	}
	return logstore.Record{Time: at.UTC(), Category: ProvisioningEvents, Level: level, Message: e.Message, Properties: props, Cluster: cluster, Pod: pod}, nil
}
