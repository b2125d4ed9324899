// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package provisioning

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/nap-aks/nap/snapshot"
)

const (
	decisionsKept  = 32
	decisionSuffix = ".snapshot.gz"
)

// record writes the snapshot of a pass, so that its decision can be replayed with nap
// plan. It keeps the newest snapshots only. An error is logged and does not stop the
// pass.
func (p *Provisioner) record(ctx context.Context, o *snapshot.Objects) {
	if err := p.writeDecision(o); err != nil {
		log.FromContext(ctx).Error(err, "recording decision failed")
	}
}

func (p *Provisioner) writeDecision(o *snapshot.Objects) error {
	if err := os.MkdirAll(p.Decisions, 0o700); err != nil {
		return fmt.Errorf("creating the folder of decisions: %w", err)
	}
	name := o.Now.UTC().Format("20060102T150405.000") + decisionSuffix
	if err := snapshot.WriteFile(filepath.Join(p.Decisions, name), o); err != nil {
		return err
	}
	entries, err := os.ReadDir(p.Decisions)
	if err != nil {
		return fmt.Errorf("reading the folder of decisions: %w", err)
	}
	var files []string
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), decisionSuffix) {
			files = append(files, e.Name())
		}
	}
	slices.Sort(files) // by time
	for _, old := range files[:max(len(files)-decisionsKept, 0)] {
		if err := os.Remove(filepath.Join(p.Decisions, old)); err != nil && !os.IsNotExist(err) {
			return fmt.Errorf("removing an old decision: %w", err)
		}
	}
	return nil
}
