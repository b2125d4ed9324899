//go:build unix

package kql

import (
	"io/fs"
	"strconv"
	"syscall"
)

// fileID tells a file from another that later has its path.
func fileID(info fs.FileInfo) string {
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return strconv.FormatUint(uint64(st.Dev), 16) + "-" + strconv.FormatUint(st.Ino, 16)
	}
	return ""
}
