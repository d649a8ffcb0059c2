#!/usr/bin/env bash
# Instructions per call of the parser, the classifier and the index, counted by callgrind.
#
#   benches/instructions.sh            compares with benches/instructions.txt, says what has grown, fails beyond 5 %
#   benches/instructions.sh --record   writes benches/instructions.txt anew
#
# The counts do not depend on the machine's load or clock. They do on the compiler and, a little, on the
# processor's features: the file names the compiler that made it. Needs valgrind.
set -euo pipefail
cd "$(dirname "$0")/.."

MODE=${1:-compare}
case $MODE in compare | --record) ;; *) echo "usage: benches/instructions.sh [--record]" >&2; exit 2 ;; esac
command -v valgrind >/dev/null || { echo "valgrind is not installed" >&2; exit 2; }

FIGURES=benches/instructions.txt
CALLS=1000 # as in instructions.rs
TOLERANCE_PERCENT=5

program=$(cargo bench --locked --bench instructions --no-run --message-format=json |
  sed -n 's/.*"name":"instructions".*"executable":"\([^"]*\)".*/\1/p')
[ -x "$program" ] || { echo "the program of the cases was not built" >&2; exit 2; }

# count CASE: instructions per call.
count() {
  local said counted
  said=$(valgrind --tool=callgrind --callgrind-out-file=/dev/null \
    --toggle-collect='instructions::counted*' "$program" "$1" 2>&1) || { echo "$said" >&2; return 1; }
  counted=$(sed -n 's/^==[0-9]*== Collected : //p' <<<"$said")
  [ "${counted:-0}" -gt 0 ] || { echo "callgrind counted nothing for $1" >&2; return 1; }
  echo $((counted / CALLS))
}

COUNTED=$(mktemp)
trap 'rm -f "$COUNTED"' EXIT
{
  echo "# Instructions per call; written by benches/instructions.sh --record, held within $TOLERANCE_PERCENT % by it."
  echo "# $(rustc --version), $(valgrind --version)"
  for case in $("$program" --list); do
    figure=$(count "$case")
    printf '%-24s %8d\n' "$case" "$figure"
  done
} >"$COUNTED"

if [ "$MODE" = --record ]; then
  cp "$COUNTED" "$FIGURES"
  cat "$FIGURES"
  exit 0
fi

made_by=$(sed -n 2p "$FIGURES") here=$(sed -n 2p "$COUNTED")
[ "$made_by" = "$here" ] || printf 'recorded with %s\ncounted with  %s\n' "$made_by" "$here"
awk -v tolerance="$TOLERANCE_PERCENT" '
  /^#/ { next }
  NR == FNR { recorded[$1] = $2; next }
  {
    seen[$1] = 1
    if (!($1 in recorded)) { printf "%-24s %8d  is not recorded yet\n", $1, $2; wrong++; next }
    change = 100 * ($2 - recorded[$1]) / recorded[$1]
    verdict = change > tolerance ? "HAS GROWN" : change < -tolerance ? "has shrunk: record it" : "ok"
    if (verdict != "ok") wrong++
    printf "%-24s %8d -> %8d  %+6.1f %%  %s\n", $1, recorded[$1], $2, change, verdict
  }
  END {
    for (name in recorded) if (!(name in seen)) { printf "%-24s has no case any more\n", name; wrong++ }
    if (wrong) { printf "%d figures differ by more than %d %%; if that is meant: benches/instructions.sh --record\n", wrong, tolerance; exit 1 }
  }' "$FIGURES" "$COUNTED"
