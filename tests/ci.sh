#!/usr/bin/env bash
# The one entry point of every check: tests/ci.sh smoke|test|full
#
#   smoke  format, tidiness, unit tests and the quick end-to-end ones: a few minutes
#   test   the above with lints, every end-to-end test, benches run once and real clients: what a change must pass
#   full   the above with loom, fuzzing, AddressSanitizer, 10,000 cancels and idle connections, uploads of 5 GiB,
#          ten minutes of clients that read what they write and ten of a thousand tunnels, counts of instructions,
#          dependencies, 200 crashes on loop mounts of ext4 and xfs (as root), the units under a real systemd (as
#          root) and a real NFS mount (MILLRACE_NFSVM: see tests/nfs/run.sh): before a release
#
# Needs a Rust toolchain and Python 3; installs the rest itself: Debian packages where one is
# missing, pinned Python clients in a virtual environment under the target folder. Runs all of
# its steps, also after a failed one, and ends with a summary and "N passed, N failed".
set -uo pipefail
cd "$(dirname "$0")/.."

MODE=${1:-test}
case $MODE in smoke | test | full) ;; *) echo "usage: tests/ci.sh smoke|test|full" >&2; exit 2 ;; esac

TARGET=${CARGO_TARGET_DIR:-$PWD/target}
mkdir -p "$TARGET"
TARGET=$(cd "$TARGET" && pwd)
LOGS=$TARGET/ci-logs
mkdir -p "$LOGS"
export CARGO_TARGET_DIR=$TARGET CARGO_TERM_COLOR=never INSTA_UPDATE=no
# A caller's certificate bundle breaks clients that talk to a test origin.
unset AWS_CA_BUNDLE

PASSED=0 FAILED=0
SUMMARY=()

# step NAME COMMAND...: runs it with its output in a log and on the terminal, and counts it.
step() {
  local name=$1 begun=$SECONDS log
  shift
  log=$LOGS/${name// /-}.log
  echo "=== $name"
  "$@" 2>&1 | tee "$log"
  local status=${PIPESTATUS[0]} verdict=ok
  # 77: this machine has not what it takes. Nothing passed, nothing failed, and the summary says so.
  if [ "$status" -eq 77 ]; then verdict="NOT SHOWN"; else count_tests "$log" "$status"; fi
  case $status in 0 | 77) ;; *) verdict="FAILED ($status)" ;; esac
  SUMMARY+=("$(printf '%-28s %-12s %5d s' "$name" "$verdict" $((SECONDS - begun)))")
  return "$status"
}

# Adds up what a step's runner said; a step without a runner counts as one.
count_tests() {
  local counted
  counted=$(awk '
    / tests? run: / { for (i = 2; i <= NF; i++) { if ($i ~ /^passed/) p += $(i-1); if ($i ~ /^(failed|timed)/) f += $(i-1) } seen = 1 }
    /^test result: / { for (i = 2; i <= NF; i++) { if ($i == "passed;") p += $(i-1); if ($i == "failed;") f += $(i-1) } seen = 1 }
    /^Ran [0-9]+ tests? in / { ran += $2; seen = 1 }
    /^FAILED \(/ { while (match($0, /(failures|errors)=[0-9]+/)) { split(substr($0, RSTART, RLENGTH), kv, "="); pf += kv[2]; $0 = substr($0, RSTART + RLENGTH) } }
    END { if (seen) { if (ran) { p += ran - pf; f += pf } print p + 0, f + 0 } }' "$1")
  if [ -n "$counted" ]; then
    PASSED=$((PASSED + ${counted% *})) FAILED=$((FAILED + ${counted#* }))
    # A runner that failed without a failed test still failed.
    if [ "$2" -ne 0 ] && [ "${counted#* }" -eq 0 ]; then FAILED=$((FAILED + 1)); fi
  elif [ "$2" -eq 0 ]; then
    PASSED=$((PASSED + 1))
  else
    FAILED=$((FAILED + 1))
  fi
}

finish() {
  echo
  echo "=== summary of tests/ci.sh $MODE ($SECONDS s)"
  printf '%s\n' "${SUMMARY[@]}"
  echo "$PASSED passed, $FAILED failed"
  [ "$FAILED" -eq 0 ] && [ "$PASSED" -gt 0 ]
  exit $?
}

as_root() { if [ "$(id -u)" -eq 0 ]; then "$@"; else sudo -n "$@"; fi; }

# Installs the Debian packages that are named when CHECK fails.
want() {
  local check=$1
  shift
  sh -c "$check" >/dev/null 2>&1 && return 0
  echo "installing $*"
  as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -q "$@" ||
    { as_root apt-get update -q && as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -q "$@"; }
}

tools() {
  want "command -v cc" gcc libc6-dev || return 1
  want "command -v python3" python3 || return 1
  cargo --version && rustc --version && python3 --version
  cargo fmt --version || rustup component add rustfmt || return 1
  cargo clippy --version || rustup component add clippy || return 1
}

# Runs tests with nextest where it is installed, else with cargo's own runner.
run_tests() {
  if cargo nextest --version >/dev/null 2>&1; then
    cargo nextest run --locked "$@"
  else
    local arguments=()
    while [ $# -gt 0 ]; do
      case $1 in --profile) shift ;; *) arguments+=("$1") ;; esac
      shift
    done
    cargo test --locked --no-fail-fast "${arguments[@]}" -- --test-threads 3
  fi
}

# A virtual environment with exactly the clients of requirements.txt, made again when they change.
VENV=$TARGET/clients-venv
clients_environment() {
  local wanted client
  # Their tests say that they were skipped where these cannot be had.
  for client in s3cmd rclone; do want "command -v $client" "$client" || echo "$client cannot be installed"; done
  wanted="$(python3 --version) $(sha256sum <tests/clients/requirements.txt)"
  [ -f "$VENV/stamp" ] && [ "$(cat "$VENV/stamp")" = "$wanted" ] && { echo "as it was"; return 0; }
  want "python3 -c 'import ensurepip, venv'" python3-venv || return 1
  rm -rf "$VENV"
  python3 -m venv "$VENV" || return 1
  "$VENV/bin/python" -m pip install --quiet --requirement tests/clients/requirements.txt || return 1
  echo "$wanted" >"$VENV/stamp"
}

clients() {
  MILLRACE_BIN=$TARGET/debug/millrace PERF_BIN=$TARGET/debug/perf PYTHONDONTWRITEBYTECODE=1 \
    "$VENV/bin/python" -m unittest discover --start-directory tests/clients --verbose
}

# Every bench once, so that none rots; `cargo bench` takes their times.
benches_once() { cargo test --locked --package millrace --bench '*' | grep -v '^$'; }

# Instructions of the parser, the classifier and the index against the recorded figures.
instructions() {
  want "command -v valgrind" valgrind || return 1
  benches/instructions.sh
}

# Loom's models include files by path: they compile, or they rot until the next full run.
loom_compiles() {
  RUSTFLAGS="--cfg loom --cfg crossbeam_loom" CARGO_TARGET_DIR=$TARGET/loom cargo check --locked --test loom
}

loom() {
  RUSTFLAGS="--cfg loom --cfg crossbeam_loom" CARGO_TARGET_DIR=$TARGET/loom \
    cargo test --locked --release --test loom
}

# The end-to-end tests with the server, and the tests themselves, under AddressSanitizer. The
# sanitizer is a feature of the compiler that its stable release carries but does not name.
address_sanitizer() {
  local host
  host=$(rustc -vV | sed -n 's/^host: //p')
  RUSTC_BOOTSTRAP=1 RUSTFLAGS="-Zsanitizer=address" ASAN_OPTIONS=detect_stack_use_after_return=1 \
    CARGO_TARGET_DIR=$TARGET/asan PERF_BIN=$TARGET/debug/perf \
    cargo test --locked --no-fail-fast --target "$host" --test e2e -- --test-threads 2 --skip heavy_
}

# Each fuzz target for FUZZ_SECONDS (60).
fuzzing() {
  [ -d fuzz ] || { echo "no fuzz targets"; return 0; }
  command -v cargo-fuzz >/dev/null || cargo install --locked cargo-fuzz || return 1
  want "command -v c++" g++ || return 1
  local name failed=0
  for name in $(cd fuzz && RUSTC_BOOTSTRAP=1 cargo fuzz list); do
    echo "fuzzing $name"
    mkdir -p "$TARGET/fuzz-corpus/$name"
    RUSTC_BOOTSTRAP=1 CARGO_TARGET_DIR=$TARGET/fuzz cargo fuzz run "$name" \
      "$TARGET/fuzz-corpus/$name" "fuzz/seeds/$name" -- \
      -max_total_time="${FUZZ_SECONDS:-60}" -rss_limit_mb=4096 -verbosity=0 -print_final_stats=0 || failed=1
  done
  return $failed
}

dependencies() {
  command -v cargo-deny >/dev/null || cargo install --locked cargo-deny || return 1
  # Advisories need a database from outside; the other checks need nothing.
  cargo deny --all-features check licenses bans sources
}

step tools tools || finish
step format cargo fmt --all -- --check
if [ "$MODE" = smoke ]; then
  step build cargo build --locked --workspace --bins || finish
  step "quick tests" run_tests --profile smoke
  finish
fi
step lints cargo clippy --locked --workspace --all-targets -- -D warnings
step build cargo build --locked --workspace --bins || finish
step tests run_tests --workspace
step "documentation tests" cargo test --locked --workspace --doc
step benches benches_once
step "loom compiles" loom_compiles
if step "client environment" clients_environment; then
  step clients clients
fi
if [ "$MODE" = full ]; then
  step "ten thousand" env MILLRACE_TEST_FULL=1 cargo test --locked --test e2e -- --nocapture --test-threads 1 heavy_many_cancels heavy_ten_thousand
  # Of 5 GiB in one request and in parts, without a byte on disk; and a thousand that stand still.
  step "large uploads" env MILLRACE_TEST_FULL=1 cargo test --locked --test e2e -- --nocapture --test-threads 1 heavy_an_upload_of_5_gib heavy_a_thousand_slow
  # Ten minutes.
  step "a thousand tunnels" env MILLRACE_TEST_FULL=1 cargo test --locked --test e2e -- --nocapture --test-threads 1 a_thousand_tunnels
  # Ten minutes; MILLRACE_TEST_ROUNDS=100000 instead counts rounds of all 32 clients together.
  step "own writes" env "MILLRACE_TEST_SECONDS=${MILLRACE_TEST_SECONDS:-600}" cargo test --locked --test e2e -- --nocapture --test-threads 1 semantics_165
  step "faults of the disk" env MILLRACE_TEST_FULL=1 cargo test --locked --test e2e -- --nocapture --test-threads 1 disk_
  step "crashes on loop mounts" tests/disk/loop_mounts.sh
  step "real systemd" tests/systemd/run.sh
  step "real NFS" tests/nfs/run.sh
  step instructions instructions
  step loom loom
  step "address sanitizer" address_sanitizer
  step fuzzing fuzzing
  step dependencies dependencies
fi
finish
