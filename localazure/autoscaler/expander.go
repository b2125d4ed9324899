// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package autoscaler

import (
	"fmt"
	"math/rand/v2"
	"regexp"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"
)

// choose applies the expanders one after the other and picks one of the options that
// remain at random.
func (s *scaler) choose(expanders string, options []option) option {
	best := func(score func(option) float64) {
		top := score(options[0])
		for _, o := range options {
			top = max(top, score(o))
		}
		options = slices.DeleteFunc(options, func(o option) bool { return score(o) < top })
	}
	for _, e := range strings.Split(expanders, ",") {
		switch strings.TrimSpace(e) {
		case "least-waste":
			best(func(o option) float64 { return -o.waste })
		case "most-pods":
			best(func(o option) float64 { return float64(len(o.pods)) })
		case "priority":
			if p := s.priorities(); len(p) > 0 {
				best(func(o option) float64 { return p.of(o.group.ScaleSet) })
			}
		}
	}
	return options[rand.IntN(len(options))]
}

// priorities holds the regular expressions of scale set names by priority.
type priorities map[int][]*regexp.Regexp

func (p priorities) of(name string) float64 {
	best := -1.0
	for n, list := range p {
		for _, re := range list {
			if re.MatchString(name) {
				best = max(best, float64(n))
			}
		}
	}
	return best
}

func (s *scaler) priorities() priorities {
	cm, err := s.client.CoreV1().ConfigMaps(metav1.NamespaceSystem).Get(s.ctx, priorityConfigMap, metav1.GetOptions{})
	if err != nil {
		if !apierrors.IsNotFound(err) {
			s.log.Warn("reading pool priorities failed", "error", err)
		}
		return nil
	}
	out, err := parsePriorities(cm.Data["priorities"])
	if err != nil {
		s.event(corev1.ObjectReference{Kind: "ConfigMap", Namespace: metav1.NamespaceSystem, Name: priorityConfigMap, APIVersion: "v1"}, corev1.EventTypeWarning, "PriorityConfigMapInvalid", err.Error())
		return nil
	}
	return out
}

func parsePriorities(text string) (priorities, error) {
	raw := map[string][]string{}
	if err := yaml.Unmarshal([]byte(text), &raw); err != nil {
		return nil, fmt.Errorf("priorities are not a map of lists: %w", err)
	}
	out := priorities{}
	for k, list := range raw {
		n, err := strconv.Atoi(k)
		if err != nil || n < 1 {
			return nil, fmt.Errorf("priority %q is not a positive number", k)
		}
		for _, text := range list {
			re, err := regexp.Compile(text)
			if err != nil {
				return nil, fmt.Errorf("priority %d: %w", n, err)
			}
			out[n] = append(out[n], re)
		}
	}
	return out, nil
}
