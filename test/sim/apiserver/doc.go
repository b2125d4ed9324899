// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

// Package apiserver is a Kubernetes API in memory for simulations. Real clients
// (client-go, controller-runtime, the kube-scheduler) reach it through a
// http.RoundTripper in the same process: no sockets, no system calls, and all waiting
// is by package time and channels, so that it lives on the time of a testing/synctest
// bubble.
//
// It keeps what those clients rely on: resource versions, conflicts, watches that
// resume, the status, binding, eviction and scale subresources, finalizers and
// graceful deletion, defaults and priorities, and for custom resources the defaults
// and validation rules of their definitions. It leaves out authentication, audit,
// quotas and webhooks. Server-side apply is a merge that creates what is missing: it
// keeps no field owners.
package apiserver
