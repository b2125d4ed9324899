package containerservice

import (
	"context"
	"errors"
	"fmt"
	"sort"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/nap-aks/nap/localazure/arm/rp"
	"github.com/nap-aks/nap/localazure/intent"
)

const (
	// madeAnnotation names, on what a migration has created in a cluster, the
	// operation that did, and cordonAnnotation on a node the one that cordoned
	// it: giving up takes back that and nothing else.
	madeAnnotation   = "node-auto-provisioning.local/made-by"
	cordonAnnotation = "node-auto-provisioning.local/cordoned-by"
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

// ofDaemonSet tells the pods that belong to a node: they go with it, and come
// with the next.
func ofDaemonSet(p *unstructured.Unstructured) bool {
	for _, o := range p.GetOwnerReferences() {
		if o.Controller != nil && *o.Controller && o.Kind == "DaemonSet" {
			return true
		}
	}
	return false
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
		if node, _, _ := unstructured.NestedString(p.Object, "spec", "nodeName"); node == "" && !ofDaemonSet(p) && p.GetDeletionTimestamp() == nil && !p.GetCreationTimestamp().Time.Before(since.Truncate(time.Second)) {
			out = append(out, p.GetNamespace()+"/"+p.GetName())
		}
	}
	sort.Strings(out)
	return out, nil
}

// NodeClaims implements Live.
func (l liveCluster) NodeClaims(ctx context.Context) ([]string, error) {
	claims, err := l.list(ctx, nodeClaims, "")
	if err != nil {
		return nil, err
	}
	var out []string
	for _, c := range claims {
		out = append(out, c.GetName())
	}
	return out, nil
}

// Priorities implements Live.
func (l liveCluster) Priorities(ctx context.Context) (string, error) {
	m, err := l.c.Resource(schema.GroupVersionResource{Version: "v1", Resource: "configmaps"}).Namespace("kube-system").Get(ctx, "cluster-autoscaler-priority-expander", metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("reading the priorities of the cluster autoscaler: %w", err)
	}
	text, _, err := unstructured.NestedString(m.Object, "data", "priorities")
	return text, err
}

// Held implements Live.
func (l liveCluster) Held(ctx context.Context, nodes []string) ([]string, error) {
	items, err := l.list(ctx, budgetsOf, "")
	if err != nil {
		return nil, err
	}
	type budget struct {
		name, namespace string
		selector        labels.Selector
	}
	var full []budget
	for i := range items {
		var b policyv1.PodDisruptionBudget
		if err := runtime.DefaultUnstructuredConverter.FromUnstructured(items[i].Object, &b); err != nil {
			return nil, fmt.Errorf("reading PodDisruptionBudget %s/%s: %w", items[i].GetNamespace(), items[i].GetName(), err)
		}
		selector, err := metav1.LabelSelectorAsSelector(b.Spec.Selector)
		if err != nil || b.Status.DisruptionsAllowed > 0 {
			continue // a selector that is not one selects nothing
		}
		full = append(full, budget{b.Name, b.Namespace, selector})
	}
	var out []string
	for _, node := range nodes {
		pods, err := l.pods(ctx, "spec.nodeName="+node)
		if err != nil {
			return nil, err
		}
		for i := range pods {
			p := &pods[i]
			if ofDaemonSet(p) || p.GetDeletionTimestamp() != nil {
				continue
			}
			key := p.GetNamespace() + "/" + p.GetName()
			if p.GetAnnotations()["karpenter.sh/do-not-disrupt"] == "true" {
				out = append(out, "pod "+key+" (annotation karpenter.sh/do-not-disrupt)")
			}
			for _, b := range full {
				if b.namespace == p.GetNamespace() && b.selector.Matches(labels.Set(p.GetLabels())) {
					out = append(out, "pod "+key+" (PodDisruptionBudget "+b.name+")")
				}
			}
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
	// keep is how many nodes stay: those with the lowest numbers.
	keep int
	// width is how many are drained at a time.
	width int
	// wait says pods that were moved and still have no place: no further node
	// is begun before they do.
	wait []string
}

// emptyPool drains the nodes of a pool that are one too many, the newest first,
// and removes those that are empty by lowering the pool's count. None of them
// takes pods any more from the beginning, so that no pod moves twice. It does
// one step and says what it waits for, or that all is done: nodes and machines
// are gone.
func (p *Provider) emptyPool(ctx context.Context, op *rp.Operation, cluster, pool *rp.Record, e emptying) (done bool, waiting string, err error) {
	s, err := p.look(ctx, op, cluster, pool)
	if err != nil {
		return false, "", err
	}
	if len(s.nodes) <= e.keep {
		if s.gone > 0 {
			return false, fmt.Sprintf("pool %s: %d machines are being deleted", s.name, s.gone), nil
		}
		return true, "", nil
	}
	going := s.nodes[e.keep:]
	var names []string
	for _, n := range going {
		names = append(names, n.NodeName)
	}
	if err := e.live.Cordon(ctx, names, op.ID); err != nil {
		return false, "", err
	}
	width := max(1, e.width)
	if s.gone >= width {
		return false, fmt.Sprintf("pool %s: %d nodes left to drain; %d machines are being deleted", s.name, len(going), s.gone), nil
	}
	var ask, empty []*node
	var parts []string
	for i := 0; i < width-s.gone && i < len(going); i++ {
		n := going[len(going)-1-i]
		switch state := n.drain(); {
		case state == intent.Drained, !n.up && n.status.Phase != intent.MachineRunning: // or it has not come up at all
			empty = append(empty, n)
			parts = append(parts, n.NodeName+" is empty and goes")
			continue
		case n.Drain == nil && len(e.wait) > 0: // those that were begun go on
			parts = append(parts, "waiting for a place for "+few(e.wait))
			continue
		case n.Drain == nil, state == intent.DrainFailed:
			n.Drain = &intent.Drain{Since: p.env.Now().UTC(), Timeout: 2 * stuckAfter}
			ask = append(ask, n)
		}
		text := n.NodeName + " is being drained"
		if n.status.Drain != nil && n.status.Drain.Message != "" {
			text += ", " + n.status.Drain.Message
		}
		parts = append(parts, text)
	}
	if err := s.write(ask); err != nil {
		return false, "", err
	}
	if len(empty) > 0 {
		var ops []clientv3.Op
		for _, m := range empty {
			ops = append(ops, clientv3.OpDelete(intent.MachineIntentKey(m.ClusterUID, m.Pool, m.Name)))
		}
		pool.Doc.Set(float64(len(s.nodes)-len(empty)), "properties", "count")
		pool.State, pool.ETag, pool.ChangedAt = "Scaling", rp.NewGUID(), p.env.Now().UTC()
		// If it changed meanwhile, the next step looks again.
		if _, err := p.env.Store.KV.Txn(ctx).If(rp.Unchanged(pool), rp.Exists(cluster.ParsedID())).Then(append(ops, rp.PutOp(pool))...).Commit(); err != nil {
			return false, "", fmt.Errorf("removing nodes of pool %s: %w", s.name, err)
		}
	}
	return false, fmt.Sprintf("pool %s: %d nodes left to drain; %s", s.name, len(going), strings.Join(parts, "; ")), nil
}

// progressed notes an operation's progress. It says how long it has been the
// same, and whether the note has to be saved.
func (p *Provider) progressed(op *rp.Operation, text string) (same time.Duration, save bool) {
	now := p.env.Now().UTC()
	since, err := time.Parse(time.RFC3339Nano, op.Data.Str("since"))
	if err == nil && op.Data.Str("at") == text {
		return now.Sub(since), false
	}
	op.Data = op.Data.Clone()
	op.Data["progress"], op.Data["at"], op.Data["since"] = text, text, now.Format(time.RFC3339Nano)
	return 0, true
}

// explained adds to an operation's progress why there is none; the clock of
// progressed goes on. It says whether the note has to be saved.
func explained(op *rp.Operation, why string) bool {
	text := op.Data.Str("at") + "; " + why
	if op.Data.Str("progress") == text {
		return false
	}
	op.Data = op.Data.Clone()
	op.Data["progress"] = text
	return true
}
