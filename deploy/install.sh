#!/bin/bash
# Installs orch from a release build on this host: programs to /usr/bin, systemd units, shell completion.
# usage: deploy/install.sh [FOLDER]      FOLDER holds the five programs (default: the release build of this checkout)
# DESTDIR=/somewhere installs below that folder and starts nothing.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
from=${1:-${ORCH_SCRATCH:-$here/../.build}/release}
dest=${DESTDIR:-}
for program in orch orch-manager orch-agent orch-init orch-runtime; do
  [ -x "$from/$program" ] || { echo "$from/$program is missing: run \`make release\` first" >&2; exit 1; }
done
if [ -z "$dest" ]; then
  [ "$(id -u)" = 0 ] || { echo "installing needs root: sudo $0 $*" >&2; exit 1; }
  missing=$(for p in libsqlite3-0 libseccomp2 libcap2 libzstd1 liblzma5 libbz2-1.0 libnftables1 nftables iproute2; do dpkg -s $p >/dev/null 2>&1 || echo $p; done)
  [ -z "$missing" ] || { apt-get update -qq; DEBIAN_FRONTEND=noninteractive apt-get install -y -qq $missing; }
fi
install -d "$dest/usr/bin" "$dest/lib/systemd/system" "$dest/usr/share/bash-completion/completions" "$dest/usr/share/zsh/vendor-completions"
for program in orch orch-manager orch-agent orch-init orch-runtime; do install -m 755 "$from/$program" "$dest/usr/bin/$program.new" && mv "$dest/usr/bin/$program.new" "$dest/usr/bin/$program"; done
install -m 644 "$here"/systemd/*.service "$dest/lib/systemd/system/"
"$from/orch" completion bash > "$dest/usr/share/bash-completion/completions/orch"
"$from/orch" completion zsh > "$dest/usr/share/zsh/vendor-completions/_orch"
"$from/orch-runtime" --generate-completion-script bash > "$dest/usr/share/bash-completion/completions/orch-runtime"
"$from/orch-runtime" --generate-completion-script zsh > "$dest/usr/share/zsh/vendor-completions/_orch-runtime"
if [ -z "$dest" ] && [ -d /run/systemd/system ]; then systemctl daemon-reload; fi
cat <<'MSG'
Installed. Next:
  first manager      orch-manager init                 (prints the join commands, runs until Ctrl-C)
  further managers   orch-manager join --token TOKEN HOST:2377
  every host         orch-agent join --token TOKEN HOST:2377
Then `systemctl enable --now orch-manager` and `systemctl enable --now orch-agent`.
MSG
