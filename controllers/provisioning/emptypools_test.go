// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package provisioning

import (
	"strings"
	"testing"

	karpv1 "sigs.k8s.io/karpenter/pkg/apis/v1"

	"github.com/nap-aks/nap/controllers/nodepool"
)

func TestRefusedPodsHearOfNodePoolsWithoutSizes(t *testing.T) {
	env := newEnv(t)
	pool := &karpv1.NodePool{}
	pools := &karpv1.NodePoolList{}
	if err := env.kube.List(env.ctx, pools); err != nil || len(pools.Items) == 0 {
		t.Fatal(err, len(pools.Items))
	}
	*pool = pools.Items[0]
	pool.Spec.Template.Spec.Requirements = append(pool.Spec.Template.Spec.Requirements, karpv1.NodeSelectorRequirementWithMinValues{
		Key: karpv1.CapacityTypeLabelKey, Operator: "In", Values: []string{"Spot"},
	})
	if err := env.kube.Update(env.ctx, pool); err != nil {
		t.Fatal(err)
	}
	if _, err := nodepool.NewInstanceTypes(env.kube, env.provider, env.events, env.clock).Reconcile(env.ctx, pool); err != nil {
		t.Fatal(err)
	}
	if err := env.kube.Update(env.ctx, pool); err != nil { // this API server has no status subresource
		t.Fatal(err)
	}
	if err := env.p.cache.Upsert(pool); err != nil {
		t.Fatal(err)
	}
	env.apply(pod("a", "1"))
	env.pass()
	told := strings.Join(env.events.about("a", "FailedScheduling"), "\n")
	if !strings.Contains(told, `write "spot"`) || !strings.Contains(told, pool.Name) {
		t.Errorf("the pod's event does not name NodePool and nearest value: %s", told)
	}
}
