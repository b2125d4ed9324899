package fleet

import (
	"context"
	"testing"
	"time"

	"github.com/nap-aks/nap/localazure/intent"
)

// A machine whose intent goes, or changes, while it boots: the loop hears of it
// once the boot is over or given up.
func TestBootKeepsWhatItIsWokenFor(t *testing.T) {
	m := &machine{wake: make(chan struct{}, 1)}
	m.want(&intent.MachineIntent{})
	<-m.wake // the loop begins to boot it
	if !m.sleep(context.Background(), time.Millisecond) {
		t.Fatal("a boot that nothing disturbs is given up")
	}
	if len(m.wake) != 0 {
		t.Fatal("the loop looks again without a reason")
	}
	m.want(&intent.MachineIntent{Drain: &intent.Drain{}})
	if !m.sleep(context.Background(), 50*time.Millisecond) {
		t.Fatal("a boot is given up because the intent changed")
	}
	if len(m.wake) != 1 {
		t.Fatal("the loop does not hear of the change")
	}
	<-m.wake
	m.want(nil)
	if m.sleep(context.Background(), time.Minute) {
		t.Fatal("a machine that must not exist boots to the end")
	}
	if len(m.wake) != 1 {
		t.Fatal("the loop does not hear that the intent went, and the machine stays for ever")
	}
}
