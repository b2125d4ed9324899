// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package apiserver

import (
	"bytes"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer/protobuf"
	"sigs.k8s.io/yaml"
)

// hasProto reports whether an object can be encoded as protobuf.
func (*Server) hasProto(o runtime.Object) bool {
	_, ok := o.(interface{ ProtoMessage() })
	if !ok {
		_, ok = o.(interface{ Marshal() ([]byte, error) })
	}
	return ok
}

// encodeProto returns an object as Kubernetes sends it as protobuf.
func (s *Server) encodeProto(o runtime.Object) ([]byte, error) {
	var b bytes.Buffer
	if err := protobuf.NewSerializer(s.scheme, s.scheme).Encode(o, &b); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

// toJSON returns a patch of server-side apply, which may be YAML, as JSON.
func toJSON(text []byte) ([]byte, error) {
	out, err := yaml.YAMLToJSON(text)
	if err != nil {
		return nil, apierrors.NewBadRequest(err.Error())
	}
	return out, nil
}
