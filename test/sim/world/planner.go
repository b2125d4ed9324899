// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package world

import (
	"fmt"
	"hash/fnv"
	"io"
	"sort"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	karpv1 "sigs.k8s.io/karpenter/pkg/apis/v1"
	"sigs.k8s.io/karpenter/pkg/cloudprovider"

	"github.com/nap-aks/nap/apis/v1beta1"
	"github.com/nap-aks/nap/plan"
	"github.com/nap-aks/nap/snapshot"
)

// Ideal is what the pods of a moment cost on a fleet bought for them at once.
type Ideal struct {
	PlanUSDPerHour  float64 // of nap's plan of all pods on an empty fleet
	BoundUSDPerHour float64 // proven: no fleet for these pods costs less
	Machines        int     // of the plan
	Refused         int     // pods that no machine can run
}

// planner computes ideals. It keeps the last one, because most moments have the pods
// of the one before.
type planner struct {
	location string
	pools    string // identity of the NodePools that types belongs to
	types    map[string][]*cloudprovider.InstanceType
	shapes   uint64
	last     Ideal
	solved   int
}

// ideal returns the ideal of the given cluster. Nodes that carry the label of a
// NodePool are taken away, with their NodeClaims; all pods but those of DaemonSets
// and static pods become pending. The pods of other nodes stay where they are.
func (p *planner) ideal(src *plan.Source) (Ideal, error) {
	o := freshFleet(src.Objects)
	src.Objects = o
	shapes := shapesOf(o)
	if shapes == p.shapes && p.solved > 0 {
		return p.last, nil
	}
	pools := poolsKey(o.NodePools, src.NodeClasses)
	if p.types == nil || pools != p.pools {
		if err := src.AddInstanceTypes(p.location); err != nil {
			return Ideal{}, err
		}
		p.types, p.pools = o.InstanceTypes, pools
	}
	o.InstanceTypes = p.types
	r, err := plan.Nap(o, plan.Options{MaxAlternatives: -1})
	if err != nil {
		return Ideal{}, fmt.Errorf("planning all pods at %s: %w", o.Now.Format(time.RFC3339), err)
	}
	p.last = Ideal{PlanUSDPerHour: r.Summary.USDPerHour, BoundUSDPerHour: r.Summary.BoundUSDPerHour, Machines: r.Summary.Machines, Refused: r.Summary.Refused}
	p.shapes = shapes
	p.solved++
	return p.last, nil
}

// freshFleet returns the cluster without the nodes and claims of NodePools, and with
// the pods of workloads that run there, or wait, as pending pods.
func freshFleet(o *snapshot.Objects) *snapshot.Objects {
	out := *o
	out.Nodes, out.NodeClaims, out.Pods, out.Marked, out.Assumed = nil, nil, nil, nil, nil
	kept := map[string]bool{}
	for _, n := range o.Nodes {
		if n.Labels[karpv1.NodePoolLabelKey] == "" {
			out.Nodes = append(out.Nodes, n)
			kept[n.Name] = true
		}
	}
	for _, pod := range o.Pods {
		switch {
		case pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed || pod.DeletionTimestamp != nil:
		case kept[pod.Spec.NodeName]:
			out.Pods = append(out.Pods, pod)
		case ofNode(pod):
		default:
			c := pod.DeepCopy()
			c.Spec.NodeName, c.Status = "", corev1.PodStatus{Phase: corev1.PodPending, Conditions: []corev1.PodCondition{{
				Type: corev1.PodScheduled, Status: corev1.ConditionFalse, Reason: corev1.PodReasonUnschedulable,
			}}}
			out.Pods = append(out.Pods, c)
		}
	}
	return &out
}

// ofNode reports whether a pod belongs to a node, as those of DaemonSets and static
// pods do.
func ofNode(pod *corev1.Pod) bool {
	owner := metav1.GetControllerOf(pod)
	return owner != nil && (owner.Kind == "DaemonSet" || owner.Kind == "Node")
}

// shapesOf returns a hash of what the pods ask for, whatever their names.
func shapesOf(o *snapshot.Objects) uint64 {
	counts := map[string]int{}
	for _, pod := range o.Pods {
		owner := ""
		if ref := metav1.GetControllerOf(pod); ref != nil {
			owner = string(ref.UID)
		} else {
			owner = pod.Name
		}
		counts[owner+"/"+pod.Spec.NodeName]++
	}
	keys := make([]string, 0, len(counts))
	for k := range counts {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	h := fnv.New64a()
	for _, k := range keys {
		fmt.Fprintf(h, "%s=%d\n", k, counts[k])
	}
	for _, d := range o.DaemonSets {
		fmt.Fprintf(h, "%s@%d\n", d.UID, d.Generation)
	}
	_, _ = io.WriteString(h, poolsKey(o.NodePools, nil))
	return h.Sum64()
}

func poolsKey(pools []*karpv1.NodePool, classes []*v1beta1.AKSNodeClass) string {
	var keys []string
	for _, np := range pools {
		keys = append(keys, fmt.Sprintf("%s@%d", np.UID, np.Generation))
	}
	for _, nc := range classes {
		keys = append(keys, fmt.Sprintf("%s@%d", nc.UID, nc.Generation))
	}
	sort.Strings(keys)
	return fmt.Sprint(keys)
}
