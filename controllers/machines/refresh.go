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

// How often what is known of Azure is read anew. Quota is read often because
// it decides what can be bought, and machines that went away free it.
const (
	SizesInterval  = 12 * time.Hour
	PricesInterval = 12 * time.Hour
	QuotaInterval  = time.Minute

	retryInterval = time.Minute
)

// Refresh reads something anew at an interval.
type Refresh struct {
	name  string
	every time.Duration
	read  func(context.Context) error
}

// NewRefresh makes a controller that calls read at the start and then at the
// interval. An error is logged and tried again after a minute: what was known
// before stays in use.
func NewRefresh(name string, every time.Duration, read func(context.Context) error) *Refresh {
	return &Refresh{name, every, read}
}

// Register adds the controller to the manager.
func (r *Refresh) Register(_ context.Context, m manager.Manager) error {
	return ctrl.NewControllerManagedBy(m).Named("refresh." + r.name).
		WatchesRawSource(singleton.Source()).Complete(singleton.AsReconciler(r))
}

// Reconcile reads once.
func (r *Refresh) Reconcile(ctx context.Context) (reconciler.Result, error) {
	if err := r.read(ctx); err != nil {
		log.FromContext(ctx).Error(err, "keeping what was read before", "what", r.name)
		return reconciler.Result{RequeueAfter: min(r.every, retryInterval)}, nil
	}
	return reconciler.Result{RequeueAfter: r.every}, nil
}
