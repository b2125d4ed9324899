// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

// Package dashboardtest makes clusters for tests of the dashboard and of nap top.
package dashboardtest

import (
	"fmt"
	"time"

	"github.com/awslabs/operatorpkg/status"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	karpv1 "sigs.k8s.io/karpenter/pkg/apis/v1"

	"github.com/nap-aks/nap/apis"
	"github.com/nap-aks/nap/dashboard"
	"github.com/nap-aks/nap/engine"
	"github.com/nap-aks/nap/plan"
	"github.com/nap-aks/nap/snapshot"
)

// Now is the time of the generated clusters.
var Now = time.Date(2026, 11, 30, 9, 30, 0, 0, time.UTC)

var machines = []struct {
	size, capacityType string
	cpu, gib           int64
}{
	{"Standard_D4s_v5", karpv1.CapacityTypeOnDemand, 4, 16},
	{"Standard_D8s_v5", karpv1.CapacityTypeOnDemand, 8, 32},
	{"Standard_D16s_v5", karpv1.CapacityTypeSpot, 16, 64},
	{"Standard_D4s_v5", karpv1.CapacityTypeSpot, 4, 16},
	{"Standard_D32s_v5", karpv1.CapacityTypeOnDemand, 32, 128},
}

// Pools are the NodePools of the generated clusters.
var Pools = []string{"default", "batch", "web"}

// Cluster returns a cluster with as many nodes: most are ready, in three NodePools, a few
// are being bought, booting or draining, three are of an agent pool. Some pods wait.
func Cluster(nodes int) (*snapshot.Objects, error) {
	o := &snapshot.Objects{Now: Now}
	for i, name := range Pools {
		np := apis.DefaultNodePool()
		np.Name, np.ResourceVersion, np.CreationTimestamp = name, "1", metav1.NewTime(Now.Add(-30*24*time.Hour))
		np.StatusConditions().SetTrue(karpv1.ConditionTypeValidationSucceeded)
		np.StatusConditions().SetTrue(karpv1.ConditionTypeNodeClassReady)
		np.Spec.Disruption.Budgets = []karpv1.Budget{{Nodes: "10%"}}
		if i == 1 {
			schedule, d := "0 8 * * *", metav1.Duration{Duration: 10 * time.Hour}
			np.Spec.Disruption.Budgets = append(np.Spec.Disruption.Budgets, karpv1.Budget{Nodes: "0", Schedule: &schedule, Duration: &d, Reasons: []karpv1.DisruptionReason{karpv1.DisruptionReasonUnderutilized}})
		}
		o.NodePools = append(o.NodePools, np)
	}
	for i := range nodes {
		addMachine(o, i, nodes)
	}
	for i := range nodes/4 + 3 {
		p := pod("shop", fmt.Sprintf("checkout-%03d", i), "checkout", 8000, 16)
		p.Spec.NodeName = ""
		p.CreationTimestamp = metav1.NewTime(Now.Add(-time.Duration(i) * time.Second))
		o.Pods = append(o.Pods, p)
	}
	o.Pods = append(o.Pods, pod("ml", "train-0", "train", 8000, 700), pod("ml", "train-1", "train", 8000, 700))
	o.PDBs = append(o.PDBs, &policyv1.PodDisruptionBudget{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "db"},
		Spec:       policyv1.PodDisruptionBudgetSpec{Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "db"}}},
	})
	o.Quotas = []snapshot.Quota{
		{Name: "standardDSv5Family", Title: "Standard DSv5 Family vCPUs", Used: 930, Limit: 1000},
		{Name: "lowPriorityCores", Title: "Total Regional Spot vCPUs", Used: 400, Limit: 1200},
		{Name: "cores", Title: "Total Regional vCPUs", Used: 1500, Limit: 4000},
	}
	src := &plan.Source{Objects: o}
	if err := src.AddInstanceTypes("eastus"); err != nil {
		return nil, fmt.Errorf("adding the sizes of a region: %w", err)
	}
	return o, nil
}

func addMachine(o *snapshot.Objects, i, nodes int) {
	m := machines[(i*7+i/3)%len(machines)]
	pool := Pools[i%len(Pools)]
	created := metav1.NewTime(Now.Add(-time.Duration(i*37+3) * time.Minute))
	list := corev1.ResourceList{
		corev1.ResourceCPU:    *resource.NewMilliQuantity(m.cpu*1000-180, resource.DecimalSI),
		corev1.ResourceMemory: *resource.NewQuantity((m.gib-3)<<30, resource.BinarySI),
		corev1.ResourcePods:   *resource.NewQuantity(110, resource.DecimalSI),
	}
	labels := map[string]string{
		corev1.LabelInstanceTypeStable: m.size, corev1.LabelTopologyZone: fmt.Sprintf("eastus-%d", i%3+1), corev1.LabelTopologyRegion: "eastus",
		karpv1.CapacityTypeLabelKey: m.capacityType, karpv1.NodePoolLabelKey: pool, corev1.LabelArchStable: "amd64", corev1.LabelOSStable: "linux",
	}
	if i >= nodes-6 && nodes > 10 { // on their way
		created = metav1.NewTime(Now.Add(-time.Duration(nodes-i) * 9 * time.Second))
	}
	name := fmt.Sprintf("aks-%s-%04d", pool, i)
	if i < 3 { // an agent pool
		name = fmt.Sprintf("aks-system-1234-vmss%06d", i)
		delete(labels, karpv1.NodePoolLabelKey)
		delete(labels, karpv1.CapacityTypeLabelKey)
	}
	id := "azure:///" + name
	labels[corev1.LabelHostname] = name
	n := &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: labels, CreationTimestamp: created},
		Spec:       corev1.NodeSpec{ProviderID: id},
		Status:     corev1.NodeStatus{Allocatable: list, Capacity: list, Conditions: []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}}},
	}
	if i >= 3 {
		c := &karpv1.NodeClaim{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("%s-%04d", pool, i), Labels: labels, CreationTimestamp: created}}
		c.Spec.NodeClassRef = &karpv1.NodeClassReference{Group: "karpenter.azure.com", Kind: "AKSNodeClass", Name: "default"}
		c.Status.ImageID = "AKSUbuntu-2404-gen2/202611.15.0"
		c.Status.Allocatable, c.Status.Capacity = list, list
		c.Status.ProviderID = id
		late := 0 // conditions that are missing
		switch {
		case i >= nodes-2 && nodes > 10:
			late = 3
		case i >= nodes-5 && nodes > 10:
			late = 2
		case i >= nodes-6 && nodes > 10:
			late = 1
		}
		set := []string{karpv1.ConditionTypeLaunched, karpv1.ConditionTypeRegistered, karpv1.ConditionTypeInitialized}
		for _, t := range set[:3-late] {
			c.Status.Conditions = append(c.Status.Conditions, status.Condition{Type: t, Status: metav1.ConditionTrue, LastTransitionTime: created, Reason: t})
		}
		if i%4 != 0 && late == 0 {
			c.Status.Conditions = append(c.Status.Conditions, status.Condition{Type: karpv1.ConditionTypeConsolidatable, Status: metav1.ConditionTrue, Reason: "Consolidatable"})
		}
		if i%17 == 5 {
			c.Status.Conditions = append(c.Status.Conditions, status.Condition{Type: karpv1.ConditionTypeDrifted, Status: metav1.ConditionTrue, Reason: "ImageDrift"})
		}
		if i%29 == 8 {
			at := metav1.NewTime(Now.Add(-40 * time.Second))
			c.DeletionTimestamp = &at
			c.Status.Conditions = append(c.Status.Conditions, status.Condition{Type: karpv1.ConditionTypeDisruptionReason, Status: metav1.ConditionTrue, Reason: "Underutilized"})
		}
		o.NodeClaims = append(o.NodeClaims, c)
		if late > 1 {
			if late > 2 {
				c.Status.ProviderID = ""
			}
			return
		}
	}
	o.Nodes = append(o.Nodes, n)
	if i%23 == 7 {
		return // empty
	}
	apps := []string{"web", "api", "db", "queue", "search"}
	for j := range int64(3 + i%9) {
		app := apps[(i+int(j))%len(apps)]
		p := pod("shop", fmt.Sprintf("%s-%04d-%02d", app, i, j), app, m.cpu*1000*int64(76+i%16)/100/int64(3+i%9), max(1, m.gib*int64(40+i%50)/100/int64(3+i%9)))
		p.Spec.NodeName = name
		p.Status.Phase = corev1.PodRunning
		if app == "queue" && i%5 == 0 {
			p.Annotations = map[string]string{karpv1.DoNotDisruptAnnotationKey: "true"}
		}
		if app == "db" && i%3 == 0 {
			p.Labels["app"] = "db-stable" // only some are protected by the budget
		}
		o.Pods = append(o.Pods, p)
	}
}

func pod(namespace, name, app string, milli, gib int64) *corev1.Pod {
	yes := true
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: namespace, Name: name, UID: types.UID(namespace + "/" + name), ResourceVersion: "1", CreationTimestamp: metav1.NewTime(Now.Add(-time.Hour)),
			Labels:          map[string]string{"app": app},
			OwnerReferences: []metav1.OwnerReference{{APIVersion: "apps/v1", Kind: "StatefulSet", Name: app, Controller: &yes}},
		},
		Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "main", Resources: corev1.ResourceRequirements{Requests: corev1.ResourceList{
			corev1.ResourceCPU:    *resource.NewMilliQuantity(milli, resource.DecimalSI),
			corev1.ResourceMemory: *resource.NewQuantity(gib<<30, resource.BinarySI),
		}}}}},
		Status: corev1.PodStatus{Phase: corev1.PodPending, Conditions: []corev1.PodCondition{{
			Type: corev1.PodScheduled, Status: corev1.ConditionFalse, Reason: corev1.PodReasonUnschedulable, Message: "0/200 nodes are available: insufficient cpu.",
		}}},
	}
}

// Pass plans for the waiting pods of a cluster, as the provisioner would, and returns
// what it decided.
func Pass(o *snapshot.Objects) (*dashboard.Pass, error) {
	in, err := snapshot.Build(o)
	if err != nil {
		return nil, fmt.Errorf("translating the cluster: %w", err)
	}
	options := in.Options
	options.Trace, options.SkipBound = engine.TraceRefused, true
	p, err := engine.Place(in.Snapshot, options)
	if err != nil {
		return nil, fmt.Errorf("planning: %w", err)
	}
	pass := &dashboard.Pass{Time: o.Now, Plan: p, Invalid: in.Invalid}
	for i := range p.Machines {
		pass.Claims = append(pass.Claims, fmt.Sprintf("%s-new-%d", p.Machines[i].NodePool, i))
	}
	return pass, nil
}
