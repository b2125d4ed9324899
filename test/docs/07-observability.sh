#!/usr/bin/env bash
# Copyright The nap Authors.
# SPDX-License-Identifier: Apache-2.0
#
# Logs of node auto-provisioning in Log Analytics, and events.
. ./lib.sh
az group create --name "$RG" --location "$LOCATION"
az aks create -g "$RG" -n obs --node-count 1 --node-provisioning-mode Auto --network-plugin azure --network-plugin-mode overlay --network-dataplane cilium --generate-ssh-keys
CLUSTER_ID=$(az aks show -g "$RG" -n obs --query id -o tsv)

section "Send the logs to a workspace"
az monitor log-analytics workspace create -g "$RG" -n logs
WORKSPACE_ID=$(az monitor log-analytics workspace show -g "$RG" -n logs --query id -o tsv)
CUSTOMER_ID=$(az monitor log-analytics workspace show -g "$RG" -n logs --query customerId -o tsv)
az monitor diagnostic-settings create --name nap-logs --resource "$CLUSTER_ID" --workspace "$WORKSPACE_ID" \
  --logs '[{"category":"node-auto-provisioning","enabled":true},{"category":"karpenter-events","enabled":true},{"category":"kube-apiserver","enabled":true}]'
has "the settings" nap-logs "$(az monitor diagnostic-settings list --resource "$CLUSTER_ID" --query '[].name' -o tsv)"
equal "the logs it sends" "karpenter-events kube-apiserver node-auto-provisioning" \
  "$(az monitor diagnostic-settings show --name nap-logs --resource "$CLUSTER_ID" --query 'logs[?enabled].category' -o tsv | sort | xargs)"
has "the categories" node-auto-provisioning "$(az monitor diagnostic-settings categories list --resource "$CLUSTER_ID" --query 'value[].name || [].name' -o tsv)"
has "the workspaces" logs "$(az monitor log-analytics workspace list -g "$RG" --query '[].name' -o tsv)"

section "Create nodes"
az aks get-credentials -g "$RG" -n obs
kubectl create deployment inflate --image=registry.k8s.io/pause:3.9 --replicas=0
kubectl set resources deployment inflate --requests=cpu=2
kubectl scale deployment inflate --replicas=6
eventually 120 some_nap_nodes
kubectl get events -A --field-selector source=node-auto-provisioning

section "Query the logs"
# query QUERY: the first value of the result.
query() {
  az rest --method post --url "$AZURE_AUTHORITY_HOST""v1/workspaces/$CUSTOMER_ID/query" --resource "${AZURE_AUTHORITY_HOST}" \
    --body "{\"query\": \"$1\"}" --query 'tables[0].rows[0][0]' -o tsv
}
logs_are_there() { [ "$(query "AzureDiagnostics | where Category == 'node-auto-provisioning' | count")" -gt 0 ]; }
events_are_there() { [ "$(query "AKSControlPlane | where Category == 'karpenter-events' | count")" -gt 0 ]; }
eventually 60 logs_are_there
eventually 60 events_are_there
equal "the category" node-auto-provisioning "$(query "AzureDiagnostics | where Category == 'node-auto-provisioning' and TimeGenerated > ago(1h) | distinct Category")"
refused "SyntaxError" query "AzureDiagnostics | whre x"

section "Disable one category, then delete the setting"
az monitor diagnostic-settings update --name nap-logs --resource "$CLUSTER_ID" --set 'logs[2].enabled=false'
equal "the logs it sends" 2 "$(az monitor diagnostic-settings show --name nap-logs --resource "$CLUSTER_ID" --query 'length(logs[?enabled])' -o tsv)"
az monitor diagnostic-settings delete --name nap-logs --resource "$CLUSTER_ID"
equal "the settings" "" "$(az monitor diagnostic-settings list --resource "$CLUSTER_ID" --query '[].name' -o tsv)"
exits 3 az monitor diagnostic-settings show --name nap-logs --resource "$CLUSTER_ID"
az monitor log-analytics workspace delete -g "$RG" -n logs --force true --yes
exits 3 az monitor log-analytics workspace show -g "$RG" -n logs
az group delete --name "$RG" --yes
