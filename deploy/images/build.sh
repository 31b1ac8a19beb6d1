#!/bin/sh
# build.sh OUTDIR: builds the sample images web-1.tar, web-2.tar, visitor-1.tar and busybox-1.tar as `docker save` writes them.
# Offline: Debian's busybox-static and gcc. The same inputs give the same bytes; a second run does nothing.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
out=${1:?usage: build.sh OUTDIR}
for tool in gcc busybox tar sha256sum; do
  command -v $tool >/dev/null || { echo "build.sh: $tool is missing; apt-get install busybox-static gcc libc6-dev tar" >&2; exit 1; }
done
busybox=$(command -v busybox)
case $(uname -m) in x86_64) arch=amd64 ;; aarch64) arch=arm64 ;; *) arch=$(uname -m) ;; esac

mkdir -p "$out"
stamp=$(cat "$here/build.sh" "$here/responder.c" "$here/visit.sh" "$busybox" | sha256sum | cut -d' ' -f1)
if [ "$(cat "$out/.stamp" 2>/dev/null)" = "$stamp" ] && [ -f "$out/web-1.tar" ] && [ -f "$out/web-2.tar" ] && [ -f "$out/visitor-1.tar" ] &&
  [ -f "$out/busybox-1.tar" ]; then
  exit 0
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

pack() { # pack FOLDER FILE
  find "$1" -exec touch -h -d @0 {} +
  tar --format=ustar --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner -C "$1" -cf "$2" .
}
digest() { sha256sum "$1" | cut -d' ' -f1; }

# image NAME TAG CONFIG LAYER...: CONFIG is the inside of the image's "config"
image() {
  name=$1 tag=$2 config=$3
  shift 3
  rm -rf "$work/image"
  mkdir -p "$work/image"
  ids= files=
  for layer; do
    id=$(digest "$layer")
    mkdir -p "$work/image/$id"
    cp "$layer" "$work/image/$id/layer.tar"
    ids="$ids${ids:+,}\"sha256:$id\""
    files="$files${files:+,}\"$id/layer.tar\""
  done
  printf '{"architecture":"%s","os":"linux","created":"1970-01-01T00:00:00Z","config":{%s},"rootfs":{"type":"layers","diff_ids":[%s]}}' \
    "$arch" "$config" "$ids" >"$work/config.json"
  id=$(digest "$work/config.json")
  mv "$work/config.json" "$work/image/$id.json"
  printf '[{"Config":"%s.json","RepoTags":["%s:%s"],"Layers":[%s]}]' "$id" "$name" "$tag" "$files" >"$work/image/manifest.json"
  pack "$work/image" "$work/$name-$tag.tar"
  mv "$work/$name-$tag.tar" "$out/$name-$tag.tar"
}

# Layer 1: busybox and the folders every container has.
base=$work/base
mkdir -p "$base/bin" "$base/etc" "$base/dev" "$base/proc" "$base/sys" "$base/root" "$base/tmp" "$base/var/tmp" "$base/usr/bin"
chmod 1777 "$base/tmp" "$base/var/tmp"
chmod 700 "$base/root"
cp "$busybox" "$base/bin/busybox"
for applet in $(busybox --list); do [ "$applet" = busybox ] || ln -s busybox "$base/bin/$applet"; done
printf 'root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n' >"$base/etc/passwd"
printf 'root:x:0:\nnogroup:x:65534:\n' >"$base/etc/group"
pack "$base" "$work/base.tar"

# Layer 2 of web: the responder. Layer 2 of visitor: the loop.
mkdir -p "$work/web/bin" "$work/visitor/bin"
gcc -static -Os -s -Wall -Wl,--build-id=none -o "$work/web/bin/responder" "$here/responder.c"
install -m 755 "$here/visit.sh" "$work/visitor/bin/visit"
pack "$work/web" "$work/web-layer.tar"
pack "$work/visitor" "$work/visitor-layer.tar"

path='"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"'
for version in 1 2; do
  image web $version "\"Env\":[$path,\"VERSION=$version\"],\"Entrypoint\":[\"/bin/responder\"],\"ExposedPorts\":{\"80/tcp\":{}}" \
    "$work/base.tar" "$work/web-layer.tar"
done
image visitor 1 "\"Env\":[$path],\"Cmd\":[\"/bin/visit\"]" "$work/base.tar" "$work/visitor-layer.tar"
image busybox 1 "\"Env\":[$path],\"Cmd\":[\"sh\"]" "$work/base.tar"
echo "$stamp" >"$out/.stamp"
