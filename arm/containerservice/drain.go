package containerservice

import (
	"context"
	"errors"
	"fmt"
	"sort"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/nap-aks/nap/arm/intent"
	"github.com/nap-aks/nap/arm/rp"
)

const (
	// madeAnnotation names, on what a migration has created in a cluster, the
	// operation that did, and cordonAnnotation on a node the one that cordoned
	// it: giving up takes back that and nothing else.
	madeAnnotation   = "node-auto-provisioning.local/made-by"
	cordonAnnotation = "node-auto-provisioning.local/cordoned-by"

	doNotDisrupt = "karpenter.sh/do-not-disrupt"
)

var (
	nodeClasses = schema.GroupVersionResource{Group: "karpenter.azure.com", Version: "v1beta1", Resource: "aksnodeclasses"}
	nodeClaims  = schema.GroupVersionResource{Group: "karpenter.sh", Version: "v1", Resource: "nodeclaims"}
	nodesOf     = schema.GroupVersionResource{Version: "v1", Resource: "nodes"}
	podsOf      = schema.GroupVersionResource{Version: "v1", Resource: "pods"}
)

// makeable are the kinds that a migration creates, in the order in which they
// go away again.
var makeable = map[string]schema.GroupVersionResource{"NodePool": nodePools, "AKSNodeClass": nodeClasses}

// ErrRefused is wrapped by Live.Create when trying again will not help.
var ErrRefused = errors.New("the cluster refuses it")

// Create implements Live.
func (l liveCluster) Create(ctx context.Context, object map[string]any, by string) error {
	u := &unstructured.Unstructured{Object: rp.Doc(object).Clone()}
	gvr, ok := makeable[u.GetKind()]
	if !ok {
		return fmt.Errorf("a %s is not something that a migration creates: %w", u.GetKind(), ErrRefused)
	}
	as := u.GetAnnotations()
	if as == nil {
		as = map[string]string{}
	}
	as[madeAnnotation] = by
	u.SetAnnotations(as)
	_, err := l.c.Resource(gvr).Create(ctx, u, metav1.CreateOptions{FieldManager: "arm"})
	switch {
	case err == nil:
		return nil
	case apierrors.IsAlreadyExists(err):
		have, err := l.c.Resource(gvr).Get(ctx, u.GetName(), metav1.GetOptions{})
		if err != nil {
			return fmt.Errorf("reading %s %s: %w", u.GetKind(), u.GetName(), err)
		}
		if have.GetAnnotations()[madeAnnotation] != by {
			return fmt.Errorf("the cluster has a %s %s already; delete it, or give yours another name: %w", u.GetKind(), u.GetName(), ErrRefused)
		}
		return nil
	case apierrors.IsInvalid(err), apierrors.IsBadRequest(err), apierrors.IsForbidden(err):
		return fmt.Errorf("creating %s %s: %w: %w", u.GetKind(), u.GetName(), err, ErrRefused)
	}
	return fmt.Errorf("creating %s %s: %w", u.GetKind(), u.GetName(), err)
}

// Unmake implements Live.
func (l liveCluster) Unmake(ctx context.Context, by string) ([]string, error) {
	var left []string
	for _, gvr := range []schema.GroupVersionResource{nodePools, nodeClasses} {
		items, err := l.list(ctx, gvr, "")
		if err != nil {
			return nil, err
		}
		for _, o := range items {
			if o.GetAnnotations()[madeAnnotation] != by {
				continue
			}
			left = append(left, o.GetKind()+" "+o.GetName())
			if o.GetDeletionTimestamp() != nil {
				continue
			}
			if err := l.c.Resource(gvr).Delete(ctx, o.GetName(), metav1.DeleteOptions{}); err != nil && !apierrors.IsNotFound(err) {
				return nil, fmt.Errorf("deleting %s %s: %w", o.GetKind(), o.GetName(), err)
			}
		}
		if len(left) > 0 {
			return left, nil // a class stays until its NodePools and their nodes are gone
		}
	}
	return nil, nil
}

// NotReady implements Live.
func (l liveCluster) NotReady(ctx context.Context, names []string) (map[string]string, error) {
	items, err := l.list(ctx, nodePools, "")
	if err != nil {
		return nil, err
	}
	out := map[string]string{}
	for _, n := range names {
		out[n] = "it is not there"
	}
	for _, o := range items {
		if _, asked := out[o.GetName()]; !asked {
			continue
		}
		out[o.GetName()] = "the controller has not looked at it yet"
		conditions, _, _ := unstructured.NestedSlice(o.Object, "status", "conditions")
		for _, c := range conditions {
			m, _ := c.(map[string]any)
			if m["type"] != "Ready" {
				continue
			}
			if m["status"] == "True" {
				delete(out, o.GetName())
			} else {
				out[o.GetName()] = fmt.Sprint(m["message"])
			}
		}
	}
	return out, nil
}

// editNode changes a node until it is as f wants it; f says whether it had to.
func (l liveCluster) editNode(ctx context.Context, name string, f func(*unstructured.Unstructured) bool) error {
	for {
		n, err := l.c.Resource(nodesOf).Get(ctx, name, metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("reading node %s: %w", name, err)
		}
		if !f(n) {
			return nil
		}
		_, err = l.c.Resource(nodesOf).Update(ctx, n, metav1.UpdateOptions{FieldManager: "arm"})
		if apierrors.IsConflict(err) {
			continue
		}
		if err != nil && !apierrors.IsNotFound(err) {
			return fmt.Errorf("changing node %s: %w", name, err)
		}
		return nil
	}
}

func unschedulable(n *unstructured.Unstructured) bool {
	b, _, _ := unstructured.NestedBool(n.Object, "spec", "unschedulable")
	return b
}

// Cordon implements Live.
func (l liveCluster) Cordon(ctx context.Context, nodes []string, by string) error {
	for _, name := range nodes {
		if err := l.editNode(ctx, name, func(n *unstructured.Unstructured) bool {
			if unschedulable(n) {
				return false // by somebody else, who will want it to stay so
			}
			as := n.GetAnnotations()
			if as == nil {
				as = map[string]string{}
			}
			as[cordonAnnotation] = by
			n.SetAnnotations(as)
			return unstructured.SetNestedField(n.Object, true, "spec", "unschedulable") == nil
		}); err != nil {
			return err
		}
	}
	return nil
}

// Uncordon implements Live.
func (l liveCluster) Uncordon(ctx context.Context, by string) error {
	nodes, err := l.list(ctx, nodesOf, "")
	if err != nil {
		return err
	}
	for _, o := range nodes {
		if o.GetAnnotations()[cordonAnnotation] != by {
			continue
		}
		if err := l.editNode(ctx, o.GetName(), func(n *unstructured.Unstructured) bool {
			as := n.GetAnnotations()
			if as[cordonAnnotation] != by {
				return false
			}
			delete(as, cordonAnnotation)
			n.SetAnnotations(as)
			unstructured.RemoveNestedField(n.Object, "spec", "unschedulable")
			return true
		}); err != nil {
			return err
		}
	}
	return nil
}

// Drain implements Live.
func (l liveCluster) Drain(ctx context.Context, node string) ([]string, string, error) {
	pods, err := l.pods(ctx, "spec.nodeName="+node)
	if err != nil {
		return nil, "", err
	}
	var left []string
	blocked := ""
	for i := range pods {
		p := &pods[i]
		phase, _, _ := unstructured.NestedString(p.Object, "status", "phase")
		if stays(p) || phase == "Succeeded" || phase == "Failed" {
			continue
		}
		key := p.GetNamespace() + "/" + p.GetName()
		left = append(left, key)
		if p.GetDeletionTimestamp() != nil {
			continue
		}
		if p.GetAnnotations()[doNotDisrupt] == "true" {
			blocked = "pod " + key + " has the annotation " + doNotDisrupt
			continue
		}
		uid := p.GetUID()
		_, err := l.c.Resource(podsOf).Namespace(p.GetNamespace()).Create(ctx, &unstructured.Unstructured{Object: map[string]any{
			"apiVersion": "policy/v1", "kind": "Eviction", "metadata": map[string]any{"name": p.GetName(), "namespace": p.GetNamespace()},
			"deleteOptions": map[string]any{"preconditions": map[string]any{"uid": string(uid)}},
		}}, metav1.CreateOptions{}, "eviction")
		switch {
		case err == nil, apierrors.IsNotFound(err), apierrors.IsConflict(err):
		case apierrors.IsTooManyRequests(err):
			blocked = "pod " + key + ": " + why(err)
		default:
			return nil, "", fmt.Errorf("evicting pod %s: %w", key, err)
		}
	}
	return left, blocked, nil
}

// why is what the API server says of an eviction that has to wait, with the
// disruption budget's name.
func why(err error) string {
	var s apierrors.APIStatus
	if errors.As(err, &s) && s.Status().Details != nil {
		for _, c := range s.Status().Details.Causes {
			if c.Message != "" {
				return c.Message
			}
		}
	}
	return err.Error()
}

// stays tells the pods that end with their node: those of DaemonSets and those
// that the kubelet runs by itself.
func stays(p *unstructured.Unstructured) bool {
	if _, mirror := p.GetAnnotations()["kubernetes.io/config.mirror"]; mirror {
		return true
	}
	for _, o := range p.GetOwnerReferences() {
		if o.Controller != nil && *o.Controller && o.Kind == "DaemonSet" {
			return true
		}
	}
	return false
}

func (l liveCluster) pods(ctx context.Context, fields string) ([]unstructured.Unstructured, error) {
	var out []unstructured.Unstructured
	opts := metav1.ListOptions{FieldSelector: fields, Limit: 500}
	for {
		page, err := l.c.Resource(podsOf).List(ctx, opts)
		if err != nil {
			return nil, fmt.Errorf("listing the pods with %s: %w", fields, err)
		}
		out = append(out, page.Items...)
		if page.GetContinue() == "" {
			return out, nil
		}
		opts.Continue = page.GetContinue()
	}
}

// Waiting implements Live.
func (l liveCluster) Waiting(ctx context.Context, since time.Time) ([]string, error) {
	pods, err := l.pods(ctx, "status.phase=Pending")
	if err != nil {
		return nil, err
	}
	var out []string
	for i := range pods {
		p := &pods[i]
		if node, _, _ := unstructured.NestedString(p.Object, "spec", "nodeName"); node == "" && p.GetDeletionTimestamp() == nil && !p.GetCreationTimestamp().Time.Before(since.Truncate(time.Second)) {
			out = append(out, p.GetNamespace()+"/"+p.GetName())
		}
	}
	sort.Strings(out)
	return out, nil
}

// Release implements Live.
func (l liveCluster) Release(ctx context.Context, node string) error {
	claims, err := l.list(ctx, nodeClaims, "")
	if err != nil {
		return err
	}
	for _, c := range claims {
		if name, _, _ := unstructured.NestedString(c.Object, "status", "nodeName"); name != node || c.GetDeletionTimestamp() != nil {
			continue
		}
		if err := l.c.Resource(nodeClaims).Delete(ctx, c.GetName(), metav1.DeleteOptions{}); err != nil && !apierrors.IsNotFound(err) {
			return fmt.Errorf("deleting NodeClaim %s: %w", c.GetName(), err)
		}
	}
	return nil
}

// few names some of many.
func few(names []string) string {
	if len(names) > 5 {
		return strings.Join(names[:5], ", ") + fmt.Sprintf(" and %d more", len(names)-5)
	}
	return strings.Join(names, ", ")
}

// emptying is how a pool's nodes are taken away with their pods moved first.
type emptying struct {
	live Live
	// by is the operation that cordons.
	by string
	// keep is how many nodes stay: those with the lowest numbers.
	keep int
	// width is how many are drained at a time.
	width int
	// wait says pods that were moved and still have no place: no further node
	// is begun before they do.
	wait []string
}

// emptyPool drains the nodes of a pool that are one too many, in the order in
// which a scale-in takes them, and removes those that are empty by lowering the
// pool's count. It does one step and says what it waits for, or that all is
// done: nodes and machines are gone.
func (p *Provider) emptyPool(ctx context.Context, cluster, pool *rp.Record, e emptying) (done bool, progress string, err error) {
	name := pool.ParsedID().Name()
	have, _, err := intent.List[intent.MachineIntent](ctx, p.env.Store.KV, intent.MachineIntentPrefix+cluster.UID+"/"+name+"/")
	if err != nil {
		return false, "", err
	}
	sts, _, err := intent.List[intent.MachineStatus](ctx, p.env.Store.KV, intent.MachineStatusPrefix+cluster.UID+"/"+name+"/")
	if err != nil {
		return false, "", err
	}
	wanted := map[string]bool{}
	for _, m := range have {
		wanted[m.Name] = true
	}
	leaving := 0
	for _, s := range sts {
		if !wanted[s.Name] {
			leaving++
		}
	}
	sort.Slice(have, func(i, j int) bool { return instanceNumber(have[i].Name) < instanceNumber(have[j].Name) })
	if len(have) <= e.keep {
		if leaving > 0 {
			return false, fmt.Sprintf("pool %s: %d machines are being deleted", name, leaving), nil
		}
		return true, "", nil
	}
	going := have[e.keep:]
	var nodes []string
	for _, m := range going {
		nodes = append(nodes, m.NodeName)
	}
	if err := e.live.Cordon(ctx, nodes, e.by); err != nil {
		return false, "", err
	}
	if leaving >= max(1, e.width) {
		return false, fmt.Sprintf("pool %s: %d nodes left to drain; %d machines are being deleted", name, len(going), leaving), nil
	}
	if len(e.wait) > 0 {
		return false, fmt.Sprintf("pool %s: %d nodes left to drain; waiting for a place for %s", name, len(going), few(e.wait)), nil
	}
	var empty []intent.MachineIntent
	var parts []string
	for i := 0; i < max(1, e.width)-leaving && i < len(going); i++ {
		m := going[len(going)-1-i]
		left, blocked, err := e.live.Drain(ctx, m.NodeName)
		switch {
		case err != nil:
			return false, "", err
		case len(left) == 0:
			empty = append(empty, m)
		case blocked != "":
			parts = append(parts, fmt.Sprintf("%s has %d pods left, %s", m.NodeName, len(left), blocked))
		default:
			parts = append(parts, fmt.Sprintf("%s has %d pods left", m.NodeName, len(left)))
		}
	}
	if len(empty) > 0 {
		var ops []clientv3.Op
		for _, m := range empty {
			ops = append(ops, clientv3.OpDelete(intent.MachineIntentKey(m.ClusterUID, m.Pool, m.Name)))
			parts = append(parts, m.NodeName+" is empty and goes")
		}
		pool.Doc.Set(float64(len(have)-len(empty)), "properties", "count")
		pool.State, pool.ETag, pool.ChangedAt = "Scaling", rp.NewGUID(), p.env.Now().UTC()
		resp, err := p.env.Store.KV.Txn(ctx).If(rp.Unchanged(pool), rp.Exists(cluster.ParsedID())).Then(append(ops, rp.PutOp(pool))...).Commit()
		if err != nil {
			return false, "", fmt.Errorf("removing nodes of pool %s: %w", name, err)
		}
		if !resp.Succeeded {
			return false, fmt.Sprintf("pool %s: %d nodes left to drain", name, len(going)), nil // the next step looks again
		}
	}
	return false, fmt.Sprintf("pool %s: %d nodes left to drain; %s", name, len(going), strings.Join(parts, "; ")), nil
}

// progressed notes an operation's progress. It says how long it has been the
// same, and whether the note has to be saved.
func (p *Provider) progressed(op *rp.Operation, progress string) (same time.Duration, save bool) {
	now := p.env.Now().UTC()
	since, err := time.Parse(time.RFC3339Nano, op.Data.Str("since"))
	if err == nil && op.Data.Str("progress") == progress {
		return now.Sub(since), false
	}
	op.Data = op.Data.Clone()
	op.Data["progress"], op.Data["since"] = progress, now.Format(time.RFC3339Nano)
	return 0, true
}
