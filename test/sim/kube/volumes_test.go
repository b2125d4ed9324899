// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestVolumesFollowTheirFirstPod(t *testing.T) {
	o := everything()
	o.controllers.Volumes.ProvisionTime = 5 * time.Second
	inBubble(t, o, func(c *cluster) {
		wait, name := storagev1.VolumeBindingWaitForFirstConsumer, "managed-csi"
		c.create(&storagev1.StorageClass{ObjectMeta: metav1.ObjectMeta{Name: name}, Provisioner: diskDriver, VolumeBindingMode: &wait})
		c.create(&corev1.PersistentVolumeClaim{
			ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "data"},
			Spec: corev1.PersistentVolumeClaimSpec{
				StorageClassName: &name, AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
				Resources: corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("10Gi")}},
			},
		})
		n2 := node("n2", "4")
		n2.Labels[corev1.LabelTopologyZone], n2.Labels[diskZoneLabel] = "eastus-2", "eastus-2"
		c.addNode(n2)
		time.Sleep(time.Minute)
		claims, volumes := c.client.CoreV1().PersistentVolumeClaims("default"), c.client.CoreV1().PersistentVolumes()
		if list, err := volumes.List(c.ctx, metav1.ListOptions{}); err != nil || len(list.Items) != 0 {
			t.Fatalf("volumes before there is a pod: %v, %v", list, err)
		}
		withData := func(p *corev1.Pod) {
			p.Spec.Volumes = []corev1.Volume{{Name: "data", VolumeSource: corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "data"}}}}
		}
		began := time.Now()
		c.create(podOf("p", "1", withData))
		c.eventually(30*time.Second, "the pod runs", func() bool { return len(c.pods(on("n2"))) == 1 })
		if took := time.Since(began); took < 5*time.Second {
			t.Errorf("the pod ran after %v, before its volume could be there", took)
		}
		claim, err := claims.Get(c.ctx, "data", metav1.GetOptions{})
		if err != nil || claim.Status.Phase != corev1.ClaimBound {
			t.Fatalf("claim %v, %v", claim.Status, err)
		}
		pv, err := volumes.Get(c.ctx, claim.Spec.VolumeName, metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if zones := pv.Spec.NodeAffinity.Required.NodeSelectorTerms[0].MatchExpressions[0].Values; len(zones) != 1 || zones[0] != "eastus-2" {
			t.Errorf("the volume is in %v, want the zone of the pod's node", zones)
		}
		// The volume's zone binds the next pod.
		if err := c.client.CoreV1().Pods("default").Delete(c.ctx, "p", metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		c.eventually(time.Minute, "the pod is gone", func() bool { return len(c.pods(nil)) == 0 })
		if err := c.s.Delete(nodes, "", "n2"); err != nil {
			t.Fatal(err)
		}
		c.addNode(node("n1", "4")) // eastus-1
		c.create(podOf("again", "1", withData))
		time.Sleep(time.Minute)
		if n := len(c.pods(running)); n != 0 {
			t.Error("the pod runs in a zone where its volume is not")
		}
		if err := c.s.Delete(pods, "default", "again"); err != nil {
			t.Fatal(err)
		}
		if err := claims.Delete(c.ctx, "data", metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		c.eventually(time.Minute, "the released volume is deleted", func() bool {
			list, err := volumes.List(c.ctx, metav1.ListOptions{})
			return err == nil && len(list.Items) == 0
		})
	})
}
