// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/nap-aks/nap/azure/aksdefaults"
)

func TestClaimsAreBoundAsByTheVolumeController(t *testing.T) {
	const volume = `
---
apiVersion: v1
kind: PersistentVolume
metadata: {name: old-disk}
spec:
  storageClassName: CLASS
  capacity: {storage: 10Gi}
  accessModes: [ReadWriteOnce]
  csi: {driver: disk.csi.azure.com, volumeHandle: old}
  nodeAffinity: {required: {nodeSelectorTerms: [{matchExpressions: [{key: topology.disk.csi.azure.com/zone, operator: In, values: [eastus-2]}]}]}}
`
	const claim = `
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: data}
spec: {accessModes: [ReadWriteOnce], storageClassName: CLASS, resources: {requests: {storage: 5Gi}}}
---
apiVersion: v1
kind: Pod
metadata: {name: reader}
spec:
  containers: [{name: c, image: x, resources: {requests: {cpu: "1"}}}]
  volumes: [{name: v, persistentVolumeClaim: {claimName: data}}]
`
	for name, c := range map[string]struct {
		text, zone string
		volume     string // of the claim
		refused    string // part of the reason
	}{
		"a class without an object": {strings.ReplaceAll(volume+claim, "CLASS", "manual"), "eastus-2", "old-disk", ""},
		"no class":                  {strings.ReplaceAll(volume+claim, "CLASS", `""`), "eastus-2", "old-disk", ""},
		"by name":                   {strings.ReplaceAll(volume+strings.Replace(claim, "spec: {access", "spec: {volumeName: old-disk, access", 1), "CLASS", "manual"), "eastus-2", "old-disk", ""},
		"too small":                 {strings.ReplaceAll(strings.Replace(volume, "10Gi", "1Gi", 1)+claim, "CLASS", "manual"), "", "", `"manual" not found`},
		"another access mode":       {strings.ReplaceAll(strings.Replace(volume, "ReadWriteOnce", "ReadOnlyMany", 1)+claim, "CLASS", "manual"), "", "", `"manual" not found`},
		"another's":                 {strings.ReplaceAll(strings.Replace(volume, "spec:\n", "spec:\n  claimRef: {namespace: other, name: data}\n", 1)+claim, "CLASS", "manual"), "", "", `"manual" not found`},
		"a new share":               {strings.ReplaceAll(claim, "CLASS", "azurefile-premium"), "0", "pvc-default-data", ""},
		"a new disk":                {strings.ReplaceAll(claim, "CLASS", "managed-premium"), "0", "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			src, r := planText(t, c.text)
			if got := src.Objects.PVCs[0].Spec.VolumeName; got != c.volume {
				t.Errorf("the claim has volume %q, want %q", got, c.volume)
			}
			if c.refused != "" {
				if len(r.Refused) != 1 || !strings.Contains(r.Refused[0].Reason, c.refused) {
					t.Errorf("refused %+v, want %s", r.Refused, c.refused)
				}
				return
			}
			if len(r.Machines) != 1 || c.zone != "0" && r.Machines[0].Zone != c.zone {
				t.Errorf("machines %+v, refused %+v, want one in %s", r.Machines, r.Refused, c.zone)
			}
		})
	}
}

func TestEveryStorageClassOfAKSCanBeUsed(t *testing.T) {
	classes := aksdefaults.StorageClasses()
	if len(classes) != 9 {
		t.Errorf("%d classes, AKS has 9", len(classes))
	}
	for _, class := range classes {
		s := read(t, `
{apiVersion: apps/v1, kind: StatefulSet, metadata: {name: db}, spec: {selector: {matchLabels: {app: a}}, template: `+template+`,
  volumeClaimTemplates: [{metadata: {name: data}, spec: {storageClassName: `+class.Name+`, accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}}]}}`)
		s.addDefaultNodePool()
		if err := s.AddInstanceTypes("eastus"); err != nil {
			t.Fatal(err)
		}
		r, err := Nap(s.Objects, Options{Quick: true})
		if err != nil {
			t.Fatal(err)
		}
		if r.Summary.OnMachines != 1 {
			t.Errorf("%s: %+v", class.Name, r.Refused)
		}
		if phase := s.Objects.PVCs[0].Status.Phase; (phase == corev1.ClaimBound) != (class.Provisioner == aksdefaults.FileDriver) {
			t.Errorf("%s: the claim is %s", class.Name, phase)
		}
	}
}
