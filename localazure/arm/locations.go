// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package arm

import (
	"slices"

	"github.com/nap-aks/nap/catalog"
	"github.com/nap-aks/nap/localazure/arm/rp"
)

// catalogued returns the regions whose sizes and prices are in the catalogue.
func catalogued() []rp.Location {
	have := catalog.Regions()
	return slices.DeleteFunc(slices.Clone(regions), func(l rp.Location) bool { return !slices.Contains(have, l.Name) })
}

// regions are the regions of Azure that ARM can list.
var regions = []rp.Location{
	{Name: "australiaeast", DisplayName: "Australia East", Geography: "Asia Pacific", Latitude: "-33.86", Longitude: "151.2094", Zoned: true},
	{Name: "brazilsouth", DisplayName: "Brazil South", Geography: "South America", Latitude: "-23.55", Longitude: "-46.633", Zoned: true},
	{Name: "centralindia", DisplayName: "Central India", Geography: "Asia Pacific", Latitude: "18.5822", Longitude: "73.9197", Zoned: true},
	{Name: "eastus", DisplayName: "East US", Geography: "US", Latitude: "37.3719", Longitude: "-79.8164", Zoned: true},
	{Name: "eastus2", DisplayName: "East US 2", Geography: "US", Latitude: "36.6681", Longitude: "-78.3889", Zoned: true},
	{Name: "germanywestcentral", DisplayName: "Germany West Central", Geography: "Europe", Latitude: "50.110924", Longitude: "8.682127", Zoned: true},
	{Name: "japaneast", DisplayName: "Japan East", Geography: "Asia Pacific", Latitude: "35.68", Longitude: "139.77", Zoned: true},
	{Name: "northeurope", DisplayName: "North Europe", Geography: "Europe", Latitude: "53.3478", Longitude: "-6.2597", Zoned: true},
	{Name: "southcentralus", DisplayName: "South Central US", Geography: "US", Latitude: "29.4167", Longitude: "-98.5", Zoned: true},
	{Name: "southeastasia", DisplayName: "Southeast Asia", Geography: "Asia Pacific", Latitude: "1.283", Longitude: "103.833", Zoned: true},
	{Name: "swedencentral", DisplayName: "Sweden Central", Geography: "Europe", Latitude: "60.67488", Longitude: "17.14127", Zoned: true},
	{Name: "uksouth", DisplayName: "UK South", Geography: "Europe", Latitude: "50.941", Longitude: "-0.799", Zoned: true},
	{Name: "westeurope", DisplayName: "West Europe", Geography: "Europe", Latitude: "52.3667", Longitude: "4.9", Zoned: true},
	{Name: "westus", DisplayName: "West US", Geography: "US", Latitude: "37.783", Longitude: "-122.417"},
	{Name: "westus2", DisplayName: "West US 2", Geography: "US", Latitude: "47.233", Longitude: "-119.852", Zoned: true},
	{Name: "westus3", DisplayName: "West US 3", Geography: "US", Latitude: "33.448376", Longitude: "-112.074036", Zoned: true},
	{Name: "centralus", DisplayName: "Central US", Geography: "US", Latitude: "41.5908", Longitude: "-93.6208", Zoned: true},
	{Name: "northcentralus", DisplayName: "North Central US", Geography: "US", Latitude: "41.8819", Longitude: "-87.6278"},
	{Name: "canadacentral", DisplayName: "Canada Central", Geography: "Canada", Latitude: "43.653", Longitude: "-79.383", Zoned: true},
	{Name: "francecentral", DisplayName: "France Central", Geography: "Europe", Latitude: "46.3772", Longitude: "2.373", Zoned: true},
}
