//go:build !unix

package kql

import "io/fs"

// fileID cannot tell files apart here; a replaced one is noticed when it is
// shorter.
func fileID(fs.FileInfo) string { return "" }
