// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package home

import (
	"errors"
	"fmt"
	"hash/fnv"
	"io/fs"
	"maps"
	"net"
	"strings"
	"sync"
)

// Ports are chosen from a range below the ephemeral one, so that outgoing
// connections of other programs do not take them while the instance is down.
const (
	portLow  = 20000
	portHigh = 32000
)

// Ports assigns loopback ports by name and keeps them in ports.json.
type Ports struct {
	mu     sync.Mutex
	home   Home
	byName map[string]int
}

// OpenPorts reads the ports that earlier runs of the home have chosen.
func OpenPorts(h Home) (*Ports, error) {
	p := &Ports{home: h, byName: map[string]int{}}
	if err := ReadJSON(h.Path("ports.json"), &p.byName); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("ports: %w", err)
	}
	return p, nil
}

// Get returns the port of that name. It keeps the port of the last run if it is
// free, or if inUse says that our own process listens there, and else chooses a
// new one.
func (p *Ports) Get(name string, inUse bool) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if port, ok := p.byName[name]; ok && (inUse || portFree(port)) {
		return port, nil
	}
	used := map[int]bool{}
	for _, port := range p.byName {
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
		p.byName[name] = port
		return port, WriteJSON(p.home.Path("ports.json"), p.byName, 0o600)
	}
	return 0, fmt.Errorf("no free port between %d and %d on 127.0.0.1 for %s: stop something that listens there", portLow, portHigh, name)
}

// Release forgets the ports whose names start with prefix.
func (p *Ports) Release(prefix string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	maps.DeleteFunc(p.byName, func(name string, _ int) bool { return strings.HasPrefix(name, prefix) })
	return WriteJSON(p.home.Path("ports.json"), p.byName, 0o600)
}

func portFree(port int) bool {
	l, err := net.Listen("tcp4", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		return false
	}
	_ = l.Close()
	return true
}
