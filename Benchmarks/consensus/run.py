#!/usr/bin/env python3
"""orch's consensus and store beside etcd, on one disk, both with real fsync; then orch's store, state and scheduler alone.

usage: run.py PROGRAMS_DIR [--turns 5] [--seconds 5] [--tasks 1000000] [--only etcd,store,state,placement,dispatch]

Needs Debian's etcd-server, libssl-dev and gcc (run.sh installs them). Everything is in one folder below --folder (default: the current
one, which must be on the disk to be measured) and is removed at the end. etcd runs with its defaults; `turns` alternate the two systems,
every figure is the median of its turns.
"""
import argparse, atexit, datetime, os, shutil, signal, socket, statistics, subprocess, sys, tempfile, time

HERE = os.path.dirname(os.path.abspath(__file__))
CLIENTS = (1, 64, 1000)
processes = []


def start(command, **options):
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, **options)
    processes.append(process)
    return process


def stop(members):
    for process in members:
        process.kill()
        process.wait()
        processes.remove(process)
        if process.stdout:
            process.stdout.close()


def load():
    return os.getloadavg()[0]


class Orch:
    """Members as the managers run them: TLS, frames, SQLite with synchronous=FULL."""
    name = program = "orch"

    def __init__(self, bench, folder, members):
        self.folder = folder
        subprocess.run([bench, "identities", folder, str(members)], check=True)
        self.members = []
        for number in range(1, members + 1):
            log = open(f"{folder}/{number}.log", "w")
            self.members.append(start([bench, "member", folder, str(number), str(members)], stdout=subprocess.PIPE, stderr=log, text=True))
            log.close()
            if "listens" not in self.members[-1].stdout.readline():
                raise SystemExit(f"orch's member {number} did not start: {open(f'{folder}/{number}.log').read()}")
        for member in self.members:
            if "ready" not in member.stdout.readline():
                raise SystemExit(f"orch's members did not meet: {open(f'{folder}/1.log').read()}")
        self.target = ["127.0.0.1:23901"]
        self.extra = [f"{folder}/client"]


class Etcd:
    """Debian's etcd with its defaults, with mutual TLS 1.3 on every connection as orch has it (P-256 keys as orch's); the clients ask the
    leader, as in etcd's own published benchmark."""
    name, program = "etcd with TLS", "etcd"
    scheme = "https"

    def __init__(self, _, folder, members):
        self.flags, self.extra = [], []
        if self.scheme == "https":
            certificates(folder)
            pair = {"cert-file": "node.pem", "key-file": "node.key", "trusted-ca-file": "ca.pem"}
            for prefix in ("", "peer-"):
                self.flags += [f"--{prefix}{flag}={folder}/{file}" for flag, file in pair.items()] + [f"--{prefix}client-cert-auth"]
            self.extra = [folder]
            self.asking = [f"--cacert={folder}/ca.pem", f"--cert={folder}/node.pem", f"--key={folder}/node.key"]
        peers = ",".join(f"m{n}={self.scheme}://127.0.0.1:{23800 + n}" for n in range(1, members + 1))
        self.members = []
        for n in range(1, members + 1):
            client, peer = f"{self.scheme}://127.0.0.1:{23700 + n}", f"{self.scheme}://127.0.0.1:{23800 + n}"
            with open(f"{folder}/{n}.log", "w") as log:
                self.members.append(start(
                    ["etcd", "--name", f"m{n}", "--data-dir", f"{folder}/{n}", "--listen-client-urls", client, "--advertise-client-urls", client,
                     "--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer, "--initial-cluster", peers, "--logger", "zap",
                     "--log-level", "error", *self.flags], stdout=log, stderr=log))
        self.target = [f"127.0.0.1:{23700 + self.leader(members)}"]

    def leader(self, members):
        endpoints = ",".join(f"{self.scheme}://127.0.0.1:{23700 + n}" for n in range(1, members + 1))
        for _ in range(100):
            out = subprocess.run(["etcdctl", *self.asking, "--endpoints", endpoints, "endpoint", "status"], capture_output=True, text=True,
                                 env={**os.environ, "ETCDCTL_API": "3"}).stdout
            for line in out.splitlines():
                words = [word.strip() for word in line.split(",")]
                if len(out.splitlines()) == members and len(words) > 4 and words[4] == "true":
                    return int(words[0].rsplit(":", 1)[1]) - 23700
            time.sleep(0.1)
        raise SystemExit("etcd elected nobody within 10 s")


class PlainEtcd(Etcd):
    """The same without any TLS, which is etcd's default and nobody's cluster."""
    name = "etcd without TLS"
    scheme = "http"
    asking = []


def certificates(folder):
    """node.pem and node.key, for servers and clients alike, and the ca.pem that signed it."""
    with open(f"{folder}/extensions", "w") as file:
        file.write("subjectAltName=IP:127.0.0.1\nextendedKeyUsage=serverAuth,clientAuth\n")
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    for command in (
        ["req", "-x509", *key, "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=bench", "-days", "2"],
        ["req", *key, "-keyout", "node.key", "-out", "node.csr", "-subj", "/CN=node"],
        ["x509", "-req", "-in", "node.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-out", "node.pem", "-days", "2", "-extfile", "extensions"],
    ):
        subprocess.run(["openssl", *command], cwd=folder, check=True, capture_output=True)


SYSTEMS = [Orch, Etcd, PlainEtcd]


def cpu(members):
    """Seconds of CPU that the members used so far."""
    total = 0
    for process in members:
        with open(f"/proc/{process.pid}/stat") as file:
            words = file.read().rsplit(")", 1)[1].split()
        total += int(words[11]) + int(words[12])
    return total / os.sysconf("SC_CLK_TCK")


def compare(arguments, root):
    figures = {}
    for members in arguments.members:
        for turn in range(arguments.turns):
            for system in SYSTEMS[turn % len(SYSTEMS):] + SYSTEMS[:turn % len(SYSTEMS)]:
                folder = tempfile.mkdtemp(dir=root)
                running = system(arguments.bench, folder, members)
                subprocess.run([arguments.load, running.program, *running.target, "fill", "64", "1", *running.extra], check=True, timeout=300)
                for operation in arguments.operations:
                    for clients in arguments.clients:
                        before, began = cpu(running.members), time.monotonic()
                        out = subprocess.run([arguments.load, running.program, *running.target, operation, str(clients), str(arguments.seconds), *running.extra],
                                             capture_output=True, text=True)
                        if out.returncode:
                            print(f"{running.name} {operation} {clients}: {out.stderr.strip()}", file=sys.stderr)
                            continue
                        rate, p50, p99, worst, failed, own = map(float, out.stdout.split())
                        used = (cpu(running.members) - before) / (time.monotonic() - began)
                        figures.setdefault((members, operation, clients, running.name), []).append((rate, p50, p99, worst, failed, used, own))
                        print(f"  {members} members, {operation}, {clients} clients, {running.name}: {rate:.0f}/s p50 {p50:.2f} p99 {p99:.2f} worst {worst:.0f} ms, "
                              f"failed {failed:.0f}, CPU members {used:.2f} ({used / rate * 1e6:.0f} us each) clients {own:.2f}, load {load():.1f}", file=sys.stderr)
                stop(running.members)
                shutil.rmtree(folder)

    def middle(key, field): return statistics.median(sample[field] for sample in figures[key])
    print("| | orch: per s | p50 / p99 ms | CPU us | " + " | ".join(f"{system.name}: per s | p50 / p99 ms | CPU us | orch / it" for system in SYSTEMS[1:]) + " |")
    print("| --- " * (4 * len(SYSTEMS)) + "|")
    for members in arguments.members:
        for operation in arguments.operations:
            for clients in arguments.clients:
                row = []
                for system in SYSTEMS:
                    key = (members, operation, clients, system.name)
                    if key not in figures:
                        row += ["failed"] + ["-"] * (2 if system is Orch else 3)
                        continue
                    failed = sum(sample[4] for sample in figures[key])
                    row += [f"{middle(key, 0):.0f}" + (f" ({failed:.0f} failed)" if failed else ""), f"{middle(key, 1):.2f} / {middle(key, 2):.2f}"]
                    row.append(f"{middle(key, 5) / middle(key, 0) * 1e6:.0f}")
                    if system is not Orch:
                        own = (members, operation, clients, Orch.name)
                        row.append(f"{middle(own, 0) / middle(key, 0):.2f}" if own in figures else "-")
                what = "linearizable reads" if operation == "read" else "writes"
                print(f"| {members} member{'s' * (members > 1)}, {what}, {clients} client{'s' * (clients > 1)} | " + " | ".join(row) + " |")
    print()


def alone(arguments, root, part, *parameters):
    """A part of consensus-bench that prints its own figures."""
    out = subprocess.run([arguments.bench, part, *parameters], capture_output=True, text=True)
    if out.returncode:
        print(f"| {part} | failed: {out.stderr.strip()[-200:]} |")
        return
    for line in out.stdout.splitlines():
        name, value = line.split("\t")
        number = float(value)
        print(f"| {name} | {number:,.0f} |" if number >= 100 or number == int(number) else f"| {name} | {number:.3g} |")
        sys.stdout.flush()


def main():
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("programs")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=5)
    parser.add_argument("--tasks", type=int, default=1_000_000)
    parser.add_argument("--clients", type=lambda text: [int(word) for word in text.split(",")], default=list(CLIENTS))
    parser.add_argument("--operations", type=lambda text: text.split(","), default=["write", "read"], help="of write,read")
    parser.add_argument("--only", default="etcd,store,state,placement,dispatch")
    parser.add_argument("--members", type=lambda text: [int(word) for word in text.split(",")], default=[1, 3])
    parser.add_argument("--folder", default=".")
    arguments = parser.parse_args()
    arguments.bench = os.path.join(os.path.abspath(arguments.programs), "consensus-bench")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    root = tempfile.mkdtemp(prefix="consensus-bench-", dir=arguments.folder)
    atexit.register(lambda: (stop(list(processes)), shutil.rmtree(root, ignore_errors=True)))
    root = os.path.abspath(root)
    arguments.load = f"{root}/load"
    subprocess.run(["gcc", "-O2", "-Wall", "-o", arguments.load, f"{HERE}/load.c", "-lssl", "-lcrypto"], check=True)
    parts = arguments.only.split(",")
    print(f"{datetime.date.today()}, {os.cpu_count()} cores, load {load():.1f} at the start\n")
    if "etcd" in parts:
        compare(arguments, root)
    table = "| | |\n| --- | --- |"
    if "store" in parts:
        print(table)
        alone(arguments, root, "store", root)
        print()
    if "state" in parts:
        print(table)
        alone(arguments, root, "make", root, str(arguments.tasks))
        alone(arguments, root, "load", root)
        alone(arguments, root, "snapshot", root)
        print()
    if "placement" in parts:
        print(table)
        alone(arguments, root, "placement", "10000", str(arguments.tasks))
        print()
    if "dispatch" in parts:
        print(table)
        alone(arguments, root, "dispatch", "1000")
        print()
    print(f"load {load():.1f} at the end")


if __name__ == "__main__":
    main()
