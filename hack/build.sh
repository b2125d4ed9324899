#!/bin/sh
# Copyright The nap Authors.
# SPDX-License-Identifier: Apache-2.0
#
# Builds a program and shows progress: the first build compiles Kubernetes,
# which takes minutes, and go build alone is silent all that time.
#
#   hack/build.sh OUTPUT PACKAGE [go build flags…]
set -eu
out=$1 pkg=$2
shift 2

if [ -e "$out" ]; then
  echo "building $out"
elif [ "$pkg" = ./cmd/nap ] && [ "${NAP_SLIM:-}" = "" ]; then
  echo "building $out: the first build downloads about 1 GB of modules and compiles Kubernetes."
  echo "That takes 7 to 13 minutes on two cores; later builds take seconds."
else
  echo "building $out: the first build takes 2.5 to 5 minutes on two cores; later builds take seconds."
fi

go=${GO:-go}
log=$(mktemp)
trap 'rm -f "$log"' EXIT
$go mod download 2>/dev/null || $go mod download
total=$($go list -deps "$@" "$pkg" | wc -l)
tty=0
[ -t 1 ] && tty=1

# go build -v names each package when it is compiled; packages from the build
# cache are not named. Everything that is not a package name is an error text.
rc=0
{ $go build -v -o "$out" "$@" "$pkg" 2>&1 || echo "build-failed $?"; } |
  awk -v total="$total" -v tty="$tty" -v log_="$log" '
    /^build-failed / { print $2 > log_; next }
    /^[A-Za-z0-9_.~-]+(\/[A-Za-z0-9_.~+-]+)*$/ {
      n++
      if (tty) printf "\r\033[K  %d of at most %d packages compiled: %.50s", n, total, $1
      else if (n % 250 == 0) printf "  %d of at most %d packages compiled\n", n, total
      fflush(); next
    }
    { if (tty) printf "\r\033[K"; print; fflush() }
    END { if (tty && n) printf "\r\033[K" }'
[ -s "$log" ] && rc=$(cat "$log")
exit "$rc"
