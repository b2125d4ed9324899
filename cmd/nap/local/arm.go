// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package local

import (
	"context"
	"log/slog"
	"os"
	"slices"
	"strings"

	"github.com/nap-aks/nap/localazure/arm"
	"github.com/nap-aks/nap/localazure/arm/containerservice"
	"github.com/nap-aks/nap/localazure/controlplane"
	"github.com/nap-aks/nap/localazure/etcd"
	"github.com/nap-aks/nap/localazure/home"
)

// runARM serves the instance's Azure Resource Manager.
func runARM(ctx context.Context, h home.Home, i home.Instance) error {
	secret, err := i.ClientSecret()
	if err != nil {
		return err
	}
	etcdClient, err := etcd.Dial(i.Etcd)
	if err != nil {
		return err
	}
	defer func() { _ = etcdClient.Close() }()
	self, err := os.Executable()
	if err != nil {
		return err
	}
	port := i.ARMEndpoint[strings.LastIndex(i.ARMEndpoint, ":")+1:]
	return arm.Run(ctx, arm.Options{
		Etcd:            etcdClient,
		Listen:          "127.0.0.1:" + port,
		BaseURL:         i.ARMEndpoint,
		CertFile:        h.Path("pki", "arm.crt"),
		KeyFile:         h.Path("pki", "arm.key"),
		SigningKeyFile:  h.Path("pki", "token-signing.key"),
		TenantID:        i.TenantID,
		SubscriptionID:  i.SubscriptionID,
		Owner:           arm.ServicePrincipal{ClientID: i.ClientID, ClientSecret: secret, DisplayName: "nap"},
		DefaultLocation: i.Location,
		// Versions this build cannot run are rejected by the PUT; otherwise the
		// cluster would never start.
		KubernetesVersions: slices.DeleteFunc(slices.Clone(containerservice.DefaultVersions), func(v string) bool { return controlplane.CheckVersion(v) != nil }),
		Kubectl:            []string{self, "kubectl", "--home=" + h.Dir},
		LogsDir:            h.Path("logs"),
		LogsDB:             h.Path("logs", "logs.db"),
		Log:                slog.New(slog.NewJSONHandler(os.Stderr, nil)),
	})
}
