// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

// Package apiserver is a Kubernetes API in memory for simulations. Real clients
// (client-go, controller-runtime, kube-scheduler) reach it through a
// http.RoundTripper in the same process: no sockets and no system calls. All waiting
// is by package time and channels, so it lives on the time of a testing/synctest
// bubble.
//
// It has what those clients rely on: JSON and protobuf, discovery, resource versions
// and conflicts, watches that resume or start with the present objects, selectors,
// paged lists, the subresources status, binding, eviction, resize and scale,
// finalizers and graceful deletion, generations, the API server's own defaults and
// validation of new built-in objects, admission (priorities, tolerations, RuntimeClass,
// default storage class, taints of new nodes, topology labels of pods), and custom
// resources with pruning, defaults and validation rules by the API server's own code.
//
// It leaves out authentication, authorization, audit, webhooks, LimitRange and
// ResourceQuota, service accounts' tokens, addresses of Services, OpenAPI documents,
// tables, the immutability of parts of built-in objects (a pod's spec, a Deployment's
// selector), conversion between versions (only the stored version of a custom resource is
// served; events and events.k8s.io are separate), and owners of fields: server-side
// apply is a merge that creates what is missing and removes nothing.
//
// Objects are immutable once committed. Each is encoded once for each format, and all
// answers and watches share the bytes.
package apiserver
