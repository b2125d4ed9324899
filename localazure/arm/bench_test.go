// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package arm_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"syscall"
	"testing"
	"time"

	"github.com/nap-aks/nap/localazure/arm/armtest"
)

// cpuTime returns the processor time that this process has used in user mode. It
// hardly depends on other load, unlike elapsed time.
func cpuTime(t testing.TB) time.Duration {
	t.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano())
}

// manyClusters creates clusters c0, c1, … and returns their IDs.
func manyClusters(a *armtest.Azure, n int) []string {
	a.T.Helper()
	newGroup(a)
	var ids []string
	var replies []armtest.Reply
	for i := range n {
		ids = append(ids, fmt.Sprintf("%s/providers/Microsoft.ContainerService/managedClusters/c%d", group, i))
		replies = append(replies, a.Do("PUT", ids[i], clusterBody("Auto")))
	}
	for _, r := range replies {
		a.MustSucceed(r)
	}
	return ids
}

// inProcess returns a function that reads a resource as the owner by calling the
// handler, without network and TLS.
func inProcess(a *armtest.Azure) func(path string) *httptest.ResponseRecorder {
	token := "Bearer " + a.Token(armtest.ClientID, armtest.ClientSecret)
	h := a.Server().Handler()
	return func(path string) *httptest.ResponseRecorder {
		req := httptest.NewRequest(http.MethodGet, a.URL+path+"?api-version=2025-10-01", nil)
		req.Header.Set("Authorization", token)
		rec := httptest.NewRecorder()
		h.ServeHTTP(rec, req)
		return rec
	}
}

// BenchmarkGet measures the server's time for reading one of 50 clusters, all of
// them, a pool and an operation.
func BenchmarkGet(b *testing.B) {
	a := armtest.New(b)
	a.Machinery().Hold(false)
	ids := manyClusters(a, 50)
	list := group + "/providers/Microsoft.ContainerService/managedClusters"
	get := inProcess(a)
	for name, path := range map[string]string{"cluster": ids[7], "list": list, "pool": ids[7] + "/agentPools/system"} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			from := cpuTime(b)
			for b.Loop() {
				if rec := get(path); rec.Code != 200 {
					b.Fatal(rec.Code)
				}
			}
			b.ReportMetric(float64(cpuTime(b)-from)/float64(b.N)/1e3, "cpu-µs/op")
		})
	}
}
