// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package v1beta1

import (
	"encoding/json"
	"fmt"
	"hash/fnv"
	"strconv"

	"github.com/mitchellh/hashstructure/v2"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// HashVersion changes whenever the same spec would hash differently: when a field
// in use enters or leaves the hash, or when a hashed default changes.
const HashVersion = "v3"

// AKSNodeClass configures machines on AKS: image, disk, subnet, kubelet and
// kernel settings, security. NodePools refer to it by name.
//
// +kubebuilder:object:root=true
// +kubebuilder:resource:path=aksnodeclasses,scope=Cluster,categories={karpenter,nap},shortName={aksnc,aksncs}
// +kubebuilder:subresource:status
// +kubebuilder:storageversion
// +kubebuilder:printcolumn:name="Ready",type="string",JSONPath=".status.conditions[?(@.type==\"Ready\")].status",description="Whether machines can be created from this class"
// +kubebuilder:printcolumn:name="Age",type="date",JSONPath=".metadata.creationTimestamp"
// +kubebuilder:printcolumn:name="ImageFamily",type="string",JSONPath=".spec.imageFamily",priority=1
type AKSNodeClass struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec   AKSNodeClassSpec   `json:"spec,omitempty"`
	Status AKSNodeClassStatus `json:"status,omitempty"`
}

// AKSNodeClassList is a list of AKSNodeClass.
//
// +kubebuilder:object:root=true
type AKSNodeClassList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []AKSNodeClass `json:"items"`
}

// AKSNodeClassSpec is the desired configuration of machines. Every field except
// tags is part of the static hash: changing it drifts existing machines.
//
// +kubebuilder:validation:XValidation:message="fipsMode FIPS needs an explicit imageFamily other than Ubuntu2404",rule="!has(self.fipsMode) || self.fipsMode != 'FIPS' || (has(self.imageFamily) && self.imageFamily != 'Ubuntu2404')"
// +kubebuilder:validation:XValidation:message="fipsMode FIPS with imageFamily Ubuntu2204 needs security.trustedLaunch.vtpm or secureBoot",rule="!has(self.fipsMode) || self.fipsMode != 'FIPS' || !has(self.imageFamily) || self.imageFamily != 'Ubuntu2204' || (has(self.security) && has(self.security.trustedLaunch) && ((has(self.security.trustedLaunch.vtpm) && self.security.trustedLaunch.vtpm) || (has(self.security.trustedLaunch.secureBoot) && self.security.trustedLaunch.secureBoot)))"
// +kubebuilder:validation:XValidation:message="fipsMode FIPS with trusted launch works only with imageFamily Ubuntu or Ubuntu2204",rule="!has(self.fipsMode) || self.fipsMode != 'FIPS' || !has(self.security) || !has(self.security.trustedLaunch) || !((has(self.security.trustedLaunch.vtpm) && self.security.trustedLaunch.vtpm) || (has(self.security.trustedLaunch.secureBoot) && self.security.trustedLaunch.secureBoot)) || !has(self.imageFamily) || self.imageFamily in ['Ubuntu', 'Ubuntu2204']"
// +kubebuilder:validation:XValidation:message="linuxOSConfig.swapFileSize needs kubelet.failSwapOn to be false",rule="!has(self.linuxOSConfig) || !has(self.linuxOSConfig.swapFileSize) || (has(self.kubelet) && has(self.kubelet.failSwapOn) && !self.kubelet.failSwapOn)"
type AKSNodeClassSpec struct {
	// vnetSubnetID is the ARM ID of the machines' subnet. Empty means the
	// cluster's subnet.
	// +kubebuilder:validation:Pattern=`(?i)^/subscriptions/[^/]+/resourceGroups/[a-zA-Z0-9_\-().]{0,89}[a-zA-Z0-9_\-()]/providers/Microsoft\.Network/virtualNetworks/[^/]+/subnets/[^/]+$`
	// +optional
	VNETSubnetID *string `json:"vnetSubnetID,omitempty"`
	// osDiskSizeGB is the size of the OS disk in GB (10^9 bytes).
	// +kubebuilder:default=128
	// +kubebuilder:validation:Minimum=30
	// +kubebuilder:validation:Maximum=2048
	// +optional
	OSDiskSizeGB *int32 `json:"osDiskSizeGB,omitempty"`
	// imageFamily selects the node image. Ubuntu follows AKS's default for the
	// cluster's Kubernetes version.
	// +kubebuilder:default=Ubuntu
	// +kubebuilder:validation:Enum={Ubuntu,Ubuntu2204,Ubuntu2404,AzureLinux}
	// +optional
	ImageFamily *string `json:"imageFamily,omitempty"`
	// fipsMode FIPS selects FIPS-validated images.
	// +kubebuilder:validation:Enum={FIPS,Disabled}
	// +optional
	FIPSMode *string `json:"fipsMode,omitempty"`
	// tags are set on the Azure resources of each machine and updated in place.
	// +kubebuilder:validation:XValidation:message="tag keys have at most 512 characters",rule="self.all(k, size(k) <= 512)"
	// +kubebuilder:validation:XValidation:message="tag keys must not contain any of < > % & ? or backslash",rule="self.all(k, !k.matches('[<>%&?\\\\\\\\]'))"
	// +kubebuilder:validation:XValidation:message="tag values have at most 256 characters",rule="self.all(k, size(self[k]) <= 256)"
	// +kubebuilder:validation:MaxProperties=50
	// +optional
	Tags map[string]string `json:"tags,omitempty" hash:"ignore"`
	// kubelet configures the kubelet.
	// +optional
	Kubelet *KubeletConfiguration `json:"kubelet,omitempty"`
	// maxPods is the maximum number of pods per machine. The default depends on
	// the cluster's network plugin.
	// +kubebuilder:validation:Minimum=10
	// +kubebuilder:validation:Maximum=250
	// +optional
	MaxPods *int32 `json:"maxPods,omitempty"`
	// security configures encryption at host and trusted launch.
	// +optional
	Security *Security `json:"security,omitempty"`
	// localDNS configures a DNS proxy on each machine.
	// +optional
	LocalDNS *LocalDNS `json:"localDNS,omitempty"`
	// gpu configures machines with GPUs.
	// +optional
	GPU *GPU `json:"gpu,omitempty"`
	// artifactStreaming configures the streaming of container images.
	// +optional
	ArtifactStreaming *ArtifactStreaming `json:"artifactStreaming,omitempty"`
	// linuxOSConfig configures swap, huge pages and kernel parameters.
	// +optional
	LinuxOSConfig *LinuxOSConfiguration `json:"linuxOSConfig,omitempty"`
}

// Security configures the security features of a machine.
type Security struct {
	// encryptionAtHost encrypts disks and caches on the VM host. Sizes that do
	// not support it are excluded.
	// +optional
	EncryptionAtHost *bool `json:"encryptionAtHost,omitempty"`
	// trustedLaunch is on if vtpm or secureBoot is true.
	// +optional
	TrustedLaunch *TrustedLaunch `json:"trustedLaunch,omitempty"`
}

// TrustedLaunch configures the parts of trusted launch.
type TrustedLaunch struct {
	// vtpm adds a virtual TPM.
	// +optional
	VTPM *bool `json:"vtpm,omitempty"`
	// secureBoot allows only signed boot loaders and kernels.
	// +optional
	SecureBoot *bool `json:"secureBoot,omitempty"`
}

// GPU configures the GPUs of a machine.
type GPU struct {
	// mode Driver makes AKS install the GPU driver; None does not install one.
	// +kubebuilder:default=Driver
	// +kubebuilder:validation:Enum={Driver,None}
	// +optional
	Mode *string `json:"mode,omitempty"`
}

// ArtifactStreaming configures the streaming of container images.
type ArtifactStreaming struct {
	// enabled turns artifact streaming on (amd64 only).
	// +optional
	Enabled *bool `json:"enabled,omitempty"`
}

// KubeletConfiguration holds the kubelet settings that AKS supports.
//
// +kubebuilder:validation:XValidation:message="imageGCHighThresholdPercent must exceed imageGCLowThresholdPercent",rule="!has(self.imageGCHighThresholdPercent) || !has(self.imageGCLowThresholdPercent) || self.imageGCHighThresholdPercent > self.imageGCLowThresholdPercent"
type KubeletConfiguration struct {
	// cpuManagerPolicy is the kubelet's CPU manager policy.
	// +kubebuilder:default=none
	// +kubebuilder:validation:Enum={none,static}
	// +optional
	CPUManagerPolicy *string `json:"cpuManagerPolicy,omitempty"`
	// cpuCFSQuota enforces the CPU limits of containers with CFS quota.
	// +kubebuilder:default=true
	// +optional
	CPUCFSQuota *bool `json:"cpuCFSQuota,omitempty"`
	// cpuCFSQuotaPeriod is the CFS quota period.
	// +kubebuilder:default="100ms"
	// +optional
	CPUCFSQuotaPeriod *metav1.Duration `json:"cpuCFSQuotaPeriod,omitempty"`
	// imageGCHighThresholdPercent is the disk usage above which image garbage collection starts.
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=100
	// +optional
	ImageGCHighThresholdPercent *int32 `json:"imageGCHighThresholdPercent,omitempty"`
	// imageGCLowThresholdPercent is the disk usage at which image garbage collection stops.
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=100
	// +optional
	ImageGCLowThresholdPercent *int32 `json:"imageGCLowThresholdPercent,omitempty"`
	// topologyManagerPolicy is the kubelet's topology manager policy.
	// +kubebuilder:default=none
	// +kubebuilder:validation:Enum={restricted,best-effort,none,single-numa-node}
	// +optional
	TopologyManagerPolicy *string `json:"topologyManagerPolicy,omitempty"`
	// allowedUnsafeSysctls lists unsafe sysctls, or patterns ending in *, that pods may set.
	// +optional
	AllowedUnsafeSysctls []string `json:"allowedUnsafeSysctls,omitempty"`
	// containerLogMaxSize is the size at which a container log is rotated.
	// +kubebuilder:default="50Mi"
	// +kubebuilder:validation:Pattern=`^\d+(E|P|T|G|M|K|Ei|Pi|Ti|Gi|Mi|Ki)$`
	// +optional
	ContainerLogMaxSize *string `json:"containerLogMaxSize,omitempty"`
	// containerLogMaxFiles is the maximum number of log files per container.
	// +kubebuilder:default=5
	// +kubebuilder:validation:Minimum=2
	// +optional
	ContainerLogMaxFiles *int32 `json:"containerLogMaxFiles,omitempty"`
	// podPidsLimit is the maximum number of processes per pod; negative means no limit.
	// +optional
	PodPidsLimit *int64 `json:"podPidsLimit,omitempty"`
	// failSwapOn makes the kubelet refuse to start if swap is on.
	// +optional
	FailSwapOn *bool `json:"failSwapOn,omitempty"`
}

// LocalDNS configures a DNS proxy on each machine.
type LocalDNS struct {
	// mode Required always runs the proxy, Preferred runs it if the cluster allows
	// it, Disabled never.
	// +kubebuilder:validation:Enum={Preferred,Required,Disabled}
	Mode string `json:"mode"`
	// vnetDNSOverrides apply to queries of pods with dnsPolicy Default and of the
	// node.
	// +listType=map
	// +listMapKey=zone
	// +kubebuilder:validation:MaxItems=100
	// +kubebuilder:validation:XValidation:message="the zones . and cluster.local are required",rule="['.', 'cluster.local'].all(z, self.exists(e, e.zone == z))"
	// +kubebuilder:validation:XValidation:message="the root zone must not forward to ClusterCoreDNS",rule="!self.exists(e, e.zone == '.' && e.forwardDestination == 'ClusterCoreDNS')"
	// +kubebuilder:validation:XValidation:message="zones outside cluster.local must not forward to ClusterCoreDNS",rule="self.all(e, e.zone == '.' || e.zone.endsWith('cluster.local') || e.forwardDestination != 'ClusterCoreDNS')"
	VnetDNSOverrides []LocalDNSZoneOverride `json:"vnetDNSOverrides"`
	// kubeDNSOverrides apply to queries of pods with dnsPolicy ClusterFirst.
	// +listType=map
	// +listMapKey=zone
	// +kubebuilder:validation:MaxItems=100
	// +kubebuilder:validation:XValidation:message="the zones . and cluster.local are required",rule="['.', 'cluster.local'].all(z, self.exists(e, e.zone == z))"
	KubeDNSOverrides []LocalDNSZoneOverride `json:"kubeDNSOverrides"`
}

// LocalDNSZoneOverride configures how queries for one zone are answered.
//
// +kubebuilder:validation:XValidation:message="zones ending in cluster.local must not forward to VnetDNS",rule="!self.zone.endsWith('cluster.local') || self.forwardDestination != 'VnetDNS'"
// +kubebuilder:validation:XValidation:message="serveStale Verify cannot be combined with protocol ForceTCP",rule="self.serveStale != 'Verify' || self.protocol != 'ForceTCP'"
type LocalDNSZoneOverride struct {
	// zone is the DNS zone; . is the root.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=254
	// +kubebuilder:validation:Pattern=`^(\.|[A-Za-z0-9]([A-Za-z0-9_-]{0,61}[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9_-]{0,61}[A-Za-z0-9])?)*\.?)$`
	Zone string `json:"zone"`
	// queryLogging Error logs failed queries, Log logs all.
	// +kubebuilder:validation:Enum={Error,Log}
	QueryLogging string `json:"queryLogging"`
	// protocol is the protocol to the upstream server.
	// +kubebuilder:validation:Enum={PreferUDP,ForceTCP}
	Protocol string `json:"protocol"`
	// forwardDestination is the server that queries are forwarded to.
	// +kubebuilder:validation:Enum={ClusterCoreDNS,VnetDNS}
	ForwardDestination string `json:"forwardDestination"`
	// forwardPolicy is the order in which upstream servers are tried.
	// +kubebuilder:validation:Enum={Sequential,RoundRobin,Random}
	ForwardPolicy string `json:"forwardPolicy"`
	// maxConcurrent is the maximum number of concurrent queries.
	// +kubebuilder:validation:Minimum=0
	MaxConcurrent int32 `json:"maxConcurrent"`
	// cacheDuration is how long answers are cached.
	// +kubebuilder:validation:Pattern=`^([0-9]+[smh])+$`
	CacheDuration string `json:"cacheDuration"`
	// serveStaleDuration is how long expired answers may be served.
	// +kubebuilder:validation:Pattern=`^([0-9]+[smh])+$`
	ServeStaleDuration string `json:"serveStaleDuration"`
	// serveStale Verify serves an expired answer only if the upstream server fails, Immediate serves it at once, Disable never.
	// +kubebuilder:validation:Enum={Verify,Immediate,Disable}
	ServeStale string `json:"serveStale"`
}

// LinuxOSConfiguration holds the settings of the Linux kernel.
type LinuxOSConfiguration struct {
	// swapFileSize is the size of the swap file. Empty means no swap.
	// +kubebuilder:validation:Pattern=`^\d+(E|P|T|G|M|K|Ei|Pi|Ti|Gi|Mi|Ki)$`
	// +optional
	SwapFileSize *string `json:"swapFileSize,omitempty"`
	// transparentHugePageEnabled is the kernel's transparent_hugepage/enabled.
	// +kubebuilder:validation:Enum={always,madvise,never}
	// +optional
	TransparentHugePageEnabled *string `json:"transparentHugePageEnabled,omitempty"`
	// transparentHugePageDefrag is the kernel's transparent_hugepage/defrag.
	// +kubebuilder:validation:Enum={always,defer,defer+madvise,madvise,never}
	// +optional
	TransparentHugePageDefrag *string `json:"transparentHugePageDefrag,omitempty"`
	// sysctls are kernel parameters.
	// +optional
	Sysctls *SysctlConfiguration `json:"sysctls,omitempty"`
}

// SysctlConfiguration holds kernel parameters.
//
// +kubebuilder:validation:XValidation:message="netCoreRmemDefault must not exceed netCoreRmemMax",rule="!has(self.netCoreRmemDefault) || !has(self.netCoreRmemMax) || self.netCoreRmemDefault <= self.netCoreRmemMax"
// +kubebuilder:validation:XValidation:message="netCoreWmemDefault must not exceed netCoreWmemMax",rule="!has(self.netCoreWmemDefault) || !has(self.netCoreWmemMax) || self.netCoreWmemDefault <= self.netCoreWmemMax"
// +kubebuilder:validation:XValidation:message="netIPv4NeighDefaultGcThresh1 must not exceed netIPv4NeighDefaultGcThresh2",rule="!has(self.netIPv4NeighDefaultGcThresh1) || !has(self.netIPv4NeighDefaultGcThresh2) || self.netIPv4NeighDefaultGcThresh1 <= self.netIPv4NeighDefaultGcThresh2"
// +kubebuilder:validation:XValidation:message="netIPv4NeighDefaultGcThresh2 must not exceed netIPv4NeighDefaultGcThresh3",rule="!has(self.netIPv4NeighDefaultGcThresh2) || !has(self.netIPv4NeighDefaultGcThresh3) || self.netIPv4NeighDefaultGcThresh2 <= self.netIPv4NeighDefaultGcThresh3"
type SysctlConfiguration struct {
	// fsAioMaxNr is the sysctl fs.aio-max-nr.
	// +kubebuilder:validation:Minimum=65536
	// +kubebuilder:validation:Maximum=6553500
	// +optional
	FsAioMaxNr *int32 `json:"fsAioMaxNr,omitempty"`
	// fsFileMax is the sysctl fs.file-max.
	// +kubebuilder:validation:Minimum=8192
	// +kubebuilder:validation:Maximum=12000500
	// +optional
	FsFileMax *int32 `json:"fsFileMax,omitempty"`
	// fsInotifyMaxUserWatches is the sysctl fs.inotify.max_user_watches.
	// +kubebuilder:validation:Minimum=781250
	// +kubebuilder:validation:Maximum=2097152
	// +optional
	FsInotifyMaxUserWatches *int32 `json:"fsInotifyMaxUserWatches,omitempty"`
	// fsNrOpen is the sysctl fs.nr_open.
	// +kubebuilder:validation:Minimum=8192
	// +kubebuilder:validation:Maximum=20000500
	// +optional
	FsNrOpen *int32 `json:"fsNrOpen,omitempty"`
	// kernelThreadsMax is the sysctl kernel.threads-max.
	// +kubebuilder:validation:Minimum=20
	// +kubebuilder:validation:Maximum=513785
	// +optional
	KernelThreadsMax *int32 `json:"kernelThreadsMax,omitempty"`
	// netCoreNetdevMaxBacklog is the sysctl net.core.netdev_max_backlog.
	// +kubebuilder:validation:Minimum=1000
	// +kubebuilder:validation:Maximum=3240000
	// +optional
	NetCoreNetdevMaxBacklog *int32 `json:"netCoreNetdevMaxBacklog,omitempty"`
	// netCoreOptmemMax is the sysctl net.core.optmem_max.
	// +kubebuilder:validation:Minimum=20480
	// +kubebuilder:validation:Maximum=4194304
	// +optional
	NetCoreOptmemMax *int32 `json:"netCoreOptmemMax,omitempty"`
	// netCoreRmemDefault is the sysctl net.core.rmem_default.
	// +kubebuilder:validation:Minimum=212992
	// +kubebuilder:validation:Maximum=134217728
	// +optional
	NetCoreRmemDefault *int32 `json:"netCoreRmemDefault,omitempty"`
	// netCoreRmemMax is the sysctl net.core.rmem_max.
	// +kubebuilder:validation:Minimum=212992
	// +kubebuilder:validation:Maximum=134217728
	// +optional
	NetCoreRmemMax *int32 `json:"netCoreRmemMax,omitempty"`
	// netCoreSomaxconn is the sysctl net.core.somaxconn.
	// +kubebuilder:validation:Minimum=4096
	// +kubebuilder:validation:Maximum=3240000
	// +optional
	NetCoreSomaxconn *int32 `json:"netCoreSomaxconn,omitempty"`
	// netCoreWmemDefault is the sysctl net.core.wmem_default.
	// +kubebuilder:validation:Minimum=212992
	// +kubebuilder:validation:Maximum=134217728
	// +optional
	NetCoreWmemDefault *int32 `json:"netCoreWmemDefault,omitempty"`
	// netCoreWmemMax is the sysctl net.core.wmem_max.
	// +kubebuilder:validation:Minimum=212992
	// +kubebuilder:validation:Maximum=134217728
	// +optional
	NetCoreWmemMax *int32 `json:"netCoreWmemMax,omitempty"`
	// netIPv4IPLocalPortRange is the sysctl net.ipv4.ip_local_port_range, "first last":
	// first 1024 to 60999, last 32768 to 65535.
	// +kubebuilder:validation:Pattern=`^[0-9]{4,5} [0-9]{5}$`
	// +kubebuilder:validation:XValidation:message="first must be 1024 to 60999, last 32768 to 65535, and first not above last",rule="int(self.split(' ')[0]) >= 1024 && int(self.split(' ')[0]) <= 60999 && int(self.split(' ')[1]) >= 32768 && int(self.split(' ')[1]) <= 65535 && int(self.split(' ')[0]) <= int(self.split(' ')[1])"
	// +optional
	NetIPv4IPLocalPortRange *string `json:"netIPv4IPLocalPortRange,omitempty"`
	// netIPv4NeighDefaultGcThresh1 is the sysctl net.ipv4.neigh.default.gc_thresh1.
	// +kubebuilder:validation:Minimum=128
	// +kubebuilder:validation:Maximum=80000
	// +optional
	NetIPv4NeighDefaultGcThresh1 *int32 `json:"netIPv4NeighDefaultGcThresh1,omitempty"`
	// netIPv4NeighDefaultGcThresh2 is the sysctl net.ipv4.neigh.default.gc_thresh2.
	// +kubebuilder:validation:Minimum=512
	// +kubebuilder:validation:Maximum=90000
	// +optional
	NetIPv4NeighDefaultGcThresh2 *int32 `json:"netIPv4NeighDefaultGcThresh2,omitempty"`
	// netIPv4NeighDefaultGcThresh3 is the sysctl net.ipv4.neigh.default.gc_thresh3.
	// +kubebuilder:validation:Minimum=1024
	// +kubebuilder:validation:Maximum=100000
	// +optional
	NetIPv4NeighDefaultGcThresh3 *int32 `json:"netIPv4NeighDefaultGcThresh3,omitempty"`
	// netIPv4TCPFinTimeout is the sysctl net.ipv4.tcp_fin_timeout.
	// +kubebuilder:validation:Minimum=5
	// +kubebuilder:validation:Maximum=120
	// +optional
	NetIPv4TCPFinTimeout *int32 `json:"netIPv4TCPFinTimeout,omitempty"`
	// netIPv4TCPKeepaliveProbes is the sysctl net.ipv4.tcp_keepalive_probes.
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=15
	// +optional
	NetIPv4TCPKeepaliveProbes *int32 `json:"netIPv4TCPKeepaliveProbes,omitempty"`
	// netIPv4TCPKeepaliveTime is the sysctl net.ipv4.tcp_keepalive_time.
	// +kubebuilder:validation:Minimum=30
	// +kubebuilder:validation:Maximum=432000
	// +optional
	NetIPv4TCPKeepaliveTime *int32 `json:"netIPv4TCPKeepaliveTime,omitempty"`
	// netIPv4TCPKeepaliveIntvl is the sysctl net.ipv4.tcp_keepalive_intvl.
	// +kubebuilder:validation:Minimum=10
	// +kubebuilder:validation:Maximum=90
	// +optional
	NetIPv4TCPKeepaliveIntvl *int32 `json:"netIPv4TCPKeepaliveIntvl,omitempty"`
	// netIPv4TCPMaxSynBacklog is the sysctl net.ipv4.tcp_max_syn_backlog.
	// +kubebuilder:validation:Minimum=128
	// +kubebuilder:validation:Maximum=3240000
	// +optional
	NetIPv4TCPMaxSynBacklog *int32 `json:"netIPv4TCPMaxSynBacklog,omitempty"`
	// netIPv4TCPMaxTwBuckets is the sysctl net.ipv4.tcp_max_tw_buckets.
	// +kubebuilder:validation:Minimum=8000
	// +kubebuilder:validation:Maximum=1440000
	// +optional
	NetIPv4TCPMaxTwBuckets *int32 `json:"netIPv4TCPMaxTwBuckets,omitempty"`
	// netIPv4TCPTwReuse is the sysctl net.ipv4.tcp_tw_reuse.
	// +optional
	NetIPv4TCPTwReuse *bool `json:"netIPv4TCPTwReuse,omitempty"`
	// netNetfilterNfConntrackBuckets is the sysctl net.netfilter.nf_conntrack_buckets.
	// +kubebuilder:validation:Minimum=65536
	// +kubebuilder:validation:Maximum=524288
	// +optional
	NetNetfilterNfConntrackBuckets *int32 `json:"netNetfilterNfConntrackBuckets,omitempty"`
	// netNetfilterNfConntrackMax is the sysctl net.netfilter.nf_conntrack_max.
	// +kubebuilder:validation:Minimum=131072
	// +kubebuilder:validation:Maximum=2097152
	// +optional
	NetNetfilterNfConntrackMax *int32 `json:"netNetfilterNfConntrackMax,omitempty"`
	// vmMaxMapCount is the sysctl vm.max_map_count.
	// +kubebuilder:validation:Minimum=65530
	// +kubebuilder:validation:Maximum=262144
	// +optional
	VMMaxMapCount *int32 `json:"vmMaxMapCount,omitempty"`
	// vmSwappiness is the sysctl vm.swappiness.
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=100
	// +optional
	VMSwappiness *int32 `json:"vmSwappiness,omitempty"`
	// vmVfsCachePressure is the sysctl vm.vfs_cache_pressure.
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=100
	// +optional
	VMVfsCachePressure *int32 `json:"vmVfsCachePressure,omitempty"`
}

// Hash returns the static hash of the spec without the tags, as a decimal number.
// Zero values are ignored and lists are hashed as sets.
func (n *AKSNodeClass) Hash() string {
	h, err := hashstructure.Hash(n.Spec, hashstructure.FormatV2, &hashstructure.HashOptions{
		SlicesAsSets: true, IgnoreZeroValue: true, ZeroNil: true,
	})
	if err != nil {
		// Hashing plain values cannot fail.
		panic(fmt.Sprintf("hashing AKSNodeClass %s: %v", n.Name, err))
	}
	return strconv.FormatUint(h, 10)
}

// TagsHash returns the hash of the tags, which are updated in place.
func TagsHash(tags map[string]string) string {
	b, err := json.Marshal(tags) // map keys are marshalled in order
	if err != nil {
		panic(fmt.Sprintf("hashing tags: %v", err))
	}
	h := fnv.New32a()
	h.Write(b)
	return strconv.FormatUint(uint64(h.Sum32()), 10)
}

// ImageFamilyOrDefault returns the image family, by default Ubuntu.
func (n *AKSNodeClass) ImageFamilyOrDefault() string {
	if n.Spec.ImageFamily == nil || *n.Spec.ImageFamily == "" {
		return ImageFamilyUbuntu
	}
	return *n.Spec.ImageFamily
}

// OSDiskSizeGBOrDefault returns the OS disk size in GB, by default 128.
func (n *AKSNodeClass) OSDiskSizeGBOrDefault() int32 {
	if n.Spec.OSDiskSizeGB == nil {
		return 128
	}
	return *n.Spec.OSDiskSizeGB
}

// FIPS reports whether FIPS-validated images are requested.
func (n *AKSNodeClass) FIPS() bool { return n.Spec.FIPSMode != nil && *n.Spec.FIPSMode == FIPSModeFIPS }

// EncryptionAtHost reports whether encryption at host is requested.
func (n *AKSNodeClass) EncryptionAtHost() bool {
	return n.Spec.Security != nil && n.Spec.Security.EncryptionAtHost != nil && *n.Spec.Security.EncryptionAtHost
}

// VTPM reports whether a virtual TPM is requested.
func (n *AKSNodeClass) VTPM() bool {
	s := n.Spec.Security
	return s != nil && s.TrustedLaunch != nil && s.TrustedLaunch.VTPM != nil && *s.TrustedLaunch.VTPM
}

// SecureBoot reports whether secure boot is requested.
func (n *AKSNodeClass) SecureBoot() bool {
	s := n.Spec.Security
	return s != nil && s.TrustedLaunch != nil && s.TrustedLaunch.SecureBoot != nil && *s.TrustedLaunch.SecureBoot
}

// TrustedLaunchOn reports whether a virtual TPM or secure boot is requested.
func (n *AKSNodeClass) TrustedLaunchOn() bool { return n.VTPM() || n.SecureBoot() }

// GPUDriver reports whether AKS installs GPU drivers (mode Driver, the default).
func (n *AKSNodeClass) GPUDriver() bool {
	return n.Spec.GPU == nil || n.Spec.GPU.Mode == nil || *n.Spec.GPU.Mode == GPUModeDriver
}

// ArtifactStreamingOn reports whether artifact streaming is requested.
func (n *AKSNodeClass) ArtifactStreamingOn() bool {
	return n.Spec.ArtifactStreaming != nil && n.Spec.ArtifactStreaming.Enabled != nil && *n.Spec.ArtifactStreaming.Enabled
}

// Quantity parses a size such as "50Mi" and returns bytes. The pattern in the spec
// allows the suffix K, which Kubernetes writes as k.
func Quantity(s string) (int64, error) {
	if n := len(s); n > 0 && s[n-1] == 'K' {
		s = s[:n-1] + "k"
	}
	q, err := resource.ParseQuantity(s)
	if err != nil {
		return 0, fmt.Errorf("parsing size %q: %w", s, err)
	}
	return q.Value(), nil
}

// Values of the enumerations in the spec and status.
const (
	ImageFamilyUbuntu     = "Ubuntu"
	ImageFamilyUbuntu2204 = "Ubuntu2204"
	ImageFamilyUbuntu2404 = "Ubuntu2404"
	ImageFamilyAzureLinux = "AzureLinux"
	FIPSModeFIPS          = "FIPS"
	FIPSModeDisabled      = "Disabled"
	GPUModeDriver         = "Driver"
	GPUModeNone           = "None"
	LocalDNSPreferred     = "Preferred"
	LocalDNSRequired      = "Required"
	LocalDNSDisabled      = "Disabled"
	LocalDNSStateEnabled  = "Enabled"
	LocalDNSStateDisabled = "Disabled"
)
