// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package nodeprovisioning

import (
	"time"

	"github.com/nap-aks/nap/localazure/arm/rp"
)

const (
	// stuckAfter is how long an operation waits without any progress before it
	// rolls back.
	stuckAfter = 10 * time.Minute
	// DrainTimeout is the time limit of a node's drain. It is longer than
	// stuckAfter, so that the operation rolls back first.
	DrainTimeout = 2 * stuckAfter
	// explainAfter is how long a drain stalls before the operation says why.
	explainAfter = 20 * time.Second
)

// The phases of an operation, in their order; those of a rollback come after
// phaseDrain. The values are stored.
const (
	phaseStart            = ""       // the controller starts (enable), the fixed pools scale up (disable)
	phaseApply            = "apply"  // NodePools are created and become ready
	phaseDrain            = "drain"  // nodes are drained
	phaseRollback         = "undo"   // pools get back their nodes
	phaseReleaseNodes     = "return" // provisioned nodes are drained
	phaseDeleteNodePools  = "unmake" // NodePools are deleted
	phaseControllerStops  = "manual" // the controller stops
	rollbackErrorKey      = "why"
	progressKey, sinceKey = "progress", "since"
)

// next moves an operation to a phase.
func next(op *rp.Operation, phase, text string) (rp.Step, error) {
	op.Data = op.Data.Clone()
	op.Data["phase"], op.Data[progressKey] = phase, text
	op.Data.Drop(sinceKey)
	return rp.Step{Save: true}, nil
}

// rollback saves why an operation cannot succeed, and starts its rollback.
func rollback(op *rp.Operation, why *rp.Error) (rp.Step, error) {
	op.Data = op.Data.Clone()
	if why == rp.ErrCanceled {
		op.Data[rollbackErrorKey] = map[string]any{"canceled": true}
	} else {
		op.Data[rollbackErrorKey] = map[string]any{"code": why.Code, "message": why.Message, "status": float64(why.Status), "target": why.Target}
	}
	return next(op, phaseRollback, "rolling back: "+why.Message)
}

func rollingBack(op *rp.Operation) bool { return op.Data.Map(rollbackErrorKey) != nil }

// rollbackError returns the error that rollback saved.
func rollbackError(op *rp.Operation) *rp.Error {
	w := op.Data.Map(rollbackErrorKey)
	if w.Bool("canceled") {
		return rp.ErrCanceled
	}
	status, _ := w.Int("status")
	return &rp.Error{Status: status, Code: w.Str("code"), Message: w.Str("message"), Target: w.Str("target")}
}

// wait notes what an operation waits for. After stuckAfter without a change it
// rolls back, or fails if it is rolling back already.
func (o *Operations) wait(op *rp.Operation, text string, watch []string) (rp.Step, error) {
	same, save := o.noteProgress(op, text)
	if save {
		return rp.Step{Save: true}, nil
	}
	if same > stuckAfter {
		e := rp.Conflict("OperationTimeout", "Nothing has changed for %s: %s.", stuckAfter, text)
		if !rollingBack(op) {
			e.Message += " Node auto-provisioning is off again and the pools are as before."
			return rollback(op, e)
		}
		if w := rollbackError(op); w != rp.ErrCanceled {
			e.Message = w.Message + " " + e.Message
		}
		e.Message += " The rollback did not finish: repeat the request, or finish by hand."
		return rp.Step{}, e
	}
	return rp.Step{Watch: watch, After: time.Second}, nil
}

// unreachable returns nil, to wait for a cluster that cannot be reached, until
// the operation is stuckAfter old; then the error.
func (o *Operations) unreachable(err error, op *rp.Operation) error {
	if o.env.Now().Sub(op.Start) < stuckAfter {
		return nil
	}
	return err
}

// noteProgress sets an operation's progress text. It returns how long the text
// has been the same and whether the operation has to be saved.
func (o *Operations) noteProgress(op *rp.Operation, text string) (same time.Duration, save bool) {
	now := o.env.Now().UTC()
	since, err := time.Parse(time.RFC3339Nano, op.Data.Str(sinceKey))
	if err == nil && op.Data.Str("at") == text {
		return now.Sub(since), false
	}
	op.Data = op.Data.Clone()
	op.Data[progressKey], op.Data["at"], op.Data[sinceKey] = text, text, now.Format(time.RFC3339Nano)
	return 0, true
}

// explain adds the reason to the progress text without restarting the clock of
// noteProgress. It reports whether the operation has to be saved.
func explain(op *rp.Operation, why string) bool {
	text := op.Data.Str("at") + "; " + why
	if op.Data.Str(progressKey) == text {
		return false
	}
	op.Data = op.Data.Clone()
	op.Data[progressKey] = text
	return true
}
