// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package fleet

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/nap-aks/nap/localazure/intent"
)

// stageLogPeriod is the time between two lines about failing stages.
const stageLogPeriod = time.Minute

// stageLog receives the log of kwok's controllers, which is JSON in lines. It
// tells about stages that fail at most once in a period, with the number of
// objects that fail and one of them: a stage that cannot succeed is tried again
// for ever.
type stageLog struct {
	log  *slog.Logger
	tell func(intent.FailingStage) // called with each line
	now  func() time.Time

	mu      sync.Mutex
	told    time.Time
	failing map[string]bool // "stage object" since the last line
}

func newStageLog(log *slog.Logger, tell func(intent.FailingStage)) *stageLog {
	return &stageLog{log: log, tell: tell, now: time.Now, failing: map[string]bool{}}
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
		s.tell(intent.FailingStage{Stage: r.Stage, Object: r.Node + r.Pod, Error: fmt.Sprint(r.Err), Objects: len(s.failing), At: now})
		s.told = now
		clear(s.failing)
	}
	return len(line), nil
}

// tellFailing returns a function that stores a failing stage of the cluster, for those
// who ask for its status. It does not hold up the kubelets.
func (c *clusterFleet) tellFailing(ctx context.Context, log *slog.Logger) func(intent.FailingStage) {
	return func(f intent.FailingStage) {
		go func() {
			ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
			defer cancel()
			if err := intent.Put(ctx, c.f.Etcd, intent.FailingStageKey(c.uid), f); err != nil && ctx.Err() == nil {
				log.Error("storing a failing stage failed", "error", err)
			}
		}()
	}
}
