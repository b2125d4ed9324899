// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package scenario

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Source is the text of a scenario with all that it refers to, so that a run can be
// repeated although the files have changed.
type Source struct {
	// Path is the file the text was read from, for messages.
	Path string `json:"path"`
	// Text is the file's content.
	Text string `json:"text"`
	// Files are the contents of the files it refers to, by the name in the text.
	Files map[string]string `json:"files,omitempty"`
	// Name selects one scenario of a file whose matrix makes several.
	Name string `json:"name"`
}

// Load reads a file and returns its scenarios: one, or all of its matrix. The errors
// name the file and lines.
func Load(path string) ([]*Scenario, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("reading scenario: %w", err)
	}
	dir := filepath.Dir(path)
	return parseAll(Source{Path: path, Text: string(text)}, func(name string) (string, error) {
		b, err := os.ReadFile(filepath.Join(dir, name))
		return string(b), err
	})
}

// LoadDir returns the scenarios of all files of a folder that end in .yaml, in the
// order of the files' names.
func LoadDir(dir string) ([]*Scenario, error) {
	files, err := filepath.Glob(filepath.Join(dir, "*.yaml"))
	if err != nil {
		return nil, fmt.Errorf("listing scenarios in %s: %w", dir, err)
	}
	if len(files) == 0 {
		return nil, fmt.Errorf("%s has no scenarios: name a folder with .yaml files", dir)
	}
	var all []*Scenario
	var errs []error
	from := map[string]string{}
	for _, f := range files {
		list, err := Load(f)
		errs = append(errs, err)
		for _, s := range list {
			if other := from[s.Name]; other != "" {
				errs = append(errs, fmt.Errorf("%s: the scenario %s is in %s too: rename one", f, s.Name, other))
			}
			from[s.Name] = f
		}
		all = append(all, list...)
	}
	return all, errors.Join(errs...)
}

// Parse reads the scenario src.Name, or the only one if the name is empty, from a
// text. It opens no files: what the text refers to is in src.Files.
func Parse(src Source) (*Scenario, error) {
	list, err := parseAll(src, func(name string) (string, error) {
		text, ok := src.Files[name]
		if !ok {
			return "", errors.New("it is not among the files of the source")
		}
		return text, nil
	})
	if err != nil {
		return nil, err
	}
	if src.Name == "" && len(list) == 1 {
		return list[0], nil
	}
	for _, s := range list {
		if s.Name == src.Name {
			return s, nil
		}
	}
	return nil, fmt.Errorf("%s has no scenario %q: it has %s", src.Path, src.Name, strings.Join(names(list), ", "))
}

func names(list []*Scenario) []string {
	var out []string
	for _, s := range list {
		out = append(out, s.Name)
	}
	return out
}

func parseAll(src Source, read func(string) (string, error)) ([]*Scenario, error) {
	fail := func(err error) error { return inFile(src.Path, err) }
	var doc yaml.Node
	dec := yaml.NewDecoder(bytes.NewReader([]byte(src.Text)))
	switch err := dec.Decode(&doc); {
	case errors.Is(err, io.EOF):
		return nil, fail(errors.New("the file is empty: write at least name and events"))
	case err != nil:
		return nil, fail(fmt.Errorf("%s", strings.TrimPrefix(err.Error(), "yaml: ")))
	}
	if err := dec.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		return nil, fail(errors.New("a second document follows: write one scenario in a file, and manifests as a list"))
	}
	root := doc.Content[0]
	variants, err := expandMatrix(root)
	if err != nil {
		return nil, fail(err)
	}
	var list []*Scenario
	seen := map[string]bool{}
	for _, v := range variants {
		s := &Scenario{}
		if err := decode(v, reflect.ValueOf(s).Elem(), "the scenario"); err != nil {
			return nil, fail(err)
		}
		s.Source = Source{Path: src.Path, Text: src.Text, Name: s.Name, Files: map[string]string{}}
		if err := s.resolve(read); err != nil {
			return nil, fail(err)
		}
		if err := s.Validate(); err != nil {
			return nil, fail(err)
		}
		if seen[s.Name] {
			return nil, fail(fmt.Errorf("the matrix makes the name %s twice: use each of its parameters in name, for example name: burst-$(count)", s.Name))
		}
		seen[s.Name] = true
		list = append(list, s)
	}
	return list, nil
}

// inFile puts the path before each of the joined errors.
func inFile(path string, err error) error {
	if joined, ok := any(err).(interface{ Unwrap() []error }); ok {
		var errs []error
		for _, e := range joined.Unwrap() {
			errs = append(errs, inFile(path, e))
		}
		return errors.Join(errs...)
	}
	return fmt.Errorf("%s: %w", path, err)
}

var parameter = regexp.MustCompile(`\$\(([A-Za-z][A-Za-z0-9]*)\)`)

// expandMatrix returns a copy of root for each combination of the values in its field
// matrix, the last parameter changing fastest.
func expandMatrix(root *yaml.Node) ([]*yaml.Node, error) {
	if root.Kind != yaml.MappingNode {
		return nil, errorAt(root, "the scenario must be a mapping that begins with name")
	}
	var matrix *yaml.Node
	rest := *root
	rest.Content = nil
	for i := 0; i+1 < len(root.Content); i += 2 {
		if root.Content[i].Value == "matrix" {
			matrix = root.Content[i+1]
			continue
		}
		rest.Content = append(rest.Content, root.Content[i], root.Content[i+1])
	}
	combinations := []map[string]*yaml.Node{{}}
	if matrix != nil {
		if matrix.Kind != yaml.MappingNode || len(matrix.Content) == 0 {
			return nil, errorAt(matrix, "matrix must be a mapping from parameters to lists of values, for example matrix: {count: [5, 40]}")
		}
		for i := 0; i+1 < len(matrix.Content); i += 2 {
			key, values := matrix.Content[i], matrix.Content[i+1]
			if values.Kind != yaml.SequenceNode || len(values.Content) == 0 {
				return nil, errorAt(key, "matrix.%s must be a list of values", key.Value)
			}
			var next []map[string]*yaml.Node
			for _, c := range combinations {
				for _, v := range values.Content {
					if v.Kind != yaml.ScalarNode {
						return nil, errorAt(v, "a value of matrix.%s must be a number or a word", key.Value)
					}
					n := map[string]*yaml.Node{key.Value: v}
					for k, old := range c {
						n[k] = old
					}
					next = append(next, n)
				}
			}
			combinations = next
		}
	}
	var out []*yaml.Node
	for _, c := range combinations {
		used := map[string]bool{}
		n, err := substitute(&rest, c, used)
		if err != nil {
			return nil, err
		}
		for _, k := range slices.Sorted(mapKeys(c)) {
			if !used[k] {
				return nil, errorAt(matrix, "the parameter %s of matrix is not used: write $(%s) where it belongs", k, k)
			}
		}
		out = append(out, n)
	}
	return out, nil
}

// substitute returns a copy of n with the parameters replaced by their values.
func substitute(n *yaml.Node, values map[string]*yaml.Node, used map[string]bool) (*yaml.Node, error) {
	if n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	c := *n
	c.Content = nil
	c.Anchor = ""
	if n.Kind == yaml.ScalarNode {
		var missing string
		c.Value = parameter.ReplaceAllStringFunc(n.Value, func(m string) string {
			name := m[2 : len(m)-1]
			v := values[name]
			if v == nil {
				missing = name
				return m
			}
			used[name] = true
			if m == n.Value {
				c.Tag = v.Tag
			}
			return v.Value
		})
		if missing != "" {
			return nil, errorAt(n, "$(%s) is no parameter of matrix", missing)
		}
	}
	for _, child := range n.Content {
		m, err := substitute(child, values, used)
		if err != nil {
			return nil, err
		}
		c.Content = append(c.Content, m)
	}
	return &c, nil
}

// resolve reads the files that the scenario refers to.
func (s *Scenario) resolve(read func(string) (string, error)) error {
	get := func(line int, name string) (string, error) {
		text, err := read(name)
		if err != nil {
			return "", fmt.Errorf("line %d: reading the file %s: %w", line, name, err)
		}
		s.Source.Files[name] = text
		return text, nil
	}
	lists := [][]Manifest{s.Objects}
	for i := range s.Events {
		lists = append(lists, s.Events[i].Apply)
		if t := s.Events[i].Trace; t != nil && t.File != "" {
			text, err := get(t.Line, t.File)
			if err != nil {
				return err
			}
			if _, err := readTrace(text); err != nil {
				return fmt.Errorf("line %d: the trace %s: %w", t.Line, t.File, err)
			}
		}
	}
	for _, list := range lists {
		for i := range list {
			m := &list[i]
			if m.File == "" {
				continue
			}
			text, err := get(m.Line, m.File)
			if err != nil {
				return err
			}
			if m.Objects, err = readManifests(text); err != nil {
				return fmt.Errorf("line %d: the file %s: %w", m.Line, m.File, err)
			}
		}
	}
	return nil
}
