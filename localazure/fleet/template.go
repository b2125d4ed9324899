// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package fleet

import (
	"regexp"
	"strings"
)

// scalarValue is a line of a status template whose value is the result of an
// expression, printed as it is.
var scalarValue = regexp.MustCompile(`(?m)^(\s*(?:- )?[A-Za-z]+: *)\{\{ *(.*?) *\}\}[ \t]*$`)

// quoteValues returns a status template whose values are encoded as strings. kwok's
// templates print some values into YAML as they are; a machine ID that has only
// digits, or looks like 12e5, is then a number, which the API server refuses for
// ever. Values that are encoded already, and numbers (ports), are left alone.
func quoteValues(template string) string {
	return scalarValue.ReplaceAllStringFunc(template, func(line string) string {
		m := scalarValue.FindStringSubmatch(line)
		key, expression := m[1], m[2]
		if strings.Contains(expression, "Quote") || strings.HasPrefix(expression, "YAML") || strings.HasPrefix(strings.TrimSpace(key), "Port:") {
			return line
		}
		// An empty string is written `""` in a template that prints its values.
		expression = strings.ReplaceAll(expression, "`\"\"`", `""`)
		return key + "{{ " + expression + " | Quote }}"
	})
}
