import API
import APIClient
import ControlAPI
import Model
import Testing

// `--with-registry-auth`: docker's X-Registry-Auth beside a service.
@Suite struct RegistryLoginTests {
  let caller = Caller()
  private let web = #"{"Name":"web","TaskTemplate":{"ContainerSpec":{"Image":"reg.example/web:1"}}"#
  private func header(_ password: String) throws -> [APIHeader] {
    [APIHeader("X-Registry-Auth", try RegistryCredentials(username: "ann", password: password).header(for: "reg.example"))]
  }
  private var service: Service { caller.backend.world.withLock { $0.state.service(named: "web")! } }
  private var spec: ServiceSpec { caller.backend.world.withLock { $0.state.spec(of: $0.state.service(named: "web")!)! } }
  private func update(_ headers: [APIHeader], _ more: String = "", query: String = "") async throws -> (status: Int, text: String) {
    let answer = try await caller.send(
      "POST", "/services/web/update?version=\(service.version)" + query, web + more + "}", headers: headers)
    return (answer.status, answer.text)
  }

  @Test("is kept sealed, shown nowhere, and stays through an update that brings none")
  func kept() async throws {
    let secret = try header("pass-1")
    #expect(try await caller.send("POST", "/services/create", web + "}", headers: secret).status == 201)
    let login = try #require(spec.registryLogin)
    #expect(login.data != Array(secret[0].value.utf8))
    for shown in ["/services/web", "/services", "/tasks", "/services/web?insertDefaults=true"] {
      let text = try await caller.send("GET", shown).text
      #expect(!text.contains("OrchRegistryLogin") && !text.contains(secret[0].value), "\(shown)")
    }
    #expect("\(spec)".contains("data:") == false)
    #expect(try await update([], #","Labels":{"a":"b"}"#).status == 200)
    #expect(spec.registryLogin == login && spec.labels == ["a": "b"])
    // The one before is not shown either.
    #expect(try await !caller.send("GET", "/services/web").text.contains("OrchRegistryLogin"))
  }

  @Test("a new password replaces no task, the same one makes no revision, nobody takes it away")
  func changed() async throws {
    #expect(try await caller.send("POST", "/services/create", web + "}", headers: try header("one")).status == 201)
    #expect(try await update(try header("one")).status == 200)
    #expect(service.latest == 1)
    let before = spec.registryLogin
    // {"password":"one","username":"ann"}: the same, in another order.
    #expect(try await update([APIHeader("X-Registry-Auth", "eyJwYXNzd29yZCI6Im9uZSIsInVzZXJuYW1lIjoiYW5uIn0=")]).status == 200)
    #expect(service.latest == 1 && spec.registryLogin == before)
    #expect(try await update(try header("two")).status == 200)
    let (current, template) = caller.backend.world.withLock { world in
      let service = world.state.service(named: "web")!
      return (service.current, world.state.revision(service.id, service.current)!.template)
    }
    #expect(current == 2 && template == 1 && spec.registryLogin != before)
    // docker service update --rollback: what it was told before.
    #expect(try await update([], query: "&registryAuthFrom=previous-spec").status == 200)
    #expect(spec.registryLogin == before)
    // docker's word for nobody: "{}".
    #expect(try await update([APIHeader("X-Registry-Auth", "e30=")]).status == 200)
    #expect(spec.registryLogin == nil)
  }

  @Test("what a body says of it is not taken, and what is no header is refused")
  func refused() async throws {
    let body = web + #","OrchRegistryLogin":{"id":"\#(FileID(value: 5))","data":[1]}}"#
    #expect(try await caller.send("POST", "/services/create", body).status == 201)
    #expect(spec.registryLogin == nil)
    let answer = try await update([APIHeader("X-Registry-Auth", "no base64!")])
    #expect(answer.status == 400 && answer.text.contains("X-Registry-Auth"))
  }

  @Test("a stack's services have each their own; the same deploy changes nothing")
  func stack() async throws {
    let spec = ServiceSpec(name: "st_web", taskTemplate: TaskSpec(containerSpec: ContainerSpec(image: "reg.example/web:1")))
    let other = ServiceSpec(name: "st_db", taskTemplate: TaskSpec(containerSpec: ContainerSpec(image: "db:1")))
    var request = StackDeployRequest(manifest: "x", services: [spec, other], networks: [], volumes: [])
    request.registryLogins = ["st_web": try header("one")[0].value]
    func deploy() async throws -> StackDeployResponse {
      let answer = try await caller.send("POST", "/orch/v1/stacks/st", JSONText.line(request))
      #expect(answer.status == 200, "\(answer.text)")
      return try JSONText.decode(StackDeployResponse.self, Array(answer.text.utf8))
    }
    #expect(try await deploy().created.count == 2)
    let logins = caller.backend.world.withLock { world in
      ["st_web", "st_db"].map { world.state.spec(of: world.state.service(named: $0)!)!.registryLogin != nil }
    }
    #expect(logins == [true, false])
    #expect(try await deploy().unchanged.filter { $0.hasPrefix("service") }.count == 2)
    request.registryLogins = nil
    #expect(try await deploy().unchanged.filter { $0.hasPrefix("service") }.count == 2)
    #expect(try await !caller.send("GET", "/orch/v1/stacks/st").text.contains("OrchRegistryLogin"))
  }
}
