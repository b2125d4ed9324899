// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package local

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/jedib0t/go-pretty/v6/text"

	"github.com/nap-aks/nap/localazure/home"
	"github.com/nap-aks/nap/localazure/kql"
	"github.com/nap-aks/nap/localazure/logstore"
)

// queryLogs runs a KQL query over all collected logs of the instance, whether it
// is running or stopped.
func queryLogs(ctx context.Context, out io.Writer, h home.Home, query, format string) error {
	file := h.Path("logs", "logs.db")
	if _, err := os.Stat(file); errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("no collected logs in %s yet; a running instance collects them: nap up", h.Dir)
	}
	s, err := logstore.Open(file, logstore.Options{})
	if err != nil {
		return err
	}
	defer func() { _ = s.Close() }()
	res, err := s.Query(ctx, logstore.Request{Query: query})
	var fault *kql.Error
	if errors.As(err, &fault) && fault.Line > 0 {
		return fmt.Errorf("query: %w\n%s", err, pointTo(query, fault.Line, fault.Pos))
	}
	if err != nil {
		return fmt.Errorf("query: %w", err)
	}
	switch format {
	case "json":
		rows := make([]map[string]any, 0, len(res.Rows))
		for _, r := range res.Rows {
			row := map[string]any{}
			for i, c := range res.Columns {
				row[c.Name] = r[i]
			}
			rows = append(rows, row)
		}
		enc := json.NewEncoder(out)
		enc.SetIndent("", "  ")
		if err := enc.Encode(rows); err != nil {
			return err
		}
	case "table":
		t := table.NewWriter()
		t.SetOutputMirror(out)
		t.SetStyle(table.StyleLight)
		t.Style().Format.Header = text.FormatDefault // column names are case-sensitive
		head := table.Row{}
		for _, c := range res.Columns {
			head = append(head, c.Name)
		}
		t.AppendHeader(head)
		for _, r := range res.Rows {
			row := table.Row{}
			for _, v := range r {
				switch v.(type) {
				case map[string]any, []any:
					b, err := json.Marshal(v)
					if err != nil {
						return err
					}
					v = string(b)
				case nil:
					v = ""
				}
				row = append(row, v)
			}
			t.AppendRow(row)
		}
		t.Render()
	default:
		return fmt.Errorf("--output %q is neither table nor json", format)
	}
	if res.Truncated {
		fmt.Fprintf(out, "truncated after %d rows; narrow the query, or use take or summarize\n", kql.MaxRowsReturned)
	}
	return nil
}

// pointTo returns the given line of a query with a mark below the character at
// pos. Both count from 1.
func pointTo(query string, line, pos int) string {
	lines := strings.Split(query, "\n")
	if line > len(lines) {
		return ""
	}
	runes := []rune(lines[line-1])
	before := string(runes[:min(pos-1, len(runes))])
	return "  " + string(runes) + "\n  " + strings.Map(func(r rune) rune {
		if r == '\t' {
			return r
		}
		return ' '
	}, before) + "^"
}
