// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package controlplane

import (
	"strconv"
	"strings"

	"github.com/nap-aks/nap/localazure/home"
	"github.com/nap-aks/nap/localazure/intent"
)

// APIServerArgs returns the API server's command line.
func (p *ControlPlane) APIServerArgs(ci intent.ClusterIntent, etcd home.EtcdClient) []string {
	args := []string{
		"--etcd-servers=" + strings.Join(etcd.Endpoints, ","),
		"--etcd-cafile=" + etcd.CAFile, "--etcd-certfile=" + etcd.CertFile, "--etcd-keyfile=" + etcd.KeyFile,
		"--etcd-prefix=" + EtcdPrefix(ci.UID),
		// etcd is back a second or two after a kill -9: the API server should not
		// become unready at once.
		"--etcd-readycheck-timeout=10s", "--etcd-healthcheck-timeout=10s",
		"--etcd-count-metric-poll-period=0", "--etcd-db-metric-poll-interval=0",
		"--bind-address=127.0.0.1", "--secure-port=" + strconv.Itoa(p.port),
		// Pods of simulated nodes never dial this address, and without a reconciler
		// nothing publishes it; it only must not be a loopback one.
		"--advertise-address=10.224.0.2", "--endpoint-reconciler-type=none",
		"--tls-cert-file=" + p.serving.CertFile, "--tls-private-key-file=" + p.serving.KeyFile,
		"--client-ca-file=" + p.caFile,
		"--authorization-mode=Node,RBAC",
		"--enable-admission-plugins=NodeRestriction",
		"--allow-privileged=true",
		"--service-cluster-ip-range=" + serviceCIDR(ci),
		"--service-account-issuer=https://" + issuerHost(ci) + "/",
		"--service-account-key-file=" + p.saPub, "--service-account-signing-key-file=" + p.saKey,
		"--max-requests-inflight=800", "--max-mutating-requests-inflight=400",
		"--event-ttl=1h", "--profiling=false",
	}
	if p.egressFile != "" {
		args = append(args, "--egress-selector-config-file="+p.egressFile)
	}
	return append(args, p.emulation...)
}

func issuerHost(ci intent.ClusterIntent) string {
	if ci.FQDN != "" {
		return ci.FQDN
	}
	return ci.UID + ".nap.local"
}

// ControllerManagerArgs returns the controller manager's command line. The
// controllers left out have nothing to do here: no node CIDRs (the fleet
// assigns addresses), no certificates of kubelets, no volumes that grow.
func (p *ControlPlane) ControllerManagerArgs() []string {
	controllers := []string{"*"}
	for _, name := range []string{
		"certificatesigningrequest-signing-controller", "certificatesigningrequest-approving-controller",
		"certificatesigningrequest-cleaner-controller", "node-ipam-controller", "legacy-serviceaccount-token-cleaner-controller",
		"storage-version-migrator-controller", "kube-apiserver-serving-clustertrustbundle-publisher-controller",
		"podcertificaterequest-cleaner-controller", "device-taint-eviction-controller", "persistentvolume-expander-controller",
	} {
		controllers = append(controllers, "-"+name)
	}
	return append([]string{
		"--kubeconfig=" + p.Kubeconfig(ControllerManager),
		"--leader-elect=false", "--secure-port=0",
		// Each controller has its own identity, and with it its own share of
		// requests.
		"--use-service-account-credentials=true",
		"--service-account-private-key-file=" + p.saKey, "--root-ca-file=" + p.caFile,
		"--controllers=" + strings.Join(controllers, ","),
		"--kube-api-qps=400", "--kube-api-burst=800",
		"--concurrent-deployment-syncs=10", "--concurrent-replicaset-syncs=20", "--concurrent-job-syncs=10",
		"--concurrent-endpoint-syncs=5", "--concurrent-service-endpoint-syncs=5", "--concurrent-gc-syncs=10",
		"--profiling=false",
	}, p.emulation...)
}

// SchedulerArgs returns the scheduler's command line.
func (p *ControlPlane) SchedulerArgs() []string {
	return append([]string{"--config=" + p.schedulerFile, "--secure-port=0"}, p.emulation...)
}
