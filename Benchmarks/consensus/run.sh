#!/bin/bash
# Consensus and store beside etcd, and alone. usage: run.sh PROGRAMS_DIR [arguments of run.py]     (root, to install etcd-server)
set -euo pipefail
programs=${1:?usage: run.sh FOLDER-OF-PROGRAMS, for example .build/release}
shift
missing=$(for package in etcd-server etcd-client libssl-dev gcc; do dpkg -s "$package" >/dev/null 2>&1 || echo "$package"; done)
# RUNLEVEL=1: the package must not start an etcd of its own.
# shellcheck disable=SC2086
[ -z "$missing" ] || { apt-get update -qq && RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive apt-get install -y -qq $missing >/dev/null; }
exec python3 "$(dirname "$0")/run.py" "$programs" "$@"
