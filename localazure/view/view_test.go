// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package view_test

import (
	"testing"
	"time"

	"github.com/nap-aks/nap/localazure/arm/armtest"
	"github.com/nap-aks/nap/localazure/intent"
	"github.com/nap-aks/nap/localazure/view"
)

func TestFailingStagesAreShownWhileTheyAreNew(t *testing.T) {
	c := armtest.Etcd(t)
	if err := intent.Put(t.Context(), c, intent.ClusterIntentPrefix+"u", intent.ClusterIntent{UID: "u", Name: "shop"}); err != nil {
		t.Fatal(err)
	}
	for _, x := range []struct {
		age   time.Duration
		shown bool
	}{{time.Minute, true}, {intent.FailingStageFor + time.Minute, false}} {
		f := intent.FailingStage{Stage: "node-initialize", Object: "np-1", Error: "wrong type", Objects: 3, At: time.Now().Add(-x.age)}
		if err := intent.Put(t.Context(), c, intent.FailingStageKey("u"), f); err != nil {
			t.Fatal(err)
		}
		clusters, err := view.Read(t.Context(), c, false)
		if err != nil || len(clusters) != 1 {
			t.Fatal(clusters, err)
		}
		if got := clusters[0].FailingStage; (got != nil) != x.shown || got != nil && got.Object != "np-1" {
			t.Errorf("a failing stage %v old: %+v, want it shown %t", x.age, got, x.shown)
		}
	}
}
