#!/usr/bin/env bash
# Copyright The nap Authors.
# SPDX-License-Identifier: Apache-2.0
#
# Migrating from the cluster autoscaler to node auto-provisioning.
. ./lib.sh
az group create --name "$RG" --location "$LOCATION"
az aks create -g "$RG" -n cas --node-count 1 --network-plugin azure --network-plugin-mode overlay --network-dataplane cilium \
  --enable-cluster-autoscaler --min-count 1 --max-count 3 --generate-ssh-keys

section "Both together are refused"
subscription shared
refused "enableAutoScaling" az aks update -g "$RG" -n cas --node-provisioning-mode Auto

subscription free

section "As documented: disable the autoscaler, then enable node auto-provisioning"
az aks update -g "$RG" -n cas --disable-cluster-autoscaler
az aks update -g "$RG" -n cas --node-provisioning-mode Auto
equal "the mode" Auto "$(az aks show -g "$RG" -n cas --query nodeProvisioningProfile.mode -o tsv)"

section "Scale the old pools down"
az aks nodepool add -g "$RG" --cluster-name cas -n userpool --mode User --node-count 2
az aks nodepool scale -g "$RG" --cluster-name cas -n userpool --node-count 0
equal "the nodes of the pool" 0 "$(az aks nodepool show -g "$RG" --cluster-name cas -n userpool --query count -o tsv)"

section "The feature that allows both"
subscription alone
az feature register --namespace Microsoft.ContainerService --name AllowClusterAutoscalerAndNAP
equal "the feature" Registered "$(az feature show --namespace Microsoft.ContainerService --name AllowClusterAutoscalerAndNAP --query properties.state -o tsv)"
az provider register --namespace Microsoft.ContainerService
az aks nodepool update -g "$RG" --cluster-name cas -n userpool --enable-cluster-autoscaler --min-count 0 --max-count 3
equal "the mode" Auto "$(az aks show -g "$RG" -n cas --query nodeProvisioningProfile.mode -o tsv)"
az feature unregister --namespace Microsoft.ContainerService --name AllowClusterAutoscalerAndNAP
subscription free
az group delete --name "$RG" --yes
