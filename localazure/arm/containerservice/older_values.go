// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package containerservice

import (
	"strings"

	"github.com/nap-aks/nap/localazure/arm/rp"
)

// renamedValue is a value of an enumeration that API versions up to one spell
// otherwise. The document has the newer spelling.
type renamedValue struct {
	path     string // from the root of the document, with dots
	old, now string
	until    string // the last of the versions with the old spelling, a date
}

// renamedValues are the renamed values of a managed cluster. The changelog of
// Azure's SDK for Go names those of the SKU with its version 3.0.0 (April 2023):
// the models before it have the name Basic and the tiers Free and Paid.
var renamedValues = []renamedValue{
	{"sku.name", "Basic", "Base", "2023-01-31"},
	{"sku.tier", "Paid", "Standard", "2023-01-31"},
}

// fromVersion changes the values of a request of an API version to those of the
// document. Newer versions refuse the old spelling: see complete.
func fromVersion(d rp.Doc, apiVersion string) {
	for _, v := range renamedValues {
		path := strings.Split(v.path, ".")
		if before(apiVersion, v.until) && strings.EqualFold(d.Str(path...), v.old) {
			d.Set(v.now, path...)
		}
	}
}

// toVersion changes the values of a document to those of an API version.
func toVersion(d rp.Doc, apiVersion string) {
	for _, v := range renamedValues {
		path := strings.Split(v.path, ".")
		if before(apiVersion, v.until) && d.Str(path...) == v.now {
			d.Set(v.old, path...)
		}
	}
}

// before reports whether an API version is at most as new as a date. Internal
// changes have no version, which is the newest.
func before(apiVersion, date string) bool {
	return len(apiVersion) >= len(date) && apiVersion[:len(date)] <= date
}
