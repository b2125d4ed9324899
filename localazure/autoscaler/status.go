// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package autoscaler

import (
	"fmt"
	"math/rand/v2"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"
)

// writeStatus writes the status ConfigMap in upstream's format.
func (s *scaler) writeStatus(l *observation) error {
	stamp := l.now.UTC().Format(time.RFC3339)
	counts := func(gs ...*Group) map[string]any {
		total, up, unready := 0, 0, 0
		for _, g := range gs {
			for _, in := range g.Instances {
				n := l.nodes[in.Node]
				switch {
				case n == nil:
				case ready(n):
					total, up = total+1, up+1
				default:
					total, unready = total+1, unready+1
				}
			}
		}
		return map[string]any{"registered": map[string]any{"total": total, "ready": up, "notStarted": unready}}
	}
	var all []*Group
	groups := []any{}
	for i := range l.groups {
		g := &l.groups[i]
		all = append(all, g)
		up := "NoActivity"
		switch {
		case l.now.Before(s.backoff[g.Name]):
			up = "Backoff"
		case l.upcoming[g.Name] > 0:
			up = "InProgress"
		}
		unneeded := 0
		for n := range s.unneeded {
			if l.groupOf[n] == g {
				unneeded++
			}
		}
		down := map[string]any{"status": "NoCandidates", "candidates": unneeded}
		if unneeded > 0 {
			down["status"] = "CandidatesPresent"
		}
		groups = append(groups, map[string]any{"name": g.ScaleSet,
			"health":  map[string]any{"status": "Healthy", "nodeCounts": counts(g), "cloudProviderTarget": len(g.Instances), "minSize": g.Min, "maxSize": g.Max, "lastProbeTime": stamp},
			"scaleUp": map[string]any{"status": up, "lastProbeTime": stamp}, "scaleDown": down})
	}
	text, err := yaml.Marshal(map[string]any{"time": l.now.UTC().String(), "autoscalerStatus": "Running", "nodeGroups": groups,
		"clusterWide": map[string]any{"health": map[string]any{"status": "Healthy", "nodeCounts": counts(all...), "lastProbeTime": stamp},
			"scaleUp":   map[string]any{"status": s.scaleUpStatus, "lastProbeTime": stamp},
			"scaleDown": map[string]any{"status": s.scaleDownStatus, "candidates": len(s.unneeded), "lastProbeTime": stamp}}})
	if err != nil {
		return err
	}
	configMaps := s.client.CoreV1().ConfigMaps(metav1.NamespaceSystem)
	cm, err := configMaps.Get(s.ctx, statusConfigMap, metav1.GetOptions{})
	missing := apierrors.IsNotFound(err)
	if err != nil && !missing {
		return fmt.Errorf("reading the autoscaler status: %w", err)
	}
	if missing {
		cm = &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: statusConfigMap, Namespace: metav1.NamespaceSystem}}
	}
	cm.Data = map[string]string{"status": string(text)}
	cm.Annotations = map[string]string{"cluster-autoscaler.kubernetes.io/last-updated": l.now.UTC().String()}
	if missing {
		_, err = configMaps.Create(s.ctx, cm, metav1.CreateOptions{})
	} else {
		_, err = configMaps.Update(s.ctx, cm, metav1.UpdateOptions{})
	}
	if err != nil {
		return fmt.Errorf("writing the autoscaler status: %w", err)
	}
	return nil
}

// statusRef refers to the status ConfigMap, which the events of groups are on.
func statusRef() corev1.ObjectReference {
	return corev1.ObjectReference{Kind: "ConfigMap", Namespace: metav1.NamespaceSystem, Name: statusConfigMap, APIVersion: "v1"}
}

// podEvent writes an event on a pod, unless it equals the pod's last one.
func (s *scaler) podEvent(p *corev1.Pod, reason, text string) {
	if s.lastEvent[p.UID] == reason+text {
		return
	}
	s.lastEvent[p.UID] = reason + text
	s.event(corev1.ObjectReference{Kind: "Pod", Namespace: p.Namespace, Name: p.Name, UID: p.UID, APIVersion: "v1"}, corev1.EventTypeNormal, reason, text)
}

// event writes an event. Events are for people: nothing depends on them.
func (s *scaler) event(on corev1.ObjectReference, kind, reason, text string) {
	if len(text) > 1000 {
		text = text[:1000]
	}
	ns := on.Namespace
	if ns == "" {
		ns = metav1.NamespaceDefault
	}
	now := metav1.NewTime(s.now())
	e := &corev1.Event{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("%s.%x", on.Name, rand.Uint64()), Namespace: ns}, InvolvedObject: on, Reason: reason, Message: text, Type: kind,
		Source: corev1.EventSource{Component: component}, FirstTimestamp: now, LastTimestamp: now, Count: 1}
	if _, err := s.client.CoreV1().Events(ns).Create(s.ctx, e, metav1.CreateOptions{}); err != nil {
		s.log.Debug("writing event failed", "object", on.Name, "error", err)
	}
}
