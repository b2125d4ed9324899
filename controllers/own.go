// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	"github.com/awslabs/operatorpkg/controller"
	"github.com/awslabs/operatorpkg/status"
	"k8s.io/client-go/discovery"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/karpenter/pkg/events"

	"github.com/nap-aks/nap/apis/v1beta1"
	"github.com/nap-aks/nap/azure"
	"github.com/nap-aks/nap/controllers/machines"
	"github.com/nap-aks/nap/controllers/nodeclass"
	"github.com/nap-aks/nap/controllers/nodepool"
)

// ownControllers returns the controllers of AKSNodeClasses, NodePools and machines.
func ownControllers(o Options, mgr manager.Manager, api discovery.DiscoveryInterface, provider *azure.Provider, recorder events.Recorder) []controller.Controller {
	kube := mgr.GetClient()
	eventRecorder := mgr.GetEventRecorderFor(EventSource) //nolint:staticcheck // operatorpkg speaks core/v1 events
	return []controller.Controller{
		nodeclass.NewHash(kube),
		nodeclass.NewStatus(kube, mgr.GetAPIReader(), api, provider, clock.RealClock{}, o.SystemNamespace),
		nodeclass.NewTermination(kube, recorder),
		nodepool.NewInstanceTypes(kube, provider, recorder, clock.RealClock{}),
		machines.NewGarbageCollector(kube, mgr.GetAPIReader(), provider, clock.RealClock{}),
		machines.NewInPlaceUpdate(kube, provider),
		machines.NewDeadlines(kube, recorder, clock.RealClock{}, machines.Deadlines{
			Launch: o.LaunchTimeout, Registration: o.RegistrationTimeout, Initialization: o.InitializationTimeout,
		}),
		machines.NewRefresh("sizes", machines.SizesInterval, provider.RefreshSizes),
		machines.NewRefresh("quota", machines.QuotaInterval, provider.RefreshQuota),
		machines.NewRefresh("prices", machines.PricesInterval, provider.RefreshPrices),
		status.NewController[*v1beta1.AKSNodeClass](kube, eventRecorder, status.EmitDeprecatedMetrics),
	}
}
