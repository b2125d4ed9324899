// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

// Package controlplane is the control plane of a managed cluster: Kubernetes' own
// programs, compiled in from k8s.io/kubernetes, with their command lines, certificates,
// kubeconfigs and configuration files. It starts no processes; package supervisor does.
//
// The programs use process-wide state (flags, feature gates, metrics), so a process
// can run only one of them, once.
package controlplane

import (
	"fmt"

	"github.com/spf13/cobra"
	"k8s.io/component-base/cli"
	_ "k8s.io/component-base/logs/json/register"          // --logging-format=json
	_ "k8s.io/component-base/metrics/prometheus/clientgo" // client metrics
	_ "k8s.io/component-base/metrics/prometheus/version"  // version metric
	kcm "k8s.io/kubernetes/cmd/kube-controller-manager/app"
	scheduler "k8s.io/kubernetes/cmd/kube-scheduler/app"
)

// Names of the programs.
const (
	APIServer         = "kube-apiserver"
	ControllerManager = "kube-controller-manager"
	Scheduler         = "kube-scheduler"
)

// Run runs the named program with the given command line until SIGTERM or SIGINT.
func Run(program string, args []string) error {
	var cmd *cobra.Command
	switch program {
	case APIServer:
		cmd = newAPIServer()
	case ControllerManager:
		cmd = kcm.NewControllerManagerCommand()
	case Scheduler:
		cmd = scheduler.NewSchedulerCommand()
	default:
		return fmt.Errorf("no program %q: there are %s, %s and %s", program, APIServer, ControllerManager, Scheduler)
	}
	cmd.SetArgs(args)
	return cli.RunNoErrOutput(cmd)
}
