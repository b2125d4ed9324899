package kql

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
)

// left and right are two small tables with keys on both sides, on one side,
// twice, and null.
const (
	leftTable  = `let L = datatable(k:string, a:long) ["x", 1, "y", 2, "y", 3, "z", 4]; `
	rightTable = `let R = datatable(k:string, b:long) ["y", 20, "z", 30, "z", 31, "w", 40]; `
)

func ask(t testing.TB, s *Store, query string) string {
	t.Helper()
	res, err := s.Query(context.Background(), Request{Query: query})
	if err != nil {
		return err.Error()
	}
	return show(res)
}

func TestTabularQueries(t *testing.T) {
	s := openStore(t)
	seed(t, s)
	lr := leftTable + rightTable
	for _, c := range []struct{ query, want string }{
		// join: the kinds, and what becomes of columns of one name
		{lr + `L | join kind=inner R on k | sort by a asc, b asc`, `k:string,a:long,k1:string,b:long ["y",2,"y",20] ["y",3,"y",20] ["z",4,"z",30] ["z",4,"z",31]`},
		{lr + `L | join R on k | sort by a asc, b asc`, `k:string,a:long,k1:string,b:long ["y",2,"y",20] ["z",4,"z",30] ["z",4,"z",31]`},
		{lr + `L | join kind=leftouter R on k | sort by a asc, b asc`, `k:string,a:long,k1:string,b:long ["x",1,"",null] ["y",2,"y",20] ["y",3,"y",20] ["z",4,"z",30] ["z",4,"z",31]`},
		{lr + `L | join kind=rightouter R on k | sort by b asc, a asc`, `k:string,a:long,k1:string,b:long ["y",2,"y",20] ["y",3,"y",20] ["z",4,"z",30] ["z",4,"z",31] ["",null,"w",40]`},
		{lr + `L | join kind=fullouter R on k | summarize n = count(), l = countif(isempty(k)), r = countif(isempty(k1))`, `n:long,l:long,r:long [6,1,1]`},
		{lr + `L | join kind=leftsemi R on k | sort by a asc`, `k:string,a:long ["y",2] ["y",3] ["z",4]`},
		{lr + `L | join kind=leftanti R on k`, `k:string,a:long ["x",1]`},
		{lr + `L | join kind=anti (R) on k`, `k:string,a:long ["x",1]`},
		{lr + `L | join kind=rightsemi R on k | sort by b asc`, `k:string,b:long ["y",20] ["z",30] ["z",31]`},
		{lr + `L | join kind=rightanti R on k`, `k:string,b:long ["w",40]`},
		{lr + `L | join kind=inner hint.strategy=shuffle (R | project key = k, b | where b > 20) on $left.k == $right.key | sort by b asc`, `k:string,a:long,key:string,b:long ["z",4,"z",30] ["z",4,"z",31]`},
		{lr + `L | join kind=inner R on $right.k == $left.k and $left.a == $right.b`, `k:string,a:long,k1:string,b:long`},
		{`datatable(a:long) [1, long(null)] | join kind=inner (datatable(a:long) [1, long(null)]) on a`, `a:long,a1:long [1,1]`}, // null equals nothing
		{`datatable(a:long) [1, long(null)] | join kind=leftanti (datatable(a:long) [1, long(null)]) on a`, `a:long [null]`},
		{lr + `L | join kind=inner R on k | take 1 | count`, `Count:long [1]`},
		{lr + `L | lookup R on k | sort by a asc, b asc`, `k:string,a:long,b:long ["x",1,null] ["y",2,20] ["y",3,20] ["z",4,30] ["z",4,31]`},
		{lr + `L | lookup kind=inner R on k | count`, `Count:long [4]`},
		{`AKSControlPlane | where Category == "node-auto-provisioning" | join kind=leftsemi (AKSControlPlane | where Level == "error" | project Message) on Message | count`, `Count:long [2]`},
		// union
		{lr + `union L, R | sort by a asc, b asc | take 2`, `k:string,a:long,b:long ["y",null,20] ["z",null,30]`},
		{lr + `union kind=inner L, R | summarize n = count() by k | sort by k asc`, `k:string,n:long ["w",1] ["x",1] ["y",3] ["z",3]`},
		{lr + `L | union withsource=from (R | where b > 30) | sort by a asc, b asc | project from, k`, `from:string,k:string ["union_arg1","z"] ["union_arg1","w"] ["union_arg0","x"] ["union_arg0","y"] ["union_arg0","y"] ["union_arg0","z"]`},
		{`union (datatable(a:long)[1]), (datatable(a:string)["x"])`, `a_long:long,a_string:string [1,""] [null,"x"]`},
		{`union withsource=T AKS* | summarize count() by T | sort by T asc`, `T:string,count_:long ["AKSAudit",1] ["AKSControlPlane",8]`},
		{`union isfuzzy=true AKSAudit, (AKSControlPlane | where Level == "error") | count`, `Count:long [2]`},
		{`AKSAudit | union AKSControlPlane | where Category == "kube-apiserver" | project Type`, `Type:string ["AKSControlPlane"]`},
		{lr + `union L, R | take 3 | count`, `Count:long [3]`},
		// let: tables, functions, values from tables
		{`let T = AKSControlPlane | where Category == "karpenter-events"; T | where Level == "warning" | union (T | where Level == "info") | project Level`, `Level:string ["warning"] ["info"]`},
		{`let T = materialize(AKSControlPlane | where Level == "error"); T | count`, `Count:long [1]`},
		{`let f = (x:long, y:long = 10) { x * y }; print f(2), f(2, 3)`, `print_0:long,print_1:long [20,6]`},
		{`let f = (m:string) { let short = substring(m, 0, 3); strcat(short, "!") }; AKSControlPlane | where Level == "error" | project x = f(Message)`, `x:string ["cre!"]`},
		{`let of = (lvl:string) { AKSControlPlane | where Level == lvl }; of("warning") | count`, `Count:long [2]`},
		{`let of = (T:(*), lvl:string) { T | where Level == lvl | count }; of((AKSControlPlane | where Category == "karpenter-events"), "info")`, `Count:long [1]`},
		{`let g = () { AKSControlPlane }; let h = view () { g() | where Level == "error" }; h | count`, `Count:long [1]`},
		{`let n = toscalar(AKSControlPlane | summarize max(TimeGenerated)); AKSControlPlane | where TimeGenerated == n | project Category`, `Category:string ["kube-apiserver"]`},
		{`let total = toscalar(AKSControlPlane | count); AKSControlPlane | summarize n = count() by Level | project Level, share = 100.0 * n / total | sort by Level asc`, `Level:string,share:real ["error",12.5] ["info",62.5] ["warning",25]`},
		{`let pods = AKSControlPlane | where Level == "error" | distinct PodName; AKSControlPlane | where PodName in (pods) | count`, `Count:long [5]`},
		{`AKSControlPlane | where Level !in ((AKSControlPlane | where Category == "karpenter-events" | project Level)) | project Level`, `Level:string ["error"]`},
		{`let words = datatable(w:string)["serving", "nothing"]; AKSControlPlane | where Message has_any (words) | count`, `Count:long [1]`},
		{`let cats = dynamic(["karpenter-events", "kube-apiserver"]); AKSControlPlane | where Category in (cats) | count`, `Count:long [3]`},
		{`let x = 5; let y = x + 1; print y`, `y:long [6]`},
		// sources
		{`range i from 1 to 10 step 4`, `i:long [1] [5] [9]`},
		{`range t from datetime(2026-01-01) to datetime(2026-01-02) step 12h | count`, `Count:long [3]`},
		{`range i from 3 to 1 step -1 | summarize make_list(i)`, `list_i:dynamic [[3,2,1]]`},
		{`datatable(a:string, b:real, c:dynamic, d:datetime) ["x", 1, dynamic({"k":[1]}), datetime(2026-01-01)] | project a, b, c.k[0], d`, `a:string,b:real,Column3:dynamic,d:datetime ["x",1,1,"2026-01-01T00:00:00.0000000Z"]`},
		{`(AKSControlPlane | where Level == "error") | count`, `Count:long [1]`},
		// parse
		{`print s = "claim=np-1 cpu=4 price=0.25 at=2026-01-01 rest of it" | parse s with "claim=" name " cpu=" cpu:long " price=" price:real " at=" at:datetime " " * | project-away s`, `name:string,cpu:long,price:real,at:datetime ["np-1",4,0.25,"2026-01-01T00:00:00.0000000Z"]`},
		{`print s = "a: 12, b: x" | parse s with * "a:" a:long * "b:" b | project a, b`, `a:long,b:string [null,""]`},
		{`print s = "a:12, b:x" | parse s with * "a:" a:long * "b:" b | project a, b`, `a:long,b:string [12,"x"]`},
		{`AKSControlPlane | parse-where Message with verb " nodeclaim" | summarize n = count() by verb | sort by verb asc`, `verb:string,n:long ["created",2] ["registered",1]`},
		{`AKSControlPlane | parse Message with "Nominated Pod should schedule on: " what | where isnotempty(what) | project what`, `what:string ["nodeclaim/np-1"]`},
		{`print s = "on=soon" | parse kind=relaxed s with "on=" on:datetime | project isnull(on)`, `Column1:bool [true]`},
		{`datatable(s:string)["t=1 d=soon", "t=2 d=2026-01-01"] | parse s with "t=" t:long " d=" d:datetime | project t`, `t:long [null] [2]`},
		{`datatable(s:string)["t=1 d=soon", "t=2 d=2026-01-01"] | parse kind=relaxed s with "t=" t:long " d=" d:datetime | project t`, `t:long [1] [2]`},
		{`print s = "v1.2: ok" | parse kind=regex s with "v(\\d+)\\." minor:long ":\\s*" rest | project minor, rest`, `minor:long,rest:string [2,"ok"]`},
		{`print s = "ABC" | parse kind=regex flags=i s with "a" x "c" | project x`, `x:string ["B"]`},
		// mv-expand and mv-apply
		{`print a = dynamic([1, 2]), b = dynamic(["x"]) | mv-expand a to typeof(long), b to typeof(string)`, `a:long,b:string [1,"x"] [2,""]`},
		{`print a = dynamic([5, 6, 7]) | mv-expand with_itemindex=i a limit 2`, `a:dynamic,i:long [5,0] [6,1]`},
		{`print b = dynamic({"k": 1}) | mv-expand kind=array b | project b[0], b[1]`, `Column1:dynamic,Column2:dynamic ["k",1]`},
		{`print n = "x", c = dynamic([{"t":"Ready","s":true},{"t":"Drifted","s":false}]) | mv-apply e = c on (where e.t == "Ready" | project ready = tobool(e.s)) | project n, ready`, `n:string,ready:bool ["x",true]`},
		{`datatable(id:long, v:dynamic) [1, dynamic([3,1,2]), 2, dynamic([9])] | mv-apply v to typeof(long) on (top 1 by v asc) | project id, v`, `id:long,v:long [1,1] [2,9]`},
		{`datatable(id:long, v:dynamic) [1, dynamic([3,1,2]), 2, dynamic([9])] | mv-apply x = v to typeof(long) on (summarize s = sum(x)) | project id, s`, `id:long,s:long [1,6] [2,9]`},
		// make-series
		{`AKSControlPlane | where Category == "node-auto-provisioning" | make-series n = count() on TimeGenerated from datetime(2026-11-24 06:00) to datetime(2026-11-24 12:00) step 2h`, `n:dynamic,TimeGenerated:dynamic [[1,2,2],["2026-11-24T06:00:00.0000000Z","2026-11-24T08:00:00.0000000Z","2026-11-24T10:00:00.0000000Z"]]`},
		{`AKSControlPlane | where Category == "node-auto-provisioning" | make-series n = count() default = -1, last = max(TimeGenerated) default = datetime(null) on TimeGenerated step 1h by Level | project Level, n | sort by Level asc`, `Level:string,n:dynamic ["error",[-1,1,-1,-1,-1]] ["info",[1,-1,-1,1,1]] ["warning",[-1,-1,1,-1,-1]]`},
		{`range i from 0 to 9 step 1 | make-series sum(i) on i from 0 to 9 step 5`, `sum_i:dynamic,i:dynamic [[10,26],[0,5]]`},
		{`AKSControlPlane | where Level == "nothing" | make-series count() on TimeGenerated step 1h`, `count_:dynamic,TimeGenerated:dynamic`},
		// search
		{`search "securely" | project $table, Category`, `$table:string,Category:string ["AzureDiagnostics","kube-apiserver"] ["AKSControlPlane","kube-apiserver"]`},
		{`search in (AKSControlPlane) "NodeClaim" and not("registered") | count`, `Count:long [5]`},
		{`AKSControlPlane | search "created" or Level:"warning" | summarize count() by Level | sort by Level asc`, `Level:string,count_:long ["error",1] ["info",1] ["warning",2]`},
		{`search in (AKSControlPlane) "secur*" | count`, `Count:long [1]`},
		{`search in (AKSControlPlane) "*curely*" | count`, `Count:long [1]`},
		{`search in (AKSControlPlane) "127*6443" and Category == "kube-apiserver" | count`, `Count:long [1]`},
		{`search kind=case_sensitive in (AKSControlPlane) "SERVING" | count`, `Count:long [0]`},
		{`AKSControlPlane | where * has "6443" | project Level`, `Level:string ["info"]`},
		// small ones
		{`range i from 1 to 100 step 1 | sample 7 | summarize n = count(), d = dcount(i), inside = countif(i between (1 .. 100))`, `n:long,d:long,inside:long [7,7,7]`},
		{`datatable(a:string)["x","x","y"] | sample-distinct 5 of a | summarize n = count()`, `n:long [2]`},
		{`AKSControlPlane | project Level, n = 1 | getschema | project ColumnName, ColumnType`, `ColumnName:string,ColumnType:string ["Level","string"] ["n","long"]`},
		{`AKSControlPlane | as x | serialize | where Level == "error" | count`, `Count:long [1]`},
		{`AKSControlPlane | summarize count() by bin(TimeGenerated, 1h) | render timechart with (title="x") | count`, `Count:long [5]`},
		{`print a = 1 | project column_ifexists("a", 2), b = column_ifexists("c", 3)`, `Column1:long,b:long [1,3]`},
		{`print a = 1, b = "x" | project p = pack_all()`, `p:dynamic [{"a":1,"b":"x"}]`},
		// aggregates
		{`range i from 1 to 10 step 1 | summarize percentiles(i, 50, 90), percentile(i, 99.9)`, `percentile_i_50:long,percentile_i_90:long,percentile_i_99_9:long [5,9,10]`},
		{`range i from 1 to 4 step 1 | summarize minif(i, i > 2), maxif(i, i < 3), dcountif(i % 2, i > 1), make_list_if(i, i > 2), variance(i)`, `minif_i:long,maxif_i:long,dcountif_:long,list_if_i:dynamic,variance_i:real [3,2,2,[3,4],1.6666666666666667]`},
		{`datatable(a:string, b:long)["x", 1, "y", 2] | summarize make_bag(bag_pack(a, b))`, `bag_:dynamic [{"x":1,"y":2}]`},
		{`datatable(a:string, b:long)["x", 1, "x", 2] | summarize take_any(*) by a`, `a:string,b:long ["x",1]`},
		{`datatable(d:timespan)[1h, 3h] | summarize avg(d), sum(d), max(d)`, `avg_d:timespan,sum_d:timespan,max_d:timespan ["02:00:00","04:00:00","03:00:00"]`},
	} {
		if got := ask(t, s, c.query); got != c.want {
			t.Errorf("%s\n got %s\nwant %s", c.query, got, c.want)
		}
	}
}

func TestMoreScalars(t *testing.T) {
	s := openStore(t)
	for expr, want := range map[string]string{
		`startofday(now(), -1)`: `"2026-11-23T00:00:00.0000000Z"`, `endofmonth(now())`: `"2026-11-30T23:59:59.9999999Z"`, `endofweek(now())`: `"2026-11-28T23:59:59.9999999Z"`, `startofyear(now())`: `"2026-01-01T00:00:00.0000000Z"`,
		`dayofmonth(now())`: `24`, `dayofyear(now())`: `328`, `getmonth(now())`: `11`, `week_of_year(now())`: `48`, `datetime_part("quarter", now())`: `4`,
		`datetime_add("month", 3, datetime(2026-11-30))`: `"2027-02-28T00:00:00.0000000Z"`, `datetime_add("hour", -1, now())`: `"2026-11-24T11:00:00.0000000Z"`, `datetime_diff("month", now(), datetime(2025-12-31))`: `11`, `datetime_diff("year", now(), datetime(2025-12-31))`: `1`, `datetime_diff("minute", now(), ago(90s))`: `2`,
		`make_datetime(2026, 2, 3, 4, 5)`: `"2026-02-03T04:05:00.0000000Z"`, `make_timespan(1, 30)`: `"01:30:00"`, `unixtime_milliseconds_todatetime(1500)`: `"1970-01-01T00:00:01.5000000Z"`, `bin_at(7, 5, 1)`: `6`, `bin_at(now(), 1d, datetime(2026-11-01 06:00))`: `"2026-11-24T06:00:00.0000000Z"`,
		`extract("x=(\\d+)", 1, "x=42", typeof(long)) + 1`: `43`, `extract_all("(\\w)(\\d)", "a1 b2")`: `[["a","1"],["b","2"]]`, `replace("a", "b", "aXa")`: `"bXb"`, `indexof("abcabc", "c", 3)`: `5`, `indexof("abcabc", "b", 0, -1, 2)`: `4`, `strcmp("a", "b")`: `-1`, `strrep("ab", 2, "-")`: `"ab-ab"`, `translate("abc", "x", "cab!")`: `"xxx!"`,
		`array_concat(dynamic([1]), dynamic([2]))`: `[1,2]`, `array_slice(dynamic([1,2,3,4]), 1, -2)`: `[2,3]`, `array_sum(dynamic([1,2.5]))`: `3.5`, `array_sort_desc(dynamic([2,3,1]))`: `[3,2,1]`, `array_reverse(dynamic([1,2]))`: `[2,1]`, `range(1, 3)`: `[1,2,3]`, `repeat("a", 2)`: `["a","a"]`,
		`set_union(dynamic([1,2]), dynamic([2,3]))`: `[1,2,3]`, `set_intersect(dynamic([1,2]), dynamic([2,3]))`: `[2]`, `set_difference(dynamic([1,2,1]), dynamic([2]))`: `[1]`, `bag_has_key(dynamic({"a":1}), "a")`: `true`, `bag_merge(dynamic({"a":1}), dynamic({"a":2,"b":3}))`: `{"a":1,"b":3}`, `bag_remove_keys(dynamic({"a":1,"b":2}), dynamic(["a"]))`: `{"b":2}`,
		`extract_json("$.a.b[1]", '{"a":{"b":[1,2]}}')`: `"2"`, `parse_url("https://h:8/p?q=1").Port`: `"8"`, `parse_csv('a,"b,c"')[1]`: `"b,c"`, `ipv4_is_private("10.1.2.3")`: `true`, `ipv4_is_in_range("10.1.2.3", "10.1.0.0/16")`: `true`, `hash_md5("a")`: `"0cc175b9c0f1b6a831c399e269772661"`,
		`long(null) == long(null)`: `null`, `long(null) == 1`: `false`, `long(null) != 1`: `true`, `sign(-2.5)`: `-1`, `isnan(real(1))`: `false`, `binary_and(6, 3)`: `2`, `tohex(255)`: `"ff"`, `toscalar(print 5)`: `5`, `parse_json('{"a":null}').a == 1`: `false`,
	} {
		if got := ask(t, s, "print x = "+expr); !strings.HasSuffix(got, " ["+want+"]") {
			t.Errorf("%s = %s, want %s", expr, got, want)
		}
	}
}

func TestTabularFaults(t *testing.T) {
	s := openStore(t)
	seed(t, s)
	for _, c := range []struct {
		query, code, want string
		line, pos         int
	}{
		{`AKSControlPlane | join AKSAudit`, SyntaxError, "expected 'on' with the columns", 1, 32},
		{`AKSControlPlane | join kind=sideways AKSAudit on Level`, SyntaxError, "kind is one of inner, innerunique", 1, 29},
		{`AKSControlPlane | join AKSAudit on Message`, SemanticError, "failed to resolve column named 'Message' of the join's right side", 1, 36},
		{`AKSControlPlane | join AKSAudit on $left.Level`, SyntaxError, "expected '=='", 1, 47},
		{`AKSControlPlane | join AKSAudit on $left.Level == $left.Level`, SyntaxError, "one side of the equality must be of $left", 1, 57},
		{`AKSControlPlane | join (AKSControlPlane) on $left.Level == $right.TimeGenerated`, SemanticError, "must be of one type", 1, 51},
		{`AKSControlPlane | join (AKSControlPlane) on Properties`, SemanticError, "cannot compare dynamic values", 1, 45},
		{`AKSControlPlane | join hint.`, SyntaxError, "expected the name of a hint", 1, 29},
		{`AKSControlPlane | summarize hint.shufflekey`, SyntaxError, "expected '='", 1, 44},
		{`AKSControlPlane | parse Message with`, SyntaxError, "expected a pattern", 1, 37},
		{`AKSControlPlane | parse Message with a "x" a`, SemanticError, "the column 'a' twice", 1, 44},
		{`AKSControlPlane | parse kind=regex Message with "(" a`, SemanticError, "not a valid regular expression", 1, 19},
		{`AKSControlPlane | make-series count() on TimeGenerated`, SyntaxError, "expected 'step'", 1, 55},
		{`AKSControlPlane | make-series count() on TimeGenerated step 5`, SemanticError, "the step of a series must be more than 0 and fit its axis", 1, 61},
		{`AKSControlPlane | make-series count() on Level step 5`, SemanticError, "not of type string", 1, 42},
		{`AKSControlPlane | make-series count() on TimeGenerated from datetime(2000-01-01) to now() step 1s`, SemanticError, "take a longer step", 1, 96},
		{`let f = (x:long) { x + }; print f(1)`, SyntaxError, "expected a value and found '}'", 1, 24},
		{`let f = (x:long) { x }; print f()`, SemanticError, "needs a value for its parameter 'x'", 1, 31},
		{`let f = (x:number) { x }; print f(1)`, SyntaxError, "expected a type", 1, 12},
		{`let x = 5; x | count`, SemanticError, "'x' is a value and not a table", 1, 12},
		{`let x = 5`, SyntaxError, "a let statement ends with ';'", 1, 10},
		{`union Nothing*`, SemanticError, "no table is named like 'Nothing*'", 1, 7},
		{`datatable(a:long) ["x"]`, SemanticError, "is of type long and the value of type string", 1, 20},
		{`datatable(a:long, b:long) [1]`, SemanticError, "a multiple of the number of its columns", 1, 1},
		{`range i from 1 to 5 step 0`, SemanticError, "a step that can be added", 1, 1},
		{`AKSControlPlane | where * > 2`, SemanticError, "operators on text", 1, 27},
		{`AKSControlPlane | where *`, SyntaxError, "'*' is followed by an operator", 1, 25},
		{`AKSControlPlane | mv-expand Properties to typeof(thing)`, SyntaxError, "expected a type", 1, 50},
		{`AKSControlPlane | extend x = toscalar(Nothing | count)`, SemanticError, "failed to resolve table named 'Nothing'", 1, 39},
	} {
		_, err := s.Query(context.Background(), Request{Query: c.query})
		var qe *Error
		if !errors.As(err, &qe) || qe.Code != c.code || !strings.Contains(qe.Message, c.want) {
			t.Errorf("%s\n got %v\nwant %s %q", c.query, err, c.code, c.want)
		} else if qe.Line != c.line || qe.Pos != c.pos {
			t.Errorf("%s\nposition %d:%d, want %d:%d", c.query, qe.Line, qe.Pos, c.line, c.pos)
		}
	}
}

// A short query can ask for very much; it gets a clear no, and soon.
func TestQueriesThatAskForTooMuch(t *testing.T) {
	s := openStore(t)
	seed(t, s)
	doubling := "let f0 = (x:long) { x + x }; "
	tables := "let T0 = AKSControlPlane; "
	for i := 1; i < 30; i++ {
		doubling += fmt.Sprintf("let f%d = (x:long) { f%d(x) + f%d(x) }; ", i, i-1, i-1)
		tables += fmt.Sprintf("let T%d = T%d | union T%d; ", i, i-1, i-1)
	}
	nested := "let g0 = (x:bool) { x and x }; print "
	for range 40 {
		nested += "g0("
	}
	nested += "true" + strings.Repeat(")", 40)
	for name, c := range map[string]struct{ query, want string }{
		"a join of everything with everything": {`range i from 1 to 20000 step 1 | extend k = 1 | join kind=inner (range j from 1 to 20000 step 1 | extend k = 1) on k | count`, "join makes more than 5000000 rows"},
		"mv-expand again and again":            {`range i from 1 to 1000 step 1 | extend a = range(1, 1000) | mv-expand a | mv-expand b = range(1, 1000) | count`, "makes more than 5000000 rows"},
		"a range without end":                  {`range i from 1 to 100000000000 step 1 | count`, "range makes more than 5000000 rows"},
		"functions that double":                {doubling + "print f29(1)", "are called more than 1000 times"},
		"a call in a call":                     {nested, "too large"},
		"tables that double":                   {tables + "T29 | count", "reads tables more than 64 times"},
		"a series of many points":              {`AKSControlPlane | make-series count() on TimeGenerated step 100ms`, "the series has more than 30000 points"},
	} {
		_, err := s.Query(context.Background(), Request{Query: c.query})
		var qe *Error
		if !errors.As(err, &qe) || !strings.Contains(qe.Message, c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}

// The row that arg_max keeps for a group is accounted for, once.
func TestArgMaxAccountsForItsRow(t *testing.T) {
	acc := &argAcc{sign: 1}
	for i, want := range []bool{false, true, true} {
		if got := acc.add([]any{int64(i), "row"}); got != want {
			t.Errorf("value %d: add gives %v, want %v", i, got, want)
		}
	}
	if acc.best[0] != int64(2) {
		t.Errorf("best %v", acc.best)
	}
}

// A query ends with its request's time, also between two tables of its own.
func TestQueryEndsWithItsContext(t *testing.T) {
	s := openStore(t)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_, err := s.Query(ctx, Request{Query: `range i from 1 to 4000000 step 1 | summarize count()`})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

// nodeClaims writes what the controller logs about three NodeClaims: one that
// was deleted after two hours, one that is still there, one that failed.
func nodeClaims(t testing.TB, s *Store) {
	t.Helper()
	at := func(h float64) time.Time { return testNow.Add(time.Duration((h - 12) * float64(time.Hour))) }
	var recs []Record
	line := func(hour float64, level, msg, claim string, more string) {
		recs = append(recs, Record{Time: at(hour), Category: "node-auto-provisioning", Level: level, Message: msg, Cluster: clusterA, Pod: "nap-controller-0",
			Properties: json.RawMessage(fmt.Sprintf(`{"level":%q,"time":%q,"message":%q,"NodeClaim":{"name":%q}%s}`, strings.ToUpper(level), at(hour).Format(time.RFC3339), msg, claim, more))})
	}
	line(8, "info", "launched nodeclaim", "np-a", `,"instance-type":"Standard_D4s_v5","zone":"eastus-1"`)
	line(8.5, "info", "launched nodeclaim", "np-b", `,"instance-type":"Standard_D8s_v5","zone":"eastus-2"`)
	line(9.25, "error", "failed launching nodeclaim: SkuNotAvailable", "np-c", ``)
	line(10, "info", "deleted nodeclaim", "np-a", ``)
	line(10.5, "info", "placed pods", "", `,"pods":12,"claims":2`)
	if err := s.Append(context.Background(), recs...); err != nil {
		t.Fatal(err)
	}
}

// What people ask the logs of a cluster with node auto-provisioning.
func TestQueriesAboutACluster(t *testing.T) {
	s := openStore(t)
	nodeClaims(t, s)
	for name, c := range map[string]struct{ query, want string }{
		"NodeClaims and how long they lived": {`
let claims = AKSControlPlane
    | where Category == "node-auto-provisioning"
    | extend claim = tostring(Properties.NodeClaim.name);
claims
| where Message == "launched nodeclaim"
| project claim, size = tostring(Properties["instance-type"]), launched = TimeGenerated
| join kind=leftouter (claims | where Message == "deleted nodeclaim" | project claim, deleted = TimeGenerated) on claim
| extend lifetime = coalesce(deleted, now()) - launched, state = iff(isnull(deleted), "running", "deleted")
| project claim, size, lifetime, state
| order by claim asc`,
			`claim:string,size:string,lifetime:timespan,state:string ["np-a","Standard_D4s_v5","02:00:00","deleted"] ["np-b","Standard_D8s_v5","03:30:00","running"]`},
		"decisions per hour": {`
AzureDiagnostics
| where Category == "node-auto-provisioning"
| extend p = parse_json(log_s)
| where tostring(p.message) has_any ("launched", "deleted", "placed")
| summarize decisions = count() by hour = bin(TimeGenerated, 1h)
| order by hour asc
| render columnchart`,
			`hour:datetime,decisions:long ["2026-11-24T08:00:00.0000000Z",2] ["2026-11-24T10:00:00.0000000Z",2]`},
		"the same with the hours in which nothing was decided": {`
AKSControlPlane
| where Category == "node-auto-provisioning" and Level == "info"
| make-series decisions = count() default = 0 on TimeGenerated from datetime(2026-11-24 08:00) to datetime(2026-11-24 12:00) step 1h
| project decisions`,
			`decisions:dynamic [[2,0,2,0]]`},
		"error rate": {`
AKSControlPlane
| where TimeGenerated > ago(1d)
| summarize total = count(), errors = countif(Level in~ ("ERROR", "fatal")) by Category
| extend rate = round(100.0 * errors / total, 1)
| top 5 by rate desc`,
			`Category:string,total:long,errors:long,rate:real ["node-auto-provisioning",5,1,20]`},
		"why launches failed": {`
AKSControlPlane
| where Level == "error"
| parse Message with "failed launching nodeclaim: " reason
| summarize failures = count(), last = max(TimeGenerated), claims = make_set(tostring(Properties.NodeClaim.name)) by reason`,
			`reason:string,failures:long,last:datetime,claims:dynamic ["SkuNotAvailable",1,"2026-11-24T09:15:00.0000000Z",["np-c"]]`},
		"NodeClaims that were launched and never deleted": {`
let launched = AKSControlPlane | where Message == "launched nodeclaim" | project claim = tostring(Properties.NodeClaim.name), zone = tostring(Properties.zone);
let deleted = AKSControlPlane | where Message == "deleted nodeclaim" | project name = tostring(Properties.NodeClaim.name);
launched | join kind=leftanti deleted on $left.claim == $right.name`,
			`claim:string,zone:string ["np-b","eastus-2"]`},
	} {
		if got := ask(t, s, c.query); got != c.want {
			t.Errorf("%s:\n got %s\nwant %s", name, got, c.want)
		}
	}
}
