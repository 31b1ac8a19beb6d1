#!/bin/bash
# swift test with the given arguments. What failed is told once more at the end: a log of many thousand lines is read from there.
set -uo pipefail
log=$(mktemp)
trap 'rm -f "$log"' EXIT
swift test "$@" 2>&1 | tee "$log"
code=${PIPESTATUS[0]}
if [ "$code" != 0 ]; then
  echo "what failed:"
  grep -A 1 -E '^.{1,4}Test .* recorded an issue|[Ff]atal error|error: .*(signal|crash)' "$log" | cut -c 1-700 | head -c 2400
  echo
fi
exit "$code"
