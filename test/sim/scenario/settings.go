// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package scenario

import "time"

// presets are the settings of machines. The laptop is a local cluster on two cores;
// docs/simulator.md says where the durations come from.
var presets = map[string]Settings{
	"laptop": {
		Create:         Range{Min: 200 * time.Millisecond, Max: 400 * time.Millisecond},
		Boot:           Exactly(1500 * time.Millisecond),
		Ready:          Range{Min: 500 * time.Millisecond, Max: 1500 * time.Millisecond},
		PodStart:       Range{Min: 300 * time.Millisecond, Max: time.Second},
		PodStop:        Range{Min: 200 * time.Millisecond, Max: time.Second},
		SchedulerCycle: Duration(time.Millisecond),
		SchedulerMarks: 120,
		ControllerQPS:  20,
		APILatency:     Range{Min: time.Millisecond, Max: 8 * time.Millisecond},
		WatchLatency:   Range{Min: time.Millisecond, Max: 10 * time.Millisecond},
		AzureLatency:   Range{Min: 5 * time.Millisecond, Max: 30 * time.Millisecond},
		PlanTime:       Range{Min: 50 * time.Millisecond, Max: 300 * time.Millisecond},
	},
	"aks": {
		Create:         Range{Min: 15 * time.Second, Max: 30 * time.Second},
		Boot:           Range{Min: 30 * time.Second, Max: 45 * time.Second},
		Ready:          Range{Min: 5 * time.Second, Max: 20 * time.Second},
		PodStart:       Range{Min: 2 * time.Second, Max: 15 * time.Second},
		PodStop:        Range{Min: time.Second, Max: 10 * time.Second},
		SchedulerCycle: Duration(5 * time.Millisecond),
		SchedulerMarks: 50,
		ControllerQPS:  20,
		APILatency:     Range{Min: 3 * time.Millisecond, Max: 15 * time.Millisecond},
		WatchLatency:   Range{Min: 2 * time.Millisecond, Max: 20 * time.Millisecond},
		AzureLatency:   Range{Min: 100 * time.Millisecond, Max: 600 * time.Millisecond},
		PlanTime:       Range{Min: 50 * time.Millisecond, Max: 300 * time.Millisecond},
	},
}

// WithDefaults returns s with the preset's values and the defaults in the fields that
// are 0 or empty.
func (s Settings) WithDefaults() Settings {
	text := func(v *string, d string) {
		if *v == "" {
			*v = d
		}
	}
	span := func(v *Range, d Range) {
		if *v == (Range{}) {
			*v = d
		}
	}
	text(&s.Machine, "laptop")
	p := presets[s.Machine]
	text(&s.Kubernetes, "1.36.3")
	text(&s.Location, "eastus")
	text(&s.Nominations, "on")
	span(&s.Create, p.Create)
	span(&s.Boot, p.Boot)
	span(&s.Ready, p.Ready)
	span(&s.PodStart, p.PodStart)
	span(&s.PodStop, p.PodStop)
	span(&s.APILatency, p.APILatency)
	span(&s.WatchLatency, p.WatchLatency)
	span(&s.AzureLatency, p.AzureLatency)
	span(&s.PlanTime, p.PlanTime)
	if s.SchedulerCycle == 0 {
		s.SchedulerCycle = p.SchedulerCycle
	}
	if s.SchedulerMarks == 0 {
		s.SchedulerMarks = p.SchedulerMarks
	}
	if s.ControllerQPS == 0 {
		s.ControllerQPS = p.ControllerQPS
	}
	if s.BatchIdle == 0 {
		s.BatchIdle = Duration(time.Second)
	}
	if s.BatchMax == 0 {
		s.BatchMax = Duration(10 * time.Second)
	}
	if s.SystemNodes.Count == 0 {
		s.SystemNodes.Count = 3
	}
	text(&s.SystemNodes.Size, "Standard_D4s_v5")
	if s.SampleEvery == 0 {
		s.SampleEvery = Duration(time.Second)
	}
	return s
}
