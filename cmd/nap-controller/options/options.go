// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

// Package options reads the configuration of nap-controller from its command
// line and environment. Every flag but --version has an environment variable; a
// flag takes precedence over its variable.
package options

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"runtime/debug"
	"strconv"
	"strings"

	"github.com/nap-aks/nap/azure"
	"github.com/nap-aks/nap/controllers"
)

// ErrVersion is returned by Parse for --version.
var ErrVersion = errors.New("version requested")

// LookupEnv returns an environment variable, as os.LookupEnv does.
type LookupEnv func(string) (string, bool)

// Parse returns the options for the given arguments and environment. It writes
// help and usage errors to out. As a side effect it applies --memory-limit to
// this process.
func Parse(args []string, env LookupEnv, out io.Writer) (controllers.Options, error) {
	c := newCommandLine(env, out)
	if err := c.Parse(args); err != nil {
		return c.options, err
	}
	if c.version {
		return c.options, ErrVersion
	}
	if c.envErr != nil {
		return c.options, c.envErr
	}
	if c.NArg() > 0 {
		return c.options, fmt.Errorf("unexpected argument %q; see --help", c.Arg(0))
	}
	err := c.complete()
	return c.options, err
}

// FlagSet returns the flags with their defaults in an empty environment.
func FlagSet() *flag.FlagSet {
	return newCommandLine(func(string) (string, bool) { return "", false }, io.Discard).FlagSet
}

// complete derives the options that are not the plain value of a flag.
func (c *commandLine) complete() error {
	o, a := &c.options, &c.options.Azure
	o.CPUMillicores = int64(c.cpuMillicores)
	for host := range strings.SplitSeq(c.dashboardHosts, ",") {
		if host = strings.TrimSpace(host); host != "" {
			o.Dashboard.Hosts = append(o.Dashboard.Hosts, host)
		}
	}
	if secret, ok := c.env("AZURE_CLIENT_SECRET"); ok {
		a.ClientSecret = secret // no flag: other users of the machine can read arguments
	}
	if a.PricesEndpoint == "-" {
		a.PricesEndpoint = ""
	}
	if a.ClusterResourceID == "" {
		if c.subscription == "" || c.resourceGroup == "" || c.cluster == "" {
			return errors.New("no cluster given: set --cluster-resource-id, or --subscription-id, --resource-group and --cluster-name")
		}
		a.ClusterResourceID = fmt.Sprintf("/subscriptions/%s/resourceGroups/%s/providers/Microsoft.ContainerService/managedClusters/%s", c.subscription, c.resourceGroup, c.cluster)
	}
	var err error
	if a.VMMemoryOverheadPercent, err = strconv.ParseFloat(c.memoryOverhead, 64); err != nil || a.VMMemoryOverheadPercent < 0 || a.VMMemoryOverheadPercent >= 1 {
		return fmt.Errorf("--vm-memory-overhead-percent %q is not a fraction of at least 0 and less than 1", c.memoryOverhead)
	}
	if a.AdditionalTags, err = parseTags(c.tags); err != nil {
		return err
	}
	return setMemoryLimit(c.memoryLimit)
}

// setMemoryLimit limits the Go heap to 90% of the container's limit, which leaves
// room for memory that the collector does not count. Empty and 0 mean no limit.
func setMemoryLimit(limit string) error {
	if limit == "" {
		return nil
	}
	bytes, err := strconv.ParseInt(limit, 10, 64)
	if err != nil {
		return fmt.Errorf("--memory-limit %q is not a number of bytes", limit)
	}
	if bytes > 0 {
		debug.SetMemoryLimit(bytes / 10 * 9)
	}
	return nil
}

// parseTags reads key=value pairs. Keys are unique without regard to case, as in
// Azure.
func parseTags(list string) (map[string]string, error) {
	if list == "" {
		return nil, nil
	}
	out, seen := map[string]string{}, map[string]bool{}
	for _, pair := range strings.Split(list, ",") {
		k, v, ok := strings.Cut(strings.TrimSpace(pair), "=")
		switch {
		case !ok || k == "":
			return nil, fmt.Errorf("additional tag %q is not key=value", pair)
		case len(k) > 512 || strings.ContainsAny(k, `<>%&\?/`):
			return nil, fmt.Errorf("additional tag key %q is longer than 512 characters or has one of < > %% & \\ ? /", k)
		case len(v) > 256:
			return nil, fmt.Errorf("value of additional tag %q is longer than 256 characters", k)
		case seen[strings.ToLower(k)]:
			return nil, fmt.Errorf("additional tag %q is given twice", k)
		}
		out[k], seen[strings.ToLower(k)] = v, true
	}
	return out, nil
}

// commandLine holds the flags and their values.
type commandLine struct {
	*flag.FlagSet
	env     LookupEnv
	envErr  error // first environment variable that could not be read
	options controllers.Options

	// Values that complete turns into options.
	subscription, resourceGroup, cluster string
	memoryOverhead, tags, memoryLimit    string
	dashboardHosts                       string
	cpuMillicores                        int
	version                              bool
}

func newCommandLine(env LookupEnv, out io.Writer) *commandLine {
	c := &commandLine{FlagSet: flag.NewFlagSet("nap-controller", flag.ContinueOnError), env: env}
	c.options.Azure = azure.Config{VMMemoryOverheadPercent: -1}
	c.SetOutput(out)
	c.Usage = func() {
		fmt.Fprint(out, `nap-controller provisions the nodes of one AKS cluster.

It needs the cluster (--cluster-resource-id, or --subscription-id, --resource-group
and --cluster-name) and finds Azure credentials as Azure's tools do. The secret of
a client is read from AZURE_CLIENT_SECRET only. Example:

  nap-controller --cluster-resource-id /subscriptions/…/managedClusters/shop

Flags, each with the environment variable that can replace it:
`)
		c.PrintDefaults()
	}
	c.clusterFlags()
	c.azureFlags()
	c.kubernetesFlags()
	c.provisioningFlags()
	c.processFlags()
	c.dashboardFlags()
	return c
}
