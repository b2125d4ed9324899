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
	"time"
)

// component is one process of the instance, as `nap status -o json` lists it.
type component struct {
	Name        string `json:"name"`
	Cluster     string `json:"cluster"`
	PID         int    `json:"pid"`
	RSSBytes    int64  `json:"rssBytes"`
	MetricsPort int    `json:"metricsPort"`
}

// components asks the instance for its processes.
func (in *instance) components() ([]component, error) {
	cmd := exec.CommandContext(in.ctx, in.bin, "status", "-o", "json")
	cmd.Env = append(os.Environ(), "NAP_HOME="+in.home)
	out, err := cmd.Output() // what is said beside it on standard error is no JSON
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

// component finds one process by its name, of any cluster.
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

// controllerMetrics reads the controller's Prometheus page.
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

// TestKillInTheMiddle kills the controller, ARM and the API server with
// SIGKILL while a scale-up is under way: it completes, and at the end each
// machine has a NodeClaim and none exists twice.
func TestKillInTheMiddle(t *testing.T) {
	in := start(t)
	in.deployTemplate(t, "napcluster")
	c := in.open(t, "napcluster")
	const pods = 60
	c.apply(t, deployment("inflate", pods, "2", "2Gi"))
	for _, victim := range []string{"controller", "arm", "kube-apiserver"} {
		time.Sleep(1500 * time.Millisecond)
		p := in.component(t, victim)
		if err := syscall.Kill(p.PID, syscall.SIGKILL); err != nil {
			t.Fatalf("killing %s (pid %d): %v", victim, p.PID, err)
		}
		t.Logf("killed %s, pid %d", victim, p.PID)
	}
	eventually(t, "all pods Running", 4*time.Minute, func() error { return c.running("default", "inflate", pods) })
	eventually(t, "each machine has one NodeClaim and one Node", 3*time.Minute, func() error { return c.matched(1) })
}

func unstructuredString(obj map[string]any, path ...string) (string, bool, error) {
	var cur any = obj
	for _, p := range path {
		m, ok := cur.(map[string]any)
		if !ok {
			return "", false, nil
		}
		cur = m[p]
	}
	s, ok := cur.(string)
	return s, ok, nil
}

// TestThousandPods asserts the promises on speed and size: 1,000 pods of two
// Deployments run within a minute on a warm instance, whose status stays
// responsive, and an idle instance with one cluster is under 1.2 GiB.
func TestThousandPods(t *testing.T) {
	in := start(t)
	in.deployTemplate(t, "napcluster")
	c := in.open(t, "napcluster")
	eventually(t, "the instance is quiet", 2*time.Minute, func() error { return c.readyNodes(3) })
	// Warm: one pod has been through the whole path.
	c.apply(t, deployment("warm", 30, "1", "1Gi"))
	eventually(t, "warm-up pods Running", time.Minute, func() error { return c.running("default", "warm", 30) })
	c.scale(t, "warm", 0)
	eventually(t, "warm-up machines gone", 3*time.Minute, c.noMachines)

	rss := int64(0)
	all, err := in.components()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range all {
		t.Logf("%-24s %5.0f MiB", p.Name, float64(residentBytes(p.PID))/(1<<20))
		rss += residentBytes(p.PID)
	}
	t.Logf("idle instance: %.0f MiB resident", float64(rss)/(1<<20))
	if limit := int64(1228 << 20); rss > limit {
		t.Errorf("idle instance takes %d MiB, promised under %d MiB", rss>>20, limit>>20)
	}

	began := time.Now()
	c.apply(t, deployment("a", 500, "500m", "512Mi"))
	c.apply(t, deployment("b", 500, "250m", "1Gi"))
	slowest := time.Duration(0)
	var took time.Duration
	for {
		s := time.Now()
		if out, err := in.run("status"); err != nil {
			t.Fatalf("nap status under load: %v\n%s", err, out)
		}
		slowest = max(slowest, time.Since(s))
		errA, errB := c.running("default", "a", 500), c.running("default", "b", 500)
		took = time.Since(began)
		if errA == nil && errB == nil {
			break
		}
		if took > 5*time.Minute {
			t.Fatalf("after %s: %v; %v", took, errA, errB)
		}
		time.Sleep(time.Second)
	}
	t.Logf("1,000 pods Running after %s; slowest nap status %s", took.Round(100*time.Millisecond), slowest.Round(time.Millisecond))
	// The promise is a minute, on two cores with nothing else to do, and that
	// nap status answers within five seconds meanwhile. Where the cores are shared
	// the clock tells of the others: there the five minutes above have to do.
	if os.Getenv("NAP_TEST_PERF") != "1" {
		return
	}
	if took > time.Minute {
		t.Errorf("1,000 pods took %s, more than a minute", took)
	}
	if slowest > 5*time.Second {
		t.Errorf("nap status took %s under load", slowest)
	}
}

// residentBytes is a process's share of physical memory: what it holds alone,
// and of what it shares (the one binary's pages) its part (Pss).
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
