// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package scenario

import (
	"fmt"
	"time"
)

// BurstOptions describe a burst of Deployments.
type BurstOptions struct {
	// Count is how many Deployments arrive, each with Replicas pods.
	Count, Replicas int
	// Over is the time in which they arrive, Boot that from a machine's running to
	// the registration of its kubelet; the preset's if 0.
	Over, Boot time.Duration
	// ScaleTo scales all to a share of their replicas 5 minutes later; 0 does not.
	ScaleTo float64
	// Duration of the run; 15 minutes, or 25 with ScaleTo, if 0.
	Duration time.Duration
}

// Burst returns the scenario of a burst, as benchmarks run it: a quarter of the
// Deployments spread over zones, and a twentieth keep their pods on different hosts.
// It is made from text, so its results can be replayed like those of files.
func Burst(o BurstOptions) (*Scenario, error) {
	name, duration := fmt.Sprintf("burst-%d-over-%s", o.Count, formatDuration(o.Over)), 15*time.Minute
	if o.ScaleTo > 0 {
		name, duration = fmt.Sprintf("scale-in-%d", o.Count), 25*time.Minute
	}
	settings := ""
	if o.Boot > 0 {
		name += "-boot-" + formatDuration(o.Boot)
		settings = fmt.Sprintf("settings: {boot: %s}\n", o.Boot)
	}
	if o.Duration > 0 {
		duration = o.Duration
	}
	text := fmt.Sprintf(`name: %s
about: %d Deployments of %d pods arrive within %s.
duration: %s
%sevents:
- at: 10s
  generate: {name: burst, namespace: load, count: %d, replicas: %d, over: %s, zoneSpread: 25%%, hostnameAntiAffinity: 5%%}
`, name, o.Count, o.Replicas, o.Over, duration, settings, o.Count, o.Replicas, o.Over)
	if o.ScaleTo > 0 {
		text += fmt.Sprintf("- {at: 5m10s, scale: {namespace: load, to: %g%%, of: original}}\n", o.ScaleTo*100)
	}
	return Parse(Source{Path: name + ".yaml", Text: text})
}
