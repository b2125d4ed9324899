package rp

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"sync"
)

// answers keeps the bodies that were made of a record at its revision. They go
// with the record: a change of it is a new record.
type answers struct {
	mu        sync.Mutex
	byVersion map[string]answer
}

type answer struct {
	stamp uint64
	body  []byte
}

// Encoded is the body as JSON. It must not be changed.
func (r *Response) Encoded() ([]byte, error) {
	if r.JSON != nil {
		return r.JSON, nil
	}
	b, err := json.Marshal(r.Body)
	if err != nil {
		return nil, fmt.Errorf("encoding the answer: %w", err)
	}
	return b, nil
}

// maxAnswers is how many API versions' bodies of a record are kept.
const maxAnswers = 4

// Stamp sums up which records there are, in their order and at which revision.
// Revisions only grow, so that one state of a collection never looks like
// another.
func Stamp(rs []*Record) uint64 {
	h := uint64(14695981039346656037) // FNV-1a
	for _, r := range rs {
		for rev := uint64(r.rev); ; rev >>= 8 {
			h = (h ^ rev&0xff) * 1099511628211
			if rev == 0 {
				break
			}
		}
	}
	return h
}

// keepable tells whether a type's bodies can be kept: what they depend on is
// known.
func (t *Type) keepable() bool { return t.Stamp != nil || t.Render == nil && t.RenderList == nil }

// body is the answer's body of a record that is shared, as JSON: the one made
// before, if nothing that it depends on has changed. It must not be changed.
func (e *Env) body(ctx context.Context, t *Type, r *Record, apiVersion string) ([]byte, error) {
	var stamp uint64
	if t.Stamp != nil {
		// What is read for the body is read after the stamp, so the body is never
		// older than its stamp says.
		var err error
		if stamp, err = t.Stamp(ctx, r); err != nil {
			return nil, err
		}
	}
	if r.answers != nil && t.keepable() {
		r.answers.mu.Lock()
		a, ok := r.answers.byVersion[apiVersion]
		r.answers.mu.Unlock()
		if ok && a.stamp == stamp {
			return a.body, nil
		}
	}
	d, err := e.Render(ctx, t, r, apiVersion)
	if err != nil {
		return nil, err
	}
	b, err := json.Marshal(d)
	if err != nil {
		return nil, fmt.Errorf("encoding %s: %w", r.ID, err)
	}
	if r.answers != nil && t.keepable() {
		r.answers.mu.Lock()
		if r.answers.byVersion == nil || len(r.answers.byVersion) >= maxAnswers {
			r.answers.byVersion = map[string]answer{}
		}
		r.answers.byVersion[apiVersion] = answer{stamp, b}
		r.answers.mu.Unlock()
	}
	return b, nil
}

// listBody is the body of a page of a list.
func (e *Env) listBody(ctx context.Context, t *Type, rs []*Record, apiVersion, next string) ([]byte, error) {
	var b bytes.Buffer
	if next != "" {
		link, err := json.Marshal(next)
		if err != nil {
			return nil, fmt.Errorf("encoding the link to the next page: %w", err)
		}
		b.WriteString(`{"nextLink":` + string(link) + `,"value":[`)
	} else {
		b.WriteString(`{"value":[`)
	}
	for i, r := range rs {
		if i > 0 {
			b.WriteByte(',')
		}
		one, err := e.body(ctx, t, r, apiVersion)
		if err != nil {
			return nil, err
		}
		b.Write(one)
	}
	b.WriteString("]}")
	return b.Bytes(), nil
}
