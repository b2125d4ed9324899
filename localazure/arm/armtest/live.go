// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package armtest

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/nap-aks/nap/localazure/arm/containerservice/kubeapi"
)

// Live is a fake of a cluster's Kubernetes API whose content the test sets.
type Live struct {
	mu    sync.Mutex
	Nodes []string
	Pools map[string]string
	// Expander is the configuration of the autoscaler's priority expander.
	Expander string
	// Objects are whole NodePools; those whose CPU limit is not 0 count as open,
	// like Pools.
	Objects []map[string]any
	// made are the objects created by Create, by their creator.
	made     map[string][]map[string]any
	held     []string // pods that must not be moved
	claims   []string // NodeClaims
	waits    []string // pods without a node
	cordoned map[string]string
	never    []string // PodDisruptionBudgets that never allow an eviction
	// refuse and notReady are the reasons with which Create fails and NodePools
	// are not ready.
	refuse, notReady string
}

// SetWaits sets the pods that have no node.
func (l *Live) SetWaits(pods ...string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.waits = pods
}

// Refuse sets the reasons with which Create fails and NodePools are not ready;
// empty ones let both succeed.
func (l *Live) Refuse(create, ready string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.refuse, l.notReady = create, ready
}

// State returns the created objects, as "Kind name", and the cordoned nodes.
func (l *Live) State() (made, cordoned []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, os := range l.made {
		for _, o := range os {
			name, _, _ := unstructured.NestedString(o, "metadata", "name")
			made = append(made, fmt.Sprint(o["kind"], " ", name))
		}
	}
	for n := range l.cordoned {
		cordoned = append(cordoned, n)
	}
	slices.Sort(made)
	slices.Sort(cordoned)
	return made, cordoned
}

// Create implements kubeapi.Client.
func (l *Live) Create(_ context.Context, object map[string]any, by string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.refuse != "" {
		return fmt.Errorf("%s: %w", l.refuse, kubeapi.ErrRefused)
	}
	if l.made == nil {
		l.made = map[string][]map[string]any{}
	}
	name, _, _ := unstructured.NestedString(object, "metadata", "name")
	for _, o := range l.made[by] {
		if n, _, _ := unstructured.NestedString(o, "metadata", "name"); n == name && o["kind"] == object["kind"] {
			return nil
		}
	}
	l.made[by] = append(l.made[by], object)
	return nil
}

// DeleteCreated implements kubeapi.Client.
func (l *Live) DeleteCreated(_ context.Context, by string) ([]string, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.made, by)
	return nil, nil
}

// NotReady implements kubeapi.Client.
func (l *Live) NotReady(_ context.Context, names []string) (map[string]string, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := map[string]string{}
	for _, n := range names {
		if l.notReady != "" {
			out[n] = l.notReady
		}
	}
	return out, nil
}

// Cordon implements kubeapi.Client.
func (l *Live) Cordon(_ context.Context, nodes []string, by string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.cordoned == nil {
		l.cordoned = map[string]string{}
	}
	for _, n := range nodes {
		l.cordoned[n] = by
	}
	return nil
}

// Uncordon implements kubeapi.Client.
func (l *Live) Uncordon(_ context.Context, by string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	for n, who := range l.cordoned {
		if who == by {
			delete(l.cordoned, n)
		}
	}
	return nil
}

// UnscheduledPods implements kubeapi.Client.
func (l *Live) UnscheduledPods(context.Context, time.Time) ([]string, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]string(nil), l.waits...), nil
}

// SetClaims sets the NodeClaims.
func (l *Live) SetClaims(names ...string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.claims = names
}

// NodeClaims implements kubeapi.Client.
func (l *Live) NodeClaims(context.Context) ([]string, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]string(nil), l.claims...), nil
}

// Priorities implements kubeapi.Client.
func (l *Live) Priorities(context.Context) (string, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.Expander, nil
}

// SetHeld sets the pods that must not be moved.
func (l *Live) SetHeld(pods ...string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.held = pods
}

// SetNever sets the PodDisruptionBudgets that never allow an eviction.
func (l *Live) SetNever(budgets ...string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.never = budgets
}

// BlockingBudgets implements kubeapi.Client.
func (l *Live) BlockingBudgets(context.Context) ([]string, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]string(nil), l.never...), nil
}

// UnevictablePods implements kubeapi.Client.
func (l *Live) UnevictablePods(context.Context, []string) ([]string, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]string(nil), l.held...), nil
}

// DeleteNodeClaim implements kubeapi.Client.
func (l *Live) DeleteNodeClaim(_ context.Context, node string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.cordoned, node)
	l.Nodes = slices.DeleteFunc(l.Nodes, func(n string) bool { return n == node })
	return nil
}

// SetObjects sets the NodePools.
func (l *Live) SetObjects(pools ...map[string]any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.Objects = pools
}

// Object returns a NodePool as JSON.
func (l *Live) Object(i int) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	b, err := json.Marshal(l.Objects[i])
	if err != nil {
		return err.Error()
	}
	return string(b)
}

// EditNodePools implements kubeapi.Client.
func (l *Live) EditNodePools(_ context.Context, f func(map[string]any) (bool, error)) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, o := range l.Objects {
		if _, err := f(o); err != nil {
			return err
		}
	}
	return nil
}

// Set sets the provisioned nodes and the open NodePools.
func (l *Live) Set(nodes []string, pools map[string]string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.Nodes, l.Pools = nodes, pools
}

// ProvisionedNodes implements kubeapi.Client.
func (l *Live) ProvisionedNodes(context.Context) ([]string, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]string(nil), l.Nodes...), nil
}

// OpenNodePools implements kubeapi.Client.
func (l *Live) OpenNodePools(context.Context) (map[string]string, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := map[string]string{}
	for k, v := range l.Pools {
		out[k] = v
	}
	for _, o := range l.Objects {
		name, _, _ := unstructured.NestedString(o, "metadata", "name")
		if v, ok, _ := unstructured.NestedFieldCopy(o, "spec", "limits", "cpu"); !ok || fmt.Sprint(v) != "0" {
			out[name] = fmt.Sprint(v)
		}
	}
	return out, nil
}
