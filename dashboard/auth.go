// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package dashboard

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"sync"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/utils/clock"
)

const (
	sessionFor  = 12 * time.Hour
	codeFor     = 2 * time.Minute
	allowedFor  = time.Minute
	deniedFor   = 10 * time.Second
	maxSessions = 256
	maxCodes    = 64
	maxVerdicts = 1024
	maxReviews  = 8 // at the same time
	maxToken    = 16 << 10
	minKey      = 32
)

// ErrDenied is wrapped by the errors of credentials that give no access.
var ErrDenied = errors.New("access denied")

// Reviewer decides whether a bearer token may see the dashboard. It returns an error
// that wraps ErrDenied if not, and another one if it cannot tell.
type Reviewer func(ctx context.Context, token string) error

// KubeReviewer lets those see the dashboard who may list nodes in the cluster.
func KubeReviewer(c kubernetes.Interface) Reviewer {
	return func(ctx context.Context, token string) error {
		tr, err := c.AuthenticationV1().TokenReviews().Create(ctx, &authenticationv1.TokenReview{Spec: authenticationv1.TokenReviewSpec{Token: token}}, metav1.CreateOptions{})
		if err != nil {
			return fmt.Errorf("reviewing the token: %w", err)
		}
		if !tr.Status.Authenticated {
			return fmt.Errorf("%w: the cluster does not know this token", ErrDenied)
		}
		u := tr.Status.User
		extra := map[string]authorizationv1.ExtraValue{}
		for k, v := range u.Extra {
			extra[k] = authorizationv1.ExtraValue(v)
		}
		sar, err := c.AuthorizationV1().SubjectAccessReviews().Create(ctx, &authorizationv1.SubjectAccessReview{Spec: authorizationv1.SubjectAccessReviewSpec{
			User: u.Username, UID: u.UID, Groups: u.Groups, Extra: extra,
			ResourceAttributes: &authorizationv1.ResourceAttributes{Verb: "list", Resource: "nodes"},
		}}, metav1.CreateOptions{})
		if err != nil {
			return fmt.Errorf("reviewing the access of %s: %w", u.Username, err)
		}
		if !sar.Status.Allowed || sar.Status.Denied {
			return fmt.Errorf("%w: %s may not list nodes", ErrDenied, u.Username)
		}
		return nil
	}
}

type digest [sha256.Size]byte

func digestOf(s string) digest { return sha256.Sum256([]byte(s)) }

// auth decides who sees the dashboard: who presents the key or a token that the
// Reviewer accepts, or a session that was opened with one of them. Tokens of sessions
// are reviewed again every minute, so that a session ends with its token.
type auth struct {
	key    string // empty: none
	review Reviewer
	clock  clock.PassiveClock

	reviews  chan struct{}
	mu       sync.Mutex
	sessions map[digest]session
	codes    map[digest]session
	verdicts map[digest]verdict
}

// session is a cookie, or a code that becomes one.
type session struct {
	token string
	until time.Time
}

type verdict struct {
	err   error
	until time.Time
}

func newAuth(key string, review Reviewer, c clock.PassiveClock) (*auth, error) {
	if key == "" && review == nil {
		return nil, errors.New("the dashboard has neither a key nor a reviewer of tokens: nobody could see it")
	}
	if key != "" && len(key) < minKey {
		return nil, fmt.Errorf("the key of the dashboard has %d characters: it needs at least %d", len(key), minKey)
	}
	return &auth{
		key: key, review: review, clock: c, reviews: make(chan struct{}, maxReviews),
		sessions: map[digest]session{}, codes: map[digest]session{}, verdicts: map[digest]verdict{},
	}, nil
}

// checkToken returns nil if a token gives access.
func (a *auth) checkToken(ctx context.Context, token string) error {
	if token == "" || len(token) > maxToken {
		return fmt.Errorf("%w: no usable token", ErrDenied)
	}
	if a.key != "" && subtle.ConstantTimeCompare([]byte(a.key), []byte(token)) == 1 {
		return nil
	}
	if a.review == nil {
		return fmt.Errorf("%w: wrong key", ErrDenied)
	}
	id, now := digestOf(token), a.clock.Now()
	a.mu.Lock()
	v, ok := a.verdicts[id]
	a.mu.Unlock()
	if ok && now.Before(v.until) {
		return v.err
	}
	select {
	case a.reviews <- struct{}{}:
		defer func() { <-a.reviews }()
	default:
		return errors.New("too many tokens are being reviewed: try again")
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	err := a.review(ctx, token)
	v = verdict{err: err, until: now.Add(allowedFor)}
	switch {
	case errors.Is(err, ErrDenied):
		v.until = now.Add(deniedFor)
	case err != nil:
		return err // not known
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.verdicts) >= maxVerdicts {
		clear(a.verdicts) // they are only asked for again
	}
	a.verdicts[id] = v
	return err
}

// newCode returns a code that opens a session with the token, once.
func (a *auth) newCode(token string) (string, error) { return a.put(a.codes, maxCodes, token, codeFor) }

// redeem exchanges a code for a session.
func (a *auth) redeem(ctx context.Context, code string) (string, error) {
	id := digestOf(code)
	a.mu.Lock()
	c, ok := a.codes[id]
	delete(a.codes, id)
	a.mu.Unlock()
	if !ok || !a.clock.Now().Before(c.until) {
		return "", fmt.Errorf("%w: this address has been used or is too old: run nap dashboard again", ErrDenied)
	}
	if err := a.checkToken(ctx, c.token); err != nil {
		return "", err
	}
	return a.put(a.sessions, maxSessions, c.token, sessionFor)
}

// checkSession returns nil if a cookie gives access.
func (a *auth) checkSession(ctx context.Context, cookie string) error {
	id := digestOf(cookie)
	a.mu.Lock()
	s, ok := a.sessions[id]
	a.mu.Unlock()
	if !ok || !a.clock.Now().Before(s.until) {
		return fmt.Errorf("%w: no session", ErrDenied)
	}
	err := a.checkToken(ctx, s.token)
	if errors.Is(err, ErrDenied) {
		a.mu.Lock()
		delete(a.sessions, id)
		a.mu.Unlock()
	}
	return err
}

// put adds an entry under a new random name and drops the one that ends first if there
// are too many.
func (a *auth) put(m map[digest]session, limit int, token string, d time.Duration) (string, error) {
	b := make([]byte, 32)
	if _, err := rand.Read(b); err != nil {
		return "", fmt.Errorf("making a random name: %w", err)
	}
	name := base64.RawURLEncoding.EncodeToString(b)
	now := a.clock.Now()
	a.mu.Lock()
	defer a.mu.Unlock()
	var first digest
	var ends time.Time
	for id, s := range m {
		if !now.Before(s.until) {
			delete(m, id)
		} else if ends.IsZero() || s.until.Before(ends) {
			first, ends = id, s.until
		}
	}
	if len(m) >= limit {
		delete(m, first)
	}
	m[digestOf(name)] = session{token: token, until: now.Add(d)}
	return name, nil
}
