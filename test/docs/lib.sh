# Copyright The nap Authors.
# SPDX-License-Identifier: Apache-2.0
#
# shellcheck shell=bash
# Functions and variables of the pages; every page sources this file.
set -Eeuo pipefail

PAGE=$(basename "$0" .sh)
# shellcheck disable=SC2034 # for the pages
RG=rg-$PAGE
LOCATION=${LOCATION:-eastus}

# Log every command of the page, with time and line, before its output.
trap '[ "$BASH_SUBSHELL" -gt 0 ] || printf "\n[%3d s, line %d] %s\n" "$SECONDS" "$LINENO" "$BASH_COMMAND"' DEBUG
trap 'report "$BASH_COMMAND exited with $?"' ERR

# section TITLE writes a heading to the log.
section() { printf '\n## %s\n' "$*"; }

# report WHAT logs a failure with its line in the page. Only the first one counts.
report() {
  local i
  [ ! -e "$PAGE_DIR/failed" ] || return 0
  for ((i = 1; i < ${#BASH_SOURCE[@]} - 1; i++)); do
    [ "${BASH_SOURCE[i]}" != "$0" ] || break
  done
  echo "FAILED at $PAGE.sh:${BASH_LINENO[i - 1]}: $1" | tee "$PAGE_DIR/failed" >&2
}

# fail WHAT reports a failure and ends the page.
fail() {
  report "$1"
  exit 1
}

# equal WHAT WANT GOT fails unless GOT is WANT.
equal() { [ "$2" = "$3" ] || fail "$1 is '$3', want '$2'"; }

# has WHAT PART TEXT fails unless TEXT contains PART.
has() {
  case "$3" in *"$2"*) ;; *) fail "$1 has no '$2': $3" ;; esac
}

# hasnt WHAT PART TEXT fails if TEXT contains PART.
hasnt() {
  case "$3" in *"$2"*) fail "$1 has '$2': $3" ;; esac
}

# refused TEXT COMMAND... fails unless the command fails and prints TEXT.
refused() {
  local text=$1 out rc=0
  shift
  out=$("$@" 2>&1) || rc=$?
  echo "$out"
  [ "$rc" -ne 0 ] || fail "not refused: $*"
  has "the refusal of '$*'" "$text" "$out"
}

# exits CODE COMMAND... fails unless the command exits with CODE.
exits() {
  local want=$1 rc=0
  shift
  "$@" || rc=$?
  equal "the exit code of '$*'" "$want" "$rc"
}

# eventually SECONDS COMMAND... repeats the command until it succeeds.
eventually() {
  local end=$((SECONDS + $1)) last
  shift
  until last=$("$@" 2>&1); do
    [ "$SECONDS" -lt "$end" ] || fail "no success in time: $*; the last output: $last"
    sleep 0.5
  done
}

# is WANT COMMAND... succeeds if the command prints WANT; for eventually.
is() {
  local want=$1 got
  shift
  got=$("$@")
  [ "$got" = "$want" ] || { echo "$got"; return 1; }
}

# subscription alone|shared|free locks the registrations of the whole
# subscription: "alone" before a page changes them, "shared" before it relies on
# them, "free" to unlock.
subscription() {
  case $1 in
    alone) flock 9 ;;
    shared) flock --shared 9 ;;
    free) flock --unlock 9 ;;
  esac
}
exec 9>>"$PAGE_DIR/../subscription.lock"

# nap_nodes prints the names of the provisioned nodes.
nap_nodes() { kubectl get nodes -l karpenter.sh/nodepool -o name; }
no_nap_nodes() { is "" nap_nodes; }
some_nap_nodes() { [ -n "$(nap_nodes)" ]; }
