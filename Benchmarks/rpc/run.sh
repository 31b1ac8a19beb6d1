#!/bin/bash
# Builds (some minutes the first time: gRPC) and runs the comparison of our frames with gRPC. usage: run.sh [TURNS]
set -euo pipefail
cd "$(dirname "$0")"
swift build -c release -Xswiftc -use-ld=lld
exec .build/release/rpc-bench "$@"
