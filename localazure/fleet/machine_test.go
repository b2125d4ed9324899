// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package fleet

import (
	"context"
	"testing"
	"time"

	"github.com/nap-aks/nap/localazure/intent"
)

// A change or deletion of the intent during the boot is requeued for loop.
func TestBootKeepsIntentChanges(t *testing.T) {
	m := &machine{wake: make(chan struct{}, 1)}
	m.setIntent(&intent.MachineIntent{})
	<-m.wake // loop starts to boot it
	if !m.sleep(context.Background(), time.Millisecond) {
		t.Fatal("an undisturbed boot was aborted")
	}
	if len(m.wake) != 0 {
		t.Fatal("a boot without a change was requeued")
	}
	m.setIntent(&intent.MachineIntent{Drain: &intent.Drain{}})
	if !m.sleep(context.Background(), 50*time.Millisecond) {
		t.Fatal("a change of the intent aborted the boot")
	}
	if len(m.wake) != 1 {
		t.Fatal("the change was not requeued")
	}
	<-m.wake
	m.setIntent(nil)
	if m.sleep(context.Background(), time.Minute) {
		t.Fatal("a deleted machine boots to the end")
	}
	if len(m.wake) != 1 {
		t.Fatal("the deletion was not requeued: the machine would never be removed")
	}
}
