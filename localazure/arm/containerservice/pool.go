package containerservice

import (
	"context"
	"fmt"
	"net/http"
	"net/netip"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/containerservice/armcontainerservice/v8"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/nap-aks/nap/catalog"
	"github.com/nap-aks/nap/localazure/arm/rp"
	"github.com/nap-aks/nap/localazure/intent"
)

// defaultSizes are what a pool without vmSize gets: the first one the region has.
var defaultSizes = []string{"Standard_D4ds_v5", "Standard_D4d_v4", "Standard_D4s_v5", "Standard_D4as_v5", "Standard_D4s_v3"}

// maxPoolCount is the most nodes that a pool can have.
const maxPoolCount = 1000

func (p *Provider) addPools() {
	t := &rp.Type{Name: poolType, Versions: apiVersions, Scope: rp.InGroup, Flat: true, ETagPath: []string{"properties", "eTag"},
		NameRule: regexp.MustCompile(`^[a-z][a-z0-9]{0,11}$`), NameHelp: "An agent pool's name has 1 to 12 lower-case letters and digits and starts with a letter.",
		Prepare: p.preparePool, Commit: p.commitPool, Delete: p.deletePool,
		Filter: nil, List: p.listPools}
	t.Actions = map[string]rp.Action{
		"deletemachines":          {Permission: "Microsoft.ContainerService/managedClusters/agentPools/deleteMachines/action", Do: p.deleteMachines},
		"upgradenodeimageversion": {Permission: "Microsoft.ContainerService/managedClusters/agentPools/upgradeNodeImageVersion/action", Do: p.upgradeImage},
		"abort":                   {Do: p.abort},
		"resize":                  {Permission: "Microsoft.ContainerService/managedClusters/agentPools/write", Do: p.resize},
	}
	p.env.Add(t)
	p.env.Engine.Register("PutPool", rp.Kind{Step: p.stepPutPool, Failed: p.poolFailed})
	p.env.Engine.Register("DeletePool", rp.Kind{Step: p.stepDeletePool, Failed: p.poolFailed})
}

func (p *Provider) listPools(ctx context.Context, q *rp.Request) (*rp.Response, error) {
	cluster := clusterOf(q.ID)
	if _, err := p.cluster(ctx, cluster); err != nil {
		return nil, err
	}
	rs, err := p.pools(ctx, cluster, false)
	if err != nil {
		return nil, err
	}
	page, next, err := rp.Page(q, rs)
	if err != nil {
		return nil, err
	}
	ds, err := p.env.RenderAll(ctx, q.Type, page, q.APIVersion)
	return rp.ListResponse(ds, next), err
}

// preparePools brings the pools in a cluster's body together with those there
// are. Pools that the body leaves out stay as they are.
func (p *Provider) preparePools(ctx context.Context, c *rp.Change) (pools []*rp.Record, upgraded bool, err error) {
	var have []*rp.Record
	if c.Old != nil {
		if have, err = p.pools(ctx, c.ID, false); err != nil {
			return nil, false, err
		}
	}
	byName := map[string]*rp.Record{}
	for _, r := range have {
		byName[r.ParsedID().Name()] = r
	}
	out := append([]*rp.Record(nil), have...)
	seen := map[string]bool{}
	for i, x := range c.Sent.List("properties", "agentPoolProfiles") {
		m, ok := x.(map[string]any)
		if !ok {
			return nil, false, rp.BadRequest("InvalidParameter", "agentPoolProfiles[%d] is not an object.", i).At("properties.agentPoolProfiles")
		}
		sent := rp.Doc(m).Clone()
		name := sent.Str("name")
		if !p.env.FindType(poolType).NameRule.MatchString(name) {
			return nil, false, rp.BadRequest("InvalidParameter", "The value of parameter agentPoolProfile.name is invalid: '%s'. %s", name, p.env.FindType(poolType).NameHelp).At("agentPoolProfile.name")
		}
		if seen[name] || name == intent.MachinesPool {
			return nil, false, rp.BadRequest("InvalidParameter", "The agent pool name '%s' is used twice or reserved.", name).At("agentPoolProfile.name")
		}
		seen[name] = true
		for _, k := range []string{"name", "id", "type", "provisioningState", "eTag"} {
			if k != "type" || !equal(sent.Str("type"), "VirtualMachineScaleSets", "AvailabilitySet", "VirtualMachines") {
				sent.Drop(k)
			}
		}
		r := byName[name]
		var stored rp.Doc
		if r != nil {
			stored = r.Doc
		} else {
			now := p.env.Now().UTC()
			r = &rp.Record{ID: c.ID.Child("agentPools", name).String(), UID: rp.NewGUID(), CreatedAt: now, ChangedAt: now, CreatedBy: c.Caller.ObjectID, Internal: rp.Doc{}}
			out = append(out, r)
		}
		doc := rp.MergePut(stored, rp.Doc{"properties": map[string]any(sent)})
		if err := p.completePool(c.Doc, doc, stored, name); err != nil {
			return nil, false, err
		}
		upgraded = upgraded || upgrades(stored, doc)
		r.Doc = doc
		r.Internal = r.Internal.Clone()
		r.Internal["changed"] = true
		was, _ := stored.Int("properties", "count")
		if is, _ := doc.Int("properties", "count"); is < was {
			r.Internal["smaller"] = true
		}
	}
	if len(out) == 0 {
		return nil, false, rp.BadRequest("InvalidParameter", "Required parameter agentPoolProfiles is missing (null): a cluster has at least one pool of mode System.").At("properties.agentPoolProfiles")
	}
	system := 0
	for _, r := range out {
		if equal(r.Doc.Str("properties", "mode"), "System") {
			n, _ := r.Doc.Int("properties", "count")
			system += n
		}
	}
	if system == 0 {
		return nil, false, rp.BadRequest("InvalidParameter", "There has to be at least one system agent pool with at least one node (mode System).").At("properties.agentPoolProfiles")
	}
	// A change of the cluster may mean one for every pool (an image, a version).
	return out, upgraded, nil
}

// completePool fills a pool's defaults and checks it against its cluster's
// document and what it was before (nil if new).
func (p *Provider) completePool(cluster, d, old rp.Doc, name string) error {
	var model armcontainerservice.AgentPool
	if err := d.Into(&model); err != nil {
		return rp.BadRequest("InvalidParameter", "The agent pool '%s' does not have the shape of one: %v", name, err).At("agentPoolProfile")
	}
	pp := func(k ...string) []string { return append([]string{"properties"}, k...) }
	for k, allowed := range map[string][]string{
		"mode": {"System", "User", "Gateway"}, "osType": {"Linux", "Windows"}, "type": {"VirtualMachineScaleSets", "VirtualMachines", "AvailabilitySet"},
		"scaleSetPriority": {"Regular", "Spot"}, "scaleSetEvictionPolicy": {"Delete", "Deallocate"}, "osDiskType": {"Managed", "Ephemeral"}, "scaleDownMode": {"Delete", "Deallocate"},
		"osSKU": strs(armcontainerservice.PossibleOSSKUValues()),
	} {
		if err := oneOf(d, allowed, pp(k)...); err != nil {
			return err
		}
	}
	loc := cluster.Str("location")
	if d.Str("properties", "vmSize") == "" {
		for _, s := range defaultSizes {
			if _, err := catalog.Lookup(loc, s); err == nil {
				d.Set(s, pp("vmSize")...)
				break
			}
		}
	}
	size, err := catalog.Lookup(loc, d.Str("properties", "vmSize"))
	if err != nil {
		return rp.BadRequest("VMSizeNotSupported", "The VM size of %s is not supported in location %s. Sizes: az vm list-skus -l %s --resource-type virtualMachines.", d.Str("properties", "vmSize"), loc, loc).At("agentPoolProfile.vmSize")
	}
	d.Set(size.Name, pp("vmSize")...)
	if old.Bool("properties", "enableAutoScaling") && d.Bool("properties", "enableAutoScaling") {
		// The count is the cluster autoscaler's: clients send the one that they
		// have read, which may be outdated.
		n, _ := old.Int("properties", "count")
		lo, _ := d.Int("properties", "minCount")
		hi, ok := d.Int("properties", "maxCount")
		if ok && lo <= hi {
			n = min(max(n, lo), hi)
		}
		d.Set(float64(n), pp("count")...)
	}
	count, ok := d.Int("properties", "count")
	if v, there := d.Lookup(pp("count")...); there && v != nil && !ok || ok && (count < 0 || count > maxPoolCount) {
		return rp.BadRequest("InvalidParameter", "The value of parameter agentPoolProfile.count is invalid: a pool has 0 to %d nodes.", maxPoolCount).At("agentPoolProfile.count")
	}
	if !ok {
		count = 1
		d.Set(float64(count), pp("count")...)
	}
	d.Default("User", pp("mode")...)
	d.Default("Linux", pp("osType")...)
	if equal(d.Str("properties", "osType"), "Windows") {
		d.Default("Windows2022", pp("osSKU")...)
	}
	d.Default("Ubuntu", pp("osSKU")...)
	d.Default("VirtualMachineScaleSets", pp("type")...)
	d.Default("Regular", pp("scaleSetPriority")...)
	d.Default("Delete", pp("scaleDownMode")...)
	d.Default("OS", pp("kubeletDiskType")...)
	d.Default("Running", pp("powerState", "code")...)
	if err := completeUpgradeSettings(d, name); err != nil {
		return err
	}
	for _, k := range []string{"enableAutoScaling", "enableNodePublicIP", "enableFIPS", "enableEncryptionAtHost", "enableUltraSSD"} {
		if v, there := d.Lookup(pp(k)...); !there || v == nil {
			d.Set(false, pp(k)...)
		}
	}
	if d.Map("properties", "securityProfile") == nil {
		d.Set(map[string]any{"enableVTPM": false, "enableSecureBoot": false}, pp("securityProfile")...)
	}
	if n, ok := d.Int("properties", "maxPods"); !ok || n == 0 {
		max := 250
		switch {
		case equal(cluster.Str("properties", "networkProfile", "networkPlugin"), "kubenet"):
			max = 110
		case cluster.Str("properties", "networkProfile", "networkPluginMode") != "overlay":
			max = 30
		}
		d.Set(float64(max), pp("maxPods")...)
	}
	if n, _ := d.Int("properties", "maxPods"); n < 10 || n > 250 {
		return rp.BadRequest("InvalidParameter", "The value of parameter agentPoolProfile.kubernetesConfig.maxPods is invalid: %d is not between 10 and 250.", n).At("agentPoolProfile.maxPods")
	}
	if n, ok := d.Int("properties", "osDiskSizeGB"); !ok || n == 0 {
		gb := 128
		if size.EphemeralOSDisk && size.ResourceDiskMiB > 0 && d.Str("properties", "osDiskType") != "Managed" {
			if r := int(size.ResourceDiskMiB / 1024); r >= 30 {
				gb = r
				d.Default("Ephemeral", pp("osDiskType")...)
			}
		}
		d.Set(float64(gb), pp("osDiskSizeGB")...)
	}
	d.Default("Managed", pp("osDiskType")...)
	if d.Bool("properties", "enableAutoScaling") {
		lo, ok1 := d.Int("properties", "minCount")
		hi, ok2 := d.Int("properties", "maxCount")
		if !ok1 || !ok2 || lo > hi || count < lo || count > hi {
			return rp.BadRequest("InvalidParameter", "Autoscaling of pool '%s' needs minCount <= count <= maxCount; they are %d, %d, %d.", name, lo, count, hi).At("agentPoolProfile.minCount")
		}
	} else {
		d.Drop(pp("minCount")...)
		d.Drop(pp("maxCount")...)
	}
	for _, z := range d.Strings("properties", "availabilityZones") {
		if !contains(size.Zones, z) {
			return rp.BadRequest("AvailabilityZoneNotSupported", "The zone(s) '%s' for resource '%s' is not supported. The supported zones for location '%s' are '%s'.", z, name, loc, strings.Join(size.Zones, ",")).At("agentPoolProfile.availabilityZones")
		}
	}
	if equal(d.Str("properties", "scaleSetPriority"), "Spot") {
		if equal(d.Str("properties", "mode"), "System") {
			return rp.BadRequest("InvalidParameter", "A system agent pool cannot be of priority Spot.").At("agentPoolProfile.scaleSetPriority")
		}
		if !size.SpotCapable {
			return rp.BadRequest("VMSizeNotSupported", "The VM size %s cannot be had as Spot in %s.", size.Name, loc).At("agentPoolProfile.vmSize")
		}
	}
	if err := checkTaints(d.Strings("properties", "nodeTaints")); err != nil {
		return err
	}
	current := cluster.Str("properties", "currentKubernetesVersion")
	asked := d.Str("properties", "orchestratorVersion")
	full := current
	if old != nil {
		full = old.Str("properties", "currentOrchestratorVersion")
	}
	if asked != "" && asked != full && !(old != nil && asked == old.Str("properties", "orchestratorVersion")) {
		if asked == minor(current) {
			full = current
		} else if full, err = p.versions.resolve(asked, loc); err != nil {
			return err
		}
		if compareVersions(full, current) > 0 {
			return rp.BadRequest("NodePoolMcVersionIncompatible", "Node pool version %s and control plane version %s are incompatible. The node pool's version cannot be newer than the control plane's.", full, current).At("agentPoolProfile.orchestratorVersion")
		}
		if old != nil && compareVersions(full, old.Str("properties", "currentOrchestratorVersion")) < 0 {
			return rp.BadRequest("OperationNotAllowed", "Downgrading agent pool '%s' from version %s to %s is not allowed.", name, old.Str("properties", "currentOrchestratorVersion"), full).At("agentPoolProfile.orchestratorVersion")
		}
	}
	if asked == "" {
		d.Set(cluster.Str("properties", "kubernetesVersion"), pp("orchestratorVersion")...)
		if old != nil {
			d.Set(old.Str("properties", "orchestratorVersion"), pp("orchestratorVersion")...)
		}
	}
	d.Set(full, pp("currentOrchestratorVersion")...)
	img := poolImage(d.Str("properties", "osSKU"), size.Arch)
	if old != nil && full == old.Str("properties", "currentOrchestratorVersion") && old.Str("properties", "nodeImageVersion") != "" {
		img = old.Str("properties", "nodeImageVersion")
	}
	d.Set(img, pp("nodeImageVersion")...)
	if old != nil {
		for _, k := range []string{"vmSize", "osType", "type", "osDiskSizeGB", "osDiskType", "maxPods", "scaleSetPriority", "vnetSubnetID", "podSubnetID"} {
			was, had := old.Lookup(pp(k)...)
			is, _ := d.Lookup(pp(k)...)
			if had && fmt.Sprint(was) != fmt.Sprint(is) && !strings.EqualFold(fmt.Sprint(was), fmt.Sprint(is)) {
				return rp.BadRequest("PropertyChangeNotAllowed", "Changing property 'properties.%s' is not allowed.", k).At("properties." + k)
			}
		}
	}
	return nil
}

func contains(list []string, s string) bool {
	for _, x := range list {
		if x == s {
			return true
		}
	}
	return false
}

var taintRule = regexp.MustCompile(`^([A-Za-z0-9./_-]+)(=[A-Za-z0-9._-]*)?:(NoSchedule|PreferNoSchedule|NoExecute)$`)

func checkTaints(taints []string) error {
	for _, t := range taints {
		if !taintRule.MatchString(t) {
			return rp.BadRequest("InvalidParameter", "The taint '%s' is not of the form key=value:effect with effect NoSchedule, PreferNoSchedule or NoExecute.", t).At("nodeTaints")
		}
	}
	return nil
}

// checkCIDRs checks the ranges of a cluster's network against each other.
func checkCIDRs(d rp.Doc) error {
	get := func(k string) (netip.Prefix, bool, error) {
		s := d.Str("properties", "networkProfile", k)
		if s == "" {
			return netip.Prefix{}, false, nil
		}
		pr, err := netip.ParsePrefix(s)
		if err != nil {
			return pr, false, rp.BadRequest("InvalidParameter", "The value of parameter networkProfile.%s is invalid: '%s' is not a CIDR such as 10.0.0.0/16.", k, s).At("networkProfile." + k)
		}
		return pr, true, nil
	}
	pod, hasPod, err := get("podCidr")
	if err != nil {
		return err
	}
	svc, hasSvc, err := get("serviceCidr")
	if err != nil {
		return err
	}
	if hasPod && hasSvc && pod.Overlaps(svc) {
		return rp.BadRequest("ServiceCidrOverlapExistingSubnetsCidr", "The service CIDR %s overlaps with the pod CIDR %s.", svc, pod).At("networkProfile.serviceCidr")
	}
	if s := d.Str("properties", "networkProfile", "dnsServiceIP"); s != "" && hasSvc {
		ip, err := netip.ParseAddr(s)
		if err != nil || !svc.Contains(ip) || ip == svc.Masked().Addr() {
			return rp.BadRequest("InvalidParameter", "The value of parameter networkProfile.dnsServiceIP is invalid: '%s' must be an address in the service CIDR %s other than its first.", s, svc).At("networkProfile.dnsServiceIP")
		}
	}
	return nil
}

func (p *Provider) preparePool(ctx context.Context, c *rp.Change) error {
	cluster, err := p.env.Store.Get(ctx, clusterOf(c.ID))
	if err != nil {
		return err
	}
	if cluster == nil {
		if c.Preflight {
			return nil
		}
		return rp.NotFound(clusterOf(c.ID))
	}
	if c.ID.Name() == intent.MachinesPool {
		return rp.BadRequest("OperationNotAllowed", "The agent pool '%s' belongs to node auto-provisioning; it comes and goes with the mode of the cluster's nodeProvisioningProfile.", intent.MachinesPool)
	}
	if cluster.State == "Deleting" {
		return rp.Conflict("OperationNotAllowed", "The cluster '%s' is being deleted.", clusterOf(c.ID).Name())
	}
	if equal(cluster.Doc.Str("properties", "powerState", "code"), "Stopped") {
		return rp.BadRequest("OperationNotAllowed", "The cluster '%s' is stopped; start it first (az aks start).", clusterOf(c.ID).Name())
	}
	var old rp.Doc
	if c.Old != nil {
		old = c.Old.Doc
	}
	if err := p.completePool(cluster.Doc, c.Doc, old, c.ID.Name()); err != nil {
		return err
	}
	if upgrades(old, c.Doc) {
		if err := p.checkBudgets(ctx, cluster, cluster.Doc); err != nil {
			return err
		}
	}
	pools, err := p.pools(ctx, clusterOf(c.ID), false)
	if err != nil {
		return err
	}
	v := &view{doc: cluster.Doc, old: cluster.Doc}
	me := c.Doc.Clone()
	me["name"] = c.ID.Name()
	v.pools = append(v.pools, me)
	system := 0
	for _, r := range append(pools, &rp.Record{ID: c.ID.String(), Doc: c.Doc}) {
		if strings.EqualFold(r.ID, c.ID.String()) && r.UID != "" {
			continue
		}
		if n, _ := r.Doc.Int("properties", "count"); equal(r.Doc.Str("properties", "mode"), "System") {
			system += n
		}
	}
	if system == 0 {
		return rp.BadRequest("OperationNotAllowed", "There has to be at least one system agent pool with at least one node; '%s' is the last one.", c.ID.Name()).At("properties.mode")
	}
	if v.autoscalerAllowed, err = p.autoscalerAllowed(ctx); err != nil {
		return err
	}
	if err := checkRules(v); err != nil {
		return err
	}
	all := []rp.Doc{me}
	for _, r := range pools {
		if !strings.EqualFold(r.ID, c.ID.String()) {
			all = append(all, r.Doc)
		}
	}
	return p.checkSubnets(ctx, c, cluster.Doc, all)
}

func (p *Provider) commitPool(ctx context.Context, c *rp.Change) error {
	cluster, err := p.cluster(ctx, clusterOf(c.ID))
	if err != nil {
		return err
	}
	c.Lock, c.Busy = lockOf(cluster.ParsedID()), busy
	verb := "Updating"
	switch {
	case c.Old == nil:
		verb = "Creating"
	case c.Old.Doc.Str("properties", "currentOrchestratorVersion") != c.Doc.Str("properties", "currentOrchestratorVersion"):
		verb = "Upgrading"
	default:
		was, _ := c.Old.Doc.Int("properties", "count")
		if is, _ := c.Doc.Int("properties", "count"); is != was {
			verb = "Scaling"
		}
	}
	c.Rec.State = verb
	c.Op = &rp.Operation{Kind: "PutPool", Verb: verb, Location: p.env.DefaultLocation, Data: rp.Doc{}}
	if verb != "Scaling" { // an upgrade, or what is left of one
		c.Op.Data[forcedKey] = forced(cluster.Doc, p.env.Now())
	}
	return nil
}

func (p *Provider) stepPutPool(ctx context.Context, op *rp.Operation) (rp.Step, error) {
	id := rp.MustParseID(op.Resource)
	cluster, err := p.env.Store.Get(ctx, clusterOf(id))
	if err != nil {
		return rp.Step{}, err
	}
	pool, err := p.env.Store.Get(ctx, id)
	if err != nil {
		return rp.Step{}, err
	}
	if cluster == nil || pool == nil {
		return rp.Step{}, rp.NotFound(id)
	}
	if op.Cancel {
		return rp.Step{}, rp.ErrCanceled
	}
	at, err := p.reconcilePool(ctx, op, cluster, pool)
	if err != nil {
		return rp.Step{}, err
	}
	if !at.done {
		return p.waitForPool(op, cluster, id.Name(), at)
	}
	if pool, err = p.env.Store.Get(ctx, id); err != nil || pool == nil {
		return rp.Step{}, err
	}
	pool.State = rp.Succeeded
	return rp.Step{Done: true, Cmps: []clientv3.Cmp{rp.Unchanged(pool)}, Ops: []clientv3.Op{rp.PutOp(pool)}}, nil
}

// waitForPool waits for the machinery to get on with a pool.
func (p *Provider) waitForPool(op *rp.Operation, cluster *rp.Record, pool string, at progress) (rp.Step, error) {
	return rp.Step{Watch: []string{intent.MachineStatusPrefix + cluster.UID + "/" + pool + "/"}, After: 2 * time.Second}, timedOut(p.env, at.since, "waiting for "+at.waiting)
}

func (p *Provider) poolFailed(ctx context.Context, op *rp.Operation, e *rp.Error) ([]clientv3.Op, error) {
	r, err := p.env.Store.Get(ctx, rp.MustParseID(op.Resource))
	if err != nil || r == nil {
		return nil, err
	}
	cluster, err := p.env.Store.Get(ctx, clusterOf(r.ParsedID()))
	if err != nil {
		return nil, err
	}
	if cluster != nil {
		s, err := p.look(ctx, op, cluster, r)
		if err != nil {
			return nil, err
		}
		nodes, err := s.settle()
		if err != nil {
			return nil, err
		}
		if op.Verb == "Scaling" { // the count is what there is
			r.Doc.Set(float64(nodes), "properties", "count")
		}
	}
	r.State = rp.Failed
	if e == rp.ErrCanceled {
		r.State = rp.Canceled
	}
	return []clientv3.Op{rp.PutOp(r)}, nil
}

func (p *Provider) deletePool(ctx context.Context, c *rp.Change) error {
	cluster, err := p.cluster(ctx, clusterOf(c.ID))
	if err != nil {
		return err
	}
	name := c.ID.Name()
	if name == intent.MachinesPool {
		return rp.BadRequest("OperationNotAllowed", "The agent pool '%s' belongs to node auto-provisioning; set the cluster's nodeProvisioningProfile.mode to Manual to remove it.", name)
	}
	pools, err := p.pools(ctx, clusterOf(c.ID), false)
	if err != nil {
		return err
	}
	system := 0
	for _, r := range pools {
		if n, _ := r.Doc.Int("properties", "count"); r.ParsedID().Name() != name && equal(r.Doc.Str("properties", "mode"), "System") {
			system += n
		}
	}
	if system == 0 {
		return rp.BadRequest("OperationNotAllowed", "There has to be at least one system agent pool; '%s' is the last one and cannot be deleted.", name)
	}
	c.Lock, c.Busy = lockOf(clusterOf(c.ID)), busy
	c.Op = &rp.Operation{Kind: "DeletePool", Verb: "Deleting", Location: cluster.Doc.Str("location"), Data: rp.Doc{}}
	if v := c.Query.Get("ignore-pod-disruption-budget"); v != "" {
		ignore, err := strconv.ParseBool(v)
		if err != nil {
			return rp.BadRequest("InvalidParameter", "The value of query parameter ignore-pod-disruption-budget is invalid: '%s' is neither true nor false.", v).At("ignore-pod-disruption-budget")
		}
		c.Op.Data["ignorePDBs"] = ignore
	}
	return nil
}

func (p *Provider) stepDeletePool(ctx context.Context, op *rp.Operation) (rp.Step, error) {
	id := rp.MustParseID(op.Resource)
	cluster, err := p.env.Store.Get(ctx, clusterOf(id))
	if err != nil || cluster == nil {
		return rp.Step{Done: err == nil}, err
	}
	pool, err := p.env.Store.Get(ctx, id)
	if err != nil || pool == nil {
		return rp.Step{Done: err == nil}, err
	}
	if op.Cancel {
		return rp.Step{}, rp.ErrCanceled
	}
	var at progress
	if equal(cluster.Doc.Str("properties", "powerState", "code"), "Stopped") {
		at, err = p.reconcilePool(ctx, op, cluster, pool)
	} else {
		var s *scaling
		if s, err = p.look(ctx, op, cluster, pool); err == nil {
			at, err = s.empty(op.Data.Bool("ignorePDBs"))
		}
	}
	if err != nil {
		return rp.Step{}, err
	}
	if !at.done {
		return p.waitForPool(op, cluster, id.Name(), at)
	}
	return rp.Step{Done: true, Ops: []clientv3.Op{rp.DeleteOp(id)}}, nil
}

// upgradeImage moves a pool to the latest node image.
func (p *Provider) upgradeImage(ctx context.Context, q *rp.Request) (*rp.Response, error) {
	cluster, err := p.cluster(ctx, clusterOf(q.ID))
	if err != nil {
		return nil, err
	}
	pool, err := p.env.Store.Get(ctx, q.ID)
	if err != nil {
		return nil, err
	}
	if pool == nil || pool.ParsedID().Name() == intent.MachinesPool {
		return nil, rp.NotFound(q.ID)
	}
	size, err := catalog.Lookup(cluster.Doc.Str("location"), pool.Doc.Str("properties", "vmSize"))
	if err != nil {
		return nil, err
	}
	was := pool.Doc.Clone()
	pool.Doc.Set(poolImage(pool.Doc.Str("properties", "osSKU"), size.Arch), "properties", "nodeImageVersion")
	if upgrades(was, pool.Doc) {
		if err := p.checkBudgets(ctx, cluster, cluster.Doc); err != nil {
			return nil, err
		}
	}
	pool.State, pool.ETag, pool.ChangedAt = "UpgradingNodeImageVersion", rp.NewGUID(), p.env.Now().UTC()
	c := &rp.Change{Env: p.env, Caller: q.Caller, ID: pool.ParsedID(), Type: q.Type, Rec: pool, Doc: pool.Doc, Lock: lockOf(cluster.ParsedID()), Busy: busy,
		Op: &rp.Operation{Kind: "PutPool", Verb: "UpgradingNodeImageVersion", Location: cluster.Doc.Str("location"),
			Data: rp.Doc{forcedKey: forced(cluster.Doc, p.env.Now())}}}
	if err := p.env.StartOperation(ctx, c); err != nil {
		return nil, err
	}
	d, err := p.env.Render(ctx, q.Type, pool, q.APIVersion)
	return &rp.Response{Status: http.StatusAccepted, Body: d, Op: c.Op, WithLocation: true}, err
}
