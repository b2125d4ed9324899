// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

// Package supervisor starts and supervises the processes of a local Azure: one
// etcd, one Azure Resource Manager, one fleet of simulated virtual machines, and
// for each managed cluster a real Kubernetes control plane and, while node
// auto-provisioning is on, its controller.
//
// Supervise runs in `nap up`. It starts every component as a child process of
// the same binary (`nap component NAME …`), with one log file each, restarts
// components that exit with a growing delay, and never kills healthy ones. The
// children die with the supervisor. What should run is read from etcd (package
// intent), so every process, the supervisor included, may be killed at any time
// and continues from there.
//
//	etcd                       one member, fsync on, TLS with client certificates;
//	                           absent if an external etcd holds the state
//	arm                        the Azure Resource Manager (package arm)
//	fleet                      package fleet: machines, Nodes and kubelets, and the
//	                           tunnel from the API servers to them
//	kube-apiserver    <uid>    \
//	kube-scheduler    <uid>     } per managed cluster (package controlplane)
//	kube-controller-… <uid>    /
//	controller        <uid>    per managed cluster with mode Auto
//
// The files of an instance are those of package home. Package supervisor never
// imports the engine: it creates machines, it does not choose them. The program
// that embeds it (cmd/nap) supplies the components that it does not implement
// (arm, controller), see Components.
package supervisor
