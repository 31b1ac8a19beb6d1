#!/usr/bin/env python3
"""orch-runtime beside crun and runc: the same bundle (busybox `true`), in turns.
usage: bench.py FOLDER-OF-PROGRAMS [--turns N]     (root; installs crun and runc of Debian where they are missing)
Each turn is create, start, wait for the end, delete; then an exec in a running container. Medians and the 90th percentile in ms."""
import argparse, json, os, pathlib, shutil, statistics, subprocess, sys, tempfile, time

parser = argparse.ArgumentParser()
parser.add_argument("programs")
parser.add_argument("--turns", type=int, default=20)
arguments = parser.parse_args()
if os.geteuid() != 0:
    sys.exit("needs root")
# Debian 12's crun makes no containers where both versions of cgroups are mounted: then all three see v1 alone, in a mount namespace of our own.
if os.path.ismount("/sys/fs/cgroup/unified"):
    os.execvp("unshare", ["unshare", "-m", "sh", "-c", 'umount /sys/fs/cgroup/unified && exec "$@"', "sh", sys.executable, *sys.argv])
for name in ["crun", "runc"]:
    if not shutil.which(name):
        subprocess.run(["apt-get", "install", "-y", "-qq", name], check=True, stdout=subprocess.DEVNULL)
runtimes = {"orch-runtime": str(pathlib.Path(arguments.programs).resolve() / "orch-runtime"), "crun": shutil.which("crun"), "runc": shutil.which("runc")}


def own_groups():
    # orch-runtime's own folder in each hierarchy stays for the next container; here it goes with the benchmark.
    return {str(g) for g in pathlib.Path("/sys/fs/cgroup").glob("**/orch-runtime") if g.is_dir()}


groups_before = own_groups()
folder = pathlib.Path(tempfile.mkdtemp(prefix="orch-runtime-bench-"))
root = folder / "bundle/rootfs"
(root / "bin").mkdir(parents=True)
shutil.copy("/bin/busybox", root / "bin/busybox")
for name in ["true", "sleep"]:
    (root / "bin" / name).symlink_to("busybox")
subprocess.run(["runc", "spec"], cwd=folder / "bundle", check=True)
config = json.loads((folder / "bundle/config.json").read_text())
config["process"]["terminal"] = False
config["ociVersion"] = "1.0.0"
config["mounts"] = [m for m in config["mounts"] if m["type"] != "cgroup"]
config["linux"]["resources"] |= {"memory": {"limit": 64 << 20}, "pids": {"limit": 64}}


def write(*args):
    config["process"]["args"] = list(args)
    (folder / "bundle/config.json").write_text(json.dumps(config))


def call(runtime, *args):
    # A file: containers keep their outputs open, and a pipe would be read until they end.
    with open(folder / "errors", "w+") as errors:
        done = subprocess.run([runtime, "--root", f"{folder}/{os.path.basename(runtime)}", *args], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                              stderr=errors)
        if done.returncode != 0:
            errors.seek(0)
            raise RuntimeError(f"{runtime} {' '.join(args)}: {errors.read()}")


def timed(times, key, body):
    begin = time.perf_counter()
    body()
    times.setdefault(key, []).append((time.perf_counter() - begin) * 1000)


def state(runtime, id):
    out = subprocess.run([runtime, "--root", f"{folder}/{os.path.basename(runtime)}", "state", id], capture_output=True, text=True).stdout
    return json.loads(out)["status"]


def life(runtime, id, times):
    begin = time.perf_counter()
    timed(times, "create", lambda: call(runtime, "create", "--bundle", f"{folder}/bundle", id))
    timed(times, "start", lambda: call(runtime, "start", id))
    spent = time.perf_counter() - begin
    while state(runtime, id) != "stopped":
        pass
    begin = time.perf_counter()
    timed(times, "delete", lambda: call(runtime, "delete", id))
    times.setdefault("create + start + delete", []).append((spent + time.perf_counter() - begin) * 1000)


results = {name: {} for name in runtimes}
try:
    for turn in range(arguments.turns + 2):
        for name, runtime in runtimes.items():
            times = results[name] if turn >= 2 else {}
            write("true")
            life(runtime, f"bench-{os.getpid()}-{turn}", times)
            timed(times, "run", lambda: call(runtime, "run", "--bundle", f"{folder}/bundle", f"bench-{os.getpid()}-{turn}r"))
    write("sleep", "1000")
    for name, runtime in runtimes.items():
        call(runtime, "create", "--bundle", f"{folder}/bundle", f"bench-{os.getpid()}-exec")
        call(runtime, "start", f"bench-{os.getpid()}-exec")
    for turn in range(arguments.turns + 2):
        for name, runtime in runtimes.items():
            timed(results[name] if turn >= 2 else {}, "exec", lambda: call(runtime, "exec", f"bench-{os.getpid()}-exec", "true"))
finally:
    for name, runtime in runtimes.items():
        subprocess.run([runtime, "--root", f"{folder}/{os.path.basename(runtime)}", "delete", "--force", f"bench-{os.getpid()}-exec"], stderr=subprocess.DEVNULL)
    shutil.rmtree(folder, ignore_errors=True)
    for group in own_groups() - groups_before:
        try:
            os.rmdir(group)
        except OSError:
            pass  # another's container is in it

print(f"{arguments.turns} turns, load {os.getloadavg()[0]:.1f}; median / p90 in ms")
print("| | " + " | ".join(runtimes) + " | crun / orch |\n| --- |" + " --- |" * (len(runtimes) + 1))
for key in ["create", "start", "delete", "create + start + delete", "run", "exec"]:
    cells = []
    for name in runtimes:
        values = sorted(results[name][key])
        cells.append(f"{statistics.median(values):.1f} / {values[int(len(values) * 0.9)]:.1f}")
    ratio = statistics.median(results["crun"][key]) / statistics.median(results["orch-runtime"][key])
    print(f"| {key} | " + " | ".join(cells) + f" | {ratio:.2f} |")
