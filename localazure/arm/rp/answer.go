// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package rp

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"sync"
)

// answers caches the response bodies of a record at its revision, by API version.
// A changed record is a new Record with an empty cache.
type answers struct {
	mu        sync.Mutex
	byVersion map[string]answer
}

type answer struct {
	stamp uint64
	body  []byte
}

// Encoded returns the body as JSON. It must not be modified.
func (r *Response) Encoded() ([]byte, error) {
	if r.JSON != nil {
		return r.JSON, nil
	}
	b, err := json.Marshal(r.Body)
	if err != nil {
		return nil, fmt.Errorf("encoding the response: %w", err)
	}
	return b, nil
}

// maxAnswers is the maximum number of API versions cached per record.
const maxAnswers = 4

// Stamp returns a hash of the records' revisions in their order. Revisions only
// grow, so two states of a collection do not share a stamp.
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

// cacheable reports whether a type's bodies can be cached: all that they depend on
// is in the record or its stamp.
func (t *Type) cacheable() bool { return t.Stamp != nil || t.Render == nil && t.RenderList == nil }

// body returns the response body of a shared record as JSON, from the cache if it
// is still valid. It must not be modified.
func (e *Env) body(ctx context.Context, t *Type, r *Record, apiVersion string) ([]byte, error) {
	var stamp uint64
	if t.Stamp != nil {
		// The body's inputs are read after the stamp, so the body is never older than
		// its stamp.
		var err error
		if stamp, err = t.Stamp(ctx, r); err != nil {
			return nil, err
		}
	}
	if r.answers != nil && t.cacheable() {
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
	if r.answers != nil && t.cacheable() {
		r.answers.mu.Lock()
		if r.answers.byVersion == nil || len(r.answers.byVersion) >= maxAnswers {
			r.answers.byVersion = map[string]answer{}
		}
		r.answers.byVersion[apiVersion] = answer{stamp, b}
		r.answers.mu.Unlock()
	}
	return b, nil
}

// listBody returns the body of a page of a list.
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
