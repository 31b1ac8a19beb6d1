#!/usr/bin/env python3
"""A pull and an unpacking of one image of 500 MB: orch's store beside podman and beside skopeo with umoci, in turns.
usage: bench.py FOLDER-OF-PROGRAMS [--turns N] [--megabytes N]     (root; installs Debian's docker-registry, skopeo, umoci and podman)
The image is real files of /usr in 5 layers, gzip as skopeo packs them, in a docker-registry on loopback. All write to one disk; podman syncs nothing,
umoci neither: `synced` is the time with a sync(1) after it, which orch's own does not need. Medians in seconds."""
import argparse, os, pathlib, shutil, statistics, subprocess, sys, tarfile, tempfile, time, urllib.request

parser = argparse.ArgumentParser()
parser.add_argument("programs")
parser.add_argument("--turns", type=int, default=3)
parser.add_argument("--megabytes", type=int, default=500)
arguments = parser.parse_args()
if os.geteuid() != 0:
    sys.exit("needs root")
for name in ["docker-registry", "skopeo", "umoci", "podman"]:
    if not shutil.which(name):
        subprocess.run(["apt-get", "install", "-y", "-qq", "--no-install-recommends", name], check=True, stdout=subprocess.DEVNULL)
bench = str(pathlib.Path(arguments.programs).resolve() / "image-bench")
folder = pathlib.Path(tempfile.mkdtemp(prefix="orch-image-bench-", dir=os.environ.get("BENCH_TMP", "/var/tmp")))
port = 25000 + os.getpid() % 5000
name = f"127.0.0.1:{port}/big:1"


def run(*words):
    done = subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(words)}: {done.stdout[-2000:]}")
    return done.stdout


def make_layers():
    """Files of /usr, one after the other, until each layer is full."""
    each = arguments.megabytes * 1_000_000 // 5
    files, layers, archive, size = 0, [], None, 0
    for place, _, names in os.walk("/usr"):
        for one in sorted(names):
            path = os.path.join(place, one)
            if os.path.islink(path) or not os.path.isfile(path) or os.path.getsize(path) > 40_000_000:
                continue
            if archive is None:
                layers.append(folder / f"layer{len(layers)}.tar")
                archive, size = tarfile.open(layers[-1], "w"), 0
            archive.add(path, path.lstrip("/"), recursive=False)
            files, size = files + 1, size + os.path.getsize(path)
            if size >= each:
                archive.close()
                archive = None
                if len(layers) == 5:
                    return layers, files
    archive.close()
    return layers, files


registry = None
try:
    (folder / "config.yml").write_text(
        f"version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {folder}/data}}}}\nhttp: {{addr: '127.0.0.1:{port}'}}\n")
    registry = subprocess.Popen(["docker-registry", "serve", str(folder / "config.yml")], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    layers, files = make_layers()
    run("umoci", "init", "--layout", f"{folder}/made")
    run("umoci", "new", "--image", f"{folder}/made:1")
    for layer in layers:
        run("umoci", "raw", "add-layer", "--image", f"{folder}/made:1", str(layer))
        layer.unlink()
    for _ in range(100):
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/v2/").read()
            break
        except OSError:
            time.sleep(0.1)
    run("skopeo", "copy", "--insecure-policy", "--dest-tls-verify=false", f"oci:{folder}/made:1", f"docker://{name}")
    packed = sum(path.stat().st_size for path in (folder / "made/blobs/sha256").iterdir())
    print(f"{arguments.megabytes} MB in {len(layers)} layers, {files} files, {packed // 1_000_000} MB packed; load {os.getloadavg()[0]:.1f} before")

    def orch():
        run(bench, "pull", name, f"{folder}/orch")

    def skopeo_umoci():
        run("skopeo", "copy", "--insecure-policy", "--src-tls-verify=false", f"docker://{name}", f"oci:{folder}/layout:1")
        run("umoci", "unpack", "--image", f"{folder}/layout:1", f"{folder}/bundle")

    def podman():
        run("podman", "--root", f"{folder}/podman", "--runroot", f"{folder}/podman-run", "--storage-driver", "overlay", "pull", "-q", "--tls-verify=false", name)

    def clean():
        for one in ["orch", "layout", "bundle", "podman", "podman-run"]:
            if (folder / one).exists():
                run("umount", "-R", "-q", f"{folder}/{one}/overlay") if os.path.ismount(f"{folder}/{one}/overlay") else None
                shutil.rmtree(folder / one)
        os.sync()

    times = {}
    for turn in range(arguments.turns + 1):
        for tool in [orch, skopeo_umoci, podman]:
            clean()
            begin = time.perf_counter()
            tool()
            done = time.perf_counter()
            os.sync()
            synced = time.perf_counter()
            # The first turn warms the registry's files.
            if turn > 0:
                times.setdefault(tool.__name__, []).append((done - begin, synced - begin))
    clean()
    best = min(statistics.median(t[1] for t in times[tool]) for tool in times if tool != "orch")
    print(f"load {os.getloadavg()[0]:.1f} after\n\n| tool | s | synced |\n| --- | --- | --- |")
    for tool, taken in times.items():
        print(f"| {tool.replace('_', ' + ')} | {statistics.median(t[0] for t in taken):.2f} | {statistics.median(t[1] for t in taken):.2f} |")
    print(f"\nthe best of the others / orch, synced: {best / statistics.median(t[1] for t in times['orch']):.2f}")
finally:
    if registry:
        registry.kill()
        registry.wait()
    shutil.rmtree(folder, ignore_errors=True)
