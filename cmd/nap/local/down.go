// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package local

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/nap-aks/nap/localazure/etcd"
	"github.com/nap-aks/nap/localazure/home"
)

func downCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "down",
		Short:   "Stop the instance and keep its state for the next nap up",
		Example: "  nap down",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			stopped, err := stopInstance()
			if err != nil {
				return err
			}
			if !stopped {
				fmt.Fprintf(cmd.OutOrStdout(), "No instance runs in %s.\n", homeDir())
				return nil
			}
			fmt.Fprintln(cmd.OutOrStdout(), "Stopped. The state is kept: `nap up` continues with it, `nap reset` deletes it.")
			return nil
		},
	}
}

// stopInstance stops the supervisor of the home folder and waits for its end. It
// returns false if none was running.
func stopInstance() (bool, error) {
	h := home.Home{Dir: homeDir()}
	info, err := home.ReadLock(h)
	if errors.Is(err, home.ErrNoInstance) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if info.PID <= 1 {
		return false, fmt.Errorf("lock file in %s names no process: %+v", h.Dir, info)
	}
	if err := syscall.Kill(info.PID, syscall.SIGTERM); err != nil {
		return false, fmt.Errorf("stopping process %d: %w", info.PID, err)
	}
	deadline := time.Now().Add(45 * time.Second)
	for {
		now, err := home.ReadLock(h)
		if errors.Is(err, home.ErrNoInstance) || err == nil && now.PID != info.PID {
			return true, nil
		}
		if time.Now().After(deadline) {
			// Its children end with it.
			fmt.Fprintf(os.Stderr, "process %d did not stop within 45 s, killing it\n", info.PID)
			if err := syscall.Kill(info.PID, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
				return false, fmt.Errorf("killing process %d: %w", info.PID, err)
			}
			deadline = time.Now().Add(10 * time.Second)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

func resetCommand() *cobra.Command {
	var yes bool
	cmd := &cobra.Command{
		Use:     "reset",
		Short:   "Stop the instance and delete all of its state, after asking",
		Example: "  nap reset --yes",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			h := home.Home{Dir: homeDir()}
			if _, err := os.Stat(h.Dir); errors.Is(err, os.ErrNotExist) {
				fmt.Fprintf(cmd.OutOrStdout(), "Nothing to delete in %s.\n", h.Dir)
				return nil
			}
			if !yes {
				fmt.Fprintf(cmd.OutOrStdout(), "This deletes every cluster, resource and log in %s. Type yes to continue: ", h.Dir)
				answer, err := bufio.NewReader(cmd.InOrStdin()).ReadString('\n')
				if err != nil || strings.TrimSpace(answer) != "yes" {
					return errors.New("nothing was deleted")
				}
			}
			if _, err := stopInstance(); err != nil {
				return err
			}
			if err := etcd.Wipe(cmd.Context(), h); err != nil {
				return err
			}
			// Only what an instance creates: --home may name the wrong folder.
			for _, name := range []string{"etcd", "clusters", "pki", "logs", "az", "ca.pem", "ca-bundle.pem", "client-secret", "components.json",
				"example.json", "instance.json", "kubeconfig", "lock", "ports.json", "arm"} {
				if err := os.RemoveAll(h.Path(name)); err != nil {
					return fmt.Errorf("deleting %s: %w", h.Path(name), err)
				}
			}
			_ = os.Remove(h.Dir) // succeeds only if it is empty
			fmt.Fprintln(cmd.OutOrStdout(), "Deleted. Next: nap up")
			return nil
		},
	}
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	return cmd
}
