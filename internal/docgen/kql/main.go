// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

// Command kql writes docs/reference/kql.md: what the local Azure's log queries
// know of the Kusto Query Language and what they do not, from the tables that the
// query language itself uses.
package main

import (
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/nap-aks/nap/localazure/kql"
)

//go:generate go run . -out ../../../docs/reference/kql.md

const head = `<!-- Written by internal/docgen/kql. Do not edit; run make generate. -->

# Log queries

` + "`nap logs --kql`" + ` and the local Azure's Log Analytics API answer queries in the Kusto Query Language. This page lists what there is, and what Azure Monitor has and the local Azure has not: such a name is refused with its position in the query.

Window functions need rows in an order: put ` + "`sort by`, `top` or `serialize`" + ` before them, as on Azure. They can be used in ` + "`extend`, `project`, `serialize` and `where`" + `. The integers of queries have 64 bits (` + "`int` is `long`" + `), and ` + "`decimal` is `real`" + `.

`

func main() {
	out := flag.String("out", "docs/reference/kql.md", "file to write")
	flag.Parse()
	if err := os.WriteFile(*out, []byte(page(kql.Reference())), 0o644); err != nil {
		fmt.Fprintln(os.Stderr, "docgen/kql:", err)
		os.Exit(1)
	}
}

// page returns the reference page.
func page(l kql.Language) string {
	var b strings.Builder
	b.WriteString(head)
	fmt.Fprintf(&b, "## Sources\n\nA query starts with the name of a table or one of: %s.\n\n", names(l.Sources))
	fmt.Fprintf(&b, "## Operators\n\n%s.\n\n", names(l.Operators))
	for _, s := range []struct{ kind, title string }{
		{"scalar", "Scalar functions"}, {"window", "Window functions"}, {"aggregate", "Aggregate functions"}, {"plugin", "Plugins of evaluate"},
	} {
		fmt.Fprintf(&b, "## %s\n\n| name | arguments | result |\n|---|---|---|\n", s.title)
		for _, f := range l.Functions {
			if f.Kind == s.kind {
				fmt.Fprintf(&b, "| `%s` | %s | %s |\n", f.Name, arguments(f), result(f))
			}
		}
		b.WriteString("\n")
	}
	b.WriteString("## Not there\n\n| kind | names |\n|---|---|\n")
	for _, kind := range []string{"operator", "scalar", "aggregate", "plugin"} {
		fmt.Fprintf(&b, "| %s | %s |\n", kind, names(l.Missing[kind]))
	}
	return b.String()
}

// names returns names in the order of the alphabet, as code.
func names(of []string) string {
	return "`" + strings.Join(slices.Sorted(slices.Values(of)), "`, `") + "`"
}

func arguments(f kql.Function) string {
	switch {
	case f.Max < 0:
		return fmt.Sprintf("%d or more", f.Min)
	case f.Min == f.Max:
		return fmt.Sprint(f.Min)
	}
	return fmt.Sprintf("%d to %d", f.Min, f.Max)
}

func result(f kql.Function) string {
	switch {
	case f.Kind == "plugin":
		return "a table"
	case f.Result == "":
		return "as its arguments"
	}
	return string(f.Result)
}
