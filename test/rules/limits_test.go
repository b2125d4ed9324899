package rules

import (
	"bytes"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const (
	maxFileLines     = 800
	maxFunctionLines = 120
)

// exceptions are the files and functions that may be longer, with the reason.
// A key is a file, or a file and a function: "engine/x.go:Name".
var exceptions = map[string]string{}

// header is what each Go file and script begins with (scripts below their #! line).
const (
	copyright = "Copyright The nap Authors."
	licence   = "SPDX-License-Identifier: Apache-2.0"
)

// TestSizes checks that no file and no function is so long that nobody reads
// it to the end. Generated files and tables of data are free.
func TestSizes(t *testing.T) {
	used := map[string]bool{}
	for _, path := range goFiles(t) {
		text, err := os.ReadFile(filepath.Join("../..", path))
		if err != nil {
			t.Fatal(err)
		}
		set := token.NewFileSet()
		file, err := parser.ParseFile(set, path, text, parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		if ast.IsGenerated(file) {
			continue
		}
		if n := bytes.Count(text, []byte("\n")); n > maxFileLines {
			used[path] = true
			if exceptions[path] == "" {
				t.Errorf("%s has %d lines, more than %d: split it by what it holds", path, n, maxFileLines)
			}
		}
		for _, d := range file.Decls {
			f, ok := d.(*ast.FuncDecl)
			if !ok || f.Body == nil {
				continue
			}
			key := path + ":" + f.Name.Name
			if n := set.Position(f.End()).Line - set.Position(f.Pos()).Line + 1; n > maxFunctionLines {
				used[key] = true
				if exceptions[key] == "" {
					t.Errorf("%s: function %s has %d lines, more than %d: give its steps names", path, f.Name.Name, n, maxFunctionLines)
				}
			}
		}
	}
	for key := range exceptions {
		if !used[key] {
			t.Errorf("the exception for %s is not needed any more", key)
		}
	}
}

// TestHeaders checks that each Go file and script names its licence.
func TestHeaders(t *testing.T) {
	for _, path := range goFiles(t) {
		text, err := os.ReadFile(filepath.Join("../..", path))
		if err != nil {
			t.Fatal(err)
		}
		head, _, _ := bytes.Cut(text, []byte("\npackage "))
		if generated := bytes.Contains(head, []byte("DO NOT EDIT.")); !generated && (!bytes.Contains(head, []byte(copyright)) || !bytes.Contains(head, []byte(licence))) {
			t.Errorf("%s has no licence header: run hack/headers.sh", path)
		}
	}
}

// goFiles returns the paths of all Go files of the project, relative to its root.
func goFiles(t *testing.T) []string {
	var files []string
	err := filepath.WalkDir("../..", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if name := d.Name(); d.IsDir() && name != ".." && (strings.HasPrefix(name, ".") || name == "testdata" || name == "node_modules" || name == "bin") {
			return filepath.SkipDir
		}
		if strings.HasSuffix(path, ".go") {
			rel, err := filepath.Rel("../..", path)
			if err != nil {
				return err
			}
			files = append(files, filepath.ToSlash(rel))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(files) < 100 {
		t.Fatalf("found %d Go files only: does the test run in its folder?", len(files))
	}
	return files
}
