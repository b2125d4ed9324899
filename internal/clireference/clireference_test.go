// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package clireference

import (
	"flag"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

func TestMarkdownListsVisibleCommandsAndFlags(t *testing.T) {
	run := func(*cobra.Command, []string) {}
	root := &cobra.Command{Use: "tool", Short: "A tool", Run: run}
	root.PersistentFlags().String("home", "", "folder")
	sub := &cobra.Command{Use: "do THING", Short: "Do a thing", Example: "  tool do it", Run: run}
	sub.Flags().StringP("output", "o", "table", "table|json")
	sub.Flags().Bool("secret", false, "x")
	_ = sub.Flags().MarkHidden("secret")
	root.AddCommand(sub, &cobra.Command{Use: "internal", Hidden: true, Run: run})
	flags := flag.NewFlagSet("daemon", flag.ContinueOnError)
	flags.Int("port", 80, "port to listen on [PORT]")
	flags.Bool("fast", false, "do not wait")

	got := Markdown(root, "daemon", flags)
	for _, want := range []string{
		"  - [tool do](#tool-do): Do a thing\n",
		"| `--home string` |  | folder |\n",
		"## tool do\n\nDo a thing.\n\n```\ntool do THING [flags]\n```\n\nExamples:\n\n```sh\ntool do it\n```\n",
		"| `-o, --output string` | `table` | table\\|json |\n",
		"tool completion zsh",
		"| `--port int` | `PORT` | `80` | port to listen on |\n",
		"| `--fast` |  |  | do not wait |\n",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in\n%s", want, got)
		}
	}
	for _, not := range []string{"internal", "secret"} {
		if strings.Contains(strings.ReplaceAll(got, "The secret of a client", ""), not) {
			t.Errorf("%q is hidden but in\n%s", not, got)
		}
	}
}
