#!/usr/bin/env bash
# Kill -9 in a loop, 200 rounds on each filesystem: tests/disk/loop_mounts.sh [ext4|xfs]...
#
# Makes a sparse image under the target folder for each (default: both), mounts it, runs the test
# `heavy_crashes` of tests/e2e/crashes.rs in it, and unmounts it whatever came of it. Needs root,
# a loop device and mkfs.<filesystem>; without them it says so and fails (77: nothing was shown).
# MILLRACE_TEST_BIN: the test program if it is built already, else cargo builds it.
set -uo pipefail
cd "$(dirname "$0")/../.."

TARGET=${CARGO_TARGET_DIR:-$PWD/target}
mkdir -p "$TARGET"
TARGET=$(cd "$TARGET" && pwd)
FILESYSTEMS=("$@")
[ $# -gt 0 ] || FILESYSTEMS=(ext4 xfs)

cannot() { echo "SKIPPED, NOTHING SHOWN: $*" >&2; exit 77; }
[ "$(id -u)" -eq 0 ] || cannot "loop mounts need root"
[ -e /dev/loop-control ] || cannot "no loop devices here"

WORK=$(mktemp -d "$TARGET/loop-mounts.XXXXXX")
leave() {
  mountpoint -q "$WORK/mount" && umount "$WORK/mount"
  rm -rf "$WORK"
}
trap leave EXIT
trap 'exit 130' INT TERM
mkdir "$WORK/mount"

tests() {
  if [ -n "${MILLRACE_TEST_BIN:-}" ]; then
    "$MILLRACE_TEST_BIN" "$@"
  else
    cargo test --locked --test e2e -- "$@"
  fi
}

failed=0
for filesystem in "${FILESYSTEMS[@]}"; do
  command -v "mkfs.$filesystem" >/dev/null || cannot "no mkfs.$filesystem"
  truncate -s 3G "$WORK/image"
  "mkfs.$filesystem" -q "$WORK/image" || cannot "mkfs.$filesystem failed"
  mount -o loop "$WORK/image" "$WORK/mount" || cannot "$filesystem cannot be mounted"
  echo "=== $filesystem: $(findmnt -n -o SOURCE,FSTYPE,OPTIONS "$WORK/mount")"
  MILLRACE_TEST_FULL=1 MILLRACE_TEST_DISK=$WORK/mount \
    tests --nocapture --test-threads 1 heavy_crashes || failed=1
  umount "$WORK/mount" || { echo "$filesystem cannot be unmounted" >&2; failed=1; break; }
  rm "$WORK/image"
done
exit $failed
