package supervisor

import (
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"

	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"github.com/nap-aks/nap/localazure/controlplane"
	"github.com/nap-aks/nap/localazure/intent"
	"github.com/nap-aks/nap/localazure/tunnel"
)

// etcdPrefix is where a managed cluster's objects lie in etcd.
func etcdPrefix(uid string) string { return "/kube/" + uid }

// plane is what a managed cluster's control plane needs before it can start:
// its ports, and its files, which are made when they are missing.
type plane struct {
	uid      string
	endpoint string // https://127.0.0.1:port
	port     int

	ca             string
	serving        pair
	saKey, saPub   string
	adminConfig    []byte // kubeconfigs for people
	userConfig     []byte
	componentFiles map[string]string // kubeconfig file per component
	schedulerFile  string
	egressFile     string // empty without a tunnel into the cluster
	// version is the one that the programs are told to be, without v, and
	// emulation the flags that make them so.
	version   string
	emulation []string
}

// Component identities of a control plane, by the names Kubernetes' RBAC knows
// where it knows them. The fleet plays kubelets and the cloud's controllers of
// all nodes, so it is a member of system:masters.
const (
	idSupervisor = "supervisor"
	idFleet      = "fleet"
	idController = "controller"
)

// preparePlane makes or refreshes the files of a control plane.
func preparePlane(h Home, ci intent.ClusterIntent, port int) (*plane, error) {
	dir := h.ClusterPath(ci.UID)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("cluster %s: %w", ci.Name, err)
	}
	p := &plane{uid: ci.UID, port: port, endpoint: fmt.Sprintf("https://127.0.0.1:%d", port), componentFiles: map[string]string{}, version: ci.KubernetesVersion}
	var err error
	if p.emulation, err = controlplane.EmulationArgs(ci.KubernetesVersion); err != nil {
		return nil, fmt.Errorf("cluster %s: %w", ci.Name, err)
	}
	ca, err := openAuthority(h.ClusterPath(ci.UID, "pki"), "ca-"+ci.UID)
	if err != nil {
		return nil, fmt.Errorf("cluster %s: %w", ci.Name, err)
	}
	p.ca = ca.caFile()
	serviceIP, err := firstIP(serviceCIDR(ci))
	if err != nil {
		return nil, fmt.Errorf("cluster %s: %w", ci.Name, err)
	}
	hosts := []string{"localhost", "127.0.0.1", "kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local", serviceIP}
	if ci.FQDN != "" {
		hosts = append(hosts, ci.FQDN)
	}
	if p.serving, err = ca.server("apiserver", hosts...); err != nil {
		return nil, fmt.Errorf("cluster %s: %w", ci.Name, err)
	}
	if p.saKey, p.saPub, err = signingKey(h.ClusterPath(ci.UID, "pki"), "service-account"); err != nil {
		return nil, fmt.Errorf("cluster %s: %w", ci.Name, err)
	}
	caPEM, err := os.ReadFile(p.ca)
	if err != nil {
		return nil, fmt.Errorf("cluster %s: %w", ci.Name, err)
	}
	for _, id := range []struct{ name, user, group string }{
		{controlplane.ControllerManager, "system:kube-controller-manager", ""},
		{controlplane.Scheduler, "system:kube-scheduler", ""},
		{idSupervisor, "nap:supervisor", "system:masters"},
		{idFleet, "nap:fleet", "system:masters"},
		{idController, "node-auto-provisioning", "system:masters"},
	} {
		var groups []string
		if id.group != "" {
			groups = []string{id.group}
		}
		pr, err := ca.client(id.name, id.user, groups...)
		if err != nil {
			return nil, fmt.Errorf("cluster %s: %w", ci.Name, err)
		}
		file := h.ClusterPath(ci.UID, id.name+".kubeconfig")
		b, err := kubeconfig(ci.Name, ci.Name, id.user, p.endpoint, caPEM, pr)
		if err == nil {
			err = writeFile(file, b, 0o600)
		}
		if err != nil {
			return nil, fmt.Errorf("cluster %s: kubeconfig of %s: %w", ci.Name, id.name, err)
		}
		p.componentFiles[id.name] = file
	}
	admin, err := ca.client("admin", "masterclient", "system:masters")
	if err != nil {
		return nil, fmt.Errorf("cluster %s: %w", ci.Name, err)
	}
	if p.adminConfig, err = kubeconfig(ci.Name, ci.Name+"-admin", "clusterAdmin_"+ci.ResourceGroup+"_"+ci.Name, p.endpoint, caPEM, admin); err != nil {
		return nil, fmt.Errorf("cluster %s: %w", ci.Name, err)
	}
	// Without Entra ID, AKS's user credential is a local account with all rights too.
	user, err := ca.client("user", "clusterUser", "system:masters")
	if err != nil {
		return nil, fmt.Errorf("cluster %s: %w", ci.Name, err)
	}
	if p.userConfig, err = kubeconfig(ci.Name, ci.Name, "clusterUser_"+ci.ResourceGroup+"_"+ci.Name, p.endpoint, caPEM, user); err != nil {
		return nil, fmt.Errorf("cluster %s: %w", ci.Name, err)
	}
	if err := writeFile(h.ClusterPath(ci.UID, "admin.kubeconfig"), p.adminConfig, 0o600); err != nil {
		return nil, fmt.Errorf("cluster %s: %w", ci.Name, err)
	}
	p.schedulerFile = h.ClusterPath(ci.UID, "scheduler.yaml")
	if err := writeFile(p.schedulerFile, []byte(schedulerConfig(p.componentFiles[controlplane.Scheduler])), 0o600); err != nil {
		return nil, fmt.Errorf("cluster %s: %w", ci.Name, err)
	}
	if socket := h.tunnelSocket(ci.UID); tunnel.CheckSocket(socket) == nil { // the fleet warns of a path that is too long
		p.egressFile = h.ClusterPath(ci.UID, "egress.yaml")
		if err := writeFile(p.egressFile, []byte(egressConfig(socket)), 0o600); err != nil {
			return nil, fmt.Errorf("cluster %s: %w", ci.Name, err)
		}
	}
	return p, nil
}

// egressConfig leads what the API server says to kubelets, aggregated APIs and
// pods into the tunnel.
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

func kubeconfig(cluster, context, user, server string, ca []byte, p pair) ([]byte, error) {
	cert, err := os.ReadFile(p.certFile)
	if err != nil {
		return nil, err
	}
	key, err := os.ReadFile(p.keyFile)
	if err != nil {
		return nil, err
	}
	c := clientcmdapi.NewConfig()
	c.Clusters[cluster] = &clientcmdapi.Cluster{Server: server, CertificateAuthorityData: ca}
	c.AuthInfos[user] = &clientcmdapi.AuthInfo{ClientCertificateData: cert, ClientKeyData: key}
	c.Contexts[context] = &clientcmdapi.Context{Cluster: cluster, AuthInfo: user}
	c.CurrentContext = context
	return clientcmd.Write(*c)
}

// mergeKubeconfig adds a cluster's credentials to the instance's kubeconfig, or
// takes away those whose API server is the given one.
func mergeKubeconfig(file string, add []byte, removeCluster string) error {
	c, err := clientcmd.LoadFromFile(file)
	if err != nil {
		c = clientcmdapi.NewConfig() // missing or spoilt: everything in it is ours to write again
	}
	if removeCluster != "" {
		for name, ctx := range c.Contexts {
			if ctx.Cluster == removeCluster {
				delete(c.AuthInfos, ctx.AuthInfo)
				delete(c.Contexts, name)
				if c.CurrentContext == name {
					c.CurrentContext = ""
				}
			}
		}
		delete(c.Clusters, removeCluster)
	}
	if len(add) > 0 {
		n, err := clientcmd.Load(add)
		if err != nil {
			return fmt.Errorf("merging into %s: %w", file, err)
		}
		for k, v := range n.Clusters {
			c.Clusters[k] = v
		}
		for k, v := range n.AuthInfos {
			c.AuthInfos[k] = v
		}
		for k, v := range n.Contexts {
			c.Contexts[k] = v
		}
		if c.CurrentContext == "" {
			c.CurrentContext = n.CurrentContext
		}
	}
	if c.CurrentContext == "" {
		for name := range c.Contexts {
			c.CurrentContext = name
			break
		}
	}
	b, err := clientcmd.Write(*c)
	if err != nil {
		return fmt.Errorf("merging into %s: %w", file, err)
	}
	return writeFile(file, b, 0o600)
}

// serviceCIDR is the cluster's, or AKS's default.
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
		return "", fmt.Errorf("service range %q is not IPv4, which is all the local Azure has", cidr)
	}
	v4[3]++
	return v4.String(), nil
}

// apiserverArgs is the API server's command line.
func (p *plane) apiserverArgs(ci intent.ClusterIntent, i Instance) []string {
	args := []string{
		"--etcd-servers=" + strings.Join(i.Etcd.Endpoints, ","),
		"--etcd-cafile=" + i.Etcd.CAFile, "--etcd-certfile=" + i.Etcd.CertFile, "--etcd-keyfile=" + i.Etcd.KeyFile,
		"--etcd-prefix=" + etcdPrefix(ci.UID),
		// A kill -9 of etcd lasts a second or two: the API server should not be
		// taken for unready at once.
		"--etcd-readycheck-timeout=10s", "--etcd-healthcheck-timeout=10s",
		"--etcd-count-metric-poll-period=0", "--etcd-db-metric-poll-interval=0",
		"--bind-address=127.0.0.1", "--secure-port=" + strconv.Itoa(p.port),
		// Pods of simulated nodes never dial it; without a reconciler nothing
		// publishes this address, which must merely not be a loopback one.
		"--advertise-address=10.224.0.2", "--endpoint-reconciler-type=none",
		"--tls-cert-file=" + p.serving.certFile, "--tls-private-key-file=" + p.serving.keyFile,
		"--client-ca-file=" + p.ca,
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

// controllerManagerArgs is the controller manager's command line. The
// controllers left out have nothing to work on here: no node CIDRs (the fleet
// hands out addresses), no certificates of kubelets, no volumes that grow.
func (p *plane) controllerManagerArgs() []string {
	controllers := []string{"*"}
	for _, name := range []string{
		"certificatesigningrequest-signing-controller", "certificatesigningrequest-approving-controller",
		"certificatesigningrequest-cleaner-controller", "node-ipam-controller", "node-route-controller",
		"service-lb-controller", "cloud-node-lifecycle-controller", "legacy-serviceaccount-token-cleaner-controller",
		"storage-version-migrator-controller", "kube-apiserver-serving-clustertrustbundle-publisher-controller",
		"podcertificaterequest-cleaner-controller", "device-taint-eviction-controller", "persistentvolume-expander-controller",
	} {
		controllers = append(controllers, "-"+name)
	}
	kc := p.componentFiles[controlplane.ControllerManager]
	return append([]string{
		"--kubeconfig=" + kc,
		"--leader-elect=false", "--secure-port=0",
		// An identity, and with it a share of requests, per controller.
		"--use-service-account-credentials=true",
		"--service-account-private-key-file=" + p.saKey, "--root-ca-file=" + p.ca,
		"--controllers=" + strings.Join(controllers, ","),
		"--kube-api-qps=400", "--kube-api-burst=800",
		"--concurrent-deployment-syncs=10", "--concurrent-replicaset-syncs=20", "--concurrent-job-syncs=10",
		"--concurrent-endpoint-syncs=5", "--concurrent-service-endpoint-syncs=5", "--concurrent-gc-syncs=10",
		"--profiling=false",
	}, p.emulation...)
}

func schedulerArgs(p *plane) []string {
	return append([]string{"--config=" + p.schedulerFile, "--secure-port=0"}, p.emulation...)
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
