package supervisor

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
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
	"k8s.io/client-go/tools/clientcmd"

	"github.com/nap-aks/nap/localazure/intent"
)

// TestMain lets the test binary be its own components, as nap is.
func TestMain(m *testing.M) {
	if len(os.Args) > 2 && os.Args[1] == "component" {
		if os.Args[2] == "test-supervisor" {
			testSupervisor()
			os.Exit(0)
		}
		err := RunComponent(os.Args[2], os.Args[3:], Rooms{ARM: bareARM})
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// bareARM only answers: these tests write the intents themselves.
func bareARM(ctx context.Context, h Home, i Instance) error {
	srv := &http.Server{Addr: strings.TrimPrefix(i.ARMEndpoint, "https://"), Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {})}
	go func() { <-ctx.Done(); _ = srv.Close() }()
	return srv.ListenAndServeTLS(h.Path("pki", "arm.crt"), h.Path("pki", "arm.key"))
}

// running is an instance under test.
type running struct {
	home Home
	inst Instance
	etcd *clientv3.Client
	stop func()
}

func startInstance(t *testing.T, dir string) *running {
	t.Helper()
	h, err := OpenHome(dir)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	started := make(chan Instance, 1)
	done := make(chan error, 1)
	var log bytes.Buffer
	go func() {
		done <- Supervise(ctx, Options{Home: h, Logger: slog.New(slog.NewTextHandler(&log, nil)), BootTime: 300 * time.Millisecond,
			Started: func(i Instance) { started <- i }})
	}()
	r := &running{home: h}
	select {
	case r.inst = <-started:
	case err := <-done:
		cancel()
		t.Fatalf("instance did not start: %v\n%s", err, log.String())
	case <-time.After(2 * time.Minute):
		cancel()
		t.Fatal("instance did not start within 2 minutes")
	}
	if r.etcd, err = DialEtcd(r.inst); err != nil {
		t.Fatal(err)
	}
	stopped := false
	r.stop = func() {
		if stopped {
			return
		}
		stopped = true
		_ = r.etcd.Close()
		cancel()
		select {
		case err := <-done:
			if err != nil {
				t.Errorf("instance ended with: %v", err)
			}
		case <-time.After(time.Minute):
			t.Error("instance did not stop within a minute")
		}
		if t.Failed() {
			t.Logf("supervisor:\n%s", log.String())
			for _, f := range []string{h.LogFile("fleet", ""), h.LogFile("kube-apiserver", "c1"), h.LogFile("kube-controller-manager", "c1"), h.LogFile("kube-scheduler", "c1")} {
				t.Logf("%s:\n%s", f, logTail(f))
			}
		}
	}
	t.Cleanup(r.stop)
	return r
}

func testCluster() intent.ClusterIntent {
	return intent.ClusterIntent{
		UID: "c1", Generation: 1, ResourceGroup: "rg", Name: "one", NodeResourceGroup: "MC_rg_one_eastus", Location: "eastus",
		KubernetesVersion: "1.36.3", NetworkPlugin: "azure", NetworkPluginMode: "overlay", NetworkDataplane: "cilium",
		NodeProvisioning: intent.NodeProvisioning{Mode: "Manual"},
	}
}

func testMachine(name string) intent.MachineIntent {
	return intent.MachineIntent{
		ClusterUID: "c1", Pool: "nodepool1", Name: name, NodeName: "aks-nodepool1-" + name,
		ProviderID: "azure:///subscriptions/s/resourceGroups/mc_rg_one_eastus/providers/Microsoft.Compute/virtualMachineScaleSets/aks-nodepool1-vmss/virtualMachines/" + name,
		VMSize:     "Standard_D4s_v5", Location: "eastus", Zone: "1", Mode: "System", MaxPods: 250, OSDiskSizeGB: 128, OSSKU: "Ubuntu",
		NodeImageVersion: "AKSUbuntu-2404gen2containerd-202611.01.0", KubernetesVersion: "1.36.3", NodeResourceGroup: "MC_rg_one_eastus",
	}
}

func (r *running) put(t *testing.T, key string, v any) {
	t.Helper()
	if err := intent.Put(context.Background(), r.etcd, key, v); err != nil {
		t.Fatal(err)
	}
}

// clusterReady waits until the cluster has caught up with its intent.
func (r *running) clusterReady(t *testing.T, generation int64) intent.ClusterStatus {
	t.Helper()
	var st intent.ClusterStatus
	eventually(t, "the control plane to be Ready", 3*time.Minute, func() error {
		var err error
		st, _, err = intent.Get[intent.ClusterStatus](context.Background(), r.etcd, intent.ClusterStatusKey("c1"))
		if err != nil {
			return err
		}
		if st.Phase != intent.ClusterReady || st.ObservedGeneration != generation {
			return fmt.Errorf("phase %s, generation %d: %s", st.Phase, st.ObservedGeneration, st.Message)
		}
		return nil
	})
	return st
}

func kubeClient(t *testing.T, st intent.ClusterStatus) kubernetes.Interface {
	t.Helper()
	cfg, err := clientcmd.RESTConfigFromKubeConfig([]byte(st.AdminKubeconfig))
	if err != nil {
		t.Fatal(err)
	}
	c, err := kubernetes.NewForConfig(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func eventually(t *testing.T, what string, within time.Duration, check func() error) {
	t.Helper()
	began := time.Now()
	for {
		err := check()
		if err == nil {
			t.Logf("%s: %s", what, time.Since(began).Round(10*time.Millisecond))
			return
		}
		if time.Since(began) > within {
			t.Fatalf("waited %s for %s: %v", within, what, err)
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// TestIntentsBecomeACluster writes a cluster and a machine into etcd as ARM
// does, and follows them through life: Ready, a pod running, a kill -9 of each
// process, a stop and start of the whole instance, and their end.
func TestIntentsBecomeACluster(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a control plane")
	}
	ctx := context.Background()
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

	nodeReady := func(name string) func() error {
		return func() error {
			n, err := k.CoreV1().Nodes().Get(ctx, name, metav1.GetOptions{})
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
		}
	}
	eventually(t, "the node to be Ready and without taints", time.Minute, nodeReady("aks-nodepool1-0"))
	n, err := k.CoreV1().Nodes().Get(ctx, "aks-nodepool1-0", metav1.GetOptions{})
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

	runPod := func(name string) {
		t.Helper()
		_, err := k.CoreV1().Pods("default").Create(ctx, &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Name: name},
			Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "pause",
				Resources: corev1.ResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("100m")}}}}},
		}, metav1.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
		eventually(t, "pod "+name+" to run", time.Minute, func() error {
			p, err := k.CoreV1().Pods("default").Get(ctx, name, metav1.GetOptions{})
			if err != nil {
				return err
			}
			if p.Status.Phase != corev1.PodRunning || p.Status.PodIP == "" {
				return fmt.Errorf("phase %s, IP %q", p.Status.Phase, p.Status.PodIP)
			}
			return nil
		})
	}
	eventually(t, "the default service account", time.Minute, func() error {
		_, err := k.CoreV1().ServiceAccounts("default").Get(ctx, "default", metav1.GetOptions{})
		return err
	})
	runPod("first")
	eventually(t, "kube-system to run", time.Minute, func() error {
		pods, err := k.CoreV1().Pods("kube-system").List(ctx, metav1.ListOptions{})
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

	// Any process may be killed: it comes back, and the work goes on.
	comps, err := ReadComponents(r.home)
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
		name := fmt.Sprint("k", i)
		eventually(t, "the API after the end of "+c.Name, time.Minute, func() error {
			_, err := k.CoreV1().ServiceAccounts("default").Get(ctx, "default", metav1.GetOptions{})
			return err
		})
		runPod(name)
	}
	eventually(t, "all components to be back", time.Minute, func() error {
		now, err := ReadComponents(r.home)
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

	// The state survives a stop of everything.
	r.stop()
	if t.Failed() {
		return
	}
	r = startInstance(t, dir)
	st = r.clusterReady(t, 1)
	k = kubeClient(t, st)
	eventually(t, "the node after a restart", time.Minute, nodeReady("aks-nodepool1-0"))
	runPod("later")

	// A machine whose intent goes takes its Node and pods along, then its status.
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

	// A cluster whose intent goes leaves nothing behind.
	if err := intent.Delete(ctx, r.etcd, intent.ClusterIntentKey("c1")); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the cluster to be gone", time.Minute, func() error {
		if _, found, err := intent.Get[intent.ClusterStatus](ctx, r.etcd, intent.ClusterStatusKey("c1")); err != nil || found {
			return fmt.Errorf("status found: %t, %w", found, err)
		}
		resp, err := r.etcd.Get(ctx, etcdPrefix("c1"), clientv3.WithPrefix(), clientv3.WithCountOnly())
		if err != nil || resp.Count > 0 {
			return fmt.Errorf("%d objects left in etcd (%w)", resp.Count, err)
		}
		if _, err := os.Stat(r.home.ClusterPath("c1")); err == nil {
			return fmt.Errorf("its folder is still there")
		}
		return nil
	})

	// Keys are for the owner's eyes only.
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
