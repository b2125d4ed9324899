// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"context"
	"fmt"
	"os"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// cpuTime returns the CPU time that the process has used.
func cpuTime(t testing.TB) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// A day in which nothing happens, with 200 nodes and 2,000 pods, costs little.
func TestQuietDayCostsLittle(t *testing.T) {
	if os.Getenv("NAP_TEST_PERF") != "1" {
		t.Skip("costs are judged with NAP_TEST_PERF=1")
	}
	var ready, began, ended time.Duration
	began = cpuTime(t)
	synctest.Test(t, func(t *testing.T) {
		o := everything()
		o.noKubelets = true
		c := newCluster(t, o)
		defer c.stop()
		for i := range 200 {
			c.addNode(node(fmt.Sprintf("n%03d", i), "16"))
		}
		for i := range 40 {
			c.create(deploymentOf(fmt.Sprintf("app%02d", i), 50, "1"))
		}
		all := c.ctx
		var cancel context.CancelFunc
		c.ctx, cancel = context.WithCancel(all)
		go c.kubelets()
		c.eventually(5*time.Minute, "all pods run", func() bool { return len(c.pods(running)) == 2000 })
		cancel()
		c.ctx = all
		time.Sleep(time.Hour)
		ready = cpuTime(t)
		time.Sleep(24 * time.Hour)
		ended = cpuTime(t)
	})
	t.Logf("starting 2,000 pods took %v of CPU time, a quiet day %v", ready-began, ended-ready)
	if ended-ready > 5*time.Second {
		t.Errorf("a quiet day cost %v of CPU time, want at most 5s", ended-ready)
	}
}
