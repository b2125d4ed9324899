// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package arm_test

import (
	"archive/zip"
	"bytes"
	"encoding/base64"
	"strings"
	"testing"

	"github.com/nap-aks/nap/localazure/arm"
	"github.com/nap-aks/nap/localazure/arm/armtest"
)

func TestCommandInvoke(t *testing.T) {
	// A program that prints its arguments stands in for kubectl.
	a := armtest.New(t, func(o *arm.Options) {
		o.Kubectl = []string{"/bin/sh", "-c", `echo "$@"; [ -f x.yaml ] && /bin/cat x.yaml; case "$*" in *fail*) exit 3;; esac`, "kubectl"}
	})
	a.Machinery()
	newCluster(a, "Manual")
	invoke := func(command, files string) map[string]any {
		t.Helper()
		r := a.Do("POST", clusterID+"/runCommand", map[string]any{"command": command, "context": files})
		if r.Status != 202 || !strings.Contains(r.Header.Get("Location"), "/commandResults/") {
			t.Fatalf("%d %s", r.Status, r.Body)
		}
		end := a.Wait(r)
		props, _ := end.JSON["properties"].(map[string]any)
		if props == nil {
			t.Fatalf("%d %s", end.Status, end.Body)
		}
		return props
	}
	var z bytes.Buffer
	zw := zip.NewWriter(&z)
	w, err := zw.Create("x.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write([]byte("kind: Pod")); err != nil {
		t.Fatal(err)
	}
	if err := zw.Close(); err != nil {
		t.Fatal(err)
	}
	for _, x := range []struct {
		command, files string
		code           float64
		logs           string
	}{
		{`kubectl get pods -l "a b=c"`, "", 0, "get pods -l a b=c"},
		{"kubectl apply -f x.yaml", base64.StdEncoding.EncodeToString(z.Bytes()), 0, "kind: Pod"},
		{"kubectl get fail", "", 3, "fail"},
		{"kubectl get pods --kubeconfig=x.yaml", "", 1, "cannot be used here"},
		{"kubectl apply -f /etc/passwd", "", 1, "no file of the command"},
		{"rm -rf /", "", 127, "command not found"},
		{"kubectl get pods; rm x", "", 2, "no"},
	} {
		p := invoke(x.command, x.files)
		if p["exitCode"] != x.code || !strings.Contains(p["logs"].(string), x.logs) || p["provisioningState"] != "Succeeded" {
			t.Errorf("%s: %v", x.command, p)
		}
	}
	if r := a.Do("POST", clusterID+"/runCommand", map[string]any{}); r.Status != 400 {
		t.Errorf("no command: %d", r.Status)
	}
}
