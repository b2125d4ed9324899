package supervisor

import (
	"errors"
	"fmt"
	"hash/fnv"
	"io/fs"
	"net"
	"sync"
)

// The range ports are chosen from: below the ephemeral one, so that outgoing
// connections of other programs do not take them while the instance is down.
const (
	portLow  = 20000
	portHigh = 32000
)

// ports hands out loopback ports by name and remembers them in ports.json.
type ports struct {
	mu    sync.Mutex
	home  Home
	taken map[string]int
}

func openPorts(h Home) (*ports, error) {
	p := &ports{home: h, taken: map[string]int{}}
	if err := readJSON(h.Path("ports.json"), &p.taken); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("ports: %w", err)
	}
	return p, nil
}

// get returns the port of that name: the one of the last run if it is free or
// if held tells that our own process has it, else a new one.
func (p *ports) get(name string, held bool) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if port, ok := p.taken[name]; ok && (held || portFree(port)) {
		return port, nil
	}
	used := map[int]bool{}
	for _, port := range p.taken {
		used[port] = true
	}
	h := fnv.New32a()
	_, _ = h.Write([]byte(p.home.Dir + "\x00" + name))
	start := int(h.Sum32() % (portHigh - portLow))
	for i := range portHigh - portLow {
		port := portLow + (start+i)%(portHigh-portLow)
		if used[port] || !portFree(port) {
			continue
		}
		p.taken[name] = port
		return port, writeJSON(p.home.Path("ports.json"), p.taken, 0o600)
	}
	return 0, fmt.Errorf("no free port between %d and %d on 127.0.0.1 for %s: stop something that listens there", portLow, portHigh, name)
}

// forget gives the ports whose names start with the prefix back.
func (p *ports) forget(prefix string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	for name := range p.taken {
		if len(name) >= len(prefix) && name[:len(prefix)] == prefix {
			delete(p.taken, name)
		}
	}
	return writeJSON(p.home.Path("ports.json"), p.taken, 0o600)
}

func portFree(port int) bool {
	l, err := net.Listen("tcp4", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		return false
	}
	_ = l.Close()
	return true
}
