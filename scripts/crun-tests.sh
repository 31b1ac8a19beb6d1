#!/bin/bash
# crun-tests.sh RUNTIME [TEST...]: crun's own Python tests (tests/test_*.py, GPL; nothing of them is part of this project) against another runtime's program.
# crun itself makes no containers where both versions of cgroups are mounted: unshare -m sh -c 'umount /sys/fs/cgroup/unified; scripts/crun-tests.sh …'.
# CRUN_SOURCE names a folder with crun's sources; without it they are cloned from GitHub. Root. TEST: test_mounts and so on, all without.
# Prints a line a file and the names of what failed; the whole output stays in the folder that is named last.
set -euo pipefail
runtime=$(realpath "${1:?usage: crun-tests.sh RUNTIME [TEST...]}")
shift
[ "$(id -u)" = 0 ] || { echo "crun-tests.sh: needs root" >&2; exit 1; }
work=$(mktemp -d /tmp/crun-tests-XXXXXX)
# What tests that failed left behind: containers of ours below $work, groups without processes that were not there before.
groups() { find /sys/fs/cgroup -depth -type d \( -path '*/orch-runtime*' -o -path '*/test-tmp*' -o -name test -o -path '*/frozen' \) 2>/dev/null | sort; }
groups >"$work/groups"
clean() {
  local status frozen=/sys/fs/cgroup/freezer/frozen pid
  # test_delete freezes a process in a group that no runtime knows, and forgets it there.
  if [ -e $frozen/freezer.state ] && ! grep -qx $frozen "$work/groups"; then
    echo THAWED >$frozen/freezer.state
    while read -r pid; do kill -9 "$pid" || true; done <$frozen/cgroup.procs
  fi
  for status in "$work"/run/.testsuite-run-*/root/*/container.json; do
    [ -e "$status" ] && "$runtime" --root "$(dirname "$(dirname "$status")")" delete -f "$(basename "$(dirname "$status")")" || true
  done
  sleep 0.2
  groups | comm -13 "$work/groups" - | sort -r | while read -r group; do rmdir "$group" 2>/dev/null || true; done
  rm -rf "$work"/run/.testsuite-run-*
}
trap clean EXIT
source=${CRUN_SOURCE:-$work/source}
[ -d "$source/tests" ] || git clone -q --depth 1 https://github.com/containers/crun "$source"
mkdir -p "$work/config" "$work/run" "$work/out" "$work/python"
# util-linux's Python module, which Debian has not, as far as test_mounts.py uses it.
cat >"$work/python/libmount.py" <<'MODULE'
class Entry:
    def __init__(self, fields):
        dash = fields.index("-")
        self.target, self.vfs_options, self.fs_options = fields[4], fields[5], fields[dash + 3]
class Table:
    def __init__(self, path):
        self.entries = [Entry(line.split()) for line in open(path) if " - " in line]
    def find_target(self, target):
        return next((e for e in reversed(self.entries) if e.target == target), None)
MODULE
# What crun's configure would find here.
printf '#define _GNU_SOURCE 1\n#define HAVE_SECCOMP 1\n#define HAVE_LINUX_IOPRIO_H 1\n#define HAVE_ERROR_H 1\n' >"$work/config/config.h"
gcc -w -O1 -static -I"$work/config" -o "$work/init" "$source/tests/init.c"

tests=("$@")
[ $# -gt 0 ] || mapfile -t tests < <(cd "$source/tests" && ls test_*.py | sed 's/\.py$//')
cd "$work/run"
for test in "${tests[@]}"; do
  PYTHONPATH=$work/python OCI_RUNTIME=$runtime INIT=$work/init timeout -k 5 "${SECONDS_EACH:-300}" python3 "$source/tests/$test.py" >"$work/out/$test" 2>"$work/out/$test.err" </dev/null ||
    echo "# $test ended with $?" >>"$work/out/$test"
  awk -v name="$test" '/^ok .*#SKIP/ { skip++; next } /^ok / { ok++ } /^not ok / { fail++ } /^1\.\./ { all = substr($0, 4) }
    END { printf "%-28s %3d passed %3d failed %3d skipped of %d\n", name, ok, fail, skip, all }' "$work/out/$test"
done | tee "$work/counts"
awk '{ ok += $2; fail += $4; skip += $6; all += $9 } END { printf "total: %d passed, %d failed, %d skipped of %d\n", ok, fail, skip, all }' "$work/counts"
sed -n 's/^not ok [0-9]* - \([^ ]*\).*/\1/p' "$work"/out/test_* | grep -v '^$' >"$work/failed" || true
for file in "$work"/out/test_*; do case $file in *.err) ;; *) sed -n "s|^not ok [0-9]* - \([^ ]*\).*|failed: $(basename "$file") \1|p" "$file" ;; esac; done
echo "output: $work/out"
