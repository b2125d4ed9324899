#!/bin/sh
# Copyright The nap Authors.
# SPDX-License-Identifier: Apache-2.0
#
# Builds a program and shows progress: the first build fetches modules and compiles
# Kubernetes, which takes minutes, and go build alone is silent all that time.
#
#   hack/build.sh OUTPUT PACKAGE [go build flags…]
set -eu
out=$1 pkg=$2
shift 2

slim=0
case " $* " in *" -tags slim "*) slim=1 ;; esac

if [ -e "$out" ]; then
  echo "building $out"
elif [ "$pkg" = ./cmd/nap ] && [ "$slim" = 0 ]; then
  echo "building $out: the first build downloads about 155 MB of modules and compiles Kubernetes."
  echo "That takes 7 to 13 minutes on two cores; later builds take seconds."
else
  echo "building $out: the first build downloads about 50 MB of modules and takes 2.5 to 5 minutes"
  echo "on two cores; later builds take seconds."
fi

go=${GO:-go}
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
tty=0
[ -t 1 ] && tty=1

# go list fetches the modules of the packages, and no others: the slim build does
# without Kubernetes'. It names each module that it fetches on stderr.
{ $go list -deps "$@" "$pkg" 2>&1 >"$tmp/packages" || echo "list-failed $?"; } |
  awk -v tty="$tty" -v log_="$tmp/rc" '
    /^list-failed / { print $2 > log_; next }
    /^go: downloading / {
      n++
      if (tty) printf "\r\033[K  %d modules fetched: %.60s", n, $3
      else if (n == 1) print "  fetching modules"
      fflush(); next
    }
    { if (tty && n) printf "\r\033[K"; print; fflush() }
    END { if (tty && n) printf "\r\033[K" }'
[ -s "$tmp/rc" ] && exit "$(cat "$tmp/rc")"
total=$(wc -l <"$tmp/packages")

# go build -v names each package when it is compiled; packages from the build
# cache are not named. Everything that is not a package name is an error text.
rc=0
{ $go build -v -o "$out" "$@" "$pkg" 2>&1 || echo "build-failed $?"; } |
  awk -v total="$total" -v tty="$tty" -v log_="$tmp/rc" '
    /^build-failed / { print $2 > log_; next }
    /^[A-Za-z0-9_.~-]+(\/[A-Za-z0-9_.~+-]+)*$/ {
      n++
      if (tty) printf "\r\033[K  %d of at most %d packages compiled: %.50s", n, total, $1
      else if (n % 250 == 0) printf "  %d of at most %d packages compiled\n", n, total
      fflush(); next
    }
    { if (tty) printf "\r\033[K"; print; fflush() }
    END { if (tty && n) printf "\r\033[K" }'
[ -s "$tmp/rc" ] && rc=$(cat "$tmp/rc")
exit "$rc"
