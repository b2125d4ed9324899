// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package azure

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/containerservice/armcontainerservice/v8"

	"github.com/nap-aks/nap/apis/v1beta1"
)

// provisioningError is the error in the status of a machine that failed.
type provisioningError struct {
	Code    string
	Message string
}

func (e *provisioningError) Error() string { return e.Code + ": " + e.Message }

// provisioningErrorOf returns the error of a machine: the first detail, which has
// the allocator's code, or else the error itself.
func provisioningErrorOf(m *armcontainerservice.Machine) *provisioningError {
	if m.Properties == nil || m.Properties.Status == nil || m.Properties.Status.ProvisioningError == nil {
		return &provisioningError{Code: "Unknown", Message: "the machine failed and ARM reports no reason"}
	}
	d := m.Properties.Status.ProvisioningError
	if len(d.Details) > 0 && d.Details[0] != nil && d.Details[0].Code != nil {
		d = d.Details[0]
	}
	return &provisioningError{Code: deref(d.Code), Message: deref(d.Message)}
}

// shortage is a failed launch after which another offering may succeed. It
// describes the offerings to mark unavailable.
type shortage struct {
	reason string // of the NodeClaim's Launched condition
	ttl    time.Duration
	// The unavailable offerings.
	allSpot   bool // all spot offerings
	allZones  bool // all zones of the scope that was tried, else only the zone
	bothScope bool // with allZones: zonal and regional placement
	bothTypes bool // on-demand and spot, else only the capacity type that was tried
	nothing   bool // none is marked: no other size would help either
}

// Reasons of the Launched condition.
const (
	reasonQuota             = "SubscriptionQuotaReached"
	reasonSKUNotAvailable   = "SKUNotAvailable"
	reasonZonalAllocation   = "ZonalAllocationFailure"
	reasonAllocation        = "AllocationFailure"
	reasonOverconstrained   = "OverconstrainedAllocationFailure"
	reasonOverconstrainedZ  = "OverconstrainedZonalAllocationFailure"
	reasonRegionalQuota     = "RegionalQuotaReached"
	reasonSubnetFull        = "SubnetFull"
	reasonCreateFailed      = "CreateInstanceFailed"
	reasonClassUnknown      = "NodeClassReadinessUnknown"
	reasonTypesUnresolved   = "InstanceTypeResolutionFailed"
	reasonStillCreating     = "MachineStillCreating"
	longWait, shortWait     = 23 * time.Hour, 10 * time.Minute
	usualWait               = time.Hour
	maxConditionMessageSize = 1200
)

// classify reports whether an error is a shortage, and which. The first match wins.
func classify(err error, spot bool) (shortage, bool) {
	code, text := codeAndText(err)
	// Machines in pools that AKS manages are refused under another code with the same
	// texts (Azure/AKS issue 5808).
	quota := code == "OperationNotAllowed" || code == "QuotaExceeded"
	switch {
	case code == "SubnetIsFull" || code == "InsufficientSubnetSize":
		return shortage{reason: reasonSubnetFull, nothing: true}, true
	case quota && strings.Contains(text, "LowPriorityCores"):
		return shortage{reason: reasonQuota, ttl: usualWait, allSpot: true}, true
	case quota && strings.Contains(text, "Family Cores quota"):
		ttl := shortWait
		if strings.Contains(text, "Current Limit: 0") {
			ttl = usualWait
		}
		return shortage{reason: reasonQuota, ttl: ttl, allZones: true, bothScope: true}, true
	case code == "SkuNotAvailable":
		ttl := longWait
		if spot {
			ttl = usualWait
		}
		return shortage{reason: reasonSKUNotAvailable, ttl: ttl, allZones: true}, true
	case code == "ZonalAllocationFailed":
		return shortage{reason: reasonZonalAllocation, ttl: usualWait, bothTypes: true}, true
	case code == "AllocationFailed":
		return shortage{reason: reasonAllocation, ttl: usualWait, allZones: true, bothTypes: true}, true
	case code == "OverconstrainedZonalAllocationRequest":
		return shortage{reason: reasonOverconstrainedZ, ttl: usualWait}, true
	case code == "OverconstrainedAllocationRequest":
		return shortage{reason: reasonOverconstrained, ttl: usualWait, allZones: true}, true
	case quota && strings.Contains(text, "exceeding approved Total Regional Cores quota"):
		return shortage{reason: reasonRegionalQuota, nothing: true}, true
	case code == "QuotaExceeded":
		return shortage{reason: reasonQuota, ttl: shortWait, allZones: true, bothScope: true}, true
	case code == "AvailabilityZoneNotSupported":
		return shortage{reason: reasonSKUNotAvailable, ttl: longWait, bothTypes: true}, true
	case code == "VMSizeNotSupported",
		code == "BadRequest" && strings.Contains(text, "is not supported for subscription"):
		return shortage{reason: reasonSKUNotAvailable, ttl: longWait, allZones: true, bothScope: true, bothTypes: true}, true
	}
	return shortage{}, false
}

func codeAndText(err error) (code, text string) {
	var pe *provisioningError
	if errors.As(err, &pe) {
		return pe.Code, pe.Message
	}
	var re *azcore.ResponseError
	if errors.As(err, &re) {
		return re.ErrorCode, re.Error()
	}
	return "", err.Error()
}

// isNotFound reports whether ARM answered that the resource does not exist.
func isNotFound(err error) bool {
	var re *azcore.ResponseError
	return errors.As(err, &re) && (re.StatusCode == http.StatusNotFound ||
		re.StatusCode == http.StatusBadRequest && re.ErrorCode == "InvalidParameter" && strings.Contains(re.Error(), "Cannot find any valid machines"))
}

// mark marks the offerings unavailable that the shortage affects.
func (s shortage) mark(u *unavailable, o launchOption) {
	if s.nothing {
		return
	}
	if s.allSpot {
		u.markAllSpot(s.ttl)
		return
	}
	zones := []string{o.zone}
	if s.allZones {
		zones = nil
		if o.zone != v1beta1.RegionalZone || s.bothScope {
			zones = append(zones, o.sku.Zones...)
		}
		if o.zone == v1beta1.RegionalZone || s.bothScope {
			zones = append(zones, v1beta1.RegionalZone)
		}
	}
	for _, zone := range zones {
		u.mark(o.sku, zone, o.spot, s.ttl)
		if s.bothTypes {
			u.mark(o.sku, zone, !o.spot, s.ttl)
		}
	}
}

// cut shortens a condition message to its maximum size.
func cut(s string) string {
	if len(s) > maxConditionMessageSize {
		return s[:maxConditionMessageSize] + "..."
	}
	return s
}

func deref[T any](p *T) T {
	if p == nil {
		var zero T
		return zero
	}
	return *p
}

// errUnknownProviderID is wrapped by errors about provider IDs of other providers.
var errUnknownProviderID = errors.New("not a provider ID of an AKS machine")

func providerIDError(id string) error {
	return fmt.Errorf("provider ID %q: %w", id, errUnknownProviderID)
}
