import API
import APIClient
import ControlAPI
import Model
import Testing

@Suite struct ManagersTests {
  /// Three managers with votes; h1 leads.
  private func caller() -> Caller {
    let caller = Caller()
    let nodes = caller.backend.nodes
    caller.backend.apply([
      .nodeSpec(nodes[1], NodeSpec(role: .manager), at: MemoryBackend.now), .nodeSpec(nodes[2], NodeSpec(role: .manager), at: MemoryBackend.now),
    ])
    caller.backend.world.withLock { $0.members = [(1, true), (2, true), (3, true)] }
    return caller
  }
  private func roles(_ caller: Caller) async throws -> [String] {
    let managers: [ManagerInspect] = try await caller.get("/orch/v1/managers")
    return managers.map { "\($0.hostname) \($0.role.rawValue)\($0.leader ? " leads" : "")" }
  }
  private func role(_ caller: Caller, _ node: Int) -> NodeRole? {
    caller.backend.world.withLock { $0.state.nodes[caller.backend.nodes[node - 1]]?.spec.role }
  }

  @Test("managers are listed with term, log index and lag")
  func list() async throws {
    let managers: [ManagerInspect] = try await caller().get("/orch/v1/managers")
    #expect(managers.map(\.lag) == [0, 1, 2] && managers.map(\.matchIndex) == [39, 38, 37] && managers.allSatisfy { $0.term == 3 })
  }

  @Test("demote takes the vote and the role, promote gives both back; docker's node update does the same")
  func promoteAndDemote() async throws {
    let caller = caller()
    #expect(try await caller.send("POST", "/orch/v1/managers/h3/demote").status == 204)
    #expect(try await roles(caller) == ["h1 voter leads", "h2 voter", "h3 learner"] && role(caller, 3) == .worker)
    let listed: [NodeInspect] = try await caller.get("/nodes")
    #expect(listed.filter { $0.managerStatus != nil }.map(\.hostname) == ["h1", "h2"], "docker knows managers with a vote only")
    #expect(try await caller.send("POST", "/orch/v1/managers/h3/promote").status == 204)
    #expect(try await roles(caller) == ["h1 voter leads", "h2 voter", "h3 voter"] && role(caller, 3) == .manager)

    let node: NodeInspect = try await caller.get("/nodes/h2")
    let demoted = try await caller.send(
      "POST", "/nodes/h2/update?version=\(node.version.index)", #"{"Role":"worker","Availability":"drain","Labels":{"a":"b"}}"#)
    #expect(demoted.status == 200, "\(demoted.text)")
    #expect(try await roles(caller) == ["h1 voter leads", "h2 learner", "h3 voter"])
    let after: NodeInspect = try await caller.get("/nodes/h2")
    #expect(after.spec.availability == .drain && after.spec.labels == ["a": "b"])
    let stale = try await caller.send("POST", "/nodes/h2/update?version=\(node.version.index)", #"{"Role":"manager","Availability":"active"}"#)
    #expect(stale.status == 500 && stale.text.contains("update out of sequence"))
    let promoted = try await caller.send("POST", "/nodes/h2/update?version=\(after.version.index)", #"{"Role":"manager","Availability":"active"}"#)
    #expect(promoted.status == 200 && role(caller, 2) == .manager, "\(promoted.text)")
    #expect(try await roles(caller) == ["h1 voter leads", "h2 voter", "h3 voter"])
  }

  @Test("a leader that is demoted or removed hands over first")
  func leader() async throws {
    let caller = caller()
    #expect(try await caller.send("POST", "/orch/v1/managers/h1/demote").status == 204)
    #expect(try await roles(caller) == ["h1 learner", "h2 voter leads", "h3 voter"])
    let removed = try await caller.send("DELETE", "/orch/v1/managers/h2?force=1")
    #expect(removed.status == 204, "\(removed.text)")
    #expect(try await roles(caller) == ["h1 learner", "h3 voter leads"] && role(caller, 2) == .worker)
    let last = try await caller.send("DELETE", "/orch/v1/managers/h3?force=1")
    #expect(last.status == 409 && last.text.contains("the only one with a vote") && last.text.contains("orch manager add"))
  }

  @Test("a step that loses the majority is refused, and what users see of the node says so; --force does it")
  func quorum() async throws {
    let caller = caller()
    caller.backend.world.withLock { $0.members = [(1, true), (2, true)] }
    let refused = try await caller.send("POST", "/orch/v1/managers/h2/demote")
    #expect(refused.status == 409 && refused.text.contains("no majority") && role(caller, 2) == .manager)
    #expect(try await caller.send("DELETE", "/orch/v1/managers/h2").status == 409)
    #expect(try await caller.send("POST", "/orch/v1/managers/h2/demote?force=1").status == 204)
  }

  @Test("what cannot be done is said with what to do")
  func refusals() async throws {
    let caller = caller()
    caller.backend.world.withLock { $0.members = [(1, true), (2, true)] }
    let promoted = try await caller.send("POST", "/orch/v1/managers/h3/promote")
    #expect(promoted.status == 409 && promoted.text.contains("runs no orch-manager") && promoted.text.contains("orch manager add"))
    #expect(try await caller.send("DELETE", "/orch/v1/managers/h3").status == 409)
    #expect(try await caller.send("DELETE", "/orch/v1/managers/h9").status == 404)
  }

  @Test("leadership goes to whom it is asked for, or to the best")
  func transfer() async throws {
    let caller = caller()
    let named = try await caller.send("POST", "/orch/v1/managers/transfer-leadership", #"{"Node":"h3"}"#)
    #expect(named.status == 200 && named.text.contains("h3"), "\(named.text)")
    #expect(try await roles(caller) == ["h1 voter", "h2 voter", "h3 voter leads"])
    #expect(try await caller.send("POST", "/orch/v1/managers/transfer-leadership", "{}").text.contains("h1"))
    #expect(try await caller.send("POST", "/orch/v1/managers/transfer-leadership", #"{"Node":"h9"}"#).status == 404)
  }

  @Test("an answer that is lost because leadership moved is asked for again, and nothing is done twice")
  func lostAnswers() async throws {
    struct Lost: Error {}
    let changes: [(String, String, String?, Int)] = [
      ("POST", "/orch/v1/managers/h1/demote", nil, 204), ("DELETE", "/orch/v1/managers/h1?force=1", nil, 204),
      ("POST", "/orch/v1/managers/transfer-leadership", "{}", 200), ("POST", "/orch/v1/managers/transfer-leadership", #"{"Node":"h2"}"#, 200),
      ("DELETE", "/nodes/h1?force=1", nil, 200), ("POST", "/nodes/h1/update?version=1", #"{"Role":"worker","Availability":"active"}"#, 200),
    ]
    for (method, uri, body, status) in changes {
      let caller = caller()
      let (api, backend) = (caller.api, caller.backend)
      let lose: @Sendable (APIRequest) async throws -> APIResponse = { request in
        backend.world.withLock { $0.route = .local }
        let answer = await api.respond(to: request)
        #expect(answer.status == status, "\(method) \(uri)")
        throw Lost()
      }
      backend.world.withLock { $0.route = .forward(lose) }
      let answer = try await caller.send(method, uri, body)
      #expect(answer.status == status, "\(method) \(uri): \(answer.text)")
      let leader = try await caller.get("/orch/v1/managers", as: [ManagerInspect].self).filter(\.leader).map(\.hostname)
      #expect(leader == (uri.contains("transfer") && body == "{}" ? ["h1"] : ["h2"]), "\(method) \(uri)")
    }
  }

  @Test("a change that was made, whose answer was lost, and that somebody else's followed is not said to be refused")
  func lostAnswerAndLaterChange() async throws {
    struct Lost: Error {}
    let caller = caller()
    let (api, backend) = (caller.api, caller.backend)
    func update(_ label: String, _ version: UInt64) -> APIRequest {
      let body = #"{"Role":"worker","Availability":"active","Labels":{"by":"\#(label)"}}"#
      return APIRequest(method: "POST", uri: "/nodes/h3/update?version=\(version)", body: APIBody(string: body))
    }
    let before: NodeInspect = try await caller.get("/nodes/h3")
    let others = update("others", before.version.index + 1)
    backend.world.withLock {
      $0.route = .forward { request in
        backend.world.withLock { $0.route = .local }
        for made in [request, others] {
          let answer = await api.respond(to: made)
          #expect(answer.status == 200)
        }
        throw Lost()
      }
    }
    let answer = await api.serve(update("mine", before.version.index))
    let text = String(buffer: try await answer.body.collect(upTo: 1 << 20))
    #expect(answer.status == 503 && text.contains("look whether it was done") && !text.contains("out of sequence"), "\(text)")
  }

  @Test("a question in SQL is answered by whoever is asked, leader or not")
  func query() async throws {
    let caller = caller()
    let answer = try await caller.send("POST", "/orch/v1/sql", #"{"Query":"select 1","Timeout":2.5,"Stale":true}"#)
    #expect(answer.status == 200 && answer.text.contains(#"["select 1",2.5,1]"#) && answer.text.hasSuffix("{\"rows\":1}\n"))
    #expect(answer.headers.contains(APIHeader("Content-Type", "application/x-ndjson")))
    caller.backend.world.withLock { $0.route = .noLeader("") }
    #expect(try await caller.send("POST", "/orch/v1/sql", #"{"Query":"select 1"}"#).text.contains(#"["select 1",10.0,0]"#))
    #expect(try await caller.send("POST", "/orch/v1/sql", #"{"Query":"delete"}"#).status == 400)
    for wrong in [#"{"Query":"select 1","Timeout":0}"#, #"{"Query":"select 1","Timeout":601}"#, "{}", "select 1"] {
      #expect(try await caller.send("POST", "/orch/v1/sql", wrong).status == 400, "\(wrong)")
    }
  }

  @Test("a restore says what it would do, does it when asked, and twice does nothing more; another cluster's backup and no backup are refused")
  func restore() async throws {
    let caller = Caller()
    try await caller.create("web", replicas: 2)
    try await caller.create("old")
    caller.backend.world.withLock { $0.backups["good"] = $0.state }
    _ = try await caller.send("DELETE", "/services/old")
    try await caller.create("new")
    let planned = try await caller.send("POST", "/orch/v1/restore", "good")
    #expect(planned.status == 200, "\(planned.text)")
    let plan = try JSONText.decode(RestoreResponse.self, Array(planned.text.utf8))
    #expect(plan.created == ["service old"] && plan.removed == ["service new"] && plan.unchanged == ["service web"] && !plan.applied)
    #expect(try await caller.get("/services", as: [ServiceInspect].self).map(\.spec.name).sorted() == ["new", "web"])
    #expect(try await caller.send("POST", "/orch/v1/restore?apply=1", "good").status == 200)
    #expect(try await caller.get("/services", as: [ServiceInspect].self).map(\.spec.name).sorted() == ["old", "web"])
    let again = try JSONText.decode(RestoreResponse.self, Array(try await caller.send("POST", "/orch/v1/restore?apply=1", "good").text.utf8))
    #expect(again.created.isEmpty && again.removed.isEmpty && again.unchanged.count == 2)

    #expect(try await caller.send("POST", "/orch/v1/restore", "nonsense").text.contains("not a backup of orch"))
    caller.backend.world.withLock { world in
      var other = world.state
      _ = other.apply(Command(actions: [.putCluster(Cluster(id: ClusterID(value: 5), createdAt: .zero))]), at: other.index + 1)
      world.backups["other"] = other
    }
    let refused = try await caller.send("POST", "/orch/v1/restore", "other")
    #expect(refused.status == 409 && refused.text.contains("--other-cluster"))
    #expect(try await caller.send("POST", "/orch/v1/restore?other=1", "other").status == 200)
  }

  @Test("a stale version is refused in docker's words, by every endpoint that takes one")
  func outOfSequence() async throws {
    let caller = Caller()
    try await caller.create("web")
    let service: ServiceInspect = try await caller.get("/services/web")
    let spec = String(decoding: JSONText.encode(service.spec), as: UTF8.self)
    #expect(try await caller.send("POST", "/services/web/update?version=\(service.version.index)", spec).status == 200)
    for uri in [
      "/services/web/update?version=\(service.version.index)", "/services/web/update?version=1", "/services/web/update?version=99999999",
      "/services/web/update?rollback=previous&version=\(service.version.index)",
    ] {
      let stale = try await caller.send("POST", uri, spec)
      #expect(stale.status == 500 && stale.text.contains("update out of sequence"), "\(uri): \(stale.text)")
    }
    let node = try await caller.send("POST", "/nodes/h1/update?version=77", #"{"Role":"manager","Availability":"drain"}"#)
    #expect(node.status == 500 && node.text.contains("update out of sequence"), "\(node.text)")
    #expect(try await caller.send("POST", "/services/web/update", spec).status == 400)
  }
}
