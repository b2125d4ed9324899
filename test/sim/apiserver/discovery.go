// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package apiserver

import (
	"net/http"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/version"
)

// discover answers requests for what is no object: discovery, version and health. It
// returns nil for others.
func (s *Server) discover(r *http.Request) *answer {
	path := strings.TrimSuffix(r.URL.Path, "/")
	// Paths of objects have more parts; looking at them first keeps those fast.
	if r.Method != http.MethodGet || strings.Count(path, "/") > 3 {
		return nil
	}
	switch path {
	case "/version":
		return jsonAnswer(http.StatusOK, s.versionInfo())
	case "/healthz", "/livez", "/readyz":
		return &answer{code: http.StatusOK, contentType: "text/plain", body: []byte("ok")}
	case "/api":
		return jsonAnswer(http.StatusOK, &metav1.APIVersions{TypeMeta: metav1.TypeMeta{Kind: "APIVersions", APIVersion: "v1"}, Versions: []string{"v1"}})
	case "/apis":
		return jsonAnswer(http.StatusOK, s.groups())
	}
	parts := strings.Split(path, "/")[1:]
	var gv schema.GroupVersion
	switch {
	case len(parts) == 2 && parts[0] == "api":
		gv.Version = parts[1]
	case len(parts) == 2 && parts[0] == "apis":
		for _, g := range s.groups().Groups {
			if g.Name == parts[1] {
				g.TypeMeta = metav1.TypeMeta{Kind: "APIGroup", APIVersion: "v1"}
				return jsonAnswer(http.StatusOK, &g)
			}
		}
		return nil
	case len(parts) == 3 && parts[0] == "apis":
		gv = schema.GroupVersion{Group: parts[1], Version: parts[2]}
	default:
		return nil
	}
	if list := s.resourcesOf(gv); list != nil {
		return jsonAnswer(http.StatusOK, list)
	}
	return nil
}

func (s *Server) versionInfo() *version.Info {
	major, rest, _ := strings.Cut(strings.TrimPrefix(s.options.Version, "v"), ".")
	minor, _, _ := strings.Cut(rest, ".")
	return &version.Info{Major: major, Minor: minor, GitVersion: s.options.Version, GitTreeState: "clean", Compiler: "gc", Platform: "linux/amd64"}
}

// groups returns the API groups that are served, but the core group.
func (s *Server) groups() *metav1.APIGroupList {
	list := &metav1.APIGroupList{TypeMeta: metav1.TypeMeta{Kind: "APIGroupList", APIVersion: "v1"}, Groups: []metav1.APIGroup{}}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range s.ordered {
		if r.gvr.Group == "" {
			continue
		}
		v := metav1.GroupVersionForDiscovery{GroupVersion: r.gvr.GroupVersion().String(), Version: r.gvr.Version}
		i := slices.IndexFunc(list.Groups, func(g metav1.APIGroup) bool { return g.Name == r.gvr.Group })
		if i < 0 {
			list.Groups = append(list.Groups, metav1.APIGroup{Name: r.gvr.Group, Versions: []metav1.GroupVersionForDiscovery{v}, PreferredVersion: v})
		} else if g := &list.Groups[i]; !slices.Contains(g.Versions, v) {
			g.Versions = append(g.Versions, v)
		}
	}
	return list
}

var allVerbs = metav1.Verbs{"create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"}

// resourcesOf returns the resources of a group and version, or nil if there are none.
func (s *Server) resourcesOf(gv schema.GroupVersion) *metav1.APIResourceList {
	list := &metav1.APIResourceList{TypeMeta: metav1.TypeMeta{Kind: "APIResourceList", APIVersion: "v1"}, GroupVersion: gv.String()}
	add := func(r *resource, suffix string, kind schema.GroupVersionKind, verbs metav1.Verbs) {
		a := metav1.APIResource{Name: r.gvr.Resource + suffix, Namespaced: r.namespaced, Kind: kind.Kind, Verbs: verbs}
		if suffix == "" {
			a.SingularName = strings.ToLower(kind.Kind)
		}
		if kind.GroupVersion() != gv {
			a.Group, a.Version = kind.Group, kind.Version
		}
		list.APIResources = append(list.APIResources, a)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range s.ordered {
		if r.gvr.GroupVersion() != gv {
			continue
		}
		add(r, "", r.gvk, allVerbs)
		if r.status {
			add(r, "/status", r.gvk, metav1.Verbs{"get", "patch", "update"})
		}
		if r.scale {
			add(r, "/scale", scaleKind, metav1.Verbs{"get", "patch", "update"})
		}
		if r.gvk.Kind == "Pod" && gv.Group == "" {
			add(r, "/binding", bindingKind, metav1.Verbs{"create"})
			add(r, "/eviction", evictionKind, metav1.Verbs{"create"})
			add(r, "/resize", r.gvk, metav1.Verbs{"get", "patch", "update"})
		}
	}
	if list.APIResources == nil {
		return nil
	}
	return list
}
