// Package example is the first thing a person sees: it uses a running local
// Azure as any client would, through ARM and the Kubernetes API. It creates a
// resource group, deploys the template of a cluster that provisions its own
// nodes, runs a shop on it and shows the machines being bought.
package example

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

// ResourceGroup is the group the example lives in.
const ResourceGroup = "nap"

// azureClients are the parts of the Azure SDK that the example uses.
type azureClients struct {
	groups      *armresources.ResourceGroupsClient
	deployments *armresources.DeploymentsClient
	clusters    *armcontainerservice.ManagedClustersClient
}

// connect signs in to the instance as its owner.
func connect(i local.Instance) (*azureClients, error) {
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
	a := &azureClients{}
	if a.groups, err = armresources.NewResourceGroupsClient(i.SubscriptionID, cred, opts); err != nil {
		return nil, err
	}
	if a.deployments, err = armresources.NewDeploymentsClient(i.SubscriptionID, cred, opts); err != nil {
		return nil, err
	}
	if a.clusters, err = armcontainerservice.NewManagedClustersClient(i.SubscriptionID, cred, opts); err != nil {
		return nil, err
	}
	return a, nil
}
