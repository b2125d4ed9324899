// Package controlplane runs Kubernetes' own control plane programs, compiled in from
// k8s.io/kubernetes, as components of the local Azure. Each function takes the
// program's ordinary command line and returns when the program ends. They use
// process-wide state (flags, feature gates, metrics), so a process runs one of
// them, once.
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

// Programs are the names Run knows.
const (
	APIServer         = "kube-apiserver"
	ControllerManager = "kube-controller-manager"
	Scheduler         = "kube-scheduler"
)

// Run runs the named program with the given command line until it is told to
// stop by SIGTERM or SIGINT. It returns the program's error, or one that names
// the programs there are.
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
