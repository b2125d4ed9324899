// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package snapshot

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"sort"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	resourcehelper "k8s.io/component-helpers/resource"
	karpv1 "sigs.k8s.io/karpenter/pkg/apis/v1"
	karpsched "sigs.k8s.io/karpenter/pkg/controllers/provisioning/scheduling"
	"sigs.k8s.io/karpenter/pkg/scheduling"
	podutils "sigs.k8s.io/karpenter/pkg/utils/pod"

	"github.com/nap-aks/nap/engine"
	"github.com/nap-aks/nap/internal/kubemem"
)

// shape is what scheduling depends on in a pod, labels excluded. Pods with equal keys
// share a shape.
type shape struct {
	*translation
	err error // why the pod cannot be planned for: unresolved volumes, for example
	// validated is whether Karpenter has validated a pod of this shape without volume
	// claims; invalid is the result. Validation may read more of a pod than its
	// translation keeps, so that shapes with one translation do not share it.
	validated bool
	invalid   error
}

// translation is a pod in the engine's terms. Shapes with equal classes share it.
type translation struct {
	class engine.PodClass // Labels and Name not set
	// ids are the classes by encoded labels.
	ids map[string]engine.ClassID
}

// shapes interns the shapes of pods and numbers their classes.
type shapes struct {
	client  *kubemem.Client
	volumes *karpsched.VolumeTopology
	byKey   map[string]*shape       // by the fields of the pod, see appendShape
	byClass map[string]*translation // by the class
	// Keys in byKey of the shapes that depend on a volume claim, and of those that
	// depend on the labels of namespaces.
	byClaim      map[types.NamespacedName][]string
	byNamespaces []string
	buf          []byte
	// keys are the label keys that selectors use.
	keys        map[string]bool
	sortedKeys  []string
	keysVersion int
	classes     []engine.PodClass
}

func newShapes(c *kubemem.Client) *shapes {
	return &shapes{client: c, volumes: karpsched.NewVolumeTopology(c), byKey: map[string]*shape{}, byClass: map[string]*translation{}, byClaim: map[types.NamespacedName][]string{}, keys: map[string]bool{}}
}

// of returns the shape of a pod and translates it if it is new. The key covers every
// field that the translation reads, but not the objects that the pod refers to (volume
// claims, namespaces): call forget when those change.
func (s *shapes) of(ctx context.Context, p *corev1.Pod) *shape {
	s.buf = appendShape(s.buf[:0], p)
	if found, ok := s.byKey[string(s.buf)]; ok {
		return found
	}
	sh := &shape{translation: &translation{ids: map[string]engine.ClassID{}}}
	key := string(s.buf)
	s.dependsOn(key, p)
	sh.class, sh.err = s.translate(ctx, p)
	s.byKey[key] = sh
	// Different keys can have the same translation: a pending and a running pod of one
	// Deployment, or the pods of a StatefulSet with a volume claim each.
	content, err := json.Marshal(sh.class)
	if err == nil { // also of a pod that cannot be planned for: it may be running
		if same, ok := s.byClass[string(content)]; ok {
			sh.translation = same
			return sh
		}
		s.byClass[string(content)] = sh.translation
	}
	for _, c := range sh.class.Spread {
		s.addKeys(c.Selector)
	}
	for _, t := range sh.class.PodAffinity {
		s.addKeys(t.Selector)
	}
	for _, t := range sh.class.PodAntiAffinity {
		s.addKeys(t.Selector)
	}
	return sh
}

// addKeys adds the label keys of a selector.
func (s *shapes) addKeys(sel *engine.Selector) {
	if sel == nil {
		return
	}
	for _, r := range sel.Requirements {
		if !s.keys[r.Key] {
			s.keys[r.Key] = true
			s.keysVersion++
			s.sortedKeys = slices.Sorted(maps.Keys(s.keys))
		}
	}
}

// forget drops the keys of shapes, so that pods are translated again. A class with the
// same translation keeps its number.
func (s *shapes) forget() {
	s.byKey, s.byClaim, s.byNamespaces = map[string]*shape{}, map[types.NamespacedName][]string{}, nil
}

// dependsOn records what the shape of a pod depends on beside the pod.
func (s *shapes) dependsOn(key string, p *corev1.Pod) {
	for _, k := range claimsOf(p) {
		s.byClaim[k] = append(s.byClaim[k], key)
	}
	if selectsNamespaces(p) {
		s.byNamespaces = append(s.byNamespaces, key)
	}
}

// forgetClaim drops the keys of the shapes that depend on a volume claim.
func (s *shapes) forgetClaim(k types.NamespacedName) {
	for _, key := range s.byClaim[k] {
		delete(s.byKey, key)
	}
	delete(s.byClaim, k)
}

// forgetNamespaces drops the keys of the shapes that depend on labels of namespaces.
func (s *shapes) forgetNamespaces() {
	for _, key := range s.byNamespaces {
		delete(s.byKey, key)
	}
	s.byNamespaces = nil
}

// class returns the number of the class of a pod with this shape and these labels. A
// new class gets the name, which is for people.
func (s *shapes) class(sh *shape, podLabels map[string]string, name string, terminating bool) engine.ClassID {
	s.buf = s.buf[:0]
	if terminating {
		s.buf = append(s.buf, '-')
	}
	for _, k := range s.sortedKeys {
		if v, ok := podLabels[k]; ok {
			s.buf = appendString(appendString(s.buf, k), v)
		}
	}
	if id, ok := sh.ids[string(s.buf)]; ok {
		return id
	}
	c := sh.class
	c.Name, c.Terminating = name, terminating
	for _, k := range s.sortedKeys {
		if v, ok := podLabels[k]; ok {
			if c.Labels == nil {
				c.Labels = map[string]string{}
			}
			c.Labels[k] = v
		}
	}
	id := engine.ClassID(len(s.classes))
	s.classes = append(s.classes, c)
	sh.ids[string(s.buf)] = id
	return id
}

// translate returns the class of a pod, without labels.
func (s *shapes) translate(ctx context.Context, p *corev1.Pod) (engine.PodClass, error) {
	c := engine.PodClass{Namespace: p.Namespace, Requests: requests(p)}
	if p.Spec.Priority != nil {
		c.Priority = *p.Spec.Priority
	}
	for _, k := range slices.Sorted(maps.Keys(p.Spec.NodeSelector)) {
		c.NodeSelector = append(c.NodeSelector, requirement(k, corev1.NodeSelectorOpIn, []string{p.Spec.NodeSelector[k]}))
	}
	for _, t := range p.Spec.Tolerations {
		c.Tolerations = append(c.Tolerations, engine.Toleration{Key: t.Key, Operator: string(t.Operator), Value: t.Value, Effect: engine.Effect(t.Effect)})
	}
	c.HostPorts = hostPorts(p)
	if podutils.HasDRARequirements(p) {
		c.Unsupported = append(c.Unsupported, "dynamic resource claims")
	}
	var err error
	if c.Spread, err = spread(p); err != nil {
		return c, err
	}
	if a := p.Spec.Affinity; a != nil {
		nodeAffinity(&c, p)
		if a.PodAffinity != nil {
			if c.PodAffinity, err = s.terms(ctx, p, a.PodAffinity.RequiredDuringSchedulingIgnoredDuringExecution, a.PodAffinity.PreferredDuringSchedulingIgnoredDuringExecution); err != nil {
				return c, err
			}
		}
		if a.PodAntiAffinity != nil {
			if c.PodAntiAffinity, err = s.terms(ctx, p, a.PodAntiAffinity.RequiredDuringSchedulingIgnoredDuringExecution, a.PodAntiAffinity.PreferredDuringSchedulingIgnoredDuringExecution); err != nil {
				return c, err
			}
		}
	}
	return c, s.podVolumes(ctx, p, &c)
}

// podVolumes adds the requirements of the pod's volumes to its class.
func (s *shapes) podVolumes(ctx context.Context, p *corev1.Pod, c *engine.PodClass) error {
	if !hasClaims(p) {
		return nil
	}
	used, err := scheduling.GetVolumes(ctx, s.client, p)
	if err != nil {
		return fmt.Errorf("resolving the volumes of the pod: %w", err)
	}
	own := ownClaims(p)
	for _, driver := range slices.Sorted(maps.Keys(used)) {
		for _, id := range slices.Sorted(maps.Keys(used[driver])) {
			if own[id] {
				if c.Volumes == nil {
					c.Volumes = map[string]int{}
				}
				c.Volumes[driver]++
			} else {
				c.SharedVolumes = append(c.SharedVolumes, engine.SharedVolume{Driver: driver, ID: id})
			}
		}
	}
	alternatives, err := s.volumes.GetRequirements(ctx, p)
	if err != nil {
		return fmt.Errorf("resolving the topology of the pod's volumes: %w", err)
	}
	if len(alternatives) > 0 {
		vt := engine.VolumeTopology{}
		for _, alt := range alternatives {
			vt.Terms = append(vt.Terms, fromKarpenter(alt))
		}
		c.VolumeTopology = append(c.VolumeTopology, vt)
	}
	places, err := s.volumePlaces(ctx, p)
	if err != nil {
		return err
	}
	c.VolumeTopology = append(c.VolumeTopology, places...)
	return nil
}

// hasClaims reports whether a pod has volume claims.
func hasClaims(p *corev1.Pod) bool {
	for i := range p.Spec.Volumes {
		if v := &p.Spec.Volumes[i]; v.PersistentVolumeClaim != nil || v.Ephemeral != nil {
			return true
		}
	}
	return false
}

// ownClaims returns the volume claims that belong to this pod alone: those of ephemeral
// volumes, and those of a StatefulSet's templates, whose names end in that of the pod.
// Other pods may mount any other claim.
func ownClaims(p *corev1.Pod) map[string]bool {
	out := map[string]bool{}
	for i := range p.Spec.Volumes {
		v := &p.Spec.Volumes[i]
		switch {
		case v.Ephemeral != nil:
			out[p.Namespace+"/"+p.Name+"-"+v.Name] = true
		case v.PersistentVolumeClaim != nil && strings.HasSuffix(v.PersistentVolumeClaim.ClaimName, "-"+p.Name):
			out[p.Namespace+"/"+v.PersistentVolumeClaim.ClaimName] = true
		}
	}
	return out
}

// requests returns what the kube-scheduler counts for a pod. While a resize in place,
// of containers or of the pod, is under way, that is the most of what is wanted, given
// and used.
func requests(p *corev1.Pod) engine.Resources {
	return amounts(resourcehelper.PodRequests(p, resourcehelper.PodResourcesOptions{UseStatusResources: true, InPlacePodLevelResourcesVerticalScalingEnabled: true}), true)
}

// amounts converts quantities to the engine's integers. Requests are rounded up and
// capacities are rounded down; zero requests are dropped.
func amounts(list corev1.ResourceList, roundUp bool) engine.Resources {
	out := make(engine.Resources, len(list))
	for name, q := range list {
		v := amount(name, q, roundUp)
		if v > 0 || v == 0 && !roundUp {
			out[string(name)] = v
		}
	}
	return out
}

func amount(name corev1.ResourceName, q resource.Quantity, roundUp bool) int64 {
	var v int64
	if name == corev1.ResourceCPU {
		v = q.MilliValue()
		if !roundUp && q.Cmp(*resource.NewMilliQuantity(v, resource.DecimalSI)) < 0 {
			v--
		}
	} else {
		v = q.Value()
		if !roundUp && q.Cmp(*resource.NewQuantity(v, resource.DecimalSI)) < 0 {
			v--
		}
	}
	return max(v, 0)
}

func requirement(key string, op corev1.NodeSelectorOperator, values []string) engine.Requirement {
	key, values = normalize(key, values)
	return engine.Requirement{Key: key, Operator: engine.Operator(op), Values: values}
}

// normalize replaces older names of a label, and of its values, by those that Karpenter
// and the provider use.
func normalize(key string, values []string) (string, []string) {
	if n, ok := karpv1.NormalizedLabels[key]; ok {
		key = n
	}
	if m := karpv1.NormalizedLabelValues[key]; len(m) > 0 {
		mapped := slices.Clone(values)
		for i, v := range mapped {
			if to, ok := m[v]; ok {
				mapped[i] = to
			}
		}
		return key, mapped
	}
	return key, values
}

// fromKarpenter converts Karpenter's requirements to the engine's, sorted by key.
func fromKarpenter(reqs scheduling.Requirements) []engine.Requirement {
	var out []engine.Requirement
	for _, r := range reqs.NodeSelectorRequirements() {
		e := engine.Requirement{Key: r.Key, Operator: engine.Operator(r.Operator), Values: slices.Sorted(slices.Values(r.Values))}
		if r.MinValues != nil {
			e.MinValues = *r.MinValues
		}
		out = append(out, e)
	}
	sort.SliceStable(out, func(i, j int) bool { return out[i].Key < out[j].Key })
	return out
}

// impossible returns a requirement that no node meets.
func impossible() engine.Requirement {
	return engine.Requirement{Key: corev1.LabelHostname, Operator: engine.In}
}

func nodeAffinity(c *engine.PodClass, p *corev1.Pod) {
	a := p.Spec.Affinity.NodeAffinity
	if a == nil {
		return
	}
	fields := readsFields(p)
	if req := a.RequiredDuringSchedulingIgnoredDuringExecution; req != nil {
		for i := range req.NodeSelectorTerms {
			t := &req.NodeSelectorTerms[i]
			if !fields && len(t.MatchExpressions) == 0 && len(t.MatchFields) > 0 {
				// The term holds on the node that the pod is on.
				c.NodeAffinity = nil
				break
			}
			if term := nodeTerm(t, fields); len(term) > 0 {
				c.NodeAffinity = append(c.NodeAffinity, term)
			}
			// As in the kube-scheduler, a term without expressions matches no node.
			if i == len(req.NodeSelectorTerms)-1 && len(c.NodeAffinity) == 0 {
				c.NodeAffinity = [][]engine.Requirement{{impossible()}}
			}
		}
	}
	for i := range a.PreferredDuringSchedulingIgnoredDuringExecution {
		t := &a.PreferredDuringSchedulingIgnoredDuringExecution[i]
		if reqs := nodeTerm(&t.Preference, fields); len(reqs) > 0 && t.Weight > 0 {
			c.PreferredNodeAffinity = append(c.PreferredNodeAffinity, engine.PreferredTerm{Weight: t.Weight, Requirements: reqs})
		}
	}
}

// nodeTerm returns the requirements of a term, those for fields of the node only if
// fields is true. The only field there is, metadata.name, is the hostname label of AKS's
// nodes; machines to create have neither.
func nodeTerm(t *corev1.NodeSelectorTerm, fields bool) []engine.Requirement {
	out := expressions(t.MatchExpressions)
	if fields {
		for _, f := range t.MatchFields {
			out = append(out, requirement(corev1.LabelHostname, f.Operator, f.Values))
		}
	}
	return out
}

// readsFields reports whether the requirements of a pod for fields of nodes have to be
// met. Each pod of a DaemonSet has one for its own node, which would make as many
// classes as there are nodes.
func readsFields(p *corev1.Pod) bool { return !podutils.IsOwnedByDaemonSet(p) }

func expressions(list []corev1.NodeSelectorRequirement) []engine.Requirement {
	var out []engine.Requirement
	for i := range list {
		out = append(out, requirement(list[i].Key, list[i].Operator, list[i].Values))
	}
	return out
}

func hostPorts(p *corev1.Pod) []engine.HostPort {
	var out []engine.HostPort
	add := func(c *corev1.Container) {
		for _, port := range c.Ports {
			if port.HostPort == 0 {
				continue
			}
			out = append(out, engine.HostPort{IP: port.HostIP, Port: port.HostPort, Protocol: string(port.Protocol)})
		}
	}
	for i := range p.Spec.Containers {
		add(&p.Spec.Containers[i])
	}
	for i := range p.Spec.InitContainers {
		if r := p.Spec.InitContainers[i].RestartPolicy; r != nil && *r == corev1.ContainerRestartPolicyAlways {
			add(&p.Spec.InitContainers[i])
		}
	}
	return out
}

// selector converts a label selector to the engine's. Nil, which selects nothing, stays
// nil.
func selector(s *metav1.LabelSelector) (*engine.Selector, error) {
	if s == nil {
		return nil, nil
	}
	if _, err := metav1.LabelSelectorAsSelector(s); err != nil {
		return nil, fmt.Errorf("parsing a label selector of the pod: %w", err)
	}
	out := &engine.Selector{}
	for _, k := range slices.Sorted(maps.Keys(s.MatchLabels)) {
		out.Requirements = append(out.Requirements, engine.Requirement{Key: k, Operator: engine.In, Values: []string{s.MatchLabels[k]}})
	}
	for _, e := range s.MatchExpressions {
		out.Requirements = append(out.Requirements, engine.Requirement{Key: e.Key, Operator: engine.Operator(e.Operator), Values: slices.Sorted(slices.Values(e.Values))})
	}
	return out, nil
}

func spread(p *corev1.Pod) ([]engine.SpreadConstraint, error) {
	var out []engine.SpreadConstraint
	for i := range p.Spec.TopologySpreadConstraints {
		t := &p.Spec.TopologySpreadConstraints[i]
		sel, err := selector(t.LabelSelector)
		if err != nil {
			return nil, err
		}
		if sel != nil {
			for _, k := range t.MatchLabelKeys {
				if v, ok := p.Labels[k]; ok {
					addOnce(sel, engine.Requirement{Key: k, Operator: engine.In, Values: []string{v}})
				}
			}
		}
		key, _ := normalize(t.TopologyKey, nil)
		c := engine.SpreadConstraint{Key: key, MaxSkew: t.MaxSkew, Selector: sel, Soft: t.WhenUnsatisfiable == corev1.ScheduleAnyway}
		if t.MinDomains != nil {
			c.MinDomains = *t.MinDomains
		}
		if t.NodeAffinityPolicy != nil {
			c.NodeAffinityPolicy = engine.NodePolicy(*t.NodeAffinityPolicy)
		}
		if t.NodeTaintsPolicy != nil {
			c.NodeTaintsPolicy = engine.NodePolicy(*t.NodeTaintsPolicy)
		}
		out = append(out, c)
	}
	return out, nil
}

// addOnce adds a requirement unless the selector has it: newer API servers merge
// matchLabelKeys into the selector.
func addOnce(s *engine.Selector, r engine.Requirement) {
	for _, have := range s.Requirements {
		if have.Key == r.Key && have.Operator == r.Operator && slices.Equal(have.Values, r.Values) {
			return
		}
	}
	s.Requirements = append(s.Requirements, r)
}

func (s *shapes) terms(ctx context.Context, p *corev1.Pod, required []corev1.PodAffinityTerm, preferred []corev1.WeightedPodAffinityTerm) ([]engine.AffinityTerm, error) {
	var out []engine.AffinityTerm
	add := func(t *corev1.PodAffinityTerm, weight int32) error {
		e, err := s.term(ctx, p, t)
		if err != nil {
			return err
		}
		e.Weight = weight
		out = append(out, e)
		return nil
	}
	for i := range required {
		if err := add(&required[i], 0); err != nil {
			return nil, err
		}
	}
	for i := range preferred {
		if preferred[i].Weight == 0 {
			continue
		}
		if err := add(&preferred[i].PodAffinityTerm, preferred[i].Weight); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func (s *shapes) term(ctx context.Context, p *corev1.Pod, t *corev1.PodAffinityTerm) (engine.AffinityTerm, error) {
	key, _ := normalize(t.TopologyKey, nil)
	e := engine.AffinityTerm{Key: key}
	var err error
	if e.Selector, err = selector(t.LabelSelector); err != nil {
		return e, err
	}
	if e.Selector != nil {
		for _, k := range t.MatchLabelKeys {
			if v, ok := p.Labels[k]; ok {
				addOnce(e.Selector, engine.Requirement{Key: k, Operator: engine.In, Values: []string{v}})
			}
		}
		for _, k := range t.MismatchLabelKeys {
			if v, ok := p.Labels[k]; ok {
				addOnce(e.Selector, engine.Requirement{Key: k, Operator: engine.NotIn, Values: []string{v}})
			}
		}
	}
	switch {
	case len(t.Namespaces) == 0 && t.NamespaceSelector == nil:
		e.Namespaces = []string{p.Namespace}
	case t.NamespaceSelector == nil:
		e.Namespaces = slices.Sorted(slices.Values(t.Namespaces))
	case len(t.NamespaceSelector.MatchLabels) == 0 && len(t.NamespaceSelector.MatchExpressions) == 0:
		e.AllNamespaces = true
	default:
		names, err := s.namespaces(ctx, t.NamespaceSelector)
		if err != nil {
			return e, err
		}
		names = append(names, t.Namespaces...)
		if len(names) == 0 {
			e.Selector = nil // no namespace, no pod; an empty list would mean the pod's own
		}
		slices.Sort(names)
		e.Namespaces = slices.Compact(names)
	}
	return e, nil
}

func (s *shapes) namespaces(ctx context.Context, sel *metav1.LabelSelector) ([]string, error) {
	parsed, err := metav1.LabelSelectorAsSelector(sel)
	if err != nil {
		return nil, fmt.Errorf("parsing a namespace selector of the pod: %w", err)
	}
	var list corev1.NamespaceList
	if err := s.client.List(ctx, &list); err != nil {
		return nil, fmt.Errorf("listing namespaces: %w", err)
	}
	var out []string
	for i := range list.Items {
		if parsed.Matches(labels.Set(list.Items[i].Labels)) {
			out = append(out, list.Items[i].Name)
		}
	}
	return out, nil
}
