// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package supervisor

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/nap-aks/nap/localazure/controlplane"
	"github.com/nap-aks/nap/localazure/home"
	"github.com/nap-aks/nap/localazure/intent"
)

const testNode = "aks-nodepool1-0"

// TestClusterLifecycle writes a cluster and a machine into etcd as ARM does, and
// follows them: Ready, a pod running, a kill -9 of each process, a stop and start
// of the whole instance, and their deletion.
func TestClusterLifecycle(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a control plane")
	}
	dir := t.TempDir()
	if keep := os.Getenv("NAP_TEST_HOME"); keep != "" {
		dir = keep
	}
	r := startInstance(t, dir)
	r.put(t, intent.ClusterIntentKey("c1"), testCluster())
	r.put(t, intent.MachineIntentKey("c1", "nodepool1", "0"), testMachine("0"))
	st := r.clusterReady(t, 1)
	if st.KubernetesVersion != "1.36.3" {
		t.Errorf("version %q, want 1.36.3 (was the binary built with the Makefile's -ldflags?)", st.KubernetesVersion)
	}
	k := kubeClient(t, st)
	nodeReady(t, k)
	checkNode(t, k)
	eventually(t, "the default service account", time.Minute, func() error {
		_, err := k.CoreV1().ServiceAccounts("default").Get(t.Context(), "default", metav1.GetOptions{})
		return err
	})
	runPod(t, k, "first")
	kubeSystemRuns(t, k)
	killEachComponent(t, r, k)

	// The state survives a stop of everything.
	r.stop()
	if t.Failed() {
		return
	}
	r = startInstance(t, dir)
	k = kubeClient(t, r.clusterReady(t, 1))
	nodeReady(t, k)
	runPod(t, k, "later")

	deleteMachine(t, r, k)
	deleteCluster(t, r)
	checkFileModes(t, dir)
}

// nodeReady waits until the test machine's node is Ready and has no taints.
func nodeReady(t *testing.T, k kubernetes.Interface) {
	t.Helper()
	eventually(t, "the node to be Ready and without taints", time.Minute, func() error {
		n, err := k.CoreV1().Nodes().Get(t.Context(), testNode, metav1.GetOptions{})
		if err != nil {
			return err
		}
		for _, c := range n.Status.Conditions {
			if c.Type == corev1.NodeReady && c.Status == corev1.ConditionTrue {
				for _, taint := range n.Spec.Taints {
					return fmt.Errorf("Ready, but tainted %s", taint.ToString())
				}
				return nil
			}
		}
		return fmt.Errorf("not Ready: %v", n.Status.Conditions)
	})
}

// checkNode checks the labels and the allocatable CPU of the test machine's node.
func checkNode(t *testing.T, k kubernetes.Interface) {
	t.Helper()
	n, err := k.CoreV1().Nodes().Get(t.Context(), testNode, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for key, want := range map[string]string{
		"topology.kubernetes.io/zone": "eastus-1", "node.kubernetes.io/instance-type": "Standard_D4s_v5",
		"kubernetes.azure.com/mode": "system", "agentpool": "nodepool1", "kubernetes.azure.com/cluster": "MC_rg_one_eastus",
	} {
		if n.Labels[key] != want {
			t.Errorf("label %s is %q, want %q", key, n.Labels[key], want)
		}
	}
	if got := n.Status.Allocatable.Cpu().MilliValue(); got != 3860 {
		t.Errorf("allocatable CPU %dm, AKS leaves 3860m of 4 cores", got)
	}
}

// runPod creates a pod and waits until it runs.
func runPod(t *testing.T, k kubernetes.Interface, name string) {
	t.Helper()
	_, err := k.CoreV1().Pods("default").Create(t.Context(), &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "pause",
			Resources: corev1.ResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("100m")}}}}},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "pod "+name+" to run", time.Minute, func() error {
		p, err := k.CoreV1().Pods("default").Get(t.Context(), name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		if p.Status.Phase != corev1.PodRunning || p.Status.PodIP == "" {
			return fmt.Errorf("phase %s, IP %q", p.Status.Phase, p.Status.PodIP)
		}
		return nil
	})
}

// kubeSystemRuns waits until all pods of kube-system run.
func kubeSystemRuns(t *testing.T, k kubernetes.Interface) {
	t.Helper()
	eventually(t, "kube-system to run", time.Minute, func() error {
		pods, err := k.CoreV1().Pods("kube-system").List(t.Context(), metav1.ListOptions{})
		if err != nil {
			return err
		}
		for _, p := range pods.Items {
			if p.Status.Phase != corev1.PodRunning {
				return fmt.Errorf("%s is %s", p.Name, p.Status.Phase)
			}
		}
		if len(pods.Items) < 10 {
			return fmt.Errorf("only %d pods", len(pods.Items))
		}
		return nil
	})
}

// killEachComponent kills one process after the other: each is restarted, and
// pods still get to run.
func killEachComponent(t *testing.T, r *running, k kubernetes.Interface) {
	t.Helper()
	comps, err := home.ReadComponents(r.home)
	if err != nil {
		t.Fatal(err)
	}
	total := int64(0)
	for _, c := range comps {
		t.Logf("%-26s pid %-7d %4d MiB", c.Name, c.PID, c.RSSBytes>>20)
		total += c.RSSBytes
	}
	t.Logf("all components: %d MiB", total>>20)
	for i, c := range comps {
		if err := syscall.Kill(c.PID, syscall.SIGKILL); err != nil {
			t.Fatalf("killing %s: %v", c.Name, err)
		}
		eventually(t, "the API after the kill of "+c.Name, time.Minute, func() error {
			_, err := k.CoreV1().ServiceAccounts("default").Get(t.Context(), "default", metav1.GetOptions{})
			return err
		})
		runPod(t, k, fmt.Sprint("k", i))
	}
	eventually(t, "all components to be back", time.Minute, func() error {
		now, err := home.ReadComponents(r.home)
		if err != nil {
			return err
		}
		for _, c := range now {
			if c.PID == 0 || c.Restarts == 0 {
				return fmt.Errorf("%s: pid %d, %d restarts, %s", c.Name, c.PID, c.Restarts, c.LastExit)
			}
		}
		return nil
	})
}

// deleteMachine deletes the machine's intent: its pods, its Node and last its
// status must go.
func deleteMachine(t *testing.T, r *running, k kubernetes.Interface) {
	t.Helper()
	ctx := t.Context()
	if err := intent.Delete(ctx, r.etcd, intent.MachineIntentKey("c1", "nodepool1", "0")); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the machine to be gone", time.Minute, func() error {
		if _, found, err := intent.Get[intent.MachineStatus](ctx, r.etcd, intent.MachineStatusKey("c1", "nodepool1", "0")); err != nil || found {
			return fmt.Errorf("status found: %t, %w", found, err)
		}
		pods, err := k.CoreV1().Pods("default").List(ctx, metav1.ListOptions{})
		if err != nil || len(pods.Items) > 0 {
			return fmt.Errorf("%d pods left (%w)", len(pods.Items), err)
		}
		nodes, err := k.CoreV1().Nodes().List(ctx, metav1.ListOptions{})
		if err != nil || len(nodes.Items) > 0 {
			return fmt.Errorf("%d nodes left (%w)", len(nodes.Items), err)
		}
		return nil
	})
}

// deleteCluster deletes the cluster's intent: nothing of it must remain.
func deleteCluster(t *testing.T, r *running) {
	t.Helper()
	ctx := t.Context()
	if err := intent.Delete(ctx, r.etcd, intent.ClusterIntentKey("c1")); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the cluster to be gone", time.Minute, func() error {
		if _, found, err := intent.Get[intent.ClusterStatus](ctx, r.etcd, intent.ClusterStatusKey("c1")); err != nil || found {
			return fmt.Errorf("status found: %t, %w", found, err)
		}
		resp, err := r.etcd.Get(ctx, controlplane.EtcdPrefix("c1"), clientv3.WithPrefix(), clientv3.WithCountOnly())
		if err != nil || resp.Count > 0 {
			return fmt.Errorf("%d objects left in etcd (%w)", resp.Count, err)
		}
		if _, err := os.Stat(r.home.ClusterPath("c1")); err == nil {
			return fmt.Errorf("its folder still exists")
		}
		return nil
	})
}

// checkFileModes checks that only the owner can read the instance's files, except
// for the authority's certificate.
func checkFileModes(t *testing.T, dir string) {
	t.Helper()
	_ = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || strings.HasSuffix(path, "ca.pem") {
			return err
		}
		if st, err := d.Info(); err == nil && st.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s has mode %v", path, st.Mode().Perm())
		}
		return nil
	})
}
