// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package armtemplate

import (
	"encoding/json"
	"time"
)

// Scope is the scope of a deployment: a resource group; the subscription if
// ResourceGroup.Name is empty; the tenant if SubscriptionID is empty too.
type Scope struct {
	TenantID         string
	SubscriptionID   string
	SubscriptionName string
	ResourceGroup    ResourceGroup
}

// ResourceGroup is what resourceGroup() returns.
type ResourceGroup struct {
	Name, Location, ManagedBy string
	Tags                      map[string]string
}

// Input is the input of Expand besides the template.
type Input struct {
	// Parameters are the values of the request as JSON, by name.
	Parameters map[string]json.RawMessage
	Scope      Scope
	// DeploymentName, DeploymentLocation and Mode are returned by deployment().
	DeploymentName, DeploymentLocation, Mode string
	// DeployerObjectID is returned by deployer().
	DeployerObjectID string
	// Environment is what environment() returns, as JSON; nil for a minimal default.
	Environment json.RawMessage
	// Now is what utcNow() returns.
	Now time.Time
	// NewGUID returns the values of newGuid(); nil for random ones.
	NewGUID func() string
}

// Runtime reads deployed resources. Resolve and Outputs wrap its errors.
type Runtime interface {
	// Reference returns a whole resource as JSON, with properties, location,
	// identity and so on.
	Reference(id, apiVersion string) ([]byte, error)
	// List calls an action of a resource: POST {id}/{function} with the input,
	// which may be nil, as the body. It returns the response, which is JSON.
	List(function, id, apiVersion string, input []byte) ([]byte, error)
}

// Resource is one resource of a template after unrolling loops.
type Resource struct {
	// Symbol is the symbolic name (with an index, "vm[3]", in a loop); empty if
	// the template has no symbolic names.
	Symbol string
	// ID is the full resource ID. Type and Name are full too, such as
	// "Microsoft.Network/virtualNetworks/subnets" and "vnet/default".
	ID, Type, Name, APIVersion string
	// SubscriptionID and ResourceGroup are those of the deployment unless the
	// resource names others.
	SubscriptionID, ResourceGroup string
	// Location is empty if it depends on a deployed resource.
	Location string
	// Existing resources are read and not deployed.
	Existing bool
	// Condition is false if the resource is not deployed.
	Condition bool
	// DependsOn are the indices in Graph.Resources of the resources that must be
	// deployed before this one, sorted. Resources that are not deployed (Existing
	// is true or Condition false) are not among them.
	DependsOn []int
	// Body is the body of the PUT request, without name, type, apiVersion and
	// the keywords of templates. If Deferred is true, it still has the
	// expressions that depend on deployed resources as text, and Resolve returns
	// the final body. Body is nil for resources that are not deployed.
	Body     json.RawMessage
	Deferred bool
	// Line and Column of the resource in the template.
	Line, Column int

	loopName string
	node     *node
	loops    []loop
	scope    string // scope of an extension resource, "" for none
}

// ParameterValue is a parameter as a deployment resource shows it. Value is nil
// for secure types.
type ParameterValue struct {
	Type  string          `json:"type"`
	Value json.RawMessage `json:"value,omitempty"`
}

// Output is one output. Value is nil for secure types.
type Output struct {
	Name, Type string
	Value      json.RawMessage
}

// Graph is an expanded template: the resources to deploy and their order.
type Graph struct {
	// Resources have the order of the template.
	Resources []Resource
	// Parameters are the values of the request or the defaults.
	Parameters map[string]ParameterValue

	env          *env
	byID         map[string]int   // lower-case ID
	byName       map[string][]int // lower-case full name, and last part of it
	bySymbol     map[string]int
	bySymbolLoop map[string][]int
	emptyLoops   map[string]bool
	loops        map[string][]int
}
