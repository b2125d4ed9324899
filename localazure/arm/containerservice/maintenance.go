// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package containerservice

import (
	"context"

	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/containerservice/armcontainerservice/v8"

	"github.com/nap-aks/nap/localazure/arm/rp"
)

// addMaintenance registers maintenance configurations.
func (p *Provider) addMaintenance() {
	p.env.Add(&rp.Type{Name: "Microsoft.ContainerService/managedClusters/maintenanceConfigurations", Versions: apiVersions, Scope: rp.InGroup, Flat: true, NoState: true, Prepare: prepareMaintenance,
		Render: func(_ context.Context, r *rp.Record, d rp.Doc, _ string) error {
			d["systemData"] = rp.SystemData(r)
			return nil
		}})
}

// prepareMaintenance fills and checks a maintenance configuration.
func prepareMaintenance(_ context.Context, c *rp.Change) error {
	d := c.Doc
	var model armcontainerservice.MaintenanceConfiguration
	if err := d.Into(&model); err != nil {
		return rp.BadRequest("InvalidParameter", "The request body does not have the shape of a maintenance configuration: %v", err)
	}
	name := c.ID.Name()
	if !equal(name, "default", "aksManagedAutoUpgradeSchedule", "aksManagedNodeOSUpgradeSchedule") {
		return rp.BadRequest("InvalidParameter", "The maintenance configuration name '%s' is none of default, aksManagedAutoUpgradeSchedule, aksManagedNodeOSUpgradeSchedule.", name).At("name")
	}
	w := d.Map("properties", "maintenanceWindow")
	if w == nil {
		if equal(name, "default") {
			return nil
		}
		return rp.BadRequest("InvalidParameter", "The maintenance configuration '%s' needs properties.maintenanceWindow.", name).At("properties.maintenanceWindow")
	}
	// The schedule of a PUT replaces one of another kind.
	if sent := c.Sent.Map("properties", "maintenanceWindow", "schedule"); sent != nil {
		d.Set(map[string]any(sent.Clone()), "properties", "maintenanceWindow", "schedule")
	}
	sched := d.Map("properties", "maintenanceWindow", "schedule")
	kinds := 0
	for _, k := range []string{"daily", "weekly", "absoluteMonthly", "relativeMonthly"} {
		if sched.Map(k) != nil {
			kinds++
		} else {
			sched.Drop(k)
		}
	}
	if kinds != 1 {
		return rp.BadRequest("InvalidParameter", "A maintenance window has exactly one of the schedules daily, weekly, absoluteMonthly, relativeMonthly; this one has %d.", kinds).At("properties.maintenanceWindow.schedule")
	}
	if equal(name, "default") && sched.Map("weekly") == nil {
		return rp.BadRequest("InvalidParameter", "The maintenance configuration default accepts a weekly schedule only.").At("properties.maintenanceWindow.schedule")
	}
	if n, ok := w.Int("durationHours"); !ok || n < 4 || n > 24 {
		return rp.BadRequest("InvalidParameter", "The duration of a maintenance window is 4 to 24 hours, not %d.", n).At("properties.maintenanceWindow.durationHours")
	}
	w.Default("+00:00", "utcOffset")
	w.Default(c.Env.Now().UTC().Format("2006-01-02"), "startDate")
	if t := w.Str("startTime"); len(t) != 5 || t[2] != ':' || atoi(t[:2]) > 23 || atoi(t[3:]) > 59 {
		return rp.BadRequest("InvalidParameter", "The start time '%s' of the maintenance window is not of the form 23:59.", t).At("properties.maintenanceWindow.startTime")
	}
	return nil
}
