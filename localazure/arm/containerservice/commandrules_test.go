// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package containerservice

import "testing"

func TestCommandsStayInTheirCluster(t *testing.T) {
	for line, ok := range map[string]bool{
		"get pods -A -o wide":                                          true,
		"get pods -nkube-system -l app=x":                              true,
		"get pods -o jsonpath={.items}":                                true,
		"get --raw /healthz":                                           true,
		"apply -f x.yaml --server-side":                                true,
		"apply -fx.yaml":                                               true,
		"apply --filename=dir/x.yaml,y.yaml":                           true,
		"create secret generic s --from-file=key=x.txt":                true,
		"create configmap c --from-literal=a=b":                        true,
		"delete pod x --force":                                         true,
		"exec x -- cat -f /etc/passwd --kubeconfig=/root/.kube/config": true,
		"logs -f x":                                                     true,
		"rollout restart deployment/web":                                true,
		"drain n --ignore-daemonsets":                                   true,
		"--kubeconfig=evil get pods":                                    false,
		"get pods --kubeconfig evil":                                    false,
		"get pods --kubeconfig=evil":                                    false,
		"get pods -s https://evil":                                      false,
		"get pods --server=https://evil":                                false,
		"get pods --token=x":                                            false,
		"get pods --as x --client_key=/root/key":                        false,
		"get pods -Askind":                                              false,
		"create secret generic s --from-file=/root/.nap/key":            false,
		"create secret generic s --from-file key=../../signing-key.pem": false,
		"create secret generic s --from-env-file=/proc/self/environ":    false,
		"create secret tls s --cert=/etc/a --key=b":                     false,
		"apply -f /etc/passwd":                                          false,
		"apply -f https://evil/x.yaml":                                  false,
		"apply -f=../x.yaml":                                            false,
		"apply -f x.yaml,/etc/passwd":                                   false,
		"apply -k https://evil":                                         false,
		"apply -Rf /etc":                                                false,
		"patch pod x --patch-file /etc/passwd":                          false,
		"get pods -o go-template-file=/etc/passwd":                      false,
		"get pods -ojsonpath-file=/etc/passwd":                          false,
		"get pods -o custom-columns-file=/etc/passwd":                   false,
		"get pods -o go-template-file --template=/etc/passwd":           false,
		"cluster-info dump --output-directory=/root":                    false,
		"create -f x.yaml --edit":                                       false,
		"apply edit-last-applied -f x.yaml":                             false,
		"edit pod x":                                                    false,
		"config view --raw":                                             false,
		"proxy":                                                         false,
		"port-forward x 1":                                              false,
		"cp x:/a /root/b":                                               false,
		"kustomize https://evil":                                        false,
		"diff -f x.yaml":                                                false,
		"plugin list":                                                   false,
		"krew":                                                          false,
		"debug node/x":                                                  false,
	} {
		argv, err := words(line)
		if err != nil {
			argv = []string{line}
			if line == "get pods -o jsonpath={.items}" {
				t.Fatal(err)
			}
		}
		if err := checkCommand(argv); (err == nil) != ok {
			t.Errorf("kubectl %s: %v, want allowed %t", line, err, ok)
		}
	}
}
