// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package containerservice

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/nap-aks/nap/localazure/arm/rp"
)

// checkUpgradeSettings checks a pool's upgradeSettings.
func checkUpgradeSettings(d rp.Doc, pool string) error {
	pp := func(k string) []string { return []string{"properties", "upgradeSettings", k} }
	bad := func(k, format string, args ...any) error {
		return rp.BadRequest("InvalidParameter", "The value of parameter agentPoolProfile.upgradeSettings.%s of agent pool '%s' is invalid: %s", k, pool, fmt.Sprintf(format, args...)).At("agentPoolProfile.upgradeSettings." + k)
	}
	for _, k := range []string{"maxSurge", "maxUnavailable", "maxBlockedNodes"} {
		v := d.Str(pp(k)...)
		if v == "" {
			continue
		}
		n, err := strconv.Atoi(strings.TrimSuffix(v, "%"))
		if err != nil || n < 0 || strings.HasSuffix(v, "%") && n > 100 {
			return bad(k, "'%s' is neither a number of nodes nor a percentage from 0%% to 100%%.", v)
		}
	}
	if share(d.Str(pp("maxSurge")...), 1) == 0 && share(d.Str(pp("maxUnavailable")...), 1) == 0 {
		return bad("maxUnavailable", "maxSurge and maxUnavailable cannot both be 0: no node could be upgraded.")
	}
	for k, limits := range map[string][2]int{"drainTimeoutInMinutes": {1, 1440}, "nodeSoakDurationInMinutes": {0, 30}} {
		v, there := d.Lookup(pp(k)...)
		if !there || v == nil || fmt.Sprint(v) == "0" {
			continue
		}
		if n, ok := d.Int(pp(k)...); !ok || n < limits[0] || n > limits[1] {
			return bad(k, "%v is not between %d and %d minutes.", v, limits[0], limits[1])
		}
	}
	return nil
}

// share returns the number that s is: a count, or a percentage of count, rounded
// up.
func share(s string, count int) int {
	if pct, ok := strings.CutSuffix(s, "%"); ok {
		return (count*atoi(pct) + 99) / 100
	}
	return atoi(s)
}
