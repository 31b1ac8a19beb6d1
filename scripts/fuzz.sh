#!/bin/bash
# fuzz.sh SCRATCH TARGET SECONDS: builds Tests/Fuzz with libFuzzer and looks for inputs that break a parser. A find is left in
# Tests/Fuzz/Corpus/TARGET, where `make test` feeds it again. TARGET all: each in turn.
set -euo pipefail
export SWIFT_BACKTRACE=enable=no  # libFuzzer takes the signal and writes the input down
cd "$(dirname "$0")/.."
scratch=$1; target=$2; seconds=$3
swift build --product fuzz --scratch-path "$scratch/fuzz" --explicit-target-dependency-import-check error \
  -Xswiftc -use-ld=lld -Xswiftc -sanitize=fuzzer -Xlinker -z -Xlinker muldefs -Xlinker -u -Xlinker LLVMFuzzerRunDriver -Xlinker --export-dynamic-symbol=LLVMFuzzerRunDriver
program=$scratch/fuzz/debug/fuzz
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
failed=0
for name in $([ "$target" = all ] && "$program" list || echo "$target"); do
  corpus=Tests/Fuzz/Corpus/$name
  [ -d "$corpus" ] || { echo "no target '$name': one of $("$program" list | tr '\n' ' ')" >&2; exit 2; }
  mkdir -p "$work/$name"
  echo "== $name, $seconds s"
  # New inputs go to the first folder, which is not kept; 64 KiB and 2 GiB are bounds of the search, not of the parsers.
  "$program" "$name" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 -max_len=65536 -print_final_stats=1 \
    -artifact_prefix="$corpus/" "$work/$name" "$corpus" >"$work/$name.log" 2>&1 || { failed=1; grep -v "^#" "$work/$name.log" | tail -40; }
  grep -E "stat::(number_of_executed_units|peak_rss_mb)|Test unit written" "$work/$name.log" || true
done
exit $failed
