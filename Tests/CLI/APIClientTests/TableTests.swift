import API
import APIClient
import Model
import Testing

@Suite struct TableTests {
  private func sample() -> Table {
    var table = Table([.init("ID", "ID"), .init("Name", "NAME", flexible: true), .init("Error", "ERROR", flexible: true), .init("Self", nil)])
    table.add(["abc", "web.1", "task: non-zero exit (137)", "true"])
    table.add(["defg", "a-long-service-name.12", "no suitable node\n(insufficient memory on 3 nodes)", "false"])
    return table
  }

  @Test("columns line up, and columns without a header are for JSON only")
  func wide() {
    #expect(
      sample().lines(width: nil) == [
        "ID     NAME                     ERROR",
        "abc    web.1                    task: non-zero exit (137)",
        "defg   a-long-service-name.12   no suitable node (insufficient memory on 3 nodes)",
      ])
  }

  @Test("a table fits the terminal, cutting flexible columns only", arguments: [60, 40, 30])
  func narrow(width: Int) {
    let lines = sample().lines(width: width)
    #expect(lines.allSatisfy { $0.count <= width })
    #expect(lines[2].hasPrefix("defg   "))
    #expect(lines[2].contains("…"))
  }

  @Test("JSON lines have docker's keys in order and the whole text")
  func json() {
    #expect(sample().jsonLines[0] == #"{"Error":"task: non-zero exit (137)","ID":"abc","Name":"web.1","Self":"true"}"#)
  }

  @Test(
    "spans and sizes are docker's words",
    arguments: [
      (0, "Less than a second"), (1, "1 second"), (59, "59 seconds"), (60, "About a minute"), (3599, "59 minutes"), (3600, "About an hour"),
      (7200, "2 hours"), (172_800, "2 days"),
    ])
  func spans(seconds: Int64, text: String) { #expect(humanDuration(Nanoseconds(seconds * 1_000_000_000)) == text) }

  @Test(
    "sizes are decimal with three digits",
    arguments: [(0, "0B"), (999, "999B"), (1_240_000, "1.24MB"), (12_400_000, "12.4MB"), (124_000_000, "124MB")])
  func sizes(bytes: Int64, text: String) { #expect(humanSize(bytes) == text) }

  @Test(
    "memory and shares are docker stats'",
    arguments: [(0, "0B", 0, "0.00%"), (1023, "1023B", 0.074, "0.07%"), (2_048_000, "1.953MiB", 12.3, "12.30%"), (33 << 30, "33GiB", 200, "200.00%")]
      as [(Int64, String, Double, String)])
  func memory(bytes: Int64, text: String, percent: Double, share: String) {
    #expect(humanBinarySize(bytes) == text)
    #expect(humanPercent(percent) == share)
  }

  @Test(
    "spans are read",
    arguments: [("90s", 90), ("1h30m", 5400), ("2d", 172_800), ("5", nil), ("", nil), ("m", nil), ("1x", nil), ("9000000h", nil)]
      as [(String, Int64?)])
  func parse(text: String, seconds: Int64?) { #expect(parseSpan(text)?.rawValue == seconds.map { $0 * 1_000_000_000 }) }

  @Test(
    "moments are read",
    arguments: [
      ("2026-01-31T12:00:00Z", "1769860800.000000000"), ("2026-01-31T13:00:00.5+01:00", "1769860800.500000000"), ("1769860800", "1769860800"),
      ("1769860800.25", "1769860800.25"), ("10m", "1769860200.250000000"), ("600000h", "0.000000000"), ("9000000h", nil), ("0", "0"), ("", nil),
      ("1.2.3", nil), ("1.", nil),
      ("-5", nil), ("99999999999", nil), ("yesterday", nil), ("1.1234567890", nil),
    ] as [(String, String?)])
  func moments(text: String, wanted: String?) {
    #expect(parseMoment(text, now: Timestamp(nanoseconds: 1_769_860_800_250_000_000)) == wanted)
  }

  @Test("indented JSON is docker inspect's layout")
  func indent() {
    #expect(
      JSONText.indented(Array(#"[{"a":1,"b":[],"c":{"d":"x,{y"}}]"#.utf8))
        == "[\n    {\n        \"a\": 1,\n        \"b\": [],\n        \"c\": {\n            \"d\": \"x,{y\"\n        }\n    }\n]")
  }
}

@Suite struct EndpointTests {
  @Test(
    "ORCH_HOST is read",
    arguments: [
      (nil, nil, .unix(path: "/run/orch/orch.sock")), ("unix:///tmp/a.sock", nil, .unix(path: "/tmp/a.sock")),
      ("/tmp/a.sock", nil, .unix(path: "/tmp/a.sock")),
      ("http://h:80/", nil, .http(host: "h", port: 80)), ("tcp://h", nil, .http(host: "h", port: 2375)),
      ("https://h", "/c", .https(host: "h", port: 2376, certificates: "/c")),
      ("tcp://h:99", "/c", .https(host: "h", port: 99, certificates: "/c")),
    ] as [(String?, String?, Endpoint)])
  func read(text: String?, certificates: String?, endpoint: Endpoint) throws { #expect(try Endpoint(text, certificates: certificates) == endpoint) }

  @Test("what is none says what is one", arguments: ["ftp://h", "unix://relative", "h:80", "http://h:0", "http://", "https://h"])
  func refuse(text: String) {
    #expect(throws: ClientError.self) { try Endpoint(text, certificates: nil) }
  }
}

@Suite struct ConvergenceTests {
  /// A service of `replicas` and tasks given as "slot state desired [error]".
  private func look(
    _ replicas: UInt64, _ tasks: [String], current: Bool = true, old: Set<Int> = [], update: Service.UpdateStatus.State? = nil,
    rollingBack: Bool = false
  ) -> Convergence {
    let (service, shapes) = Self.facts(replicas, tasks, update)
    return Convergence(
      service, tasks: shapes, current: current ? Set(shapes.enumerated().filter { !old.contains($0.offset) }.map(\.element.id)) : [],
      hostnames: Self.hostnames, since: Timestamp(nanoseconds: 10), rollingBack: rollingBack)
  }
  static let hostnames = [NodeID(value: 1).description: "h1"]
  /// Each later task is a nanosecond younger.
  static func facts(_ replicas: UInt64, _ tasks: [String], _ update: Service.UpdateStatus.State?) -> (ServiceInspect, [TaskInspect]) {
    var state = ClusterState()
    let id = ServiceID(value: 5)
    let now = Timestamp(nanoseconds: 10)
    let spec = ServiceSpec(name: "web", taskTemplate: TaskSpec(containerSpec: ContainerSpec(image: "web:1")), mode: .replicated(replicas))
    var actions: [Action] = [
      .putService(Service(id: id, name: "web", createdAt: now)),
      .putRevision(ServiceRevision(key: .init(id, 1), spec: spec, template: 1, createdAt: now)),
    ]
    if let update { actions.append(.serviceUpdateStatus(id, .init(state: update, startedAt: now, message: "as told"))) }
    for (number, line) in tasks.enumerated() {
      let words = line.split(separator: " ", maxSplits: 3).map(String.init)
      var task = ClusterTask(
        id: TaskID(value: UInt128(number)), service: id, revision: 1, slot: UInt64(words[0])!, desiredState: TaskState(name: words[2])!,
        createdAt: Timestamp(nanoseconds: 10 + Int64(number)))
      task.node = NodeID(value: 1)
      task.status = TaskStatus(state: TaskState(name: words[1])!, timestamp: now, message: "", error: words.count > 3 ? words[3] : "")
      actions.append(.createTask(task))
    }
    _ = state.apply(Command(actions: actions), at: 1)
    let shapes = state.tasks(of: id).sorted { $0.id < $1.id }.compactMap { TaskInspect($0, in: state) }
    return (ServiceInspect(state.services[id]!, in: state)!, shapes)
  }

  @Test("an update that ended badly says why: the failed task, its image, its host and its reason")
  func endedBadly() {
    for (update, current) in [(Service.UpdateStatus.State.rollbackCompleted, false), (.paused, true)] {
      let ended = look(1, ["1 rejected shutdown no such image"], current: current, update: update)
      guard case .failed(let text) = ended.verdict else {
        Issue.record("\(ended.verdict)")
        continue
      }
      #expect(text.contains("web.1 with image web:1 was rejected on h1: no such image"), "\(text)")
    }
  }

  @Test("a rollback that was asked for has converged when it is complete, not before")
  func rollback() {
    #expect(look(1, ["1 running running"], update: .rollbackStarted, rollingBack: true).verdict == .progressing)
    #expect(look(1, ["1 running running"], update: .rollbackCompleted, rollingBack: true).verdict == .converged)
  }

  @Test("a service has converged when what runs is what is wanted, and nothing else still runs")
  func converged() {
    #expect(look(2, ["1 running running", "2 running running"]).verdict == .converged)
    #expect(look(0, []).verdict == .converged)
    #expect(look(1, ["1 running running", "2 shutdown shutdown"]).verdict == .converged)
    #expect(look(2, ["1 running running", "2 starting running"]).verdict == .progressing)
    #expect(look(1, ["1 running running", "2 running shutdown"]).verdict == .progressing)
    #expect(look(0, ["1 running shutdown"]).verdict == .progressing)
    #expect(look(1, ["1 running running"], current: false).verdict == .progressing)
  }

  @Test("a global service that was just made has not converged: its hosts have no tasks yet")
  func global() {
    var (service, _) = Self.facts(1, [], nil)
    service.spec.mode = .globalMode
    service.serviceStatus = .init(runningTasks: 0, desiredTasks: 3, completedTasks: 0)
    func verdict(_ tasks: [String]) -> Convergence.Verdict {
      let shapes = Self.facts(1, tasks, nil).1
      return Convergence(
        service, tasks: shapes, current: Set(shapes.map(\.id)), hostnames: Self.hostnames, since: Timestamp(nanoseconds: 10)
      ).verdict
    }
    #expect(verdict([]) == .progressing)
    #expect(verdict(["1 running running", "2 running running"]) == .progressing)
    #expect(verdict(["1 running running", "2 running running", "3 running running"]) == .converged)
  }

  @Test("what is to end on a host that is down is told and not waited for")
  func lostHost() {
    let (service, tasks) = Self.facts(1, ["1 running running", "2 running shutdown", "3 running shutdown"], nil)
    func look(_ down: Set<String>) -> Convergence {
      Convergence(
        service, tasks: tasks, current: Set(tasks.map(\.id)), hostnames: Self.hostnames, down: down, since: Timestamp(nanoseconds: 10))
    }
    #expect(look([]).verdict == .progressing && look([]).stopping == 2 && look([]).warnings("web") == [])
    let lost = look([NodeID(value: 1).description])
    #expect(lost.verdict == .converged && lost.summary == "1/1 running")
    #expect(lost.warnings("web") == ["h1 is down: 2 tasks of web on it end when it is back"])
  }

  @Test("what keeps it is told with its reason")
  func reasons() {
    let pending = look(2, ["1 running running", "2 pending running no suitable node"])
    #expect(pending.reasons == ["web.2: pending on h1 (no suitable node)"])
    #expect(pending.stuck == "web.2 cannot be placed: no suitable node")
    #expect(pending.bar("web", width: 10) == "web  [=====>    ]  1/2 running")
  }

  @Test("the summary tells what is new, what is old and still serves, and what is stopping")
  func summary() {
    #expect(look(3, ["1 starting running", "2 running running", "3 running running"], old: [1, 2]).summary == "0/3 updated, 2 old still running")
    #expect(
      look(2, ["1 running running", "1 running shutdown", "2 running running"], old: [1, 2]).summary == "1/2 updated, 1 old still running, 1 stopping"
    )
    #expect(look(1, ["1 running running", "2 running shutdown", "3 running shutdown"]).summary == "1/1 running, 2 stopping")
    #expect(look(2, ["1 running running", "2 running running"]).summary == "2/2 running")
  }

  @Test("a slot that fails again and again is an answer")
  func failing() {
    let failing = look(
      1,
      [
        "1 rejected shutdown No such image: web:9", "1 rejected shutdown No such image: web:9", "1 rejected shutdown No such image: web:9",
        "1 preparing running",
      ])
    guard case .failed(let text) = failing.verdict else {
      Issue.record("\(failing.verdict)")
      return
    }
    #expect(failing.reasons == ["web.1: preparing on h1", "web.1: rejected on h1 (No such image: web:9)"])
    #expect(text.contains("web.1 does not stay up") && text.contains("No such image: web:9") && text.contains("h1"))
    #expect(look(1, ["1 failed shutdown exit 1", "1 preparing running"]).verdict == .progressing)
  }
}

@Suite struct ObstacleTests {
  private func lines(_ tasks: [String], update: Service.UpdateStatus.State? = nil) -> [String] {
    let (service, shapes) = ConvergenceTests.facts(2, tasks, update)
    return Obstacle.all(service, tasks: shapes, hostnames: ConvergenceTests.hostnames).map { "\($0.subject) \($0.state): \($0.reason)" }
  }

  @Test("nothing is in the way of what runs, of what is complete, and of what was scaled away after it failed")
  func well() {
    #expect(lines(["1 running running", "2 running running"]) == [])
    #expect(lines(["1 failed shutdown task: non-zero exit (1)", "1 running running", "2 complete shutdown"]) == [])
    #expect(lines(["1 failed remove task: non-zero exit (1)"]) == [])
  }

  @Test("a task that waits tells its reason and what failed before; one that is not started again says so; a paused update is told first")
  func reasons() {
    #expect(
      lines(["1 running running", "2 pending running no suitable node (insufficient memory on 3 nodes)"]) == [
        "web.2 pending: no suitable node (insufficient memory on 3 nodes)"
      ])
    #expect(
      lines(["1 failed shutdown task: non-zero exit (1)", "1 rejected shutdown no such image", "1 ready running"], update: .paused) == [
        "web update paused: as told: orch update or orch rollback goes on", "web.1 ready: 2 tasks before it failed, the last on h1: no such image",
      ])
    #expect(
      lines(["1 failed shutdown task: non-zero exit (3)"]) == ["web.1 failed: task: non-zero exit (3); it is not started again (restart_policy)"])
    #expect(lines(["1 assigned running"]) == ["web.1 assigned: it is assigned"])
  }
}
