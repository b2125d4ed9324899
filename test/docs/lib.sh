# Sourced by every page: the words the pages are written in.
set -Eeuo pipefail

# The page's own names.
PAGE=$(basename "$0" .sh)
RG=rg-$PAGE
LOCATION=${LOCATION:-eastus}

# The log has every command of the page before what it prints: when, which line.
trap '[ "$BASH_SUBSHELL" -gt 0 ] || printf "\n[%3d s, line %d] %s\n" "$SECONDS" "$LINENO" "$BASH_COMMAND"' DEBUG
trap 'told "$BASH_COMMAND exited with $?"' ERR

# section tells in the log where the page is.
section() { printf '\n## %s\n' "$*"; }

# told WHAT names the line of the page that failed, once.
told() {
  local i
  [ ! -e "$PAGE_DIR/failed" ] || return 0
  for ((i = 1; i < ${#BASH_SOURCE[@]} - 1; i++)); do
    [ "${BASH_SOURCE[i]}" != "$0" ] || break
  done
  echo "FAILED at $PAGE.sh:${BASH_LINENO[i - 1]}: $1" | tee "$PAGE_DIR/failed" >&2
}

# fail WHAT ends the page.
fail() {
  told "$1"
  exit 1
}

# equal WHAT WANT GOT
equal() { [ "$2" = "$3" ] || fail "$1 is '$3', want '$2'"; }

# has WHAT PART TEXT
has() {
  case "$3" in *"$2"*) ;; *) fail "$1 has no '$2': $3" ;; esac
}

# hasnt WHAT PART TEXT
hasnt() {
  case "$3" in *"$2"*) fail "$1 has '$2': $3" ;; esac
}

# refused TEXT COMMAND...: the command must fail, and its output have TEXT.
refused() {
  local text=$1 out rc=0
  shift
  out=$("$@" 2>&1) || rc=$?
  echo "$out"
  [ "$rc" -ne 0 ] || fail "not refused: $*"
  has "the refusal of '$*'" "$text" "$out"
}

# exits CODE COMMAND...
exits() {
  local want=$1 rc=0
  shift
  "$@" || rc=$?
  equal "the exit code of '$*'" "$want" "$rc"
}

# eventually SECONDS COMMAND...: until the command succeeds.
eventually() {
  local end=$((SECONDS + $1)) last
  shift
  until last=$("$@" 2>&1); do
    [ "$SECONDS" -lt "$end" ] || fail "not in time: $*; the last answer: $last"
    sleep 0.5
  done
}

# is WANT COMMAND...: whether the command prints WANT; for eventually.
is() {
  local want=$1 got
  shift
  got=$("$@")
  [ "$got" = "$want" ] || { echo "$got"; return 1; }
}

# subscription MODE: what a page does from here on changes (alone) or counts on
# (shared) what is registered for the whole subscription; others wait. "free"
# lets them go on.
subscription() {
  case $1 in
    alone) flock 9 ;;
    shared) flock --shared 9 ;;
    free) flock --unlock 9 ;;
  esac
}
exec 9>>"$PAGE_DIR/../subscription.lock"

# nap_nodes prints the names of the nodes that node auto-provisioning made.
nap_nodes() { kubectl get nodes -l karpenter.sh/nodepool -o name; }
no_nap_nodes() { is "" nap_nodes; }
some_nap_nodes() { [ -n "$(nap_nodes)" ]; }
