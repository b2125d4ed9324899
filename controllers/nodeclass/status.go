// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package nodeclass

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/util/version"
	apiversion "k8s.io/apimachinery/pkg/version"
	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/nap-aks/nap/apis/v1beta1"
	"github.com/nap-aks/nap/azure"
)

// Cloud is the part of the provider that the status of a class needs.
type Cloud interface {
	// LatestImages returns the node images for the settings of a class; see
	// azure.Provider.
	LatestImages(ctx context.Context, nc *v1beta1.AKSNodeClass, kubernetesVersion string) ([]v1beta1.NodeImage, error)
	// CheckSubnet returns an error if machines cannot be created in the subnet.
	CheckSubnet(ctx context.Context, id string) error
}

// ServerVersion returns the version of the API server.
type ServerVersion interface {
	ServerVersion() (*apiversion.Info, error)
}

const (
	maintenanceConfigMap = "upcoming-maintenance-window"
	maintenanceStart     = "aksManagedNodeOSUpgradeSchedule-start"
	maintenanceEnd       = "aksManagedNodeOSUpgradeSchedule-end"

	versionInterval = 15 * time.Minute
	imageInterval   = 5 * time.Minute
	subnetInterval  = 3 * time.Minute
)

// Status resolves what launches need from a class: Kubernetes version, images, subnet
// and local DNS. Each has a condition.
type Status struct {
	kube            client.Client
	uncached        client.Reader
	api             ServerVersion
	cloud           Cloud
	clock           clock.Clock
	systemNamespace string
}

// NewStatus returns the controller. systemNamespace holds the ConfigMap with the next
// maintenance window, which is read from uncached; "" means that there is no window and
// images may always change.
func NewStatus(kube client.Client, uncached client.Reader, api ServerVersion, cloud Cloud, c clock.Clock, systemNamespace string) *Status {
	return &Status{kube, uncached, api, cloud, c, systemNamespace}
}

// Register adds the controller to the manager.
func (c *Status) Register(_ context.Context, m manager.Manager) error {
	return ctrl.NewControllerManagedBy(m).Named("nodeclass.status").For(&v1beta1.AKSNodeClass{}).
		WithOptions(controller.Options{MaxConcurrentReconciles: 10}).
		Complete(reconcile.AsReconciler(m.GetClient(), c))
}

// Reconcile resolves all parts, even if some fail, and writes the status once.
func (c *Status) Reconcile(ctx context.Context, nc *v1beta1.AKSNodeClass) (reconcile.Result, error) {
	if !nc.DeletionTimestamp.IsZero() {
		return reconcile.Result{}, nil
	}
	stored := nc.DeepCopy()
	if controllerutil.AddFinalizer(nc, v1beta1.TerminationFinalizer) {
		if err := c.kube.Patch(ctx, nc, client.MergeFromWithOptions(stored, client.MergeFromWithOptimisticLock{})); err != nil {
			if apierrors.IsConflict(err) {
				return reconcile.Result{RequeueAfter: time.Second}, nil
			}
			return reconcile.Result{}, client.IgnoreNotFound(fmt.Errorf("adding the finalizer of AKSNodeClass %s: %w", nc.Name, err))
		}
		stored = nc.DeepCopy()
	}
	next := versionInterval
	var errs []error
	for _, part := range []struct {
		resolve func(context.Context, *v1beta1.AKSNodeClass) error
		again   time.Duration
	}{
		{c.kubernetesVersion, versionInterval},
		{c.images, imageInterval},
		{c.subnet, subnetInterval},
		{c.validation, versionInterval},
		{c.localDNS, versionInterval},
	} {
		if err := part.resolve(ctx, nc); err != nil {
			errs = append(errs, err)
		}
		next = min(next, part.again)
	}
	if !equality.Semantic.DeepEqual(stored, nc) {
		if err := c.kube.Status().Patch(ctx, nc, client.MergeFromWithOptions(stored, client.MergeFromWithOptimisticLock{})); err != nil {
			if apierrors.IsConflict(err) {
				return reconcile.Result{RequeueAfter: time.Second}, nil
			}
			errs = append(errs, client.IgnoreNotFound(fmt.Errorf("writing the status of AKSNodeClass %s: %w", nc.Name, err)))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return reconcile.Result{}, err
	}
	return reconcile.Result{RequeueAfter: next}, nil
}

// kubernetesVersion follows the version of the API server, but never downwards. An
// upgrade lets the images change in the same reconcile, outside of the maintenance
// window, too.
func (c *Status) kubernetesVersion(ctx context.Context, nc *v1beta1.AKSNodeClass) error {
	info, err := c.api.ServerVersion()
	if err != nil {
		return fmt.Errorf("getting the version of the API server: %w", err)
	}
	server, err := version.ParseSemantic(info.GitVersion)
	if err != nil {
		return fmt.Errorf("parsing the version %q of the API server: %w", info.GitVersion, err)
	}
	v := fmt.Sprintf("%d.%d.%d", server.Major(), server.Minor(), server.Patch())
	if have := nc.Status.KubernetesVersion; have == nil || *have == "" {
		nc.Status.KubernetesVersion = &v
	} else if old, err := version.ParseSemantic(*have); err != nil || old.LessThan(version.MustParseSemantic(v)) {
		nc.Status.KubernetesVersion = &v
		nc.StatusConditions().SetFalse(v1beta1.ConditionImagesReady, "KubernetesUpgrade", "images have to be resolved for Kubernetes "+v)
	} else if version.MustParseSemantic(v).LessThan(old) {
		log.FromContext(ctx).Info("api server is older than the version in the status, keeping that", "serverVersion", v, "statusVersion", *have)
	}
	nc.StatusConditions().SetTrue(v1beta1.ConditionKubernetesVersionReady)
	return nil
}

// images resolves the node images.
func (c *Status) images(ctx context.Context, nc *v1beta1.AKSNodeClass) error {
	if nc.Status.KubernetesVersion == nil {
		return nil // the condition of the version has the reason
	}
	latest, err := c.cloud.LatestImages(ctx, nc, *nc.Status.KubernetesVersion)
	if errors.Is(err, azure.ErrNoImages) {
		nc.Status.Images = nil
		nc.StatusConditions().SetFalse(v1beta1.ConditionImagesReady, "ImagesNotFound", err.Error())
		return nil
	}
	if err != nil {
		return err
	}
	// Resolved images change only within the maintenance window.
	if nc.StatusConditions().IsTrue(v1beta1.ConditionImagesReady) {
		open, err := c.maintenanceOpen(ctx)
		if err != nil {
			return err
		}
		if !open {
			latest = azure.KeepRecorded(nc.Status.Images, latest)
		}
	}
	nc.Status.Images = latest
	nc.StatusConditions().SetTrue(v1beta1.ConditionImagesReady)
	return nil
}

// maintenanceOpen reports whether images may change now: within the announced
// maintenance window, or at any time if none is announced.
func (c *Status) maintenanceOpen(ctx context.Context) (bool, error) {
	if c.systemNamespace == "" {
		return true, nil
	}
	cm := &corev1.ConfigMap{}
	err := c.uncached.Get(ctx, client.ObjectKey{Namespace: c.systemNamespace, Name: maintenanceConfigMap}, cm)
	if apierrors.IsNotFound(err) {
		return true, nil
	}
	if err != nil {
		return false, fmt.Errorf("reading the maintenance window %s/%s: %w", c.systemNamespace, maintenanceConfigMap, err)
	}
	from, to := cm.Data[maintenanceStart], cm.Data[maintenanceEnd]
	if from == "" && to == "" {
		return true, nil
	}
	start, errStart := time.Parse(time.RFC3339, from)
	end, errEnd := time.Parse(time.RFC3339, to)
	if err := errors.Join(errStart, errEnd); err != nil {
		return false, fmt.Errorf("parsing maintenance window %s/%s from %q to %q: %w", c.systemNamespace, maintenanceConfigMap, from, to, err)
	}
	now := c.clock.Now()
	return start.Before(now) && now.Before(end), nil
}

// subnet checks the subnet.
func (c *Status) subnet(ctx context.Context, nc *v1beta1.AKSNodeClass) error {
	id := ""
	if nc.Spec.VNETSubnetID != nil {
		id = *nc.Spec.VNETSubnetID
	}
	switch err := c.cloud.CheckSubnet(ctx, id); {
	case err == nil:
		nc.StatusConditions().SetTrue(v1beta1.ConditionSubnetsReady)
		return nil
	case errors.Is(err, azure.ErrSubnetInvalid):
		nc.StatusConditions().SetFalse(v1beta1.ConditionSubnetsReady, "SubnetIDInvalid", err.Error())
		return nil
	case errors.Is(err, azure.ErrSubnetNotFound):
		nc.StatusConditions().SetFalse(v1beta1.ConditionSubnetsReady, "SubnetNotFound", err.Error())
		return err
	default:
		nc.StatusConditions().SetFalse(v1beta1.ConditionSubnetsReady, "SubnetUnknownError", err.Error())
		return err
	}
}

// validation sets the condition for checks of the class as a whole. There are none: AKS
// applies the disk encryption set of the cluster to machines.
func (c *Status) validation(_ context.Context, nc *v1beta1.AKSNodeClass) error {
	nc.StatusConditions().SetTrue(v1beta1.ConditionValidationSucceeded)
	return nil
}

// localDNS decides whether nodes run a DNS proxy. The version of the machine API in use
// has no field for it, so Required is refused instead of ignored, and Preferred means
// that nodes run without it.
func (c *Status) localDNS(_ context.Context, nc *v1beta1.AKSNodeClass) error {
	disabled := v1beta1.LocalDNSStateDisabled
	nc.Status.LocalDNSState = &disabled
	if nc.Spec.LocalDNS != nil && strings.EqualFold(nc.Spec.LocalDNS.Mode, v1beta1.LocalDNSRequired) {
		nc.StatusConditions().SetFalse(v1beta1.ConditionLocalDNSReady, "LocalDNSUnsupported", "localDNS.mode Required cannot be honoured: the AKS machine API in use cannot set it; use Preferred or Disabled")
		return nil
	}
	nc.StatusConditions().SetTrue(v1beta1.ConditionLocalDNSReady)
	return nil
}
