#!/usr/bin/env bash
# Copyright The nap Authors.
# SPDX-License-Identifier: Apache-2.0
#
# Day-to-day commands on a cluster with node auto-provisioning.
. ./lib.sh
az group create --name "$RG" --location "$LOCATION"

section "Create without waiting, then wait"
az aks create -g "$RG" -n ops --node-count 1 --node-provisioning-mode Auto --network-plugin azure --network-plugin-mode overlay --network-dataplane cilium --generate-ssh-keys --no-wait
az aks wait -g "$RG" -n ops --created --interval 1 --timeout 300
equal "the state" Succeeded "$(az aks show -g "$RG" -n ops --query provisioningState -o tsv)"

section "Node pools"
az aks nodepool add -g "$RG" --cluster-name ops -n extra --node-count 1 --labels team=a
has "the pools" extra "$(az aks nodepool list -g "$RG" --cluster-name ops -o table)"
refused "already exists" az aks nodepool add -g "$RG" --cluster-name ops -n extra
az aks nodepool scale -g "$RG" --cluster-name ops -n extra --node-count 2
equal "its nodes" 2 "$(az aks nodepool show -g "$RG" --cluster-name ops -n extra --query count -o tsv)"
az aks nodepool update -g "$RG" --cluster-name ops -n extra --labels team=b
equal "its label" b "$(az aks nodepool show -g "$RG" --cluster-name ops -n extra --query nodeLabels.team -o tsv)"

section "Credentials"
az aks get-credentials -g "$RG" -n ops
az aks get-credentials -g "$RG" -n ops --admin --overwrite-existing
equal "the contexts" "ops ops-admin" "$(kubectl config get-contexts -o name | sort | xargs)"
kubectl get nodes

section "Machines"
kubectl create deployment inflate --image=registry.k8s.io/pause:3.9 --replicas=0
kubectl set resources deployment inflate --requests=cpu=2
kubectl scale deployment inflate --replicas=4
eventually 120 some_nap_nodes
has "the machines" default- "$(az aks machine list -g "$RG" --cluster-name ops --nodepool-name aksmanagedap --query '[].name' -o tsv)"
machine=$(az aks machine list -g "$RG" --cluster-name ops --nodepool-name aksmanagedap --query '[0].name' -o tsv)
equal "the machine" "$machine" "$(az aks machine show -g "$RG" --cluster-name ops --nodepool-name aksmanagedap --machine-name "$machine" --query name -o tsv)"
machine=$(az aks machine list -g "$RG" --cluster-name ops --nodepool-name extra --query '[0].name' -o tsv)
az aks nodepool delete-machines -g "$RG" --cluster-name ops -n extra --machine-names "$machine"
equal "its nodes" 1 "$(az aks nodepool show -g "$RG" --cluster-name ops -n extra --query count -o tsv)"
hasnt "the machines" "$machine" "$(az aks machine list -g "$RG" --cluster-name ops --nodepool-name extra --query '[].name' -o tsv)"
az aks nodepool delete -g "$RG" --cluster-name ops -n extra
exits 3 az aks nodepool show -g "$RG" --cluster-name ops -n extra

section "Run a command in the cluster"
has "the output" default "$(az aks command invoke -g "$RG" -n ops --command 'kubectl get nodepools' --query logs -o tsv)"

id=$(az aks command invoke -g "$RG" -n ops --command 'kubectl get nodes' --no-wait 2>&1 | sed -n 's/.*-i \([a-z0-9]*\).*/\1/p')
done_it() { [ "$(az aks command result -g "$RG" -n ops --command-id "$id" --query provisioningState -o tsv)" = Succeeded ]; }
eventually 60 done_it
equal "the exit code of a command that fails" 1 "$(az aks command invoke -g "$RG" -n ops --command 'kubectl get nothing' --query exitCode -o tsv)"

section "Sizes and quota"
has "the sizes" Standard_D4s_v5 "$(az vm list-skus --location "$LOCATION" --size Standard_D4s_v5 --query '[].name' -o tsv)"
has "the usages" cores "$(az vm list-usage --location "$LOCATION" --query '[].name.value' -o tsv)"

section "Generic resource commands"
ID=$(az aks show -g "$RG" -n ops --query id -o tsv)
equal "the type" microsoft.containerservice/managedclusters "$(az resource show --ids "$ID" --query type -o tsv | tr '[:upper:]' '[:lower:]')"
equal "the mode" Auto "$(az rest --method get --url "$ID?api-version=2025-05-01" --query properties.nodeProvisioningProfile.mode -o tsv)"

section "Stopping is refused, deleting is not"
refused "(" az aks stop -g "$RG" -n ops
az aks delete -g "$RG" -n ops --yes --no-wait
az aks wait -g "$RG" -n ops --deleted --interval 1 --timeout 300
exits 3 az aks show -g "$RG" -n ops
az group delete --name "$RG" --yes
