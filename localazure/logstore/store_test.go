// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package logstore

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nap-aks/nap/localazure/kql"
)

var testNow = time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)

const (
	clusterA = "/subscriptions/s1/resourceGroups/myRG/providers/Microsoft.ContainerService/managedClusters/Alpha"
	clusterB = "/subscriptions/s1/resourceGroups/myRG/providers/Microsoft.ContainerService/managedClusters/beta"
)

func openStore(t testing.TB) *Store {
	t.Helper()
	s, err := Open(filepath.Join(t.TempDir(), "logs.db"), Options{Clock: func() time.Time { return testNow }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// seed writes nine records: five of node-auto-provisioning, at 1 to 5 hours
// ago, two events, one apiserver line and one audit event.
func seed(t testing.TB, s *Store) {
	t.Helper()
	var recs []Record
	for i, m := range []string{"created nodeclaim", "registered nodeclaim", "Disrupting node(s)", "created nodeclaim", "found provisionable pod(s)"} {
		level := []string{"info", "info", "warning", "error", "info"}[i]
		recs = append(recs, Record{Time: testNow.Add(-time.Duration(i+1) * time.Hour), Category: "node-auto-provisioning", Level: level, Message: m, Cluster: clusterA, Pod: "karpenter-0",
			Properties: json.RawMessage(fmt.Sprintf(`{"level":%q,"message":%q,"NodeClaim":{"name":"np-%d"},"cpu":%d,"tags":["a","b%d"]}`, strings.ToUpper(level), m, i, i*2, i))})
	}
	recs = append(recs,
		Record{Time: testNow.Add(-30 * time.Minute), Category: "karpenter-events", Level: "info", Message: "Nominated Pod should schedule on: nodeclaim/np-1", Cluster: clusterA},
		Record{Time: testNow.Add(-20 * time.Minute), Category: "karpenter-events", Level: "warning", Message: "DisruptionBlocked", Cluster: clusterB},
		Record{Time: testNow.Add(-10 * time.Minute), Category: "kube-apiserver", Level: "info", Message: "Serving securely on 127.0.0.1:6443", Cluster: clusterA, Pod: "kube-apiserver-0"},
		Record{Time: testNow.Add(-5 * time.Minute), Category: "kube-audit", Message: "list /api/v1/nodes", Cluster: clusterA,
			Properties: json.RawMessage(`{"auditID":"u1","verb":"list","requestURI":"/api/v1/nodes","user":{"username":"admin","groups":["system:masters"]},"responseStatus":{"code":200}}`)})
	if err := s.Append(context.Background(), recs...); err != nil {
		t.Fatal(err)
	}
}

// show renders a result on one line: columns, then rows.
func show(r *kql.Result) string {
	var b strings.Builder
	for i, c := range r.Columns {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(c.Name + ":" + string(c.Type))
	}
	for _, row := range r.Rows {
		j, err := json.Marshal(row)
		if err != nil {
			return err.Error()
		}
		b.WriteString(" " + string(j))
	}
	return b.String()
}

func ask(t testing.TB, s *Store, query string) string {
	t.Helper()
	res, err := s.Query(context.Background(), Request{Query: query})
	if err != nil {
		return err.Error()
	}
	return show(res)
}

func TestRetention(t *testing.T) {
	s, err := Open(filepath.Join(t.TempDir(), "l.db"), Options{Retention: 2*time.Hour + time.Minute, MaxRecords: 7, Clock: func() time.Time { return testNow }})
	if err != nil {
		t.Fatal(err)
	}
	seed(t, s)
	// 3 records are older than the retention; of the newest 7, all of 3 to 9 are.
	n, err := s.Prune(context.Background())
	if err != nil || n != 5 {
		t.Errorf("pruned %d, %v; want 5 (three too old, two beyond seven)", n, err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

func TestDatabaseIsPrivateAndPersistent(t *testing.T) {
	path := filepath.Join(t.TempDir(), "logs.db")
	for range 2 {
		s, err := Open(path, Options{Clock: func() time.Time { return testNow }})
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Append(context.Background(), Record{Time: testNow, Category: "c"}); err != nil {
			t.Fatal(err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v; want 0600", info.Mode(), err)
	}
	s, err := Open(path, Options{Clock: func() time.Time { return testNow }})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close() //nolint:errcheck // the test is over
	res, err := s.Query(context.Background(), Request{Query: "AzureDiagnostics | count"})
	if err != nil || show(res) != "Count:long [2]" {
		t.Errorf("%v, %v", res, err)
	}
}
