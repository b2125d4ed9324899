package provisioning

import (
	"context"
	"errors"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/rand"
	"sigs.k8s.io/controller-runtime/pkg/client"
	karpv1 "sigs.k8s.io/karpenter/pkg/apis/v1"
)

// create writes a NodeClaim. Its name is chosen here and not by the API server,
// so that a claim whose creation got no answer can be asked for afterwards; see
// settleDoubts.
func (p *Provisioner) create(ctx context.Context, claim *karpv1.NodeClaim) error {
	claim.Name, claim.GenerateName = claim.GenerateName+rand.String(5), ""
	err := p.Kube.Create(ctx, claim)
	if err != nil && unanswered(err) {
		p.mu.Lock()
		p.doubts = append(p.doubts, claim)
		p.mu.Unlock()
	}
	return err
}

// unanswered tells that a write may have been done although it failed: the
// server has not refused it.
func unanswered(err error) bool {
	var refused apierrors.APIStatus
	if !errors.As(err, &refused) {
		return true
	}
	return apierrors.IsTimeout(err) || apierrors.IsServerTimeout(err) || apierrors.IsInternalError(err) || apierrors.IsUnexpectedServerError(err)
}

// settleDoubts looks for the NodeClaims whose creation was not answered. One
// that is there is known from now on, so that its pods are placed on it and not
// bought for again. As long as the API server cannot say, the pass fails.
func (p *Provisioner) settleDoubts(ctx context.Context) error {
	p.mu.Lock()
	doubts := p.doubts
	p.doubts = nil
	p.mu.Unlock()
	for i, claim := range doubts {
		// A patch of nothing reads past the cache, which may not know it yet.
		err := p.Kube.Patch(ctx, claim, client.RawPatch(types.MergePatchType, []byte("{}")))
		switch {
		case err == nil:
			if err := p.mirror.Upsert(claim); err != nil {
				return err
			}
			p.cluster.UpdateNodeClaim(claim)
		case apierrors.IsNotFound(err):
		default:
			p.mu.Lock()
			p.doubts = append(p.doubts, doubts[i:]...)
			p.mu.Unlock()
			return fmt.Errorf("finding out whether NodeClaim %s was created, which was not answered: %w", claim.Name, err)
		}
	}
	return nil
}
