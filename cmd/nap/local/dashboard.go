// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package local

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/nap-aks/nap/localazure/home"
	"github.com/nap-aks/nap/localazure/supervisor"
)

func dashboardCommand() *cobra.Command {
	var cluster string
	var noOpen bool
	cmd := &cobra.Command{
		Use:   "dashboard",
		Short: "Open the live dashboard of a cluster in the browser",
		Long: `Dashboard prints an address that shows the dashboard of a cluster of this instance,
once and for two minutes, and opens it in the browser. The browser stays logged in
for twelve hours.

On a real cluster the controller serves the same page with --dashboard-port:
kubectl port-forward to the replica that leads, open it, and paste a token that may
list nodes.`,
		Example: `  nap dashboard
  nap dashboard --cluster shop --no-open    # only print the address`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			h, err := openHome()
			if err != nil {
				return err
			}
			if _, err := home.ReadLock(h); err != nil {
				return fmt.Errorf("nothing runs in %s: start it with nap up", h.Dir)
			}
			d, err := pickDashboard(dashboards(h), cluster)
			if err != nil {
				return err
			}
			address, err := d.login(cmd.Context(), h)
			if err != nil {
				return err
			}
			fmt.Fprintln(cmd.OutOrStdout(), address)
			if !noOpen && os.Getenv("DISPLAY")+os.Getenv("WAYLAND_DISPLAY") != "" || runtime.GOOS == "darwin" && !noOpen {
				opener := "xdg-open"
				if runtime.GOOS == "darwin" {
					opener = "open"
				}
				if err := exec.CommandContext(cmd.Context(), opener, address).Start(); err != nil { //nolint:gosec // an address of this instance
					fmt.Fprintf(cmd.ErrOrStderr(), "opening the browser: %v; open the address yourself\n", err)
				}
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&cluster, "cluster", "", "the cluster, if there are several")
	cmd.Flags().BoolVar(&noOpen, "no-open", false, "only print the address")
	return cmd
}

// dashboardOf is the dashboard of a cluster.
type dashboardOf struct {
	home.ComponentInfo
}

func (d dashboardOf) address() string { return fmt.Sprintf("http://127.0.0.1:%d", d.DashboardPort) }

// dashboards returns the dashboards of an instance; none if it cannot be read.
func dashboards(h home.Home) []dashboardOf {
	list, err := home.ReadComponents(h)
	if err != nil {
		return nil
	}
	var out []dashboardOf
	for _, c := range list {
		if c.DashboardPort != 0 {
			out = append(out, dashboardOf{c})
		}
	}
	return out
}

func pickDashboard(list []dashboardOf, cluster string) (dashboardOf, error) {
	var names []string
	for _, d := range list {
		if d.Cluster == cluster || cluster == "" && len(list) == 1 {
			return d, nil
		}
		names = append(names, d.Cluster)
	}
	switch {
	case len(list) == 0:
		return dashboardOf{}, errors.New("no cluster of this instance has node auto-provisioning: switch it on with nap enable, or wait until it has started (nap status)")
	case cluster == "":
		return dashboardOf{}, fmt.Errorf("there are several dashboards: choose one with --cluster %s", strings.Join(names, " or --cluster "))
	}
	return dashboardOf{}, fmt.Errorf("cluster %s has no dashboard: there are those of %s", cluster, strings.Join(names, ", "))
}

// login returns an address that opens the dashboard, once.
func (d dashboardOf) login(ctx context.Context, h home.Home) (string, error) {
	settings, err := supervisor.ReadControllerSettings(h, d.ClusterUID)
	if err != nil {
		return "", err
	}
	key, err := os.ReadFile(settings.DashboardKeyFile)
	if err != nil {
		return "", fmt.Errorf("reading the key of the dashboard: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, d.address()+"/api/v1/session", nil)
	if err != nil {
		return "", fmt.Errorf("asking for an address: %w", err)
	}
	req.Header.Set("Authorization", "Bearer "+strings.TrimSpace(string(key)))
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return "", fmt.Errorf("the controller of %s does not answer (nap status shows it): %w", d.Cluster, err)
	}
	defer res.Body.Close() //nolint:errcheck // only read
	var out struct{ Path, Error string }
	if err := json.NewDecoder(io.LimitReader(res.Body, 1<<16)).Decode(&out); err != nil || out.Path == "" {
		return "", fmt.Errorf("the controller of %s answered %s: %s", d.Cluster, res.Status, out.Error)
	}
	return d.address() + out.Path, nil
}
