// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

// Package eviction cordons and drains nodes as AKS and the cluster autoscaler do,
// with kubectl's drain helper and the eviction API.
package eviction

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
)

// helper returns kubectl's drain helper with AKS's settings: all pods but those of
// DaemonSets are evicted, with their own grace periods.
func helper(ctx context.Context, client kubernetes.Interface) *drain.Helper {
	return &drain.Helper{Ctx: ctx, Client: client, Force: true, IgnoreAllDaemonSets: true, DeleteEmptyDirData: true, GracePeriodSeconds: -1, Out: io.Discard, ErrOut: io.Discard}
}

// Cordon cordons a node, or uncordons it if cordon is false. A missing node is not
// an error.
func Cordon(ctx context.Context, client kubernetes.Interface, name string, cordon bool) error {
	node, err := client.CoreV1().Nodes().Get(ctx, name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("reading node %s: %w", name, err)
	}
	if err := drain.RunCordonOrUncordon(helper(ctx, client), node, cordon); err != nil {
		return fmt.Errorf("cordoning or uncordoning node %s: %w", name, err)
	}
	return nil
}

// maxLeft is how many of the pods that are left Evict lists.
const maxLeft = 5

// Evict tries once to evict the pods of a node, and returns which pods are left and
// why. It returns nil once the node is drained. Pods of DaemonSets do not count, nor
// do pods created since the drain began that tolerate the cordon: they would always
// come back. With ignorePDBs it deletes the pods instead, regardless of any
// PodDisruptionBudget.
func Evict(ctx context.Context, client kubernetes.Interface, node string, since time.Time, ignorePDBs bool) ([]string, error) {
	h := helper(ctx, client)
	list, errs := h.GetPodsForDeletion(node)
	if len(errs) > 0 {
		return nil, fmt.Errorf("listing the pods of node %s: %w", node, errors.Join(errs...))
	}
	var blocked, ending []string
	for _, pod := range list.Pods() {
		name := pod.Namespace + "/" + pod.Name
		if !pod.CreationTimestamp.Time.Before(since.Truncate(time.Second)) && toleratesCordon(pod) {
			continue
		}
		if pod.DeletionTimestamp != nil {
			ending = append(ending, "pod "+name+" is still terminating")
			continue
		}
		var err error
		if ignorePDBs {
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

// toleratesCordon reports whether a pod can be bound to a cordoned node.
func toleratesCordon(pod corev1.Pod) bool {
	for _, t := range pod.Spec.Tolerations {
		if t.Operator == corev1.TolerationOpExists && (t.Key == "" || t.Key == corev1.TaintNodeUnschedulable) && (t.Effect == "" || t.Effect == corev1.TaintEffectNoSchedule) {
			return true
		}
	}
	return false
}

// refusal returns why an eviction was refused, including the budgets involved.
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
