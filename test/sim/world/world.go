// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

// Package world lives through scenarios: it puts the real controllers, scheduler and
// provider with the simulated API server, cloud and kubelets into one bubble of
// simulated time, carries out what the scenario says, and watches over the result. See
// docs/designs/0014-simulated-time.md.
package world

import (
	"context"
	cryptorand "crypto/rand"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"runtime/pprof"
	"sync"
	"syscall"
	"testing/synctest"
	"time"

	"github.com/google/uuid"
	utilrand "k8s.io/apimachinery/pkg/util/rand"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/utils/clock"

	"github.com/nap-aks/nap/apis"
	"github.com/nap-aks/nap/apis/v1beta1"
	"github.com/nap-aks/nap/cmd/nap-sim/app"
	"github.com/nap-aks/nap/controllers"
	"github.com/nap-aks/nap/internal/version"
	"github.com/nap-aks/nap/test/sim/apiserver"
	"github.com/nap-aks/nap/test/sim/cloud"
	"github.com/nap-aks/nap/test/sim/kube"
	"github.com/nap-aks/nap/test/sim/report"
	"github.com/nap-aks/nap/test/sim/scenario"
)

// Names of the clients, as scenarios and results have them.
const (
	napClient        = "nap"
	schedulerClient  = "kube-scheduler"
	controllerClient = "kube-controller-manager"
	azureClient      = "azure"
)

// world is one run of a scenario.
type world struct {
	scenario *scenario.Scenario
	plan     *scenario.Plan
	options  app.RunOptions
	settings scenario.Settings

	start    time.Time
	api      *apiserver.Server
	cloud    *cloud.Cloud
	kubelets *cloud.Kubelets
	recorder *report.Recorder
	watch    *watch
	check    *invariants
	faults   *faults
	planner  planner
	ideal    Ideal
	log      logBook
	replicas map[string]int32 // first replicas of workloads

	mu      sync.Mutex
	rng     *rand.Rand // latencies
	process *process   // the controllers
}

var _ app.Runner = Run

// Run lives through a scenario. It can be called once in a process, and changes
// settings of the process. It returns an error if there was no result.
func Run(_ context.Context, s *scenario.Scenario, o app.RunOptions) (res *report.Result, err error) {
	if o.Engine == "" {
		o.Engine = controllers.EngineNAP
	}
	plan, err := s.Compile(o.Seed)
	if err != nil {
		return nil, err
	}
	w := &world{scenario: s, plan: plan, options: o, settings: plan.Settings, replicas: map[string]int32{}}
	runtime.GOMAXPROCS(1)
	debug.SetGCPercent(-1)
	// Finalizers and cleanups of the start run now. Without a sleep: an idle processor
	// makes the runtime start threads, whose records are on the heap.
	for range 3 {
		runtime.GC()
		for range 100 {
			runtime.Gosched()
		}
	}
	if path := os.Getenv(profileVariable); path != "" {
		stop, err := startProfile(path)
		if err != nil {
			return nil, err
		}
		defer stop()
	}
	before := cpuTime()
	defer func() {
		// The programs have no end; that goroutines are left is no error.
		if p := recover(); p != nil && res == nil && err == nil {
			err = fmt.Errorf("scenario %s, seed %d: %v", s.Name, o.Seed, p)
		}
		if res != nil {
			res.Summary.SetCPU((cpuTime() - before).Seconds())
			res.Version = version.Get().String()
		}
	}()
	runBubble(func() {
		seedRuntime(o.Seed)
		freshHeap()
		utilrand.Seed(int64(o.Seed))
		cryptorand.Reader = readerOf(scenario.Stream(o.Seed, "crypto"))
		seedCrypto(cryptorand.Reader)
		uuid.SetRand(readerOf(scenario.Stream(o.Seed, "uuid")))
		res, err = w.live()
	})
	return res, err
}

// profileVariable is the environment variable with the path of a CPU profile of the run.
const profileVariable = "NAP_SIM_CPUPROFILE"

// startProfile writes a CPU profile until the function that it returns is called.
func startProfile(path string) (stop func(), err error) {
	f, err := os.Create(path)
	if err != nil {
		return nil, fmt.Errorf("writing the CPU profile: %w", err)
	}
	if err := pprof.StartCPUProfile(f); err != nil {
		return nil, fmt.Errorf("writing the CPU profile: %w", err)
	}
	return func() {
		pprof.StopCPUProfile()
		_ = f.Close()
	}, nil
}

// randomReader reads random bytes.
type randomReader struct{ r *rand.Rand }

func readerOf(r *rand.Rand) randomReader { return randomReader{r} }

// Read implements io.Reader.
func (r randomReader) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = byte(r.r.Uint32())
	}
	return len(p), nil
}

func cpuTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func span(r scenario.Range) cloud.Span { return cloud.Span{Min: r.Min, Max: r.Max} }

// since returns the simulated time.
func (w *world) since() time.Duration { return time.Since(w.start) }

// live is the run, in the bubble.
func (w *world) live() (*report.Result, error) {
	w.start = time.Now()
	w.rng = scenario.Stream(w.options.Seed, "latency")
	w.planner.location = w.settings.Location
	w.recorder = report.NewRecorder(report.Options{KeepHistory: w.options.History})
	w.faults = newFaults(w)
	if err := w.build(); err != nil {
		return nil, err
	}
	for _, a := range w.plan.Start {
		if err := w.do(a); err != nil {
			return nil, err
		}
	}
	ctx := context.Background()
	if err := w.startControlPlane(ctx); err != nil {
		return nil, err
	}
	w.startControllers(ctx)
	go w.inspect(ctx)

	end := w.start.Add(w.plan.Duration)
	for _, a := range w.plan.Actions {
		if at := w.start.Add(a.At); at.After(end) {
			break
		} else if d := time.Until(at); d > 0 {
			time.Sleep(d)
		}
		if err := w.do(a); err != nil {
			return nil, fmt.Errorf("line %d: %w", a.Line, err)
		}
		if a.At >= w.plan.LastEvent {
			w.check.quietSince = time.Now()
		}
	}
	if d := time.Until(w.start.Add(w.plan.LastEvent)); d > 0 {
		time.Sleep(d)
	}
	w.check.quietSince = time.Now()
	if d := time.Until(end); d > 0 {
		time.Sleep(d)
	}
	if err := w.measure(); err != nil {
		return nil, err
	}
	w.look()
	w.watch.sample()
	w.recordCalls()
	res := w.recorder.Finish(w.scenario, w.plan, w.options.Engine, w.options.Seed)
	if w.options.Log {
		res.Log = w.log.all()
	}
	return res, nil
}

// build makes the API server, the cloud, the kubelets and the observers.
func (w *world) build() error {
	if err := v1beta1.AddToScheme(scheme.Scheme); err != nil {
		return err
	}
	kubernetes := "v" + w.settings.Kubernetes
	if w.settings.Nominations == "off" {
		kubernetes = "v1.34.0" // whose scheduler does not honour them
	}
	var err error
	w.api, err = apiserver.New(apiserver.Options{
		Seed: w.options.Seed, Version: kubernetes, Scheme: scheme.Scheme, CRDs: apis.CRDs(),
		Intercept: w.faults.request, WatchDelay: w.faults.watchDelay,
	})
	if err != nil {
		return fmt.Errorf("building the API server: %w", err)
	}
	w.cloud, err = cloud.New(cloud.Options{
		Rand: scenario.Stream(w.options.Seed, "cloud"), Location: w.settings.Location, Kubernetes: w.settings.Kubernetes,
		Latency: span(w.settings.AzureLatency), Create: span(w.settings.Create), Boot: span(w.settings.Boot),
		Quotas: w.settings.Quotas, Intercept: w.faults.azure,
	})
	if err != nil {
		return fmt.Errorf("building the cloud: %w", err)
	}
	w.cloud.OnLaunch(w.faults.launch)
	w.check = newInvariants(Limits{
		Stranded: time.Duration(w.plan.Invariants.AssumedFor), Converge: time.Duration(w.plan.Invariants.ConvergedAfter),
		Leak: max(time.Duration(w.plan.Invariants.FleetDelay), 16*time.Minute), Objects: w.plan.Invariants.MaxObjects,
	}, w.api, w.vms, clock.RealClock{})
	w.watch = newWatch(w)
	w.api.Subscribe(w.watch.changed)
	w.cloud.Subscribe(w.watch.machine)
	nodeGone := time.Duration(0)
	if w.settings.Machine == "laptop" {
		nodeGone = -1 // the local Azure deletes the Node with its machine
	}
	w.kubelets = cloud.StartKubelets(w.api, w.cloud, cloud.KubeletOptions{
		Rand: scenario.Stream(w.options.Seed, "kubelets"), Ready: span(w.settings.Ready), PodStart: span(w.settings.PodStart), PodStop: span(w.settings.PodStop),
		Location: w.settings.Location, NodeGone: nodeGone,
	})
	return w.kubelets.AddSystemNodes(w.settings.SystemNodes.Count, w.settings.SystemNodes.Size, w.settings.Kubernetes)
}

// vms returns the machines as the invariants see them.
func (w *world) vms() []VM {
	list := w.cloud.Machines()
	out := make([]VM, len(list))
	for i, m := range list {
		out[i] = vm(m)
		out[i].Booted = m.Booted
	}
	return out
}

func vm(m *cloud.Machine) VM {
	return VM{Name: m.Name, ProviderID: m.ProviderID, NodePool: m.NodePool, NodeName: m.NodeName, Claim: m.Claim, Alive: m.Alive(), Broken: m.Broken}
}

func (w *world) startControlPlane(ctx context.Context) error {
	laptop := w.settings.Machine == "laptop"
	s, c := kube.SchedulerOptions{QPS: 50, Burst: 100}, kube.StockControllers()
	if laptop {
		s, c = kube.LocalScheduler(), kube.LocalControllers()
	} else {
		c.QPS, c.Burst = float32(w.settings.ControllerQPS), int(w.settings.ControllerQPS*1.5)
	}
	s.CycleTime, s.MarkRate = time.Duration(w.settings.SchedulerCycle), w.settings.SchedulerMarks
	if _, err := kube.StartScheduler(ctx, w.api.Config(schedulerClient), s); err != nil {
		return err
	}
	if _, err := kube.StartControllers(ctx, w.api.Config(controllerClient), c); err != nil {
		return err
	}
	_, err := kube.StartGarbageCollector(ctx, w.api.Config(controllerClient), w.api, kube.LocalGarbage())
	return err
}

// restartDelay is how long a supervisor waits before it starts a program again.
const restartDelay = 2 * time.Second

// startControllers starts the controllers under test, and starts them again when they
// end by themselves.
func (w *world) startControllers(ctx context.Context) {
	p := w.newControllers(ctx)
	w.mu.Lock()
	w.process = p
	w.mu.Unlock()
	go func() {
		<-p.ended
		if p.dead.Load() {
			return // whoever killed it starts it again
		}
		w.log.add(fmt.Sprintf("%v the controllers ended: %v", w.since(), p.err))
		time.Sleep(restartDelay)
		w.startControllers(ctx)
	}()
}

// newControllers starts one replica of the controllers.
func (w *world) newControllers(ctx context.Context) *process {
	return startProcess(ctx, func(ctx context.Context, p *process) error {
		api := w.api.Config(napClient)
		api.Transport = p.gate(api.Transport)
		logger := w.log.logger(napClient)
		err := controllers.Run(ctx, controllers.Options{
			API: api, Azure: w.cloud.Config(p.gate(w.cloud.Transport())), MetricsPort: -1, HealthPort: -1, DisableLeaderElection: true,
			Engine: w.options.Engine, BatchIdle: time.Duration(w.settings.BatchIdle), BatchMax: time.Duration(w.settings.BatchMax),
			FeatureGates: featureGates(w.settings.FeatureGates), Logger: &logger, WithoutStateMetrics: true, Repeated: true,
		})
		if errors.Is(err, context.Canceled) {
			return nil
		}
		return err
	})
}

// crash kills the controllers and starts them again after a delay.
func (w *world) crash(delay time.Duration) {
	w.mu.Lock()
	p := w.process
	w.mu.Unlock()
	if p == nil || p.dead.Load() {
		return
	}
	p.kill()
	go func() {
		time.Sleep(delay)
		w.startControllers(context.Background())
	}()
}

// inspect checks the invariants, measures and collects garbage until the run ends.
func (w *world) inspect(ctx context.Context) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	next := w.start
	for ctx.Err() == nil {
		<-tick.C
		if now := time.Now(); !now.Before(next) {
			next = now.Add(time.Duration(w.settings.SampleEvery))
			if err := w.measure(); err != nil {
				w.log.add(err.Error())
			}
		}
		w.look()
		w.collect()
	}
}

// look checks the invariants and records what is new.
func (w *world) look() {
	w.check.check()
	w.watch.violations()
}

// recordCalls tells the recorder how many requests each client has made.
func (w *world) recordCalls() {
	sum := map[string]int{}
	for k, n := range w.api.Calls() {
		sum[k.Client] += n
	}
	for _, client := range []string{napClient, schedulerClient, controllerClient} {
		w.recorder.Calls(client, sum[client])
	}
	w.recorder.Calls(azureClient, w.faults.azureCalls())
}

// heapLimit is how much memory is allocated between two collections.
const heapLimit = 1 << 30

// collect collects garbage, if there is enough of it. It runs in the tick in which the
// invariants are checked; the order of goroutines does not depend on when it happens,
// because all others of the bubble are blocked.
func (w *world) collect() {
	metrics.Read(heap)
	if heap[0].Value.Uint64() < heapLimit+live {
		return
	}
	synctest.Wait()
	runtime.GC()
	metrics.Read(heap)
	live = heap[0].Value.Uint64()
}

var (
	heap = []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}
	live uint64 // after the last collection
)

func featureGates(gates map[string]bool) string {
	out := ""
	for _, name := range sortedKeys(gates) {
		if out != "" {
			out += ","
		}
		out += fmt.Sprintf("%s=%t", name, gates[name])
	}
	return out
}

// measure brings the ideal cost up to date.
func (w *world) measure() error {
	src, err := w.snapshot()
	if err != nil {
		return err
	}
	w.ideal, err = w.planner.ideal(src)
	if err != nil {
		return err
	}
	w.watch.sample()
	return nil
}
