// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

// Command simruntime builds a program with the Go runtime of the simulator: it
// writes changed copies of a few files of the Go distribution in use to the user's
// cache, and runs go with an overlay of them. With it, and GOMAXPROCS=1, the goroutines of a
// testing/synctest bubble run in an order that depends on the seed alone. See
// docs/designs/0014-simulated-time.md.
//
//	go run ./hack/simruntime build -o bin/nap-sim ./cmd/nap-sim
//
// The place outside of the checkout keeps the build cache valid for other checkouts.
// The distribution is reached through a link, because go refuses to overlay files of
// the module cache, where downloaded Go releases are.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
)

// change replaces a text that occurs exactly once in a file of the distribution.
type change struct{ file, old, new string }

// changes say for each place why the runtime's own behaviour differs from run to
// run, or does not fit simulated time.
var changes = []change{
	// Hash functions and the seeds of maps made before the bubble: from a constant
	// instead of the kernel's random bytes.
	{
		"runtime/rand.go", "\tglobalRand.state.Init(*seed)\n",
		"\tfor i := range seed {\n\t\tseed[i] = byte(i + 1)\n\t}\n\tglobalRand.state.Init(*seed)\n",
	},
	// In a bubble: map iteration, map seeds, math/rand/v2.
	{
		"runtime/rand.go", "\tmp := getg().m\n\tc := &mp.chacha8\n",
		"\tmp := getg().m\n\tif gp := mp.curg; gp != nil && gp.bubble != nil {\n\t\treturn simNext()\n\t}\n\tc := &mp.chacha8\n",
	},
	{
		"runtime/rand.go", "// mrandinit initializes the random state of an m.\n", `// simState is the state of the random numbers of the bubble.
var simState uint64

// simSeed sets the random numbers of the bubble.
//
//go:linkname simSeed github.com/nap-aks/nap/test/sim/world.seedRuntime
func simSeed(seed uint64) { simState = seed }

// simRun runs f in a bubble without a testing.T.
//
//go:linkname simRun github.com/nap-aks/nap/test/sim/world.runBubble
func simRun(f func()) { synctestRun(f) }

// simNext returns the next random number of the bubble (SplitMix64).
//
//go:nosplit
func simNext() uint64 {
	simState += 0x9e3779b97f4a7c15
	z := simState
	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9
	z = (z ^ (z >> 27)) * 0x94d049bb133111eb
	return z ^ (z >> 31)
}

// simFresh is whether small objects are allocated from new spans only.
var simFresh bool

// simReset forgets what is free in the heap's lists: memory, stacks and records that
// the start of the program left, whose number depends on real time. Addresses of
// later allocations, by which maps with pointers as keys are ordered, then depend on
// the bubble alone.
//
//go:linkname simReset github.com/nap-aks/nap/test/sim/world.resetHeap
func simReset() {
	if cap(allgs) < 1<<20 { // it would grow at another moment in each run
		larger := make([]*g, len(allgs), 1<<20)
		lock(&allglock)
		copy(larger, allgs)
		allgs = larger
		atomicstorep(unsafe.Pointer(&allgptr), unsafe.Pointer(&allgs[0]))
		unlock(&allglock)
	}
	systemstack(func() {
		pp := getg().m.p.ptr()
		c := getMCache(getg().m)
		c.releaseAll()
		stackcache_clear(c)
		for order := range stackpool {
			lock(&stackpool[order].item.mu)
			for stackpool[order].item.span.first != nil {
				stackpoolalloc(uint8(order))
			}
			unlock(&stackpool[order].item.mu)
		}
		lock(&mheap_.lock)
		pp.pcache.flush(&mheap_.pages)
		unlock(&mheap_.lock)
		pp.gFree = gList{}
		pp.sudogcache = pp.sudogbuf[:0]
		pp.deferpool = pp.deferpoolbuf[:0]
		lock(&sched.gFree.lock)
		sched.gFree.stack, sched.gFree.noStack = gList{}, gList{}
		unlock(&sched.gFree.lock)
		sched.sudogcache, sched.deferpool = nil, nil
		simFresh = true
	})
}

// mrandinit initializes the random state of an m.
`,
	},
	{
		"runtime/mcentral.go", "\tif s = c.partialSwept(sg).pop(); s != nil {\n",
		"\tif simFresh {\n\t\tif s = c.grow(); s == nil {\n\t\t\treturn nil\n\t\t}\n\t\tgoto havespan\n\t}\n\tif s = c.partialSwept(sg).pop(); s != nil {\n",
	},
	// Which ready case a select takes.
	{
		"runtime/select.go", "\t\tj := cheaprandn(uint32(norder + 1))\n",
		"\t\tvar j uint32\n\t\tif gp.bubble != nil {\n\t\t\tj = uint32(simNext() % uint64(norder+1))\n\t\t} else {\n\t\t\tj = cheaprandn(uint32(norder + 1))\n\t\t}\n",
	},
	// The order of timers that are due at the same moment.
	{"runtime/time.go", "\t\t\tt.rand = cheaprand()\n", "\t\t\tt.rand = uint32(simNext())\n"},
	// A goroutine that waits for a mutex waits for a goroutine of the bubble: code
	// that sleeps while holding a mutex must not stop the clock.
	{
		"runtime/runtime2.go", "\twaitReasonSyncCondWait:          true,\n",
		"\twaitReasonSyncCondWait:          true,\n\twaitReasonSyncMutexLock:         true,\n\twaitReasonSyncRWMutexRLock:      true,\n\twaitReasonSyncRWMutexLock:       true,\n",
	},
	// Mutexes change their order of service by real time.
	{"internal/sync/mutex.go", "\tstarvationThresholdNs = 1e6\n", "\tstarvationThresholdNs = 1 << 60\n"},
	// Goroutines are preempted after 10 ms of real time, and lose their P when a system
	// call takes longer than one round of the monitor.
	{"runtime/proc.go", "func retake(now int64) uint32 {\n", "func retake(now int64) uint32 {\n\tif gomaxprocs == 1 {\n\t\treturn 0\n\t}\n"},
	// The size of new stacks follows an average that the collector measures.
	{"runtime/runtime1.go", "debug.adaptivestackstart = 1", "debug.adaptivestackstart = 0"},
	// The count of scheduling rounds includes goroutines outside of the bubble.
	{"runtime/proc.go", "\tif pp.schedtick%61 == 0 && !sched.runq.empty() {\n", "\tif false && pp.schedtick%61 == 0 && !sched.runq.empty() {\n"},
}

func main() {
	if len(os.Args) < 2 {
		fmt.Fprintln(os.Stderr, "usage: simruntime build|test|vet… [arguments of go]")
		os.Exit(2)
	}
	err := run(os.Args[1], os.Args[2:])
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		os.Exit(exit.ExitCode())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "simruntime:", err)
		os.Exit(1)
	}
}

// run prepares the runtime and runs a go command with it.
func run(command string, args []string) error {
	goroot, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		return fmt.Errorf("finding the Go distribution: %w", err)
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return fmt.Errorf("finding a folder for the runtime: %w", err)
	}
	h := fnv.New64a()
	fmt.Fprintln(h, changes)
	dir := filepath.Join(cache, "nap", fmt.Sprintf("simruntime-%s-%x", runtime.Version(), h.Sum64()))
	if err := write(filepath.Join(strings.TrimSpace(string(goroot)), "src"), dir); err != nil {
		return err
	}
	root := filepath.Join(dir, "goroot")
	cmd := exec.Command(filepath.Join(root, "bin", "go"), append([]string{command, "-overlay", filepath.Join(dir, "overlay.json"), "-tags", "simruntime"}, args...)...)
	cmd.Env = append(os.Environ(), "GOROOT="+root, "GOTOOLCHAIN=local")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	return cmd.Run()
}

// write writes the changed files of the distribution at src, and overlay.json, to
// dir. Files that are there already and equal keep their modification time.
func write(src, dir string) error {
	texts := map[string]string{}
	for _, c := range changes {
		text, ok := texts[c.file]
		if !ok {
			b, err := os.ReadFile(filepath.Join(src, filepath.FromSlash(c.file)))
			if err != nil {
				return err
			}
			text = string(b)
		}
		if n := strings.Count(text, c.old); n != 1 {
			return fmt.Errorf("%s of %s has %d times, not once:\n%s\nthis Go release is another one than the changes were written for", c.file, src, n, c.old)
		}
		texts[c.file] = strings.Replace(text, c.old, c.new, 1)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	goroot := filepath.Join(dir, "goroot")
	if to, err := os.Readlink(goroot); err != nil || to != filepath.Dir(src) {
		if err := os.RemoveAll(goroot); err != nil {
			return err
		}
		if err := os.Symlink(filepath.Dir(src), goroot); err != nil {
			return err
		}
	}
	overlay := struct{ Replace map[string]string }{map[string]string{}}
	files := make([]string, 0, len(texts))
	for f := range texts {
		files = append(files, f)
	}
	slices.Sort(files)
	for _, f := range files {
		to := filepath.Join(dir, strings.ReplaceAll(f, "/", "_"))
		if err := replace(to, []byte(texts[f])); err != nil {
			return err
		}
		overlay.Replace[filepath.Join(goroot, "src", filepath.FromSlash(f))] = to
	}
	text, err := json.MarshalIndent(overlay, "", "\t")
	if err != nil {
		return err
	}
	return replace(filepath.Join(dir, "overlay.json"), append(text, '\n'))
}

// replace writes a file unless it has that content.
func replace(path string, content []byte) error {
	if old, err := os.ReadFile(path); err == nil && string(old) == string(content) {
		return nil
	}
	return os.WriteFile(path, content, 0o644)
}
