#!/usr/bin/env bash
# Copyright The nap Authors.
# SPDX-License-Identifier: Apache-2.0
#
# Fixed node pools: draining, upgrade settings, the cluster autoscaler.
. ./lib.sh
az group create --name "$RG" --location "$LOCATION"
az aks create -g "$RG" -n fixed --node-count 1 --network-plugin azure --network-plugin-mode overlay --network-dataplane cilium --generate-ssh-keys
az aks get-credentials -g "$RG" -n fixed
az aks nodepool add -g "$RG" --cluster-name fixed -n work --node-count 2 --drain-timeout 1 --max-surge 50% --labels tier=work

section "A PodDisruptionBudget prevents a drain"
kubectl apply -f - <<'YAML'
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata: { name: web }
spec: { maxUnavailable: 0, selector: { matchLabels: { app: web } } }
---
apiVersion: apps/v1
kind: Deployment
metadata: { name: web }
spec:
  replicas: 4
  selector: { matchLabels: { app: web } }
  template:
    metadata: { labels: { app: web } }
    spec:
      nodeSelector: { tier: work }
      topologySpreadConstraints:
        - { maxSkew: 1, topologyKey: kubernetes.io/hostname, whenUnsatisfiable: DoNotSchedule, labelSelector: { matchLabels: { app: web } } }
      containers:
        - { name: c, image: "registry.k8s.io/pause:3.9", resources: { requests: { cpu: 100m } } }
YAML
eventually 60 is 4 kubectl get deployment web -o jsonpath='{.status.readyReplicas}'
az aks nodepool scale -g "$RG" --cluster-name fixed -n work --node-count 1 --no-wait
state() { az aks nodepool show -g "$RG" --cluster-name fixed -n work --query provisioningState -o tsv; }
cordoned() { kubectl get nodes -l tier=work --field-selector spec.unschedulable=true -o name | wc -l; }
equal "the state" Scaling "$(state)"
eventually 30 is 1 cordoned
az aks nodepool operation-abort -g "$RG" --cluster-name fixed -n work
eventually 30 is Canceled state
eventually 30 is 0 cordoned
equal "the nodes" 2 "$(az aks nodepool show -g "$RG" --cluster-name fixed -n work --query count -o tsv)"
refused "PodDrainFailure" az aks nodepool scale -g "$RG" --cluster-name fixed -n work --node-count 1
kubectl patch pdb web --type merge -p '{"spec":{"maxUnavailable":2}}'
az aks nodepool scale -g "$RG" --cluster-name fixed -n work --node-count 1
eventually 30 is 4 kubectl get deployment web -o jsonpath='{.status.readyReplicas}'

section "The cluster autoscaler"
az aks update -g "$RG" -n fixed --cluster-autoscaler-profile scan-interval=1s scale-down-unneeded-time=5s scale-down-delay-after-add=5s scale-down-delay-after-delete=1s expander=least-waste
az aks nodepool update -g "$RG" --cluster-name fixed -n work --enable-cluster-autoscaler --min-count 1 --max-count 3
count() { az aks nodepool show -g "$RG" --cluster-name fixed -n work --query count -o tsv; }
kubectl set resources deployment web --requests=cpu=1
kubectl scale deployment web --replicas=8
eventually 120 is 8 kubectl get deployment web -o jsonpath='{.status.readyReplicas}'
has "the events" TriggeredScaleUp "$(kubectl get events -A --field-selector source=cluster-autoscaler)"
has "the status" "autoscalerStatus: Running" "$(kubectl -n kube-system get configmap cluster-autoscaler-status -o yaml)"
kubectl scale deployment web --replicas=1
eventually 120 is 1 count
az aks nodepool update -g "$RG" --cluster-name fixed -n work --update-cluster-autoscaler --min-count 2 --max-count 4
equal "the nodes" 2 "$(count)"
az aks nodepool update -g "$RG" --cluster-name fixed -n work --disable-cluster-autoscaler

section "Delete a machine by name, and a pool regardless of budgets"
machine=$(az aks machine list -g "$RG" --cluster-name fixed --nodepool-name work --query '[0].name' -o tsv)
az aks nodepool delete-machines -g "$RG" --cluster-name fixed -n work --machine-names "$machine"
equal "the nodes" 1 "$(count)"
kubectl patch pdb web --type merge -p '{"spec":{"maxUnavailable":0}}'
az aks nodepool delete -g "$RG" --cluster-name fixed -n work --ignore-pdb
exits 3 az aks nodepool show -g "$RG" --cluster-name fixed -n work

section "Stop and start"
az aks stop -g "$RG" -n fixed
equal "the power" Stopped "$(az aks show -g "$RG" -n fixed --query powerState.code -o tsv)"
az aks start -g "$RG" -n fixed
eventually 60 kubectl get nodes
az group delete --name "$RG" --yes
