// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package local

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/nap-aks/nap/cmd/nap/app"
	"github.com/nap-aks/nap/localazure/etcd"
	"github.com/nap-aks/nap/localazure/home"
	"github.com/nap-aks/nap/localazure/view"
)

// status is the output of nap status -o json. Fields may be added but are never
// renamed or removed.
type status struct {
	Running    bool                 `json:"running"`
	Home       string               `json:"home"`
	Instance   *home.Instance       `json:"instance,omitempty"`
	Components []home.ComponentInfo `json:"components"`
	Clusters   []view.Cluster       `json:"clusters"`
	// Problem is the reason why a part is missing, such as an unreachable etcd.
	Problem string `json:"problem,omitempty"`
}

func statusCommand() *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show processes, clusters, machines and their cost",
		Example: `  nap status
  nap status -o json | jq '.components[] | {name, pid, rssBytes}'`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if output != "" && output != "json" {
				return fmt.Errorf("-o %s is not supported: use json, or leave it out for tables", output)
			}
			s, err := readStatus(cmd.Context())
			if err != nil {
				return err
			}
			if output == "json" {
				enc := json.NewEncoder(cmd.OutOrStdout())
				enc.SetIndent("", "  ")
				return enc.Encode(s)
			}
			printStatus(cmd.OutOrStdout(), s)
			if !s.Running {
				return app.ExitError{Code: 3}
			}
			return nil
		},
	}
	cmd.Flags().StringVarP(&output, "output", "o", "", "json (default: tables)")
	return cmd
}

func readStatus(ctx context.Context) (status, error) {
	if ctx == nil {
		ctx = context.Background()
	}
	h := home.Home{Dir: homeDir()}
	s := status{Home: h.Dir, Components: []home.ComponentInfo{}, Clusters: []view.Cluster{}}
	if _, err := home.ReadLock(h); errors.Is(err, home.ErrNoInstance) {
		return s, nil
	} else if err != nil {
		return s, err
	}
	s.Running = true
	i, err := home.ReadInstance(h)
	if err != nil {
		return s, err
	}
	s.Instance, s.Home = &i, i.Home
	if comps, err := home.ReadComponents(h); err == nil {
		s.Components = comps
	} else {
		s.Problem = err.Error()
	}
	c, err := etcd.Dial(i.Etcd)
	if err != nil {
		s.Problem = err.Error()
		return s, nil
	}
	defer func() { _ = c.Close() }()
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	if s.Clusters, err = view.Read(ctx, c, true); err != nil {
		s.Problem = "etcd is not responding: " + err.Error()
		s.Clusters = []view.Cluster{}
	}
	return s, nil
}

func printStatus(out io.Writer, s status) {
	if !s.Running {
		fmt.Fprintf(out, "No instance runs in %s. Next: nap up\n", s.Home)
		return
	}
	fmt.Fprintf(out, "Instance in %s, up for %s, ARM at %s\n\n", s.Home, time.Since(s.Instance.StartedAt).Round(time.Second), s.Instance.ARMEndpoint)
	w := tabwriter.NewWriter(out, 0, 4, 2, ' ', 0)
	fmt.Fprintln(w, "COMPONENT\tCLUSTER\tPID\tSTATE\tRESTARTS\tMEMORY\tPORT")
	total := int64(0)
	for _, c := range s.Components {
		state := "starting"
		switch {
		case c.Ready:
			state = "ready"
		case c.PID == 0:
			state = "restarting"
		}
		total += c.RSSBytes
		fmt.Fprintf(w, "%s\t%s\t%d\t%s\t%d\t%d MiB\t%s\n", c.Name, dash(c.Cluster), c.PID, state, c.Restarts, c.RSSBytes>>20, portText(c.Port))
	}
	fmt.Fprintf(w, "\t\t\t\t\t%d MiB\t\n", total>>20)
	_ = w.Flush()
	for _, cl := range s.Clusters {
		fmt.Fprintf(out, "\nCluster %s (%s, %s), %s, Kubernetes %s, node provisioning %s", cl.Name, cl.ResourceGroup, cl.Location, cl.Phase, dash(cl.KubernetesVersion), dash(cl.NodeProvisioning))
		if cl.Pods != nil {
			fmt.Fprintf(out, "; pods: %d running, %d pending", cl.Pods.Running, cl.Pods.Pending)
		}
		if cl.Message != "" {
			fmt.Fprintf(out, "\n  %s", cl.Message)
		}
		fmt.Fprintln(out)
		machineTable(out, cl)
	}
	if len(s.Clusters) == 0 {
		fmt.Fprintln(out, "\nNo clusters. Next: nap up without --no-example, or eval \"$(nap env)\" and az aks create")
	}
	if s.Problem != "" {
		fmt.Fprintf(out, "\n! %s\n", s.Problem)
	}
}

func portText(p int) string {
	if p == 0 {
		return "-"
	}
	return fmt.Sprint(p)
}

func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// machineTable prints the machines of a cluster, identical ones on one line.
func machineTable(out io.Writer, cl view.Cluster) {
	type key struct{ pool, size, zone, capacity, phase string }
	type row struct {
		key
		n, pods int
		price   float64
		msg     string
	}
	rows := map[key]*row{}
	for _, m := range cl.Machines {
		pool := m.Pool
		if m.NodePool != "" {
			pool = "NodePool " + m.NodePool
		}
		k := key{pool, m.Size, m.Zone, m.Capacity(), m.Phase}
		r, ok := rows[k]
		if !ok {
			r = &row{key: k}
			rows[k] = r
		}
		r.n++
		r.price += m.USDPerHour
		r.pods += max(m.Pods, 0)
		if m.Message != "" {
			r.msg = m.Message
		}
	}
	list := make([]*row, 0, len(rows))
	for _, r := range rows {
		list = append(list, r)
	}
	slices.SortFunc(list, func(a, b *row) int {
		return cmp.Or(cmp.Compare(a.pool, b.pool), cmp.Compare(a.size, b.size), cmp.Compare(a.zone, b.zone), cmp.Compare(a.capacity, b.capacity), cmp.Compare(a.phase, b.phase))
	})
	w := tabwriter.NewWriter(out, 0, 4, 2, ' ', 0)
	fmt.Fprintln(w, "  MACHINES\tPOOL\tSIZE\tZONE\tCAPACITY\tSTATE\tPODS\t$/H")
	pods := 0
	for _, r := range list {
		pods += r.pods
		fmt.Fprintf(w, "  %d\t%s\t%s\t%s\t%s\t%s\t%d\t%.3f\t%s\n", r.n, r.pool, r.size, dash(r.zone), r.capacity, r.phase, r.pods, r.price, r.msg)
	}
	fmt.Fprintf(w, "  %d\t\t\t\t\t\t%d\t%.3f\n", len(cl.Machines), pods, cl.USDPerHour)
	_ = w.Flush()
}

// summary prints what runs, what it costs and, the first time, what to try next.
func summary(ctx context.Context, out io.Writer, i home.Instance, first bool, took time.Duration) {
	c, err := etcd.Dial(i.Etcd)
	if err != nil {
		return
	}
	defer func() { _ = c.Close() }()
	readCtx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	clusters, err := view.Read(readCtx, c, true)
	if err != nil {
		fmt.Fprintf(out, "! reading the clusters: %v\n", err)
		return
	}
	for _, cl := range clusters {
		fmt.Fprintf(out, "\nCluster %s: %d machines, $%.3f per hour", cl.Name, len(cl.Machines), cl.USDPerHour)
		if cl.Pods != nil {
			fmt.Fprintf(out, ", %d pods running (%d pending)", cl.Pods.Running, cl.Pods.Pending)
		}
		fmt.Fprintln(out)
		machineTable(out, cl)
	}
	fmt.Fprintf(out, "\nUp after %s. ARM is at %s, the home folder is %s.\n", elapsed(took), i.ARMEndpoint, i.Home)
	for _, d := range dashboards(home.Home{Dir: i.Home}) {
		fmt.Fprintf(out, "The dashboard of %s is at %s; nap dashboard opens it.\n", d.Cluster, d.address())
	}
	if first {
		fmt.Fprint(out, `
What to try next, in another terminal:
  nap kubectl -n shop scale deployment web --replicas 90     # more machines appear
  nap kubectl -n shop scale deployment web --replicas 3      # and are removed again
  nap kubectl get events -A --field-selector source=node-auto-provisioning
  nap dashboard                                              # see it in the browser
  nap status                                                 # machines and their cost
  eval "$(nap env)"                                          # az, kubectl, SDKs use this Azure
`)
	}
	if home := os.Getenv("NAP_HOME"); home == "" && homeFlag != "" {
		fmt.Fprintf(out, "(with --home %s, or NAP_HOME set to it)\n", homeFlag)
	}
	fmt.Fprintln(out)
}
