// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package controlplane

import (
	"fmt"
	"net"
	"os"
	"strconv"

	"github.com/nap-aks/nap/localazure/home"
	"github.com/nap-aks/nap/localazure/intent"
	"github.com/nap-aks/nap/localazure/pki"
	"github.com/nap-aks/nap/localazure/tunnel"
)

// EtcdPrefix is the prefix of a managed cluster's objects in etcd.
func EtcdPrefix(uid string) string { return "/kube/" + uid }

// Identities that have a kubeconfig of their own besides the programs. The
// fleet acts as the kubelets and cloud controllers of all nodes, so it is a
// member of system:masters.
const (
	IdentitySupervisor = "supervisor"
	IdentityFleet      = "fleet"
	IdentityController = "controller"
)

// ControlPlane holds what a managed cluster's control plane needs to start: its
// port and its files.
type ControlPlane struct {
	Endpoint string // https://127.0.0.1:port
	// Version is the Kubernetes version that the programs report, without v.
	Version string
	// AdminKubeconfig and UserKubeconfig are kubeconfigs for people.
	AdminKubeconfig, UserKubeconfig []byte

	home          home.Home
	uid           string
	port          int
	caFile        string
	serving       pki.Pair
	saKey, saPub  string // files of the service account signing key
	schedulerFile string
	egressFile    string // empty without a tunnel into the cluster
	emulation     []string
}

// Prepare writes the files of a control plane, or renews those that changed or
// are about to expire.
func Prepare(h home.Home, ci intent.ClusterIntent, port int) (*ControlPlane, error) {
	p := &ControlPlane{home: h, uid: ci.UID, port: port, Endpoint: fmt.Sprintf("https://127.0.0.1:%d", port), Version: ci.KubernetesVersion}
	if err := p.prepare(ci); err != nil {
		return nil, fmt.Errorf("cluster %s: %w", ci.Name, err)
	}
	return p, nil
}

func (p *ControlPlane) prepare(ci intent.ClusterIntent) error {
	if err := os.MkdirAll(p.home.ClusterPath(ci.UID), 0o700); err != nil {
		return err
	}
	var err error
	if p.emulation, err = EmulationArgs(ci.KubernetesVersion); err != nil {
		return err
	}
	pkiDir := p.home.ClusterPath(ci.UID, "pki")
	ca, err := pki.OpenAuthority(pkiDir, "ca-"+ci.UID)
	if err != nil {
		return err
	}
	p.caFile = ca.CAFile()
	serviceIP, err := firstIP(serviceCIDR(ci))
	if err != nil {
		return err
	}
	hosts := []string{"localhost", "127.0.0.1", "kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local", serviceIP}
	if ci.FQDN != "" {
		hosts = append(hosts, ci.FQDN)
	}
	if p.serving, err = ca.Server("apiserver", hosts...); err != nil {
		return err
	}
	if p.saKey, p.saPub, err = pki.SigningKey(pkiDir, "service-account"); err != nil {
		return err
	}
	if err := p.writeKubeconfigs(ci, ca); err != nil {
		return err
	}
	p.schedulerFile = p.home.ClusterPath(ci.UID, "scheduler.yaml")
	if err := home.WriteFile(p.schedulerFile, []byte(schedulerConfig(p.Kubeconfig(Scheduler))), 0o600); err != nil {
		return err
	}
	if socket := p.home.TunnelSocket(ci.UID); tunnel.CheckSocket(socket) == nil { // the fleet warns of a path that is too long
		p.egressFile = p.home.ClusterPath(ci.UID, "egress.yaml")
		return home.WriteFile(p.egressFile, []byte(egressConfig(socket)), 0o600)
	}
	return nil
}

// writeKubeconfigs writes a kubeconfig per program and identity, and those for
// people. User names are the ones that Kubernetes' RBAC rules refer to, where
// they do.
func (p *ControlPlane) writeKubeconfigs(ci intent.ClusterIntent, ca *pki.Authority) error {
	caPEM, err := os.ReadFile(p.caFile)
	if err != nil {
		return err
	}
	for _, id := range []struct {
		name, user string
		groups     []string
	}{
		{ControllerManager, "system:kube-controller-manager", nil},
		{Scheduler, "system:kube-scheduler", nil},
		{IdentitySupervisor, "nap:supervisor", []string{"system:masters"}},
		{IdentityFleet, "nap:fleet", []string{"system:masters"}},
		{IdentityController, "node-auto-provisioning", []string{"system:masters"}},
	} {
		cert, err := ca.Client(id.name, id.user, id.groups...)
		if err != nil {
			return err
		}
		b, err := kubeconfig(ci.Name, ci.Name, id.user, p.Endpoint, caPEM, cert)
		if err == nil {
			err = home.WriteFile(p.Kubeconfig(id.name), b, 0o600)
		}
		if err != nil {
			return fmt.Errorf("kubeconfig of %s: %w", id.name, err)
		}
	}
	admin, err := ca.Client("admin", "masterclient", "system:masters")
	if err != nil {
		return err
	}
	if p.AdminKubeconfig, err = kubeconfig(ci.Name, ci.Name+"-admin", "clusterAdmin_"+ci.ResourceGroup+"_"+ci.Name, p.Endpoint, caPEM, admin); err != nil {
		return err
	}
	// Without Entra ID, AKS's user credential is a local account with all rights too.
	user, err := ca.Client("user", "clusterUser", "system:masters")
	if err != nil {
		return err
	}
	if p.UserKubeconfig, err = kubeconfig(ci.Name, ci.Name, "clusterUser_"+ci.ResourceGroup+"_"+ci.Name, p.Endpoint, caPEM, user); err != nil {
		return err
	}
	return home.WriteFile(p.home.ClusterPath(ci.UID, "admin.kubeconfig"), p.AdminKubeconfig, 0o600)
}

// Kubeconfig returns the kubeconfig file of a program or identity.
func (p *ControlPlane) Kubeconfig(name string) string { return KubeconfigFile(p.home, p.uid, name) }

// KubeconfigFile returns the kubeconfig file of a cluster's program or identity.
func KubeconfigFile(h home.Home, uid, name string) string {
	return h.ClusterPath(uid, name+".kubeconfig")
}

// egressConfig sends the API server's connections to kubelets, aggregated APIs
// and pods through the tunnel.
func egressConfig(socket string) string {
	return `apiVersion: apiserver.k8s.io/v1beta1
kind: EgressSelectorConfiguration
egressSelections:
- name: cluster
  connection:
    proxyProtocol: HTTPConnect
    transport:
      uds:
        udsName: ` + strconv.Quote(socket) + "\n"
}

func schedulerConfig(kubeconfig string) string {
	return `apiVersion: kubescheduler.config.k8s.io/v1
kind: KubeSchedulerConfiguration
leaderElection:
  leaderElect: false
enableProfiling: false
clientConnection:
  kubeconfig: ` + kubeconfig + `
  qps: 400
  burst: 800
podInitialBackoffSeconds: 1
podMaxBackoffSeconds: 3
`
}

// serviceCIDR returns the cluster's service range, or AKS's default.
func serviceCIDR(ci intent.ClusterIntent) string {
	if ci.ServiceCIDR != "" {
		return ci.ServiceCIDR
	}
	return "10.0.0.0/16"
}

func firstIP(cidr string) (string, error) {
	ip, _, err := net.ParseCIDR(cidr)
	if err != nil {
		return "", fmt.Errorf("service range %q: %w", cidr, err)
	}
	v4 := ip.To4()
	if v4 == nil {
		return "", fmt.Errorf("service range %q is not IPv4, the only family that the local Azure supports", cidr)
	}
	v4[3]++
	return v4.String(), nil
}
