// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package fleet

import (
	"encoding/json"
	"log/slog"
	"sync"
	"time"
)

// stageLogPeriod is the time between two lines about failing stages.
const stageLogPeriod = time.Minute

// stageLog receives the log of kwok's controllers, which is JSON in lines. It
// tells about stages that fail at most once in a period, with the number of
// objects that fail and one of them: a stage that cannot succeed is tried again
// for ever.
type stageLog struct {
	log *slog.Logger
	now func() time.Time

	mu      sync.Mutex
	told    time.Time
	failing map[string]bool // "stage object" since the last line
}

func newStageLog(log *slog.Logger) *stageLog {
	return &stageLog{log: log, now: time.Now, failing: map[string]bool{}}
}

// Write implements io.Writer. It gets one record at a time.
func (s *stageLog) Write(line []byte) (int, error) {
	var r struct {
		Level string `json:"level"`
		Msg   string `json:"msg"`
		Err   any    `json:"err"`
		Node  string `json:"node"`
		Pod   string `json:"pod"`
		Stage string `json:"stage"`
	}
	if err := json.Unmarshal(line, &r); err != nil || r.Level != slog.LevelError.String() {
		return len(line), nil
	}
	if r.Stage == "" {
		s.log.Error("kubelet: "+r.Msg, "error", r.Err, "node", r.Node, "pod", r.Pod)
		return len(line), nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.failing[r.Stage+" "+r.Node+r.Pod] = true
	if now := s.now(); now.Sub(s.told) >= stageLogPeriod {
		s.log.Error("simulated kubelets fail to write statuses: these nodes and pods stay as they are", "stage", r.Stage, "node", r.Node, "pod", r.Pod, "error", r.Err, "objects", len(s.failing))
		s.told = now
		clear(s.failing)
	}
	return len(line), nil
}
