package kql

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
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
func show(r *Result) string {
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

func TestQueries(t *testing.T) {
	s := openStore(t)
	seed(t, s)
	nap := `AzureDiagnostics | where Category == "node-auto-provisioning" `
	for _, c := range []struct{ query, want string }{
		// the queries of the documentation
		{`AzureDiagnostics | where Category == "node-auto-provisioning" | count`, `Count:long [5]`},
		{`AKSControlPlane | where Category == "karpenter-events" | project Level, Message`, `Level:string,Message:string ["info","Nominated Pod should schedule on: nodeclaim/np-1"] ["warning","DisruptionBlocked"]`},
		// where
		{nap + `and Level == "error" | project log_s`, `log_s:string ["{\"level\":\"ERROR\",\"message\":\"created nodeclaim\",\"NodeClaim\":{\"name\":\"np-3\"},\"cpu\":6,\"tags\":[\"a\",\"b3\"]}"]`},
		{nap + `| where Level =~ "WARNING" or Level != "info" | count`, `Count:long [2]`},
		{`AKSControlPlane | where Message contains "NODECLAIM" | count`, `Count:long [4]`},
		{`AKSControlPlane | where Message contains_cs "NODECLAIM" | count`, `Count:long [0]`},
		{`AKSControlPlane | where Message has "node" | count`, `Count:long [1]`},
		{`AKSControlPlane | where Message !has "nodeclaim" and Message hasprefix "disr" | count`, `Count:long [2]`},
		{`AKSControlPlane | where Message startswith "CREATED" and Message endswith "claim" | count`, `Count:long [2]`},
		{`AKSControlPlane | where Message matches regex "^Serving.*\\d+$" | count`, `Count:long [1]`},
		{`AKSControlPlane | where Level in ("error", "warning") | count`, `Count:long [3]`},
		{`AKSControlPlane | where Level !in~ ("ERROR", "WARNING") | count`, `Count:long [5]`},
		{`AKSControlPlane | where Message has_any ("registered", "blocked") | count`, `Count:long [1]`},
		{nap + `| where TimeGenerated > ago(150m) | count`, `Count:long [2]`},
		{nap + `| where TimeGenerated between (datetime(2026-11-24T08:00:00Z) .. 1h) | count`, `Count:long [2]`},
		{nap + `| where TimeGenerated >= datetime(2026-11-24 10:00) and not(isempty(pod_s)) | count`, `Count:long [2]`},
		{`AzureDiagnostics | where ResourceId endswith "/BETA" | project Resource, ResourceGroup, _ResourceId`, `Resource:string,ResourceGroup:string,_ResourceId:string ["BETA","MYRG","/subscriptions/s1/resourcegroups/myrg/providers/microsoft.containerservice/managedclusters/beta"]`},
		// columns
		{nap + `| extend p = parse_json(log_s) | where p.cpu > 4 | project name = tostring(p.NodeClaim.name), p.tags[1], twice = 2 * tolong(p["cpu"])`, `name:string,Column2:dynamic,twice:long ["np-3","b3",12] ["np-4","b4",16]`},
		{`AKSControlPlane | where Category == "node-auto-provisioning" and Properties.cpu == 2 | project Properties.NodeClaim.name`, `Properties_NodeClaim_name:dynamic ["np-1"]`},
		{`AKSAudit | project Verb, user = tostring(User.username), User.groups[0], ResponseStatus.code`, `Verb:string,user:string,Column3:dynamic,ResponseStatus_code:dynamic ["list","admin","system:masters",200]`},
		{nap + `| take 1 | project-keep Cat*, pod_s`, `Category:string,pod_s:string ["node-auto-provisioning","karpenter-0"]`},
		{nap + `| take 1 | project Level, pod_s | project-rename pod = pod_s | project-reorder pod | project-away Level`, `pod:string ["karpenter-0"]`},
		{`AKSControlPlane | distinct Level | order by Level asc`, `Level:string ["error"] ["info"] ["warning"]`},
		{nap + `| take 1 | mv-expand t = parse_json(log_s).tags | project t`, `t:dynamic ["a"] ["b0"]`},
		{`union AKSAudit, AKSControlPlane | summarize count() by Type | order by Type`, `Type:string,count_:long ["AKSControlPlane",8] ["AKSAudit",1]`},
		// summarize
		{`AKSControlPlane | summarize count() by Category | order by count_ desc, Category asc`, `Category:string,count_:long ["node-auto-provisioning",5] ["karpenter-events",2] ["kube-apiserver",1]`},
		{nap + `| extend cpu = tolong(parse_json(log_s).cpu) | summarize n = count(), sum(cpu), avg(cpu), min(cpu), max(cpu), dcount(Level), errors = countif(Level == "error"), percentile(cpu, 50)`, `n:long,sum_cpu:long,avg_cpu:real,min_cpu:long,max_cpu:long,dcount_Level:long,errors:long,percentile_cpu_50:long [5,20,4,0,8,3,1,4]`},
		{nap + `| summarize n = count() by bin(TimeGenerated, 2h) | order by TimeGenerated asc`, `TimeGenerated:datetime,n:long ["2026-11-24T06:00:00.0000000Z",1] ["2026-11-24T08:00:00.0000000Z",2] ["2026-11-24T10:00:00.0000000Z",2]`},
		{nap + `| summarize arg_max(TimeGenerated, Level, log_s) | project TimeGenerated, Level`, `TimeGenerated:datetime,Level:string ["2026-11-24T11:00:00.0000000Z","info"]`},
		{nap + `| summarize levels = make_set(Level), l = make_list(Level, 2), half = round(count() / 2.0, 1)`, `levels:dynamic,l:dynamic,half:real [["info","warning","error"],["info","info"],2.5]`},
		{`AKSControlPlane | where Level == "nothing" | summarize count(), max(TimeGenerated)`, `count_:long,max_TimeGenerated:datetime [0,null]`},
		{`AKSControlPlane | where Level == "nothing" | summarize count() by Level`, `Level:string,count_:long`},
		// order and limits
		{nap + `| sort by TimeGenerated asc | take 2 | project h = hourofday(TimeGenerated)`, `h:long [7] [8]`},
		{nap + `| top 2 by TimeGenerated | project h = hourofday(TimeGenerated)`, `h:long [11] [10]`},
		{nap + `| order by Level asc, TimeGenerated desc | project Level | limit 3`, `Level:string ["error"] ["info"] ["info"]`},
		{`AzureDiagnostics | render timechart`, ``},
		// let and print
		{`let since = ago(90m); let cat = "node-auto-provisioning"; AzureDiagnostics | where Category == cat and TimeGenerated > since | count`, `Count:long [1]`},
		{"// a comment\nprint x = 1 + 2 * 3, y = -(4 - 6) / 4.0", `x:long,y:real [7,0.5]`},
	} {
		res, err := s.Query(context.Background(), Request{Query: c.query})
		if err != nil {
			t.Errorf("%s\n%v", c.query, err)
		} else if got := show(res); got != c.want && c.want != "" {
			t.Errorf("%s\n got %s\nwant %s", c.query, got, c.want)
		}
	}
}

func TestScalars(t *testing.T) {
	s := openStore(t)
	for expr, want := range map[string]string{
		`now()`: `"2026-11-24T12:00:00.0000000Z"`, `ago(1d)`: `"2026-11-23T12:00:00.0000000Z"`, `now(-1h)`: `"2026-11-24T11:00:00.0000000Z"`, `now() - datetime(2026-11-23)`: `"1.12:00:00"`,
		`bin(17, 5)`: `15`, `bin(-1, 5)`: `-5`, `bin(7.7, 0.5)`: `7.5`, `bin(now(), 7h)`: `"2026-11-24T11:00:00.0000000Z"`, `floor(90m, 1h)`: `"01:00:00"`,
		`tostring(5)`: `"5"`, `tolong("0x1f")`: `31`, `toint("x")`: `null`, `todouble("1.5")`: `1.5`, `tobool("TRUE")`: `true`, `todatetime("2026-01-02")`: `"2026-01-02T00:00:00.0000000Z"`, `totimespan("00:05:00")`: `"00:05:00"`,
		`parse_json('{"a":[1,{"b":2}]}').a[1].b`: `2`, `todynamic("[1,2]")[-1]`: `2`, `parse_json("nope").x`: `null`, `dynamic({"k":"v"}).k`: `"v"`, `dynamic([1,2.5,"x",null])`: `[1,2.5,"x",null]`, `gettype(parse_json("[]"))`: `"array"`,
		`strcat("a", 1, true)`: `"a1true"`, `strcat_delim("-", "a", 2)`: `"a-2"`, `tolower("AB")`: `"ab"`, `toupper("ab")`: `"AB"`, `strlen("äb")`: `2`, `reverse("abc")`: `"cba"`,
		`substring("abcdef", 2)`: `"cdef"`, `substring("abcdef", 1, 2)`: `"bc"`, `substring("abc", 9)`: `""`, `split("a,b", ",")`: `["a","b"]`, `split("a,b", ",", 1)`: `["b"]`, `indexof("hello", "l")`: `2`, `countof("aXbX", "X")`: `2`,
		`trim("-+", "--a--")`: `"a"`, `replace_string("aba", "a", "x")`: `"xbx"`, `replace_regex("n1", @"(\w)(\d)", @"\2\1")`: `"1n"`, `extract(@"nodeclaim/(\S+)", 1, "on: nodeclaim/np-1 x")`: `"np-1"`, `extract("(x)", 1, "a")`: `""`,
		`isempty("")`: `true`, `isnotempty("a")`: `true`, `isnull(tolong("x"))`: `true`, `isnotnull(1)`: `true`, `not(1 == 1)`: `false`, `iff(1 < 2, "y", "n")`: `"y"`, `case(false, 1, true, 2, 3)`: `2`, `coalesce(tolong("x"), 4)`: `4`,
		`max_of(1, 3, 2)`: `3`, `min_of(1, 3)`: `1`, `abs(-3)`: `3`, `round(2.567, 1)`: `2.6`, `ceiling(1.2)`: `2`, `sqrt(9)`: `3`, `pow(2, 10)`: `1024`, `7 / 2`: `3`, `7 % 4`: `3`, `1 / 0`: `null`, `7 / 2.0`: `3.5`,
		`format_datetime(now(), "yyyy-MM-dd HH:mm:ss.fff")`: `"2026-11-24 12:00:00.000"`, `startofday(now())`: `"2026-11-24T00:00:00.0000000Z"`, `startofmonth(now())`: `"2026-11-01T00:00:00.0000000Z"`, `startofweek(now())`: `"2026-11-22T00:00:00.0000000Z"`, `endofday(now())`: `"2026-11-24T23:59:59.9999999Z"`, `startofhour(ago(1m))`: `"2026-11-24T11:00:00.0000000Z"`,
		`dayofweek(now())`: `"2.00:00:00"`, `hourofday(now())`: `12`, `getyear(now())`: `2026`, `datetime_diff("day", now(), datetime(2026-11-20))`: `4`, `unixtime_seconds_todatetime(0)`: `"1970-01-01T00:00:00.0000000Z"`, `format_timespan(90m, "hh:mm")`: `"01:30"`,
		`array_length(dynamic([1,2]))`: `2`, `bag_keys(dynamic({"b":1,"a":2}))`: `["a","b"]`, `pack("a", 1)`: `{"a":1}`, `pack_array(1, "x")`: `[1,"x"]`, `set_has_element(dynamic([1,2]), 2)`: `true`, `array_index_of(dynamic(["a"]), "a")`: `0`, `strcat_array(dynamic(["a",1]), "+")`: `"a+1"`,
		`1.5h + 30m`: `"02:00:00"`, `2 * 1h`: `"02:00:00"`, `1h / 30m`: `2`, `1d > 23h`: `true`, `"a" in ("b", "a")`: `true`, `3 between (1 .. 3)`: `true`, `3 !between (1 .. 2)`: `true`, `"aBc" =~ "AbC"`: `true`, `"a" == "A"`: `false`, `"x" !~ "y"`: `true`,
		`"node-1" has "node"`: `true`, `"nodes" has "node"`: `false`, `"my_node" hassuffix "node"`: `true`, `dynamic(["a","b"]) has "b"`: `true`, `"b" in (dynamic(["a","b"]))`: `true`, `"a" "b"`: `"ab"`, `@"c:\x"`: `"c:\\x"`, `"a\tb"`: `"a\tb"`, `h"secret"`: `"secret"`,
		`timespan(1.02:03:04)`: `"1.02:03:04"`, `url_encode("a b")`: `"a+b"`, `url_decode("a%20b")`: `"a b"`, `base64_encode_tostring("a")`: `"YQ=="`, `base64_decode_tostring("YQ==")`: `"a"`, `long(null)`: `null`, `real(1.5)`: `1.5`, `log10(100)`: `2`, `"b" > "a" and not("b" < "a")`: `true`,
	} {
		res, err := s.Query(context.Background(), Request{Query: "print x = " + expr})
		if err != nil {
			t.Errorf("%s: %v", expr, err)
			continue
		}
		got, err := json.Marshal(res.Rows[0][0])
		if err != nil || string(got) != want {
			t.Errorf("%s = %s (%v), want %s", expr, got, err, want)
		}
	}
}

func TestFaultsTellWhere(t *testing.T) {
	s := openStore(t)
	seed(t, s)
	for _, c := range []struct {
		query, code, want string
		line, pos         int
	}{
		{`AzureDiagnostics | whre Level == "x"`, SyntaxError, "the operator 'whre' is not supported", 1, 20},
		{"AzureDiagnostics\n| where Level = \"x\"", SyntaxError, "unexpected '='", 2, 15},
		{`AzureDiagnostics | where level == "x"`, SemanticError, "failed to resolve column named 'level'; did you mean 'Level'?", 1, 26},
		{`azurediagnostics`, SemanticError, "did you mean 'AzureDiagnostics'?", 1, 1},
		{`Nothing | count`, SemanticError, "failed to resolve table named 'Nothing'", 1, 1},
		{`AzureDiagnostics | where Level == 5`, SemanticError, "cannot compare values of types string and long", 1, 32},
		{`AzureDiagnostics | where Level`, SemanticError, "where needs a condition", 1, 26},
		{`AzureDiagnostics | extend x = foo(1)`, SemanticError, "unknown function 'foo'", 1, 31},
		{`AzureDiagnostics | extend x = count()`, SemanticError, "can only be used in summarize", 1, 31},
		{`AzureDiagnostics | extend x = substring("a")`, SemanticError, "takes 2 to 3 arguments, not 1", 1, 31},
		{`AzureDiagnostics | where Level == "x`, SyntaxError, "the string is not closed", 1, 35},
		{`AzureDiagnostics | take -1`, SemanticError, "must be an integer that is not negative", 1, 25},
		{`AzureDiagnostics |`, SyntaxError, "expected an operator after '|' and found the end of the query", 1, 19},
		{`AzureDiagnostics | where (Level == "x"`, SyntaxError, "expected ')'", 1, 39},
		{`AzureDiagnostics | where Level matches regex "("`, SemanticError, "regular expression is not valid", 1, 46},
		{`AzureDiagnostics | project a = 1, a = 2`, SemanticError, "projected twice", 1, 35},
		{`AzureDiagnostics | where x ~ 1`, SyntaxError, "has no meaning here", 1, 28},
		{`AzureDiagnostics | project datetime(yesterday)`, SyntaxError, "is not a date and time", 1, 28},
		{`print ` + strings.Repeat("(", 100) + `1`, SyntaxError, "nested deeper than 64", 1, 70},
		{``, SyntaxError, "a query starts with a table", 1, 1},
	} {
		_, err := s.Query(context.Background(), Request{Query: c.query})
		var qe *Error
		if !errors.As(err, &qe) || qe.Code != c.code || !strings.Contains(qe.Message, c.want) {
			t.Errorf("%s\n got %v\nwant %s %q", c.query, err, c.code, c.want)
		} else if qe.Line != c.line || qe.Pos != c.pos {
			t.Errorf("%s\nposition %d:%d, want %d:%d", c.query, qe.Line, qe.Pos, c.line, c.pos)
		}
	}
	_, err := s.Query(context.Background(), Request{Query: strings.Repeat("x", MaxQueryBytes+1)})
	var qe *Error
	if !errors.As(err, &qe) || qe.Code != LimitError {
		t.Errorf("a query of 64 KiB and more: %v", err)
	}
}

// What SQLite filters must not change the answer.
func TestPushdownChangesNothing(t *testing.T) {
	s := openStore(t)
	seed(t, s)
	for _, cond := range []string{
		`Category == "karpenter-events"`, `Category in ("kube-apiserver","karpenter-events")`, `Category != "kube-apiserver"`, `Category == "a" or Category == "karpenter-events"`,
		`TimeGenerated > ago(2h)`, `TimeGenerated <= ago(2h) and Category == "node-auto-provisioning"`, `TimeGenerated == ago(2h)`, `TimeGenerated between (ago(3h) .. ago(1h))`, `not(Category == "kube-apiserver")`,
	} {
		pushed, err := s.Query(context.Background(), Request{Query: `AKSControlPlane | where ` + cond})
		if err != nil {
			t.Fatal(err)
		}
		kept, err := s.Query(context.Background(), Request{Query: `AKSControlPlane | extend z = 1 | where ` + cond + ` | project-away z`})
		if err != nil {
			t.Fatal(err)
		}
		if show(pushed) != show(kept) {
			t.Errorf("%s:\n%s\nand without pushdown\n%s", cond, show(pushed), show(kept))
		}
	}
}

func TestScopeOfARequest(t *testing.T) {
	s := openStore(t)
	seed(t, s)
	for _, c := range []struct {
		req  Request
		want string
	}{
		{Request{Views: []View{{Cluster: strings.ToUpper(clusterB)}}}, `Count:long [1]`},
		{Request{Views: []View{}}, `Count:long [0]`},
		{Request{Views: []View{{Cluster: clusterA}, {Cluster: clusterB}}}, `Count:long [9]`},
		{Request{Views: []View{{Cluster: clusterA, Category: "node-auto-provisioning"}}}, `Count:long [5]`},
		{Request{Views: []View{{Cluster: clusterA, Category: "node-auto-provisioning"}, {Cluster: clusterB, Category: "nothing"}}}, `Count:long [5]`},
		{Request{Views: []View{{Cluster: clusterA, Since: testNow.Add(time.Hour)}}}, `Count:long [0]`},
		{Request{From: testNow.Add(-45 * time.Minute), To: testNow.Add(-10 * time.Minute)}, `Count:long [2]`},
	} {
		c.req.Query = "AzureDiagnostics | count"
		res, err := s.Query(context.Background(), c.req)
		if err != nil || show(res) != c.want {
			t.Errorf("%+v: %v, %v, want %s", c.req, res, err, c.want)
		}
	}
}

func TestTailFollowsAndRemembers(t *testing.T) {
	s := openStore(t)
	path := filepath.Join(t.TempDir(), "karpenter.log")
	src := Source{Path: path, Category: "node-auto-provisioning", Cluster: clusterA, Pod: "p"}
	ctx := context.Background()
	catchUp := func(want int) {
		t.Helper()
		if n, err := s.CatchUp(ctx, src); err != nil || n != want {
			t.Fatalf("read %d records, %v; want %d", n, err, want)
		}
	}
	appendTo := func(text string) {
		t.Helper()
		f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.WriteString(text); err != nil {
			t.Fatal(err)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
	}
	catchUp(0) // no file yet
	appendTo(`{"level":"INFO","time":"2026-11-24T11:00:00.5Z","message":"one"}` + "\n" + `{"level":"ERROR","ti`)
	catchUp(1) // half a line waits
	appendTo(`me":"2026-11-24T11:00:01Z","message":"two"}` + "\nI1124 11:00:02.250000    1 server.go:10] three\nplain four\n\n")
	catchUp(3)
	catchUp(0) // nothing is read twice
	if err := os.Rename(path, path+".1"); err != nil {
		t.Fatal(err)
	}
	appendTo(`{"ts":1795518003000.5,"msg":"five","err":"boom"}` + "\n")
	catchUp(1) // a new file is read from its start
	appendTo(strings.Repeat("x", maxLine+100) + "\nsix\n")
	catchUp(2) // a line that is too long is cut, the next is whole
	res, err := s.Query(ctx, Request{Query: `AKSControlPlane | project TimeGenerated, Level, m = substring(Message, 0, 10)`})
	if err != nil {
		t.Fatal(err)
	}
	got := show(res)
	for _, want := range []string{`["2026-11-24T11:00:00.5000000Z","info","one"]`, `["2026-11-24T11:00:01.0000000Z","error","two"]`, `["2026-11-24T11:00:02.2500000Z","info","I1124 11:0"]`, `"","plain four"]`, `["2026-11-24T11:00:03.0005000Z","error","five"]`, `"","xxxxxxxxxx"]`, `"","six"]`} {
		if !strings.Contains(got, want) {
			t.Errorf("missing %s in %s", want, got)
		}
	}
}

func TestTailStopsWithItsContext(t *testing.T) {
	s := openStore(t)
	path := filepath.Join(t.TempDir(), "x.log")
	if err := os.WriteFile(path, []byte("a\nb\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Tail(ctx, Source{Path: path, Category: "c"}) }()
	deadline := time.Now().Add(10 * time.Second)
	for {
		res, err := s.Query(context.Background(), Request{Query: "AzureDiagnostics | count"})
		if err != nil {
			t.Fatal(err)
		}
		if res.Rows[0][0] == int64(2) {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the lines were not read in 10 s")
		}
		time.Sleep(10 * time.Millisecond)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
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

func TestDatabaseIsPrivateAndSurvives(t *testing.T) {
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

func TestHandler(t *testing.T) {
	s := openStore(t)
	seed(t, s)
	h := s.Handler(HandlerOptions{Views: func(_ *http.Request, ws string) ([]View, bool, error) {
		return []View{{Cluster: clusterA}}, ws == "w1", nil
	}})
	for _, c := range []struct {
		method, path, body string
		status             int
		want               string
	}{
		{"POST", "/v1/workspaces/w1/query", `{"query":"AzureDiagnostics | where Category == 'node-auto-provisioning' | summarize n=count(), d=make_set(Level)"}`, 200,
			`{"tables":[{"columns":[{"name":"n","type":"long"},{"name":"d","type":"dynamic"}],"name":"PrimaryResult","rows":[[5,"[\"info\",\"warning\",\"error\"]"]]}]}`},
		{"POST", "/v1/workspaces/w1/query", `{"query":"AKSControlPlane | count","timespan":"PT1H"}`, 200, `"rows":[[3]]`},
		{"POST", "/v1/workspaces/w1/query", `{"query":"AKSControlPlane | count","timespan":"2026-11-24T08:00:00Z/2026-11-24T10:30:00Z"}`, 200, `"rows":[[3]]`},
		{"GET", "/v1/workspaces/w1/query?query=AKSControlPlane%7Ccount&timespan=P1D", "", 200, `"rows":[[7]]`},
		{"POST", "/v1/workspaces/w2/query", `{"query":"AKSControlPlane"}`, 404, "WorkspaceNotFoundError"},
		{"POST", "/v1/workspaces/w1/query", `{"query":"AKSControlPlane | nope"}`, 400, `"code":"SYN0002","line":1,"message":"Query could not be parsed at 'nope' on line [1,19]: the operator 'nope' is not supported`},
		{"POST", "/v1/workspaces/w1/query", `{"query":"AKSControlPlane | where x == 1"}`, 400, `"innererror":{"code":"SemanticError","innererror":{"code":"SEM0100","line":1,"message":"failed to resolve column named 'x'","pos":25,"token":"x"}`},
		{"POST", "/v1/workspaces/w1/query", `{"query":""}`, 400, "'query' is empty"},
		{"POST", "/v1/workspaces/w1/query", `{"query":"AKSControlPlane","timespan":"soon"}`, 400, "is not an ISO 8601 duration"},
		{"POST", "/v1/workspaces/w1/query", `nope`, 400, "must be JSON"},
		{"PUT", "/v1/workspaces/w1/query", ``, 405, "MethodNotAllowed"},
		{"POST", "/v1/workspaces/w1", ``, 404, "PathNotFoundError"},
	} {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(c.method, c.path, strings.NewReader(c.body)))
		if w.Code != c.status || !strings.Contains(w.Body.String(), c.want) {
			t.Errorf("%s %s %s\n got %d %s\nwant %d %s", c.method, c.path, c.body, w.Code, w.Body, c.status, c.want)
		}
	}
}

func TestManyRowsAreCutOff(t *testing.T) {
	s := openStore(t)
	recs := make([]Record, MaxRowsReturned+5)
	for i := range recs {
		recs[i] = Record{Time: testNow, Category: "c", Message: fmt.Sprint(i)}
	}
	if err := s.Append(context.Background(), recs...); err != nil {
		t.Fatal(err)
	}
	res, err := s.Query(context.Background(), Request{Query: "AKSControlPlane | project Message"})
	if err != nil || len(res.Rows) != MaxRowsReturned || !res.Truncated {
		t.Errorf("%d rows, truncated %v, %v", len(res.Rows), res.Truncated, err)
	}
}

// manyQueries use all of the grammar.
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

// A query that ends too soon is a fault and never more than that.
func TestQueriesThatEndTooSoon(t *testing.T) {
	s := openStore(t)
	seed(t, s)
	for _, q := range manyQueries {
		toks, err := lex(q)
		if err != nil {
			t.Fatal(q, err)
		}
		if _, err := parse(q); err != nil {
			t.Errorf("%s\n%v", q, err)
		}
		for _, tok := range toks {
			_, err := s.Query(context.Background(), Request{Query: q[:tok.end]})
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
	s := openStore(f)
	seed(f, s)
	f.Fuzz(func(t *testing.T, q string) {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		res, err := s.Query(ctx, Request{Query: q})
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
