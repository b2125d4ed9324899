// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package monitor

import (
	"context"
	"encoding/base64"
	"encoding/hex"
	"net/http"
	"regexp"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/nap-aks/nap/localazure/arm/rp"
)

var workspaceVersions = []string{"2025-02-01", "2023-09-01", "2022-10-01", "2021-12-01-preview", "2021-06-01", "2020-10-01", "2020-08-01", "2015-11-01-preview"}

var workspaceRule = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9-]{2,61}[A-Za-z0-9]$`)

// Operation kinds.
const (
	settleKind = "WorkspaceSettle"
	deleteKind = "WorkspaceDelete"
)

// Limits of the interactive retention of a workspace, in days.
const (
	shortestRetention = 7
	longestRetention  = 730
	defaultRetention  = 30
)

var skus = []string{"PerGB2018", "Free", "Standalone", "PerNode", "CapacityReservation", "Standard", "Premium", "LACluster"}

func (p *Provider) addWorkspaces() {
	p.env.Engine.Register(settleKind, rp.Kind{Step: p.settled})
	p.env.Engine.Register(deleteKind, rp.Kind{Step: p.deleted})
	keys := rp.Action{Do: p.sharedKeys}
	p.env.Add(
		&rp.Type{Name: WorkspaceType, Versions: workspaceVersions, Tracked: true, NameRule: workspaceRule, PatchTagsOnly: false,
			NameHelp: "A workspace's name has 4 to 63 letters, digits and dashes; it begins and ends with a letter or digit.",
			ETagPath: []string{"etag"}, Prepare: p.prepareWorkspace, Commit: p.commitWorkspace, Delete: deleteWorkspace, Render: renderWorkspace,
			Actions: map[string]rp.Action{"sharedkeys": keys, "listkeys": keys, "regeneratesharedkey": {Do: p.regenerateKeys}}},
	)
	p.env.Add(p.env.OperationTypes("Microsoft.OperationalInsights")...)
}

func (p *Provider) prepareWorkspace(_ context.Context, c *rp.Change) error {
	d := c.Doc
	if d.Map("properties") == nil {
		d.Set(map[string]any{}, "properties")
	}
	for _, ro := range []string{"customerId", "createdDate", "modifiedDate", "privateLinkScopedResources"} {
		d.Drop("properties", ro)
	}
	d.Default("PerGB2018", "properties", "sku", "name")
	name, known := d.Str("properties", "sku", "name"), false
	for _, s := range skus {
		if strings.EqualFold(s, name) {
			d.Set(s, "properties", "sku", "name")
			known = true
		}
	}
	if !known {
		return rp.BadRequest("InvalidParameter", "The sku '%s' of workspace '%s' is not one of %s.", name, c.ID.Name(), strings.Join(skus, ", ")).At("properties.sku.name")
	}
	if _, ok := d.Lookup("properties", "retentionInDays"); !ok {
		d.Set(defaultRetention, "properties", "retentionInDays")
	}
	if n, ok := d.Int("properties", "retentionInDays"); !ok || n < shortestRetention || n > longestRetention {
		return rp.BadRequest("InvalidParameter", "'RetentionInDays' of workspace '%s' must be a number from %d to %d.", c.ID.Name(), shortestRetention, longestRetention).At("properties.retentionInDays")
	}
	for _, k := range []string{"publicNetworkAccessForIngestion", "publicNetworkAccessForQuery"} {
		d.Default("Enabled", "properties", k)
		if v := d.Str("properties", k); v != "Enabled" && v != "Disabled" && v != "SecuredByPerimeter" {
			return rp.BadRequest("InvalidParameter", "%s of workspace '%s' is '%s', which is not one of Enabled, Disabled, SecuredByPerimeter.", k, c.ID.Name(), v).At("properties." + k)
		}
	}
	if _, ok := d.Lookup("properties", "features"); !ok {
		d.Set(map[string]any{"legacy": 0, "searchVersion": 1, "enableLogAccessUsingOnlyResourcePermissions": true}, "properties", "features")
	}
	if _, ok := d.Lookup("properties", "workspaceCapping"); !ok {
		d.Set(map[string]any{"dailyQuotaGb": -1.0, "dataIngestionStatus": "RespectQuota"}, "properties", "workspaceCapping")
	}
	return nil
}

func newKey() (string, error) {
	b, err := hex.DecodeString(rp.NewSecret() + rp.NewSecret())
	return base64.StdEncoding.EncodeToString(b), err
}

func (p *Provider) commitWorkspace(_ context.Context, c *rp.Change) error {
	if c.Creating() {
		first, err := newKey()
		if err != nil {
			return err
		}
		second, err := newKey()
		if err != nil {
			return err
		}
		c.Rec.Internal = rp.Doc{"customerId": rp.NewGUID(), "primary": first, "secondary": second}
		c.Ops = append(c.Ops, clientv3.OpPut(guidKey(c.Rec.Internal.Str("customerId")), c.ID.String()))
	}
	c.Op = &rp.Operation{ID: rp.NewGUID(), Kind: settleKind, Verb: "Updating"}
	c.Rec.State = "Updating"
	c.Rec.Internal.Set(c.Op.ID, "operation")
	return nil
}

// guidPrefix maps customer IDs of workspaces to their resource IDs.
const guidPrefix = "/nap/arm/workspaces/"

func guidKey(guid string) string { return guidPrefix + strings.ToLower(guid) }

func (p *Provider) settled(ctx context.Context, op *rp.Operation) (rp.Step, error) {
	r, err := p.env.Store.Get(ctx, rp.MustParseID(op.Resource))
	if err != nil {
		return rp.Step{}, err
	}
	if r == nil || r.State != "Updating" || r.Internal.Str("operation") != op.ID {
		return rp.Step{Done: true}, nil
	}
	r.State = rp.Succeeded
	return rp.Step{Done: true, Cmps: []clientv3.Cmp{rp.Unchanged(r)}, Ops: []clientv3.Op{rp.PutOp(r)}}, nil
}

func deleteWorkspace(_ context.Context, c *rp.Change) error {
	c.Op = &rp.Operation{Kind: deleteKind, Verb: "Deleting"}
	return nil
}

func (p *Provider) deleted(ctx context.Context, op *rp.Operation) (rp.Step, error) {
	id := rp.MustParseID(op.Resource)
	r, err := p.env.Store.Get(ctx, id)
	if err != nil || r == nil || r.State != "Deleting" {
		return rp.Step{Done: err == nil}, err
	}
	return rp.Step{Done: true, Cmps: []clientv3.Cmp{rp.Unchanged(r)}, Ops: []clientv3.Op{rp.DeleteOp(id), clientv3.OpDelete(guidKey(r.Internal.Str("customerId")))}}, nil
}

func renderWorkspace(_ context.Context, r *rp.Record, d rp.Doc, _ string) error {
	d.Set(r.Internal.Str("customerId"), "properties", "customerId")
	d.Set(r.CreatedAt.Format(time.RFC3339Nano), "properties", "createdDate")
	d.Set(r.ChangedAt.Format(time.RFC3339Nano), "properties", "modifiedDate")
	d["etag"] = `"` + r.ETag + `"`
	return nil
}

func (p *Provider) mustWorkspace(ctx context.Context, id rp.ID) (*rp.Record, error) {
	r, err := p.env.Store.Get(ctx, id)
	if err == nil && r == nil {
		err = rp.NotFound(id)
	}
	return r, err
}

func keysOf(r *rp.Record) *rp.Response {
	return &rp.Response{Body: rp.Doc{"primarySharedKey": r.Internal.Str("primary"), "secondarySharedKey": r.Internal.Str("secondary")}}
}

func (p *Provider) sharedKeys(ctx context.Context, q *rp.Request) (*rp.Response, error) {
	r, err := p.mustWorkspace(ctx, q.ID)
	if err != nil {
		return nil, err
	}
	return keysOf(r), nil
}

func (p *Provider) regenerateKeys(ctx context.Context, q *rp.Request) (*rp.Response, error) {
	if _, err := p.mustWorkspace(ctx, q.ID); err != nil {
		return nil, err
	}
	r, err := p.env.Modify(ctx, q.ID, func(r *rp.Record) (bool, error) {
		for _, k := range []string{"primary", "secondary"} {
			key, err := newKey()
			if err != nil {
				return false, err
			}
			r.Internal.Set(key, k)
		}
		return true, nil
	})
	if err != nil {
		return nil, err
	}
	if r == nil {
		return nil, rp.NotFound(q.ID)
	}
	return keysOf(r), nil
}

// workspace returns the workspace with a customer ID, or nil.
func (p *Provider) workspace(ctx context.Context, guid string) (*rp.Record, error) {
	resp, err := p.env.Store.KV.Get(ctx, guidKey(guid))
	if err != nil {
		return nil, err
	}
	if len(resp.Kvs) == 0 {
		return nil, nil
	}
	id, err := rp.ParseID(string(resp.Kvs[0].Value))
	if err != nil {
		return nil, rp.Errorf(http.StatusInternalServerError, "InternalServerError", "reading the record of workspace %s: %v", guid, err)
	}
	return p.env.Store.Get(ctx, id)
}
