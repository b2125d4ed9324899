// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package local

import (
	"context"
	"fmt"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/runtime"
	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/containerservice/armcontainerservice/v8"
	"github.com/spf13/cobra"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/nap-aks/nap/localazure/azclient"
	"github.com/nap-aks/nap/localazure/etcd"
	"github.com/nap-aks/nap/localazure/fleet"
	"github.com/nap-aks/nap/localazure/home"
	"github.com/nap-aks/nap/localazure/intent"
	"github.com/nap-aks/nap/localazure/view"
)

func faultCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "fault",
		Short: "Inject faults: no capacity, slow boots, silent kubelets, evictions",
		Example: `  nap fault stockout --size 'Standard_D*' --zone 1       # no D machine in zone 1
  nap fault stockout --capacity spot --share 0.5         # half of the spot machines fail
  nap fault slow-boot 90s                                # machines take 90 s to boot
  nap fault silent NODE                                  # the node's kubelet stops
  nap fault evict NODE                                   # Azure evicts the node's VM
  nap fault list
  nap fault clear`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	var f fleet.Fault
	match := func(c *cobra.Command) *cobra.Command {
		c.Flags().StringVar(&f.Name, "name", "", "name of the fault (default: derived from its kind and filters)")
		c.Flags().StringVar(&f.Size, "size", "", "only sizes that match this pattern, such as 'Standard_D*_v5'")
		c.Flags().StringVar(&f.Zone, "zone", "", "only this zone: 1, 2 or 3")
		c.Flags().StringVar(&f.Capacity, "capacity", "", "only machines of this capacity type: spot or on-demand")
		c.Flags().StringVar(&f.Pool, "pool", "", "only machines of this agent pool")
		c.Flags().Float64Var(&f.Share, "share", 0, "affect only this share of them, 0 to 1 (default all)")
		return c
	}
	put := func(cmd *cobra.Command, kind fleet.FaultKind) error {
		f.Kind = kind
		if f.Name == "" {
			parts := []string{string(kind)}
			for _, p := range []string{f.Size, f.Zone, f.Capacity, f.Pool, f.Node} {
				if p != "" {
					parts = append(parts, strings.NewReplacer("*", "any", "/", "-").Replace(p))
				}
			}
			f.Name = strings.ToLower(strings.Join(parts, "-"))
		}
		return withEtcd(cmd.Context(), func(ctx context.Context, _ home.Instance, c *clientv3.Client) error {
			if err := fleet.PutFault(ctx, c, f); err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "Fault %s is active. `nap fault clear %s` ends it.\n", f.Name, f.Name)
			return nil
		})
	}
	stockout := match(&cobra.Command{
		Use: "stockout", Short: "Fail the allocation of matching machines", Args: cobra.NoArgs,
		Example: "  nap fault stockout --size 'Standard_D*' --zone 1",
		RunE:    func(cmd *cobra.Command, _ []string) error { return put(cmd, fleet.Stockout) },
	})
	stockout.Flags().StringVar(&f.Code, "code", "", "error code of the failure (default ZonalAllocationFailed with --zone, else AllocationFailed)")
	slow := match(&cobra.Command{
		Use: "slow-boot DURATION", Short: "Make matching machines boot slowly", Args: cobra.ExactArgs(1),
		Example: "  nap fault slow-boot 90s --pool fixed",
		RunE: func(cmd *cobra.Command, args []string) error {
			d, err := time.ParseDuration(args[0])
			if err != nil {
				return fmt.Errorf("boot time: %w", err)
			}
			f.BootTime = d
			return put(cmd, fleet.SlowBoot)
		},
	})
	silent := &cobra.Command{
		Use: "silent NODE", Short: "Stop the node's kubelet: the node is NotReady after 40 s", Args: cobra.ExactArgs(1),
		Example: "  nap fault silent aks-default-abc12",
		RunE: func(cmd *cobra.Command, args []string) error {
			f.Node = args[0]
			return put(cmd, fleet.Silent)
		},
	}
	evict := &cobra.Command{
		Use: "evict NODE", Short: "Evict the node's machine, as Azure does with spot VMs", Args: cobra.ExactArgs(1),
		Example: "  nap fault evict aks-default-abc12",
		RunE: func(cmd *cobra.Command, args []string) error {
			return withEtcd(cmd.Context(), func(ctx context.Context, i home.Instance, c *clientv3.Client) error {
				return evictNode(ctx, cmd, i, c, args[0])
			})
		},
	}
	list := &cobra.Command{
		Use: "list", Short: "List the active faults", Args: cobra.NoArgs,
		Example: "  nap fault list",
		RunE: func(cmd *cobra.Command, _ []string) error {
			return withEtcd(cmd.Context(), func(ctx context.Context, _ home.Instance, c *clientv3.Client) error {
				faults, err := fleet.Faults(ctx, c)
				if err != nil {
					return err
				}
				if len(faults) == 0 {
					fmt.Fprintln(cmd.OutOrStdout(), "No faults. `nap fault --help` lists the kinds.")
					return nil
				}
				w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 4, 2, ' ', 0)
				fmt.Fprintln(w, "NAME\tKIND\tSIZE\tZONE\tCAPACITY\tPOOL\tNODE\tSHARE\tWHAT")
				for _, f := range faults {
					what := f.Code
					if f.Kind == fleet.SlowBoot {
						what = f.BootTime.String()
					}
					share := "all"
					if f.Share > 0 {
						share = fmt.Sprintf("%g", f.Share)
					}
					fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", f.Name, f.Kind, dash(f.Size), dash(f.Zone), dash(f.Capacity), dash(f.Pool), dash(f.Node), share, dash(what))
				}
				return w.Flush()
			})
		},
	}
	clearCmd := &cobra.Command{
		Use: "clear [NAME]", Short: "End one fault, or all", Args: cobra.MaximumNArgs(1),
		Example: "  nap fault clear",
		RunE: func(cmd *cobra.Command, args []string) error {
			return withEtcd(cmd.Context(), func(ctx context.Context, _ home.Instance, c *clientv3.Client) error {
				return fleet.ClearFault(ctx, c, strings.Join(args, ""))
			})
		},
	}
	cmd.AddCommand(stockout, slow, silent, evict, list, clearCmd)
	return cmd
}

// withEtcd calls do with a client of the running instance's etcd and a context
// that ends after a minute.
func withEtcd(ctx context.Context, do func(context.Context, home.Instance, *clientv3.Client) error) error {
	if ctx == nil {
		ctx = context.Background()
	}
	h := home.Home{Dir: homeDir()}
	if _, err := home.ReadLock(h); err != nil {
		return err
	}
	i, err := home.ReadInstance(h)
	if err != nil {
		return err
	}
	c, err := etcd.Dial(i.Etcd)
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }()
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	return do(ctx, i, c)
}

// evictNode deletes a node's machine through ARM without a drain: that is how a
// cluster sees an eviction by Azure.
func evictNode(ctx context.Context, cmd *cobra.Command, i home.Instance, c *clientv3.Client, node string) error {
	clusters, err := view.Read(ctx, c, false)
	if err != nil {
		return err
	}
	for _, cl := range clusters {
		for _, m := range cl.Machines {
			if m.Node != node {
				continue
			}
			az, err := azclient.Connect(i)
			if err != nil {
				return err
			}
			if m.Pool != intent.MachinesPool {
				// AKS drains a node that is deleted; an eviction by Azure does not.
				err = az.Resize(ctx, cl.ResourceGroup, cl.Name, m.Pool, 0, []string{m.Name}, true)
				if err == nil {
					fmt.Fprintf(cmd.OutOrStdout(), "Machine %s (%s) of cluster %s is gone.\n", m.Name, m.Size, cl.Name)
				}
				return err
			}
			poller, err := az.AgentPools.BeginDeleteMachines(ctx, cl.ResourceGroup, cl.Name, m.Pool, armcontainerservice.AgentPoolDeleteMachinesParameter{MachineNames: []*string{&m.Name}}, nil)
			if err == nil {
				_, err = poller.PollUntilDone(ctx, &runtime.PollUntilDoneOptions{Frequency: time.Second})
			}
			if err != nil {
				return fmt.Errorf("evicting machine %s of node %s: %w", m.Name, node, err)
			}
			fmt.Fprintf(cmd.OutOrStdout(), "Machine %s (%s) of cluster %s is gone.\n", m.Name, m.Size, cl.Name)
			return nil
		}
	}
	return fmt.Errorf("no machine of this instance has node %q; `nap kubectl get nodes` lists the nodes", node)
}
