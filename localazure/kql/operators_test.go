// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package kql

import "testing"

// Two small tables: some keys are in both, some in one, some twice.
const (
	leftTable  = `let L = datatable(k:string, a:long) ["x", 1, "y", 2, "y", 3, "z", 4]; `
	rightTable = `let R = datatable(k:string, b:long) ["y", 20, "z", 30, "z", 31, "w", 40]; `
)

func TestOperators(t *testing.T) {
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
		// union
		{lr + `union L, R | sort by a asc, b asc | take 2`, `k:string,a:long,b:long ["y",null,20] ["z",null,30]`},
		{lr + `union kind=inner L, R | summarize n = count() by k | sort by k asc`, `k:string,n:long ["w",1] ["x",1] ["y",3] ["z",3]`},
		{lr + `L | union withsource=from (R | where b > 30) | sort by a asc, b asc | project from, k`, `from:string,k:string ["union_arg1","z"] ["union_arg1","w"] ["union_arg0","x"] ["union_arg0","y"] ["union_arg0","y"] ["union_arg0","z"]`},
		{`union (datatable(a:long)[1]), (datatable(a:string)["x"])`, `a_long:long,a_string:string [1,""] [null,"x"]`},
		{lr + `union L, R | take 3 | count`, `Count:long [3]`},
		// let: tables, functions, values from tables
		{`let f = (x:long, y:long = 10) { x * y }; print f(2), f(2, 3)`, `print_0:long,print_1:long [20,6]`},
		{`let x = 5; let y = x + 1; print y`, `y:long [6]`},
		// sources
		{`range i from 1 to 10 step 4`, `i:long [1] [5] [9]`},
		{`range t from datetime(2026-01-01) to datetime(2026-01-02) step 12h | count`, `Count:long [3]`},
		{`range i from 3 to 1 step -1 | summarize make_list(i)`, `list_i:dynamic [[3,2,1]]`},
		{`datatable(a:string, b:real, c:dynamic, d:datetime) ["x", 1, dynamic({"k":[1]}), datetime(2026-01-01)] | project a, b, c.k[0], d`, `a:string,b:real,Column3:dynamic,d:datetime ["x",1,1,"2026-01-01T00:00:00.0000000Z"]`},
		// parse
		{`print s = "claim=np-1 cpu=4 price=0.25 at=2026-01-01 rest of it" | parse s with "claim=" name " cpu=" cpu:long " price=" price:real " at=" at:datetime " " * | project-away s`, `name:string,cpu:long,price:real,at:datetime ["np-1",4,0.25,"2026-01-01T00:00:00.0000000Z"]`},
		{`print s = "a: 12, b: x" | parse s with * "a:" a:long * "b:" b | project a, b`, `a:long,b:string [null,""]`},
		{`print s = "a:12, b:x" | parse s with * "a:" a:long * "b:" b | project a, b`, `a:long,b:string [12,"x"]`},
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
		{`range i from 0 to 9 step 1 | make-series sum(i) on i from 0 to 9 step 5`, `sum_i:dynamic,i:dynamic [[10,26],[0,5]]`},
		// small ones
		{`range i from 1 to 100 step 1 | sample 7 | summarize n = count(), d = dcount(i), inside = countif(i between (1 .. 100))`, `n:long,d:long,inside:long [7,7,7]`},
		{`datatable(a:string)["x","x","y"] | sample-distinct 5 of a | summarize n = count()`, `n:long [2]`},
		{`print a = 1 | project column_ifexists("a", 2), b = column_ifexists("c", 3)`, `Column1:long,b:long [1,3]`},
		{`print a = 1, b = "x" | project p = pack_all()`, `p:dynamic [{"a":1,"b":"x"}]`},
		// aggregates
		{`range i from 1 to 10 step 1 | summarize percentiles(i, 50, 90), percentile(i, 99.9)`, `percentile_i_50:long,percentile_i_90:long,percentile_i_99_9:long [5,9,10]`},
		{`range i from 1 to 4 step 1 | summarize minif(i, i > 2), maxif(i, i < 3), dcountif(i % 2, i > 1), make_list_if(i, i > 2), variance(i)`, `minif_i:long,maxif_i:long,dcountif_:long,list_if_i:dynamic,variance_i:real [3,2,2,[3,4],1.6666666666666667]`},
		{`datatable(a:string, b:long)["x", 1, "y", 2] | summarize make_bag(bag_pack(a, b))`, `bag_:dynamic [{"x":1,"y":2}]`},
		{`datatable(a:string, b:long)["x", 1, "x", 2] | summarize take_any(*) by a`, `a:string,b:long ["x",1]`},
		{`datatable(d:timespan)[1h, 3h] | summarize avg(d), sum(d), max(d)`, `avg_d:timespan,sum_d:timespan,max_d:timespan ["02:00:00","04:00:00","03:00:00"]`},
	} {
		if got := ask(t, c.query); got != c.want {
			t.Errorf("%s\n got %s\nwant %s", c.query, got, c.want)
		}
	}
}

// arg_max counts the row that it keeps for a group once.
func TestArgMaxCountsItsRowOnce(t *testing.T) {
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
