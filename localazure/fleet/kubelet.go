package fleet

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	"k8s.io/utils/clock"
	nodefast "sigs.k8s.io/kwok/kustomize/stage/node/fast"
	nodelease "sigs.k8s.io/kwok/kustomize/stage/node/heartbeat-with-lease"
	podfast "sigs.k8s.io/kwok/kustomize/stage/pod/fast"
	"sigs.k8s.io/kwok/pkg/apis/internalversion"
	"sigs.k8s.io/kwok/pkg/apis/v1alpha1"
	kwok "sigs.k8s.io/kwok/pkg/kwok/controllers"
	"sigs.k8s.io/yaml"
)

// DurationAnnotation on a pod tells how long its containers run before they
// complete, as a Go duration ("90s"). Without it pods of Jobs complete after 20
// to 60 seconds and pods that are Helm hooks after one; others run until they
// are deleted.
const DurationAnnotation = "nap.dev/run-for"

// jobStage ends the pods of Jobs.
const jobStage = `
apiVersion: kwok.x-k8s.io/v1alpha1
kind: Stage
metadata: {name: job-complete}
spec:
  resourceRef: {apiGroup: v1, kind: Pod}
  selector:
    matchExpressions:
    - {key: .metadata.deletionTimestamp, operator: DoesNotExist}
    - {key: .status.phase, operator: In, values: [Running]}
    - {key: '.metadata.ownerReferences.[].kind', operator: In, values: [Job]}
    - {key: '.metadata.annotations["nap.dev/run-for"]', operator: DoesNotExist}
  delay: {durationMilliseconds: 20000, jitterDurationMilliseconds: 40000}
  next:
    statusTemplate: |
      {{ $pod := . }}
      phase: Succeeded
      containerStatuses:
      {{ range $i, $c := .spec.containers }}
      {{ $was := index $pod.status.containerStatuses $i }}
      - name: {{ $c.name | Quote }}
        image: {{ $c.image | Quote }}
        ready: false
        started: false
        restartCount: 0
        state:
          terminated:
            exitCode: 0
            reason: Completed
            startedAt: {{ $was.state.running.startedAt | Quote }}
            finishedAt: {{ Now | Quote }}
      {{ end }}
      conditions:
      - {type: Ready, status: "False", reason: PodCompleted, lastTransitionTime: {{ Now | Quote }}}
      - {type: ContainersReady, status: "False", reason: PodCompleted, lastTransitionTime: {{ Now | Quote }}}
`

// timedStage ends the pods that say how long they run.
const timedStage = `
apiVersion: kwok.x-k8s.io/v1alpha1
kind: Stage
metadata: {name: timed-complete}
spec:
  resourceRef: {apiGroup: v1, kind: Pod}
  selector:
    matchExpressions:
    - {key: .metadata.deletionTimestamp, operator: DoesNotExist}
    - {key: .status.phase, operator: In, values: [Running]}
    - {key: '.metadata.annotations["nap.dev/run-for"]', operator: Exists}
  delay:
    durationFrom: {expressionFrom: '.metadata.annotations["nap.dev/run-for"]'}
    durationMilliseconds: 30000
`

// hookStage ends the pods that Helm runs as hooks, the tests of a chart among
// them: Helm waits until they have succeeded.
const hookStage = `
apiVersion: kwok.x-k8s.io/v1alpha1
kind: Stage
metadata: {name: hook-complete}
spec:
  resourceRef: {apiGroup: v1, kind: Pod}
  selector:
    matchExpressions:
    - {key: .metadata.deletionTimestamp, operator: DoesNotExist}
    - {key: .status.phase, operator: In, values: [Running]}
    - {key: '.metadata.annotations["helm.sh/hook"]', operator: Exists}
    - {key: .spec.restartPolicy, operator: NotIn, values: [Always]}
    - {key: '.metadata.ownerReferences.[].kind', operator: NotIn, values: [Job]}
    - {key: '.metadata.annotations["nap.dev/run-for"]', operator: DoesNotExist}
  delay: {durationMilliseconds: 1000}
`

func stages() (map[internalversion.StageResourceRef][]*internalversion.Stage, error) {
	node := internalversion.StageResourceRef{APIGroup: "v1", Kind: "Node"}
	pod := internalversion.StageResourceRef{APIGroup: "v1", Kind: "Pod"}
	out := map[internalversion.StageResourceRef][]*internalversion.Stage{}
	add := func(ref internalversion.StageResourceRef, text string, fill func(*v1alpha1.Stage)) (*v1alpha1.Stage, error) {
		var s v1alpha1.Stage
		if err := yaml.Unmarshal([]byte(text), &s); err != nil {
			return nil, fmt.Errorf("kubelet stage: %w", err)
		}
		if fill != nil {
			fill(&s)
		}
		in, err := internalversion.ConvertToInternalStage(&s)
		if err != nil {
			return nil, fmt.Errorf("kubelet stage %s: %w", s.Name, err)
		}
		out[ref] = append(out[ref], in)
		return &s, nil
	}
	for _, s := range []struct {
		ref  internalversion.StageResourceRef
		text string
		fill func(*v1alpha1.Stage)
	}{
		{node, nodefast.DefaultNodeInit, nil}, {node, nodelease.DefaultNodeHeartbeatWithLease, nil},
		{pod, podfast.DefaultPodReady, healthy}, {pod, podfast.DefaultPodReady, unhealthy}, {pod, podfast.DefaultPodDelete, withoutPreStop}, {pod, preStopStage, nil},
	} {
		if _, err := add(s.ref, s.text, s.fill); err != nil {
			return nil, err
		}
	}
	job, err := add(pod, jobStage, nil)
	if err != nil {
		return nil, err
	}
	for _, text := range []string{timedStage, hookStage} {
		if _, err := add(pod, text, func(s *v1alpha1.Stage) { s.Spec.Next = job.Spec.Next }); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// startKubelets plays the kubelets of a cluster's nodes until ctx ends. What it
// returns tells whether the kubelet of a node is among them.
func startKubelets(ctx context.Context, cfg *rest.Config, client kubernetes.Interface, c *clusterFleet, log *slog.Logger) (plays func(node string) bool, err error) {
	st, err := stages()
	if err != nil {
		return nil, err
	}
	dyn, err := dynamic.NewForConfig(cfg)
	if err != nil {
		return nil, fmt.Errorf("client: %w", err)
	}
	ctr, err := kwok.NewController(kwok.Config{
		Clock:                             clock.RealClock{},
		DynamicClient:                     dyn,
		RESTClient:                        client.CoreV1().RESTClient(),
		TypedClient:                       client,
		ManageNodesWithAnnotationSelector: managedAnnotation + "=fake",
		CIDR:                              c.podCIDR(),
		LocalStages:                       st,
		PodPlayStageParallelism:           16,
		NodePlayStageParallelism:          8,
		// Leases are the machines' own work (heartbeat): kwok's takes ten seconds
		// to take over the leases of its last run, and pods wait for that.
		PodsOnNodeSyncParallelism: 8,
		ID:                        "nap-fleet",
	})
	if err != nil {
		return nil, fmt.Errorf("kubelets: %w", err)
	}
	if err := ctr.Start(ctx); err != nil {
		return nil, fmt.Errorf("kubelets: %w", err)
	}
	go playVolumes(ctx, client, c.currentIntent, ctr.GetNodeCache().Get, log)
	go watchCilium(ctx, client, func(name string) bool {
		n, ok := ctr.GetNodeCache().Get(name)
		return ok && hasTaint(n, ciliumTaint)
	}, log)
	return func(node string) bool {
		_, ok := ctr.GetNodeCache().Get(node)
		return ok
	}, nil
}

// watchCilium takes the agent-not-ready taint off nodes whose agent runs, as
// Cilium's operator does: at once when the agent starts, and again whenever the
// taint is found on such a node.
func watchCilium(ctx context.Context, client kubernetes.Interface, tainted func(node string) bool, log *slog.Logger) {
	factory := informers.NewSharedInformerFactoryWithOptions(client, 0, informers.WithNamespace("kube-system"),
		informers.WithTweakListOptions(func(o *metav1.ListOptions) { o.LabelSelector = "k8s-app=cilium" }))
	pods := factory.Core().V1().Pods().Informer()
	clear := func(obj any) {
		p, ok := obj.(*corev1.Pod)
		if !ok || p.Status.Phase != corev1.PodRunning || p.Spec.NodeName == "" {
			return
		}
		if err := untaint(ctx, client, p.Spec.NodeName); err != nil && ctx.Err() == nil {
			log.Debug("Cilium's taint is still on, will look again", "node", p.Spec.NodeName, "error", err)
		}
	}
	if _, err := pods.AddEventHandler(cache.ResourceEventHandlerFuncs{
		UpdateFunc: func(old, now any) {
			if old.(*corev1.Pod).Status.Phase != now.(*corev1.Pod).Status.Phase {
				go clear(now)
			}
		},
	}); err != nil {
		log.Error("watching Cilium's agents", "error", err)
		return
	}
	factory.Start(ctx.Done())
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(time.Second):
		}
		for _, obj := range pods.GetStore().List() {
			if p := obj.(*corev1.Pod); p.Spec.NodeName != "" && tainted(p.Spec.NodeName) {
				clear(p)
			}
		}
	}
}

func hasTaint(n *corev1.Node, key string) bool {
	for _, t := range n.Spec.Taints {
		if t.Key == key {
			return true
		}
	}
	return false
}

func untaint(ctx context.Context, client kubernetes.Interface, node string) error {
	n, err := client.CoreV1().Nodes().Get(ctx, node, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return err
	}
	kept := make([]corev1.Taint, 0, len(n.Spec.Taints))
	for _, t := range n.Spec.Taints {
		if t.Key != ciliumTaint {
			kept = append(kept, t)
		}
	}
	if len(kept) == len(n.Spec.Taints) {
		return nil
	}
	patch, err := json.Marshal(map[string]any{
		"metadata": map[string]any{"resourceVersion": n.ResourceVersion},
		"spec":     map[string]any{"taints": kept},
	})
	if err != nil {
		return err
	}
	_, err = client.CoreV1().Nodes().Patch(ctx, node, types.MergePatchType, patch, metav1.PatchOptions{})
	return err
}
