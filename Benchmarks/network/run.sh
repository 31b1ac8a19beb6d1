#!/bin/bash
# The network beside what it stands on. usage: run.sh PROGRAMS_DIR [arguments of bench.py]     (root, to make namespaces and install its tools)
set -euo pipefail
programs=${1:?usage: run.sh FOLDER-OF-PROGRAMS, for example .build/release}
shift
missing=$(for package in iperf3 dnsperf dnsmasq-base gcc iproute2 util-linux; do dpkg -s "$package" >/dev/null 2>&1 || echo "$package"; done)
# shellcheck disable=SC2086
[ -z "$missing" ] || { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq $missing >/dev/null; }
exec python3 "$(dirname "$0")/bench.py" "$programs" "$@"
