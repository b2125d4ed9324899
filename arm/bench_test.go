package arm_test

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/nap-aks/nap/arm/armtest"
)

// BenchmarkGetCluster is the server's own time for reading a cluster, without
// network and TLS.
func BenchmarkGetCluster(b *testing.B) {
	a := armtest.New(b)
	a.Machinery()
	newCluster(a, "Auto")
	token := "Bearer " + a.Token(armtest.ClientID, armtest.ClientSecret)
	h := a.Server().Handler()
	for b.Loop() {
		req := httptest.NewRequest(http.MethodGet, a.URL+clusterID+"?api-version=2025-10-01", nil)
		req.Header.Set("Authorization", token)
		rec := httptest.NewRecorder()
		h.ServeHTTP(rec, req)
		if rec.Code != 200 {
			b.Fatal(rec.Code)
		}
	}
}
