// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package apiserver

import (
	"fmt"
	"reflect"
	"strings"
	"sync"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/kubernetes/scheme"
	buffersv1beta1 "sigs.k8s.io/karpenter/pkg/apis/autoscaling/v1beta1"
	karpv1 "sigs.k8s.io/karpenter/pkg/apis/v1"
	karpv1alpha1 "sigs.k8s.io/karpenter/pkg/apis/v1alpha1"

	"github.com/nap-aks/nap/apis/v1beta1"
)

// resource is a kind of object that the server has.
type resource struct {
	gvr         schema.GroupVersionResource
	gvk         schema.GroupVersionKind
	namespaced  bool
	status      bool         // has a status subresource
	scale       bool         // has a scale subresource
	generations bool         // counts the changes of its spec
	typ         reflect.Type // of its objects' structs; nil: Unstructured
	proto       bool         // can be protobuf
	kindPrefix  []byte       // how JSON of its objects begins
	custom      *customRules // nil if built in
	expires     bool         // objects go eventTTL after they were last written

	// What follows is guarded by Server.mu.

	objects map[string]*object // by namespace/name
	sorted  []*object          // the same, by namespace/name
	// log has the latest changes; first is the number of changes before them, and
	// compacted the version up to which changes are gone.
	log       []*change
	expiring  []expiry // of events, oldest first
	first     int
	compacted int64
	watchers  []*watcher
}

// builtins lists the built-in resources: group/version, then names with their kinds.
// After a kind, "/" says that it has a status subresource, "*" that it has no
// namespace, "+" that it has a scale, and "#" that its spec's changes are counted.
var builtins = []struct{ groupVersion, resources string }{
	{"v1", "pods:Pod/# services:Service/ configmaps:ConfigMap secrets:Secret serviceaccounts:ServiceAccount events:Event endpoints:Endpoints limitranges:LimitRange resourcequotas:ResourceQuota/ persistentvolumeclaims:PersistentVolumeClaim/ podtemplates:PodTemplate replicationcontrollers:ReplicationController/+# nodes:Node/* namespaces:Namespace/* persistentvolumes:PersistentVolume/*"},
	{"apps/v1", "deployments:Deployment/+# replicasets:ReplicaSet/+# statefulsets:StatefulSet/+# daemonsets:DaemonSet/# controllerrevisions:ControllerRevision"},
	{"batch/v1", "jobs:Job/# cronjobs:CronJob/#"},
	{"policy/v1", "poddisruptionbudgets:PodDisruptionBudget/#"},
	{"autoscaling/v2", "horizontalpodautoscalers:HorizontalPodAutoscaler/"},
	{"storage.k8s.io/v1", "storageclasses:StorageClass* csinodes:CSINode* csidrivers:CSIDriver* volumeattachments:VolumeAttachment/* csistoragecapacities:CSIStorageCapacity volumeattributesclasses:VolumeAttributesClass*"},
	{"scheduling.k8s.io/v1", "priorityclasses:PriorityClass*"},
	{"coordination.k8s.io/v1", "leases:Lease"},
	{"discovery.k8s.io/v1", "endpointslices:EndpointSlice"},
	{"events.k8s.io/v1", "events:Event"},
	{"node.k8s.io/v1", "runtimeclasses:RuntimeClass*"},
	{"networking.k8s.io/v1", "ingresses:Ingress/# networkpolicies:NetworkPolicy# ingressclasses:IngressClass*#"},
	{"rbac.authorization.k8s.io/v1", "roles:Role rolebindings:RoleBinding clusterroles:ClusterRole* clusterrolebindings:ClusterRoleBinding*"},
	{"resource.k8s.io/v1", "resourceclaims:ResourceClaim/ resourceclaimtemplates:ResourceClaimTemplate resourceslices:ResourceSlice*# deviceclasses:DeviceClass*# devicetaintrules:DeviceTaintRule/*#"},
	{"apiextensions.k8s.io/v1", "customresourcedefinitions:CustomResourceDefinition/*#"},
}

// defaultScheme returns the types of all resources that nap knows.
var defaultScheme = sync.OnceValue(func() *runtime.Scheme {
	s := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{scheme.AddToScheme, apiextensionsv1.AddToScheme, v1beta1.AddToScheme} {
		if err := add(s); err != nil {
			panic(fmt.Sprintf("registering API types: %v", err)) // a broken build
		}
	}
	// Karpenter registers its types in the global scheme only.
	for gv, types := range map[schema.GroupVersion][]runtime.Object{
		{Group: "karpenter.sh", Version: "v1"}:            {&karpv1.NodePool{}, &karpv1.NodePoolList{}, &karpv1.NodeClaim{}, &karpv1.NodeClaimList{}},
		{Group: "karpenter.sh", Version: "v1alpha1"}:      {&karpv1alpha1.NodeOverlay{}, &karpv1alpha1.NodeOverlayList{}},
		{Group: buffersv1beta1.Group, Version: "v1beta1"}: {&buffersv1beta1.CapacityBuffer{}, &buffersv1beta1.CapacityBufferList{}},
	} {
		s.AddKnownTypes(gv, types...)
		metav1.AddToGroupVersion(s, gv)
	}
	return s
})

// addBuiltins serves the built-in resources.
func (s *Server) addBuiltins() error {
	for _, b := range builtins {
		gv, err := schema.ParseGroupVersion(b.groupVersion)
		if err != nil {
			return err
		}
		for _, entry := range strings.Fields(b.resources) {
			name, kind, _ := strings.Cut(entry, ":")
			r := &resource{
				gvr: gv.WithResource(name), gvk: gv.WithKind(strings.TrimRight(kind, "/*+#")),
				namespaced: !strings.Contains(kind, "*"), status: strings.Contains(kind, "/"),
				scale: strings.Contains(kind, "+"), generations: strings.Contains(kind, "#"), expires: name == "events",
			}
			s.mu.Lock()
			s.serve(r)
			s.mu.Unlock()
			if r.typ == nil {
				return fmt.Errorf("there is no Go type for %s", r.gvk) // a broken build
			}
		}
	}
	return nil
}

// serve adds a resource. The caller holds the lock.
func (s *Server) serve(r *resource) {
	r.objects, r.compacted = map[string]*object{}, s.version
	for _, types := range s.schemes {
		if example, err := types.New(r.gvk); err == nil {
			r.typ = reflect.TypeOf(example).Elem()
			_, r.proto = example.(protoMessage)
			r.proto = r.proto && r.custom == nil
			break
		}
	}
	r.kindPrefix = fmt.Appendf(nil, `{"kind":%q,"apiVersion":%q,`, r.gvk.Kind, r.gvk.GroupVersion().String())
	s.resources[r.gvr] = r
	s.ordered = append(s.ordered, r)
}

// lookup returns a resource, or nil.
func (s *Server) lookup(gvr schema.GroupVersionResource) *resource {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.resources[gvr]
}

// newObject returns an empty object in the server's form.
func (r *resource) newObject() runtime.Object {
	if r.custom != nil {
		u := &unstructured.Unstructured{}
		u.SetGroupVersionKind(r.gvk)
		return u
	}
	o := reflect.New(r.typ).Interface().(runtime.Object)
	o.GetObjectKind().SetGroupVersionKind(r.gvk)
	return o
}

// listKind returns the kind of its lists.
func (r *resource) listKind() schema.GroupVersionKind {
	return r.gvk.GroupVersion().WithKind(r.gvk.Kind + "List")
}
