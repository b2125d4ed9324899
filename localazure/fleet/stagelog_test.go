// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package fleet

import (
	"bytes"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	kwoklog "sigs.k8s.io/kwok/pkg/log"

	"github.com/nap-aks/nap/localazure/intent"
)

// A stage that fails for ever is told once a minute, with the object and the cause.
func TestFailingStagesAreToldOnceAMinute(t *testing.T) {
	var out bytes.Buffer
	var told []intent.FailingStage
	s := newStageLog(slog.New(slog.NewTextHandler(&out, nil)), func(f intent.FailingStage) { told = append(told, f) })
	now := time.Now()
	s.now = func() time.Time { return now }
	log := kwoklog.NewLogger(s, kwoklog.LevelInfo)
	for range 130 {
		log.Error("failed to apply stage", "err", errors.New("machineID: wrong type"), "node", "np-1", "stage", "node-initialize")
		log.Error("failed to apply stage", "err", errors.New("other"), "pod", "shop/web", "stage", "pod-ready")
		log.Info("retrying for failed job", "node", "np-1", "stage", "node-initialize")
		now = now.Add(time.Second)
	}
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	if len(lines) != 3 {
		t.Fatalf("%d lines in 130 seconds, want 3:\n%s", len(lines), out.String())
	}
	if len(told) != 3 || told[0].Object != "np-1" || told[0].Stage != "node-initialize" || told[1].Objects != 2 || !strings.Contains(told[0].Error, "machineID") {
		t.Errorf("told %+v", told)
	}
	for _, want := range []string{"node=np-1", "stage=node-initialize", "machineID: wrong type"} {
		if !strings.Contains(lines[0], want) {
			t.Errorf("%s lacks %s", lines[0], want)
		}
	}
	if !strings.Contains(lines[1], "objects=2") {
		t.Errorf("the second line does not count both objects: %s", lines[1])
	}
}
