import Glibc
import LinuxSystem
import Model
import Synchronization
import Testing

@testable import AgentImage

/// Pulls that want the same at the same time.
@Suite(.serialized, .enabled(if: geteuid() == 0 && installed("docker-registry") && installed("skopeo"))) struct Shares {
  private let folder = Folder()
  private func open() throws -> ImageStore {
    var configuration = ImageStoreConfiguration()
    configuration.firstPause = .milliseconds(20)
    configuration.attempts = 2
    return try ImageStore(directory: folder.path + "/images", configuration: configuration)
  }
  private func filled(_ names: String...) throws -> Registry {
    let registry = try Registry()
    let path = try folder.write("web.tar", savedImage(layers: [Registries.noise(300_000)], name: "web:1"))
    for name in names { #expect(registry.push(path, name, extra: ["--dest-compress=false"]).code == 0) }
    return registry
  }
  private static func isLayer(_ request: HTTPListener.Request) -> Bool { request.target.contains("/blobs/") }
  private func eventually(_ what: String, _ condition: () -> Bool) async throws {
    for _ in 0..<500 where !condition() { try await Task.sleep(for: .milliseconds(10)) }
    #expect(condition(), "\(what)")
  }
  /// A gate that the faults of a proxy wait at.
  private final class Gate: Sendable {
    private let open = Mutex(false)
    func lift() { open.withLock { $0 = true } }
    func pass() { for _ in 0..<3000 where !open.withLock({ $0 }) { usleep(10_000) } }
  }

  enum Harm: CaseIterable { case wrong, missing, silent }
  /// The configuration comes first; it is small.
  private func harm(_ harm: Harm, _ gate: Gate, _ config: String) -> @Sendable (HTTPListener.Request, Int) -> FaultProxy.Fault? {
    { request, _ in
      guard Self.isLayer(request), !request.target.hasSuffix(config) else { return nil }
      gate.pass()
      switch harm {
      case .wrong: return .flip(100_000)
      case .missing: return .status(404)
      case .silent: return .cut(0)
      }
    }
  }

  @Test("a registry that is wrong, lacks a layer or does not answer spoils no pull of the same layer from another", arguments: Harm.allCases)
  func others(kind: Harm) async throws {
    let registry = try filled("web:1")
    let store = try open()
    let id = try await store.pull("\(registry.host)/web:1").id
    try await store.remove("\(registry.host)/web:1")
    let gate = Gate()
    let bad = try FaultProxy(registry.port, fault: harm(kind, gate, id.description))
    let good = try FaultProxy(registry.port)
    async let first = store.pull("\(bad.host)/web:1")
    try await eventually("the bad one is asked") { bad.requests("GET", "/blobs/").count == 2 }
    let second = Task { try await store.pull("\(good.host)/web:1") }
    if kind == .silent {
      // Its layer is not waited for.
      #expect(try await second.value.id == id)
      gate.lift()
    } else {
      try await eventually("the good one was asked") { good.requests("GET", "/manifests/").count == 1 }
      try await Task.sleep(for: .milliseconds(300))
      gate.lift()
      #expect(try await second.value.id == id)
    }
    // Wrong: or it found the layer here.
    _ = try? await first
    #expect(try Files.list(store.directory + "/ingest").isEmpty)
  }

  @Test("a repository that lacks a layer spoils no pull of it from another of the same registry, and a whole one is shared")
  func repositories() async throws {
    let registry = try filled("web:1", "other:1")
    let store = try open()
    let id = try await store.pull("\(registry.host)/web:1").id
    for breaks in [true, false] {
      _ = try await store.prune(all: true)
      let gate = Gate()
      let proxy = try FaultProxy(registry.port) { request, _ in
        guard Self.isLayer(request), !request.target.hasSuffix(id.description), request.target.contains("/web/") else { return nil }
        gate.pass()
        return breaks ? .status(404) : nil
      }
      async let first = store.pull("\(proxy.host)/web:1")
      try await eventually("its layer is asked for") { proxy.requests("GET", "/web/blobs/").count == 2 }
      async let second = store.pull("\(proxy.host)/other:1")
      try await eventually("the other is asked for") { proxy.requests("GET", "/other/blobs/").count == 1 }
      try await Task.sleep(for: .milliseconds(300))
      gate.lift()
      #expect(try await second.id == id)
      let result: ImageRecord? = try? await first
      #expect((result == nil) == breaks)
      #expect(proxy.requests("GET", "/other/blobs/").count == (breaks ? 2 : 1))
    }
  }

  @Test("after a layer's failure all who waited for it share the next attempt, and its error", arguments: [true, false])
  func nextAttempt(_ recovers: Bool) async throws {
    let tags = (1...6).map { "web:\($0)" }
    let registry = try filled("web:1", "web:2", "web:3", "web:4", "web:5", "web:6")
    let store = try open()
    let id = try await store.pull("\(registry.host)/web:1").id
    _ = try await store.prune(all: true)
    let gate = Gate()
    let asked = Mutex(0)
    let proxy = try FaultProxy(registry.port) { request, _ in
      guard Self.isLayer(request), !request.target.hasSuffix(id.description) else { return nil }
      let number = asked.withLock { asked in
        asked += 1
        return asked
      }
      if number == 1 { gate.pass() } else { usleep(300_000) }
      return number == 1 || !recovers ? .status(404) : nil
    }
    let pulls = tags.map { tag in Task { try await store.pull("\(proxy.host)/\(tag)").id } }
    // Their configs and the one layer; then all are at it.
    try await eventually("all ask") { proxy.requests("GET", "/blobs/").count == tags.count + 1 }
    try await Task.sleep(for: .milliseconds(300))
    gate.lift()
    var results: [Result<Digest, any Error>] = []
    for pull in pulls { results.append(await pull.result) }
    // Who began the first attempt has its error.
    #expect(results.filter { (try? $0.get()) == id }.count == (recovers ? tags.count - 1 : 0), "\(results)")
    #expect(asked.withLock { $0 } == 2)
    #expect(try Files.list(store.directory + "/ingest").isEmpty)
  }

  @Test("a pull that nobody waits for ends; as long as one does it goes on")
  func cancelled() async throws {
    let registry = try filled("web:1")
    let store = try open()
    let id = try await store.pull("\(registry.host)/web:1").id
    _ = try await store.prune(all: true)
    let gate = Gate()
    let proxy = try FaultProxy(registry.port) { request, _ in
      guard Self.isLayer(request), !request.target.hasSuffix(id.description) else { return nil }
      gate.pass()
      return nil
    }
    let name = "\(proxy.host)/web:1"
    let waiting = (0..<3).map { _ in Task { try await store.pull(name) } }
    try await eventually("its layer is asked for") { proxy.requests("GET", "/blobs/").count == 2 }
    try await Task.sleep(for: .milliseconds(100))
    // Whoever leaves does so at once, and takes nothing from the others.
    waiting[0].cancel()
    await #expect(throws: CancellationError.self) { try await waiting[0].value }
    waiting[1].cancel()
    await #expect(throws: CancellationError.self) { try await waiting[1].value }
    #expect(store.content.pins.operations == 1)
    waiting[2].cancel()
    await #expect(throws: CancellationError.self) { try await waiting[2].value }
    try await eventually("nothing goes on") {
      store.content.pins.operations == 0 && (try? Files.list(store.directory + "/ingest")) == []
    }
    // Who comes then is not given the end of those before.
    async let again = store.pull(name)
    try await Task.sleep(for: .milliseconds(100))
    gate.lift()
    #expect(try await again.id == id)
    let cancelled = Task { () throws -> ImageRecord in
      withUnsafeCurrentTask { $0?.cancel() }
      return try await store.pull(name, always: true)
    }
    await #expect(throws: CancellationError.self) { try await cancelled.value }
  }
}
