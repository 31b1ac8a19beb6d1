import Foundation
import Testing

extension MainJobTests {
  /// Published ports and virtual IPs while tasks come and go. Nested, so that it takes turns with the rest.
  @Suite(.serialized) struct Rolling {
    let cluster: LocalCluster
    init() throws { cluster = try LocalCluster.shared.get() }
    static let hosts = ["host1", "host2", "host3"]
    static let wrk = FileManager.default.isExecutableFile(atPath: "/usr/bin/wrk")
    /// Updates in a row, of each order, none of which may fail a request. Not given: one, and two more tries, because a machine that others keep
    /// busy starves hosts beyond the 2 s that a drain waits for each.
    static let strict = ProcessInfo.processInfo.environment["ORCH_ROLLING_ROUNDS"].flatMap { Int($0) }

    private func deploy(_ services: String) throws {
      let manifest = "name: roll\nservices:\n\(services)\n"
      var outcome: Outcome
      let deadline = ContinuousClock.now.advanced(by: .seconds(60))
      // What a failed test left.
      repeat {
        outcome = try cluster.deploy(manifest: manifest, seconds: 90)
      } while outcome.errors.contains("is still being removed") && ContinuousClock.now < deadline
      try cluster.must(outcome)
    }
    private func down() {
      cluster.removeOutside()
      _ = try? cluster.orch("down", "roll")
    }

    @Test("a task logs the address of its client, which called from any host, its own or another, and from outside, at any host")
    func clients() async throws {
      defer { down() }
      try deploy(
        """
          who:
            image: busybox:1
            command: [sh, -c, "mkdir -p /w; for f in host1 host2 host3 outside; do for a in 1 2 3; do echo hello > /w/$$f-at-$$a; done; done; exec httpd -f -vv -p 80 -h /w"]
            ports: ["8098:80"]
            stop_grace_period: 0s
        """)
      let clients = Self.hosts.enumerated().map { ($1, "192.168.77.\($0 + 1)") } + [(LocalCluster.outside, "192.168.77.100")]
      for (from, _) in clients {
        for at in 1...3 {
          let url = "http://192.168.77.\(at):8098/\(from)-at-\(at)"
          try await eventually("\(from) is answered at host\(at)", seconds: 45) {
            let get = from == LocalCluster.outside ? "curl -sS --max-time 3" : "timeout 3 busybox wget -qO-"
            let answer = try cluster.on(from, "sh", "-c", "\(get) \(url)")
            return (answer.output == "hello\n", "\(answer)")
          }
        }
      }
      try await eventually("each call is in the log, with its client's address", seconds: 45) {
        // busybox writes them to its stderr: "[::ffff:192.168.77.1]:51234: url:/host1-at-2".
        let shown = try cluster.orch("logs", "who")
        let log = shown.output + shown.errors
        let calls = log.split(separator: "\n").filter { $0.contains("url:/") }
        var wrong: [String] = []
        for (from, address) in clients {
          for at in 1...3 {
            let lines = calls.filter { $0.hasSuffix("url:/\(from)-at-\(at)") }
            if lines.isEmpty || !lines.allSatisfy({ $0.contains("\(address)]:") || $0.contains("\(address):") }) {
              wrong.append("\(from) at host\(at): \(lines)")
            }
          }
        }
        return (wrong.isEmpty, "\(wrong) \(log)")
      }
    }

    @Test(
      "a rolling update of ten tasks fails no request at any host's port nor at the virtual IP from inside",
      .enabled(if: wrk, "needs wrk"), arguments: ["stop-first", "start-first"])
    func update(order: String) async throws {
      defer { down() }
      try deploy(Self.services(update: ", update_config: {parallelism: 2, monitor: 100ms, order: \(order)}"))
      let client = try client()
      for round in 1...(Self.strict ?? 3) {
        let failures = try await load(client) { try cluster.must(cluster.orch("update", "web", "--image", "web:\(round % 2 + 1)", seconds: 300)) }
        if Self.strict == nil {
          if failures.isEmpty { break }
          print("round \(round), \(order): \(failures.joined(separator: "\n"))")
          if round < 3 { continue }
        }
        #expect(failures.isEmpty, "round \(round), \(order): \(failures.joined(separator: "\n"))")
      }
    }

    @Test("agents and managers are killed and come back, host by host, and no request fails", .enabled(if: wrk, "needs wrk"))
    func killed() async throws {
      defer {
        for host in Self.hosts { _ = try? cluster.dev("start", host) }
        down()
      }
      try deploy(Self.services(update: ""))
      let client = try client()
      let failures = try await load(client) {
        for _ in 1...(Self.strict ?? 1) {
          for host in Self.hosts.shuffled() {
            for part in ["--agent", "--manager"].shuffled() {
              try cluster.must(cluster.dev("kill", host, part))
              try await Task.sleep(for: .milliseconds(Int.random(in: 0...500)))
              try cluster.must(cluster.dev("start", host))
            }
            try await cluster.nodesAreReady()
          }
        }
      }
      #expect(failures.isEmpty, "\(failures.joined(separator: "\n"))")
    }

    @Test(
      "a task that says it is unhealthy is taken out everywhere before it is stopped: while it answers no request fails",
      .enabled(if: wrk, "needs wrk"))
    func unhealthy() async throws {
      defer { down() }
      try deploy(Self.services(update: "", health: "{test: 'test ! -e /tmp/ill', interval: 300ms, retries: 1, start_interval: 100ms}"))
      let client = try client()
      let failures = try await load(client) {
        for _ in 1...3 {
          let ill = try #require(try cluster.running("web").compactMap { $0["ID"] }.randomElement())
          try cluster.must(cluster.orch("exec", ill, "touch", "/tmp/ill"))
          try await eventually("another has taken its place") {
            let tasks = try cluster.running("web").compactMap { $0["ID"] }
            return (tasks.count == 10 && !tasks.contains(ill), "\(try cluster.tasks("web"))")
          }
        }
      }
      #expect(failures.isEmpty, "\(failures.joined(separator: "\n"))")
    }

    private static let probe = """
      {test: [CMD, wget, -q, -O, /dev/null, "http://127.0.0.1/health"], interval: 10s, timeout: 8s, retries: 5, start_interval: 100ms}
      """

    private static func services(update: String, health: String = probe) -> String {
      """
        web:
          image: web:1
          ports: ["8099:80"]
          stop_grace_period: 5s
          healthcheck: \(health)
          deploy: {replicas: 10\(update)}
        client:
          image: busybox:1
          command: [sleep, "100000"]
          stop_grace_period: 0s
      """
    }

    /// A task beside the tasks of `web`, and the virtual IP that it calls.
    private func client() throws -> (task: String, host: String, virtual: String) {
      let client = try #require(try cluster.running("client").first)
      let found = try cluster.must(cluster.orch("exec", "client.1", "nslookup", "web")).output
      let virtual = found.split(separator: "\n").last { $0.hasPrefix("Address") }?.split(separator: " ").last.map(String.init)
      return (try #require(client["ID"]), try #require(client["Node"]), try #require(virtual, "\(found)"))
    }

    /// Does something under load at every host's port of `web`, from that host, from another and from outside, and at its virtual IP; returns reports of
    /// failed requests.
    private func load(_ client: (task: String, host: String, virtual: String), around body: () async throws -> Void) async throws -> [String] {
      var loads: [Load] = []
      defer { for load in loads { load.stop() } }
      let callers = Self.hosts.enumerated().map { ($1, $0 + 1) } + [("host1", 2), ("host1", 3)] + (1...3).map { (LocalCluster.outside, $0) }
      for (from, at) in callers { loads.append(try Load(cluster, on: from, "wrk", "http://192.168.77.\(at):8099/")) }
      loads.append(try Load(cluster, on: client.host, "nsenter --net=/run/orch/agent/netns/\(client.task) wrk", "http://\(client.virtual)/"))
      try await body()
      var failures: [String] = []
      for load in loads {
        load.stop()
        let report = try await load.report()
        #expect(report.requests > 0, "\(load.name): \(report.text)")
        if report.failed > 0 { failures.append("\(load.name): \(report.text)") }
      }
      return failures
    }

    /// wrk, in the background of a host, until it is stopped.
    private final class Load {
      let name: String
      private let file: String
      private let pid: Int32
      private var stopped = false

      /// A request without an answer for 10 s counts as failed. It takes what processor time others leave: it would have all.
      init(_ cluster: LocalCluster, on host: String, _ program: String, _ url: String) throws {
        name = "from \(host) at \(url)"
        file = "\(NSTemporaryDirectory())orch-wrk-\(UUID())"
        pid = try cluster.start(on: host, "nice -n 10 \(program) -t1 -c4 -d600s --timeout 10s \(url) > \(file) 2>&1 < /dev/null")
      }
      deinit {
        stop()
        try? FileManager.default.removeItem(atPath: file)
      }
      /// It writes its report then.
      func stop() {
        if !stopped { kill(pid, SIGINT) }
        stopped = true
      }
      func report() async throws -> (requests: Int, failed: Int, text: String) {
        var text = ""
        try await eventually("wrk reports", seconds: 45) {
          text = String(decoding: FileManager.default.contents(atPath: file) ?? Data(), as: UTF8.self)
          return (text.contains("Transfer/sec"), text)
        }
        let lines = text.split(separator: "\n")
        let requests = lines.first { $0.contains(" requests in ") }?.split(separator: " ").first.flatMap { Int($0) } ?? 0
        // "Socket errors: connect 0, read 0, write 0, timeout 0" and "Non-2xx or 3xx responses: 1" are written when there are any.
        return (requests, lines.count { $0.contains("Socket errors") || $0.contains("Non-2xx") || $0.contains("unable") }, text)
      }
    }
  }
}
