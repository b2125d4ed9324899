// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	"context"

	"github.com/awslabs/operatorpkg/controller"
	"github.com/awslabs/operatorpkg/object"
	"github.com/awslabs/operatorpkg/status"
	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	autoscalingv1beta1 "sigs.k8s.io/karpenter/pkg/apis/autoscaling/v1beta1"
	karpv1 "sigs.k8s.io/karpenter/pkg/apis/v1"
	"sigs.k8s.io/karpenter/pkg/cloudprovider"
	"sigs.k8s.io/karpenter/pkg/controllers/capacitybuffer"
	"sigs.k8s.io/karpenter/pkg/controllers/disruption"
	"sigs.k8s.io/karpenter/pkg/controllers/dynamicresources/deviceallocation"
	metricsnode "sigs.k8s.io/karpenter/pkg/controllers/metrics/node"
	metricsnodepool "sigs.k8s.io/karpenter/pkg/controllers/metrics/nodepool"
	metricspod "sigs.k8s.io/karpenter/pkg/controllers/metrics/pod"
	nodehydration "sigs.k8s.io/karpenter/pkg/controllers/node/hydration"
	"sigs.k8s.io/karpenter/pkg/controllers/node/legacyrepair"
	"sigs.k8s.io/karpenter/pkg/controllers/node/termination"
	"sigs.k8s.io/karpenter/pkg/controllers/node/termination/terminator"
	nodeclaimconsistency "sigs.k8s.io/karpenter/pkg/controllers/nodeclaim/consistency"
	nodeclaimdisruption "sigs.k8s.io/karpenter/pkg/controllers/nodeclaim/disruption"
	"sigs.k8s.io/karpenter/pkg/controllers/nodeclaim/expiration"
	nodeclaimgc "sigs.k8s.io/karpenter/pkg/controllers/nodeclaim/garbagecollection"
	nodeclaimhydration "sigs.k8s.io/karpenter/pkg/controllers/nodeclaim/hydration"
	"sigs.k8s.io/karpenter/pkg/controllers/nodeclaim/lifecycle"
	"sigs.k8s.io/karpenter/pkg/controllers/nodeclaim/podevents"
	nodeclaimreboot "sigs.k8s.io/karpenter/pkg/controllers/nodeclaim/reboot"
	"sigs.k8s.io/karpenter/pkg/controllers/nodeoverlay"
	nodepoolcounter "sigs.k8s.io/karpenter/pkg/controllers/nodepool/counter"
	nodepoolhash "sigs.k8s.io/karpenter/pkg/controllers/nodepool/hash"
	nodepoolreadiness "sigs.k8s.io/karpenter/pkg/controllers/nodepool/readiness"
	"sigs.k8s.io/karpenter/pkg/controllers/nodepool/registrationhealth"
	nodepoolvalidation "sigs.k8s.io/karpenter/pkg/controllers/nodepool/validation"
	"sigs.k8s.io/karpenter/pkg/controllers/pod/deletioncost"
	"sigs.k8s.io/karpenter/pkg/controllers/provisioning"
	"sigs.k8s.io/karpenter/pkg/controllers/state"
	"sigs.k8s.io/karpenter/pkg/controllers/state/informer"
	statenodeclaimgc "sigs.k8s.io/karpenter/pkg/controllers/state/nodeclaimgc"
	staticdeprovisioning "sigs.k8s.io/karpenter/pkg/controllers/static/deprovisioning"
	staticprovisioning "sigs.k8s.io/karpenter/pkg/controllers/static/provisioning"
	"sigs.k8s.io/karpenter/pkg/events"
	karpoptions "sigs.k8s.io/karpenter/pkg/operator/options"
	"sigs.k8s.io/karpenter/pkg/state/cost"
	"sigs.k8s.io/karpenter/pkg/state/nodepoolhealth"
	"sigs.k8s.io/karpenter/pkg/state/virtualpods"

	napprovisioning "github.com/nap-aks/nap/controllers/provisioning"
	"github.com/nap-aks/nap/engine"
	"github.com/nap-aks/nap/snapshot"
)

// karpenterParts holds the dependencies of Karpenter's controllers.
type karpenterParts struct {
	clock       clock.Clock
	recorder    events.Recorder
	provider    cloudprovider.CloudProvider // with NodeOverlays applied
	undecorated cloudprovider.CloudProvider
	cluster     *state.Cluster
	overlays    *nodeoverlay.InstanceTypeStore
	quotas      func() []snapshot.Quota
	// nominate is whether the scheduler honours nominations by the provisioner.
	nominate bool
	// observe is given what each pass decided; nil if nobody looks.
	observe func(*snapshot.Input, *engine.Plan, []*karpv1.NodeClaim)
}

// karpenterControllers returns the controllers taken from Karpenter, for lifecycle,
// disruption and bookkeeping, with the provisioner that the options choose. Karpenter's
// own list cannot be used because it has a fixed provisioner.
func karpenterControllers(ctx context.Context, o Options, mgr manager.Manager, p karpenterParts) []controller.Controller {
	kube := mgr.GetClient()
	options := karpoptions.FromContext(ctx)
	gates := options.FeatureGates
	devices := deviceallocation.NewController(kube)
	virtualPods := virtualpods.NewVirtualPodCache(kube)
	evictions := terminator.NewQueue(p.clock, kube, p.recorder)
	poolHealth := nodepoolhealth.NewState()
	clusterCost := cost.NewClusterCost(ctx, p.provider, kube)
	drain := terminator.NewTerminator(p.clock, kube, evictions, p.recorder)

	// Karpenter's disruption controllers use its provisioner for simulations, whatever
	// the engine is.
	provisioner := provisioning.NewProvisioner(kube, p.recorder, p.provider, p.cluster, p.clock, devices, virtualPods)
	disruptions := disruption.NewQueue(kube, p.recorder, p.cluster, p.clock, provisioner)

	var placement []controller.Controller
	var trigger capacitybuffer.ProvisionerTrigger = provisioner
	var hooks []cloudprovider.NodeLifecycleHook
	if o.Engine == EngineNAP {
		own := napprovisioning.New(ctx, napprovisioning.Config{
			Kube: kube, Provider: p.provider, Cluster: p.cluster, Recorder: p.recorder, Clock: p.clock,
			Karpenter: provisioner, Informers: mgr.GetCache(), Buffers: virtualPods, Decisions: o.DecisionDir, Quotas: p.quotas, Nominate: p.nominate, Observe: p.observe,
			PricedPreferences: o.PreferencePolicy == PreferencesPriced,
		})
		placement, hooks = []controller.Controller{own}, []cloudprovider.NodeLifecycleHook{own.Hook()}
		trigger = own
	} else {
		placement = []controller.Controller{
			provisioner, provisioning.NewPodController(kube, provisioner, p.cluster), provisioning.NewNodeController(kube, provisioner),
		}
	}

	list := []controller.Controller{
		// Disruption and draining.
		evictions, disruptions,
		disruption.NewController(ctx, p.clock, kube, provisioner, p.provider, p.recorder, p.cluster, disruptions, clusterCost),
		termination.NewController(p.clock, kube, p.provider, drain, p.recorder),
		expiration.NewController(p.clock, kube, p.provider),
		nodeclaimreboot.NewController(p.clock, kube, p.provider, drain, p.recorder),
		// Cluster state.
		informer.NewDaemonSetController(kube, p.cluster),
		informer.NewNodeController(kube, p.cluster),
		informer.NewPodController(kube, p.cluster),
		informer.NewNodePoolController(kube, p.provider, p.cluster, clusterCost),
		informer.NewNodeClaimController(kube, p.provider, p.cluster, clusterCost),
		informer.NewPricingController(kube, p.provider, clusterCost),
		statenodeclaimgc.NewController(kube, p.cluster),
		// NodePools.
		nodepoolhash.NewController(kube, p.provider),
		nodepoolreadiness.NewController(p.clock, kube, p.provider),
		registrationhealth.NewController(p.clock, kube, p.provider, poolHealth),
		nodepoolcounter.NewController(kube, p.provider, p.cluster),
		nodepoolvalidation.NewController(p.clock, kube, p.provider),
		// NodeClaims and their nodes.
		podevents.NewController(p.clock, kube, p.provider),
		nodeclaimconsistency.NewController(p.clock, kube, p.provider, p.recorder),
		lifecycle.NewController(p.clock, kube, p.provider, p.recorder, p.cluster, poolHealth, hooks),
		nodeclaimgc.NewController(p.clock, kube, p.provider),
		nodeclaimdisruption.NewController(p.clock, kube, p.provider),
		nodeclaimhydration.NewController(kube, p.provider),
		nodehydration.NewController(kube, p.provider),
	}
	list = append(list, placement...)
	if !options.IgnoreDRARequests {
		list = append(list, devices)
	}
	if gates.NodeRepair && options.LegacyNodeRepair {
		list = append(list, legacyrepair.NewController(kube, p.provider, p.clock, p.recorder))
	}
	if gates.StaticCapacity {
		list = append(list,
			staticprovisioning.NewController(kube, p.cluster, p.recorder, p.provider, provisioner, p.clock, devices, virtualPods),
			staticdeprovisioning.NewController(kube, p.cluster, p.provider, p.clock, p.recorder))
	}
	if gates.NodeOverlay {
		list = append(list, nodeoverlay.NewController(p.clock, kube, p.undecorated, p.overlays, p.cluster))
	}
	if gates.CapacityBuffer {
		list = append(list, capacitybuffer.NewController(kube, trigger, virtualPods))
	}
	if gates.PodDeletionCostManagement {
		queue := deletioncost.NewQueue(kube)
		list = append(list, queue, deletioncost.NewController(p.clock, kube, p.provider, p.cluster, queue))
	}
	if !options.DisableClusterStateObservability {
		list = append(list, stateMetrics(mgr, p, clusterCost, gates.CapacityBuffer)...)
	}
	return list
}

// stateMetrics returns the controllers that only export metrics: of pods, NodePools,
// nodes, and the conditions of API objects.
func stateMetrics(mgr manager.Manager, p karpenterParts, clusterCost *cost.ClusterCost, buffers bool) []controller.Controller {
	kube := mgr.GetClient()
	recorder := mgr.GetEventRecorderFor(EventSource) //nolint:staticcheck // operatorpkg speaks core/v1 events
	buckets := status.WithHistogramBuckets(prometheus.ExponentialBuckets(0.5, 2, 15))
	var classLabels []string
	for _, class := range p.provider.GetSupportedNodeClasses() {
		classLabels = append(classLabels, karpv1.NodeClassLabelKey(object.GVK(class).GroupKind()))
	}
	list := []controller.Controller{
		metricspod.NewController(kube, p.cluster),
		metricsnodepool.NewController(kube, p.provider, clusterCost),
		metricsnode.NewController(p.cluster),
		status.NewController[*karpv1.NodeClaim](kube, recorder, status.EmitDeprecatedMetrics, buckets, status.WithLabels(append(classLabels, karpv1.NodePoolLabelKey)...)),
		status.NewController[*karpv1.NodePool](kube, recorder, status.EmitDeprecatedMetrics, buckets),
		status.NewGenericObjectController[*corev1.Node](kube, recorder, buckets, status.WithLabels(append(classLabels, karpv1.NodePoolLabelKey, karpv1.NodeInitializedLabelKey)...)),
	}
	if buffers {
		list = append(list, status.NewGenericObjectController[*autoscalingv1beta1.CapacityBuffer](kube, recorder, status.EmitDeprecatedMetrics, buckets))
	}
	return list
}
