package containerservice

import (
	"context"
	"fmt"
	"net/http"
	"regexp"
	"sort"
	"strings"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/containerservice/armcontainerservice/v8"
	clientv3 "go.etcd.io/etcd/client/v3"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/nap-aks/nap/localazure/arm/authorization"
	"github.com/nap-aks/nap/localazure/arm/managedidentity"
	"github.com/nap-aks/nap/localazure/arm/resources"
	"github.com/nap-aks/nap/localazure/arm/rp"
	"github.com/nap-aks/nap/localazure/arm/token"
	"github.com/nap-aks/nap/localazure/intent"
)

func (p *Provider) addClusters() {
	t := &rp.Type{Name: clusterType, Versions: apiVersions, Scope: rp.InGroup, Tracked: true, Flat: true, ETagPath: []string{"eTag"}, PatchTagsOnly: true,
		NameRule: regexp.MustCompile(`^[a-zA-Z0-9]$|^[a-zA-Z0-9][-_a-zA-Z0-9]{0,61}[a-zA-Z0-9]$`), NameHelp: "A cluster's name has 1 to 63 letters, digits, dashes and underscores, and starts and ends with a letter or digit.",
		Prepare: p.prepareCluster, Commit: p.commitCluster, Delete: p.deleteCluster, RenderList: p.renderClusters, Stamp: p.stampCluster}
	t.Actions = map[string]rp.Action{
		"listclusterusercredential":           {Permission: "Microsoft.ContainerService/managedClusters/listClusterUserCredential/action", Do: p.credential("clusterUser")},
		"listclusteradmincredential":          {Permission: "Microsoft.ContainerService/managedClusters/listClusterAdminCredential/action", Do: p.credential("clusterAdmin")},
		"listclustermonitoringusercredential": {Do: p.credential("clusterMonitoringUser")},
		"stop":                                {Do: p.stop},
		"start":                               {Do: p.start},
		"abort":                               {Do: p.abort},
		"enablenodeprovisioning":              {Permission: "Microsoft.ContainerService/managedClusters/write", Do: p.enable},
		"disablenodeprovisioning":             {Permission: "Microsoft.ContainerService/managedClusters/write", Do: p.disable},
		"freezenodeprovisioning":              {Permission: "Microsoft.ContainerService/managedClusters/write", Do: p.freeze},
		"resumenodeprovisioning":              {Permission: "Microsoft.ContainerService/managedClusters/write", Do: p.resume},
		"runcommand":                          {Permission: "Microsoft.ContainerService/managedClusters/runcommand/action", Do: p.runCommand},
	}
	p.env.Add(t)
	p.env.Engine.Register("PutCluster", rp.Kind{Step: p.stepPutCluster, Failed: p.clusterFailed})
	p.env.Engine.Register("Abort", rp.Kind{Step: p.stepAbort})
	p.env.Engine.Register("DeleteCluster", rp.Kind{Step: p.stepDeleteCluster, Failed: p.clusterFailed})
}

// oneOf checks a value that has to be one of some, folding case to AKS's.
func oneOf(d rp.Doc, allowed []string, path ...string) error {
	v, ok := d.Lookup(path...)
	if !ok || v == nil || v == "" {
		return nil
	}
	s, _ := v.(string)
	for _, a := range allowed {
		if strings.EqualFold(a, s) {
			d.Set(a, path...)
			return nil
		}
	}
	return rp.BadRequest("InvalidParameter", "The value of parameter %s is invalid: '%v' is none of %s. Please see https://aka.ms/aks-naming-rules for more details.", path[len(path)-1], v, strings.Join(allowed, ", ")).At(strings.Join(path, "."))
}

func strs[T ~string](vs []T) []string {
	var out []string
	for _, v := range vs {
		out = append(out, string(v))
	}
	return out
}

func (p *Provider) prepareCluster(ctx context.Context, c *rp.Change) error {
	if c.Patch {
		return nil
	}
	var model armcontainerservice.ManagedCluster
	if err := c.Doc.Into(&model); err != nil {
		return rp.BadRequest("InvalidParameter", "The request body does not have the shape of a managed cluster: %v", err)
	}
	d := c.Doc
	if d.Map("properties") == nil {
		d.Set(map[string]any{}, "properties")
	}
	if err := p.prepareIdentity(ctx, c); err != nil {
		return err
	}
	if err := p.prepareVersion(c); err != nil {
		return err
	}
	if err := p.prepareNetwork(c); err != nil {
		return err
	}
	for _, x := range []struct {
		allowed []string
		path    []string
	}{
		{strs(armcontainerservice.PossibleNodeProvisioningModeValues()), []string{"properties", "nodeProvisioningProfile", "mode"}},
		{strs(armcontainerservice.PossibleNodeProvisioningDefaultNodePoolsValues()), []string{"properties", "nodeProvisioningProfile", "defaultNodePools"}},
		{strs(armcontainerservice.PossibleManagedClusterSKUNameValues()), []string{"sku", "name"}},
		{strs(armcontainerservice.PossibleManagedClusterSKUTierValues()), []string{"sku", "tier"}},
		{strs(armcontainerservice.PossibleUpgradeChannelValues()), []string{"properties", "autoUpgradeProfile", "upgradeChannel"}},
		{strs(armcontainerservice.PossibleNodeOSUpgradeChannelValues()), []string{"properties", "autoUpgradeProfile", "nodeOSUpgradeChannel"}},
	} {
		if err := oneOf(d, x.allowed, x.path...); err != nil {
			return err
		}
	}
	id := c.ID
	prefix := d.Str("properties", "dnsPrefix")
	if prefix == "" && d.Str("properties", "fqdnSubdomain") == "" {
		return rp.BadRequest("InvalidParameter", "Required parameter dnsPrefix is missing (null).").At("properties.dnsPrefix")
	}
	if prefix == "" {
		prefix = d.Str("properties", "fqdnSubdomain")
	}
	loc := d.Str("location")
	d.Default("MC_"+id.ResourceGroup+"_"+id.Name()+"_"+loc, "properties", "nodeResourceGroup")
	for _, x := range []struct {
		v    any
		path []string
	}{
		{"Base", []string{"sku", "name"}}, {"Free", []string{"sku", "tier"}},
		{modeManual, []string{"properties", "nodeProvisioningProfile", "mode"}}, {"Auto", []string{"properties", "nodeProvisioningProfile", "defaultNodePools"}},
		{"NodeImage", []string{"properties", "autoUpgradeProfile", "nodeOSUpgradeChannel"}}, {"KubernetesOfficial", []string{"properties", "supportPlan"}},
		{"msi", []string{"properties", "servicePrincipalProfile", "clientId"}}, {"Running", []string{"properties", "powerState", "code"}},
		{"azureuser", []string{"properties", "windowsProfile", "adminUsername"}},
	} {
		d.Default(x.v, x.path...)
	}
	for _, x := range []struct {
		v    any
		path []string
	}{
		{true, []string{"properties", "enableRBAC"}}, {100.0, []string{"properties", "maxAgentPools"}}, {false, []string{"properties", "disableLocalAccounts"}},
		{true, []string{"properties", "windowsProfile", "enableCSIProxy"}}, {false, []string{"properties", "oidcIssuerProfile", "enabled"}},
		{map[string]any{}, []string{"properties", "securityProfile"}}, {map[string]any{}, []string{"properties", "workloadAutoScalerProfile"}},
		{true, []string{"properties", "storageProfile", "diskCSIDriver", "enabled"}}, {true, []string{"properties", "storageProfile", "fileCSIDriver", "enabled"}}, {true, []string{"properties", "storageProfile", "snapshotController", "enabled"}},
		{false, []string{"properties", "metricsProfile", "costAnalysis", "enabled"}},
	} {
		if _, ok := d.Lookup(x.path...); !ok {
			d.Set(x.v, x.path...)
		}
	}
	if d.Bool("properties", "oidcIssuerProfile", "enabled") {
		d.Default(fmt.Sprintf("https://%s.oic.prod-aks.azure.com/%s/%s/", loc, p.env.TenantID, letters(id.Key(), 12)), "properties", "oidcIssuerProfile", "issuerURL")
	}
	fqdn := fmt.Sprintf("%s-%s.hcp.%s.azmk8s.io", strings.ToLower(prefix), letters(id.Key()+"fqdn", 8), loc)
	d.Default(fqdn, "properties", "fqdn")
	d.Default(strings.Replace(fqdn, ".hcp.", ".portal.hcp.", 1), "properties", "azurePortalFQDN")
	if err := p.checkImmutable(c); err != nil {
		return err
	}
	pools, upgraded, err := p.preparePools(ctx, c)
	if err != nil {
		return err
	}
	if c.Old != nil {
		if err := checkOverride(d, c.Old.Doc, p.env.Now()); err != nil {
			return err
		}
		if upgraded || c.Old.Doc.Str("properties", "currentKubernetesVersion") != d.Str("properties", "currentKubernetesVersion") {
			if err := p.checkBudgets(ctx, c.Old, d); err != nil {
				return err
			}
		}
	} else if err := checkOverride(d, nil, p.env.Now()); err != nil {
		return err
	}
	v := &view{doc: d}
	for _, r := range pools {
		pd := r.Doc.Clone()
		pd["name"] = r.ParsedID().Name()
		v.pools = append(v.pools, pd)
	}
	if c.Old != nil {
		v.old = c.Old.Doc
	}
	if v.autoscalerAllowed, err = resources.FeatureRegistered(ctx, p.env, "Microsoft.ContainerService/AllowClusterAutoscalerAndNAP"); err != nil {
		return err
	}
	if err := checkRules(v); err != nil {
		return err
	}
	if err := completeAutoScaler(v); err != nil {
		return err
	}
	if c.Old != nil && mode(c.Old.Doc) == modeAuto && mode(d) == modeManual {
		if err := p.checkDisable(ctx, c.Old); err != nil {
			return err
		}
	}
	if err := p.checkSubnets(ctx, c, d, v.pools); err != nil {
		return err
	}
	d.Drop("properties", "agentPoolProfiles")
	prepared := make([]any, len(pools))
	for i := range pools {
		prepared[i] = pools[i]
	}
	c.Prepared = prepared
	return nil
}

// checkDisable looks at the live cluster: it must have no node of node
// auto-provisioning left and none must be able to come.
func (p *Provider) checkDisable(ctx context.Context, r *rp.Record) error {
	st, _, err := p.status(ctx, r.UID)
	if err != nil {
		return err
	}
	unreachable := func(err error) error {
		return rp.Conflict("OperationNotAllowed", "%s cannot be Manual as long as it is not known what runs in the cluster, and its API server does not answer: %v. Try again once the cluster is healthy.", modePath, err).At("properties.nodeProvisioningProfile.mode")
	}
	live, err := p.Dial(st)
	if err != nil {
		return unreachable(err)
	}
	ctx, cancel := context.WithTimeout(ctx, liveTimeout)
	defer cancel()
	nodes, err := live.ProvisionedNodes(ctx)
	if err != nil {
		return unreachable(err)
	}
	pools, err := live.OpenNodePools(ctx)
	if err != nil {
		return unreachable(err)
	}
	known := map[string]bool{}
	for _, n := range nodes {
		known[n] = true
	}
	machines, err := p.env.Store.List(ctx, machinesOf(r.ParsedID()))
	if err != nil {
		return err
	}
	for _, m := range machines {
		if n := vmName(m); !known[n] {
			nodes = append(nodes, n)
		}
	}
	if len(nodes) == 0 && len(pools) == 0 {
		return nil
	}
	sort.Strings(nodes)
	var open []string
	for n, limit := range pools {
		open = append(open, n+" (cpu limit "+limit+")")
	}
	sort.Strings(open)
	var why []string
	e := rp.BadRequest("OperationNotAllowed", "")
	if len(nodes) > 0 {
		why = append(why, fmt.Sprintf("Nodes that node auto-provisioning made: %s.", strings.Join(nodes, ", ")))
		for _, n := range nodes {
			e.Details = append(e.Details, rp.Error{Code: "NodeExists", Message: "Node '" + n + "' was made by node auto-provisioning and still exists.", Target: n})
		}
	}
	if len(open) > 0 {
		why = append(why, fmt.Sprintf("NodePools that can still make nodes: %s.", strings.Join(open, ", ")))
		for _, n := range open {
			name, _, _ := strings.Cut(n, " ")
			e.Details = append(e.Details, rp.Error{Code: "NodePoolOpen", Message: "NodePool " + n + " is not limited to 0.", Target: name})
		}
	}
	e.Message = modePath + " cannot be Manual unless all NodePools have property .spec.limits.cpu set to one of [0] and no Node has the label karpenter.sh/nodepool. " + strings.Join(why, " ") +
		" Set the CPU limit of every NodePool to 0, taint the NodePools with karpenter.azure.com/disable:NoSchedule, give the pods other nodes (a fixed node pool), wait until the nodes are drained and gone, and repeat the request."
	return e.At("properties.nodeProvisioningProfile.mode")
}

func (p *Provider) prepareIdentity(ctx context.Context, c *rp.Change) error {
	d := c.Doc
	sp := d.Str("properties", "servicePrincipalProfile", "clientId")
	kind := d.Str("identity", "type")
	if kind == "" && (sp == "" || equal(sp, "msi")) {
		kind = "SystemAssigned"
		d.Set(kind, "identity", "type")
	}
	if err := oneOf(d, []string{"SystemAssigned", "UserAssigned", "None"}, "identity", "type"); err != nil {
		return err
	}
	switch {
	case equal(kind, "UserAssigned"):
		ids := d.Map("identity", "userAssignedIdentities")
		if len(ids) != 1 {
			return rp.BadRequest("InvalidUserAssignedIdentities", "A cluster with a user-assigned identity has exactly one in identity.userAssignedIdentities; this one has %d.", len(ids)).At("identity.userAssignedIdentities")
		}
		out := map[string]any{}
		for k := range ids {
			id, err := rp.ParseID(k)
			if err != nil || !equal(id.Type(), "Microsoft.ManagedIdentity/userAssignedIdentities") {
				return rp.BadRequest("InvalidUserAssignedIdentities", "'%s' is not the ID of a user-assigned identity.", k).At("identity.userAssignedIdentities")
			}
			r, err := p.env.Store.Get(ctx, id)
			if err != nil {
				return err
			}
			if r == nil {
				if c.Preflight {
					out[k] = map[string]any{}
					continue
				}
				return rp.BadRequest("FailedIdentityOperation", "Identity operation for resource '%s' failed with error 'Failed to perform resource identity operation. Status: 'NotFound'. Response: 'Resource %s was not found.''.", c.ID, k).At("identity.userAssignedIdentities")
			}
			out[k] = map[string]any{"clientId": r.Doc.Str("properties", "clientId"), "principalId": r.Doc.Str("properties", "principalId")}
		}
		d.Set(out, "identity", "userAssignedIdentities")
		d.Drop("identity", "principalId")
		d.Drop("identity", "tenantId")
	case equal(kind, "SystemAssigned"):
		d.Drop("identity", "userAssignedIdentities")
		if c.Old != nil && c.Old.Doc.Str("identity", "principalId") != "" {
			d.Set(c.Old.Doc.Str("identity", "principalId"), "identity", "principalId")
		} else if !c.Preflight {
			d.Set(rp.NewGUID(), "identity", "principalId")
		}
		d.Set(p.env.TenantID, "identity", "tenantId")
	}
	return nil
}

// principal is the object ID of a cluster's own identity.
func principal(d rp.Doc) string {
	for _, v := range d.Map("identity", "userAssignedIdentities") {
		if m, ok := v.(map[string]any); ok {
			return rp.Doc(m).Str("principalId")
		}
	}
	return d.Str("identity", "principalId")
}

func (p *Provider) prepareVersion(c *rp.Change) error {
	d := c.Doc
	asked, loc := d.Str("properties", "kubernetesVersion"), d.Str("location")
	if c.Old == nil {
		full, err := p.versions.resolve(asked, loc)
		if err != nil {
			return err
		}
		if asked == "" {
			asked = minor(full)
		}
		d.Set(asked, "properties", "kubernetesVersion")
		d.Set(full, "properties", "currentKubernetesVersion")
		return nil
	}
	was := c.Old.Doc.Str("properties", "currentKubernetesVersion")
	d.Set(was, "properties", "currentKubernetesVersion")
	if asked == "" {
		d.Set(c.Old.Doc.Str("properties", "kubernetesVersion"), "properties", "kubernetesVersion")
		return nil
	}
	if asked == was || asked == minor(was) || asked == c.Old.Doc.Str("properties", "kubernetesVersion") {
		return nil
	}
	full, err := p.versions.resolve(asked, loc)
	if err != nil {
		return err
	}
	if compareVersions(full, was) < 0 {
		return rp.BadRequest("OperationNotAllowed", "Downgrading Kubernetes from version %s to %s is not allowed. Available upgrades: %s.", was, full, strings.Join(p.versions.upgrades(was), ", ")).At("properties.kubernetesVersion")
	}
	allowed := false
	for _, u := range p.versions.upgrades(was) {
		allowed = allowed || u == full
	}
	if !allowed && full != was {
		return rp.BadRequest("OperationNotAllowed", "Upgrading Kubernetes version %s to %s is not allowed. Available upgrades: %s. Minor versions cannot be skipped. Please see https://aka.ms/aks-supported-k8s-ver for version details.", was, full, strings.Join(p.versions.upgrades(was), ", ")).At("properties.kubernetesVersion")
	}
	d.Set(full, "properties", "currentKubernetesVersion")
	return nil
}

func (p *Provider) prepareNetwork(c *rp.Change) error {
	d := c.Doc
	np := func(k string) []string { return []string{"properties", "networkProfile", k} }
	get := func(k string) string { return d.Str(np(k)...) }
	for k, allowed := range map[string][]string{
		"networkPlugin": {"azure", "kubenet", "none"}, "networkPluginMode": {"overlay"}, "networkDataplane": {"azure", "cilium"}, "networkPolicy": {"azure", "calico", "cilium", "none"},
		"loadBalancerSku": {"standard", "basic"}, "outboundType": {"loadBalancer", "userDefinedRouting", "managedNATGateway", "userAssignedNATGateway", "none", "block"},
	} {
		if err := oneOf(d, allowed, np(k)...); err != nil {
			return err
		}
	}
	if get("networkPlugin") == "" {
		d.Set("azure", np("networkPlugin")...)
		if get("networkPluginMode") == "" {
			d.Set("overlay", np("networkPluginMode")...)
		}
	}
	podSubnet := false
	for _, x := range d.List("properties", "agentPoolProfiles") {
		if m, ok := x.(map[string]any); ok && rp.Doc(m).Str("podSubnetID") != "" {
			podSubnet = true
		}
	}
	if get("networkDataplane") == "cilium" {
		if get("networkPlugin") != "azure" || get("networkPluginMode") != "overlay" && !podSubnet && c.Old == nil {
			return rp.BadRequest("BadRequest", "Cilium dataplane requires either network plugin mode overlay or pod subnet").At("networkProfile.networkPluginMode")
		}
		if pol := get("networkPolicy"); pol != "" && pol != "cilium" && pol != "none" {
			return rp.BadRequest("BadRequest", "Cilium dataplane requires network policy cilium or none, not %s. Set networkProfile.networkPolicy to cilium.", pol).At("networkProfile.networkPolicy")
		}
		d.Default("cilium", np("networkPolicy")...)
	} else if get("networkPolicy") == "cilium" {
		return rp.BadRequest("BadRequest", "Network policy cilium requires network dataplane cilium.").At("networkProfile.networkPolicy")
	}
	d.Default("azure", np("networkDataplane")...)
	d.Default("none", np("networkPolicy")...)
	d.Default("standard", np("loadBalancerSku")...)
	d.Default("loadBalancer", np("outboundType")...)
	d.Default("10.0.0.0/16", np("serviceCidr")...)
	d.Default("10.0.0.10", np("dnsServiceIP")...)
	if get("networkPluginMode") == "overlay" || get("networkPlugin") == "kubenet" {
		d.Default("10.244.0.0/16", np("podCidr")...)
	}
	if len(d.List(np("ipFamilies")...)) == 0 {
		d.Set([]any{"IPv4"}, np("ipFamilies")...)
	}
	for one, many := range map[string]string{"podCidr": "podCidrs", "serviceCidr": "serviceCidrs"} {
		if v := get(one); v != "" && len(d.List(np(many)...)) == 0 {
			d.Set([]any{v}, np(many)...)
		}
	}
	if get("outboundType") == "loadBalancer" && get("loadBalancerSku") == "standard" {
		if d.Map(np("loadBalancerProfile")...) == nil {
			d.Set(map[string]any{"managedOutboundIPs": map[string]any{"count": 1.0}}, np("loadBalancerProfile")...)
		}
		d.Default("nodeIPConfiguration", "properties", "networkProfile", "loadBalancerProfile", "backendPoolType")
	}
	if err := checkCIDRs(d); err != nil {
		return err
	}
	return nil
}

// checkImmutable refuses changes of what is fixed for a cluster's life.
func (p *Provider) checkImmutable(c *rp.Change) error {
	if c.Old == nil {
		return nil
	}
	for _, path := range [][]string{
		{"properties", "dnsPrefix"}, {"properties", "nodeResourceGroup"}, {"properties", "enableRBAC"}, {"properties", "networkProfile", "networkPlugin"},
		{"properties", "networkProfile", "podCidr"}, {"properties", "networkProfile", "serviceCidr"}, {"properties", "networkProfile", "dnsServiceIP"}, {"properties", "networkProfile", "loadBalancerSku"},
		{"properties", "fqdn"}, {"properties", "linuxProfile", "adminUsername"},
	} {
		was, had := c.Old.Doc.Lookup(path...)
		is, _ := c.Doc.Lookup(path...)
		if !had {
			continue
		}
		ws, isString := was.(string)
		if s, _ := is.(string); isString && strings.EqualFold(ws, s) || !isString && was == is {
			continue
		}
		name := strings.Join(path, ".")
		return rp.BadRequest("PropertyChangeNotAllowed", "Changing property '%s' is not allowed.", strings.TrimPrefix(name, "properties.")).At(strings.TrimPrefix(name, "properties."))
	}
	return nil
}

func (p *Provider) commitCluster(ctx context.Context, c *rp.Change) error {
	c.Lock, c.Busy = lockOf(c.ID), busy
	r := c.Rec
	if c.Patch {
		r.State = c.Old.State
		return nil
	}
	var prev *intent.ClusterIntent
	if c.Old != nil {
		ci, ok, err := intent.Get[intent.ClusterIntent](ctx, p.env.Store.KV, intent.ClusterIntentKey(r.UID))
		if err != nil {
			return err
		}
		if ok {
			prev = &ci
		}
	}
	r.State = "Updating"
	switch {
	case c.Old == nil:
		r.State = "Creating"
	case c.Old.Doc.Str("properties", "currentKubernetesVersion") != c.Doc.Str("properties", "currentKubernetesVersion"):
		r.State = "Upgrading"
	}
	c.Doc.Default(r.UID, "properties", "resourceUID")
	smaller := false
	for _, x := range c.Prepared {
		pool := x.(*rp.Record)
		c.Cmps = append(c.Cmps, rp.Unchanged(pool))
		changed := pool.Internal.Bool("changed")
		smaller = smaller || pool.Internal.Bool("smaller")
		pool.Internal.Drop("changed")
		pool.Internal.Drop("smaller")
		if pool.Rev() == 0 || changed {
			pool.State = r.State
			pool.ETag = rp.NewGUID()
			c.Ops = append(c.Ops, rp.PutOp(pool))
		}
		if s := pool.Doc.Str("properties", "vnetSubnetID"); s != "" && r.Internal.Str("vnetSubnetID") == "" {
			r.Internal.Set(s, "vnetSubnetID")
		}
	}
	if c.Old == nil {
		p.commitNew(c)
	}
	ci := p.clusterIntent(r, prev)
	if mode(c.Doc) == modeAuto && ci.NodeProvisioning.ClientID == "" {
		p.issueController(c, &ci)
	}
	if mode(c.Doc) == modeManual && c.Old != nil && mode(c.Old.Doc) == modeAuto {
		p.withdrawController(c, &ci)
	}
	if prev == nil || ci != *prev {
		c.Ops = append(c.Ops, rp.JSONOp(intent.ClusterIntentKey(r.UID), ci))
	}
	verb := map[string]string{"Creating": "Creating", "Upgrading": "Upgrading", "Updating": "Updating"}[r.State]
	c.Op = &rp.Operation{Kind: "PutCluster", Verb: verb, Data: rp.Doc{}}
	if verb == "Upgrading" || !smaller { // scaling in alone is no upgrade
		c.Op.Data[forcedKey] = forced(c.Doc, p.env.Now())
	}
	return nil
}

// commitNew adds what comes with a new cluster: its identity and the node
// resource group.
func (p *Provider) commitNew(c *rp.Change) {
	r, id := c.Rec, c.ID
	if equal(c.Doc.Str("identity", "type"), "SystemAssigned") {
		c.Ops = append(c.Ops, token.PutOps(token.Identity{ObjectID: c.Doc.Str("identity", "principalId"), AppID: rp.NewGUID(), TenantID: p.env.TenantID, DisplayName: id.Name(), Kind: "ManagedIdentity", Resource: id.String()})...)
	}
	g := rp.ID{Subscription: id.Subscription, ResourceGroup: c.Doc.Str("properties", "nodeResourceGroup")}
	now := p.env.Now().UTC()
	kubelet := g.In(managedidentity.Type, id.Name()+"-agentpool")
	kd := rp.Doc{"location": c.Doc.Str("location")}
	c.Ops = append(c.Ops, managedidentity.Fill(kd, kubelet, p.env.TenantID)...)
	c.Ops = append(c.Ops, rp.PutOp(&rp.Record{ID: kubelet.String(), UID: rp.NewGUID(), ETag: rp.NewGUID(), State: rp.Succeeded, CreatedAt: now, ChangedAt: now, CreatedBy: r.CreatedBy, Internal: rp.Doc{}, Doc: kd}))
	r.Internal.Set(map[string]any{"objectId": kd.Str("properties", "principalId"), "clientId": kd.Str("properties", "clientId")}, "kubelet")
	group := &rp.Record{ID: g.String(), UID: rp.NewGUID(), ETag: rp.NewGUID(), State: rp.Succeeded, CreatedAt: now, ChangedAt: now, CreatedBy: r.CreatedBy, Internal: rp.Doc{},
		Doc: rp.Doc{"location": c.Doc.Str("location"), "managedBy": id.String(), "tags": map[string]any{"aks-managed-cluster-name": id.Name(), "aks-managed-cluster-rg": id.ResourceGroup}}}
	c.Ops = append(c.Ops, rp.PutOp(group))
}

// issueController makes the service principal that the provisioning controller
// signs in with: it may change this cluster, and read the subscription (sizes,
// usages, subnets).
func (p *Provider) issueController(c *rp.Change, ci *intent.ClusterIntent) {
	secret := rp.NewSecret()
	sp := token.Identity{ObjectID: rp.NewGUID(), AppID: rp.NewGUID(), TenantID: p.env.TenantID, DisplayName: "node-auto-provisioning-" + c.ID.Name(), Kind: "Application", Secrets: []string{token.HashSecret(secret)}, Resource: c.ID.String()}
	ci.NodeProvisioning.ClientID, ci.NodeProvisioning.ClientSecret = sp.AppID, secret
	on := p.auth.AssignmentRecord(c.ID, sp.ObjectID, authorization.AKSContributor, "node auto-provisioning creates and deletes machines")
	all := p.auth.AssignmentRecord(rp.ID{Subscription: c.ID.Subscription}, sp.ObjectID, authorization.Reader, "node auto-provisioning reads sizes, usages and subnets")
	c.Ops = append(c.Ops, token.PutOps(sp)...)
	c.Ops = append(c.Ops, rp.PutOp(on), rp.PutOp(all))
	c.Rec.Internal.Set(map[string]any{"objectId": sp.ObjectID, "clientId": sp.AppID, "assignments": []any{on.ID, all.ID}}, "controller")
	pool := c.ID.Child("agentPools", intent.MachinesPool)
	now := p.env.Now().UTC()
	c.Ops = append(c.Ops, rp.PutOp(&rp.Record{ID: pool.String(), UID: rp.NewGUID(), ETag: rp.NewGUID(), State: rp.Succeeded, CreatedAt: now, ChangedAt: now, Internal: rp.Doc{}, Doc: rp.Doc{"properties": map[string]any{
		"mode": "Machines", "type": "VirtualMachines", "osType": "Linux", "count": 0.0, "enableAutoScaling": false, "vmSize": "", "orchestratorVersion": c.Doc.Str("properties", "currentKubernetesVersion"),
		"currentOrchestratorVersion": c.Doc.Str("properties", "currentKubernetesVersion"), "powerState": map[string]any{"code": "Running"}}}}))
}

// withdrawController takes the principal back, if no machine has come meanwhile.
func (p *Provider) withdrawController(c *rp.Change, ci *intent.ClusterIntent) {
	ctl := c.Rec.Internal.Map("controller")
	c.Ops = append(c.Ops, token.DeleteOps(ctl.Str("objectId"), ctl.Str("clientId"))...)
	for _, a := range ctl.Strings("assignments") {
		c.Ops = append(c.Ops, rp.DeleteOp(rp.MustParseID(a)))
	}
	c.Rec.Internal.Drop("controller")
	ci.NodeProvisioning.ClientID, ci.NodeProvisioning.ClientSecret = "", ""
	ci.Generation++
	pool := c.ID.Child("agentPools", intent.MachinesPool)
	machines := rp.RecordKey(pool.Child("machines", "x"))
	machines = strings.TrimSuffix(machines, "x")
	c.Cmps = append(c.Cmps, clientv3.Compare(clientv3.CreateRevision(machines), "=", 0).WithPrefix())
	c.Ops = append(c.Ops, rp.DeleteOp(pool))
}

func (p *Provider) stepPutCluster(ctx context.Context, op *rp.Operation) (rp.Step, error) {
	id := rp.MustParseID(op.Resource)
	r, err := p.env.Store.Target(ctx, op)
	if err != nil {
		return rp.Step{}, err
	}
	if op.Cancel {
		return rp.Step{}, rp.ErrCanceled
	}
	watch := []string{intent.ClusterStatusKey(r.UID)}
	// Pools and control plane come up side by side.
	pools, err := p.pools(ctx, id, false)
	if err != nil {
		return rp.Step{}, err
	}
	ok, err := p.ready(ctx, r.UID)
	if err != nil {
		return rp.Step{}, err
	}
	at := progress{done: true, waiting: "the control plane", since: op.Start}
	if !ok && op.Verb == "Upgrading" {
		// Nodes must not be newer than their control plane: it goes first.
		return rp.Step{Watch: watch, After: 2 * time.Second}, timedOut(p.env, at.since, "waiting for "+at.waiting)
	}
	for _, pool := range pools {
		pa, err := p.reconcilePool(ctx, op, r, pool)
		if err != nil {
			return rp.Step{}, err
		}
		watch = append(watch, intent.MachineStatusPrefix+r.UID+"/"+pool.ParsedID().Name()+"/")
		if !pa.done {
			at.done, at.waiting = false, pa.waiting
		}
		if pa.since.After(at.since) {
			at.since = pa.since
		}
	}
	if !ok || !at.done {
		return rp.Step{Watch: watch, After: 2 * time.Second}, timedOut(p.env, at.since, "waiting for "+at.waiting)
	}
	if mode(r.Doc) == modeAuto && r.Internal.Bool("closedPools") {
		if err := p.reopen(ctx, r); err != nil {
			return rp.Step{}, err
		}
	}
	k := r.Internal.Map("kubelet")
	if k != nil && r.Doc.Map("properties", "identityProfile") == nil {
		ng := r.Doc.Str("properties", "nodeResourceGroup")
		r.Doc.Set(map[string]any{"kubeletidentity": map[string]any{"clientId": k.Str("clientId"), "objectId": k.Str("objectId"),
			"resourceId": "/subscriptions/" + id.Subscription + "/resourcegroups/" + ng + "/providers/Microsoft.ManagedIdentity/userAssignedIdentities/" + id.Name() + "-agentpool"}}, "properties", "identityProfile")
	}
	if lb := r.Doc.Map("properties", "networkProfile", "loadBalancerProfile"); lb != nil && len(lb.List("effectiveOutboundIPs")) == 0 {
		lb.Set([]any{map[string]any{"id": "/subscriptions/" + id.Subscription + "/resourceGroups/" + r.Doc.Str("properties", "nodeResourceGroup") + "/providers/Microsoft.Network/publicIPAddresses/" + rp.NewGUID()}}, "effectiveOutboundIPs")
	}
	cmps, ops, err := p.setState(ctx, r, rp.Succeeded)
	if err != nil {
		return rp.Step{}, err
	}
	return rp.Step{Done: true, Cmps: cmps, Ops: ops}, nil
}

// clusterFailed puts a cluster whose operation failed into that state.
func (p *Provider) clusterFailed(ctx context.Context, op *rp.Operation, e *rp.Error) ([]clientv3.Op, error) {
	r, err := p.env.Store.Get(ctx, clusterOf(rp.MustParseID(op.Resource)))
	if err != nil || r == nil {
		return nil, err
	}
	pools, err := p.pools(ctx, r.ParsedID(), false)
	if err != nil {
		return nil, err
	}
	for _, pool := range pools {
		s, err := p.look(ctx, op, r, pool)
		if err != nil {
			return nil, err
		}
		if _, err := s.settle(); err != nil {
			return nil, err
		}
	}
	state := rp.Failed
	if e == rp.ErrCanceled {
		state = rp.Canceled
	}
	_, ops, err := p.setState(ctx, r, state)
	return ops, err
}

func (p *Provider) deleteCluster(_ context.Context, c *rp.Change) error {
	c.Lock, c.Busy = lockOf(c.ID), busy
	uid := c.Old.UID
	c.Ops = append(c.Ops, clientv3.OpDelete(intent.ClusterIntentKey(uid)), clientv3.OpDelete(intent.MachineIntentPrefix+uid+"/", clientv3.WithPrefix()))
	c.Op = &rp.Operation{Kind: "DeleteCluster", Verb: "Deleting"}
	return nil
}

func (p *Provider) stepDeleteCluster(ctx context.Context, op *rp.Operation) (rp.Step, error) {
	id := rp.MustParseID(op.Resource)
	r, err := p.env.Store.Get(ctx, id)
	if err != nil {
		return rp.Step{}, err
	}
	if r == nil {
		return rp.Step{Done: true}, nil
	}
	kv := p.env.Store.KV
	// A machine operation may have written an intent meanwhile.
	if _, err := kv.Delete(ctx, intent.MachineIntentPrefix+r.UID+"/", clientv3.WithPrefix()); err != nil {
		return rp.Step{}, fmt.Errorf("removing the machines of %s: %w", id, err)
	}
	st, err := kv.Get(ctx, intent.ClusterStatusKey(r.UID), clientv3.WithCountOnly())
	if err != nil {
		return rp.Step{}, fmt.Errorf("reading the status of %s: %w", id, err)
	}
	ms, err := kv.Get(ctx, intent.MachineStatusPrefix+r.UID+"/", clientv3.WithPrefix(), clientv3.WithCountOnly())
	if err != nil {
		return rp.Step{}, fmt.Errorf("counting the machines of %s: %w", id, err)
	}
	if st.Count+ms.Count > 0 {
		return rp.Step{Watch: []string{intent.ClusterStatusKey(r.UID), intent.MachineStatusPrefix + r.UID + "/"}, After: 2 * time.Second},
			timedOut(p.env, op.Start, fmt.Sprintf("waiting for the control plane and %d machines to go", ms.Count))
	}
	ops := []clientv3.Op{rp.DeleteOp(id)}
	// Children go first and may be many: not all fit into one transaction.
	children, err := p.env.Children(ctx, id)
	if err != nil {
		return rp.Step{}, err
	}
	for len(children) > 0 {
		n := min(len(children), 100)
		var del []clientv3.Op
		for _, ch := range children[:n] {
			del = append(del, rp.DeleteOp(ch.ParsedID()))
		}
		if _, err := kv.Txn(ctx).Then(del...).Commit(); err != nil {
			return rp.Step{}, fmt.Errorf("removing what belongs to %s: %w", id, err)
		}
		children = children[n:]
	}
	ng := rp.ID{Subscription: id.Subscription, ResourceGroup: r.Doc.Str("properties", "nodeResourceGroup")}
	inGroup, err := p.env.InGroup(ctx, ng, true)
	if err != nil {
		return rp.Step{}, err
	}
	for _, x := range append(inGroup, &rp.Record{ID: ng.String()}) {
		ops = append(ops, rp.DeleteOp(x.ParsedID()))
	}
	ids, err := token.All(ctx, kv)
	if err != nil {
		return rp.Step{}, err
	}
	gone := map[string]bool{}
	for _, x := range ids {
		if rid, err := rp.ParseID(x.Resource); err == nil && (rid.Within(id) || rid.Within(ng)) {
			gone[strings.ToLower(x.ObjectID)] = true
			ops = append(ops, token.DeleteOps(x.ObjectID, x.AppID)...)
		}
	}
	as, err := p.env.Store.ListType(ctx, "Microsoft.Authorization/roleAssignments")
	if err != nil {
		return rp.Step{}, err
	}
	for _, a := range as {
		if aid := a.ParsedID(); aid.Within(id) || gone[strings.ToLower(a.Doc.Str("properties", "principalId"))] || aid.Within(ng) {
			ops = append(ops, rp.DeleteOp(aid))
		}
	}
	return rp.Step{Done: true, Ops: ops}, nil
}

// poolsOf is the collection of a cluster's pools.
func poolsOf(cluster rp.ID) rp.ID {
	cluster.Types = append(append([]string(nil), cluster.Types[:1]...), "agentPools")
	return cluster
}

// stampCluster sums up what renderClusters reads: the pools.
func (p *Provider) stampCluster(ctx context.Context, r *rp.Record) (uint64, error) {
	pools, err := p.env.Store.ViewList(ctx, poolsOf(r.ParsedID()))
	return rp.Stamp(pools), err
}

// renderClusters adds what is not in the clusters' own records: their pools.
func (p *Provider) renderClusters(ctx context.Context, rs []*rp.Record, ds []rp.Doc, apiVersion string) error {
	for i, r := range rs {
		pools, err := p.env.Store.ViewList(ctx, poolsOf(r.ParsedID()))
		if err != nil {
			return err
		}
		profiles := []any{}
		for _, pr := range pools {
			if pr.ParsedID().Name() == intent.MachinesPool {
				continue
			}
			d := pr.Doc.Clone().Map("properties")
			d["name"], d["provisioningState"], d["eTag"] = pr.ParsedID().Name(), pr.State, pr.ETag
			profiles = append(profiles, map[string]any(d))
		}
		d := ds[i]
		d.Set(profiles, "properties", "agentPoolProfiles")
		d["id"] = strings.Replace(r.ID, "/resourceGroups/", "/resourcegroups/", 1)
		if apiVersion >= "2022-" {
			d["systemData"] = rp.SystemData(r)
		}
		if !hasNodeProvisioning(apiVersion) {
			d.Drop("properties", "nodeProvisioningProfile")
		}
		d.Drop("properties", "servicePrincipalProfile", "secret")
	}
	return nil
}

// hasNodeProvisioning tells whether an API version has nodeProvisioningProfile.
func hasNodeProvisioning(v string) bool {
	if strings.HasSuffix(v, "-preview") {
		return rp.VersionAtLeast(v, "2023-09-02")
	}
	return rp.VersionAtLeast(v, "2025-05-01")
}

func (p *Provider) credential(name string) func(context.Context, *rp.Request) (*rp.Response, error) {
	return func(ctx context.Context, q *rp.Request) (*rp.Response, error) {
		r, err := p.cluster(ctx, q.ID)
		if err != nil {
			return nil, err
		}
		if name == "clusterAdmin" && r.Doc.Bool("properties", "disableLocalAccounts") {
			return nil, rp.BadRequest("BadRequest", "Getting static credential is not allowed because this cluster is set to disable local accounts.")
		}
		st, ok, err := p.status(ctx, r.UID)
		if err != nil {
			return nil, err
		}
		cfg := st.UserKubeconfig
		if name == "clusterAdmin" || cfg == "" {
			cfg = st.AdminKubeconfig
		}
		if !ok || cfg == "" {
			return nil, rp.Conflict("OperationNotAllowed", "The cluster '%s' (state %s) has no credentials yet: its control plane has not come up. Wait for it: az aks wait --created.", q.ID.Name(), r.State)
		}
		value, err := nameContext([]byte(cfg), r.ParsedID().Name())
		if err != nil {
			return nil, fmt.Errorf("credentials of cluster '%s': %w", q.ID.Name(), err)
		}
		return &rp.Response{Body: map[string]any{"kubeconfigs": []any{map[string]any{"name": name, "value": value}}}}, nil
	}
}

// nameContext gives the kubeconfig's context the cluster's name. AKS does so
// for the admin's too: it is az that adds "-admin" when it merges that one.
func nameContext(kubeconfig []byte, name string) ([]byte, error) {
	c, err := clientcmd.Load(kubeconfig)
	if err != nil {
		return nil, err
	}
	if c.CurrentContext == name || c.Contexts[c.CurrentContext] == nil {
		return kubeconfig, nil
	}
	c.Contexts[name] = c.Contexts[c.CurrentContext]
	delete(c.Contexts, c.CurrentContext)
	c.CurrentContext = name
	return clientcmd.Write(*c)
}

// power begins to stop or start a cluster.
func (p *Provider) power(ctx context.Context, q *rp.Request, code, state string) (*rp.Response, error) {
	r, err := p.cluster(ctx, q.ID)
	if err != nil {
		return nil, err
	}
	if equal(r.Doc.Str("properties", "powerState", "code"), code) && r.State == rp.Succeeded {
		return &rp.Response{Status: http.StatusNoContent}, nil
	}
	prev, ok, err := intent.Get[intent.ClusterIntent](ctx, p.env.Store.KV, intent.ClusterIntentKey(r.UID))
	if err != nil {
		return nil, err
	}
	if !ok {
		return nil, rp.NotFound(q.ID)
	}
	r.Doc.Set(code, "properties", "powerState", "code")
	r.State, r.ETag, r.ChangedAt, r.ChangedBy = state, rp.NewGUID(), p.env.Now().UTC(), q.Caller.ObjectID
	c := &rp.Change{Env: p.env, Caller: q.Caller, ID: r.ParsedID(), Type: q.Type, Rec: r, Doc: r.Doc, Op: &rp.Operation{Kind: "PutCluster", Verb: state}, Lock: lockOf(r.ParsedID()), Busy: busy}
	c.Ops = append(c.Ops, rp.JSONOp(intent.ClusterIntentKey(r.UID), p.clusterIntent(r, &prev)))
	if err := p.env.StartOperation(ctx, c); err != nil {
		return nil, err
	}
	return &rp.Response{Status: http.StatusAccepted, Op: c.Op, WithLocation: true}, nil
}

func (p *Provider) stop(ctx context.Context, q *rp.Request) (*rp.Response, error) {
	r, err := p.cluster(ctx, q.ID)
	if err != nil {
		return nil, err
	}
	if mode(r.Doc) == modeAuto {
		return nil, rp.BadRequest("OperationNotAllowed", "Stopping the cluster is not allowed if %s is Auto: a cluster with node auto-provisioning cannot be stopped. Disable node auto-provisioning first (az aks update --node-provisioning-mode Manual).", modePath).At("properties.nodeProvisioningProfile.mode")
	}
	return p.power(ctx, q, "Stopped", "Stopping")
}

func (p *Provider) start(ctx context.Context, q *rp.Request) (*rp.Response, error) {
	return p.power(ctx, q, "Running", "Starting")
}

// abort asks the running operation of a cluster or pool to give up.
func (p *Provider) abort(ctx context.Context, q *rp.Request) (*rp.Response, error) {
	cluster := clusterOf(q.ID)
	if _, err := p.cluster(ctx, cluster); err != nil {
		return nil, err
	}
	op, err := p.env.LockHolder(ctx, lockOf(cluster))
	if err != nil {
		return nil, err
	}
	if op == nil || op.Kind == "DeleteCluster" {
		return nil, rp.BadRequest("OperationNotAllowed", "There is no operation on '%s' that can be aborted.", q.ID.Name())
	}
	if _, err := p.env.Engine.RequestCancel(ctx, op.ID); err != nil {
		return nil, err
	}
	// Aborting is an operation of its own, which succeeds when the other is over.
	c := &rp.Change{Env: p.env, Caller: q.Caller, ID: clusterOf(q.ID), Type: q.Type, Op: &rp.Operation{Kind: "Abort", Verb: "Canceling", Data: rp.Doc{"operation": op.ID}}}
	if err := p.env.StartOperation(ctx, c); err != nil {
		return nil, err
	}
	return &rp.Response{Status: http.StatusAccepted, Op: c.Op, WithLocation: true}, nil
}

func (p *Provider) stepAbort(ctx context.Context, op *rp.Operation) (rp.Step, error) {
	other, err := p.env.Engine.Get(ctx, op.Data.Str("operation"))
	if err != nil {
		return rp.Step{}, err
	}
	if other == nil || other.Done() {
		return rp.Step{Done: true}, nil
	}
	return rp.Step{Watch: []string{rp.OperationPrefix + other.ID}, After: time.Second}, nil
}
