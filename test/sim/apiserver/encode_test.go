// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package apiserver

import (
	"io"
	"net/http"
	"reflect"
	"testing"
	"testing/synctest"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
)

// What the server sends is what Kubernetes' own decoders read, in both formats.
func TestEncodingsAgree(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer(t, Options{})
		for _, name := range []string{"a", "b", "c"} {
			must(t, s.Create(newPod(name, onNode("n"))))
		}
		codec := serializer.NewCodecFactory(defaultScheme()).UniversalDeserializer()
		read := func(path, accept string) runtime.Object {
			r := newRequest(t, "GET", path, "")
			r.Header.Set("Accept", accept)
			resp, err := s.Config("test").Transport.RoundTrip(r)
			must(t, err)
			body, err := io.ReadAll(resp.Body)
			must(t, err)
			if resp.StatusCode != http.StatusOK || int64(len(body)) != resp.ContentLength {
				t.Errorf("%s: %d, %d bytes of %d", path, resp.StatusCode, len(body), resp.ContentLength)
			}
			o, _, err := codec.Decode(body, nil, nil)
			must(t, err)
			return o
		}
		for _, path := range []string{"/api/v1/namespaces/default/pods/a", "/api/v1/pods?limit=2", "/api/v1/pods", "/api/v1/nodes", "/api/v1/namespaces"} {
			json, proto := read(path, "application/json"), read(path, runtime.ContentTypeProtobuf+", application/json")
			if l, ok := json.(*corev1.PodList); ok && (l.Items[0].Kind != "" || len(l.Items[0].Spec.Containers) != 1) {
				t.Errorf("the first item of a list: %+v", l.Items[0])
			}
			for _, o := range []runtime.Object{json, proto} { // lists in pages have tokens of their own
				if l, ok := o.(*corev1.PodList); ok {
					l.Continue = ""
				}
				if l, ok := o.(*corev1.NodeList); ok && l.Items == nil {
					l.Items = []corev1.Node{}
				}
				if p, ok := o.(*corev1.Pod); ok {
					p.TypeMeta = json.(*corev1.Pod).TypeMeta // which protobuf keeps in the envelope
				}
			}
			if !reflect.DeepEqual(json, proto) {
				t.Errorf("%s is\n%+v in JSON and\n%+v in protobuf", path, json, proto)
			}
		}
	})
}

func TestNegotiation(t *testing.T) {
	for accept, want := range map[string]format{
		"":                     {},
		"*/*":                  {},
		"application/json":     {},
		"text/html, */*;q=0.8": {},
		runtime.ContentTypeProtobuf + ",application/json":                                       {proto: true},
		"application/json," + runtime.ContentTypeProtobuf:                                       {},
		"application/json;as=Table;v=v1;g=meta.k8s.io,application/json":                         {},
		"application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1":                      {partial: true},
		runtime.ContentTypeProtobuf + ";as=PartialObjectMetadata;g=meta.k8s.io;v=v1":            {proto: true, partial: true},
		"application/cbor, " + runtime.ContentTypeProtobuf + ";charset=utf-8, application/json": {proto: true},
	} {
		if got, err := negotiate(accept, true); err != nil || got != want {
			t.Errorf("%q: %+v, error %v, want %+v", accept, got, err, want)
		}
	}
	if got, err := negotiate(runtime.ContentTypeProtobuf+",application/json", false); err != nil || got.proto {
		t.Errorf("protobuf of a custom resource: %+v, error %v", got, err)
	}
	if got, err := negotiate("application/cbor", true); err == nil {
		t.Errorf("only CBOR: %+v", got)
	}
}
