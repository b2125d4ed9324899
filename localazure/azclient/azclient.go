// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

// Package azclient is a client of a running local Azure, built on the Azure SDK and
// authenticated as the owner. nap changes an instance only through ARM, as any other
// client does.
package azclient

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net/http"
	"os"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/arm"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/cloud"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/runtime"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/containerservice/armcontainerservice/v8"
	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/resources/armdeployments"
	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/resources/armresources/v3"

	"github.com/nap-aks/nap/localazure/home"
)

// Clients holds the clients of the Azure SDK that nap uses.
type Clients struct {
	Groups      *armresources.ResourceGroupsClient
	Deployments *armdeployments.DeploymentsClient
	Clusters    *armcontainerservice.ManagedClustersClient
	AgentPools  *armcontainerservice.AgentPoolsClient

	arm          *arm.Client
	subscription string
}

// Connect returns clients of an instance. They authenticate at the first request.
func Connect(i home.Instance) (*Clients, error) {
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
	a := &Clients{subscription: i.SubscriptionID}
	if a.arm, err = arm.NewClient("nap", "v0.0.0", cred, opts); err != nil {
		return nil, err
	}
	if a.Groups, err = armresources.NewResourceGroupsClient(i.SubscriptionID, cred, opts); err != nil {
		return nil, err
	}
	if a.Deployments, err = armdeployments.NewDeploymentsClient(i.SubscriptionID, cred, opts); err != nil {
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

// Cluster reads a managed cluster.
func (a *Clients) Cluster(ctx context.Context, group, name string) (*armcontainerservice.ManagedCluster, error) {
	resp, err := a.Clusters.Get(ctx, group, name, nil)
	if err != nil {
		return nil, fmt.Errorf("reading cluster %s: %w", name, err)
	}
	return &resp.ManagedCluster, nil
}

// Resize adds instances to the scale set of an agent pool, or removes the named
// ones, at once and without draining them. With force it ignores the limits of an
// autoscaled pool.
func (a *Clients) Resize(ctx context.Context, group, cluster, pool string, add int, remove []string, force bool) error {
	path := "/subscriptions/" + a.subscription + "/resourceGroups/" + group + "/providers/Microsoft.ContainerService/managedClusters/" + cluster + "/agentPools/" + pool + "/resize"
	req, err := runtime.NewRequest(ctx, http.MethodPost, runtime.JoinPaths(a.arm.Endpoint(), path))
	if err != nil {
		return err
	}
	query := req.Raw().URL.Query()
	query.Set("api-version", "2025-10-01")
	req.Raw().URL.RawQuery = query.Encode()
	body := map[string]any{"force": force}
	if add > 0 {
		body["add"] = add
	} else {
		body["remove"] = remove
	}
	if err := runtime.MarshalAsJSON(req, body); err != nil {
		return err
	}
	resp, err := a.arm.Pipeline().Do(req)
	if err != nil {
		return fmt.Errorf("resizing pool %s of cluster %s: %w", pool, cluster, err)
	}
	defer func() { _ = resp.Body.Close() }()
	if !runtime.HasStatusCode(resp, http.StatusOK) {
		return fmt.Errorf("resizing pool %s of cluster %s: %w", pool, cluster, runtime.NewResponseError(resp))
	}
	return nil
}
