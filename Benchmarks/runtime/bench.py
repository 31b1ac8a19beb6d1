#!/usr/bin/env python3
"""A container's life: the agent's library and orch-runtime beside crun, runc and a C program that does the least (floor.c), in one run, in turns.
usage: bench.py FOLDER-OF-PROGRAMS [--rounds N] [--only life,run,exec,parallel,memory,agent] [--crun PROGRAM]
(root; installs crun and runc of Debian, gcc and busybox where they are missing)

The container: busybox `true` on an overlay of one layer, docker's capabilities and seccomp list, 64 MiB, 64 processes, a network namespace of its own.
--crun: another crun beside Debian's. Whatever was made is removed at the end, however it comes."""
import argparse, atexit, faulthandler, ctypes, json, os, pathlib, re, shutil, signal, statistics, subprocess, sys, tempfile, time

PARTS = ["life", "run", "exec", "parallel", "memory", "agent"]
parser = argparse.ArgumentParser()
parser.add_argument("programs")
parser.add_argument("--rounds", type=int, default=5, help="turns of five lives each")
parser.add_argument("--only", default=",".join(PARTS))
parser.add_argument("--crun", help="a crun that is measured beside Debian's")
arguments = parser.parse_args()
wanted = arguments.only.split(",")
if set(wanted) - set(PARTS):
    parser.error(f"--only: parts are {', '.join(PARTS)}")
if os.geteuid() != 0:
    sys.exit("needs root")
programs = pathlib.Path(arguments.programs).resolve()
needed = {"crun": "crun", "runc": "runc", "gcc": "gcc", "busybox": "busybox-static"}
missing = [package for name, package in needed.items() if not shutil.which(name)]
if missing:
    subprocess.run(["apt-get", "install", "-y", "-qq", *missing], check=True, stdout=subprocess.DEVNULL)
# A mount namespace of our own, so that no mount stays. Debian 12's crun makes no containers where both versions of cgroups are mounted: then all
# see v1 alone.
if "ORCH_BENCH_INSIDE" not in os.environ:
    os.environ["ORCH_BENCH_INSIDE"] = "1"
    hide = "umount /sys/fs/cgroup/unified && " if os.path.ismount("/sys/fs/cgroup/unified") else ""
    os.execvp("unshare", ["unshare", "-m", "sh", "-c", f'{hide}exec "$@"', "sh", sys.executable, *sys.argv])

faulthandler.register(signal.SIGUSR1)
folder = pathlib.Path(tempfile.mkdtemp(prefix="orch-runtime-bench-"))
libc = ctypes.CDLL(None, use_errno=True)
children, cluster = [], []


def groups():
    return [g for name in ["orch-floor", f"orch-bench-{os.getpid()}", "orch-runtime"] for g in pathlib.Path("/sys/fs/cgroup").glob(f"**/{name}") if g.is_dir()]


before = groups()


def clean():
    signal.alarm(0)
    for command in cluster:
        subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    for child in children:
        child.kill()
        child.wait()
    for name, runtime in runtimes.items():
        for id in [p.name for p in (folder / "state" / name).glob("*")]:
            subprocess.run([runtime, "--root", f"{folder}/state/{name}", "delete", "--force", id], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    for _ in range(50):
        left = [g for g in groups() if g not in before]
        for group in left:
            for inside in sorted(group.glob("**/cgroup.procs"), key=lambda p: -len(p.parts)):
                for pid in inside.read_text().split():
                    try:
                        os.kill(int(pid), signal.SIGKILL)
                    except OSError:
                        pass
                try:
                    inside.parent.rmdir()
                except OSError:
                    pass
        if not left:
            break
        time.sleep(0.1)
    libc.umount2(str(folder / "bundle/rootfs").encode(), 2)
    shutil.rmtree(folder, ignore_errors=True)


runtimes = {"orch-runtime": str(programs / "orch-runtime"), "crun": shutil.which("crun"), "runc": shutil.which("runc")}
if arguments.crun:
    runtimes["crun "] = str(pathlib.Path(arguments.crun).resolve())
atexit.register(clean)
for number in [signal.SIGTERM, signal.SIGINT, signal.SIGHUP]:
    signal.signal(number, lambda *_: sys.exit(1))


def version(name):
    text = subprocess.run([runtimes[name], "--version"], capture_output=True, text=True).stdout
    return f"{name.strip()} {re.search(r'[0-9]+[.][0-9]+[.][0-9]+', text).group(0)}" if name != "orch-runtime" else name


# MARK: the programs

for part in ["layer/bin", "floor", "bundle/rootfs", "upper", "work"]:
    (folder / part).mkdir(parents=True)
shutil.copy(shutil.which("busybox"), folder / "layer/bin/busybox")
for name in ["true", "sleep"]:
    (folder / "layer/bin" / name).symlink_to("busybox")
here = pathlib.Path(__file__).parent
subprocess.run(["gcc", "-O2", "-Wall", "-o", folder / "floor.out", here / "floor.c"], check=True)


class Library:
    """runtime-bench: one line of command, one line of JSON."""

    def __init__(self, name, *options):
        self.process = subprocess.Popen([programs / "runtime-bench", folder / name, folder / "layer", programs / "orch-init", f"orch-bench-{os.getpid()}/{name}", *options],
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        children.append(self.process)

    def __call__(self, *words):
        self.process.stdin.write(" ".join(map(str, words)) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            sys.exit(f"runtime-bench ended at {words}")
        return json.loads(line)


def floor(mode, *words):
    done = subprocess.run([folder / "floor.out", mode, folder / "layer", folder / "floor", folder / "filter", *map(str, words)], check=True, capture_output=True, text=True)
    return [list(map(float, line.split())) for line in done.stdout.splitlines()]


cold, pooled = Library("cold", "--no-pool"), Library("pooled")
profile = cold("filter", folder / "filter")
subprocess.run(["runc", "spec"], cwd=folder / "bundle", check=True)
config = json.loads((folder / "bundle/config.json").read_text())
config["process"] |= {"terminal": False}
config["process"]["capabilities"] = {kind: [f"CAP_{c}" for c in "CHOWN DAC_OVERRIDE FSETID FOWNER MKNOD NET_RAW SETGID SETUID SETFCAP SETPCAP NET_BIND_SERVICE SYS_CHROOT KILL AUDIT_WRITE".split()]
                                     for kind in ["bounding", "effective", "permitted"]}
config["root"]["readonly"] = False
config["ociVersion"] = "1.0.0"
config["linux"]["seccomp"] = profile
config["linux"]["resources"] |= {"memory": {"limit": 64 << 20}, "pids": {"limit": 64}}


def write(*args):
    config["process"]["args"] = list(args)
    (folder / "bundle/config.json").write_text(json.dumps(config))


null = os.open("/dev/null", os.O_RDWR)
errors = os.open(folder / "errors", os.O_RDWR | os.O_CREAT)


def spawn(name, *args):
    # posix_spawn: subprocess would add a millisecond of Python's own. Files, since a container keeps its outputs open.
    actions = [(os.POSIX_SPAWN_DUP2, null, 0), (os.POSIX_SPAWN_DUP2, null, 1), (os.POSIX_SPAWN_DUP2, errors, 2)]
    return os.posix_spawn(runtimes[name], [runtimes[name], "--root", f"{folder}/state/{name}", *args], os.environ, file_actions=actions)


def call(name, *args):
    _, status = os.waitpid(spawn(name, *args), 0)
    if status != 0:
        sys.exit(f"{name} {' '.join(args)}: {(folder / 'errors').read_text()}")


root = str(folder / "bundle/rootfs").encode()


def mount():
    """The bundle's root is an overlay, which an OCI runtime leaves to its caller: the caller's two calls are part of a life."""
    shutil.rmtree(folder / "work/work", ignore_errors=True)
    data = f"lowerdir={folder}/layer,upperdir={folder}/upper,workdir={folder}/work,volatile"
    if libc.mount(b"overlay", root, b"overlay", 0, data.encode()):
        sys.exit(f"mount overlay: {os.strerror(ctypes.get_errno())}")


def unmount():
    libc.umount2(root, 2)


def mounted(body):
    mount()
    try:
        body()
    finally:
        unmount()


def milliseconds(body):
    begin = time.perf_counter()
    body()
    return (time.perf_counter() - begin) * 1000


def state(name, id):
    out = subprocess.run([runtimes[name], "--root", f"{folder}/state/{name}", "state", id], capture_output=True, text=True).stdout
    return json.loads(out)["status"]


def show(values):
    values = sorted(values)
    return f"{statistics.median(values):.1f} / {values[int(len(values) * 0.9)]:.1f}" if values else "-"


def table(head, rows):
    print("\n| " + " | ".join(head) + " |\n|" + " --- |" * len(head))
    for row in rows:
        print("| " + " | ".join(str(cell) for cell in row) + " |")
    sys.stdout.flush()


# MARK: the parts

count = 5
names = list(runtimes)
begin = time.monotonic()
print(f"{arguments.rounds} rounds of {count}, load {os.getloadavg()[0]:.1f}, cgroup v{2 if os.path.exists('/sys/fs/cgroup/cgroup.controllers') else 1}; median / p90 in ms", flush=True)
times = {}
middle = lambda key: statistics.median(times[key])
if "life" in wanted or "run" in wanted:
    write("true")
    for turn in range(arguments.rounds + 1):
        def keep(key, values):
            if turn > 0:
                times.setdefault(key, []).extend(values)
        for mode in ["cold", "warm"]:
            lives = floor(mode, count)
            keep(f"floor {mode}", [life[0] for life in lives])
            keep(f"floor {mode}, all", [life[1] for life in lives])
        for mode, library in [("cold", cold), ("pooled", pooled)]:
            lives = library("lives", count)
            keep(mode, [life[1] for life in lives])
            keep(f"{mode}, all", [life[2] for life in lives])
        for name in names:
            for number in range(count):
                keep(f"run {name}", [milliseconds(lambda: mounted(lambda: call(name, "run", "--bundle", f"{folder}/bundle", f"r{turn}-{number}")))])
    if "life" in wanted:
        crun = "run crun " if "run crun " in times else "run crun"
        table(["start to exit; and until nothing is left", "exit", "all removed", "beside", "aim"], [
            ["C floor, cold", show(times["floor cold"]), show(times["floor cold, all"]), "", ""],
            ["C floor, namespaces and cgroup made before", show(times["floor warm"]), show(times["floor warm, all"]), "", ""],
            ["the agent's library, cold", show(times["cold"]), show(times["cold, all"]),
             f"{middle('cold') / middle('floor cold'):.2f} of the cold floor; {middle(crun) / middle('cold, all'):.1f} times as fast as {version(crun[4:])}", "<= 1.3; >= 2"],
            ["the agent's library, pooled", show(times["pooled"]), show(times["pooled, all"]), f"{middle('pooled') / middle('floor warm'):.2f} of the warm floor", "<= 5 ms"],
            *[[f"`{version(name)} run`", "", show(times[f"run {name}"]), f"{middle(f'run {name}') / middle('floor cold, all'):.1f} of the floor's", ""] for name in names]])
if "run" in wanted:
    for turn in range(arguments.rounds * 2):
        for name in names:
            id, total = f"c{turn}", 0
            def step(key, *args):
                spent = milliseconds(lambda: call(name, *args))
                times.setdefault(f"{key} {name}", []).append(spent)
                return spent
            def body():
                global spent
                spent = step("create", "create", "--bundle", f"{folder}/bundle", id) + step("start", "start", id)
                while state(name, id) != "stopped":
                    pass
                spent += step("delete", "delete", id)
            mounted(body)
            times.setdefault(f"the three {name}", []).append(spent)
    table(["", *map(version, names), "crun / orch-runtime"],
          [[key, *[show(times[f"{key} {name}"]) for name in names], f"{middle(f'{key} crun') / middle(f'{key} orch-runtime'):.2f}"] for key in ["create", "start", "delete", "the three", "run"]])
if "exec" in wanted:
    write("sleep", "1000")
    mount()
    for name in names:
        call(name, "run", "--detach", "--bundle", f"{folder}/bundle", f"held-{names.index(name)}")
    cold("hold", 1)
    for turn in range(arguments.rounds + 1):
        for key, values in [("library", cold("exec", count)), *[(name, [milliseconds(lambda: call(name, "exec", f"held-{names.index(name)}", "true")) for _ in range(count)]) for name in names]]:
            if turn > 0:
                times.setdefault(f"exec {key}", []).extend(values)
    cold("release", 1)
    for name in names:
        call(name, "delete", "--force", f"held-{names.index(name)}")
    unmount()
    table(["exec of `true`", "the agent's library", *map(version, names), "aim"], [["", *[show(times[f"exec {key}"]) for key in ["library", *names]], "<= 5 ms"]])
if "parallel" in wanted:
    seconds, jobs = 2, 8
    write("true")

    def parallel(name):
        # The same eight roots all the time; what is counted are whole lives.
        lives, running, end = 0, {}, time.monotonic() + seconds
        while running or time.monotonic() < end:
            while len(running) < jobs and time.monotonic() < end:
                lives += 1
                running[spawn(name, "run", "--bundle", f"{folder}/bundle", f"p{lives}")] = 1
            pid, status = os.waitpid(-1, 0)
            if running.pop(pid, None) and status != 0:
                sys.exit(f"{name}: {(folder / 'errors').read_text()}")
        return lives / (time.monotonic() - end + seconds)

    rates = {}
    for turn in range(3):
        for key, measure in [("C floor", lambda: floor("parallel", seconds, jobs)[0][0]), ("C floor, one at a time", lambda: floor("parallel", seconds, 1)[0][0]),
                             ("the agent's library", lambda: cold("parallel", seconds, jobs)), ("the same with its pool", lambda: pooled("parallel", seconds, jobs))]:
            rates.setdefault(key, []).append(measure())
        mount()
        for name in names:
            rates.setdefault(f"`{version(name)} run`, one root", []).append(parallel(name))
        unmount()
    table([f"{jobs} at a time: whole lives a second", "median of 3", "of the floor", "aim"],
          [[key, f"{statistics.median(values):.0f}", f"{statistics.median(values) / statistics.median(rates['C floor']):.2f}", ">= 200" if "library" in key else ""] for key, values in rates.items()])


def weigh(pid):
    text = pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text()
    return [int(re.search(rf"^{key}: +([0-9]+)", text, re.M).group(1)) / 1024 for key in ["Pss", "Rss"]]


if "memory" in wanted:
    held = cold("hold", 20)
    monitors = [int(pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1]) for pid in held]
    weights = [weigh(pid)[0] for pid in monitors]
    cold("release", 20)
    stubs = [[pid, int(pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])] for pid in pooled("stubs")]
    table(["memory", "MiB", "aim"], [
        ["PSS of a running container's monitor (orch-init), of 20", f"{statistics.median(weights):.2f}", "<= 0.6"],
        [f"PSS of a stub that waits in the pool ({len(stubs)} of them): its monitor and itself", f"{statistics.median(sum(weigh(p)[0] for p in pair) for pair in stubs):.2f}" if stubs else "-", ""]])
if "agent" in wanted:
    name = "rtbench"
    orch = [str(programs / "orch"), "dev"]
    os.environ |= {"ORCH_DEV_CLUSTER": name, "PATH": f"{programs}:{os.environ['PATH']}"}
    cluster.append([*orch, "down"])
    subprocess.run([*orch, "up", "--hosts", "1"], check=True, stdout=subprocess.DEVNULL)
    told = subprocess.run([*orch, "env"], check=True, capture_output=True, text=True).stdout
    os.environ["ORCH_HOST"] = re.search(r"ORCH_HOST=(\S+)", told).group(1)
    subprocess.run([here.parent.parent / "deploy/images/build.sh", folder / "images"], check=True, stdout=subprocess.DEVNULL)
    subprocess.run([programs / "orch", "image", "load", folder / "images/busybox-1.tar"], check=True, stdout=subprocess.DEVNULL)
    hosts = subprocess.run([*orch, "hosts", "--format", "json"], check=True, capture_output=True, text=True).stdout
    agents = [int(json.loads(line)["Agent"]) for line in hosts.splitlines()]
    time.sleep(3)  # an agent gives back what its start left after a second without work
    idle = [weigh(pid) for pid in agents]
    (folder / "hundred.yaml").write_text("name: rtbench\nservices:\n  hundred:\n    image: busybox:1\n    command: [sleep, '1000']\n    deploy: {replicas: 100}\n    init: false\n")
    spent = milliseconds(lambda: subprocess.run([programs / "orch", "deploy", folder / "hundred.yaml"], check=True, stdout=subprocess.DEVNULL))
    time.sleep(3)
    full = [weigh(pid) for pid in agents]
    table(["orch-agent on a host", "PSS", "RSS, MiB", "aim"], [
        ["without containers", f"{idle[0][0]:.1f}", f"{idle[0][1]:.1f}", ""],
        [f"with 100 containers (deployed in {spent / 1000:.1f} s)", f"{full[0][0]:.1f}", f"{full[0][1]:.1f}", "<= 30"]])
print(f"\n{time.monotonic() - begin:.0f} s, load at the end {os.getloadavg()[0]:.1f}")
