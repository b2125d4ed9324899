// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"bytes"
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	typedcore "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/events"
	"k8s.io/klog/v2"
	"k8s.io/kubernetes/pkg/scheduler"
	"k8s.io/kubernetes/pkg/scheduler/framework"
	"k8s.io/kubernetes/pkg/scheduler/profile"
)

// SchedulerOptions are the scheduler's rates. The zero value is a scheduler that
// takes no time, with kube-scheduler's own back-off.
type SchedulerOptions struct {
	// CycleTime is how long one scheduling cycle takes: at most one pod is
	// scheduled or refused in that time.
	CycleTime time.Duration
	// MarkRate is how many pods a second are marked as unschedulable at most,
	// evenly spaced. It models how long the write takes, for which a scheduling
	// cycle waits. 0 is no limit.
	MarkRate float64
	// PodInitialBackoff and PodMaxBackoff bound how long a refused pod waits before
	// it is tried again, in whole seconds. 0 is kube-scheduler's default: 1 s and 10 s.
	PodInitialBackoff, PodMaxBackoff time.Duration
	// QPS and Burst limit the scheduler's requests a second. A QPS of 0 is no limit;
	// kube-scheduler's default is 50, with a burst of 100.
	QPS   float32
	Burst int
	// PercentageOfNodesToScore ends the search for feasible nodes early. 0 is
	// kube-scheduler's default, which depends on the number of nodes.
	PercentageOfNodesToScore int32
	// Events makes the scheduler record events in the API.
	Events bool
	// Logger gets the scheduler's log. The zero value drops it.
	Logger logr.Logger
}

// LocalScheduler returns the options of the scheduler of a local cluster: its
// configuration, and the rates seen there on two cores.
func LocalScheduler() SchedulerOptions {
	return SchedulerOptions{
		CycleTime: time.Millisecond, MarkRate: 120,
		PodInitialBackoff: time.Second, PodMaxBackoff: 3 * time.Second,
		QPS: 400, Burst: 800,
	}
}

// StartScheduler starts kube-scheduler with its default profile for the pods of
// "default-scheduler". It runs until ctx ends; stopped is closed when its informers
// and its loop have ended. After that it can be started again with another context.
// An error says that it could not be built.
func StartScheduler(ctx context.Context, cfg *rest.Config, o SchedulerOptions) (stopped <-chan struct{}, err error) {
	ctx = withLogger(ctx, o.Logger)
	client, err := clientFor(ctx, cfg, limits{o.QPS, o.Burst}, o.Events)
	if err != nil {
		return nil, fmt.Errorf("kube-scheduler: %w", err)
	}
	if o.MarkRate > 0 {
		client = withMarkRate{client, &pacer{ctx: ctx, interval: time.Duration(float64(time.Second) / o.MarkRate)}}
	}

	var broadcaster events.EventBroadcaster
	recorders := profile.RecorderFactory(func(string) events.EventRecorderLogger { return noRecorder{} })
	if o.Events {
		broadcaster = events.NewBroadcaster(&events.EventSinkImpl{Interface: client.EventsV1()})
		recorders = profile.NewRecorderFactory(broadcaster)
	}

	factory := scheduler.NewInformerFactory(client, 0, nil)
	opts := []scheduler.Option{
		// Filters and scores of nodes run one after the other: their order is part of
		// a history.
		scheduler.WithParallelism(1),
		scheduler.WithKubeConfig(cfg),
		scheduler.WithPercentageOfNodesToScore(&o.PercentageOfNodesToScore),
	}
	if o.PodInitialBackoff > 0 {
		opts = append(opts, scheduler.WithPodInitialBackoffSeconds(int64(o.PodInitialBackoff/time.Second)))
	}
	if o.PodMaxBackoff > 0 {
		opts = append(opts, scheduler.WithPodMaxBackoffSeconds(int64(o.PodMaxBackoff/time.Second)))
	}
	// What lives with the context of New only measures, and empties a thousand slots
	// of a buffer each second to do so: most of what an idle scheduler costs. It ends
	// when the caches are filled.
	building, built := context.WithCancel(ctx)
	sched, err := scheduler.New(building, client, factory, nil, recorders, opts...)
	if err != nil {
		built()
		return nil, fmt.Errorf("kube-scheduler: %w", err)
	}
	if o.CycleTime > 0 {
		next := sched.NextEntity
		sched.NextEntity = func(l klog.Logger) (framework.QueuedEntityInfo, error) {
			e, err := next(l)
			sleep(ctx, o.CycleTime)
			return e, err
		}
	}

	done := make(chan struct{})
	go func() {
		defer close(done)
		if broadcaster != nil {
			_ = broadcaster.StartRecordingToSinkWithContext(ctx)
			defer broadcaster.Shutdown()
		}
		factory.Start(ctx.Done())
		factory.WaitForCacheSync(ctx.Done())
		if err := sched.WaitForHandlersSync(ctx); err != nil {
			klog.FromContext(ctx).Info("kube-scheduler stopped before its caches were filled", "error", err)
		}
		built()
		sched.Run(ctx)
		factory.Shutdown()
	}()
	return done, nil
}

// pacer spaces calls evenly.
type pacer struct {
	ctx      context.Context
	interval time.Duration

	mu   sync.Mutex
	next time.Time // when the next call may go ahead
}

// wait returns when it is the caller's turn, or when the pacer's context ends.
func (p *pacer) wait() {
	p.mu.Lock()
	now := time.Now()
	turn := p.next
	if turn.Before(now) {
		turn = now
	}
	p.next = turn.Add(p.interval)
	p.mu.Unlock()
	sleep(p.ctx, turn.Sub(now))
}

// withMarkRate is a client whose marks of unschedulable pods wait for their turn.
type withMarkRate struct {
	kubernetes.Interface
	pace *pacer
}

// CoreV1 implements kubernetes.Interface.
func (c withMarkRate) CoreV1() typedcore.CoreV1Interface {
	return coreWithMarkRate{c.Interface.CoreV1(), c.pace}
}

type coreWithMarkRate struct {
	typedcore.CoreV1Interface
	pace *pacer
}

// Pods implements typedcore.PodsGetter.
func (c coreWithMarkRate) Pods(namespace string) typedcore.PodInterface {
	return podsWithMarkRate{c.CoreV1Interface.Pods(namespace), c.pace}
}

type podsWithMarkRate struct {
	typedcore.PodInterface
	pace *pacer
}

// Patch implements typedcore.PodInterface.
func (p podsWithMarkRate) Patch(ctx context.Context, name string, pt types.PatchType, data []byte, opts metav1.PatchOptions, subresources ...string) (*corev1.Pod, error) {
	if isMark(data, subresources) {
		p.pace.wait()
	}
	return p.PodInterface.Patch(ctx, name, pt, data, opts, subresources...)
}

// isMark reports whether a patch marks a pod as unschedulable. The scheduler
// patches statuses of pods for one other reason: before it preempts them.
func isMark(data []byte, subresources []string) bool {
	return len(subresources) == 1 && subresources[0] == "status" &&
		bytes.Contains(data, []byte(corev1.PodScheduled)) && !bytes.Contains(data, []byte(corev1.DisruptionTarget))
}
