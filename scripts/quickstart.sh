#!/bin/bash
# A local cluster of three hosts with the sample stack on it, and what it looks like. usage: quickstart.sh FOLDER-OF-PROGRAMS
set -euo pipefail
cd "$(dirname "$0")/.."
programs=$(cd "$1" && pwd)
export PATH=$programs:$PATH
say() { printf '\n\033[1m==> %s\033[0m\n' "$*"; }
show() { printf '\033[2m$ %s\033[0m\n' "$*"; "$@"; }

[ "$(id -u)" = 0 ] || { echo "make quickstart needs root: it makes network namespaces and cgroups" >&2; exit 1; }
if orch dev status >/dev/null 2>&1; then
  say "The local cluster is up already"
else
  say "Starting a local cluster of three hosts"
  show orch dev up
fi
eval "$(orch dev env)"

say "Sample images, on every host"
images=${XDG_CACHE_HOME:-$HOME/.cache}/orch/images
deploy/images/build.sh "$images"
for image in web-1 web-2 visitor-1; do show orch image load "$images/$image.tar"; done

say "Deploying manifests/web.yaml"
show orch deploy manifests/web.yaml

say "Nodes, services, tasks"
show orch nodes
show orch services
show orch ps

say "The published port answers on every host, wherever the tasks run"
for host in $(orch dev hosts -q); do show orch dev exec "$host" busybox wget -qO- http://127.0.0.1:8080/; echo; done

say "Try next"
cat <<MSG
  export PATH=$programs:\$PATH
  eval "\$(orch dev env)"                 # points orch, and docker, at the cluster
  orch scale web=6                       # more of them
  orch logs -f visitor                   # who answers?
  orch update web --image web:2          # a rolling update;  orch rollback web  undoes it
  orch dev kill host3; orch ps           # lose a host, watch its tasks move;  orch dev start host3
  docker service ls                      # the stock docker CLI works too
  make clean-cluster                     # removes every trace
MSG
