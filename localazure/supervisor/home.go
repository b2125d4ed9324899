package supervisor

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Home is the folder that holds everything of one instance.
type Home struct {
	// Dir is absolute.
	Dir string
}

// OpenHome makes the folder if it is missing, readable by its owner only.
func OpenHome(dir string) (Home, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return Home{}, fmt.Errorf("home folder %s: %w", dir, err)
	}
	h := Home{Dir: abs}
	for _, d := range []string{abs, h.Path("logs"), h.Path("pki"), h.Path("clusters")} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			return Home{}, fmt.Errorf("home folder: %w; choose another with --home or NAP_HOME", err)
		}
	}
	return h, nil
}

// Path joins names under the home folder.
func (h Home) Path(names ...string) string {
	return filepath.Join(append([]string{h.Dir}, names...)...)
}

// ClusterPath joins names under a cluster's folder.
func (h Home) ClusterPath(uid string, names ...string) string {
	return h.Path(append([]string{"clusters", uid}, names...)...)
}

// tunnelSocket is where a cluster's API server finds what is in the cluster.
func (h Home) tunnelSocket(uid string) string { return h.ClusterPath(uid, "tunnel") }

// LogFile is where a component's output goes; cluster is a UID or empty.
func (h Home) LogFile(component, cluster string) string {
	if cluster == "" {
		return h.Path("logs", component+".log")
	}
	return h.Path("logs", cluster, component+".log")
}

// Instance is $NAP_HOME/instance.json: what a client needs to use this local
// Azure. Fields are added, never renamed or taken away.
type Instance struct {
	// ARMEndpoint is the Resource Manager's URL, which is also the host of the
	// token endpoint: https on loopback, no trailing slash.
	ARMEndpoint string `json:"armEndpoint"`
	// CAFile is the PEM file of the authority that signed ARM's certificate.
	CAFile         string `json:"caFile"`
	TenantID       string `json:"tenantID"`
	SubscriptionID string `json:"subscriptionID"`
	// ClientID and the secret in ClientSecretFile are a service principal that
	// owns the subscription.
	ClientID         string `json:"clientID"`
	ClientSecretFile string `json:"clientSecretFile"`
	// Location is the region of the examples.
	Location string `json:"location"`
	// Kubeconfig is the file with a context per cluster.
	Kubeconfig string `json:"kubeconfig"`
	// Etcd is the database that holds the instance's state.
	Etcd EtcdClient `json:"etcd"`
	// Ready tells that etcd, ARM and the fleet answered; false while the
	// instance starts and once it was stopped.
	Ready bool `json:"ready"`
	// PID is the supervisor's process; StartedAt when it started.
	PID       int       `json:"pid"`
	StartedAt time.Time `json:"startedAt"`
	// Home is the folder itself, Version that of the binary.
	Home    string `json:"home"`
	Version string `json:"version"`
}

// ClientSecret reads the secret of ClientID.
func (i Instance) ClientSecret() (string, error) {
	b, err := os.ReadFile(i.ClientSecretFile)
	if err != nil {
		return "", fmt.Errorf("client secret: %w", err)
	}
	return strings.TrimSpace(string(b)), nil
}

// ErrNoInstance is wrapped by errors about a home in which nothing runs.
var ErrNoInstance = errors.New("no instance is running here")

// ReadInstance reads instance.json of a home. The error wraps fs.ErrNotExist
// when no instance ever started there.
func ReadInstance(h Home) (Instance, error) {
	var i Instance
	if err := readJSON(h.Path("instance.json"), &i); err != nil {
		return i, fmt.Errorf("instance of %s: %w", h.Dir, err)
	}
	return i, nil
}

// ComponentInfo is one process of the instance, an entry of components.json.
type ComponentInfo struct {
	Name string `json:"name"`
	// Cluster is the managed cluster's name, ClusterUID its unique one; both
	// empty for components that all clusters share.
	Cluster    string `json:"cluster,omitempty"`
	ClusterUID string `json:"clusterUID,omitempty"`
	// PID is 0 while the component is not running.
	PID int `json:"pid"`
	// Ready tells that the component answered its last health check.
	Ready     bool      `json:"ready"`
	Restarts  int       `json:"restarts"`
	StartedAt time.Time `json:"startedAt,omitzero"`
	// Port is the component's main port on loopback, MetricsPort that of its
	// Prometheus page in plain HTTP; 0 when it has none.
	Port        int    `json:"port,omitempty"`
	MetricsPort int    `json:"metricsPort,omitempty"`
	LogFile     string `json:"logFile"`
	// LastExit says how the last run ended, if it did.
	LastExit string `json:"lastExit,omitempty"`
	// RSSBytes is filled in by readers of the file, from /proc.
	RSSBytes int64 `json:"rssBytes,omitempty"`
}

// ReadComponents reads components.json and adds the memory of each process.
func ReadComponents(h Home) ([]ComponentInfo, error) {
	var cs []ComponentInfo
	if err := readJSON(h.Path("components.json"), &cs); err != nil {
		return nil, fmt.Errorf("components of %s: %w", h.Dir, err)
	}
	for i := range cs {
		cs[i].RSSBytes = ResidentBytes(cs[i].PID)
	}
	return cs, nil
}

// ResidentBytes is a process's share of physical memory: what it holds alone
// and, of what it shares with others (all components are one binary), its part.
// It is 0 for a process that is gone or not ours.
func ResidentBytes(pid int) int64 {
	if pid <= 0 {
		return 0
	}
	b, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "smaps_rollup"))
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(line, "Pss:"); ok {
			kb, _ := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(rest), "kB")), 10, 64)
			return kb << 10
		}
	}
	return 0
}

// Lock is the claim of a supervisor on its home.
type Lock struct {
	f *os.File
}

// LockInfo is what the holder of a lock wrote about itself.
type LockInfo struct {
	PID       int       `json:"pid"`
	StartedAt time.Time `json:"startedAt"`
}

// LockedError says that another process holds the home.
type LockedError struct {
	Home Home
	LockInfo
}

func (e *LockedError) Error() string {
	return fmt.Sprintf("an instance already runs in %s (pid %d, since %s): `nap status` shows it, `nap down` stops it, --home starts another beside it",
		e.Home.Dir, e.PID, e.StartedAt.Format(time.RFC3339))
}

// TakeLock claims the home for this process. The kernel gives the claim up when
// the process ends, however it ends, so a file left behind is never in the way.
// The error is a *LockedError when a live process holds it.
func TakeLock(h Home) (*Lock, error) {
	f, err := os.OpenFile(h.Path("lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock: %w", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		_ = f.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			info, _ := ReadLock(h)
			return nil, &LockedError{Home: h, LockInfo: info}
		}
		return nil, fmt.Errorf("lock %s: %w", h.Path("lock"), err)
	}
	b, err := json.Marshal(LockInfo{PID: os.Getpid(), StartedAt: time.Now().UTC()})
	if err == nil {
		err = f.Truncate(0)
	}
	if err == nil {
		_, err = f.WriteAt(b, 0)
	}
	if err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("lock %s: %w", h.Path("lock"), err)
	}
	return &Lock{f: f}, nil
}

// Release gives the claim up.
func (l *Lock) Release() {
	_ = l.f.Truncate(0)
	_ = l.f.Close()
}

// ReadLock tells who holds a home. The error wraps ErrNoInstance when nobody
// does, whatever an earlier holder left in the file.
func ReadLock(h Home) (LockInfo, error) {
	var info LockInfo
	f, err := os.OpenFile(h.Path("lock"), os.O_RDWR, 0o600)
	if errors.Is(err, fs.ErrNotExist) {
		return info, fmt.Errorf("%s: %w; `nap up` starts one", h.Dir, ErrNoInstance)
	}
	if err != nil {
		return info, fmt.Errorf("lock: %w", err)
	}
	defer func() { _ = f.Close() }()
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err == nil {
		return info, fmt.Errorf("%s: %w; `nap up` starts one", h.Dir, ErrNoInstance)
	}
	if err := json.NewDecoder(f).Decode(&info); err != nil {
		return info, fmt.Errorf("lock %s is held but unreadable: %w", h.Path("lock"), err)
	}
	return info, nil
}

// writeFile replaces a file in one step, so that readers see the old or the new.
func writeFile(path string, data []byte, mode os.FileMode) error {
	tmp, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-*")
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(tmp.Name()) }()
	_, err = tmp.Write(data)
	if err == nil {
		err = tmp.Chmod(mode)
	}
	if cerr := tmp.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return err
	}
	return os.Rename(tmp.Name(), path)
}

func writeJSON(path string, v any, mode os.FileMode) error {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return fmt.Errorf("encoding %s: %w", path, err)
	}
	if err := writeFile(path, append(b, '\n'), mode); err != nil {
		return fmt.Errorf("writing %s: %w", path, err)
	}
	return nil
}

func readJSON(path string, v any) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(b, v); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}
