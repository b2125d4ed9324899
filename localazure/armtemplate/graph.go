package armtemplate

import (
	"encoding/json"
	"time"
)

// Scope is where a deployment happens. ResourceGroup.Name empty means the
// subscription; SubscriptionID empty too means the tenant.
type Scope struct {
	TenantID         string
	SubscriptionID   string
	SubscriptionName string
	ResourceGroup    ResourceGroup
}

// ResourceGroup is what resourceGroup() tells.
type ResourceGroup struct {
	Name, Location, ManagedBy string
	Tags                      map[string]string
}

// Input is what a template is expanded with.
type Input struct {
	// Parameters are the given values as JSON, by name.
	Parameters map[string]json.RawMessage
	Scope      Scope
	// DeploymentName, DeploymentLocation and Mode are what deployment() tells.
	DeploymentName, DeploymentLocation, Mode string
	// DeployerObjectID is what deployer() tells.
	DeployerObjectID string
	// Environment is what environment() tells, as JSON; nil for a bare default.
	Environment json.RawMessage
	// Now is the time of utcNow().
	Now time.Time
	// NewGUID makes the values of newGuid(); nil for random ones.
	NewGUID func() string
}

// Runtime answers what only deployed resources can tell. Its errors come back
// wrapped in what Resolve and Outputs return.
type Runtime interface {
	// Reference reads a resource: the whole of it as JSON, with properties,
	// location, identity and so on.
	Reference(id, apiVersion string) ([]byte, error)
	// List calls an action of a resource: POST {id}/{function} with the input,
	// nil for none, as body. The answer is JSON.
	List(function, id, apiVersion string, input []byte) ([]byte, error)
}

// Resource is one resource that a template asks for, loops unrolled.
type Resource struct {
	// Symbol is the symbolic name (with an index, "vm[3]", in a loop); empty
	// when the template does not use them.
	Symbol string
	// ID is the whole resource ID; Type and Name are whole too, such as
	// "Microsoft.Network/virtualNetworks/subnets" and "vnet/default".
	ID, Type, Name, APIVersion string
	// SubscriptionID and ResourceGroup tell where it goes: the deployment's
	// own scope unless the resource says otherwise.
	SubscriptionID, ResourceGroup string
	// Location as far as it is known before deployment.
	Location string
	// Existing resources are referred to, not deployed.
	Existing bool
	// Condition false means that the resource is not deployed.
	Condition bool
	// DependsOn are indices of Graph.Resources that come first: only such as
	// are deployed (not Existing, Condition true), each once, in order.
	DependsOn []int
	// Body is what to PUT, without name, type, apiVersion and the template's
	// own keywords. While Deferred is true, the expressions that need deployed
	// resources stand in it as text: use Resolve for the real body. Nil when
	// Existing or Condition is false.
	Body     json.RawMessage
	Deferred bool
	// Line and Column of the resource in the template.
	Line, Column int

	loopName string
	node     *node
	loops    []loop
	scope    string // scope of an extension resource, "" for none
}

// ParameterValue is a parameter as a deployment shows it. Value is nil for
// secure ones.
type ParameterValue struct {
	Type  string          `json:"type"`
	Value json.RawMessage `json:"value,omitempty"`
}

// Output is one output. Value is nil for secure types.
type Output struct {
	Name, Type string
	Value      json.RawMessage
}

// Graph is an expanded template: what to deploy, and in which order.
type Graph struct {
	// Resources are in the order of the template.
	Resources []Resource
	// Parameters are the values in force, given or by default.
	Parameters map[string]ParameterValue

	env          *env
	byID         map[string]int   // lower-case ID
	byName       map[string][]int // lower-case full name, and last part of it
	bySymbol     map[string]int
	bySymbolLoop map[string][]int
	emptyLoops   map[string]bool
	loops        map[string][]int
}
