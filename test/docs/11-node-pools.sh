#!/usr/bin/env bash
# Copyright The nap Authors.
# SPDX-License-Identifier: Apache-2.0
#
# NodePools, AKSNodeClasses and disruption.
. ./lib.sh
az group create --name "$RG" --location "$LOCATION"
az aks create -g "$RG" -n pools --node-count 1 --node-provisioning-mode Auto --node-provisioning-default-pools None \
  --network-plugin azure --network-plugin-mode overlay --network-dataplane cilium --generate-ssh-keys
az aks get-credentials -g "$RG" -n pools

section "An AKSNodeClass, and a NodePool of spot machines of one family"
kubectl apply -f - <<'YAML'
apiVersion: karpenter.azure.com/v1beta1
kind: AKSNodeClass
metadata: { name: linux }
spec:
  imageFamily: AzureLinux
  osDiskSizeGB: 128
  maxPods: 60
  tags: { team: nap }
---
apiVersion: karpenter.sh/v1
kind: NodePool
metadata: { name: spot }
spec:
  weight: 10
  limits: { cpu: "64" }
  disruption:
    consolidationPolicy: WhenEmptyOrUnderutilized
    consolidateAfter: 5s
    budgets:
      - nodes: 20%
      - { nodes: "0", schedule: "@daily", duration: 10m, reasons: [Drifted] }
  template:
    metadata: { labels: { team: nap } }
    spec:
      nodeClassRef: { group: karpenter.azure.com, kind: AKSNodeClass, name: linux }
      expireAfter: 720h
      requirements:
        - { key: karpenter.sh/capacity-type, operator: In, values: [spot] }
        - { key: karpenter.azure.com/sku-family, operator: In, values: [D] }
        - { key: kubernetes.io/arch, operator: In, values: [amd64] }
        - { key: karpenter.azure.com/sku-cpu, operator: Lt, values: ["17"] }
YAML
eventually 60 is True kubectl get aksnodeclass linux -o 'jsonpath={.status.conditions[?(@.type=="Ready")].status}'
eventually 60 is True kubectl get nodepool spot -o 'jsonpath={.status.conditions[?(@.type=="Ready")].status}'

section "Pods that require spot"
kubectl apply -f - <<'YAML'
apiVersion: apps/v1
kind: Deployment
metadata: { name: batch }
spec:
  replicas: 6
  selector: { matchLabels: { app: batch } }
  template:
    metadata: { labels: { app: batch } }
    spec:
      nodeSelector: { karpenter.sh/capacity-type: spot }
      tolerations: [{ key: kubernetes.azure.com/scalesetpriority, operator: Exists }]
      containers:
        - name: c
          image: registry.k8s.io/pause:3.9
          resources: { requests: { cpu: "3", memory: 1Gi } }
YAML
eventually 120 is 6 kubectl get deployment batch -o jsonpath='{.status.readyReplicas}'
equal "the capacity types" spot "$(kubectl get nodes -l karpenter.sh/nodepool=spot -o jsonpath='{range .items[*]}{.metadata.labels.karpenter\.sh/capacity-type}{"\n"}{end}' | sort -u)"
equal "the families" D "$(kubectl get nodes -l karpenter.sh/nodepool=spot -o jsonpath='{range .items[*]}{.metadata.labels.karpenter\.azure\.com/sku-family}{"\n"}{end}' | sort -u)"
equal "the label of the pool" nap "$(kubectl get nodes -l karpenter.sh/nodepool=spot -o jsonpath='{.items[0].metadata.labels.team}')"
equal "the pods of a node" 60 "$(kubectl get nodes -l karpenter.sh/nodepool=spot -o jsonpath='{.items[0].status.capacity.pods}')"

section "The limit is respected"
kubectl scale deployment batch --replicas=60
sleep 15
cpu=$(kubectl get nodes -l karpenter.sh/nodepool=spot -o jsonpath='{range .items[*]}{.status.capacity.cpu}{"\n"}{end}' | awk '{n += $1} END {print n}')
[ "$cpu" -le 64 ] || { echo "FAILED: $cpu cores, the limit is 64" >&2; exit 1; }

section "The API refuses invalid objects"
refused "consolidationPolicy" kubectl patch nodepool spot --type merge -p '{"spec":{"disruption":{"consolidationPolicy":"Sometimes"}}}'
refused "imageFamily" kubectl patch aksnodeclass linux --type merge -p '{"spec":{"imageFamily":"Windows"}}'

section "Fewer pods, fewer nodes"
before=$(nap_nodes | wc -l)
kubectl scale deployment batch --replicas=2
fewer() { [ "$(nap_nodes | wc -l)" -lt "$before" ]; }
eventually 240 fewer
kubectl delete nodepool spot --timeout=180s
eventually 120 no_nap_nodes
az group delete --name "$RG" --yes
