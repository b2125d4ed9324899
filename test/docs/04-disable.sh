#!/usr/bin/env bash
# Copyright The nap Authors.
# SPDX-License-Identifier: Apache-2.0
#
# Disabling node auto-provisioning as documented.
. ./lib.sh
az group create --name "$RG" --location "$LOCATION"
az aks create -g "$RG" -n naps --node-count 2 --node-provisioning-mode Auto --network-plugin azure --network-plugin-mode overlay --network-dataplane cilium --generate-ssh-keys
az aks get-credentials -g "$RG" -n naps
kubectl create deployment web --image=registry.k8s.io/pause:3.9 --replicas=0
kubectl set resources deployment web --requests=cpu=1,memory=1Gi
kubectl scale deployment web --replicas=10
eventually 120 is 10 kubectl get deployment web -o jsonpath='{.status.readyReplicas}'
node=$(nap_nodes | sed -n 1p)

section "Refused while provisioned nodes exist, with their names"
refused "${node#node/}" az aks update -g "$RG" -n naps --node-provisioning-mode Manual
equal "the mode" Auto "$(az aks show -g "$RG" -n naps --query nodeProvisioningProfile.mode -o tsv)"

section "No new nodes, and a taint on the existing ones"
for pool in $(kubectl get nodepools -o name); do
  kubectl patch "$pool" --type merge -p '{"spec":{"limits":{"cpu":0},"template":{"spec":{"taints":[{"key":"karpenter.azure.com/disable","effect":"NoSchedule"}]}}}}'
done

section "The pods move to fixed nodes"
az aks nodepool add -g "$RG" --cluster-name naps -n fixed --node-count 3 --node-vm-size Standard_D8s_v5
eventually 60 is 5 bash -c 'kubectl get nodes -l "!karpenter.sh/nodepool" --no-headers | grep -cw Ready'
eventually 240 no_nap_nodes
equal "the ready pods" 10 "$(kubectl get deployment web -o jsonpath='{.status.readyReplicas}')"

section "Disable"
az aks update -g "$RG" -n naps --node-provisioning-mode Manual
equal "the mode" Manual "$(az aks show -g "$RG" -n naps --query nodeProvisioningProfile.mode -o tsv)"
az group delete --name "$RG" --yes
