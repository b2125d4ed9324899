// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

// Package kubeapi is the Kubernetes API of a managed cluster, as far as the
// resource provider calls it: to check the preconditions of a change, to edit
// NodePools, and to drain nodes when node auto-provisioning is enabled or
// disabled. It decides nothing; the operations do.
package kubeapi

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/nap-aks/nap/localazure/intent"
)

// Client is the API of one cluster.
type Client interface {
	// ProvisionedNodes returns the names of the nodes that node
	// auto-provisioning created.
	ProvisionedNodes(ctx context.Context) ([]string, error)
	// OpenNodePools returns the NodePools whose CPU limit is not 0, each with its
	// limit ("none" without one).
	OpenNodePools(ctx context.Context) (map[string]string, error)
	// EditNodePools calls f for every NodePool, as an object of the API, and
	// updates those for which f reports a change.
	EditNodePools(ctx context.Context, f func(pool map[string]any) (bool, error)) error

	// Create creates a NodePool or AKSNodeClass and annotates it with its creator.
	// An existing object of the same creator is accepted. The error wraps
	// ErrRefused if a retry cannot help.
	Create(ctx context.Context, object map[string]any, by string) error
	// DeleteCreated deletes what Create created for a creator, NodePools before
	// AKSNodeClasses, and returns the objects that still exist.
	DeleteCreated(ctx context.Context, by string) (left []string, err error)
	// NotReady returns which of the named NodePools are not ready, and why.
	NotReady(ctx context.Context, names []string) (map[string]string, error)
	// NodeClaims returns the names of all NodeClaims, including those being
	// deleted. A NodeClaim can outlive its machine and node, and its finalizer
	// needs the controller.
	NodeClaims(ctx context.Context) ([]string, error)

	// Cordon cordons nodes and annotates them with who did. Nodes that are
	// cordoned already, or do not exist, are left alone.
	Cordon(ctx context.Context, nodes []string, by string) error
	// Uncordon uncordons the nodes that Cordon cordoned for the same caller.
	Uncordon(ctx context.Context, by string) error
	// DeleteNodeClaim deletes the NodeClaim of a node: node auto-provisioning then
	// drains the node and deletes its machine.
	DeleteNodeClaim(ctx context.Context, node string) error

	// UnscheduledPods returns the pods created since a time that have no node.
	UnscheduledPods(ctx context.Context, since time.Time) ([]string, error)
	// UnevictablePods returns the pods on nodes that must not be evicted now, each
	// with the reason: an exhausted PodDisruptionBudget or an annotation.
	UnevictablePods(ctx context.Context, nodes []string) ([]string, error)
	// BlockingBudgets returns the PodDisruptionBudgets, as namespace/name, that
	// never allow an eviction.
	BlockingBudgets(ctx context.Context) ([]string, error)

	// Priorities returns the priorities in the ConfigMap of the cluster
	// autoscaler's priority expander; empty without one.
	Priorities(ctx context.Context) (string, error)
}

// ErrRefused is wrapped by Client.Create when a retry cannot help.
var ErrRefused = errors.New("the cluster refuses it")

// Dial returns a client of a cluster's API from its admin kubeconfig.
type Dial func(status intent.ClusterStatus) (Client, error)

// Timeout is the longest that a sequence of calls to a cluster may take.
const Timeout = 15 * time.Second

// fieldManager is the field manager of all writes.
const fieldManager = "arm"

var (
	nodePools   = schema.GroupVersionResource{Group: "karpenter.sh", Version: "v1", Resource: "nodepools"}
	nodeClasses = schema.GroupVersionResource{Group: "karpenter.azure.com", Version: "v1beta1", Resource: "aksnodeclasses"}
	nodeClaims  = schema.GroupVersionResource{Group: "karpenter.sh", Version: "v1", Resource: "nodeclaims"}
	nodes       = schema.GroupVersionResource{Version: "v1", Resource: "nodes"}
	pods        = schema.GroupVersionResource{Version: "v1", Resource: "pods"}
	configMaps  = schema.GroupVersionResource{Version: "v1", Resource: "configmaps"}
	budgets     = schema.GroupVersionResource{Group: "policy", Version: "v1", Resource: "poddisruptionbudgets"}
)

// client implements Client for real clusters.
type client struct{ c dynamic.Interface }

// New is the Dial of real clusters.
func New(status intent.ClusterStatus) (Client, error) {
	if status.AdminKubeconfig == "" {
		return nil, errors.New("the control plane is not up yet")
	}
	cfg, err := clientcmd.RESTConfigFromKubeConfig([]byte(status.AdminKubeconfig))
	if err != nil {
		return nil, fmt.Errorf("reading the cluster's kubeconfig: %w", err)
	}
	cfg.Timeout = Timeout
	c, err := dynamic.NewForConfig(cfg)
	if err != nil {
		return nil, fmt.Errorf("creating a client of the cluster: %w", err)
	}
	return client{c}, nil
}

// list returns all objects of a resource; none if the cluster does not serve it.
func (l client) list(ctx context.Context, r schema.GroupVersionResource, labels, fields string) ([]unstructured.Unstructured, error) {
	var out []unstructured.Unstructured
	opts := metav1.ListOptions{LabelSelector: labels, FieldSelector: fields, Limit: 500}
	for {
		page, err := l.c.Resource(r).List(ctx, opts)
		if apierrors.IsNotFound(err) || meta.IsNoMatchError(err) {
			return nil, nil
		}
		if err != nil {
			return nil, fmt.Errorf("listing %s: %w", strings.TrimSpace(r.Resource+" "+fields), err)
		}
		out = append(out, page.Items...)
		if page.GetContinue() == "" {
			return out, nil
		}
		opts.Continue = page.GetContinue()
	}
}

// Priorities implements Client.
func (l client) Priorities(ctx context.Context) (string, error) {
	m, err := l.c.Resource(configMaps).Namespace("kube-system").Get(ctx, "cluster-autoscaler-priority-expander", metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("reading the priorities of the cluster autoscaler: %w", err)
	}
	text, _, err := unstructured.NestedString(m.Object, "data", "priorities")
	return text, err
}
