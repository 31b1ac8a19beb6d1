import API
import APIClient
import ControlAPI
import Model
import Testing

@Suite struct FileTests {
  let caller = Caller()

  func make(_ kind: String, _ name: String, _ data: String = "c2VjcmV0", more: String = "") async throws -> (status: Int, text: String, id: String) {
    let answer = try await caller.send("POST", "/v1.45/\(kind)s/create", #"{"Name":"\#(name)","Labels":{"a":"b"},"Data":"\#(data)"\#(more)}"#)
    let id = (try? JSONText.decode(FileCreateResponse.self, Array(answer.text.utf8)))?.id ?? ""
    return (answer.status, answer.text, id)
  }

  @Test("a secret is never shown, a config is; both are found by id, name and prefix", arguments: ["secret", "config"])
  func show(kind: String) async throws {
    let made = try await make(kind, "key")
    #expect(made.status == 201)
    for name in ["key", made.id, String(made.id.prefix(8))] {
      let shown = try await caller.get("/\(kind)s/\(name)", as: FileInspect.self)
      #expect(shown.id == made.id && shown.spec.name == "key" && shown.spec.labels == ["a": "b"])
      #expect(shown.spec.data.map { Array($0) } == (kind == "config" ? Array("secret".utf8) : nil))
    }
    let list = try await caller.send("GET", "/\(kind)s")
    #expect(list.text.contains(made.id) && list.text.contains("c2VjcmV0") == (kind == "config"))
    // What is kept is not what was sent.
    let kept = caller.backend.world.withLock { Array($0.state.files.values) }
    #expect(kept.count == 1 && (kept[0].data == Array("secret".utf8)) == (kind == "config"))
    let other = try await caller.send("GET", "/\(kind == "secret" ? "config" : "secret")s/key")
    #expect(other.status == 404)
  }

  @Test("lists are filtered as docker's are")
  func filters() async throws {
    for name in ["one", "onetwo", "two"] { _ = try await make("secret", name) }
    func names(_ json: String) async throws -> [String] {
      try await caller.get("/secrets?\(caller.filters(json))", as: [FileInspect].self).map(\.spec.name)
    }
    #expect(try await names(#"{"name":["one"]}"#) == ["one", "onetwo"])
    #expect(try await names(#"{"names":["one"]}"#) == ["one"])
    #expect(try await names(#"{"label":["a=b"]}"#).count == 3)
    #expect(try await names(#"{"label":["a=c"]}"#) == [])
  }

  @Test(
    "what cannot be kept is refused in docker's words",
    arguments: [
      ("a b", "eA==", "", 400, "name 'a b' is not valid"), ("key", "", "", 400, "must be larger than 0 and less than 512000 bytes"),
      ("taken", "eA==", "", 409, "already exists"), ("key", "eA==", #","Templating":{"Name":"golang"}"#, 501, "template"),
      ("key", "eA==", #","Driver":{"Name":"vault"}"#, 501, "driver 'vault'"), ("key", "%%", "", 400, "invalid JSON"),
    ])
  func refusals(name: String, data: String, more: String, status: Int, words: String) async throws {
    _ = try await make("secret", "taken")
    let made = try await make("secret", name, data, more: more)
    #expect(made.status == status && made.text.contains(words), "\(made)")
  }

  @Test("the bounds of size are docker's", arguments: [("secret", 500 << 10), ("config", 1000 << 10)])
  func size(kind: String, bound: Int) async throws {
    func spec(_ size: Int) -> String { JSONText.line(FileSpec(name: "n\(size)", data: [UInt8](repeating: 65, count: size))) }
    #expect(try await caller.send("POST", "/\(kind)s/create", spec(bound - 1)).status == 201)
    let refused = try await caller.send("POST", "/\(kind)s/create", spec(bound))
    #expect(refused.status == 400 && refused.text.contains("less than \(bound) bytes"), "\(refused.text)")
  }

  @Test("labels change, contents do not; a version of before is out of sequence")
  func update() async throws {
    let made = try await make("secret", "key")
    let version = try await caller.get("/secrets/key", as: FileInspect.self).version.index
    func update(_ body: String, _ version: UInt64) async throws -> (Int, String) {
      let answer = try await caller.send("POST", "/secrets/\(made.id)/update?version=\(version)", body)
      return (answer.status, answer.text)
    }
    #expect(try await update(#"{"Name":"key","Labels":{"x":"y"}}"#, version).0 == 200)
    #expect(try await caller.get("/secrets/key", as: FileInspect.self).spec.labels == ["x": "y"])
    #expect(try await update(#"{"Name":"key","Labels":{}}"#, version).1.contains("update out of sequence"))
    // The same content is no change (docker stack deploy sends it).
    #expect(try await update(#"{"Name":"key","Labels":{},"Data":"c2VjcmV0"}"#, version + 1).0 == 200)
    let other = try await update(#"{"Name":"key","Labels":{},"Data":"b3RoZXI="}"#, version + 2)
    #expect(other.0 == 400 && other.1.contains("only updates to Labels are allowed"))
  }

  @Test("one in use is not removed, and says by whom; references are written out with their defaults")
  func inUse() async throws {
    let made = try await make("secret", "key")
    let answer = try await caller.send(
      "POST", "/services/create",
      #"{"Name":"web","TaskTemplate":{"ContainerSpec":{"Image":"i","Secrets":[{"SecretName":"key","File":{"Name":"k","Mode":256}}]}}}"#)
    #expect(answer.status == 201, "\(answer.text)")
    let spec = try await caller.get("/services/web", as: ServiceInspect.self).spec.taskTemplate.containerSpec
    #expect(spec.files == [FileReference(kind: .secret, target: FileTarget(name: "k", uid: "0", gid: "0", mode: 0o400), id: made.id, name: "key")])
    let refused = try await caller.send("DELETE", "/secrets/key")
    #expect(refused.status == 400 && refused.text.contains("secret 'key' is in use by the following service: web"), "\(refused.text)")
    #expect(try await caller.send("DELETE", "/services/web").status == 200)
    #expect(try await caller.send("DELETE", "/secrets/key").status == 204)
    #expect(try await caller.send("GET", "/secrets/key").status == 404)
  }

  @Test("a stack brings its secrets; the same content again changes nothing, another is refused, and they go with the stack")
  func stack() async throws {
    func deploy(_ content: String) async throws -> (status: Int, text: String) {
      var spec = ServiceSpec(name: "st_web", taskTemplate: TaskSpec(containerSpec: ContainerSpec(image: "i")))
      spec.taskTemplate.containerSpec.files = [FileReference(kind: .secret, target: FileTarget(name: "key"), id: "", name: "st_key")]
      let body = StackDeployRequest(
        manifest: "m", services: [spec], networks: [], volumes: [],
        secrets: [FileSpec(name: "st_key", labels: [StackLabel.namespace: "st"], data: Array(content.utf8))])
      let answer = try await caller.send("POST", "/orch/v1/stacks/st", JSONText.line(body))
      return (answer.status, answer.text)
    }
    let first = try await deploy("one")
    #expect(first.status == 200 && first.text.contains(#""Created":["secret st_key","service st_web"]"#), "\(first.text)")
    let again = try await deploy("one")
    #expect(again.text.contains(#""Unchanged":["secret st_key","service st_web"]"#), "\(again.text)")
    let other = try await deploy("two")
    #expect(other.status == 409 && other.text.contains("another name"), "\(other.text)")
    let down = try await caller.send("DELETE", "/orch/v1/stacks/st")
    #expect(down.status == 200 && down.text.contains("secret st_key"), "\(down.text)")
    #expect(try await caller.get("/secrets", as: [FileInspect].self).isEmpty)
  }
}
