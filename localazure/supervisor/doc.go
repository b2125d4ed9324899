// Package supervisor puts a machine-sized Azure together: one etcd, one Azure
// Resource Manager, one fleet of simulated virtual machines, and for each
// managed cluster a real Kubernetes control plane and, while node
// auto-provisioning is on, its controller.
//
// # Processes
//
// Supervise runs in `nap up`. It starts every component as a child process of
// the same binary (`nap component NAME …`), one log file each, restarts what
// dies with a growing delay, and never kills what answers. The children die
// with the supervisor. What the components should be is not told to them by the
// supervisor but read from etcd (package arm/intent), so any of them, the
// supervisor included, may be killed at any time and goes on from there.
//
//	etcd                       one member, fsync on, TLS with client certificates;
//	                           not there when somebody else's holds the state
//	arm                        the Azure Resource Manager (package arm)
//	fleet                      package local/fleet: machines, Nodes, kubelets, and
//	                           what API servers reach of them (local/tunnel)
//	kube-apiserver    <uid>    \
//	kube-scheduler    <uid>     } per managed cluster (package local/kube)
//	kube-controller-… <uid>    /
//	controller        <uid>    per managed cluster with mode Auto
//
// # The home folder
//
// All state lies in one folder ($NAP_HOME, ./.nap by default):
//
//	instance.json     what is where: see Instance. Stable, for tools and tests.
//	components.json   the processes of now: see ComponentInfo. Rewritten at
//	                  each change; `nap status -o json` adds to it.
//	lock              held (flock) by the supervisor; its pid and start time
//	ports.json        the loopback ports chosen, kept from run to run
//	client-secret     the secret of the client in instance.json (0600)
//	kubeconfig        a context per cluster, for kubectl (0600)
//	ca.pem, pki/      the instance's authority and its certificates (keys 0600)
//	etcd/             etcd's data
//	clusters/<uid>/   a cluster's authority, kubeconfigs and controller settings
//	logs/             one file per component, rotated at 20 MiB, three kept
//	az/               the configuration folder of az, apart from the user's own
//
// Package supervisor never imports the engine: it makes machines, it does not choose
// them. The program that embeds it (cmd/nap) supplies the components which
// other rooms implement (arm, controller).
package supervisor
