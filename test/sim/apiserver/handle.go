// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package apiserver

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"strconv"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
)

// handle carries out a request.
func (s *Server) handle(q *request) (*answer, error) {
	switch q.Verb {
	case "get":
		o := s.find(q.resource, q.Namespace, q.Name)
		if o == nil {
			return nil, apierrors.NewNotFound(q.Resource.GroupResource(), q.Name)
		}
		return q.answer(http.StatusOK, o)
	case "list":
		return s.list(q)
	case "watch":
		return s.watch(q)
	case "create":
		return s.handleCreate(q)
	case "update":
		return s.handleUpdate(q)
	case "patch":
		return s.patch(q)
	case "delete":
		return s.handleDelete(q)
	default:
		return s.deleteCollection(q)
	}
}

// answer returns an object, or its scale, in the format that the client wants.
func (q *request) answer(code int, o *object) (*answer, error) {
	f := q.format
	var body []byte
	var err error
	if q.Subresource == "scale" {
		f.partial = false
		body, err = encodeAny(scaleOf(o), f)
	} else {
		body, err = q.resource.bytesOf(o, f)
	}
	if err != nil {
		return nil, apierrors.NewInternalError(fmt.Errorf("encoding %s %s: %w", q.Resource.Resource, o.key, err))
	}
	return &answer{code: code, contentType: f.contentType(false), body: body}, nil
}

func success(code int) *answer {
	return statusAnswer(metav1.Status{Status: metav1.StatusSuccess, Code: int32(code)})
}

func (s *Server) handleCreate(q *request) (*answer, error) {
	switch q.Subresource {
	case "binding":
		return s.bind(q)
	case "eviction":
		return s.evict(q)
	}
	work, err := q.bodyObject()
	if err != nil {
		return nil, err
	}
	o, err := s.create(q.resource, work, q.actor(), q.dryRun())
	if err != nil {
		return nil, err
	}
	return q.answer(http.StatusCreated, o)
}

func (s *Server) handleUpdate(q *request) (*answer, error) {
	if q.Subresource == "scale" {
		return s.updateScale(q)
	}
	work, err := q.bodyObject()
	if err != nil {
		return nil, err
	}
	if m := accessor(work); m.GetName() != q.Name {
		return nil, apierrors.NewBadRequest(fmt.Sprintf("the name of the object (%s) does not match the name on the URL (%s)", m.GetName(), q.Name))
	}
	o, err := s.modify(q.resource, q.Namespace, q.Name, q.actor(), q.dryRun(), func(old *object) (runtime.Object, error) {
		next := copyOf(work)
		return s.prepare(q.resource, next, old, q.Subresource, true)
	})
	if err != nil {
		return nil, err
	}
	return q.answer(http.StatusOK, o)
}

func (s *Server) handleDelete(q *request) (*answer, error) {
	options, err := q.deleteOptions()
	if err != nil {
		return nil, err
	}
	o, gone, err := s.remove(q.resource, q.Namespace, q.Name, options, q.actor(), q.dryRun())
	if err != nil {
		return nil, err
	}
	if gone && q.resource.gvk.Kind != "Pod" {
		m := o.meta()
		return statusAnswer(metav1.Status{Status: metav1.StatusSuccess, Code: http.StatusOK, Details: &metav1.StatusDetails{Name: m.GetName(), Group: q.Resource.Group, Kind: q.Resource.Resource, UID: types.UID(m.GetUID())}}), nil
	}
	return q.answer(http.StatusOK, o)
}

func (s *Server) deleteCollection(q *request) (*answer, error) {
	options, err := q.deleteOptions()
	if err != nil {
		return nil, err
	}
	sel, err := newSelector(q.resource, q.Namespace, "", q.values)
	if err != nil {
		return nil, err
	}
	all, _ := s.snapshot(q.resource)
	for _, o := range all {
		if !sel.matches(o) {
			continue
		}
		m := o.meta()
		if _, _, err := s.remove(q.resource, m.GetNamespace(), m.GetName(), options, q.actor(), q.dryRun()); err != nil && !apierrors.IsNotFound(err) {
			return nil, err
		}
	}
	return success(http.StatusOK), nil
}

// page is the rest of a list that a client reads in pages.
type page struct {
	token   string
	items   []*object
	version int64
}

// maxPages bounds how many unfinished lists are kept.
const maxPages = 64

// list answers a list. It is of one moment, and so are all pages of it.
func (s *Server) list(q *request) (*answer, error) {
	sel, err := newSelector(q.resource, q.Namespace, q.Name, q.values)
	if err != nil {
		return nil, err
	}
	items, version, err := s.listed(q, sel)
	if err != nil {
		return nil, err
	}
	meta := metav1.ListMeta{ResourceVersion: strconv.FormatInt(version, 10)}
	limit, err := number(q, "limit")
	if err != nil {
		return nil, err
	}
	// As in the API server, "any version" is answered from a cache, which has no pages.
	if limit > 0 && limit < len(items) && q.values.Get("resourceVersion") != "0" {
		left := int64(len(items) - limit)
		meta.Continue = s.keep(items[limit:], version)
		if sel.labels == nil && len(sel.fields) == 0 {
			meta.RemainingItemCount = &left
		}
		items = items[:limit]
	}
	body, err := q.resource.listBytes(items, meta, q.format)
	if err != nil {
		return nil, apierrors.NewInternalError(fmt.Errorf("encoding a list of %s: %w", q.Resource.Resource, err))
	}
	return &answer{code: http.StatusOK, contentType: q.format.contentType(false), body: body}, nil
}

// number returns a parameter that is a whole number, or 0.
func number(q *request, name string) (int, error) {
	text := q.values.Get(name)
	if text == "" {
		return 0, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 0 {
		return 0, apierrors.NewBadRequest(fmt.Sprintf("%s %q is not a whole number", name, text))
	}
	return n, nil
}

// listed returns the objects that a list asks for, and their version.
func (s *Server) listed(q *request, sel *selector) ([]*object, int64, error) {
	if token := q.values.Get("continue"); token != "" {
		s.mu.Lock()
		defer s.mu.Unlock()
		for _, p := range s.pages {
			if p.token == token {
				return p.items, p.version, nil
			}
		}
		return nil, 0, apierrors.NewResourceExpired("the provided continue parameter is too old to display a consistent list result")
	}
	all, version := s.snapshot(q.resource)
	asked, err := number(q, "resourceVersion")
	if err != nil {
		return nil, 0, err
	}
	switch {
	case int64(asked) > version:
		return nil, 0, tooLarge(int64(asked), version)
	case asked > 0 && int64(asked) < version && q.values.Get("resourceVersionMatch") == string(metav1.ResourceVersionMatchExact):
		return nil, 0, apierrors.NewResourceExpired(fmt.Sprintf("the resource version %d is too old, lists are of the present (%d)", asked, version))
	}
	items := all[:0:0]
	for _, o := range all {
		if sel.matches(o) {
			items = append(items, o)
		}
	}
	return items, version, nil
}

// tooLarge returns the error for a version that is still to come.
func tooLarge(asked, present int64) error {
	err := apierrors.NewTimeoutError(fmt.Sprintf("Too large resource version: %d, current: %d", asked, present), 1)
	err.ErrStatus.Details.Causes = []metav1.StatusCause{{Type: metav1.CauseTypeResourceVersionTooLarge, Message: "Too large resource version"}}
	return err
}

// keep keeps the rest of a list, and returns the token by which it is continued.
func (s *Server) keep(items []*object, version int64) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pageCount++
	token := base64.RawURLEncoding.EncodeToString(fmt.Appendf(nil, "%d/%d", version, s.pageCount))
	if len(s.pages) >= maxPages {
		s.pages = s.pages[1:]
	}
	s.pages = append(s.pages, &page{token: token, items: items, version: version})
	return token
}
