// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package containerservice

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
)

// A command runs as this process's user, on this machine, although whoever sends it may
// only act in the cluster. So kubectl gets nothing but requests to the cluster and the
// files that came with the command: verbs that run other programs or open connections
// here, flags that name another server, identity or kubeconfig, and paths outside of the
// files are refused. What is not known to be harmless is refused, too.

// commandVerbs are the kubectl commands that may run.
var commandVerbs = []string{
	"annotate", "api-resources", "api-versions", "apply", "auth", "autoscale", "certificate", "cluster-info", "cordon", "create", "delete", "describe", "drain",
	"events", "exec", "explain", "expose", "get", "label", "logs", "patch", "replace", "rollout", "run", "scale", "set", "taint", "top", "uncordon", "version", "wait",
}

// refusedFlags reach beyond the cluster or the files of the command.
var refusedFlags = []string{
	"cache-dir", "certificate-authority", "client-certificate", "client-key", "cluster", "context", "edit", "kubeconfig", "kuberc", "kustomize", "output-directory",
	"password", "profile", "profile-output", "server", "tls-server-name", "token", "user", "username",
}

// fileFlags name files to read.
var fileFlags = []string{"cert", "filename", "from-env-file", "from-file", "key", "patch-file"}

// shorthands are the one-letter flags that matter here, and the flags that they stand for.
var shorthands = map[byte]string{'f': "filename", 'k': "kustomize", 's': "server", 'o': "output"}

// checkCommand returns why the arguments of kubectl may not run, nil if they may.
func checkCommand(args []string) error {
	if len(args) == 0 {
		return nil // kubectl prints its help
	}
	if !slices.Contains(commandVerbs, args[0]) {
		return fmt.Errorf("kubectl %s cannot be run here; start with one of %s", args[0], strings.Join(commandVerbs, ", "))
	}
	if slices.Contains(args[1:], "edit-last-applied") || args[0] == "cluster-info" && len(args) > 1 && args[1] == "dump" {
		return fmt.Errorf("kubectl %s cannot be run here: it needs an editor or a folder", strings.Join(args[:2], " "))
	}
	for i := 1; i < len(args); i++ {
		arg := args[i]
		if arg == "--" {
			return nil // the rest is for a container
		}
		name, value, attached := flagOf(arg)
		if name == "" {
			continue
		}
		if slices.Contains(refusedFlags, name) {
			return fmt.Errorf("the flag %s cannot be used here: commands run against their own cluster, with the files that they bring", arg)
		}
		if !slices.Contains(fileFlags, name) && name != "output" && name != "template" {
			if len(arg) > 2 && arg[1] != '-' && strings.ContainsAny(arg[1:], "fks") && !attached {
				return fmt.Errorf("write the flags of %s apart", arg)
			}
			continue
		}
		if !attached {
			if i++; i == len(args) {
				return nil // kubectl says what is missing
			}
			value = args[i]
		}
		if err := checkFiles(name, value); err != nil {
			return err
		}
	}
	return nil
}

// flagOf returns the long name of a flag, and the value that is attached to it. The name
// is empty if the argument is none, and the argument itself for a shorthand that does not
// matter.
func flagOf(arg string) (name, value string, attached bool) {
	switch {
	case strings.HasPrefix(arg, "--"):
		name, value, attached = strings.Cut(arg[2:], "=")
		return strings.ReplaceAll(name, "_", "-"), value, attached
	case len(arg) > 1 && arg[0] == '-':
		long, ok := shorthands[arg[1]]
		if !ok {
			// A shorthand that takes a value, as in -nkube-system, or switches.
			return arg, "", strings.IndexByte("nlLcpv", arg[1]) >= 0
		}
		value = strings.TrimPrefix(arg[2:], "=")
		return long, value, len(arg) > 2
	}
	return "", "", false
}

// checkFiles refuses a value that names a file outside of the command's own.
func checkFiles(flag, value string) error {
	var paths []string
	switch flag {
	case "output", "template":
		format, path, ok := strings.Cut(value, "=")
		if flag == "template" || !ok || !strings.HasSuffix(format, "file") {
			if flag == "template" && filepath.IsAbs(value) {
				return fmt.Errorf("%s: give the template itself, or a file that comes with the command", value)
			}
			return nil
		}
		paths = []string{path}
	case "from-file":
		if _, path, ok := strings.Cut(value, "="); ok {
			value = path
		}
		paths = []string{value}
	default:
		paths = strings.Split(value, ",")
	}
	for _, path := range paths {
		if path != "-" && (!filepath.IsLocal(path) || strings.Contains(path, "://")) {
			return fmt.Errorf("%s is no file of the command: attach it (az aks command invoke --file) and give its name", path)
		}
	}
	return nil
}
