#!/bin/bash
# The benchmarks, one after the other: each prints a table with its reference beside it.
# usage: run.sh PROGRAMS_DIR [cluster|consensus|network|runtime|images [its arguments]]     (root; `make bench` builds release first)
set -euo pipefail
cd "$(dirname "$0")/.."
programs=$(cd "${1:?usage: run.sh FOLDER-OF-PROGRAMS [cluster|consensus|network|runtime|images], for example run.sh .build/release}" && pwd)
shift
[ "$(id -u)" = 0 ] || { echo "make bench needs root: it makes network namespaces and cgroups, and installs etcd" >&2; exit 1; }
part=${1:-all}
[ $# = 0 ] || shift
case $part in
  cluster) exec python3 Benchmarks/cluster/bench.py "$programs" "$@" ;;
  network) exec Benchmarks/network/run.sh "$programs" "$@" ;;
  runtime) exec python3 Benchmarks/runtime/bench.py "$programs" "$@" ;;
  images) exec python3 Benchmarks/images/bench.py "$programs" "$@" ;;
  consensus) exec Benchmarks/consensus/run.sh "$programs" "$@" ;;
  all)
    python3 Benchmarks/cluster/bench.py "$programs"
    python3 Benchmarks/runtime/bench.py "$programs"
    python3 Benchmarks/images/bench.py "$programs"
    Benchmarks/network/run.sh "$programs"
    exec Benchmarks/consensus/run.sh "$programs"
    ;;
  *) echo "unknown benchmark $part: cluster, consensus, network, runtime or images" >&2; exit 2 ;;
esac
