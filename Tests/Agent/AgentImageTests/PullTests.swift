import Glibc
import LinuxSystem
import Synchronization
import Testing

@testable import AgentImage

final class Counter: Sendable {
  let value = Mutex(0)
}

@Suite(.serialized, .enabled(if: geteuid() == 0 && installed("docker-registry") && installed("skopeo"))) struct Pulls {
  let folder = Folder()
  private func open(_ name: String = "images") throws -> ImageStore { try ImageStore(directory: folder.path + "/" + name) }
  private func archive() throws -> String {
    try folder.write(
      "web.tar", savedImage(layers: [Stores.layer([("base", "1")]), Stores.layer([("top", "22")])], name: "web:1", config: "{\"Cmd\":[\"x\"]}"))
  }

  @Test("an image is pulled by tag and by digest, verified, with its layers in order")
  func pulls() async throws {
    let registry = try Registry()
    let pushed = registry.push(try archive(), "web:1")
    #expect(pushed.code == 0, "\(pushed.output)")
    let store = try open()
    let phases = Mutex<[PullProgress.Phase]>([])
    let record = try await store.pull("\(registry.host)/web:1") { update in phases.withLock { $0.append(update.phase) } }
    #expect(record.reference == "\(registry.host)/web:1")
    #expect(record.config.cmd == ["x"])
    #expect(try Files.text(record.layerPaths[0] + "/base") == "1")
    #expect(try Files.text(record.layerPaths[1] + "/top") == "22")
    #expect(phases.withLock { $0.filter { $0 == .done }.count } == 2)
    let other = try open("other")
    let again = try await other.pull("\(registry.host)/web@\(record.digest)")
    #expect(again.id == record.id)
    #expect(try other.resolve("\(registry.host)/web@\(record.digest)") != nil)
    #expect(try other.resolve("\(registry.host)/web:1") == nil)
    #expect(try await other.pull("\(registry.host)/web:1@\(record.digest)", always: true).id == record.id)
    #expect(try Files.list(folder.path + "/images/ingest").isEmpty)
  }

  @Test("a missing tag, repository and digest are told as such")
  func missing() async throws {
    let registry = try Registry()
    _ = registry.push(try archive(), "web:1")
    let store = try open()
    for name in ["web:2", "none:1", "web@sha256:" + String(repeating: "0", count: 64)] {
      let error = await #expect(throws: ImageError.self) { try await store.pull("\(registry.host)/\(name)") }
      #expect(error?.kind == .notFound)
    }
    let gone = await #expect(throws: ImageError.self) { try await store.pull("127.0.0.1:1/web:1") }
    #expect(gone?.kind == .network)
  }

  @Test("a layer and a manifest that are not what their digest says are refused, and nothing is kept")
  func tampered() async throws {
    let registry = try Registry()
    _ = registry.push(try archive(), "web:1")
    let store = try open()
    let good = try await store.pull("\(registry.host)/web:1")
    let paths = try Files.list(registry.blobs).flatMap { prefix in
      try Files.list("\(registry.blobs)/\(prefix)").map { (hex: $0, path: "\(registry.blobs)/\(prefix)/\($0)/data") }
    }
    #expect(paths.count == 4)
    for (hex, path) in paths {
      let bytes = try Files.read(path)
      var changed = bytes
      changed[bytes.count / 2] ^= 1
      try Files.writeAtomically(path, changed, mode: 0o644, durable: false)
      let fresh = try open("fresh-" + hex)
      for name in ["web:1", "web@\(good.digest)"] {
        let error = await #expect(throws: ImageError.self) { try await fresh.pull("\(registry.host)/\(name)") }
        // The registry itself notices a changed manifest when it is asked by digest.
        if hex != good.digest.hex { #expect(error?.kind == .corrupt, "\(String(describing: error))") }
      }
      #expect(fresh.list().isEmpty)
      #expect(try Files.list(fresh.directory + "/ingest").isEmpty)
      #expect(try Files.list(fresh.directory + "/layers").count <= 1)
      try Files.writeAtomically(path, bytes, mode: 0o644, durable: false)
      #expect(try await fresh.pull("\(registry.host)/web:1").id == good.id)
    }
  }

  @Test("pulls at the same time download each layer once")
  func together() async throws {
    let registry = try Registry()
    _ = registry.push(try archive(), "web:1")
    let store = try open()
    let done = Counter()
    try await withThrowingTaskGroup(of: Void.self) { group in
      for _ in 0..<10 {
        group.addTask {
          _ = try await store.pull("\(registry.host)/web:1") { update in if update.phase == .done { done.value.withLock { $0 += 1 } } }
        }
      }
      try await group.waitForAll()
    }
    #expect(done.value.withLock { $0 } == 2)
  }

  @Test("a registry with a password wants it")
  func credentials() async throws {
    let registry = try Registry(.password)
    let pushed = registry.push(try archive(), "web:1", credentials: "user:secret")
    #expect(pushed.code == 0, "\(pushed.output)")
    let store = try open()
    for credentials in [nil, RegistryCredentials(username: "user", password: "wrong")] {
      let error = await #expect(throws: ImageError.self) { try await store.pull("\(registry.host)/web:1", credentials: credentials) }
      #expect(error?.kind == .unauthorized)
    }
    #expect(try await store.pull("\(registry.host)/web:1", credentials: .init(username: "user", password: "secret")).config.cmd == ["x"])
  }

  @Test("challenges are read, several in a header too")
  func challenges() {
    #expect(
      Challenge.all(["Bearer realm=\"https://a/t?x=1,2\", service=\"s\",scope=\"repository:a/b:pull,push\""])
        == [Challenge(scheme: "bearer", parameters: ["realm": "https://a/t?x=1,2", "service": "s", "scope": "repository:a/b:pull,push"])])
    #expect(
      Challenge.all(["Basic realm=x, Bearer realm=\"a\\\"b\"", "Negotiate"]) == [
        Challenge(scheme: "basic", parameters: ["realm": "x"]), Challenge(scheme: "bearer", parameters: ["realm": "a\"b"]),
        Challenge(scheme: "negotiate", parameters: [:]),
      ])
    #expect(Challenge.all(["", ",,", "=", "\""]).allSatisfy { $0.parameters.isEmpty })
  }
}
