#!/bin/bash
# Generates Sources/Shared/Wire/Generated from Sources/Shared/Wire/Protos (Debian's protobuf-compiler, swift-protobuf's own plugin).
set -euo pipefail
cd "$(dirname "$0")/.."
scratch=${1:-.build}
command -v protoc >/dev/null || apt-get install -y -qq protobuf-compiler
plugin=$scratch/debug/protoc-gen-swift
[ -x "$plugin" ] || swift build --scratch-path "$scratch" --product protoc-gen-swift -Xswiftc -use-ld=lld --explicit-target-dependency-import-check error
rm -rf Sources/Shared/Wire/Generated && mkdir -p Sources/Shared/Wire/Generated
protoc --plugin="$plugin" --proto_path=Sources/Shared/Wire/Protos --swift_opt=Visibility=Public --swift_out=Sources/Shared/Wire/Generated Sources/Shared/Wire/Protos/*.proto
