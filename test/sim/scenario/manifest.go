// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package scenario

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"maps"

	"go.yaml.in/yaml/v3"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/client-go/kubernetes/scheme"
	karpenterapis "sigs.k8s.io/karpenter/pkg/apis"
	karpv1 "sigs.k8s.io/karpenter/pkg/apis/v1"

	"github.com/nap-aks/nap/apis/v1beta1"
)

// Manifest is an item of a list of objects: the word default for what nap installs, a
// file, or an object written in place.
type Manifest struct {
	Default bool
	File    string
	Objects []runtime.Object

	Line int
}

// Object is a part of an object that is not typed.
type Object map[string]any

func (o *Object) decodeNode(n *yaml.Node) error {
	if n.Kind != yaml.MappingNode {
		return errorAt(n, "a mapping is needed here")
	}
	return n.Decode((*map[string]any)(o))
}

func (m *Manifest) decodeNode(n *yaml.Node) error {
	m.Line = n.Line
	if n.Kind == yaml.ScalarNode && n.Value == "default" {
		m.Default = true
		return nil
	}
	if n.Kind != yaml.MappingNode {
		return errorAt(n, "%q is no object: write default, file: NAME, or an object with apiVersion and kind", n.Value)
	}
	if len(n.Content) == 2 && n.Content[0].Value == "file" {
		m.File = n.Content[1].Value
		return nil
	}
	objects, err := toObjects(n)
	if err != nil {
		return errorAt(n, "%w", err)
	}
	m.Objects = objects
	return nil
}

var (
	types = newScheme()
	// strict refuses fields that a type does not have.
	strict = serializer.NewCodecFactory(types, serializer.EnableStrict).UniversalDeserializer()
)

func newScheme() *runtime.Scheme {
	s := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{scheme.AddToScheme, apiextensionsv1.AddToScheme, v1beta1.AddToScheme} {
		if err := add(s); err != nil {
			panic(fmt.Sprintf("registering API types: %v", err))
		}
	}
	gv := schema.GroupVersion{Group: karpenterapis.Group, Version: "v1"}
	s.AddKnownTypes(gv, &karpv1.NodePool{}, &karpv1.NodePoolList{}, &karpv1.NodeClaim{}, &karpv1.NodeClaimList{})
	metav1.AddToGroupVersion(s, gv)
	return s
}

// clusterScoped are the kinds without a namespace.
var clusterScoped = map[string]bool{
	"Namespace": true, "Node": true, "PersistentVolume": true, "StorageClass": true, "PriorityClass": true,
	"NodePool": true, "NodeClaim": true, "AKSNodeClass": true, "ClusterRole": true, "ClusterRoleBinding": true,
	"CustomResourceDefinition": true, "RuntimeClass": true, "CSIDriver": true, "CSINode": true,
	"VolumeAttachment": true, "IngressClass": true, "ValidatingWebhookConfiguration": true,
	"MutatingWebhookConfiguration": true, "DeviceClass": true, "ResourceSlice": true,
}

// toObjects returns the object of a YAML node, or the items of a List.
func toObjects(n *yaml.Node) ([]runtime.Object, error) {
	var content map[string]any
	if err := n.Decode(&content); err != nil {
		return nil, fmt.Errorf("reading an object: %w", err)
	}
	if items, ok := content["items"].([]any); ok && content["kind"] == "List" {
		var out []runtime.Object
		for _, item := range items {
			c, ok := item.(map[string]any)
			if !ok {
				return nil, errors.New("an item of the List is no object")
			}
			o, err := toObject(c)
			if err != nil {
				return nil, err
			}
			out = append(out, o)
		}
		return out, nil
	}
	o, err := toObject(content)
	if err != nil {
		return nil, err
	}
	return []runtime.Object{o}, nil
}

func toObject(content map[string]any) (runtime.Object, error) {
	kind, _ := content["kind"].(string)
	version, _ := content["apiVersion"].(string)
	if kind == "" || version == "" {
		return nil, errors.New("an object has no apiVersion or no kind: write both")
	}
	text, err := json.Marshal(content)
	if err != nil {
		return nil, fmt.Errorf("reading a %s: %w", kind, err)
	}
	var o runtime.Object
	if types.Recognizes(schema.FromAPIVersionAndKind(version, kind)) {
		o, _, err = strict.Decode(text, nil, nil)
	} else {
		u := &unstructured.Unstructured{}
		o, err = u, u.UnmarshalJSON(text)
	}
	if err != nil {
		return nil, fmt.Errorf("reading a %s: %w", kind, err)
	}
	acc, err := meta.Accessor(o)
	if err != nil {
		return nil, fmt.Errorf("reading a %s: %w", kind, err)
	}
	if acc.GetName() == "" {
		return nil, fmt.Errorf("a %s has no metadata.name: a scenario needs names that it can refer to", kind)
	}
	if acc.GetNamespace() == "" && !clusterScoped[kind] {
		acc.SetNamespace("default")
	}
	return o, nil
}

// readManifests returns the objects of a file with one or more documents.
func readManifests(text string) ([]runtime.Object, error) {
	dec := yaml.NewDecoder(bytes.NewReader([]byte(text)))
	var out []runtime.Object
	for {
		var doc yaml.Node
		err := dec.Decode(&doc)
		if errors.Is(err, io.EOF) {
			return out, nil
		}
		if err != nil {
			return nil, fmt.Errorf("reading YAML: %w", err)
		}
		root := doc.Content[0]
		if root.Tag == "!!null" {
			continue
		}
		objects, err := toObjects(root)
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", root.Line, err)
		}
		out = append(out, objects...)
	}
}

// reference returns kind, namespace and name of an object.
func reference(o runtime.Object) Ref {
	acc, _ := meta.Accessor(o)
	return Ref{Kind: o.GetObjectKind().GroupVersionKind().Kind, Namespace: acc.GetNamespace(), Name: acc.GetName()}
}

func (r Ref) String() string {
	if r.Namespace == "" {
		return r.Kind + " " + r.Name
	}
	return r.Kind + " " + r.Namespace + "/" + r.Name
}

func mapKeys[K comparable, V any](m map[K]V) iter.Seq[K] { return maps.Keys(m) }
