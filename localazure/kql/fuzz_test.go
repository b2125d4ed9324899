// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package kql

import (
	"context"
	"encoding/json"
	"errors"
	"testing"
	"time"
)

// manyQueries use the whole grammar.
var manyQueries = []string{
	`AzureDiagnostics | where Category == "node-auto-provisioning" and TimeGenerated > ago(1h) | extend p = parse_json(log_s) | summarize n = count(), arg_max(TimeGenerated, *) by tostring(p.x), bin(TimeGenerated, 5m) | order by n desc nulls last | take 10`,
	`let a = 5; union AKSAudit, AKSControlPlane | where Message has_any ("a", 'b') or Level !in~ ("x") | project-away *_s | distinct * | top 3 by Type asc`,
	`print x = dynamic({"a":[1,2]}).a[0], y = 1.5h / 3m, z = -(7 % 4), w = @"c:\" matches regex "x+"`,
	`let f = (x:long, T:(*) ) { T | where Level has "e" and x > 1 }; let g = (y:long = 2) { y * 2 }; let m = toscalar(AKSAudit | count); f(g(m), (AKSControlPlane)) | lookup kind=inner (datatable(Level:string, n:long) ["info", 1]) on Level`,
	`AKSControlPlane | join kind=fullouter hint.strategy=shuffle (AKSAudit | project k = Verb, *) on $left.Level == $right.k, Category | union withsource=S (range i from 1 to 5 step 2), AKS*`,
	`search kind=case_sensitive in (AKSControlPlane, AKSAudit) "node*" and not(Level:"info") | parse kind=regex flags=i Message with * "a" b:long "c" d | parse-where Message with x " " * | sample 3`,
	`AKSControlPlane | make-series n = count() default = 0, avg(strlen(Message)) on TimeGenerated from ago(1d) to now() step 1h by Level | mv-apply with_itemindex=i n to typeof(long) on (top 1 by n | extend q = i) | mv-expand kind=array n limit 3`,
	`union kind=inner (AKSAudit), AKSControlPlane | where Level in ((AKSAudit | project Level)) and * has "x" | summarize percentiles(strlen(Level), 5, 50), take_any(*), make_bag(pack_all()) | getschema | sample-distinct 2 of ColumnName | serialize | as x | render timechart with (title="t")`,
	`AKSAudit | mv-expand User.groups | where ResponseStatus.code between (200 .. 299) | count`,
	`AKSControlPlane | summarize hint.shufflekey=Level n = count() by Level, bin(TimeGenerated, 1h) | project-rename m = n | project-reorder m, L* | project-away *x | project-keep m | order by m asc nulls first | union kind=outer (print m = 1) | mv-apply m to typeof(long) limit 2 on (order by m)`,
}

// A query that is cut off after any word is an error of the query or valid, and
// never a crash.
func TestTruncatedQueries(t *testing.T) {
	for _, q := range manyQueries {
		toks, err := lex(q)
		if err != nil {
			t.Fatal(q, err)
		}
		if _, err := parse(q, tableNames(testTables())); err != nil {
			t.Errorf("%s\n%v", q, err)
		}
		for _, tok := range toks {
			_, err := query(t.Context(), q[:tok.end])
			var qe *Error
			if err != nil && !errors.As(err, &qe) {
				t.Errorf("%s\nerror of type %T: %v", q[:tok.end], err, err)
			}
		}
	}
}

func FuzzQuery(f *testing.F) {
	for _, q := range manyQueries {
		f.Add(q)
	}
	f.Fuzz(func(t *testing.T, q string) {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		res, err := query(ctx, q)
		var qe *Error
		if err != nil && !errors.As(err, &qe) && !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("%q: error of type %T: %v", q, err, err)
		}
		if err == nil {
			for _, row := range res.Rows {
				if len(row) != len(res.Columns) {
					t.Fatalf("%q: a row of %d values for %d columns", q, len(row), len(res.Columns))
				}
				if _, err := json.Marshal(row); err != nil {
					t.Fatalf("%q: %v", q, err)
				}
			}
		}
	})
}
