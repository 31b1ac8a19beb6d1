#!/usr/bin/env python3
"""Measures a local cluster of three hosts: how fast it scales, heals, elects and updates, and what it weighs.

usage: bench.py PROGRAMS_DIR [--runs 5] [--kills 20] [--only up,scale,...]      (root)

Starts `orch dev up --cluster bench`, talks to the public API on the managers' unix sockets as any client does, and removes the
cluster at the end, whatever happened. Times are taken from a client's chair: from just before the request (or the kill) until the
event arrives that says so. Waiting is on /events; the little that has no event is looked at every 2 ms.

The column beside ours is no measurement of this run: it is Docker Swarm 26.1.5 measured once, earlier, on such a machine.
"""
import argparse, atexit, http.client, json, os, queue, signal, socket, statistics, subprocess, sys, tempfile, threading, time
from urllib.parse import quote

CLUSTER = os.environ.get("ORCH_DEV_CLUSTER", "bench")
TERMINAL = {"complete", "shutdown", "failed", "rejected", "remove", "orphaned"}
LIMIT = 120.0  # seconds that anything may take before its row says "failed"
REFERENCE = "Docker Swarm 26.1.5, measured on such a machine"
now = time.monotonic


class Failed(Exception):
    """A sentence about what did not come."""


# --- the API ----------------------------------------------------------------------------------------------------------------

class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path, timeout=LIMIT):
        super().__init__("orch", timeout=timeout)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


class Manager:
    """One manager's API; the connection is kept."""

    def __init__(self, path, timeout=LIMIT):
        self.path, self.timeout, self.connection = path, timeout, None

    def call(self, method, uri, body=None):
        """(status, parsed answer); OSError when it is not there."""
        payload = None if body is None else json.dumps(body)
        for fresh in (self.connection is None, True):
            if self.connection is None:
                self.connection = UnixConnection(self.path, self.timeout)
            try:
                self.connection.request(method, uri, payload, {"Content-Type": "application/json"} if payload else {})
                answer = self.connection.getresponse()
                text = answer.read()
                return answer.status, json.loads(text) if text.strip() else None
            except (OSError, http.client.HTTPException) as error:
                self.connection.close()
                self.connection = None
                # A kept connection may have been closed meanwhile: once more on a new one, except for a timeout.
                if fresh or isinstance(error, TimeoutError):
                    raise error if isinstance(error, OSError) else ConnectionError(repr(error))

    def ask(self, method, uri, body=None):
        status, answer = self.call(method, uri, body)
        if status >= 400:
            raise Failed(f"{method} {uri}: {status} {(answer or {}).get('message', '')}")
        return answer

    def get(self, uri): return self.ask("GET", uri)
    def post(self, uri, body=None): return self.ask("POST", uri, body)
    def scale(self, service, count): return self.post("/orch/v1/scale", {service: count})
    def tasks(self, service): return self.get("/tasks?filters=" + quote(json.dumps({"service": [service]})))


class Watch:
    """The service's tasks as /events tells of them, with the instant at which each state arrived here."""

    def __init__(self, manager, service):
        self.connection = UnixConnection(manager.path, timeout=None)
        filters = quote(json.dumps({"type": ["task"], "service": [service]}))
        self.connection.request("GET", "/events?filters=" + filters)
        self.response = self.connection.getresponse()
        self.news = queue.SimpleQueue()
        self.seen = {}  # task id -> {state: instant}
        threading.Thread(target=self.read, daemon=True).start()

    def read(self):
        try:
            while line := self.response.readline():
                self.news.put((now(), line))
        except (OSError, ValueError, AttributeError, http.client.HTTPException):
            pass
        self.news.put((now(), None))

    def wait(self, what, done, limit=LIMIT):
        """Until done(seen) answers an instant; that."""
        deadline = now() + limit
        while True:
            if (instant := done(self.seen)) is not None:
                return instant
            try:
                instant, line = self.news.get(timeout=max(0.001, deadline - now()))
            except queue.Empty:
                raise Failed(f"{what}: not within {limit:g} s; {self.summary()}")
            if line is None:
                raise Failed(f"{what}: the event stream ended; {self.summary()}")
            event = json.loads(line)
            self.seen.setdefault(event["Actor"]["ID"], {}).setdefault(event["Action"], instant)

    def summary(self):
        last = [max(states, key=states.get) for states in self.seen.values()]
        return "last events: " + (", ".join(f"{last.count(s)} {s}" for s in sorted(set(last))) or "none")

    def running(self, count, but=()):
        """For wait: the instant at which the count-th task runs that is not in `but`."""
        def done(seen):
            instants = sorted(states["running"] for id, states in seen.items() if "running" in states and id not in but)
            return instants[count - 1] if len(instants) >= count else None
        return done

    def over(self, ids):
        def done(seen):
            ends = [min((t for s, t in seen.get(id, {}).items() if s in TERMINAL), default=None) for id in ids]
            return None if None in ends else max(ends)
        return done

    def __enter__(self): return self

    def __exit__(self, *_):
        # shutdown wakes the reader; closing the response first would wait for it.
        try:
            self.connection.sock and self.connection.sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass


def until(what, done, limit=LIMIT, pause=0.002):
    """Looks every 2 ms; answers what `done` did and when that was so."""
    deadline = now() + limit
    while True:
        if result := done():
            return result, now()
        if now() > deadline:
            raise Failed(f"{what}: not within {limit:g} s")
        time.sleep(pause)


# --- processes --------------------------------------------------------------------------------------------------------------

def alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def memory(pid):
    """(PSS, RSS) in KiB."""
    with open(f"/proc/{pid}/smaps_rollup") as file:
        fields = dict(line.split(":", 1) for line in file if ":" in line and " kB" in line)
    return int(fields["Pss"].split()[0]), int(fields["Rss"].split()[0])


def parent(pid):
    with open(f"/proc/{pid}/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("PPid:"))


def cpu(pid):
    """Seconds of CPU that it has used."""
    with open(f"/proc/{pid}/stat") as file:
        fields = file.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


# --- the cluster ------------------------------------------------------------------------------------------------------------

class Cluster:
    def __init__(self, programs):
        self.orch = os.path.join(programs, "orch")
        self.managers = {}

    def dev(self, *arguments, check=True):
        arguments = [self.orch, "dev", arguments[0], "--cluster", CLUSTER, *map(str, arguments[1:])]
        done = subprocess.run(arguments, text=True, capture_output=True)
        if check and done.returncode != 0:
            print(done.stderr or done.stdout, file=sys.stderr)
            raise Failed(f"{' '.join(arguments[1:])}: {(done.stderr or done.stdout).strip().splitlines()[-1]}")
        return done.stdout

    def up(self):
        """Seconds until the command is back, and until every node is ready."""
        began = now()
        self.dev("up", "--hosts", 3)
        back = now() - began
        self.managers = {}
        for host in self.hosts():
            if host["Manager"]:
                path = self.dev("env", "--host", host["Name"]).split("ORCH_HOST=unix://")[1].split()[0]
                self.managers[host["Name"]] = Manager(path)
        _, ready = until("three nodes are ready", lambda: self.ready() >= 3, limit=30)
        return back, ready - began

    def down(self):
        self.dev("down", check=False)

    def hosts(self):
        return [json.loads(line) for line in self.dev("hosts", "--format", "json").splitlines()]

    def pid(self, host, daemon):
        return int(next(h for h in self.hosts() if h["Name"] == host)[daemon])

    def ready(self):
        """How many nodes are; 0 when nobody can say."""
        for manager in self.managers.values():
            try:
                status, nodes = manager.call("GET", "/nodes")
                if status == 200:
                    return sum(node["Status"]["State"] == "ready" for node in nodes)
            except OSError:
                pass
        return 0

    def leader(self):
        """The name of the leader's host."""
        def ask():
            for manager in self.managers.values():
                try:
                    status, members = manager.call("GET", "/orch/v1/managers")
                    if status == 200:
                        for member in members:
                            if member["Leader"]:
                                return member["Hostname"]
                except OSError:
                    pass
        return until("a leader", ask, limit=30)[0]

    def whole(self):
        """Every manager follows the leader's log and every node is ready: nothing heals any more. Not measured."""
        def ask():
            try:
                members = self.managers[self.leader()].get("/orch/v1/managers")
                # A manager that was just started votes before its API's socket is there.
                for manager in self.managers.values():
                    manager.get("/version")
            except (OSError, Failed):
                return False
            if not all(m["Leader"] or m["Reachability"] == "reachable" for m in members):
                return False
            indices = [m["MatchIndex"] for m in members if m.get("MatchIndex") is not None]
            return self.ready() == 3 and (not indices or max(indices) - min(indices) < 50)
        until("the cluster is whole again", ask, limit=60, pause=0.05)

    def load_images(self):
        folder = os.path.join(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "orch", "images")
        recipes = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "deploy", "images", "build.sh")
        subprocess.run([recipes, folder], check=True)
        manager = self.managers[self.leader()]
        for image in ("web-1", "web-2"):
            connection = UnixConnection(manager.path)
            with open(os.path.join(folder, image + ".tar"), "rb") as file:
                connection.request("POST", "/orch/v1/images/load", file.read(), {"Content-Type": "application/x-tar"})
            answer = connection.getresponse()
            text = answer.read().decode()
            if answer.status != 200 or '"Error"' in text:
                raise Failed(f"image {image} was not loaded: {text}")

    def service(self, name, replicas, **more):
        return Service(self, name, replicas, **more)


class Service:
    """A service for the time of a `with`; afterwards nothing of it is left."""

    def __init__(self, cluster, name, replicas, image="web:1", endpoint=None, update=None, health=None):
        self.cluster, self.name, self.replicas = cluster, name, replicas
        self.spec = {
            "Name": name,
            "TaskTemplate": {"ContainerSpec": {"Image": image}, "Networks": [{"Target": name}]},
            "Mode": {"Replicated": {"Replicas": replicas}},
            # What the reference was measured with.
            "EndpointSpec": endpoint or {"Mode": "dnsrr"},
        }
        if update:
            self.spec["UpdateConfig"] = update
        if health:
            self.spec["TaskTemplate"]["ContainerSpec"]["Healthcheck"] = health

    def __enter__(self):
        self.api = self.cluster.managers[self.cluster.leader()]
        self.api.post("/networks/create", {"Name": self.name, "Driver": "overlay"})
        self.id = self.api.post("/services/create", self.spec)["ID"]
        if self.replicas:
            self.settle(self.replicas)
        return self

    def settle(self, count):
        """Not measured: exactly `count` tasks run and nothing else of the service lives."""
        def look():
            live = [task for task in self.api.tasks(self.id) if task["Status"]["State"] not in TERMINAL]
            return len(live) == count and all(task["Status"]["State"] == "running" for task in live)
        until(f"{self.name} has {count} running", look, pause=0.02)

    def tasks(self):
        return [task for task in self.api.tasks(self.id) if task["Status"]["State"] == "running"]

    def update(self, **changes):
        """Posts the spec with its container's fields changed."""
        current = self.api.get(f"/services/{self.id}")
        spec = current["Spec"]
        spec["TaskTemplate"]["ContainerSpec"].update(changes)
        self.api.post(f"/services/{self.id}/update?version={current['Version']['Index']}", spec)

    def __exit__(self, *_):
        # The first answer may come from a manager that has just lost its leader.
        def gone():
            try:
                self.api = self.cluster.managers[self.cluster.leader()]
                status, _ = self.api.call("DELETE", f"/services/{self.id}")
                return status in (200, 404)
            except OSError:
                return False
        until(f"{self.name} is removed", gone, limit=30, pause=0.05)
        until(f"the tasks of {self.name} are gone", lambda: self.api.call("GET", f"/services/{self.id}")[0] == 404, limit=60, pause=0.02)
        until(f"network {self.name} is gone", lambda: self.api.call("DELETE", f"/networks/{self.name}")[0] in (200, 204, 404), limit=30, pause=0.05)


# --- rows -------------------------------------------------------------------------------------------------------------------

def percentile(values, share):
    values = sorted(values)
    return values[min(len(values) - 1, int(len(values) * share))]


def seconds(values):
    """Median and range, in the unit that reads best."""
    middle = statistics.median(values)
    scale, unit, digits = (1000, "ms", 0) if middle < 1 else (1, "s", 2)
    show = lambda value: f"{value * scale:.{digits}f}"
    return f"{show(middle)} {unit}" + (f" ({show(min(values))}-{show(max(values))}, {len(values)} runs)" if len(values) > 1 else "")


def mebibytes(kib):
    return f"{kib / 1024:.1f} MiB"


class Bench:
    def __init__(self, cluster, runs, kills):
        self.cluster, self.runs, self.kills, self.rows, self.failures = cluster, runs, kills, [], 0

    def row(self, what, value, reference="-"):
        self.rows.append((what, value, reference))
        print(f"  {what}: {value}", file=sys.stderr, flush=True)

    def attempt(self, name):
        print(f"{name} ...", file=sys.stderr, flush=True)
        try:
            getattr(self, name)()
        except (Failed, OSError, subprocess.CalledProcessError) as error:
            if not self.cluster.managers:
                raise SystemExit(f"no cluster: {error}")
            self.failures += 1
            self.row(name, f"failed: {error}")

    def up(self):
        backs, readies, lost = [], [], []
        for run in range(self.runs):
            self.cluster.down()
            try:
                back, ready = self.cluster.up()
                backs.append(back)
                readies.append(ready)
            except Failed as error:
                lost.append(str(error))
        if lost:
            self.failures += 1
            self.row("cluster of 3 hosts up: starts that failed", f"{len(lost)} of {self.runs}: {lost[0]}")
            until("a cluster comes up", self.again, limit=60)
        if backs:
            self.row("cluster of 3 hosts up: `orch dev up` is back", seconds(backs))
            self.row("cluster of 3 hosts up: every node is ready", seconds(readies))
        self.cluster.load_images()

    def again(self):
        self.cluster.down()
        try:
            return self.cluster.up()
        except Failed:
            return None

    def scale(self):
        ups, firsts, downs, gones = [], [], [], []
        with self.cluster.service("scale", 0) as service:
            for _ in range(self.runs):
                with Watch(service.api, service.name) as watch:
                    began = now()
                    service.api.scale(service.id, 50)
                    ups.append(watch.wait("50 tasks run", watch.running(50)) - began)
                    firsts.append(watch.running(1)(watch.seen) - began)
                service.settle(50)
                tasks = service.tasks()
                pids = [task["Status"]["ContainerStatus"]["PID"] for task in tasks]
                with Watch(service.api, service.name) as watch:
                    began = now()
                    service.api.scale(service.id, 0)
                    downs.append(watch.wait("50 tasks end", watch.over([task["ID"] for task in tasks])) - began)
                    _, gone = until("50 processes are gone", lambda: not any(map(alive, pids)))
                    gones.append(max(gone - began, downs[-1]))
                service.settle(0)
        self.row("scale 0 -> 50: all running", seconds(ups), "9.5 s (6.6-10.4)")
        self.row("scale 0 -> 50: the first runs", seconds(firsts))
        self.row("scale 50 -> 0: every task over, every process gone", seconds(gones), "5.7 s")

    def killed(self):
        times = []
        with self.cluster.service("killed", 10) as service:
            # Every slot once: a slot's first restart is at once, later ones back off.
            for task in service.tasks():
                known = {t["ID"] for t in service.api.tasks(service.id)}
                with Watch(service.api, service.name) as watch:
                    began = now()
                    os.kill(task["Status"]["ContainerStatus"]["PID"], signal.SIGKILL)
                    times.append(watch.wait("the replacement runs", watch.running(1, but=known)) - began)
                service.settle(10)
        self.row("task killed (kill -9): its replacement runs", seconds(times), "1.0 s with restart delay 0, 5.9 s by default")

    def host(self):
        for what, lead in (("host lost: its tasks run elsewhere", False), ("the leader's host lost: its tasks run elsewhere", True)):
            times = []
            for _ in range(max(1, self.runs * 3 // 5)):
                self.cluster.whole()
                leader = self.cluster.leader()
                victim = leader if lead else next(name for name in self.cluster.managers if name != leader)
                with self.cluster.service("lost", 6) as service:
                    nodes = {node["Description"]["Hostname"]: node["ID"] for node in service.api.get("/nodes")}
                    tasks = service.tasks()
                    known = {task["ID"] for task in tasks}
                    lost = [task for task in tasks if task["NodeID"] == nodes[victim]]
                    if not lost:
                        raise Failed(f"no task was placed on {victim}")
                    survivor = Manager(self.cluster.managers[next(name for name in self.cluster.managers if name != victim)].path, timeout=2)

                    def elsewhere(manager):
                        try:
                            return sum(t["ID"] not in known and t["Status"]["State"] == "running" for t in manager.tasks(service.id)) >= len(lost)
                        except (OSError, Failed):
                            return False

                    try:
                        # Looks every 5 ms and not at events: a follower's stream of them comes from the leader and ends with it.
                        began = now()
                        self.cluster.dev("kill", victim)
                        times.append(until(f"{len(lost)} tasks run elsewhere", lambda: elsewhere(survivor), pause=0.005)[1] - began)
                    finally:
                        self.cluster.dev("start", victim)
                        self.cluster.whole()
                    service.api = self.cluster.managers[self.cluster.leader()]
            self.row(what, seconds(times), "-" if lead else "20 s")

    def leader(self):
        times = []
        with self.cluster.service("leader", 1) as service:
            for run in range(self.kills):
                self.cluster.whole()
                leader = self.cluster.leader()
                # A short timeout: whoever asks a manager that waits for a leader asks again.
                others = [Manager(m.path, timeout=5) for name, m in self.cluster.managers.items() if name != leader]
                for manager in others:
                    manager.get("/nodes")
                pid = self.cluster.pid(leader, "Manager")
                count = 2 - run % 2
                turn = 0
                began = now()
                os.kill(pid, signal.SIGKILL)
                while True:
                    try:
                        status, answer = others[turn % 2].call("POST", "/orch/v1/scale", {service.id: count})
                        if status == 200:
                            break
                        if status != 503:
                            raise Failed(f"a change while there was no leader: {status} {answer}")
                    except OSError:
                        pass
                    if now() - began > LIMIT:
                        raise Failed(f"no change accepted within {LIMIT:g} s of the leader's end")
                    turn += 1
                    time.sleep(0.002)
                times.append(now() - began)
                self.cluster.dev("start", leader)
                self.cluster.whole()
                service.api = self.cluster.managers[self.cluster.leader()]
                found = service.api.get(f"/services/{service.id}")["Spec"]["Mode"]["Replicated"]["Replicas"]
                if found != count:
                    raise Failed(f"an acknowledged change is lost: {count} replicas were accepted, {found} are there")
        text = f"p50 {statistics.median(times) * 1000:.0f} ms, p99 {percentile(times, 0.99) * 1000:.0f} ms"
        self.row("leader killed (kill -9): next change accepted", f"{text} ({len(times)} kills, the p99 of so few is the worst)", "12.7-18 s")

    def update(self):
        for order, reference in (("stop-first", "10.3 s"), ("start-first", "4.4 s")):
            times = []
            with self.cluster.service("update", 10, update={"Parallelism": 2, "Order": order}) as service:
                for run in range(self.runs):
                    times.append(self.roll(service, run))
            self.row(f"rolling update of 10, parallelism 2, {order}", seconds(times), reference)

    def roll(self, service, run):
        old = [task["ID"] for task in service.tasks()]
        with Watch(service.api, service.name) as watch:
            began = now()
            service.update(Image=f"web:{2 - run % 2}")
            new = watch.wait("10 new tasks run", watch.running(10, but=set(old)))
            end = max(new, watch.wait("10 old tasks are over", watch.over(old)))
        # The update's own monitoring of the last tasks goes on for 5 s, and the next update waits for it to be over.
        until("the update is completed", lambda: service.api.get(f"/services/{service.id}")
              .get("UpdateStatus", {}).get("State") == "completed", limit=60, pause=0.05)
        service.settle(10)
        return end - began

    def load(self):
        port = 8099
        endpoint = {"Mode": "vip", "Ports": [{"Protocol": "tcp", "TargetPort": 80, "PublishedPort": port, "PublishMode": "ingress"}]}
        # As manifests/web.yaml: a task is sent requests once it answers one.
        health = {"Test": ["CMD", "wget", "-q", "-O", "/dev/null", "http://127.0.0.1/health"], "Interval": 5_000_000_000, "Timeout": 2_000_000_000,
                  "Retries": 3, "StartInterval": 100_000_000}
        for order in ("start-first", "stop-first"):
            self.loaded(order, port, endpoint, health)

    def loaded(self, order, port, endpoint, health):
        times, done, failed, errors = [], 0, 0, {}
        with self.cluster.service("load", 10, endpoint=endpoint, update={"Parallelism": 2, "Order": order}, health=health) as service:
            for run in range(self.runs):
                # Two hosts' published ports, so that requests meet tasks beside them and tasks elsewhere.
                clients = [
                    subprocess.Popen(
                        [self.cluster.orch, "dev", "exec", "--cluster", CLUSTER, host, "--", sys.executable, os.path.abspath(__file__), "--load",
                         str(port)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
                    for host in ("host1", "host2")]
                try:
                    for client in clients:
                        if client.stdout.readline().strip() != "answered":
                            raise Failed("the published port does not answer")
                    times.append(self.roll(service, run))
                finally:
                    for client in clients:
                        client.stdin.close()
                for client in clients:
                    result = json.loads(client.stdout.read())
                    client.wait()
                    done += result["done"]
                    failed += result["failed"]
                    for error, count in result["errors"].items():
                        errors[error] = errors.get(error, 0) + count
        detail = "".join(f"; {count} x {error}" for error, count in sorted(errors.items(), key=lambda e: -e[1])[:3])
        self.row(f"rolling update of 10, parallelism 2, {order}, with health checks, under load", seconds(times))
        self.row(f"requests that failed meanwhile ({order})", f"{failed} of {done}{detail}")

    def memory(self):
        hosts = self.cluster.hosts()
        managers = [int(host["Manager"]) for host in hosts if host["Manager"]]
        agents = [int(host["Agent"]) for host in hosts]
        leader = int(next(h for h in hosts if h["Name"] == self.cluster.leader())["Manager"])

        def weigh(pids): return [statistics.mean(column) for column in zip(*map(memory, pids))]

        def weights(when, reference):
            (manager, manager_rss), (agent, agent_rss) = weigh(managers), weigh(agents)
            self.row(
                f"memory of a host {when}: manager + agent, PSS", f"{mebibytes(manager)} + {mebibytes(agent)} = {mebibytes(manager + agent)}",
                reference)
            self.row(f"memory of a host {when}: manager + agent, RSS", f"{mebibytes(manager_rss)} + {mebibytes(agent_rss)}")

        # Not before it is quiet; idle CPU is taken over the same seconds.
        time.sleep(3)
        before = {pid: cpu(pid) for pid in managers + agents}
        time.sleep(5)
        used = {pid: (cpu(pid) - before[pid]) / 5 * 100 for pid in before}
        self.row(
            "CPU when idle, of one core",
            f"leader {used[leader]:.1f} %, other managers {max(used[p] for p in managers if p != leader):.1f} %, agents {max(used[p] for p in agents):.1f} %")
        weights("idle", "66 + 22 MB (dockerd + containerd)")
        with self.cluster.service("memory", 50) as service:
            time.sleep(2)
            weights("with 50 tasks in the cluster", "-")
            monitors = [parent(task["Status"]["ContainerStatus"]["PID"]) for task in service.tasks()]
            if set(monitors) & set(agents):
                raise Failed("a container's parent is its agent and not a monitor: nothing to weigh per task")
            values = [memory(pid)[0] for pid in monitors]
            self.row("memory of a task beside its own: monitor, PSS", f"{statistics.median(values)} KiB (worst {max(values)})", "2.75 MB (shim)")


BENCHES = ["up", "memory", "scale", "killed", "update", "load", "leader", "host"]


# --- the client of `load`, inside a host ------------------------------------------------------------------------------------

def load(port):
    """Requests to this host's published port from 4 threads, one connection each, until stdin ends; then one line of JSON."""
    stop, lock, result = threading.Event(), threading.Lock(), {"done": 0, "failed": 0, "errors": {}}

    def request():
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        try:
            connection.request("GET", "/")
            answer = connection.getresponse()
            answer.read()
            return None if answer.status == 200 else f"status {answer.status}"
        except (OSError, http.client.HTTPException) as error:
            return type(error).__name__
        finally:
            connection.close()

    def worker():
        while not stop.is_set():
            error = request()
            with lock:
                result["done"] += 1
                if error:
                    result["failed"] += 1
                    result["errors"][error] = result["errors"].get(error, 0) + 1
            time.sleep(0.005)

    try:
        until("an answer", lambda: request() is None, limit=15, pause=0.02)
    except Failed:
        print("silent", flush=True)
        return
    print("answered", flush=True)
    threads = [threading.Thread(target=worker) for _ in range(4)]
    for thread in threads:
        thread.start()
    sys.stdin.read()
    stop.set()
    for thread in threads:
        thread.join()
    print(json.dumps(result), flush=True)


def main():
    if sys.argv[1:2] == ["--load"]:
        return load(int(sys.argv[2]))
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("programs", help="the folder of orch, orch-manager, orch-agent and orch-init, built for release")
    parser.add_argument("--runs", type=int, default=5, help="runs of each; the table shows their median and range")
    parser.add_argument("--kills", type=int, default=20, help="how many leaders are killed")
    parser.add_argument("--only", default=",".join(BENCHES), help="some of " + ",".join(BENCHES))
    options = parser.parse_args()
    wanted = options.only.split(",")
    if unknown := set(wanted) - set(BENCHES):
        parser.error(f"no such benchmark: {', '.join(sorted(unknown))}; there are {', '.join(BENCHES)}")

    cluster = Cluster(os.path.abspath(options.programs))
    if not os.access(cluster.orch, os.X_OK):
        parser.error(f"there is no orch in {options.programs}: make release")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    cluster.down()
    atexit.register(cluster.down)
    load_before = os.getloadavg()[0]
    bench = Bench(cluster, options.runs, options.kills)
    if "up" not in wanted:
        cluster.up()
        cluster.load_images()
    for name in BENCHES:
        if name in wanted:
            bench.attempt(name)
    print(f"\n{time.strftime('%Y-%m-%d %H:%M')}, {os.cpu_count()} cores, kernel {os.uname().release}, load {load_before:.1f} before and "
          f"{os.getloadavg()[0]:.1f} after\n")
    print(f"| | orch | {REFERENCE} |\n| --- | --- | --- |")
    for row in bench.rows:
        print("| " + " | ".join(row) + " |")
    sys.exit(1 if bench.failures else 0)


if __name__ == "__main__":
    main()
