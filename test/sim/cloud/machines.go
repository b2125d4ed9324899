// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package cloud

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/to"
	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/containerservice/armcontainerservice/v8"

	"github.com/nap-aks/nap/azure"
	"github.com/nap-aks/nap/localazure/intent"
)

// Provisioning states of machines.
const (
	stateCreating  = "Creating"
	stateSucceeded = "Succeeded"
	stateFailed    = "Failed"
	stateDeleting  = "Deleting"
)

const (
	// defaultDiskGB and defaultMaxPods are what AKS gives a machine on an overlay
	// network that does not ask.
	defaultDiskGB, defaultMaxPods = 128, 250
	// maxDelete and maxBatch are how many machines one request may delete or create.
	maxDelete, maxBatch = 100, 50

	nodePoolTag  = "karpenter.sh_nodepool"
	nodeClaimTag = "karpenter.azure.com_aksmachine_nodeclaim"
)

// show returns the machine as Azure Resource Manager answers it. The caller holds the
// lock.
func (m *Machine) show() json.RawMessage {
	if m.json != nil {
		return m.json
	}
	out, p := *m.body, *m.body.Properties
	out.ID, out.Name = to.Ptr(ClusterID+"/agentPools/"+azure.DefaultMachinesPool+"/machines/"+m.Name), to.Ptr(m.Name)
	p.ETag, p.ProvisioningState = to.Ptr(strconv.Itoa(m.etag)), to.Ptr(m.state)
	p.ResourceID = to.Ptr(m.vmID())
	p.Status = &armcontainerservice.MachineStatus{CreationTimestamp: to.Ptr(m.Created), DriftAction: to.Ptr(armcontainerservice.DriftActionSynced)}
	switch {
	case m.state == stateFailed:
		p.Status.ProvisioningError = &armcontainerservice.ErrorDetail{
			Code: to.Ptr("VMCreateFailed"), Message: to.Ptr("The virtual machine could not be created."),
			Details: []*armcontainerservice.ErrorDetail{{Code: to.Ptr(m.code), Message: to.Ptr(m.text)}},
		}
	case !m.Deleted.IsZero(), m.state == stateDeleting:
		p.Status.VMState = to.Ptr(armcontainerservice.VMStateDeleted)
	case m.state == stateSucceeded:
		p.Status.VMState = to.Ptr(armcontainerservice.VMStateRunning)
	}
	if p.Priority != nil && *p.Priority == armcontainerservice.ScaleSetPriorityRegular {
		p.Priority = nil // as AKS answers
	}
	out.Properties = &p
	text, err := json.Marshal(&out)
	if err != nil {
		panic(fmt.Sprintf("answering machine %s: %v", m.Name, err)) // it was read from JSON
	}
	m.json = text
	return text
}

// vmID returns the ARM ID of the virtual machine.
func (m *Machine) vmID() string {
	return "/subscriptions/" + Subscription + "/resourceGroups/" + NodeGroup + "/providers/Microsoft.Compute/virtualMachines/" + m.NodeName
}

func (c *Cloud) listMachines() reply {
	c.mu.Lock()
	defer c.mu.Unlock()
	names := make([]string, 0, len(c.machines))
	for n := range c.machines {
		names = append(names, n)
	}
	slices.Sort(names)
	list := make([]json.RawMessage, len(names))
	for i, n := range names {
		list[i] = c.machines[n].show()
	}
	return reply{status: 200, body: map[string]any{"value": list}}
}

func (c *Cloud) getMachine(name string) reply {
	c.mu.Lock()
	defer c.mu.Unlock()
	if m := c.machines[name]; m != nil {
		return reply{status: 200, body: m.show()}
	}
	return refuse(http.StatusNotFound, "NotFound", "Machine '%s' was not found in agent pool '%s'.", name, azure.DefaultMachinesPool)
}

// putMachine creates or updates a machine, or creates those that the header
// BatchPutMachine names.
func (c *Cloud) putMachine(r *http.Request, name string, body []byte) reply {
	header := r.Header.Get("BatchPutMachine")
	if header == "" {
		return c.putOne(r.Header, name, body, nil)
	}
	var batch struct {
		Machines []batchMachine `json:"batchMachines"`
	}
	if err := json.Unmarshal([]byte(header), &batch); err != nil || len(batch.Machines) == 0 || len(batch.Machines) > maxBatch {
		return refuse(http.StatusBadRequest, "InvalidParameter", "The header BatchPutMachine has to name 1 to %d machines in JSON.", maxBatch)
	}
	var first reply
	var bad []map[string]any
	for i := range batch.Machines {
		b := &batch.Machines[i]
		a := c.putOne(http.Header{"If-None-Match": {"*"}}, b.Name, body, b)
		if a.status >= 400 {
			e := a.body.(map[string]any)["error"].(map[string]any)
			bad = append(bad, map[string]any{"code": e["code"], "message": e["message"], "target": b.Name})
		} else if first.status == 0 || b.Name == name {
			first = a
		}
	}
	if len(bad) == 0 {
		return first
	}
	a := refuse(http.StatusBadRequest, "BatchMachineClientError", "%d of %d machines were not accepted; the others are being created.", len(bad), len(batch.Machines))
	a.body.(map[string]any)["error"].(map[string]any)["details"] = bad
	return a
}

// batchMachine is what one machine of a batch has for itself.
type batchMachine struct {
	Name  string             `json:"machineName"`
	Zones []*string          `json:"zones"`
	Tags  map[string]*string `json:"tags"`
}

// putOne handles the request for one machine.
func (c *Cloud) putOne(h http.Header, name string, body []byte, b *batchMachine) reply {
	in := &armcontainerservice.Machine{}
	if err := json.Unmarshal(body, in); err != nil || in.Properties == nil || in.Properties.Hardware == nil || in.Properties.Hardware.VMSize == nil {
		return refuse(http.StatusBadRequest, "InvalidParameter", "The request body is not a machine with a VM size.")
	}
	if b != nil {
		in.Zones, in.Properties.Tags = b.Zones, b.Tags
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	old := c.machines[name]
	if want := h.Get("If-Match"); want != "" && want != "*" && (old == nil || want != strconv.Itoa(old.etag)) || h.Get("If-None-Match") == "*" && old != nil {
		return refuse(http.StatusPreconditionFailed, "PreconditionFailed", "The condition on the ETag of machine '%s' does not hold.", name)
	}
	if old != nil {
		return c.update(old, in)
	}
	m, refused := c.newMachine(name, in)
	if refused.status != 0 {
		return refused
	}
	l, refused := c.fate(m)
	if refused.status != 0 {
		return refused
	}
	c.counts.Asked++
	c.names[name]++
	c.machines[name] = m
	if l.Code == "" {
		c.enter(m)
		c.due.after(c.options.Create.draw(c.options.Rand), func() { c.created(m, l) })
	} else {
		c.due.after(c.options.Fail.draw(c.options.Rand), func() { c.fail(m, l) })
	}
	return reply{status: http.StatusCreated, body: m.show(), header: c.begin(false, m)}
}

// fate decides what becomes of a machine that is asked for, or refuses it. The caller
// holds the lock.
func (c *Cloud) fate(m *Machine) (Launch, reply) {
	var l Launch
	if l.Code, l.Message = c.exceeded(m); l.Code != "" {
		return l, reply{}
	}
	if c.launch != nil {
		l = c.launch(m)
	}
	if l.Code == "" {
		s, code, message := c.shortage(m)
		if s != nil && s.AtOnce {
			return l, refuse(http.StatusConflict, code, "%s", message)
		}
		l.Code, l.Message = code, message
	}
	m.Broken = l.NeverRegister || l.NeverReady
	return l, reply{}
}

// update changes what may change of a machine: its tags and the like. The caller holds
// the lock.
func (c *Cloud) update(m *Machine, in *armcontainerservice.Machine) reply {
	if m.state == stateDeleting {
		return refuse(http.StatusConflict, "OperationNotAllowed", "The machine '%s' is being deleted.", m.Name)
	}
	spot := in.Properties.Priority != nil && *in.Properties.Priority == armcontainerservice.ScaleSetPrioritySpot
	property := ""
	switch {
	case !strings.EqualFold(*in.Properties.Hardware.VMSize, m.Size):
		property = "properties.hardware.vmSize"
	case spot != (m.CapacityType == spotType):
		property = "properties.priority"
	case zoneOf(in) != m.Zone:
		property = "zones"
	}
	if property != "" {
		return refuse(http.StatusBadRequest, "PropertyChangeNotAllowed", "Changing property '%s' of machine '%s' is not allowed. Delete the machine and create another.", property, m.Name)
	}
	m.body, m.json = clean(in), nil
	m.etag++
	m.readTags()
	return reply{status: http.StatusOK, body: m.show(), header: c.begin(false, m)}
}

// clean returns a machine without the properties that only Azure sets.
func clean(in *armcontainerservice.Machine) *armcontainerservice.Machine {
	p := in.Properties
	p.ETag, p.ProvisioningState, p.ResourceID, p.Status = nil, nil, nil, nil
	return in
}

func zoneOf(in *armcontainerservice.Machine) string {
	if len(in.Zones) > 0 && in.Zones[0] != nil {
		return *in.Zones[0]
	}
	return ""
}

// readTags takes from the tags for whom the machine is.
func (m *Machine) readTags() {
	m.NodePool, m.Claim = "", ""
	if v := m.body.Properties.Tags[nodePoolTag]; v != nil {
		m.NodePool = *v
	}
	if v := m.body.Properties.Tags[nodeClaimTag]; v != nil {
		m.Claim = *v
	}
}

// newMachine returns the machine of a request, or the answer that refuses it. The
// caller holds the lock.
func (c *Cloud) newMachine(name string, in *armcontainerservice.Machine) (*Machine, reply) {
	p := clean(in).Properties
	size := c.sizes[strings.ToLower(*p.Hardware.VMSize)]
	if size == nil {
		return nil, refuse(http.StatusBadRequest, "VMSizeNotSupported", "The VM size of %s is not supported in location %s.", *p.Hardware.VMSize, c.options.Location)
	}
	zone := zoneOf(in)
	if len(in.Zones) > 1 {
		return nil, refuse(http.StatusBadRequest, "InvalidParameter", "A machine is in one zone at most; %d were given.", len(in.Zones))
	}
	if zone != "" && !slices.Contains(size.Zones, zone) {
		return nil, refuse(http.StatusBadRequest, "AvailabilityZoneNotSupported", "The zone '%s' of machine '%s' is not supported: size %s in location '%s' has the zones '%s'.", zone, name, size.Name, c.options.Location, strings.Join(size.Zones, ","))
	}
	spot := p.Priority != nil && *p.Priority == armcontainerservice.ScaleSetPrioritySpot
	if spot && !size.SpotCapable {
		return nil, refuse(http.StatusBadRequest, "VMSizeNotSupported", "The VM size %s is not available as Spot in %s.", size.Name, c.options.Location)
	}
	m := &Machine{
		Name: name, Size: size.Name, Zone: zone, CapacityType: onDemand, Created: time.Now(), state: stateCreating, etag: 1, body: in, vcpus: size.VCPUs,
		// A name that is used again gets another virtual machine.
		NodeName: fmt.Sprintf("aks-%s-%s-%08d-vm", azure.DefaultMachinesPool, name, c.names[name]),
	}
	if spot {
		m.CapacityType = spotType
	}
	m.ProviderID = azure.ProviderID(m.vmID())
	m.USDPerHour = c.price(size, spot)
	if p.Kubernetes == nil {
		p.Kubernetes = &armcontainerservice.MachineKubernetesProfile{}
	}
	if p.Kubernetes.MaxPods == nil || *p.Kubernetes.MaxPods == 0 {
		p.Kubernetes.MaxPods = to.Ptr(int32(defaultMaxPods))
	}
	if p.Kubernetes.OrchestratorVersion == nil || *p.Kubernetes.OrchestratorVersion == "" {
		p.Kubernetes.OrchestratorVersion = to.Ptr(c.options.Kubernetes)
	}
	p.Kubernetes.CurrentOrchestratorVersion, p.Kubernetes.NodeName = p.Kubernetes.OrchestratorVersion, to.Ptr(m.NodeName)
	if p.OperatingSystem == nil {
		p.OperatingSystem = &armcontainerservice.MachineOSProfile{}
	}
	if p.OperatingSystem.OSDiskSizeGB == nil || *p.OperatingSystem.OSDiskSizeGB == 0 {
		p.OperatingSystem.OSDiskSizeGB = to.Ptr(int32(defaultDiskGB))
	}
	m.readTags()
	m.spec = c.specOf(m)
	return m, reply{}
}

// specOf returns what the machine's kubelet is told.
func (c *Cloud) specOf(m *Machine) intent.MachineIntent {
	p := m.body.Properties
	out := intent.MachineIntent{
		Pool: intent.MachinesPool, Name: m.Name, NodeName: m.NodeName, ProviderID: m.ProviderID, VMSize: m.Size, Location: c.options.Location,
		Zone: m.Zone, Spot: m.CapacityType == spotType, Labels: map[string]string{}, NodeResourceGroup: NodeGroup, CreatedAt: m.Created,
		KubernetesVersion: strings.TrimPrefix(*p.Kubernetes.CurrentOrchestratorVersion, "v"), MaxPods: int(*p.Kubernetes.MaxPods), OSDiskSizeGB: int(*p.OperatingSystem.OSDiskSizeGB),
	}
	if p.Mode != nil {
		out.Mode = string(*p.Mode)
	}
	for key, v := range p.Kubernetes.NodeLabels {
		if v != nil {
			out.Labels[key] = *v
		}
	}
	for _, list := range [][]*string{p.Kubernetes.NodeTaints, p.Kubernetes.NodeInitializationTaints} {
		for _, t := range list {
			if t != nil {
				out.Taints = append(out.Taints, *t)
			}
		}
	}
	if p.OperatingSystem.OSSKU != nil {
		out.OSSKU = string(*p.OperatingSystem.OSSKU)
	}
	if p.NodeImageVersion != nil {
		out.NodeImageVersion = *p.NodeImageVersion
	}
	return out
}

// enter counts a machine that exists or will. The caller holds the lock.
func (c *Cloud) enter(m *Machine) {
	c.live[m], c.sorted = true, nil
	if !m.charged {
		m.charged = true
		c.charge(m, 1)
	}
}

// leave counts a machine no more. The caller holds the lock.
func (c *Cloud) leave(m *Machine) {
	delete(c.live, m)
	c.sorted = nil
	if m.charged {
		m.charged = false
		c.charge(m, -1)
	}
	if m.costs {
		m.costs = false
		c.account.add(-m.USDPerHour)
	}
}

// fail ends the creation of a machine that cannot be had.
func (c *Cloud) fail(m *Machine, l Launch) {
	c.mu.Lock()
	if l.Late > 0 {
		c.due.after(l.Late, func() { c.appear(m, l) })
	}
	if m.state != stateCreating {
		c.mu.Unlock()
		return
	}
	m.state, m.code, m.text, m.json = stateFailed, l.Code, l.Message, nil
	m.Failed = true
	c.counts.Failed++
	c.mu.Unlock()
	c.tell(Failed, m)
}

// appear makes a machine exist whose creation was reported as failed.
func (c *Cloud) appear(m *Machine, l Launch) {
	c.mu.Lock()
	if now := c.machines[m.Name]; now != nil && now != m {
		c.mu.Unlock()
		return
	}
	m.Failed, m.Deleting, m.Deleted = false, false, time.Time{}
	m.state, m.json = stateCreating, nil
	c.machines[m.Name] = m
	c.enter(m)
	c.mu.Unlock()
	c.created(m, l)
}

// created ends the creation of a machine that can be had.
func (c *Cloud) created(m *Machine, l Launch) {
	c.mu.Lock()
	if m.state != stateCreating {
		c.mu.Unlock()
		return // it was deleted meanwhile
	}
	m.Running, m.state, m.json = time.Now(), stateSucceeded, nil
	m.costs = true
	c.account.add(m.USDPerHour)
	c.counts.Bought++
	if !l.NeverRegister {
		c.due.after(c.options.Boot.draw(c.options.Rand), func() { c.booted(m, l) })
	}
	c.mu.Unlock()
	c.tell(Bought, m)
}

// booted starts the kubelet of a machine.
func (c *Cloud) booted(m *Machine, l Launch) {
	c.mu.Lock()
	if !m.Deleted.IsZero() {
		c.mu.Unlock()
		return
	}
	m.Booted = time.Now()
	c.mu.Unlock()
	c.tell(Booted, m)
}

func (c *Cloud) deleteMachines(body []byte) reply {
	var p armcontainerservice.AgentPoolDeleteMachinesParameter
	if err := json.Unmarshal(body, &p); err != nil || len(p.MachineNames) == 0 || len(p.MachineNames) > maxDelete {
		return refuse(http.StatusBadRequest, "InvalidParameter", "machineNames has to name 1 to %d machines.", maxDelete)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	var found []*Machine
	for _, n := range p.MachineNames {
		if n != nil && c.machines[*n] != nil {
			found = append(found, c.machines[*n])
		}
	}
	if len(found) == 0 {
		return refuse(http.StatusBadRequest, "InvalidParameter", "Cannot find any valid machines to delete in agent pool '%s'. Check the names of the machines.", azure.DefaultMachinesPool)
	}
	for _, m := range found {
		if m.state == stateDeleting {
			continue
		}
		m.Deleting, m.state, m.json = true, stateDeleting, nil
		m.etag++
		c.due.after(c.options.Delete.draw(c.options.Rand), func() { c.remove(m) })
	}
	return reply{status: http.StatusAccepted, header: c.begin(true, found...)}
}

// Remove takes a machine away, with all that Azure Resource Manager knows about it.
func (c *Cloud) Remove(name string) {
	c.mu.Lock()
	m := c.machines[name]
	if m == nil {
		c.mu.Unlock()
		return
	}
	delete(c.machines, name)
	c.end(m)
}

// remove ends the deletion of a machine.
func (c *Cloud) remove(m *Machine) {
	c.mu.Lock()
	if c.machines[m.Name] != m {
		c.mu.Unlock()
		return
	}
	delete(c.machines, m.Name)
	c.end(m)
}

// end ends a machine and tells so, unless it has ended before. It releases the lock,
// which the caller holds.
func (c *Cloud) end(m *Machine) {
	if !m.Deleted.IsZero() {
		c.mu.Unlock()
		return
	}
	if m.costs {
		c.counts.Deleted++
	}
	m.Deleted, m.json = time.Now(), nil
	c.leave(m)
	c.mu.Unlock()
	c.tell(Gone, m)
}

// Vanish takes the virtual machine away behind the back of AKS, as somebody who deletes
// it in the portal does: Azure Resource Manager still lists its machine.
func (c *Cloud) Vanish(name string) {
	c.mu.Lock()
	m := c.machines[name]
	if m == nil || m.state != stateSucceeded {
		c.mu.Unlock()
		return
	}
	c.end(m)
}

// Evict takes a spot machine away as Azure does: it is told first, and then the virtual
// machine vanishes, while Azure Resource Manager still lists its machine.
func (c *Cloud) Evict(name string) {
	c.mu.Lock()
	m := c.machines[name]
	if m == nil || m.state != stateSucceeded || !m.Deleted.IsZero() {
		c.mu.Unlock()
		return
	}
	c.counts.Evicted++
	notice := c.options.SpotNotice
	c.mu.Unlock()
	if notice <= 0 {
		c.Vanish(name)
		return
	}
	c.tell(Evicted, m)
	c.due.after(notice, func() {
		c.mu.Lock()
		if c.machines[name] != m {
			c.mu.Unlock()
			return
		}
		c.end(m)
	})
}
