// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package supervisor

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/nap-aks/nap/localazure/etcd"
	"github.com/nap-aks/nap/localazure/home"
	"github.com/nap-aks/nap/localazure/intent"
)

// TestMain makes the test binary run as a component, as the nap binary does.
func TestMain(m *testing.M) {
	if len(os.Args) > 2 && os.Args[1] == "component" {
		if os.Args[2] == "test-supervisor" {
			testSupervisor()
			os.Exit(0)
		}
		err := RunComponent(os.Args[2], os.Args[3:], Components{ARM: bareARM})
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// bareARM answers every request with 200: these tests write the intents themselves.
func bareARM(ctx context.Context, h home.Home, i home.Instance) error {
	srv := &http.Server{Addr: strings.TrimPrefix(i.ARMEndpoint, "https://"), Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {})}
	go func() { <-ctx.Done(); _ = srv.Close() }()
	return srv.ListenAndServeTLS(h.Path("pki", "arm.crt"), h.Path("pki", "arm.key"))
}

// running is an instance under test.
type running struct {
	home home.Home
	inst home.Instance
	etcd *clientv3.Client
	stop func()
}

func startInstance(t *testing.T, dir string) *running {
	t.Helper()
	h, err := home.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	started := make(chan home.Instance, 1)
	done := make(chan error, 1)
	var log bytes.Buffer
	go func() {
		done <- Supervise(ctx, Options{Home: h, Logger: slog.New(slog.NewTextHandler(&log, nil)), BootTime: 300 * time.Millisecond,
			Started: func(i home.Instance) { started <- i }})
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
	if r.etcd, err = etcd.Dial(r.inst.Etcd); err != nil {
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

// clusterReady waits until the cluster is Ready for a generation of its intent.
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
