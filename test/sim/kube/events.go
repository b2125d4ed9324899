// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	typedcore "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/tools/events"
	"k8s.io/klog/v2"
)

// withoutEvents is a client that records no events. Nobody in a simulation reads
// the events of Kubernetes' own components, and they are half of all writes.
type withoutEvents struct{ kubernetes.Interface }

// CoreV1 implements kubernetes.Interface.
func (c withoutEvents) CoreV1() typedcore.CoreV1Interface {
	return coreWithoutEvents{c.Interface.CoreV1()}
}

type coreWithoutEvents struct{ typedcore.CoreV1Interface }

// Events implements typedcore.EventsGetter.
func (c coreWithoutEvents) Events(namespace string) typedcore.EventInterface {
	return noEvents{c.CoreV1Interface.Events(namespace)}
}

// noEvents answers each write of an event as if it had been made.
type noEvents struct{ typedcore.EventInterface }

func (noEvents) Create(_ context.Context, e *corev1.Event, _ metav1.CreateOptions) (*corev1.Event, error) {
	return e, nil
}

func (noEvents) Update(_ context.Context, e *corev1.Event, _ metav1.UpdateOptions) (*corev1.Event, error) {
	return e, nil
}

func (noEvents) Patch(_ context.Context, name string, _ types.PatchType, _ []byte, _ metav1.PatchOptions, _ ...string) (*corev1.Event, error) {
	return &corev1.Event{ObjectMeta: metav1.ObjectMeta{Name: name}}, nil
}

func (noEvents) CreateWithEventNamespace(e *corev1.Event) (*corev1.Event, error) { return e, nil }
func (noEvents) UpdateWithEventNamespace(e *corev1.Event) (*corev1.Event, error) { return e, nil }
func (noEvents) PatchWithEventNamespace(e *corev1.Event, _ []byte) (*corev1.Event, error) {
	return e, nil
}

func (noEvents) CreateWithEventNamespaceWithContext(_ context.Context, e *corev1.Event) (*corev1.Event, error) {
	return e, nil
}

func (noEvents) UpdateWithEventNamespaceWithContext(_ context.Context, e *corev1.Event) (*corev1.Event, error) {
	return e, nil
}

func (noEvents) PatchWithEventNamespaceWithContext(_ context.Context, e *corev1.Event, _ []byte) (*corev1.Event, error) {
	return e, nil
}

// noRecorder is the scheduler's recorder of events that are not wanted.
type noRecorder struct{}

// Eventf implements events.EventRecorder.
func (noRecorder) Eventf(runtime.Object, runtime.Object, string, string, string, string, ...any) {}

// WithLogger implements events.EventRecorderLogger.
func (r noRecorder) WithLogger(klog.Logger) events.EventRecorderLogger { return r }
