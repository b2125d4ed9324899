package azure

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/arm"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/cloud"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/compute/armcompute/v8"
	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/containerservice/armcontainerservice/v8"
	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/network/armnetwork/v9"
)

// DefaultMachinesPool is the agent pool of mode Machines that AKS makes for
// node auto-provisioning.
const DefaultMachinesPool = "aksmanagedap"

// Config says where ARM is, who we are there and which cluster is ours. Only
// ClusterResourceID is required; on Azure itself everything else has a default.
type Config struct {
	// ARMEndpoint is the base URL of Azure Resource Manager; empty means the
	// public Azure cloud.
	ARMEndpoint string
	// AuthorityHost is the base URL of the token authority; empty means that of
	// the public cloud. A different one is trusted without asking Microsoft.
	AuthorityHost string
	// Audience of access tokens; empty means ARMEndpoint with a final slash.
	Audience string
	// TenantID, ClientID and ClientSecret sign in as a service principal. With
	// no secret the usual Azure chain is used (workload identity, environment,
	// managed identity).
	TenantID     string
	ClientID     string
	ClientSecret string
	// CAFile is a PEM file of certificates to trust besides the system's.
	CAFile string

	// ClusterResourceID is the managed cluster's ARM ID.
	ClusterResourceID string
	// Location is the region's name ("eastus"); empty means: ask ARM.
	Location string
	// NodeResourceGroup, NetworkPlugin, NetworkPluginMode, NetworkPolicy and
	// VnetSubnetID describe the cluster; each that is empty is asked of ARM.
	NodeResourceGroup string
	NetworkPlugin     string
	NetworkPluginMode string
	NetworkPolicy     string
	VnetSubnetID      string
	// MachinesPool is the agent pool of the machines; empty means
	// DefaultMachinesPool.
	MachinesPool string
	// VMMemoryOverheadPercent is the share (of 1) of a VM's memory that its
	// guest does not see; negative means the default, 0.075.
	VMMemoryOverheadPercent float64
	// AdditionalTags are put on every machine; tags of a node class win.
	AdditionalTags map[string]string
	// PricesEndpoint is the base URL of the retail price API
	// ("https://prices.azure.com"). Empty means that embedded prices are used.
	PricesEndpoint string
	// ImageGallerySubscriptionID is the subscription of AKS's image galleries;
	// empty means the cluster's own.
	ImageGallerySubscriptionID string
	// PollInterval is how often a running operation is looked at when ARM gives
	// no Retry-After; zero means 3 s.
	PollInterval time.Duration
}

// Cluster is the managed cluster that a Config names, with what was asked of
// ARM filled in.
type Cluster struct {
	ResourceID        string
	SubscriptionID    string
	ResourceGroup     string
	Name              string
	Location          string
	NodeResourceGroup string
	NetworkPlugin     string
	NetworkPluginMode string
	NetworkPolicy     string
	VnetSubnetID      string
	MachinesPool      string
}

// Clients are the parts of the Azure SDK that the provider uses.
type Clients struct {
	Machines   *armcontainerservice.MachinesClient
	AgentPools *armcontainerservice.AgentPoolsClient
	Clusters   *armcontainerservice.ManagedClustersClient
	Images     *armcontainerservice.Client
	SKUs       *armcompute.ResourceSKUsClient
	Usage      *armcompute.UsageClient
	Subnets    *armnetwork.SubnetsClient
	// HTTP is the plain client for prices.
	HTTP *http.Client
}

// A connection that has been silent for pingAfter is asked whether it lives, and
// given up without an answer within pingWait. All requests share one HTTP/2
// connection: without this, one that a firewall or a dead host has cut would
// take every request, and each retry, with it for as long as the kernel waits.
var (
	pingAfter = 10 * time.Second
	pingWait  = 5 * time.Second
)

// httpClient trusts the configured certificates and keeps enough connections
// for many machines at once.
func (c Config) httpClient() (*http.Client, error) {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.MaxIdleConnsPerHost = 64
	transport.HTTP2 = &http.HTTP2Config{SendPingTimeout: pingAfter, PingTimeout: pingWait}
	transport.TLSClientConfig = &tls.Config{MinVersion: tls.VersionTLS12}
	if c.CAFile != "" {
		pem, err := os.ReadFile(c.CAFile)
		if err != nil {
			return nil, fmt.Errorf("reading the CA file of the ARM endpoint: %w", err)
		}
		pool, err := x509.SystemCertPool()
		if err != nil {
			pool = x509.NewCertPool()
		}
		if !pool.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("CA file %s holds no PEM certificate", c.CAFile)
		}
		transport.TLSClientConfig.RootCAs = pool
	}
	return &http.Client{Transport: transport, Timeout: 2 * time.Minute}, nil
}

// parseClusterID takes the managed cluster's ARM ID apart.
func parseClusterID(id string) (Cluster, error) {
	parsed, err := arm.ParseResourceID(id)
	if err != nil {
		return Cluster{}, fmt.Errorf("cluster resource ID %q: %w", id, err)
	}
	if !strings.EqualFold(parsed.ResourceType.String(), "Microsoft.ContainerService/managedClusters") {
		return Cluster{}, fmt.Errorf("cluster resource ID %q is of type %s, not Microsoft.ContainerService/managedClusters", id, parsed.ResourceType)
	}
	return Cluster{ResourceID: id, SubscriptionID: parsed.SubscriptionID, ResourceGroup: parsed.ResourceGroupName, Name: parsed.Name}, nil
}

// newClients signs in (lazily, at the first request) and makes the clients.
func newClients(c Config, subscription string) (*Clients, error) {
	httpClient, err := c.httpClient()
	if err != nil {
		return nil, err
	}
	where := cloud.AzurePublic
	if c.ARMEndpoint != "" {
		endpoint := strings.TrimSuffix(c.ARMEndpoint, "/")
		audience := c.Audience
		if audience == "" {
			audience = endpoint + "/"
		}
		authority := c.AuthorityHost
		if authority == "" {
			authority = endpoint + "/"
		}
		where = cloud.Configuration{
			ActiveDirectoryAuthorityHost: authority,
			Services:                     map[cloud.ServiceName]cloud.ServiceConfiguration{cloud.ResourceManager: {Endpoint: endpoint, Audience: audience}},
		}
	} else if c.AuthorityHost != "" {
		where.ActiveDirectoryAuthorityHost = c.AuthorityHost
	}
	base := policy.ClientOptions{
		Cloud: where, Transport: httpClient,
		Telemetry: policy.TelemetryOptions{ApplicationID: "nap"},
		Retry:     policy.RetryOptions{MaxRetries: 4, RetryDelay: 500 * time.Millisecond, MaxRetryDelay: 20 * time.Second},
	}
	credential, err := c.credential(base)
	if err != nil {
		return nil, err
	}
	options := &arm.ClientOptions{ClientOptions: base, DisableRPRegistration: true}
	var errs []error
	keep := func(err error) { errs = append(errs, err) }
	out := &Clients{HTTP: httpClient}
	var e error
	out.Machines, e = armcontainerservice.NewMachinesClient(subscription, credential, options)
	keep(e)
	out.AgentPools, e = armcontainerservice.NewAgentPoolsClient(subscription, credential, options)
	keep(e)
	out.Clusters, e = armcontainerservice.NewManagedClustersClient(subscription, credential, options)
	keep(e)
	out.Images, e = armcontainerservice.NewClient(subscription, credential, options)
	keep(e)
	out.SKUs, e = armcompute.NewResourceSKUsClient(subscription, credential, options)
	keep(e)
	out.Usage, e = armcompute.NewUsageClient(subscription, credential, options)
	keep(e)
	out.Subnets, e = armnetwork.NewSubnetsClient(subscription, credential, options)
	keep(e)
	if err := errors.Join(errs...); err != nil {
		return nil, fmt.Errorf("making Azure clients: %w", err)
	}
	return out, nil
}

func (c Config) credential(base policy.ClientOptions) (azcore.TokenCredential, error) {
	if c.ClientSecret == "" {
		cred, err := azidentity.NewDefaultAzureCredential(&azidentity.DefaultAzureCredentialOptions{
			ClientOptions: base, TenantID: c.TenantID, DisableInstanceDiscovery: c.AuthorityHost != "" || c.ARMEndpoint != "",
		})
		if err != nil {
			return nil, fmt.Errorf("finding an Azure credential: %w", err)
		}
		return cred, nil
	}
	if c.TenantID == "" || c.ClientID == "" {
		return nil, errors.New("a client secret needs a tenant ID and a client ID with it")
	}
	cred, err := azidentity.NewClientSecretCredential(c.TenantID, c.ClientID, c.ClientSecret, &azidentity.ClientSecretCredentialOptions{
		ClientOptions: base, DisableInstanceDiscovery: c.AuthorityHost != "" || c.ARMEndpoint != "",
	})
	if err != nil {
		return nil, fmt.Errorf("making the credential of client %s: %w", c.ClientID, err)
	}
	return cred, nil
}
