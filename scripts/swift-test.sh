#!/bin/bash
# swift test with the given arguments, for at most ORCH_TEST_SECONDS (3000). What failed, or did not end, is told once more at the end: a log of many
# thousand lines is read from there.
set -uo pipefail
limit=${ORCH_TEST_SECONDS:-3000}
log=$(mktemp)
trap 'rm -f "$log"' EXIT
timeout --kill-after=20 "$limit" swift test "$@" 2>&1 | tee "$log"
code=${PIPESTATUS[0]}
if [ "$code" = 124 ] || [ "$code" = 137 ]; then
  echo "not ended after $limit s. Tests that had begun and not ended (the last few of the log may be missing in it):"
  comm -23 <(sed -nE 's/^◇ Test (.*) started\.$/\1/p' "$log" | sort -u) <(sed -nE 's/^[^◇] Test (.*) (with .* )?(passed|failed) after .*/\1/p' "$log" | sed -E 's/ with [0-9]+ test cases?$//' | sort -u) |
    grep -vE '^(run$|case passing)' | cut -c 1-200 | head -20
fi
if [ "$code" != 0 ]; then
  echo "what failed:"
  grep -A 1 -E '^.{1,4}Test .* recorded an issue|[Ff]atal error|error: .*(signal|crash)' "$log" | cut -c 1-700 | head -c 2400
  echo
fi
exit "$code"
