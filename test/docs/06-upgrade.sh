#!/usr/bin/env bash
# Upgrades of a cluster with node auto-provisioning, and its maintenance windows.
. ./lib.sh
az group create --name "$RG" --location "$LOCATION"
az aks get-versions --location "$LOCATION" -o table
az aks create -g "$RG" -n upg --node-count 1 --node-provisioning-mode Auto --network-plugin azure --network-plugin-mode overlay --network-dataplane cilium --generate-ssh-keys

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
equal "how many there are" 3 "$(az aks maintenanceconfiguration list -g "$RG" --cluster-name upg --query 'length(@)' -o tsv)"
az aks maintenanceconfiguration delete -g "$RG" --cluster-name upg -n default
equal "how many there are" 2 "$(az aks maintenanceconfiguration list -g "$RG" --cluster-name upg --query 'length(@)' -o tsv)"

section "Versions"
az aks get-upgrades -g "$RG" -n upg
current=$(az aks show -g "$RG" -n upg --query currentKubernetesVersion -o tsv)
az aks upgrade -g "$RG" -n upg --kubernetes-version "$current" --yes
az aks upgrade -g "$RG" -n upg --node-image-only --yes
equal "the state" Succeeded "$(az aks show -g "$RG" -n upg --query provisioningState -o tsv)"
equal "the mode" Auto "$(az aks show -g "$RG" -n upg --query nodeProvisioningProfile.mode -o tsv)"
az group delete --name "$RG" --yes
