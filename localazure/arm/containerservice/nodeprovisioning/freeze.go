// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package nodeprovisioning

import (
	"context"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/nap-aks/nap/localazure/arm/containerservice/kubeapi"
	"github.com/nap-aks/nap/localazure/arm/rp"
)

// Freeze stops voluntary disruption ({"scope": "Disruption"}, the default), or
// also the creation of nodes ({"scope": "All"}). Resume undoes either.
func (o *Operations) Freeze(ctx context.Context, q *rp.Request) (*rp.Response, error) {
	scope := q.Body.Str("scope")
	all := strings.EqualFold(scope, "All")
	if scope != "" && !all && !strings.EqualFold(scope, "Disruption") {
		return nil, rp.BadRequest("InvalidParameter", "The scope '%s' is none of Disruption, All.", scope).At("scope")
	}
	return o.editNodePools(ctx, q, freezePool(all))
}

// Resume undoes Freeze.
func (o *Operations) Resume(ctx context.Context, q *rp.Request) (*rp.Response, error) {
	return o.editNodePools(ctx, q, resumePool)
}

// editNodePools edits all NodePools of an idle cluster and answers with the names
// of those that changed.
func (o *Operations) editNodePools(ctx context.Context, q *rp.Request, f func(map[string]any) (bool, error)) (*rp.Response, error) {
	r, err := o.autoCluster(ctx, q)
	if err != nil {
		return nil, err
	}
	if err := o.host.CheckIdle(ctx, r.ParsedID()); err != nil {
		return nil, err
	}
	client, err := o.dial(ctx, r.UID)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, kubeapi.Timeout)
	defer cancel()
	names := []string{}
	err = client.EditNodePools(ctx, func(pool map[string]any) (bool, error) {
		changed, err := f(pool)
		if changed {
			n, _, _ := unstructured.NestedString(pool, "metadata", "name")
			names = append(names, n)
		}
		return changed, err
	})
	if err != nil {
		return nil, rp.Conflict("OperationNotAllowed", "Not all NodePools of cluster '%s' could be changed; %v were. Repeat the request: %v", q.ID.Name(), names, err)
	}
	return &rp.Response{Body: rp.Doc{"nodePools": names}}, nil
}
