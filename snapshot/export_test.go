// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package snapshot

// Renewed returns how many nodes were translated again since an earlier input of the
// same cache, and whether NodePools and instance types were.
func (in *Input) Renewed(since *Input) (nodes int, pools bool) {
	for i, at := range in.stamps {
		if i >= len(since.stamps) || at != since.stamps[i] {
			nodes++
		}
	}
	return nodes, in.poolsAt != since.poolsAt
}
