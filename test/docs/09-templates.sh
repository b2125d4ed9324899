#!/usr/bin/env bash
# Copyright The nap Authors.
# SPDX-License-Identifier: Apache-2.0
#
# The template language, with templates as az sends them.
. ./lib.sh
az group create --name "$RG" --location "$LOCATION"
out() { az deployment group show -g "$RG" -n "$1" --query "properties.outputs.$2.value" -o "${3:-tsv}"; }

section "Inline parameters and a parameter file, loops, conditions, functions, nesting"
cat >"$PAGE_DIR/params.json" <<'JSON'
{ "$schema": "https://schema.management.azure.com/schemas/2019-04-01/deploymentParameters.json#", "contentVersion": "1.0.0.0",
  "parameters": { "prefix": { "value": "docs" }, "tags": { "value": { "team": "nap" } } } }
JSON
az deployment group create -g "$RG" -n lang --template-file templates/language.json --parameters "@$PAGE_DIR/params.json" --parameters identities=3 secret=topsecret
equal "the deployment" Succeeded "$(az deployment group show -g "$RG" -n lang --query properties.provisioningState -o tsv)"
equal "the names" "docs-id0 docs-id1 docs-id2" "$(out lang names | tr '\n\t' '  ' | xargs)"
equal "the lambdas" "40 50" "$(out lang big | xargs)"
equal "the grant" "$(az identity show -g "$RG" -n docs-id0 --query principalId -o tsv)" "$(out lang granted)"
equal "the subnets" "extra subnet1 subnet2 subnet3" "$(az network vnet subnet list -g "$RG" --vnet-name docs-vnet --query '[].name' -o tsv | sort | xargs)"
equal "a tag" "[brackets]" "$(az network vnet show -g "$RG" -n docs-vnet --query tags.literal -o tsv)"
equal "a tag" nap "$(az network vnet show -g "$RG" -n docs-vnet --query tags.team -o tsv)"
shown=$(az deployment group show -g "$RG" -n lang -o json)
case "$shown" in *topsecret*) echo "FAILED: the deployment shows a secret" >&2; exit 1 ;; esac
has "the list of the resources" docs-id2 "$(az resource list -g "$RG" --query '[].name' -o tsv)"

section "Symbolic names"
az deployment group create -g "$RG" -n sym --template-file templates/symbolic.json --parameters vnet=docs-vnet
equal "the default" none "$(out sym pool)"
equal "an existing resource" 10.8.0.0/16 "$(out sym prefix)"
equal "the loop" "$(az identity show -g "$RG" -n sym-1 --query principalId -o tsv)" "$(az deployment group show -g "$RG" -n sym --query 'properties.outputs.principals.value[1]' -o tsv)"

section "Subscription scope: a group and its resources"
az deployment sub create --location "$LOCATION" -n sub --template-file templates/subscription.json --parameters group="$RG-sub"
equal "the output" "$(az identity show -g "$RG-sub" -n inside --query id -o tsv)" "$(az deployment sub show -n sub --query properties.outputs.id.value -o tsv)"
az group delete --name "$RG-sub" --yes
az deployment sub delete -n sub

section "Without waiting"
az deployment group create -g "$RG" -n later --template-file templates/language.json --parameters prefix=late withVnet=false identities=1 --no-wait
az deployment group wait -g "$RG" -n later --created --interval 1 --timeout 60
equal "the deployment" Succeeded "$(az deployment group show -g "$RG" -n later --query properties.provisioningState -o tsv)"
exits 3 az network vnet show -g "$RG" -n late-vnet

section "Errors in templates"
cat >"$PAGE_DIR/bad.json" <<'JSON'
{ "$schema": "https://schema.management.azure.com/schemas/2019-04-01/deploymentTemplate.json#", "contentVersion": "1.0.0.0",
  "resources": [
    { "type": "Microsoft.ManagedIdentity/userAssignedIdentities", "apiVersion": "2023-01-31", "name": "a", "location": "eastus", "dependsOn": ["b"] },
    { "type": "Microsoft.ManagedIdentity/userAssignedIdentities", "apiVersion": "2023-01-31", "name": "b", "location": "eastus", "dependsOn": ["a"] } ] }
JSON
refused "Circular dependency" az deployment group create -g "$RG" -n bad --template-file "$PAGE_DIR/bad.json"
sed 's/"dependsOn": \["b"\]/"tags": { "x": "[nofunction()]" }/' "$PAGE_DIR/bad.json" >"$PAGE_DIR/bad2.json"
refused "nofunction" az deployment group validate -g "$RG" --template-file "$PAGE_DIR/bad2.json"
refused "minimum 2" az deployment group validate -g "$RG" --template-file templates/language.json --parameters prefix=x
az group delete --name "$RG" --yes
