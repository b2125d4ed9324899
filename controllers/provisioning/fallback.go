// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package provisioning

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/sets"
	"sigs.k8s.io/controller-runtime/pkg/client"
	karpv1 "sigs.k8s.io/karpenter/pkg/apis/v1"
	karpprovisioning "sigs.k8s.io/karpenter/pkg/controllers/provisioning"
	karpsched "sigs.k8s.io/karpenter/pkg/controllers/provisioning/scheduling"
	"sigs.k8s.io/karpenter/pkg/metrics"
	karpoptions "sigs.k8s.io/karpenter/pkg/operator/options"

	"github.com/nap-aks/nap/engine"
	"github.com/nap-aks/nap/snapshot"
)

// solveTimeout limits the time of Karpenter's scheduler in one pass.
const solveTimeout = time.Minute

// deferred returns the pods that need a feature the engine does not support.
func (p *Provisioner) deferred(in *snapshot.Input, plan *engine.Plan) []*corev1.Pod {
	var out []*corev1.Pod
	for _, v := range plan.Verdicts {
		if v.Outcome != engine.Deferred {
			continue
		}
		for _, feature := range in.Snapshot.Classes[v.Class].Unsupported {
			deferredTotal.WithLabelValues(feature).Add(float64(len(v.Pods)))
		}
		for _, key := range v.Pods {
			if pod := in.Pods[key]; pod != nil {
				out = append(out, pod.DeepCopy())
			}
		}
	}
	return out
}

// fallBack has Karpenter's scheduler place pods, creates the NodeClaims that it
// asks for and assumes the pods. Nodes with assumed pods are left out, because that
// scheduler does not count them.
func (p *Provisioner) fallBack(ctx context.Context, pods []*corev1.Pod) error {
	results, ok, err := p.solveWithKarpenter(ctx, pods)
	if err != nil || !ok {
		return err
	}
	p.cluster.MarkPodSchedulingDecisions(ctx, results.PodErrors, results.NodePoolToPodMapping(), results.ExistingNodeToPodMapping())
	results.Record(ctx, p.Recorder, p.cluster)
	defer p.nominations.signal()
	for _, n := range results.ExistingNodes {
		on := ""
		if n.Node != nil {
			on = n.Node.Name
		} else if n.NodeClaim != nil {
			on = n.NodeClaim.Name
		}
		p.assumeFixed(n.Pods, on)
	}
	if len(results.NewNodeClaims) == 0 {
		return nil
	}
	names, err := p.Karpenter.CreateNodeClaims(ctx, results.NewNodeClaims, karpprovisioning.WithReason(metrics.ProvisionedReason), karpprovisioning.RecordPodNomination)
	if err != nil {
		err = fmt.Errorf("creating NodeClaims of Karpenter's scheduler: %w", err)
	}
	for i, name := range names {
		if name == "" {
			continue // not created: the next pass places its pods
		}
		claim := &karpv1.NodeClaim{}
		if p.Kube.Get(ctx, client.ObjectKey{Name: name}, claim) != nil {
			claim = results.NewNodeClaims[i].ToNodeClaim() // the watch is behind
			claim.Name = name
		}
		// The next pass must not miss the claim, so do not wait for the watch.
		if e := p.cache.Upsert(claim); e != nil {
			err = errors.Join(err, e)
		}
		p.assumeFixed(results.NewNodeClaims[i].Pods, name)
	}
	return err
}

// solveWithKarpenter runs Karpenter's scheduler. It returns false if there is no
// NodePool to schedule with.
func (p *Provisioner) solveWithKarpenter(ctx context.Context, pods []*corev1.Pod) (karpsched.Results, bool, error) {
	o := karpoptions.FromContext(ctx)
	nodes := slices.DeleteFunc(p.cluster.DeepCopyNodes().Active(), p.withAssumedPods())
	opts := []karpsched.Options{
		karpsched.DisableReservedCapacityFallback,
		karpsched.NumConcurrentReconciles(int(math.Ceil(float64(o.CPURequests) / 1000))),
		karpsched.MinValuesPolicy(o.MinValuesPolicy),
	}
	if o.PreferencePolicy == karpoptions.PreferencePolicyIgnore {
		opts = append(opts, karpsched.IgnorePreferences)
	}
	s, err := p.Karpenter.NewScheduler(ctx, pods, nodes, sets.New[types.UID](), opts...)
	if errors.Is(err, karpprovisioning.ErrNodePoolsNotFound) {
		return karpsched.Results{}, false, nil
	}
	if err != nil {
		return karpsched.Results{}, false, fmt.Errorf("creating Karpenter's scheduler for %d pods: %w", len(pods), err)
	}
	timed, cancel := context.WithTimeout(ctx, solveTimeout)
	defer cancel()
	results, err := s.Solve(timed, pods)
	if err != nil && !errors.Is(err, context.DeadlineExceeded) {
		return karpsched.Results{}, false, fmt.Errorf("scheduling %d pods with Karpenter's scheduler: %w", len(pods), err)
	}
	return results.TruncateInstanceTypes(ctx, karpsched.MaxInstanceTypes), true, nil
}
