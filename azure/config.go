// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

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

// DefaultMachinesPool is the agent pool of mode Machines that AKS creates for node
// auto-provisioning.
const DefaultMachinesPool = "aksmanagedap"

// Config holds the ARM endpoint, the credential and the cluster to serve. Only
// ClusterResourceID is required; on Azure everything else has a default.
type Config struct {
	// ARMEndpoint is the base URL of Azure Resource Manager; empty means the
	// public Azure cloud.
	ARMEndpoint string
	// AuthorityHost is the base URL of the token authority; empty means that of
	// the public cloud. Another one is trusted without instance discovery at
	// Microsoft.
	AuthorityHost string
	// Audience is the audience of access tokens; empty means ARMEndpoint with a
	// final slash.
	Audience string
	// TenantID, ClientID and ClientSecret sign in as a service principal. Without
	// a secret the default Azure credential chain is used (workload identity,
	// environment, managed identity).
	TenantID     string
	ClientID     string
	ClientSecret string
	// CAFile is a PEM file of certificates to trust in addition to the system's.
	CAFile string

	// HTTPClient sends all requests; nil means one of its own, which trusts CAFile.
	HTTPClient *http.Client

	// ClusterResourceID is the managed cluster's ARM ID.
	ClusterResourceID string
	// Location is the region's name ("eastus"); empty means that ARM's is used.
	Location string
	// NodeResourceGroup, NetworkPlugin, NetworkPluginMode, NetworkPolicy and
	// VnetSubnetID describe the cluster; empty ones are read from ARM.
	NodeResourceGroup string
	NetworkPlugin     string
	NetworkPluginMode string
	NetworkPolicy     string
	VnetSubnetID      string
	// MachinesPool is the agent pool of the machines; empty means
	// DefaultMachinesPool.
	MachinesPool string
	// VMMemoryOverheadPercent is the fraction (0 to 1) of a VM's memory that the
	// guest does not see; negative means the default, 0.075.
	VMMemoryOverheadPercent float64
	// AdditionalTags are set on every machine; tags of a node class take
	// precedence.
	AdditionalTags map[string]string
	// PricesEndpoint is the base URL of the Retail Prices API
	// ("https://prices.azure.com"). Empty means that embedded prices are used.
	PricesEndpoint string
	// ImageGallerySubscriptionID is the subscription of AKS's image galleries;
	// empty means the cluster's own.
	ImageGallerySubscriptionID string
	// PollInterval is the interval for polling a running operation if ARM sends no
	// Retry-After; zero means 3 s.
	PollInterval time.Duration
}

// Cluster is the managed cluster of a Config, completed with ARM's values.
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

// Clients are the Azure SDK clients that the provider uses.
type Clients struct {
	Machines   *armcontainerservice.MachinesClient
	AgentPools *armcontainerservice.AgentPoolsClient
	Clusters   *armcontainerservice.ManagedClustersClient
	Images     *armcontainerservice.Client
	SKUs       *armcompute.ResourceSKUsClient
	Usage      *armcompute.UsageClient
	Subnets    *armnetwork.SubnetsClient
	// HTTP is the client for the Retail Prices API.
	HTTP *http.Client
}

// A connection that has been idle for pingAfter is pinged, and closed if no answer
// arrives within pingWait. All requests share one HTTP/2 connection: without pings,
// a connection that a firewall or a dead host has cut would fail every request and
// each retry until the kernel's timeout.
var (
	pingAfter = 10 * time.Second
	pingWait  = 5 * time.Second
)

// httpClient returns the configured client, or one that trusts the configured
// certificates and keeps enough connections for many concurrent launches.
func (c Config) httpClient() (*http.Client, error) {
	if c.HTTPClient != nil {
		return c.HTTPClient, nil
	}
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
			return nil, fmt.Errorf("CA file %s contains no PEM certificate", c.CAFile)
		}
		transport.TLSClientConfig.RootCAs = pool
	}
	return &http.Client{Transport: transport, Timeout: 2 * time.Minute}, nil
}

// parseClusterID parses the ARM ID of a managed cluster.
func parseClusterID(id string) (Cluster, error) {
	parsed, err := arm.ParseResourceID(id)
	if err != nil {
		return Cluster{}, fmt.Errorf("parsing cluster resource ID %q: %w", id, err)
	}
	if !strings.EqualFold(parsed.ResourceType.String(), "Microsoft.ContainerService/managedClusters") {
		return Cluster{}, fmt.Errorf("cluster resource ID %q has type %s, want Microsoft.ContainerService/managedClusters", id, parsed.ResourceType)
	}
	return Cluster{ResourceID: id, SubscriptionID: parsed.SubscriptionID, ResourceGroup: parsed.ResourceGroupName, Name: parsed.Name}, nil
}

// newClients creates the clients. They sign in at the first request.
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
		return nil, fmt.Errorf("creating the Azure clients: %w", err)
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
		return nil, errors.New("a client secret requires a tenant ID and a client ID")
	}
	cred, err := azidentity.NewClientSecretCredential(c.TenantID, c.ClientID, c.ClientSecret, &azidentity.ClientSecretCredentialOptions{
		ClientOptions: base, DisableInstanceDiscovery: c.AuthorityHost != "" || c.ARMEndpoint != "",
	})
	if err != nil {
		return nil, fmt.Errorf("creating the credential of client %s: %w", c.ClientID, err)
	}
	return cred, nil
}
