// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package apiserver

import (
	"fmt"
	"slices"
	"strings"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// resource is a kind of object that the server has.
type resource struct {
	gvr        schema.GroupVersionResource
	kind       string
	namespaced bool
	status     bool // has a status subresource
	scale      bool // has a scale subresource
	custom     *customRules
	example    runtime.Object // an empty object

	objects map[string]runtime.Object // by namespace/name
	// log has the latest changes; first is the number of changes before them, and
	// compacted the version of the last of those.
	log       []*change
	first     int
	compacted int64
	watchers  map[*watcher]bool
}

func (r *resource) gvk() schema.GroupVersionKind { return r.gvr.GroupVersion().WithKind(r.kind) }

// builtins lists the built-in resources: group/version, then names with their kinds.
// "/" after a kind says that it has a status, "*" that it has no namespace, "+" that
// it has a scale.
var builtins = []struct{ groupVersion, resources string }{
	{"v1", "pods:Pod/ services:Service/ configmaps:ConfigMap secrets:Secret serviceaccounts:ServiceAccount events:Event endpoints:Endpoints limitranges:LimitRange resourcequotas:ResourceQuota/ persistentvolumeclaims:PersistentVolumeClaim/ replicationcontrollers:ReplicationController/+ nodes:Node/* namespaces:Namespace/* persistentvolumes:PersistentVolume/*"},
	{"apps/v1", "deployments:Deployment/+ replicasets:ReplicaSet/+ statefulsets:StatefulSet/+ daemonsets:DaemonSet/ controllerrevisions:ControllerRevision"},
	{"batch/v1", "jobs:Job/ cronjobs:CronJob/"},
	{"policy/v1", "poddisruptionbudgets:PodDisruptionBudget/"},
	{"storage.k8s.io/v1", "storageclasses:StorageClass* csinodes:CSINode* csidrivers:CSIDriver* volumeattachments:VolumeAttachment/* csistoragecapacities:CSIStorageCapacity volumeattributesclasses:VolumeAttributesClass*"},
	{"scheduling.k8s.io/v1", "priorityclasses:PriorityClass*"},
	{"coordination.k8s.io/v1", "leases:Lease"},
	{"discovery.k8s.io/v1", "endpointslices:EndpointSlice"},
	{"events.k8s.io/v1", "events:Event"},
	{"node.k8s.io/v1", "runtimeclasses:RuntimeClass*"},
	{"autoscaling/v2", "horizontalpodautoscalers:HorizontalPodAutoscaler/"},
	{"resource.k8s.io/v1", "resourceclaims:ResourceClaim/ resourceclaimtemplates:ResourceClaimTemplate resourceslices:ResourceSlice* deviceclasses:DeviceClass* devicetaintrules:DeviceTaintRule/*"},
}

// resources returns the built-in resources whose types the scheme has, and those of
// the definitions.
func resources(types *runtime.Scheme, crds []*apiextensionsv1.CustomResourceDefinition) ([]*resource, error) {
	var out []*resource
	add := func(r *resource) {
		r.objects, r.watchers = map[string]runtime.Object{}, map[*watcher]bool{}
		out = append(out, r)
	}
	for _, b := range builtins {
		gv, err := schema.ParseGroupVersion(b.groupVersion)
		if err != nil {
			return nil, err
		}
		for _, entry := range strings.Fields(b.resources) {
			name, kind, _ := strings.Cut(entry, ":")
			r := &resource{gvr: gv.WithResource(name), namespaced: !strings.Contains(kind, "*"), status: strings.Contains(kind, "/"), scale: strings.Contains(kind, "+")}
			r.kind = strings.TrimRight(kind, "/*+")
			if r.example, err = types.New(r.gvk()); err == nil {
				add(r)
			}
		}
	}
	for _, crd := range crds {
		i := slices.IndexFunc(crd.Spec.Versions, func(v apiextensionsv1.CustomResourceDefinitionVersion) bool { return v.Storage })
		if i < 0 {
			return nil, fmt.Errorf("definition %s has no stored version", crd.Name)
		}
		v := crd.Spec.Versions[i]
		rules, err := newCustomRules(&v)
		if err != nil {
			return nil, fmt.Errorf("definition %s: %w", crd.Name, err)
		}
		r := &resource{
			gvr:  schema.GroupVersionResource{Group: crd.Spec.Group, Version: v.Name, Resource: crd.Spec.Names.Plural},
			kind: crd.Spec.Names.Kind, namespaced: crd.Spec.Scope == apiextensionsv1.NamespaceScoped,
			status: v.Subresources != nil && v.Subresources.Status != nil, custom: rules,
		}
		if r.example, err = types.New(r.gvk()); err != nil {
			return nil, fmt.Errorf("definition %s: the scheme has no type for it: %w", crd.Name, err)
		}
		add(r)
	}
	return out, nil
}

var verbs = metav1.Verbs{"create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"}

// discover returns the discovery document at a path, or nil if there is none.
func (s *Server) discover(path string) any {
	switch path {
	case "/version":
		major, rest, _ := strings.Cut(strings.TrimPrefix(s.options.Version, "v"), ".")
		minor, _, _ := strings.Cut(rest, ".")
		return map[string]string{"major": major, "minor": minor, "gitVersion": s.options.Version, "platform": "linux/amd64"}
	case "/api":
		return &metav1.APIVersions{TypeMeta: metav1.TypeMeta{Kind: "APIVersions"}, Versions: []string{"v1"}}
	case "/apis":
		list := &metav1.APIGroupList{TypeMeta: metav1.TypeMeta{Kind: "APIGroupList", APIVersion: "v1"}}
		for _, r := range s.ordered {
			if r.gvr.Group == "" || slices.ContainsFunc(list.Groups, func(g metav1.APIGroup) bool { return g.Name == r.gvr.Group }) {
				continue
			}
			v := metav1.GroupVersionForDiscovery{GroupVersion: r.gvr.GroupVersion().String(), Version: r.gvr.Version}
			list.Groups = append(list.Groups, metav1.APIGroup{Name: r.gvr.Group, Versions: []metav1.GroupVersionForDiscovery{v}, PreferredVersion: v})
		}
		return list
	}
	gv, ok := strings.CutPrefix(path, "/apis/")
	if !ok {
		gv, ok = strings.CutPrefix(path, "/api/")
	}
	if !ok {
		return nil
	}
	list := &metav1.APIResourceList{TypeMeta: metav1.TypeMeta{Kind: "APIResourceList", APIVersion: "v1"}, GroupVersion: gv}
	add := func(r *resource, suffix, kind string, v metav1.Verbs) {
		list.APIResources = append(list.APIResources, metav1.APIResource{Name: r.gvr.Resource + suffix, SingularName: strings.ToLower(r.kind), Namespaced: r.namespaced, Kind: kind, Verbs: v})
	}
	for _, r := range s.ordered {
		if r.gvr.GroupVersion().String() != gv {
			continue
		}
		add(r, "", r.kind, verbs)
		if r.status {
			add(r, "/status", r.kind, metav1.Verbs{"get", "patch", "update"})
		}
		if r.scale {
			add(r, "/scale", "Scale", metav1.Verbs{"get", "patch", "update"})
		}
		if r.kind == "Pod" {
			add(r, "/binding", "Binding", metav1.Verbs{"create"})
			add(r, "/eviction", "Eviction", metav1.Verbs{"create"})
		}
	}
	if len(list.APIResources) == 0 {
		return nil
	}
	return list
}
