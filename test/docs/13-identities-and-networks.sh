#!/usr/bin/env bash
# Copyright The nap Authors.
# SPDX-License-Identifier: Apache-2.0
#
# Identities, roles and networks of a cluster: create, list, change, delete.
. ./lib.sh
az group create --name "$RG" --location "$LOCATION" --tags team=nap
equal "the group's tag" nap "$(az group show --name "$RG" --query tags.team -o tsv)"
has "the groups" "$RG" "$(az group list --query '[].name' -o tsv)"
equal "the groups with the tag" "$RG" "$(az group list --tag team=nap --query '[].name' -o tsv)"
has "the subscriptions" "$AZURE_SUBSCRIPTION_ID" "$(az account list --query '[].id' -o tsv)"
has "the providers" Microsoft.ContainerService "$(az provider list --query '[].namespace' -o tsv)"

section "An identity, and a workload that may use it"
az identity create --name workload --resource-group "$RG"
az identity federated-credential create --name default-web --identity-name workload -g "$RG" \
  --issuer https://localhost/issuer --subject system:serviceaccount:default:web --audiences api://AzureADTokenExchange
equal "the subjects" system:serviceaccount:default:web "$(az identity federated-credential list --identity-name workload -g "$RG" --query '[].subject' -o tsv)"
az identity federated-credential update --name default-web --identity-name workload -g "$RG" \
  --issuer https://localhost/issuer --subject system:serviceaccount:shop:web --audiences api://AzureADTokenExchange
equal "the subject" system:serviceaccount:shop:web "$(az identity federated-credential show --name default-web --identity-name workload -g "$RG" --query subject -o tsv)"
az identity federated-credential delete --name default-web --identity-name workload -g "$RG" --yes
equal "the number of credentials" 0 "$(az identity federated-credential list --identity-name workload -g "$RG" --query 'length(@)' -o tsv)"
exits 3 az identity federated-credential show --name default-web --identity-name workload -g "$RG"
equal "the identities" workload "$(az identity list -g "$RG" --query '[].name' -o tsv)"

section "A network"
az network vnet create -g "$RG" -n net --address-prefixes 10.20.0.0/16 --subnet-name nodes --subnet-prefixes 10.20.0.0/20
az network vnet subnet create -g "$RG" --vnet-name net -n spare --address-prefixes 10.20.16.0/24
refused "NetcfgSubnetRangesOverlap" az network vnet subnet create -g "$RG" --vnet-name net -n overlapping --address-prefixes 10.20.8.0/24
az network vnet subnet update -g "$RG" --vnet-name net -n spare --service-endpoints Microsoft.Storage
equal "the endpoint" Microsoft.Storage "$(az network vnet subnet show -g "$RG" --vnet-name net -n spare --query 'serviceEndpoints[0].service' -o tsv)"
equal "the subnets" "nodes spare" "$(az network vnet subnet list -g "$RG" --vnet-name net --query '[].name' -o tsv | sort | xargs)"
az network vnet update -g "$RG" -n net --set tags.team=nap
equal "the networks" net "$(az network vnet list -g "$RG" --query "[?tags.team=='nap'].name" -o tsv)"
SUBNET_ID=$(az network vnet subnet show -g "$RG" --vnet-name net -n nodes --query id -o tsv)

section "A custom role, assigned and removed"
cat >"$PAGE_DIR/role.json" <<JSON
{ "Name": "Subnet Joiner", "IsCustom": true, "Description": "Join machines to a subnet.",
  "Actions": ["Microsoft.Network/virtualNetworks/subnets/join/action"], "AssignableScopes": ["/subscriptions/$AZURE_SUBSCRIPTION_ID"] }
JSON
az role definition create --role-definition "@$PAGE_DIR/role.json"
refused "RoleDefinitionWithSameNameExists" az role definition create --role-definition "@$PAGE_DIR/role.json"
sed 's|subnets/join/action"\]|subnets/join/action", "Microsoft.Network/virtualNetworks/subnets/read"]|' "$PAGE_DIR/role.json" >"$PAGE_DIR/role2.json"
az role definition update --role-definition "@$PAGE_DIR/role2.json"
equal "the number of its actions" 2 "$(az role definition list --name 'Subnet Joiner' --query '[0].permissions[0].actions | length(@)' -o tsv)"
has "the built-in roles" "Network Contributor" "$(az role definition list --query "[?roleType=='BuiltInRole'].roleName" -o tsv)"
PRINCIPAL_ID=$(az identity show -g "$RG" -n workload --query principalId -o tsv)
az role assignment create --assignee-object-id "$PRINCIPAL_ID" --assignee-principal-type ServicePrincipal --role "Subnet Joiner" --scope "$SUBNET_ID"
equal "its roles" "Subnet Joiner" "$(az role assignment list --assignee "$PRINCIPAL_ID" --scope "$SUBNET_ID" --query '[].roleDefinitionName' -o tsv)"
refused "RoleDefinitionHasAssignments" az role definition delete --name "Subnet Joiner"
az role assignment delete --assignee "$PRINCIPAL_ID" --role "Subnet Joiner" --scope "$SUBNET_ID"
equal "its roles" "" "$(az role assignment list --assignee "$PRINCIPAL_ID" --scope "$SUBNET_ID" --query '[].roleDefinitionName' -o tsv)"
az role definition delete --name "Subnet Joiner"
equal "the roles of that name" "" "$(az role definition list --name 'Subnet Joiner' --query '[].roleName' -o tsv)"

section "Delete all of it"
az network vnet subnet delete -g "$RG" --vnet-name net -n spare
exits 3 az network vnet subnet show -g "$RG" --vnet-name net -n spare
az network vnet delete -g "$RG" -n net
exits 3 az network vnet show -g "$RG" -n net
az identity delete -g "$RG" -n workload
exits 3 az identity show -g "$RG" -n workload
az group delete --name "$RG" --yes
