package fleet

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/kubectl/pkg/drain"

	"github.com/nap-aks/nap/arm/intent"
)

// drainEvery is how often the pods of a node that is being drained are looked
// at, and evictions that a budget refused are tried again.
const drainEvery = time.Second

// helper is kubectl's drain, as AKS uses it: all pods go but those of
// DaemonSets, with the time to end that they ask for.
func helper(ctx context.Context, client kubernetes.Interface) *drain.Helper {
	return &drain.Helper{Ctx: ctx, Client: client, Force: true, IgnoreAllDaemonSets: true, DeleteEmptyDirData: true, GracePeriodSeconds: -1, Out: io.Discard, ErrOut: io.Discard}
}

// drain takes one step of what the intent says about emptying the node, or
// lets it take pods again. It returns when to look again, 0 for not by itself.
func (m *machine) drain(ctx context.Context, client kubernetes.Interface, mi intent.MachineIntent) (time.Duration, error) {
	was := m.status.Drain
	if mi.Drain == nil {
		if was == nil {
			return 0, nil
		}
		if err := cordon(ctx, client, mi.NodeName, false); err != nil {
			return 0, err
		}
		m.status.Drain = nil
		return 0, m.put(ctx, m.status.Phase, "", "")
	}
	if was == nil || !was.Since.Equal(mi.Drain.Since) {
		// What is begun is noted first: whoever goes on knows what to undo.
		if err := m.putDrain(ctx, mi, intent.Draining, ""); err != nil {
			return 0, err
		}
		m.event(ctx, client, corev1.EventTypeNormal, "Draining node: "+mi.NodeName)
	}
	if m.status.Drain.State == intent.DrainFailed || m.status.Drain.State == intent.Drained {
		return 0, nil
	}
	if err := cordon(ctx, client, mi.NodeName, true); err != nil {
		return 0, err
	}
	left, err := evict(ctx, client, mi)
	if err != nil {
		return 0, err
	}
	switch {
	case len(left) == 0:
		m.event(ctx, client, corev1.EventTypeNormal, "Successfully drained node: "+mi.NodeName)
		return 0, m.putDrain(ctx, mi, intent.Drained, "")
	case time.Since(mi.Drain.Since) > mi.Drain.Timeout:
		text := strings.Join(left, "; ")
		m.event(ctx, client, corev1.EventTypeWarning, "Failed to drain node: "+mi.NodeName+": "+text)
		return 0, m.putDrain(ctx, mi, intent.DrainFailed, text)
	}
	if text := strings.Join(left, "; "); text != m.status.Drain.Message {
		m.event(ctx, client, corev1.EventTypeWarning, "Eviction blocked on node "+mi.NodeName+": "+text)
		if err := m.putDrain(ctx, mi, intent.Draining, text); err != nil {
			return 0, err
		}
	}
	return drainEvery, nil
}

func (m *machine) putDrain(ctx context.Context, mi intent.MachineIntent, state intent.DrainState, message string) error {
	m.status.Drain = &intent.DrainStatus{Since: mi.Drain.Since, State: state, Message: message, At: time.Now().UTC()}
	return m.put(ctx, m.status.Phase, "", "")
}

func cordon(ctx context.Context, client kubernetes.Interface, name string, desired bool) error {
	node, err := client.CoreV1().Nodes().Get(ctx, name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("reading node %s: %w", name, err)
	}
	if err := drain.RunCordonOrUncordon(helper(ctx, client), node, desired); err != nil {
		return fmt.Errorf("changing whether node %s takes pods: %w", name, err)
	}
	return nil
}

// maxLeft is the most pods that are named of those that are left.
const maxLeft = 5

// evict asks all pods of a node to go, and says of those that are left why.
func evict(ctx context.Context, client kubernetes.Interface, mi intent.MachineIntent) ([]string, error) {
	h := helper(ctx, client)
	list, errs := h.GetPodsForDeletion(mi.NodeName)
	if len(errs) > 0 {
		return nil, fmt.Errorf("listing the pods of node %s: %w", mi.NodeName, errors.Join(errs...))
	}
	var blocked, ending []string
	for _, pod := range list.Pods() {
		name := pod.Namespace + "/" + pod.Name
		if pod.DeletionTimestamp != nil {
			ending = append(ending, "pod "+name+" is still terminating")
			continue
		}
		var err error
		if mi.Drain.IgnorePDBs {
			err = h.DeletePod(pod)
		} else {
			err = h.EvictPod(pod, policyv1.SchemeGroupVersion)
		}
		switch {
		case apierrors.IsNotFound(err):
		case apierrors.IsTooManyRequests(err), apierrors.IsForbidden(err) && apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause):
			blocked = append(blocked, "eviction of pod "+name+" is refused: "+refusal(err))
		case err != nil:
			return nil, fmt.Errorf("evicting pod %s: %w", name, err)
		default:
			ending = append(ending, "pod "+name+" is still terminating")
		}
	}
	slices.Sort(blocked)
	slices.Sort(ending)
	left := append(blocked, ending...)
	if more := len(left) - maxLeft; more > 0 {
		left = append(left[:maxLeft:maxLeft], fmt.Sprintf("%d more pods", more))
	}
	return left, nil
}

// refusal is why an eviction was refused, with the budgets that did.
func refusal(err error) string {
	var status apierrors.APIStatus
	text := strings.TrimSuffix(err.Error(), ".")
	if errors.As(err, &status) && status.Status().Details != nil {
		for _, c := range status.Status().Details.Causes {
			text += " (" + c.Message + ")"
		}
	}
	return text
}

// event tells on the Node what is being done to it, as AKS's upgrader does. It
// is for people, so nothing depends on it.
func (m *machine) event(ctx context.Context, client kubernetes.Interface, kind, text string) {
	if len(text) > 1000 {
		text = text[:1000]
	}
	now := metav1.Now()
	e := &corev1.Event{
		ObjectMeta:     metav1.ObjectMeta{GenerateName: m.name + ".", Namespace: metav1.NamespaceDefault},
		InvolvedObject: corev1.ObjectReference{Kind: "Node", Name: m.nodeName, UID: "", APIVersion: "v1"},
		Reason:         "Drain", Message: text, Type: kind, Source: corev1.EventSource{Component: "upgrader"},
		FirstTimestamp: now, LastTimestamp: now, Count: 1,
	}
	if _, err := client.CoreV1().Events(e.Namespace).Create(ctx, e, metav1.CreateOptions{}); err != nil {
		m.c.f.Logger.Debug("event not written", "node", m.nodeName, "error", err)
	}
}
