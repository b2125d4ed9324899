// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

//go:build !slim

package resourcesku

import "github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/compute/armcompute/v8"

type (
	// SKU is a VM size, or another resource of the Compute API, in a region.
	SKU = armcompute.ResourceSKU
	// LocationInfo are the zones of a SKU in a location.
	LocationInfo = armcompute.ResourceSKULocationInfo
	// ZoneDetails are the capabilities that a SKU has in some zones only.
	ZoneDetails = armcompute.ResourceSKUZoneDetails
	// Capability is a named value, such as vCPUs and 4.
	Capability = armcompute.ResourceSKUCapabilities
	// Restriction says where a subscription may not use a SKU.
	Restriction = armcompute.ResourceSKURestrictions
)

// Types of a Restriction.
const (
	// RestrictedLocation is the type of a restriction of whole locations.
	RestrictedLocation = armcompute.ResourceSKURestrictionsTypeLocation
	// RestrictedZone is the type of a restriction of zones.
	RestrictedZone = armcompute.ResourceSKURestrictionsTypeZone
)
