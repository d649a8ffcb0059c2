#!/usr/bin/env bash
# Becomes systemd in namespaces of its own: boot.sh FOLDER CGROUP, called by run.sh. What it writes is in RAM and goes with it.
set -eu
FOLDER=$1 GROUP=$2
if [ "${3:-}" != inside ]; then
  echo $$ >"$GROUP/cgroup.procs"
  exec unshare --pid --fork --kill-child --mount --net --uts --ipc --cgroup "$0" "$FOLDER" "$GROUP" inside
fi

mount --make-rprivate /
mkdir "$FOLDER/ram"
mount -t tmpfs tmpfs "$FOLDER/ram"
ROOT=$FOLDER/ram/root
mkdir "$FOLDER"/ram/{upper,work,root}
mount -t overlay overlay -o "lowerdir=/,upperdir=$FOLDER/ram/upper,workdir=$FOLDER/ram/work" "$ROOT"
# An overlay shows the file system of / alone: programs and tests are bound into it.
mkdir -p "$ROOT/millrace" "$ROOT/etc/millrace"
touch "$ROOT/usr/bin/millrace" "$ROOT/millrace-perf"
mount --bind "$MILLRACE_BIN" "$ROOT/usr/bin/millrace"
mount --bind "$PERF_BIN" "$ROOT/millrace-perf"
mount --bind "$PWD" "$ROOT/millrace"
rm -rf "$ROOT/var/cache/millrace" "$ROOT/var/cache/private/millrace" "$ROOT/etc/systemd/system/"millrace.*
cp config/millrace.service config/millrace.socket "$ROOT/etc/systemd/system/"
mount -t proc proc "$ROOT/proc"
mount -t sysfs -o ro sysfs "$ROOT/sys"
mount -t cgroup2 cgroup2 "$ROOT/sys/fs/cgroup"
mount -t tmpfs tmpfs "$ROOT/run"
mount -t tmpfs tmpfs "$ROOT/tmp"
mount -t tmpfs tmpfs "$ROOT/dev"
for node in null zero full random urandom tty; do
  touch "$ROOT/dev/$node"
  mount --bind "/dev/$node" "$ROOT/dev/$node"
done
mkdir "$ROOT"/dev/{shm,pts,mqueue}
mount -t devpts devpts "$ROOT/dev/pts" -o newinstance,ptmxmode=0666
ln -s pts/ptmx "$ROOT/dev/ptmx"
ln -s /proc/self/fd "$ROOT/dev/fd"
ip link set lo up
cd "$ROOT"
mkdir -p .before
pivot_root . .before
umount --lazy .before
exec env -i container=other PATH=/usr/sbin:/usr/bin:/sbin:/bin /lib/systemd/systemd --system --unit=basic.target --show-status=no
