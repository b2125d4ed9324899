#!/usr/bin/env bash
# Copyright The nap Authors.
# SPDX-License-Identifier: Apache-2.0
#
# Node auto-provisioning on a new cluster, from the command line.
. ./lib.sh

section "Subscription and provider"
az account set --subscription "$AZURE_SUBSCRIPTION_ID"
equal "the subscription" "$AZURE_SUBSCRIPTION_ID" "$(az account show --query id -o tsv)"
has "the locations" "$LOCATION" "$(az account list-locations --query '[].name' -o tsv)"
az provider register --namespace Microsoft.ContainerService
equal "the provider" Registered "$(az provider show -n Microsoft.ContainerService --query registrationState -o tsv)"

section "Create a cluster that provisions its own nodes"
az group create --name "$RG" --location "$LOCATION"
equal "that the group exists" true "$(az group exists --name "$RG")"
exits 3 az aks show --resource-group "$RG" --name napcluster
az aks create --name napcluster --resource-group "$RG" --node-provisioning-mode Auto \
  --network-plugin azure --network-plugin-mode overlay --network-dataplane cilium --generate-ssh-keys
equal "the mode" Auto "$(az aks show -g "$RG" -n napcluster --query nodeProvisioningProfile.mode -o tsv)"
equal "the default pools" Auto "$(az aks show -g "$RG" -n napcluster --query nodeProvisioningProfile.defaultNodePools -o tsv)"
equal "the state" Succeeded "$(az aks show -g "$RG" -n napcluster --query provisioningState -o tsv)"
has "the list" napcluster "$(az aks list --resource-group "$RG" -o table)"

section "Connect"
az aks get-credentials --resource-group "$RG" --name napcluster
eventually 60 is 3 bash -c 'kubectl get nodes --no-headers | grep -cw Ready'
equal "the node pools" "default system-surge" "$(kubectl get nodepools -o jsonpath='{.items[*].metadata.name}')"
kubectl get aksnodeclass default

section "Pods that do not fit get machines"
kubectl create deployment inflate --image=registry.k8s.io/pause:3.9 --replicas=0
kubectl set resources deployment inflate --requests=cpu=1,memory=1Gi
kubectl scale deployment inflate --replicas=20
eventually 120 is 20 kubectl get deployment inflate -o jsonpath='{.status.readyReplicas}'
some_nap_nodes
has "the events" node-auto-provisioning "$(kubectl get events -A --field-selector source=node-auto-provisioning -o yaml)"

section "Machines that are not needed are deleted"
kubectl scale deployment inflate --replicas=0
eventually 180 no_nap_nodes

section "The client refuses a second cluster of that name; a group is deleted with all its resources"
refused "already exists" az aks create --name napcluster --resource-group "$RG" --node-provisioning-mode Auto --generate-ssh-keys
az group delete --name "$RG" --yes
equal "that the group exists" false "$(az group exists --name "$RG")"
