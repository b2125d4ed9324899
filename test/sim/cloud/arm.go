// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package cloud

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/to"
	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/compute/armcompute/v8"
	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/containerservice/armcontainerservice/v8"

	"github.com/nap-aks/nap/azure"
	"github.com/nap-aks/nap/catalog"
	"github.com/nap-aks/nap/localazure/intent"
)

// Endpoint is the address of the simulated Azure Resource Manager.
const Endpoint = "https://management.sim"

// errLost is what a client sees of a broken connection.
var errLost = errors.New("connection reset by peer")

// Config returns the configuration of a provider whose requests go through the
// transport.
func (c *Cloud) Config(transport http.RoundTripper) azure.Config {
	return azure.Config{
		ARMEndpoint: Endpoint, TenantID: Tenant, ClientID: "33333333-3333-3333-3333-333333333333", ClientSecret: "secret",
		ClusterResourceID: ClusterID, HTTPClient: &http.Client{Transport: transport, Timeout: 2 * time.Minute}, VMMemoryOverheadPercent: -1,
	}
}

// Transport returns the transport by which the Azure SDK reaches the cloud.
func (c *Cloud) Transport() http.RoundTripper { return roundTripper(c.roundTrip) }

type roundTripper func(*http.Request) (*http.Response, error)

// RoundTrip implements http.RoundTripper.
func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// reply is the answer to a request.
type reply struct {
	status int
	header http.Header
	body   any
}

func refuse(status int, code, format string, args ...any) reply {
	return reply{status: status, body: map[string]any{"error": map[string]any{"code": code, "message": fmt.Sprintf(format, args...)}}}
}

func (c *Cloud) roundTrip(r *http.Request) (*http.Response, error) {
	ctx := r.Context()
	var body []byte
	if r.Body != nil {
		var err error
		if body, err = io.ReadAll(r.Body); err != nil {
			return nil, err
		}
		_ = r.Body.Close()
	}
	call := callOf(r)
	wait := func(d time.Duration) error {
		if d <= 0 {
			return ctx.Err()
		}
		t := time.NewTimer(d)
		defer t.Stop()
		select {
		case <-t.C:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	c.mu.Lock()
	latency := c.options.Latency.draw(c.options.Rand)
	c.mu.Unlock()
	var f Fault
	if c.options.Intercept != nil {
		f = c.options.Intercept(ctx, &call)
	}
	if f.Hang {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	if err := wait(f.Before + latency/2); err != nil {
		return nil, err
	}
	var a reply
	if f.Status != 0 {
		a = refuse(f.Status, f.Code, "%s", f.Message)
		if f.RetryAfter > 0 {
			a.header = http.Header{"Retry-After": {strconv.Itoa(int(f.RetryAfter.Seconds()))}}
		}
	} else {
		a = c.handle(r, call, body)
	}
	if err := wait(f.After + latency/2); err != nil {
		return nil, err
	}
	if f.Lose {
		return nil, errLost
	}
	var text []byte
	if a.body != nil {
		var err error
		if text, err = json.Marshal(a.body); err != nil {
			return nil, err
		}
	}
	resp := &http.Response{
		StatusCode: a.status, Status: strconv.Itoa(a.status) + " " + http.StatusText(a.status), Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: http.Header{"Content-Type": {"application/json"}}, Request: r, ContentLength: int64(len(text)), Body: io.NopCloser(bytes.NewReader(text)),
	}
	for k, v := range a.header {
		resp.Header[k] = v
	}
	return resp, nil
}

var poolPath = strings.ToLower(ClusterID) + "/agentpools/" + azure.DefaultMachinesPool

// callOf says what a request asks for.
func callOf(r *http.Request) Call {
	call := Call{Method: r.Method}
	path := strings.ToLower(r.URL.Path)
	switch {
	case strings.HasSuffix(path, "/.well-known/openid-configuration"), strings.HasSuffix(path, "/oauth2/v2.0/token"):
		call.Operation = "token"
	case path == strings.ToLower(ClusterID):
		call.Operation = "cluster"
	case strings.HasSuffix(path, "/providers/microsoft.compute/skus"):
		call.Operation = "skus"
	case strings.HasSuffix(path, "/usages"):
		call.Operation = "usages"
	case strings.HasSuffix(path, "/nodeimageversions"):
		call.Operation = "images"
	case path == poolPath+"/machines":
		call.Operation = "machines"
	case strings.HasPrefix(path, poolPath+"/machines/"):
		call.Operation, call.Machine = "machine", r.URL.Path[strings.LastIndex(r.URL.Path, "/")+1:]
	case path == poolPath+"/deletemachines":
		call.Operation = "delete"
	case strings.Contains(path, "/operations/"):
		call.Operation, call.Machine = "operation", r.URL.Path[strings.LastIndex(r.URL.Path, "/")+1:]
	}
	return call
}

func (c *Cloud) handle(r *http.Request, call Call, body []byte) reply {
	if call.Operation == "token" {
		return c.token(r)
	}
	if !strings.HasPrefix(r.Header.Get("Authorization"), "Bearer ") {
		return refuse(http.StatusUnauthorized, "AuthenticationFailed", "Authentication failed. The 'Authorization' header is missing.")
	}
	if r.URL.Query().Get("api-version") == "" {
		return refuse(http.StatusBadRequest, "MissingApiVersionParameter", "The api-version query parameter (?api-version=) is required for all requests.")
	}
	switch call.Operation {
	case "cluster":
		return reply{status: 200, body: map[string]any{"id": ClusterID, "name": "sim", "location": c.options.Location, "properties": map[string]any{
			"nodeResourceGroup": NodeGroup, "networkProfile": map[string]any{"networkPlugin": "azure", "networkPluginMode": "overlay"},
			"kubernetesVersion": c.options.Kubernetes, "currentKubernetesVersion": c.options.Kubernetes,
		}}}
	case "skus":
		return reply{status: 200, body: armcompute.ResourceSKUsResult{Value: catalog.SKUs(c.options.Location)}}
	case "usages":
		return c.usages()
	case "images":
		return images()
	case "machines":
		return c.listMachines()
	case "machine":
		switch r.Method {
		case http.MethodGet:
			return c.getMachine(call.Machine)
		case http.MethodPut:
			return c.putMachine(r, call.Machine, body)
		}
	case "delete":
		return c.deleteMachines(body)
	case "operation":
		return c.operation(call.Machine)
	}
	return refuse(http.StatusNotFound, "ResourceNotFound", "%s %s was not found.", r.Method, r.URL.Path)
}

func (c *Cloud) token(r *http.Request) reply {
	base := Endpoint + "/" + Tenant
	if strings.HasSuffix(r.URL.Path, "/openid-configuration") {
		return reply{status: 200, body: map[string]string{"issuer": base + "/v2.0", "authorization_endpoint": base + "/oauth2/v2.0/authorize", "token_endpoint": base + "/oauth2/v2.0/token"}}
	}
	return reply{status: 200, body: map[string]any{"token_type": "Bearer", "expires_in": 86399, "access_token": "token"}}
}

func (c *Cloud) usages() reply {
	c.mu.Lock()
	defer c.mu.Unlock()
	var list armcompute.ListUsagesResult
	families := make([]string, 0, len(c.quotas))
	for f := range c.quotas {
		families = append(families, f)
	}
	slices.Sort(families)
	for _, f := range families {
		list.Value = append(list.Value, &armcompute.Usage{Name: &armcompute.UsageName{Value: to.Ptr(f)}, CurrentValue: to.Ptr(int32(c.used(f))), Limit: to.Ptr(int64(c.quotas[f])), Unit: to.Ptr("Count")})
	}
	return reply{status: 200, body: list}
}

func images() reply {
	var list armcontainerservice.NodeImageVersionsListResult
	for _, sku := range []string{"2404gen2containerd", "2404containerd", "2404gen2arm64containerd", "2204gen2containerd", "2204containerd", "2204gen2arm64containerd"} {
		list.Value = append(list.Value, &armcontainerservice.NodeImageVersion{OS: to.Ptr("AKSUbuntu"), SKU: to.Ptr(sku), Version: to.Ptr("202611.2.0")})
	}
	return reply{status: 200, body: list}
}

// show returns the machine as ARM answers it.
func (m *Machine) show() *armcontainerservice.Machine {
	out := m.body
	p := *m.body.Properties
	out.ID, out.Name = to.Ptr(ClusterID+"/agentPools/"+azure.DefaultMachinesPool+"/machines/"+m.Name), to.Ptr(m.Name)
	p.ETag = to.Ptr(strconv.Itoa(m.etag))
	p.ProvisioningState = to.Ptr(m.state)
	p.Status = &armcontainerservice.MachineStatus{CreationTimestamp: to.Ptr(m.Created)}
	if m.state == "Failed" {
		p.Status.ProvisioningError = &armcontainerservice.ErrorDetail{Code: to.Ptr("VMCreateFailed"), Message: to.Ptr("The virtual machine could not be created."), Details: []*armcontainerservice.ErrorDetail{{Code: to.Ptr(m.code), Message: to.Ptr(m.text)}}}
	} else if !m.Running.IsZero() {
		p.ResourceID = to.Ptr(m.resourceID())
	}
	if p.Priority != nil && *p.Priority == armcontainerservice.ScaleSetPriorityRegular {
		p.Priority = nil // as AKS answers
	}
	out.Properties = &p
	return &out
}

func (m *Machine) resourceID() string {
	return "/subscriptions/" + Subscription + "/resourceGroups/" + NodeGroup + "/providers/Microsoft.Compute/virtualMachines/" + m.NodeName
}

func (c *Cloud) listMachines() reply {
	c.mu.Lock()
	defer c.mu.Unlock()
	list := armcontainerservice.MachineListResult{Value: []*armcontainerservice.Machine{}}
	names := make([]string, 0, len(c.machines))
	for n := range c.machines {
		names = append(names, n)
	}
	slices.Sort(names)
	for _, n := range names {
		list.Value = append(list.Value, c.machines[n].show())
	}
	return reply{status: 200, body: list}
}

func (c *Cloud) getMachine(name string) reply {
	c.mu.Lock()
	defer c.mu.Unlock()
	if m := c.machines[name]; m != nil {
		return reply{status: 200, body: m.show()}
	}
	return refuse(http.StatusNotFound, "NotFound", "Machine %s was not found in agent pool %s.", name, azure.DefaultMachinesPool)
}

func (c *Cloud) putMachine(r *http.Request, name string, body []byte) reply {
	var in armcontainerservice.Machine
	if err := json.Unmarshal(body, &in); err != nil || in.Properties == nil || in.Properties.Hardware == nil || in.Properties.Hardware.VMSize == nil {
		return refuse(http.StatusBadRequest, "InvalidRequestContent", "The request content is not a machine with a VM size.")
	}
	c.mu.Lock()
	if old := c.machines[name]; old != nil {
		defer c.mu.Unlock()
		if want := r.Header.Get("If-Match"); want != "" && want != strconv.Itoa(old.etag) {
			return refuse(http.StatusPreconditionFailed, "PreconditionFailed", "The ETag of machine %s is %d.", name, old.etag)
		}
		in.Zones = old.body.Zones
		old.body = in
		old.etag++
		return reply{status: 200, body: old.show(), header: operationHeader(name)}
	}
	m, refused := c.newMachine(name, &in)
	if refused.status != 0 {
		c.mu.Unlock()
		return refused
	}
	var l Launch
	if c.launch != nil {
		l = c.launch(m)
	}
	m.Broken = l.NeverRegister || l.NeverReady
	c.machines[name] = m
	create, boot := c.options.Create.draw(c.options.Rand), c.options.Boot.draw(c.options.Rand)
	answer := reply{status: http.StatusCreated, body: m.show(), header: operationHeader(name)}
	c.mu.Unlock()
	sleepThen(create, func() { c.finish(m, l, boot) })
	return answer
}

func operationHeader(name string) http.Header {
	return http.Header{"Azure-Asyncoperation": {Endpoint + "/subscriptions/" + Subscription + "/providers/Microsoft.ContainerService/locations/eastus/operations/" + name + "?api-version=2025-10-01"}}
}

// newMachine returns the machine of a request, or the answer that refuses it. The
// caller holds the lock.
func (c *Cloud) newMachine(name string, in *armcontainerservice.Machine) (*Machine, reply) {
	p := in.Properties
	size := c.sizes[strings.ToLower(*p.Hardware.VMSize)]
	if size == nil {
		return nil, refuse(http.StatusBadRequest, "InvalidParameter", "The VM size %s is not available in location %s.", *p.Hardware.VMSize, c.options.Location)
	}
	m := &Machine{
		Name: name, Size: size.Name, NodeName: "aks-" + azure.DefaultMachinesPool + "-" + name + "-00000000-vm",
		Created: time.Now(), state: "Creating", etag: 1, body: *in, vcpus: size.VCPUs, CapacityType: "on-demand",
	}
	m.ProviderID = azure.ProviderID(m.resourceID())
	if len(in.Zones) > 0 && in.Zones[0] != nil {
		m.Zone = *in.Zones[0]
	}
	spot := p.Priority != nil && *p.Priority == armcontainerservice.ScaleSetPrioritySpot
	if spot {
		m.CapacityType = "spot"
	}
	m.USDPerHour = c.price(size, spot)
	for k, v := range p.Tags {
		switch {
		case v == nil:
		case strings.HasSuffix(k, "nodepool"):
			m.NodePool = *v
		case strings.HasSuffix(k, "nodeclaim"):
			m.Claim = *v
		}
	}
	for _, f := range []string{strings.ToLower(size.Family), "cores"} {
		if limit, ok := c.quotas[f]; ok && c.used(f)+m.vcpus > limit {
			return nil, refuse(http.StatusConflict, "QuotaExceeded", "Operation could not be completed as it results in exceeding approved %s Cores quota. Additional details - Current Limit: %d, Current Usage: %d, Additional Required: %d", size.Family, limit, c.used(f), m.vcpus)
		}
	}
	m.spec = intent.MachineIntent{
		Pool: intent.MachinesPool, Name: name, NodeName: m.NodeName, ProviderID: m.ProviderID, VMSize: size.Name, Location: c.options.Location,
		Zone: m.Zone, Spot: spot, Labels: map[string]string{}, KubernetesVersion: c.options.Kubernetes, NodeResourceGroup: NodeGroup,
	}
	if k := p.Kubernetes; k != nil {
		for key, v := range k.NodeLabels {
			m.spec.Labels[key] = *v
		}
		for _, list := range [][]*string{k.NodeTaints, k.NodeInitializationTaints} {
			for _, t := range list {
				m.spec.Taints = append(m.spec.Taints, *t)
			}
		}
		if k.MaxPods != nil {
			m.spec.MaxPods = int(*k.MaxPods)
		}
	}
	if o := p.OperatingSystem; o != nil {
		if o.OSDiskSizeGB != nil {
			m.spec.OSDiskSizeGB = int(*o.OSDiskSizeGB)
		}
		if o.OSSKU != nil {
			m.spec.OSSKU = string(*o.OSSKU)
		}
	}
	if p.NodeImageVersion != nil {
		m.spec.NodeImageVersion = *p.NodeImageVersion
	}
	return m, reply{}
}

// finish is the end of a machine's creation.
func (c *Cloud) finish(m *Machine, l Launch, boot time.Duration) {
	if l.Code != "" {
		c.mu.Lock()
		m.state, m.code, m.text = "Failed", l.Code, l.Message
		m.Failed = l.Late == 0
		c.mu.Unlock()
		if l.Late == 0 {
			c.tell(Failed, m)
			return
		}
		time.Sleep(l.Late)
	}
	c.mu.Lock()
	if m.Deleting || !m.Deleted.IsZero() {
		c.mu.Unlock()
		return
	}
	c.settle()
	m.Running, m.state = time.Now(), "Succeeded"
	c.settle()
	c.mu.Unlock()
	c.tell(Bought, m)
	if l.NeverRegister {
		return
	}
	time.Sleep(boot)
	c.mu.Lock()
	alive := m.Deleted.IsZero()
	c.mu.Unlock()
	if alive {
		c.tell(Booted, m)
	}
}

func (c *Cloud) deleteMachines(body []byte) reply {
	var p armcontainerservice.AgentPoolDeleteMachinesParameter
	if err := json.Unmarshal(body, &p); err != nil || len(p.MachineNames) == 0 {
		return refuse(http.StatusBadRequest, "InvalidRequestContent", "The request names no machine.")
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, n := range p.MachineNames {
		if c.machines[*n] == nil {
			return refuse(http.StatusBadRequest, "InvalidParameter", "Cannot find any valid machines for deletion: %s.", *n)
		}
	}
	for _, n := range p.MachineNames {
		m := c.machines[*n]
		if m.Deleting {
			continue
		}
		m.Deleting, m.state = true, "Deleting"
		sleepThen(c.options.Create.draw(c.options.Rand), func() { c.Remove(m.Name) })
	}
	return reply{status: http.StatusAccepted, header: http.Header{"Location": {Endpoint + "/subscriptions/" + Subscription + "/providers/Microsoft.ContainerService/locations/eastus/operations/delete?api-version=2025-10-01"}}}
}

// operation answers the poll of an asynchronous operation.
func (c *Cloud) operation(machine string) reply {
	c.mu.Lock()
	defer c.mu.Unlock()
	status := "Succeeded"
	if m := c.machines[machine]; m != nil {
		switch m.state {
		case "Creating":
			status = "InProgress"
		case "Failed":
			return reply{status: 200, body: map[string]any{"status": "Failed", "error": map[string]string{"code": m.code, "message": m.text}}}
		}
	}
	return reply{status: 200, body: map[string]string{"status": status}}
}
