// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

// Package authorization is Microsoft.Authorization: role definitions, role
// assignments and locks. It decides on every request whether the principal may
// do it.
package authorization

import "strings"

// Role is a role definition.
type Role struct {
	GUID        string
	Name        string
	Description string
	Actions     []string
	NotActions  []string
	// Custom roles are created by clients and have scopes.
	Custom bool
	Scopes []string
}

// Well-known role definitions.
const (
	Owner              = "8e3af657-a8ff-443c-a75c-2fe8c4bcb635"
	Contributor        = "b24988ac-6180-42a0-ab88-20f7382dd24c"
	Reader             = "acdd72a7-3385-48ef-bd42-f606fba81ae7"
	NetworkContributor = "4d97b98b-1d4f-4787-a291-c67834d212e7"
	AKSContributor     = "ed7f3fbd-7b88-4dd4-9017-9adb7ce333f8"
)

// builtIn are the built-in roles: those that the documentation of AKS and node
// auto-provisioning mentions.
var builtIn = []Role{
	{GUID: Owner, Name: "Owner", Description: "All actions, including assigning roles.", Actions: []string{"*"}},
	{GUID: Contributor, Name: "Contributor", Description: "All actions except assigning roles.", Actions: []string{"*"},
		NotActions: []string{"Microsoft.Authorization/*/Delete", "Microsoft.Authorization/*/Write", "Microsoft.Authorization/elevateAccess/Action"}},
	{GUID: Reader, Name: "Reader", Description: "All reading, no changes.", Actions: []string{"*/read"}},
	{GUID: "18d7d88d-d35e-4fb5-a5c3-7773c20a72d9", Name: "User Access Administrator", Description: "Assigning roles to others.",
		Actions: []string{"*/read", "Microsoft.Authorization/*", "Microsoft.Support/*"}},
	{GUID: NetworkContributor, Name: "Network Contributor", Description: "All actions on networks.",
		Actions: []string{"Microsoft.Authorization/*/read", "Microsoft.Insights/alertRules/*", "Microsoft.Network/*", "Microsoft.ResourceHealth/availabilityStatuses/read", "Microsoft.Resources/deployments/*", "Microsoft.Resources/subscriptions/resourceGroups/read", "Microsoft.Support/*"}},
	{GUID: AKSContributor, Name: "Azure Kubernetes Service Contributor Role", Description: "Reading and changing managed clusters.",
		Actions: []string{"Microsoft.Authorization/*/read", "Microsoft.ContainerService/locations/*/read", "Microsoft.ContainerService/managedClusters/read", "Microsoft.ContainerService/managedClusters/write", "Microsoft.ContainerService/managedClusters/*", "Microsoft.Resources/deployments/*", "Microsoft.Resources/subscriptions/resourceGroups/read"}},
	{GUID: "0ab0b1a8-8aac-4efd-b8c2-3ee1fb270be8", Name: "Azure Kubernetes Service Cluster Admin Role", Description: "Getting a cluster's admin credentials.",
		Actions: []string{"Microsoft.ContainerService/managedClusters/listClusterAdminCredential/action", "Microsoft.ContainerService/managedClusters/accessProfiles/listCredential/action", "Microsoft.ContainerService/managedClusters/read", "Microsoft.ContainerService/managedClusters/runcommand/action"}},
	{GUID: "4abbcc35-e782-43d8-92c5-2d3f1bd2253f", Name: "Azure Kubernetes Service Cluster User Role", Description: "Getting a cluster's user credentials.",
		Actions: []string{"Microsoft.ContainerService/managedClusters/listClusterUserCredential/action", "Microsoft.ContainerService/managedClusters/read"}},
	{GUID: "f1a07417-d97a-45cb-824c-7a7467783830", Name: "Managed Identity Operator", Description: "Assigning user-assigned identities.",
		Actions: []string{"Microsoft.ManagedIdentity/userAssignedIdentities/*/read", "Microsoft.ManagedIdentity/userAssignedIdentities/*/assign/action", "Microsoft.Authorization/*/read", "Microsoft.Resources/deployments/*", "Microsoft.Resources/subscriptions/resourceGroups/read"}},
	{GUID: "7f951dda-4ed3-4680-a7ca-43fe172d538d", Name: "AcrPull", Description: "Pulling images from a registry.", Actions: []string{"Microsoft.ContainerRegistry/registries/pull/read"}},
	{GUID: "73c42c96-874c-492b-b04d-ab87d138a893", Name: "Log Analytics Reader", Description: "Reading and querying logs.",
		Actions: []string{"*/read", "Microsoft.OperationalInsights/workspaces/analytics/query/action", "Microsoft.OperationalInsights/workspaces/search/action"}},
	{GUID: "9980e02c-c2be-4d73-94e8-173b1dc7cf3c", Name: "Virtual Machine Contributor", Description: "All actions on virtual machines, except access to them.",
		Actions: []string{"Microsoft.Authorization/*/read", "Microsoft.Compute/*", "Microsoft.Network/networkInterfaces/*", "Microsoft.Network/virtualNetworks/read", "Microsoft.Network/virtualNetworks/subnets/join/action", "Microsoft.Resources/deployments/*", "Microsoft.Resources/subscriptions/resourceGroups/read"}},
}

// Allows reports whether the role has an action: one of Actions matches and none
// of NotActions.
func (r *Role) Allows(action string) bool {
	return anyMatch(r.Actions, action) && !anyMatch(r.NotActions, action)
}

func anyMatch(patterns []string, s string) bool {
	for _, p := range patterns {
		if wildcard(strings.ToLower(p), strings.ToLower(s)) {
			return true
		}
	}
	return false
}

// wildcard matches a pattern whose asterisks stand for any characters, in
// time linear in the text for each asterisk.
func wildcard(p, s string) bool {
	parts := strings.Split(p, "*")
	if len(parts) == 1 {
		return p == s
	}
	if !strings.HasPrefix(s, parts[0]) {
		return false
	}
	s = s[len(parts[0]):]
	for _, m := range parts[1 : len(parts)-1] {
		i := strings.Index(s, m)
		if i < 0 {
			return false
		}
		s = s[i+len(m):]
	}
	return strings.HasSuffix(s, parts[len(parts)-1])
}
