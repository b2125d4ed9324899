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
	corev1 "k8s.io/api/core/v1"

	"github.com/nap-aks/nap/azure/instancetype"
	"github.com/nap-aks/nap/localazure/home"
	"github.com/nap-aks/nap/plan"
)

// nodePoolLabel is on every node that node auto-provisioning made.
const nodePoolLabel = "karpenter.sh/nodepool"

// provisioningCommands switch node auto-provisioning on and off, or hold it
// still.
func provisioningCommands() []*cobra.Command {
	var cluster string
	var pools []string
	var dryRun, force bool
	disable := &cobra.Command{
		Use:   "disable",
		Short: "Switch node auto-provisioning off: move its pods to fixed nodes, then mode Manual",
		Long: `Does in one call what the documentation has people do by hand. First it shows what
would happen: which pods go where, which have no place and why, and the cost per
hour now and afterwards. Then: fixed pools are created or scaled if asked for, no
new nodes (CPU limits 0), the taint that makes existing ones drift, waiting while
the nodes drain under PodDisruptionBudgets and disruption budgets, and mode Manual
at last. Ctrl-C, or no node going for ten minutes, puts everything back to Auto as
it was: limits, taints, and the fixed pools.`,
		Example: `  nap disable --cluster shop --dry-run
  nap disable --cluster shop --fixed-pool name=fixed,size=Standard_D8s_v5,count=4`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			fixed, err := fixedPools(pools)
			if err != nil {
				return err
			}
			ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt)
			defer stop()
			return disableProvisioning(ctx, cmd.OutOrStdout(), cluster, fixed, dryRun, force)
		},
	}
	disable.Flags().StringArrayVar(&pools, "fixed-pool", nil, "pool to create or scale first: name=NAME,size=VM SIZE,count=N[,zones=1 2 3]; repeat for more")
	disable.Flags().BoolVar(&dryRun, "dry-run", false, "show what would move where, what has no place and what it costs, and change nothing")
	disable.Flags().BoolVar(&force, "force", false, "begin even if pods would have no place")

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
	out := []*cobra.Command{enableCommand(&cluster), disable, freeze, resume}
	for _, c := range out {
		c.Flags().StringVar(&cluster, "cluster", "", "the cluster's name or resource ID (default: the only one)")
	}
	return out
}

// fixedPools reads --fixed-pool.
func fixedPools(args []string) ([]plan.FixedNodes, error) {
	var out []plan.FixedNodes
	for _, s := range args {
		f := plan.FixedNodes{Count: -1}
		for _, kv := range strings.Split(s, ",") {
			k, v, ok := strings.Cut(kv, "=")
			switch {
			case ok && k == "name":
				f.Pool = v
			case ok && k == "size":
				f.Size = v
			case ok && k == "zones":
				f.Zones = strings.Fields(v)
			case ok && k == "count":
				n, err := strconv.Atoi(v)
				if err != nil || n < 0 {
					return nil, fmt.Errorf("--fixed-pool: count is %q, not a number of nodes", v)
				}
				f.Count = n
			default:
				return nil, fmt.Errorf("--fixed-pool: %q is none of name=…, size=…, count=…, zones=…", kv)
			}
		}
		if f.Pool == "" || f.Size == "" || f.Count < 0 {
			return nil, fmt.Errorf("--fixed-pool %s: name, size and count are all needed", s)
		}
		out = append(out, f)
	}
	return out, nil
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
	i, err := home.ReadInstance(h)
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

func disableProvisioning(ctx context.Context, w io.Writer, cluster string, fixed []plan.FixedNodes, dryRun, force bool) error {
	c, err := dialARM(ctx)
	if err != nil {
		return err
	}
	id, name, err := c.cluster(ctx, cluster)
	if err != nil {
		return err
	}
	src, err := readCluster(ctx, name)
	if err != nil {
		return err
	}
	region, usages, err := c.usages(ctx, id)
	if err != nil {
		return err
	}
	m, err := plan.Simulate(src, plan.Move{Gone: func(n *corev1.Node) bool { _, ok := n.Labels[nodePoolLabel]; return ok }, Fixed: fixed, Region: region, Usages: usages}, plan.Options{Quick: true})
	if err != nil {
		return err
	}
	if err := m.WriteTable(w); err != nil {
		return err
	}
	if dryRun {
		return nil
	}
	if err := mayMove(m, force, "add room for them: --fixed-pool name=fixed,size=Standard_D8s_v5,count=…"); err != nil {
		return err
	}
	body := map[string]any{}
	if len(fixed) > 0 {
		pools := []map[string]any{}
		for _, f := range fixed {
			p := map[string]any{"name": f.Pool, "vmSize": f.Size, "count": f.Count}
			if len(f.Zones) > 0 {
				p["availabilityZones"] = f.Zones
			}
			pools = append(pools, p)
		}
		body["fixedPools"] = pools
	}
	h, err := c.do(ctx, http.MethodPost, id+"/disableNodeProvisioning", body, nil)
	if err != nil {
		return err
	}
	return c.follow(ctx, w, id, h.Get("Azure-AsyncOperation"), name+": node auto-provisioning is off (mode Manual).", "aborting: mode Auto and the NodePools are put back as they were")
}

// usages reads what the subscription uses of its compute quotas in a cluster's
// region.
func (c *armClient) usages(ctx context.Context, cluster string) (region string, list []instancetype.Usage, err error) {
	var have struct{ Location string }
	if _, err := c.do(ctx, http.MethodGet, cluster, nil, &have); err != nil {
		return "", nil, err
	}
	path := "/subscriptions/" + c.sub + "/providers/Microsoft.Compute/locations/" + have.Location + "/usages"
	var body json.RawMessage
	if _, err := c.do(ctx, http.MethodGet, path, nil, &body); err != nil {
		return "", nil, fmt.Errorf("reading the subscription's compute usages: %w", err)
	}
	list, err = plan.ParseUsage(path, body)
	return have.Location, list, err
}

// mayMove refuses to begin what would leave pods without a place, or what quotas
// do not let begin.
func mayMove(m *plan.MoveReport, force bool, hint string) error {
	if short := m.BlockedByQuota(); short != "" && !force {
		return fmt.Errorf("%s; or begin all the same with --force", short)
	}
	on := map[string]bool{}
	for _, g := range m.Gone {
		for _, p := range g.Pods {
			on[p] = true
		}
	}
	n := 0
	for _, r := range m.Plan.Refused {
		for _, p := range r.Pods {
			if on[p] {
				n++
			}
		}
	}
	if n == 0 || force {
		return nil
	}
	return fmt.Errorf("%d pods that run now would have no place (above: which and why); %s, or begin all the same with --force", n, hint)
}

// readCluster reads a cluster of this instance for a plan.
func readCluster(ctx context.Context, name string) (*plan.Source, error) {
	h, err := openHome()
	if err != nil {
		return nil, err
	}
	return plan.ReadCluster(ctx, h.Path("kubeconfig"), name+"-admin", time.Now())
}

// follow prints the progress of an operation on a cluster until it is over.
// When ctx ends the operation is aborted, and its end is waited for.
func (c *armClient) follow(ctx context.Context, w io.Writer, id, poll, done, aborting string) error {
	last, aborted, failures := "", false, 0
	bg := context.WithoutCancel(ctx)
	for {
		var s struct {
			Status     string
			Properties struct{ Progress string }
			Error      *struct{ Code, Message string }
		}
		if _, err := c.do(bg, http.MethodGet, poll, nil, &s); err != nil {
			// The operation outlives a restart of the Resource Manager, and so
			// does whoever watches it.
			if failures++; failures > 60 {
				return err
			}
		} else {
			failures = 0
		}
		if p := s.Properties.Progress; p != "" && p != last {
			fmt.Fprintln(w, p)
			last = p
		}
		switch s.Status {
		case "Succeeded":
			fmt.Fprintln(w, done)
			return nil
		case "Failed", "Canceled":
			if s.Error == nil {
				return errors.New("the operation ended as " + s.Status)
			}
			return fmt.Errorf("%s (%s)", s.Error.Message, s.Error.Code)
		}
		stop := ctx.Done()
		if aborted {
			stop = nil
		}
		select {
		case <-time.After(time.Second):
		case <-stop:
			aborted = true
			fmt.Fprintln(w, aborting)
			if _, err := c.do(bg, http.MethodPost, id+"/abort", nil, nil); err != nil {
				return err
			}
		}
	}
}
