// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

//go:build unix

package logstore

import (
	"io/fs"
	"strconv"
	"syscall"
)

// fileID identifies a file, so that another file at the same path is noticed.
func fileID(info fs.FileInfo) string {
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return strconv.FormatUint(uint64(st.Dev), 16) + "-" + strconv.FormatUint(st.Ino, 16)
	}
	return ""
}
