// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// component is one process of the instance, as `nap status -o json` lists it.
type component struct {
	Name        string `json:"name"`
	Cluster     string `json:"cluster"`
	PID         int    `json:"pid"`
	RSSBytes    int64  `json:"rssBytes"`
	MetricsPort int    `json:"metricsPort"`
}

// components returns the instance's processes.
func (in *instance) components() ([]component, error) {
	cmd := exec.CommandContext(in.ctx, in.bin, "status", "-o", "json")
	cmd.Env = append(os.Environ(), "NAP_HOME="+in.home)
	out, err := cmd.Output() // standard error is not JSON
	if err != nil {
		return nil, fmt.Errorf("nap status: %w: %s", err, out)
	}
	var status struct {
		Components []component `json:"components"`
	}
	if err := json.Unmarshal(out, &status); err != nil {
		return nil, fmt.Errorf("nap status -o json: %w in %.300s", err, out)
	}
	return status.Components, nil
}

// component returns a running process by its name, of any cluster.
func (in *instance) component(t *testing.T, name string) component {
	t.Helper()
	all, err := in.components()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range all {
		if c.Name == name && c.PID > 0 {
			return c
		}
	}
	t.Fatalf("no component %s among %+v", name, all)
	return component{}
}

// kill sends SIGKILL to the component with this name.
func (in *instance) kill(t *testing.T, name string) {
	t.Helper()
	p := in.component(t, name)
	if err := syscall.Kill(p.PID, syscall.SIGKILL); err != nil {
		t.Fatalf("killing %s (pid %d): %v", name, p.PID, err)
	}
	t.Logf("killed %s, pid %d", name, p.PID)
}

// controllerMetrics reads the controller's Prometheus metrics.
func (c *cluster) controllerMetrics(t *testing.T) string {
	t.Helper()
	ctl := c.component(t, "controller")
	resp, err := http.Get(fmt.Sprintf("http://127.0.0.1:%d/metrics", ctl.MetricsPort))
	if err != nil {
		t.Fatalf("controller metrics: %v", err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatalf("controller metrics: %v", err)
	}
	return string(body)
}

// residentBytes returns a process's proportional set size (Pss): the memory it
// holds alone, and its part of what it shares, such as the pages of the binary.
func residentBytes(pid int) int64 {
	b, err := os.ReadFile(filepath.Join("/proc", fmt.Sprint(pid), "smaps_rollup"))
	if err != nil {
		return 0
	}
	var kb int64
	for line := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(line, "Pss:"); ok {
			_, _ = fmt.Sscanf(rest, "%d", &kb)
		}
	}
	return kb << 10
}
