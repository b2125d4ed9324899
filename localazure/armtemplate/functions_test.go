// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package armtemplate

import (
	"strings"
	"testing"
)

// Each row is an expression and its value as JSON, or "! " and part of the error.
var functionCases = map[string][][2]string{
	"text without brackets": {
		{"plain", `"plain"`}, {"[[not evaluated]", `"[not evaluated]"`}, {"[[open", `"[[open"`}, {"[open", `"[open"`}, {"close]", `"close]"`}, {"", `""`},
	},
	"syntax": {
		{"['it''s']", `"it's"`}, {"[-5]", `-5`}, {"[ concat( 'a' , 'b' ) ]", `"ab"`}, {"[CONCAT('a','b')]", `"ab"`},
		{"[variables('obj').alpha.BETA[1]]", `20`}, {"[variables('obj')['gamma']]", `"g"`}, {"[variables('list')[0]]", `3`},
		{"[variables('obj').?nothing]", `null`}, {"[variables('list')[?7]]", `null`},
		{"[variables('obj').nothing]", "! doesn't exist, available properties are 'Alpha, gamma'"}, {"[variables('list')[7]]", "! out of bounds"},
		{"[concat('a']", "! expected ',' or ')' and found end of expression at position 11"}, {"[foo('a')]", "! function 'foo' is not valid"},
		{"['a' 'b']", "! unexpected ''' at position 5"}, {"[abc]", "! text is written in single quotes"}, {"['open]", "! a string is not closed"},
		{"[]", "! expected a value"}, {"[concat('a',)]", "! expected a value and found ')'"}, {"[1x]", "! is not an integer"},
		{"[toLower()]", "! takes 1 arguments, not 0"}, {"[variables('text').x]", "! has no properties"}, {"[null().x]", "! null has no properties"},
	},
	"concat": {
		{"[concat('a','b',1,true())]", `"ab1True"`}, {"[concat(createArray(1),createArray('x'))]", `[1,"x"]`}, {"[concat('a',createArray(1))]", "! not Array"},
	},
	"format": {
		{"[format('{0}-{1}', 'a', 7)]", `"a-7"`}, {"[format('{0:D3}', 7)]", `"007"`}, {"[format('{0,5}|{0,-5}|', 'x')]", `"    x|x    |"`},
		{"[format('{{{0}}}', 1)]", `"{1}"`}, {"[format('{0:N0}', 8175133)]", `"8,175,133"`}, {"[format('{0:X4}', 255)]", `"00FF"`},
		{"[format('{0}', createObject('a', 1))]", `"{\"a\":1}"`}, {"[format('{2}', 1)]", "! names an argument"}, {"[format('{0')]", "! a '{' without '}'"},
	},
	"string functions": {
		{"[toLower('ÀB')]", `"àb"`}, {"[toUpper('ab')]", `"AB"`}, {"[trim('  a ')]", `"a"`}, {"[replace('a-b-c','-','')]", `"abc"`},
		{"[split('a,b;c', createArray(',',';'))]", `["a","b","c"]`}, {"[split('abc', ',')]", `["abc"]`}, {"[join(createArray('a',1), '/')]", `"a/1"`},
		{"[substring('abcdef', 1, 3)]", `"bcd"`}, {"[substring('abc', 1)]", `"bc"`}, {"[substring('abc', 2, 5)]", "! within the string"},
		{"[padLeft(5, 3, '0')]", `"005"`}, {"[startsWith('abcdef', 'AB')]", `true`}, {"[endsWith('abcdef', 'EF')]", `true`},
		{"[indexOf('Test','t')]", `0`}, {"[lastIndexOf('test','T')]", `3`}, {"[indexOf('abc','z')]", `-1`}, {"[length('äbc')]", `3`},
		{"[base64('one')]", `"b25l"`}, {"[base64ToString('b25l')]", `"one"`}, {"[base64ToJson(base64('{\"a\":1}'))]", `{"a":1}`}, {"[base64ToString('?')]", "! is not base64"},
		{"[dataUri('Hello')]", `"data:text/plain;charset=utf8;base64,SGVsbG8="`}, {"[dataUriToString('data:;base64,SGVsbG8=')]", `"Hello"`},
		{"[uri('http://contoso.org/firstpath/', 'myscript.sh')]", `"http://contoso.org/firstpath/myscript.sh"`}, {"[uri('http://contoso.org/a', 'b')]", `"http://contoso.org/b"`},
		{"[uriComponent('http://a b')]", `"http%3A%2F%2Fa%20b"`}, {"[uriComponentToString('a%20b')]", `"a b"`},
		{"[string(true())]", `"True"`}, {"[string(createArray(1,'a'))]", `"[1,\"a\"]"`}, {"[json('{\"a\":[1,2]}').a[1]]", `2`}, {"[json('nope')]", "! is not JSON"},
		{"[first('one')]", `"o"`}, {"[last('one')]", `"e"`}, {"[skip('abc',1)]", `"bc"`}, {"[take('abc',5)]", `"abc"`}, {"[contains('OneTwo','eT')]", `true`}, {"[empty('')]", `true`},
	},
	"unique names": {
		{"[length(uniqueString('a'))]", `13`}, {"[equals(uniqueString('a','b'), uniqueString('a','b'))]", `true`}, {"[equals(uniqueString('a'), uniqueString('b'))]", `false`},
		{"[equals(guid('a'), guid('a'))]", `true`}, {"[substring(guid('x'), 14, 1)]", `"5"`}, {"[length(newGuid())]", `36`},
	},
	"arrays and objects": {
		{"[array('a')]", `["a"]`}, {"[array(createArray(1))]", `[1]`}, {"[createArray()]", `[]`}, {"[createObject('b',1,'a',null())]", `{"b":1,"a":null}`}, {"[createObject('a')]", "! even number"},
		{"[contains(createArray('one'),'One')]", `false`}, {"[contains(variables('obj'),'ALPHA')]", `true`}, {"[empty(createObject())]", `true`}, {"[empty(null())]", `true`},
		{"[first(createArray())]", `null`}, {"[last(variables('list'))]", `2`}, {"[length(variables('obj'))]", `2`}, {"[range(5,3)]", `[5,6,7]`}, {"[range(0,20000)]", "! the count must be from 0 to 10000"},
		{"[skip(variables('list'),1)]", `[1,2]`}, {"[take(variables('list'),-1)]", `[]`}, {"[union(createArray(1,2),createArray(2,3))]", `[1,2,3]`},
		{"[union(createObject('a',createObject('x',1),'b',1), createObject('a',createObject('y',2),'B',3))]", `{"a":{"x":1,"y":2},"b":3}`},
		{"[intersection(createArray(1,2,3),createArray(3,2))]", `[2,3]`}, {"[intersection(createObject('a',1,'b',2),createObject('a',1,'b',3))]", `{"a":1}`},
		{"[flatten(createArray(createArray(1),createArray(2,3)))]", `[1,2,3]`}, {"[objectKeys(createObject('b',1,'a',2))]", `["a","b"]`},
		{"[items(createObject('b',1,'a',2))]", `[{"key":"a","value":2},{"key":"b","value":1}]`}, {"[tryGet(variables('obj'),'alpha','beta',0)]", `10`}, {"[tryGet(variables('obj'),'no')]", `null`},
		{"[shallowMerge(createArray(createObject('a',1),createObject('a',2,'b',3)))]", `{"a":2,"b":3}`}, {"[indexFromEnd(variables('list'),1)]", `2`}, {"[tryIndexFromEnd(variables('list'),9)]", `null`},
		{"[indexOf(createArray('a','b'),'b')]", `1`}, {"[min(variables('list'))]", `1`}, {"[max(1,9,3)]", `9`}, {"[min(createArray())]", "! the array is empty"},
	},
	"numbers": {
		{"[add(2,3)]", `5`}, {"[sub(2,3)]", `-1`}, {"[mul(4,5)]", `20`}, {"[div(7,2)]", `3`}, {"[mod(7,3)]", `1`}, {"[div(1,0)]", "! cannot be divided"}, {"[mod(1,0)]", "! cannot be divided"},
		{"[int('12')]", `12`}, {"[int('x')]", "! is not an integer"}, {"[float('1.5')]", `1.5`}, {"[add(9223372036854775807,1)]", "! too large"}, {"[mul(9223372036854775807,2)]", "! too large"}, {"[add('1',2)]", "! an Integer is expected"},
	},
	"logic and comparison": {
		{"[and(true(), not(false()))]", `true`}, {"[or(false(), false())]", `false`}, {"[or(true(), bool('x'))]", `true`}, {"[and(false(), div(1,0))]", `false`}, {"[if(true(), 'a', div(1,0))]", `"a"`}, {"[if('yes',1,2)]", "! a Boolean is expected"},
		{"[bool('TRUE')]", `true`}, {"[bool(0)]", `false`}, {"[bool('maybe')]", "! neither true nor false"}, {"[equals('a','A')]", `false`}, {"[equals(createArray(1,'a'),createArray(1,'a'))]", `true`},
		{"[equals(createObject('a',1,'b',2),createObject('b',2,'a',1))]", `true`}, {"[equals(1,'1')]", `false`}, {"[less('a','b')]", `true`}, {"[greaterOrEquals(2,2)]", `true`}, {"[lessOrEquals(3,2)]", `false`}, {"[less('a',1)]", "! cannot be ordered"},
		{"[coalesce(null(), variables('obj').?none, 'x')]", `"x"`}, {"[coalesce(null())]", `null`}, {"[fail('stop here')]", "! stop here"},
	},
	"dates": {
		{"[utcNow()]", `"20261124T090507Z"`}, {"[utcNow('yyyy-MM-dd')]", `"2026-11-24"`}, {"[utcNow('d/M/yy h:mm tt')]", `"24/11/26 9:05 AM"`}, {"[utcNow('ddd MMM fff')]", `"Tue Nov 120"`},
		{"[dateTimeAdd('2020-04-07 14:53:14Z','P3Y')]", `"2023-04-07 14:53:14Z"`}, {"[dateTimeAdd('2020-04-07 14:53:14Z','-P9D')]", `"2020-03-29 14:53:14Z"`}, {"[dateTimeAdd('2020-04-07 14:53:14Z','PT1H','yyyyMMddTHHmmssZ')]", `"20200407T155314Z"`},
		{"[dateTimeToEpoch('1970-01-02')]", `86400`}, {"[dateTimeFromEpoch(86400)]", `"1970-01-02T00:00:00Z"`}, {"[dateTimeAdd('2020-01-01','3 days')]", "! ISO 8601 duration"}, {"[dateTimeAdd('soon','P1D')]", "! is not a date and time"}, {"[dateTimeAdd('9999-12-31','P1D')]", "! between the years"},
	},
	"lambdas": {
		{"[map(range(0,3), lambda('i', mul(lambdaVariables('i'),2)))]", `[0,2,4]`}, {"[map(createArray('a','b'), lambda('x','i', format('{0}{1}', lambdaVariables('x'), lambdaVariables('i'))))]", `["a0","b1"]`},
		{"[filter(variables('list'), lambda('x', greater(lambdaVariables('x'),1)))]", `[3,2]`}, {"[sort(variables('list'), lambda('a','b', less(lambdaVariables('a'),lambdaVariables('b'))))]", `[1,2,3]`},
		{"[reduce(variables('list'), 10, lambda('cur','next', add(lambdaVariables('cur'),lambdaVariables('next'))))]", `16`}, {"[toObject(createArray('a','b'), lambda('x', lambdaVariables('x')), lambda('x', toUpper(lambdaVariables('x'))))]", `{"a":"A","b":"B"}`},
		{"[groupBy(createArray('ab','ac','b'), lambda('x', first(lambdaVariables('x'))))]", `{"a":["ab","ac"],"b":["b"]}`}, {"[mapValues(createObject('a',1), lambda('v', add(lambdaVariables('v'),1)))]", `{"a":2}`},
		{"[map(createArray(1), lambda('x', map(createArray(2), lambda('y', add(lambdaVariables('x'),lambdaVariables('y'))))))]", `[[3]]`}, {"[map(createArray(1),'x')]", "! a lambda is expected"}, {"[lambdaVariables('x')]", "! no lambda variable"}, {"[filter(createArray(1), lambda('x', 'no'))]", "! a Boolean is expected"}, {"[lambda('x', 1)]", "! a Lambda is not a value"},
	},
	"networks": {
		{"[parseCidr('10.144.5.7/20')]", `{"network":"10.144.0.0","netmask":"255.255.240.0","broadcast":"10.144.15.255","firstUsable":"10.144.0.1","lastUsable":"10.144.15.254","cidr":20}`},
		{"[cidrSubnet('10.144.0.0/20',24,2)]", `"10.144.2.0/24"`}, {"[cidrHost('10.144.3.0/24',0)]", `"10.144.3.1"`}, {"[cidrSubnet('10.0.0.0/24',25,2)]", "! is not inside"}, {"[parseCidr('10.0.0.0')]", "! CIDR notation"}, {"[cidrSubnet('fd00::/48',64,1)]", `"fd00:0:0:1::/64"`},
	},
	"ids": {
		{"[resourceId('Microsoft.Network/virtualNetworks/subnets','v','s')]", `"/subscriptions/00000000-0000-0000-0000-000000000001/resourceGroups/rg/providers/Microsoft.Network/virtualNetworks/v/subnets/s"`},
		{"[resourceId('other','Microsoft.A/b','n')]", `"/subscriptions/00000000-0000-0000-0000-000000000001/resourceGroups/other/providers/Microsoft.A/b/n"`},
		{"[resourceId('sub2','other','Microsoft.A/b','n')]", `"/subscriptions/sub2/resourceGroups/other/providers/Microsoft.A/b/n"`},
		{"[resourceId('Microsoft.A/b','x','y')]", "! needs 1 names, and 2 are given"}, {"[resourceId('a','b','c')]", "! no resource type"},
		{"[subscriptionResourceId('Microsoft.Authorization/roleDefinitions','r')]", `"/subscriptions/00000000-0000-0000-0000-000000000001/providers/Microsoft.Authorization/roleDefinitions/r"`},
		{"[subscriptionResourceId('Microsoft.Resources/resourceGroups','g')]", `"/subscriptions/00000000-0000-0000-0000-000000000001/resourceGroups/g"`},
		{"[tenantResourceId('Microsoft.A/b','n')]", `"/providers/Microsoft.A/b/n"`}, {"[extensionResourceId(resourceGroup().id,'Microsoft.A/b','n')]", `"/subscriptions/00000000-0000-0000-0000-000000000001/resourceGroups/rg/providers/Microsoft.A/b/n"`},
		{"[resourceGroup().location]", `"eastus"`}, {"[resourceGroup().tags.env]", `"dev"`}, {"[subscription().subscriptionId]", `"00000000-0000-0000-0000-000000000001"`}, {"[tenant().tenantId]", `"00000000-0000-0000-0000-00000000000f"`},
		{"[deployment().name]", `"nap"`}, {"[deployer().objectId]", `"who"`}, {"[environment().name]", `"AzureCloud"`}, {"[pickZones('Microsoft.Compute','virtualMachines','eastus',2)]", `["1","2"]`},
		{"[parameters('REGION')]", `"westus"`}, {"[parameters('no')]", "! is not found"}, {"[variables('no')]", "! is not found"}, {"[copyIndex()]", "! outside of a copy loop"},
		{"[my.twice('ab')]", `"abab"`}, {"[my.twice(1)]", "! Expected 'String'. Actual 'Integer'"}, {"[my.none()]", "! no such function"},
	},
}

func TestFunctions(t *testing.T) {
	for group, rows := range functionCases {
		t.Run(group, func(t *testing.T) {
			for _, row := range rows {
				got, err := evalText(t, row[0])
				if want, isErr := strings.CutPrefix(row[1], "! "); isErr {
					if err == nil || !strings.Contains(err.Error(), want) {
						t.Errorf("%s\n got %s, %v\nwant error %q", row[0], got, err, want)
					}
				} else if err != nil || got != row[1] {
					t.Errorf("%s\n got %s, %v\nwant %s", row[0], got, err, row[1])
				}
			}
		})
	}
}

func TestEveryFunctionHasACase(t *testing.T) {
	var all strings.Builder
	for _, rows := range functionCases {
		for _, row := range rows {
			all.WriteString(strings.ToLower(row[0]))
		}
	}
	elsewhere := map[string]bool{"managementgroupresourceid": true, "resourceinfo": true} // in expand_test.go
	for name := range functions {
		if !strings.Contains(all.String(), name+"(") && !elsewhere[name] {
			t.Errorf("function %s has no test", name)
		}
	}
}
