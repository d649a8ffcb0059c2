#!/usr/bin/env bash
# The units of config/ under a real systemd: tests/systemd/run.sh
#
# Boots the machine's own systemd as the first process of namespaces of its own (processes, mounts, network, cgroups), over a copy of / that
# is gone afterwards, and lets drive.py start, reload, stop, restart and hand over millrace there. Needs root, systemd, overlayfs and a
# cgroup2 hierarchy; where one is missing it says so and ends with 77.
# MILLRACE_BIN, PERF_BIN: the programs (default: the debug builds).
set -uo pipefail
cd "$(dirname "$0")/../.."

TARGET=$(realpath "${CARGO_TARGET_DIR:-$PWD/target}")
export MILLRACE_BIN=${MILLRACE_BIN:-$TARGET/debug/millrace} PERF_BIN=${PERF_BIN:-$TARGET/debug/perf}
SYSTEMD=/lib/systemd/systemd

cannot() { echo "SKIPPED, NOTHING SHOWN: $*" >&2; exit 77; }
[ -x "$MILLRACE_BIN" ] || cannot "no program at $MILLRACE_BIN: build it first"

WORK=$(mktemp -d "${TMPDIR:-/tmp}/millrace-systemd.XXXXXX")
GROUP='' FIRST=''
leave() {
  if [ -n "$FIRST" ]; then
    # With the first process of the namespaces all others end.
    pkill -KILL -P "$FIRST"
    kill -KILL "$FIRST" 2>/dev/null
    wait "$FIRST" 2>/dev/null
  fi
  for _ in $(seq 50); do
    [ -n "$GROUP" ] && [ -d "$GROUP" ] || break
    find "$GROUP" -depth -type d -exec rmdir {} + 2>/dev/null || sleep 0.1
  done
  rm -rf "$WORK"
}
trap leave EXIT
trap 'exit 130' INT TERM

[ "$(id -u)" -eq 0 ] || cannot "not root"
[ -x $SYSTEMD ] || cannot "no $SYSTEMD"
command -v python3 >/dev/null || cannot "no python3"
[ -x "$PERF_BIN" ] || cannot "no program at $PERF_BIN: build it first"
HIERARCHY=$(awk '$3 == "cgroup2" { print $2; exit }' /proc/mounts)
[ -n "$HIERARCHY" ] || cannot "no cgroup2 hierarchy is mounted"
GROUP=$HIERARCHY/millrace-systemd-$$
mkdir "$GROUP" 2>/dev/null || { GROUP=''; cannot "no cgroup can be made below $HIERARCHY"; }

tests/systemd/boot.sh "$WORK" "$GROUP" >"$WORK/boot.log" 2>&1 &
FIRST=$!
# The first process of the new namespaces is the child of the one that made them.
inside() {
  local pid
  pid=$(pgrep -P "$FIRST" -x systemd) && nsenter --target "$pid" --all --wd=/ env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin "$@"
}
for _ in $(seq 300); do
  state=$(inside systemctl is-system-running 2>/dev/null)
  case $state in running | degraded) break ;; esac
  kill -0 "$FIRST" 2>/dev/null || { cat "$WORK/boot.log"; FIRST=''; cannot "systemd cannot be booted here"; }
  sleep 0.1
done
case $state in running | degraded) ;; *) cat "$WORK/boot.log"; cannot "systemd did not come up in 30 s: $state" ;; esac
echo "systemd is up: $(inside systemctl --version | head -1), $state"
inside python3 /millrace/tests/systemd/drive.py /millrace-perf
