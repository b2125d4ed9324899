package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/nap-aks/nap/local"
	"github.com/nap-aks/nap/plan"
)

// nodePoolLabel is on every node that node auto-provisioning made.
const nodePoolLabel = "karpenter.sh/nodepool"

// provisioningCommands switch node auto-provisioning off, or hold it still.
func provisioningCommands() []*cobra.Command {
	var cluster, pool string
	var dryRun bool
	disable := &cobra.Command{
		Use:   "disable",
		Short: "Switch node auto-provisioning off: move its pods to fixed nodes, then mode Manual",
		Long: `Does in one call what the documentation has people do by hand: no new nodes (CPU
limits 0), the taint that makes existing ones drift, a fixed pool if one is
asked for, waiting while the nodes drain under PodDisruptionBudgets and
disruption budgets, and mode Manual at last. Ctrl-C, or no node going for ten
minutes, puts everything back to Auto as it was.`,
		Example: `  nap disable --cluster shop --dry-run
  nap disable --cluster shop --fixed-pool name=fixed,size=Standard_D8s_v5,count=4`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			body, err := fixedPool(pool)
			if err != nil {
				return err
			}
			ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt)
			defer stop()
			return disableProvisioning(ctx, cmd.OutOrStdout(), cluster, body, dryRun)
		},
	}
	disable.Flags().StringVar(&pool, "fixed-pool", "", "pool to create or scale first: name=NAME,size=VM SIZE,count=N")
	disable.Flags().BoolVar(&dryRun, "dry-run", false, "show which pods would move where, and which have no place, and change nothing")

	var all bool
	freeze := &cobra.Command{
		Use:   "freeze",
		Short: "Stop all voluntary change of the nodes (nap resume undoes it)",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			scope := "Disruption"
			if all {
				scope = "All"
			}
			return poolAction(cmd, cluster, "freezeNodeProvisioning", map[string]any{"scope": scope}, "frozen")
		},
	}
	freeze.Flags().BoolVar(&all, "all", false, "stop provisioning as well: no new node for any pod")
	resume := &cobra.Command{
		Use:   "resume",
		Short: "Undo nap freeze",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return poolAction(cmd, cluster, "resumeNodeProvisioning", nil, "as before")
		},
	}
	out := []*cobra.Command{disable, freeze, resume}
	for _, c := range out {
		c.Flags().StringVar(&cluster, "cluster", "", "the cluster's name or resource ID (default: the only one)")
	}
	return out
}

// fixedPool reads --fixed-pool.
func fixedPool(s string) (map[string]any, error) {
	if s == "" {
		return nil, nil
	}
	p := map[string]any{}
	for _, kv := range strings.Split(s, ",") {
		k, v, ok := strings.Cut(kv, "=")
		switch {
		case ok && k == "name":
			p["name"] = v
		case ok && k == "size":
			p["vmSize"] = v
		case ok && k == "count":
			n, err := strconv.Atoi(v)
			if err != nil {
				return nil, fmt.Errorf("--fixed-pool: count is %q, not a number", v)
			}
			p["count"] = n
		default:
			return nil, fmt.Errorf("--fixed-pool: %q is none of name=…, size=…, count=…", kv)
		}
	}
	return map[string]any{"fixedPool": p}, nil
}

// armClient sends requests to the instance's Resource Manager as its owner.
type armClient struct {
	base  string
	token string
	http  *http.Client
	sub   string
}

const armVersion = "2025-10-01"

func dialARM(ctx context.Context) (*armClient, error) {
	h, err := openHome()
	if err != nil {
		return nil, err
	}
	i, err := local.ReadInstance(h)
	if err != nil {
		return nil, err
	}
	pem, err := os.ReadFile(i.CAFile)
	if err != nil {
		return nil, fmt.Errorf("authority of the local Azure: %w", err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("no certificate in %s", i.CAFile)
	}
	secret, err := i.ClientSecret()
	if err != nil {
		return nil, err
	}
	c := &armClient{base: i.ARMEndpoint, sub: i.SubscriptionID, http: &http.Client{Timeout: time.Minute, Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}}}}
	form := url.Values{"grant_type": {"client_credentials"}, "client_id": {i.ClientID}, "client_secret": {secret}, "scope": {i.ARMEndpoint + "/.default"}}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, i.ARMEndpoint+"/"+i.TenantID+"/oauth2/v2.0/token", strings.NewReader(form.Encode()))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	var t struct {
		AccessToken string `json:"access_token"`
	}
	if _, err := c.send(req, &t); err != nil {
		return nil, fmt.Errorf("signing in to the local Azure (is it up? nap status): %w", err)
	}
	c.token = t.AccessToken
	return c, nil
}

func (c *armClient) do(ctx context.Context, method, path string, body, into any) (http.Header, error) {
	if !strings.HasPrefix(path, "https:") {
		path = c.base + path + "?api-version=" + armVersion
	}
	var rd io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return nil, err
		}
		rd = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, path, rd)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Authorization", "Bearer "+c.token)
	req.Header.Set("Content-Type", "application/json")
	return c.send(req, into)
}

func (c *armClient) send(req *http.Request, into any) (http.Header, error) {
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode >= 300 {
		var e struct {
			Code, Message string
			Error         json.RawMessage
		}
		_ = json.Unmarshal(b, &e) // the status says enough if it is no JSON
		var inner struct{ Code, Message string }
		if json.Unmarshal(e.Error, &inner) == nil && inner.Code != "" {
			e.Code, e.Message = inner.Code, inner.Message
		}
		return nil, fmt.Errorf("%s (%s)", e.Message, e.Code)
	}
	if into != nil && len(b) > 0 {
		if err := json.Unmarshal(b, into); err != nil {
			return nil, fmt.Errorf("reading the answer of %s: %w", req.URL.Path, err)
		}
	}
	return resp.Header, nil
}

// cluster finds a cluster by name or ID; the only one if nothing is asked for.
func (c *armClient) cluster(ctx context.Context, name string) (id, short string, err error) {
	var list struct {
		Value []struct{ ID, Name string }
	}
	if _, err := c.do(ctx, http.MethodGet, "/subscriptions/"+c.sub+"/providers/Microsoft.ContainerService/managedClusters", nil, &list); err != nil {
		return "", "", err
	}
	var found []string
	for _, x := range list.Value {
		if name == "" || strings.EqualFold(name, x.Name) || strings.EqualFold(name, x.ID) {
			id, short = x.ID, x.Name
			found = append(found, x.ID)
		}
	}
	switch len(found) {
	case 0:
		return "", "", fmt.Errorf("there is no cluster %q: nap status shows those there are", name)
	case 1:
		return id, short, nil
	}
	return "", "", fmt.Errorf("which cluster? Give one with --cluster: %s", strings.Join(found, ", "))
}

func poolAction(cmd *cobra.Command, cluster, action string, body any, done string) error {
	c, err := dialARM(cmd.Context())
	if err != nil {
		return err
	}
	id, name, err := c.cluster(cmd.Context(), cluster)
	if err != nil {
		return err
	}
	var r struct{ NodePools []string }
	if _, err := c.do(cmd.Context(), http.MethodPost, id+"/"+action, body, &r); err != nil {
		return err
	}
	fmt.Fprintf(cmd.OutOrStdout(), "%s: NodePools %s are %s.\n", name, strings.Join(r.NodePools, ", "), done)
	return nil
}

func disableProvisioning(ctx context.Context, w io.Writer, cluster string, body map[string]any, dryRun bool) error {
	c, err := dialARM(ctx)
	if err != nil {
		return err
	}
	id, name, err := c.cluster(ctx, cluster)
	if err != nil {
		return err
	}
	homeless, err := moves(ctx, w, name)
	if err != nil {
		return err
	}
	if homeless > 0 && body == nil {
		fmt.Fprintf(w, "\n%d pods have no place on fixed nodes; add a pool for them: --fixed-pool name=fixed,size=Standard_D8s_v5,count=…\n", homeless)
	}
	if dryRun {
		return nil
	}
	h, err := c.do(ctx, http.MethodPost, id+"/disableNodeProvisioning", body, nil)
	if err != nil {
		return err
	}
	poll, last, aborted := h.Get("Azure-AsyncOperation"), "", false
	// From here on Ctrl-C aborts the operation, and its end is waited for.
	bg := context.WithoutCancel(ctx)
	for {
		var s struct {
			Status     string
			Properties struct{ Progress string }
			Error      *struct{ Code, Message string }
		}
		if _, err := c.do(bg, http.MethodGet, poll, nil, &s); err != nil {
			return err
		}
		if p := s.Properties.Progress; p != "" && p != last {
			fmt.Fprintln(w, p)
			last = p
		}
		switch s.Status {
		case "Succeeded":
			fmt.Fprintf(w, "%s: node auto-provisioning is off (mode Manual).\n", name)
			return nil
		case "Failed", "Canceled":
			if s.Error == nil {
				return errors.New("the operation ended as " + s.Status)
			}
			return fmt.Errorf("%s (%s)", s.Error.Message, s.Error.Code)
		}
		done := ctx.Done()
		if aborted {
			done = nil
		}
		select {
		case <-time.After(time.Second):
		case <-done:
			aborted = true
			fmt.Fprintln(w, "aborting: the NodePools are put back as they were")
			if _, err := c.do(bg, http.MethodPost, id+"/abort", nil, nil); err != nil {
				return err
			}
		}
	}
}

// moves prints where the pods of provisioned nodes would go if there were only
// the fixed ones, and gives how many have no place.
func moves(ctx context.Context, w io.Writer, cluster string) (homeless int, err error) {
	h, err := openHome()
	if err != nil {
		return 0, err
	}
	src, err := plan.ReadCluster(ctx, h.Path("kubeconfig"), cluster+"-admin", time.Now())
	if err != nil {
		return 0, err
	}
	o := src.Objects
	gone := 0
	for _, n := range o.Nodes {
		if _, ok := n.Labels[nodePoolLabel]; ok {
			o.Marked = append(o.Marked, n.Spec.ProviderID)
			gone++
		}
	}
	o.NodePools, o.NodeClaims = nil, nil
	r, err := plan.Nap(o, plan.Options{Quick: true})
	if err != nil {
		return 0, err
	}
	fmt.Fprintf(w, "%s: %d nodes of node auto-provisioning would go; of their %d pods, %d fit on fixed nodes.\n", cluster, gone, r.Summary.Pods, r.Summary.OnNodes)
	for _, p := range r.Placements {
		fmt.Fprintf(w, "  %d pods to %s\n", len(p.Pods), p.Node)
	}
	for _, x := range r.Refused {
		fmt.Fprintf(w, "  %d pods without a place: %s\n", len(x.Pods), x.Reason)
		homeless += len(x.Pods)
	}
	return homeless, nil
}
