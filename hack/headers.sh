#!/bin/sh
# Adds the licence header to Go files and shell scripts that lack it.
set -eu
cd "$(dirname "$0")/.."
git ls-files --cached --others --exclude-standard '*.go' | while read -r f; do
  if [ -f "$f" ] && ! grep -q 'SPDX-License-Identifier' "$f" && ! head -n 5 "$f" | grep -q 'DO NOT EDIT\.'; then
    tmp=$(mktemp)
    printf '// Copyright The nap Authors.\n// SPDX-License-Identifier: Apache-2.0\n\n' | cat - "$f" >"$tmp"
    cat "$tmp" >"$f"
    rm "$tmp"
  fi
done
git ls-files --cached --others --exclude-standard | while read -r f; do
  if [ -f "$f" ] && head -n 1 "$f" | grep -Eq '^#!.*[/ ](ba|da)?sh$' && ! grep -q 'SPDX-License-Identifier' "$f"; then
    sed -i '1a # Copyright The nap Authors.\n# SPDX-License-Identifier: Apache-2.0\n#' "$f"
  fi
done
