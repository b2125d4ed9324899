// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package machines

import (
	"strings"
	"testing"
	"time"

	"github.com/awslabs/operatorpkg/status"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	testingclock "k8s.io/utils/clock/testing"
	"sigs.k8s.io/controller-runtime/pkg/client"
	karpv1 "sigs.k8s.io/karpenter/pkg/apis/v1"
	"sigs.k8s.io/karpenter/pkg/events"
)

type recorded struct{ list []events.Event }

func (r *recorded) Publish(e ...events.Event) { r.list = append(r.list, e...) }

var limits = Deadlines{Launch: LaunchDeadline, Registration: RegistrationDeadline, Initialization: InitializationDeadline}

// started returns a NodeClaim whose conditions became true now, one after the other.
func started(clk *testingclock.FakeClock, conditions ...string) *karpv1.NodeClaim {
	claim := &karpv1.NodeClaim{ObjectMeta: metav1.ObjectMeta{Name: "c", UID: "u", CreationTimestamp: metav1.NewTime(clk.Now())}}
	set := claim.StatusConditions(status.WithClock(clk))
	for _, c := range conditions {
		set.SetTrue(c)
		if c == karpv1.ConditionTypeLaunched {
			claim.Status.ProviderID = "azure:///c"
		}
	}
	return claim
}

func TestMachinesThatMissADeadlineAreDeleted(t *testing.T) {
	const launched, registered, initialized = karpv1.ConditionTypeLaunched, karpv1.ConditionTypeRegistered, karpv1.ConditionTypeInitialized
	for _, c := range []struct {
		name   string
		done   []string
		within time.Duration
		event  string
	}{
		{"not launched", nil, LaunchDeadline, "LaunchTimeout"},
		{"not registered", []string{launched}, RegistrationDeadline, "RegistrationTimeout"},
		{"not initialized", []string{launched, registered}, InitializationDeadline, "InitializationTimeout"},
		{"initialized", []string{launched, registered, initialized}, 0, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			clk := testingclock.NewFakeClock(time.Now().Truncate(time.Second))
			claim := started(clk, c.done...)
			node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n"}, Spec: corev1.NodeSpec{ProviderID: "azure:///c"}, Status: corev1.NodeStatus{Conditions: []corev1.NodeCondition{{
				Type: corev1.NodeReady, Status: corev1.ConditionFalse, Reason: "KubeletNotReady", Message: "network plugin not initialized", LastTransitionTime: metav1.NewTime(clk.Now()),
			}}}}
			kube, events := newKube(t, claim, node), &recorded{}
			d := NewDeadlines(kube, events, clk, limits)
			reconcile := func() time.Duration {
				t.Helper()
				got := &karpv1.NodeClaim{}
				if err := kube.Get(t.Context(), client.ObjectKeyFromObject(claim), got); err != nil {
					t.Fatal(err)
				}
				r, err := d.Reconcile(t.Context(), got)
				if err != nil {
					t.Fatal(err)
				}
				return r.RequeueAfter
			}
			if left := reconcile(); left != c.within {
				t.Errorf("reconciled again in %v, want %v", left, c.within)
			}
			clk.Step(max(c.within-time.Second, 0))
			reconcile()
			if len(events.list) > 0 {
				t.Fatalf("an event before the deadline: %v", events.list)
			}
			clk.Step(time.Hour)
			if c.event == "" {
				if left := reconcile(); left != 0 || len(events.list) > 0 {
					t.Errorf("an initialized machine: %v, %v", left, events.list)
				}
				return
			}
			reconcile()
			if err := kube.Get(t.Context(), client.ObjectKeyFromObject(claim), &karpv1.NodeClaim{}); !apierrors.IsNotFound(err) {
				t.Errorf("the claim was not deleted: %v", err)
			}
			if len(events.list) == 0 || events.list[0].Reason != c.event {
				t.Fatalf("events %v, want %s", events.list, c.event)
			}
			if launched := len(c.done) > 0; launched {
				if m := events.list[0].Message; !strings.Contains(m, "network plugin not initialized") || !strings.Contains(m, c.within.String()) {
					t.Errorf("the event does not tell deadline and cause: %s", m)
				}
				if len(events.list) != 2 {
					t.Errorf("%d events, want one about the claim and one about the node", len(events.list))
				}
			}
		})
	}
}

func TestDeadlineOfInitializationCanBeTurnedOff(t *testing.T) {
	clk := testingclock.NewFakeClock(time.Now())
	claim := started(clk, karpv1.ConditionTypeLaunched, karpv1.ConditionTypeRegistered)
	clk.Step(24 * time.Hour)
	kube, events := newKube(t, claim), &recorded{}
	if _, err := NewDeadlines(kube, events, clk, Deadlines{Launch: time.Minute, Registration: time.Minute, Initialization: -1}).Reconcile(t.Context(), claim); err != nil || len(events.list) > 0 {
		t.Errorf("%v, %v; want the machine to stay", events.list, err)
	}
}

// A claim that becomes initialized between the read and the deletion stays.
func TestMachineThatIsReadyJustInTimeStays(t *testing.T) {
	clk := testingclock.NewFakeClock(time.Now())
	claim := started(clk, karpv1.ConditionTypeLaunched, karpv1.ConditionTypeRegistered)
	kube := newKube(t, claim)
	clk.Step(time.Hour)
	seen, now := &karpv1.NodeClaim{}, &karpv1.NodeClaim{}
	for _, c := range []*karpv1.NodeClaim{seen, now} {
		if err := kube.Get(t.Context(), client.ObjectKeyFromObject(claim), c); err != nil {
			t.Fatal(err)
		}
	}
	now.StatusConditions(status.WithClock(clk)).SetTrue(karpv1.ConditionTypeInitialized)
	if err := kube.Update(t.Context(), now); err != nil {
		t.Fatal(err)
	}
	if _, err := NewDeadlines(kube, &recorded{}, clk, limits).Reconcile(t.Context(), seen); !apierrors.IsConflict(err) {
		t.Errorf("deleting with an old version: %v, want a conflict", err)
	}
	if err := kube.Get(t.Context(), client.ObjectKeyFromObject(claim), &karpv1.NodeClaim{}); err != nil {
		t.Errorf("the claim is gone: %v", err)
	}
}
