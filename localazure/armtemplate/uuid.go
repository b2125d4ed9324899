// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package armtemplate

import (
	"crypto/sha1"
	"encoding/hex"
	"fmt"
)

// NameUUID returns what the template function guid returns for arguments joined
// with "-": an RFC 4122 version 5 UUID.
func NameUUID(s string) string {
	ns, _ := hex.DecodeString("11fb06fb712d4ddd98c7e71bbd588830")
	h := sha1.New()
	h.Write(ns)
	h.Write([]byte(s))
	b := h.Sum(nil)[:16]
	b[6], b[8] = b[6]&0x0f|0x50, b[8]&0x3f|0x80
	return formatUUID(b)
}

func formatUUID(b []byte) string {
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:16])
}
