// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package dashboard

import (
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	karpv1 "sigs.k8s.io/karpenter/pkg/apis/v1"

	"github.com/nap-aks/nap/snapshot"
)

// Codes of Stay.
const (
	StayFixed        = "Fixed"        // not of a NodePool
	StayStarting     = "Starting"     // not ready yet
	StayLeaving      = "Leaving"      // being removed
	StayDoNotDisrupt = "DoNotDisrupt" // an annotation of the node or of a pod
	StayPDB          = "PDB"          // a PodDisruptionBudget allows no eviction
	StayNever        = "Never"        // the NodePool's policy rules it out
	StaySettling     = "Settling"     // consolidateAfter has not passed
	StayBudget       = "Budget"       // the NodePool's budget is zero or used up
	StayEmpty        = "Empty"        // nothing keeps it
	StayNeeded       = "Needed"       // its pods go nowhere cheaper, as far as is known
)

// stays finds what keeps each machine.
type stays struct {
	pools  map[string]*karpv1.NodePool
	count  map[string]int // nodes by pool
	gone   map[string]int // of them, leaving
	strict map[string][]strictPDB
	now    fixedClock
	budget map[string]int // allowed disruptions by pool/reason
}

// strictPDB is a PodDisruptionBudget that allows no eviction now.
type strictPDB struct {
	name     string
	selector labels.Selector
}

func newStays(o *snapshot.Objects) *stays {
	s := &stays{
		pools: map[string]*karpv1.NodePool{}, count: map[string]int{}, gone: map[string]int{},
		strict: map[string][]strictPDB{}, now: fixedClock{o.Now}, budget: map[string]int{},
	}
	for _, p := range o.NodePools {
		s.pools[p.Name] = p
	}
	for _, c := range o.NodeClaims {
		pool := c.Labels[karpv1.NodePoolLabelKey]
		s.count[pool]++
		if c.DeletionTimestamp != nil {
			s.gone[pool]++
		}
	}
	for _, p := range o.PDBs {
		if p.Status.DisruptionsAllowed > 0 || p.Spec.Selector == nil {
			continue
		}
		// An invalid selector selects nothing, as in the disruption controller.
		if selector, err := metav1.LabelSelectorAsSelector(p.Spec.Selector); err == nil {
			s.strict[p.Namespace] = append(s.strict[p.Namespace], strictPDB{p.Name, selector})
		}
	}
	return s
}

// of returns what keeps the machine of a Node and a NodeClaim, of which one can be nil.
func (s *stays) of(_ *snapshot.Objects, n *corev1.Node, c *karpv1.NodeClaim, l *load, out *Node) Stay {
	switch {
	case c == nil && out.Phase != PhaseDraining:
		return Stay{StayFixed, "it is not of a NodePool: only its agent pool removes it"}
	case out.Phase == PhaseDraining:
		return s.leaving(c, l)
	case out.Phase != PhaseReady:
		return Stay{StayStarting, "it has just been bought and is not ready yet"}
	case do(c.Annotations) || n != nil && do(n.Annotations):
		return Stay{StayDoNotDisrupt, "the node has the annotation " + karpv1.DoNotDisruptAnnotationKey}
	}
	pods := 0
	if l != nil {
		pods = len(l.pods)
		if stay, ok := s.blocking(l.pods); ok {
			return stay
		}
	}
	pool := s.pools[out.Pool]
	if pool == nil {
		return Stay{StayNever, "its NodePool " + out.Pool + " does not exist"}
	}
	d := pool.Spec.Disruption
	switch {
	case d.ConsolidateAfter.Duration == nil:
		return Stay{StayNever, "NodePool " + pool.Name + " has consolidateAfter: Never"}
	case pods > 0 && d.ConsolidationPolicy == karpv1.ConsolidationPolicyWhenEmpty:
		return Stay{StayNever, fmt.Sprintf("NodePool %s consolidates empty nodes only, and it runs %s", pool.Name, plural(pods, "pod"))}
	}
	if cond := c.StatusConditions().Get(karpv1.ConditionTypeConsolidatable); cond == nil || !cond.IsTrue() {
		text := fmt.Sprintf("it changed less than %s ago (consolidateAfter)", *d.ConsolidateAfter.Duration)
		if at := c.Status.LastPodEventTime; !at.IsZero() {
			if left := at.Add(*d.ConsolidateAfter.Duration).Sub(s.now.Now()); left > 0 {
				text = fmt.Sprintf("its pods changed: consolidateAfter ends in %s", left.Round(time.Second))
			}
		}
		return Stay{StaySettling, text}
	}
	reason := karpv1.DisruptionReasonUnderutilized
	if pods == 0 {
		reason = karpv1.DisruptionReasonEmpty
	}
	allowed := s.allowed(pool, reason)
	switch {
	case allowed == 0:
		return Stay{StayBudget, fmt.Sprintf("a budget of NodePool %s allows no disruption (%s) now", pool.Name, reason)}
	case s.gone[pool.Name] >= allowed:
		return Stay{StayBudget, fmt.Sprintf("%s of NodePool %s are leaving already, and its budget allows no more", plural(s.gone[pool.Name], "node"), pool.Name)}
	case pods == 0:
		return Stay{StayEmpty, "nothing keeps it: it is empty"}
	}
	return Stay{StayNeeded, fmt.Sprintf("free to go as soon as its %s cost less elsewhere", plural(pods, "pod"))}
}

// leaving says why a machine is removed and what it waits for.
func (s *stays) leaving(c *karpv1.NodeClaim, l *load) Stay {
	text := "it is being removed"
	if c != nil {
		if cond := c.StatusConditions().Get(karpv1.ConditionTypeDisruptionReason); cond != nil && cond.IsTrue() {
			text += ": " + cond.Reason
		}
	}
	if l != nil && len(l.pods) > 0 {
		text += fmt.Sprintf("; %s to go", plural(len(l.pods), "pod"))
		if stay, ok := s.blocking(l.pods); ok && stay.Code == StayPDB {
			text += ", but " + stay.Text
		}
	}
	return Stay{StayLeaving, text}
}

// blocking returns the first pod that must not be evicted.
func (s *stays) blocking(pods []*corev1.Pod) (Stay, bool) {
	for _, p := range pods {
		if do(p.Annotations) {
			return Stay{StayDoNotDisrupt, fmt.Sprintf("pod %s has the annotation %s", snapshot.PodKey(p), karpv1.DoNotDisruptAnnotationKey)}, true
		}
	}
	for _, p := range pods {
		for _, b := range s.strict[p.Namespace] {
			if b.selector.Matches(labels.Set(p.Labels)) {
				return Stay{StayPDB, fmt.Sprintf("PodDisruptionBudget %s/%s allows no eviction of %s", p.Namespace, b.name, p.Name)}, true
			}
		}
	}
	return Stay{}, false
}

func (s *stays) allowed(pool *karpv1.NodePool, reason karpv1.DisruptionReason) int {
	key := pool.Name + "/" + string(reason)
	if n, ok := s.budget[key]; ok {
		return n
	}
	n := pool.MustGetAllowedDisruptions(s.now, s.count[pool.Name], reason)
	s.budget[key] = n
	return n
}

// do reports whether the annotations forbid disruption.
func do(annotations map[string]string) bool {
	return annotations[karpv1.DoNotDisruptAnnotationKey] == "true"
}

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
