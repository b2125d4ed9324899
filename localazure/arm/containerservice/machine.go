// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package containerservice

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/containerservice/armcontainerservice/v8"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/nap-aks/nap/catalog"
	"github.com/nap-aks/nap/localazure/arm/rp"
	"github.com/nap-aks/nap/localazure/intent"
)

func (p *Provider) addMachines() {
	p.env.Add(&rp.Type{Name: machineType, Versions: apiVersions, Scope: rp.InGroup, Flat: true, ETagPath: []string{"properties", "eTag"}, PollMilliseconds: 1000,
		NameRule: regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`), NameHelp: "A machine's name has 1 to 63 lower-case letters, digits and dashes, and starts and ends with a letter or digit.",
		Prepare: p.prepareMachine, Commit: p.commitMachine, Delete: p.deleteMachine, Render: p.renderMachine, List: p.listMachines, Put: p.putMachine})
	p.env.Engine.Register("PutMachine", rp.Kind{Step: p.stepPutMachine, Failed: p.machineFailed})
	p.env.Engine.Register("DeleteMachines", rp.Kind{Step: p.stepDeleteMachines})
}

// machinesOf returns the ID of the collection of a cluster's provisioned machines.
func machinesOf(cluster rp.ID) rp.ID {
	c := cluster
	c.Types = append(append([]string(nil), cluster.Types[:1]...), "agentPools", "machines")
	c.Names = append(append([]string(nil), cluster.Names[:1]...), intent.MachinesPool)
	return c
}

// vmName returns the name of a machine's virtual machine, which is also its
// node's.
func vmName(r *rp.Record) string {
	id := r.ParsedID()
	return "aks-" + id.Names[1] + "-" + id.Name() + "-" + letters(r.UID, 8) + "-vm"
}

// batch is the header BatchPutMachine: machines created with one body.
type batch struct {
	BatchMachines []struct {
		MachineName string            `json:"machineName"`
		Zones       []string          `json:"zones"`
		Tags        map[string]string `json:"tags"`
	} `json:"batchMachines"`
}

// maxBatch is the maximum number of machines of a batch.
const maxBatch = 50

// putMachine creates one machine, or those named in the header BatchPutMachine.
func (p *Provider) putMachine(ctx context.Context, q *rp.Request) (*rp.Response, error) {
	put := func(id rp.ID, body rp.Doc) (*rp.PutResult, error) {
		return p.env.Put(ctx, rp.PutRequest{Caller: q.Caller, ID: id, APIVersion: q.APIVersion, Body: body, Header: q.Header, Patch: q.Method == http.MethodPatch})
	}
	header := q.Header.Get("BatchPutMachine")
	if header == "" {
		res, err := put(q.ID, q.Body)
		if err != nil {
			return nil, err
		}
		d, err := p.env.Render(ctx, q.Type, res.Record, q.APIVersion)
		return &rp.Response{Status: res.Status, Body: d, Op: res.Op}, err
	}
	var b batch
	if err := json.Unmarshal([]byte(header), &b); err != nil {
		return nil, rp.BadRequest("InvalidParameter", "The header BatchPutMachine is not valid JSON: %v", err)
	}
	if len(b.BatchMachines) == 0 || len(b.BatchMachines) > maxBatch {
		return nil, rp.BadRequest("InvalidParameter", "The header BatchPutMachine names %d machines; it may name 1 to %d.", len(b.BatchMachines), maxBatch)
	}
	var first *rp.PutResult
	var bad []rp.Error
	internal := false
	for _, m := range b.BatchMachines {
		id := q.ID.Parent().Child("machines", m.MachineName)
		body := q.Body.Clone()
		if len(m.Zones) > 0 {
			body.Set(rp.Anys(m.Zones), "zones")
		}
		tags := map[string]any{}
		for k, v := range m.Tags {
			tags[k] = v
		}
		body.Set(tags, "properties", "tags")
		h := q.Header
		q.Header = http.Header{"If-None-Match": {"*"}}
		res, err := put(id, body)
		q.Header = h
		if err != nil {
			e := rp.AsError(err)
			internal = internal || e.Status >= 500
			bad = append(bad, rp.Error{Code: e.Code, Message: e.Message, Target: m.MachineName})
			continue
		}
		if first == nil || strings.EqualFold(m.MachineName, q.ID.Name()) {
			first = res
		}
	}
	if len(bad) > 0 {
		e := &rp.Error{Status: http.StatusBadRequest, Code: "BatchMachineClientError", Message: fmt.Sprintf("%d of %d machines were not accepted; the others are being created.", len(bad), len(b.BatchMachines)), Details: bad}
		if internal {
			e.Status, e.Code = http.StatusInternalServerError, "BatchMachineInternalServerError"
			if text, err := json.Marshal(map[string]any{"details": bad}); err == nil {
				e.Message = string(text)
			}
		}
		return nil, e
	}
	d, err := p.env.Render(ctx, q.Type, first.Record, q.APIVersion)
	return &rp.Response{Status: first.Status, Body: d, Op: first.Op}, err
}

func (p *Provider) prepareMachine(ctx context.Context, c *rp.Change) error {
	d := c.Doc
	var model armcontainerservice.Machine
	if err := d.Into(&model); err != nil {
		return rp.BadRequest("InvalidParameter", "The request body does not have the shape of a machine: %v", err)
	}
	if c.ID.Names[1] != intent.MachinesPool {
		return rp.BadRequest("InvalidParameter", "Machines can be created in agent pools of mode Machines only; '%s' is none.", c.ID.Names[1]).At("agentPoolName")
	}
	if c.Preflight {
		return nil
	}
	cluster, err := p.cluster(ctx, clusterOf(c.ID))
	if err != nil {
		return err
	}
	if cluster.State == "Deleting" {
		return rp.Conflict("OperationNotAllowed", "The cluster '%s' is being deleted.", cluster.ParsedID().Name())
	}
	loc := cluster.Doc.Str("location")
	size, err := catalog.Lookup(loc, d.Str("properties", "hardware", "vmSize"))
	if err != nil {
		return rp.BadRequest("VMSizeNotSupported", "The VM size of %s is not supported in location %s.", d.Str("properties", "hardware", "vmSize"), loc).At("properties.hardware.vmSize")
	}
	d.Set(size.Name, "properties", "hardware", "vmSize")
	if err := complete(d, machineSettings); err != nil {
		return err
	}
	if n, ok := d.Int("properties", "operatingSystem", "osDiskSizeGB"); !ok || n == 0 {
		d.Set(128.0, "properties", "operatingSystem", "osDiskSizeGB")
	}
	if n, ok := d.Int("properties", "kubernetes", "maxPods"); !ok || n == 0 {
		n := 250.0
		if cluster.Doc.Str("properties", "networkProfile", "networkPluginMode") != "overlay" {
			n = 30
		}
		d.Set(n, "properties", "kubernetes", "maxPods")
	}
	zones := d.Strings("zones")
	if len(zones) > 1 {
		return rp.BadRequest("InvalidParameter", "A machine is in one zone at most; %s were given.", strings.Join(zones, ", ")).At("zones")
	}
	for _, z := range zones {
		if !slices.Contains(size.Zones, z) {
			return rp.BadRequest("AvailabilityZoneNotSupported", "The zone(s) '%s' for resource '%s' is not supported. The supported zones of %s in location '%s' are '%s'.", z, c.ID.Name(), size.Name, loc, strings.Join(size.Zones, ",")).At("zones")
		}
	}
	if equal(d.Str("properties", "priority"), "Spot") && !size.SpotCapable {
		return rp.BadRequest("VMSizeNotSupported", "The VM size %s is not available as Spot in %s.", size.Name, loc).At("properties.priority")
	}
	if err := checkTaints(append(d.Strings("properties", "kubernetes", "nodeTaints"), d.Strings("properties", "kubernetes", "nodeInitializationTaints")...)); err != nil {
		return err
	}
	current := cluster.Doc.Str("properties", "currentKubernetesVersion")
	asked := strings.TrimPrefix(d.Str("properties", "kubernetes", "orchestratorVersion"), "v")
	full := asked
	switch asked {
	case "", minor(current):
		full = current
	}
	if _, ok := parts(full); !ok || compareVersions(full, current) > 0 && minor(full) != minor(current) {
		return rp.BadRequest("NodePoolMcVersionIncompatible", "Machine version %s and control plane version %s are incompatible.", asked, current).At("properties.kubernetes.orchestratorVersion")
	}
	d.Set(full, "properties", "kubernetes", "orchestratorVersion")
	d.Set(full, "properties", "kubernetes", "currentOrchestratorVersion")
	d.Default(poolImage(d.Str("properties", "operatingSystem", "osSKU"), size.Arch), "properties", "nodeImageVersion")
	for _, k := range []string{"status", "resourceId", "eTag"} {
		d.Drop("properties", k)
	}
	d.Drop("properties", "kubernetes", "nodeName")
	if c.Old != nil {
		if c.Old.State == "Deleting" {
			return rp.Conflict("OperationNotAllowed", "The machine '%s' is being deleted.", c.ID.Name())
		}
		if path, was := changedProperty(d, c.Old.Doc, machineImmutable, false); path != "" {
			return rp.BadRequest("PropertyChangeNotAllowed", "Changing property '%s' of a machine is not allowed: it is %v. Delete the machine and create another.", path, was).At(path)
		}
	}
	return nil
}

func (p *Provider) commitMachine(_ context.Context, c *rp.Change) error {
	if c.Old != nil {
		// Only tags and the like have changed.
		c.Rec.State = c.Old.State
		return nil
	}
	c.Rec.State = "Creating"
	c.Op = &rp.Operation{Kind: "PutMachine", Verb: "Creating", Location: p.env.DefaultLocation}
	return nil
}

// machineIntent returns a machine's intent.
func (p *Provider) machineIntent(cluster, r *rp.Record) intent.MachineIntent {
	d, id := r.Doc, r.ParsedID()
	maxPods, _ := d.Int("properties", "kubernetes", "maxPods")
	disk, _ := d.Int("properties", "operatingSystem", "osDiskSizeGB")
	ng := cluster.Doc.Str("properties", "nodeResourceGroup")
	m := intent.MachineIntent{
		ClusterUID: cluster.UID, Pool: id.Names[1], Name: id.Name(), NodeName: vmName(r),
		ProviderID: "azure:///subscriptions/" + id.Subscription + "/resourceGroups/" + strings.ToLower(ng) + "/providers/Microsoft.Compute/virtualMachines/" + vmName(r),
		VMSize:     d.Str("properties", "hardware", "vmSize"), Location: cluster.Doc.Str("location"), Spot: equal(d.Str("properties", "priority"), "Spot"), Mode: d.Str("properties", "mode"),
		Labels: map[string]string{}, Taints: append(d.Strings("properties", "kubernetes", "nodeTaints"), d.Strings("properties", "kubernetes", "nodeInitializationTaints")...),
		MaxPods: maxPods, OSDiskSizeGB: disk, OSSKU: d.Str("properties", "operatingSystem", "osSKU"), NodeImageVersion: d.Str("properties", "nodeImageVersion"),
		KubernetesVersion: d.Str("properties", "kubernetes", "currentOrchestratorVersion"), NodeResourceGroup: ng, CreatedAt: r.CreatedAt,
	}
	for k, v := range d.Map("properties", "kubernetes", "nodeLabels") {
		if s, ok := v.(string); ok {
			m.Labels[k] = s
		}
	}
	if z := d.Strings("zones"); len(z) > 0 {
		m.Zone = z[0]
	}
	return m
}

func (p *Provider) stepPutMachine(ctx context.Context, op *rp.Operation) (rp.Step, error) {
	id := rp.MustParseID(op.Resource)
	r, err := p.env.Store.Get(ctx, id)
	if err != nil {
		return rp.Step{}, err
	}
	if r == nil || r.State == "Deleting" {
		return rp.Step{}, rp.Conflict("OperationPreempted", "The machine '%s' was deleted while it was being created.", id.Name())
	}
	cluster, err := p.env.Store.Get(ctx, clusterOf(id))
	if err != nil {
		return rp.Step{}, err
	}
	if cluster == nil {
		return rp.Step{}, rp.NotFound(clusterOf(id))
	}
	kv := p.env.Store.KV
	key := intent.MachineIntentKey(cluster.UID, id.Names[1], id.Name())
	_, there, err := intent.Get[intent.MachineIntent](ctx, kv, key)
	if err != nil {
		return rp.Step{}, err
	}
	watch := []string{intent.MachineStatusKey(cluster.UID, id.Names[1], id.Name()), rp.RecordKey(id)}
	st, reported, err := intent.Get[intent.MachineStatus](ctx, kv, watch[0])
	if err != nil {
		return rp.Step{}, err
	}
	if !there {
		if reported {
			// An earlier machine of this name is still being deleted.
			return rp.Step{Watch: watch, After: 2 * time.Second}, timedOut(p.env, op.Start, "waiting for an earlier machine of this name to be deleted")
		}
		if err := p.machineSubnet(ctx, cluster, r); err != nil {
			return rp.Step{}, err
		}
		m := p.machineIntent(cluster, r)
		if err := p.quota.Reserve(ctx, key, m.Location, m.VMSize, m.Spot); err != nil {
			return rp.Step{}, err
		}
		resp, err := kv.Txn(ctx).If(rp.Unchanged(r), rp.Exists(cluster.ParsedID()), rp.Absent(key)).Then(rp.JSONOp(key, m)).Commit()
		if err != nil || !resp.Succeeded {
			p.quota.Release(key)
			if err != nil {
				return rp.Step{}, fmt.Errorf("creating machine %s: %w", id.Name(), err)
			}
			return rp.Step{After: 5 * time.Millisecond}, nil
		}
		return rp.Step{Watch: watch, After: 10 * time.Second}, nil
	}
	switch {
	case reported && st.Phase == intent.MachineFailed:
		return rp.Step{}, rp.Errorf(409, st.Code, "%s", st.Message)
	case reported && st.Phase == intent.MachineRunning:
		r.State = rp.Succeeded
		return rp.Step{Done: true, Cmps: []clientv3.Cmp{rp.Unchanged(r)}, Ops: []clientv3.Op{rp.PutOp(r)}}, nil
	}
	return rp.Step{Watch: watch, After: 10 * time.Second}, timedOut(p.env, op.Start, "waiting for the machine to boot")
}

// machineFailed stores why a machine failed, and withdraws its intent.
func (p *Provider) machineFailed(ctx context.Context, op *rp.Operation, e *rp.Error) ([]clientv3.Op, error) {
	id := rp.MustParseID(op.Resource)
	r, err := p.env.Store.Get(ctx, id)
	if err != nil || r == nil || r.State == "Deleting" {
		return nil, err
	}
	cluster, err := p.env.Store.Get(ctx, clusterOf(id))
	if err != nil || cluster == nil {
		return nil, err
	}
	r.State = rp.Failed
	r.Internal = rp.Doc{"error": map[string]any{"code": e.Code, "message": e.Message}}
	return []clientv3.Op{rp.PutOp(r), clientv3.OpDelete(intent.MachineIntentKey(cluster.UID, id.Names[1], id.Name()))}, nil
}

func (p *Provider) renderMachine(ctx context.Context, r *rp.Record, d rp.Doc, _ string) error {
	ng, _ := r.Internal["nodeResourceGroup"].(string)
	if ng == "" {
		cluster, err := p.env.Store.Get(ctx, clusterOf(r.ParsedID()))
		if err != nil || cluster == nil {
			return err
		}
		ng = cluster.Doc.Str("properties", "nodeResourceGroup")
	}
	p.completeMachine(r, d, ng)
	return nil
}

func (p *Provider) completeMachine(r *rp.Record, d rp.Doc, nodeGroup string) {
	d.Set("/subscriptions/"+p.env.SubscriptionID+"/resourceGroups/"+nodeGroup+"/providers/Microsoft.Compute/virtualMachines/"+vmName(r), "properties", "resourceId")
	d.Set(vmName(r), "properties", "kubernetes", "nodeName")
	st := map[string]any{"creationTimestamp": r.CreatedAt.Format(time.RFC3339Nano), "driftAction": "Synced"}
	switch r.State {
	case rp.Succeeded:
		st["vmState"] = "Running"
	case "Deleting":
		st["vmState"] = "Deleted"
	}
	if e := r.Internal.Map("error"); e != nil {
		st["provisioningError"] = map[string]any{"code": e.Str("code"), "message": e.Str("message"), "details": []any{map[string]any(e)}}
	}
	d.Set(st, "properties", "status")
}

// listMachines lists the machines of the pool of provisioned machines, or the
// instances of another pool's scale set.
func (p *Provider) listMachines(ctx context.Context, q *rp.Request) (*rp.Response, error) {
	cluster, pool, err := p.clusterAndPool(ctx, q.ID)
	if err != nil {
		return nil, err
	}
	if pool.ParsedID().Name() != intent.MachinesPool {
		return p.listInstances(ctx, q, cluster, pool)
	}
	rs, err := p.env.Store.ViewList(ctx, q.ID)
	if err != nil {
		return nil, err
	}
	page, next, err := rp.Page(q, rs)
	if err != nil {
		return nil, err
	}
	ng := cluster.Doc.Str("properties", "nodeResourceGroup")
	t := *q.Type
	t.Render = func(_ context.Context, r *rp.Record, d rp.Doc, _ string) error {
		p.completeMachine(r, d, ng)
		return nil
	}
	ds, err := p.env.RenderAll(ctx, &t, page, q.APIVersion)
	return rp.ListResponse(ds, next), err
}

func (p *Provider) listInstances(ctx context.Context, q *rp.Request, cluster, pool *rp.Record) (*rp.Response, error) {
	name := pool.ParsedID().Name()
	ms, _, err := intent.List[intent.MachineIntent](ctx, p.env.Store.KV, intent.MachineIntentPrefix+cluster.UID+"/"+name+"/")
	if err != nil {
		return nil, err
	}
	sts, _, err := intent.List[intent.MachineStatus](ctx, p.env.Store.KV, intent.MachineStatusPrefix+cluster.UID+"/"+name+"/")
	if err != nil {
		return nil, err
	}
	phase := map[string]intent.MachinePhase{}
	for _, s := range sts {
		phase[s.Name] = s.Phase
	}
	page, next, err := rp.Page(q, ms)
	if err != nil {
		return nil, err
	}
	ds := []rp.Doc{}
	for _, m := range page {
		state := "Creating"
		switch phase[m.Name] {
		case intent.MachineRunning:
			state = rp.Succeeded
		case intent.MachineFailed:
			state = rp.Failed
		}
		d := rp.Doc{"id": pool.ID + "/machines/" + m.Name, "name": m.Name, "type": machineType, "properties": map[string]any{
			"provisioningState": state, "resourceId": strings.TrimPrefix(m.ProviderID, "azure://"), "mode": m.Mode, "nodeImageVersion": m.NodeImageVersion,
			"hardware":        map[string]any{"vmSize": m.VMSize},
			"operatingSystem": map[string]any{"osType": "Linux", "osSKU": m.OSSKU, "osDiskSizeGB": m.OSDiskSizeGB},
			"kubernetes":      map[string]any{"orchestratorVersion": m.KubernetesVersion, "currentOrchestratorVersion": m.KubernetesVersion, "maxPods": m.MaxPods, "nodeName": m.NodeName},
			"network":         map[string]any{"ipAddresses": []any{}},
			"status":          map[string]any{"creationTimestamp": m.CreatedAt.Format(time.RFC3339Nano)},
		}}
		if m.Zone != "" {
			d["zones"] = []string{m.Zone}
		}
		ds = append(ds, d)
	}
	return rp.ListResponse(ds, next), nil
}

func (p *Provider) deleteMachine(ctx context.Context, c *rp.Change) error {
	cluster, err := p.cluster(ctx, clusterOf(c.ID))
	if err != nil {
		return err
	}
	c.Ops = append(c.Ops, clientv3.OpDelete(intent.MachineIntentKey(cluster.UID, c.ID.Names[1], c.ID.Name())))
	c.Op = &rp.Operation{Kind: "DeleteMachines", Verb: "Deleting", Resource: c.ID.Parent().String(), Location: cluster.Doc.Str("location"), Data: rp.Doc{"machines": []any{c.ID.Name()}}}
	return nil
}

func (p *Provider) deleteMachines(ctx context.Context, q *rp.Request) (*rp.Response, error) {
	cluster, pool, err := p.clusterAndPool(ctx, q.ID)
	if err != nil {
		return nil, err
	}
	names := q.Body.Strings("machineNames")
	if len(names) == 0 || len(names) > 100 {
		return nil, rp.BadRequest("InvalidParameter", "machineNames has to name 1 to 100 machines.").At("machineNames")
	}
	if pool.ParsedID().Name() != intent.MachinesPool {
		return p.deleteInstances(ctx, q, cluster, pool, names)
	}
	var found []any
	for _, n := range names {
		r, err := p.env.Store.Get(ctx, pool.ParsedID().Child("machines", n))
		if err != nil {
			return nil, err
		}
		if r != nil {
			found = append(found, r.ParsedID().Name())
		}
	}
	if len(found) == 0 {
		return nil, rp.BadRequest("InvalidParameter", "Cannot find any valid machines to delete. Please check your input machine names. The valid machines to delete in agent pool '%s' are those it lists.", pool.ParsedID().Name()).At("machineNames")
	}
	c := &rp.Change{Env: p.env, Caller: q.Caller, ID: pool.ParsedID(), Type: q.Type, Doc: pool.Doc,
		Op: &rp.Operation{Kind: "DeleteMachines", Verb: "Deleting", Location: cluster.Doc.Str("location"), Data: rp.Doc{"machines": found}}}
	if err := p.env.StartOperation(ctx, c); err != nil {
		return nil, err
	}
	return &rp.Response{Status: http.StatusAccepted, Op: c.Op, WithLocation: true}, nil
}

// deleteInstances removes named instances from a scale set.
func (p *Provider) deleteInstances(ctx context.Context, q *rp.Request, cluster, pool *rp.Record, names []string) (*rp.Response, error) {
	var ops []clientv3.Op
	for _, n := range names {
		key := intent.MachineIntentKey(cluster.UID, pool.ParsedID().Name(), strings.ToLower(n))
		m, ok, err := intent.Get[intent.MachineIntent](ctx, p.env.Store.KV, key)
		if err != nil {
			return nil, err
		}
		if ok { // scaling in removes draining nodes first
			s := scaling{p: p, pool: pool}
			m.Drain = s.newDrain(false)
			ops = append(ops, rp.JSONOp(key, m))
		}
	}
	if len(ops) == 0 {
		return nil, rp.BadRequest("InvalidParameter", "Cannot find any valid machines to delete. Please check your input machine names.").At("machineNames")
	}
	count, _ := pool.Doc.Int("properties", "count")
	pool.Doc.Set(float64(max(0, count-len(ops))), "properties", "count")
	pool.State, pool.ETag = "Scaling", rp.NewGUID()
	c := p.action(q, cluster, pool, &rp.Operation{Kind: "PutPool", Verb: "Scaling", Location: cluster.Doc.Str("location")})
	c.Ops = ops
	if err := p.env.StartOperation(ctx, c); err != nil {
		return nil, err
	}
	return &rp.Response{Status: http.StatusAccepted, Op: c.Op, WithLocation: true}, nil
}

func (p *Provider) stepDeleteMachines(ctx context.Context, op *rp.Operation) (rp.Step, error) {
	pool := rp.MustParseID(op.Resource)
	cluster, err := p.env.Store.Get(ctx, clusterOf(pool))
	if err != nil || cluster == nil {
		return rp.Step{Done: err == nil}, err
	}
	kv := p.env.Store.KV
	var watch []string
	left := 0
	for _, n := range op.Data.Strings("machines") {
		id := pool.Child("machines", n)
		key := intent.MachineIntentKey(cluster.UID, pool.Name(), n)
		r, err := p.env.Store.Get(ctx, id)
		if err != nil {
			return rp.Step{}, err
		}
		if r == nil {
			continue
		}
		left++
		watch = append(watch, intent.MachineStatusKey(cluster.UID, pool.Name(), n))
		if r.State != "Deleting" {
			r.State = "Deleting"
			if _, err := kv.Txn(ctx).If(rp.Unchanged(r)).Then(rp.PutOp(r), clientv3.OpDelete(key)).Commit(); err != nil {
				return rp.Step{}, fmt.Errorf("deleting machine %s: %w", n, err)
			}
			continue
		}
		// The intent may have been written while the record changed.
		resp, err := kv.Txn(ctx).If(rp.Absent(key), rp.Absent(intent.MachineStatusKey(cluster.UID, pool.Name(), n)), rp.Unchanged(r)).Then(rp.DeleteOp(id)).Else(clientv3.OpDelete(key)).Commit()
		if err != nil {
			return rp.Step{}, fmt.Errorf("deleting machine %s: %w", n, err)
		}
		if resp.Succeeded {
			left--
		}
	}
	if left == 0 {
		return rp.Step{Done: true}, nil
	}
	return rp.Step{Watch: watch, After: 500 * time.Millisecond}, timedOut(p.env, op.Start, fmt.Sprintf("waiting for %d machines to be deleted", left))
}
