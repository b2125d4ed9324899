// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	"github.com/prometheus/client_golang/prometheus"
	crmetrics "sigs.k8s.io/controller-runtime/pkg/metrics"

	"github.com/nap-aks/nap/snapshot"
)

// maxQuotaSeries bounds the series of quotas: a region has a few hundred families.
const maxQuotaSeries = 100

var (
	quotaUsed = prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Namespace: "nap", Subsystem: "quota", Name: "used_vcpus",
		Help: "vCPUs used of each quota of the region that is in use, by this cluster or others.",
	}, []string{"quota"})
	quotaLimit = prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Namespace: "nap", Subsystem: "quota", Name: "limit_vcpus",
		Help: "vCPUs allowed by each quota of the region that is in use.",
	}, []string{"quota"})
	clusterCost = prometheus.NewGauge(prometheus.GaugeOpts{
		Namespace: "nap", Subsystem: "cluster", Name: "cost_usd_per_hour",
		Help: "Cost of all nodes whose price is known, in US dollars per hour. Needs the dashboard.",
	})
	clusterBound = prometheus.NewGauge(prometheus.GaugeOpts{
		Namespace: "nap", Subsystem: "cluster", Name: "bound_usd_per_hour",
		Help: "Proven lower bound on the cost of machines of NodePools for the pods on them, in US dollars per hour. Needs the dashboard.",
	})
	clusterGap = prometheus.NewGauge(prometheus.GaugeOpts{
		Namespace: "nap", Subsystem: "cluster", Name: "gap_ratio",
		Help: "Cost of the machines of NodePools above the proven bound, as a share of the bound. Needs the dashboard.",
	})
)

func init() {
	crmetrics.Registry.MustRegister(quotaUsed, quotaLimit, clusterCost, clusterBound, clusterGap)
}

// measureQuotas sets the gauges of the quotas and returns them.
func measureQuotas(list []snapshot.Quota) []snapshot.Quota {
	quotaUsed.Reset()
	quotaLimit.Reset()
	series := 0
	for _, q := range list {
		if q.Used > 0 && series < maxQuotaSeries {
			quotaUsed.WithLabelValues(q.Name).Set(float64(q.Used))
			quotaLimit.WithLabelValues(q.Name).Set(float64(q.Limit))
			series++
		}
	}
	return list
}
