// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"context"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/util/workqueue"
	"k8s.io/klog/v2"
)

// keyQueue works on keys of objects, each by one worker at a time, and tries again
// what failed, later each time.
type keyQueue struct {
	queue workqueue.TypedRateLimitingInterface[string]
	sync  func(context.Context, string) error
}

func newKeyQueue(sync func(context.Context, string) error) *keyQueue {
	limiter := workqueue.NewTypedItemExponentialFailureRateLimiter[string](5*time.Millisecond, 30*time.Second)
	return &keyQueue{queue: workqueue.NewTypedRateLimitingQueue(limiter), sync: sync}
}

func (q *keyQueue) add(key string)                       { q.queue.Add(key) }
func (q *keyQueue) addAfter(key string, d time.Duration) { q.queue.AddAfter(key, d) }

// run works on keys once all caches are filled. It returns when ctx has ended and
// the workers have.
func (q *keyQueue) run(ctx context.Context, workers int, synced ...cache.InformerSynced) {
	var wg sync.WaitGroup
	defer wg.Wait()
	defer q.queue.ShutDown()
	if !cache.WaitForCacheSync(ctx.Done(), synced...) {
		return
	}
	for range workers {
		wg.Go(func() {
			for q.next(ctx) {
			}
		})
	}
	<-ctx.Done()
}

// next works on the next key and reports whether there will be another.
func (q *keyQueue) next(ctx context.Context) bool {
	key, end := q.queue.Get()
	if end {
		return false
	}
	defer q.queue.Done(key)
	err := q.sync(ctx, key)
	if err == nil {
		q.queue.Forget(key)
		return true
	}
	if ctx.Err() == nil && !apierrors.IsConflict(err) {
		klog.FromContext(ctx).Info("Trying again later", "key", key, "error", err)
	}
	q.queue.AddRateLimited(key)
	return true
}

// objectKey returns the namespace and name of an object of a cache.
func objectKey(obj any) string {
	key, err := cache.DeletionHandlingMetaNamespaceKeyFunc(obj)
	if err != nil {
		panic(err) // every object of an informer has metadata
	}
	return key
}
