// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package provisioning

import (
	"context"
	"errors"
	"fmt"
	"sync"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/rand"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"
	karpv1 "sigs.k8s.io/karpenter/pkg/apis/v1"
	"sigs.k8s.io/karpenter/pkg/cloudprovider"
	karpprovisioning "sigs.k8s.io/karpenter/pkg/controllers/provisioning"
	"sigs.k8s.io/karpenter/pkg/metrics"

	"github.com/nap-aks/nap/engine"
	"github.com/nap-aks/nap/snapshot"
)

// concurrentCreates is how many NodeClaims are created at the same time.
const concurrentCreates = 64

// execute creates the plan's NodeClaims, except for the machines that are on their way
// already, and assumes its pods; then it cancels what a revision has no use for. It
// returns the claims by machine index, nil for one that could not be created: its pods
// stay pending for the next pass.
func (p *Provisioner) execute(ctx context.Context, in *snapshot.Input, plan *engine.Plan, r *revision) ([]*karpv1.NodeClaim, error) {
	pools, err := p.poolsOf(ctx, plan)
	if err != nil {
		return make([]*karpv1.NodeClaim, len(plan.Machines)), err
	}
	created, err := p.createClaims(ctx, plan, pools, r)
	errs := []error{err}
	number := p.purchases.newPlan()
	for i, claim := range created {
		if claim == nil {
			continue
		}
		m := &plan.Machines[i]
		if r != nil && r.kept[i] != "" {
			p.purchases.keep(claim.Name, number, m)
			p.assume(m.Pods, claim.Name, in)
			continue
		}
		// The next pass and the next disruption must not miss the claim, so do not wait
		// for the watch.
		if err := p.cache.Upsert(claim); err != nil {
			errs = append(errs, err)
		}
		p.cluster.UpdateNodeClaim(claim)
		p.purchases.add(claim.Name, number, m, in.Pods, p.Clock.Now())
		p.assume(m.Pods, claim.Name, in)
		metrics.NodeClaimsCreatedTotal.Inc(map[string]string{
			metrics.ReasonLabel: metrics.ProvisionedReason, metrics.NodePoolLabel: m.NodePool,
			metrics.MinValuesRelaxedLabel: minValuesRelaxed(claim),
		})
		log.FromContext(ctx).Info("created nodeclaim", "nodeClaim", claim.Name, "nodePool", m.NodePool,
			"instanceType", m.Offerings[0].InstanceType, "alternatives", len(m.Offerings)-1, "requests", claim.Spec.Resources.Requests, "pods", count(m.Pods))
	}
	for _, placed := range plan.Placements {
		p.assume(placed.Pods, placed.Node, in)
		if id := providerID(in.Nodes[placed.Node]); id != "" && realPods(placed.Pods, in) {
			p.cluster.NominateNodeForPod(ctx, id)
		}
	}
	if r != nil {
		p.cancel(ctx, r.cancelled, "Revised")
	}
	return created, errors.Join(errs...)
}

// poolsOf returns the NodePools of the plan's machines by name.
func (p *Provisioner) poolsOf(ctx context.Context, plan *engine.Plan) (map[string]*karpv1.NodePool, error) {
	pools := map[string]*karpv1.NodePool{}
	for _, m := range plan.Machines {
		if _, ok := pools[m.NodePool]; ok {
			continue
		}
		pool := &karpv1.NodePool{}
		if err := p.Kube.Get(ctx, client.ObjectKey{Name: m.NodePool}, pool); err != nil {
			return nil, fmt.Errorf("getting NodePool %s: %w", m.NodePool, err)
		}
		pools[m.NodePool] = pool
	}
	return pools, nil
}

// createClaims creates a NodeClaim for each machine of the plan that a revision does
// not keep. A claim that could not be created is nil.
func (p *Provisioner) createClaims(ctx context.Context, plan *engine.Plan, pools map[string]*karpv1.NodePool, r *revision) ([]*karpv1.NodeClaim, error) {
	created := make([]*karpv1.NodeClaim, len(plan.Machines))
	errs := make([]error, len(plan.Machines))
	types := p.typesOf(ctx, pools)
	var wg sync.WaitGroup
	slots := make(chan struct{}, concurrentCreates)
	for i := range plan.Machines {
		if r != nil && r.kept[i] != "" {
			created[i] = p.cache.Machine(r.kept[i]).Claim
			continue
		}
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			m := &plan.Machines[i]
			claim, err := claimFor(pools[m.NodePool], types[m.NodePool], m)
			if err == nil {
				err = p.create(ctx, claim)
			}
			if err != nil {
				errs[i] = fmt.Errorf("creating a NodeClaim of NodePool %s: %w", m.NodePool, err)
				return
			}
			created[i] = claim
		})
	}
	wg.Wait()
	return created, errors.Join(errs...)
}

// typesOf returns the instance types of NodePools, by pool and type name.
func (p *Provisioner) typesOf(ctx context.Context, pools map[string]*karpv1.NodePool) map[string]map[string]*cloudprovider.InstanceType {
	out := map[string]map[string]*cloudprovider.InstanceType{}
	for name, pool := range pools {
		list, err := p.Provider.GetInstanceTypes(ctx, pool)
		if err != nil {
			log.FromContext(ctx).Error(err, "getting instance types failed", "nodePool", name)
			continue
		}
		byName := make(map[string]*cloudprovider.InstanceType, len(list))
		for _, it := range list {
			byName[it.Name] = it
		}
		out[name] = byName
	}
	return out
}

// create creates a NodeClaim in the API. It chooses the claim's name, not the API
// server, so that confirmCreated can look for a claim whose creation was not
// answered.
func (p *Provisioner) create(ctx context.Context, claim *karpv1.NodeClaim) error {
	claim.Name, claim.GenerateName = claim.GenerateName+rand.String(5), ""
	err := p.Kube.Create(ctx, claim)
	if err != nil && unanswered(err) {
		p.mu.Lock()
		p.unconfirmed = append(p.unconfirmed, claim)
		p.mu.Unlock()
	}
	return err
}

// unanswered reports whether a failed write may have been done all the same: the
// server has not refused it.
func unanswered(err error) bool {
	var refused apierrors.APIStatus
	if !errors.As(err, &refused) {
		return true
	}
	return apierrors.IsTimeout(err) || apierrors.IsServerTimeout(err) || apierrors.IsInternalError(err) || apierrors.IsUnexpectedServerError(err)
}

// confirmCreated looks for the NodeClaims whose creation was not answered and adds
// those that exist to the cache, so that their capacity is not bought again. It
// fails as long as the API server cannot say.
func (p *Provisioner) confirmCreated(ctx context.Context) error {
	p.mu.Lock()
	unconfirmed := p.unconfirmed
	p.unconfirmed = nil
	p.mu.Unlock()
	for i, claim := range unconfirmed {
		// An empty patch is answered by the API server and not by the informer cache,
		// which may not have the claim yet.
		err := p.Kube.Patch(ctx, claim, client.RawPatch(types.MergePatchType, []byte("{}")))
		switch {
		case err == nil:
			if err := p.cache.Upsert(claim); err != nil {
				return err
			}
			p.cluster.UpdateNodeClaim(claim)
		case apierrors.IsNotFound(err):
		default:
			p.mu.Lock()
			p.unconfirmed = append(p.unconfirmed, unconfirmed[i:]...)
			p.mu.Unlock()
			return fmt.Errorf("checking whether NodeClaim %s was created: %w", claim.Name, err)
		}
	}
	return nil
}

// providerID returns the provider ID of a machine, "" if it has none yet.
func providerID(ref snapshot.NodeRef) string {
	switch {
	case ref.Node != nil && ref.Node.Spec.ProviderID != "":
		return ref.Node.Spec.ProviderID
	case ref.Claim != nil:
		return ref.Claim.Status.ProviderID
	}
	return ""
}

// realPods reports whether any of the pods is not a placeholder of a buffer. Only
// real pods protect a node from disruption: placeholders are placed in every pass
// and would protect it for ever.
func realPods(groups []engine.PodGroup, in *snapshot.Input) bool {
	for _, g := range groups {
		for _, key := range g.Pods {
			if !karpprovisioning.IsVirtualPod(in.Pods[key]) {
				return true
			}
		}
	}
	return false
}

// count returns the number of pods of all groups.
func count(groups []engine.PodGroup) int {
	n := 0
	for _, g := range groups {
		n += len(g.Pods)
	}
	return n
}
