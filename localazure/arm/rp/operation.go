// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package rp

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// The states of an operation; the last three are final.
const (
	InProgress = "InProgress"
	Succeeded  = "Succeeded"
	Failed     = "Failed"
	Canceled   = "Canceled"
)

// Operation is a long-running operation.
type Operation struct {
	ID string `json:"id"` // a GUID
	// Kind names the step function.
	Kind string `json:"kind"`
	// Verb says in refusals of other requests what is in progress, such as
	// "Updating".
	Verb string `json:"verb,omitempty"`
	// Resource is the ID of the resource.
	Resource string `json:"resource"`
	// Location is the region in the operation's URL.
	Location string    `json:"location"`
	Status   string    `json:"status"`
	Start    time.Time `json:"start"`
	End      time.Time `json:"end"`
	Error    *Error    `json:"error,omitempty"`
	// Data is the state of the step function.
	Data Doc `json:"data,omitempty"`
	// Result is the body of the operation's result, for POST actions.
	Result Doc `json:"result,omitempty"`
	// Lock is the key of the lock that the operation holds until its end.
	Lock string `json:"lock,omitempty"`
	// Cancel asks the step function to stop.
	Cancel bool `json:"cancel,omitempty"`
	// Caller is the principal that requested it.
	Caller Principal `json:"caller"`

	rev int64
}

// Done reports whether the operation has ended.
func (o *Operation) Done() bool { return o.Status != InProgress && o.Status != "" }

func opKey(id string) string { return OperationPrefix + id }

// Step is the result of a step function: done, or when to call it again.
type Step struct {
	Done bool
	// Forced ends the operation even if its record has changed meanwhile.
	Forced bool
	// Cmps and Ops go into the transaction: the final one when Done, otherwise
	// the one that saves the operation's Data (if Save).
	Cmps []clientv3.Cmp
	Ops  []clientv3.Op
	// Result is the operation's result when Done.
	Result Doc
	// Save writes the operation (its Data) and Ops, and steps again at once.
	Save bool
	// After is the longest time to the next step; 0 means one second.
	After time.Duration
	// Watch are etcd keys, or prefixes ending in "/", whose change triggers the next
	// step.
	Watch []string
}

// Kind has the functions of a kind of operations.
type Kind struct {
	// Step reads the state, does what is missing, and reports whether it is done. An
	// *Error ends the operation as failed; other errors are retried. It must be
	// idempotent, since it runs again after a crash.
	Step func(ctx context.Context, op *Operation) (Step, error)
	// Failed returns the writes that go with a failure, such as the resource's
	// state. It may be nil.
	Failed func(ctx context.Context, op *Operation, e *Error) ([]clientv3.Op, error)
}

// ErrCanceled is returned by a step function that stopped because of Cancel.
var ErrCanceled = &Error{Status: 409, Code: "Canceled", Message: "The operation was canceled."}

// Engine runs operations.
type Engine struct {
	kv    clientv3.KV
	log   *slog.Logger
	now   func() time.Time
	kinds map[string]Kind

	mu    sync.Mutex
	ctx   context.Context
	wake  map[string]map[chan struct{}]bool // by key or prefix
	ops   map[string]chan struct{}          // running, by operation ID
	group sync.WaitGroup
}

// NewEngine returns an engine. Register kinds, then Run it. Wake must be called for
// every changed key (see Cache.OnChange).
func NewEngine(kv clientv3.KV, log *slog.Logger, now func() time.Time) *Engine {
	return &Engine{kv: kv, log: log, now: now, kinds: map[string]Kind{}, wake: map[string]map[chan struct{}]bool{}, ops: map[string]chan struct{}{}}
}

// Register adds a kind of operation.
func (e *Engine) Register(name string, k Kind) { e.kinds[name] = k }

// Get returns an operation; nil if it does not exist.
func (e *Engine) Get(ctx context.Context, id string) (*Operation, error) {
	resp, err := e.kv.Get(ctx, opKey(id))
	if err != nil {
		return nil, fmt.Errorf("reading operation %s: %w", id, err)
	}
	if len(resp.Kvs) == 0 {
		return nil, nil
	}
	var op Operation
	if err := json.Unmarshal(resp.Kvs[0].Value, &op); err != nil {
		return nil, fmt.Errorf("decoding operation %s: %w", id, err)
	}
	op.rev = resp.Kvs[0].ModRevision
	return &op, nil
}

// operationAge is how long the record of a finished operation is kept.
const operationAge = 24 * time.Hour

// Run runs the operations in etcd, and those that Start gets, until ctx is done. It
// returns at once.
func (e *Engine) Run(ctx context.Context) error {
	e.mu.Lock()
	e.ctx = ctx
	e.mu.Unlock()
	resp, err := e.kv.Get(ctx, OperationPrefix, clientv3.WithPrefix())
	if err != nil {
		return fmt.Errorf("reading the operations: %w", err)
	}
	for _, kv := range resp.Kvs {
		var op Operation
		if err := json.Unmarshal(kv.Value, &op); err != nil {
			return fmt.Errorf("decoding %s: %w", kv.Key, err)
		}
		if !op.Done() {
			e.log.Info("resuming operation", "operation", op.ID, "kind", op.Kind, "resource", op.Resource)
			e.Start(op.ID)
		} else if e.now().Sub(op.End) > operationAge {
			if _, err := e.kv.Delete(ctx, string(kv.Key)); err != nil {
				return fmt.Errorf("deleting the record of operation %s: %w", op.ID, err)
			}
		}
	}
	return nil
}

// Wait returns when no operation runs any more, after the context of Run is done.
func (e *Engine) Wait() {
	e.mu.Lock()
	e.ctx = nil // start nothing while waiting
	e.mu.Unlock()
	e.group.Wait()
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// Wake steps the operations that watch a key. The key of an operation's record
// starts that operation, whoever wrote it: a transaction that was in flight when a
// server was killed may be committed after the next server has read all records.
func (e *Engine) Wake(key string) {
	if id, ok := strings.CutPrefix(key, OperationPrefix); ok {
		e.Start(id)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	for c := range e.wake[key] {
		signal(c)
	}
	for i := strings.LastIndexByte(key, '/'); i > 0; i = strings.LastIndexByte(key[:i], '/') {
		for c := range e.wake[key[:i+1]] {
			signal(c)
		}
	}
}

// Poke steps an operation now.
func (e *Engine) Poke(id string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if c, ok := e.ops[id]; ok {
		signal(c)
	}
}

// Start runs an operation whose record is in etcd. It does nothing if the
// operation runs already, or before Run (which finds the record).
func (e *Engine) Start(id string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.ctx == nil || e.ctx.Err() != nil {
		return
	}
	if _, ok := e.ops[id]; ok {
		return
	}
	c := make(chan struct{}, 1)
	e.ops[id] = c
	e.group.Add(1)
	go func(ctx context.Context) {
		defer e.group.Done()
		e.drive(ctx, id, c)
		e.mu.Lock()
		delete(e.ops, id)
		e.mu.Unlock()
	}(e.ctx)
}

func (e *Engine) drive(ctx context.Context, id string, c chan struct{}) {
	var watching []string
	unwatch := func() {
		e.mu.Lock()
		defer e.mu.Unlock()
		for _, k := range watching {
			delete(e.wake[k], c)
			if len(e.wake[k]) == 0 {
				delete(e.wake, k)
			}
		}
		watching = nil
	}
	defer unwatch()
	for ctx.Err() == nil {
		step, done, err := e.once(ctx, id)
		if done {
			return
		}
		after := step.After
		if after == 0 {
			after = time.Second
		}
		if err != nil {
			if ctx.Err() != nil {
				return
			}
			e.log.Warn("operation step failed; retrying", "operation", id, "error", err)
		}
		if step.Save && err == nil {
			continue
		}
		if !slices.Equal(watching, step.Watch) {
			// A change wakes it only from here on, so step once more before sleeping.
			unwatch()
			e.mu.Lock()
			for _, k := range step.Watch {
				if e.wake[k] == nil {
					e.wake[k] = map[chan struct{}]bool{}
				}
				e.wake[k][c] = true
			}
			e.mu.Unlock()
			watching = step.Watch
			continue
		}
		t := time.NewTimer(after)
		select {
		case <-ctx.Done():
		case <-c:
		case <-t.C:
		}
		t.Stop()
	}
}

func (e *Engine) once(ctx context.Context, id string) (Step, bool, error) {
	op, err := e.Get(ctx, id)
	if err != nil {
		return Step{}, false, err
	}
	if op == nil || op.Done() {
		return Step{}, true, nil
	}
	kind, ok := e.kinds[op.Kind]
	if !ok {
		return Step{}, true, fmt.Errorf("operation %s has the unknown kind %q", id, op.Kind)
	}
	rev := op.rev
	step, err := kind.Step(ctx, op)
	if err != nil {
		var aerr *Error
		if !errors.As(err, &aerr) {
			return step, false, fmt.Errorf("%s of %s: %w", op.Kind, op.Resource, err)
		}
		op.Status, op.Error = Failed, aerr
		if aerr == ErrCanceled {
			op.Status = Canceled
		}
		var ops []clientv3.Op
		if kind.Failed != nil {
			if ops, err = kind.Failed(ctx, op, aerr); err != nil {
				return Step{}, false, fmt.Errorf("recording the failure of %s: %w", op.Resource, err)
			}
		}
		return e.finish(ctx, op, rev, nil, ops)
	}
	if step.Done {
		op.Status, op.Result = Succeeded, step.Result
		if step.Forced {
			fresh, err := e.Get(ctx, id)
			if err != nil || fresh == nil {
				return Step{}, false, err
			}
			rev = fresh.rev
		}
		return e.finish(ctx, op, rev, step.Cmps, step.Ops)
	}
	if step.Save {
		cmps := append([]clientv3.Cmp{clientv3.Compare(clientv3.ModRevision(opKey(id)), "=", rev)}, step.Cmps...)
		resp, err := e.kv.Txn(ctx).If(cmps...).Then(append(step.Ops, JSONOp(opKey(id), op))...).Commit()
		if err != nil {
			return step, false, fmt.Errorf("saving operation %s: %w", id, err)
		}
		if !resp.Succeeded {
			e.log.Debug("conflict; stepping again", "operation", id)
		}
	}
	return step, false, nil
}

func (e *Engine) finish(ctx context.Context, op *Operation, rev int64, cmps []clientv3.Cmp, ops []clientv3.Op) (Step, bool, error) {
	op.End = e.now().UTC()
	ops = append(ops, JSONOp(opKey(op.ID), op))
	if op.Lock != "" {
		ops = append(ops, clientv3.OpDelete(op.Lock))
	}
	cmps = append([]clientv3.Cmp{clientv3.Compare(clientv3.ModRevision(opKey(op.ID)), "=", rev)}, cmps...)
	resp, err := e.kv.Txn(ctx).If(cmps...).Then(ops...).Commit()
	if err != nil {
		return Step{}, false, fmt.Errorf("finishing operation %s: %w", op.ID, err)
	}
	if !resp.Succeeded {
		return Step{After: 10 * time.Millisecond}, false, nil
	}
	l := e.log.With("operation", op.ID, "kind", op.Kind, "resource", op.Resource, "status", op.Status, "seconds", op.End.Sub(op.Start).Seconds())
	if op.Error != nil {
		l.Warn("operation finished", "code", op.Error.Code, "message", op.Error.Message)
	} else {
		l.Info("operation finished")
	}
	return Step{}, true, nil
}

// RequestCancel asks a running operation to stop. It returns false if the operation
// has ended or does not exist.
func (e *Engine) RequestCancel(ctx context.Context, id string) (bool, error) {
	for {
		op, err := e.Get(ctx, id)
		if err != nil {
			return false, err
		}
		if op == nil || op.Done() {
			return false, nil
		}
		op.Cancel = true
		resp, err := e.kv.Txn(ctx).If(clientv3.Compare(clientv3.ModRevision(opKey(id)), "=", op.rev)).Then(JSONOp(opKey(id), op)).Commit()
		if err != nil {
			return false, fmt.Errorf("canceling operation %s: %w", id, err)
		}
		if resp.Succeeded {
			e.Poke(id)
			return true, nil
		}
	}
}

// Record writes an operation that has already ended: one done while the request
// waited, whose result clients fetch as that of a long-running one.
func (e *Engine) Record(ctx context.Context, op *Operation) error {
	op.ID, op.Status, op.Start = NewGUID(), Succeeded, e.now().UTC()
	op.End = op.Start
	if _, err := e.kv.Txn(ctx).Then(JSONOp(opKey(op.ID), op)).Commit(); err != nil {
		return fmt.Errorf("writing operation %s: %w", op.ID, err)
	}
	return nil
}
