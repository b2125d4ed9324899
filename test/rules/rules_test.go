// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

// Package rules checks that the rooms of the project import only what the
// picture in docs/architecture.md lets them: dependencies point one way.
package rules

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/nap-aks/nap/"

// room says what one part of the tree may never depend on, even indirectly.
type room struct {
	// dir is the package or, with its children, the tree that is meant.
	dir string
	// deny lists import path prefixes; those that start with "nap:" are
	// relative to this module.
	deny []string
	why  string
}

var rooms = []room{
	{"engine", []string{"k8s.io/", "sigs.k8s.io/", "github.com/Azure/", "go.etcd.io/", "log", "net/http", "os/exec",
		"nap:snapshot", "nap:controllers", "nap:azure", "nap:localazure", "nap:plan", "nap:catalog"},
		"the engine is a pure function of its Snapshot: no clients, no clouds, no logging"},
	{"snapshot", []string{"nap:controllers", "nap:azure", "nap:localazure", "nap:plan", "k8s.io/kubernetes"},
		"snapshot translates, it neither decides nor talks to a cloud"},
	{"controllers", []string{"nap:localazure", "k8s.io/kubernetes"},
		"the controller knows ARM only through package azure, and runs on real clusters"},
	{"azure", []string{"nap:localazure", "nap:engine", "nap:snapshot", "nap:controllers", "k8s.io/kubernetes"},
		"the provider is told an ARM endpoint and never knows which ARM it is"},
	{"apis", []string{"nap:controllers", "nap:engine", "nap:snapshot", "nap:azure", "nap:localazure", "k8s.io/kubernetes", "github.com/Azure/"},
		"API types are imported by all and import nobody"},
	{"localazure", []string{"nap:engine", "nap:snapshot", "nap:plan"},
		"the local Azure makes machines, it does not choose them"},
	{"localazure/arm", []string{"nap:controllers", "nap:azure", "nap:localazure/supervisor", "nap:localazure/fleet", "nap:localazure/controlplane", "k8s.io/kubernetes", "sigs.k8s.io/karpenter"},
		"the local ARM speaks Azure's language only; what it promises is fulfilled through localazure/intent"},
	{"localazure/armtemplate", []string{"nap:", "k8s.io/", "github.com/Azure/", "go.etcd.io/", "net/http", "os/exec"},
		"the template language is a pure function of its input"},
	{"localazure/kql", []string{"nap:", "k8s.io/", "github.com/Azure/", "go.etcd.io/", "os/exec", "net/http", "database/sql"},
		"the query language is a library of its own"},
	{"localazure/logstore", []string{"nap:engine", "nap:snapshot", "nap:controllers", "nap:azure", "nap:apis", "nap:catalog", "nap:plan", "nap:dashboard", "nap:localazure/arm", "nap:localazure/armtemplate", "nap:localazure/intent", "k8s.io/", "github.com/Azure/", "go.etcd.io/"},
		"the log store gives the query language its tables, and imports nothing else of ours"},
	{"localazure/intent", []string{"nap:"},
		"the records between ARM and the machinery know neither"},
	{"plan", []string{"nap:localazure", "nap:controllers", "k8s.io/kubernetes", "go.etcd.io/"},
		"plan never writes to a cluster"},
	{"dashboard", []string{"nap:localazure", "nap:controllers", "k8s.io/kubernetes", "go.etcd.io/"},
		"the dashboard is told what was decided, and works where nap does not run"},
	{"cmd/nap-controller", []string{"nap:localazure", "k8s.io/kubernetes", "nap:dashboard/page", "nap:internal/grafana", "charm.land/", "github.com/evanw/esbuild",
		"github.com/chromedp", "github.com/grafana/grafana-foundation-sdk", "github.com/prometheus/prometheus"},
		"the in-cluster binary stays slim: what makes or tests the dashboard is for developers"},
}

type listed struct {
	ImportPath   string
	Deps         []string
	TestImports  []string
	XTestImports []string
}

// TestImportRules lists every package of the project with all it depends on
// and looks for a denied one. Test files are free: oracles need the peers.
func TestImportRules(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps=false", "-json=ImportPath,Deps", module+"...").Output()
	if err != nil {
		var stderr []byte
		var ee *exec.ExitError
		if errors.As(err, &ee) {
			stderr = ee.Stderr
		}
		t.Fatalf("go list: %v\n%s", err, stderr)
	}
	var pkgs []listed
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var p listed
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		pkgs = append(pkgs, p)
	}
	for _, r := range rooms {
		found := false
		for _, p := range pkgs {
			rel := strings.TrimPrefix(p.ImportPath, module)
			if rel != r.dir && !strings.HasPrefix(rel, r.dir+"/") {
				continue
			}
			if strings.HasPrefix(rel, "catalog/gen") {
				continue
			}
			found = true
			for _, dep := range p.Deps {
				for _, deny := range r.deny {
					if matches(dep, deny) && !within(dep, r.dir) {
						t.Errorf("%s depends on %s: %s", rel, dep, r.why)
					}
				}
			}
		}
		if !found {
			t.Errorf("no package in %s: has the room moved? Then move its rule", r.dir)
		}
	}
}

// TestSlimBuildIsSmall checks that nap with plan and explain only, the first thing
// that people build, compiles neither Kubernetes nor the Azure SDK.
func TestSlimBuildIsSmall(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", "-tags", "slim", module+"cmd/nap").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	deps := strings.Fields(string(out))
	if !slices.Contains(deps, module+"plan") {
		t.Fatalf("package plan is not among the %d packages of the slim build", len(deps))
	}
	for _, dep := range deps {
		for _, deny := range []string{"k8s.io/kubernetes", "go.etcd.io/", "github.com/Azure/", "nap:localazure", "nap:controllers"} {
			if matches(dep, deny) {
				t.Errorf("the slim build of cmd/nap depends on %s, which takes long to compile: leave it out by a build tag, or split its package", dep)
			}
		}
	}
}

// matches reports whether an import path is the denied one or lies below it.
func matches(dep, deny string) bool {
	if rest, ok := strings.CutPrefix(deny, "nap:"); ok {
		deny = module + rest
	}
	return dep == deny || strings.HasPrefix(dep, strings.TrimSuffix(deny, "/")+"/")
}

// within reports whether an import path is in the given room itself.
func within(dep, dir string) bool {
	rel := strings.TrimPrefix(dep, module)
	return rel == dir || strings.HasPrefix(rel, dir+"/")
}
