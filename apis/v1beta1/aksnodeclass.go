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

// HashVersion changes whenever the same spec would hash differently: a field
// enters or leaves the hash while in use, or a hashed default changes.
const HashVersion = "v3"

// AKSNodeClass says how machines are made on AKS: image, disk, subnet, kubelet
// and kernel settings, security. NodePools refer to it by name.
//
// +kubebuilder:object:root=true
// +kubebuilder:resource:path=aksnodeclasses,scope=Cluster,categories={karpenter,nap},shortName={aksnc,aksncs}
// +kubebuilder:subresource:status
// +kubebuilder:storageversion
// +kubebuilder:printcolumn:name="Ready",type="string",JSONPath=".status.conditions[?(@.type==\"Ready\")].status",description="Whether machines can be made from this class"
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

// AKSNodeClassSpec is what the user asks of machines. Everything but the tags
// is part of the static hash: changing it drifts existing machines.
//
// +kubebuilder:validation:XValidation:message="fipsMode FIPS needs an explicit imageFamily other than Ubuntu2404",rule="!has(self.fipsMode) || self.fipsMode != 'FIPS' || (has(self.imageFamily) && self.imageFamily != 'Ubuntu2404')"
// +kubebuilder:validation:XValidation:message="fipsMode FIPS with imageFamily Ubuntu2204 needs security.trustedLaunch.vtpm or secureBoot",rule="!has(self.fipsMode) || self.fipsMode != 'FIPS' || !has(self.imageFamily) || self.imageFamily != 'Ubuntu2204' || (has(self.security) && has(self.security.trustedLaunch) && ((has(self.security.trustedLaunch.vtpm) && self.security.trustedLaunch.vtpm) || (has(self.security.trustedLaunch.secureBoot) && self.security.trustedLaunch.secureBoot)))"
// +kubebuilder:validation:XValidation:message="fipsMode FIPS with trusted launch works only with imageFamily Ubuntu or Ubuntu2204",rule="!has(self.fipsMode) || self.fipsMode != 'FIPS' || !has(self.security) || !has(self.security.trustedLaunch) || !((has(self.security.trustedLaunch.vtpm) && self.security.trustedLaunch.vtpm) || (has(self.security.trustedLaunch.secureBoot) && self.security.trustedLaunch.secureBoot)) || !has(self.imageFamily) || self.imageFamily in ['Ubuntu', 'Ubuntu2204']"
// +kubebuilder:validation:XValidation:message="linuxOSConfig.swapFileSize needs kubelet.failSwapOn to be false",rule="!has(self.linuxOSConfig) || !has(self.linuxOSConfig.swapFileSize) || (has(self.kubelet) && has(self.kubelet.failSwapOn) && !self.kubelet.failSwapOn)"
type AKSNodeClassSpec struct {
	// vnetSubnetID is the subnet of the machines: a full ARM ID. Empty means
	// the cluster's own subnet.
	// +kubebuilder:validation:Pattern=`(?i)^/subscriptions/[^/]+/resourceGroups/[a-zA-Z0-9_\-().]{0,89}[a-zA-Z0-9_\-()]/providers/Microsoft\.Network/virtualNetworks/[^/]+/subnets/[^/]+$`
	// +optional
	VNETSubnetID *string `json:"vnetSubnetID,omitempty"`
	// osDiskSizeGB is the size of the OS disk in GB (10^9 bytes).
	// +kubebuilder:default=128
	// +kubebuilder:validation:Minimum=30
	// +kubebuilder:validation:Maximum=2048
	// +optional
	OSDiskSizeGB *int32 `json:"osDiskSizeGB,omitempty"`
	// imageFamily chooses the node image; Ubuntu follows AKS's default for the
	// cluster's Kubernetes version.
	// +kubebuilder:default=Ubuntu
	// +kubebuilder:validation:Enum={Ubuntu,Ubuntu2204,Ubuntu2404,AzureLinux}
	// +optional
	ImageFamily *string `json:"imageFamily,omitempty"`
	// fipsMode chooses FIPS-validated images.
	// +kubebuilder:validation:Enum={FIPS,Disabled}
	// +optional
	FIPSMode *string `json:"fipsMode,omitempty"`
	// tags are put on the Azure resources of each machine. They are updated in
	// place on a change.
	// +kubebuilder:validation:XValidation:message="tag keys have at most 512 characters",rule="self.all(k, size(k) <= 512)"
	// +kubebuilder:validation:XValidation:message="tag keys must not contain any of < > % & ? or backslash",rule="self.all(k, !k.matches('[<>%&?\\\\\\\\]'))"
	// +kubebuilder:validation:XValidation:message="tag values have at most 256 characters",rule="self.all(k, size(self[k]) <= 256)"
	// +kubebuilder:validation:MaxProperties=50
	// +optional
	Tags map[string]string `json:"tags,omitempty" hash:"ignore"`
	// kubelet settings of the machines.
	// +optional
	Kubelet *KubeletConfiguration `json:"kubelet,omitempty"`
	// maxPods is the number of pods a machine may run. The default depends on
	// the cluster's network plugin.
	// +kubebuilder:validation:Minimum=10
	// +kubebuilder:validation:Maximum=250
	// +optional
	MaxPods *int32 `json:"maxPods,omitempty"`
	// security settings of the machines.
	// +optional
	Security *Security `json:"security,omitempty"`
	// localDNS settings of the machines.
	// +optional
	LocalDNS *LocalDNS `json:"localDNS,omitempty"`
	// gpu settings of machines that have GPUs.
	// +optional
	GPU *GPU `json:"gpu,omitempty"`
	// artifactStreaming of container images.
	// +optional
	ArtifactStreaming *ArtifactStreaming `json:"artifactStreaming,omitempty"`
	// linuxOSConfig holds kernel settings of the machines.
	// +optional
	LinuxOSConfig *LinuxOSConfiguration `json:"linuxOSConfig,omitempty"`
}

// Security settings of a machine.
type Security struct {
	// encryptionAtHost encrypts disks and caches on the VM host; only sizes
	// that can do it are then chosen.
	// +optional
	EncryptionAtHost *bool `json:"encryptionAtHost,omitempty"`
	// trustedLaunch is on when either of its parts is true.
	// +optional
	TrustedLaunch *TrustedLaunch `json:"trustedLaunch,omitempty"`
}

// TrustedLaunch parts of a machine.
type TrustedLaunch struct {
	// vtpm gives the machine a virtual TPM.
	// +optional
	VTPM *bool `json:"vtpm,omitempty"`
	// secureBoot lets only signed systems boot.
	// +optional
	SecureBoot *bool `json:"secureBoot,omitempty"`
}

// GPU settings of a machine.
type GPU struct {
	// mode Driver has AKS install the GPU driver; None leaves it to the user.
	// +kubebuilder:default=Driver
	// +kubebuilder:validation:Enum={Driver,None}
	// +optional
	Mode *string `json:"mode,omitempty"`
}

// ArtifactStreaming of container images.
type ArtifactStreaming struct {
	// enabled switches it on (amd64 only).
	// +optional
	Enabled *bool `json:"enabled,omitempty"`
}

// KubeletConfiguration holds the kubelet settings that AKS lets one choose.
//
// +kubebuilder:validation:XValidation:message="imageGCHighThresholdPercent must exceed imageGCLowThresholdPercent",rule="!has(self.imageGCHighThresholdPercent) || !has(self.imageGCLowThresholdPercent) || self.imageGCHighThresholdPercent > self.imageGCLowThresholdPercent"
type KubeletConfiguration struct {
	// +kubebuilder:default=none
	// +kubebuilder:validation:Enum={none,static}
	// +optional
	CPUManagerPolicy *string `json:"cpuManagerPolicy,omitempty"`
	// +kubebuilder:default=true
	// +optional
	CPUCFSQuota *bool `json:"cpuCFSQuota,omitempty"`
	// +kubebuilder:default="100ms"
	// +optional
	CPUCFSQuotaPeriod *metav1.Duration `json:"cpuCFSQuotaPeriod,omitempty"`
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=100
	// +optional
	ImageGCHighThresholdPercent *int32 `json:"imageGCHighThresholdPercent,omitempty"`
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=100
	// +optional
	ImageGCLowThresholdPercent *int32 `json:"imageGCLowThresholdPercent,omitempty"`
	// +kubebuilder:default=none
	// +kubebuilder:validation:Enum={restricted,best-effort,none,single-numa-node}
	// +optional
	TopologyManagerPolicy *string `json:"topologyManagerPolicy,omitempty"`
	// +optional
	AllowedUnsafeSysctls []string `json:"allowedUnsafeSysctls,omitempty"`
	// +kubebuilder:default="50Mi"
	// +kubebuilder:validation:Pattern=`^\d+(E|P|T|G|M|K|Ei|Pi|Ti|Gi|Mi|Ki)$`
	// +optional
	ContainerLogMaxSize *string `json:"containerLogMaxSize,omitempty"`
	// +kubebuilder:default=5
	// +kubebuilder:validation:Minimum=2
	// +optional
	ContainerLogMaxFiles *int32 `json:"containerLogMaxFiles,omitempty"`
	// +optional
	PodPidsLimit *int64 `json:"podPidsLimit,omitempty"`
	// +optional
	FailSwapOn *bool `json:"failSwapOn,omitempty"`
}

// LocalDNS settings: a DNS proxy on each machine.
type LocalDNS struct {
	// mode Required always runs it, Preferred where the cluster allows it.
	// +kubebuilder:validation:Enum={Preferred,Required,Disabled}
	Mode string `json:"mode"`
	// vnetDNSOverrides apply to queries of pods with dnsPolicy Default and of
	// the node itself.
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

// LocalDNSZoneOverride says how queries for one zone are answered.
//
// +kubebuilder:validation:XValidation:message="zones ending in cluster.local must not forward to VnetDNS",rule="!self.zone.endsWith('cluster.local') || self.forwardDestination != 'VnetDNS'"
// +kubebuilder:validation:XValidation:message="serveStale Verify cannot be combined with protocol ForceTCP",rule="self.serveStale != 'Verify' || self.protocol != 'ForceTCP'"
type LocalDNSZoneOverride struct {
	// zone is a DNS zone; . is the root.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=254
	// +kubebuilder:validation:Pattern=`^(\.|[A-Za-z0-9]([A-Za-z0-9_-]{0,61}[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9_-]{0,61}[A-Za-z0-9])?)*\.?)$`
	Zone string `json:"zone"`
	// +kubebuilder:validation:Enum={Error,Log}
	QueryLogging string `json:"queryLogging"`
	// +kubebuilder:validation:Enum={PreferUDP,ForceTCP}
	Protocol string `json:"protocol"`
	// +kubebuilder:validation:Enum={ClusterCoreDNS,VnetDNS}
	ForwardDestination string `json:"forwardDestination"`
	// +kubebuilder:validation:Enum={Sequential,RoundRobin,Random}
	ForwardPolicy string `json:"forwardPolicy"`
	// +kubebuilder:validation:Minimum=0
	MaxConcurrent int32 `json:"maxConcurrent"`
	// +kubebuilder:validation:Pattern=`^([0-9]+[smh])+$`
	CacheDuration string `json:"cacheDuration"`
	// +kubebuilder:validation:Pattern=`^([0-9]+[smh])+$`
	ServeStaleDuration string `json:"serveStaleDuration"`
	// +kubebuilder:validation:Enum={Verify,Immediate,Disable}
	ServeStale string `json:"serveStale"`
}

// LinuxOSConfiguration holds kernel settings.
type LinuxOSConfiguration struct {
	// +kubebuilder:validation:Pattern=`^\d+(E|P|T|G|M|K|Ei|Pi|Ti|Gi|Mi|Ki)$`
	// +optional
	SwapFileSize *string `json:"swapFileSize,omitempty"`
	// +kubebuilder:validation:Enum={always,madvise,never}
	// +optional
	TransparentHugePageEnabled *string `json:"transparentHugePageEnabled,omitempty"`
	// +kubebuilder:validation:Enum={always,defer,defer+madvise,madvise,never}
	// +optional
	TransparentHugePageDefrag *string `json:"transparentHugePageDefrag,omitempty"`
	// +optional
	Sysctls *SysctlConfiguration `json:"sysctls,omitempty"`
}

// SysctlConfiguration holds kernel parameters; names follow the kernel's.
//
// +kubebuilder:validation:XValidation:message="netCoreRmemDefault must not exceed netCoreRmemMax",rule="!has(self.netCoreRmemDefault) || !has(self.netCoreRmemMax) || self.netCoreRmemDefault <= self.netCoreRmemMax"
// +kubebuilder:validation:XValidation:message="netCoreWmemDefault must not exceed netCoreWmemMax",rule="!has(self.netCoreWmemDefault) || !has(self.netCoreWmemMax) || self.netCoreWmemDefault <= self.netCoreWmemMax"
// +kubebuilder:validation:XValidation:message="netIPv4NeighDefaultGcThresh1 must not exceed netIPv4NeighDefaultGcThresh2",rule="!has(self.netIPv4NeighDefaultGcThresh1) || !has(self.netIPv4NeighDefaultGcThresh2) || self.netIPv4NeighDefaultGcThresh1 <= self.netIPv4NeighDefaultGcThresh2"
// +kubebuilder:validation:XValidation:message="netIPv4NeighDefaultGcThresh2 must not exceed netIPv4NeighDefaultGcThresh3",rule="!has(self.netIPv4NeighDefaultGcThresh2) || !has(self.netIPv4NeighDefaultGcThresh3) || self.netIPv4NeighDefaultGcThresh2 <= self.netIPv4NeighDefaultGcThresh3"
type SysctlConfiguration struct {
	// +kubebuilder:validation:Minimum=65536
	// +kubebuilder:validation:Maximum=6553500
	// +optional
	FsAioMaxNr *int32 `json:"fsAioMaxNr,omitempty"`
	// +kubebuilder:validation:Minimum=8192
	// +kubebuilder:validation:Maximum=12000500
	// +optional
	FsFileMax *int32 `json:"fsFileMax,omitempty"`
	// +kubebuilder:validation:Minimum=781250
	// +kubebuilder:validation:Maximum=2097152
	// +optional
	FsInotifyMaxUserWatches *int32 `json:"fsInotifyMaxUserWatches,omitempty"`
	// +kubebuilder:validation:Minimum=8192
	// +kubebuilder:validation:Maximum=20000500
	// +optional
	FsNrOpen *int32 `json:"fsNrOpen,omitempty"`
	// +kubebuilder:validation:Minimum=20
	// +kubebuilder:validation:Maximum=513785
	// +optional
	KernelThreadsMax *int32 `json:"kernelThreadsMax,omitempty"`
	// +kubebuilder:validation:Minimum=1000
	// +kubebuilder:validation:Maximum=3240000
	// +optional
	NetCoreNetdevMaxBacklog *int32 `json:"netCoreNetdevMaxBacklog,omitempty"`
	// +kubebuilder:validation:Minimum=20480
	// +kubebuilder:validation:Maximum=4194304
	// +optional
	NetCoreOptmemMax *int32 `json:"netCoreOptmemMax,omitempty"`
	// +kubebuilder:validation:Minimum=212992
	// +kubebuilder:validation:Maximum=134217728
	// +optional
	NetCoreRmemDefault *int32 `json:"netCoreRmemDefault,omitempty"`
	// +kubebuilder:validation:Minimum=212992
	// +kubebuilder:validation:Maximum=134217728
	// +optional
	NetCoreRmemMax *int32 `json:"netCoreRmemMax,omitempty"`
	// +kubebuilder:validation:Minimum=4096
	// +kubebuilder:validation:Maximum=3240000
	// +optional
	NetCoreSomaxconn *int32 `json:"netCoreSomaxconn,omitempty"`
	// +kubebuilder:validation:Minimum=212992
	// +kubebuilder:validation:Maximum=134217728
	// +optional
	NetCoreWmemDefault *int32 `json:"netCoreWmemDefault,omitempty"`
	// +kubebuilder:validation:Minimum=212992
	// +kubebuilder:validation:Maximum=134217728
	// +optional
	NetCoreWmemMax *int32 `json:"netCoreWmemMax,omitempty"`
	// netIPv4IPLocalPortRange is "first last": first 1024 to 60999, last 32768 to 65535.
	// +kubebuilder:validation:Pattern=`^[0-9]{4,5} [0-9]{5}$`
	// +kubebuilder:validation:XValidation:message="first must be 1024 to 60999, last 32768 to 65535, and first not above last",rule="int(self.split(' ')[0]) >= 1024 && int(self.split(' ')[0]) <= 60999 && int(self.split(' ')[1]) >= 32768 && int(self.split(' ')[1]) <= 65535 && int(self.split(' ')[0]) <= int(self.split(' ')[1])"
	// +optional
	NetIPv4IPLocalPortRange *string `json:"netIPv4IPLocalPortRange,omitempty"`
	// +kubebuilder:validation:Minimum=128
	// +kubebuilder:validation:Maximum=80000
	// +optional
	NetIPv4NeighDefaultGcThresh1 *int32 `json:"netIPv4NeighDefaultGcThresh1,omitempty"`
	// +kubebuilder:validation:Minimum=512
	// +kubebuilder:validation:Maximum=90000
	// +optional
	NetIPv4NeighDefaultGcThresh2 *int32 `json:"netIPv4NeighDefaultGcThresh2,omitempty"`
	// +kubebuilder:validation:Minimum=1024
	// +kubebuilder:validation:Maximum=100000
	// +optional
	NetIPv4NeighDefaultGcThresh3 *int32 `json:"netIPv4NeighDefaultGcThresh3,omitempty"`
	// +kubebuilder:validation:Minimum=5
	// +kubebuilder:validation:Maximum=120
	// +optional
	NetIPv4TCPFinTimeout *int32 `json:"netIPv4TCPFinTimeout,omitempty"`
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=15
	// +optional
	NetIPv4TCPKeepaliveProbes *int32 `json:"netIPv4TCPKeepaliveProbes,omitempty"`
	// +kubebuilder:validation:Minimum=30
	// +kubebuilder:validation:Maximum=432000
	// +optional
	NetIPv4TCPKeepaliveTime *int32 `json:"netIPv4TCPKeepaliveTime,omitempty"`
	// +kubebuilder:validation:Minimum=10
	// +kubebuilder:validation:Maximum=90
	// +optional
	NetIPv4TCPKeepaliveIntvl *int32 `json:"netIPv4TCPKeepaliveIntvl,omitempty"`
	// +kubebuilder:validation:Minimum=128
	// +kubebuilder:validation:Maximum=3240000
	// +optional
	NetIPv4TCPMaxSynBacklog *int32 `json:"netIPv4TCPMaxSynBacklog,omitempty"`
	// +kubebuilder:validation:Minimum=8000
	// +kubebuilder:validation:Maximum=1440000
	// +optional
	NetIPv4TCPMaxTwBuckets *int32 `json:"netIPv4TCPMaxTwBuckets,omitempty"`
	// +optional
	NetIPv4TCPTwReuse *bool `json:"netIPv4TCPTwReuse,omitempty"`
	// +kubebuilder:validation:Minimum=65536
	// +kubebuilder:validation:Maximum=524288
	// +optional
	NetNetfilterNfConntrackBuckets *int32 `json:"netNetfilterNfConntrackBuckets,omitempty"`
	// +kubebuilder:validation:Minimum=131072
	// +kubebuilder:validation:Maximum=2097152
	// +optional
	NetNetfilterNfConntrackMax *int32 `json:"netNetfilterNfConntrackMax,omitempty"`
	// +kubebuilder:validation:Minimum=65530
	// +kubebuilder:validation:Maximum=262144
	// +optional
	VMMaxMapCount *int32 `json:"vmMaxMapCount,omitempty"`
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=100
	// +optional
	VMSwappiness *int32 `json:"vmSwappiness,omitempty"`
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=100
	// +optional
	VMVfsCachePressure *int32 `json:"vmVfsCachePressure,omitempty"`
}

// Hash is the static hash of the spec: everything but the tags, printed as a
// decimal number. Zero values do not count, lists count as sets.
func (n *AKSNodeClass) Hash() string {
	h, err := hashstructure.Hash(n.Spec, hashstructure.FormatV2, &hashstructure.HashOptions{
		SlicesAsSets: true, IgnoreZeroValue: true, ZeroNil: true,
	})
	if err != nil {
		// The spec is made of plain values; hashing them cannot fail.
		panic(fmt.Sprintf("hashing AKSNodeClass %s: %v", n.Name, err))
	}
	return strconv.FormatUint(h, 10)
}

// TagsHash is the hash of what is updated in place: the tags.
func TagsHash(tags map[string]string) string {
	b, err := json.Marshal(tags) // map keys are marshalled in order
	if err != nil {
		panic(fmt.Sprintf("hashing tags: %v", err))
	}
	h := fnv.New32a()
	h.Write(b)
	return strconv.FormatUint(uint64(h.Sum32()), 10)
}

// ImageFamilyOrDefault is the image family, Ubuntu when unset.
func (n *AKSNodeClass) ImageFamilyOrDefault() string {
	if n.Spec.ImageFamily == nil || *n.Spec.ImageFamily == "" {
		return ImageFamilyUbuntu
	}
	return *n.Spec.ImageFamily
}

// OSDiskSizeGBOrDefault is the OS disk size in GB, 128 when unset.
func (n *AKSNodeClass) OSDiskSizeGBOrDefault() int32 {
	if n.Spec.OSDiskSizeGB == nil {
		return 128
	}
	return *n.Spec.OSDiskSizeGB
}

// FIPS tells whether FIPS-validated images are asked for.
func (n *AKSNodeClass) FIPS() bool { return n.Spec.FIPSMode != nil && *n.Spec.FIPSMode == FIPSModeFIPS }

// EncryptionAtHost tells whether host encryption is asked for.
func (n *AKSNodeClass) EncryptionAtHost() bool {
	return n.Spec.Security != nil && n.Spec.Security.EncryptionAtHost != nil && *n.Spec.Security.EncryptionAtHost
}

// VTPM tells whether a virtual TPM is asked for.
func (n *AKSNodeClass) VTPM() bool {
	s := n.Spec.Security
	return s != nil && s.TrustedLaunch != nil && s.TrustedLaunch.VTPM != nil && *s.TrustedLaunch.VTPM
}

// SecureBoot tells whether secure boot is asked for.
func (n *AKSNodeClass) SecureBoot() bool {
	s := n.Spec.Security
	return s != nil && s.TrustedLaunch != nil && s.TrustedLaunch.SecureBoot != nil && *s.TrustedLaunch.SecureBoot
}

// TrustedLaunchOn tells whether either part of trusted launch is asked for.
func (n *AKSNodeClass) TrustedLaunchOn() bool { return n.VTPM() || n.SecureBoot() }

// GPUDriver tells whether AKS installs GPU drivers (mode Driver, the default).
func (n *AKSNodeClass) GPUDriver() bool {
	return n.Spec.GPU == nil || n.Spec.GPU.Mode == nil || *n.Spec.GPU.Mode == GPUModeDriver
}

// ArtifactStreamingOn tells whether artifact streaming is asked for.
func (n *AKSNodeClass) ArtifactStreamingOn() bool {
	return n.Spec.ArtifactStreaming != nil && n.Spec.ArtifactStreaming.Enabled != nil && *n.Spec.ArtifactStreaming.Enabled
}

// Quantity reads a size such as "50Mi" as bytes. The spec's pattern allows the
// suffix K, which Kubernetes spells k.
func Quantity(s string) (int64, error) {
	if n := len(s); n > 0 && s[n-1] == 'K' {
		s = s[:n-1] + "k"
	}
	q, err := resource.ParseQuantity(s)
	if err != nil {
		return 0, fmt.Errorf("reading size %q: %w", s, err)
	}
	return q.Value(), nil
}

// Values of the spec's enumerations.
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
