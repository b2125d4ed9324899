#!/bin/sh
# Copyright The nap Authors.
# SPDX-License-Identifier: Apache-2.0
#
# Checks everything that needs no running instance: generated files, modules,
# lint, shell scripts, licences. It leaves the working tree as it was, or fails
# and names the files that are out of date.
set -eu
cd "$(dirname "$0")/.."
go=${GO:-go}

state() {
  git status --porcelain --untracked-files=all
  git diff HEAD | git hash-object --stdin
}

before=$(state)
failed=""
step() {
  echo "verify: $1"
  shift
  "$@" || failed="$failed
  $*"
}

step "go.mod and go.sum are tidy" "$go" mod tidy -diff
step "modules are unchanged since they were downloaded" "$go" mod verify
step "generated code, CRDs, reference pages" "$go" generate ./...
if [ "$(state)" != "$before" ]; then
  echo "verify: generated files are out of date; commit what 'make generate' writes:" >&2
  git status --short >&2
  failed="$failed
  go generate ./..."
fi
step "lint, import rules, sizes of files and functions, licence headers" "${MAKE:-make}" --no-print-directory lint
# shellcheck disable=SC2046 # file names here hold no spaces
step "shell scripts" .tools/shellcheck $(git ls-files | while read -r f; do
  if head -n 1 "$f" 2>/dev/null | grep -Eq '^#!.*[/ ](ba|da)?sh$'; then echo "$f"; fi
done)
step "licences of dependencies" "$go" run ./hack/licenses

if [ -n "$failed" ]; then
  echo "verify: failed:$failed" >&2
  exit 1
fi
echo "verify: everything is in order"
