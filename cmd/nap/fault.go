package main

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
		Short: "Let machines fail as Azure's do: no capacity, slow boots, dead kubelets, evictions",
		Example: `  nap fault stockout --size 'Standard_D*' --zone 1      # no D machine in zone 1
  nap fault stockout --capacity spot --share 0.5        # every other spot machine fails
  nap fault slow-boot 90s
  nap fault silent NODE                                  # its kubelet stops
  nap fault evict NODE                                   # Azure takes the machine away
  nap fault list
  nap fault clear`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	var f fleet.Fault
	match := func(c *cobra.Command) *cobra.Command {
		c.Flags().StringVar(&f.Name, "name", "", "name of the fault (default: made of what it does)")
		c.Flags().StringVar(&f.Size, "size", "", "only sizes that match this pattern, such as 'Standard_D*_v5'")
		c.Flags().StringVar(&f.Zone, "zone", "", "only this zone: 1, 2 or 3")
		c.Flags().StringVar(&f.Capacity, "capacity", "", "only spot, or only on-demand machines")
		c.Flags().StringVar(&f.Pool, "pool", "", "only machines of this agent pool")
		c.Flags().Float64Var(&f.Share, "share", 0, "hit only this share of them, 0 to 1 (default all)")
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
			fmt.Fprintf(cmd.OutOrStdout(), "Fault %s is in force. `nap fault clear %s` ends it.\n", f.Name, f.Name)
			return nil
		})
	}
	stockout := match(&cobra.Command{
		Use: "stockout", Short: "Matching machines cannot be allocated", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return put(cmd, fleet.Stockout) },
	})
	stockout.Flags().StringVar(&f.Code, "code", "", "Azure's error code (default ZonalAllocationFailed with --zone, else AllocationFailed)")
	slow := match(&cobra.Command{
		Use: "slow-boot DURATION", Short: "Matching machines take that long to boot", Args: cobra.ExactArgs(1),
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
		Use: "silent NODE", Short: "The node's kubelet stops: NotReady after 40 s", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			f.Node = args[0]
			return put(cmd, fleet.Silent)
		},
	}
	evict := &cobra.Command{
		Use: "evict NODE", Short: "Azure takes the node's machine away, as it does with spot machines", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return withEtcd(cmd.Context(), func(ctx context.Context, i home.Instance, c *clientv3.Client) error {
				return evictNode(ctx, cmd, i, c, args[0])
			})
		},
	}
	list := &cobra.Command{
		Use: "list", Short: "List the faults in force", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return withEtcd(cmd.Context(), func(ctx context.Context, _ home.Instance, c *clientv3.Client) error {
				faults, err := fleet.Faults(ctx, c)
				if err != nil {
					return err
				}
				if len(faults) == 0 {
					fmt.Fprintln(cmd.OutOrStdout(), "No faults. `nap fault --help` shows what can fail.")
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
		RunE: func(cmd *cobra.Command, args []string) error {
			return withEtcd(cmd.Context(), func(ctx context.Context, _ home.Instance, c *clientv3.Client) error {
				return fleet.ClearFault(ctx, c, strings.Join(args, ""))
			})
		},
	}
	cmd.AddCommand(stockout, slow, silent, evict, list, clearCmd)
	return cmd
}

// withEtcd runs something with the running instance's etcd, for at most a
// minute.
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

// evictNode deletes a node's machine through ARM, without asking anybody in the
// cluster, which is what an eviction looks like from there.
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
				// AKS would drain a node that is deleted; Azure evicts without asking.
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
	return fmt.Errorf("no machine of this instance is node %q; `nap kubectl get nodes` lists them", node)
}
