// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package local

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/nap-aks/nap/localazure/home"
)

func logsCommand() *cobra.Command {
	var follow bool
	var tail int
	var cluster, query, format string
	cmd := &cobra.Command{
		Use:   "logs [COMPONENT]",
		Short: "Print the log of a component, query all logs, or list them",
		Example: `  nap logs                       # list the logs
  nap logs controller -f         # what node auto-provisioning does
  nap logs kube-apiserver --tail 50
  nap logs controller --cluster-name napcluster
  nap logs --kql 'AKSControlPlane | where Category == "karpenter-events" | project TimeGenerated, Message | order by TimeGenerated asc'
  nap logs --kql 'AKSControlPlane | where Level == "error" | summarize count() by Category, bin(TimeGenerated, 1h)'`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			h := home.Home{Dir: homeDir()}
			if query != "" {
				if len(args) > 0 || follow {
					return errors.New("--kql cannot be combined with a component or --follow")
				}
				return queryLogs(cmd.Context(), cmd.OutOrStdout(), h, query, format)
			}
			files, err := logFiles(h, cluster)
			if err != nil {
				return err
			}
			if len(args) == 0 {
				for _, f := range files {
					fmt.Fprintf(cmd.OutOrStdout(), "%-26s %s\n", f.component, f.path)
				}
				if len(files) == 0 {
					fmt.Fprintf(cmd.OutOrStdout(), "No logs in %s yet. Next: nap up\n", h.Dir)
				}
				return nil
			}
			var paths []string
			for _, f := range files {
				if f.component == args[0] {
					paths = append(paths, f.path)
				}
			}
			if len(paths) == 0 {
				return fmt.Errorf("no log of component %q; `nap logs` lists the components", args[0])
			}
			ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
			defer stop()
			return printLogs(ctx, cmd.OutOrStdout(), paths, tail, follow)
		},
	}
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "continue as lines are written")
	cmd.Flags().IntVar(&tail, "tail", -1, "only the last lines (-1: all of the current file)")
	cmd.Flags().StringVar(&query, "kql", "", "a query in the Kusto Query Language over the collected logs and events of all clusters\n(tables AzureDiagnostics, AKSControlPlane, AKSAudit, AKSAuditAdmin), with joins, functions and series")
	cmd.Flags().StringVarP(&format, "output", "o", "table", "output of --kql: table or json")
	cmd.Flags().StringVar(&cluster, "cluster-name", "", "only logs of this cluster")
	return cmd
}

type componentLog struct{ component, uid, path string }

// logFiles lists the current log file of each component.
func logFiles(h home.Home, cluster string) ([]componentLog, error) {
	var out []componentLog
	for _, pattern := range []string{"*.log", "*/*.log"} {
		paths, err := filepath.Glob(h.Path("logs", pattern))
		if err != nil {
			return nil, err
		}
		for _, p := range paths {
			l := componentLog{component: strings.TrimSuffix(filepath.Base(p), ".log"), path: p}
			if dir := filepath.Base(filepath.Dir(p)); dir != "logs" {
				l.uid = dir
			}
			out = append(out, l)
		}
	}
	if cluster == "" {
		return out, nil
	}
	comps, err := home.ReadComponents(h)
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(out, func(l componentLog) bool {
		return !slices.ContainsFunc(comps, func(c home.ComponentInfo) bool { return c.Cluster == cluster && c.ClusterUID == l.uid })
	}), nil
}

// printLogs prints the files one after the other, then follows all of them if
// follow is set.
func printLogs(ctx context.Context, out io.Writer, paths []string, tail int, follow bool) error {
	offsets := make([]int64, len(paths))
	for i, p := range paths {
		b, err := os.ReadFile(p)
		if err != nil {
			return fmt.Errorf("reading the log: %w", err)
		}
		offsets[i] = int64(len(b))
		if tail >= 0 {
			b = lastLines(b, tail)
		}
		if len(paths) > 1 {
			fmt.Fprintf(out, "==> %s\n", p)
		}
		if _, err := out.Write(b); err != nil {
			return err
		}
	}
	for follow {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(200 * time.Millisecond):
		}
		for i, p := range paths {
			n, err := copyFrom(out, p, offsets[i])
			if err != nil {
				return err
			}
			offsets[i] = n
		}
	}
	return nil
}

// copyFrom copies a file from an offset to its end and returns the new offset. A
// file shorter than the offset was rotated and is copied from its start.
func copyFrom(out io.Writer, path string, from int64) (int64, error) {
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return 0, nil // being rotated
	}
	if err != nil {
		return from, fmt.Errorf("reading the log: %w", err)
	}
	defer func() { _ = f.Close() }()
	st, err := f.Stat()
	if err != nil {
		return from, fmt.Errorf("reading the log: %w", err)
	}
	if st.Size() < from {
		from = 0
	}
	if _, err := f.Seek(from, io.SeekStart); err != nil {
		return from, fmt.Errorf("reading the log: %w", err)
	}
	n, err := io.Copy(out, f)
	return from + n, err
}

func lastLines(b []byte, n int) []byte {
	i := len(b)
	if i > 0 && b[i-1] == '\n' {
		i--
	}
	for ; i > 0; i-- {
		if b[i-1] == '\n' {
			if n--; n <= 0 {
				return b[i:]
			}
		}
	}
	if n <= 0 {
		return nil
	}
	return b
}
