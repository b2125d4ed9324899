// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

// Package e2e follows the documentation of node auto-provisioning with the Azure
// SDK for Go and client-go, against a private instance of the whole local Azure
// started from bin/nap.
//
// NAP_BIN names the binary (default ../../bin/nap, built by `make build`).
// NAP_E2E_HOME is a folder in which the instances' folders are kept, with their
// logs.
package e2e

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/arm"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/cloud"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/to"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/containerservice/armcontainerservice/v8"
	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/resources/armdeployments"
	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/resources/armresources/v3"
)

// instance is a running local Azure with its clients.
type instance struct {
	home string
	bin  string
	info instanceInfo

	groups   *armresources.ResourceGroupsClient
	deploys  *armdeployments.DeploymentsClient
	clusters *armcontainerservice.ManagedClustersClient
	pools    *armcontainerservice.AgentPoolsClient
	machines *armcontainerservice.MachinesClient
	ctx      context.Context
}

// instanceInfo is what `nap up` writes to $NAP_HOME/instance.json.
type instanceInfo struct {
	ARMEndpoint    string `json:"armEndpoint"`
	CAFile         string `json:"caFile"`
	TenantID       string `json:"tenantID"`
	SubscriptionID string `json:"subscriptionID"`
	ClientID       string `json:"clientID"`
	SecretFile     string `json:"clientSecretFile"`
	Location       string `json:"location"`
}

const resourceGroup = "nap-e2e"

// start starts a private instance without the example cluster and stops it at
// the end of the test.
func start(t *testing.T) *instance {
	t.Helper()
	bin := os.Getenv("NAP_BIN")
	if bin == "" {
		bin = filepath.Join("..", "..", "bin", "nap")
	}
	bin, err := filepath.Abs(bin)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(bin); err != nil {
		t.Fatalf("no nap binary at %s: run `make build` or set NAP_BIN", bin)
	}
	home := os.Getenv("NAP_E2E_HOME")
	if home == "" {
		home = t.TempDir()
	} else {
		home = filepath.Join(home, strings.ReplaceAll(t.Name(), "/", "-"))
		if err := os.RemoveAll(home); err != nil {
			t.Fatal(err)
		}
		if err := os.MkdirAll(home, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	in := &instance{home: home, bin: bin}
	var cancel context.CancelFunc
	in.ctx, cancel = context.WithCancel(context.Background())
	t.Cleanup(cancel)
	began := time.Now()
	out, err := in.run("up", "--detach", "--no-example")
	if err != nil {
		t.Fatalf("nap up: %v\n%s", err, out)
	}
	t.Logf("nap up --detach took %s", time.Since(began).Round(time.Millisecond))
	t.Cleanup(func() {
		if t.Failed() {
			in.dump(t)
		}
		if out, err := in.run("down"); err != nil {
			t.Errorf("nap down: %v\n%s", err, out)
		}
	})
	in.connect(t)
	return in
}

// run executes nap with this instance's home and returns its output.
func (in *instance) run(args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, in.bin, args...)
	cmd.Env = append(os.Environ(), "NAP_HOME="+in.home)

	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.WaitDelay = 5 * time.Second
	err := cmd.Run()
	if errors.Is(err, exec.ErrWaitDelay) {
		err = nil
	}
	return out.String(), err
}

// dump prints the end of each component's log.
func (in *instance) dump(t *testing.T) {
	if out, err := in.run("status"); err == nil {
		t.Logf("nap status:\n%s", out)
	}
	logs, _ := filepath.Glob(filepath.Join(in.home, "logs", "*.log"))
	more, _ := filepath.Glob(filepath.Join(in.home, "logs", "*", "*.log"))
	for _, f := range append(logs, more...) {
		b, err := os.ReadFile(f)
		if err != nil {
			continue
		}
		if len(b) > 3000 {
			b = b[len(b)-3000:]
		}
		t.Logf("---- %s\n%s", filepath.Base(f), b)
	}
}

// connect reads instance.json and creates the SDK's clients.
func (in *instance) connect(t *testing.T) {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(in.home, "instance.json"))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, &in.info); err != nil {
		t.Fatalf("instance.json: %v", err)
	}
	secret, err := os.ReadFile(in.info.SecretFile)
	if err != nil {
		t.Fatal(err)
	}
	cred, opts := in.credential(t, in.info.ClientID, strings.TrimSpace(string(secret)))
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	sub := in.info.SubscriptionID
	in.groups, err = armresources.NewResourceGroupsClient(sub, cred, opts)
	must(err)
	in.deploys, err = armdeployments.NewDeploymentsClient(sub, cred, opts)
	must(err)
	in.clusters, err = armcontainerservice.NewManagedClustersClient(sub, cred, opts)
	must(err)
	in.pools, err = armcontainerservice.NewAgentPoolsClient(sub, cred, opts)
	must(err)
	in.machines, err = armcontainerservice.NewMachinesClient(sub, cred, opts)
	must(err)
	_, err = in.groups.CreateOrUpdate(in.ctx, resourceGroup, armresources.ResourceGroup{Location: to.Ptr(in.location())}, nil)
	must(err)
}

func (in *instance) location() string {
	if in.info.Location != "" {
		return in.info.Location
	}
	return "eastus"
}

// credential signs in as a service principal of the local Azure.
func (in *instance) credential(t *testing.T, clientID, secret string) (azcore.TokenCredential, *arm.ClientOptions) {
	t.Helper()
	pem, err := os.ReadFile(in.info.CAFile)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		t.Fatalf("no certificate in %s", in.info.CAFile)
	}
	httpClient := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}}}
	endpoint := strings.TrimSuffix(in.info.ARMEndpoint, "/")
	config := cloud.Configuration{
		ActiveDirectoryAuthorityHost: endpoint + "/",
		Services: map[cloud.ServiceName]cloud.ServiceConfiguration{
			cloud.ResourceManager: {Endpoint: endpoint, Audience: endpoint + "/"},
		},
	}
	co := policy.ClientOptions{Cloud: config, Transport: httpClient}
	cred, err := azidentity.NewClientSecretCredential(in.info.TenantID, clientID, secret, &azidentity.ClientSecretCredentialOptions{
		ClientOptions: co, DisableInstanceDiscovery: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	return cred, &arm.ClientOptions{ClientOptions: co}
}

// eventually waits until check returns nil, or fails with its last error.
func eventually(t *testing.T, what string, within time.Duration, check func() error) {
	t.Helper()
	began := time.Now()
	var last error
	for time.Since(began) < within {
		if last = check(); last == nil {
			t.Logf("%s: after %s", what, time.Since(began).Round(100*time.Millisecond))
			return
		}
		time.Sleep(500 * time.Millisecond)
	}
	t.Fatalf("%s: not within %s: %v", what, within, last)
}
