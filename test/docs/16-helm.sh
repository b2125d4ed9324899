#!/usr/bin/env bash
# Copyright The nap Authors.
# SPDX-License-Identifier: Apache-2.0
#
# Helm, unmodified, on a cluster with node auto-provisioning, and nap's own chart.
. ./lib.sh
charts=$(cd ../../charts && pwd)
helm version --short
az group create --name "$RG" --location "$LOCATION"
az aks create -g "$RG" -n helm --node-provisioning-mode Auto --network-plugin azure --network-plugin-mode overlay --network-dataplane cilium --generate-ssh-keys
az aks get-credentials -g "$RG" -n helm
cd "$PAGE_DIR" || exit 1

section "A chart whose pods do not fit: --wait waits for machines (Helm waits for three quarters of the pods)"
helm create web
helm lint web
size=(--set resources.requests.cpu=1 --set resources.requests.memory=1Gi)
ready() { kubectl get deployment web -o jsonpath='{.status.readyReplicas}'; }
helm install web web --wait --timeout 4m --set replicaCount=20 "${size[@]}"
eventually 120 is 20 ready
some_nap_nodes
refused "cannot re-use a name" helm install web web
has "the releases" web-0.1.0 "$(helm list)"
equal "the state" deployed "$(helm status web -o json | sed 's/.*"status":"\([a-z]*\)".*/\1/')"

section "Upgrade, roll back, test"
helm upgrade web web --wait --timeout 4m --set replicaCount=30 "${size[@]}"
eventually 120 is 30 ready
helm rollback web 1 --wait --timeout 4m
eventually 120 is 20 ready
equal "the revision" 3 "$(helm list -o json | sed 's/.*"revision":"\([0-9]*\)".*/\1/')"
has "the history" "Rollback to 1" "$(helm history web)"
helm test web --timeout 2m

section "An upgrade that fits no machine is rolled back"
refused "has been rolled back" helm upgrade web web --atomic --timeout 30s --set replicaCount=20 --set resources.requests.cpu=9000
eventually 120 is 20 ready
equal "their CPU" 1 "$(kubectl get deployment web -o jsonpath='{.spec.template.spec.containers[0].resources.requests.cpu}')"

section "nap's own chart"
values=(--namespace kube-system --set image.repository=registry.example/nap-controller
  --set "clusterResourceID=$(az aks show -g "$RG" -n helm --query id -o tsv)")
helm lint "$charts/nap" "${values[@]}"
refused "which managed cluster" helm template nap "$charts/nap" --set image.repository=registry.example/nap-controller
helm template nap "$charts/nap" "${values[@]}" >nap.yaml
accepted=$(kubectl apply --dry-run=server -f nap.yaml)
echo "$accepted"
equal "the objects that the API server accepts" "$(grep -c '^kind:' nap.yaml)" "$(grep -c 'created (server dry run)' <<<"$accepted")"
helm install nap "$charts/nap" --dry-run=server "${values[@]}" >/dev/null

section "Uninstall: the machines are deleted"
helm uninstall web --wait
equal "the releases" "" "$(helm list -q)"
eventually 180 no_nap_nodes
az group delete --name "$RG" --yes
