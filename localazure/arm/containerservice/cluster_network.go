// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package containerservice

import (
	"github.com/nap-aks/nap/localazure/arm/rp"
	"net/netip"
)

// prepareNetwork fills and checks a cluster's network profile.
func (p *Provider) prepareNetwork(c *rp.Change) error {
	d := c.Doc
	np := func(k string) []string { return []string{"properties", "networkProfile", k} }
	get := func(k string) string { return d.Str(np(k)...) }
	if err := complete(d, networkValues); err != nil {
		return err
	}
	if get("networkPlugin") == "" {
		d.Set("azure", np("networkPlugin")...)
		if get("networkPluginMode") == "" {
			d.Set("overlay", np("networkPluginMode")...)
		}
	}
	podSubnet := false
	for _, x := range d.List("properties", "agentPoolProfiles") {
		if m, ok := x.(map[string]any); ok && rp.Doc(m).Str("podSubnetID") != "" {
			podSubnet = true
		}
	}
	if get("networkDataplane") == "cilium" {
		if get("networkPlugin") != "azure" || get("networkPluginMode") != "overlay" && !podSubnet && c.Old == nil {
			return rp.BadRequest("BadRequest", "Cilium dataplane requires either network plugin mode overlay or pod subnet").At("networkProfile.networkPluginMode")
		}
		if pol := get("networkPolicy"); pol != "" && pol != "cilium" && pol != "none" {
			return rp.BadRequest("BadRequest", "Cilium dataplane requires network policy cilium or none, not %s. Set networkProfile.networkPolicy to cilium.", pol).At("networkProfile.networkPolicy")
		}
		d.Default("cilium", np("networkPolicy")...)
	} else if get("networkPolicy") == "cilium" {
		return rp.BadRequest("BadRequest", "Network policy cilium requires network dataplane cilium.").At("networkProfile.networkPolicy")
	}
	if err := complete(d, networkDefaults); err != nil {
		return err
	}
	if get("networkPluginMode") == "overlay" || get("networkPlugin") == "kubenet" {
		d.Default("10.244.0.0/16", np("podCidr")...)
	}
	if len(d.List(np("ipFamilies")...)) == 0 {
		d.Set([]any{"IPv4"}, np("ipFamilies")...)
	}
	for one, many := range map[string]string{"podCidr": "podCidrs", "serviceCidr": "serviceCidrs"} {
		if v := get(one); v != "" && len(d.List(np(many)...)) == 0 {
			d.Set([]any{v}, np(many)...)
		}
	}
	if get("outboundType") == "loadBalancer" && get("loadBalancerSku") == "standard" {
		if d.Map(np("loadBalancerProfile")...) == nil {
			d.Set(map[string]any{"managedOutboundIPs": map[string]any{"count": 1.0}}, np("loadBalancerProfile")...)
		}
		d.Default("nodeIPConfiguration", "properties", "networkProfile", "loadBalancerProfile", "backendPoolType")
	}
	return checkCIDRs(d)
}

// checkCIDRs checks the CIDRs of a cluster's network against each other.
func checkCIDRs(d rp.Doc) error {
	get := func(k string) (netip.Prefix, bool, error) {
		s := d.Str("properties", "networkProfile", k)
		if s == "" {
			return netip.Prefix{}, false, nil
		}
		pr, err := netip.ParsePrefix(s)
		if err != nil {
			return pr, false, rp.BadRequest("InvalidParameter", "The value of parameter networkProfile.%s is invalid: '%s' is not a CIDR such as 10.0.0.0/16.", k, s).At("networkProfile." + k)
		}
		return pr, true, nil
	}
	pod, hasPod, err := get("podCidr")
	if err != nil {
		return err
	}
	svc, hasSvc, err := get("serviceCidr")
	if err != nil {
		return err
	}
	if hasPod && hasSvc && pod.Overlaps(svc) {
		return rp.BadRequest("ServiceCidrOverlapExistingSubnetsCidr", "The service CIDR %s overlaps with the pod CIDR %s.", svc, pod).At("networkProfile.serviceCidr")
	}
	if s := d.Str("properties", "networkProfile", "dnsServiceIP"); s != "" && hasSvc {
		ip, err := netip.ParseAddr(s)
		if err != nil || !svc.Contains(ip) || ip == svc.Masked().Addr() {
			return rp.BadRequest("InvalidParameter", "The value of parameter networkProfile.dnsServiceIP is invalid: '%s' must be an address in the service CIDR %s other than its first.", s, svc).At("networkProfile.dnsServiceIP")
		}
	}
	return nil
}
