// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package fleet

import (
	"context"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/nap-aks/nap/localazure/eviction"
	"github.com/nap-aks/nap/localazure/intent"
)

// drainEvery is the interval at which a drain checks the pods that are left and
// retries evictions that a budget refused.
const drainEvery = time.Second

// drain takes one step towards what the intent says about draining the node:
// cordon and evict, or uncordon. It returns when to call it again, or 0 if only a
// change of the intent requires that.
func (m *machine) drain(ctx context.Context, client kubernetes.Interface, mi intent.MachineIntent) (time.Duration, error) {
	was := m.status.Drain
	if mi.Drain == nil {
		if was == nil {
			return 0, nil
		}
		if err := eviction.Cordon(ctx, client, mi.NodeName, false); err != nil {
			return 0, err
		}
		m.status.Drain = nil
		return 0, m.put(ctx, m.status.Phase, "", "")
	}
	if was == nil || !was.Since.Equal(mi.Drain.Since) {
		// Record the drain before it starts, so that a restarted fleet knows what to undo.
		if err := m.putDrain(ctx, mi, intent.Draining, ""); err != nil {
			return 0, err
		}
		m.event(ctx, client, corev1.EventTypeNormal, "Draining node: "+mi.NodeName)
	}
	if m.status.Drain.State == intent.DrainFailed || m.status.Drain.State == intent.Drained {
		return 0, nil
	}
	if err := eviction.Cordon(ctx, client, mi.NodeName, true); err != nil {
		return 0, err
	}
	left, err := eviction.Evict(ctx, client, mi.NodeName, mi.Drain.Since, mi.Drain.IgnorePDBs)
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

// event writes an event on the Node, as AKS's upgrader does. Events are for people:
// nothing depends on them.
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
		m.c.f.Logger.Debug("writing event failed", "node", m.nodeName, "error", err)
	}
}
