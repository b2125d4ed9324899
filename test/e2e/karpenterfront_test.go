// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"testing"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/to"
	appsv1 "k8s.io/api/apps/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/httpstream"
	"k8s.io/apimachinery/pkg/util/httpstream/spdy"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	"k8s.io/client-go/tools/portforward"
	ctrlclient "sigs.k8s.io/controller-runtime/pkg/client"
)

// karpenterPod is the name of the pod that stands in for the controller.
const karpenterPod = "karpenter-0"

// karpenterFront starts a proxy in front of the API server and returns a
// kubeconfig for it. The suites expect the controller to be a pod of a Deployment
// with a lease, and read its metrics and profiles through that pod; here it is a
// process outside the cluster. The proxy forwards requests for the pod's ports to
// that process and all others to the API server.
func (c *cluster) karpenterFront(t *testing.T, gates string) ([]byte, error) {
	var port int
	all, err := c.components()
	if err != nil {
		return nil, err
	}
	for _, p := range all {
		if p.Name == "controller" && p.Cluster == c.name {
			port = p.MetricsPort
		}
	}
	if port == 0 {
		return nil, fmt.Errorf("cluster %s has no controller with a metrics port among %+v", c.name, all)
	}
	labels := map[string]string{"app.kubernetes.io/instance": "karpenter"}
	controller := corev1.Container{Name: "controller", Image: "nap-controller", Env: []corev1.EnvVar{{Name: "FEATURE_GATES", Value: gates}}}
	for _, obj := range []ctrlclient.Object{
		&corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Name: karpenterPod, Namespace: "kube-system", Labels: labels},
			Spec:       corev1.PodSpec{Containers: []corev1.Container{controller}, Tolerations: []corev1.Toleration{{Operator: corev1.TolerationOpExists}}},
		},
		&coordinationv1.Lease{
			ObjectMeta: metav1.ObjectMeta{Name: "karpenter-leader-election", Namespace: "kube-system"},
			Spec:       coordinationv1.LeaseSpec{HolderIdentity: to.Ptr(karpenterPod + "_0")},
		},
		// Without replicas: it only shows the settings.
		&appsv1.Deployment{
			ObjectMeta: metav1.ObjectMeta{Name: "karpenter", Namespace: "kube-system"},
			Spec: appsv1.DeploymentSpec{
				Replicas: to.Ptr[int32](0), Selector: &metav1.LabelSelector{MatchLabels: labels},
				Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels}, Spec: corev1.PodSpec{Containers: []corev1.Container{controller}}},
			},
		},
	} {
		if err := c.kube.Create(c.ctx, obj); err != nil {
			return nil, fmt.Errorf("creating the stand-in for Karpenter's pod: %w", err)
		}
	}

	api, err := url.Parse(c.rest.Host)
	if err != nil {
		return nil, err
	}
	transport, err := rest.TransportFor(c.rest)
	if err != nil {
		return nil, err
	}
	proxy := &httputil.ReverseProxy{
		Transport:     transport,
		FlushInterval: -1, // watches
		Rewrite:       func(r *httputil.ProxyRequest) { r.SetURL(api) },
	}
	metrics := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: fmt.Sprintf("127.0.0.1:%d", port)})
	pod := "/api/v1/namespaces/kube-system/pods/"
	mux := http.NewServeMux()
	mux.Handle("/", proxy)
	for _, name := range []string{"http:" + karpenterPod + ":8080", karpenterPod + ":8080"} {
		prefix := pod + name + "/proxy"
		mux.Handle(prefix+"/", http.StripPrefix(prefix, metrics))
	}
	mux.HandleFunc(pod+karpenterPod+"/portforward", func(w http.ResponseWriter, r *http.Request) { forward(w, r, port) })
	front := httptest.NewServer(mux)
	t.Cleanup(front.CloseClientConnections)
	config := clientcmdapi.NewConfig()
	config.Clusters["front"] = &clientcmdapi.Cluster{Server: front.URL}
	config.Contexts["front"] = &clientcmdapi.Context{Cluster: "front"}
	config.CurrentContext = "front"
	return clientcmd.Write(*config)
}

// forward serves a port-forward: whatever port the client requests, the streams
// are connected to the given port of this machine.
func forward(w http.ResponseWriter, r *http.Request, port int) {
	if _, err := httpstream.Handshake(r, w, []string{portforward.PortForwardProtocolV1Name}); err != nil {
		return // Handshake has answered
	}
	conn := spdy.NewResponseUpgrader().UpgradeResponse(w, r, func(s httpstream.Stream, replied <-chan struct{}) error {
		if s.Headers().Get(corev1.StreamType) != corev1.StreamTypeData {
			return nil // no errors are sent
		}
		go func() {
			<-replied
			defer func() { _ = s.Close() }()
			back, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port))
			if err != nil {
				return
			}
			defer func() { _ = back.Close() }()
			go func() {
				_, _ = io.Copy(back, s)
				_ = back.(*net.TCPConn).CloseWrite()
			}()
			_, _ = io.Copy(s, back)
		}()
		return nil
	})
	if conn != nil {
		<-conn.CloseChan()
	}
}
