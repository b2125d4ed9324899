// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

// Command gen makes the page of the dashboard: it bundles the TypeScript of package
// dashboard with the libraries that it pins, and writes the result to dashboard/web. It
// needs no Node. Libraries come from the npm registry once and are kept in the user's
// cache folder; their hashes are checked each time.
package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha512"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"

	"github.com/evanw/esbuild/pkg/api"

	"github.com/nap-aks/nap/dashboard/page"
)

// library is a package of the npm registry.
type library struct{ name, version, sha512 string }

var libraries = []library{
	{"preact", "11.2.0", "/HfHI/7N84e6GrWBJ3J280z3mLaRJiDcSvj/A+y/4AbLnND/1UlGHe1sR6oYuTGwId0nP7dqDU9OnLxMPZ7xBg=="},
	{"uplot", "1.6.32", "KIMVnG68zvu5XXUbC4LQEPnhwOxBuLyW1AHtpm6IKTXImkbLgkMy+jabjLgSLMasNuGGzQm/ep3tOkyTxpiQIw=="},
	{"d3-hierarchy", "3.1.3", "GRajN5ZcnEwYFWqqdzhG1qJ3+fDg6WWzk47TJg7ePY7yvYAgRfD2r1mUx+wviBOWuCwamCUzjwMSdato43jbGA=="},
}

const maxTarball = 16 << 20

func main() {
	if err := run(context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, "gen:", err)
		os.Exit(1)
	}
}

// run is called in the folder dashboard.
func run(ctx context.Context) error {
	cache, err := os.UserCacheDir()
	if err != nil {
		return fmt.Errorf("finding the cache folder: %w", err)
	}
	modules, err := os.MkdirTemp("", "nap-page-")
	if err != nil {
		return fmt.Errorf("making a temporary folder: %w", err)
	}
	defer os.RemoveAll(modules) //nolint:errcheck // temporary
	notice := "The page contains these libraries:\n"
	for _, l := range libraries {
		b, err := l.tarball(ctx, filepath.Join(cache, "nap-page"))
		if err != nil {
			return err
		}
		licence, err := unpack(b, filepath.Join(modules, l.name))
		if err != nil {
			return fmt.Errorf("unpacking %s: %w", l.name, err)
		}
		notice += fmt.Sprintf("\n## %s %s\n\n%s\n", l.name, l.version, strings.TrimSpace(licence))
	}
	hash, err := page.Hash(os.DirFS("page"))
	if err != nil {
		return err
	}
	result := api.Build(api.BuildOptions{
		EntryPoints: []string{"page/src/main.tsx"}, Bundle: true, Write: false, Outdir: "web", EntryNames: "app",
		MinifyWhitespace: true, MinifyIdentifiers: true, MinifySyntax: true, Target: api.ES2022, Format: api.FormatIIFE,
		JSX: api.JSXAutomatic, JSXImportSource: "preact", NodePaths: []string{modules}, LegalComments: api.LegalCommentsNone,
		Charset: api.CharsetUTF8, Banner: map[string]string{"js": page.Banner(hash)}, Define: map[string]string{"process.env.NODE_ENV": `"production"`},
	})
	for _, m := range result.Errors {
		where := ""
		if m.Location != nil {
			where = fmt.Sprintf("%s:%d: ", m.Location.File, m.Location.Line)
		}
		err = errors.Join(err, errors.New(where+m.Text))
	}
	if err != nil {
		return fmt.Errorf("bundling: %w", err)
	}
	out := map[string][]byte{"NOTICE.md": []byte(notice)}
	for _, f := range result.OutputFiles {
		out[filepath.Base(f.Path)] = f.Contents
	}
	for _, name := range []string{"index.html", "icon.svg"} {
		if out[name], err = os.ReadFile(filepath.Join("page", name)); err != nil {
			return fmt.Errorf("reading the page: %w", err)
		}
	}
	for name, b := range out {
		if err := os.WriteFile(filepath.Join("web", name), b, 0o644); err != nil { //nolint:gosec // files of the repository
			return fmt.Errorf("writing the page: %w", err)
		}
	}
	return nil
}

// tarball returns the package, from the cache or the registry.
func (l library) tarball(ctx context.Context, cache string) ([]byte, error) {
	file := filepath.Join(cache, l.name+"-"+l.version+".tgz")
	if b, err := os.ReadFile(file); err == nil && l.matches(b) {
		return b, nil
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	url := fmt.Sprintf("https://registry.npmjs.org/%s/-/%s-%s.tgz", l.name, path.Base(l.name), l.version)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, fmt.Errorf("fetching %s: %w", l.name, err)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, fmt.Errorf("fetching %s: %w", l.name, err)
	}
	defer res.Body.Close() //nolint:errcheck // only read
	b, err := io.ReadAll(io.LimitReader(res.Body, maxTarball))
	if err != nil {
		return nil, fmt.Errorf("fetching %s: %w", l.name, err)
	}
	if res.StatusCode != http.StatusOK || !l.matches(b) {
		return nil, fmt.Errorf("fetching %s: status %s, and a file that has not the pinned hash", url, res.Status)
	}
	if err := errors.Join(os.MkdirAll(cache, 0o755), os.WriteFile(file, b, 0o644)); err != nil { //nolint:gosec // public files
		return nil, fmt.Errorf("keeping %s: %w", l.name, err)
	}
	return b, nil
}

func (l library) matches(b []byte) bool {
	sum := sha512.Sum512(b)
	return base64.StdEncoding.EncodeToString(sum[:]) == l.sha512
}

// unpack unpacks a package and returns its licence.
func unpack(tgz []byte, dir string) (string, error) {
	z, err := gzip.NewReader(bytes.NewReader(tgz))
	if err != nil {
		return "", err
	}
	licence := ""
	for t := tar.NewReader(z); ; {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return "", err
		}
		_, name, _ := strings.Cut(h.Name, "/") // "package/…"
		if h.Typeflag != tar.TypeReg || !fs.ValidPath(name) {
			continue
		}
		b, err := io.ReadAll(io.LimitReader(t, maxTarball))
		if err != nil {
			return "", err
		}
		if name == "LICENSE" {
			licence = string(b)
		}
		to := filepath.Join(dir, filepath.FromSlash(name))
		if err := errors.Join(os.MkdirAll(filepath.Dir(to), 0o755), os.WriteFile(to, b, 0o644)); err != nil { //nolint:gosec // public files
			return "", err
		}
	}
	if licence == "" {
		return "", errors.New("it has no LICENSE")
	}
	return licence, nil
}
