package containerservice

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/nap-aks/nap/localazure/intent"
)

// Live is the cluster's own API, as far as switching node auto-provisioning off
// and freezing it need it.
type Live interface {
	// ProvisionedNodes are the names of the nodes that node auto-provisioning
	// made, and OpenNodePools those of the NodePools whose CPU limit is not 0,
	// each with the limit ("none" if there is none).
	ProvisionedNodes(ctx context.Context) ([]string, error)
	OpenNodePools(ctx context.Context) (map[string]string, error)
	// EditNodePools has f change every NodePool, as an object of its API, and
	// writes those of which f says that it did.
	EditNodePools(ctx context.Context, f func(pool map[string]any) (bool, error)) error

	// Create makes a NodePool or AKSNodeClass and notes on it who did; one that
	// is there by the same hand is enough. The error wraps ErrRefused if trying
	// again will not help.
	Create(ctx context.Context, object map[string]any, by string) error
	// Unmake deletes what Create made by a hand, NodePools before classes, and
	// names what is not gone yet.
	Unmake(ctx context.Context, by string) (left []string, err error)
	// NotReady says of the NodePools named which are not ready, and why.
	NotReady(ctx context.Context, names []string) (map[string]string, error)
	// Cordon keeps new pods from nodes; those that are cordoned already, or not
	// there, stay as they are. Uncordon undoes what one hand has cordoned.
	Cordon(ctx context.Context, nodes []string, by string) error
	Uncordon(ctx context.Context, by string) error
	// Waiting names the pods made since then that have no node yet.
	Waiting(ctx context.Context, since time.Time) ([]string, error)
	// NodeClaims names those that there are, also while they go: their machines
	// and nodes may be gone before them, but not the controller.
	NodeClaims(ctx context.Context) ([]string, error)
	// Priorities is what the cluster autoscaler's priority expander is told, from
	// its ConfigMap; empty if there is none.
	Priorities(ctx context.Context) (string, error)
	// Held names the pods on nodes that must not be moved now, each with what
	// says so: a PodDisruptionBudget that allows nothing, or an annotation.
	Held(ctx context.Context, nodes []string) ([]string, error)
	// NeverBudgets names the PodDisruptionBudgets, as namespace/name, with which no
	// pod can ever be evicted.
	NeverBudgets(ctx context.Context) ([]string, error)
	// Release has node auto-provisioning drain a node that it made and delete
	// its machine.
	Release(ctx context.Context, node string) error
}

// Dial gives a cluster's API from its admin kubeconfig.
type Dial func(status intent.ClusterStatus) (Live, error)

const liveTimeout = 15 * time.Second

func restConfig(status intent.ClusterStatus) (*rest.Config, error) {
	if status.AdminKubeconfig == "" {
		return nil, errors.New("the control plane has not come up yet")
	}
	cfg, err := clientcmd.RESTConfigFromKubeConfig([]byte(status.AdminKubeconfig))
	if err != nil {
		return nil, fmt.Errorf("reading the cluster's kubeconfig: %w", err)
	}
	cfg.Timeout = liveTimeout
	return cfg, nil
}

// dialDynamic is the Dial of real clusters.
func dialDynamic(status intent.ClusterStatus) (Live, error) {
	cfg, err := restConfig(status)
	if err != nil {
		return nil, err
	}
	c, err := dynamic.NewForConfig(cfg)
	if err != nil {
		return nil, fmt.Errorf("making a client of the cluster: %w", err)
	}
	return liveCluster{c}, nil
}

type liveCluster struct{ c dynamic.Interface }

func (l liveCluster) list(ctx context.Context, r schema.GroupVersionResource, selector string) ([]unstructured.Unstructured, error) {
	var out []unstructured.Unstructured
	opts := metav1.ListOptions{LabelSelector: selector, Limit: 500}
	for {
		page, err := l.c.Resource(r).List(ctx, opts)
		if apierrors.IsNotFound(err) || meta.IsNoMatchError(err) {
			return nil, nil
		}
		if err != nil {
			return nil, fmt.Errorf("listing %s: %w", r.Resource, err)
		}
		out = append(out, page.Items...)
		if page.GetContinue() == "" {
			return out, nil
		}
		opts.Continue = page.GetContinue()
	}
}

func (l liveCluster) ProvisionedNodes(ctx context.Context) ([]string, error) {
	nodes, err := l.list(ctx, schema.GroupVersionResource{Version: "v1", Resource: "nodes"}, "karpenter.sh/nodepool")
	if err != nil {
		return nil, err
	}
	var out []string
	for _, n := range nodes {
		out = append(out, n.GetName())
	}
	return out, nil
}

func (l liveCluster) OpenNodePools(ctx context.Context) (map[string]string, error) {
	pools, err := l.list(ctx, schema.GroupVersionResource{Group: "karpenter.sh", Version: "v1", Resource: "nodepools"}, "")
	if err != nil {
		return nil, err
	}
	out := map[string]string{}
	for _, p := range pools {
		v, ok, err := unstructured.NestedFieldNoCopy(p.Object, "spec", "limits", "cpu")
		if err != nil || !ok {
			out[p.GetName()] = "none"
			continue
		}
		q, err := resource.ParseQuantity(strings.TrimSpace(fmt.Sprint(v)))
		if err != nil || !q.IsZero() {
			out[p.GetName()] = fmt.Sprint(v)
		}
	}
	return out, nil
}
