#!/usr/bin/env bash
# Copyright The nap Authors.
# SPDX-License-Identifier: Apache-2.0
#
# Node auto-provisioning on an existing cluster, and what it does not work with.
. ./lib.sh
az group create --name "$RG" --location "$LOCATION"

section "A cluster without node auto-provisioning"
az aks create -g "$RG" -n existing --node-count 1 --network-plugin azure --network-plugin-mode overlay --network-dataplane cilium --generate-ssh-keys
equal "the mode" Manual "$(az aks show -g "$RG" -n existing --query nodeProvisioningProfile.mode -o tsv)"

section "Enable it without default pools, then with them"
az aks update --name existing --resource-group "$RG" --node-provisioning-mode Auto --node-provisioning-default-pools None
equal "the mode" Auto "$(az aks show -g "$RG" -n existing --query nodeProvisioningProfile.mode -o tsv)"
equal "the default pools" None "$(az aks show -g "$RG" -n existing --query nodeProvisioningProfile.defaultNodePools -o tsv)"
az aks get-credentials -g "$RG" -n existing
equal "the node pools" "" "$(kubectl get nodepools -o name)"
az aks update --name existing --resource-group "$RG" --node-provisioning-default-pools Auto
eventually 30 is "default system-surge" kubectl get nodepools -o jsonpath='{.items[*].metadata.name}'

section "An update without the option does not change it"
az aks update -g "$RG" -n existing --tags purpose=test
equal "the mode" Auto "$(az aks show -g "$RG" -n existing --query nodeProvisioningProfile.mode -o tsv)"
equal "the tag" test "$(az aks show -g "$RG" -n existing --query tags.purpose -o tsv)"

section "Unsupported configurations are refused"
subscription shared
refused "autoscal" az aks nodepool update -g "$RG" --cluster-name existing -n nodepool1 --enable-cluster-autoscaler --min-count 1 --max-count 3
refused "(" az aks stop -g "$RG" -n existing
refused "(" az aks create -g "$RG" -n calico --node-count 1 --node-provisioning-mode Auto --network-plugin azure --network-policy calico --generate-ssh-keys
refused "(" az aks create -g "$RG" -n kubenet --node-count 1 --node-provisioning-mode Auto --network-plugin kubenet --generate-ssh-keys
refused "enableAutoScaling" az aks create -g "$RG" -n scaled --node-count 1 --node-provisioning-mode Auto --network-plugin azure --network-plugin-mode overlay --network-dataplane cilium \
  --enable-cluster-autoscaler --min-count 1 --max-count 3 --generate-ssh-keys
subscription free
equal "the clusters" existing "$(az aks list -g "$RG" --query '[].name' -o tsv)"
az group delete --name "$RG" --yes
