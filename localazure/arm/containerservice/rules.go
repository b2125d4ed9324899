// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package containerservice

import (
	"fmt"
	"strings"

	"github.com/nap-aks/nap/localazure/arm/containerservice/nodeprovisioning"
	"github.com/nap-aks/nap/localazure/arm/rp"
)

// view is a cluster as a change would leave it, for the rules.
type view struct {
	doc   rp.Doc
	pools []rp.Doc // pool documents, with "name"
	// old is the cluster before; nil for a new one.
	old rp.Doc
	// autoscalerAllowed says that the subscription feature
	// AllowClusterAutoscalerAndNAP is registered.
	autoscalerAllowed bool
}

func (v *view) network(name string) string { return v.doc.Str("properties", "networkProfile", name) }

func (v *view) wasAuto() bool { return v.old != nil && mode(v.old) == modeAuto }

// anyPool returns the name of the first pool for which f is true.
func (v *view) anyPool(f func(rp.Doc) bool) string {
	for _, p := range v.pools {
		if f(p) {
			return p.Str("name")
		}
	}
	return ""
}

// rule is a setting that excludes node auto-provisioning.
type rule struct {
	name string
	// broken returns what breaks the rule, or "".
	broken func(v *view) string
	// text completes ".properties.nodeProvisioningProfile.mode cannot be Auto".
	text string
	// why is the reason and the remedy.
	why string
}

func equal(a string, any ...string) bool {
	for _, b := range any {
		if strings.EqualFold(a, b) {
			return true
		}
	}
	return false
}

// rules are what a cluster with mode Auto cannot have, in the order in which they
// are checked. Each has a test.
var rules = []rule{
	{"cluster autoscaler", func(v *view) string {
		if v.autoscalerAllowed {
			return ""
		}
		return v.anyPool(func(p rp.Doc) bool { return p.Bool("properties", "enableAutoScaling") })
	}, "unless all AgentPools have property .properties.enableAutoScaling set to one of [false]",
		"Turn the cluster autoscaler off (az aks update --disable-cluster-autoscaler), or register the feature Microsoft.ContainerService/AllowClusterAutoscalerAndNAP."},
	{"kubenet", func(v *view) string {
		if equal(v.network("networkPlugin"), "kubenet") {
			return "kubenet"
		}
		return ""
	}, "unless .properties.networkProfile.networkPlugin set to one of [azure,none]", "Node auto-provisioning needs Azure CNI (overlay is recommended) or a network of your own."},
	{"Calico", func(v *view) string {
		if equal(v.network("networkPolicy"), "calico") {
			return "calico"
		}
		return ""
	}, "unless .properties.networkProfile.networkPolicy set to one of [none,azure,cilium]", "Use the Cilium dataplane for network policies."},
	{"IPv6", func(v *view) string {
		for _, f := range v.doc.Strings("properties", "networkProfile", "ipFamilies") {
			if equal(f, "IPv6") {
				return f
			}
		}
		for _, k := range []string{"podCidrs", "serviceCidrs"} {
			for _, c := range v.doc.Strings("properties", "networkProfile", k) {
				if strings.Contains(c, ":") {
					return c
				}
			}
		}
		return ""
	}, "unless .properties.networkProfile.ipFamilies set to one of [IPv4]", "IPv6 and dual-stack clusters are not supported."},
	{"Windows pool", func(v *view) string {
		return v.anyPool(func(p rp.Doc) bool { return equal(p.Str("properties", "osType"), "Windows") })
	}, "unless all AgentPools have property .properties.osType set to one of [Linux]", "Delete the Windows node pools."},
	{"service principal", func(v *view) string {
		if id := v.doc.Str("properties", "servicePrincipalProfile", "clientId"); id != "" && !equal(id, "msi") {
			return id
		}
		return ""
	}, "unless .properties.servicePrincipalProfile.clientId set to one of [msi]", "Use a system-assigned or user-assigned managed identity (az aks update --enable-managed-identity)."},
	{"basic load balancer", func(v *view) string {
		if equal(v.network("loadBalancerSku"), "basic") {
			return "basic"
		}
		return ""
	}, "unless .properties.networkProfile.loadBalancerSku set to one of [standard]", "Use the standard load balancer."},
	{"dynamic pod IP allocation", func(v *view) string {
		return v.anyPool(func(p rp.Doc) bool { return p.Str("properties", "podSubnetID") != "" })
	}, "if .properties.agentPoolProfiles.podSubnetID is specified.", "Dynamic allocation of pod IPs is not supported; use overlay or node subnet networking."},
	{"node public IP", func(v *view) string {
		return v.anyPool(func(p rp.Doc) bool { return p.Bool("properties", "enableNodePublicIP") })
	}, "unless all AgentPools have property .properties.enableNodePublicIP set to one of [false]", "Nodes with public IPs of their own are not supported."},
	{"Flatcar", func(v *view) string {
		return v.anyPool(func(p rp.Doc) bool { return equal(p.Str("properties", "osSKU"), "Flatcar") })
	}, "unless all AgentPools have property .properties.osSKU set to one of [Ubuntu,AzureLinux]", "Flatcar Container Linux is not supported."},
	{"stopped pool", func(v *view) string {
		return v.anyPool(func(p rp.Doc) bool { return equal(p.Str("properties", "powerState", "code"), "Stopped") })
	}, "unless all AgentPools have property .properties.powerState.code set to one of [Running]", "Start the node pools, or scale them to 0 instead of stopping them."},
	{"egress change", func(v *view) string {
		if v.wasAuto() && !equal(v.old.Str("properties", "networkProfile", "outboundType"), v.network("outboundType")) {
			return v.network("outboundType")
		}
		return ""
	}, "if .properties.networkProfile.outboundType is changed.", "The egress outbound type cannot be changed while node auto-provisioning is on."},
	{"dataplane change", func(v *view) string {
		if v.wasAuto() && !equal(v.old.Str("properties", "networkProfile", "networkDataplane"), v.network("networkDataplane")) {
			return v.network("networkDataplane")
		}
		return ""
	}, "if .properties.networkProfile.networkDataplane is changed.", "Set the mode to Manual, change the dataplane, then enable node auto-provisioning again."},
}

// checkRules returns AKS's refusal of mode Auto; nil if no rule is broken or the
// mode is Manual.
func checkRules(v *view) error {
	if mode(v.doc) != modeAuto {
		return nil
	}
	for _, r := range rules {
		if at := r.broken(v); at != "" {
			return nodeprovisioning.Refused(fmt.Sprintf("%s cannot be Auto %s", nodeprovisioning.ModePath, r.text), r.why+" Found: "+at+".")
		}
	}
	return nil
}
