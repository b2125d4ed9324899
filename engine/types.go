// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package engine

import "time"

// SnapshotVersion is the version of the Snapshot format this package reads
// and writes. A reader refuses a snapshot of a later version.
const SnapshotVersion = 1

// PlanVersion is the version of the Plan format this package writes.
const PlanVersion = 1

// Well-known label keys, by their Kubernetes and Karpenter names. The engine
// treats all keys alike except these: the zone and the capacity type belong to
// an offering rather than to an instance type, and every node is its own
// hostname domain.
const (
	LabelHostname      = "kubernetes.io/hostname"
	LabelZone          = "topology.kubernetes.io/zone"
	LabelRegion        = "topology.kubernetes.io/region"
	LabelInstanceType  = "node.kubernetes.io/instance-type"
	LabelArch          = "kubernetes.io/arch"
	LabelOS            = "kubernetes.io/os"
	LabelCapacityType  = "karpenter.sh/capacity-type"
	LabelNodePool      = "karpenter.sh/nodepool"
	LabelReservationID = "karpenter.sh/reservation-id"
)

// Capacity types an Offering can have.
const (
	CapacityOnDemand = "on-demand"
	CapacitySpot     = "spot"
	CapacityReserved = "reserved"
)

// Resource names that have a meaning for the engine. Any other resource (extended
// resources, GPUs, hugepages) is counted in the same way.
const (
	ResourceCPU    = "cpu"
	ResourceMemory = "memory"
	ResourcePods   = "pods"
	ResourceNodes  = "nodes" // in NodePool limits only: the number of machines
)

// Resources is an amount per resource: CPU in millicores, memory and storage in
// bytes, everything else in whole units. Amounts are not negative.
type Resources map[string]int64

// Snapshot is everything that a decision depends on, as a plain value: a cluster,
// a catalogue and the pods to place. It has no Kubernetes types, the engine never
// changes it, and it can be written as JSON and replayed: the same Snapshot and
// Options give the same Plan, byte for byte.
type Snapshot struct {
	// Version is SnapshotVersion.
	Version int `json:"version"`
	// Time is when the snapshot was taken, the only time that the engine knows.
	Time time.Time `json:"time"`
	// Classes are the pod classes; the rest of the snapshot refers to them by
	// index.
	Classes []PodClass `json:"classes"`
	// Pending are the pods to place.
	Pending []PodGroup `json:"pending,omitempty"`
	// Daemons are the classes of DaemonSet pods. Every machine that such a class is
	// compatible with has room reserved for one pod of it.
	Daemons []ClassID `json:"daemons,omitempty"`
	// Nodes are the existing and in-flight nodes that pods may be placed on, and
	// those that only count for topology and anti-affinity.
	Nodes []Node `json:"nodes,omitempty"`
	// Pools are the NodePools that machines can be created from.
	Pools []NodePool `json:"pools,omitempty"`
	// Catalogues are lists of instance types; pools refer to them by index, so
	// that pools with the same node class and no overlay of their own share one.
	Catalogues []Catalogue `json:"catalogues,omitempty"`
	// Quotas are amounts that offerings draw from: family and regional vCPU
	// quotas, capacity reservations, caps on nodes, vCPUs or dollars over all
	// pools. Offerings refer to them by index.
	Quotas []Quota `json:"quotas,omitempty"`
}

// ClassID is the index of a PodClass in Snapshot.Classes, or the number that
// Cluster.Class returned for it.
type ClassID int32

// PodClass is pods that are the same to scheduling. A Deployment of a thousand
// pods is usually one class.
type PodClass struct {
	// Name is for people, for example the name of the owner. It decides nothing.
	Name string `json:"name,omitempty"`
	// Namespace of the pods.
	Namespace string `json:"namespace,omitempty"`
	// Labels of the pods. Only those that some selector looks at are needed; more
	// of them are correct but make more classes.
	Labels map[string]string `json:"labels,omitempty"`
	// Terminating pods count for pod affinity and anti-affinity, not for topology
	// spread. They keep what they request.
	Terminating bool `json:"terminating,omitempty"`
	// Priority of the pods (spec.priority). If limits do not suffice for all pods,
	// those with higher priority are placed first.
	Priority int32 `json:"priority,omitempty"`
	// Requests is what the kube-scheduler counts for one pod: containers, init
	// containers and sidecars, pod-level resources and runtime overhead folded.
	// The pod itself (ResourcePods: 1) is added by the engine.
	Requests Resources `json:"requests,omitempty"`
	// NodeSelector must all hold on the node (spec.nodeSelector).
	NodeSelector []Requirement `json:"nodeSelector,omitempty"`
	// NodeAffinity are the OR-ed terms of the required node affinity; within a
	// term all requirements must hold. No terms: no restriction.
	NodeAffinity [][]Requirement `json:"nodeAffinity,omitempty"`
	// PreferredNodeAffinity are weighted terms that are relaxed if necessary.
	PreferredNodeAffinity []PreferredTerm `json:"preferredNodeAffinity,omitempty"`
	// Tolerations of the pods.
	Tolerations []Toleration `json:"tolerations,omitempty"`
	// Spread are the topology spread constraints, matchLabelKeys folded into
	// the selector. Cluster default constraints are listed like the pod's own.
	Spread []SpreadConstraint `json:"spread,omitempty"`
	// PodAffinity and PodAntiAffinity, required (Weight 0) and preferred.
	PodAffinity     []AffinityTerm `json:"podAffinity,omitempty"`
	PodAntiAffinity []AffinityTerm `json:"podAntiAffinity,omitempty"`
	// HostPorts that each pod occupies on its node.
	HostPorts []HostPort `json:"hostPorts,omitempty"`
	// Volumes is how many volumes per CSI driver each pod has for itself alone (the
	// claims of a StatefulSet).
	Volumes map[string]int `json:"volumes,omitempty"`
	// SharedVolumes are mounted by every pod of the class and by any other
	// class that names them; a node attaches each one once.
	SharedVolumes []SharedVolume `json:"sharedVolumes,omitempty"`
	// VolumeTopology has, for each volume that is not available everywhere, the
	// OR-ed terms of which one must hold. All volumes must be satisfied.
	VolumeTopology []VolumeTopology `json:"volumeTopology,omitempty"`
	// Unsupported names features of the pods that the engine does not compile (a
	// resource claim, for example). Such pods get the outcome Deferred: another
	// scheduler decides.
	Unsupported []string `json:"unsupported,omitempty"`
}

// PodGroup is pods of one class, by unique keys (namespace/name, UID or whatever
// the owner of the snapshot uses).
type PodGroup struct {
	Class ClassID  `json:"class"`
	Pods  []string `json:"pods"`
}

// Operator of a Requirement.
type Operator string

// The operators of node selectors and, with Gte and Lte, of NodePools.
const (
	In           Operator = "In"
	NotIn        Operator = "NotIn"
	Exists       Operator = "Exists"
	DoesNotExist Operator = "DoesNotExist"
	Gt           Operator = "Gt"
	Lt           Operator = "Lt"
	Gte          Operator = "Gte"
	Lte          Operator = "Lte"
)

// Requirement restricts one label. As in Kubernetes, NotIn and DoesNotExist
// hold where the label is absent; the ordering operators compare integers.
type Requirement struct {
	Key      string   `json:"key"`
	Operator Operator `json:"operator"`
	Values   []string `json:"values,omitempty"`
	// MinValues, in a NodePool, is how many different values of the key the
	// offerings of a machine must have. 0: any number.
	MinValues int `json:"minValues,omitempty"`
}

// PreferredTerm is a node affinity term with a weight (1 to 100).
type PreferredTerm struct {
	Weight       int32         `json:"weight"`
	Requirements []Requirement `json:"requirements"`
}

// Effect of a taint.
type Effect string

// Taint effects. PreferNoSchedule is treated as a preference.
const (
	NoSchedule       Effect = "NoSchedule"
	PreferNoSchedule Effect = "PreferNoSchedule"
	NoExecute        Effect = "NoExecute"
)

// Taint repels pods that do not tolerate it.
type Taint struct {
	Key    string `json:"key"`
	Value  string `json:"value,omitempty"`
	Effect Effect `json:"effect"`
}

// Toleration as in a pod: an empty Key with Exists tolerates everything, an
// empty Effect every effect. Operator is "Equal" (also when empty), "Exists",
// "Lt" or "Gt".
type Toleration struct {
	Key      string `json:"key,omitempty"`
	Operator string `json:"operator,omitempty"`
	Value    string `json:"value,omitempty"`
	Effect   Effect `json:"effect,omitempty"`
}

// Selector selects pods by label: all requirements must hold (operators In,
// NotIn, Exists, DoesNotExist). A selector without requirements selects every
// pod; a nil *Selector selects none.
type Selector struct {
	Requirements []Requirement `json:"requirements,omitempty"`
}

// NodePolicy decides whether a spread constraint honours the pod's node affinity
// or the nodes' taints in the choice of the nodes that it counts.
type NodePolicy string

// Node policies. Empty means the Kubernetes default: Honor for affinity,
// Ignore for taints.
const (
	Honor  NodePolicy = "Honor"
	Ignore NodePolicy = "Ignore"
)

// SpreadConstraint is a topology spread constraint of a pod, over pods of the
// pod's own namespace.
type SpreadConstraint struct {
	Key                string     `json:"key"`
	MaxSkew            int32      `json:"maxSkew"`
	MinDomains         int32      `json:"minDomains,omitempty"`
	Selector           *Selector  `json:"selector,omitempty"`
	NodeAffinityPolicy NodePolicy `json:"nodeAffinityPolicy,omitempty"`
	NodeTaintsPolicy   NodePolicy `json:"nodeTaintsPolicy,omitempty"`
	// Soft is whenUnsatisfiable: ScheduleAnyway.
	Soft bool `json:"soft,omitempty"`
}

// AffinityTerm is a pod affinity or anti-affinity term.
type AffinityTerm struct {
	Key string `json:"key"`
	// Selector over the labels of other pods.
	Selector *Selector `json:"selector,omitempty"`
	// Namespaces of those pods. The namespaces of a namespace selector are listed,
	// too; empty means the pod's own. AllNamespaces overrides the list.
	Namespaces    []string `json:"namespaces,omitempty"`
	AllNamespaces bool     `json:"allNamespaces,omitempty"`
	// Weight 1 to 100 makes the term a preference; 0 means required.
	Weight int32 `json:"weight,omitempty"`
}

// HostPort is a port on a node's address. An empty IP means all addresses, an
// empty Protocol TCP.
type HostPort struct {
	IP       string `json:"ip,omitempty"`
	Port     int32  `json:"port"`
	Protocol string `json:"protocol,omitempty"`
}

// SharedVolume is a volume that more than one pod can mount.
type SharedVolume struct {
	Driver string `json:"driver"`
	ID     string `json:"id"`
}

// VolumeTopology lists where a volume can be: one of the OR-ed terms must hold.
type VolumeTopology struct {
	Terms [][]Requirement `json:"terms"`
}

// Catalogue is a list of instance types.
type Catalogue struct {
	InstanceTypes []InstanceType `json:"instanceTypes"`
}

// InstanceType is a size of machines.
type InstanceType struct {
	// Name is the value of LabelInstanceType.
	Name string `json:"name"`
	// Requirements describe its labels: In with its values (if there are several,
	// any of them can be chosen), DoesNotExist, or Exists for any value. A key that
	// is not listed is absent.
	Requirements []Requirement `json:"requirements,omitempty"`
	// Capacity is what counts against limits, Allocatable what pods can use.
	Capacity    Resources `json:"capacity"`
	Allocatable Resources `json:"allocatable"`
	// VolumeLimits per CSI driver; a driver that is not listed is unlimited.
	VolumeLimits map[string]int `json:"volumeLimits,omitempty"`
	Offerings    []Offering     `json:"offerings"`
}

// Offering is a zone, capacity type and price of an instance type.
type Offering struct {
	Zone         string `json:"zone,omitempty"`
	CapacityType string `json:"capacityType,omitempty"`
	// Labels the offering adds to the instance type's, such as the
	// reservation's ID.
	Labels          map[string]string `json:"labels,omitempty"`
	PriceUSDPerHour float64           `json:"priceUSDPerHour"`
	// Available is false while the offering is known to be unavailable. Explanations
	// still count it.
	Available bool `json:"available"`
	// ReservationID names the reservation that a reserved offering draws from,
	// ReservationRemaining is how many instances are left in it. Offerings with the
	// same ID share the count.
	ReservationID        string `json:"reservationID,omitempty"`
	ReservationRemaining int    `json:"reservationRemaining,omitempty"`
	// Charges are what one machine of this offering draws from quotas.
	Charges []QuotaCharge `json:"charges,omitempty"`
	// Capacity and Allocatable override the instance type's, when not nil.
	Capacity    Resources `json:"capacity,omitempty"`
	Allocatable Resources `json:"allocatable,omitempty"`
}

// Quota is an amount that machines of several offerings share.
type Quota struct {
	Name string `json:"name"`
	// Remaining is what new machines can draw; in-flight machines are subtracted.
	Remaining int64 `json:"remaining"`
	// Limit is the whole amount, Title its name for people, Advice what to do when
	// it is used up. They only appear in texts.
	Limit  int64  `json:"limit,omitempty"`
	Title  string `json:"title,omitempty"`
	Advice string `json:"advice,omitempty"`
}

// QuotaCharge is what one machine draws from Snapshot.Quotas[Quota].
type QuotaCharge struct {
	Quota  int   `json:"quota"`
	Amount int64 `json:"amount"`
}

// NodePool is a template for machines and the limits on them.
type NodePool struct {
	Name string `json:"name"`
	// Weight: machines come from the pool with the highest weight that can hold the
	// pod. Among pools of equal weight the cheaper machine wins.
	Weight int32 `json:"weight,omitempty"`
	// Limits are on the total capacity of the pool's machines, Usage is the capacity
	// of existing and in-flight ones. A resource not in Limits is unlimited.
	Limits Resources `json:"limits,omitempty"`
	Usage  Resources `json:"usage,omitempty"`
	// Labels of every machine, and Requirements that restrict the catalogue and
	// define further labels.
	Labels       map[string]string `json:"labels,omitempty"`
	Requirements []Requirement     `json:"requirements,omitempty"`
	// Taints of every machine. StartupTaints are temporary and are ignored here.
	Taints        []Taint `json:"taints,omitempty"`
	StartupTaints []Taint `json:"startupTaints,omitempty"`
	// Catalogue is the index of the pool's instance types in Snapshot.Catalogues.
	Catalogue int `json:"catalogue"`
	// Blocked is why no machine may be created from this pool now (not ready,
	// static, being deleted, frozen), or empty.
	Blocked string `json:"blocked,omitempty"`
}

// Node is an existing or in-flight node.
type Node struct {
	// Name is unique. For a machine without a Node object yet it is the
	// NodeClaim's name.
	Name string `json:"name"`
	// NodePool is empty for nodes nap does not own.
	NodePool     string `json:"nodePool,omitempty"`
	InstanceType string `json:"instanceType,omitempty"`
	// PriceUSDPerHour is what it costs now, 0 when not known.
	PriceUSDPerHour float64           `json:"priceUSDPerHour,omitempty"`
	Labels          map[string]string `json:"labels,omitempty"`
	// Undecided are labels of an in-flight node that are not decided yet: In with
	// the possible values. A pod fits only if it fits every value.
	Undecided []Requirement `json:"undecided,omitempty"`
	// Taints are the current ones. While Initialized is false, StartupTaints and the
	// taints that Kubernetes puts on a node that is not ready are ignored.
	Taints        []Taint   `json:"taints,omitempty"`
	StartupTaints []Taint   `json:"startupTaints,omitempty"`
	Allocatable   Resources `json:"allocatable"`
	// Pods on the node or assumed to be there after an earlier plan, daemon pods
	// included, by class.
	Pods []PodGroup `json:"pods,omitempty"`
	// MissingDaemons are the classes of DaemonSets that have no pod on the node yet.
	// Room is reserved for those that fit its labels and taints.
	MissingDaemons []ClassID `json:"missingDaemons,omitempty"`
	// Reserved is further use that is not in Pods.
	Reserved Resources `json:"reserved,omitempty"`
	// VolumeLimits per CSI driver; a driver that is not listed is unlimited.
	VolumeLimits map[string]int `json:"volumeLimits,omitempty"`
	Initialized  bool           `json:"initialized,omitempty"`
	// Closed is why no pod may be placed here (deleting, cordoned, marked for
	// disruption), or empty. The node's pods still count for topology.
	Closed string `json:"closed,omitempty"`
	// Gone also removes its pods from every count; a simulation of its removal sets
	// it.
	Gone bool `json:"gone,omitempty"`
}

// PreferencePolicy is how preferences are treated.
type PreferencePolicy string

// Preference policies. Empty means Respect.
const (
	// PreferencesRespect treats preferences as required and relaxes them one by one,
	// lightest first, before a pod is refused.
	PreferencesRespect PreferencePolicy = "Respect"
	// PreferencesPriced honours preferences as PreferencesRespect does, but gives
	// them up where they raise the cost of all machines by more than
	// PreferenceShare.
	PreferencesPriced PreferencePolicy = "Priced"
	// PreferencesIgnore ignores preferences.
	PreferencesIgnore PreferencePolicy = "Ignore"
)

// MinValuesPolicy is what happens to minValues that cannot be met.
type MinValuesPolicy string

// MinValues policies. Empty means Strict.
const (
	MinValuesStrict     MinValuesPolicy = "Strict"
	MinValuesBestEffort MinValuesPolicy = "BestEffort"
)

// Work budgets for Options.Work.
const (
	// WorkDefault lets the engine choose: none for small passes, up to about
	// two seconds of one core for large ones.
	WorkDefault int64 = 0
	// WorkQuick stops after the quick path.
	WorkQuick int64 = -1
)

// TraceLevel is which classes are explained.
type TraceLevel string

// Trace levels. Empty means TraceRefused.
const (
	TraceRefused TraceLevel = "Refused" // classes with a pod that found no place
	TraceAll     TraceLevel = "All"
	TraceNone    TraceLevel = "None"
)

// Options of a pass. The zero value is the default.
type Options struct {
	Preferences PreferencePolicy `json:"preferences,omitempty"`
	MinValues   MinValuesPolicy  `json:"minValues,omitempty"`
	// Work is the budget of the improving path in work units (deterministic,
	// about a microsecond each): WorkDefault, WorkQuick or a positive number.
	Work int64 `json:"work,omitempty"`
	// MaxOfferings is how many ranked offerings a planned machine has at most, or
	// more if minValues needs them. 0 means 60, negative no limit.
	MaxOfferings int        `json:"maxOfferings,omitempty"`
	Trace        TraceLevel `json:"trace,omitempty"`
	// SkipBound leaves the bound out of the plan (Plan.Bound is nil).
	SkipBound bool `json:"skipBound,omitempty"`
}

// Plan is the result of Place.
type Plan struct {
	Version int `json:"version"`
	// Machines to create.
	Machines []Machine `json:"machines,omitempty"`
	// Placements of pods on existing and in-flight nodes.
	Placements []Placement `json:"placements,omitempty"`
	// Verdicts hold every pending pod exactly once.
	Verdicts []Verdict `json:"verdicts"`
	// CostUSDPerHour is the sum of the machines' prices.
	CostUSDPerHour float64 `json:"costUSDPerHour"`
	// QuickCostUSDPerHour is what the quick path alone would have cost.
	QuickCostUSDPerHour float64 `json:"quickCostUSDPerHour"`
	// Bound is a proven lower bound on the cost of machines for the pods that the
	// plan puts on new machines; nil with Options.SkipBound.
	Bound *CostBound `json:"bound,omitempty"`
	// Work is the number of work units used by the improving path.
	Work int64 `json:"work"`
	// Trace has the explanations that Options.Trace asks for.
	Trace *Trace `json:"trace,omitempty"`
}

// Machine is a machine to create.
type Machine struct {
	NodePool string `json:"nodePool"`
	// Requirements are those of the NodeClaim: the template's, narrowed by the
	// pods. Instance types and zones are in Offerings.
	Requirements []Requirement `json:"requirements,omitempty"`
	// Offerings of the machine, best first; each holds all pods. Machines may share
	// the slice: do not change it.
	Offerings []RankedOffering `json:"offerings"`
	// PriceUSDPerHour is that of the first offering.
	PriceUSDPerHour float64 `json:"priceUSDPerHour"`
	// Pods on the machine.
	Pods []PodGroup `json:"pods"`
	// Requests is the sum over Pods and the daemons of the first offering.
	Requests Resources `json:"requests"`
}

// RankedOffering names an offering of the machine's pool's catalogue.
type RankedOffering struct {
	InstanceType    string  `json:"instanceType"`
	Zone            string  `json:"zone,omitempty"`
	CapacityType    string  `json:"capacityType,omitempty"`
	ReservationID   string  `json:"reservationID,omitempty"`
	PriceUSDPerHour float64 `json:"priceUSDPerHour"`
}

// Placement is pods put on an existing or in-flight node.
type Placement struct {
	Node string     `json:"node"`
	Pods []PodGroup `json:"pods"`
}

// Outcome of a pod.
type Outcome string

// Outcomes.
const (
	// OnNode: on an existing or in-flight node.
	OnNode Outcome = "OnNode"
	// OnMachine: on a machine to create.
	OnMachine Outcome = "OnMachine"
	// Refused: no place, for the reason given.
	Refused Outcome = "Refused"
	// Deferred: needs a feature that the engine does not compile.
	Deferred Outcome = "Deferred"
)

// Verdict is the outcome of pods of one class.
type Verdict struct {
	Class   ClassID  `json:"class"`
	Outcome Outcome  `json:"outcome"`
	Pods    []string `json:"pods"`
	// Node is set for OnNode, Machine (an index into Plan.Machines) for
	// OnMachine and -1 otherwise.
	Node    string `json:"node,omitempty"`
	Machine int    `json:"machine"`
	// Reason is a sentence that says why pods are refused or deferred.
	Reason string `json:"reason,omitempty"`
	// Code is the machine-readable reason.
	Code Reason `json:"code,omitempty"`
	// Relaxed are the preferences that were relaxed, in order.
	Relaxed []string `json:"relaxed,omitempty"`
}

// Reason is the constraint that ruled out the last candidates.
type Reason string

// Reasons.
const (
	ReasonNone        Reason = ""
	ReasonNoPools     Reason = "NoNodePools"
	ReasonTaints      Reason = "Taints"
	ReasonRequirement Reason = "NodeAffinity"
	ReasonVolume      Reason = "VolumeTopology"
	ReasonVolumeLimit Reason = "VolumeLimits"
	ReasonUnavailable Reason = "NoCapacity"
	ReasonResources   Reason = "Resources"
	ReasonHostPorts   Reason = "HostPorts"
	ReasonLimits      Reason = "NodePoolLimits"
	ReasonQuota       Reason = "Quota"
	ReasonReservation Reason = "Reservation"
	ReasonMinValues   Reason = "MinValues"
	ReasonSpread      Reason = "TopologySpread"
	ReasonAffinity    Reason = "PodAffinity"
	ReasonAnti        Reason = "PodAntiAffinity"
	ReasonUnsupported Reason = "Unsupported"
)

// CostBound is a proven lower bound on the cost of machines for pods. That of a
// plan is about the pods that the plan puts on new machines, with the preferences
// that it kept; that of Bound assumes neither.
type CostBound struct {
	// USDPerHour: no placement of the pods costs less.
	USDPerHour float64 `json:"usdPerHour"`
	// Pods is how many pods the bound is about.
	Pods int `json:"pods"`
	// Kind is "pattern" or "resource": whichever was larger.
	Kind string `json:"kind"`
	// Resource and Pattern are the two bounds (0 when not computed).
	Resource float64 `json:"resource"`
	Pattern  float64 `json:"pattern"`
	// Gap is cost/bound − 1 of the bound's plan.
	Gap float64 `json:"gap"`
}

// Trace explains a Plan.
type Trace struct {
	Classes []ClassTrace `json:"classes"`
}

// ClassTrace is what each constraint left of the candidates of a class.
type ClassTrace struct {
	Class ClassID `json:"class"`
	// Stages in the order in which they are applied. The first one, "start",
	// has the totals.
	Stages []Stage `json:"stages"`
	// Nearest are the near misses: the candidates that were ruled out last, by the
	// least.
	Nearest []Miss `json:"nearest,omitempty"`
}

// Stage is a constraint and what it left.
type Stage struct {
	// Name is the constraint: "start", "taints", "nodeSelector", "resources", …
	Name   string `json:"name"`
	Detail string `json:"detail,omitempty"`
	Reason Reason `json:"reason,omitempty"`
	// Offerings and Nodes are how many are left after the stage.
	Offerings int `json:"offerings"`
	Nodes     int `json:"nodes"`
}

// Miss is a candidate that was ruled out at one stage only, or by the least.
type Miss struct {
	// What is the node's name or "pool/type/zone/capacity type".
	What   string `json:"what"`
	Reason Reason `json:"reason"`
	// Detail is by how much: "memory: needs 130Gi, has 118Gi".
	Detail string `json:"detail"`
}
