#!/bin/bash
# runtime-callers.sh RUNTIME [IMAGES]: drives RUNTIME (orch-runtime) as its callers do: podman with conmon, containerd's shim by ctr, and docker's daemon.
# Each with daemons and folders of its own, which are ended and removed; a caller that is not installed is skipped by name (Debian: podman, containerd,
# docker.io). Root; Linux bridges and firewalls are not touched. IMAGES: a folder that deploy/images/build.sh filled. Ends with 1 when a check failed.
set -uo pipefail
runtime=$(realpath "${1:?usage: runtime-callers.sh RUNTIME [IMAGES]}")
[ "$(id -u)" = 0 ] || { echo "runtime-callers.sh: needs root" >&2; exit 1; }
work=$(mktemp -d /tmp/runtime-callers-XXXXXX)
images=${2:-$work/images}
pids=()
clean() {
  for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null && wait "$pid" 2>/dev/null; done
  grep -o " $work[^ ]*" /proc/self/mounts | sort -r | xargs -r umount -l 2>/dev/null
  rm -rf "$work"
}
trap clean EXIT
[ -f "$images/busybox-1.tar" ] || "$(dirname "$0")/../deploy/images/build.sh" "$images" || exit 1
failed=0
# check WHAT EXPECTED COMMAND...: stdout and exit code, as in "text|0"
check() {
  local what=$1 expected=$2 got
  shift 2
  got="$(timeout 40 "$@" 2>"$work/err" </dev/null | tr -d '\r' | tr '\n' ' ' | sed 's/ *$//'; exit "${PIPESTATUS[0]}")"
  got="$got|$?"
  case $got in
    $expected) echo "ok      $what" ;;
    *) echo "FAILED  $what: $got, not $expected: $(tail -c 300 "$work/err")"; failed=1 ;;
  esac
}
# waits until COMMAND prints TEXT
until_says() { local text=$1; shift; for _ in $(seq 400); do [[ "$(timeout 20 "$@" 2>/dev/null)" == *$text* ]] && return; sleep 0.1; done; }
loop='trap "exit 3" TERM; echo ready; while :; do sleep 0.1; done'

if command -v podman >/dev/null && command -v conmon >/dev/null; then
  echo "podman $(podman --version | awk '{ print $3 }')"
  p=(podman --root "$work/podman/root" --runroot "$work/podman/run" --storage-driver vfs --cgroup-manager cgroupfs --runtime "$runtime")
  "${p[@]}" load -q -i "$images/busybox-1.tar" >/dev/null 2>"$work/err" || { echo "FAILED  podman load: $(cat "$work/err")"; failed=1; }
  run=(run --network none)
  check "run: output and exit code" "out|5" "${p[@]}" "${run[@]}" --rm busybox:1 sh -c 'echo out; exit 5'
  check "a missing program" "|127" "${p[@]}" "${run[@]}" --rm busybox:1 nope
  check "a terminal" "/dev/pts/0|0" "${p[@]}" "${run[@]}" --rm -t busybox:1 tty
  check "user, read-only root, tmpfs, dropped capabilities" "uid=1000* ok CapEff:*0000000000000000|0" "${p[@]}" "${run[@]}" --rm --read-only --tmpfs /x \
    --user 1000:1000 --cap-drop all busybox:1 sh -c 'id; touch /x/y && echo ok; touch /y; grep CapEff /proc/self/status'
  mkdir -p "$work/volume" && echo seed >"$work/volume/file"
  check "a volume, read-only" "seed no|0" "${p[@]}" "${run[@]}" --rm -v "$work/volume:/v:ro" busybox:1 sh -c 'cat /v/file; touch /v/x 2>/dev/null || echo no'
  check "--privileged" "1|0" "${p[@]}" "${run[@]}" --rm --privileged busybox:1 sh -c 'ls /dev | grep -c ^kmsg$'
  check "a user namespace" "100000|0" "${p[@]}" "${run[@]}" --rm --uidmap 0:100000:65536 --gidmap 0:100000:65536 busybox:1 sh -c 'cat /proc/self/uid_map | sed "s/  */ /g" | cut -d" " -f3'
  check "run -d" "*|0" "${p[@]}" "${run[@]}" -d --name one --memory 64m busybox:1 sh -c "$loop"
  until_says ready "${p[@]}" logs one
  check "exec, within its limits" "in 67108864|4" "${p[@]}" exec one sh -c 'echo in; cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/memory.max 2>/dev/null; exit 4'
  check "exec with a terminal" "/dev/pts/0|0" "${p[@]}" exec -t one tty
  check "top" "*sleep*|0" "${p[@]}" top one
  check "stats" "*one*|0" "${p[@]}" stats --no-stream --format '{{.Name}}' one
  check "pause" "*|0" "${p[@]}" pause one
  check "paused" "paused|0" "${p[@]}" inspect -f '{{.State.Status}}' one
  check "unpause" "*|0" "${p[@]}" unpause one
  check "checkpoint is refused" "|125" "${p[@]}" container checkpoint one
  check "stop" "*|0" "${p[@]}" stop one
  check "exit code" "3|0" "${p[@]}" inspect -f '{{.State.ExitCode}}' one
  check "start again" "*|0" "${p[@]}" start one
  check "rm -f" "*|0" "${p[@]}" rm -f one
  check "a pod's shared namespaces" "*|0" "${p[@]}" "${run[@]}" -d --name two busybox:1 sleep 100
  check "join another's network, ipc and pid" "sleep|0" "${p[@]}" run --rm --network container:two --ipc container:two --pid container:two busybox:1 cat /proc/1/comm
  check "rm" "*|0" "${p[@]}" rm -f -t 0 two
else
  echo "skipped: podman or conmon is not installed"
fi

if command -v containerd >/dev/null && command -v ctr >/dev/null; then
  echo "containerd $(containerd --version | awk '{ print $3 }')"
  printf 'version = 2\nroot = "%s/containerd/root"\nstate = "%s/containerd/state"\ndisabled_plugins = ["io.containerd.grpc.v1.cri"]\n[grpc]\n  address = "%s/containerd.sock"\n' \
    "$work" "$work" "$work" >"$work/containerd.toml"
  containerd -c "$work/containerd.toml" >"$work/containerd.log" 2>&1 &
  pids+=($!)
  c=(ctr -a "$work/containerd.sock" -n orch)
  until_says Server "${c[@]}" version
  "${c[@]}" image import "$images/busybox-1.tar" >/dev/null
  image=$("${c[@]}" image ls -q | head -1)
  run=(run --runc-binary "$runtime")
  "${c[@]}" events >"$work/events" 2>/dev/null &
  pids+=($!)
  check "run: output and exit code" "out|5" "${c[@]}" "${run[@]}" --rm "$image" one sh -c 'echo out; exit 5'
  check "a missing program" "|1" "${c[@]}" "${run[@]}" --rm "$image" none nope
  check "run -d" "*|0" "${c[@]}" "${run[@]}" -d --memory-limit 67108864 "$image" two sh -c "$loop"
  check "task exec" "in|4" "${c[@]}" task exec --exec-id e two sh -c 'echo in; exit 4'
  check "task ps" "PID*|0" "${c[@]}" task ps two
  check "task metrics" "*memory.*|0" "${c[@]}" task metrics two
  check "task pause" "|0" "${c[@]}" task pause two
  check "it is paused" "*PAUSED*|0" "${c[@]}" task ls
  check "task resume" "|0" "${c[@]}" task resume two
  check "task checkpoint is refused" "|1" "${c[@]}" task checkpoint two
  grep -q 'checkpoint: is not supported' "$work/err" || { echo "FAILED  the refusal says why: $(cat "$work/err")"; failed=1; }
  check "task kill" "|0" "${c[@]}" task kill -s TERM two
  until_says STOPPED "${c[@]}" task ls
  check "task delete" "|0" "${c[@]}" task delete two
  check "container delete" "|0" "${c[@]}" container delete two
  for event in tasks/create tasks/start tasks/exec-started tasks/paused tasks/resumed tasks/exit tasks/delete; do
    grep -q "/$event " "$work/events" || { echo "FAILED  event $event"; failed=1; }
  done
else
  echo "skipped: containerd is not installed"
fi

if command -v dockerd >/dev/null && command -v docker >/dev/null; then
  echo "docker $(dockerd --version | awk '{ print $3 }')"
  echo '{}' >"$work/daemon.json"
  dockerd --config-file "$work/daemon.json" --bridge=none --iptables=false --ip6tables=false --data-root "$work/docker/root" --exec-root "$work/docker/run" \
    -p "$work/docker.pid" -H "unix://$work/docker.sock" --add-runtime "orch=$runtime" --default-runtime orch \
    ${image:+--containerd "$work/containerd.sock"} >"$work/docker.log" 2>&1 &
  pids=($! "${pids[@]}")
  d=(docker -H "unix://$work/docker.sock")
  until_says Server "${d[@]}" version
  "${d[@]}" load -q -i "$images/busybox-1.tar" >/dev/null 2>"$work/err" || { echo "FAILED  docker load: $(cat "$work/err"; tail -3 "$work/docker.log")"; failed=1; }
  run=(run --network none)
  check "run: output and exit code" "out|6" "${d[@]}" "${run[@]}" --rm busybox:1 sh -c 'echo out; exit 6'
  check "a missing program" "|127" "${d[@]}" "${run[@]}" --rm busybox:1 nope
  check "user, read-only root, tmpfs, dropped capabilities" "uid=1000 gid=1000* ok|1" "${d[@]}" "${run[@]}" --rm --read-only --tmpfs /x -u 1000:1000 --cap-drop ALL busybox:1 \
    sh -c 'id; touch /x/y && echo ok; touch /y'
  check "--privileged" "1|0" "${d[@]}" "${run[@]}" --rm --privileged busybox:1 sh -c 'ls /dev | grep -c ^kmsg$'
  check "run -d --init" "*|0" "${d[@]}" "${run[@]}" -d --name one -m 64m --pids-limit 50 --init busybox:1 sh -c "$loop"
  until_says ready "${d[@]}" logs one
  check "exec" "in|7" "${d[@]}" exec one sh -c 'echo in; exit 7'
  check "exec -u -w -e" "uid=1000* /etc b|0" "${d[@]}" exec -u 1000 -w /etc -e A=b one sh -c 'id; pwd; echo $A'
  check "top" "*docker-init*|0" "${d[@]}" top one
  check "pause" "*|0" "${d[@]}" pause one
  check "paused" "paused|0" "${d[@]}" inspect -f '{{.State.Status}}' one
  check "unpause" "*|0" "${d[@]}" unpause one
  check "update" "one|0" "${d[@]}" update --memory 128m --memory-swap 128m --pids-limit 60 one
  check "stats" "*128MiB*|0" "${d[@]}" stats --no-stream --format '{{.MemUsage}}' one
  check "stop" "one|0" "${d[@]}" stop one
  check "exit code" "3|0" "${d[@]}" inspect -f '{{.State.ExitCode}}' one
  check "start again" "one|0" "${d[@]}" start one
  check "kill" "one|0" "${d[@]}" kill one
  check "rm" "one|0" "${d[@]}" rm -f one
  check "health check" "*|0" "${d[@]}" "${run[@]}" -d --name two --health-cmd true --health-interval 1s busybox:1 sleep 100
  until_says healthy "${d[@]}" inspect -f '{{.State.Health.Status}}' two
  check "healthy" "healthy|0" "${d[@]}" inspect -f '{{.State.Health.Status}}' two
  check "rm" "two|0" "${d[@]}" rm -f two
else
  echo "skipped: docker's daemon is not installed"
fi
exit $failed
