// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package kql

import (
	"strings"
	"testing"
)

func TestScalarFunctionsAndOperators(t *testing.T) {
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
		if got := ask(t, "print x = "+expr); !strings.HasSuffix(got, " ["+want+"]") {
			t.Errorf("%s = %s, want %s", expr, got, want)
		}
	}
}

func TestEveryFunctionIsDefinedOnce(t *testing.T) {
	n := 0
	for _, group := range []map[string]scalar{conversionFunctions, conditionalFunctions, mathFunctions, stringFunctions, datetimeFunctions, dynamicFunctions} {
		n += len(group)
	}
	if n != len(scalars) {
		t.Errorf("%d definitions of %d functions", n, len(scalars))
	}
}
