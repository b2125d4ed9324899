// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

// Package charts holds the Helm charts. Its test renders them without Helm.
package charts

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"text/template"

	"github.com/Masterminds/sprig/v3"
	appsv1 "k8s.io/api/apps/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"sigs.k8s.io/yaml"
)

// render executes the templates of the chart with the functions of Helm that it uses,
// and returns the objects by kind and name.
func render(t *testing.T, values string) (map[string][]byte, error) {
	t.Helper()
	read := func(path string) map[string]any {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		out := map[string]any{}
		if err := yaml.Unmarshal(b, &out); err != nil {
			t.Fatal(err)
		}
		return out
	}
	chart, all := read("nap/Chart.yaml"), read("nap/values.yaml")
	given := map[string]any{}
	if err := yaml.Unmarshal([]byte(values), &given); err != nil {
		t.Fatal(err)
	}
	for k, v := range given {
		all[k] = v
	}
	data := map[string]any{
		"Values":  all,
		"Chart":   map[string]any{"Name": chart["name"], "AppVersion": chart["appVersion"]},
		"Release": map[string]any{"Name": "nap", "Namespace": "kube-system", "Service": "Helm"},
	}
	tmpl := template.New("chart").Option("missingkey=error")
	funcs := sprig.TxtFuncMap()
	funcs["toYaml"] = func(v any) (string, error) {
		b, err := yaml.Marshal(v)
		return strings.TrimSuffix(string(b), "\n"), err
	}
	funcs["include"] = func(name string, arg any) (string, error) {
		var b bytes.Buffer
		err := tmpl.ExecuteTemplate(&b, name, arg)
		return b.String(), err
	}
	funcs["required"] = func(message string, v any) (any, error) {
		if v == nil || v == "" {
			return nil, fmt.Errorf("%s", message)
		}
		return v, nil
	}
	tmpl.Funcs(funcs)
	files, err := filepath.Glob("nap/templates/*")
	if err != nil || len(files) == 0 {
		t.Fatalf("no templates: %v", err)
	}
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		template.Must(tmpl.New(filepath.Base(f)).Parse(string(b)))
	}
	objects := map[string][]byte{}
	for _, f := range files {
		if !strings.HasSuffix(f, ".yaml") {
			continue
		}
		var b bytes.Buffer
		if err := tmpl.ExecuteTemplate(&b, filepath.Base(f), data); err != nil {
			return nil, err
		}
		for _, doc := range strings.Split(b.String(), "\n---\n") {
			var head struct {
				Kind     string `json:"kind"`
				Metadata struct {
					Name string `json:"name"`
				} `json:"metadata"`
			}
			if err := yaml.Unmarshal([]byte(doc), &head); err != nil {
				t.Fatalf("%s: %v\n%s", f, err, doc)
			}
			objects[head.Kind+"/"+head.Metadata.Name] = []byte(doc)
		}
	}
	return objects, nil
}

func TestChart(t *testing.T) {
	objects, err := render(t, `{clusterResourceID: /subscriptions/s, image: {repository: r, tag: v1, pullPolicy: Always}, additionalTags: {b: "2", a: "1"}, azure: {clientID: c, tenantID: t}}`)
	if err != nil {
		t.Fatal(err)
	}
	var d appsv1.Deployment
	if err := yaml.UnmarshalStrict(objects["Deployment/nap"], &d); err != nil {
		t.Fatal(err)
	}
	env := map[string]string{}
	for _, e := range d.Spec.Template.Spec.Containers[0].Env {
		env[e.Name] = e.Value
	}
	if env["CLUSTER_RESOURCE_ID"] != "/subscriptions/s" || env["ADDITIONAL_TAGS"] != "a=1,b=2" || env["AZURE_CLIENT_ID"] != "c" || env["INSTALL_DEFAULTS"] != "pools" {
		t.Errorf("environment = %v", env)
	}
	if d.Spec.Template.Spec.Containers[0].Image != "r:v1" {
		t.Errorf("image = %s", d.Spec.Template.Spec.Containers[0].Image)
	}
	var role rbacv1.ClusterRole
	if err := yaml.UnmarshalStrict(objects["ClusterRole/nap"], &role); err != nil {
		t.Fatal(err)
	}
	allowed := func(group, resource, verb string) bool {
		for _, r := range role.Rules {
			if slices.Contains(r.APIGroups, group) && slices.Contains(r.Resources, resource) && slices.Contains(r.Verbs, verb) {
				return true
			}
		}
		return false
	}
	for _, need := range []string{"karpenter.sh nodeclaims create", "karpenter.azure.com aksnodeclasses/status patch", " pods/eviction create", " pods/status patch", " nodes delete", " events create", "policy poddisruptionbudgets watch"} {
		p := strings.SplitN(need, " ", 3)
		if !allowed(p[0], p[1], p[2]) {
			t.Errorf("the controller is not allowed to %s %s/%s", p[2], p[0], p[1])
		}
	}
	for name := range map[string]bool{"Service/nap": true, "PodDisruptionBudget/nap": true, "ServiceAccount/nap": true, "Role/nap": true, "RoleBinding/nap-lease": true} {
		if objects[name] == nil {
			t.Errorf("%s is missing", name)
		}
	}
	if _, err := render(t, `{image: {repository: r, tag: v1, pullPolicy: Always}}`); err == nil || !strings.Contains(err.Error(), "which managed cluster") {
		t.Errorf("rendering without clusterResourceID: got %v, want an error that asks for it", err)
	}
}
