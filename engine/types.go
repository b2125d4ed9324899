package engine

import "time"

// SnapshotVersion is the version of the Snapshot format this package reads
// and writes. A reader refuses a snapshot of a later version.
const SnapshotVersion = 1

// PlanVersion is the version of the Plan format this package writes.
const PlanVersion = 1

// Well known label keys, by their Kubernetes and Karpenter names. The engine
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

// Resource names the engine gives a meaning to. Any other name (extended
// resources, GPUs, hugepages) is counted like them.
const (
	ResourceCPU    = "cpu"
	ResourceMemory = "memory"
	ResourcePods   = "pods"
	ResourceNodes  = "nodes" // in NodePool limits only: the number of machines
)

// Resources is an amount per resource name: CPU in millicores, memory and
// storage in bytes, everything else in whole units. Amounts are not negative.
type Resources map[string]int64

// Snapshot is everything a decision depends on, as a plain value: a cluster, a
// catalogue and the pods to place. It holds no Kubernetes types, is never
// changed by the engine, and can be written as JSON and replayed: the same
// Snapshot and Options give the same Plan, byte for byte.
type Snapshot struct {
	// Version is SnapshotVersion.
	Version int `json:"version"`
	// Time is when the snapshot was taken: the only clock the engine knows.
	Time time.Time `json:"time"`
	// Classes are all the pod classes that the rest of the snapshot refers to
	// by their index.
	Classes []PodClass `json:"classes"`
	// Pending are the pods to place.
	Pending []PodGroup `json:"pending,omitempty"`
	// Daemons are the classes of the DaemonSets' pods. Every machine and node
	// that such a class is compatible with keeps room for one pod of it.
	Daemons []ClassID `json:"daemons,omitempty"`
	// Nodes are the existing and in-flight machines that pods may be placed on,
	// and those that only count for topology and anti-affinity.
	Nodes []Node `json:"nodes,omitempty"`
	// Pools are the NodePools machines can be created from.
	Pools []NodePool `json:"pools,omitempty"`
	// Catalogues are lists of instance types; pools refer to them by index, so
	// that pools with the same node class and no overlay of their own share one.
	Catalogues []Catalogue `json:"catalogues,omitempty"`
	// Quotas are amounts that offerings draw from: family and regional vCPU
	// quota, capacity reservations, caps over all pools on nodes, vCPUs or
	// dollars. Offerings refer to them by index.
	Quotas []Quota `json:"quotas,omitempty"`
}

// ClassID is the index of a PodClass in Snapshot.Classes, or the number that
// Cluster.Class returned for it.
type ClassID int32

// PodClass is one scheduling-visible shape: every pod of a class can stand in
// for any other. A Deployment of a thousand pods is usually one class.
type PodClass struct {
	// Name is for people: the owner's name, say. It has no influence.
	Name string `json:"name,omitempty"`
	// Namespace of the pods.
	Namespace string `json:"namespace,omitempty"`
	// Labels of the pods. Only labels that some selector in play looks at need
	// to be here; more of them is correct, but makes more classes.
	Labels map[string]string `json:"labels,omitempty"`
	// Priority of the pods (spec.priority). Where limits do not suffice for all
	// pods, higher ones are placed first.
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
	// PreferredNodeAffinity are weighted terms the placement tries to honour.
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
	// Volumes is the number of volumes per CSI driver that every pod brings
	// along for itself (a StatefulSet's claims).
	Volumes map[string]int `json:"volumes,omitempty"`
	// SharedVolumes are mounted by every pod of the class and by any other
	// class that names them; a node attaches each one once.
	SharedVolumes []SharedVolume `json:"sharedVolumes,omitempty"`
	// VolumeTopology says, for each volume with a restricted place, the OR-ed
	// terms of which one must hold. All volumes must be satisfied.
	VolumeTopology []VolumeTopology `json:"volumeTopology,omitempty"`
	// Unsupported names features of the pods that the engine does not compile
	// (a resource claim, say). Such pods are not placed but handed back with
	// the outcome Deferred, for another scheduler to decide.
	Unsupported []string `json:"unsupported,omitempty"`
}

// PodGroup is pods of one class, by their keys (namespace/name, UID: whatever
// the owner of the snapshot resolves them with; keys are unique).
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
	// MinValues, in a NodePool: how many different values of the key the
	// offerings of a machine must keep. 0: no such demand.
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

// NodePolicy says whether a spread constraint honours the pod's node affinity
// or the nodes' taints when it decides which nodes are counted.
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
	// Namespaces of those pods, with the pod's own and those that a namespace
	// selector chooses resolved into it; AllNamespaces overrides the list.
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

// InstanceType is a size of machine.
type InstanceType struct {
	// Name is the value of LabelInstanceType.
	Name string `json:"name"`
	// Requirements describe its labels: In with the values it has (more than
	// one: any of them can be chosen), DoesNotExist, or Exists for any value.
	// A key that is not listed is absent.
	Requirements []Requirement `json:"requirements,omitempty"`
	// Capacity is what counts against limits, Allocatable what pods can use.
	Capacity    Resources `json:"capacity"`
	Allocatable Resources `json:"allocatable"`
	// VolumeLimits per CSI driver; a driver that is not listed is unlimited.
	VolumeLimits map[string]int `json:"volumeLimits,omitempty"`
	Offerings    []Offering     `json:"offerings"`
}

// Offering is one way to get an instance type: a zone, a capacity type and a
// price.
type Offering struct {
	Zone         string `json:"zone,omitempty"`
	CapacityType string `json:"capacityType,omitempty"`
	// Labels the offering adds to the instance type's, such as the
	// reservation's ID.
	Labels          map[string]string `json:"labels,omitempty"`
	PriceUSDPerHour float64           `json:"priceUSDPerHour"`
	// Available is false while the offering is known not to be obtainable. The
	// explanation still shows it.
	Available bool `json:"available"`
	// ReservationID names the reservation a reserved offering draws from and
	// ReservationRemaining how many instances are left in it. Offerings with
	// the same ID share the count.
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
	// Remaining is what new machines can draw, those in flight already taken off.
	Remaining int64 `json:"remaining"`
	// Limit is the whole amount, Title what people call it, Advice what can be
	// done when it is used up. They are only told.
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
	// Weight: a machine comes from the pool with the highest weight that can
	// serve the pod. Among equals the cheaper machine wins.
	Weight int32 `json:"weight,omitempty"`
	// Limits on the sum of the pool's machines' capacity, Usage what existing
	// and in-flight machines take of it. A resource not in Limits is unlimited.
	Limits Resources `json:"limits,omitempty"`
	Usage  Resources `json:"usage,omitempty"`
	// Labels of every machine, Requirements that narrow the catalogue and
	// define further labels.
	Labels       map[string]string `json:"labels,omitempty"`
	Requirements []Requirement     `json:"requirements,omitempty"`
	// Taints of every machine; StartupTaints are there at first only and repel
	// nobody here.
	Taints        []Taint `json:"taints,omitempty"`
	StartupTaints []Taint `json:"startupTaints,omitempty"`
	// Catalogue is the index of the pool's instance types in Snapshot.Catalogues.
	Catalogue int `json:"catalogue"`
	// Blocked is not empty when no machine may be created from this pool now,
	// and says why (not ready, static, being deleted, frozen).
	Blocked string `json:"blocked,omitempty"`
}

// Node is an existing machine, or one in flight.
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
	// Undecided are labels of an in-flight machine that are not settled yet:
	// In with the values possible. A pod fits only if it fits every value.
	Undecided []Requirement `json:"undecided,omitempty"`
	// Taints now. While Initialized is false StartupTaints (and the taints
	// Kubernetes itself puts on a node that is not ready) repel nobody.
	Taints        []Taint   `json:"taints,omitempty"`
	StartupTaints []Taint   `json:"startupTaints,omitempty"`
	Allocatable   Resources `json:"allocatable"`
	// Pods on the node or promised to it by an earlier plan, daemon pods
	// included, by class.
	Pods []PodGroup `json:"pods,omitempty"`
	// MissingDaemons are the classes of DaemonSets that have no pod on the node
	// yet: those that fit its labels and taints keep their room.
	MissingDaemons []ClassID `json:"missingDaemons,omitempty"`
	// Reserved is further use that is not in Pods.
	Reserved Resources `json:"reserved,omitempty"`
	// VolumeLimits per CSI driver; a driver that is not listed is unlimited.
	VolumeLimits map[string]int `json:"volumeLimits,omitempty"`
	Initialized  bool           `json:"initialized,omitempty"`
	// Closed is not empty when no pod may be placed here (deleting, cordoned,
	// marked for disruption), and says why. Its pods still count for topology.
	Closed string `json:"closed,omitempty"`
	// Gone also takes its pods out of every count: what a simulation of its
	// removal sets.
	Gone bool `json:"gone,omitempty"`
}

// PreferencePolicy says what becomes of preferences.
type PreferencePolicy string

// Preference policies. Empty means Respect.
const (
	// PreferencesRespect treats preferences as demands and gives them up one by
	// one, lightest first, before a pod is refused.
	PreferencesRespect PreferencePolicy = "Respect"
	// PreferencesIgnore never looks at them.
	PreferencesIgnore PreferencePolicy = "Ignore"
)

// MinValuesPolicy says what becomes of minValues that cannot be met.
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

// TraceLevel says which classes get an explanation.
type TraceLevel string

// Trace levels. Empty means TraceRefused.
const (
	TraceRefused TraceLevel = "Refused" // classes with a pod that found no place
	TraceAll     TraceLevel = "All"
	TraceNone    TraceLevel = "None"
)

// Options are the knobs of a pass. The zero value is the default.
type Options struct {
	Preferences PreferencePolicy `json:"preferences,omitempty"`
	MinValues   MinValuesPolicy  `json:"minValues,omitempty"`
	// Work is the budget of the improving path in work units (deterministic,
	// about a microsecond each): WorkDefault, WorkQuick or a positive number.
	Work int64 `json:"work,omitempty"`
	// MaxOfferings is how many ranked offerings a planned machine carries at
	// most; more when minValues needs them. 0 means 60, negative no limit.
	MaxOfferings int        `json:"maxOfferings,omitempty"`
	Trace        TraceLevel `json:"trace,omitempty"`
	// SkipBound leaves the bound out of the plan (Plan.Bound is nil).
	SkipBound bool `json:"skipBound,omitempty"`
}

// Plan is the answer of Place.
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
	// Bound is a proven lower bound on the cost of machines for the pods that
	// the plan puts on new machines; nil when it was not asked for.
	Bound *CostBound `json:"bound,omitempty"`
	// Work is the number of work units used by the improving path.
	Work int64 `json:"work"`
	// Trace explains, as far as Options.Trace asks.
	Trace *Trace `json:"trace,omitempty"`
}

// Machine is a machine to create.
type Machine struct {
	NodePool string `json:"nodePool"`
	// Requirements are what the NodeClaim must carry: the template's, narrowed
	// by the pods. The instance types and zones are in Offerings.
	Requirements []Requirement `json:"requirements,omitempty"`
	// Offerings are the ways to get this machine, best first; all of them hold
	// all pods. The slice may be shared between machines: do not change it.
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
	// Deferred: needs a feature the engine does not compile.
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
	// Reason says in one sentence why pods are refused or deferred.
	Reason string `json:"reason,omitempty"`
	// Code is the machine-readable reason.
	Code Reason `json:"code,omitempty"`
	// Relaxed are the preferences that were given up, in order.
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

// CostBound is a proven lower bound on what machines for pods cost. That of a
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
	// Gap is cost/bound − 1 of the plan that carries the bound.
	Gap float64 `json:"gap"`
}

// Trace is the explanation beside a Plan.
type Trace struct {
	Classes []ClassTrace `json:"classes"`
}

// ClassTrace is how the candidates of a class dwindled.
type ClassTrace struct {
	Class ClassID `json:"class"`
	// Stages in the order in which they are applied. The first one, "start",
	// has the totals.
	Stages []Stage `json:"stages"`
	// Nearest are the near misses: the candidates that failed last and least.
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

// Miss is a candidate that failed at one stage only, or by the least.
type Miss struct {
	// What is the node's name or "pool/type/zone/capacity type".
	What   string `json:"what"`
	Reason Reason `json:"reason"`
	// Detail says by how much: "memory: needs 130Gi, has 118Gi".
	Detail string `json:"detail"`
}
