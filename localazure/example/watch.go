// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package example

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/nap-aks/nap/catalog"
	"github.com/nap-aks/nap/examples"
	"github.com/nap-aks/nap/localazure/view"
)

var nodeClaims = schema.GroupVersionResource{Group: "karpenter.sh", Version: "v1", Resource: "nodeclaims"}

// claim is a NodeClaim: a machine on its way from a decision to a node.
type claim struct {
	name, size, zone, capacity, nodePool, node string
	stage                                      string
	price                                      float64
}

// Stages of a claim, in order.
const (
	chosen  = "chosen"
	created = "created"
	joined  = "joined"
)

// readClaims lists the NodeClaims of node auto-provisioning, by name.
func readClaims(ctx context.Context, client dynamic.Interface) ([]claim, error) {
	list, err := client.Resource(nodeClaims).List(ctx, metav1.ListOptions{ResourceVersion: "0"})
	if err != nil {
		return nil, fmt.Errorf("listing NodeClaims: %w", err)
	}
	out := make([]claim, 0, len(list.Items))
	for _, u := range list.Items {
		l := u.GetLabels()
		c := claim{
			name: u.GetName(), size: l[corev1.LabelInstanceTypeStable], zone: l[corev1.LabelTopologyZone],
			capacity: l["karpenter.sh/capacity-type"], nodePool: l["karpenter.sh/nodepool"], stage: chosen,
		}
		c.node, _, _ = unstructured.NestedString(u.Object, "status", "nodeName")
		conds, _, _ := unstructured.NestedSlice(u.Object, "status", "conditions")
		for _, cond := range conds {
			m, ok := cond.(map[string]any)
			if !ok || m["status"] != "True" {
				continue
			}
			switch m["type"] {
			case "Launched":
				if c.stage == chosen {
					c.stage = created
				}
			case "Registered":
				c.stage = joined
			}
		}
		region := l[corev1.LabelTopologyRegion]
		if region == "" {
			region, _, _ = strings.Cut(c.zone, "-")
		}
		if size, err := catalog.Lookup(region, c.size); err == nil {
			c.price = size.OnDemandUSDPerHour
			if c.capacity == "spot" {
				c.price = size.SpotUSDPerHour
			}
		}
		out = append(out, c)
	}
	slices.SortFunc(out, func(a, b claim) int { return cmp.Compare(a.name, b.name) })
	return out, nil
}

// Watch reports machines as they are chosen, created and joined, until every pod of
// the shop runs or has completed.
func Watch(ctx context.Context, cfg *rest.Config, r Reporter) error {
	kube, err := kubernetes.NewForConfig(cfg)
	if err != nil {
		return fmt.Errorf("client: %w", err)
	}
	dyn, err := dynamic.NewForConfig(cfg)
	if err != nil {
		return fmt.Errorf("client: %w", err)
	}
	r.Step("machines for the pods that do not fit")
	reported := map[string]string{}
	began := time.Now()
	var warned time.Time
	for {
		claims, err := readClaims(ctx, dyn)
		if err == nil {
			report(claims, reported, r)
			var pods *corev1.PodList
			pods, err = kube.CoreV1().Pods(examples.ShopNamespace).List(ctx, metav1.ListOptions{ResourceVersion: "0"})
			if err == nil {
				n := view.CountPods(pods.Items)
				all := n.Running + n.Pending + n.Ended
				r.Update(fmt.Sprintf("%d of %d pods running, %s", n.Running+n.Ended, all, countStages(claims)))
				if n.Pending == 0 && all > 0 && deploymentsComplete(ctx, kube) {
					r.Line(fmt.Sprintf("all %d pods run, %s after they were created", all, time.Since(began).Round(100*time.Millisecond)))
					return nil
				}
				if time.Since(began) > 2*time.Minute && time.Since(warned) > time.Minute {
					warned = time.Now()
					r.Line(fmt.Sprintf("%d pods still wait; `nap kubectl -n shop get events` and `nap logs controller` say why", n.Pending))
				}
			}
		}
		if err != nil && ctx.Err() == nil {
			r.Update("cluster does not answer: " + err.Error())
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(400 * time.Millisecond):
		}
	}
}

// deploymentsComplete reports whether all Deployments have their replicas.
func deploymentsComplete(ctx context.Context, kube kubernetes.Interface) bool {
	list, err := kube.AppsV1().Deployments(examples.ShopNamespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		return false
	}
	for i := range list.Items {
		d := &list.Items[i]
		if d.Status.ObservedGeneration < d.Generation || d.Status.ReadyReplicas < *d.Spec.Replicas {
			return false
		}
	}
	return len(list.Items) > 0
}

// report prints the claims whose stage has changed; reported holds the last stages.
func report(claims []claim, reported map[string]string, r Reporter) {
	for _, c := range claims {
		if reported[c.name] == c.stage || c.size == "" {
			continue
		}
		if reported[c.name] == "" {
			r.Line(fmt.Sprintf("bought   %-18s %-22s %-10s %-9s $%.4f/h  for NodePool %s", c.name, c.size, place(c.zone), c.capacity, c.price, c.nodePool))
		}
		if c.stage == joined {
			r.Line(fmt.Sprintf("joined   %-18s %-22s %-10s as node %s", c.name, c.size, place(c.zone), c.node))
		}
		reported[c.name] = c.stage
	}
}

// place returns a zone for display: zone "0" means a regional machine.
func place(zone string) string {
	if zone == "0" {
		return "regional"
	}
	return zone
}

func countStages(claims []claim) string {
	n := map[string]int{}
	for _, c := range claims {
		n[c.stage]++
	}
	return fmt.Sprintf("machines: %d chosen, %d created, %d joined", len(claims), n[created]+n[joined], n[joined])
}
