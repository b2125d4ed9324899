// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package snapshot_test

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	karpv1 "sigs.k8s.io/karpenter/pkg/apis/v1"

	"github.com/nap-aks/nap/engine"
	"github.com/nap-aks/nap/snapshot"
	"github.com/nap-aks/nap/test/clustergen"
)

// TestWarmPlanEqualsColdPlan changes a cluster step by step and compares the plan from
// the updated compiled cluster with that from a new one.
func TestWarmPlanEqualsColdPlan(t *testing.T) {
	for seed := range uint64(60) {
		o := clustergen.Generate(seed, clustergen.Options{})
		r := rand.New(rand.NewPCG(seed, 3))
		c, err := snapshot.Load(o)
		if err != nil {
			t.Fatal(err)
		}
		for step := range 6 {
			in, err := c.Snapshot(o.Now)
			if err != nil {
				t.Fatal(err)
			}
			warm, err := c.Place(in, in.Options)
			if err != nil {
				t.Fatalf("seed %d, step %d: %v", seed, step, err)
			}
			cold, err := engine.Place(in.Snapshot, in.Options)
			if err != nil {
				t.Fatalf("seed %d, step %d: %v", seed, step, err)
			}
			w, _ := json.MarshalIndent(warm, "", " ")
			k, _ := json.MarshalIndent(cold, "", " ")
			diff(t, fmt.Sprintf("seed %d, step %d", seed, step), string(k), string(w))
			if err := change(r, c, o, warm); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// change makes a random change to the cluster.
func change(r *rand.Rand, c *snapshot.Cache, o *snapshot.Objects, plan *engine.Plan) error {
	pods := map[string]*corev1.Pod{}
	for _, p := range o.Pods {
		pods[snapshot.PodKey(p)] = p
	}
	switch r.IntN(8) {
	case 6, 7: // the second call changes an amount only
		c.SetQuotas(quotas(int64(r.IntN(40))))
	case 0: // the scheduler binds the pods placed on nodes
		for _, pl := range plan.Placements {
			for _, g := range pl.Pods {
				for _, k := range g.Pods {
					if pods[k] == nil {
						continue
					}
					p := pods[k].DeepCopy()
					p.Spec.NodeName, p.Status = pl.Node, corev1.PodStatus{Phase: corev1.PodRunning}
					if err := c.Upsert(p); err != nil {
						return err
					}
				}
			}
		}
	case 1:
		if len(o.Nodes) > 0 {
			return c.Delete(o.Nodes[r.IntN(len(o.Nodes))])
		}
	case 2:
		other := clustergen.Generate(r.Uint64(), clustergen.Options{})
		for _, p := range other.Pods {
			if p.Spec.NodeName == "" && len(p.Spec.Volumes) == 0 {
				p.Name = "more-" + p.Name
				if err := c.Upsert(p); err != nil {
					return err
				}
			}
		}
	case 3:
		np := o.NodePools[r.IntN(len(o.NodePools))].DeepCopy()
		np.Spec.Limits = karpv1.Limits{corev1.ResourceCPU: *resource.NewQuantity(int64(r.IntN(50)), resource.DecimalSI)}
		return c.Upsert(np)
	case 4:
		for _, n := range o.Nodes {
			if r.IntN(2) == 0 {
				c.SetMarked([]string{n.Spec.ProviderID})
			}
		}
	case 5:
		for _, p := range o.Pods {
			if r.IntN(4) == 0 {
				if err := c.Delete(p); err != nil {
					return err
				}
			}
		}
	}
	return nil
}
