#!/usr/bin/env bash
# Copyright The nap Authors.
# SPDX-License-Identifier: Apache-2.0
#
# Node auto-provisioning in a custom virtual network.
. ./lib.sh
az group create --name "$RG" --location "$LOCATION"

section "The network"
az network vnet create --name custom-vnet --resource-group "$RG" --location "$LOCATION" --address-prefixes 10.0.0.0/8
az network vnet subnet create --name node-subnet --resource-group "$RG" --vnet-name custom-vnet --address-prefixes 10.240.0.0/16
SUBNET_ID=$(az network vnet subnet show -g "$RG" --vnet-name custom-vnet -n node-subnet --query id -o tsv)
VNET_ID=$(az network vnet show -g "$RG" -n custom-vnet --query id -o tsv)
has "the subnet's ID" "$VNET_ID/subnets/" "$SUBNET_ID"

section "The identity and its role"
IDENTITY_ID=$(az identity create --name cluster-identity --resource-group "$RG" --query id -o tsv)
PRINCIPAL_ID=$(az identity show --name cluster-identity --resource-group "$RG" --query principalId -o tsv)
az role assignment create --assignee "$PRINCIPAL_ID" --role "Network Contributor" --scope "$VNET_ID"
has "the role assignments" "Network Contributor" "$(az role assignment list --scope "$VNET_ID" --query '[].roleDefinitionName' -o tsv)"

section "The cluster"
az aks create -g "$RG" -n byo --node-count 1 --network-plugin azure --network-plugin-mode overlay --network-dataplane cilium \
  --vnet-subnet-id "$SUBNET_ID" --assign-identity "$IDENTITY_ID" --node-provisioning-mode Auto --generate-ssh-keys
equal "the subnet of the pool" "$SUBNET_ID" "$(az aks show -g "$RG" -n byo --query 'agentPoolProfiles[0].vnetSubnetId' -o tsv)"
CLUSTER_IDENTITY=$(az aks show -g "$RG" -n byo --query "identity.userAssignedIdentities.*.principalId | [0]" -o tsv)
equal "the identity" "$PRINCIPAL_ID" "$CLUSTER_IDENTITY"

section "Another subnet for some nodes, with a role that allows only that"
az network vnet subnet create --name extra-subnet -g "$RG" --vnet-name custom-vnet --address-prefixes 10.241.0.0/16
EXTRA_ID=$(az network vnet subnet show -g "$RG" --vnet-name custom-vnet -n extra-subnet --query id -o tsv)
cat >"$PAGE_DIR/role.json" <<JSON
{ "Name": "Karpenter Subnet Access", "IsCustom": true, "Description": "Read a subnet and join machines to it.",
  "Actions": ["Microsoft.Network/virtualNetworks/subnets/read", "Microsoft.Network/virtualNetworks/subnets/join/action"],
  "AssignableScopes": ["/subscriptions/$AZURE_SUBSCRIPTION_ID"] }
JSON
az role definition create --role-definition "@$PAGE_DIR/role.json"
has "the custom roles" "Karpenter Subnet Access" "$(az role definition list --custom-role-only true --query '[].roleName' -o tsv)"
az role assignment create --assignee-object-id "$CLUSTER_IDENTITY" --assignee-principal-type ServicePrincipal --role "Karpenter Subnet Access" --scope "$EXTRA_ID"
az aks get-credentials -g "$RG" -n byo
kubectl apply -f - <<YAML
apiVersion: karpenter.azure.com/v1beta1
kind: AKSNodeClass
metadata: { name: extra }
spec: { vnetSubnetID: $EXTRA_ID }
YAML
eventually 60 is True kubectl get aksnodeclass extra -o 'jsonpath={.status.conditions[?(@.type=="Ready")].status}'

section "An identity without a role on the subnet is refused"
BARE=$(az identity create --name bare-identity --resource-group "$RG" --query id -o tsv)
refused "$SUBNET_ID" az aks create -g "$RG" -n bare --node-count 1 --network-plugin azure --network-plugin-mode overlay --network-dataplane cilium \
  --vnet-subnet-id "$SUBNET_ID" --assign-identity "$BARE" --skip-subnet-role-assignment --node-provisioning-mode Auto --generate-ssh-keys
az group delete --name "$RG" --yes
