#!/usr/bin/env bash
# millrace on a real NFS mount: tests/nfs/run.sh [survives|full|paused|stopped|restarted]...
#
# Needs MILLRACE_NFSVM, a folder with two programs: nfsvm.sh, which boots a virtual machine with an
# NFS server and clients and runs a command in it, and nfscluster.sh, which boots server and client as
# machines of their own that can be paused and cut from power. Without them it says so and ends with 77.
# MILLRACE_BIN: the program under test (default: the debug build); NFS_KERNELS: "uml72 uml61".
set -uo pipefail
cd "$(dirname "$0")/../.."

TARGET=${CARGO_TARGET_DIR:-$PWD/target}
BINARY=${MILLRACE_BIN:-$TARGET/debug/millrace}
VM=${MILLRACE_NFSVM:-}
KERNELS=${NFS_KERNELS:-uml72 uml61}
SCENARIOS=("$@")
[ $# -gt 0 ] || SCENARIOS=(survives full paused stopped restarted)

cannot() { echo "SKIPPED, NOTHING SHOWN: $*" >&2; exit 77; }
[ -n "$VM" ] && [ -x "$VM/nfsvm.sh" ] && [ -x "$VM/nfscluster.sh" ] || cannot "MILLRACE_NFSVM names no folder with nfsvm.sh and nfscluster.sh"
[ -x "$BINARY" ] || cannot "no program at $BINARY: build it first"

WORK=$(mktemp -d "${TMPDIR:-/tmp}/millrace-nfs.XXXXXX")
export NFSC=$WORK/cluster SHARE=$WORK/share
CLUSTER=
leave() {
  [ -z "$CLUSTER" ] || "$VM/nfscluster.sh" down >/dev/null 2>&1
  rm -rf "$WORK"
}
trap leave EXIT
trap 'exit 130' INT TERM
mkdir "$SHARE"
cp "$BINARY" "$SHARE/millrace"
cp tests/nfs/drive.py "$SHARE/"

# One machine: server and client share a kernel.
alone() { # SCENARIO KERNEL VERSION SIZE
  echo "--- $1, $2, NFSv$3, export of $4"
  "$VM/nfsvm.sh" -k "$2" -v "$3" -z "$4" -c 1 -s "$SHARE" -t 280 -- \
    'exec python3 ./drive.py ./millrace $NFS1/cache '"$1"
}

# Does to the NFS server what the driver asks for, until the driver has ended.
serve_asks() { # PID
  local word
  while kill -0 "$1" 2>/dev/null; do
    sleep 0.1
    [ -e "$SHARE/ask" ] || continue
    word=$(cat "$SHARE/ask")
    rm "$SHARE/ask"
    echo "  [the NFS server: $word]"
    case $word in
      pause) "$VM/nfscluster.sh" pause s ;;
      resume) "$VM/nfscluster.sh" cont s ;;
      # Younger files than these cannot be stale: the process that writes has its own.
      stale) "$VM/nfscluster.sh" exec s 'rm -v /export/cache/instances/*/seg/0.0' ;;
      restart) "$VM/nfscluster.sh" kill s; sleep 1; "$VM/nfscluster.sh" boot s ;;
    esac
    touch "$SHARE/answer"
  done
}

# Two machines.
apart() { # SCENARIO KERNEL
  echo "--- $1, $2, server and client apart"
  CLUSTER=1
  local status=1
  if K=${2#uml} MEM=768 "$VM/nfscluster.sh" up 1; then
    export K=${2#uml} MEM=768
    TMO=280 "$VM/nfscluster.sh" exec c1 "cd /host/share && exec python3 ./drive.py ./millrace /mnt/c1/cache $1 /host/share" &
    local driver=$!
    serve_asks $driver
    wait $driver
    status=$?
  fi
  "$VM/nfscluster.sh" down >/dev/null 2>&1
  CLUSTER=
  rm -f "$SHARE/ask" "$SHARE/answer"
  return $status
}

failed=0
for kernel in $KERNELS; do
  for scenario in "${SCENARIOS[@]}"; do
    case $scenario in
      survives) alone survives "$kernel" 4.2 512M || failed=1 ;;
      full)
        alone full "$kernel" 4.2 96M || failed=1
        # Without room that can be taken ahead: the write itself finds the export full.
        alone full "$kernel" 4.1 96M || failed=1
        ;;
      *) apart "$scenario" "$kernel" || failed=1 ;;
    esac
  done
done
[ $failed -eq 0 ] && echo "all of it held" || echo "SOMETHING FAILED"
exit $failed
