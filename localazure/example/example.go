// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

// Package example runs the example of `nap up`. It uses a running local Azure as any
// client would, through ARM and the Kubernetes API: it creates a resource group,
// deploys the template of a cluster with node auto-provisioning, runs a shop on it
// and shows which machines are bought.
package example

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/runtime"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/to"
	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/resources/armdeployments"
	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/resources/armresources/v3"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/discovery/cached/memory"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/restmapper"

	"github.com/nap-aks/nap/examples"
	"github.com/nap-aks/nap/localazure/azclient"
	"github.com/nap-aks/nap/localazure/home"
	"github.com/nap-aks/nap/localazure/view"
)

// ResourceGroup is the resource group of the example.
const ResourceGroup = "nap"

// Reporter shows the progress to people.
type Reporter interface {
	// Step starts a step; the one before it is done.
	Step(text string)
	// Update describes the progress of the current step; it need not be shown.
	Update(text string)
	// Line prints a line that stays on the screen.
	Line(text string)
}

// state is example.json in the home folder. It keeps later runs from applying the
// example again over what people have changed.
type state struct {
	Applied time.Time `json:"applied"`
}

func stateFile(h home.Home) string { return h.Path("example.json") }

// Done reports whether the example was applied in this home.
func Done(h home.Home) bool {
	_, err := os.Stat(stateFile(h))
	return !errors.Is(err, fs.ErrNotExist)
}

// Run creates the example and waits until all pods run. It can be run again after an
// interrupted run.
func Run(ctx context.Context, h home.Home, i home.Instance, r Reporter) error {
	az, err := azclient.Connect(i)
	if err != nil {
		return err
	}
	if err := deploy(ctx, az, i, r); err != nil {
		return err
	}
	cfg, err := kubeConfig(ctx, az, i, r)
	if err != nil {
		return err
	}
	r.Step("apply examples/shop.yaml (198 pods of 14 kinds)")
	if err := apply(ctx, cfg, examples.Shop, r); err != nil {
		return err
	}
	b, err := json.Marshal(state{Applied: time.Now().UTC()})
	if err != nil {
		return err
	}
	if err := os.WriteFile(stateFile(h), b, 0o600); err != nil {
		return fmt.Errorf("recording that the example was applied: %w", err)
	}
	return Watch(ctx, cfg, r)
}

// Resume waits until the example cluster of an earlier run is up again.
func Resume(ctx context.Context, i home.Instance, r Reporter) error {
	az, err := azclient.Connect(i)
	if err != nil {
		return err
	}
	_, err = kubeConfig(ctx, az, i, r)
	var re *azcore.ResponseError
	if errors.As(err, &re) && re.StatusCode == http.StatusNotFound {
		r.Line("the example cluster is gone; `nap reset` starts from nothing, `az aks create` makes another")
		return nil
	}
	return err
}

func deploy(ctx context.Context, az *azclient.Clients, i home.Instance, r Reporter) error {
	r.Step("resource group " + ResourceGroup)
	if _, err := az.Groups.CreateOrUpdate(ctx, ResourceGroup, armresources.ResourceGroup{Location: to.Ptr(i.Location)}, nil); err != nil {
		return fmt.Errorf("creating resource group %s: %w", ResourceGroup, err)
	}
	r.Step("template deployment examples/nap.json: cluster " + examples.ClusterName + ", mode Auto")
	var template map[string]any
	if err := json.Unmarshal(examples.ClusterTemplate, &template); err != nil {
		return fmt.Errorf("examples/nap.json: %w", err)
	}
	setLocation(template, i.Location)
	poller, err := az.Deployments.BeginCreateOrUpdate(ctx, ResourceGroup, "nap", armdeployments.Deployment{
		Properties: &armdeployments.DeploymentProperties{Mode: to.Ptr(armdeployments.DeploymentModeIncremental), Template: template},
	}, nil)
	if err != nil {
		return fmt.Errorf("deploying examples/nap.json: %w", err)
	}
	watchCtx, stop := context.WithCancel(ctx)
	defer stop()
	go watchProvisioning(watchCtx, az, r)
	if _, err := poller.PollUntilDone(ctx, &runtime.PollUntilDoneOptions{Frequency: time.Second}); err != nil {
		return fmt.Errorf("deploying examples/nap.json: %w", err)
	}
	return nil
}

// setLocation sets the location of the template's resources.
func setLocation(template map[string]any, location string) {
	list, _ := template["resources"].([]any)
	for _, item := range list {
		if res, ok := item.(map[string]any); ok {
			res["location"] = location
		}
	}
}

func watchProvisioning(ctx context.Context, az *azclient.Clients, r Reporter) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(500 * time.Millisecond):
		}
		c, err := az.Clusters.Get(ctx, ResourceGroup, examples.ClusterName, nil)
		if err == nil && c.Properties != nil && c.Properties.ProvisioningState != nil && ctx.Err() == nil {
			r.Update("cluster " + *c.Properties.ProvisioningState)
		}
	}
}

// kubeConfig fetches the cluster's credentials, as az aks get-credentials does, and
// waits until its API is ready.
func kubeConfig(ctx context.Context, az *azclient.Clients, i home.Instance, r Reporter) (*rest.Config, error) {
	r.Step("credentials of cluster " + examples.ClusterName)
	for {
		creds, err := az.Clusters.ListClusterAdminCredentials(ctx, ResourceGroup, examples.ClusterName, nil)
		if err != nil {
			return nil, fmt.Errorf("credentials of cluster %s: %w", examples.ClusterName, err)
		}
		if len(creds.Kubeconfigs) == 0 {
			return nil, fmt.Errorf("credentials of cluster %s: the reply holds no kubeconfig", examples.ClusterName)
		}
		cfg, err := view.Config(creds.Kubeconfigs[0].Value)
		if err != nil {
			return nil, fmt.Errorf("credentials of cluster %s: %w", examples.ClusterName, err)
		}
		if err := ready(ctx, cfg); err == nil {
			return cfg, nil
		} else if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		r.Update("waiting for its API at " + cfg.Host)
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(300 * time.Millisecond):
		}
	}
}

func ready(ctx context.Context, cfg *rest.Config) error {
	dc, err := discovery.NewDiscoveryClientForConfig(cfg)
	if err != nil {
		return err
	}
	_, err = dc.RESTClient().Get().AbsPath("/readyz").DoRaw(ctx)
	return err
}

// apply applies manifests in their order, by server-side apply. It waits for kinds
// that the API does not know yet.
func apply(ctx context.Context, cfg *rest.Config, manifests []byte, r Reporter) error {
	client, err := dynamic.NewForConfig(cfg)
	if err != nil {
		return fmt.Errorf("client: %w", err)
	}
	dc, err := discovery.NewDiscoveryClientForConfig(cfg)
	if err != nil {
		return fmt.Errorf("client: %w", err)
	}
	mapper := restmapper.NewDeferredDiscoveryRESTMapper(memory.NewMemCacheClient(dc))
	dec := yaml.NewYAMLOrJSONDecoder(bytes.NewReader(manifests), 4096)
	for {
		u := &unstructured.Unstructured{}
		if err := dec.Decode(&u.Object); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return fmt.Errorf("manifests: %w", err)
		}
		if len(u.Object) == 0 {
			continue
		}
		r.Update(strings.ToLower(u.GetKind()) + "/" + u.GetName())
		if err := applyOne(ctx, client, mapper, u); err != nil {
			return fmt.Errorf("applying %s %s: %w", u.GetKind(), u.GetName(), err)
		}
	}
}

func applyOne(ctx context.Context, client dynamic.Interface, mapper *restmapper.DeferredDiscoveryRESTMapper, u *unstructured.Unstructured) error {
	gvk := u.GroupVersionKind()
	deadline := time.Now().Add(time.Minute)
	for {
		m, err := mapper.RESTMapping(gvk.GroupKind(), gvk.Version)
		if err == nil {
			var ri dynamic.ResourceInterface = client.Resource(m.Resource)
			if m.Scope.Name() == meta.RESTScopeNameNamespace {
				ns := u.GetNamespace()
				if ns == "" {
					ns = "default"
				}
				ri = client.Resource(m.Resource).Namespace(ns)
			}
			_, err = ri.Apply(ctx, u.GetName(), u, metav1.ApplyOptions{FieldManager: "nap-up", Force: true})
		} else {
			mapper.Reset()
		}
		if err == nil || ctx.Err() != nil || time.Now().After(deadline) {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(500 * time.Millisecond):
		}
	}
}
