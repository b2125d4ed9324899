// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package provisioning

import (
	"github.com/prometheus/client_golang/prometheus"
	crmetrics "sigs.k8s.io/controller-runtime/pkg/metrics"
)

// Karpenter's metrics keep their names; these measure what Karpenter has no metric
// for.
var (
	verdicts = prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Namespace: "nap", Subsystem: "provisioner", Name: "verdicts",
		Help: "Pods by their verdict in the last pass that had pending pods; code is the reason of a refusal.",
	}, []string{"outcome", "code"})
	deferredTotal = prometheus.NewCounterVec(prometheus.CounterOpts{
		Namespace: "nap", Subsystem: "provisioner", Name: "deferred_pods_total",
		Help: "Pods handed to Karpenter's scheduler because the engine does not support a feature that they need.",
	}, []string{"feature"})
	passSeconds = prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Namespace: "nap", Subsystem: "provisioner", Name: "pass_seconds",
		Help:    "Duration of the parts of a provisioning pass.",
		Buckets: prometheus.ExponentialBuckets(0.0005, 2, 18),
	}, []string{"part"})
	expiredTotal = prometheus.NewCounterVec(prometheus.CounterOpts{
		Namespace: "nap", Subsystem: "provisioner", Name: "promises_broken_total",
		Help: "Assumed pods whose place was taken back before they were bound.",
	}, []string{"why"})
	heldPods = prometheus.NewGauge(prometheus.GaugeOpts{
		Namespace: "nap", Subsystem: "provisioner", Name: "held_pods",
		Help: "Pending pods that are not planned for now because machines or nodes planned for pods like them did not take them.",
	})
	cancelledTotal = prometheus.NewCounterVec(prometheus.CounterOpts{
		Namespace: "nap", Subsystem: "provisioner", Name: "machines_cancelled_total",
		Help: "NodeClaims deleted before their node had registered: Revised in favour of a cheaper plan, NotNeeded by any pod any more.",
	}, []string{"why"})
)

func init() {
	crmetrics.Registry.MustRegister(heldPods, verdicts, deferredTotal, passSeconds, expiredTotal, cancelledTotal)
}
