// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"encoding/json"
	"fmt"
	"os"
	"strconv"
	"strings"

	karpv1 "sigs.k8s.io/karpenter/pkg/apis/v1"

	"github.com/nap-aks/nap/azure/instancetype"
	"github.com/nap-aks/nap/snapshot"
)

// azUsage is an element of the output of az vm list-usage and of ARM's usages
// response. az prints the amounts as strings, ARM as numbers.
type azUsage struct {
	CurrentValue json.RawMessage `json:"currentValue"`
	Limit        json.RawMessage `json:"limit"`
	Name         struct {
		Value          string `json:"value"`
		LocalizedValue string `json:"localizedValue"`
	} `json:"name"`
}

// readUsage reads a file with the compute usages of a subscription in a region: the
// output of az vm list-usage -o json, or ARM's response with the list in value.
func readUsage(path string) ([]instancetype.Usage, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("reading the usage file: %w", err)
	}
	return ParseUsage(path, data)
}

// ParseUsage parses the contents of a usage file. Errors name it by path.
func ParseUsage(path string, data []byte) ([]instancetype.Usage, error) {
	var list []azUsage
	if err := json.Unmarshal(data, &list); err != nil {
		var page struct {
			Value []azUsage `json:"value"`
		}
		if json.Unmarshal(data, &page) != nil || page.Value == nil {
			return nil, fmt.Errorf("usages in %s: not the output of az vm list-usage -o json: %w", path, err)
		}
		list = page.Value
	}
	out := make([]instancetype.Usage, 0, len(list))
	for _, u := range list {
		used, err := amountOf(u.CurrentValue)
		if err != nil {
			return nil, fmt.Errorf("usages in %s: currentValue of %s: %w", path, u.Name.Value, err)
		}
		limit, err := amountOf(u.Limit)
		if err != nil {
			return nil, fmt.Errorf("usages in %s: limit of %s: %w", path, u.Name.Value, err)
		}
		out = append(out, instancetype.Usage{Name: u.Name.Value, Title: u.Name.LocalizedValue, Used: used, Limit: limit})
	}
	return out, nil
}

func amountOf(raw json.RawMessage) (int64, error) {
	return strconv.ParseInt(strings.Trim(string(raw), `"`), 10, 64)
}

// addQuotas sets the quotas of the source from a usage file.
func (s *Source) addQuotas(path, region string) error {
	usages, err := readUsage(path)
	if err != nil {
		return err
	}
	if s.Objects.Quotas, err = quotasOf(usages, region); err != nil {
		return fmt.Errorf("usages in %s: %w", path, err)
	}
	return nil
}

// quotasOf returns the vCPU quotas among the usages of a region.
func quotasOf(usages []instancetype.Usage, region string) ([]snapshot.Quota, error) {
	table, _, err := offline(region)
	if err != nil {
		return nil, err
	}
	var out []snapshot.Quota
	for _, q := range table.Quotas(usages) {
		counted := []string{karpv1.CapacityTypeOnDemand}
		if q.Spot {
			counted = []string{karpv1.CapacityTypeSpot}
		}
		out = append(out, snapshot.Quota{
			Name: q.Name, Title: q.Title, Advice: q.Advice, Used: q.Used, Limit: q.Limit, CapacityTypes: counted, Charges: q.VCPUs,
		})
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("no vCPU quota of a size in region %s", region)
	}
	return out, nil
}
