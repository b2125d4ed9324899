// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	"testing"
	"time"

	"github.com/nap-aks/nap/controllers/machines"
)

func TestDeadlinesOfOptions(t *testing.T) {
	var o Options
	if err := o.setDeadlines(); err != nil || o.LaunchTimeout != machines.LaunchDeadline || o.RegistrationTimeout != machines.RegistrationDeadline || o.InitializationTimeout != machines.InitializationDeadline {
		t.Errorf("defaults: %v, %+v", err, o)
	}
	for _, c := range []struct {
		name string
		o    Options
		ok   bool
	}{
		{"shorter", Options{LaunchTimeout: time.Minute, RegistrationTimeout: time.Minute, InitializationTimeout: time.Minute}, true},
		{"no deadline for the initialization", Options{InitializationTimeout: -1}, true},
		{"negative launch", Options{LaunchTimeout: -1}, false},
		{"later than Karpenter's", Options{LaunchTimeout: 10 * time.Minute}, false},
	} {
		if err := c.o.setDeadlines(); (err == nil) != c.ok {
			t.Errorf("%s: %v, want accepted %t", c.name, err, c.ok)
		}
	}
}
