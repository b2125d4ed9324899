// Package eviction empties nodes as AKS and the cluster autoscaler do, with
// kubectl's drain helper and the eviction API.
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

// helper is kubectl's drain, as AKS uses it: all pods go but those of
// DaemonSets, with the time to end that they ask for.
func helper(ctx context.Context, client kubernetes.Interface) *drain.Helper {
	return &drain.Helper{Ctx: ctx, Client: client, Force: true, IgnoreAllDaemonSets: true, DeleteEmptyDirData: true, GracePeriodSeconds: -1, Out: io.Discard, ErrOut: io.Discard}
}

// Cordon lets a node take no pods any more, or again. A node that is gone is no
// error.
func Cordon(ctx context.Context, client kubernetes.Interface, name string, desired bool) error {
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

// Evict asks the pods of a node to go, once, and says of those that are left
// why; nil means that the node is empty but for DaemonSets' pods, and for those
// that have come since the drain began because they tolerate everything: they
// would always come back. With ignorePDBs pods are deleted, which no
// PodDisruptionBudget keeps from happening.
func Evict(ctx context.Context, client kubernetes.Interface, node string, since time.Time, ignorePDBs bool) ([]string, error) {
	h := helper(ctx, client)
	list, errs := h.GetPodsForDeletion(node)
	if len(errs) > 0 {
		return nil, fmt.Errorf("listing the pods of node %s: %w", node, errors.Join(errs...))
	}
	var blocked, ending []string
	for _, pod := range list.Pods() {
		name := pod.Namespace + "/" + pod.Name
		if !pod.CreationTimestamp.Time.Before(since.Truncate(time.Second)) && toleratesAll(pod) {
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

// toleratesAll tells whether a pod can be bound to a node that takes no pods.
func toleratesAll(pod corev1.Pod) bool {
	for _, t := range pod.Spec.Tolerations {
		if t.Operator == corev1.TolerationOpExists && (t.Key == "" || t.Key == corev1.TaintNodeUnschedulable) && (t.Effect == "" || t.Effect == corev1.TaintEffectNoSchedule) {
			return true
		}
	}
	return false
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
