// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package controlplane

import (
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/util/version"
	"k8s.io/apiserver/pkg/util/compatibility"
)

func TestSupportedVersions(t *testing.T) {
	own := compatibility.DefaultBuildEffectiveVersion().BinaryVersion()
	minors := Minors()
	if len(minors) != 4 || minors[3] != strings.Join(strings.Split(own.String(), ".")[:2], ".") {
		t.Fatalf("minors %v, own version %s", minors, own)
	}
	for _, m := range minors {
		args, err := EmulationArgs(m + ".7")
		if err != nil || len(args) != 1 || args[0] != "--emulated-version="+m {
			t.Errorf("%s.7: %v, %v", m, args, err)
		}
		// Kubernetes must accept the version too.
		v := compatibility.DefaultBuildEffectiveVersion()
		v.SetEmulationVersion(own.WithPatch(0).SubtractMinor(uint(own.Minor()) - uint(atoi(t, m))))
		if errs := v.Validate(); len(errs) > 0 {
			t.Errorf("%s: %v", m, errs)
		}
	}
	for _, v := range []string{"1.30.1", "1.99.0", "1.35", "latest", ""} {
		if err := CheckVersion(v); err == nil {
			t.Errorf("version %q is accepted", v)
		}
	}
	if err := CheckVersion("1.30.1"); !strings.Contains(err.Error(), minors[0]) {
		t.Errorf("the error does not list the supported versions: %v", err)
	}
}

func atoi(t *testing.T, minor string) int {
	t.Helper()
	n := 0
	for _, c := range minor[strings.Index(minor, ".")+1:] {
		n = n*10 + int(c-'0')
	}
	return n
}

// /version contains the cluster's version, and the emulated minor version.
func TestReportedVersion(t *testing.T) {
	v := compatibility.DefaultBuildEffectiveVersion()
	v.SetEmulationVersion(version.MajorMinor(1, 35))
	info := reportedVersion{v, "v1.35.6"}.Info()
	if info.GitVersion != "v1.35.6" || info.Major != "1" || info.Minor != "35" || info.EmulationMinor != "35" {
		t.Errorf("info %+v", info)
	}
}
