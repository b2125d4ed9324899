// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package supervisor

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"sync"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// httpsProbe returns a probe that GETs a URL, trusting the authority in caFile.
func httpsProbe(url, caFile string) func(context.Context) error {
	var once sync.Once
	var client *http.Client
	var initErr error
	return func(ctx context.Context) error {
		once.Do(func() {
			pem, err := os.ReadFile(caFile)
			if err != nil {
				initErr = err
				return
			}
			roots := x509.NewCertPool()
			if !roots.AppendCertsFromPEM(pem) {
				initErr = fmt.Errorf("no certificate in %s", caFile)
				return
			}
			client = &http.Client{Transport: &http.Transport{
				TLSClientConfig:     &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12},
				MaxIdleConnsPerHost: 1,
			}}
		})
		if initErr != nil {
			return initErr
		}
		return get(ctx, client, url)
	}
}

// kubeProbe returns a probe that GETs an API server's health endpoint with the
// credentials of a kubeconfig.
func kubeProbe(kubeconfig, path string) func(context.Context) error {
	var once sync.Once
	var client *http.Client
	var host string
	var initErr error
	return func(ctx context.Context) error {
		once.Do(func() {
			cfg, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
			if err != nil {
				initErr = err
				return
			}
			host = cfg.Host
			client, initErr = rest.HTTPClientFor(cfg)
		})
		if initErr != nil {
			return initErr
		}
		return get(ctx, client, host+path)
	}
}

// get returns an error unless a GET of url answers with a status below 300.
func get(ctx context.Context, client *http.Client, url string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	body, _ := io.ReadAll(io.LimitReader(resp.Body, 4096))
	if resp.StatusCode >= 300 {
		return fmt.Errorf("%s answers %s: %s", url, resp.Status, strings.TrimSpace(string(body)))
	}
	return nil
}
