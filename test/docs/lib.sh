# Sourced by every page: the words the pages are written in.
set -euo pipefail
trap 'echo "FAILED at ${BASH_SOURCE[0]}:$LINENO: $BASH_COMMAND" >&2' ERR

# The page's own names.
PAGE=$(basename "$0" .sh)
RG=rg-$PAGE
LOCATION=${LOCATION:-eastus}

# section tells in the log where the page is.
section() { echo; echo "## $*"; }

# equal WHAT WANT GOT
equal() {
  [ "$2" = "$3" ] || { echo "FAILED: $1 is '$3', want '$2'" >&2; exit 1; }
}

# has WHAT PART TEXT
has() {
  case "$3" in *"$2"*) ;; *) echo "FAILED: $1 has no '$2': $3" >&2; exit 1 ;; esac
}

# refused TEXT COMMAND...: the command must fail, and its output have TEXT.
refused() {
  local text=$1 out rc=0
  shift
  out=$("$@" 2>&1) || rc=$?
  echo "$out"
  [ "$rc" -ne 0 ] || { echo "FAILED: not refused: $*" >&2; exit 1; }
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
  local end=$((SECONDS + $1))
  shift
  until "$@" >/dev/null 2>&1; do
    [ "$SECONDS" -lt "$end" ] || { echo "FAILED: not in time: $*" >&2; "$@" || true; exit 1; }
    sleep 1
  done
}

# is WANT COMMAND...: whether the command prints WANT; for eventually.
is() {
  local want=$1
  shift
  [ "$("$@")" = "$want" ]
}

# nap_nodes prints the names of the nodes that node auto-provisioning made.
nap_nodes() { kubectl get nodes -l karpenter.sh/nodepool -o name; }
no_nap_nodes() { [ -z "$(nap_nodes)" ]; }
some_nap_nodes() { [ -n "$(nap_nodes)" ]; }

# kube uses a kubeconfig of the page's own.
export KUBECONFIG=$PAGE_DIR/kubeconfig
