// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

// Package home is the folder on disk that holds everything of one instance of
// the local Azure: where its files are, what instance.json and components.json
// say, who holds the lock, and which ports it uses. It starts nothing and
// imports no other package of this module, so that every command can read it.
//
//	instance.json     see Instance; stable, for tools and tests
//	components.json   the running processes, see ComponentInfo; rewritten at
//	                  each change; `nap status -o json` adds to it
//	lock              held (flock) by the supervisor; its pid and start time
//	ports.json        the loopback ports chosen, kept from run to run
//	client-secret     the secret of the client in instance.json (0600)
//	kubeconfig        a context per cluster, for kubectl (0600)
//	ca.pem, pki/      the instance's authority and its certificates (keys 0600)
//	etcd/             etcd's data
//	clusters/<uid>/   a cluster's authority, kubeconfigs and controller settings
//	logs/             one file per component, rotated at 20 MiB, three kept
//	az/               the configuration folder of az, apart from the user's own
package home

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"
)

// Home is the folder of one instance.
type Home struct {
	// Dir is absolute.
	Dir string
}

// Open returns the home at dir. It creates the folder if it is missing,
// readable by its owner only.
func Open(dir string) (Home, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return Home{}, fmt.Errorf("home folder %s: %w", dir, err)
	}
	h := Home{Dir: abs}
	for _, d := range []string{abs, h.Path("logs"), h.Path("pki"), h.Path("clusters")} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			return Home{}, fmt.Errorf("home folder: %w; choose another with --home or NAP_HOME", err)
		}
	}
	return h, nil
}

// Path joins names under the home folder.
func (h Home) Path(names ...string) string {
	return filepath.Join(append([]string{h.Dir}, names...)...)
}

// ClusterPath joins names under a cluster's folder.
func (h Home) ClusterPath(uid string, names ...string) string {
	return h.Path(append([]string{"clusters", uid}, names...)...)
}

// TunnelSocket returns the path of the socket through which a cluster's API
// server reaches kubelets and metrics-server.
func (h Home) TunnelSocket(uid string) string { return h.ClusterPath(uid, "tunnel") }

// LogFile returns the path of a component's log; cluster is a UID or empty.
func (h Home) LogFile(component, cluster string) string {
	if cluster == "" {
		return h.Path("logs", component+".log")
	}
	return h.Path("logs", cluster, component+".log")
}

// CheckDisk returns an error if the home's disk has too little space for an
// instance: etcd stops working when it cannot write.
func (h Home) CheckDisk() error {
	var st syscall.Statfs_t
	if err := syscall.Statfs(h.Dir, &st); err != nil {
		return fmt.Errorf("disk of %s: %w", h.Dir, err)
	}
	const need = 512 << 20
	free := uint64(st.Bavail) * uint64(st.Bsize)
	if free < need {
		return fmt.Errorf("disk of %s: %d MiB free, etcd needs %d to start: make room or choose another folder with --home", h.Dir, free>>20, need>>20)
	}
	return nil
}
