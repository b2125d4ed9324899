// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

// Package view reads the state of an instance for display: its clusters, their
// machines with prices, and the number of their pods. It only reads, and with time
// limits, so that it answers while the instance is busy.
package view

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/nap-aks/nap/catalog"
	"github.com/nap-aks/nap/localazure/intent"
)

// Cluster is one managed cluster.
type Cluster struct {
	Name              string    `json:"name"`
	UID               string    `json:"uid"`
	ResourceGroup     string    `json:"resourceGroup"`
	Location          string    `json:"location"`
	Phase             string    `json:"phase"`
	Message           string    `json:"message,omitempty"`
	NodeProvisioning  string    `json:"nodeProvisioning"`
	KubernetesVersion string    `json:"kubernetesVersion"`
	Endpoint          string    `json:"endpoint"`
	Machines          []Machine `json:"machines"`
	USDPerHour        float64   `json:"usdPerHour"`
	Pods              *Pods     `json:"pods,omitempty"`
	// FailingStage is set while simulated kubelets cannot write statuses.
	FailingStage *intent.FailingStage `json:"failingStage,omitempty"`
	// UpdatedAt is when the control plane last reported a change.
	UpdatedAt time.Time `json:"updatedAt"`

	kubeconfig string
}

// Machine is one virtual machine.
type Machine struct {
	Name       string  `json:"name"`
	Pool       string  `json:"pool"`
	NodePool   string  `json:"nodePool,omitempty"`
	Node       string  `json:"node"`
	Size       string  `json:"size"`
	Zone       string  `json:"zone,omitempty"`
	Spot       bool    `json:"spot"`
	Phase      string  `json:"phase"`
	Message    string  `json:"message,omitempty"`
	USDPerHour float64 `json:"usdPerHour"`
	// Pods is how many pods run on it, -1 if unknown.
	Pods int `json:"pods"`
}

// Provisioned reports whether node auto-provisioning created the machine.
func (m Machine) Provisioned() bool { return m.Pool == intent.MachinesPool }

// Capacity returns "spot" or "on-demand".
func (m Machine) Capacity() string {
	if m.Spot {
		return "spot"
	}
	return "on-demand"
}

// Pods counts a cluster's pods, those of kube-system included.
type Pods struct {
	Running int `json:"running"`
	Pending int `json:"pending"`
	// Ended are pods that Succeeded or Failed.
	Ended int `json:"ended"`
}

// Read returns all clusters. With pods it also queries each API server, until ctx
// ends; a cluster that does not answer has no Pods.
func Read(ctx context.Context, c *clientv3.Client, pods bool) ([]Cluster, error) {
	intents, _, err := intent.List[intent.ClusterIntent](ctx, c, intent.ClusterIntentPrefix)
	if err != nil {
		return nil, err
	}
	out := make([]Cluster, 0, len(intents))
	for _, ci := range intents {
		st, _, err := intent.Get[intent.ClusterStatus](ctx, c, intent.ClusterStatusKey(ci.UID))
		if err != nil {
			return nil, err
		}
		cl := Cluster{
			Name: ci.Name, UID: ci.UID, ResourceGroup: ci.ResourceGroup, Location: ci.Location,
			Phase: string(st.Phase), Message: st.Message, NodeProvisioning: st.NodeProvisioningMode,
			KubernetesVersion: st.KubernetesVersion, Endpoint: st.Endpoint, UpdatedAt: st.UpdatedAt, kubeconfig: st.AdminKubeconfig,
		}
		if cl.Phase == "" {
			cl.Phase = string(intent.ClusterStarting)
		}
		if cl.Machines, err = machines(ctx, c, ci); err != nil {
			return nil, err
		}
		failing, _, err := intent.Get[intent.FailingStage](ctx, c, intent.FailingStageKey(ci.UID))
		if err != nil {
			return nil, err
		}
		if time.Since(failing.At) < intent.FailingStageFor {
			cl.FailingStage = &failing
		}
		for _, m := range cl.Machines {
			cl.USDPerHour += m.USDPerHour
		}
		if pods && cl.kubeconfig != "" && st.Phase == intent.ClusterReady {
			cl.countPods(ctx)
		}
		out = append(out, cl)
	}
	slices.SortFunc(out, func(a, b Cluster) int { return cmp.Compare(a.Name, b.Name) })
	return out, nil
}

func machines(ctx context.Context, c *clientv3.Client, ci intent.ClusterIntent) ([]Machine, error) {
	list, _, err := intent.List[intent.MachineIntent](ctx, c, intent.MachineIntentPrefix+ci.UID+"/")
	if err != nil {
		return nil, err
	}
	statuses, _, err := intent.List[intent.MachineStatus](ctx, c, intent.MachineStatusPrefix+ci.UID+"/")
	if err != nil {
		return nil, err
	}
	byName := map[string]intent.MachineStatus{}
	for _, st := range statuses {
		byName[st.Pool+"/"+st.Name] = st
	}
	out := make([]Machine, 0, len(list))
	for _, mi := range list {
		st := byName[mi.Pool+"/"+mi.Name]
		m := Machine{
			Name: mi.Name, Pool: mi.Pool, NodePool: mi.Labels["karpenter.sh/nodepool"], Node: mi.NodeName,
			Size: mi.VMSize, Zone: mi.Zone, Spot: mi.Spot, Phase: string(st.Phase), Message: strings.TrimSpace(st.Code + " " + st.Message), Pods: -1,
		}
		if m.Phase == "" {
			m.Phase = string(intent.MachineBooting)
		}
		if size, err := catalog.Lookup(mi.Location, mi.VMSize); err == nil {
			m.Size = size.Name
			m.USDPerHour = size.OnDemandUSDPerHour
			if mi.Spot {
				m.USDPerHour = size.SpotUSDPerHour
			}
		}
		out = append(out, m)
	}
	return out, nil
}

// countPods fills in the pods of a cluster and of each machine.
func (cl *Cluster) countPods(ctx context.Context) {
	kube, err := Client([]byte(cl.kubeconfig))
	if err != nil {
		return
	}
	// From the API server's cache: this must not slow down what it looks at.
	list, err := kube.CoreV1().Pods("").List(ctx, metav1.ListOptions{ResourceVersion: "0"})
	if err != nil {
		return
	}
	cl.Pods = CountPods(list.Items)
	perNode := map[string]int{}
	for i := range list.Items {
		if p := &list.Items[i]; p.Status.Phase == corev1.PodRunning {
			perNode[p.Spec.NodeName]++
		}
	}
	for i := range cl.Machines {
		cl.Machines[i].Pods = perNode[cl.Machines[i].Node]
	}
}

// CountPods counts pods by phase.
func CountPods(pods []corev1.Pod) *Pods {
	n := &Pods{}
	for i := range pods {
		switch pods[i].Status.Phase {
		case corev1.PodRunning:
			n.Running++
		case corev1.PodSucceeded, corev1.PodFailed:
			n.Ended++
		default:
			n.Pending++
		}
	}
	return n
}

// Config returns the client configuration of a kubeconfig.
func Config(kubeconfig []byte) (*rest.Config, error) {
	cfg, err := clientcmd.RESTConfigFromKubeConfig(kubeconfig)
	if err != nil {
		return nil, fmt.Errorf("kubeconfig: %w", err)
	}
	cfg.QPS, cfg.Burst = 100, 200
	cfg.Timeout = 20 * time.Second
	return cfg, nil
}

// Client returns a Kubernetes client for a kubeconfig, which uses protobuf.
func Client(kubeconfig []byte) (kubernetes.Interface, error) {
	cfg, err := Config(kubeconfig)
	if err != nil {
		return nil, err
	}
	cfg.ContentType = "application/vnd.kubernetes.protobuf"
	return kubernetes.NewForConfig(cfg)
}
