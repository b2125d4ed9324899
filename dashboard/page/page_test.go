// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package page_test

import (
	"bytes"
	"compress/gzip"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/nap-aks/nap/dashboard/page"
)

const maxGzipped = 150_000

// TestBundle checks that the embedded page was made from these sources, is small, and
// has nothing inline nor from elsewhere.
func TestBundle(t *testing.T) {
	hash, err := page.Hash(os.DirFS("."))
	if err != nil {
		t.Fatal(err)
	}
	js, err := os.ReadFile("../web/app.js")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(string(js), page.Banner(hash)) {
		t.Error("the bundle was not made from these sources: run go generate ./dashboard")
	}
	total := 0
	for _, name := range []string{"app.js", "app.css", "index.html", "icon.svg"} {
		b, err := os.ReadFile("../web/" + name)
		if err != nil {
			t.Fatal(err)
		}
		var buf bytes.Buffer
		z := gzip.NewWriter(&buf)
		if _, err := z.Write(b); err != nil {
			t.Fatal(err)
		}
		if err := z.Close(); err != nil {
			t.Fatal(err)
		}
		total += buf.Len()
		if name == "app.js" {
			continue // names URLs of documentation in messages
		}
		for _, m := range regexp.MustCompile(`(https?:)?//[a-z]`).FindAllString(string(b), -1) {
			if name != "icon.svg" { // its XML namespace
				t.Errorf("%s refers to another server: %s", name, m)
			}
		}
	}
	if total > maxGzipped {
		t.Errorf("the page has %d bytes gzipped, more than %d", total, maxGzipped)
	}
	html, err := os.ReadFile("../web/index.html")
	if err != nil {
		t.Fatal(err)
	}
	for _, inline := range []string{`<script>`, `<style`, ` style=`, ` on[a-z]+=`, `javascript:`} {
		if regexp.MustCompile(inline).Match(html) {
			t.Errorf("index.html has %s: the content security policy forbids it", inline)
		}
	}
}

// rules of colours by theme, from app.css.
var theme = regexp.MustCompile(`(?s)^:root \{(.*?)\n\}.*?:root\[data-theme=dark\] \{(.*?)\n\}`)

// TestContrast checks that texts have the contrast of WCAG AA (4.5) on everything that
// they are drawn on, light and dark.
func TestContrast(t *testing.T) {
	css, err := os.ReadFile("src/app.css")
	if err != nil {
		t.Fatal(err)
	}
	_, rules, _ := strings.Cut(string(css), "\n")
	m := theme.FindStringSubmatch(rules)
	if m == nil {
		t.Fatal("app.css has no light and dark colours where they are expected")
	}
	pairs := []string{
		"text page", "text surface", "text sunken", "text ondemand", "text spot", "text fixed", "text moving", "dim page", "dim surface", "dim sunken",
		"accent surface", "accent page", "bad surface", "bad page", "bad bad-surface", "good surface", "warn surface", "surface bad", "surface accent",
	}
	for i, name := range []string{"light", "dark"} {
		colours := map[string]float64{}
		for _, c := range regexp.MustCompile(`--([a-z-]+): #([0-9a-f]{6})`).FindAllStringSubmatch(m[i+1], -1) {
			colours[c[1]] = luminance(t, c[2])
		}
		for _, pair := range pairs {
			fg, bg, _ := strings.Cut(pair, " ")
			a, okA := colours[fg]
			b, okB := colours[bg]
			if !okA || !okB {
				t.Errorf("%s: no colour for %s", name, pair)
				continue
			}
			if ratio := (max(a, b) + 0.05) / (min(a, b) + 0.05); ratio < 4.5 {
				t.Errorf("%s: %s on %s has a contrast of %.2f, less than 4.5", name, fg, bg, ratio)
			}
		}
	}
}
