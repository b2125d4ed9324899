// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package fleet

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/kwok/pkg/apis/internalversion"
	"sigs.k8s.io/kwok/pkg/utils/gotpl"
)

// TestNodeStatusKeepsEveryValue renders the statuses of nodes whose values YAML could
// take for something else than text.
func TestNodeStatusKeepsEveryValue(t *testing.T) {
	st, err := stages()
	if err != nil {
		t.Fatal(err)
	}
	render := gotpl.NewRenderer(gotpl.FuncMap{
		"NodeConditions": func() any { return []any{} }, "NodeIP": func() string { return "10.0.0.1" },
		"NodeName": func() string { return "n" }, "NodePort": func() int { return 10250 }, "Version": func() string { return "1" },
	})
	rng := rand.New(rand.NewPCG(1, 2))
	// What kwok writes where a node has no value.
	withoutValues := corev1.NodeSystemInfo{
		ContainerRuntimeVersion: "kwok-1", KernelVersion: "kwok-1", KubeletVersion: "kwok-1", OperatingSystem: "linux", Architecture: "amd64",
	}
	checked := 0
	special := []string{"0167941682368500", "12e5", "1e10", "0x10", "0b1", "0o7", "true", "no", "null", "~", "2026-01-02", "1:30", `a"b`, "a: b", "#1", "-", "", ".5", "1_000"}
	for i := range 10000 {
		var value string
		switch {
		case i < len(special):
			value = special[i]
		case i%2 == 0: // as most machine IDs, but of digits alone
			value = fmt.Sprintf("%032d", rng.Uint64())
		default:
			value = fmt.Sprintf("%032x", hash(fmt.Sprint("aks-aksmanagedap-default-", i, "-vm")))
		}
		want := corev1.NodeSystemInfo{
			MachineID: value, SystemUUID: value, BootID: value, KernelVersion: value, OSImage: value,
			ContainerRuntimeVersion: value, KubeletVersion: value, OperatingSystem: value, Architecture: value,
		}
		node := map[string]any{"metadata": map[string]any{"creationTimestamp": "2026-01-02T00:00:00Z"}, "status": map[string]any{"nodeInfo": asMap(t, want)}}
		for _, s := range st[internalversion.StageResourceRef{APIGroup: "v1", Kind: "Node"}] {
			for _, step := range s.Spec.Steps {
				if step.Patch == nil || step.Patch.Root != "status" || s.Name != "node-initialize" {
					continue
				}
				text, err := render.ToJSON(step.Patch.Template, node)
				if err != nil {
					t.Fatalf("stage %s, value %q: %v", s.Name, value, err)
				}
				var got corev1.NodeStatus
				if err := json.Unmarshal(text, &got); err != nil {
					t.Fatalf("stage %s, value %q: %v\n%s", s.Name, value, err, text)
				}
				want := want
				if value == "" {
					want = withoutValues
				}
				want.KubeProxyVersion = got.NodeInfo.KubeProxyVersion //nolint:staticcheck // kwok still sets it
				if got.NodeInfo != want {
					t.Fatalf("value %q became %+v", value, got.NodeInfo)
				}
				checked++
			}
		}
	}
	if checked != 10000 {
		t.Fatalf("%d statuses were rendered, want 10000", checked)
	}
}

func asMap(t *testing.T, v any) map[string]any {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]any{}
	if err := json.Unmarshal(b, &out); err != nil {
		t.Fatal(err)
	}
	return out
}
