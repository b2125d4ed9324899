// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package fleet

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"

	"github.com/nap-aks/nap/catalog"
	"github.com/nap-aks/nap/localazure/intent"
)

// machine is one simulated virtual machine: a small state machine driven by its
// intent. All its work happens in loop.
type machine struct {
	c          *clusterFleet
	pool, name string
	wake       chan struct{}

	mu     sync.Mutex
	intent *intent.MachineIntent // nil: must not exist
	known  bool                  // setIntent has been called

	// Owned by loop.
	status intent.MachineStatus
	// registered is set once the kubelet has registered its Node in this boot.
	registered bool
	nodeName   string
	applied    *intent.MachineIntent // the intent that the Node was last updated for
	stopBeat   context.CancelFunc
	silent     bool          // a fault stopped the kubelet
	again      time.Duration // when to reconcile again without being woken; 0 for never
}

// setIntent stores the newest intent; nil means that the machine was deleted.
func (m *machine) setIntent(mi *intent.MachineIntent) {
	m.mu.Lock()
	m.intent, m.known = mi, true
	m.mu.Unlock()
	m.requeue()
}

// requeue makes loop reconcile again.
func (m *machine) requeue() {
	select {
	case m.wake <- struct{}{}:
	default:
	}
}

func (m *machine) latest() (*intent.MachineIntent, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.intent, m.known
}

func (m *machine) loop(ctx context.Context) {
	log := m.c.f.Logger.With("cluster", m.c.uid, "pool", m.pool, "machine", m.name)
	delay := 200 * time.Millisecond
	for {
		var err error
		done := false
		m.again = 0
		if mi, known := m.latest(); known {
			if mi == nil {
				done, err = m.remove(ctx)
			} else {
				err = m.advance(ctx, *mi)
			}
		}
		if done {
			m.c.drop(m)
			// An intent written meanwhile under the same name is a new machine.
			if mi, _ := m.latest(); mi != nil {
				m.c.machine(m.pool, m.name).setIntent(mi)
			}
			return
		}
		var again <-chan time.Time
		if err != nil {
			if ctx.Err() != nil {
				return
			}
			log.Warn("reconciling machine failed, retrying", "error", err, "delay", delay)
			again = time.After(delay)
			delay = min(2*delay, 10*time.Second)
		} else {
			delay = 200 * time.Millisecond
			if m.again > 0 {
				again = time.After(m.again)
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-m.wake:
		case <-again:
		}
	}
}

// advance brings a machine that should exist closer to being booted and registered.
func (m *machine) advance(ctx context.Context, mi intent.MachineIntent) error {
	if m.status.Phase == "" {
		st, found, err := intent.Get[intent.MachineStatus](ctx, m.c.f.Etcd, m.statusKey())
		if err != nil {
			return err
		}
		if found && st.Phase == intent.MachineDeleting {
			// The intent was written again during the deletion of the old machine: finish
			// that first.
			if _, err := m.removeOld(ctx); err != nil {
				return err
			}
			found = false
		}
		if found {
			m.status = st
			if m.status.Image == "" { // written by an older version
				m.status.Image = mi.Image()
			}
		} else {
			m.status.Image = mi.Image()
			if err := m.put(ctx, intent.MachineBooting, "", ""); err != nil {
				return err
			}
		}
	}
	if m.status.Phase == intent.MachineRunning && m.status.Image != mi.Image() {
		if err := m.reimage(ctx, mi); err != nil {
			return err
		}
	}
	switch m.status.Phase {
	case intent.MachineFailed:
		return nil
	case intent.MachineBooting:
		if _, err := catalog.Lookup(mi.Location, mi.VMSize); err != nil {
			return m.put(ctx, intent.MachineFailed, "SkuNotAvailable", err.Error())
		}
		// A machine that is reimaged keeps its capacity.
		if out, ok := m.c.f.fault(Stockout, mi); ok && mi.ReimagedAt.IsZero() {
			return m.put(ctx, intent.MachineFailed, out.Code, out.message(mi))
		}
		left := m.c.f.bootDelay(mi)
		began := mi.CreatedAt
		if mi.ReimagedAt.After(began) {
			began = mi.ReimagedAt
		}
		if !began.IsZero() {
			left = min(left, max(0, time.Until(began.Add(left))))
		}
		if !m.sleep(ctx, left) {
			return nil // the intent was deleted; loop reconciles again
		}
		m.status.BootedAt = time.Now().UTC()
		if err := m.put(ctx, intent.MachineRunning, "", ""); err != nil {
			return err
		}
	}
	_, silent := m.c.f.fault(Silent, mi)
	if m.registered && sameMachine(m.applied, &mi) && silent == m.silent && !m.drainPending(mi) {
		return nil
	}
	client, ci, err := m.api(ctx)
	if err != nil || client == nil {
		return err
	}
	if silent {
		if m.stopBeat != nil {
			m.stopBeat()
			m.stopBeat = nil
		}
		if err := silence(ctx, client, mi.NodeName); err != nil {
			return err
		}
		m.silent, m.nodeName = true, mi.NodeName
		return nil
	}
	if !m.registered || !sameMachine(m.applied, &mi) || m.silent {
		m.silent = false
		if err := register(ctx, client, mi, ci, m.applied); err != nil {
			return err
		}
	}
	m.registered, m.nodeName, m.applied = true, mi.NodeName, &mi
	if !m.status.Registered && m.pool != intent.MachinesPool {
		m.status.Registered = true
		if err := m.put(ctx, m.status.Phase, "", ""); err != nil {
			return err
		}
	}
	if m.stopBeat == nil {
		beatCtx, stop := context.WithCancel(ctx)
		m.stopBeat = stop
		go m.heartbeat(beatCtx, mi.NodeName)
	}
	m.again, err = m.drain(ctx, client, mi)
	return err
}

// drainPending reports whether a drain must start, continue or be undone.
func (m *machine) drainPending(mi intent.MachineIntent) bool {
	d := m.status.Drain
	if mi.Drain == nil {
		return d != nil
	}
	return d == nil || !d.Since.Equal(mi.Drain.Since) || d.State == intent.Draining
}

// reimage stops a running machine, so that it boots the image of its intent. Its
// Node is deleted, and the drain status with it.
func (m *machine) reimage(ctx context.Context, mi intent.MachineIntent) error {
	client, _, err := m.api(ctx)
	if err != nil || client == nil {
		return err
	}
	m.nodeName = mi.NodeName
	if m.stopBeat != nil {
		m.stopBeat()
		m.stopBeat = nil
	}
	if err := m.deleteNode(ctx, client); err != nil {
		return err
	}
	m.event(ctx, client, corev1.EventTypeNormal, "Reimaging node: "+mi.NodeName)
	m.status.Image, m.status.Registered, m.status.Drain = mi.Image(), false, nil
	m.registered, m.applied = false, nil
	return m.put(ctx, intent.MachineBooting, "", "")
}

// leaseSeconds is the duration of a node lease. Kubelets renew it four times in that
// time.
const leaseSeconds = 40

// heartbeat renews the node's lease, as the kubelet does, until ctx ends.
func (m *machine) heartbeat(ctx context.Context, node string) {
	every := time.Duration(leaseSeconds) * time.Second / 4
	wait := time.Duration(0)
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
		wait = every + time.Duration(hash(node)%1000)*time.Millisecond/2
		client, _, err := m.c.api(ctx)
		if err != nil {
			return
		}
		if err := renewLease(ctx, client, node); err != nil && ctx.Err() == nil {
			wait = time.Second
			m.c.f.Logger.Debug("lease not renewed", "node", node, "error", err)
		}
	}
}

func renewLease(ctx context.Context, client kubernetes.Interface, node string) error {
	leases := client.CoordinationV1().Leases(corev1.NamespaceNodeLease)
	patch, err := json.Marshal(map[string]any{"spec": map[string]any{"renewTime": metav1.NowMicro()}})
	if err != nil {
		return err
	}
	_, err = leases.Patch(ctx, node, types.MergePatchType, patch, metav1.PatchOptions{})
	if !apierrors.IsNotFound(err) {
		return err
	}
	n, err := client.CoreV1().Nodes().Get(ctx, node, metav1.GetOptions{})
	if err != nil {
		return err
	}
	duration, now := int32(leaseSeconds), metav1.NowMicro()
	_, err = leases.Create(ctx, &coordinationv1.Lease{
		ObjectMeta: metav1.ObjectMeta{Name: node, OwnerReferences: []metav1.OwnerReference{{APIVersion: "v1", Kind: "Node", Name: node, UID: n.UID}}},
		Spec:       coordinationv1.LeaseSpec{HolderIdentity: &node, LeaseDurationSeconds: &duration, RenewTime: &now},
	}, metav1.CreateOptions{})
	return err
}

// api waits for the cluster's API for as long as the machine has an intent. It
// returns nil without an error once the intent is deleted.
func (m *machine) api(ctx context.Context) (kubernetes.Interface, intent.ClusterIntent, error) {
	for {
		waitCtx, cancel := context.WithTimeout(ctx, time.Second)
		client, ci, err := m.c.api(waitCtx)
		cancel()
		if err == nil {
			return client, ci, nil
		}
		if ctx.Err() != nil {
			return nil, ci, ctx.Err()
		}
		if mi, _ := m.latest(); mi == nil {
			return nil, ci, nil
		}
	}
}

// sleep waits, and returns false early if the intent is deleted. It requeues the
// wake-ups that it receives for loop.
func (m *machine) sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	woken := false
	defer func() {
		if woken {
			m.requeue()
		}
	}()
	for {
		select {
		case <-ctx.Done():
			return false
		case <-t.C:
			return true
		case <-m.wake:
			woken = true
			if mi, _ := m.latest(); mi == nil {
				return false
			}
		}
	}
}

func (m *machine) statusKey() string { return intent.MachineStatusKey(m.c.uid, m.pool, m.name) }

func (m *machine) put(ctx context.Context, phase intent.MachinePhase, code, message string) error {
	st := m.status
	st.ClusterUID, st.Pool, st.Name = m.c.uid, m.pool, m.name
	st.Phase, st.Code, st.Message, st.UpdatedAt = phase, code, message, time.Now().UTC()
	if err := intent.Put(ctx, m.c.f.Etcd, m.statusKey(), st); err != nil {
		return err
	}
	m.status = st
	return nil
}

// remove deletes a machine as the cloud does: the machine stops, the cloud's node
// controller deletes its Node, then its pods go, and last its status. It returns
// true once nothing is left.
func (m *machine) remove(ctx context.Context) (bool, error) {
	if m.status.Phase == "" {
		st, found, err := intent.Get[intent.MachineStatus](ctx, m.c.f.Etcd, m.statusKey())
		if err != nil {
			return false, err
		}
		if !found {
			return true, nil
		}
		m.status = st
	}
	if m.status.Phase != intent.MachineDeleting {
		if err := m.put(ctx, intent.MachineDeleting, "", ""); err != nil {
			return false, err
		}
	}
	return m.removeOld(ctx)
}

// removeOld does the work of remove once the status says Deleting.
func (m *machine) removeOld(ctx context.Context) (bool, error) {
	if m.stopBeat != nil {
		m.stopBeat()
		m.stopBeat = nil
	}
	if m.c.alive() {
		waitCtx, cancel := context.WithTimeout(ctx, 20*time.Second)
		client, _, err := m.c.api(waitCtx)
		cancel()
		if err != nil {
			if ctx.Err() != nil {
				return false, ctx.Err()
			}
			if m.c.alive() {
				return false, fmt.Errorf("removing machine %s: cluster's API does not answer: %w", m.name, err)
			}
		} else if err := m.deleteNode(ctx, client); err != nil {
			return false, err
		}
	}
	if err := intent.Delete(ctx, m.c.f.Etcd, m.statusKey()); err != nil {
		return false, err
	}
	m.status, m.registered, m.applied = intent.MachineStatus{}, false, nil
	return true, nil
}

// deleteNode deletes the Node of this machine and the pods on it.
func (m *machine) deleteNode(ctx context.Context, client kubernetes.Interface) error {
	node, err := m.findNode(ctx, client)
	if err != nil || node == nil {
		return err
	}
	// The kubelet is dead: it sends no more heartbeats, even if a finalizer keeps the
	// Node for a while.
	if err := silence(ctx, client, node.Name); err != nil {
		return err
	}
	uid := node.UID
	if err := client.CoreV1().Nodes().Delete(ctx, node.Name, metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &uid}}); err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
		return fmt.Errorf("deleting node %s: %w", node.Name, err)
	}
	pods, err := client.CoreV1().Pods("").List(ctx, metav1.ListOptions{FieldSelector: fields.OneTermEqualSelector("spec.nodeName", node.Name).String()})
	if err != nil {
		return fmt.Errorf("listing the pods of node %s: %w", node.Name, err)
	}
	now := int64(0)
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(16)
	for i := range pods.Items {
		p := &pods.Items[i]
		g.Go(func() error {
			err := client.CoreV1().Pods(p.Namespace).Delete(ctx, p.Name, metav1.DeleteOptions{GracePeriodSeconds: &now, Preconditions: &metav1.Preconditions{UID: &p.UID}})
			if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
				return fmt.Errorf("deleting pod %s/%s of node %s: %w", p.Namespace, p.Name, node.Name, err)
			}
			return nil
		})
	}
	return g.Wait()
}

// silence stops the kubelet of a node: kwok only simulates those of nodes with the
// annotation.
func silence(ctx context.Context, client kubernetes.Interface, node string) error {
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"annotations": map[string]any{managedAnnotation: nil}}})
	if err != nil {
		return err
	}
	if _, err := client.CoreV1().Nodes().Patch(ctx, node, types.MergePatchType, patch, metav1.PatchOptions{}); err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("stopping the kubelet of %s: %w", node, err)
	}
	return nil
}

// findNode returns the machine's Node, or nil. It looks it up by name if that is
// known, and else (after a restart, without an intent) by pool and annotation.
func (m *machine) findNode(ctx context.Context, client kubernetes.Interface) (*corev1.Node, error) {
	if m.nodeName != "" {
		n, err := client.CoreV1().Nodes().Get(ctx, m.nodeName, metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			return nil, nil
		}
		return n, err
	}
	list, err := client.CoreV1().Nodes().List(ctx, metav1.ListOptions{LabelSelector: "kubernetes.azure.com/agentpool=" + m.pool})
	if err != nil {
		return nil, fmt.Errorf("listing nodes of pool %s: %w", m.pool, err)
	}
	for i := range list.Items {
		if list.Items[i].Annotations[machineAnnotation] == m.name {
			return &list.Items[i], nil
		}
	}
	return nil, nil
}

// machineAnnotation holds the ARM name of a Node's machine.
const machineAnnotation = "nap.local/machine"

// register creates the machine's Node as its kubelet does when it starts, or
// updates the labels and taints of an existing one: AKS applies changes of a pool's
// labels and taints to its nodes. before is the intent that was last applied since
// the fleet started, nil if there was none.
func register(ctx context.Context, client kubernetes.Interface, mi intent.MachineIntent, ci intent.ClusterIntent, before *intent.MachineIntent) error {
	n, err := NodeFor(mi, ci)
	if err != nil {
		return err
	}
	n.Annotations[machineAnnotation] = mi.Name
	existing, err := client.CoreV1().Nodes().Get(ctx, n.Name, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		if existing, err = client.CoreV1().Nodes().Create(ctx, n, metav1.CreateOptions{}); err != nil {
			return fmt.Errorf("registering node %s: %w", n.Name, err)
		}
	case err != nil:
		return fmt.Errorf("reading node %s: %w", n.Name, err)
	case existing.Spec.ProviderID != n.Spec.ProviderID:
		// It is the Node of an earlier machine of that name.
		uid := existing.UID
		if err := client.CoreV1().Nodes().Delete(ctx, n.Name, metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &uid}}); err != nil && !apierrors.IsNotFound(err) {
			return fmt.Errorf("deleting the old node %s: %w", n.Name, err)
		}
		return fmt.Errorf("node %s still belongs to %s", n.Name, existing.Spec.ProviderID)
	default:
		if err := refresh(ctx, client, existing, n, before); err != nil {
			return err
		}
	}
	return registerCSI(ctx, client, existing, mi)
}

// refresh merges labels into an existing Node, and taints if an earlier intent was
// applied.
func refresh(ctx context.Context, client kubernetes.Interface, existing, want *corev1.Node, before *intent.MachineIntent) error {
	spec := map[string]any{}
	labels := map[string]any{}
	for k, v := range want.Labels {
		labels[k] = v
	}
	if before != nil {
		for k := range before.Labels {
			if _, ok := want.Labels[k]; !ok {
				labels[k] = nil
			}
		}
		// Taints of Kubernetes and Karpenter stay, all others are replaced by the pool's.
		merged := append([]corev1.Taint{}, want.Spec.Taints...)
		for _, t := range existing.Spec.Taints {
			if isSystemTaint(t.Key) {
				merged = append(merged, t)
			}
		}
		// Cilium's agent already runs on the node.
		spec["taints"] = withoutTaint(merged, ciliumTaint)
	}
	body := map[string]any{"metadata": map[string]any{"labels": labels, "annotations": want.Annotations}}
	if len(spec) > 0 {
		body["spec"] = spec
	}
	patch, err := json.Marshal(body)
	if err != nil {
		return err
	}
	if _, err := client.CoreV1().Nodes().Patch(ctx, existing.Name, types.MergePatchType, patch, metav1.PatchOptions{}); err != nil {
		return fmt.Errorf("updating node %s: %w", existing.Name, err)
	}
	return nil
}

func isSystemTaint(key string) bool {
	return slices.ContainsFunc([]string{"node.kubernetes.io/", "node.cloudprovider.kubernetes.io/", "karpenter.sh/"},
		func(prefix string) bool { return strings.HasPrefix(key, prefix) })
}

// registerCSI creates the CSINode with the number of data disks that the size
// supports: the scheduler limits volumes by it.
func registerCSI(ctx context.Context, client kubernetes.Interface, n *corev1.Node, mi intent.MachineIntent) error {
	size, err := catalog.Lookup(mi.Location, mi.VMSize)
	if err != nil {
		return err
	}
	disks := int32(size.MaxDataDisks)
	csi := &storagev1.CSINode{
		ObjectMeta: metav1.ObjectMeta{Name: n.Name, OwnerReferences: []metav1.OwnerReference{{APIVersion: "v1", Kind: "Node", Name: n.Name, UID: n.UID}}},
		Spec: storagev1.CSINodeSpec{Drivers: []storagev1.CSINodeDriver{
			{Name: "disk.csi.azure.com", NodeID: n.Name, TopologyKeys: []string{"topology.disk.csi.azure.com/zone"}, Allocatable: &storagev1.VolumeNodeResources{Count: &disks}},
			{Name: "file.csi.azure.com", NodeID: n.Name},
		}},
	}
	if _, err := client.StorageV1().CSINodes().Create(ctx, csi, metav1.CreateOptions{}); err != nil && !apierrors.IsAlreadyExists(err) {
		return fmt.Errorf("registering the CSI drivers of node %s: %w", n.Name, err)
	}
	return nil
}
