#!/usr/bin/env bash
# Copyright The nap Authors.
# SPDX-License-Identifier: Apache-2.0
#
# Enabling and disabling node auto-provisioning with an ARM template.
. ./lib.sh
file=./templates/nap.json

az group create --name "$RG" --location "$LOCATION"

section "Validate and what-if"
equal "validation" Succeeded "$(az deployment group validate -g "$RG" --template-file $file --query properties.provisioningState -o tsv)"
has "what-if" napcluster "$(az deployment group what-if -g "$RG" --template-file $file --no-pretty-print --query 'changes[].resourceId' -o tsv)"
refused "not part of the allowed value" az deployment group validate -g "$RG" --template-file $file --parameters mode=Sideways

section "Deploy"
az deployment group create --resource-group "$RG" --template-file $file
equal "the deployment" Succeeded "$(az deployment group show -g "$RG" -n nap --query properties.provisioningState -o tsv)"
equal "the mode" Auto "$(az aks show -g "$RG" -n napcluster --query nodeProvisioningProfile.mode -o tsv)"
fqdn=$(az deployment group show -g "$RG" -n nap --query properties.outputs.fqdn.value -o tsv)
equal "the output fqdn" "$(az aks show -g "$RG" -n napcluster --query fqdn -o tsv)" "$fqdn"
has "the list of deployments" nap "$(az deployment group list -g "$RG" --query '[].name' -o tsv)"
has "the operations" napcluster "$(az deployment operation group list -g "$RG" -n nap --query '[].properties.targetResource.resourceName' -o tsv)"

section "Deploying the same again changes nothing"
az deployment group create --resource-group "$RG" --template-file $file
# shellcheck disable=SC2016 # the backticks belong to JMESPath
equal "what-if" NoChange "$(az deployment group what-if -g "$RG" --template-file $file --no-pretty-print --query 'changes[?ends_with(resourceId, `napcluster`)].changeType' -o tsv)"

section "Disable with the template, once the NodePools have limits of 0"
az aks get-credentials -g "$RG" -n napcluster
refused "limits" az deployment group create -g "$RG" --template-file $file --parameters mode=Manual
for pool in $(kubectl get nodepools -o name); do
  kubectl patch "$pool" --type merge -p '{"spec":{"limits":{"cpu":0}}}'
done
eventually 120 no_nap_nodes
az deployment group create -g "$RG" --template-file $file --parameters mode=Manual
equal "the mode" Manual "$(az aks show -g "$RG" -n napcluster --query nodeProvisioningProfile.mode -o tsv)"

az deployment group delete -g "$RG" -n nap
exits 3 az deployment group show -g "$RG" -n nap
az group delete --name "$RG" --yes
