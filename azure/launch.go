package azure

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/to"
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
	// maxAttempts is how many offers one Create tries before it lets the claim
	// wait: what failed is remembered, so the next try goes on from there.
	maxAttempts = 12
	// launchWait is how long one Create waits for machines, all attempts
	// together. Karpenter gives a claim 5 minutes to launch.
	launchWait = 4 * time.Minute
	// deleteWait is how long Delete waits for a machine to be gone before it
	// lets Karpenter ask again.
	deleteWait = 4 * time.Second
)

func newTerminatingError(name string) error {
	return apierrors.NewNotFound(schema.GroupResource{Group: v1beta1.Group, Resource: "aksnodeclasses"}, name)
}

// Create launches the machine of a claim and returns the claim as launched. It
// tries the claim's offers from the cheapest on: a stock-out or used-up quota
// rules the offer out for a while and the next is tried, within the same call.
//
// It returns an InsufficientCapacityError when no offer is left (Karpenter then
// gives up the claim and its pods are placed anew), a NodeClassNotReadyError
// when the class is not ready, and a CreateError, after which the same claim is
// tried again, for everything else. A machine that an earlier call made, or a
// controller that has died since, is taken over.
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

	var last error // the last shortage, for the message when nothing is left
	var lastShortage shortage
	failed := func(err error, o offer, s shortage) {
		s.mark(p.unavailable, o)
		last, lastShortage = err, s
		log.FromContext(ctx).Info("offer cannot be had, trying the next",
			"instance-type", o.sku.Name.Full, "zone", instancetype.ZoneLabel(p.cluster.Location, o.zone), "spot", o.spot, "reason", s.reason, "error", err.Error())
	}

	existing, err := p.existing(ctx, claim, name)
	if err != nil {
		return nil, cloudprovider.NewCreateError(err, reasonCreateFailed, cut(err.Error()))
	}
	if existing != nil {
		o, known := p.offerOf(existing, types)
		m, err := p.await(ctx, existing, name)
		if err == nil && known {
			return p.launched(nc, claim, m, o), nil
		}
		if err == nil {
			err = fmt.Errorf("machine %s is of size %s, which is not offered any more", name, deref(existing.Properties.Hardware.VMSize))
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
		if p.unavailable.is(o.sku, o.zone, o.spot) {
			continue // ruled out since the list was made
		}
		reserved, ok := p.quota.reserve(o.sku, o.spot)
		if !ok {
			continue
		}
		if attempts++; attempts > maxAttempts {
			reserved.release()
			return nil, cloudprovider.NewCreateError(fmt.Errorf("%d offers failed, the last with: %w", maxAttempts, last), lastShortage.reason, cut(last.Error()))
		}
		m, err := p.put(ctx, nc, claim, name, o, version, images)
		if err == nil {
			reserved.settle()
			return p.launched(nc, claim, m, o), nil
		}
		if ctx.Err() != nil {
			reserved.settle() // the machine may well come up: it stays counted
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
			break // the region is full for this subscription: no size helps
		}
	}
	if last == nil {
		last = errors.New("every size, zone and capacity type that fits is unavailable now or beyond quota")
	}
	return nil, cloudprovider.NewInsufficientCapacityError(fmt.Errorf("launching NodeClaim %s: %w", claim.Name, last))
}

func stillCreating(name string, err error) error {
	return cloudprovider.NewCreateError(fmt.Errorf("machine %s is not up yet: %w", name, err), reasonStillCreating, "the machine is still being created")
}

// launchable resolves what a launch needs of the claim's class.
func (p *Provider) launchable(ctx context.Context, claim *karpv1.NodeClaim) (*v1beta1.AKSNodeClass, string, []v1beta1.NodeImage, error) {
	nc, err := p.nodeClass(ctx, claim.Spec.NodeClassRef)
	if apierrors.IsNotFound(err) {
		return nil, "", nil, cloudprovider.NewInsufficientCapacityError(fmt.Errorf("the node class is gone: %w", err))
	}
	if err != nil {
		return nil, "", nil, cloudprovider.NewCreateError(err, reasonCreateFailed, cut(err.Error()))
	}
	switch ready := nc.StatusConditions().Get(status.ConditionReady); {
	case ready.IsFalse():
		return nil, "", nil, cloudprovider.NewNodeClassNotReadyError(fmt.Errorf("AKSNodeClass %s: %s", nc.Name, ready.Message))
	case !ready.IsTrue():
		err := fmt.Errorf("AKSNodeClass %s is not known to be ready yet: %s", nc.Name, ready.Message)
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

// existing is the machine that was already made for the claim, or nil.
func (p *Provider) existing(ctx context.Context, claim *karpv1.NodeClaim, name string) (*armcontainerservice.Machine, error) {
	m, err := p.getMachine(ctx, name)
	if isNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("looking for machine %s: %w", name, err)
	}
	if owner := tag(m, tagNodeClaim); owner != "" && owner != claim.Name {
		return nil, fmt.Errorf("machine %s belongs to NodeClaim %s, not to %s: their names have the same short form", name, owner, claim.Name)
	}
	if state(m) == stateDeleting {
		if err := p.remove(ctx, name); err != nil {
			return nil, err
		}
		return nil, nil
	}
	if m.Properties == nil || m.Properties.Hardware == nil {
		return nil, fmt.Errorf("machine %s exists without a size", name)
	}
	return m, nil
}

// offerOf finds what an existing machine was bought as.
func (p *Provider) offerOf(m *armcontainerservice.Machine, types []*cloudprovider.InstanceType) (offer, bool) {
	size := deref(m.Properties.Hardware.VMSize)
	o := offer{sku: p.skus.table().SKU(size), zone: v1beta1.RegionalZone, spot: deref(m.Properties.Priority) == armcontainerservice.ScaleSetPrioritySpot}
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

// put asks for a machine and waits until it is up.
func (p *Provider) put(ctx context.Context, nc *v1beta1.AKSNodeClass, claim *karpv1.NodeClaim, name string, o offer, version string, images []v1beta1.NodeImage) (*armcontainerservice.Machine, error) {
	image, err := imageFor(images, o)
	if err != nil {
		return nil, err
	}
	body, err := p.machineFor(nc, claim, o, version, image)
	if err != nil {
		return nil, err
	}
	select {
	case p.puts <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	var resp *http.Response
	putCtx := policy.WithCaptureResponse(policy.WithHTTPHeader(ctx, http.Header{"AllowSpotVMSystemNode": {"true"}}), &resp)
	poller, err := p.clients.Machines.BeginCreateOrUpdate(putCtx, p.cluster.ResourceGroup, p.cluster.Name, p.cluster.MachinesPool, name, body, nil)
	<-p.puts
	if err != nil {
		return nil, fmt.Errorf("creating machine %s: %w", name, err)
	}
	if resp != nil {
		p.tracker.observe(resp.Header)
	}
	m, err := p.await(ctx, nil, name)
	var vanished *vanishedError
	if errors.As(err, &vanished) {
		// The operation may still know why.
		if _, pollErr := poller.Poll(ctx); pollErr != nil {
			return nil, fmt.Errorf("creating machine %s: %w", name, pollErr)
		}
		if _, resultErr := poller.Result(ctx); poller.Done() && resultErr != nil {
			return nil, fmt.Errorf("creating machine %s: %w", name, resultErr)
		}
	}
	return m, err
}

// vanishedError says that a machine under way is not there any more.
type vanishedError struct{ name string }

func (e *vanishedError) Error() string {
	return "machine " + e.name + " was removed while it was being created"
}

// await returns a machine once it is up. A machine that failed is an error that
// wraps its provisioning error.
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

// launched is the claim with all that is known of its machine.
func (p *Provider) launched(nc *v1beta1.AKSNodeClass, claim *karpv1.NodeClaim, m *armcontainerservice.Machine, o offer) *karpv1.NodeClaim {
	out := p.claimOf(m)
	out.Name = claim.Name
	labels := nodeLabels(&karpv1.NodeClaim{Spec: claim.Spec}, o)
	for k := range labels {
		if !karpv1.WellKnownLabels.Has(k) {
			delete(labels, k) // the rest is on the claim already
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

// remove deletes a machine and waits until it is gone. A machine that is not
// there is no error.
func (p *Provider) remove(ctx context.Context, name string) error {
	if err := p.beginDelete(ctx, name); err != nil {
		if isNotFound(err) {
			return nil
		}
		return fmt.Errorf("removing machine %s: %w", name, err)
	}
	if _, err := p.tracker.wait(ctx, name, func(*armcontainerservice.Machine) bool { return false }); err != nil {
		return fmt.Errorf("waiting for machine %s to be gone: %w", name, err)
	}
	return nil
}

func (p *Provider) beginDelete(ctx context.Context, name string) error {
	var resp *http.Response
	_, err := p.clients.AgentPools.BeginDeleteMachines(policy.WithCaptureResponse(ctx, &resp), p.cluster.ResourceGroup, p.cluster.Name, p.cluster.MachinesPool,
		armcontainerservice.AgentPoolDeleteMachinesParameter{MachineNames: []*string{to.Ptr(name)}}, nil)
	if err == nil && resp != nil {
		p.tracker.observe(resp.Header)
	}
	return err
}

// Delete removes a claim's machine. It returns nil while that is under way and
// a NodeClaimNotFoundError once the machine is gone.
func (p *Provider) Delete(ctx context.Context, claim *karpv1.NodeClaim) error {
	name, err := p.machineOf(claim)
	if err != nil {
		return err
	}
	if _, busy := p.deleting.LoadOrStore(name, struct{}{}); busy {
		return nil
	}
	defer p.deleting.Delete(name)
	m, err := p.getMachine(ctx, name)
	if isNotFound(err) {
		return cloudprovider.NewNodeClaimNotFoundError(fmt.Errorf("machine %s is gone", name))
	}
	if err != nil {
		return fmt.Errorf("reading machine %s before deleting it: %w", name, err)
	}
	if state(m) != stateDeleting {
		if err := p.beginDelete(ctx, name); err != nil {
			if isNotFound(err) {
				return cloudprovider.NewNodeClaimNotFoundError(fmt.Errorf("machine %s is gone", name))
			}
			return fmt.Errorf("deleting machine %s: %w", name, err)
		}
	}
	wait, cancel := context.WithTimeout(ctx, deleteWait)
	defer cancel()
	if _, err := p.tracker.wait(wait, name, func(*armcontainerservice.Machine) bool { return false }); err == nil {
		return cloudprovider.NewNodeClaimNotFoundError(fmt.Errorf("machine %s is gone", name))
	}
	return nil
}

// machineOf is the name of a claim's machine.
func (p *Provider) machineOf(claim *karpv1.NodeClaim) (string, error) {
	if id := claim.Annotations[v1beta1.AnnotationMachineResourceID]; id != "" {
		return machineName(&armcontainerservice.Machine{ID: &id}), nil
	}
	if claim.Status.ProviderID != "" {
		if name, err := p.machineNameOf(claim.Status.ProviderID); err == nil {
			return name, nil
		}
	}
	if claim.Name == "" {
		return "", providerIDError(claim.Status.ProviderID)
	}
	return MachineName(claim.Name), nil
}

// Get reads the machine behind a provider ID.
func (p *Provider) Get(ctx context.Context, providerID string) (*karpv1.NodeClaim, error) {
	name, err := p.machineNameOf(providerID)
	if err != nil {
		return nil, cloudprovider.NewNodeClaimNotFoundError(err)
	}
	m, err := p.getMachine(ctx, name)
	if isNotFound(err) {
		return nil, cloudprovider.NewNodeClaimNotFoundError(fmt.Errorf("machine %s: %w", name, err))
	}
	if err != nil {
		return nil, fmt.Errorf("reading machine %s: %w", name, err)
	}
	claim := p.claimOf(m)
	if claim.Status.ProviderID != "" && claim.Status.ProviderID != providerID {
		return nil, cloudprovider.NewNodeClaimNotFoundError(fmt.Errorf("machine %s is now %s, not %s", name, claim.Status.ProviderID, providerID))
	}
	return claim, nil
}

// List reads all machines that were made for NodeClaims.
func (p *Provider) List(ctx context.Context) ([]*karpv1.NodeClaim, error) {
	machines, err := p.listMachines(ctx)
	if err != nil {
		return nil, err
	}
	var out []*karpv1.NodeClaim
	for _, name := range sortedNames(machines) {
		if m := machines[name]; tag(m, tagNodeClaim) != "" {
			out = append(out, p.claimOf(m))
		}
	}
	return out, nil
}
