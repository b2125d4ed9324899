// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package monitor

import (
	"context"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/nap-aks/nap/localazure/arm/rp"
)

// Full names of the resource types.
const (
	SettingType   = "Microsoft.Insights/diagnosticSettings"
	CategoryType  = "Microsoft.Insights/diagnosticSettingsCategories"
	WorkspaceType = "Microsoft.OperationalInsights/workspaces"
)

const clusterType = "Microsoft.ContainerService/managedClusters"

// maxSettings bounds the diagnostic settings of a resource.
const maxSettings = 5

var settingVersions = []string{"2021-05-01-preview", "2017-05-01-preview", "2016-09-01"}

var settingRule = regexp.MustCompile(`^[^<>%&:\\?/*]{1,260}$`)

// The log categories that have rows. The variable categories has all of them.
const (
	APIServer          = "kube-apiserver"
	Audit              = "kube-audit"
	AuditAdmin         = "kube-audit-admin"
	ControllerManager  = "kube-controller-manager"
	Scheduler          = "kube-scheduler"
	NodeProvisioning   = "node-auto-provisioning"
	ProvisioningEvents = "karpenter-events"
)

// categories are the log categories of each resource type. Those of components
// that a local cluster does not run have no rows.
var categories = map[string][]string{
	strings.ToLower(clusterType): {
		APIServer, Audit, AuditAdmin, ControllerManager, Scheduler, "cluster-autoscaler", "cloud-controller-manager", "guard",
		"csi-azuredisk-controller", "csi-azurefile-controller", "csi-snapshot-controller", NodeProvisioning, ProvisioningEvents,
	},
}

// groups are the category groups that a setting may name.
var groups = map[string]func(category string) bool{
	"alllogs": func(string) bool { return true },
	"audit":   func(c string) bool { return c == Audit || c == AuditAdmin || c == "guard" },
}

func (p *Provider) addDiagnostics() {
	p.env.Add(
		&rp.Type{Name: SettingType, Versions: settingVersions, Scope: rp.Extension, NoState: true, NameRule: settingRule,
			NameHelp: "A diagnostic setting's name has 1 to 260 characters, none of < > % & : \\ ? / *.",
			Prepare:  p.prepareSetting, Commit: p.commitSetting},
		&rp.Type{Name: CategoryType, Versions: settingVersions, Scope: rp.Extension, NoState: true, Virtual: true, List: p.listCategories, Get: p.getCategory},
	)
}

// target returns the log categories of the resource of a setting, and an error if
// the resource does not exist.
func (p *Provider) target(ctx context.Context, id rp.ID) ([]string, error) {
	if id.Scope == nil {
		return nil, rp.BadRequest("BadRequest", "Diagnostic settings of subscriptions and resource groups are not supported here; name a resource, such as a managed cluster.")
	}
	cs := categories[strings.ToLower(id.Scope.Type())]
	if cs == nil {
		return nil, rp.BadRequest("ResourceTypeNotSupported", "The resource type '%s' does not support diagnostic settings.", strings.ToLower(id.Scope.Type()))
	}
	r, err := p.env.Store.Get(ctx, *id.Scope)
	if err != nil {
		return nil, err
	}
	if r == nil {
		return nil, rp.NotFound(*id.Scope)
	}
	return cs, nil
}

func (p *Provider) prepareSetting(ctx context.Context, c *rp.Change) error {
	var cs []string
	var err error
	if c.Preflight && c.ID.Scope != nil {
		cs = categories[strings.ToLower(c.ID.Scope.Type())]
	} else if cs, err = p.target(ctx, c.ID); err != nil {
		return err
	}
	// PUT replaces the whole setting.
	if !c.Patch {
		c.Doc = rp.MergePut(nil, c.Sent)
	}
	if err := checkEntries(c.Doc, cs); err != nil {
		return err
	}
	d := c.Doc
	destinations := 0
	for _, k := range []string{"workspaceId", "storageAccountId", "eventHubAuthorizationRuleId", "marketplacePartnerId"} {
		if d.Str("properties", k) != "" {
			destinations++
		}
	}
	if destinations == 0 {
		return rp.BadRequest("BadRequest", "The diagnostic setting '%s' has no destination; give a workspaceId.", c.ID.Name()).At("properties.workspaceId")
	}
	ws := d.Str("properties", "workspaceId")
	if destinations > 1 || ws == "" {
		return rp.BadRequest("BadRequest", "The diagnostic setting '%s' sends logs to something other than a Log Analytics workspace, which this local Azure does not have; give only a workspaceId.", c.ID.Name()).At("properties.workspaceId")
	}
	id, err := rp.ParseID(ws)
	if err != nil || !strings.EqualFold(id.Type(), WorkspaceType) || id.IsCollection() {
		return rp.BadRequest("BadRequest", "The workspaceId '%s' of the diagnostic setting '%s' is not the ID of a Log Analytics workspace.", ws, c.ID.Name()).At("properties.workspaceId")
	}
	switch t := d.Str("properties", "logAnalyticsDestinationType"); {
	case t == "", strings.EqualFold(t, "Dedicated"), strings.EqualFold(t, "AzureDiagnostics"):
	default:
		return rp.BadRequest("BadRequest", "The logAnalyticsDestinationType '%s' is neither Dedicated nor AzureDiagnostics.", t).At("properties.logAnalyticsDestinationType")
	}
	if c.Preflight {
		return nil
	}
	w, err := p.env.Store.Get(ctx, id)
	if err != nil {
		return err
	}
	if w == nil {
		return rp.Errorf(http.StatusNotFound, "ResourceNotFound", "The Log Analytics workspace '%s' of the diagnostic setting '%s' was not found.", ws, c.ID.Name()).At("properties.workspaceId")
	}
	if err := p.env.Authorize(ctx, c.Caller, "Microsoft.OperationalInsights/workspaces/sharedKeys/action", id); err != nil {
		return err
	}
	c.Cmps = append(c.Cmps, rp.Exists(id))
	return p.checkOthers(ctx, c, id)
}

func checkEntries(d rp.Doc, known []string) error {
	d.Default([]any{}, "properties", "logs")
	d.Default([]any{}, "properties", "metrics")
	some := false
	for _, list := range []string{"logs", "metrics"} {
		seen := map[string]bool{}
		for i, x := range d.List("properties", list) {
			target := fmt.Sprintf("properties.%s[%d]", list, i)
			m, _ := x.(map[string]any)
			e := rp.Doc(m)
			category, group := e.Str("category"), e.Str("categoryGroup")
			if (category == "") == (group == "") {
				return rp.BadRequest("BadRequest", "Element %d of %s must have one of category and categoryGroup.", i, list).At(target)
			}
			key := strings.ToLower(category + group)
			if seen[key] {
				return rp.BadRequest("BadRequest", "%s names the category '%s' twice.", list, category+group).At(target)
			}
			seen[key] = true
			switch {
			case list == "metrics":
				if !strings.EqualFold(category, "AllMetrics") {
					return rp.BadRequest("BadRequest", "Metric category '%s' is not supported; use AllMetrics.", category+group).At(target)
				}
			case group != "":
				if groups[key] == nil {
					return rp.BadRequest("BadRequest", "Category group '%s' is not supported; use allLogs or audit.", group).At(target)
				}
			case !slices.ContainsFunc(known, func(k string) bool { return strings.EqualFold(k, category) }):
				return rp.BadRequest("BadRequest", "Category '%s' is not supported. The categories are %s.", category, strings.Join(known, ", ")).At(target)
			}
			some = some || e.Bool("enabled")
		}
	}
	if !some {
		return rp.BadRequest("BadRequest", "At least one data sink needs to be specified: no element of logs or metrics is enabled.").At("properties.logs")
	}
	return nil
}

// enabled returns the log categories that a setting sends, in lower case.
func enabled(d rp.Doc, known []string) map[string]bool {
	out := map[string]bool{}
	for _, x := range d.List("properties", "logs") {
		m, _ := x.(map[string]any)
		e := rp.Doc(m)
		if !e.Bool("enabled") {
			continue
		}
		in := groups[strings.ToLower(e.Str("categoryGroup"))]
		for _, c := range known {
			if strings.EqualFold(c, e.Str("category")) || in != nil && in(c) {
				out[strings.ToLower(c)] = true
			}
		}
	}
	return out
}

// checkOthers checks a setting together with the other settings of its resource:
// their number, and that no two send a category to the same workspace.
func (p *Provider) checkOthers(ctx context.Context, c *rp.Change, workspace rp.ID) error {
	at := c.ID
	at.Names = nil
	all, err := p.env.Store.List(ctx, at)
	if err != nil {
		return err
	}
	known := categories[strings.ToLower(c.ID.Scope.Type())]
	mine := enabled(c.Doc, known)
	others := 0
	for _, r := range all {
		if strings.EqualFold(r.ParsedID().Name(), c.ID.Name()) {
			continue
		}
		others++
		if !strings.EqualFold(r.Doc.Str("properties", "workspaceId"), workspace.String()) {
			continue
		}
		for k := range enabled(r.Doc, known) {
			if mine[k] {
				return rp.Conflict("Conflict", "Data sink '%s' is already used in diagnostic setting '%s' for category '%s'. Data sinks can't be reused in different settings on the same category for the same resource.", workspace, r.ParsedID().Name(), k)
			}
		}
	}
	if others >= maxSettings {
		return rp.BadRequest("BadRequest", "Resource '%s' already has the maximum of %d diagnostic settings; delete one first.", c.ID.Scope, maxSettings)
	}
	return nil
}

// commitSetting records when the setting started to send each category.
func (p *Provider) commitSetting(_ context.Context, c *rp.Change) error {
	c.Status = http.StatusOK
	since := map[string]any{}
	now := p.env.Now().UTC().Format(time.RFC3339Nano)
	sameSink := c.Old != nil && strings.EqualFold(c.Old.Doc.Str("properties", "workspaceId"), c.Doc.Str("properties", "workspaceId"))
	for k := range enabled(c.Doc, categories[strings.ToLower(c.ID.Scope.Type())]) {
		since[k] = now
		if was := c.Rec.Internal.Str("since", k); sameSink && was != "" {
			since[k] = was
		}
	}
	c.Rec.Internal["since"] = since
	return nil
}

func categoryDoc(id rp.ID, name, kind string) rp.Doc {
	of := []any{}
	if kind == "Logs" {
		of = append(of, "allLogs")
		if groups["audit"](name) {
			of = append(of, "audit")
		}
	}
	at := rp.ID{Subscription: id.Subscription, ResourceGroup: id.ResourceGroup, Scope: id.Scope, Namespace: id.Namespace, Types: id.Types, Names: []string{name}}
	return rp.Doc{"id": at.String(), "name": name, "type": strings.ToLower(CategoryType), "properties": map[string]any{"categoryType": kind, "categoryGroups": of}}
}

func (p *Provider) allCategories(ctx context.Context, id rp.ID) ([]rp.Doc, error) {
	cs, err := p.target(ctx, id)
	if err != nil {
		return nil, err
	}
	out := make([]rp.Doc, 0, len(cs)+1)
	for _, c := range cs {
		out = append(out, categoryDoc(id, c, "Logs"))
	}
	return append(out, categoryDoc(id, "AllMetrics", "Metrics")), nil
}

func (p *Provider) listCategories(ctx context.Context, q *rp.Request) (*rp.Response, error) {
	ds, err := p.allCategories(ctx, q.ID)
	if err != nil {
		return nil, err
	}
	return rp.ListResponse(ds, ""), nil
}

func (p *Provider) getCategory(ctx context.Context, q *rp.Request) (*rp.Response, error) {
	ds, err := p.allCategories(ctx, q.ID)
	if err != nil {
		return nil, err
	}
	for _, d := range ds {
		if strings.EqualFold(d.Str("name"), q.ID.Name()) {
			return &rp.Response{Body: d}, nil
		}
	}
	return nil, rp.NotFound(q.ID)
}
