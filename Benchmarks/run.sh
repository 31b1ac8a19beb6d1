#!/bin/bash
# Every benchmark, one after the other: each prints a table with its reference beside it.
# usage: run.sh PROGRAMS_DIR [arguments of cluster/bench.py]     (root; `make bench` builds release first)
set -euo pipefail
cd "$(dirname "$0")/.."
programs=$(cd "${1:?usage: run.sh FOLDER-OF-PROGRAMS, for example .build/release}" && pwd)
shift
[ "$(id -u)" = 0 ] || { echo "make bench needs root: it makes network namespaces and cgroups" >&2; exit 1; }
exec python3 Benchmarks/cluster/bench.py "$programs" "$@"
