package arm_test

import (
	"encoding/json"
	"io"

	clientv3 "go.etcd.io/etcd/client/v3"
)

var withPrefix = clientv3.WithPrefix()

func decode(r io.Reader, v any) error { return json.NewDecoder(r).Decode(v) }
