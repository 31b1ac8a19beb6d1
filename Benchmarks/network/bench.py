#!/usr/bin/env python3
"""Measures the network: what it carries beside a VXLAN made by hand, virtual IPs and published ports beside the address itself, names, and how fast
a change is everywhere.

usage: bench.py PROGRAMS_DIR [--turns 5] [--only overlay,virtual,published,names,changes,start,commit,returns,idle]     (root; about 7 minutes)

Rows of one table are taken in turns, and what counts is their ratio. All but `commit`, `returns` and `idle` drive the agent's rooms themselves (network-bench)
on two hosts that are network namespaces; those three a local cluster of three hosts. Everything made is removed at the end.
"""
import argparse, atexit, contextlib, ctypes, json, os, re, shutil, signal, socket, statistics, struct, subprocess, sys, tempfile, threading, time

sys.dont_write_bytecode = True
os.environ.setdefault("ORCH_DEV_CLUSTER", "nbench")
HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "cluster"))
from bench import CLUSTER, Cluster, Failed, Service, cpu, percentile, until, TERMINAL  # noqa: E402

PARTS = ["overlay", "virtual", "published", "names", "changes", "start", "commit", "returns", "idle"]
PORT = 7000
now = time.monotonic


def run(*arguments, net=None, timeout=60, check=True):
    """Output of a program, in a network namespace's file when one is given."""
    arguments = [*(["nsenter", f"--net={net}"] if net else []), *map(str, arguments)]
    done = subprocess.run(arguments, text=True, capture_output=True, timeout=timeout)
    if check and done.returncode != 0:
        raise Failed(f"{' '.join(arguments)}: {(done.stderr or done.stdout).strip()[-300:]}")
    return done.stdout


class Namespaces:
    """Hosts on one underlay, 192.168.79.0/24: two for orch (1, 2), two with a VXLAN made by hand (11, 12), and a client outside (100)."""
    names = {"h1": 1, "h2": 2, "m1": 11, "m2": 12, "out": 100}

    def __init__(self):
        self.prefix = f"onb{os.getpid()}"
        self.servers = []

    def path(self, name):
        return f"/run/netns/{self.prefix}{name}"

    def ip(self, name, *arguments):
        run("ip", "-n", self.prefix + name, *arguments)

    def build(self):
        for name in ["und", "c1", "c2", *self.names]:
            run("ip", "netns", "add", self.prefix + name)
            self.ip(name, "link", "set", "lo", "up")
        self.ip("und", "link", "add", "br0", "type", "bridge")
        self.ip("und", "link", "set", "br0", "up")
        for name, number in self.names.items():
            self.plug(name, "eth0", "und", f"p{number}", "br0", f"192.168.79.{number}/24", 1500)
        for number in (1, 2):
            host, other = f"m{number}", 3 - number
            self.ip(host, "link", "add", "vx0", "type", "vxlan", "id", "42", "dstport", "4789", "local", f"192.168.79.{10 + number}", "nolearning")
            self.ip(host, "link", "add", "br1", "type", "bridge")
            self.ip(host, "link", "set", "vx0", "mtu", "1450", "master", "br1", "up")
            self.ip(host, "link", "set", "br1", "mtu", "1450", "up")
            self.plug(f"c{number}", "eth0", host, "vc", "br1", f"10.78.0.{number}/24", 1450, f"02:00:00:00:01:0{number}")
            for mac in ("00:00:00:00:00:00", f"02:00:00:00:01:0{other}"):
                run("bridge", "-n", self.prefix + host, "fdb", "append", mac, "dev", "vx0", "dst", f"192.168.79.{10 + other}")

    def plug(self, name, device, host, port, bridge, address, mtu, mac=None):
        run("ip", "link", "add", device, "netns", self.prefix + name, "type", "veth", "peer", "name", port, "netns", self.prefix + host)
        self.ip(host, "link", "set", port, "mtu", mtu, "master", bridge, "up")
        self.ip(name, "link", "set", device, *(["address", mac] if mac else []), "mtu", mtu, "up")
        self.ip(name, "address", "add", address, "dev", device)

    def serve(self, net, *arguments):
        self.servers.append(subprocess.Popen(["nsenter", f"--net={net}", *map(str, arguments)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))

    def remove(self):
        for server in self.servers:
            server.kill()
            server.wait()
        for name in ["und", "c1", "c2", *self.names]:
            run("ip", "netns", "del", self.prefix + name, check=False)


class Rooms:
    """network-bench, by its commands."""

    def __init__(self, programs, folder, namespaces):
        self.process = subprocess.Popen([os.path.join(programs, "network-bench"), folder, namespaces.path("h1"), namespaces.path("h2")],
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.facts = self.answer()

    def answer(self):
        line = self.process.stdout.readline()
        if not line:
            raise Failed("network-bench ended")
        return json.loads(line)

    def ask(self, *words):
        self.process.stdin.write(" ".join(map(str, words)) + "\n")
        self.process.stdin.flush()
        answer = self.answer()
        if "error" in answer:
            raise Failed(answer["error"])
        return answer

    def close(self):
        self.process.stdin.close()
        try:
            self.process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self.process.kill()


class Changes(threading.Thread):
    """When elements leave the rules of a host, as the kernel tells (NFNLGRP_NFTABLES)."""

    def __init__(self, pid):
        super().__init__(daemon=True)
        self.pid, self.seen, self.ready = pid, [], threading.Event()
        self.start()
        self.ready.wait(5)

    def run(self):
        libc = ctypes.CDLL(None, use_errno=True)
        with open(f"/proc/{self.pid}/ns/net") as file:
            if libc.setns(file.fileno(), 0x40000000) != 0:
                return self.ready.set()
        self.socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 12)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
        self.socket.bind((0, 1 << 6))
        self.ready.set()
        while True:
            data = self.socket.recv(1 << 16)
            instant, offset = now(), 0
            while offset + 16 <= len(data):
                length, kind = struct.unpack_from("=IH", data, offset)
                if kind == 10 << 8 | 14:  # NFT_MSG_DELSETELEM
                    self.seen.append((instant, data[offset:offset + length]))
                offset += max(16, (length + 3) & ~3)

    def gone(self, address, since):
        """The instant at which no new connection goes to the address any more; None: not yet."""
        wanted = socket.inet_aton(address)
        for instant, message in list(self.seen):
            if instant >= since and b"backends\0" in message and wanted in message:
                return instant
        return None


class Bench:
    def __init__(self, programs, turns):
        self.programs, self.turns, self.rows, self.failures = os.path.abspath(programs), turns, [], 0
        self.folder = tempfile.mkdtemp(prefix="orch-network-bench-")
        self.namespaces, self.rooms, self.cluster = Namespaces(), None, None
        self.traffic = os.path.join(self.folder, "traffic")
        run("gcc", "-O2", "-o", self.traffic, os.path.join(HERE, "traffic.c"))

    def close(self):
        try:
            if self.rooms:
                self.rooms.close()
        finally:
            self.namespaces.remove()
            if self.cluster:
                self.cluster.down()
            shutil.rmtree(self.folder, ignore_errors=True)

    def row(self, what, ours, reference="-", ratio="-", aim="-"):
        self.rows.append((what, ours, reference, ratio, aim))
        print(f"  {what}: {ours} | {reference} | {ratio}", file=sys.stderr, flush=True)

    def attempt(self, name):
        print(f"{name} ...", file=sys.stderr, flush=True)
        try:
            if name in ("commit", "returns", "idle"):
                self.start_cluster()
            else:
                self.start_rooms()
            getattr(self, name)()
        except (Failed, OSError, subprocess.SubprocessError) as error:
            self.failures += 1
            self.row(name, f"failed: {error}")

    # --- two hosts ----------------------------------------------------------------------------------------------------------

    def start_rooms(self):
        if self.rooms:
            return
        self.namespaces.build()
        self.rooms = Rooms(self.programs, self.folder, self.namespaces)
        facts = self.rooms.facts
        self.caller, self.server, self.direct, self.virtual_ip = facts["caller"], facts["server"], facts["direct"], facts["virtual"]
        for net in (self.server, self.namespaces.path("c2"), self.namespaces.path("h2")):
            self.namespaces.serve(net, self.traffic, "server", PORT)
            self.namespaces.serve(net, "iperf3", "-s")
        time.sleep(0.5)
        for net, target in ((self.caller, self.direct), (self.caller, self.virtual_ip), (self.namespaces.path("c1"), "10.78.0.2"),
                            (self.namespaces.path("out"), "192.168.79.2")):
            self.trips(net, target, seconds=0.1)

    def throughput(self, net, target, udp=False, seconds=1.5):
        """Gbit/s that arrived."""
        options = ["-u", "-b", "0", "-l", 1400] if udp else []
        end = json.loads(run("iperf3", "-c", target, "-t", seconds, "-J", *options, net=net))["end"]
        if udp:
            # The receiver's count of what was lost is right, its time is not when the last datagrams are lost.
            total = end["sum"]
            return total["bits_per_second"] * (1 - total["lost_percent"] / 100) / 1e9
        return end["sum_received"]["bits_per_second"] / 1e9

    def trips(self, net, target, kind="tcp", port=PORT, seconds=1):
        """(median, p99) of a trip to and fro, us."""
        _, middle, late = map(float, run(self.traffic, "rtt", kind, target, port, seconds, net=net).split())
        return middle, late

    def echoed(self, net, target, port=PORT, seconds=1):
        """Gbit/s there and back again, by one connection."""
        return float(run(self.traffic, "stream", target, port, seconds, net=net))

    def connections(self, net, target, port=PORT, seconds=1):
        """(connections a second, median us of each) by 4 workers."""
        rate, middle, _ = map(float, run(self.traffic, "connect", target, port, seconds, 4, net=net).split())
        return rate, middle

    def compare(self, rows, ours, reference):
        """rows: (what, measure(net, target...) -> number, unit, better is more, aim). Each turn takes ours and the reference, in changing order."""
        for what, measure, unit, more, aim in rows:
            values = ([], [])
            for turn in range(self.turns):
                for side in ((0, 1), (1, 0))[turn % 2]:
                    values[side].append(measure(*(ours, reference)[side]))
            middle = [statistics.median(v) for v in values]
            ratio = statistics.median(a / b for a, b in zip(*values))
            show = lambda v, m: f"{m:.4g} {unit} ({min(v):.4g}-{max(v):.4g})"
            self.row(what, show(values[0], middle[0]), show(values[1], middle[1]), f"{ratio:.2f}" + ("" if more else " (less is better)"), aim)

    def overlay(self):
        self.rooms.ask("services", 1, 1)
        self.compare([
            ("overlay: TCP, one stream", self.throughput, "Gbit/s", True, ">= 0.95"),
            ("overlay: UDP that arrived, 1,400 bytes each", lambda *a: self.throughput(*a, udp=True), "Gbit/s", True, ">= 0.95"),
            ("overlay: trip of 64 bytes by TCP, median", lambda *a: self.trips(*a)[0], "us", False, "<= 1.05"),
            ("overlay: trip of 64 bytes by UDP, median", lambda *a: self.trips(*a, kind="udp")[0], "us", False, "<= 1.05"),
            ("overlay: connections", lambda *a: self.connections(*a)[0], "/s", True, ">= 0.95"),
        ], (self.caller, self.direct), (self.namespaces.path("c1"), "10.78.0.2"))

    def virtual(self):
        for count in (1, 100, 5000):
            self.rooms.ask("services", count, 2)
            self.compare([
                (f"virtual IP, {count:,} services: connections", lambda *a: self.connections(*a)[0], "/s", True, ">= 0.95"),
                (f"virtual IP, {count:,} services: trip, median", lambda *a: self.trips(*a)[0], "us", False, "<= 1.05"),
                (f"virtual IP, {count:,} services: TCP, one stream", self.throughput, "Gbit/s", True, ">= 0.95"),
            ], (self.caller, self.virtual_ip), (self.caller, self.direct))

    def published(self):
        self.rooms.ask("services", 1, 1)
        out = self.namespaces.path("out")
        for what, address in (("the task's own host", "192.168.79.2"), ("another host", "192.168.79.1")):
            self.compare([
                (f"published port of {what}: connections", lambda n, t, p: self.connections(n, t, p)[0], "/s", True, "-"),
                (f"published port of {what}: trip, median", lambda n, t, p: self.trips(n, t, port=p)[0], "us", False, "-"),
                (f"published port of {what}: TCP, one stream, echoed", lambda n, t, p: self.echoed(n, t, p), "Gbit/s", True, "-"),
            ], (out, address, self.rooms.facts["published"]), (out, "192.168.79.2", PORT))

    def names(self):
        """orch's resolver, one in C that answers whatever it is asked, and dnsmasq with the same names: each on 127.0.0.x:53 of the caller's namespace,
        asked by dnsperf from there, in turns."""
        self.rooms.ask("services", 1000, 2)
        made = self.rooms.ask("names")["zone"]
        queries, hosts = (os.path.join(self.folder, name) for name in ("queries", "hosts"))
        with open(queries, "w") as file:
            file.writelines(f"service{number * 7 % 1000} A\n" for number in range(1000))
        with open(hosts, "w") as file:
            file.writelines(f"10.99.{number // 250}.{number % 250 + 1} service{number}\n" for number in range(1000))
        self.namespaces.serve(self.caller, self.traffic, "answer", "127.0.0.12", 53)
        self.namespaces.serve(self.caller, "dnsmasq", "--keep-in-foreground", "--no-resolv", "--no-hosts", f"--addn-hosts={hosts}", "--conf-file=/dev/null", "--user=root",
                              "--pid-file=", "--bind-interfaces", "--listen-address=127.0.0.13", "--except-interface=eth0", "--except-interface=eth1")
        time.sleep(0.5)
        servers = {"orch": "127.0.0.11", "C": "127.0.0.12", "dnsmasq": "127.0.0.13"}
        rates, shares, late, missing = {name: [] for name in servers}, [], {}, 0

        def ask(server, *options):
            out = run("dnsperf", "-s", servers[server], "-d", queries, "-l", 2, "-c", 8, "-q", 100, *options, net=self.caller)
            if not re.search(r"NOERROR \d+ \(100", out):
                raise Failed(f"answers of {server} were not all NOERROR: " + out[-300:])
            return out

        for turn in range(self.turns):
            for server in list(servers)[turn % 3:] + list(servers)[:turn % 3]:
                before = self.rooms.ask("cpu")["seconds"]
                out = ask(server)
                rates[server].append(float(re.search(r"Queries per second:\s+([\d.]+)", out)[1]))
                if server == "orch":
                    done, lost = (int(re.search(rf"Queries {word}:\s+(\d+)", out)[1]) for word in ("completed", "lost"))
                    missing += lost
                    shares.append(done / (self.rooms.ask("cpu")["seconds"] - before))
                # Below saturation: what waits behind a queue that only grows is no latency of theirs.
                for pace in (25_000, 50_000):
                    times = [float(m) * 1000 for m in re.findall(r"^> \S+ \S+ \S+ ([\d.]+)", ask(server, "-Q", pace, "-v"), re.M)]
                    if len(times) < 100:
                        raise Failed(f"dnsperf asked {len(times)} questions in 2 s")
                    late.setdefault((server, pace), []).append((percentile(times, 0.99), statistics.median(times), len(times) / 2))
        show = lambda values, form: f"{statistics.median(values):{form}} ({min(values):{form}}-{max(values):{form}})"
        others = [name for name in servers if name != "orch"]
        self.row("names, 1,000 services: answers a second, dnsperf on the other core", f"{show(rates['orch'], ',.0f')}, {missing} lost",
                 "; ".join(f"{name}: {show(rates[name], ',.0f')}" for name in others),
                 "; ".join(f"{statistics.median(rates['orch']) / statistics.median(rates[name]):.2f}" for name in others))
        self.row("names, 1,000 services: answers for a second of CPU", show(shares, ",.0f"), aim=">= 50,000")
        for pace in (25_000, 50_000):
            p99 = {name: [p for p, _, _ in late[name, pace]] for name in servers}
            asked = {name: statistics.median(n for _, _, n in late[name, pace]) for name in servers}
            middle = {name: statistics.median(m for _, m, _ in late[name, pace]) for name in servers}
            tell = lambda name: f"{show(p99[name], '.2f')} ms, median {middle[name] * 1000:.0f} us, {asked[name]:,.0f}/s came"
            self.row(f"names, 1,000 services: p99 at {pace:,} questions a second", tell("orch"), "; ".join(f"{name}: {tell(name)}" for name in others),
                     "; ".join(f"{statistics.median(p99['orch']) / statistics.median(p99[name]):.2f}" for name in others) + " (less is better)", aim="< 1 ms")
        self.row("names, 1,000 services of 2 tasks: making all answers anew", f"{made:.1f} ms")

    def changes(self):
        for containers in (0, 20):
            self.rooms.ask("services", 1, 1)
            self.rooms.ask("containers", containers)
            for count in (1, 100, 5000):
                first = self.rooms.ask("services", count, 2)["apply"][0]
                times = self.rooms.ask("change", 20)
                apply, zone = sorted(times["apply"]), sorted(times["zone"])
                self.row(f"an endpoint changes on a host with {containers + 1} containers, {count:,} services of 2",
                         f"rules {statistics.median(apply):.1f} ms (worst of 20: {apply[-1]:.1f}), names {statistics.median(zone):.1f} ms (worst {zone[-1]:.1f})",
                         f"all at once: {first:.0f} ms")
        self.rooms.ask("containers", 0)

    def start(self):
        self.rooms.ask("services", 500, 2)
        self.rooms.ask("containers", 9)
        times = [self.rooms.ask("restart") for _ in range(5)]
        self.rooms.ask("containers", 0)
        whole = [t["recover"] + t["apply"] for t in times]
        self.row("an agent starts: 1,000 endpoints, 500 services, 10 containers adopted and compared",
                 f"{statistics.median(whole):.0f} ms ({min(whole):.0f}-{max(whole):.0f})")

    # --- a cluster ----------------------------------------------------------------------------------------------------------

    def start_cluster(self):
        if self.cluster:
            return
        self.cluster = Cluster(self.programs)
        self.cluster.down()
        self.cluster.up()
        self.cluster.load_images()

    @contextlib.contextmanager
    def watchers(self, service):
        """On every host the rules of a task that may call the service."""
        watcher = service.api.post("/services/create", {
            "Name": service.name + "-watcher", "Mode": {"Global": {}},
            "TaskTemplate": {"ContainerSpec": {"Image": "web:1"}, "Networks": [{"Target": service.name}]}})["ID"]
        mine = lambda: [task for task in service.api.tasks(watcher) if task["Status"]["State"] == "running"]
        try:
            until("a task on each host watches", lambda: len(mine()) == 3, pause=0.05)
            yield [Changes(task["Status"]["ContainerStatus"]["PID"]) for task in mine()]
        finally:
            service.api.call("DELETE", f"/services/{watcher}")
            until("the watchers are gone", lambda: all(t["Status"]["State"] in TERMINAL for t in service.api.get("/tasks") if t["ServiceID"] == watcher), pause=0.05)

    def commit(self):
        """A task is killed: until the rules of a task on every host lead nobody to it."""
        kills, commits, spent = [], [], 0.0
        leader = self.cluster.leader()
        for round in range(3):
            with self.cluster.service(f"commit{round}", 10, endpoint={"Mode": "vip"}) as service, self.watchers(service) as watches:
                time.sleep(0.5)
                for task in service.tasks():
                    address = task["NetworksAttachments"][0]["Addresses"][0].split("/")[0]
                    before, began = cpu(self.cluster.pid(leader, "Manager")), now()
                    os.kill(task["Status"]["ContainerStatus"]["PID"], signal.SIGKILL)
                    instants, _ = until("every host's rules changed", lambda: (lambda a: None if None in a else a)([w.gone(address, began) for w in watches]),
                                        limit=20)
                    kills.append((max(instants) - began) * 1000)
                    commits.append((max(instants) - min(instants)) * 1000)
                    spent += cpu(self.cluster.pid(leader, "Manager")) - before
                    service.settle(10)
                    time.sleep(0.1)
        self.row(f"a task is killed, until no host of 3 sends it a new connection ({len(kills)} kills)",
                 f"p50 {statistics.median(kills):.0f} ms, p99 {percentile(kills, 0.99):.0f} ms", aim="p99 < 100 ms")
        self.row("the same, from the first host's change to the last's", f"p50 {statistics.median(commits):.1f} ms, p99 {percentile(commits, 0.99):.1f} ms")
        self.row("the same, CPU of the leader's manager for each", f"{spent / len(kills) * 1000:.1f} ms")

    def returns(self):
        """A host is cut off, or loses its power, while 30 tasks move and a network comes: from its session until its tunnels, entries and rules stay as they are.
        (Interfaces of containers that were replaced meanwhile go 2 s later, with their namespaces.)"""
        leader = self.cluster.leader()
        api = self.cluster.managers[leader]
        victim = next(host["Name"] for host in self.cluster.hosts() if host["Name"] != leader)
        node = lambda: next(n for n in api.get("/nodes") if n["Description"]["Hostname"] == victim)
        script = ("bridge fdb show | grep 'dst ' | sort; ip neigh show nud permanent | sort; nft list ruleset; "
                  "ip -br link | awk '/^or(br|vx)/ {print $1}' | cut -d@ -f1 | sort")

        def look():
            done = subprocess.run(["nsenter", f"--net=/run/netns/orch-{CLUSTER}-{victim}", "sh", "-c", script], text=True, capture_output=True)
            # What counts packets changes by itself.
            return re.sub(r"packets \d+ bytes \d+|expires \S+", "", done.stdout) if done.returncode == 0 else ""

        class Looks(threading.Thread):
            def __init__(self):
                super().__init__(daemon=True)
                self.seen, self.ended = [], False
                self.start()

            def run(self):
                while not self.ended:
                    self.seen.append((now(), look()))

        rounds = {"partition": [], "reboot": []}
        for kind, times in rounds.items():
            for number in range(5):
                with self.cluster.service(f"{kind}{number}", 30, endpoint={"Mode": "vip"}) as service:
                    if kind == "reboot":
                        self.cluster.dev("kill", victim)
                    else:
                        for host in self.cluster.hosts():
                            if host["Name"] != victim:
                                self.cluster.dev("partition", victim, host["Name"])
                    until(f"{victim} is down", lambda: node()["Status"]["State"] == "down", pause=0.05)
                    until("its tasks run elsewhere", lambda: len([t for t in service.tasks() if t["NodeID"] != node()["ID"]]) == 30, pause=0.05)
                    new = api.post("/networks/create", {"Name": f"{kind}{number}new", "Driver": "overlay"})
                    other = api.post("/services/create", {
                        "Name": f"{kind}{number}new", "Mode": {"Global": {}},
                        "TaskTemplate": {"ContainerSpec": {"Image": "web:1"}, "Networks": [{"Target": f"{kind}{number}new"}, {"Target": service.name}]}})["ID"]
                    looks = Looks()
                    self.cluster.dev(*(["start", victim] if kind == "reboot" else ["heal"]))
                    _, began = until(f"{victim} has a session", lambda: node()["Status"]["State"] == "ready", pause=0.002, limit=30)
                    until("its task runs", lambda: len([t for t in api.tasks(other) if t["Status"]["State"] == "running"]) == 3, pause=0.05)
                    time.sleep(2)
                    looks.ended = True
                    looks.join()
                    last = looks.seen[-1][1]
                    whole = next(t for position, (t, state) in enumerate(looks.seen) if all(later == last for _, later in looks.seen[position:]))
                    times.append(max(0.0, whole - began) * 1000)
                    api.call("DELETE", f"/services/{other}")
                    until("its tasks are gone", lambda: all(t["Status"]["State"] in TERMINAL for t in api.get("/tasks") if t["ServiceID"] == other), pause=0.05)
                    until("its network is gone", lambda: api.call("DELETE", f"/networks/{new.get('Id', new.get('ID'))}")[0] in (200, 204, 404), pause=0.05)
                self.cluster.whole()
        for kind, times in rounds.items():
            self.row(f"a host comes back ({kind}), 30 tasks on others and a network more: session to whole, its own new container included",
                     f"median {statistics.median(times):.0f} ms, worst of {len(times)} {max(times):.0f} ms", aim="< 1000 ms")

    def idle(self):
        api = self.cluster.managers[self.cluster.leader()]
        names = [f"idle{number}" for number in range(100)]
        services = []
        try:
            for name in names:
                api.post("/networks/create", {"Name": name, "Driver": "overlay"})
            for first in range(0, 100, 10):
                services.append(api.post("/services/create", {
                    "Name": f"idle{first}", "TaskTemplate": {"ContainerSpec": {"Image": "web:1"}, "Networks": [{"Target": n} for n in names[first:first + 10]]},
                    "Mode": {"Global": {}}})["ID"])

            def settled():
                tasks = [t for t in api.get("/tasks") if t["ServiceID"] in services and t["Status"]["State"] == "running"]
                return len(tasks) >= 30
            until("30 tasks on 100 networks run", settled, pause=0.1)
            time.sleep(3)
            hosts = [host["Name"] for host in self.cluster.hosts()]
            pids = {name: self.cluster.pid(name, "Agent") for name in hosts}
            before, began = {name: cpu(pid) for name, pid in pids.items()}, now()
            time.sleep(15)
            shares = [(cpu(pids[name]) - before[name]) / (now() - began) * 100 for name in hosts]
            self.row("CPU of an idle agent with 100 networks and 10 tasks", ", ".join(f"{s:.2f} %" for s in shares) + " (three hosts)", aim="< 1 %")
        finally:
            for service in services:
                api.call("DELETE", f"/services/{service}")
            until("the tasks are gone", lambda: all(t["Status"]["State"] in TERMINAL for t in api.get("/tasks") if t["ServiceID"] in services), pause=0.1)
            for name in names:
                until(f"network {name} is gone", lambda: api.call("DELETE", f"/networks/{name}")[0] in (200, 204, 404), limit=30, pause=0.05)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("programs", help="the folder of orch, orch-manager, orch-agent, orch-init and network-bench, built for release")
    parser.add_argument("--turns", type=int, default=5, help="turns of each comparison; the table shows medians and ranges")
    parser.add_argument("--only", default=",".join(PARTS), help="some of " + ",".join(PARTS))
    options = parser.parse_args()
    wanted = options.only.split(",")
    if unknown := set(wanted) - set(PARTS):
        parser.error(f"no such benchmark: {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    if os.geteuid() != 0:
        parser.error("needs root")
    for program in ["network-bench"] if not {"commit", "returns", "idle"} & set(wanted) else ["network-bench", "orch", "orch-agent"]:
        if not os.access(os.path.join(options.programs, program), os.X_OK):
            parser.error(f"there is no {program} in {options.programs}: make release")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    bench = Bench(options.programs, options.turns)
    atexit.register(bench.close)
    load, began = os.getloadavg()[0], now()
    for name in PARTS:
        if name in wanted:
            bench.attempt(name)
    print(f"\n{time.strftime('%Y-%m-%d %H:%M')}, {os.cpu_count()} cores, kernel {os.uname().release}, load {load:.1f} before and "
          f"{os.getloadavg()[0]:.1f} after, {now() - began:.0f} s\n")
    print("| | orch | reference | ratio | aim |\n| --- | --- | --- | --- | --- |")
    for row in bench.rows:
        print("| " + " | ".join(row) + " |")
    sys.exit(1 if bench.failures else 0)


if __name__ == "__main__":
    main()
