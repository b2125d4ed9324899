// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package apiserver

import (
	"context"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/awslabs/operatorpkg/status"
	corev1 "k8s.io/api/core/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"
	karpv1 "sigs.k8s.io/karpenter/pkg/apis/v1"
	"sigs.k8s.io/yaml"

	"github.com/nap-aks/nap/apis"
	"github.com/nap-aks/nap/apis/v1beta1"
	"github.com/nap-aks/nap/controllers"
)

var (
	nodePools  = schema.GroupVersionResource{Group: "karpenter.sh", Version: "v1", Resource: "nodepools"}
	nodeClaims = schema.GroupVersionResource{Group: "karpenter.sh", Version: "v1", Resource: "nodeclaims"}
)

func newClaim(name string) *karpv1.NodeClaim {
	return &karpv1.NodeClaim{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: karpv1.NodeClaimSpec{
			NodeClassRef: &karpv1.NodeClassReference{Group: "karpenter.azure.com", Kind: "AKSNodeClass", Name: "default"},
			Requirements: []karpv1.NodeSelectorRequirementWithMinValues{{Key: corev1.LabelArchStable, Operator: corev1.NodeSelectorOpIn, Values: []string{"amd64"}}},
		},
	}
}

func newClient(t testing.TB, s *Server) client.Client {
	t.Helper()
	c, err := client.New(s.Config("test"), client.Options{Scheme: defaultScheme()})
	must(t, err)
	return c
}

func TestCustomResourcesHaveDefaultsAndRules(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, ctx := newServer(t, Options{}), t.Context()
		c := newClient(t, s)
		pool := apis.DefaultNodePool()
		pool.Spec.Disruption = karpv1.Disruption{ConsolidateAfter: karpv1.MustParseNillableDuration("5s")}
		pool.Status.Nodes = ptr[int64](7)
		must(t, c.Create(ctx, pool))
		if pool.Generation != 1 || pool.Spec.Disruption.ConsolidationPolicy != karpv1.ConsolidationPolicyWhenEmptyOrUnderutilized || len(pool.Spec.Disruption.Budgets) != 1 || pool.Status.Nodes != nil {
			t.Errorf("a new pool: generation %d, %+v, status %+v", pool.Generation, pool.Spec.Disruption, pool.Status)
		}
		bad := pool.DeepCopy()
		bad.Spec.Template.Spec.Requirements[0].Operator = "Like"
		if err := c.Update(ctx, bad); !apierrors.IsInvalid(err) || !strings.Contains(err.Error(), "operator") {
			t.Errorf("an unknown operator: %v", err)
		}
		bad = pool.DeepCopy()
		bad.Name, bad.ResourceVersion = "other", ""
		bad.Spec.Template.Labels = map[string]string{"karpenter.sh/nodepool": "x"}
		if err := c.Create(ctx, bad); !apierrors.IsInvalid(err) {
			t.Errorf("a label that is Karpenter's: %v", err)
		}
		must(t, c.Create(ctx, newClaim("c")))
		claim := &karpv1.NodeClaim{}
		must(t, c.Get(ctx, client.ObjectKey{Name: "c"}, claim))
		claim.Spec.NodeClassRef.Name = "another"
		if err := c.Update(ctx, claim); !apierrors.IsInvalid(err) || !strings.Contains(err.Error(), "immutable") {
			t.Errorf("changing an immutable spec: %v", err)
		}
		claim.ResourceVersion = ""
		if err := c.Update(ctx, claim); !apierrors.IsInvalid(err) || !strings.Contains(err.Error(), "must be specified") {
			t.Errorf("updating a custom resource without a version: %v", err)
		}
	})
}

func TestStatusOfCustomResources(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, ctx := newServer(t, Options{}), t.Context()
		c := newClient(t, s)
		must(t, c.Create(ctx, newClaim("c")))
		claim := &karpv1.NodeClaim{}
		must(t, c.Get(ctx, client.ObjectKey{Name: "c"}, claim))
		stored := claim.DeepCopy()
		claim.Status.ProviderID = "azure:///x"
		claim.Labels = map[string]string{"not": "here"}
		must(t, c.Status().Patch(ctx, claim, client.MergeFromWithOptions(stored, client.MergeFromWithOptimisticLock{})))
		if claim.Status.ProviderID != "azure:///x" || claim.Labels != nil || claim.Generation != 1 {
			t.Errorf("after a patch of the status: %+v, generation %d, labels %v", claim.Status, claim.Generation, claim.Labels)
		}
		if err := c.Status().Patch(ctx, stored.DeepCopy(), client.MergeFromWithOptions(withProvider(stored), client.MergeFromWithOptimisticLock{})); !apierrors.IsConflict(err) {
			t.Errorf("patching the status of an old version: %v", err)
		}
		claim.Status.ProviderID = ""
		claim.Annotations = map[string]string{"a": "b"}
		must(t, c.Update(ctx, claim))
		if claim.Status.ProviderID == "" || claim.Annotations["a"] != "b" || claim.Generation != 1 {
			t.Errorf("after an update: %+v, generation %d, annotations %v", claim.Status, claim.Generation, claim.Annotations)
		}
		claim.Status.Conditions = append(claim.Status.Conditions, newCondition("has no reason", ""))
		if err := c.Status().Update(ctx, claim); !apierrors.IsInvalid(err) {
			t.Errorf("a condition that the schema refuses: %v", err)
		}
		o, _ := s.Get(nodeClaims, "", "c")
		direct := o.(*karpv1.NodeClaim).DeepCopy()
		direct.Status.NodeName = "n"
		must(t, s.UpdateStatus(direct))
		must(t, c.Get(ctx, client.ObjectKey{Name: "c"}, claim))
		if claim.Status.NodeName != "n" {
			t.Errorf("the status written directly: %+v", claim.Status)
		}
	})
}

func withProvider(c *karpv1.NodeClaim) *karpv1.NodeClaim {
	c = c.DeepCopy()
	c.Status.ProviderID = "azure:///y"
	return c
}

const thingDefinition = `
metadata: {name: things.example.com}
spec:
  group: example.com
  names: {plural: things, kind: Thing}
  scope: Namespaced
  versions:
  - name: v1
    served: true
    storage: true
    schema:
      openAPIV3Schema:
        type: object
        properties:
          spec:
            type: object
            properties:
              size: {type: integer, default: 3}
              colour: {type: string}
            x-kubernetes-validations: [{rule: "self.size < 10", message: "too large"}]
`

func TestDefinitionsAreServedAndUnknownTypesToo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, ctx := newServer(t, Options{}), t.Context()
		c := newClient(t, s)
		crd := &apiextensionsv1.CustomResourceDefinition{}
		must(t, yaml.Unmarshal([]byte(thingDefinition), crd))
		must(t, c.Create(ctx, crd))
		if !slices.ContainsFunc(crd.Status.Conditions, func(c apiextensionsv1.CustomResourceDefinitionCondition) bool {
			return c.Type == apiextensionsv1.Established && c.Status == apiextensionsv1.ConditionTrue
		}) {
			t.Errorf("the definition is not established: %+v", crd.Status)
		}
		d, err := dynamic.NewForConfig(s.Config("test"))
		must(t, err)
		things := d.Resource(schema.GroupVersionResource{Group: "example.com", Version: "v1", Resource: "things"}).Namespace("default")
		thing := func(name string, size int64) *unstructured.Unstructured {
			return &unstructured.Unstructured{Object: map[string]any{
				"apiVersion": "example.com/v1", "kind": "Thing", "metadata": map[string]any{"name": name},
				"spec": map[string]any{"size": size, "colour": "red", "unknown": "x"},
			}}
		}
		if _, err := things.Create(ctx, thing("big", 10), metav1.CreateOptions{}); !apierrors.IsInvalid(err) || !strings.Contains(err.Error(), "too large") {
			t.Errorf("breaking a rule: %v", err)
		}
		o, err := things.Create(ctx, thing("small", 1), metav1.CreateOptions{})
		must(t, err)
		if spec := o.Object["spec"].(map[string]any); len(spec) != 2 || spec["size"] != int64(1) {
			t.Errorf("stored: %v", spec)
		}
		list, err := things.List(ctx, metav1.ListOptions{FieldSelector: "spec.colour=red"})
		must(t, err)
		if len(list.Items) != 1 || list.Items[0].GetKind() != "Thing" {
			t.Errorf("red things: %v", list.Items)
		}
		delete(o.Object["spec"].(map[string]any), "size")
		o, err = things.Update(ctx, o, metav1.UpdateOptions{})
		must(t, err)
		if size := o.Object["spec"].(map[string]any)["size"]; size != int64(3) || o.GetGeneration() != 2 {
			t.Errorf("the default is %v, generation %d", size, o.GetGeneration())
		}
		// A changed definition takes effect.
		props := crd.Spec.Versions[0].Schema.OpenAPIV3Schema.Properties["spec"]
		props.XValidations[0].Rule = "self.size < 2"
		must(t, c.Update(ctx, crd))
		if _, err := things.Create(ctx, thing("medium", 5), metav1.CreateOptions{}); !apierrors.IsInvalid(err) {
			t.Errorf("breaking the new rule: %v", err)
		}
		w, err := things.Watch(ctx, metav1.ListOptions{ResourceVersion: o.GetResourceVersion()})
		must(t, err)
		defer w.Stop()
		must(t, c.Delete(ctx, crd))
		wantEvents(t, collect(w), "DELETED small", "closed")
		if err := errorOf(things.Get(ctx, "small", metav1.GetOptions{})); !apierrors.IsNotFound(err) {
			t.Errorf("getting what is no longer served: %v", err)
		}
		crd.ResourceVersion, crd.Spec.Versions[0].Schema.OpenAPIV3Schema.Properties["bad"] = "", apiextensionsv1.JSONSchemaProps{}
		if err := c.Create(ctx, crd); !apierrors.IsInvalid(err) {
			t.Errorf("a definition without a structural schema: %v", err)
		}
	})
}

// The product installs its definitions and pools itself.
func TestInstallDefaults(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, err := New(Options{})
		must(t, err)
		must(t, controllers.InstallDefaults(t.Context(), s.Config("nap"), true))
		if n := s.Count(nodePools); n != 2 {
			t.Errorf("%d pools were installed", n)
		}
		version := s.Version()
		must(t, controllers.InstallDefaults(t.Context(), s.Config("nap"), true))
		if s.Version() != version {
			t.Error("installing the same again changed something")
		}
	})
}

// A real manager with a cache and a controller lives on the server.
func TestManagerReconciles(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer(t, Options{})
		ctx, cancel := context.WithCancel(t.Context())
		mgr, err := ctrl.NewManager(s.Config("manager"), ctrl.Options{Scheme: defaultScheme(), Metrics: metricsserver.Options{BindAddress: "0"}})
		must(t, err)
		const finalizer = "example.com/seen"
		r := reconciler(func(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
			claim := &karpv1.NodeClaim{}
			if err := mgr.GetClient().Get(ctx, req.NamespacedName, claim); err != nil {
				return ctrl.Result{}, client.IgnoreNotFound(err)
			}
			stored := claim.DeepCopy()
			if claim.DeletionTimestamp != nil {
				controllerutil.RemoveFinalizer(claim, finalizer)
				return ctrl.Result{}, client.IgnoreNotFound(mgr.GetClient().Patch(ctx, claim, client.MergeFrom(stored)))
			}
			if controllerutil.AddFinalizer(claim, finalizer) {
				return ctrl.Result{}, mgr.GetClient().Patch(ctx, claim, client.MergeFrom(stored))
			}
			claim.Status.ImageID = "image"
			return ctrl.Result{}, mgr.GetClient().Status().Patch(ctx, claim, client.MergeFrom(stored))
		})
		must(t, ctrl.NewControllerManagedBy(mgr).For(&karpv1.NodeClaim{}).Complete(r))
		done := make(chan error)
		go func() { done <- mgr.Start(ctx) }()
		must(t, s.Create(newClaim("c")))
		time.Sleep(time.Minute)
		o, ok := s.Get(nodeClaims, "", "c")
		if !ok {
			t.Fatal("the claim is gone")
		}
		claim := o.(*karpv1.NodeClaim)
		if claim.Status.ImageID != "image" || !slices.Equal(claim.Finalizers, []string{finalizer}) {
			t.Errorf("after reconciling: status %+v, finalizers %v", claim.Status, claim.Finalizers)
		}
		must(t, s.Delete(nodeClaims, "", "c"))
		time.Sleep(time.Minute)
		if n := s.Count(nodeClaims); n != 0 {
			t.Errorf("%d claims are left", n)
		}
		class := apis.DefaultNodeClass()
		must(t, mgr.GetClient().Create(ctx, class))
		time.Sleep(time.Second)
		must(t, mgr.GetClient().Get(ctx, client.ObjectKeyFromObject(class), &v1beta1.AKSNodeClass{}))
		cancel()
		must(t, <-done)
	})
}

type reconciler func(context.Context, ctrl.Request) (ctrl.Result, error)

func (r reconciler) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	return r(ctx, req)
}

func newCondition(kind, reason string) status.Condition {
	return status.Condition{Type: kind, Status: metav1.ConditionTrue, Reason: reason, LastTransitionTime: now()}
}
