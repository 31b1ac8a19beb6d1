import API
import APIClient
import ControlAPI
import Model
import NIOCore
import Surroundings
import Testing

/// Requests as values, without a socket.
struct Caller {
  let backend = MemoryBackend()
  var api: ControlAPI { ControlAPI(backend: backend) }

  func send(
    _ method: String, _ uri: String, _ body: String? = nil, headers: [APIHeader] = []
  ) async throws -> (status: Int, text: String, headers: [APIHeader]) {
    let response = await api.serve(APIRequest(method: method, uri: uri, headers: headers, body: body.map { APIBody(string: $0) } ?? .empty))
    return (response.status, String(buffer: try await response.body.collect(upTo: 1 << 20)), response.headers)
  }
  func get<Value: Decodable>(_ uri: String, as type: Value.Type = Value.self) async throws -> Value {
    let answer = try await send("GET", uri)
    #expect(answer.status == 200, "GET \(uri): \(answer.text)")
    return try JSONText.decode(type, Array(answer.text.utf8))
  }
  @discardableResult
  func create(_ name: String, image: String = "web:1", replicas: Int = 1, more: String = "") async throws -> String {
    let answer = try await send(
      "POST", "/v1.45/services/create",
      #"{"Name":"\#(name)","TaskTemplate":{"ContainerSpec":{"Image":"\#(image)"}},"Mode":{"Replicated":{"Replicas":\#(replicas)}}\#(more)}"#)
    #expect(answer.status == 201, "\(answer.text)")
    return try JSONText.decode(ServiceCreateResponse.self, Array(answer.text.utf8)).id
  }
  func filters(_ json: String) -> String { "filters=" + percentEncoded(json) }
}

@Suite struct RequestTests {
  @Test(
    "ping tells versions in its headers, with and without a version in the path, by HEAD and GET",
    arguments: ["/_ping", "/v1.24/_ping", "/v1.99/_ping"])
  func ping(path: String) async throws {
    let caller = Caller()
    for method in ["HEAD", "GET"] {
      let answer = try await caller.send(method, path)
      #expect(answer.status == 200)
      #expect(answer.text == (method == "HEAD" ? "" : "OK"))
      #expect(answer.headers.contains(APIHeader("Api-Version", "1.45")))
      #expect(answer.headers.contains(APIHeader("Ostype", "linux")))
      #expect(answer.headers.contains(APIHeader("Swarm", "active/manager")))
    }
  }

  @Test("a user's key is signed; a time that is none is refused")
  func certificate() async throws {
    let caller = Caller()
    let path = "/orch/v1/certificates"
    let answer = try await caller.send("POST", path, #"{"Name":"ann","SigningRequest":"PEM","ValidSeconds":60}"#)
    #expect(answer.status == 201)
    let response = try JSONText.decode(CertificateResponse.self, Array(answer.text.utf8))
    #expect(response.certificate == "certificate of ann for PEM" && response.authority == "authority")
    #expect(response.notAfter == MemoryBackend.now + .seconds(60))
    #expect(try await caller.send("POST", path, #"{"Name":"ann"}"#).text.contains("SigningRequest is missing"))
    #expect(try await caller.send("POST", path, #"{"Name":"ann","SigningRequest":"PEM","ValidSeconds":-1}"#).status == 400)
  }

  @Test(
    "an error is a message in JSON, with docker's code",
    arguments: [
      ("GET", "/services/web", nil, 404, "service web not found"),
      ("GET", "/tasks/web.1", nil, 404, "task web.1 not found"),
      ("GET", "/nodes/h9", nil, 404, "node h9 not found"),
      ("GET", "/networks/n", nil, 404, "network n not found"),
      ("GET", "/nothing", nil, 404, "page not found"),
      ("GET", "/v1.12/nodes", nil, 400, "client version 1.12 is too old"),
      ("GET", "/services?filters=%7B", nil, 400, "invalid filter"),
      ("GET", "/services?filters=%7B%22colour%22%3A%5B%22red%22%5D%7D", nil, 400, "invalid filter 'colour'"),
      ("POST", "/services/create", "{", 400, "invalid JSON"),
      ("POST", "/services/create", #"{"Name":"a","TaskTemplate":{}}"#, 400, "ContainerSpec is missing at TaskTemplate"),
      ("POST", "/services/create", #"{"Name":"a b","TaskTemplate":{"ContainerSpec":{"Image":"i"}}}"#, 400, "'a b'"),
      (
        "POST", "/services/create", #"{"Name":"a","TaskTemplate":{"ContainerSpec":{"Image":"i","Secrets":[{"SecretName":"x"}]}}}"#, 400,
        "secret x not found: create it first"
      ),
      ("POST", "/networks/create", #"{"Name":"n","Driver":"bridge"}"#, 400, "overlay"),
      ("GET", "/containers/json", nil, 501, "does not serve"),
      ("GET", "/distribution/web:1/json", nil, 404, "web:1"),
      ("POST", "/orch/v1/scale", #"{"web":-1}"#, 400, "cannot have -1 replicas"),
      ("POST", "/orch/v1/scale", #"{"web":1000000000}"#, 400, "cannot have 1000000000 replicas"),
      ("POST", "/orch/v1/scale", #"{"web":1.5}"#, 400, "cannot have 1.5 replicas"),
      ("POST", "/orch/v1/scale", #"{"web":1}"#, 404, "service web not found"),
    ] as [(String, String, String?, Int, String)])
  func errors(method: String, uri: String, body: String?, status: Int, text: String) async throws {
    let answer = try await Caller().send(method, uri, body)
    #expect(answer.status == status, "\(answer.text)")
    #expect(answer.headers.filter { $0.name.lowercased() == "content-type" } == [APIHeader("Content-Type", "application/json")])
    let message = try JSONText.decode(ErrorResponse.self, Array(answer.text.utf8)).message
    #expect(message.contains(text), "\(message)")
  }

  @Test("what goes in as a spec comes out as the same spec, and a task has what clients read")
  func roundTrip() async throws {
    let caller = Caller()
    let id = try await caller.create(
      "web", replicas: 2,
      more:
        #","Labels":{"a":"b"},"UpdateConfig":{"Delay":5000000000},"EndpointSpec":{"Ports":[{"Protocol":"tcp","TargetPort":80,"PublishedPort":8080}]}"#
    )
    let service: ServiceInspect = try await caller.get("/services/\(id)")
    #expect(service.spec.labels == ["a": "b"])
    #expect(service.spec.updateConfig?.delay == .seconds(5))
    #expect(service.spec.ports.first?.publishedPort == 8080)
    let byPrefix: ServiceInspect = try await caller.get("/v1.45/services/\(id.prefix(10))?insertDefaults=true")
    #expect(byPrefix.spec.taskTemplate.restartPolicy?.condition == .any)
    #expect(byPrefix.spec.updateConfig?.parallelism == 1)
    let tasks: [TaskInspect] = try await caller.get("/tasks?" + caller.filters(#"{"service":{"web":true},"desired-state":{"running":true}}"#))
    #expect(tasks.map(\.slot).sorted { $0! < $1! } == [1, 2])
    #expect(tasks.allSatisfy { $0.status.state == "running" && $0.desiredState == "running" && $0.serviceID == id })
    let list: [ServiceInspect] = try await caller.get("/services?status=true")
    #expect(list.first?.serviceStatus == .init(runningTasks: 2, desiredTasks: 2, completedTasks: 0))
  }

  @Test(
    "a global service that has no tasks yet lacks one on each host that is fit",
    arguments: [([], 3), (["node.role==worker"], 2), (["nonsense"], 0)] as [([String], UInt64)])
  func globalWithoutTasks(constraints: [String], wanted: UInt64) async throws {
    let caller = Caller()
    var task = TaskSpec(containerSpec: ContainerSpec(image: "web:1"))
    var placement = Placement()
    placement.constraints = constraints
    task.placement = placement
    let id = ServiceID(value: 5)
    caller.backend.apply([
      .putService(Service(id: id, name: "web", createdAt: MemoryBackend.now)),
      .putRevision(
        ServiceRevision(
          key: .init(id, 1), spec: ServiceSpec(name: "web", taskTemplate: task, mode: .globalMode), template: 1, createdAt: MemoryBackend.now)),
    ])
    let service: ServiceInspect = try await caller.get("/services/\(id)?status=true")
    #expect(service.serviceStatus == .init(runningTasks: 0, desiredTasks: wanted, completedTasks: 0))
  }

  @Test(
    "filters are understood as Go and as Python write them",
    arguments: [
      (#"{"name":{"web":true}}"#, ["web", "web2"]), (#"{"name":["web2"]}"#, ["web2"]), (#"{"name":{"web2":true,"api":true}}"#, ["api", "web2"]),
      (#"{"name":{"web":false}}"#, ["api", "web", "web2"]), (#"{"label":["tier=front"]}"#, ["web"]), (#"{"label":{"tier":true}}"#, ["api", "web"]),
      (#"{"mode":["global"]}"#, []), ("{}", ["api", "web", "web2"]),
    ])
  func filterForms(json: String, names: [String]) async throws {
    let caller = Caller()
    try await caller.create("web", more: #","Labels":{"tier":"front"}"#)
    try await caller.create("web2")
    try await caller.create("api", more: #","Labels":{"tier":"back"}"#)
    let found: [ServiceInspect] = try await caller.get("/services?" + caller.filters(json))
    #expect(found.map(\.spec.name) == names)
  }

  @Test("_up-to-date finds the tasks of the current template only")
  func upToDate() async throws {
    let caller = Caller()
    try await caller.create("web", replicas: 2)
    let service: ServiceInspect = try await caller.get("/services/web")
    var spec = service.spec
    spec.taskTemplate.containerSpec.image = "web:2"
    let answer = try await caller.send("POST", "/services/web/update?version=\(service.version.index)", JSONText.line(spec))
    #expect(answer.status == 200, "\(answer.text)")
    let all: [TaskInspect] = try await caller.get("/tasks?" + caller.filters(#"{"service":["web"]}"#))
    let current: [TaskInspect] = try await caller.get("/tasks?" + caller.filters(#"{"service":["web"],"_up-to-date":["true"]}"#))
    #expect(all.count == 4)
    #expect(current.map(\.spec.containerSpec.image) == ["web:2", "web:2"])
  }

  @Test("a stale version is refused in docker's words; rollback points back")
  func versions() async throws {
    let caller = Caller()
    try await caller.create("web", image: "web:1")
    let first: ServiceInspect = try await caller.get("/services/web")
    var spec = first.spec
    spec.taskTemplate.containerSpec.image = "web:2"
    #expect(try await caller.send("POST", "/services/web/update?version=\(first.version.index)", JSONText.line(spec)).status == 200)
    let stale = try await caller.send("POST", "/services/web/update?version=\(first.version.index)", JSONText.line(spec))
    #expect(stale.text.contains("update out of sequence") && stale.status >= 400)
    let second: ServiceInspect = try await caller.get("/services/web")
    #expect(second.previousSpec?.taskTemplate.containerSpec.image == "web:1")
    #expect(
      try await caller.send("POST", "/services/web/update?version=\(second.version.index)&rollback=previous", JSONText.line(spec)).status == 200)
    let third: ServiceInspect = try await caller.get("/services/web")
    #expect(third.spec.taskTemplate.containerSpec.image == "web:1")
    #expect(try await caller.send("POST", "/services/web/update", JSONText.line(spec)).status == 400)
  }

  @Test("the same name twice is a conflict")
  func conflict() async throws {
    let caller = Caller()
    try await caller.create("web")
    let answer = try await caller.send("POST", "/services/create", #"{"Name":"web","TaskTemplate":{"ContainerSpec":{"Image":"i"}}}"#)
    #expect(answer.status == 409)
    #expect(answer.text.contains("name conflicts with an existing object"))
  }

  func deploy(_ caller: Caller, _ stack: String, _ image: String = "web:1", services: [String] = ["web", "visitor"]) async throws
    -> StackDeployResponse
  {
    let label = [StackLabel.namespace: stack]
    var network = NetworkSpec(name: "\(stack)_default")
    network.labels = label
    let specs = services.map { name in
      var template = TaskSpec(containerSpec: ContainerSpec(image: name == "web" ? image : "visitor:1"))
      template.networks = [NetworkAttachmentConfig(target: "\(stack)_default", aliases: [name])]
      return ServiceSpec(name: "\(stack)_\(name)", labels: label, taskTemplate: template, mode: .replicated(1))
    }
    let request = StackDeployRequest(
      manifest: "services: {} # \(image)", services: specs, networks: [network], volumes: [VolumeSpec(name: "\(stack)_data", labels: label)])
    let answer = try await caller.send("POST", "/orch/v1/stacks/\(stack)", JSONText.line(request))
    #expect(answer.status == 200, "\(answer.text)")
    return try JSONText.decode(StackDeployResponse.self, Array(answer.text.utf8))
  }

  @Test("a deploy is one entry; a second one changes only what differs")
  func stacks() async throws {
    let caller = Caller()
    let before = caller.backend.world.withLock { $0.proposals }
    let first = try await deploy(caller, "shop")
    #expect(caller.backend.world.withLock { $0.proposals } == before + 1)
    #expect(first.created == ["network shop_default", "volume shop_data", "service shop_web", "service shop_visitor"])
    #expect(first.revision == 1)
    let again = try await deploy(caller, "shop")
    #expect(again.created.isEmpty && again.updated.isEmpty && again.removed.isEmpty)
    #expect(again.revision == 1)
    #expect(caller.backend.world.withLock { $0.proposals } == before + 1)
    let changed = try await deploy(caller, "shop", "web:2", services: ["web"])
    #expect(changed.updated == ["service shop_web"])
    #expect(changed.removed == ["service shop_visitor"])
    #expect(changed.revision == 2)
    let stacks: [StackInspect] = try await caller.get("/orch/v1/stacks")
    #expect(stacks.map(\.name) == ["shop"])
    #expect(stacks.first?.networks == ["shop_default"])
    let removed = try await caller.send("DELETE", "/orch/v1/stacks/shop?volumes=1")
    #expect(removed.status == 200, "\(removed.text)")
    #expect(caller.backend.world.withLock { $0.removedVolumes.sorted() } == ["shop_data@1", "shop_data@2", "shop_data@3"])
    #expect(try await caller.send("DELETE", "/orch/v1/stacks/nothing").status == 404)
  }

  @Test("a volume that a task has by a name with placeholders, or as its own, is in use; and the user is named")
  func volumesInUse() async throws {
    let caller = Caller()
    let spec = """
      {"Name":"db","TaskTemplate":{"ContainerSpec":{"Image":"web:1","Mounts":[
        {"Type":"volume","Source":"data-{{.Task.Slot}}-{{.Node.Hostname}}","Target":"/data"},{"Type":"bind","Source":"/srv","Target":"/srv"}]}},
        "Mode":{"Replicated":{"Replicas":1}}}
      """
    #expect(try await caller.send("POST", "/services/create", spec).status == 201)
    let state = try await caller.backend.state()
    let task = try #require(state.tasks.values.first { $0.node != nil })
    let node = try #require(task.node)
    let host = try #require(state.nodes[node]).hostname
    for name in ["data-1-\(host)", "data-2-\(host)", "\(task.id)-1a2b", "other"] {
      #expect(try await caller.send("POST", "/volumes/create", #"{"Name":"\#(name)"}"#).status == 201)
    }
    for name in ["data-1-\(host)", "\(task.id)-1a2b"] {
      let answer = try await caller.send("DELETE", "/volumes/\(name)")
      #expect(answer.status == 409 && answer.text.contains("in use by service db"), "\(name): \(answer)")
    }
    let dangling = try await caller.get("/volumes?" + caller.filters(#"{"dangling":["true"]}"#), as: VolumeList.self)
    #expect(dangling.volumes.map(\.name) == ["data-2-\(host)", "other"])
    #expect(try await caller.send("DELETE", "/volumes/data-2-\(host)").status == 204)
    #expect(caller.backend.world.withLock { Set($0.removedVolumes.map { $0.split(separator: "@")[0] }) } == ["data-2-\(host)"])
    caller.backend.world.withLock { $0.heldVolumes = ["other@2"] }
    let held = try await caller.send("DELETE", "/volumes/other")
    #expect(held.status == 409 && held.text.contains("other on host h2: a container uses it"), "\(held)")
    #expect(try await caller.send("GET", "/volumes/other").status == 200, "what a host keeps is listed")
    caller.backend.world.withLock { $0.heldVolumes = [] }
    #expect(try await caller.send("DELETE", "/volumes/other").status == 204)
  }

  @Test("what a volume or a container would not get is refused by name; what it has anyway is taken")
  func refusedByName() async throws {
    let caller = Caller()
    for (body, status, text) in [
      (#"{"Name":"v","Driver":"local","DriverOpts":{"type":"nfs","device":":/x"}}"#, 400, "driver option device is not supported"),
      (#"{"Name":"v","Driver":"rexray"}"#, 400, "driver rexray is not known"), (#"{"Name":"v","Driver":"local","DriverOpts":{}}"#, 201, "v"),
      (#"{"Name":"w","DriverOpts":null}"#, 201, "w"),
    ] {
      let answer = try await caller.send("POST", "/volumes/create", body)
      #expect(answer.status == status && answer.text.contains(text), "\(answer.text)")
    }
    for (number, (privileges, refused)) in [
      (#"{"NoNewPrivileges":false,"CredentialSpec":null,"SELinuxContext":null}"#, nil),
      (#"{"Seccomp":{"Mode":"default"},"AppArmor":{"Mode":"disabled"}}"#, nil), (#"{"SELinuxContext":{"Disable":true}}"#, "an SELinux context"),
      (#"{"Seccomp":{"Mode":"unconfined"}}"#, "another seccomp profile"), (#"{"AppArmor":{"Mode":"custom"}}"#, "another AppArmor profile"),
      (#"{"CredentialSpec":{"File":"x"}}"#, "a credential spec"),
    ].enumerated() {
      let answer = try await caller.send(
        "POST", "/services/create", #"{"Name":"p\#(number)","TaskTemplate":{"ContainerSpec":{"Image":"a:1","Privileges":\#(privileges)}}}"#)
      let isRight = refused.map { answer.status == 501 && answer.text.contains("does not support \($0)") } ?? (answer.status == 201)
      #expect(isRight, "\(privileges): \(answer.text)")
    }
  }

  @Test("a short name is enough where one stack has it; otherwise the candidates are listed")
  func shortNames() async throws {
    let caller = Caller()
    _ = try await deploy(caller, "shop")
    let service: ServiceInspect = try await caller.get("/services/web")
    #expect(service.spec.name == "shop_web")
    let task: TaskInspect = try await caller.get("/tasks/web.1")
    #expect(task.serviceID == service.id)
    #expect(try await caller.send("POST", "/orch/v1/scale", #"{"web":3,"visitor":0}"#).status == 200)
    let scaled: ServiceInspect = try await caller.get("/services/web?status=true")
    #expect(scaled.serviceStatus?.runningTasks == 3)
    // As `docker service ps web` asks.
    func names(_ filter: String) async throws -> [String] {
      let found: [ServiceInspect] = try await caller.get("/services?" + caller.filters(filter))
      return found.map(\.spec.name)
    }
    #expect(try await names(#"{"name":{"web":true}}"#) == ["web"])
    #expect(try await names(#"{"name":{"shop_web":true}}"#) == ["shop_web"])
    #expect(try await names(#"{"name":{"shop":true}}"#) == ["shop_visitor", "shop_web"])
    _ = try await deploy(caller, "blog")
    #expect(try await names(#"{"name":{"web":true}}"#) == ["blog_web", "shop_web"])
    let ambiguous = try await caller.send("GET", "/services/web")
    #expect(ambiguous.status == 400)
    #expect(ambiguous.text.contains("blog_web, shop_web"))
    #expect(try await caller.send("GET", "/services/shop_web").status == 200)
  }

  @Test("a node is found by hostname and drained; its version guards it")
  func nodes() async throws {
    let caller = Caller()
    var node: NodeInspect = try await caller.get("/nodes/h2")
    #expect(node.status.addr == "10.9.0.2")
    node.spec.availability = .drain
    #expect(try await caller.send("POST", "/nodes/h2/update?version=\(node.version.index)", JSONText.line(node.spec)).status == 200)
    #expect(try await caller.get("/nodes/h2", as: NodeInspect.self).spec.availability == .drain)
    #expect(
      try await caller.send("POST", "/nodes/h2/update?version=\(node.version.index)", JSONText.line(node.spec)).text.contains("out of sequence"))
    let managers: [NodeInspect] = try await caller.get("/nodes?" + caller.filters(#"{"role":["manager"]}"#))
    #expect(managers.map(\.managerStatus?.leader) == [true])
    #expect(try await caller.send("DELETE", "/nodes/h2").text.contains("is not down"))
    #expect(try await caller.send("DELETE", "/nodes/h2?force=1").status == 200)
    #expect(caller.backend.world.withLock { $0.removedManagers } == [])
    // A manager's node leaves the Raft group first.
    caller.backend.world.withLock { $0.members = [(1, true), (2, true)] }
    #expect(try await caller.send("DELETE", "/nodes/h1?force=1").status == 200)
    #expect(caller.backend.world.withLock { $0.removedManagers } == [caller.backend.nodes[0]])
  }

  @Test("a network in use stays; a free one goes")
  func networks() async throws {
    let caller = Caller()
    let created = try await caller.send(
      "POST", "/networks/create", #"{"Name":"n","Driver":"overlay","IPAM":{"Driver":"default","Options":null,"Config":[]},"Attachable":true}"#)
    #expect(created.status == 201, "\(created.text)")
    try await caller.create("web", more: "")
    let service: ServiceInspect = try await caller.get("/services/web")
    var spec = service.spec
    spec.taskTemplate.networks = [NetworkAttachmentConfig(target: "n")]
    #expect(try await caller.send("POST", "/services/web/update?version=\(service.version.index)", JSONText.line(spec)).status == 200)
    let inUse = try await caller.send("DELETE", "/networks/n")
    #expect(inUse.status == 409 && inUse.text.contains("in use by service web"))
    #expect(try await caller.send("DELETE", "/services/web").status == 200)
    #expect(try await caller.send("DELETE", "/networks/n").status == 204)
  }

  @Test("without a leader everything but ping, version, info and managers says what to do; a follower forwards the whole request")
  func routing() async throws {
    let caller = Caller()
    caller.backend.world.withLock { $0.route = .noLeader("1 of 3 managers answers") }
    let refused = try await caller.send("GET", "/services")
    #expect(refused.status == 503)
    #expect(refused.text.contains("The swarm does not have a leader") && refused.text.contains("1 of 3 managers answers"))
    #expect(try await caller.send("GET", "/info").status == 200)
    #expect(try await caller.send("GET", "/orch/v1/managers").status == 200)
    let leader = Caller()
    try await leader.create("there")
    let api = leader.api
    caller.backend.world.withLock { $0.route = .forward { await api.respond(to: $0) } }
    let found: [ServiceInspect] = try await caller.get("/services")
    #expect(found.map(\.spec.name) == ["there"])
  }

  @Test(
    "a change whose leader is lost within it is never called undone: it may have been made",
    arguments: [ControlRoute.noLeader("1 of 3 managers answers"), .unreachable("nothing was changed")])
  func lostLeader(afterwards: ControlRoute) async throws {
    let caller = Caller()
    let leader = Caller()
    let api = leader.api
    struct Lost: Error {}
    let backend = caller.backend
    backend.world.withLock { world in
      world.route = .forward { request in
        let made = await api.respond(to: request)
        #expect(made.status == 200)
        backend.world.withLock { $0.route = afterwards }
        throw Lost()
      }
    }
    var node: NodeInspect = try await leader.get("/nodes/h2")
    node.spec.availability = .drain
    let answer = try await caller.send("POST", "/nodes/h2/update?version=\(node.version.index)", JSONText.line(node.spec))
    #expect(answer.status == 503)
    #expect(answer.text.contains("look whether it was done"), "\(answer.text)")
    #expect(!answer.text.contains("does not have a leader") && !answer.text.contains("nothing was changed"), "\(answer.text)")
  }

  @Test("a body over the limit is refused before it is parsed")
  func limit() async throws {
    let caller = Caller()
    let answer = try await caller.send("POST", "/services/create", String(repeating: "x", count: (4 << 20) + 1))
    #expect(answer.status == 413)
  }

  @Test("log options that docker refuses are refused, and times are read in both forms")
  func logOptions() async throws {
    let caller = Caller()
    let id = try await caller.create("web")
    #expect(try await caller.send("GET", "/services/web/logs").text.contains("you must choose at least one stream"))
    #expect(try await caller.send("GET", "/services/web/logs?stdout=1&since=yesterday").status == 400)
    let tasks: [TaskInspect] = try await caller.get("/tasks?" + caller.filters(#"{"service":["\#(id)"]}"#))
    let task = TaskID(tasks[0].id)!
    caller.backend.world.withLock {
      $0.logs[task] = (1...3).map {
        LogRecord(stream: $0 == 2 ? .stderr : .stdout, timestamp: Timestamp(nanoseconds: $0 * 1_000_000_000), bytes: Array("line \($0)\n".utf8))
      }
    }
    func lines(_ query: String) async throws -> [String] {
      var parser = StreamFrame.Parser()
      let response = await caller.api.serve(APIRequest(method: "GET", uri: "/services/web/logs?" + query))
      parser.append(try await response.body.collect(upTo: 1 << 20).readableBytesView)
      var lines: [String] = []
      while let frame = try parser.next() { lines.append("\(frame.kind) " + String(decoding: frame.payload, as: UTF8.self)) }
      return lines
    }
    #expect(try await lines("stdout=1&stderr=1") == ["stdout line 1\n", "stderr line 2\n", "stdout line 3\n"])
    #expect(try await lines("stdout=1") == ["stdout line 1\n", "stdout line 3\n"])
    #expect(try await lines("stdout=1&tail=1") == ["stdout line 3\n"])
    #expect(try await lines("stdout=1&since=2.5") == ["stdout line 3\n"])
    #expect(try await lines("stdout=1&since=1970-01-01T00:00:03Z") == ["stdout line 3\n"])
    #expect(try await caller.send("GET", "/services/web/logs?stdout=1&until=tomorrow").status == 400)
    #expect(try await lines("stdout=1&stderr=1&until=2") == ["stdout line 1\n", "stderr line 2\n"])
    #expect(try await lines("stdout=1&stderr=1&until=1970-01-01T00:00:02Z&tail=1") == ["stderr line 2\n"])
    #expect(try await lines("stdout=1&stderr=1&since=2&until=2.999999999") == ["stderr line 2\n"])
    #expect(try await lines("stderr=1&timestamps=1") == ["stderr 1970-01-01T00:00:02.000000000Z line 2\n"])
    let details = try await lines("stderr=1&details=1")
    #expect(
      details == ["stderr com.docker.swarm.node.id=\(tasks[0].nodeID!),com.docker.swarm.service.id=\(id),com.docker.swarm.task.id=\(task) line 2\n"])
  }

  @Test("followed logs end at `until`", .timeLimit(.minutes(1)))
  func followUntil() async throws {
    let caller = Caller()
    _ = try await caller.create("web")
    for (span, least) in [(-5_000_000_000, 0), (700_000_000, 600)] as [(Int64, Int64)] {
      let until = Timestamp(nanoseconds: Timestamp.now.nanoseconds + span)
      let begun = ContinuousClock.now
      let response = await caller.api.serve(APIRequest(method: "GET", uri: "/services/web/logs?stdout=1&follow=1&until=\(until)"))
      _ = try await response.body.collect(upTo: 1 << 20)
      #expect(ContinuousClock.now - begun >= .milliseconds(least))
    }
  }

  @Test("an image goes to every ready host, each host's result is a line, and one full disk does not stop the others")
  func images() async throws {
    let caller = Caller()
    let parts = (0..<40).map { _ in ByteBuffer(repeating: 7, count: 1000) }
    let pipe = Pipe<ByteBuffer>(capacity: 2)
    Task {
      for part in parts { await pipe.send(part) }
      pipe.finish()
    }
    let response = await caller.api.serve(APIRequest(method: "POST", uri: "/orch/v1/images/load", body: APIBody(stream: pipe)))
    #expect(response.status == 200)
    let lines = try String(buffer: try await response.body.collect(upTo: 1 << 20)).split(separator: "\n").map {
      try JSONText.decode(ImageLoadResult.self, Array($0.utf8))
    }
    #expect(lines.map(\.host) == ["h1", "h2", "h3"])
    #expect(lines.map { $0.images ?? [] } == [["web:1"], ["web:1"], []])
    #expect(lines[2].error == "no space left on device")
    #expect(caller.backend.world.withLock { $0.loaded.values.sorted() } == [40_000, 40_000])
  }

  @Test("docker's image requests go to the host that is named, or to the one that was asked; names keep their slashes")
  func dockerImages() async throws {
    let caller = Caller()
    func hosts() -> [String] { caller.backend.world.withLock { world in world.imageHosts.map { "\($0.value)" } } }
    let list: [ImageListItem] = try await caller.get("/v1.45/images/json")
    #expect(list.map(\.repoTags) == [["web:1"]])
    let found: ImageInspect = try await caller.get("/images/registry.example:5000/team/web:1/json?node=h2")
    #expect(found.repoTags == ["registry.example:5000/team/web:1"] && found.config.Cmd == ["x"] && found.host == "h2")
    #expect(found.repoDigests == ["registry.example:5000/team/web@sha256:feed"] && found.rootFS.layers == ["sha256:a", "sha256:b"])
    let history: [ImageHistoryItem] = try await caller.get("/images/web:1/history")
    #expect(history.map(\.createdBy) == ["RUN", "ENV", "ADD"] && history.map(\.size) == [7, 0, 5])
    #expect(try await caller.send("GET", "/images/gone:1/json").status == 404)
    #expect(try await caller.send("POST", "/images/web:1/tag?repo=other&tag=2&node=h1").status == 201)
    #expect(try await caller.send("DELETE", "/images/team/web:1?force=1").text.contains(#"[{"Untagged":"team/web:1"},{"Deleted":"sha256:0123"}]"#))
    #expect(
      try await caller.send("POST", "/images/prune?filters=" + percentEncoded(#"{"dangling":["false"]}"#)).text.contains(#""SpaceReclaimed":7"#))
    #expect(try await caller.send("POST", "/images/prune?filters=" + percentEncoded(#"{"until":["soon"]}"#)).status == 400)
    #expect(try await caller.send("GET", "/images/get?names=a:1&names=b:1&format=oci").text == #"["a:1", "b:1"] true!"#)
    #expect(try await caller.send("GET", "/images/json?node=nowhere").status == 404)
    #expect(try await caller.send("GET", "/images/search?term=x").status == 501)
    #expect(hosts() == ["2", "1", "1", "1", "1", "1"])
  }

  @Test("a pull is docker's lines; its credentials reach the host, and no answer")
  func dockerPull() async throws {
    let caller = Caller()
    // {"username":"ann","password":"hunter2"}
    let login = APIHeader("X-Registry-Auth", "eyJ1c2VybmFtZSI6ImFubiIsInBhc3N3b3JkIjoiaHVudGVyMiJ9")
    let response = await caller.api.serve(APIRequest(method: "POST", uri: "/images/create?fromImage=team/web&tag=1", headers: [login]))
    let text = String(buffer: try await response.body.collect(upTo: 1 << 20))
    let lines = try text.split(whereSeparator: \.isNewline).map { try JSONText.decode(ImageMessage.self, Array($0.utf8)) }
    #expect(
      lines.map { $0.status ?? "" } == [
        "Pulling from team/web", "Downloading", "Pull complete", "Digest: sha256:feed", "Status: Downloaded newer image for team/web:1",
      ], "\(text)")
    #expect(lines[1].id == "0123456789ab" && lines[1].progressDetail == .init(current: 5, total: 10))
    #expect(caller.backend.world.withLock { $0.logins.first??.password } == "hunter2" && !text.contains("hunter2"))
    // What fails before anything is said is a status.
    #expect(try await caller.send("POST", "/images/create?fromImage=gone&tag=1").status == 404)
    for (platform, status, words) in [
      ("linux/arm64", 200, "Pulling"), ("windows/amd64", 400, "hosts are Linux"), ("linux//v8", 400, "OS/ARCHITECTURE"),
      ("amd64", 400, "OS/ARCHITECTURE"),
      ("linux/amd64", 200, "Pulling"), ("linux/x86_64/v2", 200, "Pulling"), ("", 200, "Pulling"),
    ] {
      let answer = try await caller.send("POST", "/images/create?fromImage=team/web&tag=1&platform=\(percentEncoded(platform))")
      #expect(answer.status == status && answer.text.contains(words), "\(platform): \(answer.text)")
    }
    #expect(try await caller.send("POST", "/images/create?fromImage=Bad%20Name").status == 400)
    let bad = await caller.api.serve(APIRequest(method: "POST", uri: "/images/create?fromImage=web", headers: [APIHeader("X-Registry-Auth", "!!!")]))
    #expect(bad.status == 400)
    #expect(try await caller.send("POST", "/images/team/web/push?tag=1").text.contains(#""Tag":"1""#))
  }
}
