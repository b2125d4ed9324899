// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package machines

import (
	"context"
	"time"

	"github.com/awslabs/operatorpkg/reconciler"
	"github.com/awslabs/operatorpkg/singleton"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/manager"
)

// How often data of Azure is refreshed. Quotas are read often because they decide what
// can be bought, and deleted machines free them.
const (
	SizesInterval  = 12 * time.Hour
	PricesInterval = 12 * time.Hour
	QuotaInterval  = time.Minute

	retryInterval = time.Minute
)

// Refresh reads data at an interval.
type Refresh struct {
	name  string
	every time.Duration
	read  func(context.Context) error
}

// NewRefresh returns a controller that calls read at the start and then at the interval.
// After an error it logs the error and tries again in a minute; the data read before
// stays in use.
func NewRefresh(name string, every time.Duration, read func(context.Context) error) *Refresh {
	return &Refresh{name, every, read}
}

// Register adds the controller to the manager.
func (r *Refresh) Register(_ context.Context, m manager.Manager) error {
	return ctrl.NewControllerManagedBy(m).Named("refresh." + r.name).
		WatchesRawSource(singleton.Source()).Complete(singleton.AsReconciler(r))
}

// Reconcile reads the data once.
func (r *Refresh) Reconcile(ctx context.Context) (reconciler.Result, error) {
	if err := r.read(ctx); err != nil {
		log.FromContext(ctx).Error(err, "refresh failed, keeping old data", "data", r.name)
		return reconciler.Result{RequeueAfter: min(r.every, retryInterval)}, nil
	}
	return reconciler.Result{RequeueAfter: r.every}, nil
}
