// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

//go:build slim

package resourcesku

// SKU is a VM size, or another resource of the Compute API, in a region.
type SKU struct {
	Capabilities                           []*Capability
	Family, Name, ResourceType, Size, Tier *string
	LocationInfo                           []*LocationInfo
	Locations                              []*string
	Restrictions                           []*Restriction
}

// LocationInfo are the zones of a SKU in a location.
type LocationInfo struct {
	Location    *string
	ZoneDetails []*ZoneDetails
	Zones       []*string
}

// ZoneDetails are the capabilities that a SKU has in some zones only.
type ZoneDetails struct {
	Capabilities []*Capability
	Name         []*string
}

// Capability is a named value, such as vCPUs and 4.
type Capability struct{ Name, Value *string }

// Restriction says where a subscription may not use a SKU.
type Restriction struct {
	RestrictionInfo *RestrictionInfo
	Type            *RestrictionType
	Values          []*string
}

// RestrictionInfo are the locations and zones of a restriction.
type RestrictionInfo struct{ Locations, Zones []*string }

// RestrictionType is the type of a Restriction.
type RestrictionType string

// Types of a Restriction.
const (
	// RestrictedLocation is the type of a restriction of whole locations.
	RestrictedLocation RestrictionType = "Location"
	// RestrictedZone is the type of a restriction of zones.
	RestrictedZone RestrictionType = "Zone"
)
