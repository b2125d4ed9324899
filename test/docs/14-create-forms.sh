#!/usr/bin/env bash
# Copyright The nap Authors.
# SPDX-License-Identifier: Apache-2.0
#
# az aks create and update in every documented form, and what AKS refuses.
. ./lib.sh
az group create --name "$RG" --location "$LOCATION"
cilium=(--network-plugin azure --network-plugin-mode overlay --network-dataplane cilium --generate-ssh-keys --node-count 1)

section "Options that node auto-provisioning does not support"
# no TEXT OPTION...: a cluster with these options and mode Auto is refused.
no() { refused "$1" az aks create -g "$RG" -n refused --node-count 1 --generate-ssh-keys --node-provisioning-mode Auto "${@:2}"; }
subscription shared
no "enableAutoScaling" --network-plugin azure --enable-cluster-autoscaler --min-count 1 --max-count 3
subscription free
no "networkPlugin set to one of" --network-plugin kubenet
no "networkPolicy set to one of" --network-plugin azure --network-policy calico
no "ipFamilies" --network-plugin azure --network-plugin-mode overlay --ip-families ipv4,ipv6
no "servicePrincipalProfile" --network-plugin azure --service-principal 5b7a1e0c-3a39-4ac0-8f3c-4bb8f33c2b5e --client-secret none-such
no "enableNodePublicIP" --network-plugin azure --enable-node-public-ip
no "either network plugin mode overlay or pod subnet" --network-plugin azure --network-dataplane cilium
equal "the clusters" "" "$(az aks list -g "$RG" --query '[].name' -o tsv)"

section "Mode Manual"
az aks create -g "$RG" -n forms --node-provisioning-mode Manual "${cilium[@]}"
equal "the mode" Manual "$(az aks show -g "$RG" -n forms --query nodeProvisioningProfile.mode -o tsv)"

section "Enable without default pools and without waiting"
az aks update -g "$RG" -n forms --node-provisioning-mode Auto --node-provisioning-default-pools None --no-wait
az aks wait -g "$RG" -n forms --updated --interval 1 --timeout 300
equal "the profile" "Auto None" "$(az aks show -g "$RG" -n forms --query '[nodeProvisioningProfile.mode, nodeProvisioningProfile.defaultNodePools]' -o tsv | xargs)"

section "What a cluster with node auto-provisioning refuses"
refused "osType" az aks nodepool add -g "$RG" --cluster-name forms -n win --os-type Windows --node-count 1
refused "outboundType" az aks update -g "$RG" -n forms --outbound-type managedNATGateway
az aks nodepool add -g "$RG" --cluster-name forms -n two --node-count 1
refused "powerState" az aks nodepool stop -g "$RG" --cluster-name forms -n two
refused "Stop" az aks stop -g "$RG" -n forms

section "Disable it, as neither NodePools nor provisioned nodes exist; then stop and start"
az aks update -g "$RG" -n forms --node-provisioning-mode Manual
az aks stop -g "$RG" -n forms
equal "the power" Stopped "$(az aks show -g "$RG" -n forms --query powerState.code -o tsv)"
az aks start -g "$RG" -n forms
equal "the power" Running "$(az aks show -g "$RG" -n forms --query powerState.code -o tsv)"
az aks nodepool delete -g "$RG" --cluster-name forms -n two
az aks scale -g "$RG" -n forms --node-count 2
equal "the nodes of the pool" 2 "$(az aks show -g "$RG" -n forms --query 'agentPoolProfiles[0].count' -o tsv)"

section "Create with explicit default pools"
az aks create -g "$RG" -n words --node-provisioning-mode Auto --node-provisioning-default-pools Auto "${cilium[@]}" --tags team=nap
equal "the profile" "Auto Auto" "$(az aks show -g "$RG" -n words --query '[nodeProvisioningProfile.mode, nodeProvisioningProfile.defaultNodePools]' -o tsv | xargs)"

section "While one operation runs, another is refused, and the first can be aborted"
# machines of this pool boot slowly
nap fault slow-boot 10m --pool slow --name slow
az aks nodepool add -g "$RG" --cluster-name words -n slow --node-count 1 --no-wait
refused "in progress" az aks nodepool add -g "$RG" --cluster-name words -n other --node-count 1
refused "in progress" az aks nodepool scale -g "$RG" --cluster-name words -n slow --node-count 2
az aks nodepool operation-abort -g "$RG" --cluster-name words -n slow
equal "the state" Canceled "$(az aks nodepool show -g "$RG" --cluster-name words -n slow --query provisioningState -o tsv)"
nap fault clear slow
az aks nodepool delete -g "$RG" --cluster-name words -n slow
az aks nodepool add -g "$RG" --cluster-name words -n quick --node-count 1 --no-wait
az aks nodepool wait -g "$RG" --cluster-name words -n quick --created --interval 1 --timeout 300
equal "the state" Succeeded "$(az aks nodepool show -g "$RG" --cluster-name words -n quick --query provisioningState -o tsv)"
az aks update -g "$RG" -n words --tags aborted=perhaps --no-wait
# as on Azure, an operation that has ended cannot be aborted
az aks operation-abort -g "$RG" -n words || echo "the operation had ended"
has "the states" "$(az aks show -g "$RG" -n words --query provisioningState -o tsv)" "Canceled Succeeded"
az group delete --name "$RG" --yes
