#!/usr/bin/env python3
"""Pull, unpack and push of one image of 500 MB: orch's store beside podman and beside skopeo (with umoci to unpack), in turns.
usage: bench.py FOLDER-OF-PROGRAMS [--turns N] [--megabytes N] [--only ROW,...]   (root; 4 minutes; installs Debian's docker-registry, skopeo, umoci, podman)
The image is made here from a seed: 6 layers, some 32,000 files of words and random bytes, packed by gzip and by zstd, in a docker-registry on loopback.
Each turn of each tool has a new ext4 of its own, a file mounted by loop: no other's writes are synced with it, and no inodes of the turn before are avoided.
Every row: medians of seconds until the tool ends; until a sync of its file system after it ends as well ("synced": only orch syncs by itself); CPU; largest memory."""
import argparse, ctypes, hashlib, io, json, os, pathlib, random, shutil, signal, statistics, subprocess, sys, tarfile, tempfile, time, urllib.request

parser = argparse.ArgumentParser()
parser.add_argument("programs")
parser.add_argument("--turns", type=int, default=2)
parser.add_argument("--megabytes", type=int, default=500)
parser.add_argument("--only", default="pull-gzip,pull-zstd,unpack,push")
arguments = parser.parse_args()
if os.geteuid() != 0:
    sys.exit("needs root")
needed = [name for name in ["docker-registry", "skopeo", "umoci", "podman", "zstd"] if not shutil.which(name)]
if needed:
    subprocess.run(["apt-get", "install", "-y", "-qq", "--no-install-recommends", *needed], check=True, stdout=subprocess.DEVNULL)
bench = str(pathlib.Path(arguments.programs).resolve() / "image-bench")
folder = pathlib.Path(tempfile.mkdtemp(prefix="orch-image-bench-", dir=os.environ.get("BENCH_TMP", "/var/tmp")))
source, target = 25000 + os.getpid() % 5000, 30000 + os.getpid() % 5000

# Cleaning is another's work, who sees this process end however it ends. Mounts are this process's own and go with it.
lifeline, held = os.pipe()
cleaner = subprocess.Popen(
    ["sh", "-c", 'cat; sleep 0.2; rm -rf "$0"', str(folder)], stdin=lifeline, stdout=subprocess.DEVNULL,
    stderr=subprocess.DEVNULL, start_new_session=True)
os.close(lifeline)
libc = ctypes.CDLL(None, use_errno=True)
if libc.unshare(0x20000) or libc.mount(None, b"/", None, 0x44000, None):  # CLONE_NEWNS; MS_REC | MS_PRIVATE
    sys.exit(f"a mount namespace: {os.strerror(ctypes.get_errno())}")
work = folder / "work"
work.mkdir()
signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))


def start(words, output):
    return subprocess.Popen(words, stdout=output, stderr=subprocess.STDOUT, preexec_fn=lambda: libc.prctl(1, signal.SIGKILL))


def run(*words):
    """CPU seconds and the largest resident memory in MiB."""
    with open(folder / "output", "w+b") as output:
        process = start(words, output)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode != 0:
            output.seek(0)
            raise RuntimeError(f"{' '.join(words)}: {output.read()[-2000:].decode(errors='replace')}")
    return usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def registry(port, name, place):
    """An empty one, or what was in it before; answers when it returns."""
    (folder / f"{name}.yml").write_text(
        f"version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {place}/{name}}}}}\nhttp: {{addr: '127.0.0.1:{port}'}}\n")
    process = start(["docker-registry", "serve", str(folder / f"{name}.yml")], subprocess.DEVNULL)
    for _ in range(600):
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/v2/").read()
            return process
        except OSError:
            time.sleep(0.05)
    raise RuntimeError("docker-registry does not answer")


def layers():
    """(name, tar) of six: what a system, a language's modules and a service look like, a fifth of the bytes in large files."""
    dice = random.Random(7)
    words = [bytes(dice.choices(b"etaoinshrdlucmfwypvbgk_", k=dice.randint(2, 11))) for _ in range(6000)]
    pool = b" ".join(dice.choices(words, k=1_500_000)) + dice.randbytes(5_000_000)
    files = 0
    for number, (share, middle) in enumerate([(0.25, 24_000), (0.2, 24_000), (0.15, 6_000), (0.1, 6_000), (0.2, 12_000_000), (0.1, 40_000)]):
        path, size, count = folder / f"layer{number}.tar", 0, 0
        with tarfile.open(path, "w", format=tarfile.GNU_FORMAT) as archive:
            while size < share * arguments.megabytes * 1_000_000:
                if count % 20 == 0:
                    place = f"opt/layer{number}/{'/'.join(dice.choices(['lib', 'share', 'modules', 'dist', 'locale'], k=dice.randint(1, 4)))}/{count}"
                    entry = tarfile.TarInfo(place)
                    entry.type, entry.mode, entry.mtime = tarfile.DIRTYPE, 0o755, 1_700_000_000
                    archive.addfile(entry)
                entry = tarfile.TarInfo(f"{place}/file{count}")
                entry.size, entry.mode, entry.mtime = min(int(dice.lognormvariate(0, 1) * middle * 0.6), 40_000_000), 0o644, 1_700_000_000
                archive.addfile(entry, Slices(pool, dice.randrange(len(pool)), entry.size))
                size, count = size + entry.size, count + 1
        files += count
        yield path, count


class Slices(io.RawIOBase):
    """`size` bytes of a pool, beginning somewhere, around its end."""
    def __init__(self, pool, offset, size):
        self.pool, self.offset, self.left = pool, offset, size

    def read(self, count=-1):
        part = self.pool[self.offset:self.offset + min(count, self.left)]
        self.left -= len(part)
        self.offset = (self.offset + len(part)) % len(self.pool)
        return part + self.read(count - len(part)) if len(part) < count and self.left else part


def renew():
    """An empty file system for the next turn."""
    if os.path.ismount(work):
        subprocess.run(["umount", "-R", work], check=True)
    disk = folder / "disk"
    disk.unlink(missing_ok=True)
    with open(disk, "wb") as file:
        file.truncate(6 << 30)
    subprocess.run(["mkfs.ext4", "-q", "-E", "nodiscard,lazy_itable_init=1", disk], check=True)
    subprocess.run(["mount", "-o", "loop", disk, work], check=True)
    os.sync()


def blob(layout, path, kind):
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    size = path.stat().st_size
    path.rename(layout / "blobs/sha256" / digest)
    return {"mediaType": f"application/vnd.oci.image.{kind}", "digest": f"sha256:{digest}", "size": size}


def document(layout, content, kind):
    (folder / "document").write_text(json.dumps(content))
    return blob(layout, folder / "document", kind)


def make():
    """Two OCI layouts of the same files."""
    made = {packing: folder / f"made-{packing}" for packing in ["gzip", "zstd"]}
    for layout in made.values():
        (layout / "blobs/sha256").mkdir(parents=True)
    packed, plain, files = {packing: [] for packing in made}, [], 0
    for path, count in layers():
        with open(path, "rb") as file:
            plain.append("sha256:" + hashlib.file_digest(file, "sha256").hexdigest())
        files += count
        processes = [start(["sh", "-c", f"gzip -5 < {path} > {path}.gzip"], None), start(["sh", "-c", f"zstd -q -3 < {path} > {path}.zstd"], None)]
        if any(process.wait() for process in processes):
            raise RuntimeError("gzip or zstd failed")
        for packing, layout in made.items():
            packed[packing].append(blob(layout, pathlib.Path(f"{path}.{packing}"), f"layer.v1.tar+{packing}"))
        path.unlink()
    for packing, layout in made.items():
        config = {"architecture": "amd64" if os.uname().machine == "x86_64" else "arm64", "os": "linux", "config": {}, "rootfs": {"type": "layers", "diff_ids": plain}}
        manifest = {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", "config": document(layout, config, "config.v1+json"), "layers": packed[packing]}
        index = dict(document(layout, manifest, "manifest.v1+json"), annotations={"org.opencontainers.image.ref.name": "1"})
        (layout / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [index]}))
        (layout / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
        print(f"{packing}: {sum(layer['size'] for layer in packed[packing]) // 1_000_000} MB in {len(plain)} layers, {files} files")


try:
    registry(source, "from", folder)
    make()
    podman_words = ["podman", "--root", f"{work}/podman", "--runroot", f"{work}/podman-run", "--storage-driver", "overlay"]
    skopeo = ["skopeo", "copy", "-q", "--insecure-policy", "--src-tls-verify=false", "--dest-tls-verify=false"]
    for packing in ["gzip", "zstd"]:
        run(*skopeo, f"oci:{folder}/made-{packing}:1", f"docker://127.0.0.1:{source}/big:{packing}")

    def both(first, second):
        return first[0] + second[0], max(first[1], second[1])

    def orch_pull(packing):
        return run(bench, "pull", f"127.0.0.1:{source}/big:{packing}", f"{work}/orch")

    def podman_pull(packing):
        return run(*podman_words, "pull", "-q", "--tls-verify=false", f"127.0.0.1:{source}/big:{packing}")

    def umoci_unpack(layout):
        return run("umoci", "unpack", "--image", f"{layout}:1", f"{work}/bundle")

    def skopeo_pull(packing):
        return both(run(*skopeo, f"docker://127.0.0.1:{source}/big:{packing}", f"oci:{work}/layout:1"), umoci_unpack(f"{work}/layout"))

    pushed = f"127.0.0.1:{target}/big:1"
    rows = {
        "pull-gzip": {"orch": lambda: orch_pull("gzip"), "podman": lambda: podman_pull("gzip"), "skopeo + umoci": lambda: skopeo_pull("gzip")},
        # umoci reads no zstd.
        "pull-zstd": {"orch": lambda: orch_pull("zstd"), "podman": lambda: podman_pull("zstd")},
        "unpack": {
            "orch": lambda: run(bench, "load", f"{folder}/made-gzip", f"{work}/orch"),
            "podman": lambda: run(*podman_words, "pull", "-q", f"oci:{folder}/made-gzip:1"),
            "umoci": lambda: umoci_unpack(f"{folder}/made-gzip"),
        },
        "push": {
            "orch": lambda: run(bench, "push", f"127.0.0.1:{source}/big:gzip", pushed, f"{work}/orch"),
            "podman": lambda: run(*podman_words, "push", "-q", "--tls-verify=false", f"127.0.0.1:{source}/big:gzip", f"docker://{pushed}"),
            "skopeo": lambda: run(*skopeo, f"oci:{folder}/made-gzip:1", f"docker://{pushed}"),
        },
    }

    print(f"load {os.getloadavg()[0]:.1f} before\n\n| | tool | s | synced, s | CPU, s | memory, MiB |\n| --- | --- | --- | --- | --- | --- |", flush=True)
    for row, tools in rows.items():
        if row not in arguments.only.split(","):
            continue
        taken = {tool: [] for tool in tools}
        # podman packs anew what it pushes: one turn of it says enough.
        for turn in range(arguments.turns):
            for tool, action in tools.items():
                if row == "push" and tool == "podman" and turn > 0:
                    continue
                renew()
                if row == "push":
                    {"orch": lambda: orch_pull("gzip"), "podman": lambda: podman_pull("gzip"), "skopeo": lambda: None}[tool]()
                    receiver = registry(target, "to", work)
                    os.sync()
                begin = time.perf_counter()
                processor, memory = action()
                done = time.perf_counter()
                subprocess.run(["sync", "-f", work], check=True)
                taken[tool].append((done - begin, time.perf_counter() - begin, processor, memory))
                if row == "push":
                    receiver.kill()
                    receiver.wait()
        medians = {tool: [statistics.median(turn[i] for turn in turns) for i in range(4)] for tool, turns in taken.items()}
        for tool, (seconds, synced, processor, memory) in medians.items():
            print(f"| {row} | {tool} | {seconds:.2f} | {synced:.2f} | {processor:.2f} | {memory:.0f} |")
        best = min(figures[1] for tool, figures in medians.items() if tool != "orch")
        print(f"| {row} | best other / orch | | {best / medians['orch'][1]:.2f} | | |", flush=True)
    print(f"\nload {os.getloadavg()[0]:.1f} after")
finally:
    os.close(held)
    # What still runs would write into the folder: the registries go first.
    for child in pathlib.Path(f"/proc/self/task/{os.getpid()}/children").read_text().split():
        if int(child) != cleaner.pid:
            os.kill(int(child), signal.SIGKILL)
    cleaner.wait()
