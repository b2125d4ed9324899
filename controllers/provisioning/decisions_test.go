// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package provisioning

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/nap-aks/nap/engine"
	"github.com/nap-aks/nap/snapshot"
)

func TestDecisionsCanBeReplayed(t *testing.T) {
	env := newEnv(t)
	env.p.Decisions = t.TempDir()
	env.apply(pods(20, "900m")...)
	env.pass()
	var files []string
	for range decisionsKept + 3 {
		env.apply(pod("more-"+env.clock.Now().Format("150405"), "4000")) // refused, so it stays pending
		env.clock.Step(time.Second)
		env.pass()
		var err error
		if files, err = filepath.Glob(filepath.Join(env.p.Decisions, "*")); err != nil {
			t.Fatal(err)
		}
		if len(files) == 2 {
			o, err := snapshot.ReadFile(files[0])
			if err != nil {
				t.Fatal(err)
			}
			in, err := snapshot.Build(o)
			if err != nil {
				t.Fatal(err)
			}
			plan, err := engine.Place(in.Snapshot, in.Options)
			if err != nil {
				t.Fatal(err)
			}
			if len(plan.Machines) != len(env.claims()) {
				t.Errorf("the replay buys %d machines, the pass bought %d", len(plan.Machines), len(env.claims()))
			}
		}
	}
	if len(files) != decisionsKept {
		t.Errorf("%d decisions are kept, want %d", len(files), decisionsKept)
	}
}
