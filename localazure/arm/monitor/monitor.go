// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package monitor

import (
	"context"
	"strings"
	"time"

	"github.com/nap-aks/nap/localazure/arm/rp"
	"github.com/nap-aks/nap/localazure/logstore"
)

// Provider implements Microsoft.Insights and Microsoft.OperationalInsights.
type Provider struct{ env *rp.Env }

// New registers the resource types and operation kinds of the provider with env.
func New(env *rp.Env) *Provider {
	p := &Provider{env: env}
	p.addDiagnostics()
	p.addWorkspaces()
	return p
}

// Views returns what diagnostic settings send to a workspace, in the order of the
// IDs of the settings.
func (p *Provider) Views(ctx context.Context, workspace rp.ID) ([]logstore.View, error) {
	all, err := p.env.Store.ListType(ctx, SettingType)
	if err != nil {
		return nil, err
	}
	out := []logstore.View{}
	for _, r := range all {
		if !strings.EqualFold(r.Doc.Str("properties", "workspaceId"), workspace.String()) {
			continue
		}
		id := r.ParsedID()
		if id.Scope == nil {
			continue
		}
		for _, c := range categories[strings.ToLower(id.Scope.Type())] {
			s := r.Internal.Str("since", c)
			if s == "" {
				continue
			}
			at, err := time.Parse(time.RFC3339Nano, s)
			if err != nil {
				return nil, rp.Errorf(500, "InternalServerError", "reading the record of %s: %v", r.ID, err)
			}
			out = append(out, logstore.View{Cluster: id.Scope.String(), Category: c, Since: at})
		}
	}
	return out, nil
}
