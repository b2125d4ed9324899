// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package containerservice

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/containerservice/armcontainerservice/v8"

	"github.com/nap-aks/nap/localazure/arm/resources"
	"github.com/nap-aks/nap/localazure/arm/rp"
)

// autoScalerDefaults are the defaults of an autoScalerProfile; AKS sets them once
// a pool is autoscaled.
var autoScalerDefaults = map[string]string{
	"balance-similar-node-groups": "false", "expander": "random", "max-empty-bulk-delete": "10", "max-graceful-termination-sec": "600",
	"max-node-provision-time": "15m", "max-total-unready-percentage": "45", "new-pod-scale-up-delay": "0s", "ok-total-unready-count": "3",
	"scale-down-delay-after-add": "10m", "scale-down-delay-after-delete": "10s", "scale-down-delay-after-failure": "3m",
	"scale-down-unneeded-time": "10m", "scale-down-unready-time": "20m", "scale-down-utilization-threshold": "0.5", "scan-interval": "10s",
	"skip-nodes-with-local-storage": "false", "skip-nodes-with-system-pods": "true",
}

var wholeNumber = regexp.MustCompile(`^[0-9]{1,6}$`)

// completeAutoScaler checks the autoScalerProfile of a cluster, and fills it if a
// pool is autoscaled.
func completeAutoScaler(v *view) error {
	path := []string{"properties", "autoScalerProfile"}
	if v.anyPool(func(p rp.Doc) bool { return p.Bool("properties", "enableAutoScaling") }) != "" {
		for k, def := range autoScalerDefaults {
			v.doc.Default(def, append(path, k)...)
		}
	}
	d := v.doc.Map(path...)
	for k := range autoScalerDefaults {
		s := d.Str(k)
		if s == "" {
			continue
		}
		why := ""
		switch {
		case k == "expander":
			for _, e := range strings.Split(s, ",") {
				if !slices.Contains(strs(armcontainerservice.PossibleExpanderValues()), strings.TrimSpace(e)) {
					why = fmt.Sprintf("it is none of %s", strings.Join(strs(armcontainerservice.PossibleExpanderValues()), ", "))
				}
			}
		case k == "scale-down-utilization-threshold":
			if f, err := strconv.ParseFloat(s, 64); err != nil || f < 0 || f > 1 {
				why = "it is not a number from 0 to 1"
			}
		case strings.HasPrefix(k, "skip-") || k == "balance-similar-node-groups":
			if _, err := strconv.ParseBool(s); err != nil {
				why = "it is neither true nor false"
			}
		case strings.HasPrefix(k, "max-total") || strings.HasPrefix(k, "ok-total") || strings.HasPrefix(k, "max-empty") || strings.HasSuffix(k, "-sec"):
			if !wholeNumber.MatchString(s) {
				why = "it is not a whole number"
			}
		default:
			if dur, err := time.ParseDuration(s); !wholeNumber.MatchString(s) && (err != nil || dur < 0) {
				why = "it is not a duration such as 10m"
			}
		}
		if why != "" {
			return rp.BadRequest("InvalidParameter", "The value of parameter autoScalerProfile.%s is invalid: '%s': %s.", k, s, why).At("autoScalerProfile." + k)
		}
	}
	return nil
}

// autoscalerAllowed reports whether the subscription allows the cluster
// autoscaler together with node auto-provisioning.
func (p *Provider) autoscalerAllowed(ctx context.Context) (bool, error) {
	return resources.FeatureRegistered(ctx, p.env, "Microsoft.ContainerService/AllowClusterAutoscalerAndNAP")
}
