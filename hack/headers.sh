#!/bin/sh
# Copyright The nap Authors.
# SPDX-License-Identifier: Apache-2.0
#
# Adds the licence header to Go files, shell scripts and Python files that lack it.
set -eu
cd "$(dirname "$0")/.."

# has_header FILE
has_header() {
  head -n 5 "$1" | grep -q 'SPDX-License-Identifier'
}

git ls-files --cached --others --exclude-standard '*.go' | while read -r f; do
  if [ -f "$f" ] && ! has_header "$f" && ! head -n 5 "$f" | grep -q 'DO NOT EDIT\.'; then
    tmp=$(mktemp)
    printf '// Copyright The nap Authors.\n// SPDX-License-Identifier: Apache-2.0\n\n' | cat - "$f" >"$tmp"
    cat "$tmp" >"$f"
    rm "$tmp"
  fi
done

# The header of a script stands below its #! line, if it has one.
git ls-files --cached --others --exclude-standard | while read -r f; do
  case $f in
  *.sh | *.py) ;;
  *) head -n 1 "$f" 2>/dev/null | grep -Eq '^#!.*[/ ]((ba|da)?sh|python3?)$' || continue ;;
  esac
  if [ -f "$f" ] && ! has_header "$f"; then
    tmp=$(mktemp)
    {
      head -n 1 "$f" | grep '^#!' || true
      printf '# Copyright The nap Authors.\n# SPDX-License-Identifier: Apache-2.0\n'
      # A comment that follows is set off by an empty comment line.
      sed '1{/^#!/d}' "$f" | sed '1{/^#/s/^/#\n/}'
    } >"$tmp"
    cat "$tmp" >"$f"
    rm "$tmp"
  fi
done
