// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package controlplane

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	kcm "k8s.io/kubernetes/cmd/kube-controller-manager/app"

	"github.com/nap-aks/nap/localazure/pki"
)

func TestFirstServiceAddress(t *testing.T) {
	for cidr, want := range map[string]string{"10.0.0.0/16": "10.0.0.1", "172.16.8.0/22": "172.16.8.1"} {
		if got, err := firstIP(cidr); err != nil || got != want {
			t.Errorf("%s: %s (%v), want %s", cidr, got, err, want)
		}
	}
	for _, bad := range []string{"fd00::/108", "nonsense"} {
		if _, err := firstIP(bad); err == nil {
			t.Errorf("%s was accepted", bad)
		}
	}
}

func TestKubeconfigContextsAreAddedAndRemoved(t *testing.T) {
	file := filepath.Join(t.TempDir(), "kubeconfig")
	dir := t.TempDir()
	ca, err := pki.OpenAuthority(dir, "test")
	if err != nil {
		t.Fatal(err)
	}
	p, err := ca.Client("admin", "masterclient", "system:masters")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"one", "two"} {
		b, err := kubeconfig(name, name+"-admin", "clusterAdmin_rg_"+name, "https://127.0.0.1:1", []byte("ca"), p)
		if err != nil {
			t.Fatal(err)
		}
		if err := AddToKubeconfig(file, b); err != nil {
			t.Fatal(err)
		}
	}
	text := func() string {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	if s := text(); !strings.Contains(s, "current-context: one-admin") || !strings.Contains(s, "two-admin") {
		t.Errorf("after two clusters:\n%s", s)
	}
	if err := RemoveFromKubeconfig(file, "one"); err != nil {
		t.Fatal(err)
	}
	if s := text(); strings.Contains(s, "one") || !strings.Contains(s, "current-context: two-admin") {
		t.Errorf("after the first one was removed:\n%s", s)
	}
}

// The controller manager exits if --controllers names one that it does not have.
func TestDisabledControllersExist(t *testing.T) {
	known := kcm.KnownControllers()
	for _, arg := range (&ControlPlane{}).ControllerManagerArgs() {
		list, ok := strings.CutPrefix(arg, "--controllers=*,")
		if !ok {
			continue
		}
		for _, name := range strings.Split(list, ",") {
			if !slices.Contains(known, strings.TrimPrefix(name, "-")) {
				t.Errorf("the controller manager has no controller %q", name)
			}
		}
		return
	}
	t.Error("no --controllers in the command line")
}
