// Package azclient signs in to a running local Azure as its owner, with the
// Azure SDK, as any program would. What nap itself does to an instance beyond
// starting it goes through here: there is no way past the front door.
package azclient

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net/http"
	"os"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/arm"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/cloud"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/containerservice/armcontainerservice/v8"
	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/resources/armresources"

	"github.com/nap-aks/nap/local"
)

// Clients are the parts of the Azure SDK in use.
type Clients struct {
	Groups      *armresources.ResourceGroupsClient
	Deployments *armresources.DeploymentsClient
	Clusters    *armcontainerservice.ManagedClustersClient
	AgentPools  *armcontainerservice.AgentPoolsClient
}

// Connect signs in, lazily: at the first request.
func Connect(i local.Instance) (*Clients, error) {
	pem, err := os.ReadFile(i.CAFile)
	if err != nil {
		return nil, fmt.Errorf("authority of the local Azure: %w", err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("authority of the local Azure: no certificate in %s", i.CAFile)
	}
	secret, err := i.ClientSecret()
	if err != nil {
		return nil, err
	}
	options := policy.ClientOptions{
		Cloud: cloud.Configuration{
			ActiveDirectoryAuthorityHost: i.ARMEndpoint + "/",
			Services:                     map[cloud.ServiceName]cloud.ServiceConfiguration{cloud.ResourceManager: {Endpoint: i.ARMEndpoint, Audience: i.ARMEndpoint + "/"}},
		},
		Transport: &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}}},
		Retry:     policy.RetryOptions{MaxRetries: 8, RetryDelay: 200 * time.Millisecond, MaxRetryDelay: 2 * time.Second},
		Telemetry: policy.TelemetryOptions{ApplicationID: "nap-up"},
	}
	cred, err := azidentity.NewClientSecretCredential(i.TenantID, i.ClientID, secret, &azidentity.ClientSecretCredentialOptions{
		ClientOptions: options, DisableInstanceDiscovery: true,
	})
	if err != nil {
		return nil, fmt.Errorf("signing in to the local Azure: %w", err)
	}
	opts := &arm.ClientOptions{ClientOptions: options}
	a := &Clients{}
	if a.Groups, err = armresources.NewResourceGroupsClient(i.SubscriptionID, cred, opts); err != nil {
		return nil, err
	}
	if a.Deployments, err = armresources.NewDeploymentsClient(i.SubscriptionID, cred, opts); err != nil {
		return nil, err
	}
	if a.Clusters, err = armcontainerservice.NewManagedClustersClient(i.SubscriptionID, cred, opts); err != nil {
		return nil, err
	}
	if a.AgentPools, err = armcontainerservice.NewAgentPoolsClient(i.SubscriptionID, cred, opts); err != nil {
		return nil, err
	}
	return a, nil
}
