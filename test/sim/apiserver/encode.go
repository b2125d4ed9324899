// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package apiserver

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"mime"
	"net/http"
	"strings"
	"sync/atomic"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/yaml"
)

// format is how a client wants objects.
type format struct {
	proto   bool
	partial bool // metadata only
}

// negotiate chooses the first format of an Accept header that the server has.
func negotiate(accept string, proto bool) (format, error) {
	if accept == "" {
		return format{}, nil
	}
	for part := range strings.SplitSeq(accept, ",") {
		media, params, err := mime.ParseMediaType(part)
		if err != nil {
			continue
		}
		f := format{}
		switch as := params["as"]; {
		case as == "":
		case strings.HasPrefix(as, "PartialObjectMetadata") && params["g"] == metav1.GroupName:
			f.partial = true
		default:
			continue // tables, aggregated discovery
		}
		switch media {
		case runtime.ContentTypeProtobuf:
			if f.proto = true; proto || f.partial {
				return f, nil
			}
		case runtime.ContentTypeJSON, "application/*", "*/*":
			return f, nil
		}
	}
	return format{}, apierrors.NewGenericServerResponse(http.StatusNotAcceptable, "get", schema.GroupResource{}, "", "only the following media types are accepted: application/json, and application/vnd.kubernetes.protobuf for built-in types", 0, false)
}

// contentType returns the media type of an answer or a stream of events.
func (f format) contentType(stream bool) string {
	switch {
	case f.proto && stream:
		return runtime.ContentTypeProtobuf + ";stream=watch"
	case f.proto:
		return runtime.ContentTypeProtobuf
	}
	return runtime.ContentTypeJSON
}

// once returns what p has, or what encode returns, for everyone after.
func once(p *atomic.Pointer[[]byte], encode func() ([]byte, error)) ([]byte, error) {
	if b := p.Load(); b != nil {
		return *b, nil
	}
	b, err := encode()
	if err != nil {
		return nil, err
	}
	p.Store(&b)
	return b, nil
}

// jsonBytes returns the object as JSON.
func (o *object) jsonBytes() ([]byte, error) {
	return once(&o.json, func() ([]byte, error) { return json.Marshal(o.work) })
}

// protoBytes returns the object as protobuf, without the envelope that names its kind.
func (o *object) protoBytes() ([]byte, error) {
	return once(&o.proto, func() ([]byte, error) {
		m, ok := o.work.(protoMessage)
		if !ok {
			return nil, fmt.Errorf("%T cannot be encoded as protobuf", o.work)
		}
		return m.Marshal()
	})
}

// bytesOf returns an object in a format, with the envelope in protobuf.
func (r *resource) bytesOf(o *object, f format) ([]byte, error) {
	switch {
	case f.partial:
		return encodeAny(partialOf(o), f)
	case f.proto:
		raw, err := o.protoBytes()
		if err != nil {
			return nil, err
		}
		return envelope(r.gvk, raw), nil
	}
	return o.jsonBytes()
}

var partialKind = metav1.SchemeGroupVersion.WithKind("PartialObjectMetadata")

// partialOf returns the metadata of an object.
func partialOf(o *object) *metav1.PartialObjectMetadata {
	p := meta.AsPartialObjectMetadata(o.meta())
	p.SetGroupVersionKind(partialKind)
	return p
}

// encodeAny returns an object that is not stored in a format.
func encodeAny(o runtime.Object, f format) ([]byte, error) {
	if m, ok := o.(protoMessage); ok && f.proto {
		raw, err := m.Marshal()
		if err != nil {
			return nil, err
		}
		return envelope(o.GetObjectKind().GroupVersionKind(), raw), nil
	}
	return json.Marshal(o)
}

// listBytes returns a list of objects in a format.
func (r *resource) listBytes(items []*object, list metav1.ListMeta, f format) ([]byte, error) {
	kind := r.listKind()
	if f.partial {
		kind = metav1.SchemeGroupVersion.WithKind("PartialObjectMetadataList")
	}
	if f.proto {
		return r.protoList(items, list, f, kind)
	}
	head, err := json.Marshal(list)
	if err != nil {
		return nil, err
	}
	b := fmt.Appendf(nil, `{"kind":%q,"apiVersion":%q,"metadata":%s,"items":[`, kind.Kind, kind.GroupVersion().String(), head)
	for i, o := range items {
		text, err := r.bytesOf(o, f)
		if err != nil {
			return nil, err
		}
		if i > 0 {
			b = append(b, ',')
		}
		if rest, ok := strings.CutPrefix(string(text), string(r.kindPrefix)); ok && r.custom == nil {
			b = append(append(b, '{'), rest...) // items of built-in lists do not say their kind
		} else {
			b = append(b, text...)
		}
	}
	return append(b, "]}"...), nil
}

func (r *resource) protoList(items []*object, list metav1.ListMeta, f format, kind schema.GroupVersionKind) ([]byte, error) {
	head, err := list.Marshal()
	if err != nil {
		return nil, err
	}
	all := make([][]byte, len(items))
	size := len(head) + 6
	for i, o := range items {
		if f.partial {
			all[i], err = partialOf(o).Marshal()
		} else {
			all[i], err = o.protoBytes()
		}
		if err != nil {
			return nil, err
		}
		size += len(all[i]) + 6
	}
	// All lists have their metadata in field 1 and their items in field 2.
	b := appendBytes(make([]byte, 0, size), 1, head)
	for _, item := range all {
		b = appendBytes(b, 2, item)
	}
	return envelope(kind, b), nil
}

// appendBytes appends a field of bytes to a protobuf message.
func appendBytes(to []byte, field byte, b []byte) []byte {
	to = binary.AppendUvarint(append(to, field<<3|2), uint64(len(b)))
	return append(to, b...)
}

// magic begins everything that Kubernetes sends as protobuf.
const magic = "k8s\x00"

// envelope wraps a message with its kind: runtime.Unknown after the magic.
func envelope(kind schema.GroupVersionKind, raw []byte) []byte {
	typeMeta := appendBytes(nil, 1, []byte(kind.GroupVersion().String()))
	typeMeta = appendBytes(typeMeta, 2, []byte(kind.Kind))
	b := append(make([]byte, 0, len(magic)+len(typeMeta)+len(raw)+16), magic...)
	b = appendBytes(b, 1, typeMeta)
	b = appendBytes(b, 2, raw)
	b = appendBytes(b, 3, nil) // content encoding
	return appendBytes(b, 4, nil)
}

// open takes a message out of its envelope.
func open(b []byte) (*runtime.Unknown, error) {
	rest, ok := strings.CutPrefix(string(b), magic)
	if !ok {
		return nil, fmt.Errorf("the body is not Kubernetes protobuf: it does not begin with %q", magic)
	}
	u := &runtime.Unknown{}
	if err := u.Unmarshal([]byte(rest)); err != nil {
		return nil, fmt.Errorf("reading the protobuf envelope: %w", err)
	}
	return u, nil
}

// toJSON returns a body in JSON or YAML as JSON.
func toJSON(body []byte, mediaType string) ([]byte, error) {
	if !strings.HasSuffix(mediaType, "yaml") {
		return body, nil
	}
	return yaml.YAMLToJSON(body)
}
