// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package home

import (
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// Instance is $NAP_HOME/instance.json: what a client needs to use this local
// Azure. Fields are added, never renamed or removed.
type Instance struct {
	// ARMEndpoint is the Resource Manager's URL, which is also the host of the
	// token endpoint: https on loopback, no trailing slash.
	ARMEndpoint string `json:"armEndpoint"`
	// CAFile is the PEM file of the authority that signed ARM's certificate.
	CAFile         string `json:"caFile"`
	TenantID       string `json:"tenantID"`
	SubscriptionID string `json:"subscriptionID"`
	// ClientID and the secret in ClientSecretFile are a service principal that
	// owns the subscription.
	ClientID         string `json:"clientID"`
	ClientSecretFile string `json:"clientSecretFile"`
	// Location is the region of the examples.
	Location string `json:"location"`
	// Kubeconfig is the file with a context per cluster.
	Kubeconfig string `json:"kubeconfig"`
	// Etcd is the database that holds the instance's state.
	Etcd EtcdClient `json:"etcd"`
	// Ready is set once etcd, ARM and the fleet answer, and cleared while the
	// instance starts and when it stops.
	Ready bool `json:"ready"`
	// PID is the supervisor's process; StartedAt when it started.
	PID       int       `json:"pid"`
	StartedAt time.Time `json:"startedAt"`
	// Home is the folder itself, Version that of the binary.
	Home    string `json:"home"`
	Version string `json:"version"`
}

// ClientSecret reads the secret of ClientID.
func (i Instance) ClientSecret() (string, error) {
	b, err := os.ReadFile(i.ClientSecretFile)
	if err != nil {
		return "", fmt.Errorf("client secret: %w", err)
	}
	return strings.TrimSpace(string(b)), nil
}

// ReadInstance reads instance.json of a home. The error wraps fs.ErrNotExist
// if no instance ever started there.
func ReadInstance(h Home) (Instance, error) {
	var i Instance
	if err := ReadJSON(h.Path("instance.json"), &i); err != nil {
		return i, fmt.Errorf("instance of %s: %w", h.Dir, err)
	}
	return i, nil
}

// EtcdClient is how clients reach an etcd: its members, and the files of the
// client's certificate and key and of the authority that signed the servers'.
type EtcdClient struct {
	// Endpoints are the members' client URLs, all of them https.
	Endpoints []string `json:"endpoints"`
	CAFile    string   `json:"caFile"`
	CertFile  string   `json:"certFile"`
	KeyFile   string   `json:"keyFile"`
	// External marks an etcd that the instance does not run itself.
	External bool `json:"external,omitempty"`
}

// Check reports what is missing or wrong, in terms of the flags of `nap up`,
// and makes the file names absolute.
func (e *EtcdClient) Check() error {
	if len(e.Endpoints) == 0 {
		return errors.New("--etcd-endpoints is missing: there are certificates for an etcd, but no address")
	}
	for _, s := range e.Endpoints {
		u, err := url.Parse(s)
		if err != nil || u.Scheme != "https" || u.Hostname() == "" || u.Port() == "" || strings.Trim(u.Path, "/") != "" {
			return fmt.Errorf("--etcd-endpoints %s is not of the form https://HOST:PORT; several are separated by commas", s)
		}
	}
	for _, f := range []struct {
		flag string
		file *string
	}{{"--etcd-cafile", &e.CAFile}, {"--etcd-certfile", &e.CertFile}, {"--etcd-keyfile", &e.KeyFile}} {
		if *f.file == "" {
			return fmt.Errorf("%s is missing: etcd at %s needs a client certificate", f.flag, strings.Join(e.Endpoints, ","))
		}
		abs, err := filepath.Abs(*f.file)
		if err != nil {
			return fmt.Errorf("%s: %w", f.flag, err)
		}
		if _, err := os.Stat(abs); err != nil {
			return fmt.Errorf("%s: %w", f.flag, err)
		}
		*f.file = abs
	}
	return nil
}

// ComponentInfo is one process of the instance, an entry of components.json.
type ComponentInfo struct {
	Name string `json:"name"`
	// Cluster is the managed cluster's name, ClusterUID its unique one; both
	// are empty for components that all clusters share.
	Cluster    string `json:"cluster,omitempty"`
	ClusterUID string `json:"clusterUID,omitempty"`
	// PID is 0 while the component is not running.
	PID int `json:"pid"`
	// Ready is set if the component answered its last health check.
	Ready     bool      `json:"ready"`
	Restarts  int       `json:"restarts"`
	StartedAt time.Time `json:"startedAt,omitzero"`
	// Port is the component's main port on loopback, MetricsPort that of its
	// Prometheus page in plain HTTP; 0 if it has none.
	Port        int `json:"port,omitempty"`
	MetricsPort int `json:"metricsPort,omitempty"`
	// DashboardPort is that of the page of a controller, 0 if it has none.
	DashboardPort int    `json:"dashboardPort,omitempty"`
	LogFile       string `json:"logFile"`
	// LastExit says how the last run ended, if it did.
	LastExit string `json:"lastExit,omitempty"`
	// RSSBytes is filled in by readers of the file, from /proc.
	RSSBytes int64 `json:"rssBytes,omitempty"`
}

// ReadComponents reads components.json and adds the memory of each process.
func ReadComponents(h Home) ([]ComponentInfo, error) {
	var cs []ComponentInfo
	if err := ReadJSON(h.Path("components.json"), &cs); err != nil {
		return nil, fmt.Errorf("components of %s: %w", h.Dir, err)
	}
	for i := range cs {
		cs[i].RSSBytes = ResidentBytes(cs[i].PID)
	}
	return cs, nil
}

// ResidentBytes returns a process's proportional share of physical memory (PSS):
// its private pages and its part of those it shares with other processes, as
// all components are one binary. It is 0 for a process that is gone or not ours.
func ResidentBytes(pid int) int64 {
	if pid <= 0 {
		return 0
	}
	b, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "smaps_rollup"))
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(line, "Pss:"); ok {
			kb, _ := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(rest), "kB")), 10, 64)
			return kb << 10
		}
	}
	return 0
}
