// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package controlplane

import (
	"fmt"
	"maps"
	"os"

	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"github.com/nap-aks/nap/localazure/home"
	"github.com/nap-aks/nap/localazure/pki"
)

func kubeconfig(cluster, context, user, server string, ca []byte, p pki.Pair) ([]byte, error) {
	cert, err := os.ReadFile(p.CertFile)
	if err != nil {
		return nil, err
	}
	key, err := os.ReadFile(p.KeyFile)
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

// AddToKubeconfig adds the contexts of a kubeconfig to those of a file.
func AddToKubeconfig(file string, add []byte) error {
	n, err := clientcmd.Load(add)
	if err != nil {
		return fmt.Errorf("merging into %s: %w", file, err)
	}
	c := loadKubeconfig(file)
	maps.Copy(c.Clusters, n.Clusters)
	maps.Copy(c.AuthInfos, n.AuthInfos)
	maps.Copy(c.Contexts, n.Contexts)
	if c.CurrentContext == "" {
		c.CurrentContext = n.CurrentContext
	}
	return saveKubeconfig(file, c)
}

// RemoveFromKubeconfig removes a cluster, its contexts and their users from a
// file.
func RemoveFromKubeconfig(file, cluster string) error {
	c := loadKubeconfig(file)
	for name, ctx := range c.Contexts {
		if ctx.Cluster == cluster {
			delete(c.AuthInfos, ctx.AuthInfo)
			delete(c.Contexts, name)
			if c.CurrentContext == name {
				c.CurrentContext = ""
			}
		}
	}
	delete(c.Clusters, cluster)
	return saveKubeconfig(file, c)
}

func loadKubeconfig(file string) *clientcmdapi.Config {
	c, err := clientcmd.LoadFromFile(file)
	if err != nil {
		return clientcmdapi.NewConfig() // missing or damaged: all of its content is ours to write again
	}
	return c
}

func saveKubeconfig(file string, c *clientcmdapi.Config) error {
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
	return home.WriteFile(file, b, 0o600)
}
