// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package supervisor

import (
	"crypto/rand"
	"errors"
	"fmt"
	"os"

	"github.com/nap-aks/nap/localazure/home"
)

// dashboardKey returns the file with the key of a cluster's dashboard (0600), which it
// writes if it does not exist.
func dashboardKey(h home.Home, uid string) (string, error) {
	path := h.ClusterPath(uid, "dashboard.key")
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if errors.Is(err, os.ErrExist) {
		if info, err := os.Stat(path); err == nil && info.Size() > 0 {
			return path, nil
		}
		// Interrupted while it was written.
		f, err = os.OpenFile(path, os.O_TRUNC|os.O_WRONLY, 0o600)
	}
	if err != nil {
		return "", fmt.Errorf("writing the key of the dashboard: %w", err)
	}
	_, err = f.WriteString(rand.Text() + rand.Text() + "\n")
	if err := errors.Join(err, f.Close()); err != nil {
		return "", fmt.Errorf("writing the key of the dashboard: %w", err)
	}
	return path, nil
}
