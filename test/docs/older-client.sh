#!/usr/bin/env bash
# Copyright The nap Authors.
# SPDX-License-Identifier: Apache-2.0
#
# An Azure CLI without support for node auto-provisioning, on a cluster that has
# it. `run` runs it only if it is named; see README.md.
. ./lib.sh
file=./templates/nap.json
mode() { az rest --method get --url "$id?api-version=2025-05-01" --query properties.nodeProvisioningProfile.mode -o tsv; }

section "Deploy with a template"
az group create --name "$RG" --location "$LOCATION"
equal "validation" Succeeded "$(az deployment group validate -g "$RG" --template-file $file --query properties.provisioningState -o tsv)"
az deployment group create -g "$RG" --template-file $file
id=$(az aks show -g "$RG" -n napcluster --query id -o tsv)
equal "the mode" Auto "$(mode)"
has "the list" napcluster "$(az aks list -g "$RG" -o table)"

section "Reading and writing back keeps the mode"
az aks update -g "$RG" -n napcluster --tags client=old
equal "the tag" old "$(az aks show -g "$RG" -n napcluster --query tags.client -o tsv)"
equal "the mode" Auto "$(mode)"
az aks nodepool add -g "$RG" --cluster-name napcluster -n more --node-count 1
az aks nodepool scale -g "$RG" --cluster-name napcluster -n more --node-count 2
az aks nodepool delete -g "$RG" --cluster-name napcluster -n more
az aks update -g "$RG" -n napcluster --auto-upgrade-channel stable
equal "the mode" Auto "$(mode)"

section "The cluster works"
az aks get-credentials -g "$RG" -n napcluster
kubectl create deployment inflate --image=registry.k8s.io/pause:3.9 --replicas=0
kubectl set resources deployment inflate --requests=cpu=1,memory=1Gi
kubectl scale deployment inflate --replicas=20
eventually 120 is 20 kubectl get deployment inflate -o jsonpath='{.status.readyReplicas}'
some_nap_nodes
kubectl delete deployment inflate
for pool in $(kubectl get nodepools -o name); do
  kubectl patch "$pool" --type merge -p '{"spec":{"limits":{"cpu":0}}}'
done
eventually 180 no_nap_nodes
az deployment group create -g "$RG" --template-file $file --parameters mode=Manual
equal "the mode" Manual "$(mode)"
az group delete --name "$RG" --yes
