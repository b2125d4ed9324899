// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"encoding/json"
	"fmt"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// operated are kinds that well-known operators turn into pods, and that have no pod
// template of their own by which they could be told.
var operated = map[schema.GroupKind]string{
	{Group: "monitoring.coreos.com", Kind: "Prometheus"}:               "the Prometheus operator",
	{Group: "monitoring.coreos.com", Kind: "PrometheusAgent"}:          "the Prometheus operator",
	{Group: "monitoring.coreos.com", Kind: "Alertmanager"}:             "the Prometheus operator",
	{Group: "monitoring.coreos.com", Kind: "ThanosRuler"}:              "the Prometheus operator",
	{Group: "kafka.strimzi.io", Kind: "Kafka"}:                         "Strimzi",
	{Group: "kafka.strimzi.io", Kind: "KafkaNodePool"}:                 "Strimzi",
	{Group: "kafka.strimzi.io", Kind: "KafkaConnect"}:                  "Strimzi",
	{Group: "kafka.strimzi.io", Kind: "KafkaBridge"}:                   "Strimzi",
	{Group: "kafka.strimzi.io", Kind: "KafkaMirrorMaker2"}:             "Strimzi",
	{Group: "core.strimzi.io", Kind: "StrimziPodSet"}:                  "Strimzi",
	{Group: "sparkoperator.k8s.io", Kind: "SparkApplication"}:          "the Spark operator",
	{Group: "sparkoperator.k8s.io", Kind: "ScheduledSparkApplication"}: "the Spark operator",
	{Group: "flink.apache.org", Kind: "FlinkDeployment"}:               "the Flink operator",
	{Group: "ray.io", Kind: "RayCluster"}:                              "KubeRay",
	{Group: "ray.io", Kind: "RayJob"}:                                  "KubeRay",
	{Group: "ray.io", Kind: "RayService"}:                              "KubeRay",
	{Group: "argoproj.io", Kind: "Rollout"}:                            "Argo Rollouts",
	{Group: "argoproj.io", Kind: "Workflow"}:                           "Argo Workflows",
	{Group: "argoproj.io", Kind: "CronWorkflow"}:                       "Argo Workflows",
	{Group: "argoproj.io", Kind: "Application"}:                        "Argo CD",
	{Group: "argoproj.io", Kind: "ApplicationSet"}:                     "Argo CD",
	{Group: "tekton.dev", Kind: "PipelineRun"}:                         "Tekton",
	{Group: "tekton.dev", Kind: "TaskRun"}:                             "Tekton",
	{Group: "apps.kruise.io", Kind: "CloneSet"}:                        "OpenKruise",
	{Group: "apps.kruise.io", Kind: "StatefulSet"}:                     "OpenKruise",
	{Group: "apps.kruise.io", Kind: "DaemonSet"}:                       "OpenKruise",
	{Group: "apps.kruise.io", Kind: "AdvancedCronJob"}:                 "OpenKruise",
	{Group: "apps.kruise.io", Kind: "BroadcastJob"}:                    "OpenKruise",
	{Group: "batch.volcano.sh", Kind: "Job"}:                           "Volcano",
	{Group: "kubeflow.org", Kind: "PyTorchJob"}:                        "the Kubeflow training operator",
	{Group: "kubeflow.org", Kind: "TFJob"}:                             "the Kubeflow training operator",
	{Group: "kubeflow.org", Kind: "MPIJob"}:                            "the Kubeflow training operator",
	{Group: "jobset.x-k8s.io", Kind: "JobSet"}:                         "JobSet",
	{Group: "leaderworkerset.x-k8s.io", Kind: "LeaderWorkerSet"}:       "LeaderWorkerSet",
	{Group: "serving.knative.dev", Kind: "Service"}:                    "Knative",
	{Group: "serving.kserve.io", Kind: "InferenceService"}:             "KServe",
	{Group: "kaito.sh", Kind: "Workspace"}:                             "KAITO",
	{Group: "keda.sh", Kind: "ScaledJob"}:                              "KEDA",
	{Group: "postgresql.cnpg.io", Kind: "Cluster"}:                     "CloudNativePG",
	{Group: "elasticsearch.k8s.elastic.co", Kind: "Elasticsearch"}:     "the Elastic operator",
	{Group: "kibana.k8s.elastic.co", Kind: "Kibana"}:                   "the Elastic operator",
	{Group: "redis.redis.opstreelabs.in", Kind: "RedisCluster"}:        "the Redis operator",
	{Group: "rabbitmq.com", Kind: "RabbitmqCluster"}:                   "the RabbitMQ operator",
	{Group: "cassandra.datastax.com", Kind: "CassandraDatacenter"}:     "the Cassandra operator",
	{Group: "mongodbcommunity.mongodb.com", Kind: "MongoDBCommunity"}:  "the MongoDB operator",
	{Group: "opentelemetry.io", Kind: "OpenTelemetryCollector"}:        "the OpenTelemetry operator",
	{Group: "jaegertracing.io", Kind: "Jaeger"}:                        "the Jaeger operator",
	{Group: "helm.toolkit.fluxcd.io", Kind: "HelmRelease"}:             "Flux",
	{Group: "kustomize.toolkit.fluxcd.io", Kind: "Kustomization"}:      "Flux",
	{Group: "helm.cattle.io", Kind: "HelmChart"}:                       "the Helm controller",
	{Group: "apps.openshift.io", Kind: "DeploymentConfig"}:             "OpenShift",
}

// unread are kinds that a decision depends on in a cluster, and that a plan of files
// does not read, with what they would change.
var unread = map[schema.GroupKind]string{
	{Kind: "ResourceQuota"}:                                                         "the number of pods that may be created",
	{Kind: "PodTemplate"}:                                                           "pods, if a controller uses it",
	{Group: "karpenter.sh", Kind: "NodeOverlay"}:                                    "prices and resources of machines",
	{Group: "autoscaling.x-k8s.io", Kind: "CapacityBuffer"}:                         "placeholder pods",
	{Group: "autoscaling.k8s.io", Kind: "VerticalPodAutoscaler"}:                    "the requests of its pods",
	{Group: "storage.k8s.io", Kind: "CSIStorageCapacity"}:                           "where volumes can be made",
	{Group: "storage.k8s.io", Kind: "VolumeAttachment"}:                             "how many volumes nodes have",
	{Group: "admissionregistration.k8s.io", Kind: "MutatingWebhookConfiguration"}:   "pods, as they are created",
	{Group: "admissionregistration.k8s.io", Kind: "MutatingAdmissionPolicy"}:        "pods, as they are created",
	{Group: "admissionregistration.k8s.io", Kind: "ValidatingWebhookConfiguration"}: "which pods are created",
	{Group: "admissionregistration.k8s.io", Kind: "ValidatingAdmissionPolicy"}:      "which pods are created",
	{Group: "resource.k8s.io", Kind: "ResourceClaim"}:                               "which devices pods get",
	{Group: "resource.k8s.io", Kind: "ResourceClaimTemplate"}:                       "which devices pods get",
	{Group: "resource.k8s.io", Kind: "ResourceSlice"}:                               "which devices nodes have",
	{Group: "resource.k8s.io", Kind: "DeviceClass"}:                                 "which devices pods get",
	{Group: "scheduling.k8s.io", Kind: "Workload"}:                                  "which pods are placed together",
	{Group: "scheduling.k8s.io", Kind: "PodGroup"}:                                  "which pods are placed together",
	{Group: "kueue.x-k8s.io", Kind: "ClusterQueue"}:                                 "when suspended Jobs run",
	{Group: "kyverno.io", Kind: "ClusterPolicy"}:                                    "pods, as they are created",
	{Group: "kyverno.io", Kind: "Policy"}:                                           "pods, as they are created",
	{Group: "policy.open-cluster-management.io", Kind: "Policy"}:                    "other objects",
	{Group: "karpenter.k8s.aws", Kind: "EC2NodeClass"}:                              "machines of AWS, which a plan for Azure does not have",
	{Group: "karpenter.k8s.gcp", Kind: "GCENodeClass"}:                              "machines of Google, which a plan for Azure does not have",
}

// left notes an object of a kind that Kubernetes has and plans do not read.
func (m *manifests) left(kind schema.GroupVersionKind) {
	if what := unread[kind.GroupKind()]; what != "" {
		m.note("ignored %s: in a cluster it may change %s", kindName(kind), what)
		return
	}
	m.note("ignored %s: it does not affect the plan", kind.Kind)
}

// kindName names a kind with its version.
func kindName(kind schema.GroupVersionKind) string {
	return kind.Kind + " (" + kind.GroupVersion().String() + ")"
}

// foreign notes an object of a kind that is not Kubernetes' own. If it makes pods, the
// note says that they are missing.
func (m *manifests) foreign(u *unstructured.Unstructured, text []byte) {
	if s := scalerOf(u); s != nil {
		if s.namespace == "" {
			s.namespace = metav1.NamespaceDefault
		}
		m.workloads.scalers = append(m.workloads.scalers, s)
		return
	}
	kind := u.GroupVersionKind()
	replicas := ""
	if n, ok := number(u.Object, "spec", "replicas"); ok {
		replicas = fmt.Sprintf(" (spec.replicas is %d)", n)
	}
	by := operated[kind.GroupKind()]
	switch {
	case by != "":
		m.note("%s: %s makes pods of it%s, which are not in the plan; add the workloads or pods that it makes", describe(u)+" ("+kind.GroupVersion().String()+")", by, replicas)
	case hasPodTemplate(text):
		m.note("%s has a pod template%s: its controller is not known, and its pods are not in the plan; add the workloads or pods that it makes", describe(u)+" ("+kind.GroupVersion().String()+")", replicas)
	case unread[kind.GroupKind()] != "":
		m.note("ignored %s: in a cluster it may change %s", kindName(kind), unread[kind.GroupKind()])
	case kind.Group == "kustomize.config.k8s.io":
		m.kustomization = true
	default:
		m.note("ignored %s: its kind is not known; pods that a controller makes of it are not in the plan", kindName(kind))
	}
}

// number returns an integer field of an object.
func number(o map[string]any, path ...string) (int64, bool) {
	v, ok, err := unstructured.NestedFieldNoCopy(o, path...)
	if err != nil || !ok {
		return 0, false
	}
	switch n := v.(type) {
	case int64:
		return n, true
	case float64:
		return int64(n), n == float64(int64(n))
	}
	return 0, false
}

// hasPodTemplate reports whether an object has a pod template anywhere: a template
// with containers.
func hasPodTemplate(text []byte) bool {
	var v any
	if json.Unmarshal(text, &v) != nil {
		return false
	}
	return findTemplate(v)
}

func findTemplate(v any) bool {
	switch t := v.(type) {
	case map[string]any:
		if spec, ok := t["spec"].(map[string]any); ok && isPodSpec(spec) {
			return true
		}
		for _, x := range t {
			if findTemplate(x) {
				return true
			}
		}
	case []any:
		for _, x := range t {
			if findTemplate(x) {
				return true
			}
		}
	}
	return false
}

// isPodSpec reports whether a map has containers with images.
func isPodSpec(spec map[string]any) bool {
	list, ok := spec["containers"].([]any)
	if !ok || len(list) == 0 {
		return false
	}
	c, ok := list[0].(map[string]any)
	return ok && c["image"] != nil
}
