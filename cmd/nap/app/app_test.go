// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package app

import (
	"bytes"
	"os/exec"
	"strings"
	"testing"
)

func TestSlimBuildHasNoLocalAzure(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", "-tags", "slim", "github.com/nap-aks/nap/cmd/nap").Output()
	if err != nil {
		t.Fatal(err)
	}
	for _, pkg := range strings.Fields(string(out)) {
		for _, deny := range []string{"k8s.io/kubernetes/", "go.etcd.io/", "github.com/nap-aks/nap/localazure/", "github.com/nap-aks/nap/controllers"} {
			if strings.HasPrefix(pkg, deny) {
				t.Errorf("the slim build of nap depends on %s", pkg)
			}
		}
	}
}

func TestPlaceholderSaysHowToGetTheCommand(t *testing.T) {
	cmd := NewCommand()
	AddPlaceholders(cmd)
	cmd.SetArgs([]string{"up", "--detach"})
	if err := cmd.Execute(); err == nil || !strings.Contains(err.Error(), "make build") {
		t.Errorf("nap up --detach: %v", err)
	}
}

func TestVersionNamesTheBuild(t *testing.T) {
	cmd := NewCommand()
	var out bytes.Buffer
	cmd.SetOut(&out)
	cmd.SetArgs([]string{"version"})
	if err := cmd.Execute(); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"nap ", "karpenter ", "go "} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in\n%s", want, out.String())
		}
	}
}
