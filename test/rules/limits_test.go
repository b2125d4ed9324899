// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package rules

import (
	"bufio"
	"bytes"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
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
var header = regexp.MustCompile(`\A(#!.*\n)?(//|#) Copyright The nap Authors\.\n(//|#) SPDX-License-Identifier: Apache-2\.0\n`)

// TestSizes checks that no file and no function is so long that nobody reads
// it to the end. Generated files and tables of data are free.
func TestSizes(t *testing.T) {
	used := map[string]bool{}
	for _, f := range goFiles(t) {
		if ast.IsGenerated(f.ast) {
			continue
		}
		if n := bytes.Count(f.text, []byte("\n")); n > maxFileLines {
			used[f.path] = true
			if exceptions[f.path] == "" {
				t.Errorf("%s has %d lines, more than %d: split it by what it holds", f.path, n, maxFileLines)
			}
		}
		for _, d := range f.ast.Decls {
			fn, ok := d.(*ast.FuncDecl)
			if !ok || fn.Body == nil {
				continue
			}
			key := f.path + ":" + fn.Name.Name
			if n := f.line(fn.End()) - f.line(fn.Pos()) + 1; n > maxFunctionLines {
				used[key] = true
				if exceptions[key] == "" {
					t.Errorf("%s: function %s has %d lines, more than %d: give its steps names", f.path, fn.Name.Name, n, maxFunctionLines)
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

// TestHeaders checks that each Go file, shell script and Python file names its
// licence.
func TestHeaders(t *testing.T) {
	for _, f := range goFiles(t) {
		// A build constraint may stand above the header.
		head, _, _ := bytes.Cut(f.text, []byte("\npackage "))
		if _, below, ok := bytes.Cut(head, []byte("\n\n")); ok && bytes.HasPrefix(head, []byte("//go:build ")) {
			head = below
		}
		if !ast.IsGenerated(f.ast) && !header.Match(head) {
			t.Errorf("%s has no licence header: run hack/headers.sh", f.path)
		}
	}
	scripts := 0
	walk(t, func(path string) {
		if !isScript(t, path) {
			return
		}
		scripts++
		text, err := os.ReadFile(filepath.Join(root, path))
		if err != nil {
			t.Fatal(err)
		}
		if !header.Match(text) {
			t.Errorf("%s has no licence header: run hack/headers.sh", path)
		}
	})
	if scripts < 20 {
		t.Errorf("found %d scripts only: are they recognised?", scripts)
	}
}

// isScript reports whether a file is a shell script or a Python file, by its name
// or its first line.
func isScript(t *testing.T, path string) bool {
	switch filepath.Ext(path) {
	case ".sh", ".py":
		return true
	case "":
	default:
		return false
	}
	f, err := os.Open(filepath.Join(root, path))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close() //nolint:errcheck // only read
	first, _, _ := bufio.NewReader(f).ReadLine()
	return interpreter.Match(first)
}

var interpreter = regexp.MustCompile(`^#!.*[/ ]((ba|da)?sh|python3?)$`)

// root is the folder of the repository, from that of this package.
const root = "../.."

// goFile is a Go file, parsed with its comments.
type goFile struct {
	path string // relative to root
	text []byte
	set  *token.FileSet
	ast  *ast.File
}

func (f *goFile) line(p token.Pos) int { return f.set.Position(p).Line }

// goFiles returns all Go files of the project. They are read and parsed once.
func goFiles(t *testing.T) []*goFile {
	t.Helper()
	files, err := parsed()
	if err != nil {
		t.Fatal(err)
	}
	return files
}

var parsed = sync.OnceValues(func() ([]*goFile, error) {
	var files []*goFile
	err := walkFiles(func(path string) error {
		if !strings.HasSuffix(path, ".go") {
			return nil
		}
		f := &goFile{path: path, set: token.NewFileSet()}
		var err error
		if f.text, err = os.ReadFile(filepath.Join(root, path)); err != nil {
			return err
		}
		f.ast, err = parser.ParseFile(f.set, path, f.text, parser.ParseComments|parser.SkipObjectResolution)
		files = append(files, f)
		return err
	})
	if err == nil && len(files) < 100 {
		err = fmt.Errorf("found %d Go files only: does the test run in its folder?", len(files))
	}
	return files, err
})

// walk calls f with the path of each of the project's files, relative to root.
func walk(t *testing.T, f func(path string)) {
	t.Helper()
	if err := walkFiles(func(path string) error { f(path); return nil }); err != nil {
		t.Fatal(err)
	}
}

func walkFiles(f func(path string) error) error {
	return filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && path != root && skipped(d.Name()) {
			return filepath.SkipDir
		}
		if !d.Type().IsRegular() {
			return nil
		}
		rel, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		return f(filepath.ToSlash(rel))
	})
}

// skipped reports whether a folder holds nothing that is written for the project:
// tools, virtual environments, binaries, data of tests.
func skipped(name string) bool {
	return strings.HasPrefix(name, ".") && name != ".ci" && name != ".github" || name == "testdata" || name == "node_modules" || name == "bin"
}
