package arm_test

import clientv3 "go.etcd.io/etcd/client/v3"

var withPrefix = clientv3.WithPrefix()
