#!/usr/bin/env bash
# Copyright The nap Authors.
# SPDX-License-Identifier: Apache-2.0
#
# Upgrades of a cluster with node auto-provisioning, and its maintenance windows.
. ./lib.sh
az group create --name "$RG" --location "$LOCATION"
has "the versions" 1.35.6 "$(az aks get-versions --location "$LOCATION" -o table)"
equal "the minor versions" "1.35 1.36 1.37" "$(az aks get-versions --location "$LOCATION" --query 'values[].version' -o tsv | xargs)"
equal "the default version" 1.36 "$(az aks get-versions --location "$LOCATION" --query 'values[?isDefault].version' -o tsv)"
az aks create -g "$RG" -n upg --kubernetes-version 1.35 --node-count 1 --node-provisioning-mode Auto --network-plugin azure --network-plugin-mode overlay --network-dataplane cilium --generate-ssh-keys

section "Maintenance windows"
az aks maintenanceconfiguration add -g "$RG" --cluster-name upg -n aksManagedNodeOSUpgradeSchedule \
  --schedule-type Weekly --day-of-week Friday --interval-weeks 1 --duration 8 --utc-offset +00:00 --start-time 00:00
az aks maintenanceconfiguration add -g "$RG" --cluster-name upg -n aksManagedAutoUpgradeSchedule \
  --schedule-type Weekly --day-of-week Friday --interval-weeks 2 --duration 8 --utc-offset=-08:00 --start-time 00:00
az aks maintenanceconfiguration add -g "$RG" --cluster-name upg -n default --weekday Monday --start-hour 1
equal "the hours" 8 "$(az aks maintenanceconfiguration show -g "$RG" --cluster-name upg -n aksManagedNodeOSUpgradeSchedule --query maintenanceWindow.durationHours -o tsv)"
az aks maintenanceconfiguration update -g "$RG" --cluster-name upg -n aksManagedNodeOSUpgradeSchedule \
  --schedule-type Weekly --day-of-week Saturday --interval-weeks 1 --duration 4 --utc-offset +00:00 --start-time 02:00
equal "the day" Saturday "$(az aks maintenanceconfiguration show -g "$RG" --cluster-name upg -n aksManagedNodeOSUpgradeSchedule --query maintenanceWindow.schedule.weekly.dayOfWeek -o tsv)"
equal "the number of windows" 3 "$(az aks maintenanceconfiguration list -g "$RG" --cluster-name upg --query 'length(@)' -o tsv)"
az aks maintenanceconfiguration delete -g "$RG" --cluster-name upg -n default
equal "the number of windows" 2 "$(az aks maintenanceconfiguration list -g "$RG" --cluster-name upg --query 'length(@)' -o tsv)"

section "Versions"
az aks get-credentials -g "$RG" -n upg
server() { kubectl version -o json | python3 -c 'import json, sys; print(json.load(sys.stdin)["serverVersion"]["gitVersion"])'; }
current=$(az aks show -g "$RG" -n upg --query currentKubernetesVersion -o tsv)
equal "the API server's version" "v$current" "$(server)"
next=$(az aks get-upgrades -g "$RG" -n upg --query 'controlPlaneProfile.upgrades[-1].kubernetesVersion' -o tsv)
has "the next version" 1.36. "$next"
hasnt "the upgrades of a pool before its control plane's" "$next" "$(az aks nodepool get-upgrades -g "$RG" --cluster-name upg --nodepool-name nodepool1 -o json)"
refused "1.36" az aks nodepool upgrade -g "$RG" --cluster-name upg -n nodepool1 --kubernetes-version "$next" --yes
refused "(" az aks upgrade -g "$RG" -n upg --kubernetes-version 1.35.5 --yes
refused "K8sVersionNotSupported" az aks upgrade -g "$RG" -n upg --kubernetes-version 1.99.0 --yes
kubectl create deployment inflate --image=registry.k8s.io/pause:3.9 --replicas=0
kubectl set resources deployment inflate --requests=cpu=2
kubectl scale deployment inflate --replicas=4
eventually 120 is 4 kubectl get deployment inflate -o jsonpath='{.status.readyReplicas}'

section "Upgrade the control plane, then a pool; provisioned nodes are replaced automatically"
kubectl create poddisruptionbudget never --selector=app=inflate --max-unavailable=0
refused "PDB default/never" az aks upgrade -g "$RG" -n upg --kubernetes-version "$next" --control-plane-only --yes
equal "the API server's version" "v$current" "$(server)"
refused "30 days" az aks update -g "$RG" -n upg --enable-force-upgrade --upgrade-override-until "$(date -u -d '+40 days' +%FT%TZ)"
az aks upgrade -g "$RG" -n upg --kubernetes-version "$next" --control-plane-only --yes --enable-force-upgrade --upgrade-override-until "$(date -u -d '+2 hours' +%FT%TZ)"
equal "the override" true "$(az aks show -g "$RG" -n upg --query upgradeSettings.overrideSettings.forceUpgrade -o json)"
az aks update -g "$RG" -n upg --disable-force-upgrade
refused "UnsatisfiablePDB" az aks nodepool upgrade -g "$RG" --cluster-name upg -n nodepool1 --kubernetes-version "$next" --yes
kubectl delete poddisruptionbudget never
equal "the API server's version" "v$next" "$(server)"
equal "the pool's version" "$current" "$(az aks nodepool show -g "$RG" --cluster-name upg -n nodepool1 --query currentOrchestratorVersion -o tsv)"
az aks nodepool upgrade -g "$RG" --cluster-name upg -n nodepool1 --kubernetes-version "$next" --yes
equal "the kubelets of the pool" "v$next" "$(kubectl get nodes -l agentpool=nodepool1 -o jsonpath='{range .items[*]}{.status.nodeInfo.kubeletVersion}{"\n"}{end}' | sort -u)"
kubelets() { kubectl get nodes -o jsonpath='{range .items[*]}{.status.nodeInfo.kubeletVersion}{"\n"}{end}' | sort -u; }
eventually 240 is "v$next" kubelets
eventually 60 is 4 kubectl get deployment inflate -o jsonpath='{.status.readyReplicas}'
az aks upgrade -g "$RG" -n upg --node-image-only --yes
az aks nodepool upgrade -g "$RG" --cluster-name upg -n nodepool1 --node-image-only
equal "the state" Succeeded "$(az aks show -g "$RG" -n upg --query provisioningState -o tsv)"
equal "the mode" Auto "$(az aks show -g "$RG" -n upg --query nodeProvisioningProfile.mode -o tsv)"
az group delete --name "$RG" --yes
