// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package azure

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/containerservice/armcontainerservice/v8"
	"github.com/awslabs/operatorpkg/status"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/log"
	karpv1 "sigs.k8s.io/karpenter/pkg/apis/v1"
	"sigs.k8s.io/karpenter/pkg/cloudprovider"

	"github.com/nap-aks/nap/apis/v1beta1"
	"github.com/nap-aks/nap/azure/instancetype"
)

const (
	// maxAttempts is how many offerings one Create tries. Failed ones are marked
	// unavailable, so the next reconcile continues with the rest.
	maxAttempts = 12
	// launchWait is how long one Create waits for machines over all attempts.
	// Karpenter gives a NodeClaim 5 minutes to launch.
	launchWait = 4 * time.Minute
)

// newTerminatingError returns the NotFound error for a class that is being deleted.
func newTerminatingError(name string) error {
	return apierrors.NewNotFound(schema.GroupResource{Group: v1beta1.Group, Resource: "aksnodeclasses"}, name)
}

// Create launches the machine of a NodeClaim and returns the launched NodeClaim. It
// tries the offerings that fit, cheapest first. After a stock-out or an exhausted
// quota it marks the offering unavailable and tries the next in the same call.
//
// It returns an InsufficientCapacityError if no offering is left (Karpenter deletes
// the NodeClaim and its pods are scheduled again), a NodeClassNotReadyError if the
// class is not ready, and otherwise a CreateError, after which Karpenter retries the
// NodeClaim. Create adopts a machine that an earlier call or another controller
// process created for the NodeClaim.
func (p *Provider) Create(ctx context.Context, claim *karpv1.NodeClaim) (*karpv1.NodeClaim, error) {
	ctx, cancel := context.WithTimeout(ctx, launchWait)
	defer cancel()
	nc, version, images, err := p.launchable(ctx, claim)
	if err != nil {
		return nil, err
	}
	types, err := p.instanceTypes(instancetype.SettingsFor(nc, p.typeCluster()))
	if err != nil {
		return nil, cloudprovider.NewCreateError(err, reasonTypesUnresolved, cut(err.Error()))
	}
	name := MachineName(claim.Name)

	var last error // of the last shortage, for the message when no offering is left
	var lastShortage shortage
	failed := func(err error, o launchOption, s shortage) {
		s.mark(p.unavailable, o)
		last, lastShortage = err, s
		log.FromContext(ctx).Info("offering unavailable, trying next",
			"instanceType", o.sku.Name.Full, "zone", instancetype.ZoneLabel(p.cluster.Location, o.zone), "capacityType", o.capacityType(),
			"reason", s.reason, "error", err.Error())
	}

	existing, err := p.existing(ctx, claim, name)
	if err != nil {
		return nil, cloudprovider.NewCreateError(err, reasonCreateFailed, cut(err.Error()))
	}
	if existing != nil {
		o, known := p.optionOf(existing, types)
		m, err := p.await(ctx, existing, name)
		if err == nil && known {
			return p.launched(nc, claim, m, o), nil
		}
		if err == nil {
			err = fmt.Errorf("machine %s has size %s, which is no longer offered", name, deref(existing.Properties.Hardware.VMSize))
		}
		s, isShortage := classify(err, o.spot)
		if errors.Is(err, context.DeadlineExceeded) || ctx.Err() != nil {
			return nil, stillCreating(name, err)
		}
		if err := p.remove(ctx, name); err != nil {
			return nil, cloudprovider.NewCreateError(err, reasonCreateFailed, cut(err.Error()))
		}
		if !isShortage || o.sku == nil {
			return nil, cloudprovider.NewCreateError(err, reasonCreateFailed, cut(err.Error()))
		}
		failed(err, o, s)
	}

	attempts := 0
	for _, o := range rank(p.skus.table(), claim, types) {
		if p.unavailable.has(o.sku, o.zone, o.spot) {
			continue // marked since the list was built
		}
		reserved, ok := p.quota.reserve(o.sku, o.spot)
		if !ok {
			continue
		}
		if attempts++; attempts > maxAttempts {
			reserved.release()
			return nil, cloudprovider.NewCreateError(fmt.Errorf("%d offerings unavailable, the last one: %w", maxAttempts, last), lastShortage.reason, cut(last.Error()))
		}
		m, err := p.put(ctx, nc, claim, name, o, version, images)
		if err == nil {
			reserved.settle()
			return p.launched(nc, claim, m, o), nil
		}
		if ctx.Err() != nil {
			reserved.settle() // the machine may still come up, so keep it counted
			return nil, stillCreating(name, err)
		}
		reserved.release()
		if removeErr := p.remove(ctx, name); removeErr != nil {
			return nil, cloudprovider.NewCreateError(errors.Join(err, removeErr), reasonCreateFailed, cut(err.Error()))
		}
		s, isShortage := classify(err, o.spot)
		if !isShortage {
			return nil, cloudprovider.NewCreateError(err, reasonCreateFailed, cut(err.Error()))
		}
		failed(err, o, s)
		if s.nothing {
			break // the regional quota is exhausted: no other size helps
		}
	}
	if last == nil {
		last = errors.New("every size, zone and capacity type that fits is unavailable or exceeds a quota")
	}
	return nil, cloudprovider.NewInsufficientCapacityError(fmt.Errorf("launching NodeClaim %s: %w", claim.Name, last))
}

// stillCreating returns the error for a machine that may still come up.
func stillCreating(name string, err error) error {
	return cloudprovider.NewCreateError(fmt.Errorf("machine %s is not up yet: %w", name, err), reasonStillCreating, "the machine is still being created")
}

// launchable returns the class of a NodeClaim with the Kubernetes version and images
// for a launch. It returns an error unless the class is ready.
func (p *Provider) launchable(ctx context.Context, claim *karpv1.NodeClaim) (*v1beta1.AKSNodeClass, string, []v1beta1.NodeImage, error) {
	nc, err := p.nodeClass(ctx, claim.Spec.NodeClassRef)
	if apierrors.IsNotFound(err) {
		return nil, "", nil, cloudprovider.NewInsufficientCapacityError(fmt.Errorf("the node class no longer exists: %w", err))
	}
	if err != nil {
		return nil, "", nil, cloudprovider.NewCreateError(err, reasonCreateFailed, cut(err.Error()))
	}
	switch ready := nc.StatusConditions().Get(status.ConditionReady); {
	case ready.IsFalse():
		return nil, "", nil, cloudprovider.NewNodeClassNotReadyError(fmt.Errorf("AKSNodeClass %s: %s", nc.Name, ready.Message))
	case !ready.IsTrue():
		err := fmt.Errorf("readiness of AKSNodeClass %s is unknown: %s", nc.Name, ready.Message)
		return nil, "", nil, cloudprovider.NewCreateError(err, reasonClassUnknown, cut(err.Error()))
	}
	version, err := nc.ResolvedKubernetesVersion()
	if err != nil {
		return nil, "", nil, cloudprovider.NewCreateError(err, reasonClassUnknown, cut(err.Error()))
	}
	images, err := nc.ResolvedImages()
	if err != nil {
		return nil, "", nil, cloudprovider.NewCreateError(err, reasonClassUnknown, cut(err.Error()))
	}
	return nc, version, images, nil
}

// existing returns the machine that was already created for the NodeClaim, or nil.
func (p *Provider) existing(ctx context.Context, claim *karpv1.NodeClaim, name string) (*armcontainerservice.Machine, error) {
	m, err := p.getMachine(ctx, name)
	if isNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading machine %s: %w", name, err)
	}
	if owner := tag(m, tagNodeClaim); owner != "" && owner != claim.Name {
		return nil, fmt.Errorf("machine %s belongs to NodeClaim %s, not %s: the shortened names are equal", name, owner, claim.Name)
	}
	if state(m) == stateDeleting {
		if err := p.remove(ctx, name); err != nil {
			return nil, err
		}
		return nil, nil
	}
	if m.Properties == nil || m.Properties.Hardware == nil {
		return nil, fmt.Errorf("machine %s has no size", name)
	}
	return m, nil
}

// optionOf returns the option that an existing machine was launched with. It returns
// false if the size or the offering no longer exists.
func (p *Provider) optionOf(m *armcontainerservice.Machine, types []*cloudprovider.InstanceType) (launchOption, bool) {
	size := deref(m.Properties.Hardware.VMSize)
	o := launchOption{sku: p.skus.table().SKU(size), zone: v1beta1.RegionalZone, spot: deref(m.Properties.Priority) == armcontainerservice.ScaleSetPrioritySpot}
	if len(m.Zones) > 0 {
		o.zone = deref(m.Zones[0])
	}
	if o.sku == nil {
		return o, false
	}
	for _, it := range types {
		if it.Name != size {
			continue
		}
		o.instanceType = it
		for _, of := range it.Offerings {
			if of.Zone() == instancetype.ZoneLabel(p.cluster.Location, o.zone) && (of.CapacityType() == karpv1.CapacityTypeSpot) == o.spot {
				o.offering = of
				return o, true
			}
		}
	}
	return o, false
}

// put creates a machine and waits until it is up.
func (p *Provider) put(ctx context.Context, nc *v1beta1.AKSNodeClass, claim *karpv1.NodeClaim, name string, o launchOption, version string, images []v1beta1.NodeImage) (*armcontainerservice.Machine, error) {
	image, err := imageFor(images, o)
	if err != nil {
		return nil, err
	}
	body, err := p.machineFor(nc, claim, o, version, image)
	if err != nil {
		return nil, err
	}
	select {
	case p.putSlots <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	var resp *http.Response
	putCtx := policy.WithCaptureResponse(policy.WithHTTPHeader(ctx, http.Header{"AllowSpotVMSystemNode": {"true"}}), &resp)
	poller, err := p.clients.Machines.BeginCreateOrUpdate(putCtx, p.cluster.ResourceGroup, p.cluster.Name, p.cluster.MachinesPool, name, body, nil)
	<-p.putSlots
	if err != nil {
		return nil, fmt.Errorf("creating machine %s: %w", name, err)
	}
	if resp != nil {
		p.tracker.observe(resp.Header)
	}
	m, err := p.await(ctx, nil, name)
	var vanished *vanishedError
	if errors.As(err, &vanished) {
		// The operation may still have the reason.
		if _, pollErr := poller.Poll(ctx); pollErr != nil {
			return nil, fmt.Errorf("creating machine %s: %w", name, pollErr)
		}
		if _, resultErr := poller.Result(ctx); poller.Done() && resultErr != nil {
			return nil, fmt.Errorf("creating machine %s: %w", name, resultErr)
		}
	}
	return m, err
}

// vanishedError is returned if a machine is deleted while it is being created.
type vanishedError struct{ name string }

func (e *vanishedError) Error() string {
	return "machine " + e.name + " was deleted while it was being created"
}

// await returns a machine once it is up. If the machine fails, the error wraps its
// provisioning error.
func (p *Provider) await(ctx context.Context, m *armcontainerservice.Machine, name string) (*armcontainerservice.Machine, error) {
	settled := func(m *armcontainerservice.Machine) bool {
		switch state(m) {
		case stateFailed, stateDeleting:
			return true
		case stateSucceeded:
			return complete(m)
		}
		return false
	}
	if m == nil || !settled(m) {
		var err error
		if m, err = p.tracker.wait(ctx, name, settled); err != nil {
			return nil, fmt.Errorf("waiting for machine %s: %w", name, err)
		}
	}
	switch {
	case m == nil || state(m) == stateDeleting:
		return nil, &vanishedError{name}
	case state(m) == stateFailed:
		return nil, fmt.Errorf("creating machine %s: %w", name, provisioningErrorOf(m))
	}
	return m, nil
}

// launched returns the NodeClaim with the data of its machine.
func (p *Provider) launched(nc *v1beta1.AKSNodeClass, claim *karpv1.NodeClaim, m *armcontainerservice.Machine, o launchOption) *karpv1.NodeClaim {
	out := p.claimOf(m)
	out.Name = claim.Name
	labels := nodeLabels(&karpv1.NodeClaim{Spec: claim.Spec}, o)
	for k := range labels {
		if !karpv1.WellKnownLabels.Has(k) {
			delete(labels, k) // already on the NodeClaim
		}
	}
	for k, v := range labels {
		out.Labels[k] = v
	}
	if pool, ok := claim.Labels[karpv1.NodePoolLabelKey]; ok {
		out.Labels[karpv1.NodePoolLabelKey] = pool
	}
	out.Annotations[v1beta1.AnnotationNodeClassHash] = nc.Hash()
	out.Annotations[v1beta1.AnnotationNodeClassHashVersion] = v1beta1.HashVersion
	out.Annotations[v1beta1.AnnotationInPlaceUpdateHash] = p.inPlaceHash(nc)
	out.Status.Capacity = nonZero(o.instanceType.Capacity)
	out.Status.Allocatable = nonZero(o.instanceType.Allocatable())
	return out
}

func nonZero(list corev1.ResourceList) corev1.ResourceList {
	out := corev1.ResourceList{}
	for name, q := range list {
		if !q.IsZero() {
			out[name] = q.DeepCopy()
		}
	}
	return out
}
